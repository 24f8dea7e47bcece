from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from labelling_toy import SPACE, Toy, play

from retrodict.errors import DataError
from retrodict.labelling.infer import guessed, infer, tile
from retrodict.roles import Inferred, InverseModel
from retrodict.trajectories import ActionSpace, Box, Window, from_arrays


@given(
    length=st.integers(1, 40),
    before=st.integers(0, 6),
    after=st.integers(0, 6),
    stride=st.integers(1, 3),
    cut=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    edge=st.sampled_from(["replicate", "drop"]),
)
def test_every_step_is_labelled_once_by_a_window_that_holds_it(length, before, after, stride, cut, edge):
    reads = Window(before, after, ("x",), stride, edge=edge)
    keeps = slice(min(cut[0], before), len(reads) - min(cut[1], after))
    tiling = tile(reads, keeps, length)
    anchors, steps = tiling.anchors[tiling.window], reads.span.steps
    assert (anchors + steps[tiling.place] == np.arange(length)).all()
    if edge == "replicate":
        assert set(tiling.place) <= set(range(len(reads))[keeps])
        assert len(tiling.anchors) <= stride * -(-length // (stride * len(range(len(reads))[keeps])))
    elif length > steps[-1] - steps[0] + stride:
        inside = (tiling.anchors + steps[0] >= 0) & (tiling.anchors + steps[-1] < length)
        assert inside.all()


def test_a_window_of_128_hops_by_its_middle_64():
    tiling = tile(Window(64, 63, ("x",)), slice(32, 96), 640)
    assert np.diff(tiling.anchors).tolist() == [64] * 9
    assert (tiling.place >= 32).all()
    assert (tiling.place < 96).all()


def test_keeping_nothing_is_refused():
    with pytest.raises(DataError, match="keeps no step"):
        tile(Window(1, 1, ("x",)), slice(3, 3), 10)


@pytest.mark.parametrize(
    "model",
    [
        Toy(),
        Toy(before=4, after=4, keep=(2, 6)),
        Toy(before=4, after=4, keep=(2, 6), edge="drop"),
        Toy(before=0, after=1, stride=1, keep=(None, 1)),
    ],
)
def test_windows_of_any_shape_give_the_same_labels_in_the_right_places(model):
    recordings, truth = play(5, noise=0.0)
    answers = list(infer(model.fit(recordings), recordings, batch=7))
    assert [a.position for a in answers] == list(range(5))
    for answer, action in zip(answers, truth, strict=True):
        assert answer.action[:-1] == pytest.approx(action[:-1], abs=1e-4)
        assert answer.seen.tolist() == [True] * (len(action) - 1) + [False]
        assert set(answer.extras) == {"confidence.turn"}


@settings(max_examples=20)
@given(batch=st.integers(1, 50), done=st.sets(st.integers(0, 5)))
def test_what_is_done_already_changes_no_number_and_no_batch(batch, done):
    recordings, _ = play(6, 15)
    model = Toy().fit(recordings)
    seen = []
    plain = model.infer

    def noting(window):
        seen.append(torch.stack([window["episode"], window["frame"]]).tolist())
        return plain(window)

    whole = {a.position: a for a in infer(model, recordings, batch=batch)}
    model.infer = noting
    rest = {a.position: a for a in infer(model, recordings, batch=batch, done=done)}
    assert rest.keys() == whole.keys() - done
    for position, answer in rest.items():
        assert (answer.action == whole[position].action).all()
        assert (answer.confidence == whole[position].confidence).all()
    assert all(len(frames) == batch for _, frames in seen[:-1])
    assert all(set(episodes) - done for episodes, _ in seen)


class Pose(InverseModel):
    """An absolute pose read off a single frame."""

    reads = Window(features=("observation.state",))

    def infer(self, window):
        action = window["observation.state"].float()
        return Inferred(action, torch.ones(action.shape[:2]))


def test_a_single_frame_needs_no_successor_and_a_causal_window_neither():
    recordings = from_arrays([{"observation.state": np.random.default_rng(0).normal(size=(9, 3))}], actions=None)
    (answer,) = infer(Pose(), recordings)
    assert answer.seen.all()
    assert answer.action == pytest.approx(recordings[0]["observation.state"], abs=1e-6)
    assert guessed(Window(7, 0, ("x",)), slice(-1, None), SPACE) == (0, 0)


@pytest.mark.parametrize(
    ("model", "guesses"), [(Toy(), {3, 4}), (Toy(before=4, after=4, keep=(2, 6)), {*range(8)}), (Pose(), {4})]
)
def test_labels_for_which_something_was_missing_are_guesses(model, guesses):
    recordings, _ = play(1, 24, noise=0.0, ragged=False)
    if isinstance(model, Toy):
        model.fit(recordings)
    there = np.arange(24) != 4
    (answer,) = infer(model, recordings.with_column("valid.observation.state", [there]))
    last = set() if isinstance(model, Pose) else {23}
    assert set(np.flatnonzero(~answer.seen).tolist()) == guesses | last


@pytest.mark.parametrize(("leads", "guesses"), [(True, {6, 11, 23}), (False, {0, 7, 12})])
def test_an_action_is_not_read_off_a_frame_beyond_an_end_within_the_episode(leads, guesses):
    recordings = replace(play(1, 24, noise=0.0, ragged=False)[0], actions=replace(SPACE, leads=leads))
    at = np.arange(24)[:, None]
    recordings = recordings.with_column("next.terminated", [at == 6]).with_column("next.truncated", [at == 11])
    model = (Toy() if leads else Toy(before=1, after=0, keep=(1, 2))).fit(recordings)
    (answer,) = infer(model, recordings)
    assert set(np.flatnonzero(~answer.seen).tolist()) == guesses


def test_which_step_is_a_guess_follows_the_convention_of_the_actions():
    led = ActionSpace({"a": Box(("a",))}, leads=False)
    pair = Window(1, 0, ("x",))
    assert guessed(pair, slice(1, 2), led) == (1, 0)
    assert guessed(Window(0, 1, ("x",)), slice(0, 1), None) == (0, 1)


def test_refusals_name_the_episode():
    recordings, _ = play(3)
    model = Toy().fit(recordings)
    with pytest.raises(DataError, match=r"episode 0 of toy lacks 'observation\.state'"):
        list(infer(model, recordings.without("observation.state")))
    with pytest.raises(DataError, match="episode 0 of toy: .* not finite at step 0"):
        list(infer(Toy(broken=True).fit(recordings), recordings))
    model.infer = lambda window: Inferred(torch.zeros(2, 3, 1), torch.zeros(2, 3))
    with pytest.raises(DataError, match="every step of 64 windows of 2"):
        list(infer(model, recordings))
