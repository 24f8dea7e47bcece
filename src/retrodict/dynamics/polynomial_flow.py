"""Flows dx/dt that are polynomials of the state: one compiled right-hand side for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np

from retrodict.dynamics.ensemble import integrate_ensemble
from retrodict.dynamics.runge_kutta import SIGNATURE


@numba.njit(SIGNATURE, cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def polynomial(t: float, x: np.ndarray, parameters: np.ndarray, dx: np.ndarray) -> None:
    """Write dx/dt at x (d,) of a polynomial whose `parameters` a `PolynomialFlow` made; for `integrate_ensemble`."""
    d = len(x)
    terms = len(parameters) // d // 2
    for i in range(d):
        dx[i] = 0.0
    for k in range(terms):
        value = 1.0
        for i in range(d):
            for _ in range(int(parameters[k * d + i])):
                value *= x[i]
        for i in range(d):
            dx[i] += parameters[(terms + k) * d + i] * value


@dataclass(frozen=True, eq=False)
class PolynomialFlow:
    """dx_i/dt = sum over k of coefficients[k, i] times the product of x_j^exponents[k, j].

    Attributes:
        exponents: (F, d) whole numbers.
        coefficients: (F, d).
        scale: (d,), how large states are: tolerances of an integration are shares of it.
    """

    exponents: np.ndarray
    coefficients: np.ndarray
    scale: np.ndarray

    @cached_property
    def parameters(self) -> np.ndarray:
        """What `polynomial` takes for states in units of `scale`; terms without a coefficient are left out."""
        used = (self.coefficients != 0).any(1)
        powers = self.exponents[used]
        scaled = self.coefficients[used] * np.prod(self.scale**powers, 1)[:, None] / self.scale
        return np.concatenate([powers.ravel(), scaled.ravel()]).astype(np.float64)

    def derivative(self, states: np.ndarray) -> np.ndarray:
        """dx/dt (..., d) at states (..., d)."""
        return np.asarray(np.prod(states[..., None, :] ** self.exponents, -1) @ self.coefficients)

    def jacobian(self, states: np.ndarray) -> np.ndarray:
        """Derivatives (..., d, d) of dx/dt by the states (..., d), one column each."""
        columns = []
        for j, powers in enumerate(self.exponents.T):
            lowered = self.exponents.copy()
            lowered[:, j] = np.maximum(powers - 1, 0)
            columns.append((powers * np.prod(states[..., None, :] ** lowered, -1)) @ self.coefficients)
        return np.stack(columns, -1)

    def simulate(self, initial: np.ndarray, times: np.ndarray, rtol: float = 1e-9, max_steps: int = 1_000_000) -> np.ndarray:
        """States (B, T, d) at rising `times`, the first being that of the initial states (B, d); NaN after a blow-up."""
        found = integrate_ensemble(polynomial, initial / self.scale, times, self.parameters, rtol=rtol, max_steps=max_steps)
        return np.asarray(found.states * self.scale)
