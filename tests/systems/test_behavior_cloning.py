import numpy as np
import pytest
import torch

from retrodict.errors import DataError, NotFittedError, RetrodictError
from retrodict.systems import System
from retrodict.systems.policies.behavior_cloning import BehaviorCloning
from retrodict.training.run import Run
from retrodict.trajectories import ActionSpace, Box, Discrete, MultiBinary, from_arrays

from .moving_square import EYE, SPACE, recordings

QUIET = Run(progress=False)
TINY = {"frames": 6, "image_size": None, "patch": 2, "stacks": (8,), "dense": 32, "width": 32, "depth": 2, "memory": 5}


def tiny(**options):
    return BehaviorCloning(**{**TINY, "steps": 2, "batch": 8, "learning_rate": 5e-3, **options})


def rule(episodes, seed, steps=40):
    """Press `up` where the number seen is positive, and turn right where the number seen two steps ago was."""
    rng, made = np.random.default_rng(seed), []
    for _ in range(episodes):
        number = rng.choice([-1.0, 1.0], (steps, 1)).astype(np.float32)
        before = np.concatenate([[[-1.0], [-1.0]], number[:-2]])
        action = np.concatenate([number > 0, number < 0, np.where(before > 0, 10.0, -10.0)], 1).astype(np.float32)
        made.append({"observation.state": number, "action": action})
    return from_arrays(made, actions=SPACE)


@pytest.fixture(scope="module")
def learned():
    return tiny(steps=120, batch=16).fit(rule(10, seed=0), run=QUIET)


@pytest.fixture(scope="module")
def seeing():
    return tiny().fit(recordings(3, seed=0), run=QUIET)


def observations(model, data, worlds):
    """The steps of the first episodes of a set, side by side: one observation (B, ...) for each step."""
    names = model.seen(model.spec_)
    for t in range(data[0].length):
        step = {name: torch.from_numpy(np.stack([data[i].read(name, np.array([t]))[0] for i in range(worlds)])) for name in names}
        yield {n: v.movedim(-1, 1) if data.features[n].is_visual else v for n, v in step.items()}


def test_it_does_what_was_done_and_remembers(learned):
    data, right = rule(8, seed=1), []
    learned.sampling = False
    learned.reset()
    for t, observation in enumerate(observations(learned, data, 8)):
        true = np.stack([data[i]["action"][t] for i in range(8)])
        right.append((np.abs(learned.act(observation).numpy() - true) < 1e-4).all(1))
    assert np.mean(right) > 0.85


@pytest.mark.parametrize("without", [(EYE,), ("observation.state",), ()])
@pytest.mark.parametrize("head", ["factored", "joint"])
def test_images_numbers_or_both_and_both_heads(without, head):
    data = recordings(3, seed=0, without=without)
    model = tiny(head=head, groups=(("up", "down"),) if head == "joint" else ()).fit(data, run=QUIET)
    model.reset()
    action = model.act(next(observations(model, data, 3)))
    assert action.shape == (3, 3)
    assert action.dtype == torch.float32
    assert SPACE.decode(action.numpy())["keys"].max() <= 1
    if head == "joint":
        draws = torch.stack([model.act(next(observations(model, data, 3))) for _ in range(50)])
        assert not (draws[..., :2] == 1).all(-1).any()


def test_acting_step_by_step_equals_the_whole_clip(seeing):
    """With the memory as long as the clip, the last step of every clip looks at the same past either way."""
    data, model = recordings(2, seed=1), tiny(depth=1, memory=5).fit(recordings(3, seed=0), run=QUIET)
    model.sampling = False
    windows = data.windows(model.reads, 40, order="sequence", prefetch=0)
    imitated = [model.imitate(windows.at(i)).action[:, -1] for i in range(2)]
    model.reset()
    for t, observation in enumerate(observations(model, data, 2)):
        action = model.act(observation)
        torch.testing.assert_close(action, torch.stack([imitated[i][t] for i in range(2)]))


