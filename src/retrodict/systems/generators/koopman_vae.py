"""Koopman VAE: series made from latent paths that a linear law moves, whose eigenvalues can be read and constrained."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from retrodict.dynamics import koopman
from retrodict.errors import DataError
from retrodict.objectives.gaussians import kl_normal
from retrodict.roles import Batch, Encoder, Generator, Law
from retrodict.systems.contract import Card, Spec
from retrodict.systems.generators.koopman_vae_networks import Decoder, IrregularPosterior, Net, Posterior
from retrodict.systems.generators.latent_priors import GRUPrior, IndependentPrior, LinearPrior, Prior, linear_law, noisy
from retrodict.systems.generators.series_windows import observed, present, refuse_unusable
from retrodict.systems.gradient import GradientSystem
from retrodict.systems.series import whole_steps
from retrodict.training.optimisers import Optimiser
from retrodict.training.run import Run
from retrodict.training.stage import Stage
from retrodict.trajectories import Episode, Recordings, Window, Windows
from retrodict.trajectories.features import STATE
from retrodict.trajectories.normalise import Normaliser


@dataclass
class KoopmanVAE(GradientSystem, Generator, Encoder, Law):
    """A VAE of time series whose prior over latent paths is pushed to be linear.  (Naiman et al., 2024)

    Reads windows of `observation.state`, regular or, with `irregular`, with steps missing (`valid.observation.state`, NaN, or
    stamps that an uneven clock leaves out). Channels are brought to [0, 1] by their range. `sample` gives windows in their own
    units, `encode` posterior means (B, T, latent), `complete` fills what is missing. As a law it moves codes: z' = z A.

    In the paper the prior is a GRU fed with its own draws, linear only by a penalty, whose published weight is too small to be
    felt (the docs give the measurement); generation never applies A. `prior="linear"` makes the law the prior itself.

    Defaults are smaller than the paper's (3 layers, 600 epochs), and `objective` is not its own.

    Attributes:
        frames: steps T of a window.
        latent: width of z.
        hidden: units of every GRU.
        layers: of the GRUs of posterior and decoder (paper: 3).
        prior: `gru` (the paper's), `linear` (z_1 ~ N, z' = z A + noise), or `independent` (N(0, 1) at each step: a plain VAE).
        objective: `elbo` compares each posterior step with what the prior foretells from the posterior's own past, a bound on the
            likelihood; `paper` with the moments of a path drawn independently of it, which leaves a prior that knows little of
            time (the docs give the measurement). Linear priors always take `elbo`.
        decoder: `gru`, or `pointwise`: each step of the series from its own z alone.
        w_kl, w_pred: weights of the divergence (paper: .007 for sines, .009 stocks, .1 irregular) and of the linear penalty
            (paper: .005, .03, .0005).
        penalty: `paper` (squared residual over a Frobenius norm) or `normalised` (share of the variance that A leaves; weights 1
            to 10).
        horizon: steps ahead that the penalty looks (paper: 1).
        unit_modes: how many of the largest eigenvalues of A are drawn to the unit circle: 0 none, -1 all.
        w_eig: weight of that.
        irregular: windows may have gaps.
        counts: an irregular posterior is told how many steps were seen so far, too; the paper's is not.
        every: seconds between steps, for recordings with an uneven clock.
    """

    card: ClassVar[Card] = Card(
        slug="koopman-vae",
        title="Generative Modeling of Regular and Irregular Time Series Data via Koopman VAEs",
        authors="Naiman, Erichson, Ren, Mahoney, Azencot",
        year=2024,
        url="https://arxiv.org/abs/2310.02619",
        reads="windows of numbers, with steps missing or not",
        returns="new windows, latents that move linearly, their eigenvalues, completed windows",
        claim="a VAE with a linear latent prior makes better regular and irregular series than GANs, and its spectrum can be set",
        missing="masked",
    )
    gaps: ClassVar[tuple[str, ...]] = (STATE,)

    frames: int = 24
    latent: int = 16
    hidden: int = 20
    layers: int = 1
    prior: Literal["gru", "linear", "independent"] = "gru"
    objective: Literal["paper", "elbo"] = "elbo"
    decoder: Literal["gru", "pointwise"] = "gru"
    w_kl: float = 0.007
    w_pred: float = 0.005
    penalty: Literal["paper", "normalised"] = "paper"
    horizon: int = 1
    unit_modes: int = 0
    w_eig: float = 1.0
    irregular: bool = False
    counts: bool = True
    every: float | None = None
    steps: int = field(default=4000, kw_only=True)
    batch: int = field(default=64, kw_only=True)
    learning_rate: float = field(default=2e-3, kw_only=True)

    kind = "map"
    grain = "step"
    of_observations = False
    mixes: ClassVar[bool] = False  # a linear law is solved for

    # ---- what is read -------------------------------------------------------------------------------------------------

    @property
    def reads(self) -> Window:
        self.check_fitted()
        return replace(self.window(self.spec_), edge="drop")

    def start(self, recordings: Recordings) -> Tensor:
        """Codes (E, latent) of the first step of every episode that fills a window: the law moves codes, not observations."""
        windows = recordings.windows(self.reads, len(recordings), order="sequence", where=lambda e: np.arange(e.length) == 0)
        return self.encode(windows.at(0))[:, 0]

    def features(self, recordings: Recordings) -> tuple[str, ...]:
        return (STATE,)

    def window(self, spec: Spec) -> Window:
        if self.frames < 3 or self.batch * (self.frames - 1) < self.latent:
            needed = max(-(-self.latent // max(self.frames - 1, 1)), 1)
            raise DataError(
                f"koopman-vae fits a {self.latent} x {self.latent} operator to {self.batch} windows of {self.frames} steps, "
                f"which leave it undetermined; take at least 3 frames and a batch of {needed}."
            )
        edge: Literal["replicate", "drop"] = "replicate" if self.irregular and self.every is None else "drop"
        return Window(
            0, self.frames - 1, (STATE,), edge=edge, every=self.every
        )  # a shorter episode is read with the rest missing

    def prepare(self, recordings: Recordings) -> None:
        refuse_unusable(recordings, self.window(self.spec_), irregular=self.irregular)
        values = [np.asarray(episode[STATE], np.float32)[present(episode)] for episode in recordings]
        self.net_.scaler.fit(np.concatenate(values))

    # ---- how it is built and trained ----------------------------------------------------------------------------------

    def build(self, spec: Spec) -> Net:
        channels = spec.features[STATE].shape[0]
        posterior = (
            IrregularPosterior(channels, self.hidden, self.latent, self.counts)
            if self.irregular
            else Posterior(channels, self.hidden, self.latent, self.layers)
        )
        prior: Prior = IndependentPrior(self.latent)
        if self.prior != "independent":
            prior = GRUPrior(self.latent, self.hidden) if self.prior == "gru" else LinearPrior(self.latent)
        scaler = Normaliser((channels,), "range", low=0.0, high=1.0, constant="error", name=STATE)
        decoder = Decoder(self.latent, self.hidden, channels, self.layers if self.decoder == "gru" else 0)
        return Net(scaler, posterior, prior, decoder, self.latent)

    def reader(self, recordings: Recordings) -> Windows:
        return self._windows(recordings)

    def _windows(self, recordings: Recordings, order: Literal["shuffle", "sequence"] = "shuffle", apart: int = 1) -> Windows:
        """Whole windows that begin `apart` rows from each other; of an episode that is shorter, the one that begins with it.

        Those of which fewer than two steps were seen are left out.
        """
        window = self.window(self.spec_)

        def begins(episode: Episode) -> np.ndarray:
            rows = np.arange(episode.length)
            whole = self.irregular and self.every is None
            last = max(episode.length - self.frames, 0) if whole else episode.length
            told = observed(episode, window, recordings.fps) >= 2
            return np.asarray((rows % apart == 0) & (rows <= last) & told)

        return recordings.windows(window, self.batch, seed=self.seed, order=order, where=begins)

    def stages(self, net: Any) -> tuple[Stage, ...]:
        optimiser = Optimiser(kind="adam", rate=self.scheduled(self.learning_rate), weight_decay=self.weight_decay)
        return (Stage(self.steps, self.stage_loss, (optimiser,), clip=self.clip, ema=self.ema),)

    def loss(self, net: Any, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        x, seen = self._scaled(net, batch)
        mean, logvar = net.posterior(x, seen)
        z = noisy(mean, logvar)
        by_path = self.objective == "paper" and self.prior != "linear"
        bound = self.prior == "gru" and (self.w_pred > 0 or self.unit_modes != 0)
        if by_path or bound:
            path, *moments = net.prior.paths(self.batch, self.frames)
        foretold = tuple(moment[: len(x)] for moment in moments) if by_path else net.prior.following(z)
        off = ((net.decoder(z) - x) ** 2).sum(-1)
        terms = {"reconstruction": torch.where(seen, off, 0).sum() / len(x)}
        terms["divergence"] = self.w_kl * kl_normal(mean, logvar, foretold[0], foretold[1], dims=2).mean()
        if bound:
            operator = koopman.fit_operator(path[:, :-1].flatten(0, 1), path[:, 1:].flatten(0, 1))
            terms["linearity"] = self.w_pred * self._nonlinearity(path, operator)
        elif self.prior == "linear":
            operator = net.prior.operator
        if self.unit_modes and self.prior != "independent":
            moduli = koopman.eigenvalues(operator).abs()
            top = moduli if self.unit_modes < 0 else moduli[: self.unit_modes]
            terms["spectrum"] = self.w_eig * ((top - 1) ** 2).mean().to(x.dtype)
        return terms

    def _nonlinearity(self, z: Tensor, operator: Tensor) -> Tensor:
        """How far paths (B, T, d) are from being moved by an operator, up to `horizon` steps ahead."""
        total, moved = z.new_zeros(()), z
        for ahead in range(1, self.horizon + 1):
            moved = moved[:, : z.shape[1] - ahead] @ operator
            off = moved - z[:, ahead:]
            if self.penalty == "paper":
                total = total + (off**2).mean() / torch.linalg.vector_norm(moved)
            else:
                # By the variance: relative to the squared size, a large constant latent would be as good as a linear law.
                total = total + (off**2).sum() / ((z[:, ahead:] - z[:, ahead:].mean((0, 1))) ** 2).sum()
        return total

    def _scaled(self, net: Net, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Windows in [0, 1] and which steps of them were seen, (B, T)."""
        x = batch[STATE].to(net.operator.dtype)
        seen = torch.isfinite(x).all(-1)
        for name in ("mask", f"mask.{STATE}"):
            if name in batch:
                seen = seen & batch[name].bool()
        return net.scaler(torch.where(seen[..., None], x, net.scaler.offset)), seen

    def learn(self, recordings: Recordings, world: Any, validation: Recordings | None, run: Run) -> None:
        super().learn(recordings, world, validation, run)
        self.dt = self.every or (1.0 / recordings.fps if recordings.fps else 1.0)
        self._settle_law()
        self._warn_of_collapse(recordings)

    @torch.no_grad()
    def _settle_law(self) -> None:
        """The linear law of the prior, from its own paths; of a linear prior, the prior itself."""
        fitted = linear_law(self.net_.prior, self.frames, self.seed)
        operator = self.net_.prior.operator if self.prior == "linear" else fitted.operator
        self.net_.operator.copy_(operator)
        self.net_.noise.copy_(fitted.noise)

    @torch.no_grad()
    def _warn_of_collapse(self, recordings: Recordings) -> None:
        batch = self._windows(recordings).at(0)
        x, seen = self._scaled(self.net_, {k: v.to(self.torch_device) for k, v in batch.items() if isinstance(v, Tensor)})
        made = self.net_.decoder(self.net_.posterior(x, seen)[0])
        usual = torch.where(seen[..., None], x, 0).sum(0) / seen.sum(0)[:, None].clamp_min(1)  # at each step; needs no latent
        apart = float(((x - usual)[seen] ** 2).mean())
        told = 1 - float(((made - x)[seen] ** 2).mean()) / max(apart, 1e-12)
        if apart > 1e-8 and told < 0.1:
            warnings.warn(
                f"koopman-vae: the decoder ignores the latent ({max(told, 0):.0%} of what windows differ by comes back): the "
                f"divergence has collapsed the posterior on the prior, or training was short; lower w_kl (now {self.w_kl:g}).",
                stacklevel=3,
            )

    def restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        super().restore(tensors, about)
        self.dt = self.every or (1.0 / self.spec_.fps if self.spec_.fps else 1.0)

    # ---- how it answers -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(
        self, n: int, given: Batch | None = None, *, length: int | None = None, mode: Literal["prior", "linear"] = "prior"
    ) -> dict[str, Tensor]:
        """`n` windows {`observation.state`: (n, length, D)} in their own units; `length` is that of training where None.

        In `linear` mode only the first latent comes from the prior; the linear law and its residual noise move it on.
        Raises DataError where something is `given`. Warns where a mode grows so fast that a long sample would leave the data.
        """
        self.check_fitted()
        if given:
            raise DataError(f"koopman-vae makes windows from nothing; it was given {', '.join(given)}.")
        steps = length or self.frames
        largest = float(koopman.eigenvalues(self.net_.operator).abs().max())
        if steps > self.frames and largest > 1.1:
            warnings.warn(
                f"the largest eigenvalue has modulus {largest:.2f}: samples of {steps} steps will leave the data; constrain it "
                "by unit_modes.",
                stacklevel=2,
            )
        if mode == "prior":
            z = self.net_.prior.paths(n, steps)[0]
        else:
            rows = [self.net_.prior.paths(n, 1)[0][:, 0]]
            for _ in range(steps - 1):
                rows.append(rows[-1] @ self.net_.operator + torch.randn_like(rows[-1]) @ self.net_.noise.T)
            z = torch.stack(rows, 1)
        return {STATE: self.decode(z)}

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Windows (B, T, D) in their own units from paths of codes (B, T, latent), of any length."""
        self.check_fitted()
        made: Tensor = self.net_.scaler.inverse(self.net_.decoder(codes))
        return made

    @torch.no_grad()
    def encode(self, window: Batch) -> Tensor:
        """Posterior means (B, T, latent); steps that are missing are marked by NaN or in `mask.observation.state`."""
        return self._posterior(window)[0]

    @torch.no_grad()
    def complete(self, window: Batch, known: Tensor) -> dict[str, Tensor]:
        """Windows with the steps that are not `known` (B, T) filled in, {`observation.state`: (B, T, D)}.

        Raises DataError for a system that was trained on regular windows, or windows of which fewer than two steps are known.
        """
        self.check_fitted()
        if not self.irregular:
            raise DataError("koopman-vae completes windows where it was trained with irregular=True.")
        masked = {**window, f"mask.{STATE}": known}
        made = self.decode(self._posterior(masked)[0])
        return {STATE: torch.where(known[..., None].to(made.device), window[STATE].to(made), made)}

    def _posterior(self, window: Batch) -> tuple[Tensor, Tensor]:
        batch = self.checked(window, (STATE,))
        x, seen = self._scaled(self.net_, batch)
        if x.shape[1] != self.frames and self.irregular:
            raise DataError(f"koopman-vae reads windows of {self.frames} steps, got {x.shape[1]}.")
        if not self.irregular and not seen.all():
            raise DataError("koopman-vae was given windows with missing steps; it was trained with irregular=False.")
        if (seen.sum(1) < 2).any():
            raise DataError(f"koopman-vae: window {int((seen.sum(1) < 2).int().argmax())} has fewer than 2 observed steps.")
        found: tuple[Tensor, Tensor] = self.net_.posterior(x, seen)
        return found

    def _apart(self, recordings: Recordings) -> tuple[Tensor, Tensor]:
        """Codes (n, frames, latent) of windows that do not overlap, and the episode of each (n,)."""
        rows = self.frames if self.every is None or not recordings.fps else math.ceil(self.frames * self.every * recordings.fps)
        read = [(self.encode(batch), batch["episode"]) for batch in self._windows(recordings, "sequence", apart=rows)]
        return torch.cat([codes for codes, _ in read]).double().cpu(), torch.cat([episodes for _, episodes in read])

    # ---- the law of the codes -----------------------------------------------------------------------------------------

    def step(self, state: Tensor) -> Tensor:
        """Codes (..., latent) one `dt` later."""
        self.check_fitted()
        after: Tensor = state.to(self.net_.operator) @ self.net_.operator
        return after

    def simulate(self, initial: Tensor, times: Tensor, actions: Tensor | None = None, domain: str | None = None) -> Tensor:
        """Codes (B, T, latent) at times that are multiples of `dt`, from codes (B, latent), without noise."""
        self.check_fitted()
        steps = whole_steps(times, self.dt, self.card.slug)
        powers = torch.stack([torch.linalg.matrix_power(self.net_.operator, int(n)) for n in steps.tolist()])
        return torch.einsum("bd,tde->bte", initial.to(self.net_.operator), powers)

    def jacobian(self, state: Tensor) -> Tensor:
        """Derivative of `step`, (..., latent, latent): the same everywhere."""
        self.check_fitted()
        slope: Tensor = self.net_.operator.T
        return slope.expand(*state.shape[:-1], -1, -1)

    def eigenvalues(self) -> Tensor:
        """Of the law, largest modulus first, complex (latent,)."""
        self.check_fitted()
        return koopman.eigenvalues(self.net_.operator)

    def equations(self) -> tuple[str, ...]:
        """Each mode of the latent with what it does in a `dt`, the slowest to decay first; one of each conjugate pair."""
        return tuple(
            f"mode {i}: modulus {abs(v):.4f}, frequency {abs(np.angle(v)) / (2 * np.pi * self.dt):.4g} per unit of time"
            for i, v in enumerate(self.eigenvalues().tolist())
            if v.imag > -1e-9
        )

    @torch.no_grad()
    def linearity(self) -> float:
        """How much of what the prior does its best linear law explains, up to 1: R² of z' ≈ z A over its own paths."""
        self.check_fitted()
        return linear_law(self.net_.prior, self.frames, self.seed + 1).explained

    def certify(self, recordings: Recordings, level: float = 0.05) -> tuple[Tensor, Tensor]:
        """Eigenvalues of the codes of recordings, and bounds (n,) of their residuals on half of the windows, put aside.

        Any encoder is a dictionary: the codes of a window and 1, and the same one step later. Complex (n,), real (n,). No two
        windows overlap, and the halves are different episodes; of fewer than four, the first and the second half of each.
        Raises DataError where there are no two windows.
        """
        self.check_fitted()
        codes, episodes = self._apart(recordings)
        psi = torch.cat([torch.ones_like(codes[..., :1]), codes], -1)
        half, rest = (psi[rows] for rows in _halves(episodes, self.seed))
        operator = koopman.galerkin(half[:, :-1].flatten(0, 1), half[:, 1:].flatten(0, 1))
        values, vectors = operator.eigenpairs()
        blocks = torch.arange(len(rest)).repeat_interleave(self.frames - 1)
        sums = koopman.residual_sums(values, vectors, rest[:, :-1].flatten(0, 1), rest[:, 1:].flatten(0, 1), blocks=blocks)
        return values, koopman.upper_bounds(*sums, level=level, seed=self.seed)


def _halves(episodes: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Positions (n,) of windows in two halves: of different episodes, or of different parts of few."""
    groups = sorted(set(episodes.tolist()))
    places = {group: torch.where(episodes == group)[0] for group in groups}
    if len(groups) >= 4:
        order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed)).tolist()
        parts = [[places[groups[i]] for i in order[side::2]] for side in (0, 1)]
    else:
        parts = [[p[: len(p) // 2] for p in places.values()], [p[len(p) // 2 :] for p in places.values()]]
    first, second = (torch.cat(part) for part in parts)
    if not len(first):
        raise DataError(f"eigenvalues are found on some windows and judged on others; there are only {len(episodes)}: give more.")
    return first, second
