import json
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from labelling_toy import SPACE, Toy, play

from retrodict.errors import DataError, NotFittedError
from retrodict.labelling import CannotPromise, Labelled, label
from retrodict.labelling.job import model_hash
from retrodict.labelling.shards import Shards
from retrodict.metrics import Rightness
from retrodict.trajectories import Feature, from_arrays
from retrodict.trajectories.features import RUNS
from retrodict.trajectories.stores import lerobot
from retrodict.trajectories.stores.lerobot.labels import FROM_EPISODE, FROM_FRAME

CONFIDENCE, SOURCE, RUN = "label.action.confidence", "label.action.source", "label.action.run"


@pytest.fixture
def toy() -> Toy:
    """Fitted on the first two of the labelled episodes of `play`, so that the others are held out."""
    recordings, _ = play()
    return Toy().fit(recordings.select([0, 1]))


def same(one: Labelled, other: Labelled) -> bool:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert set(a) - {"timestamp"} == set(b) - {"timestamp"}
        for name in ("observation.state", "action", CONFIDENCE, SOURCE, RUN):
            assert np.array_equal(np.asarray(a[name]).reshape(a.length, -1), np.asarray(b[name]).reshape(b.length, -1)), name
    return True


def test_episodes_without_actions_get_them_and_recorded_ones_stay(toy):
    recordings, truth = play()
    labelled = label(recordings, toy)
    assert len(labelled) == 12
    for i, (episode, action) in enumerate(zip(labelled, truth, strict=True)):
        source = 0 if i < 6 else 1
        assert (episode[SOURCE] == source).all()
        assert (episode[RUN] == (0 if source else -1)).all()
        assert (np.asarray(episode[CONFIDENCE]) == 1).all() == (not source)
        if not source:
            assert (episode["action"] == action).all()
    found = np.concatenate([e["action"] for e in labelled.episodes[6:]])
    assert Rightness.of(SPACE, found).joint(found, np.concatenate(truth[6:])).mean() > 0.5
    record = labelled.meta[RUNS][0]
    assert (record["model"], record["hash"]) == ("toy-inverse", model_hash(toy))
    assert record["calibration"]["episodes"] == 4


@pytest.mark.parametrize("on_disk", [False, True])
def test_steps_whose_action_is_marked_missing_get_one_too(toy, tmp_path, on_disk):
    recordings, truth = play()
    there = [np.arange(e.length) % 3 != 1 if i in (4, 5) else np.ones(e.length, bool) for i, e in enumerate(recordings)]
    marked = recordings.with_column(
        "valid.action", [seen[:, None] for seen in there[:6]] + [None] * 6, Feature("bool", (1,))
    ).with_column(
        "action",
        [np.where(seen[:, None], action, np.nan) for seen, action in zip(there, truth, strict=True)][:6] + [None] * 6,
        recordings.features["action"],
    )
    labelled = label(marked, toy, out=tmp_path / "out" if on_disk else None)
    assert "valid.action" not in labelled.features
    for i in (4, 5):
        episode, seen = labelled[i], there[i]
        np.testing.assert_array_equal(episode["action"][seen], truth[i][seen])
        assert np.isfinite(episode["action"]).all()
        np.testing.assert_array_equal(np.asarray(episode[SOURCE]).reshape(-1), np.where(seen, 0, 1))
        assert (np.asarray(episode[CONFIDENCE]).reshape(-1)[seen] == 1).all()
        assert (np.asarray(episode[CONFIDENCE]).reshape(-1)[~seen] < 1).all()
    assert (labelled.summary.recorded, labelled.summary.labelled) == (4, 8)
    assert labelled.summary.steps == sum(e.length for e in recordings.episodes[6:]) + sum(int((~there[i]).sum()) for i in (4, 5))


