"""What benchmarks have in common: the option where to write, checks against goals, turns, and the results file."""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from retrodict.files import write_json

RESULTS = Path(__file__).parents[1] / "results" / "benchmarks"
LOAD = os.getloadavg()[0]
"""Of the machine before the benchmark began."""


def options(name: str, page: str | None) -> argparse.ArgumentParser:
    """A parser of options that knows where the result goes."""
    parser = argparse.ArgumentParser(description=page, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / f"{name}.json", help="where to write the result")
    return parser


def check(name: str, value: float, asked: str, holds: bool) -> dict[str, Any]:
    """One goal, said aloud."""
    print(f"{'holds' if holds else 'FAILS':6} {name}: {value:.3g} ({asked})")
    return {"name": name, "value": float(f"{value:.4g}"), "asked": asked, "holds": bool(holds)}


def by_turns(
    ways: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """Median seconds of each; every one has its turn in every round."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = clock()
            way()
            taken[name].append(clock() - began)
    return {name: median(seconds) for name, seconds in taken.items()}


def write(
    out: Path,
    name: str,
    *,
    work: str,
    ours: float,
    peers: Mapping[str, float],
    ratio: float,
    checks: Sequence[Mapping[str, Any]],
    measured: Mapping[str, Any],
    packages: Sequence[str] = (),
    goal: str = "",
    arguments: str = "",
    machine: str = "CPU only",
    **versions: str,
) -> None:
    """Write a results file.

    Args:
        out, name: where, and which benchmark.
        work: what was done, in which unit.
        ours, peers, ratio: the numbers of the table; the ratio is ours against the best peer that the goal names.
        checks: from `check`; the benchmark holds where all do.
        measured: everything else.
        packages: whose versions are told.
        goal: in words; the checks' own names where not given.
        arguments: of the command line.
        machine: what computed, beside the number of cores.
        versions: of packages that are not installed here.
    """
    report = {
        "name": name,
        "work": work,
        "ours": ours,
        "peers": dict(peers),
        "ratio": ratio,
        "goal": goal or "; ".join(f"{entry['name']} {entry['asked']}" for entry in checks),
        "holds": all(entry["holds"] for entry in checks),
        "checks": list(checks),
        "measured": dict(measured),
        "command": " ".join(["python", f"benchmarks/{name}.py", *([arguments] if arguments else [])]),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {machine}, load {LOAD:.1f} when it began",
        "versions": {package: version(package) for package in packages} | versions,
    }
    write_json(out, report)
