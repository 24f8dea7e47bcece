"""Devices: Lightning Fabric set up for a run, and a batch cut into shares.

Fabric is imported where a training starts: it takes seconds, and most commands train nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from retrodict.errors import DataError
from retrodict.training.run import Run
from retrodict.training.stage import Batch

if TYPE_CHECKING:
    from lightning_fabric import Fabric

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asking for a GPU must not open it, or no process can be forked


def fabric_for(run: Run, device: torch.device, net: nn.Module) -> Fabric:
    """Fabric on one device, or on several of its type.

    Several are started here as processes, or were started outside (`fabric run`, torchrun, Slurm) and find each other.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

    precision = run.precision
    if precision == "auto":
        mixes = device.type == "cuda" and all(p.dtype is torch.float32 for p in net.parameters())
        precision = ("bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed") if mixes else "32-true"
    if run.devices == 1:
        which = 1 if device.type == "cpu" else [device.index or 0]
        return Fabric(accelerator=device.type, devices=which, precision=precision)
    if device.type == "mps":
        raise DataError(f"{run.devices} devices were asked for; this machine has one of type mps.")
    outside = TorchElasticEnvironment.detect() or SLURMEnvironment.detect()
    method: Literal["popen", "fork", "spawn"] = "popen" if outside else "fork" if hasattr(os, "fork") else "spawn"
    strategy = DDPStrategy(start_method=method, find_unused_parameters=True)  # a term need not reach every parameter
    return Fabric(accelerator=device.type, devices=run.devices, strategy=strategy, precision=precision)


def nothing_to_wrap(fabric: Fabric) -> bool:
    """True where Fabric would change nothing of a step: one device, and the precision that the net has."""
    from lightning_fabric.strategies.single_device import SingleDeviceStrategy

    return isinstance(fabric.strategy, SingleDeviceStrategy) and fabric.strategy.precision.precision == "32-true"


def starts_processes(fabric: Fabric) -> bool:
    """True where Fabric runs a function in processes of its own, whose memory is not ours."""
    from lightning_fabric.strategies.launchers.multiprocessing import _MultiProcessingLauncher

    return isinstance(fabric.strategy.launcher, _MultiProcessingLauncher)


@contextmanager
def meeting() -> Iterator[None]:
    """Forget in the end the port at which processes met: Fabric would use it again, and later ones meet those still leaving."""
    given = "MASTER_PORT" in os.environ
    try:
        yield
    finally:
        if not given:
            os.environ.pop("MASTER_PORT", None)


def share(batch: Batch, rank: int, world: int) -> Batch:
    """The windows of a batch that one of `world` devices takes: every `world`-th, at least one.

    All devices together see the batch that one device alone would see.
    """
    if world == 1:
        return batch
    size = len(next(iter(batch.values())))
    first = rank % size
    return {name: rows[first::world] if rank < size else rows[first : first + 1] for name, rows in batch.items()}
