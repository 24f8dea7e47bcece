"""Koopman spectra with a certificate: each eigenvalue comes with an error bound, spurious ones go, and missing ones are found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from retrodict.dynamics import koopman
from retrodict.dynamics.spectral_measures import rational_density
from retrodict.errors import DataError
from retrodict.roles import Analysis, Law, Report
from retrodict.systems.contract import Card, System, identities
from retrodict.systems.laws.koopman_certificates import Slack
from retrodict.systems.laws.koopman_compression import compress
from retrodict.systems.laws.koopman_dictionary import Dictionary
from retrodict.systems.laws.koopman_pairs import NEXT, Pairs, check_weights, fingerprints, halves
from retrodict.systems.laws.koopman_spectrum import Spectrum, draw
from retrodict.systems.laws.koopman_verdict import Verdict, verdict
from retrodict.systems.series import whole_steps
from retrodict.training.run import Run
from retrodict.trajectories import Recordings
from retrodict.trajectories.features import STATE

BOX = (-1.2 + 0j, 1.2 + 1.2j)
"""Where spectra are looked for: the upper half of a square around the unit circle. Spectra of real maps are symmetric."""


@dataclass
class KoopmanLimits(System, Law, Analysis):
    """Residual dynamic mode decomposition and what it can and cannot certify.  (Colbrook, Mezić and Stepanenko, 2024)

    Reads trajectories of `observation.state`, or loose pairs with `next.observation.state` and quadrature weights in
    `sample.weight`. Observables are combinations of a dictionary; besides what EDMD computes, a third matrix that it throws away
    gives the residual |(K - z) g| / |g| of every candidate: how far z can be from the spectrum. For operators that are not normal
    a small residual places z in a pseudospectrum, and only there. Everything is computed in double precision.

    As a law it is the map psi(x) -> psi(x) K -> x on `observation.state`; with delays, on flattened windows, newest last.

    Attributes:
        dictionary: `rbf` (bumps at k-means centres; the paper's), `fourier`, `legendre` or `monomials`. With `delays` functions
            are of the whole window; `monomials` of degree 1 are then the delay coordinates themselves.
        functions: bumps of `rbf` (paper: 100 to 1250), kernel centres of `rkhs`.
        degree: of the other dictionaries; for `fourier` one for all coordinates or one for each.
        delays: states in a window (paper: up to 500).
        coordinates: which entries of the state are seen; all where empty.
        domain: (low, high) of each coordinate, for `fourier`, `legendre` and `quadrature`; the range of the data where empty.
        method: `edmd`; `measure-preserving` (eigenvalues of the nearest isometry); `rkhs` (SpecRKHS: the adjoint on kernel
            functions at the samples, with no integral to approximate).
        kernel: of `rkhs`.
        certificate: `holdout` (residuals on pairs put aside, with bounds that hold at once for all points at `level`),
            `quadrature` (exact up to what `modulus` and the gaps between samples allow), or `exact` (weighted sums over the
            samples are the integrals: Gauss nodes, or you say so). Under `rkhs` nothing needs certifying.
        holdout: share that is put aside where `fit` is given no validation.
        level: chance that a bound of `holdout` is wrong.
        measure_preserving: the map keeps the measure that was sampled; its spectrum then lies on the circle. Refused where the
            data say otherwise.
        modulus: (a, b) with |F(x) - F(y)| <= a |x - y|^b; `quadrature` needs it.
        stochastic: the motion is noisy; then `next.observation.state` must hold two independent successors of each state.
        cutoff: functions below this share of the dictionary's largest singular value are left out.
    """

    card: ClassVar[Card] = Card(
        slug="koopman-limits",
        title="Limits and Powers of Koopman Learning",
        authors="Colbrook, Mezić, Stepanenko",
        year=2024,
        url="https://arxiv.org/abs/2407.06312",
        reads="trajectories of numbers, or pairs of states and successors",
        returns="certified eigenvalues, spectrum and pseudospectrum, a forecast, and what no data could tell",
        claim="residuals certify which Koopman eigenvalues are real, and no method that takes one limit is safe for every system",
    )
    gaps: ClassVar[tuple[str, ...]] = (STATE,)

    dictionary: Literal["rbf", "fourier", "legendre", "monomials"] = "rbf"
    functions: int = 100
    degree: tuple[int, ...] = (10,)
    delays: int = 1
    coordinates: tuple[int, ...] = ()
    domain: tuple[tuple[float, float], ...] = ()
    method: Literal["edmd", "measure-preserving", "rkhs"] = "edmd"
    kernel: Literal["gaussian", "laplacian", "lorentzian", "matern", "wendland"] = "gaussian"
    certificate: Literal["holdout", "quadrature", "exact"] = "holdout"
    holdout: float = 0.5
    level: float = 0.05
    measure_preserving: bool = False
    modulus: tuple[float, float] | None = None
    stochastic: bool = False
    cutoff: float = 1e-10

    kind = "map"

    # ---- fitting ------------------------------------------------------------------------------------------------------

    def inputs(self, recordings: Recordings) -> tuple[str, ...]:
        return (STATE, NEXT) if NEXT in recordings.features or recordings.independent else (STATE,)

    def learn(self, recordings: Recordings, world: Any, validation: Recordings | None, run: Run) -> None:
        whole, fresh = recordings, validation
        if self._holds_out and validation is None:
            recordings, fresh = halves(recordings, self.holdout, self.seed)
        pairs = Pairs.read(recordings, self.delays)
        if recordings is not whole and pairs.weights is not None:
            together = Pairs.read(whole, self.delays)  # it is all of them that sum to one
            self._refuse(together)
            pairs = pairs.scaled(together)
        self._refuse(pairs)
        self.held_ = Pairs.read(fresh, self.delays) if self._holds_out and fresh is not None else None
        self.dt = 1.0 / recordings.fps if recordings.fps else 1.0
        if self.method == "rkhs":
            pairs = pairs.drawn(self.functions, self.seed)
        self.psi_ = Dictionary.fit(
            "kernel" if self.method == "rkhs" else self.dictionary,
            pairs.before,
            pairs.after,
            coordinates=self.coordinates,
            degree=self.degree,
            kernel=self.kernel,
            functions=self.functions,
            domain=self.domain,
            seed=self.seed,
        )
        fitted = compress(self.psi_, pairs, self.cutoff, interpolating=self._holds_out, preserving=self.measure_preserving)
        self.galerkin_, self.readout_ = fitted
        self.slack_ = Slack(0, 0, 0)
        if self.certificate == "quadrature" and self.method != "rkhs":
            states = self.psi_.seen(pairs.before)
            self.slack_ = Slack.of(states, self.psi_.library, self.galerkin_.basis, self.modulus, self.domain)
        self.fingerprints_ = fingerprints(recordings)
        known = identities(recordings)
        self.learned_from_ = known
        self.heldout_ = tuple(sorted(set(identities(fresh)) - set(known))) if self.held_ is not None and fresh is not None else ()

    @property
    def _holds_out(self) -> bool:
        return self.certificate == "holdout" and self.method != "rkhs"

    def _refuse(self, pairs: Pairs) -> None:
        check_weights(pairs, self.domain)
        if self.stochastic and not pairs.repeated:
            raise DataError(
                "stochastic: residual = bias + variance, and one successor cannot tell them apart; give two independent "
                f"successors of each state in {NEXT!r}, of shape (2, d)."
            )
        if self.method == "rkhs" and (pairs.weights is not None or pairs.repeated):
            raise DataError("rkhs takes no quadrature weights and one successor of each state: it approximates no integral.")

    # ---- spectra ------------------------------------------------------------------------------------------------------

    def eigenpairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Eigenvalues (r,), their eigenfunctions as coefficients in the dictionary (N, r), and certified residuals (r,)."""
        self.check_fitted()
        values, vectors = self.galerkin_.eigenpairs(preserving=self.method == "measure-preserving")
        return values, vectors, self._certified(values, vectors)

    def eigenfunctions(self, state: Tensor) -> Tensor:
        """Values (..., r) of the eigenfunctions at states (..., d), in the order of `eigenpairs`."""
        self.check_fitted()
        _, vectors = self.galerkin_.eigenpairs(preserving=self.method == "measure-preserving")
        return self.psi_(self._windows(state)).to(vectors.dtype) @ vectors

    def pseudospectrum(self, points: Tensor) -> Tensor:
        """Certified bounds (n,) of the smallest residual at points z (n,): below eps, z is in the eps-pseudospectrum."""
        self.check_fitted()
        if self._holds_out:
            _, vectors = self.galerkin_.minimisers(points)
            return self._certified(points.to(vectors.dtype), vectors)
        return self.slack_.upper(self.galerkin_.tau(points), points)

    def spectrum(
        self, eps: float = 1.0, spacing: float = 0.05, box: tuple[complex, complex] = BOX, factor: float = 5.0
    ) -> Spectrum:
        """The spectrum on a grid, every point with its error, beside the eigenvalues that a plain decomposition gives.

        Args:
            eps: largest error of a point, and of an eigenvalue that is kept.
            spacing: of the grid.
            box: lower left and upper right corner of the grid.
            factor: how many errors around a point a better one is looked for: 1 in the theorem, 5 in the authors' code, which
                leaves fewer and surer points.
        """
        re = torch.arange(box[0].real, box[1].real + spacing / 2, spacing, dtype=torch.float64)
        im = torch.arange(box[0].imag, box[1].imag + spacing / 2, spacing, dtype=torch.float64)
        grid = torch.complex(*torch.meshgrid(re, im, indexing="ij")).flatten()
        errors = self.pseudospectrum(grid)
        if self.measure_preserving:
            errors = torch.maximum(errors, (1 - grid.abs()).abs())
        kept = koopman.spectrum_cover(grid, errors, factor) & (errors <= eps)
        values, _, residuals = self.eigenpairs()
        return Spectrum(grid[kept], errors[kept], values, residuals, residuals <= eps)

    def _certified(self, values: Tensor, vectors: Tensor) -> Tensor:
        if not self._holds_out:
            return self.slack_.upper(self.galerkin_.residuals(values, vectors), values)
        assert self.held_ is not None
        psi_x, psi_y = self.psi_(self.held_.before), self.psi_(self.held_.after)
        sums = koopman.residual_sums(values, vectors, psi_x, psi_y, self.held_.weights, self.held_.blocks)
        return koopman.upper_bounds(*sums, level=self.level, seed=self.seed)

    def residuals(self, recordings: Recordings) -> Tensor:
        """Residuals (r,) of the eigenpairs on fresh recordings.

        Raises DataError for those it was fitted on: residuals are judged on held-out pairs.
        """
        self.check_fitted()
        if set(fingerprints(recordings)) & set(self.fingerprints_):
            raise DataError(
                "these recordings taught the operator; residuals are judged on held-out pairs: give others (hold-out)."
            )
        fresh = Pairs.read(recordings, self.delays)
        values, vectors = self.galerkin_.eigenpairs(preserving=self.method == "measure-preserving")
        return koopman.residual(values, vectors, self.psi_(fresh.before), self.psi_(fresh.after), fresh.weights)

    def measure(self, observable: int, angles: Tensor, width: float = 0.1, order: int = 6) -> Tensor:
        """Spectral density (n,) of a coordinate of the state at angles (n,) in radians, smoothed over `width`.

        Of the nearest measure-preserving operator; meaningful where the map preserves the measure that was sampled.
        """
        self.check_fitted()
        values, vectors = torch.linalg.eig(self.galerkin_.isometry.to(torch.complex128))
        axes, _ = torch.linalg.qr(
            vectors
        )  # eigenvectors of a unitary matrix; equal eigenvalues leave them free within their span
        masses = (axes.mH @ self.readout_[:, observable].to(axes.dtype)).abs() ** 2
        density = rational_density(values.angle().numpy(), masses.numpy(), angles.double().numpy(), width, order)
        return torch.from_numpy(density)

    # ---- the law ------------------------------------------------------------------------------------------------------

    @property
    def of_observations(self) -> bool:  # type: ignore[override]
        return self.delays == 1

    def start(self, recordings: Recordings) -> Tensor:
        """The first `delays` states of every episode, flattened, (E, delays d).

        Raises DataError where an episode is shorter.
        """
        if short := [episode for episode in recordings if episode.length < self.delays]:
            raise DataError(f"{short[0]} has {short[0].length} steps; a law with {self.delays} delays starts from as many.")
        first = np.stack([episode.read(STATE, np.arange(self.delays)) for episode in recordings])
        return torch.from_numpy(first.reshape(len(first), -1))

    def observe(self, state: Tensor) -> Tensor:
        """The newest state (..., d) of a flattened window (..., delays d)."""
        return state[..., -(state.shape[-1] // self.delays) :]

    def step(self, state: Tensor) -> Tensor:
        """The state (..., d), or flattened window (..., delays d), one `dt` later."""
        self.check_fitted()
        return self._read_out(self._coordinates(state) @ self._forward())

    def simulate(self, initial: Tensor, times: Tensor, actions: Tensor | None = None, domain: str | None = None) -> Tensor:
        """States (B, T, d) at times that are multiples of `dt`, from states or flattened windows: lifted once, then linear.

        The first is given back as it was. Raises DataError for other times.
        """
        self.check_fitted()
        if actions is not None:
            raise DataError("koopman-limits has learned a motion without actions.")
        steps = whole_steps(times, self.dt, self.card.slug)
        lifted, forward = self._coordinates(initial), self._forward()
        path, now = torch.empty(len(initial), len(steps), initial.shape[-1] // self.delays, dtype=torch.float64), 0
        for column in steps.argsort(stable=True).tolist():
            lifted = lifted @ torch.linalg.matrix_power(forward, int(steps[column]) - now)
            now = int(steps[column])
            path[:, column] = self.observe(self._read_out(lifted) if now else initial.double())
        return path

    def jacobian(self, state: Tensor) -> Tensor:
        """Derivative of `step`, (..., d, d)."""
        self.check_fitted()
        flat = state.detach().double().reshape(-1, state.shape[-1]).requires_grad_()
        with torch.enable_grad():
            after = self.step(flat)
            rows = [torch.autograd.grad(after[:, i].sum(), flat, retain_graph=True)[0] for i in range(after.shape[1])]
        return torch.stack(rows, 1).reshape(*state.shape, state.shape[-1])

    def equations(self, eps: float = 0.1) -> tuple[str, ...]:
        """What a person can read: certified eigenfunctions as laws of their own, the surest first, one of each conjugate pair."""
        values, _, residuals = self.eigenpairs()
        order = [i for i in residuals.argsort().tolist() if residuals[i] <= eps and values[i].imag > -1e-9]
        return tuple(
            f"g{n}(F(x)) = ({values[i].real:.4g}{values[i].imag:+.4g}i) g{n}(x), off by {residuals[i]:.2g} of |g{n}| at most"
            for n, i in enumerate(order)
        )

    def _windows(self, state: Tensor) -> Tensor:
        if state.shape[-1] != self.readout_.shape[1]:
            raise DataError(f"a state of this law has {self.readout_.shape[1]} numbers (delays x d), got {state.shape[-1]}.")
        return state.double().reshape(*state.shape[:-1], self.delays, -1)

    def _coordinates(self, state: Tensor) -> Tensor:
        return self.psi_(self._windows(state)).to(self.galerkin_.basis.dtype) @ self.galerkin_.basis

    def _forward(self) -> Tensor:
        inside = self.galerkin_.isometry if self.method == "measure-preserving" else self.galerkin_.inside
        return inside.mT if self.method == "rkhs" else inside  # kernel functions move by the adjoint: rows by its transpose

    def _read_out(self, lifted: Tensor) -> Tensor:
        state = lifted @ self.readout_
        return state.real if state.is_complex() else state

    # ---- judgement ----------------------------------------------------------------------------------------------------

    def limits(self) -> Verdict:
        """What was assumed, how many limits the spectrum needs under it, and which of them this fit has not taken."""
        self.check_fitted()
        grounds = {
            "holdout": f"pairs held out, all at once at level {1 - self.level:.0%}, in L²(sampling measure)",
            "quadrature": "the modulus of continuity and the gaps between the samples",
            "exact": "weighted sums over the samples being the integrals",
        }
        certificate = (
            "inner products of the kernel's space, which are exact" if self.method == "rkhs" else grounds[self.certificate]
        )
        return verdict(
            preserving=self.measure_preserving,
            modulus=self.modulus is not None,
            kernel=self.method == "rkhs",
            certificate=certificate,
            noisy=self.stochastic,
        )

    def analyse(self, subject: Any) -> Report:
        """Judge the fitted eigenpairs on fresh recordings: how many survive, and what no data could tell.

        Raises NotFittedError before `fit`; DataError where the subject is no Recordings, or taught the operator.
        """
        self.check_fitted()
        if not isinstance(subject, Recordings):
            raise DataError(f"koopman-limits analyses Recordings, got {type(subject).__name__}.")
        residuals = self.residuals(subject)
        values, _ = self.galerkin_.eigenpairs(preserving=self.method == "measure-preserving")
        said = f"{int((residuals < 0.1).sum())} of {len(residuals)} eigenvalues have a residual below 0.1 on fresh pairs."
        numbers = {"rank": float(len(residuals)), "largest residual": float(residuals.max())}
        numbers |= {"median residual": float(residuals.median()), "smallest residual": float(residuals.min())}
        curves = {"eigenvalues": values.numpy(), "residuals": residuals.numpy()}
        return Report(numbers, (said, *self.limits().sentences()), curves)

    def plot(self, eps: float = 0.1, spacing: float = 0.05) -> Figure:
        """Eigenvalues, those that are kept and those that are not, over the pseudospectrum and the certified spectrum."""
        return draw(self.spectrum(eps, spacing), self.pseudospectrum, eps, spacing)

    # ---- on disk ------------------------------------------------------------------------------------------------------

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        operator, held = self.galerkin_, self.held_
        parts = {"basis": operator.basis, "inside": operator.inside, "outside": operator.outside, "readout": self.readout_}
        # Safetensors know no double complex numbers: they go as pairs.
        tensors = {name: torch.view_as_real(part) if part.is_complex() else part for name, part in parts.items()}
        tensors |= {"centres": self.psi_.centres, "box": self.psi_.box}
        if held is not None:
            tensors |= {"held.before": held.before, "held.after": held.after, "held.blocks": held.blocks}
            if held.weights is not None:
                tensors["held.weights"] = held.weights
        about = {"dt": self.dt, "kind": self.psi_.kind, "width": self.psi_.width, "slack": self.slack_.to_json()}
        return tensors, {**about, "fingerprints": self.fingerprints_}

    def restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        parts = (tensors[name].clone() for name in ("basis", "inside", "outside", "readout"))  # files align to 8 bytes, not to 16
        *operator, self.readout_ = (torch.view_as_complex(part) if part.ndim == 3 else part for part in parts)
        self.galerkin_ = koopman.Galerkin(*operator)
        made = (self.coordinates, self.degree, self.kernel, tensors["centres"], tensors["box"], about["width"])
        self.psi_ = Dictionary(about["kind"], *made)
        self.held_ = None
        if self._holds_out:
            weights = tensors.get("held.weights")
            self.held_ = Pairs(tensors["held.before"], tensors["held.after"], weights, tensors["held.blocks"])
        self.dt, self.slack_, self.fingerprints_ = about["dt"], Slack(*about["slack"]), tuple(about["fingerprints"])
