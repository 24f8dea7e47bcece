import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from retrodict.errors import DataError
from retrodict.training.schedules import at, schedule

KINDS = ["constant", "linear", "cosine", "exponential", "step"]
positive = st.floats(1e-6, 1e3)


@given(st.sampled_from(KINDS), positive, positive, st.integers(1, 500), st.data())
def test_it_goes_from_start_to_end_without_leaving_the_range(kind, start, end, steps, data):
    warmup = data.draw(st.integers(0, steps - 1))
    value = schedule(kind, start, end, steps, warmup, every=data.draw(st.integers(1, steps)))
    curve = [value(s) for s in range(warmup, 2 * steps)]
    assert curve[0] == pytest.approx(start)
    low, high = min(start, end), max(start, end)
    assert all(low - 1e-9 * high <= v <= high * (1 + 1e-9) for v in curve)
    if kind in ("linear", "cosine", "exponential"):
        assert value(steps) == value(2 * steps) == pytest.approx(end, abs=1e-9 * high)
    climbing = [value(s) for s in range(warmup)]
    assert climbing == pytest.approx([start * (s + 1) / warmup for s in range(warmup)])


def test_cosine_and_exponential_are_those_of_torch():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20, eta_min=0.01)
    ours = schedule("cosine", 0.1, 0.01, 20)
    for step in range(20):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(ours(step))
        optimizer.step()
        theirs.step()
    assert schedule("exponential", 0.2, 0.2 * 0.9995**1000, 1000)(400) == pytest.approx(0.2 * 0.9995**400)


def test_stairs_are_flat_between_their_edges():
    value = schedule("step", 1.0, 1e-3, 90, every=30)
    assert [value(s) for s in (0, 29, 30, 59, 60, 89, 90)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.001])


def test_a_number_is_a_schedule_that_stands_still():
    assert at(0.3, 7) == 0.3
    assert at(schedule("linear", 0, 1, 10), 5) == 0.5


def test_it_can_be_sent_to_another_process():
    value = schedule("cosine", 1.0, 0.0, 10)
    assert pickle.loads(pickle.dumps(value))(3) == value(3)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("sine", 1.0), "no schedule is called 'sine'"),
        (("linear", 1.0, 0.0, 5, 6), "warmup"),
        (("exponential", 1.0, 0.0, 5), "one sign"),
        (("step", -1.0, 1.0, 5), "one sign"),
    ],
)
def test_contradictions_are_refused(arguments, sentence):
    with pytest.raises(DataError, match=sentence):
        schedule(*arguments)
    assert math.isfinite(schedule("linear", 1.0, 0.0, 5, 5)(7))
