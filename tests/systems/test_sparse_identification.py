"""SINDy finds laws that are known, says how sure it is of each term, and refuses with the reason where none can be told."""

import re

import numpy as np
import pytest
import torch

from retrodict.errors import DataError, NotIdentifiableError
from retrodict.systems.laws.sparse_identification import SINDy
from retrodict.trajectories import Feature, from_arrays
from retrodict.trajectories.features import STATE
from retrodict.worlds.chaos import ode_world

LORENZ = {("x", "x"): -10, ("x", "y"): 10, ("y", "x"): 28, ("y", "y"): -1, ("y", "x z"): -1, ("z", "z"): -8 / 3, ("z", "x y"): 1}
SWING = {("x", "x"): -0.1, ("x", "y"): 2, ("y", "x"): -2, ("y", "y"): -0.1}
"""A damped oscillator: the linear example of Brunton et al. (2016)."""


def named(runs, names, fps, noise=0.0):
    rng = np.random.default_rng(0)
    spread = np.concatenate(runs).std(0)
    seen = [run + noise * spread * rng.normal(size=run.shape) for run in runs]
    made = from_arrays([{STATE: run} for run in seen], fps=fps)
    return made.with_column(STATE, seen, Feature("float64", (len(names),), names=list(names)))


def lorenz(noise=0.0, steps=2000):
    world = ode_world("lorenz")
    series = world.record(steps, 0.01, ic=[-8.0, 7.0, 27.0], precision="float64")[0][STATE]
    return named([series], "xyz", 100, noise)


def swing(noise=0.0, steps=1000):
    t = 0.025 * np.arange(steps)[:, None]
    series = np.exp(-0.1 * t) * np.concatenate([2 * np.cos(2 * t), -2 * np.sin(2 * t)], 1)
    return named([series], "xy", 40, noise)


@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize(("make", "true"), [(lorenz, LORENZ), (swing, SWING)])
def test_known_laws_are_found_exactly_and_surely(make, true, noise):
    law = SINDy().fit(make(noise))
    found = {(law.names_[i], law.terms[k]): law.coefficients[k, i] for k, i in np.argwhere(law.coefficients)}
    assert found == pytest.approx(true, rel=0.06 if noise else 1e-3)
    kept = law.coefficients != 0
    assert law.verdict_.inclusion[kept].min() >= 0.95
    assert law.verdict_.inclusion[~kept].max() <= 0.3
    assert law.verdict_.error < 0.1 * law.verdict_.still


def test_what_is_printed_is_what_is_simulated():
    law = SINDy().fit(lorenz(0.01))
    states = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 3)) * 10)
    x, y, z = states.T.numpy()
    printed = []
    for line in law.equations():
        right = re.sub(r"(?<=[\w.]) (?=[a-z])", "*", line.split(" = ")[1]).replace("^", "**")
        printed.append(eval(right, {"x": x, "y": y, "z": z}))
    np.testing.assert_allclose(law.derivative(states), np.stack(printed, 1), rtol=1e-12)
    short = law.simulate(states, torch.tensor([0.0, 1e-5]))
    np.testing.assert_allclose((short[:, 1] - short[:, 0]) / 1e-5, law.derivative(states), rtol=1e-2, atol=0.05)
    assert law.step(states) == pytest.approx(law.simulate(states, torch.tensor([0.01]))[:, 0])
    point = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    c = {(law.names_[i], law.terms[k]): law.coefficients[k, i] for k, i in np.argwhere(law.coefficients)}
    assert law.jacobian(point)[1].tolist() == pytest.approx(
        [c["y", "x"] + 3 * c["y", "x z"], c.get(("y", "y"), 0), c["y", "x z"]]
    )


def test_the_law_goes_on_as_the_motion_does():
    recordings = lorenz()
    law = SINDy().fit(recordings)
    series = recordings[0][STATE]
    ahead = law.simulate(torch.from_numpy(series[[500]]), law.dt * torch.arange(0, 301, 100))[0]
    assert ahead.numpy() == pytest.approx(series[[500, 600, 700, 800]], abs=0.02)
    assert law.lyapunov(intervals=2000).largest == pytest.approx(0.906, rel=0.1)
    assert law.simulate(torch.tensor([[1e9, 1e9, 1e9]]), torch.tensor([0.0, 50.0])).shape == (1, 2, 3)


