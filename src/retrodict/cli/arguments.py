"""Arguments that several commands share, and how functions become command lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

Recorded = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RECORDINGS", help_behavior_hint="")]
"""A positional path to recordings of any kind that `retrodict info` opens."""

Out = Annotated[Path, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(required)")]
Number = Annotated[int, tyro.conf.arg(metavar="N")]
OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH")]

HABITS = (tyro.conf.FlagCreatePairsOff,)


CHECKPOINT_EVERY = 100
"""Steps that a training loses at most when it is killed; Ctrl-C loses none."""


def parse(
    command: Callable[..., Any],
    argv: Sequence[str],
    prog: str,
    description: str | None = None,
    registry: tyro.constructors.ConstructorRegistry | None = None,
) -> Any:
    """Call a function, or make a dataclass, from command line arguments; its docstring is the help."""
    return tyro.cli(command, args=list(argv), prog=f"retrodict {prog}", description=description, config=HABITS, registry=registry)


def default_work(out: Path) -> Path:
    """Where a command keeps what it needs to carry on: beside what it writes, out of the way."""
    return out.with_name(f"{out.name}.work")
