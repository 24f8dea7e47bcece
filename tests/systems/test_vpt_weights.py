"""Released weights: names and shapes as facts of openai/Video-Pre-Training, and a forward pass written from its description."""

import json
import pickle

import pytest
import torch
from torch.nn import functional as F

from retrodict.errors import DataError
from retrodict.systems import System
from retrodict.systems.actions import vpt_weights
from retrodict.systems.actions.vpt_weights import load_official
from retrodict.systems.contract import Spec
from retrodict.trajectories import Feature
from retrodict.trajectories.codecs import MINECRAFT


def settings(width, heads, depth, stem, impala, size, steps):
    net = {
        "attention_heads": heads,
        "attention_mask_style": "none",
        "attention_memory_size": steps,
        "conv3d_params": {"inchan": 3, "kernel_size": [5, 1, 1], "outchan": stem, "padding": [2, 0, 0]},
        "hidsize": width,
        "img_shape": [size, size, stem],
        "impala_kwargs": {"post_pool_groups": 1},
        "impala_width": impala,
        "init_norm_kwargs": {"batch_norm": False, "group_norm_groups": 1},
        "n_recurrence_layers": depth,
        "pointwise_ratio": 4,
        "pointwise_use_activation": False,
        "recurrence_is_residual": True,
        "recurrence_type": "transformer",
        "timesteps": steps,
        "use_pointwise_layer": True,
        "use_pre_lstm_ln": False,
    }
    return {"model": {"args": {"net": {"args": net}, "pi_head_opts": {"temperature": 4}}}}


OFFICIAL = settings(4096, 32, 2, 128, 16, 128, 128)
SMALL = settings(32, 4, 2, 6, 0.25, 16, 8)


def released_shapes(whole):
    """Names and shapes of the tensors in a released `.weights`."""
    net = whole["model"]["args"]["net"]["args"]
    d, heads, size, inputs = net["hidsize"], net["attention_heads"], net["img_shape"][0], net["conv3d_params"]["outchan"]
    out = {"net.conv3d_layer.layer.weight": (inputs, 3, 5, 1, 1), "net.conv3d_layer.layer.bias": (inputs,)}

    def norm(name, n):
        out.update({f"{name}.weight": (n,), f"{name}.bias": (n,)})

    def linear(name, i, o, bias=True):
        out[f"{name}.weight"] = (o, i)
        if bias:
            out[f"{name}.bias"] = (o,)

    for s, base in enumerate((16, 32, 32)):
        c, at = int(net["impala_width"] * base), f"net.img_process.cnn.stacks.{s}"
        norm(f"{at}.firstconv.norm", inputs)
        out[f"{at}.firstconv.layer.weight"] = (c, inputs, 3, 3)
        norm(f"{at}.n", c)
        for b in range(2):
            for k in range(2):
                norm(f"{at}.blocks.{b}.conv{k}.norm", c)
                out[f"{at}.blocks.{b}.conv{k}.layer.weight"] = (c, c, 3, 3)
        inputs, size = c, (size + 1) // 2
    norm("net.img_process.cnn.dense.norm", inputs * size**2)
    linear("net.img_process.cnn.dense.layer", inputs * size**2, 256, bias=False)
    norm("net.img_process.linear.norm", 256)
    linear("net.img_process.linear.layer", 256, d, bias=False)
    for i in range(net["n_recurrence_layers"]):
        at = f"net.recurrent_layer.blocks.{i}"
        norm(f"{at}.mlp0.norm", d)
        linear(f"{at}.mlp0.layer", d, 4 * d, bias=False)
        linear(f"{at}.mlp1.layer", 4 * d, d)
        norm(f"{at}.pre_r_ln", d)
        out[f"{at}.r.orc_block.b_nd"] = (10, net["attention_memory_size"] - net["timesteps"])
        linear(f"{at}.r.orc_block.q_layer", d, d)
        linear(f"{at}.r.orc_block.k_layer", d, d, bias=False)
        linear(f"{at}.r.orc_block.v_layer", d, d, bias=False)
        linear(f"{at}.r.orc_block.proj_layer", d, d)
        linear(f"{at}.r.orc_block.r_layer", d, 10 * heads)
    norm("net.lastlayer.norm", d)
    linear("net.lastlayer.layer", d, d, bias=False)
    norm("net.final_ln", d)
    linear("pi_head.buttons.linear_layer", d, 40)
    linear("pi_head.camera.linear_layer", d, 22)
    return out