def test_the_evidence_says_what_was_tried_and_how_sure_each_term_is():
    law = SINDy().fit(lorenz(0.01))
    report = law.evidence()
    assert len(report.table["window"]) == len(law.derivatives) * len(law.thresholds)
    assert (report.table["chosen"] == "chosen").sum() == 1
    inclusion, errors = report.panels
    assert inclusion.names == ("1", "x", "y", "z", "x^2", "x y", "x z", "y^2", "y z", "z^2")
    assert inclusion.marks["dx/dt"][1].tolist()[1:3] == [1, 1]
    assert "chosen" in errors.marks
    assert report.values["terms"] == 7
    labels = [label.get_text() for label in report.plot().axes[0].get_xticklabels()]
    assert labels == list(inclusion.names)


def test_noise_asks_for_wider_derivatives():
    windows = [SINDy().fit(swing(noise)).evidence().findings[0] for noise in (0.0, 0.05)]
    assert "degree 8 over 9 steps (met exactly)" in windows[0]
    assert "degree 4 over 33 steps (smoothed)" in windows[1]


def test_episodes_are_held_out_whole_and_short_ones_are_of_use():
    t = 0.05 * np.arange(40)[:, None]
    runs = [a * np.exp(-0.1 * t) * np.concatenate([np.cos(2 * t + a), -np.sin(2 * t + a)], 1) for a in (1.0, 1.5, 2.0, 3.0)]
    law = SINDy().fit(named(runs, "xy", 20))
    assert law.coefficients[[1, 2]] == pytest.approx(np.array([[-0.1, -2], [2, -0.1]]), rel=1e-3)
    judged = SINDy().fit(named(runs[:3], "xy", 20), validation=named(runs[3:], "xy", 20))
    assert judged.coefficients == pytest.approx(law.coefficients, rel=1e-4)


WALK = np.cumsum(np.random.default_rng(1).normal(size=(1500, 2)), 0)
T = 0.05 * np.arange(1500)
CIRCLE = np.stack([np.sin(T), np.cos(T)], 1)


@pytest.mark.parametrize(
    ("series", "reason"),
    [
        (np.column_stack([CIRCLE, np.full(1500, 3.0)]), "the channel 'c' is constant .* leave it out"),
        (CIRCLE[:40], "too short: 40 steps .* record longer"),
        (np.random.default_rng(0).normal(size=(1500, 2)), "too noisy, or sampled too coarsely"),
        (CIRCLE + 1.5 * np.random.default_rng(0).normal(size=CIRCLE.shape), "too noisy"),
        (np.where(T < 2, 1.0, np.exp(-9 * (T - 2)))[:, None] * np.ones((1, 2)), "(at rest|repeats others|no such polynomial)"),
        (np.exp(-5 * T)[:, None] * CIRCLE, "at rest in .* without a transient"),
        (np.column_stack([CIRCLE, 2 * CIRCLE[:, 0]]), "combinations of each other .* a channel repeats others"),
        (3 + 1e-5 * np.exp(-0.2 * T)[:, None] * CIRCLE, "combinations of each other .* no transient"),
        (CIRCLE[:, :1], "other states than those recorded may matter"),
        (WALK, "no law is identifiable"),
    ],
)
def test_every_reason_for_there_being_no_law_is_said(series, reason):
    with pytest.raises(NotIdentifiableError, match=reason):
        SINDy().fit(named([series], "abc"[: series.shape[1]], 20))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"degree": 30}, "more than 1,000"),
        ({"thresholds": ()}, "thresholds to choose from"),
        ({"holdout": 0.7}, "holdout"),
        ({"derivatives": ((8, 4),)}, "odd"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, sentence):
    with pytest.raises(DataError, match=sentence):
        SINDy(**settings).fit(lorenz(steps=300))


def test_questions_of_the_wrong_form_are_refused():
    law = SINDy().fit(swing())
    for ask, sentence in (
        (lambda: law.step(torch.zeros(2, 3)), r"floating-point states \(..., 2\)"),
        (lambda: law.simulate(torch.zeros(1, 2), torch.tensor([0.2, 0.1])), "rise"),
        (lambda: law.simulate(torch.zeros(1, 2), torch.tensor([-0.2, 0.1])), "from 0 on"),
        (lambda: law.simulate(torch.zeros(1, 2), torch.tensor([0.1]), actions=torch.zeros(1)), "neither actions"),
    ):
        with pytest.raises(DataError, match=sentence):
            ask()
