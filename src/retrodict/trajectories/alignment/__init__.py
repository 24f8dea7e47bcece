"""Whether video and actions are in step: found before anything is learned, and mended on request."""

from retrodict.trajectories.alignment.align import Alignment, EpisodeLag, align, mend
from retrodict.trajectories.alignment.look import check_alignment

__all__ = ["Alignment", "EpisodeLag", "align", "check_alignment", "mend"]
