"""Obstacles to identification are found where they were planted, and nowhere else."""

import numpy as np
import pytest

from retrodict.metrics.identifiability import decorrelation_steps, noise_share, obstacles, rest_share

T = np.arange(0, 200, 0.05)
CIRCLE = np.stack([np.sin(T), np.cos(T)], 1)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_the_noise_that_was_added_is_measured(share):
    noisy = CIRCLE + share * CIRCLE.std(0) * np.random.default_rng(0).normal(size=CIRCLE.shape)
    np.testing.assert_allclose(noise_share(noisy), share / np.sqrt(1 + share**2), rtol=0.1)


def test_a_smooth_motion_has_no_noise():
    assert (noise_share(CIRCLE) < 1e-3).all()


def test_the_decorrelation_time_of_an_ornstein_uhlenbeck_process_is_its_own():
    rng, x, keep = np.random.default_rng(0), [0.0], np.exp(-1 / 50)
    for shock in rng.normal(size=100_000):
        x.append(keep * x[-1] + shock)
    assert 40 < decorrelation_steps(np.array(x)[:, None]) < 60


def test_a_good_recording_meets_no_obstacle():
    assert obstacles([CIRCLE], ["x", "y"]) == ()


def test_every_obstacle_is_named():
    rng = np.random.default_rng(0)
    stuck = np.column_stack([CIRCLE, np.full(len(CIRCLE), 3.0)])
    assert "'z' is constant (3)" in obstacles([stuck], ["x", "y", "z"])[0]
    assert "too noisy" in obstacles([rng.normal(size=(4000, 2))], ["x", "y"])[0]
    assert "too short" in obstacles([CIRCLE[:40]], ["x", "y"])[0]
    decayed = np.exp(-T)[:, None] * CIRCLE
    assert rest_share(decayed) > 0.9
    assert "at rest" in obstacles([decayed], ["x", "y"])[0]
