import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from retrodict.errors import DataError
from retrodict.metrics import nrmse, relative_l2, smape, valid_time

numbers = st.floats(-1e3, 1e3, allow_subnormal=False)
series = arrays(np.float64, (5, 2), elements=numbers)


def test_nrmse_is_the_error_of_a_step_in_deviations_of_the_truth():
    true = np.stack([np.arange(10.0), np.arange(10.0) * 100], -1)[None].repeat(3, 0)
    wrong = true + true.std((0, 1)) * np.array([1, 3])
    assert nrmse(wrong, true, steps=[0, 4]) == pytest.approx([2, 2])
    assert nrmse(true + 1, true, scale=[2, 4]).tolist() == [0.375] * 10


@given(series, series)
def test_smape_lies_within_its_bounds_and_is_symmetric(a, b):
    assert 0 <= smape(a, b) <= 200
    assert smape(a, b) == pytest.approx(smape(b, a))
    assert smape(a, a) == 0


def test_smape_of_opposite_signs_and_of_what_diverged_is_the_most():
    assert smape([[1.0]], [[-2.0]]) == 200
    assert smape([[np.nan]], [[1.0]]) == 200


def test_valid_time_ends_at_the_first_failure():
    true = np.zeros((3, 10, 1))
    predicted = true.copy()
    predicted[0, 4:] = 1
    predicted[1, 2] = np.nan  # later steps do not make it good again
    times = valid_time(predicted, true, scale=[1.0], unit=0.5)
    assert times.tolist() == [2.0, 1.0, 5.0]
    assert valid_time(predicted, true, scale=[1.0], unit=0.5, cap=1.5).tolist() == [1.5, 1.0, 1.5]
    assert valid_time(predicted[0], true[0], 1.0, scale=[1.0]).tolist() == [10]


def test_relative_l2_in_a_norm():
    true = np.array([[3.0, 4.0], [1.0, 0.0]])
    assert relative_l2(true * 1.1, true) == pytest.approx([0.1, 0.1])
    assert relative_l2([0.0, 1.0], [1.0, 0.0], mass=np.diag([1, 3])) == pytest.approx(2)


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda: smape(np.zeros((12, 1)), np.zeros((10, 1))), "longer than what came after"),
        (lambda: nrmse(np.zeros((4, 1)), np.zeros((4, 1))), "units above 0"),
        (lambda: nrmse(np.ones((4, 1)), np.eye(4)[:, :1], steps=[4]), "steps 0 to 3"),
        (lambda: relative_l2(np.ones(3), np.zeros(3)), "zero"),
    ],
)
def test_bad_input_is_named(ask, sentence):
    with pytest.raises(DataError, match=sentence):
        ask()
