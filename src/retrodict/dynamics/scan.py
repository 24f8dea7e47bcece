"""The recurrent scan: a piecewise-linear map iterated over a batch of sequences, with teacher forcing, differentiably.

On a CPU, loops compiled by numba run forward and, with gradients derived by hand, backward (`scan_kernels`); elsewhere, and as
the reference that tests hold them against, the same recursion is written step by step in torch (`scan_in_torch`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from retrodict.dynamics.plrnn import AlmostLinear, Map
from retrodict.errors import DataError
from retrodict.trajectories.windows.buffers import Buffers


class Sparse(NamedTuple):
    """Sparse teacher forcing: after every `every`-th step the first N entries become the signal's, and no gradient passes there.

    Attributes:
        signal: (T, B, N), what the state after each step should be; takes no gradient.
        every: steps between forcings.
    """

    signal: Tensor
    every: int


class Mixed(NamedTuple):
    """Generalised teacher forcing: the next step starts from (1 - alpha) z + alpha signal in the first N entries.

    The gradient that passes there is multiplied by 1 - alpha. alpha 0 forces nothing, alpha 1 replaces.

    Attributes:
        signal: (T, B, N), what the state after each step should be; takes no gradient.
        alpha: in [0, 1]; a scalar tensor may be learned.
    """

    signal: Tensor
    alpha: float | Tensor


Forcing = Sparse | Mixed


def scan(
    law: Map,
    z0: Tensor,
    steps: int,
    forcing: Forcing | None = None,
    drive: Tensor | None = None,
    entries: int | None = None,
) -> Tensor:
    """The states after each of `steps` steps, (T, B, M), before they are forced.

    Args:
        law: the map; gradients reach its tensors.
        z0: states (B, M) from which the first step starts; they are not forced.
        forcing: how states are drawn to a signal before the next step starts from them; the last state is not.
        drive: (T, B, M), added in each step: inputs times their weights, or noise.
        entries: how many of the first entries are wanted, (T, B, entries); fewer cost less. All where None.

    Raises DataError where shapes, types or devices do not fit, alpha leaves [0, 1], or `every` is below 1.
    """
    _check(law, z0, steps, forcing, drive)
    wanted = z0.shape[1] if entries is None else entries
    if z0.device.type != "cpu" or z0.dtype not in (torch.float32, torch.float64):
        return scan_in_torch(law, z0, steps, forcing, drive)[..., :wanted]
    signal: Tensor | None = None
    alpha: float | Tensor | None = None
    kind, every = NONE, 1
    if isinstance(forcing, Sparse):
        kind, (signal, every) = SPARSE, forcing
    elif forcing is not None:
        kind, (signal, alpha) = MIXED, forcing
    about = (steps, kind, every, alpha, wanted if signal is None else max(wanted, signal.shape[-1]))
    if isinstance(law, AlmostLinear):
        made: Tensor = _AlmostLinear.apply(law.rectified, about, signal, z0, *law[:3], drive, _learned(alpha))  # type: ignore[no-untyped-call]
    else:
        made = _Shallow.apply(law.clipped, about, signal, z0, *law[:5], drive, _learned(alpha))  # type: ignore[no-untyped-call]
    return made if made.shape[-1] == wanted else made[..., :wanted]


def scan_in_torch(law: Map, z0: Tensor, steps: int, forcing: Forcing | None = None, drive: Tensor | None = None) -> Tensor:
    """`scan` step by step in torch: any device, gradients by autograd."""
    x, states = z0, []
    for t in range(steps):
        z = law.step(x)
        if drive is not None:
            z = z + drive[t]
        states.append(z)
        x = z if forcing is None else _forced(z, forcing, t)
    return torch.stack(states)


def _forced(z: Tensor, forcing: Forcing, t: int) -> Tensor:
    signal = forcing.signal[t].detach()
    n = signal.shape[-1]
    if isinstance(forcing, Mixed):
        return torch.cat([z[:, :n] + forcing.alpha * (signal - z[:, :n]), z[:, n:]], -1)
    return torch.cat([signal, z[:, n:]], -1) if (t + 1) % forcing.every == 0 else z


def _check(law: Map, z0: Tensor, steps: int, forcing: Forcing | None, drive: Tensor | None) -> None:
    if steps < 1 or z0.ndim != 2 or z0.shape[1] != law[1].shape[0]:
        raise DataError(
            f"a scan of {steps} step(s) was asked for from states {list(z0.shape)}; at least one step from states (B, M) of "
            f"M = {law[1].shape[0]} is expected."
        )
    given = {"drive": (drive, z0.shape[1])} if drive is not None else {}
    if forcing is not None:
        given["signal"] = (forcing.signal, min(forcing.signal.shape[-1], z0.shape[1]))
    for name, (value, width) in given.items():
        if value.shape != (steps, len(z0), width):
            raise DataError(f"the {name} of a scan has shape {list(value.shape)}; {[steps, len(z0), width]} is expected.")
    tensors = [z0, *(value for value in law if isinstance(value, Tensor)), *(value for value, _ in given.values())]
    if any(value.dtype != z0.dtype or value.device != z0.device for value in tensors):
        raise DataError(f"all tensors of a scan are of one type on one device; got {sorted({str(v.dtype) for v in tensors})}.")
    if isinstance(forcing, Mixed) and not 0 <= (strength := float(torch.as_tensor(forcing.alpha).detach())) <= 1:
        raise DataError(f"alpha of teacher forcing lies in [0, 1], got {strength}.")
    if isinstance(forcing, Sparse) and forcing.every < 1:
        raise DataError(f"teacher forcing happens every step or more seldom, got every {forcing.every}.")
    if isinstance(law, AlmostLinear) and not 0 <= law.rectified <= len(law.a):
        raise DataError(f"of {len(law.a)} entries, {law.rectified} cannot be rectified.")


# ---- the compiled scans -------------------------------------------------------------------------------------------------

NONE, SPARSE, MIXED = 0, 1, 2
"""Kinds of forcing, as the kernels know them."""

_MEMORY, _LARGE = Buffers(keep=8), 1_000_000
"""What a large scan wrote into serves the next one: fresh pages would cost more than the loops."""


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return _MEMORY.array(shape, dtype) if dtype.itemsize * shape[0] * shape[1] * shape[2] > _LARGE else np.empty(shape, dtype)


def _kernels() -> Any:
    """The compiled loops; numba takes long to import, and most that imports this file scans nothing."""
    from retrodict.dynamics import scan_kernels

    return scan_kernels


def _learned(alpha: float | Tensor | None) -> Tensor | None:
    return alpha if isinstance(alpha, Tensor) else None


def _array(value: Tensor) -> np.ndarray:
    array: np.ndarray = value.detach().contiguous().numpy()
    return array


def _repeated(value: Tensor, batch: int) -> np.ndarray:
    """A vector of parameters repeated over the batch."""
    return _array(value.detach().expand(batch, -1))


def _optional(value: Tensor | None, like: Tensor) -> np.ndarray:
    return _array(value) if value is not None else np.empty((0, 0, 0), _array(like).dtype)


def _rows(value: np.ndarray) -> Tensor:
    """(T, B, n) as (T B, n): the products over all steps at once."""
    return torch.from_numpy(value.reshape(-1, value.shape[-1]))


class _AlmostLinear(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx: Any, rectified, about, signal, z0, a, w, h, drive, alpha
    ) -> Tensor:
        (steps, kind, every, strength, entries), (batch, latent) = about, z0.shape
        dtype = _array(z0).dtype
        floor = np.zeros((batch, latent), dtype)
        floor[:, : latent - rectified] = -np.inf
        inputs, active = _empty((steps + 1, batch, latent), dtype), _empty((steps, batch, latent), dtype)
        seen = np.empty((steps, batch, entries), dtype)
        forcing = (_optional(signal, z0), kind, every, dtype.type(0 if strength is None else strength))
        ctx.a, ctx.w, ctx.floor, ctx.forcing = _repeated(a, batch), _array(w), floor, forcing
        _kernels().almost_linear(
            _array(z0), ctx.a, _array(w.mT), _repeated(h, batch), floor, _optional(drive, z0), *forcing, inputs, active, seen
        )
        ctx.inputs, ctx.active, ctx.seen = inputs, active, seen
        return torch.from_numpy(seen)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        by_state = _empty(ctx.active.shape, ctx.active.dtype)
        by_z0, by_alpha = _kernels().almost_linear_backward(
            _array(grad), ctx.a, ctx.w, ctx.floor, *ctx.forcing, ctx.inputs, ctx.seen, by_state
        )
        d = _rows(by_state)
        wanted = ctx.needs_input_grad
        return (
            *(None, None, None),
            torch.from_numpy(by_z0) if wanted[3] else None,
            (d * _rows(ctx.inputs[:-1])).sum(0) if wanted[4] else None,
            d.T @ _rows(ctx.active) if wanted[5] else None,
            d.sum(0) if wanted[6] else None,
            torch.from_numpy(by_state) if wanted[7] else None,
            torch.tensor(by_alpha, dtype=grad.dtype) if wanted[8] else None,
        )


class _Shallow(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx: Any, clipped, about, signal, z0, a, w1, w2, h1, h2, drive, alpha
    ) -> Tensor:
        (steps, kind, every, strength, entries), (batch, latent), width = about, z0.shape, len(h2)
        dtype, full = _array(z0).dtype, a.ndim == 2
        inputs, seen = _empty((steps + 1, batch, latent), dtype), np.empty((steps, batch, entries), dtype)
        hidden, active = (_empty((steps, batch, width), dtype) for _ in range(2))
        forcing = (_optional(signal, z0), kind, every, dtype.type(0 if strength is None else strength))
        ctx.full, ctx.clipped, ctx.forcing = full, clipped, forcing
        ctx.a = _array(a) if full else _repeated(a, batch)
        ctx.w1, ctx.w2, ctx.h2 = _array(w1), _array(w2), _repeated(h2, batch)
        _kernels().shallow(
            *(_array(z0), _array(a.mT) if full else ctx.a, full, _array(w1.mT), _array(w2.mT)),
            *(_repeated(h1, batch), ctx.h2, clipped, _optional(drive, z0), *forcing, inputs, hidden, active, seen),
        )
        ctx.inputs, ctx.hidden, ctx.active, ctx.seen = inputs, hidden, active, seen
        return torch.from_numpy(seen)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        by_state, by_hidden = (_empty(like.shape, like.dtype) for like in (ctx.inputs[:-1], ctx.hidden))
        by_z0, by_h2, by_alpha = _kernels().shallow_backward(
            *(_array(grad), ctx.a, ctx.full, ctx.w1, ctx.w2, ctx.h2, ctx.clipped, *ctx.forcing),
            *(ctx.hidden, ctx.seen, by_state, by_hidden),
        )
        d, x = _rows(by_state), _rows(ctx.inputs[:-1])
        wanted = ctx.needs_input_grad
        return (
            *(None, None, None),
            torch.from_numpy(by_z0) if wanted[3] else None,
            (d.T @ x if ctx.full else (d * x).sum(0)) if wanted[4] else None,
            d.T @ _rows(ctx.active) if wanted[5] else None,
            (x.T @ _rows(by_hidden)).T if wanted[6] else None,  # the narrow one first: several times faster
            d.sum(0) if wanted[7] else None,
            torch.from_numpy(by_h2).sum(0) if wanted[8] else None,
            torch.from_numpy(by_state) if wanted[9] else None,
            torch.tensor(by_alpha, dtype=grad.dtype) if wanted[10] else None,
        )
