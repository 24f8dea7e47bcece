from __future__ import annotations

import numpy as np
import pytest
import torch

from retrodict.errors import DataError
from retrodict.systems import System
from retrodict.systems.states.inverse_dynamics_pretraining import InverseDynamicsPretraining
from retrodict.training.probes import encoded, probe, split_episodes
from retrodict.training.run import Run
from retrodict.trajectories import ActionSpace, Box, from_arrays

from .moving_dot import EYE, SPACE, recordings

SMALL = {
    "channels": (8, 8),
    "strides": (2, 1),
    "keypoints": 4,
    "width": 8,
    "hidden": (32,),
    "policy_hidden": (16,),
    "device": "cpu",
}
QUIET = Run(progress=False)


@pytest.fixture(scope="module")
def fitted():
    made = InverseDynamicsPretraining(**SMALL, steps=400, batch=16, warmup=50, learning_rate=5e-3, dropout=0.0)
    return made.fit(recordings(30), run=QUIET)


def test_it_tells_the_push_from_what_it_did(fitted):
    held = recordings(10, seed=1)
    rows = held.windows(fitted.reads, 64).at(0)
    answer = fitted.infer(rows)
    pushes = np.stack([held[int(e)]["action"][int(f) : int(f) + 4] for e, f in zip(rows["episode"], rows["frame"], strict=True)])
    kept = fitted.keeps
    error = (answer.action.numpy() - pushes)[:, kept]
    assert (error**2).mean() < 0.25 * pushes[:, kept].var()
    right = (np.abs(error) <= 0.1).all(-1)
    sure = answer.confidence[:, kept].numpy()
    assert abs(sure.mean() - right.mean()) < 0.2  # it knows about how good it is


def test_the_place_is_read_from_a_single_frame(fitted):
    seen = encoded(fitted, recordings(20, seed=2), ("privileged.place",))
    assert probe(seen.codes, seen.values["privileged.place"], split_episodes(seen.episode)).value > 0.85


def test_nothing_but_inverse_dynamics_teaches_the_encoder(fitted):
    batch = recordings(6).windows(fitted.window(fitted.spec_), 4).at(0)
    losses = fitted.loss(fitted.net_, batch)
    assert set(losses) == {"inverse.push", "sure.push", "policy.push"}
    for name, value in losses.items():
        fitted.net_.zero_grad()
        value.backward(retain_graph=True)
        taught = any(p.grad is not None and p.grad.abs().max() > 0 for p in fitted.net_["encoder"].parameters())
        assert taught == (name == "inverse.push"), name


@pytest.mark.parametrize("say", ["first", "all"])
def test_several_steps_may_lie_between_before_and_after(say):
    made = recordings(4)
    system = InverseDynamicsPretraining(**SMALL, k=3, frames=6, say=say, steps=3, batch=4, warmup=1).fit(made, run=QUIET)
    assert system.net_["inverse"].action.space.width == (2 if say == "first" else 6)
    rows = made.windows(system.reads, 2).at(0)
    answer = system.infer(rows)
    assert answer.action.shape == (2, 6, 2)
    assert system.keeps == slice(0, 3)
    other = rows[EYE].clone()
    other[:, 3] = 255  # the third frame after the first
    moved = (system.infer({EYE: other}).action - answer.action).abs().amax((0, 2)) > 0
    assert moved[:3].tolist() == [True, False, False]
    with pytest.raises(DataError, match="k=3 and frames=3"):
        InverseDynamicsPretraining(**SMALL, k=3, frames=3).fit(made)


def towards(goal, episodes, seed):
    """Demonstrations that push towards a goal."""
    made = []
    for episode in recordings(episodes, seed=seed):
        place = episode["privileged.place"]
        made.append({EYE: episode[EYE], "action": np.clip(6 * (goal - place), -1, 1).astype(np.float32)})
    return from_arrays(made, fps=10, actions=SPACE)


def test_a_few_demonstrations_of_a_new_task_are_enough_and_leave_the_encoder_alone(fitted, tmp_path):
    few = System.load(fitted.save(tmp_path / "idp"), device="cpu")
    goal = np.array([0.3, 0.7])
    before = {name: value.clone() for name, value in few.net_["encoder"].state_dict().items()}
    taught = towards(goal, 4, seed=5)
    torch.manual_seed(1)
    assert few.adapt(taught) is few
    assert {episode.identity for episode in taught} <= set(few.learned_from_)  # none of them may calibrate it
    torch.manual_seed(2)
    other = System.load(tmp_path / "idp", device="cpu").adapt(taught)
    assert all(torch.equal(a, b) for a, b in zip(few.net_.parameters(), other.net_.parameters(), strict=True))
    assert all(torch.equal(value, before[name]) for name, value in few.net_["encoder"].state_dict().items())
    new = towards(goal, 3, seed=6)
    frames = torch.from_numpy(new[0][EYE]).movedim(-1, 1)
    few.reset()
    error = (few.act({EYE: frames}).numpy() - new[0]["action"]) ** 2
    plain = (fitted.act({EYE: frames}).numpy() - new[0]["action"]) ** 2
    assert error.mean() < 0.25 < plain.mean()
    again = System.load(few.save(tmp_path / "adapted"), device="cpu")
    torch.testing.assert_close(again.act({EYE: frames}), few.act({EYE: frames}))


