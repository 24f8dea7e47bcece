from __future__ import annotations

import numpy as np
import pytest
import torch

from retrodict.claims.baselines.true_state import TrueState
from retrodict.errors import DataError, RetrodictError
from retrodict.systems import System
from retrodict.systems.checks import Subject
from retrodict.systems.policies.diffusion_policy import DiffusionPolicy
from retrodict.systems.policies.few_shot_cloning import FewShotCloning
from retrodict.training.run import Run
from retrodict.trajectories.features import STATE

from .crossroads import two_ways
from .moving_dot import recordings

QUIET = Run(progress=False)
SMALL = {"hidden": 32, "depth": 1, "heads": 2, "registers": 0, "levels": 50, "sampling": 10, "device": "cpu"}
TINY = {**SMALL, "chunk": 3, "steps": 4, "batch": 4, "warmup": 1}


def test_where_there_are_two_ways_it_takes_one_of_them_and_a_regression_none():
    made = two_ways()
    eyes = TrueState(device="cpu").fit(made)
    policy = DiffusionPolicy(**SMALL, encoder=eyes, observed=1, chunk=2, steps=400, batch=64, learning_rate=3e-3)
    policy.fit(made, run=QUIET)
    cloned = FewShotCloning(eyes, hidden=(32,), chunk=2, steps=200, device="cpu").fit(made, run=QUIET)
    states = torch.rand(200, 2, generator=torch.Generator().manual_seed(1)) * 2 - 1
    taken = {}
    for name, who in (("drawn", policy), ("regressed", cloned)):
        who.reset()
        taken[name] = who.act({STATE: states})
    assert (taken["drawn"][:, 0].abs() > 0.8).float().mean() > 0.9
    assert 0.3 < (taken["drawn"][:, 0] > 0).float().mean() < 0.7
    assert (taken["drawn"][:, 1] - states[:, 0]).abs().mean() < 0.2  # and what is certain, it does
    assert (taken["regressed"][:, 0].abs() < 0.6).float().mean() > 0.9


def test_on_an_encoder_it_keeps_the_contract_and_computes_codes_once(tmp_path, monkeypatch):
    made = two_ways(5)
    eyes = TrueState(device="cpu").fit(made)
    subject = Subject(DiffusionPolicy(**TINY, encoder=eyes), made, tmp_path)
    for check in (
        *("fits_and_answers", "repeats_under_a_seed", "resumes_after_an_interruption", "survives_saving_and_loading"),
        *("refuses_nan", "refuses_missing_features"),
    ):
        subject.run(check)
    counted = []
    monkeypatch.setattr(TrueState, "encode", lambda self, window: counted.append(1) or window[STATE])
    DiffusionPolicy(**{**TINY, "steps": 50}, encoder=eyes).fit(made, run=QUIET)
    assert len(counted) < 10


def test_actions_beyond_the_end_do_not_count_and_frames_before_the_start_repeat():
    made = two_ways(5)
    policy = DiffusionPolicy(**TINY, encoder=TrueState(device="cpu").fit(made)).fit(made, run=QUIET)
    batch = policy.reader(made).gather(np.array([[0, 0], [0, 11]]))
    clean, counts = policy.taught(policy.net_, batch)
    assert counts["action"].tolist() == [[True, True, True], [True, False, False]]
    torch.testing.assert_close(policy.net_["scale"].inverse(clean["action"]), batch["action"])
    recent = policy.recent(batch)
    assert torch.equal(recent[0, 0], recent[0, 1])
    assert not torch.equal(recent[1, 0], recent[1, 1])
    seen = policy.net_["codes"](policy.recent(policy.reader(made).at(0)))
    assert float(seen.std()) == pytest.approx(1.0, abs=0.5)


def test_without_an_encoder_it_learns_to_see(tmp_path):
    policy = DiffusionPolicy(**TINY, channels=(4, 8), strides=(2, 1), keypoints=8, width=8).fit(recordings(4), run=QUIET)
    loaded = System.load(policy.save(tmp_path / "policy"), device="cpu")
    frames = torch.from_numpy(recordings(1)[0]["observation.images.eye"][:4].copy()).movedim(-1, 1)[:, None]
    with pytest.raises(RetrodictError, match="without reset"):
        loaded.act({"observation.images.eye": frames[0]})
    loaded.reset()
    policy.reset()
    for frame in frames:
        said = loaded.act({"observation.images.eye": frame})
        assert said.shape == (1, 2)
        assert torch.equal(said, policy.act({"observation.images.eye": frame}))


def test_it_needs_actions_and_a_fitted_encoder():
    with pytest.raises(DataError, match="diffusion-policy needs the feature 'action'"):
        DiffusionPolicy(**TINY).fit(recordings(2, without=("action",)))
    with pytest.raises(DataError, match="looks through a fitted encoder"):
        DiffusionPolicy(**TINY, encoder=DiffusionPolicy()).fit(two_ways(2))
