import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from retrodict.errors import DataError
from retrodict.labelling.calibrate import Calibrator, calibrate, fit
from retrodict.metrics import expected_calibration_error


def episodes(count, seed=0, steps=100, bend=None):
    """Outcomes with their true chance, and a model that boasts."""
    rng = np.random.default_rng(seed)
    chance = [rng.beta(3, 1, steps) for _ in range(count)]
    right = [rng.uniform(size=steps) < c for c in chance]
    bend = bend or (lambda c: expit(2.5 * logit(np.clip(c, 1e-6, 1 - 1e-6)) + 1))
    return [bend(c).astype(np.float32) for c in chance], right


@pytest.mark.parametrize("count", [3, 10, 40])
def test_calibration_helps_on_episodes_it_has_not_seen(count):
    confidence, right = episodes(count)
    found = calibrate(confidence, right)
    fresh, truth = (np.concatenate(x) for x in episodes(50, seed=1))
    assert found.after["ece"] < found.before["ece"]
    assert expected_calibration_error(found.calibrator(fresh), truth) < 0.5 * expected_calibration_error(fresh, truth)
    assert found.before["ece"] == pytest.approx(expected_calibration_error(np.concatenate(confidence), np.concatenate(right)))


def test_the_score_after_is_not_the_score_on_what_was_fitted():
    """With a single small episode a fit on itself would look better than it is."""
    confidence, right = episodes(2, steps=12)
    found = calibrate(confidence, right)
    own = expected_calibration_error(found.calibrator(np.concatenate(confidence)), np.concatenate(right))
    assert found.after["ece"] != pytest.approx(own)


def test_few_labels_get_two_parameters_and_many_a_curve_where_it_is_needed():
    def steps(chance):  # no logistic can mend a staircase
        return np.where(chance < 0.5, 0.5, np.where(chance < 0.75, 0.52, 0.9999))

    assert calibrate(*episodes(4, bend=steps)).calibrator.kind == "platt"
    assert calibrate(*episodes(40, bend=steps)).calibrator.kind == "isotonic"
    assert calibrate(*episodes(40)).calibrator.kind == "platt"


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from(["platt", "isotonic"]), st.sampled_from([0, 1, None]))
def test_a_calibrator_never_reverses_an_order_and_never_claims_certainty(seed, kind, only):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(size=30)
    right = rng.integers(0, 2, 30) if only is None else np.full(30, only)
    mapped = fit(kind, confidence, right.astype(float))(np.array([0, *np.sort(confidence), 1]))
    assert (np.diff(mapped) >= 0).all()
    assert mapped[0] >= 0
    if only is not None:
        assert 0.01 < mapped[15] < 0.99


def test_json_round_trip_is_exact():
    confidence, right = episodes(12)
    for kind in ("platt", "isotonic"):
        made = fit(kind, np.concatenate(confidence), np.concatenate(right).astype(float))
        again = Calibrator.from_json(made.to_json())
        assert (again(confidence[0]) == made(confidence[0])).all()
    assert (Calibrator()(confidence[0]) == confidence[0]).all()


def test_one_episode_is_judged_by_halves_and_none_is_refused():
    confidence, right = episodes(1)
    assert calibrate(confidence, right).after["ece"] < calibrate(confidence, right).before["ece"]
    with pytest.raises(DataError, match="at least one"):
        calibrate([], [])
