import io
import json
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import nn

from retrodict.errors import DataError, RetrodictError
from retrodict.training.devices import share
from retrodict.training.loop import train
from retrodict.training.optimisers import Optimiser, Plateau
from retrodict.training.progress import Bar
from retrodict.training.run import Run
from retrodict.training.schedules import schedule
from retrodict.training.stage import Stage
from retrodict.training.validation import Validation, heldout_loss

CPU = torch.device("cpu")


def batches(step):
    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(step))
    return {"x": x, "y": 2 * x[:, :1] - x[:, 1:2] + 0.5}


def error(net, batch, step):
    return {"error": F.mse_loss(net(batch["x"]), batch["y"])}


def linear(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(3, 1)


def stage(steps=200, loss=error, **more):
    return Stage(steps, loss, **{"optimisers": (Optimiser(rate=0.05),), **more})


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize("precision", ["auto", "64-true", "bf16-mixed"])
def test_it_learns(precision):
    net = linear()
    double = precision == "64-true"
    data = (lambda s: {k: v.double() for k, v in batches(s).items()}) if double else batches
    done = train(net, data, [stage(400)], Run(precision=precision))
    torch.testing.assert_close(weights(net).float(), torch.tensor([2, -1, 0, 0.5]), atol=0.05, rtol=0)
    assert (done.steps, done.stopped_early, net.training) == (400, (), False)
    assert net.weight.dtype is (torch.float64 if double else torch.float32)


def test_a_float64_net_stays_so_without_being_asked():
    net = linear().double()
    train(net, lambda s: {k: v.double() for k, v in batches(s).items()}, [stage(3)])
    assert net.weight.dtype is torch.float64


def test_the_seed_decides_and_the_callers_generators_are_left_alone():
    def noisy(net, batch, step):
        return {
            "error": error(net, batch, step)["error"] + net(torch.randn(4, 3)).square().mean() + random.random() * net.bias.sum()
        }

    def outside(seed):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002

    def drawn():
        return torch.rand(1).item(), random.random(), np.random.rand()  # noqa: NPY002

    ends = []
    for seed, around in ((1, 10), (1, 20), (2, 10)):
        net = linear()
        outside(around)
        train(net, batches, [stage(5, noisy)], seed=seed)
        after = drawn()
        outside(around)
        assert after == drawn()
        ends.append(weights(net))
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_stages_move_only_what_is_theirs_and_give_back_what_was_frozen():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1), nn.Linear(1, 1).requires_grad_(False))
    seen = []

    def record(moment):
        seen.append((moment.stage, [m.weight.detach().clone() for m in net]))

    body = stage(3, optimisers=(Optimiser(net[0], rate=0.1),), name="body")
    both = stage(3, optimisers=(Optimiser(net[0], "sgd", 0.0), Optimiser(net[1], rate=0.1)), name="head")
    train(net, batches, [body, both], Run(callbacks=(record,)))
    after_body, at_the_end = seen[2][1], seen[-1][1]
    assert [name for name, _ in seen] == ["body"] * 3 + ["head"] * 3
    assert not torch.equal(seen[0][1][0], after_body[0])
    assert torch.equal(seen[0][1][1], after_body[1])
    assert torch.equal(after_body[0], at_the_end[0])
    assert not torch.equal(after_body[1], at_the_end[1])
    assert [m.weight.requires_grad for m in net] == [True, True, False]


def test_a_stage_has_its_own_batches_and_counts_its_own_steps():
    asked, steps = [], []

    def own(step):
        asked.append(step)
        return batches(step)

    def loss(net, batch, step):
        steps.append(step)
        return error(net, batch, step)

    train(linear(), batches, [stage(4), stage(3, loss, batches=own)])
    assert asked == [4, 5, 6]
    assert steps == [0, 1, 2]


def test_gradients_are_clipped_as_a_whole_and_by_optimiser():
    sgd = {"kind": "sgd", "rate": 1.0}
    for more, largest in (({"clip": 0.01}, 0.01), ({"optimisers": (Optimiser(clip=0.02, **sgd),)}, 0.02)):
        net, norms = linear(), []
        before = weights(net)
        train(
            net,
            batches,
            [stage(1, **{"optimisers": (Optimiser(**sgd),), **more})],
            Run(callbacks=(lambda m: norms.append(m.gradient_norm),)),
        )
        assert (weights(net) - before).norm() == pytest.approx(largest, rel=1e-3)
        assert norms[0] > 1


def test_lbfgs_minimises_in_a_few_steps_and_must_be_alone():
    net = linear()
    train(net, lambda s: batches(0), [stage(15, optimisers=(Optimiser(kind="lbfgs", rate=1.0),))])
    torch.testing.assert_close(weights(net), torch.tensor([2, -1, 0, 0.5]), atol=1e-3, rtol=0)
    with pytest.raises(DataError, match="only optimiser"):
        stage(optimisers=(Optimiser(kind="lbfgs"), Optimiser()))


