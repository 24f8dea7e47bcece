import dataclasses
import json
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from retrodict.errors import DataError
from retrodict.systems import REGISTRY, System
from retrodict.systems.checks import SPACES, tiny_recordings
from retrodict.systems.contract import identities
from retrodict.training.ema import EMA
from retrodict.training.optimisers import Optimiser
from retrodict.training.run import Run
from retrodict.training.schedules import schedule
from retrodict.training.stage import Stage
from retrodict.trajectories import from_arrays
from retrodict.trajectories.features import ACTION, STATE

from .toys import TOYS, ToyInverse, ToyPolicy

DATA = tiny_recordings(SPACES["continuous"], images=False)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for slug, toy in TOYS.items():
        monkeypatch.setitem(REGISTRY, slug, toy)


def weights(system):
    return torch.cat([p.detach().flatten() for p in system.net_.parameters()])


def test_held_out_episodes_give_no_gradient(monkeypatch):
    read = set()
    loss = ToyInverse.loss

    def watched(self, net, batch):
        if net.training:
            read.update(batch["episode"].tolist())
        return loss(self, net, batch)

    monkeypatch.setattr(ToyInverse, "loss", watched)
    system = ToyInverse(holdout=0.34, steps=30).fit(DATA)
    assert len(system.heldout_) == 2
    assert set(system.learned_from_) | set(system.heldout_) == set(identities(DATA))
    assert not set(system.learned_from_) & set(system.heldout_)
    assert read == set(range(len(system.learned_from_)))
    assert system.trained_.best is not None


def test_validation_that_is_given_takes_the_place_of_the_holdout(tmp_path):
    train, judge = DATA[:4], DATA[4:]
    system = ToyInverse(holdout=0.3).fit(train, validation=judge)
    assert (system.learned_from_, system.heldout_) == (identities(train), identities(judge))
    loaded = System.load(system.save(tmp_path / "model"))
    assert (loaded.learned_from_, loaded.heldout_) == (system.learned_from_, system.heldout_)


def test_steps_are_weighed_once_when_judged_as_when_learned_from(monkeypatch):
    """Where the loss weighs steps, anchors are not drawn by weight as well."""
    weight = [np.linspace(0.1, 1, e.length).astype(np.float32) for e in DATA]
    read = {True: [], False: []}

    class Weighing(ToyInverse):
        def reader(self, recordings):
            return recordings.windows(self.window(self.spec_), self.batch, seed=self.seed, weights=None)

        def loss(self, net, batch):
            read[net.training].extend(zip(batch["episode"].tolist(), batch["frame"].tolist(), strict=True))
            return super().loss(net, batch)

    data = DATA.with_column("sample.weight", weight)
    Weighing(holdout=0.34, steps=1).fit(data)
    assert len(read[False]) == len(set(read[False])) > 0, "every held-out step once, whatever its weight"


def test_without_holdout_all_episodes_teach_and_none_judges():
    system = ToyInverse(holdout=0.0).fit(DATA)
    assert (system.learned_from_, system.heldout_, system.trained_.best) == (identities(DATA), (), None)


def test_only_episodes_that_can_be_read_are_said_to_have_taught_it():
    unlabelled = DATA[:2].without(ACTION)
    system = ToyInverse(holdout=0.0).fit(unlabelled + DATA[2:])
    assert system.learned_from_ == identities(DATA[2:])


def test_patience_ends_training_and_the_best_weights_stay():
    impatient = ToyInverse(steps=400, evaluate_every=5, patience=2, learning_rate=1.0, ema=None, decay="constant").fit(DATA)
    assert impatient.trained_.steps < 400
    assert impatient.trained_.stopped_early == ("train",)


def test_one_episode_cannot_be_split():
    with pytest.raises(DataError, match="cannot split 1 episode"):
        ToyInverse(holdout=0.5).fit(DATA[:1])


@pytest.mark.parametrize(
    ("system", "data", "sentence"),
    [
        (ToyInverse(width=9), DATA, "hyperparameters.width = 8 and now 9"),
        (ToyInverse(seed=1), DATA, "hyperparameters.seed = 0 and now 1"),
        (ToyInverse(), DATA[1:], "data = "),
        (ToyInverse(), tiny_recordings(SPACES["continuous"], images=False, seed=1), "data = "),
        (ToyPolicy(), tiny_recordings(SPACES["continuous"]), "system = toy-inverse and now toy-policy"),
    ],
)
def test_a_run_folder_of_another_fit_is_refused(tmp_path, system, data, sentence):
    ToyInverse().fit(DATA, run=Run(tmp_path))
    with pytest.raises(DataError, match="another configuration") as raised:
        system.fit(data, run=Run(tmp_path))
    assert sentence in str(raised.value)
    assert json.loads((tmp_path / "run.json").read_text())["system"] == "toy-inverse"


