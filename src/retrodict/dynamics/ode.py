"""Differentiable ODE integration in batches, on tensors of any floating dtype and device.

Gradients flow through every step to the initial state, to what `f` closes over and to the path that drives it. The sizes of
adaptive steps are chosen without gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from retrodict.dynamics.splines import CubicPath
from retrodict.errors import DataError

State = Tensor | tuple[Tensor, ...]
Field = Callable[..., Any]
"""`f(t, x, *params)`: the derivative of a state, of the same form; t is a scalar tensor."""


def odeint(
    f: Field,
    x0: State,
    times: Tensor | Sequence[float],
    method: Literal["euler", "semi-implicit", "rk4", "tsit5"] = "rk4",
    *,
    substeps: int = 1,
    rtol: float = 1e-3,
    atol: float = 1e-6,
    max_steps: int = 10_000,
    params: Sequence[Any] = (),
) -> Any:
    """States at `times`, each (T, B, ...), of dx/dt = f(t, x, *params) from x0 (B, ...).

    Args:
        f: the vector field.
        x0: a tensor, or a tuple of tensors (positions and velocities; mean and covariance).
        times: (T,), rising or falling; the first is that of x0.
        method: `euler`; `semi-implicit` (of a tuple of positions and velocities: velocities first, positions by the new ones);
            `rk4`; `tsit5` (Tsitouras 2011, steps adapted to the member of the batch that needs the smallest).
        substeps: fixed steps between two times.
        rtol, atol, max_steps: of `tsit5`; steps between two times.
        params: handed to f.

    Raises DataError for times that are not monotone, an unknown method, or when `max_steps` are not enough (the time is named).
    """
    single = isinstance(x0, Tensor)
    state: tuple[Tensor, ...] = (x0,) if isinstance(x0, Tensor) else tuple(x0)
    clock = torch.as_tensor(times, dtype=state[0].dtype, device=state[0].device)
    gaps = clock.diff()
    if clock.ndim != 1 or not len(clock) or not ((gaps > 0).all() or (gaps < 0).all()):
        raise DataError("times must rise (or fall) from that of the initial state on.")
    if method not in STEPS and method != "tsit5":
        raise DataError(f"the methods are {', '.join(STEPS)}, tsit5; got {method!r}.")
    if substeps < 1 or max_steps < 1:
        raise DataError(f"substeps and max_steps start at 1; got {substeps} and {max_steps}.")
    if method == "semi-implicit" and len(state) != 2:
        raise DataError("semi-implicit Euler takes a pair (positions, velocities).")

    def slope(t: Tensor, x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        found = f(t, x[0] if single else x, *params)
        return (found,) if single else tuple(found)

    path = [state]
    size = gaps[0] / 10 if len(gaps) else clock[0]
    for t, gap in zip(clock[:-1], gaps, strict=True):
        if method == "tsit5":
            state, size = _adaptively(slope, t, state, gap, size, rtol, atol, max_steps)
        else:
            for i in range(substeps):
                state = STEPS[method](slope, t + gap * i / substeps, state, gap / substeps)
        path.append(state)
    stacked = tuple(torch.stack(parts) for parts in zip(*path, strict=True))
    return stacked[0] if single else stacked


def driven(f: Callable[[Tensor], Tensor], path: CubicPath) -> Field:
    """The vector field dz/dt = f(z) dX/dt of a controlled equation (Kidger et al., 2020), X being a spline path with C channels.

    `f` takes z (B, d) to a matrix (B, d, C).
    """
    return lambda t, z: (f(z) @ path.derivative(t)[..., None])[..., 0]


def moments(drift: Field, diffusion: Tensor) -> Field:
    """The vector field of mean (B, d) and covariance (B, d, d) of dx = drift(t, x) dt + noise, linearised about the mean.

    dm/dt = f(m) and dP/dt = J P + P J' + diffusion, where `diffusion` (d, d) is the noise's covariance per unit of time.
    """

    def field(t: Tensor, state: tuple[Tensor, Tensor], *params: Any) -> tuple[Tensor, Tensor]:
        mean, covariance = state
        slopes = torch.func.vmap(torch.func.jacrev(lambda x: drift(t, x[None], *params)[0]))(mean)
        grown = slopes @ covariance
        return drift(t, mean, *params), grown + grown.mT + diffusion

    return field


# ---- steps ----------------------------------------------------------------------------------------------------------------

Slope = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]


def _moved(x: tuple[Tensor, ...], h: Tensor, *terms: tuple[float, tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Add h times a weighted sum of slopes."""
    return tuple(part + h * sum(w * k[i] for w, k in terms if w) for i, part in enumerate(x))


