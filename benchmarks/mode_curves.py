"""Learning curves of 100 modes at 10,000 times: `dynamics.mode_growth` beside scipy's `solve_ivp`, in one process.

scipy solves the same equations at rtol 1e-10 in two ways: all modes as one system, and each mode by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.integrate import solve_ivp

import reporting
from retrodict.dynamics.mode_growth import growth, growth_time

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
    parser = reporting.options("mode_curves", __doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns that each has")
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
        measured[f"depth {depth}"] = reporting.by_turns(ways, options.rounds, time.perf_counter)
        print(depth, measured[f"depth {depth}"], difference)
    rows = list(measured.values())
    ratios = {name: min(row[name] / row["ours"] for row in rows) for name in rows[0] if name != "ours"}
    reporting.write(
        options.out,
        "mode_curves",
        work="strengths of 100 modes at 10,000 times, seconds; depths 2 and 8, each ratio at the depth where it is smaller",
        ours=measured["depth 2"]["ours"],
        peers={name: seconds for name, seconds in measured["depth 2"].items() if name != "ours"},
        ratio=round(min(ratios.values()), 2),
        checks=[
            *(reporting.check(f"times as fast as {name}", value, f"> {GOAL}", value > GOAL) for name, value in ratios.items()),
            reporting.check("largest difference", difference, "< 1e-8", difference < 1e-8),
        ],
        measured=measured,
        packages=("numba", "numpy", "scipy"),
    )


if __name__ == "__main__":
    main()
