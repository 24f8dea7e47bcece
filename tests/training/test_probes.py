from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from retrodict.errors import DataError
from retrodict.roles import Encoder, Policy
from retrodict.training.few_shot import demonstrations, few_shot
from retrodict.training.probes import encoded, few_of_each, probe, r_squared, split_episodes
from retrodict.training.run import Moment
from retrodict.training.watching import CollapseAlarm, DetachedProbe
from retrodict.trajectories import Window, from_arrays


def made(n=600, seed=0):
    rng = np.random.default_rng(seed)
    episode = np.repeat(np.arange(n // 20), 20)
    features = rng.normal(size=(n, 6))
    return features, episode, split_episodes(episode, 0.3, seed)


def test_rows_of_an_episode_stay_together():
    _, episode, split = made()
    assert not set(episode[split.train]) & set(episode[split.test])
    assert len(np.unique(episode[split.test])) == 9
    assert len(split.train) + len(split.test) == 600
    with pytest.raises(DataError, match="single episode"):
        split_episodes(np.zeros(5))


@pytest.mark.parametrize("kind", ["ridge", "linear", "mlp"])
def test_what_is_there_linearly_is_read(kind):
    x, _, split = made()
    target = x @ np.random.default_rng(1).normal(size=(6, 2)) * 50 + 7
    score = probe(x * 1e3, target, split, kind, steps=400, rate=0.01)
    assert score.value > 0.97
    assert score.answers.shape == (len(split.test), 2)
    assert probe(x, np.random.default_rng(2).normal(size=600), split).value < 0.05


def test_a_perceptron_reads_what_a_line_cannot():
    x, _, split = made()
    target = np.abs(x[:, 0])
    assert probe(x, target, split).value < 0.1
    assert probe(x, target, split, "mlp", steps=600, rate=3e-3).value > 0.8


@pytest.mark.parametrize("kind", ["logistic", "linear", "mlp"])
def test_classes_and_few_of_each(kind):
    x, _, split = made()
    labels = (x[:, 0] > 0).astype(np.int64) + 5
    assert probe(x, labels, split, kind, steps=300, rate=0.01).value > 0.93
    few = probe(x, labels, split, kind, shots=8, steps=200, rate=0.01)
    assert 0.6 < few.value < 1
    rows = few_of_each(labels, split.train, 8, 1)
    assert np.bincount(labels[rows])[5:].tolist() == [8, 8]
    assert set(rows) <= set(split.train)
    with pytest.raises(DataError, match="500 examples of each"):
        few_of_each(labels, split.train, 500)


def test_an_attentive_probe_finds_the_token_that_tells():
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(600, 5, 6))
    place = rng.integers(0, 5, 600)
    labels = rng.integers(0, 2, 600)
    tokens[np.arange(600), place, 0] = 6  # the mark of the token that tells
    tokens[np.arange(600), place, 1] = labels * 6 - 3
    _, _, split = made()
    assert probe(tokens, labels, split, "attentive", steps=400, rate=0.02).value > 0.9


def test_probes_refuse_what_they_cannot_read():
    x, _, split = made()
    with pytest.raises(DataError, match="ridge probe reads numbers"):
        probe(x, np.ones(600, int), split)
    with pytest.raises(DataError, match="logistic probe reads classes"):
        probe(x, np.ones(600), split, "logistic")
    with pytest.raises(DataError, match="finite"):
        probe(np.full_like(x, np.nan), np.ones(600), split)
    with pytest.raises(DataError, match="does not vary"):
        r_squared(np.ones((3, 1)), np.ones((3, 1)))


class Doubling(Encoder):
    """Twice the state."""

    reads = Window(1, 1, ("observation.state",))

    def encode(self, window):
        return 2 * window["observation.state"]


def recordings():
    def episode(i):
        where = (np.arange(4 + i)[:, None] + 10 * i).astype(np.float32)
        return {"observation.state": where, "privileged.truth": -where, "action": where}

    return from_arrays([episode(i) for i in range(5)], fps=10, tasks=["a", "b", "a", "b", "b"])


def test_every_step_is_encoded_once_in_order_with_what_is_hidden_beside():
    seen = encoded(Doubling(), recordings(), ("privileged.truth",), batch=7)
    assert len(seen) == recordings().steps
    np.testing.assert_array_equal(seen.codes, -2 * seen.values["privileged.truth"])
    np.testing.assert_array_equal(seen.frame[:6], [0, 1, 2, 3, 0, 1])
    np.testing.assert_array_equal(np.bincount(seen.episode), [4, 5, 6, 7, 8])


def test_demonstrations_are_drawn_for_each_task_and_alike_for_everybody():
    some = demonstrations(recordings(), 2, seed=3)
    assert sorted(episode.tasks[0] for episode in some) == ["a", "a", "b", "b"]
    assert [e.index for e in some] == [e.index for e in demonstrations(recordings(), 2, seed=3)]
    with pytest.raises(DataError, match="3 demonstrations are asked for and 'a' has 2"):
        demonstrations(recordings(), 3)


def test_what_does_not_act_is_not_tried():
    class Mute:
        def fit(self, recordings):
            self.seen = len(recordings)

    mute = Mute()
    with pytest.raises(DataError, match="no role of Policy"):
        few_shot(mute, recordings(), 1, "dm-control/point_mass-easy", [0])
    assert mute.seen == 2
    assert not isinstance(mute, Policy)


def moment(net, step):
    return Moment(step, "train", {}, torch.zeros(()), net)


def test_the_alarm_rings_once_when_codes_collapse():
    frames = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)).train()
    alarm = CollapseAlarm(lambda net: net(frames), least=0.01, every=10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alarm(moment(net, 10))
        alarm(moment(net, 11))
    assert net.training
    with torch.no_grad():
        net[0].weight *= 1e-4
    with pytest.warns(UserWarning, match="collapsing: at step 20"):
        alarm(moment(net, 20))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alarm(moment(net, 30))
    assert [step for step, _ in alarm.history] == [10, 20, 30]


def test_a_detached_probe_leaves_no_gradient():
    x, _, split = made()
    net = nn.Linear(6, 6)
    reading = DetachedProbe(lambda net: net(torch.from_numpy(x).float()), x[:, :2], split, every=5)
    reading(moment(net, 5))
    assert reading.history[0][0] == 5
    assert reading.history[0][1] > 0.99
    assert net.weight.grad is None
