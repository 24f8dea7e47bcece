"""AL-RNN: a motion as a handful of linear regimes, hence as symbols and a graph that a person can read."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from retrodict.dynamics.cycles import Cycle, find_cycles
from retrodict.dynamics.plrnn import AlmostLinear
from retrodict.dynamics.scan import Forcing, Sparse, scan
from retrodict.errors import DataError
from retrodict.metrics.symbolic import SymbolGraph, symbol_graph
from retrodict.networks.plrnn import AlmostLinearRNN, FirstEntries
from retrodict.roles import Batch, Encoder
from retrodict.systems.contract import Card, Spec
from retrodict.systems.recurrent_laws import RecurrentLaw, RecurrentNet, read_out, written
from retrodict.trajectories import Window
from retrodict.trajectories.features import STATE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_RECTIFIED = 62
"""Rectified entries whose bits fit a whole number."""

EXHAUSTIVE = 12
"""Rectified entries up to which all regions can be looked at."""


@dataclass
class ALRNN(RecurrentLaw, Encoder):
    """An almost-linear recurrent network: all but P entries of its state are linear.  (Brenner et al., 2024)

    Reads `observation.state` (T, N). z' = A z + W phi(z) + h, where phi rectifies the last P of M entries; the first N entries
    are what is seen. It is unrolled over a sequence in which every `every`-th state has its first N entries replaced by the data
    (identity teacher forcing), and the squared error of what is predicted before that is minimised. Which rectifiers are on says
    in which of at most 2^P regions a state lies; in each the map is affine. The region is the symbol that `encode` gives.

    The defaults are the paper's for Lorenz-63 but for `steps`: it takes 100,000 (short runs end in a fixed point). Roessler:
    rectified 1, every 8, sequence 300, rate 5e-3, 150,000 steps. ECG: latent 100, every 10, sequence 50, rate 2e-3, noise 0.01.
    fMRI: latent 50, every 7, sequence 72, rate 5e-3, no noise.

    Attributes:
        latent: entries M of the state.
        rectified: how many of them, P, are rectified; 0 is a linear map.
        every: steps between forcings.
        sparsity: weight of |1 - A| + |W| + |h| (0.1 for EEG, else 0).
    """

    card: ClassVar[Card] = Card(
        slug="al-rnn",
        title="Almost-Linear RNNs Yield Highly Interpretable Symbolic Codes in Dynamical Systems Reconstruction",
        authors="Brenner, Hemmer, Monfared, Durstewitz",
        year=2024,
        url="https://arxiv.org/abs/2410.14240",
        reads="one or several series of states at equal spacing",
        returns="a map of few affine regions, its fixed points and cycles, and the region of every step as a symbol",
        claim="as few rectified units as topology asks for suffice to reproduce an attractor, and their regions are its symbols",
    )

    grain = "step"

    latent: int = 20
    rectified: int = 2
    every: int = 16
    sparsity: float = field(default=0.0, kw_only=True)
    noise: float = field(default=0.05, kw_only=True)
    final_rate: float = field(default=1e-5, kw_only=True)

    # ---- how it is built ----------------------------------------------------------------------------------------------

    def refuse(self, seen: int) -> None:
        if not 0 <= self.rectified <= min(self.latent, MOST_RECTIFIED):
            raise DataError(f"al-rnn: of {self.latent} entries, {self.rectified} cannot be rectified (at most {MOST_RECTIFIED}).")
        if self.latent < seen:
            raise DataError(f"al-rnn: the state must contain the {seen} observed channels, latent is {self.latent}; raise it.")
        if not 1 <= self.every <= self.sequence:
            raise DataError(f"al-rnn: with every={self.every} and sequence={self.sequence} no forcing ever happens.")
        if self.latent - self.rectified < seen:
            warnings.warn(
                f"al-rnn: of {self.latent} entries {self.rectified} are rectified, among them some of the {seen} that are seen; "
                "their values are clipped on the way through W.",
                stacklevel=2,
            )

    def build(self, spec: Spec) -> RecurrentNet:
        seen = spec.features[STATE].shape[0]
        return RecurrentNet(AlmostLinearRNN(self.latent, self.rectified), FirstEntries(seen, self.latent), seen)

    def forcing(self, net: RecurrentNet, signal: Tensor) -> Forcing:
        return Sparse(signal, self.every)

    def penalties(self, net: RecurrentNet) -> Mapping[str, Tensor]:
        if not self.sparsity:
            return {}
        a, w, h = net.map[:3]
        return {"sparsity": self.sparsity * ((1 - a).abs().sum() + w.abs().sum() + h.abs().sum())}  # type: ignore[union-attr]

    # ---- symbols ------------------------------------------------------------------------------------------------------

    @property
    def reads(self) -> Window:
        self.check_fitted()
        return Window(self.sequence - 1, 0, (STATE,))

    def encode(self, window: Batch) -> Tensor:
        """The region of every step, (B, T, 1) whole numbers: bit i is on where the i-th rectified entry is above 0.

        States are found by running the map along the observations, which replace the first entries at every step; the first few
        steps of a window are less certain.
        """
        x = self.checked(window, (STATE,))[STATE].double()
        seen = ((x - self.net_.normal.offset) / self.net_.normal.scale).transpose(0, 1).contiguous().cpu()
        law = self.law()
        with torch.no_grad():
            states = self.embed(x[:, 0])[None].cpu()
            if len(seen) > 1:
                followed = scan(law, states[0], len(seen) - 1, Sparse(seen[1:], 1))
                states = torch.cat([states, torch.cat([seen[1:], followed[..., seen.shape[-1] :]], -1)])
        return self._codes(law.bits(states)).transpose(0, 1)[..., None].to(self.torch_device)

    def symbols(self, series: np.ndarray) -> np.ndarray:
        """The region of every step of one series (T, N), (T,) whole numbers.

        Raises DataError where the series has another number of channels.
        """
        self.check_fitted()
        values, channels = np.asarray(series, np.float32), self.spec_.features[STATE].shape[0]
        if values.ndim != 2 or values.shape[1] != channels or not len(values):
            raise DataError(f"al-rnn learned from {channels} channels and was given a series of shape {list(values.shape)}.")
        dtype = torch.from_numpy(values).to(getattr(torch, self.spec_.features[STATE].dtype))
        return self.encode({STATE: dtype[None]})[0, :, 0].cpu().numpy()

    def graph(self, steps: int = 100_000, least: float = 1e-3) -> SymbolGraph:
        """The regions that a free run visits in at least that share of its steps, and how it goes from one to the next.

        Raises DataError where the run diverges.
        """
        orbit = self._orbit(steps)
        if not torch.isfinite(orbit).all():
            raise DataError("al-rnn: run freely, the law that was learned diverges; it has no regions that it stays in.")
        return symbol_graph(self._codes(self.law().bits(orbit)).cpu().numpy(), least)

    def flipping(self) -> int:
        """Rectified entries that do not keep one sign along a free run; the others are as good as linear."""
        bits = self.law().bits(self._orbit())
        return int((bits.any(0) & ~bits.all(0)).sum())

    # ---- what can be read off -----------------------------------------------------------------------------------------

    def fixed_points(self, regions: Literal["visited", "all"] = "visited") -> tuple[Cycle, ...]:
        """Fixed points of the map, found exactly; `observe` brings their states to units of the data.

        With `all`, every one of the 2^P regions is looked at. Raises DataError where they are too many.
        """
        if regions == "visited":
            return self.cycles(1)
        if self.rectified > EXHAUSTIVE:
            raise DataError(
                f"al-rnn: {self.rectified} rectified entries make 2^{self.rectified} regions, too many to look at all; "
                'take those that are "visited".'
            )
        law = self.law()
        return find_cycles(law, self._bits(torch.arange(2**self.rectified))[:, None], rounds=0)

    def equations(self, digits: int = 9) -> tuple[str, ...]:
        """The law in lines of plain arithmetic: what is seen, then the affine map of each region that a free run visits."""
        law, names = self.law(), [f"z{i + 1}" for i in range(self.latent)]
        bits = law.bits(self._orbit())
        found = symbol_graph(self._codes(bits).cpu().numpy())
        lines = [f"one step is {self.dt:g}", *read_out(self.net_, digits)]
        for code, share in zip(found.codes.tolist(), found.occupancy.tolist(), strict=True):
            on = self._bits(torch.tensor(code))
            matrix, offset = law.affine(on)
            signs = [f"{name} {'>' if up else '<='} 0" for name, up in zip(names[self._linear :], on.tolist(), strict=True)]
            lines.append(f"region {code} ({share:.2%} of the time), {' and '.join(signs) or 'everywhere'}:")
            lines += [
                f"z{i + 1}' = {written(row, names, float(c), digits)}"
                for i, (row, c) in enumerate(zip(matrix, offset, strict=True))
            ]
        return tuple(lines)

    def plot(self) -> Figure:
        """The attractor beside the data, their courses and spectra, and the graph of regions."""
        from retrodict.systems.portraits import draw_graph  # matplotlib is slow to import

        figure = super().plot()
        try:
            found = self.graph()
        except DataError:
            return figure
        figure.set_size_inches(14.5, 3.6)
        for i, ax in enumerate(figure.axes):
            ax.set_subplotspec(figure.add_gridspec(1, 4)[i])
        names = [format(int(code), f"0{max(self.rectified, 1)}b")[::-1] for code in found.codes]
        draw_graph(figure.add_subplot(1, 4, 4), names, found.occupancy, found.transitions)
        return figure

    # ---- details ------------------------------------------------------------------------------------------------------

    @property
    def _linear(self) -> int:
        return self.latent - self.rectified

    def law(self, dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu") -> AlmostLinear:
        made = super().law(dtype, device)
        assert isinstance(made, AlmostLinear)
        return made

    def _codes(self, bits: Tensor) -> Tensor:
        """Whole numbers (...) of bits (..., P)."""
        return (bits.long() << torch.arange(self.rectified, device=bits.device)).sum(-1)

    def _bits(self, codes: Tensor) -> Tensor:
        """Bits (..., P) of whole numbers (...)."""
        return (codes[..., None] >> torch.arange(self.rectified, device=codes.device)) & 1 > 0
