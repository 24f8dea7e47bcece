"""Label recordings with an inverse model: infer, calibrate, select, emit; streaming, and resumable where it writes to disk."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from retrodict._version import __version__
from retrodict.labelling.calibrate import Calibrator
from retrodict.labelling.conformal import CannotPromise, Promise, control
from retrodict.labelling.emission import with_labels
from retrodict.labelling.heldout import Judgement, judge, used_up
from retrodict.labelling.infer import Inference, infer
from retrodict.labelling.job import Job, lacking, prepare
from retrodict.labelling.shift import portrait, shifted
from retrodict.labelling.summary import BINS, Labelled, Summary, finite
from retrodict.systems import System
from retrodict.trajectories import Episode, Recordings
from retrodict.trajectories.features import ACTION, CONFIDENCE, INFERRED, RECORDED, RUNS, SOURCE
from retrodict.trajectories.stores import lerobot
from retrodict.trajectories.stores.lerobot.labels import Emit, EpisodeLabels

HELD_OUT, TARGET = "held-out", "target"


def label(
    recordings: Recordings,
    model: System,
    *,
    out: str | Path | None = None,
    max_error: float | None = None,
    emit: Emit | None = None,
    calibration: Recordings | None = None,
    tolerance: float = 0.05,
    batch: int = 64,
    progress: bool = True,
    overwrite: bool = False,
) -> Labelled:
    """Give every step that lacks an action an inferred one with a calibrated confidence; recorded actions stay.

    An action is lacking where the episode has no `action`, and where `valid.action` marks it as missing.

    Args:
        recordings: what to label; the episodes of it that carry actions and that the model neither learned from nor was judged
            by in training serve to calibrate.
        model: a fitted inverse model.
        out: folder of the LeRobotDataset to write. Beside it `<out>.labelling` holds each finished episode until all are
            done, and the same call carries on from there. In memory where None.
        max_error: keep only labels of which at most this share is expected to be wrong in an episode like those calibrated on;
            `conformal` says what exactly is promised. It takes 1 / max_error - 1 such episodes or more.
        emit: `split` (each run of kept steps is an episode; the default with `max_error`), `weight` (all rows; `sample.weight`
            is 1 or 0 with `max_error`, else the confidence) or `all` (the default without).
        calibration: labelled episodes to calibrate on in place of those of `recordings`; those that the model met in training
            are left out.
        tolerance: a continuous value without a quantiser counts as right within this share of its range.
        batch: windows inferred at a time.
        progress: show a progress bar where there is a terminal.
        overwrite: replace a dataset that is at `out`.

    Returns the labelled recordings; their `summary` says what was done and how far to trust it, and prints as text.

    Raises DataError in one sentence when the model is no inverse model, nothing needs labelling, an episode lacks what the model
    reads, or `out` is taken; CannotPromise (a DataError) when `max_error` cannot be promised, with what would do.
    """
    began = time.monotonic()
    job = prepare(
        recordings,
        model,
        out=None if out is None else Path(out),
        max_error=max_error,
        emit=emit,
        calibration=calibration,
        tolerance=tolerance,
        batch=batch,
        overwrite=overwrite,
    )
    targets = recordings.select(job.targets)
    with _bar(progress) as bar:
        _infer(job, HELD_OUT, job.held, bar)
        judged = _judged(job)
        promise = _promise(job, judged)  # what cannot be promised is said now and not after hours
        _infer(job, TARGET, targets, bar)
    shift = _shift(job)
    labels = _Labels(job, judged.calibration.calibrator if judged else Calibrator(), promise)
    run = _record(job, judged, promise)
    if job.out is None:
        made = with_labels(recordings, labels, job.emit, run=run, actions=job.actions)
    else:
        if not _is_written(job, run):
            with lerobot.LabelWriter(recordings, job.out, job.emit, run=run, actions=job.actions, overwrite=overwrite) as writer:
                for position in range(writer.done, len(recordings)):
                    writer.add(labels[position])
        made = lerobot.read(job.out)
    notes = (*job.notes, shift) if shift else job.notes
    summary = _summary(job, judged, promise, labels, notes, time.monotonic() - began)
    job.shards.remove()
    for note in notes:
        warnings.warn(note, stacklevel=2)
    return Labelled(**{f.name: getattr(made, f.name) for f in fields(Recordings)}, summary=summary)


class _Labels(Sequence[EpisodeLabels]):
    """Labels of each episode of the recordings, made from the shards when asked for."""

    def __init__(self, job: Job, calibrator: Calibrator, promise: Promise | None) -> None:
        self.job, self.calibrator, self.promise = job, calibrator, promise
        self._number = {position: number for number, position in enumerate(job.targets)}

    def __len__(self) -> int:
        return len(self.job.recordings)

    def __getitem__(self, position: Any) -> Any:
        episode = self.job.recordings[position]
        if position not in self._number:
            return _given(episode)
        inference = self.inference(position)
        confidence = np.where(inference.seen, self.calibrator(inference.confidence), 0).astype(np.float32)
        source = np.full(episode.length, INFERRED)
        labels = EpisodeLabels(inference.action, confidence, source, self._weight(inference, confidence))
        return _filled(_given(episode), labels, lacking(episode)) if ACTION in episode else labels

    def inference(self, position: int) -> Inference:
        return self.job.shards.get(TARGET, self._number[position])[0]

    def _weight(self, inference: Inference, confidence: np.ndarray) -> np.ndarray | None:
        """How far each step is trusted: 1 or 0 where an error is promised, else as `emit` has it."""
        if self.promise is not None:
            return (inference.seen & (inference.confidence > self.promise.threshold)).astype(np.float32)
        return {"all": None, "weight": confidence, "split": inference.seen.astype(np.float32)}[self.job.emit]


def _given(episode: Episode) -> EpisodeLabels:
    """The actions that an episode has, with what was said of them."""
    return EpisodeLabels(
        action=np.asarray(episode[ACTION], np.float32).reshape(episode.length, -1),
        confidence=_column(episode, CONFIDENCE, 1.0),
        source=_column(episode, SOURCE, RECORDED),
    )


def _filled(given: EpisodeLabels, inferred: EpisodeLabels, lacking: np.ndarray) -> EpisodeLabels:
    """What was given, and where that is lacking (T,) what was inferred."""
    return EpisodeLabels(
        action=np.where(lacking[:, None], inferred.action, given.action),
        confidence=np.where(lacking, inferred.confidence, given.confidence),
        source=np.where(lacking, inferred.source, given.source),
        weight=None if inferred.weight is None else np.where(lacking, inferred.weight, 1.0).astype(np.float32),
    )


def _column(episode: Any, name: str, default: float) -> np.ndarray:
    return np.asarray(episode[name]).reshape(-1) if name in episode else np.full(episode.length, default)


def _infer(job: Job, group: str, recordings: Recordings, bar: Progress) -> None:
    """Infer the episodes that are not done, each into its shard."""
    done = job.shards.done(group)
    steps = [episode.length for episode in recordings]
    task = bar.add_task(group, total=sum(steps), completed=sum(n for i, n in enumerate(steps) if i in done))
    for inference in infer(job.model, replace(recordings, actions=job.actions), batch=job.batch, done=done):
        job.shards.put(group, inference, portrait(recordings, inference, job.model.reads))
        bar.advance(task, steps[inference.position])


def _judged(job: Job) -> Judgement | None:
    inferences = [job.shards.get(HELD_OUT, position)[0] for position in range(len(job.held))]
    return judge(job.held, inferences, job.actions, job.tolerance) if inferences else None


def _promise(job: Job, judged: Judgement | None) -> Promise | None:
    if job.max_error is None:
        return None
    if judged is None:
        raise CannotPromise(f"max_error={job.max_error:g} cannot be promised: no step of the held-out episodes can be judged.")
    return control(judged.data, job.max_error)


def _shift(job: Job) -> str | None:
    """How the recordings to be labelled differ from those calibrated on, where they do."""
    calibrated, targets = (
        [job.shards.get(group, number)[1] for number in range(count)]
        for group, count in ((HELD_OUT, len(job.held)), (TARGET, len(job.targets)))
    )
    return shifted(calibrated, targets)


def _record(job: Job, judged: Judgement | None, promise: Promise | None) -> dict[str, Any]:
    """What stands in `meta` of this labelling run: all that it takes to repeat it."""
    record = {
        "model": job.model.card.slug,
        "hash": job.hash,
        "settings": job.model.hyperparameters(),
        "retrodict": __version__,
        **job.shards.record({"started": datetime.now(UTC).isoformat(timespec="seconds")}),
        "batch": job.batch,
        "max_error": job.max_error,
        "right": str(judged.rule) if judged else None,
        "calibration": judged and judged.calibration.to_json(),
        "promise": promise and asdict(promise),
    }
    plain: dict[str, Any] = json.loads(json.dumps(finite(record), default=str))
    return plain


def _is_written(job: Job, run: dict[str, Any]) -> bool:
    """Whether an earlier call wrote this very dataset and was stopped before it could tidy up."""
    if job.out is None or not lerobot.recognises(job.out):
        return False
    runs = lerobot.read(job.out).meta.get(RUNS, [])
    return bool(runs) and runs[-1] == {**run, "emit": job.emit}


def _summary(
    job: Job, judged: Judgement | None, promise: Promise | None, labels: _Labels, notes: tuple[str, ...], seconds: float
) -> Summary:
    histogram = np.zeros(BINS, int)
    steps = guessed = kept = 0
    doubt = 0.0
    for position in job.targets:
        made: EpisodeLabels = labels[position]
        told = lacking(job.recordings[position])
        seen, confidence = labels.inference(position).seen[told], made.confidence[told]
        sure = seen if promise is None else np.asarray(made.weight)[told] > 0
        steps, guessed, kept = steps + len(seen), guessed + int((~seen).sum()), kept + int(sure.sum())
        doubt += float((1 - confidence[sure]).sum())
        histogram += np.bincount(np.minimum((confidence * BINS).astype(int), BINS - 1), minlength=BINS)
    return Summary(
        model=f"{job.model.card.slug} ({job.hash[:8]})",
        actions=job.actions,
        emit=job.emit,
        recorded=len(job.recordings) - len(job.targets),
        labelled=len(job.targets),
        steps=steps,
        guessed=guessed,
        kept=kept,
        histogram=tuple(histogram.tolist()),
        expected_error=doubt / kept if judged and kept else None,
        rule=str(judged.rule) if judged else "",
        calibration=judged.calibration if judged else None,
        uncalibrated=used_up(job.recordings, job.model) if judged is None else "",
        part_errors=judged.part_errors(promise.threshold if promise else -math.inf) if judged else {},
        promise=promise,
        warnings=notes,
        seconds=seconds,
        out=None if job.out is None else str(job.out),
    )


def _bar(wanted: bool) -> Progress:
    """Steps labelled, of how many, and the time that is left; on standard error, where there is a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("labelling {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not (wanted and console.is_terminal))