def test_a_loss_may_differentiate_inside():
    def slope(net, batch, step):
        x = batch["x"].requires_grad_()
        (g,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
        return {"slope": g.square().mean()}

    net = linear()
    before = weights(net).norm()
    train(net, batches, [stage(20, slope)])
    assert weights(net).norm() < before


def test_augmentation_draws_from_the_step_alone():
    seen = []

    def augment(batch, generator):
        seen.append(torch.rand(2, generator=generator))
        return batch

    train(linear(), batches, [stage(3, augment=augment)], seed=4)
    train(linear(), batches, [stage(3, augment=augment)], seed=4)
    assert torch.equal(torch.stack(seen[:3]), torch.stack(seen[3:]))
    assert not torch.equal(seen[0], seen[1])


def test_what_comes_after_a_step_sees_every_step():
    steps = []
    train(linear(), batches, [stage(3, after=lambda net, step: steps.append(step))])
    assert steps == [0, 1, 2]


# ---- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("log_every", [1, 20])
def test_it_stops_at_nan_and_names_step_and_term(tmp_path, log_every):
    def loss(net, batch, step):
        return {"fine": error(net, batch, step)["error"], "bad": net.bias.sum() * (float("nan") if step == 12 else 1)}

    with pytest.raises(RetrodictError, match=r"term 'bad' became nan at step 13 of stage 'train'") as raised:
        train(linear(), batches, [stage(50, loss)], Run(tmp_path, log_every=log_every, checkpoint_every=10))
    assert "\n" not in str(raised.value)
    assert [p.name for p in tmp_path.glob("checkpoint*")] == ["checkpoint-00000010.pt"]


def test_weights_that_broke_are_not_saved(tmp_path):
    def breaks(net, step):
        if step == 4:
            nn.init.constant_(net.bias, float("inf"))

    with pytest.raises(RetrodictError, match="weights were not finite any more after step 5"):
        train(linear(), batches, [stage(5, after=breaks)], Run(tmp_path))
    assert not list(tmp_path.glob("checkpoint*"))


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (lambda net, batch, step: {}, "no terms"),
        (lambda net, batch, step: {"e": net(batch["x"])}, r"'e' is a tensor of shape \[16, 1\]"),
        (lambda net, batch, step: {"e": 1.0}, "'e' is float"),
        (lambda net, batch, step: {"e": batch["x"].sum()}, "depends on a parameter"),
    ],
)
def test_a_loss_of_the_wrong_form_is_refused(loss, sentence):
    with pytest.raises(DataError, match=sentence):
        train(linear(), batches, [stage(5, loss)])


def test_a_folder_of_another_configuration_is_refused_and_says_what_differs(tmp_path):
    train(linear(), batches, [stage(5)], Run(tmp_path), identity={"width": 3, "data": "a"})
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    for changed, sentence in (
        ({"identity": {"width": 4, "data": "a"}}, "width = 3 and now 4"),
        ({"identity": {"width": 3, "data": "b"}}, "data = a and now b"),
        ({"identity": {"width": 3}}, "data = a and now nothing"),
        ({"seed": 1, "identity": {"width": 3, "data": "a"}}, "seed = 0 and now 1"),
    ):
        with pytest.raises(DataError, match=sentence):
            train(linear(), batches, [stage(5)], Run(tmp_path), **changed)
    with pytest.raises(DataError, match=r"stages\[0\].steps = 5 and now 6"):
        train(linear(), batches, [stage(6)], Run(tmp_path), identity={"width": 3, "data": "a"})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(DataError, match=r"run\.json is damaged"):
        train(linear(), batches, [stage(5)], Run(tmp_path))
    (tmp_path / "run.json").unlink()
    with pytest.raises(DataError, match=r"holds checkpoints but no run\.json"):
        train(linear(), batches, [stage(5)], Run(tmp_path))


def test_a_run_of_nothing_is_refused():
    with pytest.raises(DataError, match="log_every"):
        Run(log_every=0)
    with pytest.raises(DataError, match="0 steps"):
        stage(0)
    with pytest.raises(DataError, match="plateau"):
        train(linear(), batches, [stage(optimisers=(Optimiser(plateau=Plateau()),))])


# ---- validation -------------------------------------------------------------------------------------------------------


def judging(values, **more):
    said = iter(values)
    return Validation(lambda net, step: next(said), every=2, **more)


def test_it_stops_after_patience_and_keeps_the_best_weights():
    kept = []

    def record(moment):
        kept.append(weights(moment.net))

    net = linear()
    done = train(net, batches, [stage(100, validation=judging([3, 1, 2, 2, 2, 0], patience=3))], Run(callbacks=(record,)))
    assert (done.steps, done.best, done.stopped_early) == (10, 1.0, ("train",))
    assert torch.equal(weights(net), kept[3])


def test_it_can_keep_the_last_weights_and_goes_on_to_the_next_stage():
    names = []
    first = stage(100, validation=judging([1, 2, 2], patience=2, keep="last"), name="first")
    train(linear(), batches, [first, stage(3, name="second")], Run(callbacks=(lambda m: names.append(m.stage),)))
    assert names == ["first"] * 6 + ["second"] * 3


