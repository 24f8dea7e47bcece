import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from retrodict.training.ema import EMA
from retrodict.training.schedules import schedule


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def jolt(module):
    with torch.no_grad():
        for p in module.parameters():
            p.add_(torch.randn_like(p))
    module(torch.randn(8, 3))


def test_it_averages_as_torch_does():
    live = net()
    ours, theirs = EMA(live, 0.9), AveragedModel(live, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    theirs.update_parameters(live)  # torch's first update is a copy; ours begins as one
    for step in range(5):
        jolt(live)
        ours.update(step)
        theirs.update_parameters(live)
    for mine, other in zip(ours.module.parameters(), theirs.module.parameters(), strict=True):
        torch.testing.assert_close(mine, other)
    for mine, other in zip(ours.module.buffers(), live.buffers(), strict=True):
        assert torch.equal(mine, other)


def test_momentum_one_freezes_and_zero_copies():
    live = net()
    frozen, copied = EMA(live, 1.0, buffers=False), EMA(live, 0.0)
    before = copy.deepcopy(frozen.state_dict())
    jolt(live)
    frozen.update(0)
    copied.update(0)
    assert all(torch.equal(before[k], v) for k, v in frozen.state_dict().items())
    assert all(torch.equal(v, copied.module.state_dict()[k]) for k, v in live.state_dict().items())


def test_momentum_may_be_a_schedule():
    live = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(live.weight)
    ema = EMA(live, schedule("linear", 0.5, 1.0, 1))
    nn.init.ones_(live.weight)
    ema.update(0)
    assert ema.module.weight.item() == 0.5
    ema.update(1)
    assert ema.module.weight.item() == 0.5


def test_a_teacher_is_saved_with_its_net_and_never_trained():
    student = net()
    both = nn.ModuleDict({"student": student, "teacher": EMA(student, 0.99)})
    assert not any(p.requires_grad for p in both["teacher"].parameters())
    assert len(list(both.parameters())) == 2 * len(list(student.parameters()))
    both.train()
    assert not both["teacher"].module.training
    assert both["student"].training
    assert EMA(student, 0.99, training=True).eval().module.training
    assert both["teacher"](torch.zeros(2, 3)).shape == (2, 2)


def test_a_copy_of_a_net_follows_its_own_student():
    student = net()
    both = copy.deepcopy(nn.ModuleDict({"student": student, "teacher": EMA(student, 0.0)}))
    assert both["teacher"].live is both["student"]


def test_swapped_gives_the_average_and_then_its_own_weights_back_even_after_an_error():
    live = net()
    ema = EMA(live, 1.0, buffers=False)
    jolt(live)
    own = copy.deepcopy(live.state_dict())
    with ema.swapped() as inside:
        assert inside is live
        assert torch.equal(live[0].weight, ema.module[0].weight)
    with pytest.raises(KeyError), ema.swapped() as inside:
        inside.state_dict()["nothing"]
    assert all(torch.equal(own[k], v) for k, v in live.state_dict().items())


def test_mixing_with_a_fresh_net_perturbs():
    live, fresh = nn.Linear(2, 2), nn.Linear(2, 2)
    ema = EMA(live, 1.0)
    ema.mix(fresh, 0.25)
    torch.testing.assert_close(ema.module.weight, 0.75 * live.weight.detach() + 0.25 * fresh.weight.detach())
