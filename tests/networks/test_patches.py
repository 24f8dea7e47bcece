"""Patches, positions, learned queries, the mask-token decoder and tasks as tokens."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from retrodict.errors import DataError
from retrodict.networks.mask_decoder import MaskTokenDecoder
from retrodict.networks.masks import Group, mask_builder
from retrodict.networks.patches import Positions, from_patches, grid, sincos, to_patches
from retrodict.networks.queries import QueryDecoder
from retrodict.networks.tasks import TaskEncoder
from retrodict.objectives.patches import PatchScale


def test_patches_lie_where_they_should():
    image = torch.arange(2 * 4 * 6).view(2, 4, 6)  # two channels
    patches = to_patches(image, (2, 3))
    assert patches.shape == (4, 12)
    assert patches[1].tolist() == [v for r in (0, 1) for c in (3, 4, 5) for v in (r * 6 + c, 24 + r * 6 + c)]
    assert torch.equal(to_patches(image.expand(5, 7, 2, 4, 6), (2, 3))[3, 2], patches)


@pytest.mark.parametrize(("size", "sides"), [((8, 8), (16, 24)), ((2, 4, 4), (4, 8, 12)), ((3,), (9,))])
def test_images_and_tubes_come_back_whole(size, sides):
    x = torch.rand(2, 3, *sides)
    patches = to_patches(x, size)
    assert patches.shape == (2, math.prod(sides) // math.prod(size), 3 * math.prod(size))
    assert torch.equal(from_patches(patches, size, sides), x)
    with pytest.raises(ValueError, match="no multiples"):
        to_patches(x[..., 1:], size)


def test_a_convolution_as_wide_as_its_stride_is_a_linear_map_of_patches():
    conv, x = nn.Conv2d(3, 5, 4, 4), torch.rand(2, 3, 8, 8)
    weight = conv.weight.permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(to_patches(x, (4, 4)) @ weight.T + conv.bias, conv(x).flatten(2).transpose(1, 2))


def test_sines_and_cosines_of_a_place():
    out = sincos(torch.tensor([[3.0, 5.0]]), 8)[0]
    expected = [wave(place * by) for place in (3, 5) for wave in (math.sin, math.cos) for by in (1, 0.01)]
    torch.testing.assert_close(out, torch.tensor(expected))
    far = torch.stack([sincos(torch.tensor([[a]]), 32)[0] @ sincos(torch.tensor([[a + 2.0]]), 32)[0] for a in (0.0, 7.0, 31.0)])
    torch.testing.assert_close(far, far[:1].expand(3))  # the product tells the distance alone
    with pytest.raises(ValueError, match="multiple of 4"):
        sincos(torch.zeros(1, 2), 6)


def test_positions_of_a_grid():
    assert grid((2, 3)).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    fixed = Positions((2, 3), 8)
    assert not list(fixed.parameters())
    torch.testing.assert_close(fixed(torch.zeros(4, 6, 8))[2], sincos(grid((2, 3)), 8))
    apart = Positions((4, 2, 3), 8, "separable")
    t, r, c = apart.sides
    torch.testing.assert_close(apart.vectors()[1 * 6 + 1 * 3 + 2], t[1] + r[1] + c[2])
    assert [p.shape for p in Positions((2, 3), 8, "learned").parameters()] == [(6, 8)]


def test_patches_are_normalised_by_their_own_numbers():
    patches = torch.rand(2, 5, 12, dtype=torch.float64)
    scale = PatchScale.of(patches)
    normed = scale.normalised(patches)
    torch.testing.assert_close(scale.undone(normed), patches)
    expected = (patches[1, 3] - patches[1, 3].mean()) / (patches[1, 3].var() + 1e-6).sqrt()
    torch.testing.assert_close(normed[1, 3], expected)
    assert PatchScale.of(torch.ones(1, 4)).normalised(torch.ones(1, 4)).abs().max() == 0


@pytest.mark.parametrize("norm_first", [True, False])
def test_queries_that_look_at_each_other_first_are_torchs_decoder(norm_first):
    ours = QueryDecoder(5, 16, 2, 4, among="first", norm_first=norm_first, activation="relu").double().eval()
    layer = nn.TransformerDecoderLayer(16, 4, 64, 0.0, norm_first=norm_first, batch_first=True)
    theirs = nn.TransformerDecoder(layer, 2, nn.LayerNorm(16) if norm_first else None).double().eval()
    with torch.no_grad():
        for mine, their in zip(ours.blocks, theirs.layers, strict=True):
            own = mine.own.into
            for attention, (q, k, v), out in (
                (their.self_attn, (own["query"], own["key"], own["value"]), mine.own.out),
                (their.multihead_attn, (mine.query, mine.key, mine.value), mine.out),
            ):
                attention.in_proj_weight.copy_(torch.cat([q.weight, k.weight, v.weight]))
                attention.in_proj_bias.copy_(torch.cat([q.bias, k.bias, v.bias]))
                attention.out_proj.load_state_dict(out.state_dict())
            their.linear1.load_state_dict(mine.first.state_dict())
            their.linear2.load_state_dict(mine.second.state_dict())
    tokens, valid = torch.rand(3, 7, 16).double(), torch.rand(3, 7) > 0.3
    valid[:, 0] = True
    expected = theirs(ours.queries.expand(3, -1, -1), tokens, memory_key_padding_mask=~valid)
    torch.testing.assert_close(ours(tokens, valid), expected)


@pytest.mark.parametrize("among", ["none", "first", "joint"])
def test_queries_read_a_set_of_any_size(among):
    torch.manual_seed(0)
    net = QueryDecoder(4, 16, 2, 4, inputs=6, among=among).eval()
    tokens = torch.rand(2, 9, 6)
    read = net(tokens)
    assert read.shape == (2, 4, 16)
    torch.testing.assert_close(net(tokens[:, torch.randperm(9)]), read)  # a set has no order
    valid = torch.arange(9).expand(2, -1) < 5
    torch.testing.assert_close(net(tokens, valid), net(tokens[:, :5]))
    assert not torch.allclose(net(tokens[:, :5]), read)


def test_only_joint_or_first_queries_know_of_each_other():
    for among, alone in (("none", True), ("first", False), ("joint", False)):
        torch.manual_seed(0)
        net, tokens = QueryDecoder(3, 8, 1, 2, among=among).eval(), torch.rand(1, 4, 8)
        before = net(tokens)[0, 0].clone()
        with torch.no_grad():
            net.queries[2] += 1.0 + torch.arange(8.0)
        assert torch.allclose(net(tokens)[0, 0], before) == alone


def test_the_decoder_paints_a_grid_from_tokens_before_it():
    torch.manual_seed(0)
    net = MaskTokenDecoder(6, (3, 4), 12, width=16, given=(2, 2))
    tokens = torch.rand(5, 4, 6)
    out = net(tokens)
    assert out.shape == (5, 12, 12)
    assert not torch.allclose(net(tokens.flip(1)), out)  # tokens have places of their own
    assert not torch.allclose(out[:, 0], out[:, 1])


def test_the_decoder_puts_tokens_at_their_cells():
    torch.manual_seed(0)
    net = MaskTokenDecoder(6, (3, 4), 12, width=16).eval()
    tokens, at = torch.rand(2, 3, 6), torch.tensor([[0, 5, 7], [1, 2, 3]])
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(net(tokens[:, order], at[:, order]), net(tokens, at))
    with pytest.raises(ValueError, match="say which"):
        net(tokens)
    net.blocks = Identity()  # what is at the cells, seen through the output layer
    put = net.norm(net.into(tokens[0, 1]) + net.positions.vectors()[5])
    torch.testing.assert_close(net(tokens, at)[0, 5], net.out(put))
    torch.testing.assert_close(net(tokens, at)[1, 9], net.out(net.norm(net.mask_token + net.positions.vectors()[9])))


class Identity(nn.Module):
    def forward(self, x):
        return x


def test_a_rule_may_look_ahead_and_pairs_may_have_two():
    groups = [Group(name, 1, step) for step in range(4) for name in ("state", "forecast")]
    mask = mask_builder(groups, {("forecast", "state"): ("past", 2)})
    steps = [[key for key in range(4) if mask[2 * step + 1, 2 * key]] for step in range(4)]
    assert steps == [[0, 2], [0, 1, 3], [0, 1, 2], [0, 1, 2, 3]]
    assert not mask[::2].any()


def test_tasks_have_numbers_and_more_can_be_added():
    tasks = TaskEncoder(("open", "close"), 4)
    assert tasks.numbers(["close", "open"]).tolist() == [2, 1]
    with pytest.raises(DataError, match=r"'push' was never seen.* in the same words: 'open', 'close'\."):
        tasks.numbers(["push"])
    more = tasks.extended(("push", "open"))
    assert more.vocabulary == ("open", "close", "push")
    torch.testing.assert_close(more(torch.tensor([0, 1, 2, 3])), tasks(torch.tensor([0, 1, 2, 0])))