def test_another_device_or_log_interval_is_the_same_training(tmp_path):
    first = ToyInverse().fit(DATA, run=Run(tmp_path))
    again = ToyInverse(device="cpu").fit(DATA, run=Run(tmp_path, log_every=1))
    assert again.trained_.resumed_at == first.steps
    assert torch.equal(weights(first), weights(again))


def test_a_fit_that_fails_leaves_nothing_of_the_one_before():
    system = ToyInverse().fit(DATA)
    broken = dataclasses.replace(DATA, episodes=DATA.episodes)
    system.width = -1
    with pytest.raises(RuntimeError):
        system.fit(broken)
    assert not system.is_fitted


def test_nan_is_refused_with_episode_and_step():
    values = [np.array(episode[STATE]) for episode in DATA]
    values[3][5] = np.nan
    with pytest.raises(DataError, match=r"episode 3 of tiny: 'observation.state' is not finite at step 5"):
        ToyInverse().fit(DATA.with_column(STATE, values))


@dataclasses.dataclass
class Teacher(ToyInverse):
    """A self-supervised toy in two stages: a student that follows a teacher that follows it, then a head on frozen codes."""

    def build(self, spec):
        net = super().build(spec)
        net["teacher"] = EMA(net["body"], schedule("cosine", 0.9, 1.0, 5))
        return net

    def alike(self, net, batch, step):
        states = net["normal"](batch[STATE].flatten(0, 1))
        self.seen = [*getattr(self, "seen", []), step]
        return {"alike": F.mse_loss(net["body"](states), net["teacher"](states)) + net["body"](states).square().mean()}

    def stages(self, net):
        return (
            Stage(5, self.alike, (Optimiser(net["body"]),), after=lambda net, step: net["teacher"].update(step), name="codes"),
            Stage(5, self.stage_loss, (Optimiser(net["head"], "sgd", 0.1),), name="head"),
        )


def test_a_system_may_have_stages_a_teacher_and_several_optimisers(tmp_path):
    system = Teacher(holdout=0.0).fit(DATA, run=Run(tmp_path, log_every=5))
    assert system.seen == [0, 1, 2, 3, 4]
    assert system.now == 4
    assert [line.split(",")[1] for line in (tmp_path / "log.csv").read_text().splitlines()[1:]] == ["codes", "head"]
    assert not torch.equal(system.net_["teacher"].module[0].weight, system.net_["body"][0].weight)
    assert isinstance(system.net_["teacher"], nn.Module)


def test_two_devices_repeat_and_know_what_was_held_out():
    one, two = (ToyInverse(holdout=0.34, steps=6).fit(DATA, run=Run(devices=2, progress=False)) for _ in range(2))
    assert torch.equal(weights(one), weights(two))
    assert one.trained_.best == two.trained_.best
    assert one.heldout_ == ToyInverse(holdout=0.34).fit(DATA).heldout_


def test_several_devices_resume_too(tmp_path, monkeypatch):
    monkeypatch.delenv("MASTER_PORT", raising=False)
    run = Run(tmp_path, devices=2, progress=False)
    first = ToyInverse(steps=6).fit(DATA, run=run)
    assert "MASTER_PORT" not in os.environ, "the next training meets elsewhere"
    again = ToyInverse(steps=6).fit(DATA, run=run)
    assert again.trained_.resumed_at == 6
    assert torch.equal(weights(first), weights(again))


def test_points_or_frames_whose_size_differs_between_episodes_are_checked_by_what_is_fixed():
    ragged = from_arrays([{STATE: np.zeros((5, n), np.float32), ACTION: np.zeros((5, 2), np.float32)} for n in (3, 4)])
    system = ToyInverse()
    system.spec_, system.learned_from_ = ToyInverse()._offered(ragged), ()
    assert system.checked({STATE: torch.zeros(2, 3, 7)})[STATE].shape == (2, 3, 7)
    with pytest.raises(DataError, match=r"shape \[2, 3\]"):
        system.checked({STATE: torch.zeros(2, 3)})
