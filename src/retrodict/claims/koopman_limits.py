"""Does the claim of koopman-limits hold here? Truths in closed form, pollution, the order of limits, the adversary, Lorenz."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from retrodict.claims.experiment import Check, Experiment, Measured
from retrodict.dynamics import koopman
from retrodict.dynamics.libraries import Fourier
from retrodict.systems.laws.koopman_limits import KoopmanLimits
from retrodict.systems.laws.koopman_verdict import Adversary, adversary, fooled, hausdorff
from retrodict.trajectories import Recordings, from_arrays, from_samples
from retrodict.trajectories.features import STATE
from retrodict.worlds.chaos import ode_world

FUNCTIONS = (50, 100, 200)
HALF = (-0.5 + 0j, 1 + 1j)
"""The authors' part of the plane; spectra of real maps are symmetric about the real axis."""

CIRCLE = np.exp(1j * np.pi * np.arange(361) / 360)
"""The upper half of the unit circle."""


def pairs(x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None, source: str = "pairs") -> Recordings:
    """Loose pairs of states and successors, (n, d) each."""
    columns = {"observation__state": x, "next__observation__state": y}
    if weights is not None:
        columns["sample__weight"] = weights[:, None]
    return from_samples(source=source, **columns)


def duffing(alpha: float, starts: int, seed: int, steps: int = 5, energy: float = math.inf) -> Recordings:
    """Trajectories of x'' = -alpha x' + x - x^3 from a square, or the part of it below an energy, 0.3 apart in time."""
    x = np.random.default_rng(seed).uniform(-2, 2, (4 * starts, 2))
    x = x[x[:, 1] ** 2 / 2 - x[:, 0] ** 2 / 2 + x[:, 0] ** 4 / 4 <= energy][:starts]
    return ode_world("duffing", delta=alpha).record(steps + 1, 0.3, ic=x, precision="float64")


def lorenz(steps: int, seed: int) -> Recordings:
    """One trajectory of Lorenz 63, 0.05 apart in time, after 100 units of time."""
    world = ode_world("lorenz")
    start = world.integrate(world.starts(1, seed), [0.0, 100.0]).states[:, -1]
    return world.record(steps, 0.05, ic=start, precision="float64")


