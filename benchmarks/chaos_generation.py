"""Ensembles of chaotic trajectories: ours against the package dysts, same systems, starts, times and tolerance.

    python benchmarks/chaos_generation.py

One process, one thread, interleaved rounds, medians. dysts is asked with the two methods of scipy that serve it best here; its
own default (Radau at 1e-12) is slower by far. The goal is set against the faster of the two.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import dysts.flows
import numpy as np

import reporting
from retrodict.dynamics.ensemble import integrate_ensemble
from retrodict.worlds.chaos import dysts_flows, ode_world

SYSTEMS = ("Lorenz", "Rossler", "Halvorsen", "SprottB", "Thomas", "Chen", "Dadras", "HindmarshRose")
MEMBERS, POINTS, PER_PERIOD, TOLERANCE = 100, 100, 50, 1e-9


def compiling(name: str) -> float:
    """Seconds that the compilation of a right-hand side takes, once per process."""
    dysts_flows.compiled.cache_clear()
    began = time.perf_counter()
    dysts_flows.compiled(name)
    return time.perf_counter() - began


def timed(make: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    began = time.perf_counter()
    made = make()
    return time.perf_counter() - began, made


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Seconds of every reader for one system, and how far the trajectories lie apart within a Lyapunov time."""
    compilation = compiling(name)
    world, model = ode_world(f"dysts/{name}"), getattr(dysts.flows, name)()
    starts = world.integrate(world.start, np.arange(MEMBERS) * world.period / 3.7).states[0]
    times = np.linspace(0, world.period * POINTS / PER_PERIOD, POINTS)

    def ours(rtol: float = TOLERANCE) -> np.ndarray:
        return integrate_ensemble(world.rhs, starts, times, world.vector, rtol=rtol).states

    def theirs(method: str) -> np.ndarray:
        made = model.make_trajectory(
            POINTS, init_cond=starts, pts_per_period=PER_PERIOD, method=method, rtol=TOLERANCE, atol=TOLERANCE
        )
        return np.asarray(made)

    readers = {"ours": ours, "dysts, LSODA": lambda: theirs("LSODA"), "dysts, DOP853": lambda: theirs("DOP853")}
    model.make_trajectory(10, method="LSODA", rtol=1e-6, atol=1e-6)  # it compiles at first use too
    seconds: dict[str, list[float]] = {}
    paths = {}
    for _ in range(rounds):
        for reader, make in readers.items():
            took, paths[reader] = timed(make)
            seconds.setdefault(reader, []).append(took)
    largest = world.lyapunov(orbits=4, periods=100).largest
    within = times <= max(1 / largest if largest > 0 else np.inf, times[1])
    size = starts.std(0)
    exact = ours(1e-13)

    def apart(path: np.ndarray) -> float:
        return float(np.abs((path - exact)[:, within] / size).max())

    return {
        **{reader: round(median(values), 5) for reader, values in seconds.items()},
        "compilation": round(compilation, 3),
        "error within a Lyapunov time": {reader: float(f"{apart(path):.3g}") for reader, path in paths.items()},
    }


def write(out: Path, measured: dict[str, dict[str, Any]]) -> None:
    """Judge and write down what was measured."""
    peers = ("dysts, LSODA", "dysts, DOP853")
    ratios = {name: min(row[peer] for peer in peers) / row["ours"] for name, row in measured.items()}
    errors = [row["error within a Lyapunov time"] for row in measured.values()]
    worst = max(error["ours"] for error in errors)
    # How far a tolerance per step carries over a Lyapunov time is also the system's affair: the same method stands beside it.
    worse = max(error["ours"] / error["dysts, DOP853"] for error in errors)
    least = min(ratios.values())
    checks = [
        reporting.check("times as fast as the faster method of dysts, on the slowest system", least, ">= 20", least >= 20),
        reporting.check(
            "largest error within a Lyapunov time, in deviations of the attractor",
            worst,
            "<= 1e-6 (a thousand times the tolerance of a step)",
            worst <= 1e-6,
        ),
        reporting.check(
            "error within a Lyapunov time, over that of dysts with the same method and tolerance, worst system",
            worse,
            "<= 2",
            worse <= 2,
        ),
    ]
    reporting.write(
        out,
        "chaos_generation",
        work=f"{MEMBERS} trajectories of {POINTS} points, {PER_PERIOD} per period, rtol = atol = {TOLERANCE:g}, of "
        f"{len(SYSTEMS)} systems of dysts; seconds in sum over systems. Compilation of a right-hand side, once per process and "
        "system, is apart (`measured`); the integrator is compiled once and kept on disk. Errors are against ours at 1e-13",
        ours=round(sum(row["ours"] for row in measured.values()), 4),
        peers={peer: round(sum(row[peer] for row in measured.values()), 3) for peer in peers},
        ratio=round(least, 1),
        goal=">= 20 against the faster method of dysts on every system; same trajectories to tolerance over one Lyapunov time",
        checks=checks,
        measured=measured,
        packages=("dysts", "numba", "numpy", "scipy"),
        machine="one thread, CPU only",
    )


def main() -> None:
    parser = reporting.options("chaos_generation", __doc__)
    parser.add_argument("--rounds", type=int, default=3, help="turns that each has")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    measured = {}
    for name in SYSTEMS:
        measured[name] = measure(name, options.rounds)
        print(name, measured[name], flush=True)
    write(options.out, measured)


if __name__ == "__main__":
    main()
