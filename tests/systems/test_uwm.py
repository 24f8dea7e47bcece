from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
import torch

from retrodict.claims.baselines.supervised_inverse import SupervisedInverse
from retrodict.claims.baselines.tied_world_model import TiedWorldModel
from retrodict.errors import DataError, NotFittedError, RetrodictError
from retrodict.systems import System
from retrodict.systems.checks import Subject
from retrodict.systems.policies.uwm import UWM
from retrodict.systems.policies.uwm_learning import FRAMES
from retrodict.training.run import Run
from retrodict.trajectories import ActionSpace, Discrete, from_arrays

from .moving_dot import EYE, recordings

SMALL = {
    **{"backbone": "keypoints", "channels": (4, 8), "strides": (2, 1), "keypoints": 8, "width": 16, "shift": 0},
    **{"chunk": 4, "foreseen": 2, "points": 4, "codec_steps": 2, "hidden": 32, "depth": 1},
    **{"heads": 2, "registers": 2, "levels": 20, "sampling": 4, "draws": 2},
    **{"steps": 4, "batch": 8, "warmup": 1, "device": "cpu"},
}
QUIET = Run(progress=False)

pytestmark = pytest.mark.filterwarnings("ignore:.*its codec of frames loses:UserWarning")


def half_labelled(episodes=6):
    return recordings(episodes) + recordings(2 * episodes, seed=1, without=("action",))


@pytest.fixture(scope="module")
def fitted():
    return UWM(**SMALL).fit(half_labelled(), run=QUIET)


@pytest.fixture
def window(fitted):
    return recordings(4, seed=5).windows(fitted.reads, 3).at(0)


def started(window):
    return {EYE: window[EYE][:, :2]}


def asked_levels(model, monkeypatch):
    """The levels that the denoiser is asked at from now on, by part."""
    seen = {"action": [], FRAMES: []}
    inner = model.net_["denoiser"].forward

    def forward(noisy, levels, condition):
        for name, at in levels.items():
            seen[name].append(int(at.unique()))
        return inner(noisy, levels, condition)

    monkeypatch.setattr(model.net_["denoiser"], "forward", forward)
    return seen


# ---- what is read -----------------------------------------------------------------------------------------------------


