"""The frame of a claim run: resumable by (arm, seed), honest about what was left out."""

import json
import math
import sys
import types
import warnings

import pytest

from retrodict.claims import Check, Experiment, Number, Standing, Table, reproduce
from retrodict.cli import reproduce as cli
from retrodict.errors import DataError
from retrodict.files import read_json, write_json


class Counting(Experiment):
    slug, claim, seeds = "counting", "counting works", (0, 1)

    def __init__(self):
        self.calls = []
        self.broken = False

    def arms(self, quick):
        return {"first": self.first, "second": self.second}

    def first(self, seed, folder, quick):
        self.calls.append(("first", seed))
        (folder / "left.txt").write_text(str(seed))
        return {"score": 1.0 + seed}

    def second(self, seed, folder, quick):
        self.calls.append(("second", seed))
        if self.broken and seed == 1:
            raise KeyboardInterrupt
        return {"score": float((folder / "left.txt").read_text())}

    def checks(self, measured, quick):
        if "second" not in measured:
            return []
        mean = sum(m["score"] for m in measured["second"].values()) / len(measured["second"])
        return [Check("mean", mean, None, ">= 0.5", mean >= 0.5)]

    def tables(self, measured):
        rows = {arm: [Number(m[min(m)]["score"])] for arm, m in measured.items()}
        return [Table("Scores", ("arm", "of the first seed"), rows)]


@pytest.fixture
def counting(monkeypatch):
    trial = Counting()
    monkeypatch.setitem(sys.modules, "retrodict.claims.counting", types.SimpleNamespace(EXPERIMENT=trial))
    monkeypatch.setattr("retrodict.claims.experiment.claims", lambda: ("counting",))
    return trial


@pytest.fixture
def folders(tmp_path):
    return {"work": tmp_path / "work", "results": tmp_path / "results"}


def test_an_interrupted_run_carries_on(counting, folders):
    counting.broken = True
    with pytest.raises(KeyboardInterrupt):
        reproduce("counting", **folders)
    counting.broken = False
    entry = reproduce("counting", **folders)
    assert counting.calls == [("first", 0), ("second", 0), ("first", 1), ("second", 1), ("second", 1)]
    assert entry["holds"]
    assert json.loads((folders["results"] / "counting.json").read_text())["checks"][0]["value"] == 0.5


