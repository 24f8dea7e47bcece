import pytest
import torch

from retrodict.errors import RetrodictError
from retrodict.networks.chunks import Recent
from retrodict.networks.joint_denoiser import ChunkPart, JointDenoiser, Levels


def made(depth=2):
    torch.manual_seed(0)
    parts = {"action": ChunkPart(4, 2, 16), "frames": ChunkPart(6, 5, 16)}
    return JointDenoiser(parts, 5, 16, depth, 2, 3)


def asked(net, batch=3, seed=0):
    drawn = torch.Generator().manual_seed(seed)
    noisy = {name: torch.randn(batch, *part.shape, generator=drawn) for name, part in net.parts.items()}
    levels = {name: torch.randint(100, (batch,), generator=drawn) for name in noisy}
    return noisy, levels, torch.randn(batch, 5, generator=drawn)


def moved(net):
    """The net as if training had opened its gates."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    return net


def test_at_the_start_every_block_is_the_identity_and_the_answer_is_zero():
    net = made()
    x = torch.randn(3, net.positions.shape[0], 16)
    told = torch.randn(3, 5 + 16)
    assert torch.equal(net.trunk(x, condition=told), x)
    assert all((said == 0).all() for said in net(*asked(net)).values())


def test_gradients_open_the_gates():
    net = made()
    noisy, levels, condition = asked(net)
    for _ in range(3):
        loss = sum((said - noisy[name]).square().mean() for name, said in net(noisy, levels, condition).items())
        net.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in net.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad
    assert all(block.modulation.weight.abs().max() > 0 for block in net.trunk.blocks)


def test_every_part_sees_every_other_its_own_level_and_that_of_the_others():
    net = moved(made())
    noisy, levels, condition = asked(net)
    before = net(noisy, levels, condition)
    assert {name: said.shape for name, said in before.items()} == {name: x.shape for name, x in noisy.items()}
    for name in noisy:
        for other in noisy:
            seen = net({**noisy, name: noisy[name] + 1}, levels, condition)[other]
            assert (seen - before[other]).abs().max() > 1e-4, (name, other)
            seen = net(noisy, {**levels, name: levels[name] + 7}, condition)[other]
            assert (seen - before[other]).abs().max() > 1e-4, (name, other)
    assert (net(noisy, levels, condition + 1)["action"] - before["action"]).abs().max() > 1e-4


def test_levels_of_different_parts_are_told_apart_and_rows_do_not_mix():
    embed = Levels(2, 8)
    both = embed(torch.tensor([[3, 50], [50, 3]]))
    assert (both[0] - both[1]).abs().max() > 1e-4
    torch.testing.assert_close(embed(torch.tensor([[50, 3]]))[0], both[1])
    net = moved(made())
    noisy, levels, condition = asked(net)
    one = net({k: v[1:2] for k, v in noisy.items()}, {k: v[1:2] for k, v in levels.items()}, condition[1:2])
    torch.testing.assert_close(one["frames"], net(noisy, levels, condition)["frames"][1:2], atol=1e-5, rtol=1e-4)


def test_with_one_part_it_is_the_network_of_a_diffusion_policy():
    net = JointDenoiser({"action": ChunkPart(4, 2, 16)}, 5, 16, 1, 2, 0)
    noisy, levels, condition = asked(net)
    assert net(noisy, levels, condition)["action"].shape == (3, 4, 2)


def test_recent_observations_begin_anew_with_each_episode():
    recent = Recent(3)
    one, two, three = (torch.tensor([[float(i)], [10.0 + i]]) for i in (1, 2, 3))
    assert recent.push(one)[..., 0].tolist() == [[1, 1, 1], [11, 11, 11]]
    assert recent.push(two)[..., 0].tolist() == [[1, 1, 2], [11, 11, 12]]
    recent.reset(torch.tensor([True, False]))
    assert recent.push(three)[..., 0].tolist() == [[3, 3, 3], [11, 12, 13]]
    with pytest.raises(RetrodictError, match="played 2 worlds and is shown 1"):
        recent.push(one[:1])
    recent.reset()
    assert recent.push(one[:1])[..., 0].tolist() == [[1, 1, 1]]
