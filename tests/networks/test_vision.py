"""Residual networks, decoders, action chunks and heads on codes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from retrodict.errors import DataError, RetrodictError
from retrodict.networks.chunks import ChunkExecutor
from retrodict.networks.code_head import CodeHead
from retrodict.networks.decoder import ConvDecoder
from retrodict.networks.resnet import ResNet
from retrodict.trajectories import ActionSpace, Box, MultiBinary


@pytest.mark.parametrize(("depth", "parameters"), [(18, 11_176_512), (34, 21_284_672), (50, 23_508_032)])
def test_residual_networks_have_the_published_number_of_weights_and_torchvisions_names(depth, parameters):
    net = ResNet(depth)
    assert sum(p.numel() for p in net.parameters()) == parameters  # torchvision's without the classifier
    names = set(net.state_dict())
    assert {"conv1.weight", "bn1.running_mean", "layer2.0.downsample.0.weight", "layer4.1.bn2.bias"} <= names


def test_a_residual_network_loads_weights_and_says_what_does_not_fit():
    net, other = ResNet(10, 8, stem="small").eval(), ResNet(10, 8, stem="small").eval()
    x = torch.rand(2, 3, 3, 16, 16)
    assert net.load({**other.state_dict(), "fc.weight": torch.zeros(1)}) == ("fc.weight",)
    torch.testing.assert_close(net(x), other(x))
    assert net(x).shape == (2, 3, 64)
    assert ResNet(10, 4, stem="small", output="map")(x).shape == (2, 3, 32, 2, 2)
    with pytest.raises(DataError, match=r"'conv1.weight' is missing or has another shape"):
        net.load(ResNet(10, 4, stem="small").state_dict())
    with pytest.raises(DataError, match="10, 18, 34, 50 layers; got 12"):
        ResNet(12)


@pytest.mark.parametrize("norm", ["batch", "frozen", "group", "sync"])
def test_frozen_norms_do_not_follow_the_data(norm):
    net = ResNet(10, 16, stem="small", norm=norm).train()
    before = {name: value.clone() for name, value in net.named_buffers()}
    if norm != "sync":  # which computes on GPUs only
        net(torch.rand(4, 3, 16, 16)).sum().backward()
    moved = any(not torch.equal(value, before[name]) for name, value in net.named_buffers())
    assert moved == (norm == "batch")
    assert any(p.requires_grad for name, p in net.named_parameters() if "bn" in name) == (norm != "frozen")


@pytest.mark.parametrize("upsample", ["transposed", "nearest", "bilinear"])
def test_a_decoder_doubles_the_size_with_each_layer(upsample):
    net = ConvDecoder(5, (6, 2, 3), (8, 4, 3), upsample=upsample, norm="batch", refine=True)
    assert net(torch.rand(2, 7, 5)).shape == (2, 7, 3, 16, 24)
    of_map = ConvDecoder(None, (6, 2, 2), (3,), upsample=upsample, condition=2)
    assert of_map(torch.rand(4, 6, 2, 2), torch.rand(4, 2)).shape == (4, 3, 4, 4)
    with pytest.raises(ValueError, match="condition"):
        of_map(torch.rand(4, 6, 2, 2))


def chunks(start, worlds=2, horizon=3):
    """A chunk whose actions say when they were said and for which step: start + i / 10, other worlds a hundred more."""
    return torch.tensor([[[100.0 * world + start + i / 10] for i in range(horizon)] for world in range(worlds)])


def test_a_chunk_is_played_to_its_end_or_asked_anew():
    whole = ChunkExecutor(3, "all")
    with pytest.raises(RetrodictError, match="without reset"):
        whole.push(chunks(0))
    whole.reset()
    said = [whole.push(chunks(t) if whole.needs else None)[0].item() for t in range(5)]
    assert said == pytest.approx([0.0, 0.1, 0.2, 3.0, 3.1])
    with pytest.raises(DataError, match="3 actions"):
        whole.push(torch.zeros(2, 2, 1))
    first = ChunkExecutor(3, "first")
    first.reset()
    assert [first.push(chunks(t))[0].item() for t in range(3)] == [0, 1, 2]
    with pytest.raises(RetrodictError, match="none was given"):
        first.push(None)


def test_worlds_begin_anew_by_themselves():
    whole = ChunkExecutor(3, "all")
    whole.reset()
    whole.push(chunks(0))
    whole.reset(torch.tensor([True, False]))
    assert whole.needs
    assert whole.push(chunks(1)).ravel().tolist() == pytest.approx([1.0, 100.1])
    assert whole.push(None).ravel().tolist() == pytest.approx([1.1, 100.2])


def test_an_ensemble_weighs_the_oldest_answer_most():
    ensemble = ChunkExecutor(3, "ensemble", decay=0.5)
    ensemble.reset()
    for t in range(4):
        action = ensemble.push(chunks(t))
    said = np.array([1.2, 2.1, 3.0])  # for step 3, the oldest that reaches it first
    weight = np.exp(-0.5 * np.arange(3))
    assert action[0].item() == pytest.approx(float((said * weight).sum() / weight.sum()))
    ensemble.reset(torch.tensor([False, True]))
    action = ensemble.push(chunks(4))
    assert action[1].item() == pytest.approx(104.0)
    assert action[0].item() != pytest.approx(4.0)


def test_a_head_on_codes_standardises_and_keeps_to_the_range():
    space = ActionSpace({"push": Box(("x", "y"), -1.0, 1.0), "keys": MultiBinary(("a",))})
    head = CodeHead(4, space, (16, 8), dropout=0.0, chunk=3).eval()
    rng = torch.Generator().manual_seed(0)
    codes = 5 + 100 * torch.randn(64, 4, generator=rng)
    actions = np.concatenate([np.random.default_rng(0).normal(scale=9, size=(64, 2)), np.ones((64, 1))], 1)
    head.fit_scale(codes, actions)
    torch.testing.assert_close(((codes - head.mean) / head.std).std(0, correction=0), torch.ones(4))
    action = head.act(codes[:6].view(2, 3, 4))
    assert action.shape == (2, 3, 3, 3)
    assert action[..., :2].abs().max() <= 1
    losses = head(codes).losses(torch.from_numpy(actions).float()[:, None].expand(-1, 3, -1))
    assert set(losses) == {"push", "keys"}
    assert all(math.isfinite(float(value.detach())) for value in losses.values())
