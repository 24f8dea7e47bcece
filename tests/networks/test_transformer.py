import math

import pytest
import torch
from torch import nn

from retrodict.networks.masks import causal
from retrodict.networks.transformer import RelativeBias, Sight, Transformer, attend


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_pre_and_post_norm_match_torch():
    for norm_first in (True, False):
        mine = Transformer(16, 1, 4, mlp=32, norm_first=norm_first, activation="relu", fused=True).eval()
        theirs = nn.TransformerEncoderLayer(16, 4, 32, 0.0, "relu", batch_first=True, norm_first=norm_first).eval()
        block = mine.blocks[0]
        pairs = [
            (theirs.self_attn.in_proj_weight, block.attention.into["qkv"].weight),
            (theirs.self_attn.in_proj_bias, block.attention.into["qkv"].bias),
            *zip(theirs.self_attn.out_proj.parameters(), block.attention.out.parameters(), strict=True),
            *zip(theirs.linear1.parameters(), block.first.parameters(), strict=True),
            *zip(theirs.linear2.parameters(), block.second.parameters(), strict=True),
        ]
        with torch.no_grad():
            for his, my in pairs:
                his.copy_(my)
        x, mask = torch.randn(2, 5, 16), causal(5)
        torch.testing.assert_close(mine(x, mask), theirs(x, src_mask=~mask), atol=1e-5, rtol=1e-5)


def test_fused_and_separate_projections_are_one_thing():
    fused, separate = Transformer(8, 1, 2, fused=True), Transformer(8, 1, 2)
    state = fused.state_dict()
    for kind in ("weight", "bias"):
        parts = state.pop(f"blocks.0.attention.into.qkv.{kind}").chunk(3)
        state |= {f"blocks.0.attention.into.{n}.{kind}": p for n, p in zip(("query", "key", "value"), parts, strict=True)}
    separate.load_state_dict(state)
    x = torch.randn(2, 4, 8)
    torch.testing.assert_close(fused(x), separate(x))


def test_masks_may_be_boolean_or_additive_and_per_batch_or_head():
    net, x, mask = Transformer(8, 2, 2), torch.randn(3, 6, 8), causal(6)
    additive = torch.zeros(6, 6).masked_fill(~mask, -math.inf)
    expected = net(x, mask)
    for form in (additive, mask.expand(3, 6, 6), mask.expand(1, 2, 6, 6), additive.expand(3, 2, 6, 6)):
        torch.testing.assert_close(net(x, form), expected)
    assert not torch.allclose(net(x), expected)


@pytest.mark.parametrize("additive", [False, True])
def test_a_row_that_sees_nothing_gives_zeros_and_finite_gradients(additive):
    mask = causal(4)
    mask[2] = False
    form = torch.zeros(4, 4).masked_fill(~mask, -math.inf) if additive else mask
    q, k, v = (torch.randn(1, 2, 4, 3, requires_grad=True) for _ in range(3))
    out = attend(q, k, v, Sight.through(form))
    assert torch.equal(out[:, :, 2], torch.zeros(1, 2, 3))
    out.sum().backward()
    assert all(t.grad.isfinite().all() for t in (q, k, v))


def test_padding_changes_nothing():
    net, x = Transformer(8, 2, 2), torch.randn(2, 5, 8)
    valid = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
    for mask in (None, causal(5)):
        out = net(x, mask, valid=valid)
        alone = net(x[1:, :3], None if mask is None else mask[:3, :3])
        torch.testing.assert_close(out[1:, :3], alone)
    junk = x.clone()
    junk[1, 3:] = 1e3
    torch.testing.assert_close(net(junk, valid=valid)[1, :3], net(x, valid=valid)[1, :3])


@pytest.mark.parametrize("chunks", [[1] * 10, [3, 3, 4], [10]])
def test_memory_equals_full_context(chunks):
    net, bias = Transformer(8, 2, 2, init="fan_in"), RelativeBias(2, 12)
    nn.init.normal_(bias.table)
    x, memory, out = torch.randn(2, 10, 8), net.memory(2), []
    for part in x.split(chunks, 1):
        y, memory = net.step(part, memory, bias(causal(part.shape[1], len(memory))))
        out.append(y)
    torch.testing.assert_close(torch.cat(out, 1), net(x, bias(causal(10))), atol=1e-5, rtol=1e-5)
    assert len(memory) == 10


