"""What the theory of deep linear networks says about samples, and how a training run followed it."""

from __future__ import annotations

from functools import reduce
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from retrodict.dynamics.mode_growth import growth, growth_time
from retrodict.errors import DataError
from retrodict.roles import Panel, Report
from retrodict.trajectories import TrainingRun

if TYPE_CHECKING:
    from retrodict.systems.learning.deep_linear import DeepLinear

ALIGNED = 1e-6
"""Largest part of the first weights that may be off balance or off the modes where the theory is to be exact."""
ROUNDING = 1e-9
"""A mode that begins below this part of the strongest begins at 0."""


def about_samples(theory: DeepLinear, x: Tensor, y: Tensor) -> Report:
    """How well fresh samples (n, in) and (n, out) bear out the modes of the fit, and the course that learning will take."""
    strengths, halves = theory.strengths_.cpu().numpy(), theory.half_times()
    met = (theory.left_.T @ (y.T @ x / len(x)) @ theory.right_).cpu().numpy()
    seen, spectrum = np.diag(met), torch.linalg.eigvalsh(x.T @ x / len(x))
    beside = np.sqrt(max((met**2).sum() - (seen**2).sum(), 0.0) / (met**2).sum())
    reached = halves[np.isfinite(halves)]
    # Whitened inputs are principal components: a mode along one of them is what unsupervised pre-training finds too.
    alignment = float(theory.right_.abs().max(0).values.mean()) if theory.whitener_ is not None else float("-inf")
    values = {
        "modes": float(len(strengths)),
        "condition number of the inputs": float(spectrum[-1] / spectrum[0].clamp(min=1e-300)),
        "largest change of a mode": float(np.abs(seen - strengths).max() / strengths[0]),
        "share of the correlation beside the modes": float(beside),
        "explained share of the targets": float((strengths**2).sum() / theory.energy_),
    }
    findings = [f"{len(strengths)} modes can be learned, of strengths {strengths[0]:.3g} to {strengths[-1]:.3g}."]
    if len(reached):
        values |= {"first half-time": float(reached.min()), "last half-time": float(reached.max())}
        early, late = reached.min(), reached.max()
        findings.append(f"At depth {theory.depth} the first is half learned after {early:.4g} steps, the last after {late:.4g}.")
    if (never := int(np.isinf(halves).sum())) > 0:
        findings.append(f"{never} of them are never learned: they begin at 0, a saddle, or find no hidden unit.")
    if np.isfinite(alignment):
        values["alignment with principal components"] = alignment
        findings.append(f"Each mode lies along a principal component of the inputs by {alignment:.2f} on average (1: exactly).")
    steps = np.linspace(0, 1.6 * reached.max() if len(reached) else 1.0, 400)
    curve = theory.curve(steps)
    strong = Panel("step", "strength of a mode", {f"mode {i}": (steps, u) for i, u in enumerate(curve.T, 1)})
    loss = Panel("step", "loss", {"loss": (steps, theory.loss(steps))})
    return Report(values, tuple(findings), {"strength": strengths, "here": seen, "half-time": halves}, (strong, loss))