class KoopmanLimitsClaim(Experiment):
    """Every line of the page's experiment."""

    slug = "koopman-limits"
    claim = "residuals certify which Koopman eigenvalues are real, and no method that takes one limit is safe for every system"
    seeds = (0, 1, 2, 3, 4)
    left_out = (
        "PyDMD and kooplearn: their EDMD is the same least squares; ours stands for it",
        "Rössler, cylinder wake, cavity flow and sea ice: the page asks for Duffing and Lorenz",
        "order of limits from the whole square: only below an energy is the measure preserved, as the bound needs",
    )

    def arms(self, quick: bool) -> Mapping[str, Callable[[int, Path, bool], Measured]]:
        return {
            "truths": self.truths,
            "conservative": lambda seed, folder, quick: self.pollution(0.0, seed, quick),
            "damped": lambda seed, folder, quick: self.pollution(0.3, seed, quick),
            "order": self.order,
            "adversary": self.adversary,
            "lorenz": self.lorenz,
            "shuffled": self.shuffled,
        }

    # ---- arms ---------------------------------------------------------------------------------------------------------

    def truths(self, seed: int, folder: Path, quick: bool) -> Measured:
        """Maps of an interval whose spectra are known."""
        x = (np.arange(4096) + 0.5)[:, None] / 4096
        on_circle: dict[str, Any] = {"dictionary": "fourier", "degree": (20,), "domain": ((0.0, 1.0),), "certificate": "exact"}
        doubling = KoopmanLimits(**on_circle, measure_preserving=True).fit(pairs(x, 2 * x % 1))
        radii = torch.tensor([0, 0.5, 0.9, 1, 1.2], dtype=torch.complex128)
        error = (doubling.pseudospectrum(radii) - (1 - radii.abs()).abs()).abs().max()
        values, _, residuals = doubling.eigenpairs()
        spurious = residuals[values.abs() < 0.5]
        grid = torch.from_numpy(np.multiply.outer(np.linspace(0.3, 1.2, 46), CIRCLE[::4]).ravel())
        bounds = torch.maximum(doubling.pseudospectrum(grid), (1 - grid.abs()).abs())
        kept = koopman.spectrum_cover(grid, bounds, factor=1)
        nodes, weights = np.polynomial.legendre.leggauss(100)
        place = (nodes[:, None] - 1) / 2
        gauss = KoopmanLimits(dictionary="legendre", degree=(39,), domain=((-1.0, 0.0),), certificate="exact")
        gauss.fit(pairs(place, np.exp(-2 * place**2) - 1 - np.exp(-2), weights / 2))
        found, _, off = gauss.eigenpairs()
        real = off < 0.01
        turned = KoopmanLimits(**on_circle, measure_preserving=True).fit(pairs(x, (x + math.sqrt(2)) % 1))
        rotations, _, small = turned.eigenpairs()
        true = np.exp(2j * np.pi * np.arange(-20, 21) * math.sqrt(2))
        return {
            "doubling error": float(error),
            "spurious": len(spurious),
            "least residual of the spurious": float(spurious.min()),
            "doubling certificate": float(bounds[kept].max()),
            "doubling distance from the circle": hausdorff(grid[kept].numpy(), CIRCLE),
            "gauss kept": int(real.sum()),
            "gauss kept and real": int((real & (found.imag.abs() < 1e-8)).sum()),
            "gauss largest kept": float(off[real].max()),
            "gauss least rejected": float(off[~real].min()),
            "gauss median rejected": float(off[~real].median()),
            "rotation kept": int((small < 1e-10).sum()),
            "rotation residual": float(small.max()),
            "rotation error": hausdorff(rotations.numpy(), true),
        }

    def pollution(self, alpha: float, seed: int, quick: bool) -> Measured:
        """Duffing: eigenvalues of EDMD on pairs that it never saw, and what is certified."""
        learn, held, fresh = (duffing(alpha, 2000, 3 * seed + part) for part in (1, 2, 3))
        rows: dict[str, Any] = {}
        for n in FUNCTIONS[:1] if quick else FUNCTIONS:
            law = KoopmanLimits(functions=n, seed=seed).fit(learn, validation=held)
            isometric = KoopmanLimits(functions=n, seed=seed, method="measure-preserving").fit(learn, validation=held)
            off, off_circle = law.residuals(fresh), isometric.residuals(fresh)
            found = law.spectrum(spacing=0.05, box=HALF)
            rows[str(n)] = {
                "edmd": float(off.max()),
                "edmd median": float(off.median()),
                "mpedmd": float(off_circle.max()),
                "certified": found.certificate,
                "points": len(found.values),
                "eigenvalues kept at 0.1": int((law.eigenpairs()[2] <= 0.1).sum()),
            }
            if n == FUNCTIONS[-1]:
                fine = law.spectrum(spacing=0.02, box=HALF)
                rows["fine"] = {"certified": fine.certificate, "points": len(fine.values)}
        return rows

    def order(self, seed: int, folder: Path, quick: bool) -> Measured:
        """400 pairs and ever more functions: the residual on the pairs themselves, and on others.

        Below an energy, for only there is the measure preserved, without which 0.7 = 1 - |z| is no truth: from the whole square
        trajectories leave what was sampled.
        """
        learn, fresh = duffing(0.0, 80, 10 * seed + 1, energy=1.75), duffing(0.0, 2000, 10 * seed + 2, energy=1.75)
        z = torch.from_numpy(0.3 * np.exp(1j * np.pi * np.arange(257) / 256))
        rows: dict[str, Any] = {}
        for n in (50, 400) if quick else (50, 100, 200, 400):
            law = KoopmanLimits(functions=n, seed=seed, cutoff=1e-14).fit(learn, validation=fresh)
            _, vectors = law.galerkin_.minimisers(z)
            held = law.held_
            assert held is not None
            off = koopman.residual(z, vectors, law.psi_(held.before), law.psi_(held.after))
            rows[str(n)] = {"in sample": float(law.galerkin_.tau(z).min()), "held out": float(off.min())}
        try:
            KoopmanLimits(functions=200, certificate="exact").fit(learn)
        except ValueError as error:
            rows["refused"] = "holdout" in str(error)
        return rows

    def adversary(self, seed: int, folder: Path, quick: bool) -> Measured:
        """Two maps that agree on the samples, all our estimators on both, and what more knowledge brings."""
        rng = np.random.default_rng(seed)
        points = _disc(rng.uniform(0, 1, 12), 24)
        rows: dict[str, Any] = {}
        for name, estimate in ESTIMATORS.items():
            first, second, same = fooled(estimate, points)
            rows[name] = {"same": same, "error at rest": first, "error twisted": second}
        draws, wins, missed = 20 if quick else 200, 0, 0
        after = _after_the_algorithm(rng)
        for _ in range(draws):
            sampled = rng.uniform(0, 1, 12)
            seen = _disc(sampled, 24)
            error = hausdorff(ESTIMATORS["certified"](seen, after.twist(seen)), np.concatenate([CIRCLE, CIRCLE.conj()]))
            wins += error < 1
            missed += not ((sampled > after.low) & (sampled < after.high)).any()
        rows["sampler"] = {"success": wins / draws, "missed": missed / draws}
        if not quick:
            rows["known"] = _with_knowledge(adversary(_disc(rng.uniform(0, 0.15, 12), 24)), seed)
        return rows

    def lorenz(self, seed: int, folder: Path, quick: bool) -> Measured:
        """60 delays of x: eigenvalues of DMD on a later piece of the trajectory, and what is certified."""
        whole = lorenz(30_000 + 3 * 60, seed)[0]
        third = whole.length // 3
        kind = from_arrays([{STATE: np.zeros((3, 3))}], fps=20)
        learn, held, fresh = (kind.of([whole.at(np.arange(i * third, (i + 1) * third))]) for i in range(3))
        law = KoopmanLimits(dictionary="monomials", degree=(1,), delays=60, coordinates=(0,)).fit(learn, validation=held)
        off, found = law.residuals(fresh), law.spectrum(spacing=0.05, box=HALF)
        return {
            "edmd": float(off.max()),
            "edmd median": float(off.median()),
            "certified": found.certificate,
            "points": len(found.values),
        }

    def shuffled(self, seed: int, folder: Path, quick: bool) -> Measured:
        """Successors shuffled among the pairs: there is no law to find."""
        rng, made = np.random.default_rng(seed), []
        for part in (1, 2):
            states = np.stack([np.asarray(episode[STATE]) for episode in duffing(0.0, 2000, 7 * seed + part)])
            before, after = states[:, :-1].reshape(-1, 2), states[:, 1:].reshape(-1, 2)
            made.append(pairs(before, rng.permutation(after), source=f"shuffled {seed} {part}"))
        law = KoopmanLimits(functions=100, seed=seed).fit(made[0], validation=made[1])
        values, _, bounds = law.eigenpairs()
        there = (bounds <= 0.3) & (values.abs() > 0.3)
        return {"certified": int(there.sum()), "other than 1": int((there & ((values - 1).abs() > 0.05)).sum())}

    # ---- checks -------------------------------------------------------------------------------------------------------

    def checks(self, measured: Mapping[str, Mapping[int, Measured]], quick: bool) -> Sequence[Check]:
        made: list[Check] = []

        def check(
            name: str, values: Sequence[float], asked: str, holds: Callable[[float], bool], worst: Callable[..., float]
        ) -> None:
            if values:
                made.append(Check(name, float(worst(values)), None, asked, all(holds(v) for v in values)))

        truths = list(measured.get("truths", {}).values())
        check(
            "doubling map: error of tau at five points", [m["doubling error"] for m in truths], "< 1e-8", lambda v: v < 1e-8, max
        )
        spurious = [m["least residual of the spurious"] for m in truths if m["spurious"] == 40]
        check("doubling map: residual of the forty zeros", spurious, ">= 0.999", lambda v: v >= 0.999, min)
        covered = [m["doubling distance from the circle"] / m["doubling certificate"] for m in truths]
        check("doubling map: circle recovered, distance over certificate", covered, "<= 1", lambda v: v <= 1, max)
        check(
            "Gauss-type map: eigenvalues kept at 0.01", [m["gauss kept and real"] for m in truths], "= 16", lambda v: v == 16, min
        )
        check(
            "Gauss-type map: largest residual kept",
            [m["gauss largest kept"] for m in truths],
            "<= 3.4e-3",
            lambda v: v <= 3.4e-3,
            max,
        )
        check(
            "Gauss-type map: least rejected", [m["gauss least rejected"] for m in truths], ">= 2.3e-2", lambda v: v >= 2.3e-2, min
        )
        check("rotation: eigenvalues kept", [m["rotation kept"] for m in truths], "= 41", lambda v: v == 41, min)
        check("rotation: largest residual", [m["rotation residual"] for m in truths], "< 1e-10", lambda v: v < 1e-10, max)
        for arm in ("conservative", "damped"):
            runs = list(measured.get(arm, {}).values())
            rows = [m[str(n)] for m in runs for n in FUNCTIONS if str(n) in m]
            fine = [m["fine"]["certified"] for m in runs if "fine" in m]
            name = f"Duffing, {arm}"
            check(f"{name}: worst eigenvalue of EDMD", [r["edmd"] for r in rows], ">= 0.8", lambda v: v >= 0.8, min)
            check(f"{name}: certificate", [r["certified"] for r in rows], "<= 0.15", lambda v: v <= 0.15, max)
            check(f"{name}: certificate, 200 functions, grid 0.02", fine, "<= 0.06", lambda v: v <= 0.06, max)
            check(f"{name}: EDMD over certificate", [r["edmd"] / r["certified"] for r in rows], ">= 5", lambda v: v >= 5, min)
        orders = list(measured.get("order", {}).values())
        check("400 functions on 400 pairs: in sample", [m["400"]["in sample"] for m in orders], "< 1e-6", lambda v: v < 1e-6, max)
        held = [row["held out"] for m in orders for row in m.values() if isinstance(row, dict)]
        check("400 pairs, any number of functions: held out", held, ">= 0.7", lambda v: v >= 0.7, min)
        check("half as many functions as pairs, not held out: refused", [m["refused"] for m in orders], "= 1", bool, min)
        foes = list(measured.get("adversary", {}).values())
        tricked = [m[n] for m in foes for n in ESTIMATORS if n in m]
        worse = [max(r["error at rest"], r["error twisted"]) for r in tricked]
        check("adversary: one answer for both maps", [r["same"] for r in tricked], "= 1", bool, min)
        check("adversary: Hausdorff error on one of them", worse, ">= 1", lambda v: v >= 1, min)
        known = [m["known"]["certificate"] for m in foes if "known" in m]
        check("adversary found out: certificate", known, "<= 0.1", lambda v: v <= 0.1, max)
        far = [m["known"]["distance"] for m in foes if "known" in m]
        check("adversary found out: distance from the circle", far, "<= 0.1", lambda v: v <= 0.1, max)
        check("randomised sampler: success", [m["sampler"]["success"] for m in foes], "<= 0.5", lambda v: v <= 0.5, max)
        waves = list(measured.get("lorenz", {}).values())
        check("Lorenz: worst eigenvalue of EDMD", [m["edmd"] for m in waves], ">= 0.8", lambda v: v >= 0.8, min)
        check("Lorenz: certificate", [m["certified"] for m in waves], "<= 0.15", lambda v: v <= 0.15, max)
        check("Lorenz: EDMD over certificate", [m["edmd"] / m["certified"] for m in waves], ">= 5", lambda v: v >= 5, min)
        mixed = [m["other than 1"] for m in measured.get("shuffled", {}).values()]
        check("shuffled: eigenvalues certified besides 1", mixed, "= 0", lambda v: v == 0, max)
        return made


