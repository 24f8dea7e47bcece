import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from retrodict.errors import DataError, NotFittedError
from retrodict.labelling import label
from retrodict.roles import Encoder
from retrodict.systems import Card, System
from retrodict.systems.actions.vpt import VPT
from retrodict.training.run import Run
from retrodict.trajectories import ActionSpace, Box, Discrete, MultiBinary, Window, from_arrays

from .moving_square import EYE, SPACE, recordings

QUIET = Run(progress=False)
TINY = {"frames": 6, "image_size": None, "patch": 1, "stacks": (8,), "dense": 32, "width": 32, "depth": 1}
PLAIN = {"augmented": False, "calibration": 0.0}


def tiny(**options):
    return VPT(**{**TINY, **PLAIN, "temporal": 3, "stem": 8, "steps": 2, "batch": 4, "learning_rate": 5e-3, **options})


def labels(model, data):
    """Actions (T, width) and confidences (T,) of every step of every episode, each from a window centred on it."""
    windows = data.windows(model.reads, 256, order="sequence", prefetch=0)
    answers = [model.infer(windows.at(i)) for i in range(len(windows))]
    at = model.reads.before
    return torch.cat([a.action[:, at] for a in answers]).numpy(), torch.cat([a.confidence[:, at] for a in answers]).numpy()


@pytest.fixture(scope="module")
def learned():
    return tiny(numbers=False, steps=400, batch=12).fit(recordings(20, seed=0), run=QUIET)


def test_it_learns_what_moved_the_square(learned):
    held_out = recordings(4, seed=1)
    action, confidence = labels(learned, held_out)
    true = np.concatenate([e["action"] for e in held_out])
    seen = np.concatenate([np.arange(e.length) < e.length - 1 for e in held_out])
    right = (np.abs(action - true) < 1e-4).all(1)[seen]
    chance = np.unique(true[seen], axis=0, return_counts=True)[1].max() / seen.sum()
    assert chance < 0.25
    assert right.mean() > 0.8
    assert abs(confidence[seen].mean() - right.mean()) < 0.15
    assert confidence[seen][right].mean() > confidence[seen][~right].mean()


def test_it_needs_the_future(learned):
    windows = recordings(2, seed=2).windows(learned.reads, 64, order="sequence", prefetch=0)
    batch, at = windows.at(0), learned.reads.before
    frozen = {**batch, EYE: batch[EYE].clone()}
    frozen[EYE][:, at + 1 :] = batch[EYE][:, at : at + 1]
    assert (learned.infer(batch).action[:, at] != learned.infer(frozen).action[:, at]).any(1).float().mean() > 0.3


def test_saved_and_loaded_it_answers_the_same(learned, tmp_path):
    again = System.load(learned.save(tmp_path / "vpt"))
    window = recordings(1, seed=3).windows(learned.reads, 8).at(0)
    mine, theirs = learned.infer(window), again.infer(window)
    assert torch.equal(mine.action, theirs.action)
    assert torch.equal(mine.confidence, theirs.confidence)
    assert again.reads == learned.reads


def test_what_it_answers(learned):
    window = recordings(1, seed=4).windows(learned.reads, 5).at(0)
    answer = learned.infer(window)
    assert answer.action.shape == (5, 6, 3)
    assert answer.confidence.shape == (5, 6)
    assert answer.extras.keys() == {"confidence.keys", "confidence.mouse"}
    product = answer.extras["confidence.keys"] * answer.extras["confidence.mouse"]
    torch.testing.assert_close(answer.confidence, product)
    assert learned.keeps == slice(1, 4)
    assert VPT(frames=128).keeps == slice(32, 96)


def test_steps_that_do_not_exist_do_not_matter(learned):
    window = recordings(1, seed=5).windows(learned.reads, 2, order="sequence").at(0)
    assert not window["mask"][0, 0]
    junk = {**window, EYE: window[EYE].clone()}
    junk[EYE][0, 0] = 255
    at = learned.reads.before
    torch.testing.assert_close(learned.infer(window).confidence[0, at:], learned.infer(junk).confidence[0, at:])


