"""Named systems of ordinary differential equations, with what the literature knows of them.

A flow writes dx/dt into `dx`; it reads its parameters in the order in which they stand in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import ellipj, ellipk, ellipkinc

from retrodict.dynamics.ensemble import flow
from retrodict.worlds.catalogue import unknown
from retrodict.worlds.chaos.world import OdeWorld, with_parameters


@dataclass(frozen=True)
class Known:
    """A row of the table; see `OdeWorld` for what the fields mean."""

    rhs: Callable[..., None]
    parameters: Mapping[str, float]
    names: tuple[str, ...]
    period: float
    low: tuple[float, ...]
    high: tuple[float, ...]
    settles: bool = True
    known: Mapping[str, float] = field(default_factory=dict)
    source: str = ""


def _lorenz(t: float, x: np.ndarray, p: np.ndarray, dx: np.ndarray) -> None:
    dx[0] = p[0] * (x[1] - x[0])
    dx[1] = x[0] * (p[1] - x[2]) - x[1]
    dx[2] = x[0] * x[1] - p[2] * x[2]


def _roessler(t: float, x: np.ndarray, p: np.ndarray, dx: np.ndarray) -> None:
    dx[0] = -x[1] - x[2]
    dx[1] = x[0] + p[0] * x[1]
    dx[2] = p[1] + x[2] * (x[0] - p[2])


def _duffing(t: float, x: np.ndarray, p: np.ndarray, dx: np.ndarray) -> None:
    dx[0] = x[1]
    dx[1] = -p[0] * x[1] - p[1] * x[0] - p[2] * x[0] ** 3


def _forced_duffing(t: float, x: np.ndarray, p: np.ndarray, dx: np.ndarray) -> None:
    dx[0] = x[1]
    dx[1] = -p[0] * x[1] - p[1] * x[0] - p[2] * x[0] ** 3 + p[3] * np.cos(x[2])
    dx[2] = p[4]


def _pendulum(t: float, x: np.ndarray, p: np.ndarray, dx: np.ndarray) -> None:
    dx[0] = x[1]
    dx[1] = -p[0] * np.sin(x[0])


def _lotka_volterra(t: float, x: np.ndarray, p: np.ndarray, dx: np.ndarray) -> None:
    dx[0] = p[0] * x[0] - p[1] * x[0] * x[1]
    dx[1] = p[2] * x[0] * x[1] - p[3] * x[1]


def _repressilator(t: float, x: np.ndarray, p: np.ndarray, dx: np.ndarray) -> None:
    for i in range(3):
        dx[i] = p[0] / (1 + x[(i + 2) % 3] ** p[1]) - p[2] * x[i]


def _lamb_oseen(t: float, x: np.ndarray, p: np.ndarray, dx: np.ndarray) -> None:
    square = x[0] ** 2 + x[1] ** 2
    swirl = p[0] / (2 * np.pi * square) * (1 - np.exp(-square / p[1] ** 2)) if square > 0 else p[0] / (2 * np.pi * p[1] ** 2)
    dx[0] = -swirl * x[1]
    dx[1] = swirl * x[0]


SPROTT = "Sprott, Chaos and Time-Series Analysis (2003), appendix A"

KNOWN: Mapping[str, Known] = {
    "lorenz": Known(
        _lorenz,
        {"sigma": 10.0, "rho": 28.0, "beta": 8 / 3},
        ("x", "y", "z"),
        0.75,
        (-15, -15, 10),
        (15, 15, 40),
        known={"lyapunov": 0.9056, "kaplan_yorke": 2.062, "correlation_dimension": 2.05},
        source=f"{SPROTT}; Grassberger and Procaccia (1983)",
    ),
    "roessler": Known(
        _roessler,
        {"a": 0.2, "b": 0.2, "c": 5.7},
        ("x", "y", "z"),
        5.88,
        (-5, -5, 0),
        (5, 5, 0.5),
        known={"lyapunov": 0.0714, "kaplan_yorke": 2.0132},
        source=SPROTT,
    ),
    "duffing": Known(
        _duffing,
        {"delta": 0.3, "alpha": -1.0, "beta": 1.0},
        ("x", "velocity"),
        4.44,
        (-2, -2),
        (2, 2),
        settles=False,
    ),
    "forced-duffing": Known(
        _forced_duffing,
        {"delta": 0.2, "alpha": -1.0, "beta": 1.0, "gamma": 0.3, "omega": 1.0},
        ("x", "velocity", "phase"),
        2 * np.pi,
        (-1, -1, 0),
        (1, 1, 2 * np.pi),
    ),
    "pendulum": Known(
        _pendulum,
        {"stiffness": 1.0},
        ("angle", "velocity"),
        2 * np.pi,
        (-2.5, -0.5),
        (2.5, 0.5),
        settles=False,
    ),
    "lotka-volterra": Known(
        _lotka_volterra,
        {"alpha": 1.0, "beta": 0.4, "gamma": 0.1, "delta": 0.4},
        ("prey", "predators"),
        10.0,
        (1, 1),
        (8, 4),
        settles=False,
    ),
    "lotka-volterra-unit": Known(
        _lotka_volterra,
        {"alpha": 1.0, "beta": 1.0, "gamma": 1.0, "delta": 1.0},
        ("prey", "predators"),
        2 * np.pi,
        (0.5, 0.5),
        (2, 2),
        settles=False,
    ),
    "repressilator": Known(
        _repressilator,
        {"beta": 10.0, "n": 3.0, "gamma": 1.0},
        ("lacI", "tetR", "cI"),
        6.0,
        (0.5, 0.5, 0.5),
        (3, 3, 3),
    ),
    "lamb-oseen": Known(
        _lamb_oseen,
        {"circulation": 2 * np.pi, "core": 0.5},
        ("x", "y"),
        2 * np.pi,
        (-2, -2),
        (2, 2),
        settles=False,
    ),
}
"""Name -> system. Parameters may be replaced; period, box and literature values are those of the parameters that stand here."""


def make(name: str, parameters: Mapping[str, float]) -> OdeWorld:
    """The system of a name; raises DataError where there is none or a parameter is not its."""
    if name not in KNOWN:
        raise unknown(name, KNOWN)
    row = KNOWN[name]
    box = np.array([row.low, row.high], float)
    own = with_parameters(name, row.parameters, parameters)
    world = OdeWorld(
        name,
        flow(row.rhs),
        own,
        row.names,
        row.period,
        0.4 * box[0] + 0.6 * box[1],  # off the middle, where many of them rest
        box,
        row.settles,
        {} if parameters else row.known,
        row.source,
    )
    if name == "pendulum":
        return replace(world, exact=lambda initial, times: swing(initial, times, float(own["stiffness"])))
    if name == "forced-duffing":  # its phase grows for ever
        return replace(
            world,
            observe=lambda path: np.concatenate([path[:, :2], np.cos(path[:, 2:])], 1),
            observed_names=("x", "velocity", "drive"),
        )
    return world


def swing(initial: np.ndarray, times: np.ndarray, stiffness: float = 1.0) -> np.ndarray:
    """Angle and velocity (T, 2) of a pendulum that swings without turning over, by Jacobi's elliptic functions."""
    angle, velocity = initial
    w = np.sqrt(stiffness)
    k = np.sqrt(np.sin(angle / 2) ** 2 + (velocity / (2 * w)) ** 2)
    phase = ellipkinc(np.arcsin(np.clip(np.sin(angle / 2) / k, -1, 1)), k**2)
    if velocity < 0:
        phase = 2 * ellipk(k**2) - phase
    sn, cn, _, _ = ellipj(w * np.asarray(times) + phase, k**2)
    return np.stack([2 * np.arcsin(k * sn), 2 * k * w * cn], -1)
