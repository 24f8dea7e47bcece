import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrodict.errors import DataError
from retrodict.metrics import Rightness, action_scores
from retrodict.trajectories import ActionSpace, Box, Discrete, MuLaw, MultiBinary

SPACE = ActionSpace(
    {
        "keys": MultiBinary(("jump", "fire")),
        "weapon": Discrete(("fist", "gun", "saw")),
        "turn": Box(("yaw",), -10, 10, "degrees", MuLaw(10, 11)),
        "arm": Box(("x", "y"), -1, 1),
    }
)


def actions(n: int = 400, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.column_stack(
        [rng.random((n, 2)) < (0.2, 0.5), rng.integers(0, 3, n), rng.uniform(-10, 10, n), rng.uniform(-1, 1, (n, 2))]
    ).astype(np.float32)


def test_a_perfect_answer_scores_one_everywhere_and_the_dict_is_json():
    scores = action_scores(actions(), actions(), SPACE)
    assert scores["joint"]["accuracy"] == 1
    assert {part["accuracy"] for part in scores["parts"].values()} == {1}
    assert scores["parts"]["arm"]["r2"] == 1
    assert scores["parts"]["keys"]["names"]["jump"]["f1"] == 1
    json.dumps(scores, allow_nan=False)


def test_each_kind_is_scored_as_it_should_be():
    true = actions()
    pred = true.copy()
    pred[:, 0] = 0  # never jumps
    pred[:100, 2] = (true[:100, 2] + 1) % 3  # a quarter of the choices is wrong
    pred[:, 3] = MuLaw(10, 11).decode(MuLaw(10, 11).encode(true[:, 3]))  # the bin, not the value
    pred[:, 4] += 0.09  # within 5 % of a range of 2
    pred[:, 5] += 0.11  # beyond it
    parts = action_scores(pred, true, SPACE)["parts"]
    pressed = true[:, 0].mean()
    jump = parts["keys"]["names"]["jump"]
    assert jump["accuracy"] == jump["majority"] == pytest.approx(1 - pressed)
    assert (jump["recall"], jump["precision"]) == (0, None)
    assert parts["weapon"]["accuracy"] == pytest.approx(0.75)
    assert parts["turn"]["accuracy"] == 1
    assert 0.9 < parts["turn"]["r2"] < 1
    assert (parts["arm"]["names"]["x"]["accuracy"], parts["arm"]["names"]["y"]["accuracy"]) == (1, 0)
    assert parts["arm"]["names"]["y"]["mae"] == pytest.approx(0.11, rel=1e-4)
    assert parts["arm"]["joint"] == 0


def test_majority_is_what_the_best_constant_answer_scores():
    true = actions()
    scores = action_scores(true, true, SPACE)
    best = max(np.mean(true[:, 2] == c) for c in range(3))
    assert scores["parts"]["weapon"]["majority"] == pytest.approx(best)
    constant = np.tile(np.median(true, 0), (len(true), 1))
    beaten = action_scores(constant, true, SPACE)["parts"]
    assert beaten["weapon"]["accuracy"] <= scores["parts"]["weapon"]["majority"]
    assert beaten["turn"]["accuracy"] <= scores["parts"]["turn"]["majority"] + 1e-9


def test_only_the_asked_steps_are_scored_and_their_share_is_told():
    true = actions()
    pred = true.copy()
    pred[200:] = -pred[200:] - 1
    scores = action_scores(pred, true, SPACE, where=np.arange(400) < 200)
    assert (scores["steps"], scores["share"], scores["joint"]["accuracy"]) == (200, 0.5, 1)


def test_a_constant_truth_has_no_r2():
    space = ActionSpace({"a": Box(("x",), -1, 1)})
    assert action_scores(np.ones((4, 1)), np.zeros((4, 1)), space)["parts"]["a"]["r2"] is None


@given(st.integers(0, 1000))
def test_joint_is_right_where_every_part_is(seed):
    true, pred = actions(50, seed), actions(50, seed)
    rng = np.random.default_rng(seed)
    noise = rng.random(pred.shape) < 0.2
    pred[noise] = actions(50, seed + 1)[noise]
    rule = Rightness.of(SPACE, true)
    parts = rule.parts(pred, true)
    assert (rule.joint(pred, true) == np.all(list(parts.values()), 0)).all()


def test_ranges_come_from_the_data_where_the_space_declares_none():
    space = ActionSpace({"a": Box(("x",))})
    rule = Rightness.of(space, np.array([[0.0], [100.0]]))
    assert rule.joint(np.array([[4.9], [5.1]]), np.zeros((2, 1))).tolist() == [True, False]
    assert str(rule) == "every continuous value lies within 0.05 of its range"


def test_refusals():
    true = actions()
    with pytest.raises(DataError, match="width 6"):
        action_scores(true[:, :3], true[:, :3], SPACE)
    with pytest.raises(DataError, match="no step to score"):
        action_scores(true, true, SPACE, where=np.zeros(400, bool))
    broken = true.copy()
    broken[3, 4] = np.nan
    with pytest.raises(DataError, match="not finite"):
        action_scores(broken, true, SPACE)


def test_infinite_bounds_and_small_units_do_not_make_everything_right():
    endless = ActionSpace({"arm": Box(("x",), -np.inf, np.inf)})
    true = np.random.default_rng(0).random((50, 1))
    assert action_scores(np.full((50, 1), 100.0), true, endless)["joint"]["accuracy"] == 0
    tiny = np.linspace(0, 3e-9, 50)[:, None]
    assert action_scores(-tiny, tiny, endless)["joint"]["accuracy"] < 0.1
    for low, high in ((1, 0), (np.inf, -np.inf), (np.inf, None), (np.nan, None)):
        with pytest.raises(DataError, match="must not fall"):
            Box(("x",), low, high)
    nothing = ActionSpace({"arm": Box(("x",), 0, 0)})  # what some worlds declare where there is nothing to do
    assert action_scores(np.full((50, 1), 0.5), np.zeros((50, 1)), nothing)["joint"]["accuracy"] == 0


def test_a_number_that_never_changes_is_judged_by_its_own_size():
    space = ActionSpace({"arm": Box(("x", "grip"))})
    true = np.column_stack([np.linspace(-1, 1, 40), np.ones(40)])
    assert action_scores(true + np.array([0.0, 0.002]), true, space)["joint"]["accuracy"] == 1
    assert action_scores(true + np.array([0.0, 0.2]), true, space)["joint"]["accuracy"] == 0


def test_the_best_constant_is_not_split_by_where_cells_begin():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0.5, 0.02, 600), rng.uniform(-1, 1, 400)])[:, None]
    space = ActionSpace({"arm": Box(("x",), -1, 1)})
    best = max((np.abs(c - values) <= 0.1).mean() for c in np.linspace(-1, 1, 4001))
    assert action_scores(values, values, space)["joint"]["majority"] == pytest.approx(best, abs=2e-3)
    both = np.column_stack([values, rng.permutation(values)])
    pair = ActionSpace({"arm": Box(("x", "y"), -1, 1)})
    assert action_scores(both, both, pair)["joint"]["majority"] == pytest.approx(best**2, abs=0.02)


def test_the_best_constant_of_many_numbers_is_found_where_cells_split_the_cluster():
    rng = np.random.default_rng(0)
    cluster, rest = rng.normal(0.37, 0.03, (300, 6)), rng.uniform(-1, 1, (700, 6))
    true = np.concatenate([cluster, rest])
    space = ActionSpace({"arm": Box(tuple("abcdef"), -1, 1)})
    middle = (np.abs(true - 0.37) <= 0.1).all(1).mean()
    assert action_scores(true, true, space)["joint"]["majority"] >= middle - 0.01
