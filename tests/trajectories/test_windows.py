"""Windows against slicing by hand: a naive reference reads one step of one window at a time."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from retrodict.errors import DataError
from retrodict.trajectories import Recordings, Span, Window, from_arrays, from_samples
from retrodict.trajectories.features import WEIGHT
from retrodict.trajectories.windows import gathering, prefetch
from retrodict.trajectories.windows.spans import Between

STATE, ACTION = "observation.state", "action"


def ragged(lengths: list[int], **options: object) -> Recordings:
    """Episodes whose values say where they come from: 1000 * episode + step."""
    episodes = [
        {
            STATE: np.stack([1000.0 * i + np.arange(n), -np.arange(n)], 1).astype(np.float32),
            ACTION: (1000.0 * i + np.arange(n))[:, None].astype(np.float32),
        }
        for i, n in enumerate(lengths)
    ]
    return from_arrays(episodes, fps=10, **options)  # type: ignore[arg-type]


def by_hand(recordings: Recordings, episode: int, steps: list[int], name: str) -> tuple[np.ndarray, list[bool]]:
    values, inside = [], []
    for step in steps:
        last = recordings[episode].length - 1
        values.append(recordings[episode][name][min(max(step, 0), last)])
        inside.append(0 <= step <= last)
    return np.stack(values), inside


spans = st.builds(Span, st.integers(0, 3), st.integers(0, 3), st.integers(1, 3), st.integers(-4, 4))
edges = st.sampled_from(["replicate", "drop"])
lengths_ = st.lists(st.integers(1, 12), min_size=1, max_size=5)


@settings(max_examples=150)
@given(lengths_, spans, spans, st.tuples(edges, edges), st.integers(1, 9), st.integers(0, 3))
def test_every_window_equals_slicing_by_hand(lengths, span, own, edge, batch, seed):
    recordings = ragged(lengths)
    window = Window(span.before, span.after, {STATE: None, ACTION: own}, stride=span.stride, offset=span.offset, edge=edge)
    relative = [(np.arange(-s.before, s.after + 1) * s.stride + s.offset).tolist() for s in (span, own)]
    low, high = min(map(min, relative)), max(map(max, relative))
    expected = {
        (e, f)
        for e, n in enumerate(lengths)
        for f in range(n)
        if (edge[0] == "replicate" or f + low >= 0) and (edge[1] == "replicate" or f + high < n)
    }
    if not expected:
        with pytest.raises(DataError, match="no window fits"):
            recordings.windows(window, batch)
        return
    seen = []
    for got in recordings.windows(window, batch, seed=seed):
        anchors = list(zip(got["episode"].tolist(), got["frame"].tolist(), strict=True))
        seen += anchors
        for b, (e, f) in enumerate(anchors):
            values, inside = by_hand(recordings, e, [f + r for r in relative[0]], STATE)
            assert np.array_equal(got[STATE][b], values)
            assert got["mask"][b].tolist() == inside
            actions, inside = by_hand(recordings, e, [f + r for r in relative[1]], ACTION)
            assert np.array_equal(got[ACTION][b], actions)
            assert (got[ACTION][b] // 1000 == e).all()  # never a step of another episode
            if own != span:
                assert got[f"mask.{ACTION}"][b].tolist() == inside
            steps = np.array([f + r for r in relative[0]])
            assert got["first"][b].tolist() == (steps == 0).tolist()
            held = steps.clip(0, lengths[e] - 1) / max(lengths[e] - 1, 1)
            assert np.allclose(got["fraction"][b], held)
    assert len(seen) == len(expected)  # each anchor once
    assert set(seen) == expected


@settings(max_examples=40)
@given(
    lengths_,
    st.sampled_from(["shuffle", "sequence", "replacement"]),
    st.integers(1, 7),
    st.integers(0, 20),
    st.sampled_from([None, "domain", "episode"]),
)
def test_a_resumed_run_reads_what_it_would_have_read(lengths, order, batch, start, balance):
    recordings = ragged(lengths, domains=[f"d{i % 2}" for i in range(len(lengths))])
    window = Window(1, 1, (STATE,), stride=(1, 2, 3), reverse=0.5)
    options = {"order": order, "seed": 3, "balance": balance}
    whole = list(itertools.islice(recordings.windows(window, batch, prefetch=0, **options).stream(), start + 4))
    resumed = recordings.windows(window, batch, prefetch=2, **options)
    for want, got in zip(whole[start:], resumed.stream(start, start + 4), strict=True):
        assert want.keys() == got.keys()
        assert all(torch.equal(want[name], got[name]) for name in want)


def test_epochs_differ_and_seeds_differ():
    recordings = ragged([40])
    windows = recordings.windows(Window(features=(STATE,)), 40, seed=0)
    assert windows.at(0)["frame"].tolist() != windows.at(1)["frame"].tolist()
    assert windows.at(0)["frame"].tolist() != recordings.windows(Window(features=(STATE,)), 40, seed=1).at(0)["frame"].tolist()


@settings(max_examples=60)
@given(lengths_, st.integers(0, 2), st.integers(1, 3), edges, st.floats(0.1, 1))
def test_drawn_strides_reversal_and_the_actions_between(lengths, before, after, edge, reverse):
    recordings = ragged(lengths)
    strides = (1, 2, 4)
    window = Window(before, after, {STATE: None, ACTION: Between()}, stride=strides, edge=edge, reverse=reverse)
    try:
        windows = recordings.windows(window, 16, order="replacement", seed=5)
    except DataError:
        assert edge == "drop"
        assert max(lengths) <= before + after
        return
    got = windows.at(0)
    hops = before + after
    assert got[ACTION].shape == (16, hops * 4, 1)
    for b in range(16):
        e, f, k = (int(got[key][b]) for key in ("episode", "frame", "stride"))
        assert k in strides
        steps = [f + i * k for i in range(-before, after + 1)]
        dense = list(range(steps[0], steps[-1]))
        dense += [steps[-1] - 1] * (hops * 4 - len(dense))
        true = [True] * (hops * k) + [False] * (hops * (4 - k))
        if got["reversed"][b]:
            steps, dense, true = steps[::-1], dense[::-1], true[::-1]
        values, inside = by_hand(recordings, e, steps, STATE)
        assert np.array_equal(got[STATE][b], values)
        assert got["mask"][b].tolist() == inside
        assert all(inside) or edge == "replicate"
        values, inside = by_hand(recordings, e, dense, ACTION)
        assert np.array_equal(got[ACTION][b], values)
        assert got[f"mask.{ACTION}"][b].tolist() == [i and t for i, t in zip(inside, true, strict=True)]


def test_all_strides_are_drawn_equally_where_they_fit():
    got = ragged([1000]).windows(Window(0, 1, (STATE,), stride=(1, 3, 9), edge="drop"), 6000, order="replacement").at(0)
    assert np.bincount(got["stride"], minlength=10)[[1, 3, 9]] == pytest.approx([2000] * 3, rel=0.1)
    assert ((got[STATE][:, 1, 0] - got[STATE][:, 0, 0]) == got["stride"]).all()


def test_past_and_future_of_one_feature():
    window = Window(features={STATE: (Span(before=1), Span(after=2, stride=2, offset=2)), ACTION: Span(after=3)})
    got = ragged([20]).windows(window, 1, order="sequence").at(5)
    assert got[STATE][0, :, 0].tolist() == [4, 5, 7, 9, 11]
    assert got[ACTION][0, :, 0].tolist() == [5, 6, 7, 8]


def test_windows_in_seconds_on_a_steady_clock_are_windows_in_rows():
    recordings = ragged([9, 14])
    seconds = recordings.windows(Window(2, 1, (STATE,), every=0.2, offset=0.1), 23, order="sequence").at(0)
    rows = recordings.windows(Window(2, 1, (STATE,), stride=2, offset=1), 23, order="sequence").at(0)
    assert all(torch.equal(seconds[name], rows[name]) for name in rows)


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=9), min_size=1, max_size=4),
    st.integers(0, 2),
    st.integers(0, 2),
    st.floats(0.1, 1.0),
    edges,
)
def test_windows_in_seconds_on_an_irregular_clock(gaps, before, after, every, edge):
    clocks = [5.0 + np.cumsum(gap) for gap in gaps]
    recordings = from_arrays([{"timestamp": t, STATE: t[:, None]} for t in clocks])
    try:
        windows = recordings.windows(Window(before, after, (STATE,), every=every, edge=edge), 1, order="sequence")
    except DataError:
        assert edge == "drop"
        return
    for got in windows:
        times = clocks[int(got["episode"][0])]
        for i, read in enumerate(got[STATE][0, :, 0].numpy()):
            wanted = times[int(got["frame"][0])] + (i - before) * every
            assert abs(read - wanted) <= np.abs(times - wanted).min() + 1e-9  # no row is nearer
            if abs(abs(read - wanted) - every / 2) > 1e-5:
                assert bool(got["mask"][0, i]) == (abs(read - wanted) < every / 2)


def test_an_irregular_clock_without_timestamps_is_refused():
    recordings = from_arrays([{STATE: np.zeros((5, 1))}])
    with pytest.raises(DataError, match="neither fps nor timestamps"):
        recordings.windows(Window(1, 0, (STATE,), every=0.1))


def test_weights_by_step_and_by_episode():
    recordings = ragged([50, 50]).with_column("sample.weight", [np.full((50, 1), 0.25, np.float32), np.ones((50, 1), np.float32)])
    got = recordings.windows(Window(features=(STATE,)), 4000).at(0)
    assert float((got["episode"] == 1).float().mean()) == pytest.approx(0.8, abs=0.03)
    got = recordings.windows(Window(features=(STATE,)), 4000, weights=[0.0, 2.0]).at(0)
    assert (got["episode"] == 1).all()
    got = recordings.windows(Window(features=(STATE,)), 100, weights=None).at(0)
    assert sorted(got[STATE][:, 0, 0].tolist()) == sorted([*range(50), *range(1000, 1050)])


def test_weights_of_nought_and_one_keep_each_anchor_once():
    keep = (np.arange(30) % 3 == 0).astype(np.float32)
    recordings = ragged([30]).with_column("sample.weight", [keep])
    assert sorted(f for got in recordings.windows(Window(features=(STATE,)), 4) for f in got["frame"].tolist()) == list(
        range(0, 30, 3)
    )
    assert len(recordings.windows(Window(features=(STATE,)), 30, order="sequence").at(0)["frame"]) == 30


@pytest.mark.parametrize("bad", [[-1.0, 1.0], [0.0, 0.0], [np.nan, 1.0], [1.0]])
def test_bad_weights_are_refused(bad):
    with pytest.raises(DataError, match="weights"):
        ragged([3, 3]).windows(Window(features=(STATE,)), weights=bad)


def test_every_batch_has_an_equal_share_of_each_domain():
    recordings = ragged([100, 3, 5, 20], domains=["a", "b", "b", "c"])
    windows = recordings.windows(Window(features=(STATE,)), 12, balance="domain")
    for step in range(5):
        assert np.bincount(windows.at(step)["domain"]).tolist() == [4, 4, 4]
    share = np.bincount(recordings.windows(Window(features=(STATE,)), 3000, balance="domain").at(0)["episode"])
    assert share[1] / share[2] == pytest.approx(3 / 5, rel=0.2)  # within a domain, steps are equal


def test_where_chooses_the_anchors_but_not_what_is_read_around_them():
    recordings = ragged([10, 10])
    got = recordings.windows(Window(1, 1, (STATE,)), 20, where=lambda e: e[ACTION][:, 0] % 5 == 2, order="sequence").at(0)
    assert got["frame"].tolist() == [2, 7, 2, 7]
    assert got[STATE][0, :, 0].tolist() == [1, 2, 3]
    marked = recordings.with_column("label.keep", [np.zeros(10, bool), np.arange(10) == 4])
    assert marked.windows(Window(features=(STATE,)), where="label.keep").anchors.tolist() == [[1, 4]]
    with pytest.raises(DataError, match="leaves no step"):
        recordings.windows(Window(features=(STATE,)), where=lambda e: np.zeros(len(e), bool))
    with pytest.raises(DataError, match="expected 10 booleans"):
        recordings.windows(Window(features=(STATE,)), where=lambda e: np.zeros(3, bool))


def test_clips_visit_each_episode_once_an_epoch():
    recordings = ragged([10, 1, 30])
    windows = recordings.windows(Window(1, 1, (STATE,)), 8, clips=4, seed=1)
    for epoch in range(2):
        read = [e for step in range(len(windows)) for e in windows.at(epoch * len(windows) + step)["episode"].tolist()]
        assert len(read) == 12
        assert {len(set(read[i : i + 4])) for i in (0, 4, 8)} == {1}
        assert set(read) == {0, 1, 2}


def test_clips_are_drawn_by_weight():
    weights = [np.array([0, 1, 0, 3, 0], np.float32), np.array([0, 0, 2], np.float32), np.array([1, 1], np.float32)]
    recordings = from_arrays([{STATE: np.zeros((len(w), 1), np.float32), WEIGHT: w[:, None]} for w in weights], fps=1)
    windows = recordings.windows(Window(features=(STATE,)), 12, clips=400, seed=1)
    drawn = [windows.at(step) for step in range(len(windows))]
    episode, frame = (np.concatenate([batch[name].numpy() for batch in drawn]) for name in ("episode", "frame"))
    for number, weight in enumerate(weights):
        counts = np.bincount(frame[episode == number], minlength=len(weight))
        np.testing.assert_allclose(counts / 400, weight / weight.sum(), atol=0.08)
        assert not counts[weight == 0].any()


def test_optional_features_and_gaps_are_masked_and_never_hand_out_filler():
    valid = np.array([True, False, True])
    recordings = from_arrays(
        [
            {STATE: np.ones((3, 2), np.float32), f"valid.{STATE}": valid, ACTION: np.ones((3, 1), np.float32)},
            {STATE: np.full((2, 2), 7, np.float32)},
        ],
        fps=1,
    )
    got = recordings.windows(Window(1, 0, (STATE, ACTION), optional=(ACTION,)), 5, order="sequence").at(0)
    assert got[f"mask.{STATE}"].tolist() == [[False, True], [True, False], [False, True], [False, True], [True, True]]
    assert got[STATE][:, 1, 0].tolist() == [1, 0, 1, 7, 7]
    assert got[f"mask.{ACTION}"].tolist() == [[False, True], [True, True], [True, True], [False, False], [False, False]]
    assert got[ACTION][3:].abs().sum() == 0
    only = recordings.windows(Window(features=(STATE, ACTION)), 5, order="sequence").at(0)
    assert only["episode"].tolist() == [0, 0, 0]  # without `optional` the episode that lacks it is left out
    assert "action" not in recordings.without(ACTION).windows(Window(features=(STATE, ACTION), optional=(ACTION,))).at(0)


def test_points_that_differ_in_number_are_padded_and_masked():
    points = [np.arange(n * k * 2, dtype=np.float32).reshape(n, k, 2) + 1 for n, k in ((4, 3), (3, 5))]
    valid = [np.ones((4, 3), bool), np.ones((3, 5), bool)]
    valid[1][:, 2] = False
    name = "observation.points"
    recordings = from_arrays([{name: p, f"valid.{name}": v} for p, v in zip(points, valid, strict=True)], fps=1)
    got = recordings.windows(Window(1, 0, (name,)), 7, order="sequence").at(0)
    assert got[name].shape == (7, 2, 5, 2)
    assert torch.equal(got[name][2, :, :3], torch.from_numpy(points[0][1:3]))
    assert got[name][2, :, 3:].abs().sum() == 0
    assert got[f"mask.{name}"][2].tolist() == [[True] * 3 + [False] * 2] * 2
    assert got[f"mask.{name}"][5, 1].tolist() == [True, True, False, True, True]
    assert got[f"mask.{name}"][0, 0].tolist() == [False] * 5  # before the episode began


def test_text_tasks_scalars_and_clocks():
    recordings = from_arrays(
        [
            {"language": np.array(["up", "down", "up"], object), "next.reward": np.arange(3.0), "timestamp": np.arange(3) / 2},
            {"language": np.array(["left"], object), "next.reward": np.ones(1), "timestamp": np.zeros(1)},
        ],
        tasks=["climb", "turn"],
    )
    got = recordings.windows(Window(1, 0, ("language", "task", "next.reward", "timestamp")), 4, order="sequence").at(0)
    assert got["language"] == [["up", "up"], ["up", "down"], ["down", "up"], ["left", "left"]]
    assert got["task"] == [["climb", "climb"]] * 3 + [["turn", "turn"]]
    assert got["next.reward"].shape == (4, 2, 1)
    assert got["timestamp"][2].tolist() == [0.5, 1.0]


def test_independent_samples_have_windows_of_one_step_only():
    samples = from_samples(observation__image=np.zeros((6, 8, 8, 3), np.uint8), label__class=np.arange(6))
    got = samples.windows(Window(features=("observation.image", "label.class")), 6, order="sequence").at(0)
    assert got["observation.image"].shape == (6, 1, 3, 8, 8)
    for window in (
        Window(1, 0, ("label.class",)),
        Window(0, 0, ("label.class",), offset=1),
        Window(0, 0, {"label.class": Span(1)}),
    ):
        with pytest.raises(DataError, match="independent samples"):
            samples.windows(window)


def test_images_in_memory_are_resized_where_asked():
    camera = "observation.images.top"
    frames = [np.random.default_rng(i).integers(0, 256, (5, 24 + 8 * i, 32, 3), np.uint8) for i in range(2)]
    recordings = from_arrays([{camera: f} for f in frames], fps=1)
    got = recordings.windows(Window(1, 0, (camera,), image_size=(12, 16)), 10, order="sequence").at(0)[camera]
    assert got.shape == (10, 2, 3, 12, 16)
    assert got.dtype == torch.uint8
    with pytest.raises(DataError, match="image_size"):
        recordings.windows(Window(features=(camera,)))


def test_what_cannot_be_read_is_refused_in_a_sentence():
    recordings = ragged([3])
    with pytest.raises(DataError, match=r"no episode has all of observation\.images\.front"):
        recordings.windows(Window(features=("observation.images.front",)))
    with pytest.raises(DataError, match="longest of 1 episode"):
        recordings.windows(Window(5, 0, (STATE,), edge="drop"))
    with pytest.raises(DataError, match="at least one window"):
        recordings.windows(Window(features=(STATE,)), 0)
    with pytest.raises(DataError, match="one stride is drawn"):
        Window(0, 1, {STATE: Span(after=1, stride=(1, 2)), ACTION: Span(after=1, stride=(1, 3))})
    with pytest.raises(DataError, match="balance"):
        recordings.windows(Window(features=(STATE,)), balance="colour")
    mixed = from_arrays([{STATE: np.zeros((3, 2))}], fps=1) + from_arrays([{ACTION: np.zeros((3, 2))}], fps=1)
    with pytest.raises(DataError, match="no episode has all of"):
        mixed.windows(Window(features=(STATE, ACTION)))


def test_memory_is_used_again_only_when_nobody_holds_what_was_read_into_it(monkeypatch):
    monkeypatch.setattr(gathering, "LARGE_BYTES", 1)
    windows = ragged([60]).windows(Window(1, 0, (STATE,)), 8, prefetch=2)
    held, addresses = [], set()
    for step, batch in enumerate(windows.stream(0, 40)):
        addresses.add(batch[STATE].data_ptr())
        if step % 3 == 0:
            held.append((step, batch[STATE][2:, 1:].numpy()))  # a view of a view is all that is kept
    del batch
    for step, values in held:
        assert np.array_equal(values, windows.at(step)[STATE][2:, 1:])
    assert len(held) <= len(addresses) < 40


@pytest.mark.parametrize(("using", "thread"), [(0.0, False), (0.05, False), (0.5, True)])
def test_batches_are_made_ahead_where_there_is_time_to(monkeypatch, using, thread):
    clock = [0.0]
    monkeypatch.setattr(prefetch.time, "perf_counter", lambda: clock[0])
    makers = []

    def make(step):
        makers.append(threading.current_thread().name)
        clock[0] += 1.0
        return step

    taken = []
    for batch in prefetch.ahead(make, iter(range(12)), 2):
        taken.append(batch)
        clock[0] += using
    assert taken == list(range(12))
    assert any(name.startswith("retrodict-windows") for name in makers) == thread


def test_an_iteration_that_is_left_ends_its_thread_and_an_error_reaches_the_reader():
    before = threading.active_count()
    windows = ragged([30]).windows(Window(features=(STATE,)), 1, prefetch=2)
    for _ in windows:
        break
    iterator = iter(windows)
    next(iterator)
    del iterator
    assert threading.active_count() == before
    windows.anchors = np.full((30, 2), 99)  # no such episode
    with pytest.raises(IndexError):
        next(iter(windows))


def test_who_reads_no_batch_does_not_pay_for_torch():
    asked = "import sys; import retrodict.trajectories.stores, retrodict.trajectories as t; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "False"
