"""The labelled episodes that an inverse model neither learned from nor was chosen by, and how right it is on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrodict.errors import DataError
from retrodict.labelling.calibrate import Calibration, calibrate
from retrodict.labelling.conformal import HeldOut
from retrodict.labelling.infer import Inference
from retrodict.metrics import Rightness
from retrodict.systems import System
from retrodict.trajectories import ActionSpace, Episode, Recordings
from retrodict.trajectories.features import ACTION, INFERRED, SOURCE


def held_out(recordings: Recordings, model: System, given: Recordings | None, reads: Sequence[str]) -> Recordings:
    """Episodes to calibrate on: of `given`, or else of the recordings, those with recorded actions that the model never met.

    An episode by which training was stopped, or its weights chosen, flatters the model as one that it learned from does.

    Raises DataError when episodes were given for it and none will do.
    """
    met = {*model.learned_from_, *model.heldout_}
    pool = (recordings if given is None else given).select(
        lambda episode: _recorded(episode) and all(n in episode for n in reads)
    )
    fresh = pool.select(lambda episode: episode.identity not in met)
    if given is not None and not len(fresh):
        raise DataError(
            f"none of the {len(given)} episodes given for calibration has recorded actions and was kept from the model's "
            "training; give episodes that it neither learned from nor was judged by."
        )
    return fresh


def used_up(recordings: Recordings, model: System) -> str:
    """What became of the episodes that carry actions, where none is left to calibrate on, and what to do, in one phrase."""
    carrying = {episode.identity for episode in recordings if _recorded(episode)}
    taught, chose = len(carrying & {*model.learned_from_}), len(carrying & {*model.heldout_})
    told = f"of the {len(carrying)} labelled episodes {taught} taught the model"
    return f"{told} and {chose} chose its weights; fit it without some of them, or give others as calibration"


@dataclass(frozen=True)
class Judgement:
    """How right an inverse model is on held-out episodes.

    Attributes:
        rule: what counts as right.
        data: its confidences as given and errors, at the steps that can be judged; one entry per episode, however it was cut.
        wrong_parts: part of the action -> whether it is wrong, all those steps one after the other.
        calibration: the calibrator and its scores.
    """

    rule: Rightness
    data: HeldOut
    wrong_parts: dict[str, np.ndarray]
    calibration: Calibration

    def part_errors(self, threshold: float = -np.inf) -> dict[str, float]:
        """Part -> share of wrong labels among those surer than the threshold (raw confidence)."""
        surer = np.concatenate(self.data.score) > threshold
        return {name: float(wrong[surer].mean()) if surer.any() else float("nan") for name, wrong in self.wrong_parts.items()}


def judge(recordings: Recordings, inferences: Sequence[Inference], space: ActionSpace, tolerance: float) -> Judgement | None:
    """Hold inferred actions of held-out episodes against recorded ones; None where no step can be judged.

    `inferences[i]` is of `recordings[i]`.
    """
    units: dict[tuple[str, int], list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}  # pieces of an episode are one unit
    for episode, inference in zip(recordings, inferences, strict=True):
        scored = inference.seen.copy()
        scored &= episode.there(ACTION)
        truth = np.asarray(episode[ACTION], np.float64).reshape(episode.length, -1)
        if truth.shape[1] != space.width:
            raise DataError(f"{episode}: {ACTION!r} has {truth.shape[1]} numbers, the inverse model gives {space.width}.")
        if not np.isfinite(truth[scored]).all():
            raise DataError(f"{episode}: {ACTION!r} is not finite; mend it or leave the episode out of the calibration.")
        if scored.any():
            judged = inference.confidence[scored], truth[scored], inference.action[scored].astype(np.float64)
            units.setdefault(episode.identity, []).append(judged)
    if not units:
        return None
    scores, truths, answers = ([np.concatenate([piece[i] for piece in pieces]) for pieces in units.values()] for i in range(3))
    rule = Rightness.of(space, np.concatenate(truths), tolerance)
    wrong = [~rule.joint(answer, truth) for answer, truth in zip(answers, truths, strict=True)]
    parts = rule.parts(np.concatenate(answers), np.concatenate(truths))
    return Judgement(
        rule=rule,
        data=HeldOut(scores, wrong),
        wrong_parts={name: ~right for name, right in parts.items()},
        calibration=calibrate(scores, [~w for w in wrong]),
    )


def _recorded(episode: Episode) -> bool:
    """Whether its actions are the truth: recorded or corrected by a person, none of them inferred."""
    return ACTION in episode and not (SOURCE in episode and (np.asarray(episode[SOURCE]) == INFERRED).any())
