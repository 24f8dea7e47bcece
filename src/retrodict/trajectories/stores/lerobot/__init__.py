"""LeRobotDataset: read v3.0 (and v2.0, v2.1 in place) and write v3.0, with pyarrow and PyAV alone."""

from retrodict.trajectories.stores.lerobot.labels import EpisodeLabels, LabelWriter, write_labelled
from retrodict.trajectories.stores.lerobot.reader import KIND, read, recognises
from retrodict.trajectories.stores.lerobot.writer import Writer, write

__all__ = ["KIND", "EpisodeLabels", "LabelWriter", "Writer", "read", "recognises", "write", "write_labelled"]
