"""How the experiment on Rep4Ex judges, and what it measures with."""

import copy

import numpy as np
import pytest

from retrodict.claims.rep4ex import BANDS, EXPERIMENT, SPREAD, actions, affine


def errors(value):
    return {"tried": value, "near": value, "far": value, "all": value}


def world(name):
    return {
        f"{name}: rep4ex": {
            "R2": 0.99,
            "p of linearity": 0.3,
            "errors": errors(0.3),
            "without psi": errors(0.9),
            "unconfounded": errors(0.3),
            "unconfounded without psi": errors(0.3),
        },
        f"{name}: autoencoder": {"R2": 0.9, "p of linearity": 0.001, "errors": errors(0.5)},
        f"{name}: references": {"MLP": {**errors(1.0), "tried": 0.3}, "oracle": errors(0.1)},
    }


NAMES = ("swirl", "plain", "push")
GOOD = {arm: {seed: {**row} for seed in range(5)} for name in NAMES for arm, row in world(name).items()}
STILL = "swirl, actions without effect: "
GOOD |= {STILL + arm: {seed: {"R2": 0.9 + 0.01 * seed} for seed in range(5)} for arm in ("rep4ex", "autoencoder")}


def failing(arm=None, seeds=range(5), **changes):
    measured = copy.deepcopy(GOOD)
    for seed in seeds if arm else ():
        measured[arm][seed] |= changes
    return [check.name for check in EXPERIMENT.checks(measured, False) if not check.holds]


def test_every_line_holds_where_it_should_and_fails_by_itself():
    assert failing() == []
    assert failing("swirl: rep4ex", R2=0.98) == ["swirl: affine R2"]
    assert failing("push: autoencoder", seeds=[2], R2=0.995) == ["push: R2 above the plain autoencoder's"]
    assert failing("swirl: rep4ex", seeds=[0], **{"p of linearity": 0.001}) == []
    assert failing("swirl: rep4ex", seeds=[0, 1], **{"p of linearity": 0.001}) == ["swirl: linearity kept (p > 0.01)"]
    assert failing("plain: rep4ex", errors={**errors(0.3), "far": 0.65}) == [
        "plain: error far outside over the MLP's",
        "plain: and not above the plain autoencoder's",
    ]
    assert failing("plain: rep4ex", errors={**errors(0.3), "tried": 0.37}) == ["plain: error among actions tried over the MLP's"]
    assert failing("push: rep4ex", **{"without psi": errors(0.4)}) == ["push: error over that without psi"]
    assert failing("push: rep4ex", **{"unconfounded": errors(0.4)}) == ["push: the same where nothing is confounded"]
    assert len(failing(STILL + "rep4ex", R2=0.99)) == 1


def test_the_swirl_is_measured_and_not_judged_far_outside():
    assert failing("swirl: rep4ex", errors=errors(0.6)) == []


@pytest.mark.parametrize("seed", [0, 3])
def test_actions_lie_in_their_bands_and_repeat(seed):
    for band, asked in actions(seed).items():
        size = np.abs(asked).max(1)
        assert len(asked) == 100
        assert BANDS[band][0] <= size.min() <= size.max() < BANDS[band][1]
        assert (asked == actions(seed)[band]).all()


def test_what_is_affine_is_seen_as_such():
    latent = np.random.default_rng(0).normal(size=(500, 2))
    assert affine(latent @ [[2.0, 1.0], [0.0, -3.0]] + 7, latent) == pytest.approx(1.0)
    assert affine(latent**2, latent) < 0.1


def test_the_tables_tell_what_nothing_is_judged_by():
    spread = {SPREAD: {0: {"R2": 0.995, "errors": errors(0.2)}}}
    codes, table = EXPERIMENT.tables(GOOD | spread)
    assert [codes.rows[arm][0].value for arm in (SPREAD, "swirl: autoencoder")] == pytest.approx([0.995, 0.9])
    assert len(codes.rows) == 3 * 2 + 2 + 1
    assert [number.value for number in table.rows[SPREAD]] == pytest.approx([0.2] * 3)
    assert table.columns[1:] == tuple(BANDS)
    assert [number.value for number in table.rows["swirl: rep4ex"]] == pytest.approx([0.3] * 3)
    assert [number.value for number in table.rows["swirl: MLP"]] == pytest.approx([0.3, 1.0, 1.0])
    assert len(table.rows) == 3 * 4 + 1
    assert EXPERIMENT.tables({}) == []
