"""The checks of the chaos benchmark's claim, on made-up numbers."""

import numpy as np
import pytest

from retrodict.claims import dysts

NAMES = [f"s{i}" for i in range(40)]


def scores(slope, smape):
    chaos = np.linspace(0.1, 1, 40)
    noise = np.random.default_rng(0).normal(size=40) * 0.1
    return {
        "names": NAMES,
        "valid periods": (3 - slope * chaos + noise).tolist(),
        "smape": (smape * (1 + slope * chaos)).tolist(),
        "chaos": chaos.tolist(),
    }


@pytest.fixture
def measured():
    made = {f"forecast-{name}": {0: scores(1, 1)} for name in ("nvar", "linear", "reservoir", "climatology")}
    made["forecast-persistence"] = {0: scores(1, 100) | {"valid periods": [0.1] * 40}}
    for part in range(4):
        made[f"generate-{part}"] = {0: {"systems": {n: {"lyapunov": 1.0} for n in NAMES[part::4]}}}
    made["literature"] = {0: {name: true * 1.01 for name, (_, true) in dysts.LITERATURE.items()}}
    made["discovery"] = {0: {"systems": {n: {"clean": True, "noisy": i % 2 == 0} for i, n in enumerate(NAMES)}}}
    made |= {f"importance-{name}": {0: {"ratio": 0.7}} for name in dysts.SAMPLED}
    made["transfer"] = {0: {"sets": {name: {"pretrained": 0.9, "untrained": 0.8} for name in dysts.BUNDLED}}}
    return made


def failing(measured):
    return [check.name for check in dysts.EXPERIMENT.checks(measured, quick=False) if not check.holds]


def test_all_checks_hold_where_they_should(measured):
    checks = dysts.EXPERIMENT.checks(measured, quick=False)
    assert len(checks) == 15
    assert failing(measured) == []


@pytest.mark.parametrize(
    ("arm", "numbers", "check"),
    [
        ("literature", dict.fromkeys(dysts.LITERATURE, 0.5), "recomputed exponents"),
        ("forecast-nvar", scores(-1, 1), "Spearman of valid time and chaos (nvar"),
        ("forecast-persistence", scores(1, 1) | {"valid periods": [9.0] * 40}, "NVAR sees farther"),
        ("discovery", {"systems": {n: {"clean": False, "noisy": False} for n in NAMES}}, "quadratic laws"),
        ("importance-Lorenz", {"ratio": float("inf")}, None),
        ("transfer", {"sets": {name: {"pretrained": 0.8, "untrained": 0.8} for name in dysts.BUNDLED}}, "pre-training"),
    ],
)
def test_every_threshold_can_fail(measured, arm, numbers, check):
    measured[arm] = {0: numbers}
    found = failing(measured)
    assert not found if check is None else any(check in name for name in found)


def test_a_failed_system_is_counted(measured):
    measured["generate-0"] = {0: {"systems": {n: {"failed": "it blew up"} for n in NAMES[::4]}}}
    assert any("systems generated" in name for name in failing(measured))


def test_the_systems_are_the_same_for_every_seed():
    pytest.importorskip("dysts", reason='dysts is not installed: pip install "retrodict[chaos]"')
    assert len(set(dysts.chosen(False))) == 40
    assert dysts.chosen(True) == dysts.chosen(False)[: len(dysts.chosen(True))]
