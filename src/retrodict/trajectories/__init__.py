"""What was seen: episodes, recordings, windows, action spaces, normalisers, and the files they are kept in."""

from retrodict.trajectories.actions import ActionSpace, Box, Discrete, MuLaw, MultiBinary
from retrodict.trajectories.episodes import Episode
from retrodict.trajectories.features import Feature
from retrodict.trajectories.recordings import Recordings, from_arrays, from_samples
from retrodict.trajectories.training_run import TrainingRun
from retrodict.trajectories.windows import Span, Window, Windows

__all__ = [
    "ActionSpace",
    "Box",
    "Discrete",
    "Episode",
    "Feature",
    "MuLaw",
    "MultiBinary",
    "Recordings",
    "Span",
    "TrainingRun",
    "Window",
    "Windows",
    "from_arrays",
    "from_samples",
]
