"""Learning curves of 100 modes at 10,000 times: `dynamics.mode_growth` beside scipy's `solve_ivp`, in one process.

scipy solves the same equations at rtol 1e-10 in two ways: all modes as one system, and each mode by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from scipy.integrate import solve_ivp

from retrodict.dynamics.mode_growth import growth, growth_time
from retrodict.files import write_text

RESULT = Path(__file__).parents[1] / "results" / "benchmarks" / "mode_curves.json"
TIMES, MODES, START, GOAL = 10_000, 100, 1e-2, 50


def together(times: np.ndarray, strengths: np.ndarray, depth: int) -> np.ndarray:
    return np.asarray(_solved(times, strengths, np.full(MODES, START), depth).T)


def apart(times: np.ndarray, strengths: np.ndarray, depth: int) -> np.ndarray:
    return np.stack([_solved(times, s, np.array([START]), depth)[0] for s in strengths], 1)


def _solved(times: np.ndarray, strengths: np.ndarray, starts: np.ndarray, depth: int) -> np.ndarray:
    def slope(time: float, u: np.ndarray) -> np.ndarray:
        return np.asarray(depth * u ** (2 - 2 / depth) * (strengths - u))

    return np.asarray(solve_ivp(slope, (0, times[-1]), starts, t_eval=times, rtol=1e-10, atol=1e-14).y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="turns that each has")
    parser.add_argument("--out", type=Path, default=RESULT, help="where to write the result")
    options = parser.parse_args()
    strengths = np.random.default_rng(0).uniform(0.2, 2, MODES)
    measured: dict[str, dict[str, float]] = {}
    difference = 0.0
    for depth in (2, 8):
        latest = growth_time(strengths / 2, strengths, START, depth).max()
        times = np.linspace(0, 2 * latest, TIMES)  # until all are learned
        ways: dict[str, Callable[[], np.ndarray]] = {
            "ours": partial(growth, times, strengths, START, depth),
            "solve_ivp, one system": partial(together, times, strengths, depth),
            "solve_ivp, mode by mode": partial(apart, times, strengths, depth),
        }
        found = {name: way() for name, way in ways.items()}  # compiles, and is compared
        difference = max(difference, float(np.abs(found["ours"] - found["solve_ivp, mode by mode"]).max()))
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, way in ways.items():
                began = time.perf_counter()
                way()
                taken[name].append(time.perf_counter() - began)
        measured[f"depth {depth}"] = {name: statistics.median(seconds) for name, seconds in taken.items()}
        print(depth, measured[f"depth {depth}"], difference)
    rows = list(measured.values())
    ratios = {name: min(row[name] / row["ours"] for row in rows) for name in rows[0] if name != "ours"}
    report = {
        "name": "mode_curves",
        "work": "strengths of 100 modes at 10,000 times, seconds; depths 2 and 8, each ratio at the depth where it is smaller",
        "ours": measured["depth 2"]["ours"],
        "peers": {name: seconds for name, seconds in measured["depth 2"].items() if name != "ours"},
        "ratio": round(min(ratios.values()), 2),
        "ratios": {name: round(value, 2) for name, value in ratios.items()},
        "goal": f"more than {GOAL} times as fast as solve_ivp, largest difference below 1e-8",
        "largest difference": difference,
        "holds": min(ratios.values()) > GOAL and difference < 1e-8,
        "measured": measured,
        "command": "python benchmarks/mode_curves.py",
        "machine": f"{os.cpu_count()} cores, CPU only, load {os.getloadavg()[0]:.1f} when it ended",
    }
    write_text(options.out, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