def test_confidences_come_out_calibrated(toy):
    recordings, truth = play(40, labelled=20)
    labelled = label(recordings, toy)
    calibration = labelled.summary.calibration
    assert calibration.episodes == 18  # two of the twenty taught the model
    assert calibration.after["ece"] < 0.06 < calibration.before["ece"]
    found, confidence = (np.concatenate([np.asarray(e[n]) for e in labelled.episodes[20:]]) for n in ("action", CONFIDENCE))
    right = Rightness.of(SPACE, found).joint(found, np.concatenate(truth[20:]))
    sure = confidence > 0
    assert confidence[sure].mean() == pytest.approx(right[sure].mean(), abs=0.05)
    assert (confidence == 0).sum() == 20 == labelled.summary.guessed  # the last step of each has no successor


def test_max_error_keeps_runs_of_sure_steps_that_name_their_frames(toy):
    recordings, truth = play(80, labelled=40)
    labelled = label(recordings, toy, max_error=0.1)
    inferred = [e for e in labelled if e[SOURCE][0] == 1]
    found = np.concatenate([e["action"] for e in inferred])
    at = [(int(e[FROM_EPISODE][0]), int(e[FROM_FRAME][0]), e.length) for e in inferred]
    true = np.concatenate([truth[i][a : a + n] for i, a, n in at])
    assert (~Rightness.of(SPACE, found).joint(found, true)).mean() <= 0.1
    assert labelled.summary.kept == len(found) > 0.3 * labelled.summary.steps
    for episode, (i, a, n) in zip(inferred, at, strict=True):
        assert (episode["observation.state"] == recordings[i]["observation.state"][a : a + n]).all()
        assert episode.meta["origin/episode_index"] == i
        assert (episode.meta["origin/from_frame"], episode.meta["origin/to_frame"]) == (a, a + n)
        assert a + n < recordings[i].length  # the last step is a guess
    assert len([e for e in labelled if e[SOURCE][0] == 0]) == 40
    assert "at most 0.1 of the kept labels" in str(labelled.summary)


def test_weight_marks_what_is_withheld(toy):
    recordings, _ = play(80, labelled=40)
    split = label(recordings, toy, max_error=0.1)
    weighed = label(recordings, toy, max_error=0.1, emit="weight")
    weights = np.concatenate([np.asarray(e["sample.weight"]) for e in weighed])
    assert set(np.unique(weights)) == {0, 1}
    assert weights.sum() == split.steps
    soft = label(recordings, toy, emit="weight")
    assert (soft[50]["sample.weight"] == soft[50][CONFIDENCE]).all()


def test_the_summary_answers_what_people_ask(toy):
    recordings, _ = play(80, labelled=40)
    summary = label(recordings, toy, max_error=0.1).summary
    text = str(summary)
    for part in (
        "40 episodes",
        "toy-inverse",
        "Right means: every button and choice is the same and every continuous value lies within 0.05 of its range",
        "calibration error",
        "jump = multi binary (jump)",
        "leads to the next row",
        "in an episode like the 38 held-out ones",
        "held-out labelled episodes",
        "guesses",
        "Took",
    ):
        assert part in text
    assert sum(summary.histogram) == summary.steps
    assert set(summary.part_errors) == {"jump", "turn"}
    json.dumps(summary.to_json(), allow_nan=False)
    assert summary.expected_error == pytest.approx(0.05, abs=0.06)


def test_episodes_that_chose_the_weights_are_not_calibrated_on():
    """The promise made on them did not hold: they flatter the model as much as what it learned from."""
    recordings, _ = play(30, labelled=20)
    chosen = Toy().fit(recordings[:2], validation=recordings[2:6])
    labelled = label(recordings, chosen)
    assert labelled.summary.calibration.episodes == 14
    with pytest.raises(CannotPromise, match=r"takes 19 or more .* there are 14: of the 20 .* 2 taught .* 4 chose"):
        label(recordings, chosen, max_error=0.05)
    used = Toy().fit(recordings[:2], validation=recordings[2:20])
    text = str(label(recordings, used).summary)
    assert "of the 20 labelled episodes 2 taught the model and 18 chose its weights; fit it without some" in text
    with pytest.raises(CannotPromise, match="there are 0"):
        label(recordings, used, max_error=0.3)
    with pytest.raises(DataError, match="none of the 18 episodes given for calibration"):
        label(recordings, used, calibration=recordings[2:20])


