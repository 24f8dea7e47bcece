"""What the experiment of a claim is: arms that measure, and checks whose thresholds were set beforehand."""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrodict.errors import DataError
from retrodict.metrics import Estimate

FRAME = {"experiment", "provenance", "reproduction"}
"""Modules of this room that are no experiments."""

#: What an arm measured for one seed: JSON.
Measured = Mapping[str, Any]


@dataclass(frozen=True)
class Check:
    """One line of an ACCEPTANCE, judged.

    Attributes:
        name: what was measured.
        value: the mean over seeds.
        interval: low and high of its confidence interval, or None.
        asked: the threshold as the spec sets it, in words.
        holds: whether the value meets it.
    """

    name: str
    value: float
    interval: tuple[float, float] | None
    asked: str
    holds: bool

    @classmethod
    def of(cls, name: str, estimate: Estimate, asked: str, holds: bool) -> Check:
        """An estimate, judged, with its interval where it has one."""
        return cls(name, estimate.value, _ends(estimate), asked, bool(holds))


@dataclass(frozen=True)
class Number:
    """What stands in a cell of a `Table`: a mean over seeds, and low and high of its confidence interval, or None."""

    value: float
    interval: tuple[float, float] | None = None

    @classmethod
    def of(cls, estimate: Estimate) -> Number:
        """An estimate with its interval, where it has one."""
        return cls(estimate.value, _ends(estimate))


def _ends(estimate: Estimate) -> tuple[float, float] | None:
    return (estimate.low, estimate.high) if math.isfinite(estimate.low) else None


@dataclass(frozen=True)
class Table:
    """Numbers of which nothing is asked, to be read side by side.

    Attributes:
        title: what they are.
        columns: what stands over the names of the rows, and over each number.
        rows: name -> numbers.
    """

    title: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[Number]]


class Experiment(ABC):
    """One system's claim as an experiment.

    An arm is run once per seed and writes its numbers as it ends; a run that was stopped carries on with what is missing.
    Where several processes work, instances are pickled: an experiment keeps nothing but settings.

    Attributes:
        slug, claim: the system and what its paper says.
        seeds: seeds of the reported run.
        needs: for an arm that reads files which others left in the seed's folder, the names of those, which precede it.
        left_out: what the page asks for and this experiment does not run, with the reason.
    """

    slug: str
    claim: str
    seeds: Sequence[int] = (0, 1, 2)
    needs: Mapping[str, Sequence[str]] = {}
    left_out: Sequence[str] = ()

    @abstractmethod
    def arms(self, quick: bool) -> Mapping[str, Callable[[int, Path, bool], Measured]]:
        """Arm name -> function of (seed, folder of that seed, quick) that runs it and returns its numbers."""

    @abstractmethod
    def checks(self, measured: Mapping[str, Mapping[int, Measured]], quick: bool) -> Sequence[Check]:
        """The checks, from arm name -> seed -> numbers; only those for which every arm they need is there."""

    def tables(self, measured: Mapping[str, Mapping[int, Measured]]) -> Sequence[Table]:
        """What was measured beside the checks and is worth a look, from arm name -> seed -> numbers."""
        return ()


def claims() -> tuple[str, ...]:
    """Slugs that have an experiment."""
    here = Path(__file__).parent
    names = {path.stem for path in here.glob("[!_]*.py")} - FRAME  # several claims share `_name.py`
    return tuple(sorted(name.replace("_", "-") for name in names))


def experiment(slug: str) -> Experiment:
    """The experiment of a slug; raises DataError naming those there are."""
    if slug not in claims():
        raise DataError(f"no experiment for {slug!r}; there are {', '.join(claims())}.")
    module = importlib.import_module(f"retrodict.claims.{slug.replace('-', '_')}")
    made: Experiment = module.EXPERIMENT
    return made
