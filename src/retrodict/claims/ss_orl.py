"""SS-ORL's claim: with actions on a tenth of the trajectories, the worst ones, offline learners do as if they had seen all.

Recordings like those of learning agents are made in MuJoCo: a random search passes policies of every quality, which are played
with trembling hands, and the best one more often. Actions stay on a few of the worse half; the inverse model labels the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retrodict.claims.experiment import Check, Experiment, Measured, Number, Table
from retrodict.files import read_json, write_json
from retrodict.labelling import label
from retrodict.labelling.infer import infer
from retrodict.metrics import interval, paired
from retrodict.systems.actions.cql import CQL
from retrodict.systems.actions.decision_transformer import DecisionTransformer
from retrodict.systems.actions.offline import OfflineLearner
from retrodict.systems.actions.ss_orl import SSORL
from retrodict.systems.actions.td3_bc import TD3BC
from retrodict.systems.actions.transitions import successors
from retrodict.training.run import Run
from retrodict.trajectories import Feature, Recordings
from retrodict.trajectories.features import ACTION, INFERRED, REWARD, SOURCE
from retrodict.trajectories.stores import lerobot
from retrodict.worlds import Player, make, play, rollout
from retrodict.worlds.gymnasium_players import Linear, Waypoints
from retrodict.worlds.random_search import Snapshots, search
from retrodict.worlds.recording import OUTCOME


class Search(NamedTuple):
    """How policies of a runner are searched.

    Attributes:
        steps: of the environment.
        tremble: noise on actions; the best hopper of still hands falls over at the noise it is recorded with.
        least: return that the best one earns, or the search begins anew; some hoppers only ever learn to leap and fall.
    """

    steps: int
    tremble: float = 0.0
    least: float = -math.inf


RUNNERS = {"cheetah": "HalfCheetah-v5", "hopper": "Hopper-v5"}
MAZE = {"maze": "PointMaze_UMaze-v3"}
SEARCHES = {"cheetah": Search(steps=3_200_000), "hopper": Search(steps=800_000, tremble=0.15, least=2500.0)}
LEARNERS = {"cheetah": TD3BC(), "hopper": TD3BC(greed=0.4, rate_of_targets=0.02, decay="cosine"), "maze": TD3BC()}
"""A hopper with the paper's weight of the value leaves the little noise its recordings hold and falls, so that all labels earn
less than cloning them; at a constant rate it loses in the end what it had learned; and as delayed copies follow within some
1 / (rate (1 - discount) / delay) updates, 40,000 at the paper's rate, values stay at half their height (found on other seeds).
"""
SNAPSHOTS, PLAYED, BEST = 40, 5, 60  # policies, evenly from the worst to the best; episodes of each; and more of the best
MAZES = 100  # episodes
LOWER, SHARE = 0.5, 0.1  # part of the trajectories, worst first, from which the labelled ones are drawn; and how many
PASTS = (0, 1, 3)
SHARES = (0.01, 0.05, 0.1, 0.5)
MODELS = sorted({*((k, SHARE) for k in PASTS), *((1, share) for share in SHARES)})  # past steps, share labelled
EPISODES, FIRST_SEED = 20, 1_000_000  # in which a policy is tried
SATURATED = 0.999
INFORMATIVE = 0.3
"""Share of its return that a learner gains by all labels over few, at least: else recordings tell nothing of proxies, and others
are made in their place, as the page asks.
"""
RATE = 1e-3
"""Learning rate of the inverse model: errors on the better half as small as at 3e-4, in fewer steps (found on another seed)."""
WIDTH = 512
"""Units of its layers: on another seed errors were smaller than at 256, for twice the time; the paper's are 1024."""
QUIET = Run(progress=False)


# ---- recordings -------------------------------------------------------------------------------------------------------


def record(seed: int, folder: Path, quick: bool, world: str, learner: OfflineLearner) -> Measured:
    """Trajectories of every quality, written into the seed's folder; made anew while all labels earn little more than few.

    What the learner earned with all and with few of the labels is left for the arms of that name.
    """
    env = make(f"gymnasium/{(RUNNERS | MAZE)[world]}", privileged=False)
    makers = [_maze_players(env, seed)] if world in MAZE else (_runners(env, f, seed) for f in _searched(world, seed, folder))
    for anew, players in enumerate(makers):
        measured = {**_recorded(env, players, seed, folder / world), "made anew": anew}
        runs = {labels: policy(seed, folder, quick, world, learner, labels, 1, SHARE) for labels in ("all", "few")}
        for labels, run in runs.items():
            write_json(folder / _tried(world, labels), run)
        if _gain(runs["all"], runs["few"]) >= INFORMATIVE:
            break
    env.close()
    return measured