def released_forward(w, frames, heads, temperature):
    """Log probabilities of the released network for frames (B, T, C, H, W)."""

    def layer(name, x, conv=None, groups=True, relu=True):
        if f"{name}.norm.weight" in w:
            scale, shift = w[f"{name}.norm.weight"], w[f"{name}.norm.bias"]
            x = F.group_norm(x, 1, scale, shift) if conv else F.layer_norm(x, scale.shape, scale, shift)
        bias = w.get(f"{name}.layer.bias")
        x = conv(x, w[f"{name}.layer.weight"], bias) if conv else F.linear(x, w[f"{name}.layer.weight"], bias)
        return x.relu() if relu else x

    def plain(name, x):
        return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    def same(x, weight, bias):
        return F.conv2d(x, weight, bias, padding=1)

    batch, steps = frames.shape[:2]
    x = (frames / 255.0).transpose(1, 2)
    x = layer("net.conv3d_layer", x, lambda x, a, b: F.conv3d(x, a, b, padding=(2, 0, 0))).transpose(1, 2).flatten(0, 1)
    for s in range(3):
        at = f"net.img_process.cnn.stacks.{s}"
        x = F.max_pool2d(layer(f"{at}.firstconv", x, same), 3, 2, 1)
        x = F.group_norm(x, 1, w[f"{at}.n.weight"], w[f"{at}.n.bias"])
        for b in range(2):
            x = x + layer(f"{at}.blocks.{b}.conv1", layer(f"{at}.blocks.{b}.conv0", x, same), same)
    x = layer("net.img_process.linear", layer("net.img_process.cnn.dense", x.flatten(1))).view(batch, steps, -1)
    d = x.shape[-1]
    for i in range(2):
        at = f"net.recurrent_layer.blocks.{i}"
        y = F.layer_norm(x, (d,), w[f"{at}.pre_r_ln.weight"], w[f"{at}.pre_r_ln.bias"])
        q, k, v = (plain(f"{at}.r.orc_block.{n}_layer", y).view(batch, steps, heads, -1).transpose(1, 2) for n in "qkv")
        seen = (q @ k.transpose(-1, -2) / (d / heads)).softmax(-1) @ v
        x = x + plain(f"{at}.r.orc_block.proj_layer", seen.transpose(1, 2).flatten(2))
        x = x + layer(f"{at}.mlp1", layer(f"{at}.mlp0", x), relu=False)
    x = F.layer_norm(x.relu(), (d,), w["net.final_ln.weight"], w["net.final_ln.bias"])
    buttons = plain("pi_head.buttons.linear_layer", x).unflatten(-1, (20, 2)) / temperature
    camera = plain("pi_head.camera.linear_layer", x).unflatten(-1, (2, 11)) / temperature
    return buttons.log_softmax(-1), camera.log_softmax(-1)


@pytest.fixture
def small(tmp_path):
    draw = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(shape, generator=draw) * (1 if len(shape) == 1 else (sum(shape[1:]) or 1) ** -0.5)
        for name, shape in released_shapes(SMALL).items()
    }
    (tmp_path / "idm.json").write_text(json.dumps(SMALL))
    (tmp_path / "idm.model").write_bytes(pickle.dumps(SMALL))
    torch.save(weights, tmp_path / "idm.weights")
    return tmp_path, weights