def test_averaged_weights_are_judged_and_kept():
    judged, net = [], linear()
    start = weights(net)

    def measure(net, step):
        judged.append(weights(net))
        return 1.0

    train(net, batches, [stage(4, ema=1.0, validation=Validation(measure, every=2, keep="last"))])
    assert all(torch.equal(w, start) for w in [*judged, weights(net)])


def test_a_plateau_lowers_the_rate(tmp_path):
    slow = Optimiser(rate=0.1, plateau=Plateau(factor=0.5, patience=1))
    train(linear(), batches, [stage(10, optimisers=(slow,), validation=judging([5, 5, 5, 5, 5]))], Run(tmp_path, log_every=1))
    rows = [line.split(",") for line in (tmp_path / "log.csv").read_text().splitlines()]
    rates = [float(row[rows[0].index("rate")]) for row in rows[1:]]
    assert rates == [0.1] * 6 + [0.05] * 4


def test_heldout_loss_is_the_mean_over_windows_not_over_batches():
    net = linear()
    whole = batches(0)
    parts = [{k: v[:12] for k, v in whole.items()}, {k: v[12:] for k, v in whole.items()}]
    measured = heldout_loss(error, lambda: parts, CPU)(net, 0)
    assert measured == pytest.approx(error(net, whole, 0)["error"].item(), rel=1e-5)


# ---- what is shown and written ----------------------------------------------------------------------------------------


def test_the_log_has_every_term_and_no_step_twice(tmp_path):
    def loss(net, batch, step):
        return {"error": error(net, batch, step)["error"], "size": net.weight.square().sum()}

    held = Validation(heldout_loss(error, lambda: [batches(9)], CPU), every=20)
    stages = [stage(30, loss, validation=held), stage(10, name="more")]
    train(linear(), batches, stages, Run(tmp_path, log_every=10, checkpoint_every=15))
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines[0] == "step,stage,loss,loss.error,loss.size,gradient_norm,rate,validation"
    rows = [line.split(",") for line in lines[1:]]
    assert [row[:2] for row in rows] == [["10", "train"], ["15", "train"], ["20", "train"], ["30", "train"], ["40", "more"]]
    assert [row[-1] != "" for row in rows] == [False, False, True, True, False]
    assert float(rows[0][2]) == pytest.approx(float(rows[0][3]) + float(rows[0][4]))
    assert json.loads((tmp_path / "run.json").read_text())["stages"][0]["steps"] == 30


def test_the_bar_is_drawn_on_a_terminal_only():
    for terminal in (True, False):
        drawn = io.StringIO()
        with Bar(10, 0, True, Console(file=drawn, force_terminal=terminal, width=120)) as bar:
            bar.show("train", 0.25, 1e-3, 0.5)
            bar.advance(9)
            bar.advance(10)
        assert ("loss 0.25 rate 0.001 validation 0.5" in drawn.getvalue()) == terminal
        assert ("10/10" in drawn.getvalue()) == terminal


# ---- several devices --------------------------------------------------------------------------------------------------


def test_shares_make_up_the_batch():
    batch = {"x": torch.arange(7)}
    parts = [share(batch, rank, 3)["x"].tolist() for rank in range(3)]
    assert parts == [[0, 3, 6], [1, 4], [2, 5]]
    assert [len(share({"x": torch.arange(2)}, rank, 4)["x"]) for rank in range(4)] == [1, 1, 1, 1]


def test_two_devices_learn_what_one_learns(tmp_path):
    one, two = linear(), linear()
    train(one, batches, [stage(20)])
    done = train(two, batches, [stage(20)], Run(tmp_path, devices=2, progress=False))
    torch.testing.assert_close(weights(two), weights(one), atol=1e-5, rtol=0)
    assert done.steps == 20
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2
    again = linear(1)
    assert train(again, batches, [stage(20)], Run(tmp_path, devices=2)).resumed_at == 20
    assert torch.equal(weights(again), weights(two))


def test_an_error_on_two_devices_is_still_one_sentence():
    def loss(net, batch, step):
        return {"bad": error(net, batch, step)["error"] * (float("nan") if batch["x"][0, 0] == batches(2)["x"][1, 0] else 1)}

    with pytest.raises(RetrodictError, match="term 'bad' became nan at step 3"):
        train(linear(), batches, [stage(5, loss)], Run(devices=2, log_every=5))


def test_rates_follow_the_schedule(tmp_path):
    rate = schedule("linear", 1.0, 0.0, 4)
    train(linear(), batches, [stage(4, optimisers=(Optimiser(kind="sgd", rate=rate),))], Run(tmp_path, log_every=1))
    assert [line.split(",")[-1] for line in (tmp_path / "log.csv").read_text().splitlines()[1:]] == ["1.0", "0.75", "0.5", "0.25"]
