"""The frame of VPT's experiment: what the page asks is what is judged, and every arm runs from end to end."""

import dataclasses

import pytest

from retrodict.claims import vpt
from retrodict.claims.vpt import EXPERIMENT, FULL

GOOD = {"keys": 0.9, "mouse r2": 0.9, "turn": 0.65, "turn majority": 0.4, "joint": 0.7}
GAMES = {"clone inferred": 1000, "clone true": 1100, "clone labelled": 850}
AFTER_RL = {"from scratch": 700, "from the prior, held throughout": 900, "from the prior, let go": 900}


def measured():
    """Numbers of two seeds by which everything just holds."""
    arms = {arm: {s: {"tics": [tics - 10.0, tics + 10.0] * 30} for s in (0, 1)} for arm, tics in GAMES.items()}
    arms |= {f"reinforce {name}": {s: {"tics": [float(tics)] * 60} for s in (0, 1)} for name, tics in AFTER_RL.items()}
    arms |= {"inverse model": {s: dict(GOOD) for s in (0, 1)}, "inverse model, few": {s: {"joint": 0.51} for s in (0, 1)}}
    arms["clone many"] = {s: {"joint": 0.5} for s in (0, 1)}
    for numbers in arms["clone labelled"].values():
        numbers["joint"] = 0.55 - 1e-9
    return arms


def test_all_lines_of_the_page_are_judged_and_hold_at_their_thresholds():
    checks = EXPERIMENT.checks(measured(), quick=False)
    assert [c.asked for c in checks] == [
        *(">= 0.90", ">= 0.90", ">= 0.15", ">= 0.25", "> 0"),
        *(">= 0.85", ">= 150", "< mean with inferred labels (1000)", ">= 200", ">= 0"),
    ]
    assert all(check.holds for check in checks)
    assert checks[5].value == pytest.approx(1000 / 1100)


@pytest.mark.parametrize(
    ("arm", "name", "worse", "which"),
    [
        ("inverse model", "keys", 0.89, 0),
        ("inverse model", "mouse r2", 0.89, 1),
        ("clone labelled", "joint", 0.56, 2),
        ("inverse model", "turn", 0.64, 3),
        ("inverse model, few", "joint", 0.5, 4),
        ("clone true", "tics", [1200.0] * 60, 5),
        ("clone labelled", "tics", [860.0] * 60, 6),
        ("clone labelled", "tics", ([700.0] * 60, [990.0] * 60), 7),  # trainings that differ, however alike their games
        ("reinforce from the prior, held throughout", "tics", [899.0] * 60, 8),
        ("reinforce from the prior, let go", "tics", [901.0] * 60, 9),
    ],
)
def test_each_line_can_fail(arm, name, worse, which):
    numbers = measured()
    for seed, of_seed in numbers[arm].items():
        of_seed[name] = worse[seed] if isinstance(worse, tuple) else worse
    assert not EXPERIMENT.checks(numbers, quick=False)[which].holds


def test_what_was_not_run_is_not_judged_and_needs_name_arms():
    numbers = measured()
    del numbers["clone inferred"]
    assert len(EXPERIMENT.checks(numbers, quick=False)) == 7
    arms = set(EXPERIMENT.arms(quick=False))
    assert {*EXPERIMENT.needs, *(needed for names in EXPERIMENT.needs.values() for needed in names)} <= arms
    assert FULL.games >= 60


@pytest.mark.slow
def test_every_arm_runs(tmp_path, monkeypatch):
    pytest.importorskip("vizdoom")
    tiny = {"stem": 4, "stacks": (4, 4, 4), "dense": 8, "width": 16, "patch": 8}
    small = vpt.Size(labelled=60, bare=60, heldout=20, few=5, inverse_steps=2, clone_steps=2, batch=2, every=2)
    small = dataclasses.replace(small, games=1, tics=48, decisions=32, worlds=1, rollout=16)
    monkeypatch.setattr(vpt, "QUICK", small)
    monkeypatch.setattr(vpt, "INVERSE", {**vpt.INVERSE, **tiny})
    monkeypatch.setattr(vpt, "POLICY", {**{k: v for k, v in tiny.items() if k != "stem"}, "mirror": vpt.MIRROR})
    measured = {}
    for arm, run in EXPERIMENT.arms(quick=True).items():
        measured[arm] = dict(run(0, tmp_path, True))
    assert 0 <= measured["inverse model"]["joint"] <= 1
    assert measured["inverse model"]["mouse r2 of the true bins"] > 0.9
    assert 0 <= measured["clone inferred"]["labels right"] <= 1
    assert len(measured["clone true"]["tics"]) == 1
    assert len(measured["reinforce from the prior, held throughout"]["curve"]) == 2
