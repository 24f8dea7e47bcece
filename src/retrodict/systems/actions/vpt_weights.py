"""The released inverse dynamics model of VPT, from files on this machine: `4x_idm.model` (its settings) and `4x_idm.weights`.

The settings are a pickle, which can run code when opened; they are refused unless asked for, and even then nothing but plain
containers and numbers is let through. The weights are read as tensors only. The same settings as JSON are read without asking.

The released network differs from `VPT` as built here in three constants, which are folded into the weights: attention scores are
divided by the width of a head instead of its square root, logits are divided by a temperature (4), and keys, values and the first
layer of each perceptron have no bias. Its last linear layer is computed and thrown away there, and its relative attention spans
no steps; neither is read.
"""

from __future__ import annotations

import io
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from retrodict.errors import DataError
from retrodict.systems.actions.vpt import VPT
from retrodict.systems.contract import Spec
from retrodict.trajectories import Feature
from retrodict.trajectories.codecs import MINECRAFT
from retrodict.trajectories.features import IMAGES

DENSE = 256
RECORDED = (360, 640)
"""(height, width) of the frames it was trained on, before they were brought to 128 x 128."""

NAMES = {
    r"net\.conv3d_layer\.(.*)": r"observations.readers.0.stem.conv.\1",
    r"net\.img_process\.cnn\.stacks\.(\d+)\.firstconv\.(.*)": r"observations.readers.0.cnn.stacks.\1.first.\2",
    r"net\.img_process\.cnn\.stacks\.(\d+)\.n\.(.*)": r"observations.readers.0.cnn.stacks.\1.norm.\2",
    r"net\.img_process\.cnn\.(stacks\.\d+\.blocks\..*|dense\..*)": r"observations.readers.0.cnn.\1",
    r"net\.img_process\.linear\.(.*)": r"observations.readers.0.cnn.linear.\1",
    r"net\.recurrent_layer\.blocks\.(\d+)\.pre_r_ln\.(.*)": r"trunk.blocks.\1.norms.0.\2",
    r"net\.recurrent_layer\.blocks\.(\d+)\.mlp0\.norm\.(.*)": r"trunk.blocks.\1.norms.1.\2",
    r"net\.recurrent_layer\.blocks\.(\d+)\.mlp0\.layer\.(.*)": r"trunk.blocks.\1.first.\2",
    r"net\.recurrent_layer\.blocks\.(\d+)\.mlp1\.layer\.(.*)": r"trunk.blocks.\1.second.\2",
    r"net\.recurrent_layer\.blocks\.(\d+)\.r\.orc_block\.q_layer\.(.*)": r"trunk.blocks.\1.attention.into.query.\2",
    r"net\.recurrent_layer\.blocks\.(\d+)\.r\.orc_block\.k_layer\.(.*)": r"trunk.blocks.\1.attention.into.key.\2",
    r"net\.recurrent_layer\.blocks\.(\d+)\.r\.orc_block\.v_layer\.(.*)": r"trunk.blocks.\1.attention.into.value.\2",
    r"net\.recurrent_layer\.blocks\.(\d+)\.r\.orc_block\.proj_layer\.(.*)": r"trunk.blocks.\1.attention.out.\2",
    r"net\.final_ln\.(.*)": r"norm.\1",
    r"pi_head\.buttons\.linear_layer\.(.*)": r"head.heads.0.linear.\1",
    r"pi_head\.camera\.linear_layer\.(.*)": r"head.heads.1.linear.\1",
}
UNREAD = re.compile(r"net\.lastlayer\..*|net\.recurrent_layer\.blocks\.\d+\.r\.orc_block\.(r_layer\..*|b_nd)")
NO_BIAS = re.compile(r"trunk\.blocks\.\d+\.(attention\.into\.(key|value)|first)\.bias")


