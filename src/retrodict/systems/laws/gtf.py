"""GTF: draw the model to the data just strongly enough that gradients stay bounded, and chaos can be learned from one series."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from retrodict.dynamics.forcing_strength import Estimate, forcing_strength
from retrodict.dynamics.plrnn import Shallow
from retrodict.dynamics.scan import Forcing, Mixed, Sparse
from retrodict.errors import DataError
from retrodict.networks.plrnn import FirstEntries, LinearReadout, ShallowPLRNN
from retrodict.roles import Batch, Generator
from retrodict.systems.contract import Card, Spec
from retrodict.systems.recurrent_laws import RecurrentLaw, RecurrentNet, read_out, written
from retrodict.trajectories.features import STATE

ANNEALED_EVERY, ANNEALING = 5, 0.999
"""Steps between new estimates of alpha, and how slowly alpha falls to a smaller one."""


@dataclass
class GTF(RecurrentLaw, Generator):
    """A shallow piecewise-linear recurrent network, trained by generalised teacher forcing.  (Hess et al., 2023)

    Reads `observation.state` (T, N). z' = A z + W1 [relu(W2 z + h2) - relu(W2 z)] + h1 is unrolled over a sequence; after each
    step the next one starts from (1 - alpha) z + alpha zhat, where zhat is the state that the data asks for, and the squared
    error of what is predicted before that is minimised. alpha 0 is plain backpropagation through time, alpha 1 one-step
    prediction; with alpha = 1 - 1 / |Jacobian| gradients neither explode nor vanish.

    The defaults are the paper's but for `steps`: it takes 250,000 for its tables (Lorenz with 50 hidden units, ECG with
    `readout="linear"`, 250 hidden units and alpha 0.3).

    Attributes:
        hidden: rectifiers H (Lorenz 50, ECG 250, EEG 512).
        latent: entries M of the state; as many as channels where None.
        readout: the first N entries of the state are what is seen (`first`), or a linear map of it (`linear`), which also
            serves where there are fewer states than channels.
        clipped: the second rectifier, which bounds the orbits.
        teacher: `mixed` with a fixed alpha, `adaptive` (aGTF: alpha starts at 1 and is annealed to the estimate), or `sparse`
            (every `every`-th state is replaced, its gradient cut: a baseline).
        alpha: strength of mixed forcing (Lorenz 0.1 to 0.2, ECG 0.3, EEG 0.1).
        every: steps between sparse forcings.
        estimate: of the size of the Jacobian, for adaptive forcing.
        shrinkage: weight of |1 - A|^2 + |W1|^2 + |W2|^2 + |h1|^2 + |h2|^2.
        conditioning: weight of the penalty that keeps a linear readout invertible.
    """

    card: ClassVar[Card] = Card(
        slug="gtf",
        title="Generalized Teacher Forcing for Learning Chaotic Dynamics",
        authors="Hess, Monfared, Brenner, Durstewitz",
        year=2023,
        url="https://arxiv.org/abs/2306.04406",
        reads="one or several series of states at equal spacing",
        returns="a piecewise-linear map with the attractor and the spectrum of the data, and free runs of it",
        claim="drawing the state to the data by the right share bounds the gradients, and a small shallow network learns chaos",
    )

    hidden: int = 50
    latent: int | None = None
    readout: Literal["first", "linear"] = "first"
    clipped: bool = True
    teacher: Literal["mixed", "adaptive", "sparse"] = "mixed"
    alpha: float = 0.15
    every: int = 10
    estimate: Estimate = field(default="arithmetic_mean", kw_only=True)
    shrinkage: float = field(default=1e-5, kw_only=True)
    conditioning: float = field(default=1e-6, kw_only=True)

    # ---- how it is built ----------------------------------------------------------------------------------------------

    def refuse(self, seen: int) -> None:
        if not 0 <= self.alpha <= 1 or self.every < 1 or self.hidden < 1:
            raise DataError(
                f"gtf: alpha lies in [0, 1], every and hidden are at least 1; got {self.alpha}, {self.every}, {self.hidden}."
            )
        if self.teacher == "sparse" and self.every > self.sequence:
            raise DataError(f"gtf: with every={self.every} and sequence={self.sequence} no forcing ever happens.")
        if self.latent is not None and self.latent < (seen if self.readout == "first" else 1):
            raise DataError(
                f"gtf: the first {seen} entries of a state are to be what is seen, but it has {self.latent}; "
                'use readout="linear", or more states.'
            )

    def build(self, spec: Spec) -> RecurrentNet:
        seen = spec.features[STATE].shape[0]
        latent = self.latent or seen
        law = ShallowPLRNN(latent, self.hidden, self.clipped)
        readout = FirstEntries(seen, latent) if self.readout == "first" else LinearReadout(seen, latent)
        return RecurrentNet(law, readout, seen)

    # ---- how it is trained --------------------------------------------------------------------------------------------

    def forcing(self, net: RecurrentNet, signal: Tensor) -> Forcing | None:
        if self.teacher == "sparse":
            return Sparse(signal, self.every)
        if self.teacher == "mixed":
            return Mixed(signal, self.alpha)
        if net.training and self.now % ANNEALED_EVERY == 0:
            asked = forcing_strength(net.map, self._whole(net, signal), self.estimate)
            now = float(net.alpha)
            net.alpha.fill_(asked if asked > now else ANNEALING * now + (1 - ANNEALING) * asked)
        return Mixed(signal, float(net.alpha))

    def penalties(self, net: RecurrentNet) -> dict[str, Tensor]:
        terms = {}
        if self.shrinkage:
            law = net.map
            assert isinstance(law, Shallow)
            weights = torch.cat([1 - law.a, law.w1.flatten(), law.w2.flatten(), law.h1, law.h2])
            terms["shrinkage"] = self.shrinkage * torch.dot(weights, weights)
        if self.conditioning and isinstance(net.readout, LinearReadout):
            terms["conditioning"] = self.conditioning * net.readout.conditioning()
        return terms

    def _whole(self, net: RecurrentNet, signal: Tensor) -> Tensor:
        """States (T, B, M) behind a signal that may speak of the first entries only; the others are as at a start."""
        with torch.no_grad():
            return net.readout.start(signal) if isinstance(net.readout, FirstEntries) else signal

    # ---- how it answers -----------------------------------------------------------------------------------------------

    def sample(self, n: int, given: Batch | None = None, length: int = 1000) -> Batch:
        """Free runs of `length` steps, `observation.state` (n, length, N), from states of the data drawn by torch's generator.

        With `given`, runs start from its `observation.state`, (n, N).
        """
        self.check_fitted()
        if given is not None:
            start = self.checked(given, (STATE,), time=False)[STATE]
            if len(start) != n:
                raise DataError(f"gtf was given {len(start)} states to start from and asked for {n} runs.")
        else:
            excerpt = self._excerpt()
            start = excerpt[torch.randint(len(excerpt), (n,), device="cpu")].float()
        return {STATE: self.simulate(start, self.dt * torch.arange(1, length + 1, dtype=torch.float64))}

    def equations(self, digits: int = 9) -> tuple[str, ...]:
        """The law in lines of plain arithmetic: what is seen, the hidden sums u, and the next state z'."""
        law = self.law()
        assert isinstance(law, Shallow)
        states = [f"z{i + 1}" for i in range(len(law.a))]
        inner = tuple(f"u{k + 1} = {written(row, states, None, digits)}" for k, row in enumerate(law.w2))
        units = []
        for k, lift in enumerate(law.h2.tolist()):
            lifted = f"relu(u{k + 1} {'-' if lift < 0 else '+'} {abs(lift):.{digits}g})"
            units.append(f"({lifted} - relu(u{k + 1}))" if law.clipped else lifted)
        weights = torch.cat([law.a.diag(), law.w1], 1)
        outer = tuple(
            f"z{i + 1}' = {written(row, states + units, float(h), digits)}"
            for i, (row, h) in enumerate(zip(weights, law.h1, strict=True))
        )
        head = f"one step is {self.dt:g}; relu(u) = max(u, 0)"
        return (head, *read_out(self.net_, digits), *inner, *outer)