@pytest.mark.parametrize("without", [(EYE,), ("observation.state",), ()])
def test_images_numbers_or_both(without):
    data = recordings(3, seed=0, without=without)
    model = tiny().fit(data, run=QUIET)
    assert labels(model, data)[0].shape == (120, 3)


def test_numbers_alone_suffice():
    data = recordings(20, seed=0, without=(EYE,))
    model = tiny(steps=300, batch=16).fit(data, run=QUIET)
    action, _ = labels(model, held_out := recordings(3, seed=1, without=(EYE,)))
    true = np.concatenate([e["action"] for e in held_out])
    assert (np.abs(action - true) < 1e-4).all(1).mean() > 0.5


def test_several_cameras_and_the_choice_of_some():
    rng = np.random.default_rng(0)
    arrays = {f"observation.images.{c}": rng.integers(0, 256, (9, 8, 8, 3), np.uint8) for c in ("left", "right")}
    data = from_arrays([{**arrays, "action": rng.normal(size=(9, 2)).astype(np.float32)}])
    assert set(tiny().fit(data, run=QUIET).reads.spans) == set(arrays)
    assert set(tiny(cameras=("right",)).fit(data, run=QUIET).reads.spans) == {"observation.images.right"}
    with pytest.raises(DataError, match="front"):
        tiny(cameras=("front",)).fit(data, run=QUIET)


def test_choices_and_continuous_actions_with_confidence():
    space = ActionSpace({"tool": Discrete(("a", "b")), "arm": Box(("x", "y"))})
    rng = np.random.default_rng(0)
    state = rng.normal(size=(200, 2)).astype(np.float32).cumsum(0)
    move = np.diff(state, axis=0, append=state[-1:]) * 10 + 3
    action = np.concatenate([(move[:, :1] > 3), move], 1).astype(np.float32)
    data = from_arrays([{"observation.state": state, "action": action}], actions=space)
    model = tiny(steps=200, batch=16).fit(data, run=QUIET)
    inferred, confidence = labels(model, data)
    assert np.corrcoef(inferred[:-1, 1], action[:-1, 1])[0, 1] > 0.8
    assert (inferred[:-1, 0] == action[:-1, 0]).mean() > 0.8
    assert ((confidence >= 0) & (confidence <= 1)).all()


def test_frames_are_brought_to_size_whether_given_as_recorded_or_not():
    data = recordings(2, seed=0, without=("observation.state",))
    model = tiny(image_size=(8, 8)).fit(data, run=QUIET)
    native = data.windows(Window(3, 2, (EYE,)), 4, order="sequence").at(0)
    sized = data.windows(model.reads, 4, order="sequence").at(0)
    assert sized[EYE].shape[-2:] == (8, 8)
    torch.testing.assert_close(model.infer(native).confidence, model.infer(sized).confidence)


