"""Symbolic dynamics: what a sequence of codes says of the motion behind it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from retrodict.errors import DataError


@dataclass(frozen=True)
class SymbolGraph:
    """The codes that a motion visits and how it goes from one to the next.

    Attributes:
        codes: the different codes (R,), most visited first.
        occupancy: share of the steps spent in each, (R,).
        transitions: (R, R), probability of the next code, staying included; a row of zeros for a code only met at the end.
    """

    codes: np.ndarray
    occupancy: np.ndarray
    transitions: np.ndarray

    @property
    def entropy(self) -> float:
        """Topological entropy, in nats per step, of the shift that allows every transition seen: a bound of the motion's."""
        allowed = (self.transitions > 0).astype(float)
        radius = float(np.abs(np.linalg.eigvals(allowed)).max())
        return float(np.log(radius)) if radius > 0 else 0.0

    def covering(self, share: float = 0.99) -> int:
        """The smallest number of codes in which that share of the time is spent."""
        return int(np.searchsorted(np.cumsum(self.occupancy), share - 1e-12) + 1)


def symbol_graph(symbols: np.ndarray, least: float = 0.0) -> SymbolGraph:
    """The graph of a sequence of whole numbers (T,); codes with an occupancy below `least` are left out of it.

    Raises DataError where there are fewer than two symbols, or none visited often enough.
    """
    symbols = np.asarray(symbols).reshape(-1)
    if len(symbols) < 2:
        raise DataError(f"a graph of symbols needs at least two in a row, got {len(symbols)}.")
    codes, where, counts = np.unique(symbols, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] >= least * len(symbols)]
    if not len(order):
        raise DataError(f"no symbol is met in a share of at least {least:g} of the steps.")
    pairs = np.zeros((len(codes), len(codes)))
    np.add.at(pairs, (where[:-1], where[1:]), 1)
    pairs = pairs[np.ix_(order, order)]
    totals = pairs.sum(1, keepdims=True)
    return SymbolGraph(
        codes[order], counts[order] / len(symbols), np.divide(pairs, totals, out=np.zeros_like(pairs), where=totals > 0)
    )


def word_entropy(symbols: np.ndarray, length: int) -> float:
    """Topological entropy estimated from the number of different words of a length, log(words) / length, in nats per step.

    Raises DataError where the sequence is shorter than a word.
    """
    symbols = np.asarray(symbols).reshape(-1)
    if not 1 <= length <= len(symbols):
        raise DataError(f"words of {length} symbols cannot be read from a sequence of {len(symbols)}.")
    found = np.unique(np.lib.stride_tricks.sliding_window_view(symbols, length), axis=0)
    return float(np.log(len(found)) / length)