def test_numbers_of_other_code_are_told(counting, folders):
    reproduce("counting", seeds=[0], **folders)
    notes = sorted((folders["work"] / "counting" / "seed-0").glob(".*.code.json"))
    assert [note.name for note in notes] == [".first.code.json", ".second.code.json"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reproduce("counting", seeds=[0], **folders)
    code = read_json(notes[1])
    assert "retrodict.claims.experiment" in code
    write_json(notes[1], code | {"retrodict.files": "another", "retrodict.gone.away": "any"})
    with pytest.warns(UserWarning, match=r"holds what was measured before retrodict\.files, retrodict\.gone\.away changed"):
        reproduce("counting", seeds=[0], **folders)
    assert len(counting.calls) == 2


def test_it_tells_what_is_done_and_how_long_the_rest_may_take(counting, folders):
    told: list[Standing] = []
    reproduce("counting", seeds=[0], report=told.append, **folders)
    assert [(s.done, s.total, s.ended) for s in told] == [(0, 2, None), (1, 2, ("first", 0)), (2, 2, ("second", 0))]
    assert [s.left is None for s in told] == [True, False, False]  # nothing is known before an arm has run
    assert told[-1].left == 0
    assert [check.name for check in told[-1].checks] == ["mean"]
    elsewhere = folders | {"results": folders["results"] / "other"}
    assert reproduce("counting", arms=["first"], seeds=[1], **elsewhere)["measured"]["first"].keys() == {1}
    for arm, seed, seconds in (("first", 0, 10), ("second", 0, 4), ("first", 1, 20)):
        (folders["work"] / "counting" / f"seed-{seed}" / f"{arm}.json").write_text(json.dumps({"score": 1.0, "seconds": seconds}))
    told.clear()
    entry = reproduce("counting", report=told.append, **folders)
    assert (told[0].done, told[0].left) == (3, 4)  # as it took with the other seed
    entry["measured"] = {arm: {0: {"seconds": seconds}} for arm, seconds in (("first", 15), ("second", 5))}
    (folders["results"] / "counting.json").write_text(json.dumps(entry))
    told.clear()
    elsewhere = {**folders, "work": folders["work"].with_name("anew")}
    reproduce("counting", report=told.append, **elsewhere)
    assert (told[0].done, told[0].left) == (0, 40)  # both seeds as they were reported


def test_tables_are_written_and_printed(counting, folders, capsys):
    entry = reproduce("counting", **folders)
    rows = {"first": [{"value": 1.0, "interval": None}], "second": [{"value": 0.0, "interval": None}]}
    assert json.loads((folders["results"] / "counting.json").read_text())["tables"][0]["rows"] == rows
    cli._print(entry)
    assert "Scores:" in capsys.readouterr().out


def test_what_was_not_run_is_left_out_and_nothing_holds_then(counting, folders):
    entry = reproduce("counting", arms=["first"], **folders)
    assert not entry["holds"]
    assert entry["left_out"] == ["second (seeds [0, 1])"]
    assert entry["command"] == "retrodict reproduce counting --arms first"


def test_a_run_of_other_seeds_says_so(counting, folders):
    assert reproduce("counting", **folders)["command"] == "retrodict reproduce counting"
    entry = reproduce("counting", seeds=(1, 2), **folders | {"results": folders["results"] / "other"})
    assert entry["command"] == "retrodict reproduce counting --seeds 1 2"
    assert entry["left_out"] == ["seeds [0] of this experiment"]


def test_seeds_are_added_to_what_was_reported_on_another_machine(monkeypatch, counting, folders):
    monkeypatch.setattr(counting, "needs", {"second": ("first",)}, raising=False)
    reproduce("counting", seeds=[1], arms=["first"], **folders)
    there = folders | {"work": folders["work"] / "there"}
    assert reproduce("counting", seeds=[0], extend=True, **there)["measured"] == reported(folders)
    assert [set(runs) for runs in reported(folders).values()] == [{0, 1}, {0}]
    counting.calls.clear()
    entry = reproduce("counting", extend=True, **there)
    assert counting.calls == [("first", 1), ("second", 1)]  # the first again, whose file the second reads
    assert entry["seeds"] == [0, 1]
    assert entry["holds"]
    assert not entry["left_out"]
    counting.calls.clear()
    nowhere = folders | {"work": folders["work"] / "nowhere"}
    assert reproduce("counting", extend=True, **nowhere)["measured"] == entry["measured"]
    assert not counting.calls
    with pytest.raises(DataError, match=r"reports 4 arms over seeds, 2 of which this run would not have"):
        reproduce("counting", seeds=[0], **nowhere)
    assert not counting.calls
    assert reported(folders) == entry["measured"]
    reproduce("counting", **nowhere)  # what was reported counts only where it is asked to
    assert len(counting.calls) == 4


def test_an_extended_run_that_is_stopped_has_reported_the_arms_that_ended(counting, folders):
    reproduce("counting", seeds=[0], **folders)
    whole = (folders["results"] / "counting.json").read_text()
    counting.broken = True
    for extend in (False, True):
        work = folders["work"].with_name(f"{extend}")
        with pytest.raises(KeyboardInterrupt):
            reproduce("counting", seeds=[0, 1], extend=extend, **folders | {"work": work})
        if not extend:
            assert (folders["results"] / "counting.json").read_text() == whole  # half a run takes no whole one's place
    assert [set(runs) for runs in reported(folders).values()] == [{0, 1}, {0}]


def test_what_is_only_judged_anew_stays_the_machine_s_that_measured_it(counting, folders):
    reproduce("counting", **folders)
    file = folders["results"] / "counting.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"machine": "another"}))
    assert reproduce("counting", extend=True, **folders)["machine"] == "another"
    assert reproduce("counting", **folders | {"work": folders["work"].with_name("anew")})["machine"] != "another"


def test_numbers_that_are_not_finite_stay_so_in_a_file_that_any_parser_reads(tmp_path):
    value = {"least": [float("-inf"), 1.5, float("inf")], "none": float("nan"), "words": "Infinity is a word", "left": None}
    write_json(tmp_path / "value.json", value)
    text = (tmp_path / "value.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    again = read_json(tmp_path / "value.json")
    assert math.isnan(again.pop("none"))
    assert again == {k: v for k, v in value.items() if k != "none"}
    (tmp_path / "value.json").write_text("{")
    with pytest.raises(DataError, match="is no JSON"):
        read_json(tmp_path / "value.json")


def reported(folders):
    found = json.loads((folders["results"] / "counting.json").read_text())["measured"]
    return {arm: {int(seed): numbers for seed, numbers in runs.items()} for arm, runs in found.items()}


def test_quick_is_never_reported(counting, folders):
    entry = reproduce("counting", quick=True, **folders)
    assert entry["seeds"] == [0]
    assert not folders["results"].exists()


def test_unknown_names_are_listed(counting, folders):
    with pytest.raises(DataError, match="there are counting"):
        reproduce("nothing", **folders)
    with pytest.raises(DataError, match="its arms are first, second"):
        reproduce("counting", arms=["third"], **folders)


class Chain(Experiment):
    """The second arm reads what the first left."""

    slug, claim, seeds, needs = "chain", "order is kept", (0, 1), {"second": ("first",)}

    def arms(self, quick):
        return {"first": first, "second": second}

    def checks(self, measured, quick):
        return []


def first(seed, folder, quick):
    (folder / "left.txt").write_text(str(seed))
    return {}


def second(seed, folder, quick):
    return {"read": int((folder / "left.txt").read_text())}


def test_processes_share_the_work_and_keep_the_order(monkeypatch, folders):
    monkeypatch.setitem(sys.modules, "retrodict.claims.chain", types.SimpleNamespace(EXPERIMENT=Chain()))
    monkeypatch.setattr("retrodict.claims.experiment.claims", lambda: ("chain",))
    entry = reproduce("chain", jobs=2, **folders)
    assert {seed: numbers["read"] for seed, numbers in entry["measured"]["second"].items()} == {0: 0, 1: 1}
    assert entry["left_out"] == []


def test_an_arm_that_is_asked_for_brings_those_it_needs(monkeypatch, folders):
    monkeypatch.setitem(sys.modules, "retrodict.claims.chain", types.SimpleNamespace(EXPERIMENT=Chain()))
    monkeypatch.setattr("retrodict.claims.experiment.claims", lambda: ("chain",))
    entry = reproduce("chain", arms=["second"], seeds=[1], **folders)
    assert entry["measured"]["second"][1]["read"] == 1
    entry = reproduce("chain", arms=["first"], seeds=[0], **folders | {"results": folders["results"] / "other"})
    assert set(entry["measured"]["first"]) == {0}
    assert "second" not in entry["measured"]
