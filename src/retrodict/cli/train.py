"""`retrodict train`: fit a system. Its options are the fields of its dataclass, so that they are written once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import tyro

from retrodict.cli import show
from retrodict.cli.arguments import (
    CHECKPOINT_EVERY,
    UNSAID,
    OptionalPath,
    Out,
    Reading,
    ReadingOptions,
    Recorded,
    default_work,
    parse,
    refuse_taken,
)

if TYPE_CHECKING:
    from retrodict.systems import System

USAGE = """usage: retrodict train SYSTEM RECORDINGS --out FOLDER [options of the system]

Fit a system to recordings and write it into a folder. Every system has its own options, which

  retrodict train SYSTEM --help

explains. Training that was stopped, by Ctrl-C or by a power cut, goes on when the same command is given again.

Example: retrodict train behavior-cloning labelled --out policy --steps 2000

Systems:
"""

DESCRIPTION = """{summary}

{title}. {authors}, {year}.

Reads {reads}; returns {returns}.

Example: retrodict train {slug} recordings --out {slug}-model"""


def run(argv: Sequence[str]) -> None:
    from retrodict.systems import catalogue, lookup

    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE + "\n".join(f"  {slug:<22}{system.card.claim}" for slug, system in catalogue().items()))
        return
    kind = lookup(argv[0])
    card = kind.card
    summary = (kind.__doc__ or "").strip().splitlines()[0]
    about = DESCRIPTION.format(
        summary=summary,
        title=card.title,
        authors=card.authors,
        year=card.year,
        reads=card.reads,
        returns=card.returns,
        slug=card.slug,
    )
    chosen = parse(_arguments(kind), argv[1:], f"train {argv[0]}", about, _with_saved_systems())
    train(
        chosen.system,
        chosen.recordings,
        chosen.reading,
        chosen.out,
        chosen.work,
        chosen.devices,
        chosen.precision,
        chosen.overwrite,
    )


def train(
    system: System,
    recordings: Path,
    reading: Reading,
    out: Path,
    work: Path | None,
    devices: int,
    precision: Any,
    overwrite: bool = False,
) -> None:
    """Open, fit, save."""
    refuse_taken(out, overwrite)
    from retrodict.training.run import Run
    from retrodict.trajectories.stores import open

    kept = Run(folder=work or default_work(out), checkpoint_every=CHECKPOINT_EVERY, devices=devices, precision=precision)
    system.fit(open(recordings, **reading.options), run=kept)
    system.save(out)
    learned = show.count(len(system.learned_from_), "episode")
    show.say(f"{system.card.slug} learned from {learned} of {recordings} and stands in {out}.")


def _with_saved_systems() -> tyro.constructors.ConstructorRegistry:
    """A field that holds another system is given as the folder of a saved one."""
    from retrodict.systems import System

    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def saved(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
        if info.type is not System and System not in get_args(info.type):
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="MODEL",
            instance_from_str=lambda folders: System.load(folders[0]),
            is_instance=lambda value: value is None or isinstance(value, System),
            str_from_instance=lambda system: ["none" if system is None else system.card.slug],
        )

    return registry


def _arguments(kind: type[System]) -> type[Any]:
    """A dataclass of what every training takes and, without a prefix, of the system's own options."""
    return make_dataclass(
        "Training",
        [
            ("recordings", Annotated[Recorded, tyro.conf.arg(help="file or folder; `retrodict info` says what it holds.")]),
            ("out", Annotated[Out, tyro.conf.arg(help="folder to write the fitted system into.")]),
            ("system", Annotated[kind, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]),
            ("reading", ReadingOptions, UNSAID),
            (
                "work",
                Annotated[OptionalPath, tyro.conf.arg(help="checkpoints and logs go here; FOLDER.work where not given.")],
                None,
            ),
            ("devices", Annotated[int, tyro.conf.arg(metavar="N", help="devices that share the work.")], 1),
            (
                "precision",
                Annotated[
                    Literal["auto", "32-true", "bf16-mixed", "16-mixed", "64-true"],
                    tyro.conf.arg(help="arithmetic; `auto` mixes where a GPU can."),
                ],
                field(default="auto"),
            ),
            ("overwrite", Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="replace what is at FOLDER.")], False),
        ],
    )