def test_a_short_memory_equals_a_band():
    net, x = Transformer(8, 3, 2), torch.randn(2, 12, 8)
    memory, out = net.memory(2, length=4), []
    for part in x.split(1, 1):
        y, memory = net.step(part, memory, causal(1, len(memory), reach=4))
        out.append(y)
    torch.testing.assert_close(torch.cat(out, 1), net(x, causal(12, reach=4)), atol=1e-5, rtol=1e-5)
    assert len(memory) == 4


def test_reset_forgets_one_sequence_only():
    net, x = Transformer(8, 2, 2), torch.randn(2, 6, 8)
    memory = net.memory(2)
    _, memory = net.step(x[:, :4], memory, causal(4))
    after, _ = net.step(x[:, 4:], memory.reset(torch.tensor([True, False])), causal(2, 4))
    torch.testing.assert_close(after[0], net(x[:1, 4:], causal(2))[0])
    torch.testing.assert_close(after[1], net(x[1:], causal(6))[0, 4:])


def test_no_gradient_flows_into_the_past():
    net, x = Transformer(8, 1, 2), torch.randn(1, 4, 8, requires_grad=True)
    _, memory = net.step(x[:, :2], net.memory(1))
    y, _ = net.step(x[:, 2:], memory)
    y.sum().backward()
    assert x.grad[:, :2].abs().sum() == 0
    assert x.grad[:, 2:].abs().sum() > 0


def test_a_condition_starts_without_effect_and_then_modulates():
    net = Transformer(8, 2, 2, condition=3)
    x, condition = torch.randn(2, 4, 8), torch.randn(2, 3)
    assert torch.equal(net(x, condition=condition), x)
    nn.init.normal_(net.blocks[0].modulation.weight)
    out = net(x, condition=condition)
    assert not torch.allclose(out, x)
    torch.testing.assert_close(out, net(x, condition=condition[:, None].expand(2, 4, 3)))
    with pytest.raises(ValueError, match="norm_first"):
        Transformer(8, 1, 2, norm_first=False, condition=3)


@pytest.mark.parametrize("init", ["default", "scaled_normal", "fan_in", "t_fixup"])
@pytest.mark.parametrize("fused", [True, False])
def test_init_rules(init, fused):
    depth = 8
    block = Transformer(64, depth, 4, init=init, fused=fused).requires_grad_(False).blocks[0]
    query, _, value = block.attention.query_key_value
    if init == "scaled_normal":
        assert query.std() == pytest.approx(0.02, rel=0.1)
        assert block.second.weight.std() == pytest.approx(0.02 / (2 * depth) ** 0.5, rel=0.1)
    elif init == "fan_in":
        torch.testing.assert_close(query.norm(dim=1), torch.full((64,), 0.1))
        torch.testing.assert_close(block.second.weight.norm(dim=1), torch.full((64,), (2 * depth) ** -0.5))
    elif init == "t_fixup":
        plain = (6 / 128) ** 0.5 / 3**0.5
        assert value.std() == pytest.approx(0.67 * depth**-0.25 * plain, rel=0.1)
        assert block.attention.out.weight.std() == pytest.approx(0.67 * depth**-0.25 * plain, rel=0.1)
    if init != "default":
        assert not any(p.any() for name, p in block.named_parameters() if name.endswith("bias"))


def test_mlp_width_dropout_and_heads():
    assert Transformer(8, 1, 2, mlp=24).blocks[0].first.out_features == 24
    assert Transformer(8, 1, 2, mlp=2.0).blocks[0].first.out_features == 16
    net, x = Transformer(8, 1, 2, dropout=0.5), torch.randn(1, 3, 8)
    assert not torch.equal(net(x), net(x))
    assert torch.equal(net.eval()(x), net(x))
    with pytest.raises(ValueError, match="heads"):
        Transformer(8, 1, 3)
