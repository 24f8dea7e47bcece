"""Fixed points and cycles of a piecewise-linear map, found exactly: one linear equation for each region or word of regions.

In the regions of a word w_1 ... w_k the map is a composition of affine maps, which has one fixed point. It is a cycle of the map
itself if its states lie in those very regions, and virtual otherwise. Candidates are words that were visited, and from each
virtual cycle the word of the regions in which it lies (the search of SCYFI; Eisenmann et al., 2023).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from retrodict.dynamics.plrnn import Map

CHUNK_BYTES = 100_000_000


@dataclass(frozen=True)
class Cycle:
    """A cycle of a map; a fixed point is one of period 1.

    Attributes:
        states: the states it passes through, (k, M) float64.
        bits: the region each lies in, (k, bits).
        multipliers: eigenvalues of the Jacobian along the whole cycle, (M,) complex, the largest first.
    """

    states: Tensor
    bits: Tensor
    multipliers: Tensor

    @property
    def period(self) -> int:
        return len(self.states)

    @property
    def stable(self) -> bool:
        """True where states nearby come closer with each round."""
        return bool(self.multipliers[0].abs() < 1)


def words(bits: Tensor, period: int) -> Tensor:
    """The different words of `period` regions that an orbit visits, most visited first: bits (T, n) -> (words, period, n).

    Words that are rotations of each other name the same cycle; the first is kept.
    """
    if not bits.shape[1]:
        return bits.new_zeros(1, period, 0)
    runs = bits.unfold(0, period, 1).transpose(1, 2).flatten(1)
    found, counts = torch.unique(runs, dim=0, return_counts=True)
    found = found[counts.argsort(descending=True, stable=True)].unflatten(1, (period, -1))
    seen, kept = set(), []
    for i, word in enumerate(found.to(torch.uint8).numpy()):
        if min(_rotations(word.tobytes(), period)) not in seen:
            seen.add(min(_rotations(word.tobytes(), period)))
            kept.append(i)
    distinct: Tensor = found[kept]
    return distinct


def find_cycles(law: Map, candidates: Tensor, rounds: int = 20) -> tuple[Cycle, ...]:
    """The cycles of a map among words of regions, those with the smallest multiplier first.

    Args:
        law: the map, best in float64.
        candidates: words of regions (words, k, bits), as `words` gives them.
        rounds: how often virtual cycles name new words.
    """
    period = candidates.shape[1]
    known, found = set(), dict[bytes, Cycle]()
    for _ in range(rounds + 1):
        fresh = []
        for i, word in enumerate(candidates.to(torch.uint8).numpy()):
            key = min(_rotations(word.tobytes(), period))
            if key not in known:
                known.add(key)
                fresh.append(i)
        if not fresh:
            break
        candidates, virtual = candidates[fresh], []
        chunk = max(1, CHUNK_BYTES // (8 * len(law[0]) ** 2 * period))
        for piece in torch.split(candidates, chunk):
            states, jacobian = _solve(law, piece)
            lies = law.bits(states)
            finite = torch.isfinite(states).flatten(1).all(1)
            real = finite & (lies == piece).flatten(1).all(1)
            for i in torch.nonzero(real).flatten().tolist():
                if period > 1 and _shorter(states[i]):
                    continue
                multipliers = torch.linalg.eigvals(jacobian[i])
                multipliers = multipliers[multipliers.abs().argsort(descending=True)]
                key = min(_rotations(piece[i].to(torch.uint8).numpy().tobytes(), period))
                found.setdefault(key, Cycle(states[i], lies[i], multipliers))
            virtual.append(lies[finite & ~real])
        candidates = torch.cat(virtual)
    return tuple(sorted(found.values(), key=lambda cycle: float(cycle.multipliers[0].abs())))


def _solve(law: Map, word: Tensor) -> tuple[Tensor, Tensor]:
    """States (n, k, M) of the fixed points of the affine maps along words (n, k, bits), and Jacobians (n, M, M) of a round."""
    jacobians, offsets = law.affine(word)
    whole, shift = jacobians[:, 0], offsets[:, 0]
    for k in range(1, word.shape[1]):
        whole, shift = jacobians[:, k] @ whole, (jacobians[:, k] @ shift[..., None])[..., 0] + offsets[:, k]
    unit = torch.eye(whole.shape[-1], dtype=whole.dtype)
    first, _ = torch.linalg.solve_ex(unit - whole, shift)  # a singular one comes back without end, and is left out
    states = [first]
    for k in range(word.shape[1] - 1):
        states.append((jacobians[:, k] @ states[-1][..., None])[..., 0] + offsets[:, k])
    return torch.stack(states, 1), whole


def _shorter(states: Tensor) -> bool:
    """Whether a cycle (k, M) is a shorter one gone round several times."""
    scale = 1e-9 * (1 + states.abs().max())
    k = len(states)
    return any(k % n == 0 and bool((states[n:] - states[:-n]).abs().max() < scale) for n in range(1, k // 2 + 1))


def _rotations(word: bytes, period: int) -> list[bytes]:
    step = len(word) // period
    return [word[i * step :] + word[: i * step] for i in range(period)] if step else [word]
