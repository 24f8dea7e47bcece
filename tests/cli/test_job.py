"""The commands one after the other, as somebody would use them."""

import json
from dataclasses import fields
from functools import partial

import numpy as np
import pytest

import retrodict as rd
from retrodict import claims
from retrodict.claims import Check, Standing
from retrodict.cli import main
from retrodict.systems import lookup
from retrodict.trajectories.features import cameras

TINY = "--frames 6 --width 16 --heads 2 --depth 1 --batch 8"


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder with `play`: twelve episodes of a point that is pushed, of which eight carry the pushes."""
    rng = np.random.default_rng(0)
    episodes = []
    for i in range(12):
        push = rng.uniform(-1, 1, (40, 2)).astype(np.float32)
        seen = {"observation.state": (np.cumsum(push, 0) - push).astype(np.float32)}
        episodes.append(seen | {"action": push} if i < 8 else seen)
    space = rd.ActionSpace({"push": rd.Box(("right", "up"), -1, 1, unit="metres")}, mode="delta", leads=True)
    rd.from_arrays(episodes, fps=10, actions=space).save(tmp_path / "play")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def retrodict(line):
    return main(line.split())


def said(capsys):
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_label_train_and_what_stands_there_afterwards(work, capsys):
    rd.open("play").having("action")[:5].save("taught")
    assert retrodict(f"train vpt taught --out inverse --steps 60 {TINY}") == 0
    assert "vpt learned from 5 episodes" in capsys.readouterr().out
    assert retrodict("label play --model inverse --out labelled --tolerance 0.5 --report labels.html --json") == 0
    summary = said(capsys)
    assert (summary["labelled"], summary["recorded"], summary["steps"]) == (4, 8, 160)
    assert (work / "labels.html").read_text().startswith("<!doctype html>")

    assert retrodict("info labelled --json") == 0
    labels = said(capsys)["labels"]
    assert (labels["recorded"], labels["inferred"]) == (320, 160)
    assert 0 < labels["confidence"] < 1

    assert retrodict(f"train behavior-cloning labelled --out policy --steps 5 {TINY}") == 0
    assert rd.load("policy").is_fitted
    assert {path.name for path in work.iterdir()} >= {"inverse.work", "policy.work"}


def test_label_refuses_to_overwrite(work, capsys):
    (work / "labelled").mkdir()
    (work / "labelled" / "mine.txt").write_text("keep me")
    assert retrodict(f"train vpt play --out inverse --steps 2 {TINY}") == 0
    assert retrodict("label play --model inverse --out labelled") == 2
    assert "labelled exists already" in capsys.readouterr().err
    assert retrodict("label play --out labelled") == 2, "said before a model is trained for it"
    assert "labelled exists already" in capsys.readouterr().err
    assert (work / "labelled" / "mine.txt").read_text() == "keep me"
    assert not (work / "labelled.work").exists()


def test_label_overwrites_with_a_model_of_other_recordings(work, monkeypatch, capsys):
    vpt = lookup("vpt")
    monkeypatch.setattr("retrodict.systems.lookup", lambda slug: partial(vpt, steps=2, frames=6, width=16, heads=2, depth=1))
    assert retrodict("label play --out labelled") == 0
    rd.open("play")[1:].save("fewer")
    assert retrodict("label fewer --out labelled") == 2, "its work lies there, and it is another's"
    assert "another configuration" in capsys.readouterr().err
    assert retrodict("label fewer --out labelled --overwrite") == 0
    assert len(rd.open("labelled")) == 11


def test_what_is_there_is_not_written_over(work, capsys):
    assert retrodict(f"train vpt play --out inverse --steps 2 {TINY}") == 0
    before = (work / "inverse" / "system.json").read_text()
    assert retrodict(f"train vpt play --out inverse --steps 3 {TINY}") == 2
    assert "inverse exists already" in capsys.readouterr().err
    assert (work / "inverse" / "system.json").read_text() == before
    assert retrodict(f"train vpt play --out inverse --steps 3 --work other {TINY} --overwrite") == 0
    assert (work / "inverse" / "system.json").read_text() != before


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("--report .", "--report . is a folder"),
        ("--tolerance -1", "tolerance a share above 0"),
        ("--batch 0", "batch is 1 or more"),
    ],
)
def test_nonsense_is_refused_before_anything_is_labelled(work, capsys, options, complaint):
    assert retrodict(f"train vpt play --out inverse --steps 2 {TINY}") == 0
    assert retrodict(f"label play --model inverse --out labelled {options}") == 2
    assert complaint in capsys.readouterr().err
    assert not (work / "labelled").exists()


def test_a_switch_that_is_on_is_named_by_what_it_does(capsys):
    assert retrodict("train vpt --help") == 0
    assert "--augmented, --no-augmented" in " ".join(capsys.readouterr().out.split())


def test_the_options_of_a_system_are_the_fields_of_its_dataclass(capsys):
    assert retrodict("train vpt --help") == 0
    shown = capsys.readouterr().out
    for field in fields(lookup("vpt")):
        if field.init:
            assert field.name.replace("_", "-") in shown


def test_align_finds_and_mends(work, capsys):
    late = rd.open("play").having("action")
    late = late.with_column("action", [np.roll(e["action"], 1, axis=0) for e in late], late.features["action"])
    late.save("late")
    assert retrodict("align late --json --mend mended") == 0
    assert said(capsys)["lag"] == 1
    assert retrodict("align mended --json") == 0
    assert said(capsys)["lag"] == 0


def test_reproduce_prints_checks_and_json(work, monkeypatch, capsys):
    entry = {
        "slug": "vpt", "claim": "Few labels suffice.", "holds": False, "seeds": [0], "seconds": 61, "machine": "2 cores",
        "checks": [{"name": "accuracy", "value": 0.8, "interval": [0.7, 0.9], "asked": ">= 0.9", "holds": False}],
        "tables": [], "left_out": ["the RL arm"],
    }  # fmt: skip
    asked = {}

    def fake(slug, *, report=None, **options):
        asked.update(options, slug=slug)
        if report is not None:
            report(Standing(0, 2, None))
            report(Standing(1, 2, 90.0, ("arm a", 0), 60.0, [Check("accuracy", 0.8, None, ">= 0.9", False)]))
        return entry

    monkeypatch.setattr(claims, "reproduce", fake)
    assert retrodict("reproduce vpt --quick --seeds 0 1") == 0
    shown = capsys.readouterr().out
    assert (
        "0 of 2 arms over seeds are done.\narm a, seed 0: 1 min 0 s; 1 of 2 arms over seeds are done, about 1 min 30 s to go"
        in shown
    )
    assert "does not hold" in shown
    assert "left out: the RL arm" in shown
    assert (asked["slug"], asked["quick"], asked["seeds"]) == ("vpt", True, (0, 1))
    assert retrodict("reproduce vpt --json") == 0
    assert said(capsys) == entry


@pytest.mark.slow
def test_record_and_evaluate_in_a_real_game(tmp_path, monkeypatch, capsys):
    pytest.importorskip("vizdoom", reason='vizdoom is not installed: pip install "retrodict[games]"')
    monkeypatch.chdir(tmp_path)
    assert retrodict("record vizdoom/health-gathering --out play --episodes 2 --max-steps 30") == 0
    assert retrodict(f"train behavior-cloning play --out policy --steps 2 {TINY}") == 0
    capsys.readouterr()
    line = "evaluate policy vizdoom/health-gathering --episodes 2 --max-steps 10 --clip play.gif --json"
    assert retrodict(line) == 0
    found = said(capsys)
    assert found["estimates"]["decisions"] == {"value": 10.0, "interval": [10.0, 10.0], "n": 2}
    assert (tmp_path / "play.gif").stat().st_size > 0


def test_settings_of_a_world_reach_it_and_what_it_does_not_take_is_named(work, capsys):
    pytest.importorskip("minigrid")
    world = "minigrid/BabyAI-GoToLocal-v0"
    assert retrodict(f"record {world} --out seen --episodes 1 --max-steps 3 --set view=full tile=4") == 0
    (camera,) = cameras(rd.open("seen").features)
    assert rd.open("seen").features[camera].shape == (32, 32, 3)
    for setting, complaint in (("tile", "NAME=VALUE"), ("tiles=4", "'tiles'"), ("tile=wide", "tile='wide'")):
        assert retrodict(f"record {world} --out other --episodes 1 --set {setting}") == 2
        assert complaint in capsys.readouterr().err
    assert not (work / "other").exists()
