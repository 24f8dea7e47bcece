"""The promise is tested where it is made: over all ways to hold one episode out, and over many draws with errors in clumps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter
from scipy.special import expit, ndtr

from retrodict.errors import DataError
from retrodict.labelling.conformal import CannotPromise, HeldOut, control, fewest


def wander(rng, memory, steps, count):
    """Stationary noise that remembers: correlation `memory` from one step to the next."""
    start = 60  # by then it has forgotten where it began
    return lfilter([np.sqrt(1 - memory**2)], [1, -memory], rng.normal(size=(count, start + steps)))[:, start:]


def world(rng, episodes, *, memory=0.9, between=0.0, steps=120, base=-2.2):
    """Episodes of (score, wrong): difficulty wanders within and differs between them, errors clump beyond what scores tell."""
    out = []
    for _ in range(episodes):
        n = int(steps * rng.uniform(0.6, 1.4))
        hard, luck, blind = wander(rng, memory, n, 3)
        chance = expit(base + 1.8 * hard + between * rng.normal())
        score = expit(-(base + 1.8 * hard + 0.8 * blind + 0.5 * rng.normal(size=n)))
        out.append((score.astype(np.float32), ndtr(luck) < chance))
    return out


def held_out(data):
    return HeldOut([s for s, _ in data], [w for _, w in data])


def error(episode, threshold):
    """Share of wrong labels among the kept ones of an episode."""
    score, wrong = episode
    kept = score > threshold
    return float(wrong[kept].mean()) if kept.any() else 0.0


def threshold(data, max_error):
    try:
        return control(held_out(data), max_error).threshold
    except CannotPromise:
        return np.inf


def trial(seed, held, target, max_error, **kind):
    """Mean error of the target episodes, and the share of their labels that is kept; (0, 0) where nothing can be promised."""
    rng = np.random.default_rng(seed)
    data, seen = world(rng, held, **kind), world(rng, target, **kind)
    at = threshold(data, max_error)
    return np.mean([error(e, at) for e in seen]), np.mean(np.concatenate([s for s, _ in seen]) > at)


EPISODE = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=12)


@settings(max_examples=300)
@given(st.lists(EPISODE, min_size=2, max_size=14), st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.8]))
def test_over_all_ways_to_leave_one_out_the_mean_error_is_below_the_bound_whatever_the_episodes(episodes, max_error):
    """The theorem itself: exchangeable means that each episode is the new one as often, and then nothing is left to chance."""
    data = [(np.array([s for s, _ in e]) / 12, np.array([w for _, w in e])) for e in episodes]
    errors = [error(data[j], threshold(data[:j] + data[j + 1 :], max_error)) for j in range(len(data))]
    assert np.mean(errors) <= max_error + 1e-9


KINDS = [{}, {"memory": 0.97}, {"memory": 0.3}, {"between": 0.5}, {"between": 2.0, "memory": 0.97}]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(("held", "max_error"), [(6, 0.2), (10, 0.3), (25, 0.05), (25, 0.1), (25, 0.2)])
def test_over_many_splits_with_correlated_errors_the_mean_error_is_as_promised(kind, held, max_error):
    results = np.array([trial((i, held), held, 12, max_error, **kind) for i in range(60)])
    errors = results[:, 0]
    # A one-sided allowance of two standard errors: 60 trials are no infinity.
    assert errors.mean() <= max_error + 2 * errors.std() / np.sqrt(len(errors))


def test_the_promise_is_not_vacuous():
    """Of all labels 18 % are wrong; the promises below keep a good part of them, and more of them with more to calibrate on."""
    kept = {
        (held, e): np.mean([trial((i, held), held, 12, e)[1] for i in range(15)])
        for held, e in [(8, 0.2), (25, 0.1), (80, 0.1), (80, 0.05)]
    }
    assert kept[8, 0.2] > 0.5
    assert kept[25, 0.1] > 0.3
    assert kept[80, 0.1] > 0.5
    assert kept[80, 0.05] > 0.15


def test_more_to_calibrate_on_comes_closer_to_the_bound():
    close, far = (np.mean([trial(i, held, 60, 0.1)[0] for i in range(12)]) for held in (150, 15))
    assert 0.05 < close <= 0.1
    assert far < close


def test_the_rule_is_that_of_conformal_risk_control():
    """Two thirds of the mean of two losses and a third of one: the threshold is the laxest at which that is at most E."""
    data = [(np.array([0.9, 0.7, 0.5]), np.array([0, 1, 0])), (np.array([0.8, 0.6, 0.4]), np.array([0, 0, 1]))]
    # Keeping from 0.7 on, the first loses 1/2; keeping from 0.4 on, the second loses 1/3.
    assert control(held_out(data), 0.34).threshold == 0.7
    assert control(held_out(data), (0.5 + 1) / 3 + 1e-6).threshold == 0.4
    assert control(held_out(data), (0.5 + 1 / 3 + 1) / 3 + 1e-6).threshold == -np.inf


def test_equal_scores_are_kept_or_withheld_together():
    data = [(np.array([0.9, 0.9, 0.1]), np.array([1, 0, 0]))] * 9
    assert control(held_out(data), 0.55).kept == 1  # half of the two surest is wrong, in whichever order they stand
    with pytest.raises(CannotPromise):
        control(held_out(data), 0.54)


def test_what_cannot_be_promised_is_said_in_one_sentence_with_what_would_do():
    data = world(np.random.default_rng(1), 4)
    with pytest.raises(CannotPromise, match=r"max_error=0\.1 cannot be promised with 4 held-out .*: it takes 9 with a") as told:
        control(held_out(data), 0.1)
    now = float(str(told.value).rpartition("max_error=")[2].split(" ")[0])
    assert control(held_out(data), now).kept > 0
    enough = int(str(told.value).partition("about ")[2].split(" ")[0])
    more = data * (-(-enough // len(data)))
    assert control(held_out(more), 0.1).kept > 0


@pytest.mark.parametrize(("max_error", "episodes"), [(0.5, 1), (0.3, 3), (0.1, 9), (0.05, 19), (0.01, 99)])
def test_a_model_that_errs_nowhere_keeps_everything_as_soon_as_there_are_the_fewest_episodes(max_error, episodes):
    def perfect(count):
        return HeldOut([np.full(50, 0.9)] * count, [np.zeros(50, bool)] * count)

    assert fewest(max_error) == episodes
    assert control(perfect(episodes), max_error).kept == 1
    if episodes > 1:
        with pytest.raises(CannotPromise, match=f"it takes {episodes} with a model that is never wrong"):
            control(perfect(episodes - 1), max_error)


def test_a_model_whose_confidence_says_nothing_is_told_to_learn_more():
    rng = np.random.default_rng(0)
    data = HeldOut([rng.uniform(size=100) for _ in range(50)], [rng.uniform(size=100) < 0.4 for _ in range(50)])
    with pytest.raises(CannotPromise, match="even the surest labels are wrong about that often"):
        control(data, 0.1)


def test_nothing_is_promised_on_a_handful_of_labels():
    """One label of a hundred is sure and right, the others are guesses: true, and of no use to anybody."""
    rng = np.random.default_rng(0)
    data = [(np.append(rng.uniform(size=99), 2), np.append(rng.uniform(size=99) < 0.5, 0)) for _ in range(50)]
    with pytest.raises(CannotPromise, match="even the surest labels"):
        control(held_out(data), 0.1)


def test_refusals():
    with pytest.raises(DataError, match="between 0 and 1"):
        control(HeldOut([np.ones(3)], [np.zeros(3, bool)]), 1.5)
    with pytest.raises(DataError, match="a truth for every step"):
        HeldOut([np.ones(3)], [np.zeros(2, bool)])
