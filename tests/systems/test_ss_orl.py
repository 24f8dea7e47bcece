"""SS-ORL: the inverse model, and offline learners on what it labelled."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from retrodict.errors import DataError, NotFittedError
from retrodict.labelling import label
from retrodict.networks.distributions import TanhNormal, mixed_moments, squashed_deviation
from retrodict.systems import System
from retrodict.systems.actions.cql import CQL
from retrodict.systems.actions.decision_transformer import TO_GO, DecisionTransformer
from retrodict.systems.actions.offline import Transitions, TwinCritic, follow, frozen
from retrodict.systems.actions.ss_orl import SSORL
from retrodict.systems.actions.td3_bc import TD3BC
from retrodict.systems.actions.transitions import cut_at_ends, reach, successors
from retrodict.training.run import Run
from retrodict.trajectories import ActionSpace, Box, Discrete, from_arrays
from retrodict.trajectories.features import ACTION, CONFIDENCE, NEXT_STATE, REWARD, SOURCE, STATE, TERMINATED, WEIGHT

QUIET = Run(progress=False)
SPACE = ActionSpace({"push": Box(("x", "y"), -2.0, 2.0)}, leads=True)
TINY = {"width": 16, "batch": 32, "device": "cpu"}


def episode(rng, length, skill=0.0, ends=False):
    """A point that is pushed about, paid for being near the origin; `skill` is how much of the way back is pushed."""
    where = np.zeros((length + 1, 2))
    where[0] = rng.normal(size=2) * 3
    push = np.zeros((length, 2))
    for t in range(length):
        push[t] = np.clip(-skill * where[t] + rng.normal(size=2), -2, 2)
        where[t + 1] = where[t] + 0.5 * push[t]
    last = (np.arange(length) == length - 1)[:, None]
    return {
        STATE: where[:-1].astype(np.float32),
        ACTION: push.astype(np.float32),
        REWARD: -np.linalg.norm(where[1:], axis=1, keepdims=True).astype(np.float32),
        TERMINATED: last & ends,
        "next.truncated": last & (not ends),
    }


def point(count=12, seed=0, length=30, **options):
    rng = np.random.default_rng(seed)
    return from_arrays(
        [episode(rng, length + i % 3, **options) for i in range(count)], fps=10, actions=SPACE, source=f"point{seed}"
    )


def doubled(recordings):
    return recordings.with_column(STATE, [np.asarray(e[STATE], np.float64) for e in recordings])


def unlabelled(recordings, keep):
    actions = [np.asarray(e[ACTION]) if i < keep else None for i, e in enumerate(recordings)]
    return recordings.with_column(ACTION, actions, recordings.features[ACTION])


@pytest.fixture(scope="module")
def learned():
    return SSORL(steps=600, learning_rate=3e-3, **TINY | {"width": 32}).fit(unlabelled(point(40), 30), run=QUIET)


# ---- the inverse model ------------------------------------------------------------------------------------------------


def answers(model, recordings):
    windows = recordings.windows(model.reads, 4096, order="sequence")
    batch = windows.at(0)
    said = model.infer(batch)
    at = model.keeps.start
    return said.action[:, at].numpy(), said.confidence[:, at].numpy(), batch


def test_it_learns_what_pushed_the_point(learned):
    held_out = point(4, seed=1)
    action, confidence, _ = answers(learned, held_out)
    truth = np.concatenate([e[ACTION][:-1] for e in held_out])  # the last step of an episode shows no successor
    assert np.mean((action - truth) ** 2) < 0.05 * truth.var()
    right = (np.abs(action - truth) < 0.05 * 4).all(1)
    assert confidence[right].mean() > confidence[~right].mean() + 0.1


def test_held_out_episodes_judge_the_answers_and_not_their_likelihood(learned):
    held_out = point(4, seed=1)
    there = [np.arange(e.length) % 5 > 0 for e in held_out]
    marked = held_out.with_column("valid." + ACTION, there)
    (stage,) = learned.stages(learned.net_)
    measured = learned.measure(stage, marked)(learned.net_, 0)
    action, _, _ = answers(learned, held_out)
    truth, counts = (np.concatenate([np.asarray(v)[:-1] for v in values]) for values in ([e[ACTION] for e in held_out], there))
    off = (action - truth) / 2.0  # of half the range
    assert measured == pytest.approx(float(np.mean(off[counts] ** 2)), rel=0.05)


def test_states_are_normalised_over_all_episodes_and_learned_from_with_actions_only(learned):
    everything = np.concatenate([e[STATE] for e in point(40)])
    torch.testing.assert_close(learned.net_.states.offset, torch.from_numpy(everything.mean(0)), rtol=1e-4, atol=1e-5)
    assert {index for _, index in (*learned.learned_from_, *learned.heldout_)} == set(range(30))
    assert learned.heldout_


def test_the_start_of_an_episode_repeats_its_first_state(learned):
    _, _, batch = answers(learned, point(1, seed=2))
    seen = batch[STATE]
    torch.testing.assert_close(seen[0, 0], seen[0, 1])
    torch.testing.assert_close(seen[1, 0], seen[0, 1])


def test_a_single_labelled_episode_is_stopped_by_its_own_end():
    recordings = unlabelled(point(6), 1)
    with pytest.warns(UserWarning, match="only one episode carries 'action'; its last 3 steps of 30 are put aside"):
        model = SSORL(steps=4, evaluate_every=2, **TINY).fit(recordings, run=QUIET)
    assert model.learned_from_ == (recordings[0].identity,)
    assert model.heldout_ == ()
    assert model.trained_.best is not None
    with pytest.raises(DataError, match="has 3 steps, too few to learn from and to stop training by"):
        SSORL(steps=4, **TINY).fit(unlabelled(point(1, length=3), 1), run=QUIET)
    assert SSORL(steps=4, holdout=0, **TINY).fit(unlabelled(point(1, length=3), 1), run=QUIET).heldout_ == ()


@pytest.mark.parametrize("past", [0, 3])
def test_any_number_of_past_states_even_beyond_the_start(past):
    model = SSORL(past=past, steps=2, **TINY).fit(point(3, length=2), run=QUIET)
    assert answers(model, point(1, seed=5, length=3))[0].shape == (2, 2)
    assert model.keeps == slice(past, past + 1)


def test_the_stored_successor_shows_the_last_action():
    recordings = successors(point(6))
    assert not np.asarray(recordings[0]["valid." + NEXT_STATE])[-1]
    model = SSORL(steps=2, **TINY).fit(recordings, run=QUIET)
    action, _, batch = answers(model, recordings)
    assert len(action) == recordings.steps
    torch.testing.assert_close(batch[NEXT_STATE][0, 0], batch[STATE][1, 1])

    # A last step whose successor is unknown is read as zeros and must not be learned from.
    def loss(value):
        changed = {**batch, NEXT_STATE: torch.where(batch["mask." + NEXT_STATE][..., None], batch[NEXT_STATE], value)}
        return model.loss(model.net_, {**changed, ACTION: torch.zeros(len(action), 1, 2)})["action"]

    torch.testing.assert_close(loss(0.0), loss(100.0))


def test_the_variance_of_an_ensemble_is_that_of_its_mixture():
    mean, std = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]])
    middle, deviation = mixed_moments(mean, std)
    drawn = torch.cat([mean[i] + std[i] * torch.randn(200_000, generator=torch.Generator().manual_seed(i)) for i in range(2)])
    assert float(middle) == pytest.approx(float(drawn.mean()), abs=0.02)
    assert float(deviation) == pytest.approx(float(drawn.std()), rel=0.01)
    assert float(squashed_deviation(torch.tensor(-1e9)).log()) == pytest.approx(-5)
    assert float(squashed_deviation(torch.tensor(1e9)).log()) == pytest.approx(2)
    model = SSORL(steps=2, ensemble=3, **TINY).fit(point(3), run=QUIET)
    window = point(1).windows(model.reads, 4).at(0)
    assert model.infer(window).extras["variance"].shape == (4, 3)


def test_a_drawn_value_knows_its_density_even_at_the_ends():
    policy = TanhNormal(torch.tensor([0.3, -0.2]), torch.tensor([0.5, 0.8]), torch.zeros(2), -2.0, 2.0)
    value, density = policy.draw(50)
    torch.testing.assert_close(density, policy.log_prob(value), rtol=1e-3, atol=1e-3)
    extreme = TanhNormal(torch.tensor([30.0]), torch.tensor([1.0]), torch.zeros(1), -1.0, 1.0)
    assert torch.isfinite(extreme.draw(10)[1]).all()


def test_the_end_of_the_range_is_no_infinite_surprise():
    recordings = point(6)
    pressed = recordings.with_column(
        ACTION, [np.where(e[ACTION] > 0, 2, -2).astype(np.float32) for e in recordings], recordings.features[ACTION]
    )
    model = SSORL(steps=40, **TINY).fit(pressed, run=QUIET)
    action, _, _ = answers(model, recordings)
    assert np.abs(action).max() <= 2


# ---- the pipeline -----------------------------------------------------------------------------------------------------


def test_labels_of_the_inverse_model_teach_an_offline_learner(learned):
    better = unlabelled(point(40, seed=3, skill=0.8, ends=True), 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labelled = label(unlabelled(point(40), 30) + better, learned, batch=1024, progress=False)
    assert {int(np.asarray(e[SOURCE]).max()) for e in labelled} == {0, 1}
    policy = TD3BC(steps=400, greed=0.0, learning_rate=3e-3, **TINY).fit(labelled, run=QUIET)
    assert policy.left_out_["inferred with too little confidence"] == 40  # the last step of each episode is a guess
    far = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    pushed = policy.act({STATE: far})
    assert (torch.sign((pushed * far).sum(1)) == -1).all()


# ---- offline learners -------------------------------------------------------------------------------------------------


def transitions_of(learner, recordings):
    made, _ = learner._usable(recordings)
    windows = made.windows(learner.window(learner.spec_), 4096, order="sequence")
    return {name: torch.cat([b[name] for b in windows]) for name in (STATE, ACTION, REWARD, TERMINATED, NEXT_STATE)}


def test_an_end_has_no_value_after_it_and_a_time_limit_has():
    recordings = point(1, ends=True) + point(1, seed=1)
    policy = TD3BC(steps=2, **TINY).fit(recordings, run=QUIET)
    assert policy.left_out_["without a successor"] == 1
    read = policy.reader(policy._usable(recordings)[0])
    assert set(torch.cat([Transitions.of(policy.net_, read(i)).goes_on for i in range(8)]).tolist()) == {0.0, 1.0}


def end_to_end(recordings, **changed):
    """All episodes as one, in which only the flags say where each is over."""
    columns = {name: np.concatenate([np.asarray(e[name]) for e in recordings]) for name in recordings.features}
    return from_arrays([{**columns, **changed}], fps=10, actions=SPACE)


def test_flags_within_an_episode_say_where_it_is_over():
    apart = point(2) + point(1, seed=1, ends=True) + point(1, seed=2)
    joined = end_to_end(apart)
    tiny = {"frames": 4, "depth": 1, "width": 16, "batch": 8, "device": "cpu"}
    for learner in (TD3BC(steps=2, **TINY), DecisionTransformer(steps=2, **tiny)):
        one, other = (replace(learner).fit(data, run=QUIET) for data in (apart, joined))
        assert one.left_out_ == other.left_out_
        assert one.left_out_["without a successor"] == 3
        assert all(torch.equal(a, b) for a, b in zip(one.state()[0].values(), other.state()[0].values(), strict=True))
        assert len(other.learned_from_) == 1
    assert cut_at_ends(apart) is apart


def test_the_inverse_model_does_not_learn_across_flags():
    apart = point(3, ends=True)
    model = SSORL(width=16, steps=8, holdout=0, device="cpu")
    one, other = (replace(model).fit(data, run=QUIET) for data in (apart, end_to_end(apart)))
    assert all(torch.equal(a, b) for a, b in zip(one.state()[0].values(), other.state()[0].values(), strict=True))
    assert len(other.learned_from_) == 1
    judged = replace(model, holdout=0.4).fit(end_to_end(apart), run=QUIET)
    assert (len(judged.learned_from_), judged.heldout_) == (1, ())  # it taught the model in part


def test_a_step_that_ended_and_was_cut_off_ended():
    recordings = point(2, ends=True)
    over = np.concatenate([e[TERMINATED] for e in recordings])
    learner = TD3BC(steps=2, **TINY)
    both = learner.fit(end_to_end(recordings, **{"next.truncated": over}), run=QUIET)
    assert both.left_out_["without a successor"] == 0
    read = learner.reader(learner._usable(end_to_end(recordings, **{"next.truncated": over}))[0])
    assert set(torch.cat([Transitions.of(both.net_, read(i)).goes_on for i in range(8)]).tolist()) == {0.0, 1.0}


def test_the_final_observation_saves_the_last_step():
    recordings = point(2)
    kept = replace(recordings, episodes=tuple(replace(e, meta={"final": {STATE: [7.0, 8.0]}}) for e in recordings))
    assert successors(kept)[0][NEXT_STATE][-1].tolist() == [7.0, 8.0]
    policy = TD3BC(steps=2, **TINY).fit(kept, run=QUIET)
    assert policy.left_out_["without a successor"] == 0


def test_resident_batches_are_those_of_the_windows():
    recordings = point(3).with_column(WEIGHT, [np.linspace(0, 1, e.length, dtype=np.float32)[:, None] for e in point(3)])
    windows = recordings.windows(TD3BC(**TINY).window(recordings_spec(recordings)), 16, order="replacement", seed=4)
    resident = windows.resident()
    for step in (0, 5):
        mine, theirs = resident(step), windows.at(step)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def recordings_spec(recordings):
    from retrodict.systems import Spec

    return Spec.of(recordings, tuple(recordings.features))


def test_only_sure_enough_labels_are_learned_from():
    recordings = point(4)
    recordings = recordings.with_column(SOURCE, [np.full((e.length, 1), i % 2) for i, e in enumerate(recordings)])
    sure = [np.linspace(0, 1, e.length, dtype=np.float32)[:, None] for e in recordings]
    recordings = recordings.with_column(CONFIDENCE, sure)
    with pytest.warns(UserWarning, match="left out, as their actions are not sure"):
        policy = TD3BC(steps=2, least_confidence=0.5, **TINY).fit(recordings, run=QUIET)
    below = sum(int((s <= 0.5).sum()) for s in sure[1::2])
    assert policy.left_out_["inferred with too little confidence"] == below
    guesses = recordings.select([1, 3]).with_column(CONFIDENCE, [0 * s for s in sure[1::2]])
    with pytest.raises(DataError, match="no step of .* is left"):
        TD3BC(steps=2, **TINY).fit(guesses, run=QUIET)


@pytest.mark.parametrize(
    "learner", [TD3BC(steps=350, learning_rate=3e-3), CQL(steps=250, layers=2, samples=4, learning_rate=3e-3, actor_rate=3e-3)]
)
def test_a_critic_finds_the_way_that_nobody_shows(learner):
    policy = replace(learner, width=32, batch=64, device="cpu").fit(point(30, seed=4, skill=0.2), run=QUIET)
    far = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [0.0, 3.0], [0.0, -3.0]])
    assert (-(policy.act({STATE: far}) * far).sum(1) / 3).mean() > 0.6  # the recorded pushes go back by 0.6 on average


def test_the_actors_gradient_leaves_the_critic_alone():
    critic = TwinCritic(2, 1, (8,))
    action = torch.zeros(4, 1, requires_grad=True)
    frozen(critic, torch.ones(4, 2), action).sum().backward()
    assert action.grad is not None
    assert all(p.grad is None for p in critic.parameters())
    behind = TwinCritic(2, 1, (8,))
    before = [p.clone() for p in behind.parameters()]
    follow(behind, critic, 0.25)
    for now, then, ahead in zip(behind.parameters(), before, critic.parameters(), strict=True):
        torch.testing.assert_close(now, then + 0.25 * (ahead - then))


def test_conservative_values_integrate_to_one_for_a_constant_critic():
    learner = CQL(steps=2, samples=200, **TINY).fit(point(3), run=QUIET)
    batch = learner.reader(learner._usable(point(3))[0])(0)
    step = Transitions.of(learner.net_, batch)
    with torch.no_grad():
        for p in learner.net_["critic"].parameters():
            p.zero_()
        policy = TanhNormal(torch.zeros(len(step.state), 2), torch.full((len(step.state), 2), 0.9), torch.zeros(2), -1.0, 1.0)
        everywhere = learner._everywhere(learner.net_, step, policy, policy)
    # Three estimates of the volume of [-1, 1]^2, added up.
    assert float(everywhere.exp().mean()) == pytest.approx(3 * 200 * 4, rel=0.1)


def test_a_decision_transformer_is_told_what_it_earned_and_forgets_on_reset():
    model = DecisionTransformer(steps=3, frames=4, depth=1, width=16, batch=8, device="cpu").fit(point(6), run=QUIET)
    best = max(float(e[REWARD].sum()) for e in point(6))
    assert float(model.net_.best) == pytest.approx(best, rel=1e-4)
    state = torch.randn(2, 2)
    model.reset()
    first = model.act({STATE: state, REWARD: torch.tensor([[9.0], [9.0]])})  # nothing was earned before the start
    assert model._memory["to_go"][0, -1].item() == pytest.approx(best * 0.001, rel=1e-4)
    model.act({STATE: state, REWARD: torch.tensor([[2.0], [0.0]])})
    left = model._memory["to_go"][:, -1, 0] / 0.001
    torch.testing.assert_close(left, torch.tensor([best - 2, best]), rtol=1e-3, atol=1e-2)
    model.reset(torch.tensor([True, False]))
    again = model.act({STATE: state, REWARD: torch.tensor([[5.0], [0.0]])})
    torch.testing.assert_close(again[0], first[0])
    assert model._memory["valid"].sum(1).tolist() == [1, 3]


def test_a_decision_transformer_is_not_taught_by_steps_of_no_weight():
    def taught(last):
        actions = [np.concatenate([e[ACTION][:-1], np.full((1, 2), last, np.float32)]) for e in point(2)]
        weights = [(np.arange(e.length) < e.length - 1).astype(np.float32)[:, None] for e in point(2)]
        data = point(2).with_column(ACTION, actions).with_column(WEIGHT, weights)
        tiny = {"frames": 4, "depth": 1, "width": 16, "batch": 8, "device": "cpu"}
        return DecisionTransformer(steps=3, warmup=1, learning_rate=0.01, **tiny).fit(data, run=QUIET).state()[0]

    one, other = taught(-0.9), taught(0.9)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_is_to_go_is_the_sum_of_what_comes():
    model = DecisionTransformer(steps=2, frames=4, depth=1, width=16, batch=8, device="cpu").fit(point(2), run=QUIET)
    made, _ = model._usable(point(2))
    rewards = np.asarray(made[0][REWARD]).reshape(-1)
    np.testing.assert_allclose(np.asarray(made[0][TO_GO]).reshape(-1)[-3], rewards[-3:].sum(), rtol=1e-5)


@pytest.mark.parametrize("kind", [TD3BC, CQL, DecisionTransformer])
def test_saved_and_loaded_a_learner_acts_the_same(kind, tmp_path):
    policy = kind(steps=2, width=16, batch=8, device="cpu").fit(point(3), run=QUIET)
    again = System.load(policy.save(tmp_path / "policy"), device="cpu")
    state = torch.randn(3, 2)
    for system in (policy, again):
        system.reset()
    assert torch.equal(policy.act({STATE: state}), again.act({STATE: state}))


@pytest.mark.parametrize("kind", [SSORL, TD3BC, CQL, DecisionTransformer])
def test_states_may_be_of_double_precision(kind):
    data = doubled(point(4))
    system = kind(steps=2, width=16, batch=8, device="cpu").fit(data, run=QUIET)
    if kind is SSORL:
        assert answers(system, data)[0].dtype == np.float32
    else:
        system.reset()
        assert system.act({STATE: torch.zeros(3, 2, dtype=torch.float64)}).dtype == torch.float32


# ---- bad input --------------------------------------------------------------------------------------------------------


class TestBadInput:
    def test_asking_before_fit(self):
        with pytest.raises(NotFittedError, match="ss-orl"):
            SSORL().infer({})

    def test_no_labelled_trajectory(self):
        with pytest.raises(DataError, match="'action'"):
            SSORL(**TINY).fit(unlabelled(point(3), 0))

    @pytest.mark.parametrize("system", [SSORL(steps=2, **TINY), TD3BC(steps=2, **TINY)])
    def test_nan_in_an_action_is_named_by_trajectory_and_step(self, system):
        recordings = point(3)
        actions = [np.array(e[ACTION]) for e in recordings]
        actions[1][4, 0] = np.nan
        with pytest.raises(DataError, match=r"episode 1 .*step 4"):
            system.fit(recordings.with_column(ACTION, actions, recordings.features[ACTION]))

    def test_an_action_that_never_changes_is_warned_of(self):
        recordings = point(3)
        still = recordings.with_column(ACTION, [np.asarray(e[ACTION]) * [1, 0] for e in recordings], recordings.features[ACTION])
        with pytest.warns(UserWarning, match="never changes.*: y"):
            SSORL(steps=2, **TINY).fit(still, run=QUIET)

    def test_a_time_limit_recorded_as_an_end_has_to_be_told_apart(self):
        recordings = point(3)
        done = recordings.with_column("next.done", [np.asarray(e["next.truncated"]) for e in recordings]).without(TERMINATED)
        with pytest.raises(DataError, match=r"'next.done' does not say"):
            TD3BC(**TINY).fit(done)

    @pytest.mark.parametrize("kind", [TD3BC, CQL, DecisionTransformer])
    @pytest.mark.parametrize("name", [REWARD, TERMINATED])
    def test_several_rewards_or_ends_a_step(self, kind, name):
        recordings = point(3)
        wide = recordings.with_column(name, [np.repeat(e[name], 2, 1) for e in recordings])
        with pytest.raises(DataError, match=rf"reads one number a step from '{name}', and it has the shape \[2\]"):
            kind(steps=2).fit(wide, run=QUIET)

    def test_episodes_without_any_successor(self):
        with pytest.raises(DataError, match="no episode has two steps"):
            SSORL(steps=2, **TINY).fit(point(3, length=1).select([0]) + point(3, length=1, seed=1).select([0]))

    @pytest.mark.parametrize("system", [SSORL(steps=2, **TINY), CQL(steps=2, **TINY)])
    def test_actions_beyond_their_range(self, system):
        recordings = point(3)
        actions = [np.array(e[ACTION]) for e in recordings]
        actions[2][7] = 5
        with pytest.raises(DataError, match=r"episode 2 .*step 7 'x' of the action is 5, outside its range from -2.0 to 2.0"):
            system.fit(recordings.with_column(ACTION, actions, recordings.features[ACTION]))

    def test_states_in_other_units(self):
        recordings = point(6)
        mixed = recordings.with_column(STATE, [np.asarray(e[STATE]) + 100 * (i == 4) for i, e in enumerate(recordings)])
        with pytest.warns(UserWarning, match=r"states unlike the others', such as episode 4 .*same units"):
            SSORL(steps=2, **TINY).fit(mixed, run=QUIET)

    def test_actions_that_are_no_numbers_or_know_no_range(self):
        with pytest.raises(DataError, match="'tool' of these is a discrete"):
            reach(ActionSpace({"tool": Discrete(("a", "b"))}), "ss-orl")
        with pytest.raises(DataError, match="needs the range of x"):
            reach(ActionSpace({"arm": Box(("x",))}), "ss-orl")

    def test_a_window_of_another_length(self, learned):
        with pytest.raises(DataError, match="looks at 3 states, it was given 4"):
            learned.infer({STATE: torch.zeros(2, 4, 2)})
