"""Policies on frozen encoders, and the baselines of frame encoders by the contract."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retrodict.claims.baselines.autoencoder import Autoencoder
from retrodict.claims.baselines.byol import BYOL
from retrodict.claims.baselines.cloned_encoder import ClonedEncoder
from retrodict.claims.baselines.random_encoder import RandomEncoder
from retrodict.claims.baselines.time_contrastive import TimeContrastive
from retrodict.claims.baselines.true_state import TrueState
from retrodict.errors import DataError, NotFittedError
from retrodict.systems import System
from retrodict.systems.checks import Subject
from retrodict.systems.policies.behavior_cloning import BehaviorCloning
from retrodict.systems.policies.few_shot_cloning import FewShotCloning
from retrodict.systems.policies.nearest_neighbours import NearestNeighbours
from retrodict.training.run import Run
from retrodict.trajectories import ActionSpace, Discrete, from_arrays

from .moving_dot import EYE, recordings

TINY = {"channels": (4, 4), "strides": (2, 2), "width": 8, "steps": 4, "batch": 4, "warmup": 1}
BASELINES = {
    "autoencoder": lambda: Autoencoder(**TINY, decoder=(8, 4)),
    "byol": lambda: BYOL(**TINY, projection=4),
    "cloned": lambda: ClonedEncoder(**TINY, hidden=(8,), chunk=2),
    "time-contrastive": lambda: TimeContrastive(**TINY),
}
CHECKED = ("fits_and_answers", "repeats_under_a_seed", "survives_saving_and_loading", "resumes_after_an_interruption")


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_keep_the_contract(name, tmp_path):
    subject = Subject(BASELINES[name](), recordings(5), tmp_path)
    for check in CHECKED:
        subject.run(check)


def states(episodes=4, seed=0):
    """Episodes whose action says in which quarter a state lies."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(episodes):
        state = rng.uniform(-1, 1, (30, 2)).astype(np.float32)
        made.append({"observation.state": state, "action": np.sign(state)})
    return from_arrays(made, fps=10)


def test_a_random_encoder_is_what_its_seed_drew():
    one, other = (
        RandomEncoder(**{k: v for k, v in TINY.items() if k != "steps"}, seed=s, device="cpu").fit(recordings(2)) for s in (0, 1)
    )
    rows = recordings(2).windows(one.reads, 3).at(0)
    assert not torch.equal(one.encode(rows), other.encode(rows))
    assert one.encode(rows).shape == (3, 1, 8)


def test_a_calibrated_random_encoder_has_the_weights_it_drew_and_codes_of_unit_spread():
    made, net = recordings(8), {"backbone": "conv", "channels": (4, 8), "strides": (2, 2), "width": 8, "device": "cpu"}
    drawn, calibrated = (RandomEncoder(**net, calibrate=c).fit(made) for c in (False, True))
    for one, other in zip(drawn.net_.parameters(), calibrated.net_.parameters(), strict=True):
        assert torch.equal(one, other)
    rows = made.windows(drawn.reads, made.steps).at(0)
    assert drawn.encode(rows).std(0).mean() < 0.1
    torch.testing.assert_close(calibrated.encode(rows).std((0, 1)), torch.ones(8), atol=0.05, rtol=0)


def test_neighbours_do_what_was_done_nearby_and_choose_as_the_nearest():
    made = states()
    policy = NearestNeighbours(TrueState().fit(made), k=3, device="cpu").fit(made)
    policy.reset()
    where = torch.tensor([[0.5, -0.5], [-0.5, -0.5]])
    torch.testing.assert_close(policy.act({"observation.state": where}), where.sign())
    choices = ActionSpace({"tool": Discrete(("a", "b", "c"))}, leads=True)
    line = np.linspace(0, 1, 10, dtype=np.float32)[:, None]
    chosen = from_arrays([{"observation.state": line, "action": np.float32(line > 0.6) * 2}], fps=1, actions=choices)
    policy = NearestNeighbours(TrueState((0,)).fit(chosen), k=5, device="cpu").fit(chosen)
    assert policy.act({"observation.state": torch.tensor([[0.68], [0.6]])}).ravel().tolist() == [2, 0]
    with pytest.raises(DataError, match="500 neighbours"):
        NearestNeighbours(TrueState().fit(made), k=500).fit(made)


def test_a_head_learns_from_a_few_demonstrations_and_goes_with_its_encoder(tmp_path):
    made = states(6)
    policy = FewShotCloning(TrueState().fit(made), hidden=(32, 32), dropout=0.0, steps=300, device="cpu")
    policy.fit(made, run=Run(progress=False))
    policy.reset()
    where = torch.rand(50, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert (policy.act({"observation.state": where}).sign() == where.sign()).float().mean() > 0.9
    again = System.load(policy.save(tmp_path / "policy"), device="cpu")
    again.reset()
    torch.testing.assert_close(again.act({"observation.state": where}), policy.act({"observation.state": where}))


def test_chunks_are_learned_from_what_follows():
    time = np.linspace(-1, 1, 21, dtype=np.float32)[:, None]
    made = from_arrays([{"observation.state": np.repeat(time, 2, 1), "action": time} for _ in range(3)], fps=1)
    policy = FewShotCloning(TrueState().fit(made), hidden=(64,), dropout=0.0, chunk=3, mode="all", steps=800, device="cpu")
    policy.fit(made, run=Run(progress=False))
    policy.reset()
    said = [float(policy.act({"observation.state": torch.zeros(1, 2)})) for _ in range(3)]
    assert said == pytest.approx([0.0, 0.1, 0.2], abs=0.05)


def test_what_is_no_fitted_encoder_of_frames_is_refused():
    made = states()
    for policy in (NearestNeighbours, FewShotCloning):
        with pytest.raises(DataError, match=r"looks through a fitted encoder: .*\(encoder=...\)"):
            policy().fit(made)
        with pytest.raises(NotFittedError, match="true-state has not been fitted"):
            policy(TrueState()).fit(made)
    window = TrueState().fit(made)
    window.grain = "window"
    with pytest.raises(DataError, match="grain 'frame'"):
        NearestNeighbours(window).fit(made)


def test_a_policy_from_scratch_sees_one_camera(tmp_path):
    made = recordings(4)
    policy = ClonedEncoder(**TINY, hidden=(8,), device="cpu").fit(made, run=Run(progress=False))
    policy.reset()
    frames = torch.from_numpy(made[0][EYE][:3]).movedim(-1, 1)
    assert policy.act({EYE: frames}).shape == (3, 2)


def test_any_encoder_goes_under_a_cloned_policy_at_its_own_size(tmp_path):
    made = recordings(6, steps=12)
    encoder = RandomEncoder(channels=(4, 4), strides=(2, 2), width=8, device="cpu").fit(made)
    how = {"frames": 4, "memory": 4, "width": 16, "depth": 1, "heads": 2, "steps": 4, "batch": 4, "warmup": 1, "device": "cpu"}
    policy = BehaviorCloning(**how, encoder=encoder, sampling=False).fit(made, run=Run(progress=False))
    assert not [name for name, _ in policy.net_.named_parameters() if "cnn" in name]
    frames = torch.from_numpy(made[0][EYE][:4]).movedim(-1, 1)  # 20 px, not the 64 to which a policy of its own would bring them
    again = System.load(policy.save(tmp_path / "policy"), device="cpu")
    for player in (policy, again):
        player.reset()
        one_by_one = torch.stack([player.act({EYE: frame[None]})[0] for frame in frames])
        torch.testing.assert_close(one_by_one, policy.imitate({EYE: frames[None]}).action[0])