def _euler(f: Slope, t: Tensor, x: tuple[Tensor, ...], h: Tensor) -> tuple[Tensor, ...]:
    return _moved(x, h, (1.0, f(t, x)))


def _semi_implicit(f: Slope, t: Tensor, x: tuple[Tensor, ...], h: Tensor) -> tuple[Tensor, ...]:
    position, velocity = x
    velocity = velocity + h * f(t, x)[1]
    return position + h * f(t, (position, velocity))[0], velocity


def _rk4(f: Slope, t: Tensor, x: tuple[Tensor, ...], h: Tensor) -> tuple[Tensor, ...]:
    k1 = f(t, x)
    k2 = f(t + h / 2, _moved(x, h, (1 / 2, k1)))
    k3 = f(t + h / 2, _moved(x, h, (1 / 2, k2)))
    k4 = f(t + h, _moved(x, h, (1.0, k3)))
    return _moved(x, h, (1 / 6, k1), (1 / 3, k2), (1 / 3, k3), (1 / 6, k4))


STEPS: dict[str, Callable[[Slope, Tensor, tuple[Tensor, ...], Tensor], tuple[Tensor, ...]]] = {
    "euler": _euler,
    "semi-implicit": _semi_implicit,
    "rk4": _rk4,
}

# Tsitouras, Computers & Mathematics with Applications 62 (2011), table 1; the last row is the fifth-order solution.
NODES = (0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0)
STAGES = (
    (),
    (0.161,),
    (-0.008480655492356989, 0.335480655492357),
    (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
    (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
    (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
    (0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081, 2.324710524099774),
)
ERROR = (
    -0.00178001105222577714,
    -0.0008164344596567469,
    0.007880878010261995,
    -0.1447110071732629,
    0.5823571654525552,
    -0.45808210592918697,
    1 / 66,
)


def _adaptively(
    f: Slope, start: Tensor, x: tuple[Tensor, ...], gap: Tensor, size: Tensor, rtol: float, atol: float, max_steps: int
) -> tuple[tuple[Tensor, ...], Tensor]:
    """The state a gap later, by Tsit5, and the size of step to go on with."""
    done, first = torch.zeros_like(gap), f(start, x)
    for _ in range(max_steps):
        rest = gap - done
        last = bool(size.abs() >= rest.abs())
        h = rest if last else size
        t, slopes = start + done, [first]
        for node, row in zip(NODES[1:], STAGES[1:], strict=True):
            after = _moved(x, h, *zip(row, slopes, strict=True))
            slopes.append(f(t + node * h, after))
        with torch.no_grad():
            error = _error(x, after, h, slopes, rtol, atol)
            factor = float(torch.nan_to_num(0.9 * error ** (-1 / 5), nan=0.1, posinf=10.0).clamp(0.2, 10.0))
        if error <= 1:
            x, first, done = after, slopes[-1], done + h
            if last:
                return x, h * factor if abs(h * factor) > abs(size) else size
        size = h * factor
    raise DataError(
        f"tsit5 took {max_steps} steps from t = {float(start):.6g} and reached t = {float(start + done):.6g} of "
        f"{float(start + gap):.6g}: the state blows up or is stiff; loosen rtol, or use rk4 with substeps."
    )


def _error(
    x: tuple[Tensor, ...], after: tuple[Tensor, ...], h: Tensor, slopes: list[tuple[Tensor, ...]], rtol: float, atol: float
) -> Tensor:
    """The largest error over the batch, in units of the tolerance (root mean square over a member's numbers)."""
    squares, count = torch.zeros((), dtype=h.dtype, device=h.device), 0
    for i, part in enumerate(after):
        wrong = h * sum(w * k[i] for w, k in zip(ERROR, slopes, strict=True))
        scaled = (wrong / (atol + rtol * torch.maximum(x[i].abs(), part.abs()))).reshape(len(part) if part.ndim else 1, -1)
        squares, count = squares + scaled.square().sum(1), count + scaled.shape[1]
    return (squares / count).max().sqrt()