def tried(seed: int, folder: Path, quick: bool, world: str, labels: str) -> Measured:
    """What was measured of all or few labels when the recordings were made."""
    return dict(read_json(folder / _tried(world, labels)))


def _tried(world: str, labels: str) -> str:
    return f"{world}-{labels}-tried.json"


def _recorded(env: Any, players: Iterable[Player], seed: int, folder: Path) -> Measured:
    features = {**env.features, ACTION: Feature("float32", (env.actions.width,), list(env.actions.names)), **OUTCOME}
    returns, saturated, steps = [], 0.0, 0
    with lerobot.Writer(folder, features, env.fps, actions=env.actions, overwrite=True) as writer:
        for number, player in enumerate(players):
            played = play(env, player, int(np.random.SeedSequence((seed, number)).generate_state(1)[0] >> 1))
            writer.add(played.values, tasks=(played.task,), domain=env.id, meta=played.meta)
            returns.append(float(played.values[REWARD].sum()))
            saturated += float((np.abs(played.values[ACTION]) >= SATURATED).mean() * len(played.values[ACTION]))
            steps += len(played.values[ACTION])
    quantiles = {str(q): float(np.quantile(returns, q)) for q in (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)}
    return {"trajectories": len(returns), "steps": steps, "returns": quantiles, "saturated": saturated / steps}


def _runners(env: Any, found: Snapshots, seed: int) -> Iterator[Player]:
    qualities = [*np.repeat(np.linspace(0, 1, SNAPSHOTS), PLAYED), *[1.0] * BEST]
    for number, quality in enumerate(qualities):
        tremble = np.random.default_rng((seed, number)).uniform(0.1, 0.2)
        yield Linear(found.at(float(quality)), env.actions, tremble, number)


def _searched(world: str, seed: int, folder: Path) -> Iterator[Snapshots]:
    """Policies of every quality from this seed and from those 1,000 apart, where the best one is good enough."""
    name, (steps, tremble, least) = RUNNERS[world], SEARCHES[world]
    for i in count():
        path = folder / f"{name}{f'-{i}' if i else ''}.npz"
        found = search(name, path, steps=steps, every=2, seed=seed + 1000 * i, tremble=tremble)
        if found.returns.max() >= least:
            yield found


def _maze_players(env: Any, seed: int) -> Iterator[Player]:
    for number, quality in enumerate(np.geomspace(0.002, 1, MAZES)):
        yield Waypoints(env.env.unwrapped.maze, env.actions, float(quality), 0.15, seed * MAZES + number)


@dataclass(frozen=True)
class Split:
    """Positions of trajectories: with actions; without, of the same worse part; without, of the better part."""

    labelled: tuple[int, ...]
    inside: tuple[int, ...]
    outside: tuple[int, ...]


def split(recordings: Recordings, share: float, seed: int) -> Split:
    """Draw the labelled trajectories from the worse part by return."""
    order = np.argsort([float(episode[REWARD].sum()) for episode in recordings], kind="stable")
    lower = order[: int(len(order) * LOWER)]
    labelled = np.random.default_rng(seed).choice(lower, max(int(len(order) * share), 2), replace=False)
    inside = np.setdiff1d(lower, labelled)
    return Split(*(tuple(sorted(p.tolist())) for p in (labelled, inside, order[len(lower) :])))


def opened(folder: Path, world: str) -> Recordings:
    return successors(lerobot.read(folder / world))


def action_free(recordings: Recordings, keep: Sequence[int]) -> Recordings:
    kept = set(keep)
    return recordings.with_column(
        ACTION, [np.asarray(e[ACTION]) if i in kept else None for i, e in enumerate(recordings)], recordings.features[ACTION]
    )


# ---- inverse models ---------------------------------------------------------------------------------------------------


def inverse_model(seed: int, folder: Path, quick: bool, world: str, past: int, share: float) -> Measured:
    """Fit the inverse model on the labelled trajectories, and hold its answers on the others against what was done."""
    recordings = opened(folder, world)
    parts = split(recordings, share, seed)
    width, steps = (256, 1500) if quick else (WIDTH, 20_000)
    model = SSORL(past=past, width=width, steps=steps, learning_rate=RATE, seed=seed, device="cpu")
    model.fit(action_free(recordings, parts.labelled), run=QUIET)
    model.save(folder / model_name(world, past, share))
    said = {
        which: _scores(model, recordings.select(getattr(parts, which)))
        for which in ("inside", "outside")
        if getattr(parts, which)
    }
    return {"steps": model.trained_.steps if model.trained_ else 0, **said}


