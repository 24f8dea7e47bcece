"""How the experiment of Seer judges what its arms measured."""

from __future__ import annotations

import pytest

from retrodict.claims.seer import EXPERIMENT


def test_every_arm_that_is_needed_is_there_and_comes_first():
    arms = list(EXPERIMENT.arms(False))
    for arm, needed in EXPERIMENT.needs.items():
        assert all(arms.index(name) < arms.index(arm) for name in needed), arm
    quick = EXPERIMENT.arms(True)
    assert set(quick) < set(arms)
    assert all(name in quick for arm in quick for name in EXPERIMENT.needs.get(arm, ()))


def measured(*, errors=(0.94, 0.97, 1.0), shuffled=1.31, forecast=0.79, success=(0.6, 0.5, 0.45)):
    seeds, names = (0, 1, 2), ("pidm", "auxiliary", "bc")
    cells = {f"pretrain {name}": {s: {"error": e * (1 + s)} for s in seeds} for name, e in zip(names, errors, strict=True)}
    for s in seeds:
        own = cells["pretrain pidm"][s]
        own |= {"shuffled": shuffled * 0.7, "unshuffled": 0.7, "forecast, pixels": forecast * 0.3, "copy, pixels": 0.3}
    for name, share in zip(("pidm", "bc", "scratch"), success, strict=True):
        cells[f"play {name}, 5"] = {s: {"success": share} for s in seeds}
    return cells


def judged(**given):
    return [check.holds for check in EXPERIMENT.checks(measured(**given), False)]


def test_seer_is_held_to_the_thresholds_of_its_page():
    assert judged() == [True] * 7
    assert judged(success=(0.6, 0.55, 0.45)) == [False, *[True] * 6]
    assert judged(success=(0.6, 0.5, 0.5)) == [True, False, *[True] * 5]
    assert judged(errors=(0.94, 0.93, 1.0)) == [True, True, False, *[True] * 4]
    assert judged(errors=(0.94, 1.01, 1.0)) == [True] * 3 + [False] + [True] * 3
    assert judged(errors=(0.96, 0.97, 1.0)) == [True] * 4 + [False] + [True] * 2
    assert judged(shuffled=1.29) == [True] * 5 + [False, True]
    assert judged(forecast=0.81) == [True] * 6 + [False]


def test_what_is_not_measured_is_not_judged():
    assert EXPERIMENT.checks({}, False) == []
    assert EXPERIMENT.checks({}, True) == []
    some = {name: cells for name, cells in measured().items() if name in ("pretrain pidm", "pretrain bc")}
    assert len(EXPERIMENT.checks(some, False)) == 3
    error, heeded = EXPERIMENT.checks(some, True)
    assert error.holds
    assert heeded.holds
    assert (error.value, heeded.value) == (pytest.approx(-0.12), pytest.approx(1.31))


def test_what_every_arm_reached_stands_in_tables():
    cells = measured()
    for name in ("pidm", "bc", "auxiliary", "wide", "scratch"):
        for shots in (5, 20):
            cells[f"play {name}, {shots}"] = {seed: {"outcomes": [i < shots for i in range(25)]} for seed in range(3)}
    error, success = EXPERIMENT.tables(cells)
    assert error.rows["BC of the same network"][0].value == pytest.approx(2.0)
    assert "two stages" not in error.rows  # not measured
    assert [number.value for number in success.rows["PIDM from scratch"]] == pytest.approx([0.2, 0.8])
    assert EXPERIMENT.tables({}) == []