# ---- the adversary ----------------------------------------------------------------------------------------------------


def _disc(radii: np.ndarray, angles: int) -> np.ndarray:
    """Points on circles of the given radii, (n, 2)."""
    theta = 2 * np.pi * np.arange(angles) / angles
    return np.stack([np.outer(radii, np.cos(theta)).ravel(), np.outer(radii, np.sin(theta)).ravel()], 1)


def _estimator(**settings: Any) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Eigenvalues that a setting of the system gives."""

    def estimate(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values, _, _ = KoopmanLimits(functions=40, certificate="exact", **settings).fit(pairs(x, y)).eigenpairs()
        return np.asarray(values.numpy())

    return estimate


def _certified(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Eigenvalues with a residual below 0.1, on waves in the angle and the radius, which the adversary's twist cannot mix up."""
    library = Fourier((2, 6), (-np.pi, 0.0), (2 * np.pi, 1.0))
    before, after = (library.transform(np.stack([np.arctan2(s[:, 1], s[:, 0]), np.linalg.norm(s, axis=1)], 1)) for s in (x, y))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        operator = koopman.galerkin(torch.from_numpy(before), torch.from_numpy(after))
    values, vectors = operator.eigenpairs()
    return np.asarray(values[operator.residuals(values, vectors) <= 0.1].numpy())


