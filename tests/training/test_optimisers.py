import pytest
import torch
from torch import nn

from retrodict.errors import DataError
from retrodict.training.adabelief import AdaBelief
from retrodict.training.optimisers import KINDS, Optimiser
from retrodict.training.schedules import schedule


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"lbfgs"}))
def test_each_kind_finds_the_bottom_of_a_bowl(kind):
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(4, 3))
    described = Optimiser([weight], kind, schedule("linear", 0.1, 0.0, 400))
    optimizer = described.build(described.of(nn.Module()))
    for step in range(400):
        described.set(optimizer, step, 1.0)
        weight.grad = 2 * (weight.detach() - 1)
        optimizer.step()
    assert (weight - 1).abs().max() < 0.03


def test_adabelief_follows_its_formula():
    weight = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = AdaBelief([weight], lr=0.1, betas=(0.8, 0.9), eps=1e-8, weight_decay=0.01)
    w, m, s = weight.detach().clone(), 0.0, 0.0
    for t in range(1, 6):
        g = torch.sin(3 * w) + t
        weight.grad = torch.sin(3 * weight.detach()) + t
        optimizer.step()
        m = 0.8 * m + 0.2 * g
        s = 0.9 * s + 0.1 * (g - m) ** 2 + 1e-8
        w = w * (1 - 0.1 * 0.01) - 0.1 * (m / (1 - 0.8**t)) / ((s / (1 - 0.9**t)).sqrt() + 1e-8)
        torch.testing.assert_close(weight.detach(), w)


def test_weight_decay_may_be_a_schedule_and_a_plateau_slows_the_rate():
    described = Optimiser(nn.Linear(2, 2), "adamw", 0.1, weight_decay=schedule("linear", 0.0, 1.0, 10))
    optimizer = described.build(described.of(nn.Module()))
    described.set(optimizer, 5, 0.5)
    assert (optimizer.param_groups[0]["weight_decay"], optimizer.param_groups[0]["lr"]) == (0.5, 0.05)


def test_what_cannot_be_is_refused():
    with pytest.raises(DataError, match="no optimiser is called 'addam'"):
        Optimiser(kind="addam").build([nn.Parameter(torch.zeros(1))])
    with pytest.raises(DataError, match="cannot be made with"):
        Optimiser(kind="sgd", options={"betas": (0, 1)}).build([nn.Parameter(torch.zeros(1))])
    with pytest.raises(DataError, match="no parameters to move"):
        Optimiser(parameters=[]).of(nn.Linear(1, 1))


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_fused_radam_takes_the_steps_of_torch(decay):
    generator = torch.Generator().manual_seed(0)
    one = nn.Parameter(torch.randn(5, 3, generator=generator, dtype=torch.float64))
    other = nn.Parameter(one.detach().clone())
    ours = Optimiser((one,), "radam", 1e-2, decay).build([one])
    theirs = torch.optim.RAdam([other], 1e-2, weight_decay=decay)
    for step in range(30):
        if step == 10:  # a checkpoint in between changes nothing
            ours_again = Optimiser((one,), "radam", 1e-2, decay).build([one])
            ours_again.load_state_dict(ours.state_dict())
            ours = ours_again
        for weight, optimizer in ((one, ours), (other, theirs)):
            optimizer.zero_grad()
            ((weight**4).sum() + (weight.sum() - 1) ** 2).backward()
            optimizer.step()
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
