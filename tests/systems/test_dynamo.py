from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

import retrodict
from retrodict.claims.baselines.random_encoder import RandomEncoder
from retrodict.errors import DataError
from retrodict.systems.states.dynamo import Dynamics, DynaMo
from retrodict.training.probes import encoded, probe, split_episodes
from retrodict.training.run import Run
from retrodict.trajectories import from_arrays

from .moving_dot import EYE, recordings

SMALL = {"channels": (8, 16), "strides": (2, 2), "width": 16, "depth": 1, "heads": 2, "hidden": 16, "device": "cpu"}
QUIET = Run(progress=False)


def bare(episodes=12, **options):
    return recordings(episodes, without=("action",), **options)


@pytest.fixture(scope="module")
def fitted():
    return DynaMo(**SMALL, frames=4, latent_action=3, steps=4, batch=4).fit(bare(), run=QUIET)


@pytest.mark.parametrize("views", [1, 2])
def test_neither_transformer_sees_what_it_is_to_say(views):
    net = Dynamics(6, 3, 5, 16, 2, 2, 0.0).eval()
    x = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(views)).requires_grad_()
    for step in range(5):
        (slope,) = torch.autograd.grad(net(x)[:, step].sum(), x)
        assert slope[:, step].abs().max() > 0
        assert step == 4 or slope[:, step + 1 :].abs().max() == 0


def test_the_loss_is_that_of_the_paper(fitted):
    batch = bare().windows(fitted.window(fitted.spec_), 3).at(0)
    net = fitted.net_
    with torch.no_grad():
        state = net["encoder"](batch[EYE])
        happened = net["inverse"](state)
        said = net["foresight"](torch.cat([state[:, :-1], happened[:, 1:]], -1))
        cosine = torch.nn.functional.cosine_similarity(said, state[:, 1:], dim=-1)
        rows = state.flatten(0, 1).double().numpy()
        covariance = np.cov(rows.T)
        off = covariance[~np.eye(16, dtype=bool)]
        losses = fitted.loss(net, batch)
    assert float(losses["dynamics"]) == pytest.approx(float(1 - cosine.mean()), abs=1e-6)
    assert float(losses["covariance"]) == pytest.approx(0.04 * float((off**2).mean()), rel=1e-4)


def test_gradients_reach_all_three_parts_and_not_the_targets(fitted):
    system = DynaMo(**SMALL, frames=4, latent_action=3, covariance=0.0, steps=2, batch=4).fit(bare(), run=QUIET)
    batch = bare().windows(system.window(system.spec_), 3).at(0)
    for name in ("encoder", "inverse", "foresight"):
        system.net_.zero_grad()
        sum(system.loss(system.net_, batch).values()).backward()
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in system.net_[name].parameters()), name
    fixed = {name: p.grad.clone() for name, p in system.net_["encoder"].named_parameters()}
    system.stop_gradient = False
    system.net_.zero_grad()
    sum(system.loss(system.net_, batch).values()).backward()
    assert any(not torch.allclose(p.grad, fixed[name]) for name, p in system.net_["encoder"].named_parameters())


@pytest.mark.slow
def test_it_finds_the_place_and_what_happened_without_actions():
    made = recordings(30)
    wide = {**SMALL, "width": 64, "hidden": 48}
    system = DynaMo(**wide, frames=4, latent_action=3, steps=400, batch=16, learning_rate=3e-3, module_clip=1.0)
    system.fit(made.without("action"), run=QUIET)
    drawn = RandomEncoder(channels=(8, 16), strides=(2, 2), width=64, device="cpu").fit(made)
    score = {}
    for name, encoder in (("dynamo", system), ("random", drawn)):
        seen = encoded(encoder, made, ("privileged.place",))
        score[name] = probe(seen.codes, seen.values["privileged.place"], split_episodes(seen.episode)).value
    assert score["dynamo"] > 0.9
    assert score["dynamo"] > score["random"]
    rows = made.windows(system.reads, 200).at(0)
    state, happened = system.encode(rows), system.infer(rows).action[:, :3]

    def surprise(happened):
        said = system.net_["foresight"](torch.cat([state[:, :-1], happened], -1))
        return float(1 - torch.nn.functional.cosine_similarity(said, state[:, 1:], dim=-1).mean().detach())

    assert surprise(happened) < 0.5 * surprise(torch.zeros_like(happened))
    assert surprise(happened) < 0.3 * surprise(happened.roll(1, 0))  # what happened elsewhere leads elsewhere
    assert system.health_[-1][1].std > 0.01


def test_what_was_inferred_foresees_the_next_code_and_another_push_another_one(fitted):
    rows = bare().windows(fitted.reads, 3).at(0)
    happened = fitted.infer(rows)
    assert happened.action.shape == (3, 4, 3)
    assert fitted.latent_width == 3
    torch.testing.assert_close(happened.action[:, -1], happened.action[:, -2])
    one = {EYE: rows[EYE][:, :2]}
    with torch.no_grad():
        state = fitted.net_["encoder"](rows[EYE])
        z = fitted.net_["inverse"](state)[:, 1:]
        direct = fitted.net_["foresight"](torch.cat([state[:, :2], z[:, :2]], -1))[:, 1]
    said = fitted.predict(one, z[:, 1:2], horizon=1, samples=2)
    assert said.space == "embedding"
    torch.testing.assert_close(said.values["code"][:, 0, 0], direct)
    further = fitted.predict(one, z[:, 1:], horizon=2).values["code"]
    torch.testing.assert_close(further[:, 0, 0], direct)
    assert (fitted.predict(one, z[:, 1:2] + 1).values["code"] - said.values["code"][:, :1]).abs().max() > 1e-4
    assert fitted.predict({EYE: rows[EYE]}, z[:, :1].repeat(1, 9, 1), horizon=9).values["code"].shape == (3, 1, 9, 16)