ESTIMATORS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "edmd": _estimator(),
    "mpedmd": _estimator(method="measure-preserving"),
    "dmd": _estimator(dictionary="monomials", degree=(1,)),
    "rkhs": _estimator(method="rkhs"),
    "certified": _certified,
}


def _after_the_algorithm(rng: np.random.Generator, draws: int = 4000) -> Adversary:
    """A bump in the middle, so narrow that twelve random radii miss it with probability 0.6, chosen before they are drawn."""
    radii = rng.uniform(0, 1, (draws, 12))
    reach = np.quantile(np.abs(radii - 0.5).min(1), 0.4)
    return Adversary(0.5 - reach, 0.5 + reach, np.pi)


def _with_knowledge(twist: Adversary, seed: int) -> dict[str, float]:
    """A twist whose gap is sampled, of a measure known to be preserved: waves in angle and radius, uniform samples of both."""
    made = []
    for part in (0, 1):
        rng = np.random.default_rng((seed, part))
        theta, radius = rng.uniform(-np.pi, np.pi, 12_000), rng.uniform(0, 1, 12_000)
        turned = (theta + twist.angle(radius) + np.pi) % (2 * np.pi) - np.pi
        made.append(pairs(np.stack([theta, radius], 1), np.stack([turned, radius], 1), source=f"twist {seed} {part}"))
    box = ((-np.pi, np.pi), (0.0, 1.0))
    law = KoopmanLimits(dictionary="fourier", degree=(1, 60), domain=box, measure_preserving=True)
    found = law.fit(made[0], validation=made[1]).spectrum(spacing=0.04, factor=1)
    return {"certificate": found.certificate, "distance": hausdorff(found.values.numpy(), CIRCLE), "points": len(found.values)}


EXPERIMENT = KoopmanLimitsClaim()
