import warnings
from dataclasses import replace

import numpy as np
import pytest

from retrodict.errors import DataError
from retrodict.systems import lookup
from retrodict.trajectories import ActionSpace, Box, Discrete, frames, from_arrays
from retrodict.trajectories.alignment import align, check_alignment, mend
from retrodict.trajectories.stores import lerobot

STEPS, SIZE = 100, 32
MOVES = np.array([[0, 0], [2, 0], [-2, 0], [0, 2], [0, -2]], float)
SPACES = {
    "continuous": ActionSpace({"move": Box(("x", "y"), -2, 2)}),
    "discrete": ActionSpace({"go": Discrete(("stay", "right", "left", "down", "up"))}),
}


def pushed(kind, rng, hold):
    """Video of a square that is pushed about (over the edge it comes back in), and the pushes, each held for `hold` steps."""
    if kind == "continuous":
        action = np.repeat(rng.uniform(-2, 2, (STEPS // hold + 1, 2)), hold, 0)[:STEPS]
        move = action
    else:
        action = np.repeat(rng.integers(0, 5, STEPS // hold + 1), hold)[:STEPS, None]
        move = MOVES[action[:, 0]]
    place = np.cumsum(np.concatenate([rng.uniform(0, SIZE, (1, 2)), move[:-1]]), 0)
    grid = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), -1)
    away = np.abs((grid - place[:, None, None] + SIZE / 2) % SIZE - SIZE / 2)
    light = np.where((away < 4).all(-1), 220, 40)[..., None] + rng.normal(0, 4, (STEPS, SIZE, SIZE, 3))
    return np.clip(light, 0, 255).astype(np.uint8), action.astype(np.float32)


def videos(kind="continuous", lags=(0,) * 6, *, seed=0, hold=3, leads=None):
    """Episodes whose actions were moved by these lags; a positive one writes them late."""
    rng = np.random.default_rng(seed)
    made = []
    for lag in lags:
        video, action = pushed(kind, rng, hold)
        made.append({"observation.images.top": video, "action": np.roll(action, lag, 0)})
    return from_arrays(made, fps=20, actions=replace(SPACES[kind], leads=leads), source="videos")


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
@pytest.mark.parametrize("lag", [-2, 0, 1, 3])
def test_a_known_shift_is_found_in_every_episode(kind, lag):
    found = align(videos(kind, (lag,) * 6))
    assert found.lag == lag
    assert [episode.lag for episode in found.episodes.values()] == [lag] * 6
    assert max(found.scores, key=found.scores.get) == lag
    assert found.scores[lag] > 0.5
    assert found.in_step == (lag == 0)


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_single_episodes_are_named(kind):
    found = align(videos(kind, (0, 0, 2, 0, -1, 0, 0, 0)))
    assert {i: e.lag for i, e in found.out_of_step.items()} == {2: 2, 4: -1}
    assert "in 2 of 8 episodes" in str(found)
    assert "episode 2 of videos" in str(found)


def test_what_is_in_step_is_not_mended_by_noise():
    for seed in range(4):
        kind = ("continuous", "discrete")[seed % 2]
        recordings = videos(kind, (0,) * 4, seed=seed, hold=(2, 10)[seed // 2])
        assert not align(recordings).out_of_step
        assert check_alignment(recordings) is None


def test_actions_that_do_not_show_are_not_judged():
    rng = np.random.default_rng(0)
    strange = videos().with_column("action", [rng.normal(size=(STEPS, 2)).astype(np.float32) for _ in range(6)])
    found = align(strange)
    assert (found.lag, found.in_step) == (None, None)
    assert "cannot be told" in str(found)
    assert check_alignment(strange) is None
    still = videos().with_column("observation.images.top", [np.full((STEPS, SIZE, SIZE, 3), 9, np.uint8)] * 6)
    assert "cannot be told: small models explain 0% of them at best, 5% would do" in str(align(still))
    with pytest.raises(DataError, match="cannot be told"):
        mend(strange, found)


@pytest.mark.parametrize("lag", [-2, 1])
def test_mending_moves_actions_back_and_drops_the_ends(lag):
    straight, shifted = videos(lags=(0,) * 4), videos(lags=(0, 0, lag, lag))
    found = align(shifted)
    mended = mend(shifted, found)
    for i, episode in enumerate(mended):
        gone = abs(lag) if i >= 2 else 0
        assert episode.length == STEPS - gone
        begin = max(0, -lag) if gone else 0
        for name in ("action", "observation.images.top"):
            assert (episode[name] == straight[i][name][begin : begin + episode.length]).all()
        assert episode.meta.get("alignment/lag", 0) == (lag if gone else 0)
    assert mended.meta["alignment"]["moved"] == {"2": lag, "3": lag}
    assert mended.actions.leads is True
    assert align(mended).in_step


def test_mending_moves_what_is_said_of_an_action_with_it():
    shifted = videos(lags=(1,) * 4)
    there = np.ones((STEPS, 1), bool)
    there[20] = False
    gone = shifted.with_column("valid.action", [there] * 4)
    mended = mend(gone, align(shifted))
    for before, episode in zip(gone, mended, strict=True):
        (at,) = np.flatnonzero(~np.asarray(episode["valid.action"])[:, 0])
        assert (episode["action"][at] == before["action"][20]).all()


def test_steps_that_are_missing_are_not_looked_at():
    shifted = videos(lags=(1,) * 4)
    there = np.random.default_rng(0).random((4, STEPS)) < 0.95
    filled = [
        np.where(t[:, None], e["action"], 1e3 * (-1) ** np.arange(STEPS)[:, None]) for e, t in zip(shifted, there, strict=True)
    ]
    gone = shifted.with_column("action", [a.astype(np.float32) for a in filled], shifted.features["action"])
    gone = gone.with_column("valid.action", list(there))
    assert align(gone, (-1, 0, 1, 2)).lag == 1
    with pytest.raises(DataError, match="of too many steps"):
        align(gone.with_column("valid.action", [np.arange(STEPS) < 5] * 4))


def test_the_convention_that_the_space_states_is_what_is_expected():
    led = videos(lags=(1,) * 5, leads=False)
    assert align(led).in_step
    assert check_alignment(led) is None
    undeclared = videos(lags=(1,) * 5)
    assert "led to its own row" in check_alignment(undeclared)
    wrongly = videos(lags=(0,) * 5, leads=False)
    assert align(wrongly).in_step is False


def test_a_few_percent_at_the_best_lag_are_no_finding():
    """A game of few and short episodes: the small model agrees with the actions more than by chance, and explains none."""
    rng = np.random.default_rng(0)
    faint = []
    for _ in range(16):
        push = rng.normal(size=(300, 1)).astype(np.float32)
        noise = rng.normal(size=(300, 1)).astype(np.float32)
        faint.append({"observation.state": np.cumsum(0.17 * push + noise, 0) - 0.17 * push - noise, "action": push})
    found = align(from_arrays(faint, fps=20))
    assert 0 < found.explained < 0.05
    assert found.in_step is None
    assert "cannot be told" in str(found)


def test_states_do_where_there_is_no_camera_and_one_episode_is_enough():
    rng = np.random.default_rng(0)
    push = rng.normal(size=(400, 2)).astype(np.float32)
    recordings = from_arrays([{"observation.state": np.cumsum(push, 0) - push, "action": push}])
    late = recordings.with_column("action", [np.roll(push, 2, 0)])
    assert align(recordings).lag == 0
    found = align(late)
    assert (found.lag, found.watched) == (2, ("observation.state",))


def answering(kind, rng, steps=150):
    """A world in step: what is seen of it, and what was done, by how it answers."""
    held = np.repeat(rng.normal(size=(steps // 4 + 1, 2)), 4, 0)[:steps]
    seen, place, speed = [], np.zeros(2), np.zeros(2)
    for t in range(steps):
        seen.append(np.concatenate([place, speed]) if kind == "force" else place)
        if kind == "at once":
            place = place + held[t]
        elif kind == "two rows later":
            place = place + held[max(t - 2, 0)]
        elif kind == "hand that follows":
            place = place + 0.3 * (np.cumsum(held, 0)[t] - place)
        else:  # a force, seen as place and speed or as place alone
            place, speed = place + 0.1 * speed, 0.95 * speed + 0.1 * held[t]
    return {"observation.state": np.array(seen, np.float32), "action": held.astype(np.float32)}


WORLDS = ["at once", "two rows later", "hand that follows", "force", "force behind the place"]


@pytest.mark.parametrize("kind", WORLDS)
def test_no_world_that_is_in_step_is_warned_of_and_late_actions_are_in_all(kind):
    rng = np.random.default_rng(0)
    made = [answering(kind, rng) for _ in range(8)]
    assert check_alignment(from_arrays(made, fps=20)) is None
    alone = [{**e, "action": np.roll(e["action"], 4 if i == 5 else 0, 0)} for i, e in enumerate(made)]
    assert "in 1 of 8 episodes" in check_alignment(from_arrays(alone, fps=20))
    late = [{**e, "action": np.roll(e["action"], 3 + (kind == "two rows later"), 0)} for e in made]
    if kind in ("at once", "two rows later", "force"):
        assert "in all 8 episodes" in check_alignment(from_arrays(late, fps=20))


@pytest.mark.parametrize("name", ["Pendulum-v1", "CartPole-v1", "MountainCarContinuous-v0"])
@pytest.mark.parametrize("hold", [1, 4])
def test_simulators_of_others_are_in_step(name, hold):
    gymnasium = pytest.importorskip("gymnasium")
    made = []
    for seed in range(24):
        env = gymnasium.make(name)
        seen, _ = env.reset(seed=seed)
        env.action_space.seed(seed)
        rows, ended, step, action = [], False, 0, None
        while not ended and step < 60:
            action = env.action_space.sample() if step % hold == 0 else action
            rows.append((seen, np.atleast_1d(action)))
            seen, _, terminated, truncated, _ = env.step(action)
            ended, step = terminated or truncated, step + 1
        if step > 24:
            made.append({"observation.state": np.array([s for s, _ in rows]), "action": np.array([a for _, a in rows])})
    recordings = from_arrays(made, actions=ActionSpace({"go": Discrete(("l", "r"))}) if "Cart" in name else None)
    assert check_alignment(recordings) is None
    assert align(recordings).in_step in (True, None)


def test_the_look_decodes_only_what_it_looks_at(tmp_path, monkeypatch):
    monkeypatch.setenv("RETRODICT_CACHE", str(tmp_path / "cache"))
    long = np.tile(videos()[0]["observation.images.top"], (5, 1, 1, 1))
    push = np.tile(videos()[0]["action"], (5, 1))
    given = from_arrays([{"observation.images.top": long, "action": push}] * 2, fps=20, actions=SPACES["continuous"])
    features = {n: replace(f, dtype="video") if f.is_visual else f for n, f in given.features.items()}
    replace(given, features=features).save(tmp_path / "long")
    decoded = []
    plain = frames.VideoColumn._decode
    monkeypatch.setattr(frames.VideoColumn, "_decode", lambda self, b: (decoded.append(1) or f for f in plain(self, b)))
    assert check_alignment(lerobot.read(tmp_path / "long")) is None
    assert len(decoded) == 2 * 300


@pytest.mark.parametrize("slug", ["vpt", "behavior-cloning"])
def test_fit_warns_by_itself(slug):
    system = lookup(slug)(frames=5, steps=1, batch=2, width=16, heads=2, depth=1, stacks=(4, 4, 4), dense=16)
    with pytest.warns(UserWarning, match=rf"{slug}: in all 6 episodes the actions are 2 row\(s\) late"):
        system.fit(videos(lags=(2,) * 6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        system.fit(videos())


def test_an_action_that_sets_a_force_is_told_from_its_neighbours():
    """The change of place shows all forces so far; only its own change shows the latest."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(6):
        force = rng.normal(size=(120, 1))
        speed = np.cumsum(np.concatenate([np.zeros((1, 1)), force[:-1]]), 0)
        place = np.cumsum(speed, 0)  # place[t+1] - place[t] = speed[t+1], which force[t] has changed
        made.append({"observation.state": (place / 50).astype(np.float32), "action": np.roll(force, 1, 0).astype(np.float32)})
    assert align(from_arrays(made)).lag == 1


@pytest.mark.slow
def test_a_real_game_is_in_step_and_its_shifts_are_found(tmp_path, monkeypatch):
    pytest.importorskip("vizdoom")
    from retrodict.worlds import record

    monkeypatch.setenv("RETRODICT_CACHE", str(tmp_path / "cache"))
    record("vizdoom/health-gathering", tmp_path / "game", 6, workers=0, max_steps=150, progress=False)
    game = lerobot.read(tmp_path / "game")
    assert align(game).in_step
    lags = (0, 2, 0, 0, -1, 0)
    shifted = game.with_column("action", [np.roll(e["action"], k, 0) for e, k in zip(game, lags, strict=True)])
    assert [episode.lag for episode in align(shifted).episodes.values()] == list(lags)


def test_refusals():
    with pytest.raises(DataError, match="at least 24 steps"):
        align(from_arrays([{"observation.state": np.zeros((5, 1)), "action": np.zeros((5, 1))}]))
    with pytest.raises(DataError, match="camera frames or observations"):
        align(from_arrays([{"action": np.zeros((50, 1))}]))
    still = from_arrays([{"observation.state": np.random.default_rng(0).normal(size=(99, 2)), "action": np.zeros((99, 1))}])
    with pytest.raises(DataError, match="never change"):
        align(still)
    assert check_alignment(still) is None
    assert check_alignment(still.without("action")) is None
