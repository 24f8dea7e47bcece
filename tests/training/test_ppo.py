from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from retrodict.errors import DataError
from retrodict.networks.heads import ActionHead
from retrodict.training.actor import Acting
from retrodict.training.ppo import PPO, Settings, advantages
from retrodict.trajectories import ActionSpace, Discrete, Feature
from retrodict.worlds import BatchedWorld, Step, rollout

ACTIONS = ActionSpace({"choice": Discrete(("left", "right"))})


class Recall(BatchedWorld):
    """A cue (-1 or 1) is shown at the first step, or at each where `always`; the action must name it. Three steps an episode."""

    def __init__(self, size: int, always: bool = True, steps: int = 3, end: str = "terminated", rewards=("reward",)) -> None:
        super().__init__(size, {"observation.state": Feature("float32", (1,))}, ACTIONS, 10.0, rewards=rewards)
        self.always, self.steps, self.end = always, steps, end
        self.cue, self.t = torch.zeros(size), torch.zeros(size, dtype=torch.long)

    def reset(self, seeds, worlds=None):
        where = torch.arange(self.size) if worlds is None else torch.tensor(worlds)
        self.cue[where] = torch.tensor([float(2 * (seed % 2) - 1) for seed in seeds])
        self.t[where] = 0
        return self._see()

    def step(self, action: Tensor) -> Step:
        right = ((action[:, 0] * 2 - 1) == self.cue).float()
        self.t += 1
        over, never = self.t >= self.steps, torch.zeros(self.size, dtype=torch.bool)
        terminated, truncated = (over, never) if self.end == "terminated" else (never, over)
        reward = torch.stack([right, 1 - right], 1)[:, : len(self.rewards)]
        return Step(self._see(), reward, terminated, truncated, [{}] * self.size)

    def close(self) -> None:
        pass

    def _see(self):
        shown = self.cue if self.always else self.cue * (self.t == 0)
        return {"observation.state": shown[:, None].clone()}


