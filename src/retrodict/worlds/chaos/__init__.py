"""Motions with known laws: named systems of ordinary differential equations, and those of the package dysts.

    from retrodict.worlds.chaos import ode_world

    recordings = ode_world("lorenz", rho=40.0).record(5000, dt=0.01, noise=0.05, episodes=4)

What is compiled is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrodict.worlds.chaos.world import OdeWorld


def ode_world(name: str, **parameters: Any) -> OdeWorld:
    """The system of a name such as `lorenz`, or `dysts/Halvorsen` for one of the package dysts; `chaos/` may stand before it.

    Args:
        name: one of `ode_worlds()`.
        parameters: in place of the system's own, by name.

    Raises DataError for an unknown system (with the closest name) or parameter, or for a delay equation; MissingExtraError where
    dysts is asked for and is not installed.
    """
    from retrodict.worlds.chaos import dysts_flows, flows

    name = name.removeprefix("chaos/")
    if name.startswith("dysts/"):
        return dysts_flows.make(name.removeprefix("dysts/"), parameters)
    return flows.make(name, parameters)


def ode_worlds(*, dysts: bool = False, **which: Any) -> tuple[str, ...]:
    """Names of the systems written here; with `dysts`, of those of the package, chosen by `which` (see `dysts_flows.names`)."""
    from retrodict.worlds.chaos import dysts_flows, flows

    return tuple(f"dysts/{name}" for name in dysts_flows.names(**which)) if dysts else tuple(flows.KNOWN)