def test_pieces_of_an_episode_are_one_unit(toy):
    """Cut into forty pieces, five episodes stay five: the pieces err together."""
    recordings, _ = play(12, labelled=7)
    whole = label(recordings, toy, max_error=0.3)
    pieces = [
        replace(e, length=6, slices={n: replace(where, start=where.start + at) for n, where in e.slices.items()})
        for e in recordings[2:7]
        for at in range(0, 48, 6)
    ]
    cut = label(recordings, toy, max_error=0.3, calibration=recordings.of(pieces))
    assert (whole.summary.promise.episodes, cut.summary.promise.episodes) == (5, 5)
    with pytest.raises(CannotPromise, match="there are 5"):
        label(recordings, toy, max_error=0.1, calibration=recordings.of(pieces))


def test_on_disk_it_is_what_it_is_in_memory(toy, tmp_path):
    recordings, _ = play(30, labelled=20)
    for options in ({}, {"max_error": 0.2}, {"emit": "weight"}):
        out = tmp_path / f"out{len(options)}{options.get('emit', '')}"
        written = label(recordings, toy, out=out, **options)
        assert same(written, label(recordings, toy, **options))
        assert not out.with_name(f"{out.name}.labelling").exists()
        assert lerobot.read(out).meta[RUNS][0]["hash"] == model_hash(toy)
        assert written.summary.out == str(out)


@pytest.mark.parametrize("where", ["infer", "write"])
def test_interrupted_anywhere_the_same_call_goes_on_and_gives_the_same(toy, tmp_path, monkeypatch, where):
    recordings, _ = play(16, labelled=8)
    whole = label(recordings, toy, out=tmp_path / "whole", batch=16)
    home, name = (Shards, "put") if where == "infer" else (lerobot.LabelWriter, "add")
    plain, calls = getattr(home, name), []

    def stopping(*args):
        calls.append(1)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return plain(*args)

    monkeypatch.setattr(home, name, stopping)
    with pytest.raises(KeyboardInterrupt):
        label(recordings, toy, out=tmp_path / "cut", batch=16)
    assert not (tmp_path / "cut").exists()
    monkeypatch.undo()
    asked = []
    infer = toy.infer
    monkeypatch.setattr(toy, "infer", lambda window: asked.append(1) or infer(window), raising=False)
    again = label(recordings, toy, out=tmp_path / "cut", batch=16)
    assert same(whole, again)
    assert (len(asked) == 0) if where == "write" else (0 < len(asked) < 40)


@pytest.mark.slow
def test_a_killed_process_loses_nothing(tmp_path):
    """`os._exit` is what a kill looks like from inside: no cleaning up."""
    script = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from labelling_toy import Toy, play
from retrodict.labelling import label
recordings, _ = play(16, labelled=8)
toy = Toy().fit(recordings.select([0, 1]))
calls, infer = [], toy.infer
def dying(window):
    calls.append(1)
    if len(calls) == 40:
        os._exit(9)
    return infer(window)
toy.infer = dying
label(recordings, toy, out={str(tmp_path / "out")!r}, batch=16)
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 9
    kept = list((tmp_path / "out.labelling").glob("target-*.npz"))
    assert kept
    kept[0].write_bytes(b"cut off")  # a power cut on top
    recordings, _ = play(16, labelled=8)
    toy = Toy().fit(recordings.select([0, 1]))
    assert same(label(recordings, toy, out=tmp_path / "out", batch=16), label(recordings, toy, batch=16))


