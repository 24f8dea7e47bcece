"""The training that tests interrupt: run as a script, it can be killed; called, it goes on where that was left."""

import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from retrodict.training.loop import train
from retrodict.training.optimisers import Optimiser, Plateau
from retrodict.training.run import Run
from retrodict.training.schedules import schedule
from retrodict.training.stage import Stage
from retrodict.training.validation import Validation, heldout_loss

STEPS = 60


def batches(step, pause=0.0):
    time.sleep(pause)
    draw = torch.Generator().manual_seed(step)
    x = torch.randn(8, 3, generator=draw)
    return {"x": x, "y": x.cumsum(1)[:, 1:]}


def loss(net, batch, step):
    guess = net(batch["x"])
    return {"error": F.mse_loss(guess, batch["y"]), "size": 1e-3 * (1 + step) / STEPS * guess.square().mean()}


def work(folder, pause=0.0, callbacks=(), reading=batches):
    """Two stages with all that has a memory: dropout, batch statistics, momentum, averages, a plateau, the best weights.

    The second stage learns the opposite of what it is judged by: its best weights are early ones, which only a checkpoint knows.
    """
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))
    measure = heldout_loss(loss, lambda: [batches(10_000)], torch.device("cpu"))
    slow = Optimiser(net, rate=0.1, plateau=Plateau(patience=0), clip=0.5)
    head, rest = net[4], [*net[0].parameters(), *net[1].parameters()]
    stages = [
        Stage(
            STEPS,
            loss,
            (slow,),
            validation=Validation(measure, every=3, keep="last"),
            ema=schedule("linear", 0.5, 0.99, STEPS),
            name="first",
        ),
        Stage(
            STEPS,
            lambda net, batch, step: loss(net, {"x": batch["x"], "y": -batch["y"]}, step),
            (Optimiser(head, rate=1e-2), Optimiser(rest, "sgd", 1e-2, options={"momentum": 0.9})),
            validation=Validation(measure, every=5),
            name="second",
        ),
    ]
    done = train(
        net,
        lambda step: reading(step, pause),
        stages,
        Run(Path(folder), checkpoint_every=10, log_every=8, progress=False, callbacks=callbacks),
        seed=5,
    )
    return done, net


if __name__ == "__main__":
    work(sys.argv[1], pause=0.02)