def test_a_real_action_is_no_code(fitted):
    rows = bare().windows(fitted.reads, 2).at(0)
    with pytest.raises(DataError, match="no actions: fit a regression"):
        fitted.predict(rows, torch.zeros(2, 1, 2))
    with pytest.raises(DataError, match="and got none"):
        fitted.predict(rows)
    labelled = recordings(2) + bare(2)
    with pytest.raises(DataError, match="3 numbers that are no actions"):
        retrodict.label(labelled, fitted)


def test_several_cameras_go_through_one_network_and_stand_side_by_side():
    made = recordings(6, without=("action",))
    other = [np.ascontiguousarray(episode[EYE][:, :, ::-1]) for episode in made]
    both = made.with_column("observation.images.mirror", other)
    system = DynaMo(**SMALL, frames=3, latent_action=2, steps=3, batch=4).fit(both, run=QUIET)
    assert system.latent_width == 4
    rows = both.windows(system.reads, 2).at(0)
    code = system.encode(rows)
    assert code.shape == (2, 3, 32)
    flipped = {EYE: rows["observation.images.mirror"], "observation.images.mirror": rows[EYE]}
    torch.testing.assert_close(system.encode(flipped), torch.cat([code[..., 16:], code[..., :16]], -1))
    prediction = system.predict(rows, system.infer(rows).action[:, :1])
    assert prediction.values["code"].shape == (2, 1, 1, 32)
    lame = both.with_column("observation.images.mirror", [*other[:4], None, None])
    with pytest.raises(DataError, match=r"several cameras at once and episode 4 of memory lacks 'observation.images.mirror'"):
        DynaMo(**SMALL).fit(lame)
    small = both.with_column("observation.images.mirror", [frames[:, ::2, ::2] for frames in other])
    with pytest.raises(DataError, match="set image_size"):
        DynaMo(**SMALL).fit(small)
    sized = DynaMo(**SMALL, image_size=(16, 16), frames=3, steps=2, batch=2).fit(small, run=QUIET)
    assert sized.encode(small.windows(sized.reads, 2).at(0)).shape == (2, 3, 32)
    as_recorded = {name: torch.from_numpy(small[0][name][None, :3]).movedim(-1, 2) for name in sized.seen(sized.spec_)}
    assert sized.encode(as_recorded).shape == (1, 3, 32)


def test_clips_that_do_not_fit_are_named():
    with pytest.raises(DataError, match=r"span 21 steps \(frames=5, stride=5\) and episode 0 of memory has 20"):
        DynaMo(**SMALL, frames=5, stride=5).fit(bare(2))
    with pytest.raises(DataError, match="frames is at least 2"):
        DynaMo(**SMALL, frames=1).fit(bare(2))


def test_a_still_video_and_a_void_bottleneck_are_warned_of():
    still = from_arrays([{EYE: np.repeat(episode[EYE][:1], 8, 0)} for episode in bare(3)], fps=10)
    with pytest.warns(UserWarning, match="nothing moves"):
        DynaMo(**SMALL, frames=3, latent_action=3, steps=2, batch=2).fit(still, run=QUIET)
    with pytest.warns(UserWarning, match="no bottleneck"):
        DynaMo(**SMALL, frames=3, latent_action=16, steps=2, batch=2).fit(bare(3), run=QUIET)


@pytest.mark.slow
def test_without_stop_gradient_it_collapses_and_the_alarm_rings():
    how = {**SMALL, "frames": 3, "latent_action": 3, "steps": 300, "batch": 16, "learning_rate": 3e-3, "module_clip": 1.0}
    sound = DynaMo(**how).fit(bare(), run=QUIET)
    well = sound.health_[-1][1].rank
    with pytest.warns(UserWarning, match="the codes are collapsing"):
        fallen = DynaMo(**how, stop_gradient=False, covariance=0.0, alarm_rank=well / 2).fit(bare(), run=QUIET)
    assert fallen.health_[-1][1].rank < 0.4 * well


def test_a_teacher_follows_by_its_schedule_and_gives_the_targets():
    system = DynaMo(**SMALL, frames=3, latent_action=3, teacher=0.9, steps=6, batch=4).fit(bare(), run=QUIET)
    assert system._momentum(0) == pytest.approx(0.9)
    assert system._momentum(6) == pytest.approx(1.0)
    live, follower = (dict(m.named_parameters()) for m in (system.net_["encoder"], system.net_["teacher"].module))
    assert any(not torch.equal(live[name], follower[name]) for name in live)
    system.net_.zero_grad()
    batch = bare().windows(system.window(system.spec_), 3).at(0)
    sum(system.loss(system.net_, batch).values()).backward()
    assert all(p.grad is None for p in follower.values())
    assert any(p.grad is not None for p in system.net_["inverse"].parameters())  # it learns with a teacher, too


def test_it_is_seen_by_other_systems_as_an_encoder(fitted, tmp_path):
    made = recordings(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inverse = retrodict.VPT(
            encoder=DynaMo.load(fitted.save(tmp_path / "dynamo")), frames=5, temporal=1, width=16, heads=2, depth=1,
            steps=3, batch=2, image_size=None, device="cpu",
        ).fit(made, run=QUIET)  # fmt: skip
    assert inverse.infer(made.windows(inverse.reads, 2).at(0)).action.shape == (2, 5, 2)
