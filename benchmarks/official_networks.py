"""DynaMo's and UWM's networks here and in the official code, at equal size: do they say the same, and how fast?

    pip install einops accelerate diffusers
    git clone https://github.com/jeffacce/dynamo_ssl
    git clone https://github.com/WEIRDLabUW/unified-world-model
    python benchmarks/official_networks.py --dynamo dynamo_ssl --uwm unified-world-model

Weights are copied from one network to the other and both are asked the same. Then both take optimiser steps by turns, in one
thread. Both encode frames with our residual network, and the sines of noise levels are ours: theirs come from libraries that
this needs not, or differ by one frequency. How frames become tokens differs between the two UWMs (patches of an image VAE there,
steps of keypoints here, through a perceptron); both are given ours, and the speed of the official one with its own is told too.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import reporting
from retrodict.networks.joint_denoiser import ChunkPart, JointDenoiser
from retrodict.networks.patches import sincos
from retrodict.systems.states.dynamo import Dynamics, DynaMo
from retrodict.training.run import Run
from retrodict.trajectories import from_arrays

EYE = "observation.images.eye"
CLOSE = 1e-5


@contextmanager
def imported(root: Path) -> Iterator[None]:
    """Both repositories call their package `models`."""
    sys.path.insert(0, str(root.absolute()))
    yield
    sys.path.pop(0)
    for name in [name for name in sys.modules if name.split(".")[0] == "models"]:
        del sys.modules[name]


def copied(target: nn.Module, source: nn.Module | Tensor | nn.Parameter) -> None:
    """Give a layer the weights of another."""
    if isinstance(source, nn.Module):
        target.load_state_dict(source.state_dict())
    else:
        with torch.no_grad():
            next(target.parameters()).copy_(source.view_as(next(target.parameters())))


# ---- DynaMo -----------------------------------------------------------------------------------------------------------


def dynamo(root: Path, steps: int) -> dict[str, Any]:
    """A ResNet-18 on 64 px, 16 clips of 5 frames, transformers of 6 layers, 6 heads and width 120, 8 latent numbers."""
    torch.manual_seed(0)
    frames = np.random.default_rng(0).integers(0, 256, (12, 60, 64, 64, 3), np.uint8)
    size: dict[str, Any] = {"frames": 5, "latent_action": 8, "depth": 6, "heads": 6, "hidden": 120, "backbone": "resnet18"}
    recordings = from_arrays([{EYE: clip} for clip in frames], fps=10)
    ours = DynaMo(**size, steps=1, batch=16, warmup=1, device="cpu").fit(recordings, run=Run(progress=False))
    net: Any = ours.net_.train().requires_grad_(True)
    batch = recordings.windows(ours.reads, 16).at(0)
    with imported(root):
        official = importlib.import_module("models.ssl.dynamo")
        projector = importlib.import_module("models.projector.inverse_dynamics")
        encoder, width = deepcopy(net["encoder"]), net["encoder"].width
        shape = {"n_layer": 6, "n_head": 6, "n_embd": 120, "dropout": 0.0}
        inverse = projector.InverseDynamicsProjector(window_size=5, input_dim=width, output_dim=8, **shape)
        theirs = official.DynaMoSSL(encoder, inverse, window_size=5, feature_dim=width, projection_dim=8, **shape)
        _as_transformer(inverse.model, net["inverse"])
        _as_transformer(theirs.forward_dynamics, net["foresight"])
    seen = ours.views(batch)

    def loss_here() -> Tensor:
        return torch.stack(list(ours.loss(net, batch).values())).sum()

    def loss_there() -> Tensor:
        total: Tensor = theirs(seen)[2].sum()
        return total

    difference = float((loss_here() - loss_there()).detach().abs())
    here = _stepping([net["encoder"], net["inverse"], net["foresight"]], loss_here)
    there = _stepping([encoder, inverse, theirs.forward_dynamics], loss_there)
    return {"difference": difference, **_by_turns(here, there, steps)}


def _as_transformer(theirs: Any, ours: Dynamics) -> None:
    parts = theirs.transformer
    for target, source in (
        (parts.wte, ours.into),
        (parts.wpe, ours.positions),
        (parts.ln_f, ours.norm),
        (theirs.output_head, ours.out),
    ):
        copied(target, source)
    trunk: Any = ours.trunk
    for block, mine in zip(parts.h, trunk.blocks, strict=True):
        copied(block.ln_1, mine.norms[0])
        copied(block.ln_2, mine.norms[1])
        copied(block.attn.c_proj, mine.attention.out)
        copied(block.mlp.c_fc, mine.first)
        copied(block.mlp.c_proj, mine.second)
        with torch.no_grad():
            block.attn.c_attn.weight.copy_(torch.cat([layer.weight for layer in mine.attention.projections]))
            block.attn.c_attn.bias.copy_(torch.cat([layer.bias for layer in mine.attention.projections]))


# ---- UWM --------------------------------------------------------------------------------------------------------------

WIDTH, DEPTH, HEADS, REGISTERS, BATCH = 128, 4, 4, 4, 64
CHUNK, MOVES, FORESEEN, POINTS, CONDITION = 8, 2, 4, 32, 128


class Sines(nn.Module):
    """Ours, in the place of theirs."""

    def forward(self, level: Tensor) -> Tensor:
        return sincos(level[:, None], WIDTH)


class Tokens(nn.Module):
    """Our way from frames to tokens and back, in the place of their patches."""

    def __init__(self, part: Any) -> None:
        super().__init__()
        self.part = part

    def forward(self, frames: Tensor) -> Tensor:
        tokens: Tensor = self.part.embed(frames)
        return tokens

    def unpatchify(self, tokens: Tensor) -> Tensor:
        frames: Tensor = self.part.read(tokens)
        return frames


def uwm(root: Path, steps: int) -> dict[str, Any]:
    """Chunks of 8 actions and 4 frames to come, 4 registers, width 128, 4 layers and heads, 64 windows."""
    torch.manual_seed(0)
    parts = {"action": ChunkPart(CHUNK, MOVES, WIDTH), "frames": ChunkPart(FORESEEN, POINTS, WIDTH)}
    ours = JointDenoiser(parts, CONDITION, WIDTH, DEPTH, HEADS, REGISTERS)
    with torch.no_grad():  # what starts at zero would hide everything
        for parameter in ours.parameters():
            parameter.copy_(0.1 * torch.randn_like(parameter))
    theirs = _official_denoiser(root)
    condition, action, frames = (
        torch.randn(BATCH, CONDITION),
        torch.randn(BATCH, CHUNK, MOVES),
        torch.randn(BATCH, FORESEEN, POINTS),
    )
    levels = {name: torch.randint(100, (BATCH,)) for name in parts}
    patches = frames.movedim(1, 2).reshape(BATCH, 1, POINTS, FORESEEN, 1, 1)

    def here() -> tuple[Tensor, Tensor]:
        said = ours({"action": action, "frames": frames}, levels, condition)
        return said["action"], said["frames"]

    def there(shown: Tensor) -> tuple[Tensor, Tensor]:
        said: tuple[Tensor, Tensor] = theirs(condition, action, levels["action"], shown, levels["frames"])
        return said

    own = theirs.obs_patchifier
    _as_denoiser(theirs, ours)
    theirs.obs_patchifier = Tokens(deepcopy(ours.parts["frames"]))
    with torch.no_grad():
        pairs = zip(here(), there(frames), strict=True)
        difference = max(float((one - other).abs().max() / one.abs().max()) for one, other in pairs)

    def loss(said: Callable[[], tuple[Tensor, Tensor]]) -> Callable[[], Tensor]:
        return lambda: torch.stack([x.square().mean() for x in said()]).sum()

    stepped = _by_turns(_stepping([ours], loss(here)), _stepping([theirs], loss(lambda: there(frames))), steps)
    theirs.obs_patchifier = own
    patched = _by_turns(_stepping([ours], loss(here)), _stepping([theirs], loss(lambda: there(patches))), steps)
    return {"difference": difference, **stepped, "with its own patches": patched}


def _official_denoiser(root: Path) -> Any:
    with imported(root):
        # Their encoder of observations wants vision libraries; the network that is compared does not use it.
        package, beside = ModuleType("models.uwm"), ModuleType("models.uwm.obs_encoder")
        package.__path__ = [str(root / "models" / "uwm")]
        beside.UWMObservationEncoder = nn.Module  # type: ignore[attr-defined]
        importlib.import_module("models.common.utils")
        sys.modules.update({"models.uwm": package, "models.uwm.obs_encoder": beside})
        network = importlib.import_module("models.uwm.uwm").DualNoisePredictionNet
        return network(
            global_cond_dim=CONDITION,
            image_shape=(FORESEEN, 1, 1),
            patch_shape=(1, 1, 1),
            num_chans=POINTS,
            num_views=1,
            action_len=CHUNK,
            action_dim=MOVES,
            embed_dim=WIDTH,
            timestep_embed_dim=WIDTH,
            depth=DEPTH,
            num_heads=HEADS,
            num_registers=REGISTERS,
        )


def _as_denoiser(theirs: Any, ours: JointDenoiser) -> None:
    theirs.timestep_embedding.sinusoidal_pos_emb = Sines()
    action: Any = ours.parts["action"]
    mix: Any = ours.levels.mix
    for target, source in (
        (theirs.action_encoder[0], action.into.layers[0]),
        (theirs.action_encoder[2], action.into.layers[2]),
        (theirs.action_decoder[0], action.out.layers[0]),
        (theirs.action_decoder[2], action.out.layers[2]),
        (theirs.timestep_embedding.proj[0], mix.layers[0]),
        (theirs.timestep_embedding.proj[2], mix.layers[2]),
        (theirs.head.adaLN_modulation[1], ours.modulation),
    ):
        copied(target, source)
    with torch.no_grad():
        assert ours.registers is not None
        theirs.registers.copy_(ours.registers[None])
        theirs.pos_embed.copy_(ours.positions[None])
        theirs.head.linear.weight.copy_(torch.eye(WIDTH))  # a layer that ours leaves to the one after it
        theirs.head.linear.bias.zero_()
    trunk: Any = ours.trunk
    for block, mine in zip(theirs.blocks, trunk.blocks, strict=True):
        copied(block.attn.qkv, mine.attention.projections[0])
        copied(block.attn.proj, mine.attention.out)
        copied(block.mlp.fc1, mine.first)
        copied(block.mlp.fc2, mine.second)
        copied(block.adaLN_modulation[1], mine.modulation)
    for norm in (m for m in theirs.modules() if isinstance(m, nn.LayerNorm)):
        norm.eps = 1e-5


# ---- speed ------------------------------------------------------------------------------------------------------------


def _stepping(modules: list[nn.Module], loss: Callable[[], Tensor]) -> Callable[[], None]:
    """An optimiser step: forward, backward, the gradient of each module clipped by itself, AdamW."""
    optimizers = [torch.optim.AdamW(module.parameters(), 1e-4) for module in modules]

    def step() -> None:
        loss().backward()  # type: ignore[no-untyped-call]
        for module, optimizer in zip(modules, optimizers, strict=True):
            nn.utils.clip_grad_norm_(module.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step


def _by_turns(here: Callable[[], None], there: Callable[[], None], steps: int) -> dict[str, float]:
    """Steps per second of both, and the median of the ratio of two that follow one another."""
    taken: dict[str, list[float]] = {"ours": [], "official": []}
    for turn in range(steps + 3):
        for name, step in (("ours", here), ("official", there)):
            began = time.process_time()
            step()
            if turn >= 3:
                taken[name].append(time.process_time() - began)
    ratios = [there / here for here, there in zip(*taken.values(), strict=True)]
    return {**{name: 1 / median(seconds) for name, seconds in taken.items()}, "ratio": median(ratios)}


def main() -> None:
    parser = reporting.options("official_networks", __doc__)
    parser.add_argument("--dynamo", type=Path, required=True, help="checkout of jeffacce/dynamo_ssl")
    parser.add_argument("--uwm", type=Path, required=True, help="checkout of WEIRDLabUW/unified-world-model")
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    measured = {"dynamo": dynamo(options.dynamo, options.steps), "uwm": uwm(options.uwm, 10 * options.steps)}
    print(json.dumps(measured, indent=1))
    checks = [
        reporting.check(f"{name}: {what}", row[key], asked, row[key] <= CLOSE if key == "difference" else row[key] >= 1)
        for name, row in measured.items()
        for key, what, asked in (
            ("difference", "largest difference under copied weights", f"<= {CLOSE:g}"),
            ("ratio", "optimiser steps per second against the official network's", ">= 1"),
        )
    ]
    reporting.write(
        options.out,
        "official_networks",
        work="optimiser steps per second of DynaMo (ResNet-18, 16 clips of 5 frames of 64 px; `ours` and `peers`) and of "
        "UWM's network (64 windows, width 128, depth 4), in processor time of one thread",
        ours=round(measured["dynamo"]["ours"], 3),
        peers={"official": round(measured["dynamo"]["official"], 3)},
        ratio=round(min(row["ratio"] for row in measured.values()), 3),
        goal="under copied weights the same to 1e-5; not slower than either",
        checks=checks,
        measured=measured,
        packages=("torch",),
        arguments="--dynamo dynamo_ssl --uwm unified-world-model",
    )


if __name__ == "__main__":
    main()
