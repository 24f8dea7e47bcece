"""A certified spectrum, and its picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

LEVELS = (0.01, 0.03, 0.1, 0.3)
"""Residuals at which the borders of pseudospectra are drawn."""


@dataclass(frozen=True)
class Spectrum:
    """What is known of a spectrum.

    Attributes:
        values: grid points that lie within their error of the spectrum (CompSpec), complex (n,).
        errors: those errors, (n,).
        eigenvalues, residuals: of every eigenpair of the compression, (r,): what EDMD answers, with its error bounds.
        kept: which eigenpairs have a residual of at most eps, (r,); the others are spurious as far as these data tell.
    """

    values: Tensor
    errors: Tensor
    eigenvalues: Tensor
    residuals: Tensor
    kept: Tensor

    @property
    def certificate(self) -> float:
        """The largest error of a point: all of `values` lies that close to the spectrum."""
        return float(self.errors.max()) if len(self.errors) else 0.0


def draw(spectrum: Spectrum, pseudospectrum: Callable[[Tensor], Tensor], eps: float, spacing: float) -> Figure:
    """The upper half plane: pseudospectra, certified points, and eigenvalues kept and rejected at eps."""
    re, im = np.arange(-1.25, 1.25 + spacing, spacing), np.arange(0, 1.25 + spacing, spacing)
    grid = re[:, None] + 1j * im[None]
    tau = pseudospectrum(torch.from_numpy(grid.ravel())).numpy().reshape(grid.shape)
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    lines = axes.contour(re, im, tau.T, levels=LEVELS, colors="0.6", linewidths=0.8)
    axes.clabel(lines, fontsize=7)
    angle = np.linspace(0, np.pi, 200)
    axes.plot(np.cos(angle), np.sin(angle), color="0.85", linewidth=0.8, zorder=0)
    certified = spectrum.values.numpy()
    axes.plot(
        certified.real, certified.imag, "s", color="#9ecae1", markersize=4, label=f"spectrum, within {spectrum.certificate:.2g}"
    )
    values, kept = spectrum.eigenvalues.numpy(), spectrum.kept.numpy()
    for which, mark, colour, name in ((kept, "o", "#08519c", "kept"), (~kept, "x", "#d94801", "rejected")):
        shown = values[which & (values.imag > -1e-9)]
        axes.plot(shown.real, shown.imag, mark, color=colour, markersize=5, label=f"eigenvalues {name} at {eps:g}")
    axes.set(xlim=(-1.25, 1.25), ylim=(-0.02, 1.25), aspect="equal", xlabel="real part", ylabel="imaginary part")
    axes.legend(fontsize=7, loc="upper right")
    return figure