def test_memory_reaches_over_the_clips_it_learned_from(seeing):
    data = recordings(2, seed=2)
    names = seeing.seen(seeing.spec_)
    batch = next(iter(data.windows(seeing.window(seeing.spec_), 4)))
    whole = seeing.net_(batch).parts["mouse"].logits
    memory, steps = seeing.net_.trunk.memory(4, seeing.memory), []
    valid = batch["mask"].all(1)
    for t in range(6):
        dist, memory = seeing.net_.step({n: batch[n][:, t : t + 1] for n in names}, memory, 1.0)
        steps.append(dist.parts["mouse"].logits)
    torch.testing.assert_close(torch.cat(steps, 1)[valid], whole[valid], atol=1e-4, rtol=1e-4)
    assert valid.any()


def test_reset_forgets_some_worlds_or_all(learned):
    data = rule(2, seed=3)
    learned.sampling = False
    steps = list(observations(learned, data, 2))

    def play(resets):
        learned.reset()
        out = []
        for t, observation in enumerate(steps[:12]):
            if t in resets:
                learned.reset(torch.tensor(resets[t]))
            out.append(learned.net_.step({n: v[:, None] for n, v in observation.items()}, _memory(learned, 2), 1.0)[0])
            learned.act(observation)
        return torch.stack([d.parts["mouse"].logits[:, 0] for d in out])

    def _memory(model, worlds):
        return model._memory if model._memory is not None else model.net_.trunk.memory(worlds, model.memory)

    plain, one = play({}), play({6: [True, False]})
    torch.testing.assert_close(one[:, 1], plain[:, 1])
    assert not torch.allclose(one[6, 0], plain[6, 0])
    learned.reset()
    fresh = learned.net_.step({n: v[:, None] for n, v in steps[6].items()}, _memory(learned, 2), 1.0)[0]
    torch.testing.assert_close(one[6, 0], fresh.parts["mouse"].logits[0, 0])


def test_acting_without_reset_is_refused(learned, tmp_path):
    again = System.load(learned.save(tmp_path / "policy"))
    observation = next(observations(learned, rule(3, seed=0), 3))
    with pytest.raises(RetrodictError, match="without reset"):
        again.act(observation)
    again.reset(torch.tensor([True, True, True]))
    again.act(observation)
    with pytest.raises(RetrodictError, match="3 worlds and was given 2"):
        again.act({name: value[:2] for name, value in observation.items()})
    with pytest.raises(DataError, match="3 worlds"):
        again.reset(torch.tensor([True]))
    again.reset()
    assert again.act({name: value[:2] for name, value in observation.items()}).shape == (2, 3)
    with pytest.raises(NotFittedError):
        tiny().act(observation)


def test_saved_and_loaded_it_acts_the_same(learned, tmp_path):
    data = rule(2, seed=4)
    one, two = (System.load(learned.save(tmp_path / name)) for name in ("one", "two"))
    one.sampling = two.sampling = True
    for model in (one, two):
        model.reset()
    for observation in observations(learned, data, 2):
        assert torch.equal(one.act(observation), two.act(observation))


def test_temperature_and_sampling():
    rng = np.random.default_rng(0)
    space = ActionSpace({"tool": Discrete(("a", "b"))})
    arrays = {"observation.state": np.zeros((400, 1), np.float32), "action": (rng.random((400, 1)) < 0.3).astype(np.float32)}
    model = tiny(steps=60).fit(from_arrays([arrays], actions=space), run=QUIET)
    blank = {"observation.state": torch.zeros(2000, 1)}

    def share(**options):
        for name, value in options.items():
            setattr(model, name, value)
        model.reset()
        return model.act(blank).mean().item()

    assert share() == pytest.approx(0.3, abs=0.1)
    assert share(temperature=0.1) < 0.05
    assert 0.4 < share(temperature=100.0) < 0.6
    assert share(sampling=False) == 0


def test_null_actions_are_not_learned_from():
    rng, steps = np.random.default_rng(0), 400
    press = rng.random(steps) < 0.2
    action = np.zeros((steps, 3), np.float32)
    action[press, 0] = 1
    data = from_arrays([{"observation.state": np.zeros((steps, 1), np.float32), "action": action}], actions=SPACE)
    blank = {"observation.state": torch.zeros(1, 1)}

    def presses(**options):
        model = tiny(steps=60, sampling=False, **options)
        with pytest.warns(UserWarning, match="never pressed"):
            model.fit(data, run=QUIET)
        model.reset()
        return model.act(blank)[0, 0].item()

    assert presses() == 1
    assert presses(drop_null=False) == 0


