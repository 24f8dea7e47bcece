"""Random numbers: what a fit draws depends on its seed and the step alone, and leaves the caller's generators as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def mixed(*keys: int) -> int:
    """One 63-bit seed out of several numbers, such that neighbours have nothing in common."""
    return int(np.random.SeedSequence([key % 2**64 for key in keys]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's generators inside the block; after it they are as they were before."""
    before = states()
    try:
        random.seed(seed)
        np.random.seed(mixed(seed) % 2**32)  # noqa: NPY002 -- libraries that draw from the global generator are made repeatable too
        torch.default_generator.manual_seed(mixed(seed))
        if _cuda_in_use():
            torch.cuda.manual_seed_all(mixed(seed))
        yield
    finally:
        set_states(before)


def seed_step(device: torch.device, *keys: int) -> None:
    """Seed torch for one step. Cheaper than `torch.manual_seed`, which also queues a seed for every device that is not in use."""
    seed = mixed(*keys)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def states() -> dict[str, Any]:
    """Where all generators stand, of types that `torch.load(weights_only=True)` reads."""
    state: Any = np.random.get_state(legacy=True)  # noqa: NPY002
    kind, keys, position, has_gauss, gauss = state
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if _cuda_in_use() else [],
    }


def set_states(saved: dict[str, Any]) -> None:
    """Put all generators back to where `states` found them."""
    version, internal, gauss_next = saved["python"]
    random.setstate((version, tuple(internal), gauss_next))
    kind, keys, position, has_gauss, gauss = saved["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    torch.set_rng_state(saved["torch"])
    if saved["cuda"] and _cuda_in_use():
        torch.cuda.set_rng_state_all(saved["cuda"])


def _cuda_in_use() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]
