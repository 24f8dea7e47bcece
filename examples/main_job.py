"""The main job on real input: game recordings of which a tenth carry actions -> labels for the rest -> policies -> the game.

Records a scripted player in a real first-person game (ViZDoom, health gathering with few medikits and much poison), takes the
actions away from nine tenths of the episodes, learns an inverse dynamics model from the rest, labels everything, clones three
policies (from the tenth alone, with inferred labels, with all true actions as the ceiling), plays all three in the same new
games and leaves a report with pictures. Run again with the same folder it carries on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import retrodict as rd
from retrodict.metrics.actions import Rightness, action_scores
from retrodict.metrics.calibration import expected_calibration_error
from retrodict.metrics.statistics import Estimate, interval, paired
from retrodict.reports import html, pictures
from retrodict.reports.filmstrip import filmstrip
from retrodict.worlds.rollouts import Rollouts

# The original map feeds whoever walks about: policies cloned from two episodes survive there about as long as those cloned from
# all. Where medikits are few and poison is many, one must have learned to tell them apart.
WORLD = "vizdoom/health-gathering-hard"
CAMERA = "observation.images.screen"
GAMES = 100_000  # the first seed of the games that are played, times the seed of the job plus one
POLICY: Mapping[str, Any] = {"patch": 4, "stacks": (32, 64, 64), "temperature": 0.5, "holdout": 0.2}


@dataclass
class Job:
    """What the demo does, and how much of it."""

    out: Path = Path("demo")
    """Folder for the recordings, the models and the report."""
    episodes: int = 60
    """Episodes recorded; a tenth of them, at least four, keep their actions."""
    steps: int = 600
    """Optimiser steps of the inverse model and of each policy."""
    play: int = 60
    """Games that each policy plays; they are the same for all, and none was recorded."""
    seed: int = 0
    """Of the recordings, the models and the games."""


@dataclass(frozen=True)
class Arm:
    """A policy: what it was cloned from, and how it played."""

    name: str
    cloned_from: str
    played: Rollouts
    tics: Estimate
    kits: Estimate


def main(job: Job) -> None:
    """Run the whole job, print one table and write the report."""
    console, began = Console(), time.monotonic()
    job.out.mkdir(parents=True, exist_ok=True)

    console.rule("1. Record a real game")
    folder = job.out / "recordings"
    if not folder.exists():
        rd.record(WORLD, folder, episodes=job.episodes, seed=job.seed, workers=0)
    truth = rd.open(folder)
    carrying = max(len(truth) // 10, 4)
    bare = truth.with_column("action", [e["action"] if i < carrying else None for i, e in enumerate(truth)])
    console.print(f"{len(truth)} episodes, {truth.steps} frames; {carrying} episodes keep their actions.")

    console.rule("2. Learn what actions look like, and label the rest")
    # So few steps are better spent on frames as they are than on changed ones.
    inverse = fitted(rd.VPT(steps=job.steps, calibration=0.3, augmented=False, seed=job.seed), bare, job.out / "vpt")
    labelled = rd.label(bare, inverse, out=job.out / "labelled", overwrite=True)
    console.print(str(labelled.summary))

    console.rule("3. Clone three policies and play them")
    sources = {
        "labelled tenth only": (bare, "the episodes that carry actions"),
        "with inferred labels": (labelled, "those, and every other episode as the inverse model labelled it"),
        "with true actions": (truth, "all episodes with their true actions: the ceiling"),
    }
    arms, first = [], GAMES * (job.seed + 1)
    for name, (recordings, cloned_from) in sources.items():
        cloning = rd.BehaviorCloning(**POLICY, steps=job.steps, seed=job.seed)
        policy = fitted(cloning, recordings, job.out / name.replace(" ", "-"))
        played = rd.rollout(policy, WORLD, range(first, first + job.play), parallel=16, record_frames=1)
        arms.append(
            Arm(
                name,
                cloned_from,
                played,
                interval(played.measure("tics")),
                interval(played.measure("medikits per 100 decisions")),
            )
        )
        console.print(f"{name}: {arms[-1].tics} tics survived")

    hidden = range(carrying, len(truth))
    true, inferred, confidence = (
        np.concatenate([source[i][column] for i in hidden])
        for source, column in ((truth, "action"), (labelled, "action"), (labelled, "label.action.confidence"))
    )
    space = truth.actions
    assert space is not None  # the world declares it
    scores = action_scores(inferred, true, space)
    right = Rightness.of(space, true).joint(inferred, true)
    error = expected_calibration_error(confidence, right)
    rows = [
        *((f"labels right: {kind}", value) for kind, value in told(scores)),
        ("calibration error of the labels", f"{error:.3f}"),
        *((f"tics survived, cloned {arm.name}", str(arm.tics)) for arm in arms),
        *((f"medikits per 100 decisions, cloned {arm.name}", str(arm.kits)) for arm in arms),
        *(
            (f"tics survived, {one.name} - {other.name}", apart(one, other))
            for one, other in ((arms[1], arms[0]), (arms[2], arms[1]))
        ),
        ("time of this run", f"{time.monotonic() - began:.0f} s"),
    ]
    table = Table("what", "measured")
    for row in rows:
        table.add_row(*row)
    console.print(table)

    episode = hidden[0]
    shown = np.arange(20, 36)
    strip = filmstrip(
        truth[episode].read(CAMERA, shown),
        space,
        {"true": truth[episode]["action"][shown], "inferred": labelled[episode]["action"][shown]},
        labelled[episode]["label.action.confidence"][shown],
    )
    report = html.page(
        "From a tenth of the actions to a policy",
        f"{labelled.summary.labelled} episodes of a first-person game were labelled by a model that learned from "
        f"{len(inverse.learned_from_)}.",
        html.section("Measured", html.table(("what", "measured"), rows)),
        html.section("Frames with true and inferred action", html.picture(strip)),
        html.section(
            "Do the confidences mean what they say?",
            html.picture(
                pictures.reliability({"calibrated": (confidence, right)}), "Against the truth that was hidden from the model."
            ),
        ),
        html.section(
            "The game",
            html.picture(pictures.bars({a.name: (a.tics.value, a.tics.low, a.tics.high) for a in arms}, "tics survived")),
            html.row(*(html.film(a.played[0].frames, 15, f"{a.name}: cloned from {a.cloned_from}") for a in arms)),
        ),
        html.section("The labelling in words", html.bullets(str(labelled.summary).splitlines())),
    )
    console.print(f"report: {html.write(job.out / 'report.html', report)}")


def apart(one: Arm, other: Arm) -> str:
    """By how much one policy outlives the other in the same games, and whether that tells them apart."""
    gain = paired(one.played.measure("tics"), other.played.measure("tics"))
    return f"{gain}: " + ("told apart" if gain.low > 0 or gain.high < 0 else "not told apart by so many games")


def told(scores: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The scores of labels in words, what a constant answer would score beside each."""
    for name, score in scores["parts"].items():
        yield name, f"{score['accuracy']:.1%} (always the commonest: {score['majority']:.1%})"
    yield "the whole action", f"{scores['joint']['accuracy']:.1%} (always the commonest: {scores['joint']['majority']:.1%})"


def fitted(system: rd.System, recordings: rd.Recordings, folder: Path) -> Any:
    """The system fitted on the recordings, or as an earlier run of this job saved it."""
    if not folder.exists():
        system.fit(recordings, run=rd.Run(folder=folder.with_name(f"{folder.name}.run"))).save(folder)
    return rd.load(folder)


if __name__ == "__main__":
    main(tyro.cli(Job, description=__doc__))
