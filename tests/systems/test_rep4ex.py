"""Rep4Ex: what it identifies, what it foretells beyond the data, and what it refuses."""

import importlib.util
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

import retrodict as rd
from retrodict.errors import DataError
from retrodict.systems.states.control_function import ControlFunction
from retrodict.worlds.interventions import PushedMass, SwirledMixing

GAME = SwirledMixing(0, swirl=0.0)
BRIEF = {"code_steps": 50, "steps": 100, "batch": 256, "constraint": 30.0, "width": 16, "outcome_steps": 20}
SMALL = {"code_steps": 400, "code_batch": 128, "steps": 400, "batch": 512, "width": 32, "constraint": 100.0, "outcome_steps": 500}


@pytest.fixture(scope="module")
def trials():
    return GAME.record(4000, 0)


@pytest.fixture(scope="module")
def fitted(trials):
    return rd.Rep4Ex(**SMALL).fit(trials)


def affine(codes, latent):
    """Share of the variance of the hidden state that an affine function of codes explains."""
    design = np.column_stack([np.ones(len(codes)), codes])
    rest = latent - design @ np.linalg.lstsq(design, latent, rcond=None)[0]
    return 1 - rest.var(0).sum() / latent.var(0).sum()


def test_the_code_is_affine_in_the_hidden_state(fitted):
    fresh = GAME.record(2000, 1)
    codes = fitted.encode(fresh.windows(fitted.reads, 2000, order="sequence").at(0))
    assert codes.shape == (2000, 1, 2)
    assert affine(codes[:, 0].numpy(), np.asarray(fresh[0]["privileged.latent"])) > 0.98


