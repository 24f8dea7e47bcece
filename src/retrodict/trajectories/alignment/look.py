"""A look at whether actions are in step with what was seen, quick enough to be taken before every fit and every labelling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.alignment.align import align
from retrodict.trajectories.columns import Slice
from retrodict.trajectories.episodes import Episode
from retrodict.trajectories.features import ACTION
from retrodict.trajectories.frames import FrameColumn
from retrodict.trajectories.recordings import Recordings

#: How many episodes are looked at, and how many steps from the start of each.
EPISODES, STEPS = 12, 300
LAGS = range(-2, 3)


def check_alignment(recordings: Recordings) -> str | None:
    """One sentence where actions and observations cannot be in step; None where they may be, or it cannot be told.

    It speaks of what no world can do: what an action does shows before the action, or earlier or later than in the other
    episodes. Actions that all show late may be those of a world that answers late, as most robots do; `align` names these too.

    Looks at the beginnings of some episodes only, and decodes no more frames than those.
    """
    carrying = [episode for episode in recordings if ACTION in episode]
    if recordings.independent or not carrying:
        return None
    chosen = np.unique(np.linspace(0, len(carrying) - 1, min(EPISODES, len(carrying))).astype(int))
    try:
        return align(recordings.of(_beginning(carrying[i]) for i in chosen), LAGS).impossible
    except DataError:
        return None


def _beginning(episode: Episode) -> Episode:
    length = min(episode.length, STEPS)
    slices = {
        name: Slice(where.column.part(where.start, length)) if isinstance(where.column, FrameColumn) else where
        for name, where in episode.slices.items()
    }
    return replace(episode, length=length, slices=slices)
