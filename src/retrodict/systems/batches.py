"""A look at the batch that a role method was given, before anything is answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from retrodict.errors import DataError
from retrodict.systems.contract import Card, Spec
from retrodict.training.stage import Batch


def look_over(
    batch: Mapping[str, Any], spec: Spec, card: Card, names: Iterable[str] | None = None, *, time: bool = True
) -> Batch:
    """The batch itself, once it was found to be of the form of the recordings that a system learned from.

    Args:
        batch: named tensors (B, T, *shape), camera frames uint8 (B, T, C, H, W); without T where `time` is False.
        spec, card: of the system.
        names: the features that are read; by default every `observation.*` of the spec. Others pass unlooked at.
        time: whether there is a time dimension.

    Raises DataError when a feature is missing, has another shape or dtype, or is not finite.
    """
    names = tuple(names) if names is not None else tuple(n for n in spec.features if n.startswith("observation."))
    leading = ("B", "T") if time else ("B",)
    sizes: dict[str, str] = {}
    for name in names:
        if name not in batch:
            raise DataError(f"{card.slug} was not given {name!r}; it was given {', '.join(batch) or 'nothing'}.")
        _check_form(name, batch[name], spec, card, leading)
        sizes[name] = str(list(batch[name].shape[: len(leading)]))
    if not time and len(set(sizes.values())) > 1:
        raise DataError(f"{card.slug} was given batches of different sizes: {sizes}.")
    return dict(batch)


def _check_form(name: str, value: Tensor, spec: Spec, card: Card, leading: tuple[str, ...]) -> None:
    feature = spec.features[name]
    shape = (feature.shape[-1], *feature.shape[:-1]) if feature.is_visual else feature.shape
    wanted = f"({', '.join((*leading, *map(str, shape)))})"
    who = f"{card.slug} was given {name!r} of"
    if feature.is_visual and value.dtype is not torch.uint8:
        dtype = str(value.dtype).removeprefix("torch.")
        raise DataError(f"{who} dtype {dtype}; camera frames are uint8 from 0 to 255, {wanted}.")
    if not feature.is_visual and value.dtype.is_floating_point != feature.dtype.startswith("float"):
        raise DataError(f"{who} dtype {str(value.dtype).removeprefix('torch.')}; it learned from {feature.dtype}.")
    seen = tuple(value.shape[len(leading) :])
    fits = len(seen) == len(shape) and all(w in (-1, s) for w, s in zip(shape, seen, strict=True))
    if value.ndim < len(leading) or not fits or 0 in value.shape[: len(leading)]:
        raise DataError(f"{who} shape {list(value.shape)}; it learned from {wanted}.")
    if card.missing == "refused" and value.dtype.is_floating_point and not torch.isfinite(value).all():
        raise DataError(f"{who} which some values are not finite; mend or leave out these steps first.")
