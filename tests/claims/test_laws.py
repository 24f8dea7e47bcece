"""How the claims of GTF and AL-RNN judge: runs that diverged count as the worst, and thresholds are those of the pages."""

import json
import math

import numpy as np
import pytest
import torch

from retrodict.claims import claims
from retrodict.claims._reconstruction import fitted_and_judged, median_check, over_seeds, recorded
from retrodict.claims.al_rnn import EXPERIMENT as ALRNN_CLAIM
from retrodict.claims.al_rnn import _equilibria_of_lorenz
from retrodict.claims.gtf import EXPERIMENT as GTF_CLAIM
from retrodict.claims.gtf import LENGTHS, _gradients
from retrodict.errors import RetrodictError
from retrodict.metrics.free_runs import judged
from retrodict.systems.laws.gtf import GTF


def seeds(*values, name="D_stsp", **more):
    return {seed: {name: value, **more} for seed, value in enumerate(values)}


def by_name(checks):
    return {check.name: check for check in checks}


def test_what_claims_share_is_no_claim():
    assert {"gtf", "al-rnn"} <= set(claims())
    assert not any("reconstruction" in slug for slug in claims())


def test_a_run_that_diverged_is_the_worst():
    values = over_seeds(seeds(0.1, None, 0.2), "D_stsp")
    assert values == [0.1, math.inf, 0.2]
    check = median_check("x", values, "<= 0.3", lambda v: v <= 0.3)
    assert (check.value, check.interval, check.holds) == (0.2, None, True)
    assert not median_check("x", [math.inf] * 3, "<= 0.3", lambda v: v <= 0.3).holds


def test_a_training_that_breaks_is_a_result():
    def breaks():
        raise RetrodictError("the weights were not finite any more")

    assert fitted_and_judged(breaks, lambda law: {})["D_stsp"] is None


def test_gtf_is_judged_by_the_best_of_its_settings():
    measured = {
        "GTF 0.1": seeds(0.5, 0.5, 0.5, D_H=0.1, exponent=0.9),
        "GTF 0.2": seeds(0.7, 0.7, 0.7, D_H=0.1, exponent=0.9),
        "aGTF": seeds(0.9, 0.9, 0.9, D_H=0.1, exponent=0.9),
        "BPTT": seeds(1.2, None, None),
        "one-step": seeds(1.2, 1.2, 1.2),
    }
    checks = GTF_CLAIM.checks(measured, quick=False)
    held = {check.name: check.holds for check in checks}
    assert held.pop("Lorenz, D_stsp of one-step over that of GTF 0.1") is False
    assert len(held) == 4
    assert all(held.values())
    assert GTF_CLAIM.checks({"GTF 0.1": measured["GTF 0.1"]}, quick=False) == []


def test_al_rnn_chooses_its_best_seed_on_the_validation_part():
    two = {
        0: {"D_stsp": 0.2, "D_stsp, validation": 0.9, "D_H": 0.1, "exponent": 0.9, "distances of equilibria": [0.1, 0.1]},
        1: {"D_stsp": 0.7, "D_stsp, validation": 0.3, "D_H": 0.1, "exponent": 0.9, "distances of equilibria": [0.1, 0.5]},
    }
    checks = by_name(ALRNN_CLAIM.checks({"P=2": two}, quick=False))
    chosen = checks["(b) Lorenz, D_stsp of P=2, the seed (1) that is best on a validation part"]
    assert (chosen.value, chosen.holds) == (0.7, False)
    near = checks["(f) Lorenz, seeds of P=2 with an unstable fixed point within 0.15 sd of each equilibrium"]
    assert (near.value, near.holds) == (1, False)


def test_on_fmri_a_linear_law_that_diverged_is_worse():
    measured = {"fMRI P=2": seeds(3.0, 3.0, 3.0, farthest=5.0), "fMRI P=0": seeds(None, 2.0, 4.0)}
    checks = by_name(ALRNN_CLAIM.checks(measured, quick=False))
    assert checks["fMRI, seeds in which the D_stsp of P=2 is below that of P=0"].value == 2
    assert checks["fMRI, seeds of P=2 whose orbit stays bounded"].holds


def test_the_equilibria_are_where_the_published_series_has_them(published):
    """The data turns around them: between two maxima of z on one side, its mean lies near the equilibrium of that side."""
    places = _equilibria_of_lorenz()
    np.testing.assert_allclose(places[0] * [-1, -1, 1], places[1], atol=1e-12)
    series = np.load(published / "al-rnn" / "lorenz63.npy")
    slow = np.linalg.norm(np.diff(series, axis=0), axis=1).argsort()[:200]
    right = series[slow][series[slow][:, 0] > 0.5]
    if len(right):
        np.testing.assert_allclose(np.median(right, 0), places[0], atol=0.25)


def test_what_is_measured_is_json():
    time = np.arange(0, 60, 0.05)
    series = np.stack([np.sin(time), np.cos(time)], 1)
    law = GTF(hidden=4, sequence=20, steps=10).fit(recorded(series, fps=20.0))
    with torch.no_grad():
        law.net_.law.a.fill_(4.0)
    found = judged(law, series)
    assert found == {"D_stsp": None, "D_H": None, "PE20": None, "exponent": None, "exponent per step": None} or found["PE20"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_gradients_grow_with_chaos_and_are_bounded_by_forcing(tmp_path):
    measured = _gradients(0, tmp_path, quick=True)
    assert measured["slope"] == pytest.approx(measured["exponent"], rel=0.1)
    assert max(measured["forced"]) <= measured["log bound"]
    assert measured["free"][-1] > 0.5 * measured["exponent"] * LENGTHS[-1]
