"""Seer: its mask entry by entry, its memory, what it learns on a drifting dot, and what it refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from retrodict.claims.baselines.two_stage import TwoStage
from retrodict.claims.seer import foreign, judged
from retrodict.errors import DataError, NotFittedError, RetrodictError
from retrodict.metrics.changes import changed
from retrodict.objectives.patches import PatchScale
from retrodict.systems import System
from retrodict.systems.policies.seer import Seer
from retrodict.systems.policies.seer_network import Layout, seer_mask
from retrodict.training.run import Run
from retrodict.trajectories import ActionSpace, Box, Discrete, MultiBinary, from_arrays

EYE, HAND = "observation.images.eye", "observation.images.hand"
QUIET = Run(progress=False)
TINY = {
    **{"history": 3, "ahead": 2, "chunk": 2, "queries": 2, "slots": 4, "patch": 4, "vision": 16, "resampler_depth": 1},
    **{"width": 16, "depth": 2, "heads": 2, "dropout": 0.0, "decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2},
    **{"steps": 3, "batch": 4, "warmup": 1, "shifts": (), "device": "cpu"},
}
DRIFT = ActionSpace({"push": Box(("across", "down"), -1.0, 1.0), "grip": MultiBinary(("closed",))}, leads=True)


def drifting(episodes=6, seed=0, *, steps=7, size=16, tasks=True, views=(EYE,)):
    """A dot that goes on at its episode's own speed, of which the action is the half; the gripper closes when it goes right."""
    rng, made, names = np.random.default_rng(seed), [], []
    down, across = np.mgrid[:size, :size]
    for _ in range(episodes):
        speed = rng.choice([-1.0, 1.0], 2)
        where = rng.uniform(0.35, 0.65, 2) * size + (np.arange(steps)[:, None] - steps // 2) * speed
        near = np.exp(-((across - where[:, :1, None]) ** 2 + (down - where[:, 1:, None]) ** 2) / 4)[..., None]
        frames = (near * [255, 180, 60] + (1 - near) * [20, 30, 50]).astype(np.uint8)
        action = np.tile([*speed / 2, speed[0] > 0], (steps, 1)).astype(np.float32)
        state = where.astype(np.float32) / size
        made.append({**dict.fromkeys(views, frames), "observation.state": state, "action": action})
        names.append("right" if speed[0] > 0 else "left")
    return from_arrays(made, fps=10, actions=DRIFT, tasks=names if tasks else None)


def again_with(recordings, change=np.array, space=DRIFT, tasks=None):
    """The same episodes with other actions."""
    made = [
        {name: np.array(e[name]) for name in (EYE, "observation.state")} | {"action": change(e["action"])} for e in recordings
    ]
    return from_arrays(made, fps=10, actions=space, tasks=tasks)


@pytest.fixture(scope="module")
def tiny():
    return Seer(**TINY).fit(drifting(), run=QUIET)


@pytest.fixture(scope="module")
def learned():
    size = {"vision": 32, "width": 32, "heads": 4, "decoder_width": 32, "queries": 4, "clip": 1.0, "weight_decay": 0.0}
    steps = {"steps": 350, "batch": 24, "warmup": 40, "learning_rate": 2.5e-3}
    return Seer(**{**TINY, **size, **steps}).fit(drifting(300), run=QUIET)


# ---- the mask ---------------------------------------------------------------------------------------------------------


def looks(asking, asked, *, sees, goal, foreseen):
    """The page's description of one entry: may the first token, (kind, step), look at the second?"""
    (who, i), (whom, j) = asking, asked
    observed = whom in ("text", "state", "image")
    if who == "action":
        if whom == "foresight":
            return foreseen and i == j
        if sees == "all":
            return observed and j <= i
        return i == j and (whom == "image" or (whom == "state" and sees == "images and state"))
    if who == "foresight":
        return observed and (j <= i or (goal > 0 and whom == "state" and j == i + goal))
    return observed and j <= i


@pytest.mark.parametrize("sees", ["all", "images", "images and state"])
@pytest.mark.parametrize("goal", [0, 1, 2])
@pytest.mark.parametrize("foreseen", [True, False])
@pytest.mark.parametrize("state", [True, False])
def test_the_mask_entry_by_entry(sees, goal, foreseen, state):
    layout = Layout(state, image=4, foresight=6, action=3)
    kinds = ["text", *["state"] * state, *["image"] * 4, *["foresight"] * 6, *["action"] * 3]
    tokens = [(kind, step) for step in range(3) for kind in kinds]
    mask = seer_mask(layout, 3, sees=sees, goal=goal, foreseen=foreseen)
    assert len(layout) == len(kinds)
    assert mask.tolist() == [[looks(a, b, sees=sees, goal=goal, foreseen=foreseen) for b in tokens] for a in tokens]
    assert mask.any(1).all()  # nobody is blind


def test_half_of_the_foresight_is_hidden_anew_from_the_actions_of_its_step():
    layout = Layout(True, image=4, foresight=6, action=3)
    mask = seer_mask(layout, 3)
    torch.manual_seed(0)
    one, other = layout.hidden(mask, 0.5), layout.hidden(mask, 0.5)
    assert not torch.equal(one, other)
    lost = (mask & ~one).nonzero()
    place = lost % len(layout)
    assert ((place[:, 0] >= 12) & (place[:, 1] >= 6) & (place[:, 1] < 12)).all()
    assert (lost[:, 0] // len(layout) == lost[:, 1] // len(layout)).all()
    assert len(lost) == 3 * 3 * 3  # steps, action tokens, half of the foresight: the same for all action tokens of a step
    assert torch.equal(layout.hidden(mask, 0.0), mask)


def test_actions_with_their_own_foresight_handed_over_stay_the_same(tiny):
    window = drifting(8, 3).windows(tiny.asks, 8).at(5)
    net = tiny.net_
    with torch.no_grad():
        observed = net.observed(net.see(tiny.views(window)), window["observation.state"], torch.zeros(8, dtype=torch.long))
        tokens, mask = net.sequence(observed), tiny.mask(net, 3)
        foreseen, acting = net(tokens, mask)
        twice = foreign(mask, net.layout)
        own = net(torch.cat([tokens, tokens], 1), twice)
        others = net(torch.cat([tokens, tokens.roll(1, 0)], 1), twice)
    torch.testing.assert_close(own[1][:, :3], acting)
    torch.testing.assert_close(others[0][:, :3], foreseen)
    assert not torch.allclose(others[1][:, :3], acting)


# ---- what it learns ---------------------------------------------------------------------------------------------------


def test_the_forecast_beats_copying_where_something_moves(learned):
    held = drifting(10, 1)
    span = learned.asks.before + learned.ahead
    rows = [(e, t) for e in range(len(held)) for t in range(learned.asks.before, held[e].length - learned.ahead)]
    windows = held.windows(learned.asks, len(rows))
    given = windows.gather(np.array(rows))
    then = torch.stack([torch.from_numpy(held[e][EYE][t + learned.ahead]) for e, t in rows]).movedim(-1, 1)
    now, target = learned.patches(given[EYE][:, -1]), learned.patches(then)
    painted = learned.foresee(given)[:, 0]
    where, normed = changed(now, target), PatchScale.of(target).normalised(target)
    ours = (painted - normed)[where].square().mean()
    assert span == 4
    assert ours < 0.7 * (PatchScale.of(now).normalised(now) - normed)[where].square().mean()
    shown = learned.sample(len(rows), given)[EYE]
    assert shown.shape == then.shape
    assert shown.dtype == torch.uint8


def test_it_says_what_was_done_between_two_frames(learned):
    held = drifting(10, 1)
    window = held.windows(learned.reads, 64).at(0)
    answer = learned.infer(window)
    true = torch.stack([torch.from_numpy(held[int(e)]["action"][int(f)]) for e, f in zip(window["episode"], window["frame"])])
    whole = window["mask"].all(1)  # an outcome past the end is the last frame again
    error = (answer.action[:, 0] - true)[whole]
    assert error[:, :2].square().mean() < 0.2 * true[:, :2].var(0).mean()
    assert (error[:, 2] == 0).float().mean() > 0.95
    assert set(answer.action[..., 2].unique().tolist()) == {0.0, 1.0}


def test_it_acts_as_was_shown(learned):
    held = drifting(30, 2)
    learned.reset()
    for t in range(3):
        action = learned.act(shown(held, t, task=[e.tasks[0] for e in held]))
    true = torch.from_numpy(np.stack([e["action"][2] for e in held]))
    assert (action - true)[:, :2].square().mean() < 0.4 * true[:, :2].var(0).mean()
    assert torch.equal(action[:, 2], true[:, 2])


def test_only_what_lies_within_the_episode_is_learned_from(tiny):
    batch = next(tiny.reader(drifting(2, 5)).stream(0))
    over = {**batch, EYE: batch[EYE].clone(), "action": batch["action"].clone()}
    for name in (EYE, "action"):
        over[name][~batch[f"mask.{name}"]] = 1
    assert not batch[f"mask.{EYE}"].all()
    terms = []
    for given in (batch, over):
        torch.manual_seed(0)
        terms.append({name: float(term.detach()) for name, term in tiny.loss(tiny.net_, given).items()})
    assert terms[0] == pytest.approx(terms[1])
    assert set(terms[0]) == {"arm", "gripper", "image", "sure.push", "sure.grip"}


def test_with_a_goal_only_steps_that_can_see_it_are_learned():
    seer = Seer(**{**TINY, "history": 4, "chunk": 1, "goal": 2, "sees": "images", "hidden": 0.5, "inverse": 0.0, "untold": 0.0})
    seer.fit(drifting(), run=QUIET)
    batch = next(seer.reader(drifting()).stream(0))
    before = float(seer.loss(seer.net_, batch)["arm"].detach())
    batch["action"][:, 2:] = 0.9
    assert float(seer.loss(seer.net_, batch)["arm"].detach()) == pytest.approx(before)
    batch["action"][:, 1] = 0.9
    assert float(seer.loss(seer.net_, batch)["arm"].detach()) != pytest.approx(before)


@pytest.mark.parametrize(
    ("change", "terms"),
    [({"image_weight": 0.0, "inverse": 0.0}, {"arm", "gripper"}), ({"inverse": 0.0}, {"arm", "gripper", "image"})],
)
def test_what_is_not_learned_has_no_term(change, terms):
    seer = Seer(**{**TINY, **change}).fit(drifting(), run=QUIET)
    assert set(seer.loss(seer.net_, next(seer.reader(drifting()).stream(0)))) == terms
    with pytest.raises(DataError, match="inverse=0 and has learned no inverse model"):
        seer.infer(drifting().windows(seer.reads, 2).at(0))


# ---- how it acts ------------------------------------------------------------------------------------------------------


def shown(recordings, t, **more):
    seen = {name: torch.from_numpy(np.stack([e[name][t] for e in recordings])) for name in (EYE, "observation.state")}
    return {**seen, EYE: seen[EYE].movedim(-1, 1), **more}


def test_step_by_step_it_answers_as_in_one_pass(tiny):
    held, net = drifting(3, 4), tiny.net_
    frames = torch.stack([torch.from_numpy(e[EYE]).movedim(-1, 1) for e in held])[:, :, None]
    state = torch.stack([torch.from_numpy(e["observation.state"]) for e in held])

    def passed(i, first, last):
        with torch.no_grad():
            see = net.see(frames[i : i + 1, first : last + 1])
            observed = net.observed(see, state[i : i + 1, first : last + 1], torch.zeros(1, dtype=torch.long))
            return net.flat(net(net.sequence(observed), tiny.mask(net, last + 1 - first))[1])[0, -1, 0]

    tiny.reset()
    begun = np.zeros(3, int)
    for t in range(7):
        if t == 4:  # the second world begins again
            tiny.reset(torch.tensor([False, True, False]))
            begun[1] = 4
        action = tiny.act(shown(held, t))
        for i in range(3):
            torch.testing.assert_close(action[i], passed(i, max(begun[i], t - 2), t), atol=1e-5, rtol=1e-4)


def test_it_wants_to_be_reset_and_to_play_as_many_worlds_as_before(tiny):
    fresh = Seer(**TINY).fit(drifting(), run=QUIET)
    with pytest.raises(RetrodictError, match="without reset"):
        fresh.act(shown(drifting(2), 0))
    tiny.reset()
    tiny.act(shown(drifting(2), 0))
    with pytest.raises(RetrodictError, match="remembers 2 worlds and was given 3"):
        tiny.act(shown(drifting(3), 0))
    with pytest.raises(DataError, match="one truth value for each of 2 worlds"):
        tiny.reset(torch.tensor([True]))


def test_a_forecast_knows_nothing_of_steps_before_its_episode(tiny):
    window = drifting(3, 6).windows(tiny.asks, 3).gather(np.array([[0, 0], [1, 1], [2, 5]]))
    assert window["mask"].tolist() == [[False, False, True], [False, True, True], [True, True, True]]
    before = tiny.foresee(window)
    window[EYE][~window["mask"]] = 99
    torch.testing.assert_close(tiny.foresee(window), before)
    window[EYE][0, -1] = 99
    assert not torch.allclose(tiny.foresee(window)[0], before[0])


def test_tasks_are_told_by_their_names(tiny):
    tiny.reset()
    for told in ("left", ["left", "right"], None):
        tiny.act(shown(drifting(2), 0, **({} if told is None else {"task": told})))
    with pytest.raises(DataError, match=r"'up' was never seen.*in the same words: '(left|right)', '(left|right)'"):
        tiny.act(shown(drifting(2), 0, task="up"))


def test_a_policy_of_recordings_that_name_no_task_hears_none():
    untold = Seer(**TINY).fit(drifting(tasks=False), run=QUIET)
    said = []
    for told in ({}, {"task": "left"}):
        untold.reset()
        said.append(untold.act(shown(drifting(2), 0, **told)))
    torch.testing.assert_close(*said)


def test_adapting_adds_a_task_and_is_kept_on_disk(tmp_path):
    seer = Seer(**{**TINY, "sees": "images", "adapt_steps": 3}).fit(drifting(), run=QUIET)
    few = again_with(drifting(2, 9), tasks=["up"] * 2)
    before = {name: value.clone() for name, value in seer.net_.state_dict().items()}
    assert not seer.mask(seer.net_, 3).equal(seer_mask(seer.net_.layout, 3))
    assert seer.adapt(few) is seer
    assert {episode.identity for episode in few} <= set(seer.learned_from_)  # none of them may calibrate it
    assert seer.spec_.tasks[-1] == "up"
    assert seer.mask(seer.net_, 3).equal(seer_mask(seer.net_.layout, 3))  # all is seen now
    assert all(not torch.equal(value, before[name]) for name, value in seer.net_.named_parameters() if "trunk" in name)
    again = System.load(seer.save(tmp_path / "seer"), device="cpu")
    said = []
    for policy in (seer, again):
        policy.reset()
        said += [policy.act(shown(few, 0)), policy.act(shown(few, 1, task="up"))]
    torch.testing.assert_close(said[:2], said[2:])
    with pytest.raises(DataError, match="another robot"):
        seer.adapt(again_with(few, lambda a: a[:, :1], None))
    with pytest.raises(NotFittedError):
        Seer(**TINY).adapt(few)


# ---- what it refuses --------------------------------------------------------------------------------------------------


ARM = ActionSpace({"arm": Box(("x", "y", "close"))}, leads=True)
CHOICE = ActionSpace({"arm": Box(("x", "y"), -1.0, 1.0), "tool": Discrete(("none", "axe"))}, leads=True)
BUTTONS = ActionSpace({"keys": MultiBinary(("a", "b", "c"))}, leads=True)


@pytest.mark.parametrize(
    ("settings", "recordings", "sentence"),
    [
        ({}, lambda: drifting(2) + drifting(2, steps=4), r"episodes of 5 steps, .*; 2 are shorter: .*episode 0.*, .*episode 1"),
        ({"slots": 10}, drifting, "slots=10 is none, the nearest is 9"),
        ({"slots": 14}, drifting, "the nearest is 16"),
        ({"patch": 6}, drifting, "a power of two from 2 on, got 6"),
        ({"patch": 32}, drifting, r"patches of 32 pixels and these have 16 x 16: set image_size to .* such as \(32, 32\)"),
        ({"depth": 1}, drifting, "only from the second block on: depth is at least 2"),
        ({"goal": 3}, drifting, "at a goal within them; got history=3"),
        ({"gripper": "hand"}, drifting, "no number of the action is called 'hand'; there are across, down, closed"),
        ({"gripper": "down"}, drifting, r"gripper 'down' is 0 or 1, or -1 or 1, and here it goes from -0.5 to 0.5 in 2 values"),
        (
            {},
            lambda: again_with(drifting(), lambda a: a * [5, 1, 1], ARM),
            r"1 of the .*quantiles: 'x' -2.5 to 2.5\); set scale_actions",
        ),
        ({}, lambda: again_with(drifting(), lambda a: a, CHOICE), "these actions hold choices"),
        ({}, lambda: again_with(drifting(), lambda a: a > 0, BUTTONS), "these actions have none"),
        (
            {},
            lambda: drifting(views=(EYE, HAND)) + drifting(),
            "looks at several cameras at once and .* lacks 'observation.images.hand'",
        ),
    ],
)
def test_bad_recordings_and_settings_are_refused(settings, recordings, sentence):
    with pytest.raises(DataError, match=sentence):
        Seer(**{**TINY, **settings}).fit(recordings(), run=QUIET)


def test_actions_beyond_reach_are_scaled_where_that_is_asked():
    wide = again_with(drifting(), lambda a: a * [5, 1, 1], ARM)
    seer = Seer(**{**TINY, "scale_actions": True, "gripper": "close"}).fit(wide, run=QUIET)
    arm = seer.net_.scale
    torch.testing.assert_close(arm(torch.tensor([[2.5, -0.5]])), torch.tensor([[1.0, -1.0]]))
    torch.testing.assert_close(arm.inverse(torch.tensor([[-1.0, 0.0]])), torch.tensor([[-2.5, 0.0]]))


@pytest.mark.parametrize("zero", [0.0, -1.0])
def test_a_gripper_is_opened_and_closed_as_it_was_recorded(zero):
    named = again_with(drifting(), lambda a: np.where([[False, False, True]], np.where(a > 0, 1, zero), a), ARM)
    seer = Seer(**{**TINY, "gripper": "close"}).fit(named, run=QUIET)
    with torch.no_grad():
        seer.net_.gripper_out.bias[:] = -50
        opened = seer.infer(named.windows(seer.reads, 4).at(0)).action[..., 2]
        seer.net_.gripper_out.bias[:] = 50
        closed = seer.infer(named.windows(seer.reads, 4).at(0)).action[..., 2]
    assert (opened == zero).all()
    assert (closed == 1).all()
    shut = again_with(named, lambda a: np.where([[False, False, True]], 1, a), ARM)
    assert dataclasses.replace(seer, adapt_steps=1).fit(named, run=QUIET).adapt(shut).net_.opened.tolist() == [zero]


def test_a_view_that_is_missing_is_named_and_not_filled():
    seer = Seer(**TINY).fit(drifting(views=(EYE, HAND)), run=QUIET)
    seer.reset()
    seen = shown(drifting(2), 0)
    with pytest.raises(DataError, match="not given 'observation.images.hand', .* not filled with zeros"):
        seer.act(seen)
    assert seer.act({**seen, HAND: seen[EYE]}).shape == (2, 3)
    assert set(seer.sample(2, drifting(2, views=(EYE, HAND)).windows(seer.asks, 2).at(0))) == {EYE, HAND}


def test_questions_that_cannot_be_answered(tiny):
    window = drifting().windows(tiny.asks, 2).at(0)
    with pytest.raises(DataError, match="what follows a window"):
        tiny.sample(3)
    with pytest.raises(DataError, match="3 are asked for and 2 windows are given"):
        tiny.sample(3, window)
    with pytest.raises(DataError, match="looks back on 3 steps and was given windows of 5"):
        tiny.sample(2, {name: torch.cat([window[name]] * 2, 1)[:, :5] for name in (EYE, "observation.state")})
    with pytest.raises(DataError, match="windows of 2 steps; it looks 2 ahead"):
        tiny.infer({name: window[name][:, :2] for name in (EYE, "observation.state")})
    with pytest.raises(DataError, match=r"\[2, 3\] frames and \[2, 2\] states"):
        tiny.sample(2, {EYE: window[EYE], "observation.state": window["observation.state"][:, :2]})


# ---- what its claim is made of ----------------------------------------------------------------------------------------


def test_the_claim_judges_forecast_and_actions(learned):
    found = judged(learned, drifting(8, 3))
    assert found["forecast"] < 0.7 * found["copy"]
    assert 0 < found["error"] < 0.06
    assert found["shuffled"] != pytest.approx(found["unshuffled"])
    assert set(found) == {"error", "unshuffled", "shuffled", "forecast", "copy", "forecast, pixels", "copy, pixels"}


def test_actions_that_do_not_see_the_forecast_do_not_notice_another():
    seer = Seer(**{**TINY, "foreseen": False}).fit(drifting(), run=QUIET)
    found = judged(seer, drifting(8, 3))
    assert found["shuffled"] == pytest.approx(found["unshuffled"], rel=1e-5)


def test_two_stages_stand_on_a_forecaster_that_stays_as_it_is(tiny, tmp_path):
    before = {name: value.clone() for name, value in tiny.net_.state_dict().items()}
    policy = TwoStage(**{**TINY, "history": 1}, forecaster=tiny).fit(drifting(), run=QUIET)
    window = drifting(3, 8).windows(policy.reads, 4).at(0)
    answer = policy.infer(window)
    assert answer.action.shape == (4, 3, 3)
    assert all(torch.equal(value, before[name]) for name, value in tiny.net_.state_dict().items())
    again = System.load(policy.save(tmp_path / "two"), device="cpu")
    torch.testing.assert_close(again.infer(window).action, answer.action)
    with pytest.raises(DataError, match="stands on a fitted Seer"):
        TwoStage(**TINY).fit(drifting(), run=QUIET)
