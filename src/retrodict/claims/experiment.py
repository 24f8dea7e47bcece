"""The frame of a claim run: arms over seeds, resumable one by one, judged by checks whose thresholds were set beforehand."""

from __future__ import annotations

import importlib
import json
import os
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from retrodict._version import __version__
from retrodict.errors import DataError
from retrodict.files import write_text

#: What an arm measured for one seed: JSON.
Measured = Mapping[str, Any]

PACKAGES = ("torch", "numpy", "vizdoom", "gymnasium", "av")


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


class Experiment(ABC):
    """One system's claim as an experiment.

    An arm is run once per seed and writes its numbers as it ends; a run that was stopped carries on with what is missing.
    Arms run in the order given, so a later arm may read files that an earlier one left in the seed's folder.
    """

    slug: str
    claim: str
    seeds: Sequence[int] = (0, 1, 2)
    left_out: Sequence[str] = ()

    @abstractmethod
    def arms(self, quick: bool) -> Mapping[str, Callable[[int, Path, bool], Measured]]:
        """Arm name -> function of (seed, folder of that seed, quick) that runs it and returns its numbers."""

    @abstractmethod
    def checks(self, measured: Mapping[str, Mapping[int, Measured]], quick: bool) -> Sequence[Check]:
        """The checks, from arm name -> seed -> numbers; only those for which every arm they need is there."""


def claims() -> tuple[str, ...]:
    """Slugs that have an experiment."""
    here = Path(__file__).parent
    return tuple(sorted(p.stem.replace("_", "-") for p in here.glob("*.py") if p.stem not in ("__init__", "experiment")))


def experiment(slug: str) -> Experiment:
    """The experiment of a slug; raises DataError naming those there are."""
    if slug not in claims():
        raise DataError(f"no experiment for {slug!r}; there are {', '.join(claims())}.")
    module = importlib.import_module(f"retrodict.claims.{slug.replace('-', '_')}")
    made: Experiment = module.EXPERIMENT
    return made


def reproduce(
    slug: str,
    *,
    seeds: Sequence[int] | None = None,
    quick: bool = False,
    arms: Sequence[str] | None = None,
    work: Path = Path("runs/claims"),
    results: Path = Path("results"),
    report: Callable[[str, Sequence[Check]], None] | None = None,
) -> dict[str, Any]:
    """Run the experiment of a system and write `results/<slug>.json`; arms already done are not run again.

    Args:
        slug: the system.
        seeds: seeds to run; the experiment's own where not given.
        quick: the small run for tests; its result is returned and never written to `results`.
        arms: run only these arms (the rest is judged when it is there).
        work: folder for what the arms write; a second run with the same folder resumes.
        results: folder of the results files.
        report: called after every arm with its name and the checks that can be judged so far.

    Returns the results entry. Raises DataError for an unknown slug or arm.
    """
    trial = experiment(slug)
    seeds = tuple(trial.seeds[:1] if quick and seeds is None else seeds or trial.seeds)
    todo = trial.arms(quick)
    if unknown := set(arms or ()) - todo.keys():
        raise DataError(f"{slug} has no arm {', '.join(sorted(unknown))}; its arms are {', '.join(todo)}.")
    home = work / (f"{slug}-quick" if quick else slug)
    measured: dict[str, dict[int, Measured]] = {}
    for seed in seeds:
        folder = home / f"seed-{seed}"
        for arm, run in todo.items():
            path = folder / f"{arm}.json"
            if not path.exists():
                if arms is not None and arm not in arms:
                    continue
                folder.mkdir(parents=True, exist_ok=True)
                began = time.monotonic()
                numbers = dict(run(seed, folder, quick))
                write_text(path, json.dumps({**numbers, "seconds": time.monotonic() - began}, indent=1))
            measured.setdefault(arm, {})[seed] = json.loads(path.read_text())
            if report is not None:
                report(f"{arm}, seed {seed}", trial.checks(measured, quick))
    checks = trial.checks(measured, quick)
    missing = [f"{arm} (seeds {list(seeds)})" for arm in todo if arm not in measured]
    partly = [f"{arm} (seeds {[s for s in seeds if s not in done]})" for arm, done in measured.items() if len(done) < len(seeds)]
    entry = {
        "slug": slug,
        "claim": trial.claim,
        "holds": bool(checks) and all(check.holds for check in checks) and not missing,
        "checks": [asdict(check) for check in checks],
        "measured": measured,
        "seeds": list(seeds),
        "seconds": round(sum(numbers["seconds"] for arm in measured.values() for numbers in arm.values())),
        "command": f"retrodict reproduce {slug}" + (" --quick" if quick else ""),
        "versions": _versions(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "left_out": [*trial.left_out, *missing, *partly],
    }
    if not quick:
        write_text(results / f"{slug}.json", json.dumps(entry, indent=1) + "\n")
    return entry


def _versions() -> dict[str, str]:
    found = {"retrodict": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
