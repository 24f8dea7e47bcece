"""The recorder of a training run."""

import pytest
import torch
from torch import nn

from retrodict.errors import DataError
from retrodict.training.loop import train
from retrodict.training.optimisers import Optimiser
from retrodict.training.recorder import Recorder
from retrodict.training.run import Run
from retrodict.training.stage import Stage

X = torch.linspace(-1, 1, 8, dtype=torch.float64)[:, None]


def line():
    net = nn.Linear(1, 1).double()
    with torch.no_grad():
        net.weight.fill_(0.0)
        net.bias.fill_(0.0)
    return net


def recorded(**options):
    net, recorder = line(), Recorder(**options)
    recorder.begin(net)
    stage = Stage(
        6,
        lambda net, batch, step: {"square": ((net(batch["x"]) - 2 * batch["x"]) ** 2).mean()},
        (Optimiser(kind="sgd", rate=0.1),),
    )
    train(net, lambda step: {"x": X}, [stage], Run(callbacks=(recorder,), precision="64-true"))
    return net, recorder.run


def test_it_keeps_weights_losses_and_measures_in_their_precision():
    net, run = recorded(every=2, measure=lambda net: {"twice": 2 * net.weight.flatten()})
    assert run.steps.tolist() == [0, 2, 4, 6]
    assert run.weights["weight"].dtype == float
    assert run.weights["weight"][-1] == pytest.approx(net.weight.detach().numpy())
    assert run.metrics["twice"][:, 0] == pytest.approx(2 * run.weights["weight"][:, 0, 0])
    spread = float((X**2).mean())
    before = [0.0, *(2 * (1 - (1 - 0.2 * spread) ** k) for k in (1, 3, 5))]  # the weight that the loss of each look saw
    assert run.metrics["loss.square"] == pytest.approx([spread * (2 - w) ** 2 for w in before])


def test_it_looks_at_chosen_steps_only():
    _, run = recorded(every=frozenset({1, 5}), weights=False)
    assert run.steps.tolist() == [0, 1, 5]
    assert not run.weights


def test_nothing_recorded_is_said():
    with pytest.raises(DataError, match="nothing was recorded"):
        _ = Recorder().run