def test_weights_decide_what_is_learned():
    number = np.ones((50, 1), np.float32)
    arrays = [
        {"observation.state": number, "action": number * [0, 1, 0], "sample.weight": 0.1 * number},
        {"observation.state": number, "action": number * [1, 0, 0], "sample.weight": 0.9 * number},
    ]
    data = from_arrays([{k: v.astype(np.float32) for k, v in e.items()} for e in arrays], actions=SPACE)
    model = tiny(steps=80).fit(data, run=QUIET)
    confidence = model.imitate(data.windows(model.reads, 8).at(0))
    assert (confidence.action[..., 0] == 1).all()
    assert confidence.extras["confidence.keys"].mean().item() == pytest.approx(0.81, abs=0.12)


def test_continuous_actions_are_drawn_within_their_range():
    rng = np.random.default_rng(0)
    state = rng.normal(size=(300, 2)).astype(np.float32)
    action = np.clip(state[:, ::-1] * 2, -2, 2)
    space = ActionSpace({"arm": Box(("x", "y"), -2.0, 2.0)})
    model = tiny(steps=150, batch=16).fit(
        from_arrays([{"observation.state": state, "action": action.copy()}], actions=space), run=QUIET
    )
    model.reset()
    drawn = model.act({"observation.state": torch.from_numpy(state)}).numpy()
    assert np.abs(drawn).max() <= 2
    assert np.corrcoef(drawn[:, 0], action[:, 0])[0, 1] > 0.7


@pytest.mark.parametrize("high", [2.0, None])
def test_actions_outside_their_range_are_refused_and_not_clipped(high):
    rng = np.random.default_rng(0)
    action = rng.uniform(-2, 2, size=(2, 30, 2)).astype(np.float32)
    action[1, [4, 7], 1] = 2.5
    there = np.arange(30)[:, None] != 4  # what stands where an action is missing says nothing
    arrays = [{"observation.state": rng.normal(size=(30, 2)).astype("f4"), "action": a, "valid.action": there} for a in action]
    data = from_arrays(arrays, actions=ActionSpace({"arm": Box(("x", "y"), -2.0, high)}))
    if high is None:
        tiny(steps=2).fit(data, run=QUIET)
        return
    said = r"episode 1 of memory: at step 7 'y' of the action is 2.5, outside its range from -2.0 to 2.0; clip the actions"
    with pytest.raises(DataError, match=said):
        tiny(steps=2).fit(data, run=QUIET)
    with pytest.raises(DataError, match=said):
        tiny(steps=2).fit(data[:1], validation=data[1:], run=QUIET)


def test_worlds_may_show_larger_frames_than_it_looks_at():
    data = recordings(3, seed=0, without=("observation.state",))
    model = tiny(image_size=(8, 8)).fit(data, run=QUIET)
    for observation in observations(model, data, 2):
        model.reset()
        assert observation[EYE].shape == (2, 3, 12, 12)
        assert model.act({**observation, "next.reward": torch.zeros(2)}).shape == (2, 3)


def test_a_joint_head_needs_buttons():
    space = ActionSpace({"arm": Box(("x",)), "keys": MultiBinary(("a",))})
    arrays = {"observation.state": np.zeros((9, 1), np.float32), "action": np.ones((9, 2), np.float32)}
    with pytest.raises(DataError, match="joint code"):
        tiny(head="joint").fit(from_arrays([arrays], actions=space), run=QUIET)


def test_it_sees_no_future(seeing):
    batch = recordings(2, seed=5).windows(seeing.reads, 16, order="sequence").at(1)
    frozen = {**batch, EYE: batch[EYE].clone()}
    frozen[EYE][:, 4:] = 0
    torch.testing.assert_close(seeing.imitate(batch).confidence[:, :4], seeing.imitate(frozen).confidence[:, :4])
