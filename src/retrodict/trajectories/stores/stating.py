"""What an action means where the user says it: in place of what a file says, or does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gymnasium

from retrodict.errors import DataError
from retrodict.trajectories.actions import ActionSpace, Box, Discrete, Part, outsider
from retrodict.trajectories.recordings import Recordings
from retrodict.trajectories.stores.spaces import action_space, leaves, space_of_gymnasium

Stated = ActionSpace | gymnasium.Space[Any] | Sequence[float]
"""A space, or the range of continuous actions: low and high for all their numbers, or for each number in turn."""

RANGE_UNKNOWN = "the range of its numbers is unknown (actions=(low, high), on the command line --action-range LOW HIGH, says it)"


def stated_space(stated: Stated | None, known: ActionSpace) -> ActionSpace:
    """The space of actions of which `known` would be said: that one where nothing is stated.

    What the stated one does not say (names of numbers, mode, frame of reference, timing) is taken from `known`.

    Raises DataError where what is stated is for another number of numbers, or states a range of choices or buttons.
    """
    if stated is None:
        return known
    if isinstance(stated, ActionSpace):
        space = stated
    elif isinstance(stated, gymnasium.Space):
        space = replace(action_space(leaves(space_of_gymnasium(stated))), leads=None)  # of timing it says nothing
    else:
        return replace(known, parts=_ranged(stated, known))
    if space.width != known.width:
        raise DataError(f"the stated actions have {space.width} numbers ({space}); those recorded have {known.width}.")
    if not isinstance(stated, (ActionSpace, gymnasium.spaces.Dict, gymnasium.spaces.Tuple)):  # it names nothing
        space = _called(space, known.names)
    unsaid = {"mode": space.mode == "unknown", "frame": space.frame == "unknown", "leads": space.leads is None}
    return replace(space, **{name: getattr(known, name) for name, taken in unsaid.items() if taken})


def check_stated(recordings: Recordings) -> None:
    """Raise DataError naming episode, step and value where a recorded action is not of the space, or where there are none."""
    if recordings.actions is None:
        raise DataError(f"no episode of {recordings[0].source} carries actions, so nothing can be stated of them.")
    if said := outsider(recordings):
        raise DataError(f"{said}, as is stated; state what holds for all actions, or mend the data.")


def _ranged(ends: Sequence[float], known: ActionSpace) -> dict[str, Part]:
    """The parts of a space with the range of their numbers."""
    if len(ends) not in (2, 2 * known.width):
        raise DataError(
            f"a range is low and high, for all {known.width} numbers of an action or for each in turn; got {len(ends)} numbers."
        )
    ranges = [(float(low), float(high)) for low, high in zip(ends[::2], ends[1::2], strict=True)]
    ranges = ranges * known.width if len(ranges) == 1 else ranges
    parts: dict[str, Part] = {}
    for (name, part), where in zip(known.parts.items(), known.slices.values(), strict=True):
        if not isinstance(part, Box):
            raise DataError(f"the part {name!r} of an action is a {part.kind}, which has no range; state the whole space.")
        mine = ranges[where]
        if len(set(mine)) == 1:
            parts[name] = replace(part, low=mine[0][0], high=mine[0][1])
        else:
            entries = zip(part.names, mine, strict=True)
            parts |= {entry: replace(part, names=(entry,), low=low, high=high) for entry, (low, high) in entries}
    return parts


def _called(space: ActionSpace, names: Sequence[str]) -> ActionSpace:
    """The same space with other names for its numbers."""
    called = dict(zip(space.names, names, strict=True))
    return replace(
        space,
        parts={
            called.get(name, name): part
            if isinstance(part, Discrete)
            else replace(part, names=tuple(called[entry] for entry in part.names))
            for name, part in space.parts.items()
        },
    )
