"""What a law is worth: intervals that contain the truth as often as they say, and none where there is too little to tell."""

import math

import numpy as np
import pytest
import torch

from retrodict import from_arrays
from retrodict.reports import laws
from retrodict.reports.laws import STARTS, STRETCHES, _over_starts
from retrodict.roles import Law

DT = 0.05


class Turning(Law):
    """The circle, turned by DT a step and drawn in by a share."""

    kind = "map"
    dt = DT

    def __init__(self, drawn_in=0.0):
        self.kept = 1 - drawn_in
        turn = torch.tensor([[math.cos(DT), math.sin(DT)], [-math.sin(DT), math.cos(DT)]], dtype=torch.float64)
        self.turn = self.kept * turn

    def step(self, state):
        return state @ self.turn.T

    def jacobian(self, state):
        return self.turn.expand(*state.shape[:-1], 2, 2).contiguous()

    def simulate(self, initial, times, actions=None, domain=None):
        angle = times[:, None] * torch.tensor([1.0, -1.0], dtype=torch.float64)
        size = self.kept ** (times[:, None] / DT)
        return size * (initial[:, None] * angle[:, :1].cos() + initial.flip(1)[:, None] * angle.sin())


def circle(steps):
    t = DT * np.arange(steps)
    return np.stack([np.sin(t), np.cos(t)], 1)


def judged(steps, drawn_in=0.0):
    return judged_all([Turning(drawn_in), Turning(drawn_in)], steps)


def judged_all(fitted, steps, away=0.0):
    whole = circle(600 + steps)
    parts = (whole[:600] + away, whole[600:])
    learning, held = (from_arrays([{"observation.state": part}], fps=1 / DT) for part in parts)
    return laws.judge(fitted, learning, held, ("x", "y"))


def failing_together(rng, stretches):
    """Values of starts, of mean 0: all starts of a stretch fail at once, stretches have nothing to do with each other."""
    sizes = [len(part) for part in np.array_split(np.arange(STARTS), stretches)]
    return np.repeat(rng.normal(size=stretches), sizes)


def sliding(rng, stretches, length=100):
    """The same where starts have the less in common the farther apart they are, and nothing beyond `length` steps."""
    noise = np.cumsum(rng.normal(size=(stretches + 1) * length))
    return (noise[length:] - noise[:-length])[np.linspace(0, stretches * length - 1, STARTS).astype(int)]


@pytest.mark.parametrize("stretches", [4, 7, 20])
@pytest.mark.parametrize(("values", "least"), [(failing_together, 0.935), (sliding, 0.89)])
def test_intervals_over_starts_contain_the_truth_nearly_as_often_as_they_say(values, least, stretches):
    rng = np.random.default_rng(0)
    found = [_over_starts(values(rng, stretches), stretches) for _ in range(2000)]
    assert least <= np.mean([estimate.low <= 0 <= estimate.high for estimate in found]) <= 0.965


def test_there_is_no_interval_of_too_few_stretches():
    values = np.random.default_rng(0).normal(size=STARTS)
    found = _over_starts(values, STRETCHES - 1)
    assert found.value == pytest.approx(values.mean())
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert _over_starts(values, STRETCHES).low < found.value


def test_a_law_that_holds_to_the_end_of_all_forecasts_leaves_room_for_an_interval():
    found = judged(240)
    assert found.trusted
    assert found.valid.n >= STRETCHES
    assert found.valid.value > found.still.value > 0
    assert "A law was found" in found.verdict


def test_a_law_that_foresees_and_then_goes_elsewhere_is_one_for_forecasts_only():
    found = judged(600, drawn_in=0.01)
    assert found.foresees
    assert not found.alike
    assert not found.trusted
    assert "A law for forecasts only" in found.verdict
    assert judged(600).usual < 1 < found.divergence.value


class Leaping(Turning):
    """The circle, and far from it when left alone for long: near enough to be bounded, and in none of its places."""

    def simulate(self, initial, times, actions=None, domain=None):
        path = super().simulate(initial, times)
        return path + 4 * (times > 6)[:, None]


def test_a_seed_that_shares_no_place_with_the_recording_counts():
    found = judged_all([Turning(), Turning(), Leaping()], 600)
    assert found.foresees
    assert found.divergence.n == 2
    assert not found.alike


def test_a_recording_that_leaves_its_places_does_not_excuse_a_law_from_them():
    assert judged_all([Turning()], 600, away=100.0).usual == 0
    assert not judged_all([Turning(0.01)], 600, away=100.0).alike


def test_a_law_is_not_trusted_where_too_little_was_held_out_and_the_report_says_so():
    found = judged(110)
    assert found.valid.n < STRETCHES
    assert not found.trusted
    assert "record longer" in found.verdict
    assert "nan" not in found.verdict
    page = laws.page(Turning(), found, "circle")
    assert "too few independent stretches" in page
    assert "no interval" in page
    assert "nan" not in page
