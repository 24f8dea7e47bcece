"""Functions of single numbers for compiled loops, written out so that the compiler makes vectors of them.

A call of the mathematical library would keep a loop from becoming one, and so would a division that asks about zero: whoever uses
these compiles with `error_model="numpy"`, and with `fastmath={"contract"}`, so that additions are fused into multiplications.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

f32 = np.float32
ONE, TWO = f32(1), f32(2)


@numba.njit(inline="always", error_model="numpy", fastmath={"contract"})
def exp(x: Any) -> Any:
    """e^x to a unit in the last place or two: a power of two, and a polynomial over half an octave to either side.

    (Coefficients: Moshier, Cephes, expf.)
    """
    x = f32(-87) if x < f32(-87) else x  # written so that what is not a number stays none
    x = f32(87) if x > f32(87) else x
    octave = np.floor(x * f32(1.44269504) + f32(0.5))
    r = x - octave * f32(0.693359375) + octave * f32(2.12194440e-4)  # ln 2 in two parts, the first one exact
    p = f32(1.9875691500e-4)
    p = p * r + f32(1.3981999507e-3)
    p = p * r + f32(8.3334519073e-3)
    p = p * r + f32(4.1665795894e-2)
    p = p * r + f32(1.6666665459e-1)
    p = p * r + f32(5.0000001201e-1)
    p = p * r * r + r + ONE
    return p * np.int32((np.int32(octave) + np.int32(127)) << np.int32(23)).view(f32)


@numba.njit(inline="always", error_model="numpy", fastmath={"contract"})
def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x)."""
    return ONE / (ONE + exp(-x))


@numba.njit(inline="always", error_model="numpy", fastmath={"contract"})
def tanh(x: Any) -> Any:
    """(e^2x - 1) / (e^2x + 1)."""
    return ONE - TWO / (exp(TWO * x) + ONE)
