"""The judgement of SS-ORL's claim, on numbers made up; the experiment itself runs by `retrodict reproduce ss-orl`."""

import pickle

import numpy as np
import pytest

from retrodict.claims import ss_orl
from retrodict.claims.ss_orl import EXPERIMENT, PASTS, RUNNERS, SHARES, record, relative, split, tried
from retrodict.trajectories import from_arrays


def numbers(**returns):
    """What arms would have measured, given S of each; 0 and 1 are returns of 1000 and 3000."""
    made = {}
    for world in RUNNERS:
        error = {"mse": 0.01, "variance": 0.2, "saturated": 0.1, "right sign where saturated": 0.99}
        inverse = {seed: {"inside": {**error, "mse": 0.004}, "outside": error} for seed in range(3)}
        made[f"{world} inverse k=1 share=0.1"] = inverse
        made[f"{world} inverse k=1 share=0.5"] = {seed: {"outside": error} for seed in range(3)}
        scores = {"few": 0.0, "all": 1.0, "shuffled": 0.1, "cloned": 0.5}
        scores |= {f"proxy k={k} share=0.1": 0.95 for k in PASTS} | {f"proxy k=1 share={share:g}": 0.95 for share in SHARES}
        scores |= {
            f"{learner} {labels}": s for learner in ("cql", "dt") for labels, s in (("few", 0), ("all", 1), ("proxy", 0.8))
        }
        for arm, score in {**scores, **returns}.items():
            made[f"{world} {arm}"] = {seed: {"return": 1000 + 2000 * (score + 0.01 * (seed - 1))} for seed in range(3)}
    return made


def judged(**returns):
    return {check.name: check.holds for check in EXPERIMENT.checks(numbers(**returns), quick=False)}


def test_relative_returns_are_paired_by_seed():
    measured = numbers()
    assert relative(measured, "hopper", "shuffled") == pytest.approx(dict.fromkeys(range(3), 0.1))
    del measured["hopper few"][1]
    assert list(relative(measured, "hopper", "shuffled")) == [0, 2]


def test_nothing_is_made_of_recordings_that_tell_nothing():
    measured = numbers()
    measured["hopper few"][1]["return"] = 0.8 * measured["hopper all"][1]["return"]
    assert list(relative(measured, "hopper", "shuffled")) == [0, 2]
    holds = {check.name: check.holds for check in EXPERIMENT.checks(measured, quick=False)}
    assert not holds["least gain of all labels over few, share of the return, Hopper-v5"]
    assert holds["S of TD3+BC with k=1, Hopper-v5 (without seed 1 of Hopper-v5, which tells too little)"]
    assert holds["S of TD3+BC with k=1, both (without seed 1 of Hopper-v5, which tells too little)"]


def test_recordings_that_tell_nothing_are_made_anew(monkeypatch, tmp_path):
    """Of three searches the first makes recordings whose few labels earn as much as all."""
    made, few = [], iter([900.0, 100.0])
    monkeypatch.setattr(ss_orl, "_searched", lambda world, seed, folder: iter(["dull", "telling", "never looked at"]))
    monkeypatch.setattr(ss_orl, "_runners", lambda env, found, seed: found)
    monkeypatch.setattr(ss_orl, "_recorded", lambda env, players, seed, folder: made.append(players) or {"made of": players})
    monkeypatch.setattr(ss_orl, "policy", lambda *arguments: {"return": next(few) if "few" in arguments else 1000.0})
    assert record(0, tmp_path, False, "hopper", None) == {"made of": "telling", "made anew": 1}
    assert made == ["dull", "telling"]
    assert [tried(0, tmp_path, False, "hopper", labels)["return"] for labels in ("all", "few")] == [1000, 100]


def test_a_curve_is_made_of_the_seeds_that_have_all_of_it():
    measured = numbers()
    del measured["hopper proxy k=1 share=0.01"][1]
    assert {check.name: check.holds for check in EXPERIMENT.checks(measured, quick=False)} == judged()


def test_every_line_of_the_acceptance_is_judged_and_can_fail():
    assert all(judged().values())
    assert len(judged()) == 2 * 4 + 1 + 1 + 2
    failing = [
        ({"proxy k=1 share=0.1": 0.8}, "S of TD3+BC with k=1, both"),
        ({"proxy k=1 share=0.1": 0.6}, "S of TD3+BC with k=1, Hopper-v5"),
        ({"shuffled": 0.4}, "S of TD3+BC with shuffled proxy actions, HalfCheetah-v5"),
        ({"cql proxy": 0.5}, "S of CQL, HalfCheetah-v5"),
        ({"proxy k=1 share=0.5": 0.85}, "S with 50 % of the trajectories labelled, both"),
        ({"few": 0.7}, "least gain of all labels over few, share of the return, Hopper-v5"),
    ]
    for change, name in failing:
        assert not judged(**change)[name], name
    falling = judged(**{"proxy k=1 share=0.1": 0.5})
    assert not next(holds for name, holds in falling.items() if name.startswith("least change"))


def test_the_table_tells_every_relative_return():
    relatives, returns, errors = EXPERIMENT.tables(numbers(**{"dt proxy": 0.3}))
    assert len(relatives.rows) == 2 * (6 + 2) + 2
    assert relatives.rows["cheetah dt proxy"][0].value == pytest.approx(0.3)
    assert returns.rows["cheetah dt proxy"][0].value == pytest.approx(1600)
    halves = {half: errors.rows[f"hopper inverse k=1 share=0.1, {half} half"] for half in ("worse", "better")}
    assert [number.value for number in halves["worse"]] == pytest.approx([0.02, 0.1, 0.99])
    assert [number.value for number in halves["better"]] == pytest.approx([0.05, 0.1, 0.99])
    assert "hopper inverse k=1 share=0.5, worse half" not in errors.rows, "all of it is labelled"
    assert EXPERIMENT.tables({}) == []


def test_arms_come_after_those_whose_files_they_read():
    for quick in (True, False):
        arms = list(EXPERIMENT.arms(quick))
        for place, arm in enumerate(arms):
            assert all(needed in arms[:place] for needed in EXPERIMENT.needs[arm])
    pickle.loads(pickle.dumps(EXPERIMENT))


def test_labels_stay_on_some_of_the_worse_half():
    rng = np.random.default_rng(0)
    returns = rng.permutation(40)
    recordings = from_arrays([{"next.reward": np.full((5, 1), r / 5, np.float32)} for r in returns])
    parts = split(recordings, 0.1, seed=3)
    assert len(parts.labelled) == 4
    assert sorted((*parts.labelled, *parts.inside, *parts.outside)) == list(range(40))
    assert max(returns[list(parts.labelled + parts.inside)]) < min(returns[list(parts.outside)])
    assert parts == split(recordings, 0.1, seed=3) != split(recordings, 0.1, seed=4)
    assert len(split(recordings, 0.01, seed=0).labelled) == 2