class Net(nn.Module):
    """With a memory of `width` numbers, or without one."""

    def __init__(self, memory: int = 0, critics: int = 1, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.memory = nn.GRUCell(1, memory) if memory else None
        self.body = nn.Sequential(nn.Linear(memory or 1, 16), nn.Tanh())
        self.head, self.critic = ActionHead(ACTIONS, 16), nn.Linear(16, critics)

    def initial(self, size):
        return {"h": torch.zeros(size, self.memory.hidden_size)} if self.memory else {}

    def forward(self, observation, first, state):
        x = observation["observation.state"]
        if self.memory is not None:
            h, seen = state["h"], []
            for t in range(x.shape[1]):
                h = self.memory(x[:, t], h * ~first[:, t, None])
                seen.append(h)
            x, state = torch.stack(seen, 1), {"h": h}
        features = self.body(x)
        return self.head(features), self.critic(features), state


FAST = {"steps": 12, "epochs": 4, "minibatches": 2, "learning_rate": 0.02, "gammas": (0.5,)}


def learn(net, world, iterations, *, seed=0, reward=None, **changed):
    return list(PPO(net, world, Settings(**{**FAST, **changed}), seed=seed, reward=reward).run(iterations))


# ---- advantages -------------------------------------------------------------------------------------------------------


def naive(reward, value, next_value, terminated, ended, gamma, trace):
    """Every advantage as the sum that it stands for."""
    T, B, n = reward.shape
    out = np.zeros((T, B, n))
    for b in range(B):
        for k in range(n):
            for t in range(T):
                factor = 1.0
                for s in range(t, T):
                    worth = 0.0 if terminated[s, b] else next_value[s, b, k]
                    out[t, b, k] += factor * (reward[s, b, k] + gamma[k] * worth - value[s, b, k])
                    if ended[s, b]:
                        break
                    factor *= gamma[k] * trace[k]
    return out


@settings(max_examples=30)
@given(st.integers(1, 7), st.integers(1, 3), st.integers(1, 2), st.integers(0, 2**31))
def test_advantages_are_the_sums_they_stand_for(T, B, n, seed):
    rng = np.random.default_rng(seed)
    reward, value, next_value = rng.normal(size=(3, T, B, n))
    ended = rng.random((T, B)) < 0.4
    terminated = ended & (rng.random((T, B)) < 0.5)
    gamma, trace = rng.random((2, n))
    given = [torch.from_numpy(np.asarray(x)) for x in (reward, value, next_value, terminated, ended, gamma, trace)]
    expected = naive(reward, value, next_value, terminated, ended, gamma, trace)
    np.testing.assert_allclose(advantages(*given).numpy(), expected, atol=1e-10)


# ---- learning ---------------------------------------------------------------------------------------------------------


def test_it_learns_what_is_rewarded_and_the_policy_acts_on_it():
    net = Net()
    logs = learn(net, Recall(16), 25)
    assert logs[0]["return"] < 2.2
    assert logs[-1]["return"] > 2.7
    for task in (None, "recall"):  # words that tell a task are no input of the network
        played = rollout(Acting(net, sample=False), Recall(4), range(10), task=task)
        assert list(played.returns) == [3.0] * 10


def test_a_memory_is_learned_through_segments_and_a_net_without_one_cannot():
    torch.set_num_threads(1)
    remembering = Net(memory=8)
    logs = learn(remembering, Recall(32, always=False), 40, segment=6)
    assert logs[-1]["return"] > 2.7
    played = rollout(Acting(remembering, sample=False), Recall(3, always=False), range(8))
    assert list(played.returns) == [3.0] * 8
    assert learn(Net(), Recall(32, always=False), 40)[-1]["return"] < 2.4


def test_a_run_repeats_itself_to_the_bit():
    one, same, other = Net(), Net(), Net()
    first = learn(one, Recall(4), 3)
    torch.rand(7)  # the caller's generator is nobody's business
    assert first == learn(same, Recall(4), 3)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert first != learn(other, Recall(4), 3, seed=1)


# Gamma is 0.5: without an end 1 + 1/2 + ... = 2; with an end after three steps the mean of 1 + 1/2 + 1/4, 1 + 1/2 and 1.
@pytest.mark.parametrize(("end", "worth"), [("terminated", (1.75 + 1.5 + 1) / 3), ("truncated", 2.0)])
def test_a_truncated_episode_is_worth_what_would_have_followed(end, worth):
    net = Net()

    def always_one(observation, action, after):
        return torch.ones(len(action), 1)

    learn(net, Recall(16, end=end), 80, reward=always_one, learning_rate=0.01, lambdas=(1.0,))
    value = net({"observation.state": torch.tensor([[[1.0]]])}, torch.tensor([[True]]), {})[1].item()
    assert value == pytest.approx(worth, abs=0.1)


def test_critics_weigh_against_each_other():
    def two(weights):
        net = Net(critics=2)
        world = Recall(16, rewards=("right", "wrong"))
        learn(net, world, 25, weights=weights, gammas=(0.5, 0.9), lambdas=(0.9, 0.9), scales=(1.0, 10.0))
        return rollout(Acting(net, sample=False), world, range(6))

    assert [episode.rewards["right"] for episode in two((1.0, 0.2))] == [3.0] * 6
    assert [episode.rewards["wrong"] for episode in two((0.2, 1.0))] == [3.0] * 6


def test_a_heavy_prior_holds_the_policy_and_a_light_one_lets_it_go():
    def after(rho):
        prior, net = Net(seed=3), Net(seed=3)
        played = list(PPO(net, Recall(16), Settings(**{**FAST, "prior": rho}), prior=prior).run(15))
        seen = {"observation.state": torch.tensor([[[1.0]], [[-1.0]]])}
        start = torch.ones(2, 1, dtype=torch.bool)
        return played[-1]["return"], prior(seen, start, {})[0].kl(net(seen, start, {})[0]).mean().item()

    held, free = after(lambda iteration: 100.0), after(lambda iteration: 100.0 if iteration == 0 else 0.0)
    assert held[1] < 0.01 < free[1]
    assert free[0] > 2.5 > held[0]


def test_values_may_be_held_back():
    net = Net()
    assert learn(net, Recall(16), 25, value_clip=0.2)[-1]["return"] > 2.7


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match="1 rewards, 2 critics and settings for 1"):
        learn(Net(critics=2), Recall(2), 1)
    with pytest.raises(DataError, match="one entry for each critic"):
        Settings(gammas=(0.9, 0.9))
    with pytest.raises(DataError, match="multiple of segment"):
        Settings(steps=10, segment=3)
