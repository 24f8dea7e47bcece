"""Arguments that several commands share, and how functions become command lines."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from retrodict.errors import DataError
from retrodict.files import named

Recorded = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RECORDINGS", help_behavior_hint="")]
"""A positional path to recordings of any kind that `retrodict info` opens."""

Out = Annotated[Path, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(required)")]
Number = Annotated[int, tyro.conf.arg(metavar="N")]
OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH")]
Settings = Annotated[tuple[str, ...], tyro.conf.arg(name="set", metavar="NAME=VALUE ...", help_behavior_hint="(default: none)")]
"""Settings of a world; see `settings`."""

Column = Annotated[str | None, tyro.conf.arg(metavar="COLUMN", help_behavior_hint="(default: guessed)")]


@dataclass(frozen=True)
class Reading:
    """What the user knows of the files and they do not say; which of it a kind of file takes, its reader says."""

    time: Column = None
    """column of a table or log that is its clock; `none` where there is none."""
    episode: Column = None
    """column of a table that numbers or names the episodes; `none` where there is none."""
    action_columns: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="COLUMN ...", help_behavior_hint="(default: those called action)")
    ] = ()
    """columns of a table or log that make up the action."""
    leave_out: Annotated[tuple[str, ...], tyro.conf.arg(metavar="COLUMN ...", help_behavior_hint="(default: none)")] = ()
    """columns of a table or log, or arrays of an NPZ file, that are not read."""
    action_range: Annotated[
        tuple[float, ...], tyro.conf.arg(metavar="LOW HIGH ...", help_behavior_hint="(default: as the files say, or unknown)")
    ] = ()
    """range of continuous actions, such as -1 1: for all their numbers, or one pair for each."""
    fps: Annotated[float | None, tyro.conf.arg(metavar="RATE", help_behavior_hint="(default: as the files say)")] = None
    """steps per second, for files that do not say."""
    nan_is_missing: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """mark empty cells and NaN as missing, instead of refusing them."""

    @property
    def options(self) -> dict[str, Any]:
        """What is said, as options of `retrodict.open`."""
        given = {
            "time": self.time,
            "episode": self.episode,
            "action_columns": self.action_columns or None,
            "leave_out": self.leave_out or None,
            "actions": self.action_range or None,
            "fps": self.fps,
            "nan_is_missing": self.nan_is_missing or None,
        }
        return {name: value for name, value in given.items() if value is not None}


UNSAID = Reading()
ReadingOptions = Annotated[Reading, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="reading")]

CHECKPOINT_EVERY = 100
"""Steps that a training loses at most when it is killed; Ctrl-C loses none."""


def parse(
    command: Callable[..., Any],
    argv: Sequence[str],
    prog: str,
    description: str | None = None,
    registry: tyro.constructors.ConstructorRegistry | None = None,
) -> Any:
    """Call a function, or make a dataclass, from command line arguments; its docstring is the help.

    Switches of a function are off unless given, and stand alone; those of a dataclass may be on, and come in pairs.
    """
    habits = () if isinstance(command, type) else (tyro.conf.FlagCreatePairsOff,)
    return tyro.cli(command, args=list(argv), prog=f"retrodict {prog}", description=description, config=habits, registry=registry)


def settings(given: Sequence[str], *takers: Callable[..., Any]) -> dict[str, Any]:
    """`size=(96,96) reward=medikits` as keyword arguments: values are read as Python's literals, and else as text.

    Raises DataError where something is no NAME=VALUE, or names an argument of `takers`, the functions on the way to the world.
    """
    read: dict[str, Any] = {}
    for setting in given:
        name, equals, value = setting.partition("=")
        if not equals or not name.isidentifier():
            raise DataError(f"--set takes NAME=VALUE, such as tics=1000 or size=(96,96); got {setting!r}.")
        if any(name in inspect.signature(taker).parameters for taker in takers):
            raise DataError(
                f"--set is for settings of the world, and {name} is none: --help shows what the command itself takes."
            )
        try:
            read[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            read[name] = value
    return read


def default_work(out: Path) -> Path:
    """Where a command keeps what it needs to carry on: beside what it writes, out of the way."""
    out = named(out)
    return out.with_name(f"{out.name}.work")


def refuse_taken(out: Path, overwrite: bool) -> None:
    """Raise DataError where something lies at a path that is to be written, unless it is to be replaced."""
    if not overwrite and out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise DataError(f"{out} exists already; name another folder, or say --overwrite to replace it.")


def at_least(least: int, **given: int | None) -> None:
    """Raise DataError naming the option whose number is too small."""
    for name, number in given.items():
        if number is not None and number < least:
            raise DataError(f"--{name.replace('_', '-')} is a number from {least} on; got {number}.")