def test_a_window_holds_what_was_seen_what_is_to_come_and_the_actions_between(fitted):
    made = recordings(1, seed=3)
    windows = made.windows(fitted.window(fitted.spec_), 1, order="sequence")
    batch = windows.gather(np.array([[0, 6]]))
    frames, actions = made[0][EYE], made[0]["action"]
    for at, frame in enumerate((5, 6, 8, 10)):
        assert np.array_equal(batch[EYE][0, at].movedim(0, -1), frames[frame])
    assert np.array_equal(batch["action"][0], actions[6:10])
    clean, counts = fitted.taught(fitted.net_, batch)
    assert clean[FRAMES].shape == (1, 2, 8)
    places = fitted.net_["codec"][0].encode(torch.from_numpy(frames[[6, 8, 10]].copy()).movedim(-1, 1))
    moves = fitted.net_["reach"].inverse(3 * clean[FRAMES][0][:, None])[:, 0]
    torch.testing.assert_close(moves, places.diff(dim=0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fitted.net_["scale"].inverse(clean["action"]), batch["action"])
    assert all(mask.all() for mask in counts.values())
    clean, counts = fitted.taught(fitted.net_, windows.gather(np.array([[0, 17]])))  # steps 18 and 19 are the last
    assert counts["action"].tolist() == [[True, True, True, False]]
    assert counts[FRAMES].tolist() == [[True, False]]


def test_of_bare_video_nothing_of_an_action_is_left_and_nothing_is_learned_of_it(fitted):
    batch = half_labelled(4).windows(fitted.window(fitted.spec_), 200, weights=[0.0] * 4 + [1.0] * 8).at(0)
    clean, counts = fitted.taught(fitted.net_, batch)
    assert not clean["action"].any()
    assert not counts["action"].any()
    assert counts[FRAMES].any()
    assert set(fitted.drawn_levels(batch, ("action", FRAMES))["action"].tolist()) == {19}


def test_levels_are_drawn_independently_unless_tied(fitted):
    batch = recordings(4).windows(fitted.window(fitted.spec_), 76).at(0)
    many = {"frame": torch.zeros(20_000), "mask.action": torch.ones(20_000, 4, dtype=torch.bool)}
    levels = fitted.drawn_levels(many, ("action", FRAMES))
    table = torch.stack(list(levels.values())).double()
    assert abs(float(torch.corrcoef(table)[0, 1])) < 0.03
    assert all(set(row.tolist()) == set(range(20)) for row in table)
    tied = TiedWorldModel(**SMALL).fit(recordings(4), run=QUIET)
    one = tied.drawn_levels(batch, ("action", FRAMES))
    assert torch.equal(one["action"], one[FRAMES])
    assert one[FRAMES].unique().numel() > 5


def test_a_batch_has_its_share_of_windows_with_actions():
    model = UWM(**{**SMALL, "batch": 64}, labelled=0.75).fit(half_labelled(), run=QUIET)
    reader = model.reader(half_labelled(2))
    share = np.mean([float(reader.at(step)["mask.action"][:, 0].float().mean()) for step in range(20)])
    assert share == pytest.approx(0.75, abs=0.06)


def test_the_frames_of_a_window_are_shifted_together(fitted):
    model = dataclasses.replace(fitted, shift=3)
    ramp = torch.arange(20, dtype=torch.uint8).expand(5, 4, 3, 20, 20)
    moved = model.augment({EYE: ramp, "observation.images.other": ramp}, torch.Generator().manual_seed(0))
    by = moved[EYE][:, :, 0, 10, 10].int() - 10
    assert (by == by[:, :1]).all()
    assert by.unique().numel() > 1
    assert torch.equal(moved[EYE], moved["observation.images.other"])


def test_the_codec_learns_from_frames_as_they_are_recorded_and_the_rest_from_shifted_ones(fitted):
    net, moved = fitted.net_, UWM(**{**SMALL, "shift": 3}).fit(half_labelled(), run=QUIET).net_
    same = {name: torch.equal(value, moved.state_dict()[name]) for name, value in net.state_dict().items()}
    assert all(same[name] for name in same if name.startswith("codec."))
    assert not any(same[name] for name, value in net["denoiser"].named_parameters(prefix="denoiser") if value.ndim > 1)


def test_frames_are_drawn_again_from_the_steps_of_their_keypoints(fitted):
    frames = torch.from_numpy(np.stack([e[EYE][6:14:2] for e in recordings(3, seed=3)])).movedim(-1, 2)[:, :3, None]
    codes = fitted.coded(fitted.net_, fitted.places(fitted.net_, frames))
    codec = fitted.net_["codec"][0]
    once = codec.decode(codec.encode(frames[:, 1:, 0]))
    again = fitted.decoded(fitted.net_, codes, frames[:, 0])[:, :, 0]
    assert (again.float() - once.float()).abs().max() <= 1


def test_a_batch_of_training_moves_about_within_the_reach(fitted):
    clean, _ = fitted.taught(fitted.net_, recordings(6, seed=2).windows(fitted.window(fitted.spec_), 64).at(0))
    assert 0.1 < clean[FRAMES].std() < 0.7


def test_places_found_once_teach_what_frames_do(fitted):
    made = recordings(4)
    seen, found = fitted.reader(made).at(3), fitted.reader_of_keypoints(fitted.net_, made).at(3)
    assert found[EYE].shape[1] == fitted.observed
    for one, other in zip(fitted.taught(fitted.net_, seen), fitted.taught(fitted.net_, found), strict=True):
        for part in one:
            torch.testing.assert_close(one[part], other[part], atol=1e-3, rtol=0)
    torch.testing.assert_close(fitted.recent(seen), fitted.recent(found))


def test_it_can_be_judged_by_held_out_episodes_while_it_learns():
    model = UWM(**{**SMALL, "holdout": 0.3, "evaluate_every": 1}).fit(recordings(6), run=QUIET)
    assert model.net_["reach"].fitted


# ---- how it answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("unknown", "highest"), [("highest", 19), ("begins", 15)])
def test_the_levels_say_which_question_is_answered(fitted, window, monkeypatch, unknown, highest):
    monkeypatch.setattr(fitted, "unknown", unknown)
    actions, path = torch.zeros(3, 4, 2), [15, 10, 5, 0]

    def policy():
        fitted.reset()
        fitted.act({EYE: window[EYE][:, 0]})

    for ask, action, frames in (
        (policy, path, [highest] * 4),
        (lambda: fitted.infer(window), path, [0] * 4),
        (lambda: fitted.predict(started(window), actions), [0] * 4, path),
        (lambda: fitted.predict(started(window)), [highest] * 4, path),
        (lambda: fitted.sample(3, started(window)), [highest] * 4, path),
        (lambda: fitted.joint(started(window)), path, path),
    ):
        with monkeypatch.context() as patch:
            seen = asked_levels(fitted, patch)
            ask()
            assert seen == {"action": action, FRAMES: frames}


def test_answers_have_their_form_and_repeat(fitted, window):
    inferred = fitted.infer(window)
    assert inferred.action.shape == (3, 4, 2)
    assert torch.equal(inferred.action, fitted.infer(window).action)
    said = fitted.predict(started(window), torch.zeros(3, 4, 2), samples=5)
    assert said.values[EYE].shape == (3, 5, 2, 3, 20, 20)
    assert said.values[EYE].dtype == torch.uint8
    assert said.every == 2
    torch.manual_seed(3)
    one = fitted.sample(6, {EYE: window[EYE][:1, :2]})[EYE]
    assert one.shape == (6, 2, 3, 20, 20)
    assert not torch.equal(one[0], one[1])
    torch.manual_seed(3)
    assert torch.equal(fitted.sample(6, {EYE: window[EYE][:1, :2]})[EYE], one)
    both = fitted.joint(started(window), samples=2)
    assert both["action"].shape == (3, 2, 4, 2)
    assert both[EYE].shape == (3, 2, 2, 3, 20, 20)


def test_a_chunk_is_played_to_its_end_and_a_roll_out_repeats_under_a_seed(fitted, monkeypatch, tmp_path):
    frames = torch.from_numpy(recordings(2)[0][EYE].copy()).movedim(-1, 1)
    shown = [{EYE: frame.expand(2, -1, -1, -1)} for frame in frames]
    loaded = System.load(fitted.save(tmp_path / "uwm"), device="cpu")
    with pytest.raises(RetrodictError, match="without reset"):
        loaded.act(shown[0])

    def played():
        fitted.reset()
        with monkeypatch.context() as patch:
            seen = asked_levels(fitted, patch)
            actions = torch.stack([fitted.act(observation) for observation in shown[:6]])
        return actions, len(seen["action"])

    first, asked = played()
    assert asked == 2 * 4  # two chunks of four actions in six steps, four denoising steps each
    assert torch.equal(first, played()[0])
    with pytest.raises(RetrodictError, match="played 2 worlds and is shown 1"):
        fitted.act({EYE: shown[0][EYE][:1]})


def test_a_frame_to_come_is_repeated_only_where_that_is_said(fitted, window):
    one = {EYE: window[EYE][:, :3]}
    with pytest.raises(DataError, match=r"2 frames up to now and 2 to come; it was given 3 in all \(pad=True"):
        fitted.infer(one)
    whole = {EYE: torch.cat([one[EYE], one[EYE][:, -1:]], 1)}
    assert torch.equal(fitted.infer(one, pad=True).action, fitted.infer(whole).action)


def test_chunks_of_another_form_are_refused(fitted, window):
    now = started(window)
    with pytest.raises(DataError, match=r"\(B, H, A\) = \[3, 4, 2\]; it was given \[3, 2, 2\]"):
        fitted.predict(now, torch.zeros(3, 2, 2))
    with pytest.raises(DataError, match="finite actions"):
        fitted.predict(now, torch.full((3, 4, 2), torch.nan))
    with pytest.raises(DataError, match="foresees 4 steps at once; it was asked for 3"):
        fitted.predict(now, horizon=3)
    with pytest.raises(DataError, match="goes on from 2 frames up to now; it was given 1"):
        fitted.predict({EYE: now[EYE][:, :1]})
    with pytest.raises(DataError, match="give it frames"):
        fitted.sample(2)
    with pytest.raises(DataError, match="5 samples and given 3 beginnings"):
        fitted.sample(5, now)
    with pytest.raises(DataError, match=r"shape \[3, 2, 3, 16, 20\]; it learned from \(B, T, 3, 20, 20\)"):
        fitted.predict({EYE: now[EYE][..., :16, :]})
    with pytest.raises(DataError, match="float32; camera frames are uint8"):
        fitted.predict({EYE: torch.full((3, 2, 3, 20, 20), torch.nan)})


def test_without_any_action_it_is_a_video_model_and_says_so(window, tmp_path):
    bare = UWM(**SMALL).fit(recordings(4, without=("action",)), run=QUIET)
    bare = System.load(bare.save(tmp_path / "uwm"))
    now = started(window)
    assert bare.sample(3, now)[EYE].shape == (3, 2, 3, 20, 20)
    assert bare.predict(now).values[EYE].shape == (3, 1, 2, 3, 20, 20)
    bare.reset()
    for ask in (
        lambda: bare.act({EYE: window[EYE][:, 0]}),
        lambda: bare.infer(window),
        lambda: bare.joint(now),
        lambda: bare.predict(now, torch.zeros(3, 4, 2)),
        lambda: bare.adapt(recordings(2)),
    ):
        with pytest.raises(DataError, match="no actions were ever seen"):
            ask()


def test_columns_that_never_change_and_short_episodes_are_warned_of():
    made = recordings(3)
    flat = made.with_column("action", [np.stack([e["action"][:, 0], np.full(len(e), 0.5, np.float32)], 1) for e in made])
    with pytest.warns(UserWarning, match=r"action: the values at \[1\] never change; they are scaled by 1"):
        model = UWM(**SMALL).fit(flat, run=QUIET)
    torch.testing.assert_close(model.net_["scale"](torch.tensor([0.0, 0.5]))[1], torch.tensor(0.0))
    with pytest.warns(UserWarning, match="3 episode.* shorter than a chunk of 4; what is missing at their end repeats"):
        short = UWM(**SMALL).fit(recordings(3, steps=3), run=QUIET)
    assert short.infer(recordings(1, steps=3).windows(short.reads, 1).at(0)).action.shape == (1, 4, 2)


def test_a_codec_that_loses_what_moves_is_warned_of():
    with pytest.warns(UserWarning, match="codec of frames loses what moves .* more codec_steps"):
        UWM(**SMALL).fit(recordings(3), run=QUIET)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        UWM(**{**SMALL, "codec_steps": 200, "batch": 16}).fit(recordings(10), run=QUIET)


def test_settings_and_actions_that_do_not_fit_are_named():
    for settings, sentence in (
        ({"foreseen": 3}, "evenly spread over its chunk"),
        ({"draws": 1}, "from two draws or more"),
        ({"image_size": (18, 20)}, "multiples of 4 and at least 8, not 18 x 20"),
    ):
        with pytest.raises(DataError, match=sentence):
            UWM(**{**SMALL, **settings}).fit(recordings(2))
    tools = ActionSpace({"tool": Discrete(("a", "b"))}, leads=True)
    chosen = from_arrays(
        [{EYE: e[EYE], "action": np.zeros((len(e), 1), np.float32)} for e in recordings(2)], fps=10, actions=tools
    )
    with pytest.raises(DataError, match="says continuous actions and 'tool' is a Discrete"):
        UWM(**SMALL).fit(chosen)
    with pytest.raises(NotFittedError):
        UWM(**SMALL).act({})


def test_it_adapts_to_one_task_and_keeps_its_scale(fitted, tmp_path):
    model = System.load(fitted.save(tmp_path / "uwm"))
    model.adapt_steps = 3
    before = {name: value.clone() for name, value in model.net_.state_dict().items()}
    few = recordings(2, seed=7)
    assert model.adapt(few) is model
    assert {episode.identity for episode in few} <= set(model.learned_from_)  # none of them may calibrate it
    after = model.net_.state_dict()
    assert torch.equal(before["scale.scale"], after["scale.scale"])
    assert not torch.equal(before["denoiser.positions"], after["denoiser.positions"])
    wide = from_arrays([{EYE: e[EYE], "action": np.tile(e["action"], 2)} for e in recordings(2)], fps=10)
    with pytest.raises(DataError, match="another robot's"):
        model.adapt(wide)


def test_the_supervised_rival_keeps_the_contract_and_reads_the_same_windows(fitted, tmp_path):
    rival = SupervisedInverse(
        channels=(4, 4), strides=(2, 2), width=8, chunk=4, foreseen=2, hidden=(8,), steps=4, batch=4, warmup=1, device="cpu"
    )
    subject = Subject(rival, recordings(5), tmp_path)
    for check in ("fits_and_answers", "repeats_under_a_seed", "survives_saving_and_loading"):
        subject.run(check)
    made = recordings(1)
    at = np.array([[0, 6]])
    mine, theirs = (made.windows(m.reads, 1).gather(at)[EYE] for m in (fitted, subject.fitted))
    assert torch.equal(mine, theirs)
