"""How the experiments of DynaMo and of inverse dynamics pretraining judge what their arms measured."""

from __future__ import annotations

import pytest

from retrodict.claims.dynamo import EXPERIMENT as DYNAMO
from retrodict.claims.dynamo import RIVALS, TASKS
from retrodict.claims.encoders_and_heads import ENCODERS as TABLE_ENCODERS
from retrodict.claims.encoders_and_heads import EXPERIMENT as TABLE
from retrodict.claims.encoders_and_heads import HEADS as TABLE_HEADS
from retrodict.claims.inverse_dynamics_pretraining import EXPERIMENT as INVERSE


@pytest.mark.parametrize("trial", [DYNAMO, INVERSE])
def test_every_arm_that_is_needed_is_there_and_comes_first(trial):
    arms = list(trial.arms(False))
    for arm, needed in trial.needs.items():
        assert all(arms.index(name) < arms.index(arm) for name in needed), arm
    quick = trial.arms(True)
    assert set(quick) < set(arms)
    assert all(name in quick for arm in quick for name in trial.needs.get(arm, ()))


def dynamo(*, object=0.9, error=0.10, rival=0.10, success=0.6, std=0.02, drawn=0.2, calibrated=0.25):
    """A run in which one of the two random encoders tells more of the object, the other gives better neighbours."""
    seeds = (0, 1, 2)
    measured = {
        "encode dynamo": {s: {"object": object, "action error": error, "std": 0.5} for s in seeds},
        "encode random": {s: {"object": 0.75, "action error": drawn} for s in seeds},
        "encode random, calibrated": {s: {"object": 0.7, "action error": calibrated} for s in seeds},
        "encode collapse": {s: {"std": std} for s in seeds},
        **{f"encode {name}": {s: {"action error": rival} for s in seeds} for name in RIVALS},
        **{f"play random, {task}": {s: {"k-NN success": 0.4} for s in seeds} for task in TASKS},
        **{f"play random, calibrated, {task}": {s: {"k-NN success": 0.5} for s in seeds} for task in TASKS},
        **{f"play dynamo, {task}": {s: {"k-NN success": success - 0.1 * (s == 2)} for s in seeds} for task in TASKS},
    }
    return [check.holds for check in DYNAMO.checks(measured, False)]


def test_dynamo_is_held_to_the_thresholds_of_its_page():
    assert dynamo() == [True] * 5
    assert dynamo(object=0.84) == [False, True, True, True, True]
    assert dynamo(error=0.18, rival=0.18) == [True, False, True, True, True]
    assert dynamo(calibrated=0.11) == [True, False, True, True, True]
    assert dynamo(rival=0.09) == [True, True, False, True, True]
    assert dynamo(success=0.59) == [True, True, True, False, True]
    assert dynamo(std=0.06) == [True, True, True, True, False]


def inverse(*, mine=0.7, cloned=0.4, scratch=0.5, shown=0.1, plain=0.0, position=0.9, theirs=0.5, ceiling=0.8):
    def cells(values):
        return {s: {"success": {str(n): [v + 0.02 * (g % 2) for g in range(10)] for n, v in values.items()}} for s in (0, 1, 2)}

    few = {1: 0.1, 2: mine, 5: mine}
    measured = {
        "encode inverse dynamics": {s: {"position": position} for s in (0, 1, 2)},
        "encode cloning": {s: {"position": theirs} for s in (0, 1, 2)},
        "few-shot inverse dynamics": cells(few),
        "few-shot cloning": cells({1: 0.1, 2: cloned, 5: cloned}),
        "few-shot scratch, 2": cells({2: scratch}),
        "few-shot scratch, 5": cells({5: scratch}),
        "few-shot true state": cells({5: ceiling}),
        "few-shot inverse dynamics, visible": cells({5: 0.5 + shown}),
        "few-shot cloning, visible": cells({5: 0.5}),
        "few-shot inverse dynamics, plain": cells({5: 0.5 + plain}),
        "few-shot cloning, plain": cells({5: 0.5}),
    }
    return [check.holds for check in INVERSE.checks(measured, False)]


def test_inverse_dynamics_pretraining_is_held_to_the_thresholds_of_its_page():
    assert inverse() == [True] * 9
    assert inverse(cloned=0.56)[:4] == [False, False, True, True]
    assert inverse(scratch=0.61)[:4] == [True, True, False, False]
    assert inverse(position=0.84)[4:6] == [False, True]
    assert inverse(theirs=0.66)[4:6] == [True, False]
    assert inverse(ceiling=0.7)[6] is False
    assert inverse(shown=0.16)[7] is False
    assert inverse(plain=-0.05)[8] is False


def test_the_table_of_encoders_and_heads_wants_every_pair():
    cell = {0: {"success": {"5": [0.5, 1.0]}}}
    every = {f"{name} under {head}": cell for name in TABLE_ENCODERS for head in TABLE_HEADS}
    (check,) = TABLE.checks(every, quick=False)
    assert check.holds
    assert TABLE.tables(every) == []
    (table,) = TABLE.tables(every | {f"encode {name}": {0: {"position": 0.9}} for name in TABLE_ENCODERS})
    assert list(table.rows) == list(TABLE_ENCODERS)
    for position, *success in table.rows.values():
        assert (position.value, position.interval) == (0.9, None)
        assert [number.value for number in success] == [0.75] * len(TABLE_HEADS)
        assert len(success) + 2 == len(table.columns)
    every.popitem()
    assert not TABLE.checks(every, quick=False)[0].holds