def test_stopped_between_writing_and_tidying_up_it_does_not_write_again(toy, tmp_path, monkeypatch):
    recordings, _ = play(10, labelled=5)
    monkeypatch.setattr(Shards, "remove", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        label(recordings, toy, out=tmp_path / "out")
    monkeypatch.undo()
    before = (tmp_path / "out/meta/info.json").stat().st_mtime_ns
    assert label(recordings, toy, out=tmp_path / "out").summary.labelled == 5
    assert (tmp_path / "out/meta/info.json").stat().st_mtime_ns == before
    assert not (tmp_path / "out.labelling").exists()


def test_labels_of_another_model_are_not_taken_for_these(toy, tmp_path, monkeypatch):
    recordings, _ = play(10, labelled=5)
    other = Toy(boast=1).fit(recordings.select([0]))
    monkeypatch.setattr(lerobot.LabelWriter, "add", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        label(recordings, toy, out=tmp_path / "out", max_error=0.3)
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"another configuration \(model"):
        label(recordings, other, out=tmp_path / "out")
    # The same model with another bound goes on from what is there.
    assert label(recordings, toy, out=tmp_path / "out", emit="all").summary.labelled == 5


def test_without_held_out_episodes_it_says_so_and_promises_nothing():
    recordings, _ = play(8, labelled=3)
    toy = Toy().fit(recordings)
    labelled = label(recordings, toy)
    assert labelled.summary.calibration is None
    assert "as the model gave them" in str(labelled.summary)
    with pytest.raises(DataError, match=r"there are 0: of the 3 labelled episodes 3 taught the model"):
        label(recordings, toy, max_error=0.1)
    given, _ = play(30, labelled=30, seed=5)
    with pytest.raises(DataError, match="none of the 8 episodes given for calibration"):
        label(recordings, toy, calibration=recordings)
    others = from_arrays([{n: e[n] for n in e} for e in given], actions=SPACE, source="more")
    assert label(recordings.lacking("action"), toy, calibration=others).summary.calibration.episodes == 30


def test_another_look_of_the_target_is_warned_of(toy):
    recordings, _ = play(16, labelled=16)
    other, _ = play(16, labelled=0, seed=3, level=500)
    mixed = from_arrays([{n: e[n] for n in e} for e in (*recordings, *other)], fps=10, actions=SPACE, source="toy")
    with pytest.warns(UserWarning, match=r"differ from those calibrated on: level of observation\.state is higher"):
        labelled = label(mixed, toy)
    assert "may not hold" in str(labelled.summary)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        label(play(32, labelled=16)[0], toy)


def test_actions_out_of_step_are_warned_of(toy):
    recordings, truth = play(16, labelled=8)
    late = recordings.with_column("action", [np.roll(truth[i], 1, 0) if i < 8 else None for i in range(16)])
    with pytest.warns(UserWarning, match=r"in all 8 episodes the actions are 1 row\(s\) late"):
        label(late, toy)


def test_labelling_again_keeps_the_run_of_what_was_labelled(toy, tmp_path):
    recordings, _ = play(10, labelled=5)
    first = label(recordings, toy)
    more, _ = play(3, labelled=0, seed=9)
    values = [{n: e[n] for n in e} for e in (*first, *more)]
    joined = from_arrays(values, fps=10, actions=SPACE, source="toy", meta=first.meta)
    again = label(joined, toy)
    assert [int(e[RUN][0]) for e in again] == [-1] * 5 + [0] * 5 + [1] * 3
    assert again.summary.calibration.episodes == 3  # inferred actions are no truth to calibrate on
    joined.save(tmp_path / "joined")
    on_disk = label(lerobot.read(tmp_path / "joined"), toy, out=tmp_path / "again")
    assert [int(e[RUN][0]) for e in on_disk] == [int(e[RUN][0]) for e in again]
    assert len(again.meta[RUNS]) == 2


def test_refusals(toy, tmp_path):
    recordings, _ = play()
    with pytest.raises(DataError, match="takes a fitted inverse model; this is a str"):
        label(recordings, "vpt")
    with pytest.raises(NotFittedError):
        label(recordings, Toy())
    with pytest.raises(DataError, match="nothing to label"):
        label(recordings.having("action"), toy)
    with pytest.raises(DataError, match="emit='all' withholds no label"):
        label(recordings, toy, emit="all", max_error=0.1)
    with pytest.raises(DataError, match="between 0 and 1"):
        label(recordings, toy, max_error=5)
    with pytest.raises(DataError, match="split, weight, all are known"):
        label(recordings, toy, emit="some")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").write_text("mine")
    with pytest.raises(DataError, match="exists already"):
        label(recordings, toy, out=tmp_path / "taken")
    assert (tmp_path / "taken/file").read_text() == "mine"
    assert not (tmp_path / "taken.labelling").exists()
