"""Attention masks: who may look at whom. True means "may look"; rows are queries, columns are keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Rule = Literal["all", "past", "before", "same", "self"] | int
"""Which keys of a group a query may see: any, those of its step or earlier, of an earlier step, of its step, itself only, or, a
number, those of the step so many later."""


@dataclass(frozen=True)
class Group:
    """Tokens that follow one another in the sequence and keep the same rules.

    Attributes:
        name: what rules call it.
        tokens: how many there are.
        step: the time step they belong to.
    """

    name: str
    tokens: int = 1
    step: int = 0


def mask_builder(groups: Sequence[Group], rules: Mapping[tuple[str, str], Rule | tuple[Rule, ...]]) -> Tensor:
    """The boolean matrix (L, L) of a sequence made of groups.

    Args:
        groups: the sequence, in order; a name may come again at every step.
        rules: (name of the query's group, name of the key's group) -> a rule, or several that each allow something; a pair that
            is not named may not look.

    Raises ValueError for a rule on a group that is not there.
    """
    names = [group.name for group in groups for _ in range(group.tokens)]
    unknown = {name for pair in rules for name in pair} - set(names)
    if unknown:
        raise ValueError(f"rules name groups that are not there: {sorted(unknown)}")
    steps = torch.tensor([group.step for group in groups for _ in range(group.tokens)])
    query, key = steps[:, None], steps[None, :]
    allowed = {
        "all": torch.ones(len(names), len(names), dtype=torch.bool),
        "past": key <= query,
        "before": key < query,
        "same": key == query,
        "self": torch.eye(len(names), dtype=torch.bool),
    }
    mask = torch.zeros(len(names), len(names), dtype=torch.bool)
    for (asking, asked), given in rules.items():
        rows = torch.tensor([name == asking for name in names])
        columns = torch.tensor([name == asked for name in names])
        for rule in given if isinstance(given, tuple) else (given,):
            looks = key == query + rule if isinstance(rule, int) else allowed[rule]
            mask |= rows[:, None] & columns[None, :] & looks
    return mask


def causal(length: int, past: int = 0, reach: int | None = None, device: torch.device | None = None) -> Tensor:
    """(length, past + length): each step sees itself and what came before, `past` steps of memory standing first.

    Args:
        length: steps asked for.
        past: steps of memory before them.
        reach: at most this many earlier steps are seen, so that the last step of a chunk sees no more than the first.
    """
    query = torch.arange(length, device=device)[:, None] + past
    key = torch.arange(past + length, device=device)[None, :]
    mask = key <= query
    return mask if reach is None else mask & (key >= query - reach)
