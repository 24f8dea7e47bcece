"""One-step games: their actions act linearly, and they know what would come of any."""

import importlib.util

import numpy as np
import pytest

from retrodict.errors import DataError
from retrodict.worlds.interventions import PushedMass, SwirledMixing

needs_mujoco = pytest.mark.skipif(importlib.util.find_spec("mujoco") is None, reason="mujoco is not installed: the robots extra")
GAMES = [
    pytest.param(lambda **more: SwirledMixing(3, **more), id="mixing"),
    pytest.param(lambda **more: PushedMass(3, **more), id="push", marks=needs_mujoco),
]


def columns(recordings):
    return {name: np.asarray(recordings[0][name], float) for name in recordings.features if not name.startswith("observation")}


@pytest.mark.parametrize("make", GAMES)
def test_actions_act_linearly_and_what_else_moves_the_state_does_not_know_them(make):
    found = columns(make().record(4000, 0))
    action, latent = found["action"], found["privileged.latent"]
    design = np.column_stack([np.ones(4000), action])
    effect = np.linalg.lstsq(design, latent, rcond=None)[0]
    rest = latent - design @ effect
    assert rest.std(0) == pytest.approx(0.4, abs=0.02)
    assert np.linalg.svd(effect[1:])[1].min() > 0.75
    bends = np.column_stack([action**2, action[:, :1] * action[:, 1:]])
    assert np.abs(np.corrcoef(np.column_stack([bends, rest]).T)[:3, 3:]).max() < 0.06


@pytest.mark.parametrize("make", GAMES)
def test_the_effect_is_the_mean_of_trials_at_that_action(make):
    game = make(confounded=False)
    rng = np.random.default_rng(1)
    action = np.repeat([[1.6, -0.5]], 40_000, 0)
    latent, cause = game.act(action, rng)
    outcome = game.outcome(latent) + game.disturbance(cause, rng)
    assert game.effect(action[:1], draws=40_000)[0] == pytest.approx(outcome.mean(), abs=0.03)


@pytest.mark.parametrize("make", GAMES)
def test_only_a_confounded_outcome_depends_on_the_cause(make):
    def correlation(**more):
        game, rng = make(**more), np.random.default_rng(0)
        _, cause = game.act(np.zeros((4000, 2)), rng)
        return abs(np.corrcoef(cause[:, 0], game.disturbance(cause, rng))[0, 1])

    assert correlation() > 0.5
    assert correlation(confounded=False) < 0.06


@pytest.mark.parametrize("make", GAMES)
def test_trials_repeat_under_a_seed_and_mean_what_they_say(make):
    one, two = make().record(20, 5), make().record(20, 5)
    assert one.independent
    assert one.actions.width == 2
    for name in one.features:
        assert (one[0][name] == two[0][name]).all()


def test_a_swirl_turns_planes_only_and_turns_nothing_at_zero():
    latent = np.random.default_rng(0).normal(size=(50, 2))
    still, turned = SwirledMixing(0, swirl=0.0), SwirledMixing(0, swirl=1.0)
    norm = np.linalg.norm(latent, axis=1)
    angle = np.arctan2(latent[:, 1], latent[:, 0]) + norm
    swirled = np.stack([norm * np.cos(angle), norm * np.sin(angle)], 1)
    assert turned.observe(latent)["observation__state"] == pytest.approx(still.observe(swirled)["observation__state"], abs=1e-5)
    with pytest.raises(DataError, match="even number"):
        SwirledMixing(0, actions=3)


@needs_mujoco
def test_a_mass_is_where_mechanics_has_it():
    game = PushedMass(0)
    rest, _ = game.act(np.array([[1.0, 0.0], [0.0, 0.0]]), type("Still", (), {"normal": lambda self, size: np.zeros(size)})())
    assert rest[1] == pytest.approx([0.0, 0.0], abs=1e-12)
    assert 0.75 < np.linalg.norm(rest[0]) < 1.25
    double, _ = game.act(np.array([[2.0, 0.0]]), type("Still", (), {"normal": lambda self, size: np.zeros(size)})())
    assert double[0] == pytest.approx(2 * rest[0], rel=1e-9)