def test_official_shapes_are_those_released():
    shapes = released_shapes(OFFICIAL)
    sizes = {name: torch.Size(shape).numel() for name, shape in shapes.items()}
    assert sum(sizes.values()) == 482_330_046
    assert sum(n for name, n in sizes.items() if name.startswith("net.")) == 482_076_032
    args = OFFICIAL["model"]["args"]
    system = vpt_weights.described({"net": args["net"]["args"], "pi_head_opts": args["pi_head_opts"]})
    spec = Spec({"observation.images.screen": Feature("video", (360, 640, 3))}, MINECRAFT, 20.0)
    with torch.device("meta"):
        built = {name: tuple(value.shape) for name, value in system.build(spec).state_dict().items()}
        released = {name: torch.empty(shape) for name, shape in shapes.items()}
        named = {n: tuple(v.shape) for n, v in vpt_weights.translated(released, system.heads, 4.0).items()}
    assert named.items() <= built.items()
    assert all(vpt_weights.NO_BIAS.fullmatch(name) for name in built.keys() - named.keys())
    assert (system.frames, system.keeps) == (128, slice(32, 96))


@pytest.mark.parametrize("name", ["idm.json", "idm.model"])
def test_outputs_equal_the_released_network(small, name, tmp_path):
    folder, weights = small
    system = load_official(folder / name, folder / "idm.weights", unpickle=True, device="cpu")
    frames = torch.randint(0, 256, (2, 8, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    window = {"observation.images.screen": frames}
    buttons, camera = released_forward(weights, frames, heads=4, temperature=4.0)
    dist = system._happened(system.net_, window)
    torch.testing.assert_close(dist.parts["buttons"].logits, buttons, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(dist.parts["camera"].logits, camera, atol=1e-4, rtol=1e-4)
    answer = system.infer(window)
    assert answer.action.shape == (2, 8, 22)
    assert torch.equal(answer.action[..., :20], buttons.argmax(-1).float())
    again = System.load(system.save(tmp_path / "saved"))
    assert torch.equal(again.infer(window).action, answer.action)


def test_frames_may_come_as_recorded(small):
    system = load_official(small[0] / "idm.json", small[0] / "idm.weights", camera="pov")
    frames = torch.zeros(1, 8, 3, 360, 640, dtype=torch.uint8)
    assert system.infer({"observation.images.pov": frames}).confidence.shape == (1, 8)
    assert system.reads.image_size == (16, 16)


def test_a_pickle_is_refused_unless_asked_for_and_runs_nothing(small):
    folder, _ = small
    with pytest.raises(DataError, match="run code"):
        load_official(folder / "idm.model", folder / "idm.weights")

    class Sly:
        def __reduce__(self):
            return (open, (str(folder / "written"), "w"))

    (folder / "sly.model").write_bytes(pickle.dumps({"model": Sly()}))
    with pytest.raises(DataError, match="open"):
        load_official(folder / "sly.model", folder / "idm.weights", unpickle=True)
    torch.save({"net": Sly()}, folder / "sly.weights")
    with pytest.raises(DataError, match="tensors only"):
        load_official(folder / "idm.json", folder / "sly.weights")
    assert not (folder / "written").exists()


def test_wrong_files_are_named(small):
    folder, weights = small
    with pytest.raises(DataError, match="nothing.json"):
        load_official(folder / "nothing.json", folder / "idm.weights")
    (folder / "bad.json").write_text("{}")
    with pytest.raises(DataError, match="no settings"):
        load_official(folder / "bad.json", folder / "idm.weights")
    torch.save({**weights, "value_head.linear.weight": torch.zeros(1)}, folder / "policy.weights")
    with pytest.raises(DataError, match="value_head"):
        load_official(folder / "idm.json", folder / "policy.weights")
    torch.save({n: v for n, v in weights.items() if "dense" not in n}, folder / "less.weights")
    with pytest.raises(DataError, match="does not hold"):
        load_official(folder / "idm.json", folder / "less.weights")
    policy = json.loads(json.dumps(SMALL))
    policy["model"]["args"]["net"]["args"]["attention_mask_style"] = "clipped_causal"
    (folder / "policy.json").write_text(json.dumps(policy))
    with pytest.raises(DataError, match="no inverse dynamics model"):
        load_official(folder / "policy.json", folder / "idm.weights")
