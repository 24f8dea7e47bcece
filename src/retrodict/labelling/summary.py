"""What a labelling did, in the words of the questions that people who label recordings ask."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from retrodict.labelling.calibrate import Calibration
from retrodict.labelling.conformal import Promise
from retrodict.trajectories import ActionSpace, Box, Recordings

#: Bins of the histogram of confidences.
BINS = 10


@dataclass(frozen=True)
class Summary:
    """What a labelling did.

    Attributes:
        model: slug and the beginning of the hash of the inverse model.
        actions: what the labels mean.
        emit: what became of withheld labels.
        recorded, labelled: episodes that kept their recorded actions, and that were given inferred ones.
        steps: inferred labels.
        guessed: of these, at steps without the frame that would show the action (the last of an episode); confidence 0.
        kept: of these, labels that were emitted with full trust.
        histogram: inferred labels by calibrated confidence, ten bins from 0 to 1.
        expected_error: mean of 1 - calibrated confidence over the kept labels; None without calibration.
        rule: what counts as a right label.
        calibration: how confidences were calibrated, None where they are as the model gave them.
        uncalibrated: without calibration, what became of the labelled episodes, and what to do.
        part_errors: part of the action -> share wrong on held-out episodes, among labels as sure as the kept ones.
        promise: what `max_error` promises, None without it.
        warnings: sentences on what may make all this untrue.
        seconds: time that this call took.
        out: where it was written, None in memory.
    """

    model: str
    actions: ActionSpace
    emit: str
    recorded: int
    labelled: int
    steps: int
    guessed: int
    kept: int
    histogram: tuple[int, ...]
    expected_error: float | None
    rule: str
    calibration: Calibration | None
    uncalibrated: str
    part_errors: Mapping[str, float]
    promise: Promise | None
    warnings: tuple[str, ...]
    seconds: float
    out: str | None

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON."""
        content = {**vars(self), "actions": self.actions.to_json(), "promise": self.promise and asdict(self.promise)}
        content["calibration"] = self.calibration and self.calibration.to_json()
        plain: dict[str, Any] = finite(content)
        return plain

    def __str__(self) -> str:
        lines = [
            f"{self.labelled} episodes ({self.steps} steps) labelled by {self.model}; {self.recorded} keep recorded actions.",
            f"Kept {self.kept} of {self.steps} labels ({self.kept / max(self.steps, 1):.0%}); {self._withheld()}",
            f"Right means: {self.rule}." if self.rule else "Nothing says how right they are.",
            self._trust(),
            f"Numbers mean: {meaning(self.actions)}.",
            f"Took {self.seconds:.0f} s" + (f"; written to {self.out}." if self.out else "."),
        ]
        return "\n".join([*lines, *(f"Warning: {warning}" for warning in self.warnings)])

    def _withheld(self) -> str:
        how = {
            "split": "each run of kept steps is an episode of its own",
            "weight": "sample.weight says how far to trust each",
            "all": "every step carries an action",
        }
        guesses = f", {self.guessed} are guesses at steps without a frame that would show the action" if self.guessed else ""
        return how[self.emit] + guesses + "."

    def _trust(self) -> str:
        if self.calibration is None:
            return f"Confidences are as the model gave them, with nothing to check them on: {self.uncalibrated}."
        c = self.calibration
        lines = [
            f"On {c.episodes} held-out labelled episodes ({c.steps} steps) {c.accuracy:.1%} of all labels are right; "
            f"calibration error {c.before['ece']:.3f} before and {c.after['ece']:.3f} after ({c.calibrator.kind})."
        ]
        if self.promise is not None:
            lines.append(
                f"Promise: {self.promise}; {self.promise.seen_error:.1%} were on these. Every episode counts the same, and it is "
                "a mean over draws of held-out and other episodes: a single labelling can come out worse."
            )
        if self.expected_error is not None:
            lines.append(f"By its confidence, {self.expected_error:.1%} of the kept labels are wrong.")
        parts = ", ".join(f"{name} {error:.1%}" for name, error in self.part_errors.items())
        lines.append(f"Wrong by part, held out, among labels as sure as the kept ones: {parts}.")
        return "\n".join(lines)


def meaning(space: ActionSpace) -> str:
    """What the numbers of an action mean, in one line; what is unknown is said to be unknown."""
    parts = []
    for name, part in space.parts.items():
        text = f"{name} = {part.kind.replace('_', ' ')} ({', '.join(part.names)})"
        if isinstance(part, Box):
            span = "unknown range" if part.low is None or part.high is None else f"{part.low:g} to {part.high:g}"
            text += f", {span}, unit {part.unit}"
        parts.append(text)
    leads = {True: "leads to the next row", False: "led to its own row", None: "unknown whether it leads to the next row"}
    return f"{'; '.join(parts)}; mode {space.mode}, frame {space.frame}, {leads[space.leads]}"


def finite(value: Any) -> Any:
    """JSON with None for what is infinite or no number, and lists for tuples."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Labelled(Recordings):
    """Recordings that were labelled, and the summary of how."""

    summary: Summary = field(kw_only=True)
