"""`retrodict label`: infer the actions that recordings lack."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from retrodict.cli import show
from retrodict.cli.arguments import (
    CHECKPOINT_EVERY,
    UNSAID,
    Number,
    OptionalPath,
    Out,
    ReadingOptions,
    Recorded,
    default_work,
    parse,
    refuse_taken,
)

if TYPE_CHECKING:
    from retrodict.systems import System
    from retrodict.trajectories import Recordings

CALIBRATION_SHARE = 0.3
"""Of the labelled episodes, when no model is given: kept from training, to find out how far labels can be trusted."""


def run(argv: Sequence[str]) -> None:
    parse(label, argv, "label")


def label(
    recordings: Recorded,
    /,
    out: Out,
    reading: ReadingOptions = UNSAID,
    model: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: train one)")] = None,
    max_error: Annotated[float | None, tyro.conf.arg(metavar="SHARE", help_behavior_hint="(default: keep all)")] = None,
    emit: Annotated[
        Literal["split", "weight", "all"] | None,
        tyro.conf.arg(metavar="HOW", help_behavior_hint="(default: split with --max-error, else all)"),
    ] = None,
    calibration: Annotated[
        Path | None, tyro.conf.arg(metavar="RECORDINGS", help_behavior_hint="(default: those of RECORDINGS)")
    ] = None,
    tolerance: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.05,
    batch: Number = 64,
    report: OptionalPath = None,
    overwrite: bool = False,
    seed: Number = 0,
    json: bool = False,
) -> None:
    """Infer the actions of the episodes that lack them, each with a confidence, and write a LeRobotDataset.

    Without --model, a vpt inverse model is trained first on the episodes that carry actions, of which three in ten (or as many as
    --max-error takes) are kept to find out how far its labels can be trusted. To choose its settings, train it with `retrodict
    train vpt` on some of the episodes that carry actions, and give it here.

    With --max-error 0.05, labels are kept only as far as at most 5 % of the kept ones of an episode are expected to be wrong, in
    episodes like those held out, of which that takes 19 or more. Where it cannot be promised, the command says what would do and
    writes nothing.

    Example: retrodict label play --out labelled --max-error 0.05

    Args:
        recordings: file or folder.
        out: folder to write; what a stopped run needs to carry on lies beside it until it is done.
        reading: how the recordings are read, and those of --calibration.
        model: folder of a fitted inverse model.
        max_error: largest share of wrong labels among the kept ones.
        emit: what becomes of labels that are withheld. split: every run of kept steps is an episode; weight: all steps, with
            sample.weight; all: all steps.
        calibration: labelled recordings to judge confidences on.
        tolerance: a continuous value counts as right within this share of its range.
        batch: windows inferred at a time.
        report: write an HTML page about the labels to this file.
        overwrite: replace a dataset that is at FOLDER.
        seed: seed of the training, where no model is given.
        json: print JSON.
    """
    from retrodict import labelling
    from retrodict.errors import DataError
    from retrodict.systems import System
    from retrodict.trajectories.stores import open

    if report is not None and report.is_dir():
        raise DataError(f"--report {report} is a folder; name a file to write the page to, such as {report / 'labels.html'}.")
    found = open(recordings, **reading.options)
    if model is None and not default_work(out).exists():
        refuse_taken(out, overwrite)
    labelling.unlabelled(found)  # said before a model is trained for nothing
    judged_on = open(calibration, **reading.options) if calibration is not None else None
    system = (
        System.load(model)
        if model is not None
        else _trained(found, out, seed, overwrite=overwrite, keep=judged_on is None, max_error=max_error)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the summary repeats them, once
        labelled = labelling.label(
            found,
            system,
            out=out,
            max_error=max_error,
            emit=emit,
            calibration=judged_on,
            tolerance=tolerance,
            batch=batch,
            overwrite=overwrite,
        )
    if report is not None:
        from retrodict.reports import html
        from retrodict.reports.labelling import page

        html.write(report, page(labelled))
    if json:
        show.as_json(labelled.summary.to_json())
    else:
        show.say(str(labelled.summary))
        if report is not None:
            show.say(f"Report: {report}")


def _trained(recordings: Recordings, out: Path, seed: int, *, overwrite: bool, keep: bool, max_error: float | None) -> System:
    """An inverse model of the episodes that carry actions; some are kept from it where `keep`, to judge it by.

    Where `overwrite`, a training on other recordings that was left there gives way.
    """
    from retrodict.errors import DataError
    from retrodict.systems import lookup
    from retrodict.training.identity import OtherRun
    from retrodict.training.run import Run
    from retrodict.trajectories.features import ACTION

    training = recordings.having(ACTION)
    if not len(training):
        raise DataError("no episode carries actions, so there is nothing to learn from; give a model with --model.")
    kept = _kept(len(training), max_error) if keep else 0
    if kept:
        training = training.split(kept / len(training), seed=seed)[0]
    work = default_work(out)
    run = Run(folder=work / "training", checkpoint_every=CHECKPOINT_EVERY)
    try:
        system = lookup("vpt")(seed=seed).fit(training, run=run)
    except OtherRun:
        if not overwrite:
            raise
        shutil.rmtree(work)  # of the dataset that is to be replaced
        system = lookup("vpt")(seed=seed).fit(training, run=run)
    system.save(work / "model")
    return system


def _kept(carrying: int, max_error: float | None) -> int:
    """How many of the episodes that carry actions are kept from the training: as many as `max_error` takes, half at most."""
    from retrodict.labelling.conformal import CannotPromise, fewest

    asked = fewest(max_error) if max_error is not None else min(carrying - 1, 1)
    if max_error is not None and 2 * asked > carrying:
        raise CannotPromise(
            f"max_error={max_error:g} takes {asked} or more labelled episodes that the model never met, and no fewer to learn "
            f"from; {carrying} carry actions: label more, or give others with --calibration, or a model with --model."
        )
    return max(asked, round(CALIBRATION_SHARE * carrying))