def about_run(theory: DeepLinear, run: TrainingRun) -> Report:
    """The strengths of the modes during a run over those that the theory has for it."""
    layers = _chain(theory, run)
    product = reduce(lambda below, above: above @ below, layers)
    met = np.einsum("or,toi,iq->trq", theory.left_.cpu().numpy(), product, theory.right_.cpu().numpy())
    seen, strengths, steps = np.einsum("trr->tr", met), theory.strengths_.cpu().numpy(), run.steps - run.steps[0]
    size = max(float(np.abs(met[0]).max()), 1e-300)
    apart = float(np.abs(met[0] - np.diag(seen[0])).max() / size)
    kept = [above.swapaxes(1, 2) @ above - below @ below.swapaxes(1, 2) for below, above in pairwise(layers)]
    uneven = max((float(np.abs(k[0]).max()) for k in kept), default=0.0) / size ** (2 / len(layers))
    drift = max((float(np.abs(k - k[0]).max()) for k in kept), default=0.0)
    begun = np.where(np.abs(seen[0]) < ROUNDING * size, 0.0, seen[0])
    exact = max(apart, uneven) < ALIGNED and bool((begun >= 0).all())
    starts = begun if exact else np.full(len(strengths), _one_start(theory, steps, seen, len(layers)))
    tau = 1 / theory.rate
    foreseen = growth(steps, strengths, starts, len(layers), tau)
    error = float((np.abs(seen - foreseen) / strengths).max())
    halves = growth_time(strengths / 2, strengths, starts, len(layers), tau)
    measured = [[_crossing(steps, u, share * s) for share in (0.1, 0.5, 0.9)] for u, s in zip(seen.T, strengths, strict=True)]
    low, half, high = np.array(measured).T
    values = {"largest error of a strength": error, "begin": float(starts.mean()), "begin is fitted": float(not exact)}
    values |= {"drift of what is conserved": drift, "layers": float(len(layers))}
    findings = [
        f"From its own start the theory foresees every strength to {error:.2%}."
        if exact
        else f"The start is not balanced and aligned; with one strength fitted to the run ({starts[0]:.3g}) the theory is off by "
        f"{error:.1%} at most."
    ]
    reached = np.isfinite(half)
    if reached.sum() > 2 and np.ptp(half[reached]) > 0 and np.ptp(strengths[reached]) > 0:
        values["correlation of half-time and 1/strength"] = float(np.corrcoef(half[reached], 1 / strengths[reached])[0, 1])
    if (risen := np.isfinite(high) & (half > 0)).any():
        rise = (high[risen] - low[risen]) / half[risen]
        values["longest rise over half-time"] = float(rise.max())
        findings.append(f"Plateaus: a mode rises from 10 to 90 % in {rise.max():.2f} of its half-time at most.")
    if not reached.all():
        findings.append(f"{int((~reached).sum())} of {len(half)} modes were not half learned when the run ended.")
    names = [f"mode {i}" for i in range(1, len(strengths) + 1)]
    thin = slice(None, None, max(len(steps) // 60, 1))
    pictured = Panel(
        "step",
        "strength of a mode",
        {name: (steps, u) for name, u in zip(names, foreseen.T, strict=True)},
        {name: (steps[thin], u[thin]) for name, u in zip(names, seen.T, strict=True)},
    )
    table = {"strength": strengths, "half-time": half, "foreseen half-time": halves, "10 %": low, "90 %": high}
    return Report(values, tuple(findings), table, (pictured,))


def _chain(theory: DeepLinear, run: TrainingRun) -> list[np.ndarray]:
    """The weights (T, out, in) of a run, the first layer first; raises DataError where they are not those of a linear network."""
    for name, values in run.weights.items():
        if values.ndim != 3:
            raise DataError(
                f"deep-linear: {name!r} of the run has shape {list(values.shape[1:])}; a linear network has matrices only, so "
                "biases and embeddings must be left out of the network."
            )
    layers = [np.asarray(values, np.float64) for values in run.weights.values()]
    outputs, inputs = theory.cross_.shape
    shapes = [layer.shape[1:] for layer in layers]
    if not layers or any(a[0] != b[1] for a, b in pairwise(shapes)) or (shapes[-1][0], shapes[0][1]) != (outputs, inputs):
        raise DataError(f"deep-linear: weights of shapes {shapes} do not lead from {inputs} inputs to {outputs} outputs.")
    return layers


def _one_start(theory: DeepLinear, steps: np.ndarray, seen: np.ndarray, depth: int) -> float:
    """The one strength of all modes at the start with which the theory fits a run of a network of that depth best."""
    strengths = theory.strengths_.cpu().numpy()

    def misfit(logarithm: float) -> float:
        return float(((growth(steps, strengths, 10**logarithm, depth, 1 / theory.rate) - seen) ** 2).mean())

    tried = np.linspace(-12, 0, 25) + np.log10(strengths.min())  # the misfit is flat far off, so look about first
    best = tried[np.argmin([misfit(t) for t in tried])]
    return float(10 ** minimize_scalar(misfit, bounds=(best - 0.5, best + 0.5), method="bounded").x)


def _crossing(steps: np.ndarray, values: np.ndarray, level: float) -> float:
    """The step at which values first pass a level, between two looks by a straight line; inf where they never do."""
    above = values >= level
    if not above.any():
        return float("inf")
    after = int(above.argmax())
    if after == 0:
        return float(steps[0])
    share = (level - values[after - 1]) / (values[after] - values[after - 1])
    return float(steps[after - 1] + share * (steps[after] - steps[after - 1]))
