"""The experiment of koopman-vae: its data, and the thresholds of its page."""

import numpy as np
import pytest

from retrodict.claims.koopman_vae import EXPERIMENT, interpolated, pendulum_frequency, pendulums, recorded, sines
from retrodict.trajectories.features import STATE, VALID

SCORES = {
    "kovae": 0.05,
    "rcgan": 0.15,
    "independent prior": 0.4,
    "linear prior": 0.12,
    "pendulums": 0.1,
    **{f"{data} 50% missing": 0.1 for data in ("sines", "pendulums")},
    **{f"{data} 70% missing": 0.2 for data in ("sines", "pendulums")},
    **{f"rcgan, {data} 50% missing": 0.2 for data in ("sines", "pendulums")},
}


def judged(scores=None, **others):
    """Names of the checks that do not hold, where every arm found what is asked but for what is given."""
    found = {arm: {"discriminative": score} for arm, score in {**SCORES, **(scores or {})}.items()}
    spread = {"least variance ratio": 0.8, "largest variance ratio": 1.2, "neighbour ratio": 0.9, "predictive": 0.2}
    found["kovae"] |= spread | {k.replace("_", " "): v for k, v in others.items() if k.replace("_", " ") in spread}
    found["bounds"] = {"real": {"predictive": 0.19}}
    found["no penalty"], found["normalised"] = {"linearity": 0.2}, {"linearity": others.get("linearity", 0.6)}
    found["constrained"] = {"off the circle": 0.01, "drift": others.get("drift", 0.1), "frequency": others.get("frequency", 1.05)}
    found["unconstrained"] = {"drift": 0.3}
    checks = EXPERIMENT.checks({arm: dict.fromkeys((0, 1, 2), numbers) for arm, numbers in found.items()}, False)
    assert len(checks) == 18
    return [check.name for check in checks if not check.holds]


def test_it_is_held_to_the_thresholds_of_its_page():
    assert judged() == []
    assert judged({"kovae": 0.08}) == ["sines: discriminative over RCGAN's"]
    assert judged({"linear prior": 0.16, "independent prior": 0.31}) == [
        "linear prior: discriminative above that of the GRU",
        "linear prior: discriminative over the independent prior's",
    ]
    assert judged({"sines 50% missing": 0.16}) == ["sines: 50 % missing, below interpolation and RCGAN by"]
    assert judged({"pendulums 70% missing": 0.31}) == ["pendulums: 70 % missing, above none missing by"]
    assert judged(predictive=0.21) == ["sines: predictive error over that of real data"]
    assert judged(least_variance_ratio=0.6) == ["sines: least variance ratio of a step"]
    assert judged(linearity=0.4) == ["normalised penalty: gain in linearity, least over seeds"]
    assert judged(drift=0.25) == ["constrained: amplitude drift over 200 steps"]
    assert judged(frequency=0.85) == ["constrained: frequency over the pendulums' mean"]


@pytest.mark.parametrize("missing", [0.3, 0.7])
def test_as_many_stamps_are_dropped_as_are_asked_and_straight_lines_fill_them(missing):
    windows = sines(20, 0)
    made = recorded(windows, missing, 0)
    for episode, window, whole in zip(made, windows, interpolated(made), strict=True):
        valid = np.asarray(episode[VALID + STATE])[:, 0]
        assert (~valid).sum() == round(missing * 24)
        np.testing.assert_array_equal(np.asarray(whole[STATE])[valid], window[valid])
        assert np.isfinite(np.asarray(whole[STATE])).all()


def test_pendulums_turn_at_the_frequency_that_is_said_of_them():
    clean = pendulums(200, 3, noise=0.0)
    np.testing.assert_allclose(clean[:, 0, 1], 0, atol=1e-6)
    quarter = (np.argmax(clean[..., 0] < 0, 1) - 0.5).astype(float)  # steps from the turning point to the bottom, about
    fast = quarter[quarter > 0]
    assert np.mean(np.pi / 2 / fast) == pytest.approx(pendulum_frequency(200, 3), rel=0.1)


def test_gains_are_paired_by_seed():
    measured = {"normalised": {1: {"linearity": 0.5}}, "no penalty": {0: {"linearity": 0.1}, 1: {"linearity": 0.4}}}
    (check,) = (c for c in EXPERIMENT.checks(measured, False) if c.name.startswith("normalised"))
    assert check.value == pytest.approx(0.1)
    assert not check.holds
