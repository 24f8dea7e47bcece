"""The promise is tested where it is made: over many draws of held-out and target recordings, with errors that come in clumps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter
from scipy.special import expit, ndtr

from retrodict.errors import DataError
from retrodict.labelling.conformal import CannotPromise, HeldOut, Tally, control, correlation_length


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


def trial(seed, held, target, max_error, **kind):
    """Error among the kept labels of the target, and the share kept; (0, 0) where nothing can be promised."""
    rng = np.random.default_rng(seed)
    data, seen = world(rng, held, **kind), world(rng, target, **kind)
    held_out = HeldOut([s for s, _ in data], [w for _, w in data])
    tally = Tally(held_out.candidates)
    for score, _ in seen:
        tally.add(score)
    try:
        promise = control(held_out, max_error, tally)
    except CannotPromise:
        return 0.0, 0.0
    score, wrong = (np.concatenate(x) for x in zip(*seen, strict=True))
    kept = score > promise.threshold
    assert kept.mean() == pytest.approx(promise.kept)
    return float(wrong[kept].mean()) if kept.any() else 0.0, float(kept.mean())


KINDS = [{}, {"memory": 0.97}, {"memory": 0.3}, {"between": 0.5}, {"between": 1.0, "memory": 0.6}]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(("held", "max_error"), [(6, 0.1), (6, 0.2), (25, 0.05), (25, 0.1), (25, 0.2)])
def test_the_expected_error_of_kept_labels_is_as_promised(kind, held, max_error):
    results = np.array([trial((i, held), held, 12, max_error, **kind) for i in range(40)])
    error = results[:, 0]
    # A one-sided allowance of two standard errors: 40 trials are no infinity.
    assert error.mean() <= max_error + 2 * error.std() / np.sqrt(len(error))


def test_the_promise_is_not_vacuous():
    """Of all labels 18 % are wrong; the promises below keep a good part of them, and more of them with more to calibrate on."""
    kept = {
        (held, e): np.mean([trial((i, held), held, 12, e)[1] for i in range(15)])
        for held, e in [(8, 0.2), (25, 0.1), (80, 0.1), (80, 0.05)]
    }
    assert kept[8, 0.2] > 0.6
    assert kept[25, 0.1] > 0.4
    assert kept[80, 0.1] > 0.6
    assert kept[80, 0.05] > 0.25


def test_much_data_comes_close_to_the_bound_without_passing_it():
    results = np.array([trial(i, 150, 60, 0.1) for i in range(12)])
    assert 0.08 < results[:, 0].mean() <= 0.1


def test_unit_steps_are_the_exact_case():
    """Episodes of one step: the expected error is below the bound, and near it."""
    errors = []
    for i in range(150):
        rng = np.random.default_rng(i)
        score, target = rng.uniform(size=200), rng.uniform(size=400)
        wrong, truth = rng.uniform(size=200) < (1 - score) ** 2, rng.uniform(size=400) < (1 - target) ** 2
        held_out = HeldOut([np.array([s]) for s in score], [np.array([w]) for w in wrong])
        tally = Tally(held_out.candidates)
        for s in target:
            tally.add(np.array([s]))
        promise = control(held_out, 0.1, tally)
        assert promise.unit == "episode"
        kept = target > promise.threshold
        errors.append(truth[kept].mean())
    assert 0.08 < np.mean(errors) <= 0.1 + 2 * np.std(errors) / np.sqrt(150)


def test_a_target_that_is_less_sure_gets_a_stricter_threshold():
    data = world(np.random.default_rng(0), 40)
    held_out = HeldOut([s for s, _ in data], [w for _, w in data])

    def threshold(factor):
        tally = Tally(held_out.candidates)
        for score, _ in world(np.random.default_rng(1), 200):
            tally.add(score * factor)
        return control(held_out, 0.1, tally).threshold

    assert threshold(0.97) > threshold(1.0)
    with pytest.raises(CannotPromise):
        threshold(0.6)


def test_what_cannot_be_promised_is_said_in_one_sentence_with_what_would_do():
    data = world(np.random.default_rng(1), 4)
    held_out = HeldOut([s for s, _ in data], [w for _, w in data])
    with pytest.raises(
        CannotPromise, match=r"max_error=0\.1 cannot be promised with 4 held-out .*; about \d+ would do, and"
    ) as told:
        control(held_out, 0.1)
    now = float(str(told.value).partition("max_error=")[2].partition("max_error=")[2].split(" ")[0])
    assert control(held_out, now).kept > 0
    enough = int(str(told.value).partition("about ")[2].split(" ")[0])
    more = data * (-(-enough // len(data)) + 1)
    assert control(HeldOut([s for s, _ in more], [w for _, w in more]), 0.1).kept > 0


def test_a_model_whose_confidence_says_nothing_is_told_to_learn_more():
    rng = np.random.default_rng(0)
    held_out = HeldOut([rng.uniform(size=100) for _ in range(50)], [rng.uniform(size=100) < 0.4 for _ in range(50)])
    with pytest.raises(CannotPromise, match="even the surest labels are wrong about that often"):
        control(held_out, 0.1)


def test_a_model_that_errs_nowhere_keeps_everything_as_soon_as_there_is_enough_to_say_so():
    def perfect(episodes):
        return HeldOut([np.full(50, 0.9)] * episodes, [np.zeros(50, bool)] * episodes)

    assert control(perfect(40), 0.05).kept == 1
    with pytest.raises(CannotPromise):
        control(perfect(2), 0.05)


@pytest.mark.parametrize("memory", [0.0, 0.8, 0.95])
def test_the_correlation_length_grows_with_the_memory_of_errors(memory):
    rng = np.random.default_rng(0)
    wrong = [wander(rng, memory, 300, 1)[0] > 1 for _ in range(20)]
    assert {0.0: 1, 0.8: 3, 0.95: 12}[memory] <= correlation_length(wrong) <= {0.0: 2, 0.8: 15, 0.95: 60}[memory]
    assert correlation_length([np.ones(99, bool), np.zeros(99, bool)]) > 60


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(0, 1, width=32), max_size=20), min_size=1, max_size=6), st.lists(st.floats(0, 1, width=32)))
def test_a_tally_counts_as_if_it_had_kept_the_scores(episodes, thresholds):
    thresholds = np.concatenate([[-np.inf], np.unique(np.array(thresholds, np.float32))])
    tally = Tally(thresholds)
    for episode in episodes:
        tally.add(np.array(episode, np.float32))
    every = np.concatenate([np.array(e, np.float32) for e in episodes])
    assert tally.surer.tolist() == [int((every > t).sum()) for t in thresholds]


def test_refusals():
    with pytest.raises(DataError, match="between 0 and 1"):
        control(HeldOut([np.ones(3)], [np.zeros(3, bool)]), 1.5)
    with pytest.raises(DataError, match="a truth for every step"):
        HeldOut([np.ones(3)], [np.zeros(2, bool)])
