import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from retrodict.networks.conv import ConvEncoder, ConvLayer, SpatialSoftmax
from retrodict.networks.impala import ImpalaCNN, TemporalStem
from retrodict.networks.layers import FanIn, GroupNorm, fan_in_linear, frozen_statistics, initialise
from retrodict.networks.masks import Group, causal, mask_builder
from retrodict.networks.mlp import MLP


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


# ---- perceptron -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "silu", "gelu", "mish", lambda: nn.LeakyReLU(0.3)])
@pytest.mark.parametrize("norm", [None, "batch", "layer"])
def test_mlp_keeps_leading_dimensions(activation, norm):
    net = MLP([5, 16, 3], activation=activation, norm=norm, dropout=0.1, output_dropout=0.1)
    assert net(torch.randn(4, 7, 5)).shape == (4, 7, 3)


def test_mlp_without_bias_maps_zero_to_zero():
    net = MLP([4, 8, 8, 2], activation="gelu", bias=False)
    assert torch.equal(net(torch.zeros(3, 4)), torch.zeros(3, 2))
    assert not [name for name, _ in net.named_parameters() if "bias" in name]


def test_mlp_members_are_as_many_networks():
    one = MLP([4, 6, 2], members=3, norm="layer")
    x = torch.randn(5, 3, 4)
    out = one(x)
    assert out.shape == (5, 3, 2)
    out[:, 1].sum().backward()
    gradients = one.layers[0].weight.grad
    assert gradients[1].abs().sum() > 0
    assert gradients[[0, 2]].abs().sum() == 0


def test_mlp_last_scale_residual_and_bounds():
    h, s = torch.randn(6, 3), torch.randn(6, 2)
    still = MLP([5, 8, 3], last_scale=0.0, residual=True)
    assert torch.equal(still(h, s), h)
    assert MLP([3, 8, 2], last_activation="tanh", init="orthogonal")(100 * h).abs().max() <= 1


@pytest.mark.parametrize("kind", ["xavier", "orthogonal", "kaiming", "normal", "truncated", "zero", "fan_in", "default"])
def test_initialisers_do_what_they_say(kind):
    weight = torch.rand(64, 32)
    before = weight.clone()
    initialise(weight, kind)
    if kind == "default":
        assert torch.equal(weight, before)
    elif kind == "fan_in":
        torch.testing.assert_close(weight.norm(dim=1), torch.ones(64))
    elif kind == "orthogonal":
        torch.testing.assert_close(weight.T @ weight, torch.eye(32), atol=1e-5, rtol=0)
    elif kind == "zero":
        assert not weight.any()
    elif kind == "truncated":
        assert weight.abs().max() <= 0.04
    else:
        assert weight.std() < 0.25
        assert not torch.equal(weight, before)


def test_an_unknown_initialiser_is_named():
    with pytest.raises(ValueError, match="magic"):
        initialise(torch.ones(2, 2), "magic")


# ---- images -----------------------------------------------------------------------------------------------------------

LAYERS = [ConvLayer(8, 5, stride=2), ConvLayer(12, 3, pool="max"), ConvLayer(16, 3, dilation=2, padding="valid")]


@pytest.mark.parametrize(
    ("readout", "shape"),
    [("map", (16, 4, 4)), ("tokens", (16, 16)), ("linear", (10,)), ("mean", (16,)), ("keypoints", (32,))],
)
@pytest.mark.parametrize("norm", [None, "batch", "group"])
def test_conv_encoder_readouts(readout, shape, norm):
    net = ConvEncoder(LAYERS, 6, (32, 32), readout=readout, width=10, norm=norm, activation="gelu")
    out = net(torch.randn(2, 3, 6, 32, 32))
    assert out.shape == (2, 3, *shape)
    out.sum().backward()
    torch.testing.assert_close(net.eval()(torch.ones(6, 32, 32)), net(torch.ones(1, 6, 32, 32))[0])


def test_mean_readout_is_not_negative():
    net = ConvEncoder([ConvLayer(4)], 3, readout="mean", activation="tanh")
    assert (net(torch.randn(5, 3, 8, 8)) >= 0).all()


@given(st.integers(0, 6), st.integers(0, 8))
def test_keypoints_find_the_peak(row, column):
    heat = torch.zeros(1, 1, 7, 9)
    heat[0, 0, row, column] = 1
    x, y = SpatialSoftmax(0.01)(heat)[0]
    assert x == pytest.approx(column / 4 - 1, abs=1e-4)
    assert y == pytest.approx(row / 3 - 1, abs=1e-4)


