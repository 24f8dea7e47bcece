"""`retrodict fit-law`: the law behind a recorded series, under several seeds, with a verdict and a report."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from dataclasses import make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from retrodict.cli import show
from retrodict.cli.arguments import (
    CHECKPOINT_EVERY,
    UNSAID,
    Number,
    OptionalPath,
    Out,
    Reading,
    ReadingOptions,
    Recorded,
    at_least,
    default_work,
    parse,
    refuse_taken,
)

if TYPE_CHECKING:
    from retrodict.systems import System

DEFAULT = "al-rnn"
HELD_OUT = 0.2
SHORT = 12
"""Lines of equations that are printed; more stand in the report only."""

ABOUT = """Read the law off a recorded series, judge it on a part that it did not learn from, and write a report.

The last fifth of the series (or a fifth of the episodes) is kept apart. The law is fitted under several seeds; the one whose free
run is nearest to what was kept apart goes into FOLDER, beside verdict.json and report.html: attractor, spectra, Lyapunov
exponents with their uncertainty over seeds, how long forecasts hold, and what the law says. "Not identified" is an answer too:
a recording that can tell no law is refused with the reason, and nothing is written.

Here with --with {slug}: {title}. Its options stand below; `retrodict systems` lists the others whose role is Law.

Example: retrodict fit-law series.csv --with al-rnn --out law"""


def run(argv: Sequence[str]) -> None:
    from retrodict.reports.laws import require_law
    from retrodict.systems import lookup

    slug, rest = _taken(list(argv))
    kind = lookup(slug)
    require_law(kind)
    chosen = parse(_arguments(kind), rest, "fit-law", ABOUT.format(slug=slug, title=kind.card.title))
    fit_law(chosen.system, chosen.recordings, chosen.reading, chosen.out, chosen.seeds, chosen.work, chosen.overwrite)


def fit_law(
    system: System, path: Path, reading: Reading, out: Path, seeds: int, work: Path | None, overwrite: bool = False
) -> None:
    """Fit under several seeds, judge, write."""
    at_least(1, seeds=seeds)
    refuse_taken(out, overwrite)
    from retrodict.files import write_text
    from retrodict.reports import html, laws
    from retrodict.training.run import Run
    from retrodict.trajectories.stores import open

    laws.require_observations(system)  # type: ignore[arg-type]
    recordings = open(path, **reading.options)
    names = laws.channels(recordings)
    learning, held = laws.divided(recordings, HELD_OUT)
    laws.judged_by(held, names)  # before anything is learned
    home = work or default_work(out)
    fitted: list[Any] = []
    for seed in range(system.seed, system.seed + seeds):
        kept = Run(folder=home / f"seed-{seed}", checkpoint_every=CHECKPOINT_EVERY)
        fitted.append(dataclasses.replace(system, seed=seed).fit(learning, run=kept))
    judgement = laws.judge(fitted, learning, held, names)
    best = fitted[judgement.best]
    best.save(out)
    evidence = best.evidence() if hasattr(best, "evidence") else None
    said = judgement.to_json()
    if evidence is not None:
        said["evidence"] = {"findings": evidence.findings, "values": evidence.values, "tried": evidence.table}
    write_text(out / "verdict.json", json.dumps(show.plain(said), indent=1) + "\n")
    html.write(out / "report.html", laws.page(best, judgement, f"The law behind {path.name}"))
    if work is None:
        for seed in range(system.seed, system.seed + seeds):
            shutil.rmtree(home / f"seed-{seed}", ignore_errors=True)
        if home.is_dir() and not any(home.iterdir()):
            home.rmdir()
    show.say(judgement.verdict)
    lines = best.equations() if hasattr(best, "equations") else ()
    for line in lines if len(lines) <= SHORT else ():
        show.say(f"  {line}")
    for sentence in evidence.findings if evidence is not None else ():
        show.say(sentence)
    show.say(f"\n{best.card.slug} stands in {out}, with report.html and verdict.json.")


def _taken(argv: list[str]) -> tuple[str, list[str]]:
    """The system that `--with` names, and the other arguments: its own options are known only then."""
    for i, word in enumerate(argv):
        if word == "--with" and i + 1 < len(argv):
            return argv[i + 1], [*argv[:i], *argv[i + 2 :]]
        if word.startswith("--with="):
            return word.removeprefix("--with="), [*argv[:i], *argv[i + 1 :]]
    return DEFAULT, argv


def _arguments(kind: type[System]) -> type[Any]:
    return make_dataclass(
        "FitLaw",
        [
            ("recordings", Annotated[Recorded, tyro.conf.arg(help="file or folder; `retrodict info` says what it holds.")]),
            ("out", Annotated[Out, tyro.conf.arg(help="folder to write the law, the verdict and the report into.")]),
            ("system", Annotated[kind, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]),
            ("reading", ReadingOptions, UNSAID),
            ("seeds", Annotated[Number, tyro.conf.arg(help="fits, from --seed on; their spread is the uncertainty.")], 3),
            (
                "work",
                Annotated[
                    OptionalPath, tyro.conf.arg(help="checkpoints go here; FOLDER.work, until it is done, where not given.")
                ],
                None,
            ),
            ("overwrite", Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="replace what is at FOLDER.")], False),
        ],
    )
