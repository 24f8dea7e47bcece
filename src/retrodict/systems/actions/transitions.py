"""What an inverse model and an offline learner must know of transitions: where each step led, and how far actions reach."""

from __future__ import annotations

import itertools
import warnings

import numpy as np

from retrodict.errors import DataError
from retrodict.systems.supervision import recorded_actions
from retrodict.trajectories import ActionSpace, Box, Episode, Feature, Recordings
from retrodict.trajectories.features import FINAL, NEXT_STATE, STATE, VALID
from retrodict.trajectories.normalise import Normaliser

JUMP, MUCH = 10.0, 0.25
"""An episode is likely to be in other units where the means of more than this share of its state lie so many deviations from the
others'. One number alone may do so: a body that lies on its back.
"""


def successors(recordings: Recordings) -> Recordings:
    """The recordings with the state that each step led to, `next.observation.state`.

    It is the state of the row that follows, and after the last row the final observation where the episode kept one. Where it
    kept none, the last step has no successor and `valid.next.observation.state` is False there. Recordings that have the
    feature already come back as they are.
    """
    if NEXT_STATE in recordings.features or STATE not in recordings.features:
        return recordings
    following: list[np.ndarray | None] = []
    known: list[np.ndarray | None] = []
    for episode in recordings:
        if STATE not in episode:
            following.append(None)
            known.append(None)
            continue
        state, final = np.asarray(episode[STATE]), episode.meta.get(FINAL, {}).get(STATE)
        last = state[-1:] if final is None else np.asarray(final, state.dtype).reshape(state[-1:].shape)
        following.append(np.concatenate([state[1:], last]))
        known.append((np.arange(episode.length) < episode.length - (final is None))[:, None])
    made = recordings.with_column(NEXT_STATE, following, recordings.features[STATE])
    return made.with_column(VALID + NEXT_STATE, known, Feature("bool", (1,)))


def cut_at_ends(recordings: Recordings) -> Recordings:
    """The recordings with every episode cut after each step that ended it or cut it off (`Episode.over`).

    What follows such a step is neither where the step led nor earned by it. Recordings whose episodes go on to their last steps
    come back as they are.
    """
    pieces: list[Episode] = []
    for episode in recordings:
        bounds = [0, *(np.flatnonzero(episode.over()[:-1]) + 1).tolist(), episode.length]
        pieces += [episode] if len(bounds) == 2 else [episode.part(*between) for between in itertools.pairwise(bounds)]
    return recordings if len(pieces) == len(recordings) else recordings.of(pieces)


def reach(space: ActionSpace | None, who: str) -> Normaliser:
    """Brings flat actions (..., width) from their range to [-1, 1].

    Raises DataError unless every part of the action is continuous and says its range.
    """
    if space is None:
        raise DataError(f"{who} needs an action space that says what the numbers of an action are and how far they reach.")
    low: list[float] = []
    high: list[float] = []
    for name, part in space.parts.items():
        if not isinstance(part, Box):
            raise DataError(f"{who} works with continuous actions; the part {name!r} of these is a {part.kind}.")
        if part.low is None or part.high is None:
            raise DataError(
                f"{who} needs the range of {', '.join(part.names)}, which the recordings do not say: open them with "
                "actions=(low, high), on the command line --action-range LOW HIGH."
            )
        low += [part.low] * part.width
        high += [part.high] * part.width
    return Normaliser.box(np.array(low), np.array(high))


def check_actions(recordings: Recordings, space: ActionSpace | None, who: str) -> None:
    """Look at recorded actions before they are learned from; warns where one number of them never changes.

    Raises DataError unless every part of the action is continuous and says its range.
    """
    reach(space, who)
    assert space is not None  # or it has no reach
    actions = recorded_actions(recordings, space, who)
    still = [name for name, spread in zip(space.names, np.ptp(actions, 0), strict=True) if spread == 0]
    if still:
        warnings.warn(
            f"{who}: never changes in the recorded actions, so nothing is learned of it: {', '.join(still)}.", stacklevel=2
        )


def warn_of_jumps(recordings: Recordings, who: str) -> None:
    """Warn where much of the state lies so far from that of the other episodes that it is likely to be in other units."""
    states = [np.asarray(episode[STATE], np.float64) for episode in recordings]
    means, within = np.stack([s.mean(0) for s in states]), np.median([s.std(0) for s in states], 0)
    usual = np.median(means, 0)
    spread = within + 2 * np.median(np.abs(means - usual), 0)
    jumps = (np.abs(means - usual) > JUMP * spread) & (within > 0)
    odd = np.flatnonzero(jumps.mean(1) > MUCH)
    if len(odd):
        first, entry = int(odd[0]), int(jumps[odd[0]].argmax())
        here, there = means[first, entry], usual[entry]
        warnings.warn(
            f"{who}: {len(odd)} episode(s) hold states unlike the others', such as {recordings[first]}: the mean of "
            f"{STATE!r}[{entry}] is {here:.4g} there and {there:.4g} in the others; are they in the same units?",
            stacklevel=2,
        )
