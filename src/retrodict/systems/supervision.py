"""A look at recorded actions before anything is learned from them: what is impossible is refused, what is missing is named."""

from __future__ import annotations

import warnings

import numpy as np

from retrodict.errors import DataError
from retrodict.systems.contract import Spec
from retrodict.trajectories import ActionSpace, Box, Discrete, MultiBinary, Recordings
from retrodict.trajectories.features import ACTION


def continuous_space(spec: Spec, who: str) -> ActionSpace:
    """What an action is made of; raises DataError where a part of it is not continuous."""
    space = spec.actions if spec.actions is not None else ActionSpace.unknown(spec.features[ACTION])
    for name, part in space.parts.items():
        if not isinstance(part, Box):
            raise DataError(
                f"{who} says continuous actions and {name!r} is a {type(part).__name__}; behavior-cloning learns buttons and "
                "choices."
            )
    return space


def recorded_actions(recordings: Recordings, space: ActionSpace, who: str) -> np.ndarray:
    """All recorded actions (n, width), gaps left out.

    Warns of buttons and choices that never occur, which a model can then never infer, and of the share of values that a quantiser
    clips.

    Raises DataError, naming the episode, where a button is neither 0 nor 1 or a choice does not exist; and where nothing is left
    to learn from, because every action is the null action.
    """
    pieces = []
    for episode in recordings:
        action = np.asarray(episode[ACTION], np.float32).reshape(episode.length, -1)
        if action.shape[1] != space.width:
            raise DataError(f"{who}: {episode} has actions of {action.shape[1]} numbers, the action space has {space.width}.")
        action = action[episode.there(ACTION)]
        for name, part in space.parts.items():
            _refuse_impossible(action[:, space.slices[name]], name, part, f"{who}: {episode}")
        pieces.append(action)
    actions = np.concatenate(pieces)
    if not len(actions):
        raise DataError(f"{who}: every step of {ACTION!r} is marked as missing; nothing is left to learn from.")
    if space.null is not None and (actions == np.asarray(space.null, np.float32)).all():
        raise DataError(f"{who}: all {len(actions)} recorded actions are the null action; nothing can be learned from them.")
    for name, part in space.parts.items():
        _name_what_is_missing(actions[:, space.slices[name]], name, part, who)
    return actions


def _refuse_impossible(values: np.ndarray, name: str, part: object, where: str) -> None:
    if isinstance(part, MultiBinary):
        wrong, allowed = ~np.isin(values, (0.0, 1.0)), "0 or 1"
    elif isinstance(part, Discrete):
        wrong, allowed = ~np.isin(values, np.arange(part.n)), f"a whole number from 0 to {part.n - 1}"
    else:
        return
    if wrong.any():
        raise DataError(f"{where}: {name!r} of an action is {values[wrong][0]:g}, expected {allowed}.")


def _name_what_is_missing(values: np.ndarray, name: str, part: object, who: str) -> None:
    if isinstance(part, MultiBinary):
        never = [button for button, pressed in zip(part.names, values.max(0), strict=True) if not pressed]
        if never:
            warnings.warn(f"{who}: never pressed in the labels, so never inferred: {', '.join(never)}.", stacklevel=2)
    elif isinstance(part, Discrete):
        never = [choice for i, choice in enumerate(part.names) if not (values == i).any()]
        if never:
            warnings.warn(f"{who}: {name!r} is never one of {', '.join(never)} in the labels, so never inferred.", stacklevel=2)
    elif isinstance(part, Box) and part.quantiser is not None:
        beyond = np.abs(values) > part.quantiser.limit * (1 + 1e-6)
        if beyond.any():
            count, share = int(beyond.any(1).sum()), beyond.any(1).mean()
            limit = part.quantiser.limit
            warnings.warn(
                f"{who}: {name!r} lies beyond ±{limit:g} at {count} steps ({share:.2%}); it is clipped there.", stacklevel=2
            )