def test_demonstrations_of_another_robot_are_refused(fitted):
    three = ActionSpace({"push": Box(("x", "y", "z"), -1.0, 1.0)}, leads=True)
    made = from_arrays([{EYE: e[EYE], "action": np.zeros((20, 3), np.float32)} for e in recordings(2)], fps=10, actions=three)
    with pytest.raises(DataError, match="actions of 2 numbers and these demonstrations have 3"):
        fitted.adapt(made)


def test_recordings_it_cannot_learn_from_are_answered():
    with pytest.raises(DataError, match="these recordings have none; dynamo"):
        InverseDynamicsPretraining(**SMALL).fit(recordings(2, without=("action",)))
    with pytest.raises(DataError, match=r"clips of 4 steps; 2 episode\(s\) are shorter, such as episode 0"):
        InverseDynamicsPretraining(**SMALL).fit(recordings(2, steps=3))
    made = recordings(3)
    still = made.with_column("action", [np.stack([e["action"][:, 0], np.full(20, 0.5)], 1).astype(np.float32) for e in made])
    with pytest.warns(UserWarning, match="y never changes"):
        InverseDynamicsPretraining(**SMALL, steps=2, batch=2, warmup=1).fit(still, run=QUIET)
    frozen = made.with_column(EYE, [np.repeat(e[EYE][:1], 20, 0) for e in made])
    with pytest.warns(UserWarning, match="no motion between frames; check the frame rate"):
        InverseDynamicsPretraining(**SMALL, steps=2, batch=2, warmup=1).fit(frozen, run=QUIET)


# ---- the linear theory ------------------------------------------------------------------------------------------------


def angle(found, true):
    """Mean sine of the angles between the subspaces that two orthonormal bases (d, k) span."""
    cosines = np.linalg.svd(found.T @ true, compute_uv=False).clip(0, 1)
    return float(np.sqrt(1 - cosines**2).mean())


def ridge_directions(x, y, k=4, penalty=1e-2):
    weights = np.linalg.solve(x.T @ x + penalty * len(x) * np.eye(x.shape[1]), x.T @ y)
    return np.linalg.svd(weights, full_matrices=False)[0][:, :k]


def linear_world(n, rng):
    """Observations (before, after) in 50 dimensions of which 4 are the state, actions, and the true directions."""
    basis, _ = np.linalg.qr(rng.normal(size=(50, 50)))
    drift, push, gain = rng.normal(size=(4, 4)) / 4, rng.normal(size=(4, 4)), rng.normal(size=(4, 4)) / 4
    before, after, actions = [], [], []
    while len(before) < n:
        state, nuisance, task = rng.normal(size=4), rng.normal(size=46), 3 * rng.normal(size=4)
        for _ in range(10):
            action = gain @ state + task + 0.5 * rng.normal(size=4)
            then, later = drift @ state + push @ action, 0.9 * nuisance + np.sqrt(1 - 0.81) * rng.normal(size=46)
            before.append(basis @ np.concatenate([state, nuisance]))
            after.append(basis @ np.concatenate([then, later]))
            actions.append(action)
            state, nuisance = then, later
    return np.array(before[:n]), np.array(after[:n]), np.array(actions[:n]), basis[:, :4]


@pytest.mark.parametrize("n", [200, 1000])
def test_inverse_dynamics_finds_the_state_where_cloning_and_foresight_do_not(n):
    """With a hidden task and persistent nuisance; the linear model of the paper's theorem, 20 draws."""
    angles = []
    for draw in range(20):
        before, after, actions, true = linear_world(n, np.random.default_rng(draw))
        both = ridge_directions(np.concatenate([before, after], 1), actions)
        inverse = np.linalg.svd(np.concatenate([both[:50], both[50:]], 1))[0][:, :4]
        angles.append(
            (angle(inverse, true), angle(ridge_directions(before, actions), true), angle(ridge_directions(before, after), true))
        )
    inverse, cloning, foresight = np.array(angles).T
    assert (inverse < cloning).all()
    assert (inverse < foresight).all()
    assert inverse.mean() < 0.3