def test_what_has_no_weight_or_is_missing_is_as_if_it_were_not_there():
    good = [{n: e[n] for n in ("observation.state", "action")} for e in recordings(6, seed=0, without=(EYE,))]
    wrong = [{**e, "action": e["action"][::-1].copy()} for e in good]

    def confidence(episodes):
        model = tiny(steps=30, batch=16).fit(from_arrays(episodes, actions=SPACE), run=QUIET)
        return model.infer(from_arrays(good, actions=SPACE).windows(model.reads, 64).at(0)).confidence

    expected = confidence(good)
    weighted = [{**e, "sample.weight": np.ones(40, np.float32)} for e in good]
    weighted += [{**e, "sample.weight": np.zeros(40, np.float32)} for e in wrong]
    gaps = [*good, *({**e, "valid.action": np.zeros(40, bool)} for e in wrong)]
    torch.testing.assert_close(confidence(weighted), expected, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(confidence(gaps), expected, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(confidence([*good, *wrong]), expected, atol=1e-2)


def test_steps_count_by_their_weight(learned):
    data = recordings(3, seed=6)
    batch = data.windows(learned.window(learned.spec_), 8).at(0)
    weight = torch.rand(8, 6)
    dist = learned._happened(learned.net_, batch)
    each = -dist.parts["mouse"].log_prob(batch["action"][..., 2:]) * batch["mask"]
    weighted = learned.loss(learned.net_, {**batch, "sample.weight": weight[..., None]})["mouse"]
    torch.testing.assert_close(weighted, (each * weight).sum() / (weight * batch["mask"]).sum())


class TestBadInput:
    def test_asking_before_fit(self):
        with pytest.raises(NotFittedError, match="vpt"):
            tiny().infer({})

    def test_a_clip_shorter_than_the_convolution(self, learned):
        frames = torch.zeros(1, 2, 3, 12, 12, dtype=torch.uint8)
        with pytest.raises(DataError, match="2 steps.*at least 3"):
            learned.infer({EYE: frames})
        with pytest.raises(DataError, match="6 frames.*over 9"):
            tiny(temporal=9).fit(recordings(1, seed=0))

    def test_float_frames(self, learned):
        with pytest.raises(DataError, match="float32.*uint8"):
            learned.infer({EYE: torch.rand(1, 6, 3, 12, 12)})
        floats = [{EYE: np.random.default_rng(0).random((9, 12, 12, 3), np.float32), "action": np.zeros((9, 3), np.float32)}]
        with pytest.raises(DataError, match=r"float|camera"):
            tiny(cameras=("eye",)).fit(from_arrays(floats, actions=SPACE))

    def test_frames_of_another_size(self, learned):
        with pytest.raises(DataError, match="13"):
            learned.infer({EYE: torch.zeros(1, 6, 3, 13, 13, dtype=torch.uint8)})

    def test_a_missing_camera(self, learned):
        with pytest.raises(DataError, match="eye"):
            learned.infer({"observation.state": torch.zeros(1, 6, 2)})

    def test_nothing_to_look_at(self):
        with pytest.raises(DataError, match="observation.images"):
            tiny().fit(from_arrays([{"action": np.ones((9, 1), np.float32)}]))

    def test_no_actions(self):
        with pytest.raises(DataError, match="action"):
            tiny().fit(recordings(2, seed=0, without=("action",)))

    def test_buttons_and_choices_never_met_are_named(self):
        data = recordings(3, seed=0, without=(EYE,))
        still = data.with_column("action", [e["action"] * np.array([1, 0, 1], np.float32) for e in data])
        with pytest.warns(UserWarning, match="never pressed.*down"):
            tiny().fit(still, run=QUIET)
        space = ActionSpace({"tool": Discrete(("axe", "pick", "rod"))})
        arrays = [
            {
                "observation.state": np.linspace(0, 1, 40, dtype=np.float32).reshape(20, 2),
                "action": np.arange(20.0, dtype=np.float32)[:, None] % 2,
            }
        ]
        with pytest.warns(UserWarning, match="'tool' is never one of rod"):
            tiny().fit(from_arrays(arrays, actions=space), run=QUIET)

    def test_all_null(self):
        data = recordings(2, seed=0, without=(EYE,))
        null = data.with_column("action", [0 * e["action"] for e in data])
        with pytest.raises(DataError, match="all 80 recorded actions are the null action"):
            tiny().fit(null, run=QUIET)

    def test_the_clipped_share_is_counted(self):
        data = recordings(2, seed=0, without=(EYE,))
        wild = [e["action"].copy() for e in data]
        wild[0][:8, 2] = 25
        with pytest.warns(UserWarning, match=r"'mouse' lies beyond ±10 at 8 steps \(10.00%\)"):
            tiny().fit(data.with_column("action", wild), run=QUIET)

    @pytest.mark.parametrize(("space", "value"), [(MultiBinary(("a",)), 0.5), (Discrete(("a", "b")), 2.0)])
    def test_impossible_buttons_and_choices(self, space, value):
        arrays = {
            "observation.state": np.random.default_rng(0).random((9, 2), np.float32),
            "action": np.full((9, 1), value, np.float32),
        }
        with pytest.raises(DataError, match=f"episode 0.*at step 0 '(a|part)' of the action is {value:g}, outside"):
            tiny().fit(from_arrays([arrays], actions=ActionSpace({"part": space})), run=QUIET)

    def test_good_data_gives_no_warning(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            tiny().fit(recordings(3, seed=0, without=(EYE,)), run=QUIET)


# ---- what is kept from it, and what it is shown in a mirror ------------------------------------------------------------


def test_of_enough_labelled_episodes_three_in_ten_are_left_to_judge_the_labels_by():
    data = recordings(14, seed=0, without=(EYE,))
    bare = data.with_column("action", [e["action"] if i < 10 else None for i, e in enumerate(data)])
    model = tiny(calibration=None).fit(bare, run=QUIET)
    assert (len(model.learned_from_), len(model.heldout_)) == (7, 0)
    labelled = label(bare, model, progress=False)
    assert labelled.summary.calibration.episodes == 3
    assert len(tiny(calibration=None).fit(data[:9], run=QUIET).learned_from_) == 9
    assert len(tiny(calibration=0.5).fit(data[:4], run=QUIET).learned_from_) == 2


def test_a_mirror_changes_frames_and_actions_together():
    data = recordings(3, seed=0)
    model = tiny(mirror=("down", "up", "-turn")).fit(data, run=QUIET)
    batch = next(iter(data.windows(model.window(model.spec_), 32)))
    seen = model.augment(batch, torch.Generator().manual_seed(0))
    turned = (seen[EYE] == batch[EYE].flip(-1)).flatten(1).all(1)
    assert 8 <= turned.sum() <= 24
    for i in range(32):
        frames, action = batch[EYE][i], batch["action"][i]
        as_seen = (frames.flip(-1), action[:, [1, 0, 2]] * torch.tensor([1.0, 1.0, -1.0])) if turned[i] else (frames, action)
        assert torch.equal(seen[EYE][i], as_seen[0])
        assert torch.equal(seen["action"][i], as_seen[1])
    with pytest.raises(DataError, match="name each of up, down, turn once; it names up, turn"):
        tiny(mirror=("up", "-turn")).fit(data, run=QUIET)


# ---- looking through an encoder ---------------------------------------------------------------------------------------


@dataclass
class Means(System, Encoder):
    """The mean colour of each quarter of a frame."""

    card = Card("test-means", "", "", 2026, "frames", "means", "", baseline=True)
    grain = "frame"

    def inputs(self, recordings):
        return (EYE,)

    def learn(self, recordings, world, validation, run):
        self.fitted_ = True

    def state(self):
        return {"nothing": torch.zeros(1)}, {}

    def restore(self, tensors, about):
        self.fitted_ = True

    @property
    def reads(self):
        return Window(features=(EYE,))

    def encode(self, window):
        small = torch.nn.functional.adaptive_avg_pool2d(window[EYE].flatten(0, 1).float() / 255, 6)
        return small.reshape(*window[EYE].shape[:2], -1)


def test_an_encoder_takes_the_place_of_the_image_network(tmp_path):
    data = recordings(8, seed=0, without=("observation.state",))
    encoder = Means().fit(data)
    model = tiny(encoder=encoder, steps=150, batch=16).fit(data, run=QUIET)
    assert not [name for name, _ in model.net_.named_parameters() if "cnn" in name]
    action, _ = labels(model, data)
    true = np.concatenate([e["action"] for e in data])
    assert (action[:, :2] == true[:, :2]).mean() > 0.6
    again = System.load(model.save(tmp_path / "vpt"))
    np.testing.assert_array_equal(labels(again, data)[0], action)
    encoder.grain = "episode"
    with pytest.raises(DataError, match="single frames"):
        tiny(encoder=encoder).fit(data, run=QUIET)
