"""What laws that are piecewise-linear recurrent networks have in common: teacher forcing, and what can be read off them."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retrodict.dynamics.cycles import Cycle, find_cycles, words
from retrodict.dynamics.plrnn import Map, jacobian
from retrodict.dynamics.scan import Forcing, scan
from retrodict.errors import DataError
from retrodict.metrics.identifiability import obstacles
from retrodict.networks.plrnn import FirstEntries, Readout
from retrodict.roles import Law
from retrodict.systems.contract import Spec
from retrodict.systems.gradient import GradientSystem
from retrodict.systems.series import channel_names, refuse_uneven, whole_steps
from retrodict.training.optimisers import Optimiser
from retrodict.training.run import Run
from retrodict.training.schedules import schedule
from retrodict.training.stage import Stage
from retrodict.training.validation import Measure
from retrodict.trajectories import Recordings, Window, Windows
from retrodict.trajectories.features import STATE
from retrodict.trajectories.normalise import Normaliser

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from retrodict.metrics.lyapunov import LyapunovSpectrum

EXCERPT = 2000
"""Steps of the training data that a model keeps: to start from, and to be drawn beside."""

TRANSIENT, ORBIT = 1000, 20_000
"""Steps of a free run that are dropped, and that are looked at, where regions and cycles are asked for."""


class RecurrentNet(nn.Module):
    """A recurrent map, how it is seen, and the units of the data.

    Attributes:
        law: a module whose `map` is the recurrent map.
        readout: between states and standardised observations.
        normal: between standardised and recorded observations.
        excerpt: the first steps of a training episode, (EXCERPT, N), of which `excerpted` are there.
        alpha: strength of forcing, where it adapts.
    """

    excerpt: Tensor
    excerpted: Tensor
    alpha: Tensor

    def __init__(self, law: nn.Module, readout: Readout, seen: int) -> None:
        super().__init__()
        self.law, self.readout = law, readout
        self.normal = Normaliser((seen,), ddof=1, constant="error", name=STATE)
        self.register_buffer("excerpt", torch.zeros(EXCERPT, seen))
        self.register_buffer("excerpted", torch.zeros((), dtype=torch.int64))
        self.register_buffer("alpha", torch.ones(()))

    @property
    def map(self) -> Map:
        made: Map = self.law.map  # type: ignore[assignment]
        return made

    def embed(self, x: Tensor) -> Tensor:
        """States (..., M) of recorded observations (..., N)."""
        z: Tensor = self.readout.start((x - self.normal.offset) / self.normal.scale)
        return z

    def observe(self, z: Tensor) -> Tensor:
        """Observations (..., N), as recorded, of states (..., M)."""
        x: Tensor = self.readout(z) * self.normal.scale + self.normal.offset
        return x


@dataclass
class RecurrentLaw(GradientSystem, Law):
    """Base of laws z' = F(z) that are piecewise linear and learned from series by teacher forcing.

    They read `observation.state` (T, N) at equal spacing and standardise it; states z are those of the map, of M entries, and
    `embed` and `observe` lead from observations to states and back. All that is asked of a fitted law is computed in double
    precision from the trained weights. A run that diverges comes back as values that are not finite. Where `fit` is given
    held-out series (`validation`), the weights are kept whose free run fills space most as they do (D_stsp): from one step to
    the next that varies more than the loss.

    Attributes:
        sequence: steps T' that are unrolled in training; an episode needs one more.
        noise: standard deviation of the noise added to each training sequence, in standard deviations of the data.
        learning_rate, final_rate: rate of RAdam at the first and the last step; it falls by one factor per step,
            whatever `decay` says.
    """

    kind: ClassVar[Literal["map"]] = "map"  # type: ignore[misc]
    mixes: ClassVar[bool] = False  # a chaotic map has no digits to spare

    sequence: int = 200
    noise: float = field(default=0.0, kw_only=True)
    steps: int = field(default=5000, kw_only=True)
    batch: int = field(default=16, kw_only=True)
    learning_rate: float = field(default=1e-3, kw_only=True)
    final_rate: float = field(default=1e-6, kw_only=True)
    evaluate_every: int = field(default=1000, kw_only=True)

    # ---- what a law supplies ------------------------------------------------------------------------------------------

    @abstractmethod
    def refuse(self, seen: int) -> None:
        """Raise DataError where the settings contradict each other or N = `seen` channels."""

    @abstractmethod
    def forcing(self, net: RecurrentNet, signal: Tensor) -> Forcing | None:
        """How training draws states to a signal (T', B, N or M)."""

    @abstractmethod
    def penalties(self, net: RecurrentNet) -> Mapping[str, Tensor]:
        """Further terms of the loss."""

    @abstractmethod
    def equations(self, digits: int = 9) -> tuple[str, ...]:
        """The law in lines of plain arithmetic; nine digits are all that the weights have."""

    # ---- how it is trained --------------------------------------------------------------------------------------------

    def admit(self, recordings: Recordings) -> Recordings:
        usable = super().admit(recordings)
        refuse_uneven(usable, self.card.slug)
        longest = max(episode.length for episode in usable)
        if longest <= self.sequence:
            raise DataError(
                f"{self.card.slug} unrolls sequences of {self.sequence} steps and needs an episode of at least "
                f"{self.sequence + 1}; the longest has {longest}: record longer or set sequence."
            )
        return usable

    def window(self, spec: Spec) -> Window:
        if STATE in spec.features:
            if self.sequence < 1 or self.noise < 0:
                raise DataError(
                    f"{self.card.slug}: sequence is at least 1 and noise at least 0, got {self.sequence}, {self.noise}."
                )
            self.refuse(spec.features[STATE].shape[0])
        return Window(0, self.sequence, (STATE,), edge="drop")

    def reader(self, recordings: Recordings) -> Windows:
        return recordings.windows(self.window(self.spec_), self.batch, order="replacement", seed=self.seed)

    def prepare(self, recordings: Recordings) -> None:
        runs = [np.asarray(episode[STATE], np.float64) for episode in recordings]
        self.net_.normal.fit(np.concatenate(runs))
        for sentence in obstacles(runs, self.channels):
            warnings.warn(f"{self.card.slug}: {sentence}", stacklevel=2)
        kept = torch.from_numpy(max(runs, key=len)[:EXCERPT])
        self.net_.excerpt[: len(kept)] = kept
        self.net_.excerpted.fill_(len(kept))

    def learn(self, recordings: Recordings, world: Any, validation: Recordings | None, run: Run) -> None:
        super().learn(recordings, world, validation, run)
        if not torch.isfinite(self._orbit()).all():
            warnings.warn(f"{self.card.slug}: run freely from its own data, the law that was learned diverges.", stacklevel=2)

    def measure(self, stage: Stage, validation: Recordings) -> Measure:
        """How far the attractor of a free run is from a held-out one: what forced sequences lose says little of that."""
        from retrodict.metrics.free_runs import attractor_distance  # compiled: slow to import

        series = max((np.asarray(episode[STATE], np.float64) for episode in validation), key=len)
        skipped, looked_at = len(series), 4 * len(series)  # long, for a run may leave the attractor late

        def distance(net: Any, step: int) -> float:
            with torch.no_grad():
                start = net.embed(torch.from_numpy(series[:1]).to(net.normal.offset.device)).cpu()
                states = scan(net.map.to(torch.float64, "cpu"), start, skipped + looked_at)[skipped:, 0]
                run = net.observe(states.to(net.normal.offset.device)).cpu().numpy()
            value = attractor_distance(series, run)
            return value if math.isfinite(value) else math.inf

        return distance

    def stages(self, net: Any) -> tuple[Stage, ...]:
        rate = schedule("exponential", self.learning_rate, self.final_rate, self.steps, min(self.warmup, self.steps))
        optimiser = Optimiser(kind="radam", rate=rate, weight_decay=self.weight_decay)
        return (Stage(self.steps, self.stage_loss, (optimiser,), clip=self.clip, ema=self.ema),)

    def loss(self, net: RecurrentNet, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        normal = net.normal
        x = ((batch[STATE].to(normal.offset) - normal.offset) / normal.scale).transpose(0, 1).contiguous()  # (T' + 1, B, N)
        if self.noise and net.training:
            x = x + self.noise * torch.randn_like(x)
        signal = net.readout.signal(x[1:])
        entries = net.readout.seen if isinstance(net.readout, FirstEntries) else None
        states = scan(net.map, net.readout.start(x[0]), self.sequence, self.forcing(net, signal), entries=entries)
        return {"prediction": F.mse_loss(net.readout(states), x[1:]), **self.penalties(net)}

    # ---- how it answers -----------------------------------------------------------------------------------------------

    @property
    def dt(self) -> float:  # type: ignore[override]
        self.check_fitted()
        return 1 / self.spec_.fps if self.spec_.fps else 1.0

    def law(self, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> Map:
        """The map that was learned, with its weights."""
        self.check_fitted()
        made: Map = self.net_.map.to(dtype, device)
        return made

    def embed(self, observation: Tensor) -> Tensor:
        x = self._seen(observation)
        with torch.no_grad():
            z: Tensor = self.net_.embed(x)
            return z

    def observe(self, state: Tensor) -> Tensor:
        z = self._state(state)
        with torch.no_grad():
            x: Tensor = self.net_.observe(z)
            return x.to(z)

    def step(self, state: Tensor) -> Tensor:
        z = self._state(state)
        return self.law(z.dtype, z.device).step(z)

    def jacobian(self, state: Tensor) -> Tensor:
        z = self._state(state)
        return jacobian(self.law(z.dtype, z.device), z)

    def simulate(self, initial: Tensor, times: Tensor, actions: Tensor | None = None, domain: str | None = None) -> Tensor:
        """Observations (B, len(times), N) at `times`, in units of `dt` apart, of free runs that start from `initial` (B, N).

        Raises DataError where times are no whole steps, and where actions or a domain are given.
        """
        x = self._seen(initial)
        if actions is not None or domain is not None:
            raise DataError(f"{self.card.slug} knows neither actions nor domains; leave them out.")
        rows = whole_steps(times, self.dt, self.card.slug)
        z = self.embed(x.double())
        path = z[None] if int(rows.max()) == 0 else torch.cat([z[None], self._run(z, int(rows.max())).to(z)])
        return self.observe(path[rows.to(path.device)].transpose(0, 1)).to(x)

    def lyapunov(self, steps: int = 10_000, transient: int = TRANSIENT) -> LyapunovSpectrum:
        """The Lyapunov spectrum of the map along a free run from the training data."""
        from retrodict.metrics.lyapunov import lyapunov_spectrum  # compiled: slow to import

        law = self.law()
        start = self.embed(self._excerpt()[:1]).cpu()
        return lyapunov_spectrum(law.step, lambda z: jacobian(law, z), start, steps, self.dt, transient)

    def fixed_points(self) -> tuple[Cycle, ...]:
        """Fixed points of the map, found exactly; `observe` brings their states to units of the data."""
        return self.cycles(1)

    def cycles(self, period: int) -> tuple[Cycle, ...]:
        """Cycles of a period, found exactly from the words of regions that a free run and the training data pass through."""
        if period < 1:
            raise DataError(f"a cycle has a period of at least 1, got {period}.")
        law, orbit = self.law(), self._orbit()
        runs = [orbit[torch.isfinite(orbit).all(1)], self.embed(self._excerpt()).cpu()]
        found = [words(law.bits(run), period) for run in runs if len(run) >= period]
        return find_cycles(law, torch.cat(found)) if found else ()

    def plot(self) -> Figure:
        """The attractor beside the data, a stretch of both in time, and their power spectra."""
        from retrodict.systems.portraits import portrait  # matplotlib is slow to import

        data = self._excerpt()
        path = self.observe(self._orbit(len(data)))
        return portrait(data.cpu().numpy(), path.cpu().numpy(), self.dt, self.channels)

    # ---- details ------------------------------------------------------------------------------------------------------

    @property
    def channels(self) -> list[str]:
        """What the channels are called: by the recordings, or x1, x2, ..."""
        return list(channel_names(self.spec_.features[STATE]))

    def _excerpt(self) -> Tensor:
        """Observations (T, N) of the training data, on the device, float64."""
        self.check_fitted()
        kept: Tensor = self.net_.excerpt[: int(self.net_.excerpted)]
        return kept.double()

    def _run(self, z: Tensor, steps: int) -> Tensor:
        """States (steps, B, M) after each step of free runs from z (B, M); on the CPU, as one step waits for the other."""
        with torch.no_grad():
            return scan(self.law(), z.cpu(), steps)

    def _orbit(self, steps: int = ORBIT) -> Tensor:
        """States (steps, M) of one free run from the training data, after a transient."""
        return self._run(self.embed(self._excerpt()[:1]), TRANSIENT + steps)[TRANSIENT:, 0]

    def _seen(self, observation: Tensor) -> Tensor:
        self.check_fitted()
        width = len(self.net_.normal.offset)
        return self._form(observation, width, "observations")

    def _state(self, state: Tensor) -> Tensor:
        self.check_fitted()
        return self._form(state, len(self.net_.map[0]), "states")

    def _form(self, value: Tensor, width: int, what: str) -> Tensor:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim < 1 or value.shape[-1] != width:
            seen = f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise DataError(f"{self.card.slug} was given {seen}; floating-point {what} (..., {width}) are expected.")
        return value.to(self.torch_device)


def written(weights: Tensor, names: list[str], constant: float | None, digits: int) -> str:
    """`0.5*z1 - 0.25*z2 + 1` of weights (n,) and the names they multiply; terms that are exactly 0 are left out."""
    terms = [(float(w), f"*{name}") for w, name in zip(weights, names, strict=True) if float(w) != 0]
    if constant or not terms:
        terms.append((constant or 0.0, ""))
    text = "".join(f" {'-' if w < 0 else '+'} {abs(w):.{digits}g}{name}" for w, name in terms)
    return text[3:] if text.startswith(" + ") else "-" + text[3:]


def read_out(net: RecurrentNet, digits: int) -> tuple[str, ...]:
    """Lines that say what is seen of a state, x1 = ... z1 ..., in units of the data."""
    latent = len(net.map[0])
    with torch.no_grad():
        shares = net.readout(torch.eye(latent, dtype=torch.float64, device=net.normal.offset.device)).T
    shares = shares * net.normal.scale[:, None].double()
    names = [f"z{i + 1}" for i in range(latent)]
    return tuple(
        f"x{i + 1} = {written(row, names, float(offset), digits)}"
        for i, (row, offset) in enumerate(zip(shares, net.normal.offset, strict=True))
    )
