"""How the experiment of unified world models measures and judges."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retrodict.claims.uwm import EXPERIMENT, QUICK_ARMS, Held, _followed, _r2


def test_every_arm_that_is_needed_is_there_and_comes_first():
    arms = list(EXPERIMENT.arms(False))
    for arm, needed in EXPERIMENT.needs.items():
        assert all(arms.index(name) < arms.index(arm) for name in needed), arm
    assert tuple(EXPERIMENT.arms(True)) == QUICK_ARMS
    assert all(name in QUICK_ARMS for arm in QUICK_ARMS for name in EXPERIMENT.needs.get(arm, ()))


def judged(*, inverse=0.85, supervised=0.9, error=0.4, off=0.8, shuffled=2.0, video=0.7, tied=(0.5, 0.5), won=(0.9, 0.7, 0.7)):
    seeds = (0, 1, 2)
    mine = {"inverse": inverse, "forward": 0.8, "forward error": error, "video error": video}
    mine |= {"off": off, "off, shuffled": shuffled}
    names = ("play uwm with video", "play uwm", "play diffusion policy")
    arms = {
        "modes uwm": mine,
        "modes supervised": {"inverse": supervised},
        "modes tied": {"inverse": tied[0], "forward": tied[1]},
        **{name: {"success": share} for name, share in zip(names, won, strict=True)},
    }
    measured = {name: dict.fromkeys(seeds, numbers) for name, numbers in arms.items()}
    return [check.holds for check in EXPERIMENT.checks(measured, False)]


@pytest.mark.parametrize(
    ("changed", "fails"),
    [
        ({}, ()),
        ({"supervised": 0.96}, (0,)),
        ({"inverse": 0.79, "supervised": 0.8}, (1,)),
        ({"error": 0.51}, (2,)),
        ({"off": 2.1, "shuffled": 4.3}, (3,)),
        ({"shuffled": 1.6}, (4,)),
        ({"video": 1.0}, (5,)),
        ({"won": (0.77, 0.7, 0.7)}, (6,)),
        ({"won": (0.8, 0.7, 0.7)}, ()),
        ({"won": (0.9, 0.6, 0.7)}, (7,)),
        ({"tied": (0.66, 0.5)}, (8,)),
        ({"tied": (0.5, 0.61)}, (9,)),
    ],
)
def test_it_is_held_to_the_thresholds_of_its_page(changed, fails):
    assert judged(**changed) == [i not in fails for i in range(10)]


def test_what_was_not_run_is_not_judged():
    assert EXPERIMENT.checks({}, False) == []
    only = {"modes tied": {0: {"inverse": 0.1, "forward": 0.1}}, "play uwm": {0: {"success": 0.5}}}
    assert EXPERIMENT.checks(only, False) == []


def test_the_ball_is_found_and_nothing_else():
    frames = torch.full((2, 2, 3, 32, 32), 60.0)
    frames[0, 0, :, 4:7, 20:23] = torch.tensor([240.0, 200.0, 90.0])[:, None, None]
    frames[:, 1, :, 30, 1] = torch.tensor([230.0, 90.0, 90.0])  # the goal is red
    there = torch.tensor([21 - 15.5, 5 - 15.5])
    torch.testing.assert_close(_followed(frames)[0], there)  # it is not drawn at the end
    torch.testing.assert_close(_followed(frames[:, 1:], there.expand(2, 2))[1], there)
    assert _followed(frames)[1].tolist() == [0, 0]


def test_pushes_are_held_for_a_while_and_drawn_anew():
    player = Held(3)
    pushes = np.stack([player.act({}, {}) for _ in range(200)])
    changes = np.flatnonzero((np.diff(pushes, axis=0) != 0).any(1))
    lengths = np.diff(changes)
    assert 4 <= lengths.min() <= lengths.max() <= 16
    assert np.abs(pushes).max() <= 1
    player.reset()
    assert np.array_equal(player.act({}, {}), pushes[0])


def test_determination_is_that_of_the_mean_of_nothing_said():
    true = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
    assert _r2(true, true) == 1
    assert _r2(true, true.mean(0).expand_as(true)) == pytest.approx(0, abs=1e-6)
