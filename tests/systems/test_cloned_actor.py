import numpy as np
import pytest
import torch

from retrodict.errors import DataError
from retrodict.systems.policies.behavior_cloning import BehaviorCloning
from retrodict.systems.policies.cloned_actor import ClonedActor
from retrodict.training.actor import Acting
from retrodict.training.run import Run

from .moving_square import EYE, recordings

TINY = {"frames": 6, "image_size": None, "patch": 2, "stacks": (8,), "dense": 32, "width": 32, "depth": 2, "memory": 5}


@pytest.fixture(scope="module")
def policy():
    made = BehaviorCloning(**TINY, steps=2, batch=8, sampling=False)
    return made.fit(recordings(3, seed=0), run=Run(progress=False))


@pytest.fixture(scope="module")
def seen(policy):
    """Ten steps of two episodes."""
    data = recordings(2, seed=1)
    batch = {name: torch.from_numpy(np.stack([e.read(name, np.arange(10)) for e in data])) for name in policy.seen(policy.spec_)}
    return {**batch, EYE: batch[EYE].movedim(-1, 2)}


def logits(distribution):
    return torch.cat([part.logits.flatten(2) for part in distribution.parts.values()], -1)


def test_it_acts_as_the_policy_does(policy, seen):
    acting = Acting(ClonedActor(policy), sample=False)
    policy.reset()
    acting.reset()
    for t in range(10):
        if t == 6:
            policy.reset(torch.tensor([True, False]))
            acting.reset(torch.tensor([True, False]))
        step = {name: values[:, t] for name, values in seen.items()}
        torch.testing.assert_close(acting.act(step), policy.act(step))


def test_a_sequence_is_its_steps_one_by_one_also_where_an_episode_begins_in_it(policy, seen):
    """In one block what is remembered reaches `memory` steps back either way; deeper, older steps shine through."""
    actor = ClonedActor(BehaviorCloning(**{**TINY, "depth": 1}, steps=2, batch=8).fit(recordings(3, seed=0), run=Run()))
    torch.nn.init.normal_(actor.critic.weight)
    first = torch.zeros(2, 10, dtype=torch.bool)
    first[:, 0], first[0, 4], first[1, 7] = True, True, True
    start = {name: torch.randn_like(v) if v.is_floating_point() else ~v for name, v in actor.initial(2).items()}
    whole, worth, after = actor(seen, first, start)
    steps, state = [], start
    for t in range(10):
        distribution, value, state = actor({n: v[:, t : t + 1] for n, v in seen.items()}, first[:, t : t + 1], state)
        steps.append((logits(distribution), value))
    torch.testing.assert_close(torch.cat([s for s, _ in steps], 1), logits(whole), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.cat([v for _, v in steps], 1), worth, atol=1e-5, rtol=1e-5)
    assert torch.equal(state["valid"], after["valid"])
    kept = after["valid"][:, None, None, :, None]
    torch.testing.assert_close(state["keys"] * kept, after["keys"] * kept, atol=1e-5, rtol=1e-5)


def test_critics_start_at_zero_and_fresh_weights_are_others(policy, seen):
    first = torch.ones(2, 10, dtype=torch.bool)
    cloned, fresh = ClonedActor(policy, critics=2), ClonedActor(policy, critics=2, fresh=True)
    (one, value, _), (other, _, _) = (actor(seen, first, actor.initial(2)) for actor in (cloned, fresh))
    assert value.shape == (2, 10, 2)
    assert not value.any()
    assert not torch.allclose(logits(one), logits(other))
    again = ClonedActor(policy, critics=2, fresh=True)
    assert torch.equal(logits(again(seen, first, again.initial(2))[0]), logits(other))
    for (name, ours), (_, theirs) in zip(fresh.net.named_buffers(), policy.net_.named_buffers(), strict=True):
        assert torch.equal(ours, theirs), name


def test_frames_of_another_size_are_refused():
    small = BehaviorCloning(**{**TINY, "image_size": (8, 8)}, steps=1, batch=4)
    with pytest.raises(DataError, match=r"looks at \(8, 8\)"):
        ClonedActor(small.fit(recordings(2, seed=0), run=Run(progress=False)))