def _scores(model: SSORL, recordings: Recordings) -> dict[str, float]:
    """Squared error and variance of the actions of trajectories, and the share of signs that are right where they saturate."""
    answers = np.concatenate([inference.action for inference in infer(model, recordings.without(ACTION), batch=4096)])
    truth = np.concatenate([np.asarray(episode[ACTION]) for episode in recordings])
    full = np.abs(truth) >= SATURATED
    free = ~full
    return {
        "mse": float(np.mean((answers - truth) ** 2)),
        "variance": float(truth.var(0).mean()),
        "mse where not saturated": float(np.mean((answers - truth)[free] ** 2)),
        "saturated": float(full.mean()),
        "right sign where saturated": float((np.sign(answers) == np.sign(truth))[full].mean()) if full.any() else 1.0,
    }


def model_name(world: str, past: int, share: float) -> str:
    return f"{world}-k{past}-{share:g}"


# ---- policies ---------------------------------------------------------------------------------------------------------


def policy(
    seed: int, folder: Path, quick: bool, world: str, learner: OfflineLearner, labels: str, past: int, share: float
) -> Measured:
    """Fit an offline learner and play it.

    `labels` are `all` (every recorded action), `few` (the labelled trajectories alone), `proxy` (the inverse model's for the
    rest), or `shuffled` (those, put in another order in time).
    """
    recordings = opened(folder, world)
    parts = split(recordings, share, seed)
    if labels == "few":
        recordings = recordings.select(parts.labelled)
    elif labels != "all":
        model = SSORL.load(folder / model_name(world, past, share), device="cpu")
        recordings = label(action_free(recordings, parts.labelled), model, batch=4096, progress=False)
        if labels == "shuffled":
            recordings = _shuffled(recordings, seed)
    fitted = replace(learner, seed=seed).fit(recordings, run=QUIET)
    played = rollout(fitted, f"gymnasium/{(RUNNERS | MAZE)[world]}", range(FIRST_SEED, FIRST_SEED + EPISODES), parallel=EPISODES)
    return {"return": float(played.returns.mean()), "returns": played.returns.tolist(), "left out": fitted.left_out_}


def _shuffled(recordings: Recordings, seed: int) -> Recordings:
    rng = np.random.default_rng(seed)
    actions = [np.asarray(e[ACTION]) for e in recordings]
    guessed = [SOURCE in e and bool((np.asarray(e[SOURCE]) == INFERRED).any()) for e in recordings]
    mixed = [rng.permutation(a) if g else a for a, g in zip(actions, guessed, strict=True)]
    return recordings.with_column(ACTION, mixed, recordings.features[ACTION])


# ---- the experiment ---------------------------------------------------------------------------------------------------