def test_effects_of_actions_tried_and_not_tried(fitted):
    rng = np.random.default_rng(0)
    near, far = rng.uniform(-0.9, 0.9, (30, 2)), rng.uniform(1.1, 1.4, (30, 2)) * rng.choice([-1, 1], (30, 2))
    for actions, allowed in ((near, 0.25), (far, 0.8)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found, overlap = fitted.predict_outcome(actions, force=True)
        truth = GAME.effect(actions)
        assert np.sqrt(np.mean((found.numpy() - truth) ** 2)) < allowed * truth.std()
        assert ((overlap >= 0) & (overlap <= 1)).all()


def test_the_control_function_removes_confounding_that_plain_regression_keeps(trials):
    action, latent = (torch.from_numpy(np.asarray(trials[0][name])) for name in ("action", "privileged.latent"))
    outcome = torch.from_numpy(np.asarray(trials[0]["label.outcome"])[:, 0])
    asked = torch.from_numpy(np.random.default_rng(0).uniform(-0.9, 0.9, (40, 2)).astype(np.float32))
    truth = GAME.effect(asked.numpy())
    errors = {}
    for confounded in (True, False):
        found = ControlFunction.fit(latent, action, outcome, confounded=confounded, steps=500).effect(asked).outcome
        errors[confounded] = float(np.sqrt(np.mean((found.numpy() - truth) ** 2)))
    assert errors[True] < 0.4 * errors[False]


def test_actions_far_off_are_warned_of_and_withheld_unless_forced(fitted):
    with pytest.warns(UserWarning, match="nothing was seen"):
        outcome, overlap = fitted.predict_outcome(np.array([[0.0, 0.0], [9.0, 9.0]], np.float32))
    assert torch.isfinite(outcome[0])
    assert torch.isnan(outcome[1])
    assert overlap[0] > 0.9 > 0.2 > overlap[1]
    with pytest.warns(UserWarning, match="nothing was seen"):
        forced = fitted.predict_outcome(np.array([[9.0, 9.0]], np.float32), force=True)
    assert torch.isfinite(forced.outcome).all()
    far = {"action": torch.full((3, 2), 9.0)}
    with pytest.warns(UserWarning, match="those of 3 are withheld as NaN"):
        assert torch.isnan(fitted.sample(3, far)["label.outcome"]).all()
    seen = torch.from_numpy(GAME.observe(np.zeros((3, 2)))["observation__state"])[:, None]
    with pytest.warns(UserWarning, match="those of 3 are withheld as NaN"):
        made = fitted.intervene({"observation.state": seen, "action": torch.zeros(3, 1, 2)}, far)
    assert torch.isnan(made["label.outcome"]).all()
    assert torch.isfinite(made["observation.state"]).all()


def test_another_action_is_seen_as_the_world_would_show_it(fitted):
    rng = np.random.default_rng(5)
    before, others = rng.uniform(-1, 1, (200, 2)), rng.uniform(-1, 1, (200, 2))
    cause = rng.normal(size=(200, 2)) * 0.4
    states = [before @ GAME.effect_of_action.T + cause, others @ GAME.effect_of_action.T + cause]
    seen, truth = (torch.from_numpy(GAME.observe(z)["observation__state"])[:, None] for z in states)
    window = {"observation.state": seen, "action": torch.from_numpy(before).float()[:, None]}
    there = fitted.predict(window, torch.from_numpy(others).float()[:, None], samples=3).values["observation.state"]
    assert there.shape == (200, 3, 1, 10)
    assert (there[:, 0] - truth).square().mean() < 0.1 * (seen - truth).square().mean()
    made = fitted.intervene(window, {"action": torch.from_numpy(others)})
    assert torch.equal(made["observation.state"], there[:, 0])
    assert made["label.outcome"].shape == (200, 1, 1)
    with pytest.raises(DataError, match="intervenes on 'action'"):
        fitted.intervene(window, {"weather": torch.zeros(200)})


def test_samples_at_an_action_have_its_mean_outcome(fitted):
    action = np.repeat([[0.5, -0.4]], 4000, 0).astype(np.float32)
    torch.manual_seed(0)
    made = fitted.sample(4000, {"action": torch.from_numpy(action)})
    assert made["observation.state"].shape == (4000, 1, 10)
    assert float(made["label.outcome"].mean()) == pytest.approx(GAME.effect(action[:1])[0], abs=0.15)
    assert fitted.sample(3)["action"].shape == (3, 1, 2)
    with pytest.raises(DataError, match="expected"):
        fitted.sample(3, {"action": torch.zeros(3, 5)})


def test_the_constraint_straightens_what_a_plain_autoencoder_bends():
    swirled = SwirledMixing(1, swirl=1.0)
    trials, fresh = swirled.record(4000, 0), swirled.record(2000, 1)
    found = {}
    for name, constraint in (("plain", 0.0), ("ours", 100.0)):
        model = rd.Rep4Ex(**SMALL | {"constraint": constraint}).fit(trials)
        codes = model.encode(fresh.windows(model.reads, 2000, order="sequence").at(0))[:, 0].numpy()
        found[name] = affine(codes, np.asarray(fresh[0]["privileged.latent"])), model.linearity(fresh)
    assert found["ours"][0] > found["plain"][0] + 0.02
    assert found["plain"][1] < 0.01


@pytest.mark.skipif(importlib.util.find_spec("mujoco") is None, reason="mujoco is not installed: the robots extra")
def test_it_reads_pictures(tmp_path):
    game = PushedMass(0, size=8)
    model = rd.Rep4Ex(**BRIEF).fit(game.record(200, 0))
    made = model.sample(2)
    assert made["observation.images.table"].shape == (2, 1, 1, 8, 8)
    assert made["observation.images.table"].dtype == torch.uint8
    loaded = rd.load(model.save(tmp_path / "model"))
    asked = np.zeros((1, 2), np.float32)
    assert torch.equal(loaded.predict_outcome(asked, force=True).outcome, model.predict_outcome(asked, force=True).outcome)


def test_in_trajectories_the_observation_after_the_action_is_read():
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(4):
        action = rng.uniform(-1, 1, (60, 2)).astype(np.float32)
        state = np.concatenate([np.zeros((1, 2), np.float32), action[:-1]]) + 0.1 * rng.normal(size=(60, 2)).astype(np.float32)
        episodes.append({"observation.state": state.astype(np.float32), "action": action})
    model = rd.Rep4Ex(**BRIEF | {"steps": 200, "batch": 64, "delay": 1}).fit(rd.from_arrays(episodes, fps=10))
    assert model.control_.strengths()[-1] > 3
    assert len(model.control_.actions) == 4 * 59


# ---- what it refuses -----------------------------------------------------------------------------------------------------


def test_more_latent_dimensions_than_the_action_has_are_refused(trials):
    with pytest.raises(DataError, match="fewer dimensions than the latent"):
        rd.Rep4Ex(latent=3).fit(trials)


def test_choices_are_refused(trials):
    space = rd.ActionSpace({"tool": rd.Discrete(("none", "axe"))})
    with pytest.raises(DataError, match="continuous actions"):
        rd.Rep4Ex().fit(replace(trials.with_column("action", [np.zeros((4000, 1), np.float32)]), actions=space))


def test_actions_that_do_not_vary_apart_are_refused(trials):
    action = np.asarray(trials[0]["action"])
    with pytest.raises(DataError, match="number 1 never changes"):
        rd.Rep4Ex(**SMALL).fit(trials.with_column("action", [np.column_stack([action[:, 0], np.full(4000, 0.3, np.float32)])]))
    with pytest.raises(DataError, match="only together"):
        rd.Rep4Ex(**SMALL).fit(trials.with_column("action", [np.column_stack([action[:, 0], 2 * action[:, 0]])]))


def test_actions_of_two_values_are_refused(trials):
    action = np.asarray(trials[0]["action"])
    two = np.column_stack([action[:, 0], np.where(action[:, 1] > 0, 0.5, -0.5)]).astype(np.float32)
    with pytest.raises(DataError, match=r"number 1 takes two values only \(-0.5, 0.5\)"):
        rd.Rep4Ex(**SMALL).fit(trials.with_column("action", [two]))


@pytest.mark.parametrize("n", [1000, 3000])
def test_a_latent_that_actions_do_not_reach_is_named(n):
    rng = np.random.default_rng(0)
    action = rng.uniform(-1, 1, (n, 2)).astype(np.float32)
    state = np.column_stack([action[:, 0] + 0.05 * rng.normal(size=n), rng.normal(size=n)]).astype(np.float32)
    with pytest.raises(DataError, match="singular values"):
        rd.Rep4Ex(**SMALL).fit(rd.from_samples(observation__state=state, action=action))


def test_noise_on_the_observation_is_told(trials):
    noisy = np.asarray(trials[0]["observation.state"]) + np.random.default_rng(0).normal(size=(4000, 10)).astype(np.float32)
    with pytest.warns(UserWarning, match="unexplained"):
        rd.Rep4Ex(**BRIEF).fit(trials.with_column("observation.state", [noisy]))


def test_without_outcomes_the_code_is_learned_alone(trials):
    model = rd.Rep4Ex(**BRIEF).fit(trials.without("label.outcome"))
    assert "label.outcome" not in model.sample(2)
    with pytest.raises(DataError, match="no outcome was recorded"):
        model.predict_outcome(np.zeros((1, 2)))
    there = np.arange(4000)[:, None] != 7
    marked = trials.with_column("valid.label.outcome", [there], rd.Feature("bool", (1,)))
    with pytest.warns(UserWarning, match="some trials lack 'label.outcome'"):
        assert "label.outcome" not in rd.Rep4Ex(**BRIEF).fit(marked).sample(2)
    two = trials.with_column("label.outcome", [np.zeros((4000, 2), np.float32)], rd.Feature("float32", (2,)))
    with pytest.raises(DataError, match=r"foretells one number; 'label.outcome' has \[2\]"):
        rd.Rep4Ex(**BRIEF).fit(two)


def test_what_cannot_be_asked_is_refused(fitted):
    with pytest.raises(DataError, match=r"\(m, 2\) are expected"):
        fitted.predict_outcome(np.zeros((3, 4)))
    pictures = np.zeros((20, 10, 10, 1), np.uint8) + np.arange(20, dtype=np.uint8)[:, None, None, None]
    action = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    with pytest.raises(DataError, match="divide by 4"):
        rd.Rep4Ex().fit(rd.from_samples(observation__images__table=pictures, action=action))