def load_official(
    model: str | Path, weights: str | Path, *, unpickle: bool = False, camera: str = "screen", device: str = "auto"
) -> VPT:
    """The released inverse dynamics model as a fitted `VPT`, which labels Minecraft video of `MINECRAFT` actions.

    Args:
        model: its settings, the released `.model` (a pickle) or the same as `.json`.
        weights: the released `.weights` (a torch state dict), or the same as `.safetensors`.
        unpickle: read a pickled `model`; nothing but plain containers and numbers is let through.
        camera: name of the camera in the recordings to label.
        device: where it runs; it has 482 million parameters.

    Raises DataError where a file is missing, is a pickle that was not asked for or holds more than settings, describes another
    kind of network, or does not hold the weights of the network described.
    """
    settings = read_settings(Path(model), unpickle)
    system = described(settings, device)
    spec = Spec({IMAGES + camera: Feature("video", (*RECORDED, 3), ["height", "width", "channels"])}, MINECRAFT, fps=20.0)
    temperature = float(settings["pi_head_opts"].get("temperature", 1.0))
    tensors = translated(_read_weights(Path(weights)), system.heads, temperature)
    with torch.device("meta"):
        wanted = system.build(spec).state_dict()
    tensors |= {name: torch.zeros(value.shape) for name, value in wanted.items() if NO_BIAS.fullmatch(name)}
    wrong = [
        n for n in wanted.keys() | tensors.keys() if n not in wanted or n not in tensors or tensors[n].shape != wanted[n].shape
    ]
    if wrong:
        raise DataError(f"{weights} does not hold the network that {model} describes: {len(wrong)} differ, first {min(wrong)}.")
    system.restore(tensors, {"spec": spec.to_json()})
    system.learned_from_ = system.heldout_ = ()
    return system


def described(settings: Mapping[str, Any], device: str = "auto") -> VPT:
    """The unfitted system that the settings of a released inverse model describe; raises DataError for another kind."""
    net = settings["net"]
    stem = net.get("conv3d_params") or {}
    if net.get("recurrence_type") != "transformer" or net.get("attention_mask_style") != "none" or not stem:
        raise DataError(
            "these settings describe no inverse dynamics model of VPT: a convolution over time and an unmasked transformer."
        )
    width = net.get("impala_width", 1)
    return VPT(
        frames=net["timesteps"],
        image_size=(net["img_shape"][0], net["img_shape"][1]),
        patch=1,
        stacks=tuple(int(width * c) for c in net.get("impala_chans", (16, 32, 32))),
        dense=DENSE,
        width=net["hidsize"],
        depth=net["n_recurrence_layers"],
        heads=net["attention_heads"],
        temporal=stem["kernel_size"][0],
        stem=stem["outchan"],
        numbers=False,
        device=device,
    )


def translated(released: Mapping[str, Tensor], heads: int, temperature: float) -> dict[str, Tensor]:
    """Released tensors under the names of `VPT`, with its constants folded in; raises DataError for a name it does not know."""
    out = {}
    for name, value in released.items():
        if UNREAD.fullmatch(name):
            continue
        found = [re.sub(pattern, new, name) for pattern, new in NAMES.items() if re.fullmatch(pattern, name)]
        if not found:
            raise DataError(f"{name} is no part of VPT's inverse dynamics model; are these the weights of another network?")
        value = value.float()
        if ".query." in found[0]:
            value = value * (value.shape[0] / heads) ** -0.5
        elif found[0].startswith("head."):
            value = value / temperature
        out[found[0]] = value
    return out


def read_settings(path: Path, unpickle: bool) -> dict[str, Any]:
    """`net` and `pi_head_opts` of a settings file."""
    try:
        raw = path.read_bytes()
        if path.suffix == ".json":
            whole = json.loads(raw)
        elif unpickle:
            whole = _Plain(io.BytesIO(raw)).load()
        else:
            raise DataError(
                f"{path} is a pickle, which can run code when it is opened; give the same settings as .json, "
                "or pass unpickle=True to let plain values through and nothing else."
            )
        return {"net": dict(whole["model"]["args"]["net"]["args"]), "pi_head_opts": dict(whole["model"]["args"]["pi_head_opts"])}
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; it should hold the settings of VPT's inverse dynamics model.") from None
    except DataError:
        raise
    except Exception as error:  # what a damaged pickle makes of it has no end
        raise DataError(f"{path} holds no settings of a VPT model ({type(error).__name__}: {error}).") from error


class _Plain(pickle.Unpickler):
    """Lets containers, numbers and text through, and no class or function but an ordered mapping."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        raise DataError(f"the pickle wants {module}.{name}, which settings have no need of; it is refused.")


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return dict(tensors)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; it should hold the weights of VPT's inverse dynamics model.") from None
    except Exception as error:
        raise DataError(f"{path} holds no weights that can be read as tensors only ({type(error).__name__}).") from error