def test_frozen_statistics_stay_and_come_back():
    net = ConvEncoder([ConvLayer(4)], 3, norm="batch").train()
    norm = next(m for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    with frozen_statistics(net):
        net(torch.randn(8, 3, 4, 4) + 5)
    assert norm.running_mean.abs().sum() == 0
    assert norm.training
    net(torch.randn(8, 3, 4, 4) + 5)
    assert norm.running_mean.abs().sum() > 0


def test_group_norm_survives_frames_that_want_no_gradient():
    norm, plain = GroupNorm(1, 4), nn.GroupNorm(1, 4)
    frames = torch.randn(3, 4, 6, 6)
    norm(frames.contiguous(memory_format=torch.channels_last)).square().sum().backward()
    plain(frames.clone().requires_grad_()).square().sum().backward()
    torch.testing.assert_close(norm.weight.grad, plain.weight.grad)


def test_fan_in_layers_keep_the_size_of_signals():
    x = torch.randn(4096, 64)
    for _ in range(10):
        x = fan_in_linear(64, 64, norm=True, scale=2**0.5)(x)
    assert 0.5 < x.pow(2).mean().sqrt() < 2
    assert FanIn(nn.Linear(3, 2), None, relu=False)(torch.zeros(1, 3)).abs().sum() == 0


def test_temporal_stem_sees_its_kernel_and_no_further():
    stem = TemporalStem(3, 8, 5)
    x = torch.rand(2, 12, 3, 4, 4)
    y = stem(x)
    assert y.shape == (2, 12, 8, 4, 4)
    other = x.clone()
    other[:, 6] += 1
    changed = (stem(other) - y).abs().amax((0, 2, 3, 4)) > 1e-6
    assert changed.nonzero().flatten().tolist() == [4, 5, 6, 7, 8]
    other = x.clone()
    other[:, :, :, 0, 0] += 1
    changed = (stem(other) - y).abs().amax((0, 1, 2)) > 1e-6
    assert changed.nonzero().tolist() == [[0, 0]]
    with pytest.raises(ValueError, match="odd"):
        TemporalStem(3, 8, 4)


@pytest.mark.parametrize("size", [(16, 16), (15, 21)])
def test_impala_folds_leading_dimensions(size):
    net = ImpalaCNN(3, size, (4, 8), dense=16, width=12)
    x = torch.rand(2, 5, 3, *size)
    torch.testing.assert_close(net(x), torch.stack([net(clip) for clip in x]))
    net(x).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


# ---- masks ------------------------------------------------------------------------------------------------------------


def test_causal_with_past_and_reach():
    assert causal(3).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert causal(2, past=2).int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert causal(2, past=2, reach=1).int().tolist() == [[0, 1, 1, 0], [0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ("all", lambda q, k, i, j: True),
        ("past", lambda q, k, i, j: k <= q),
        ("before", lambda q, k, i, j: k < q),
        ("same", lambda q, k, i, j: k == q),
        ("self", lambda q, k, i, j: i == j),
    ],
)
def test_each_rule_of_the_mask_builder(rule, holds):
    groups = [Group(name, tokens, step) for step in range(3) for name, tokens in (("image", 2), ("query", 1))]
    mask = mask_builder(groups, {("image", "image"): rule})
    names = [g.name for g in groups for _ in range(g.tokens)]
    steps = [g.step for g in groups for _ in range(g.tokens)]
    for i in range(9):
        for j in range(9):
            expected = names[i] == names[j] == "image" and holds(steps[i], steps[j], i, j)
            assert bool(mask[i, j]) == expected


def test_mask_rules_add_up_and_unknown_groups_are_named():
    groups = [Group("image", 2, 0), Group("query", 1, 0), Group("image", 2, 1), Group("query", 1, 1)]
    mask = mask_builder(groups, {("image", "image"): "past", ("query", "image"): "past", ("query", "query"): "self"})
    assert mask.int().tolist() == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 1, 0],
        [1, 1, 0, 1, 1, 0],
        [1, 1, 0, 1, 1, 1],
    ]
    with pytest.raises(ValueError, match="text"):
        mask_builder(groups, {("text", "image"): "all"})
