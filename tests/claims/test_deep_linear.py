"""How the experiment on deep linear networks judges."""

import copy

from retrodict.claims.deep_linear import EXPERIMENT

GOOD = {
    "exactness": {0: {"error": 0.002, "error at a tenth of the rate": 0.0002, "naive": 0.8}},
    "small random start": {0: {"correlation": 0.97, "rise": [0.4, 0.5]}},
    "depth 8": {0: {"orthogonal": 10.0, "pretrained": 10.0, "gaussian": None}},
    "depth 64": {0: {"orthogonal": 20.0, "pretrained": 15.0, "gaussian": None}},
    "gradients": {
        0: {
            "linear orthogonal": 1e-15,
            "orthogonal 1.05": {"largest over median": 7.0},
            "gaussian 1.05": {"largest over median": 1e15},
        }
    },
    "tanh": {0: {"steps": {"orthogonal": 20.0, "gaussian": 160.0}}},
}


def failing(arm, **changes):
    measured = copy.deepcopy(GOOD)
    measured[arm][0] |= changes
    return [check.name for check in EXPERIMENT.checks(measured, False) if not check.holds]


def test_every_line_holds_where_it_should_and_fails_by_itself():
    assert failing("exactness") == []
    assert failing("exactness", **{"error": 0.006, "error at a tenth of the rate": 0.0006}) == [
        "largest error of a strength, rate 0.01"
    ]
    assert failing("exactness", **{"error at a tenth of the rate": 0.001}) == ["error at rate 0.01 over that at 0.001"]
    assert failing("small random start", rise=[0.56]) == ["longest 10-90 % rise over half-time"]
    assert failing("depth 64", orthogonal=26.0) == ["orthogonal start: steps at depth 64 over depth 8"]
    assert failing("depth 64", gaussian=900.0) == ["Gaussian start never learns at depth 64"]
    assert failing("depth 8", gaussian=30.0) == ["Gaussian over orthogonal steps at depth 8"]
    assert failing("tanh", steps={"orthogonal": 20.0, "gaussian": 20.0}) == [
        "30 tanh layers: Gaussian start is not there by then"
    ]
    assert len(failing("tanh", steps={"orthogonal": None, "gaussian": None})) == 2


def test_what_was_not_run_is_not_judged():
    assert EXPERIMENT.checks({}, False) == []
    assert set(EXPERIMENT.arms(True)) < set(EXPERIMENT.arms(False))