class SemiSupervised(Experiment):
    """Relative return S = (R - R of the labelled trajectories alone) / (R of all actions - R of the labelled alone)."""

    slug = "ss-orl"
    claim = "with 10 % of the trajectories labelled, drawn from the worst half, TD3+BC does about as well as with all labels"
    left_out = (
        "D4RL's own data sets, which cannot be fetched here: recordings of graded quality are made in MuJoCo in their place",
        "Walker2d, independently varied ranges of return and self-training of the inverse model: not named by the acceptance",
        "CQL and the decision transformer for as many updates as the others: a third and a tenth of them, alike in all their "
        "arms, as an update costs more than ten times theirs; CQL has 2 hidden layers of 256 in place of 3",
        "the inverse model at the paper's size (width 1024, batches of 1024, a rate of 1e-4): 512, 256 and 1e-3 in their place, "
        "for at most the 20,000 steps of the page",
        "TD3+BC with the paper's weight of 2.5, its constant rate and its rate of targets of 0.005 on Hopper: 0.4, a rate that "
        "falls to nothing and 0.02 stand in their place, alike in all arms",
        "LAMB of the decision transformer: AdamW stands in its place, at width 128 with 3 layers",
    )

    @property
    def needs(self) -> Mapping[str, Sequence[str]]:  # type: ignore[override]
        return {arm: needs for quick in (False, True) for arm, (_, needs) in self._grid(quick).items()}

    def arms(self, quick: bool) -> Mapping[str, Callable[[int, Path, bool], Measured]]:
        return {arm: run for arm, (run, _) in self._grid(quick).items()}

    def _grid(self, quick: bool) -> dict[str, tuple[Callable[[int, Path, bool], Measured], tuple[str, ...]]]:
        """Arm -> what runs it, and the arms whose files it reads."""
        updates = 10_000 if quick else 30_000
        grid: dict[str, tuple[Callable[[int, Path, bool], Measured], tuple[str, ...]]] = {}

        def add_policy(arm: str, world: str, learner: OfflineLearner, labels: str, past: int = 1, share: float = SHARE) -> None:
            need = f"{world} data" if labels in ("all", "few") else f"{world} inverse k={past} share={share:g}"
            run = partial(policy, world=world, learner=learner, labels=labels, past=past, share=share)
            grid[f"{world} {arm}"] = (run, (need,))

        for world in MAZE if quick else RUNNERS:
            td3 = replace(LEARNERS[world], steps=updates, device="cpu")
            grid[f"{world} data"] = (partial(record, world=world, learner=td3), ())
            models = [(1, SHARE)] if quick else MODELS
            for past, share in models:
                run = partial(inverse_model, world=world, past=past, share=share)
                grid[f"{world} inverse k={past} share={share:g}"] = (run, (f"{world} data",))
            for labels in ("all", "few"):
                grid[f"{world} {labels}"] = (partial(tried, world=world, labels=labels), (f"{world} data",))
            for past, share in models:
                add_policy(f"proxy k={past} share={share:g}", world, td3, "proxy", past, share)
            if not quick:
                add_policy("shuffled", world, td3, "shuffled")
                add_policy("cloned", world, replace(td3, greed=0.0), "proxy")
        if not quick:
            transformer = DecisionTransformer(steps=updates // 10, warmup=updates // 100, learning_rate=5e-4)
            others = {"cql": CQL(layers=2, steps=updates // 3), "dt": transformer}
            for name, learner in others.items():
                for labels in ("all", "few", "proxy"):
                    add_policy(f"{name} {labels}", "cheetah", learner, labels)
        return grid

    def checks(self, measured: Mapping[str, Mapping[int, Measured]], quick: bool) -> Sequence[Check]:
        checks: list[Check] = []
        proxy = f"proxy k=1 share={SHARE:g}"
        if quick:
            scores = relative(measured, "maze", proxy)
            return [_at_least("S of TD3+BC with k=1, PointMaze", scores.values(), 0.7)] if scores else []
        for world, name in RUNNERS.items():
            if gains := gained(measured, world):
                least = [min(gains.values())]
                checks.append(_at_least(f"least gain of all labels over few, share of the return, {name}", least, INFORMATIVE))
            if scores := relative(measured, world, proxy):
                checks.append(_at_least(f"S of TD3+BC with k=1, {name}{_untold(measured, world)}", scores.values(), 0.7))
            if runs := measured.get(f"{world} inverse k=1 share={SHARE:g}"):
                ratios = [run["outside"]["mse"] / run["outside"]["variance"] for run in runs.values()]
                checks.append(_at_most(f"squared error of proxy actions over their variance, better half, {name}", ratios, 0.3))
            if scores := relative(measured, world, "shuffled"):
                shuffled = f"S of TD3+BC with shuffled proxy actions, {name}{_untold(measured, world)}"
                checks.append(_at_most(shuffled, scores.values(), 0.3))
        if all(relative(measured, world, proxy) for world in RUNNERS):
            untold = "".join(_untold(measured, world) for world in RUNNERS)
            checks.append(_at_least(f"S of TD3+BC with k=1, both{untold}", _both(measured, proxy).values(), 0.85))
        if scores := relative(measured, "cheetah", "cql proxy", "cql "):
            checks.append(_at_least("S of CQL, HalfCheetah-v5", scores.values(), 0.7))
        return [*checks, *_curve([_both(measured, f"proxy k=1 share={share:g}") for share in SHARES])]

    def tables(self, measured: Mapping[str, Mapping[int, Measured]]) -> Sequence[Table]:
        """S of every arm; that of the decision transformer the page asks to be told, whatever it is."""
        proxies = [f"proxy k={past} share={share:g}" for past, share in MODELS]
        arms = [(world, arm, "") for world in RUNNERS for arm in (*proxies, "shuffled", "cloned")]
        arms += [("cheetah", f"{learner} proxy", f"{learner} ") for learner in ("cql", "dt")]
        scores = {f"{world} {arm}": relative(measured, world, arm, learner) for world, arm, learner in arms}
        relatives = {arm: [_mean(values.values())] for arm, values in scores.items() if values}
        runs = {arm: list(by_seed.values()) for arm, by_seed in measured.items()}
        returns = {arm: [_mean(run["return"] for run in of)] for arm, of in runs.items() if "return" in of[0]}
        halves = {"inside": "worse half", "outside": "better half"}
        told = {f"{arm}, {name}": [run[h] for run in of] for arm, of in runs.items() for h, name in halves.items() if h in of[0]}
        errors = {name: _label_errors(scores) for name, scores in told.items()}
        columns = ("arm, trajectories", "error", "saturated", "of these with the right sign")
        tables = (
            Table("Relative return", ("arm", "S"), relatives),
            Table("Return", ("arm", "return"), returns),
            Table("Squared error of labels over the variance of actions; share of actions that are saturated", columns, errors),
        )
        return [table for table in tables if table.rows]


def gained(measured: Mapping[str, Mapping[int, Measured]], world: str, learner: str = "") -> dict[int, float]:
    """By seed, how much more a learner earns with all labels than with few, as a share of the former."""
    top, bottom = (measured.get(f"{world} {learner}{name}", {}) for name in ("all", "few"))
    return {seed: _gain(top[seed], bottom[seed]) for seed in top if seed in bottom}


def _gain(top: Measured, bottom: Measured) -> float:
    return float((top["return"] - bottom["return"]) / abs(top["return"]))


def relative(measured: Mapping[str, Mapping[int, Measured]], world: str, arm: str, learner: str = "") -> dict[int, float]:
    """By seed, S of an arm, where recordings are informative: elsewhere it would be divided by next to nothing."""
    runs, top, bottom = (measured.get(f"{world} {name}", {}) for name in (arm, f"{learner}all", f"{learner}few"))
    gains = gained(measured, world, learner)
    return {
        seed: (runs[seed]["return"] - bottom[seed]["return"]) / (top[seed]["return"] - bottom[seed]["return"])
        for seed in runs
        if gains.get(seed, 0.0) >= INFORMATIVE
    }


def _untold(measured: Mapping[str, Mapping[int, Measured]], world: str) -> str:
    """What the name of a check says of the seeds that it is made without."""
    seeds = [str(seed) for seed, gain in gained(measured, world).items() if gain < INFORMATIVE]
    return f" (without seed {', '.join(seeds)} of {RUNNERS[world]}, which tells too little)" if seeds else ""


def _both(measured: Mapping[str, Mapping[int, Measured]], arm: str) -> dict[tuple[str, int], float]:
    return {(world, seed): score for world in RUNNERS for seed, score in relative(measured, world, arm).items()}


def _curve(scores: Sequence[Mapping[tuple[str, int], float]]) -> list[Check]:
    """S over the share of labelled trajectories: no step of it falls by more than noise, and at half of them it is near 1."""
    told = sorted(set.intersection(*(set(by_seed) for by_seed in scores)))
    if {world for world, _ in told} < set(RUNNERS):
        return []
    steps = [paired([after[k] for k in told], [before[k] for k in told], "t") for before, after in pairwise(scores)]
    worst = min(steps, key=lambda step: step.value)
    holds = all(step.high >= 0 or (np.isnan(step.high) and step.value >= 0) for step in steps)
    name = f"least change of S from one labelled share to the next ({', '.join(f'{100 * s:g} %' for s in SHARES)})"
    rising = Check(name, worst.value, (worst.low, worst.high), "not below 0 beyond its 95 % interval", bool(holds))
    return [rising, _at_least("S with 50 % of the trajectories labelled, both", scores[-1].values(), 0.9)]


def _label_errors(scores: Sequence[Mapping[str, float]]) -> list[Number]:
    errors = _mean(score["mse"] / score["variance"] for score in scores)
    return [errors, *(_mean(score[name] for score in scores) for name in ("saturated", "right sign where saturated"))]


def _mean(values: Iterable[float]) -> Number:
    return Number.of(interval(list(values)))


def _at_least(name: str, values: Iterable[float], threshold: float) -> Check:
    value = interval(list(values))
    return Check.of(name, value, f">= {threshold:g}", value.value >= threshold)


def _at_most(name: str, values: Iterable[float], threshold: float) -> Check:
    value = interval(list(values))
    return Check.of(name, value, f"<= {threshold:g}", value.value <= threshold)


EXPERIMENT = SemiSupervised()
