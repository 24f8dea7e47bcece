"""The claim of inverse dynamics pretraining: with the task hidden, it beats cloning and learning from scratch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from retrodict.claims._hidden_goal import PROBED, Tasks, record_all, tried
from retrodict.claims.baselines.cloned_encoder import ClonedEncoder
from retrodict.claims.baselines.random_encoder import RandomEncoder
from retrodict.claims.baselines.true_state import TrueState
from retrodict.claims.experiment import Check, Experiment, Measured
from retrodict.metrics import interval, paired
from retrodict.systems.policies.few_shot_cloning import FewShotCloning
from retrodict.systems.states.inverse_dynamics_pretraining import InverseDynamicsPretraining
from retrodict.training.probes import Split, encoded, probe
from retrodict.training.run import Run
from retrodict.trajectories import Recordings
from retrodict.trajectories.features import STATE
from retrodict.trajectories.stores import open as open_recordings

SIZE = (48, 48)
DISTRACTED: Mapping[str, Any] = {"size": SIZE, "others": 1}
VISIBLE: Mapping[str, Any] = {"size": SIZE, "others": 1, "target": True}
PLAIN: Mapping[str, Any] = {"size": SIZE, "others": 0}

#: Setting -> options of its world. A goal that is drawn for each episode and not shown is the hidden context.
SETTINGS = {"hidden": DISTRACTED, "visible": VISIBLE, "plain": PLAIN}

SHOTS = (1, 2, 5)


@dataclass(frozen=True)
class Size:
    """How large a run is."""

    corpus: int = 300
    largest: int = 1000
    steps: int = 1500
    head_steps: int = 500
    scratch_steps: int = 150
    tasks: Tasks = field(default_factory=Tasks)


FULL, QUICK = Size(), Size(corpus=60, largest=60, steps=250, head_steps=200, scratch_steps=20, tasks=Tasks(2, 2))
QUICK_ARMS = (
    *("record hidden", "encode inverse dynamics", "encode cloning"),
    *("few-shot true state", "few-shot inverse dynamics", "few-shot cloning"),
)

#: One frame at a time; 192 frames a step, which inverse dynamics reads as 48 clips of 4.
NET: Mapping[str, Any] = {
    "backbone": "keypoints",
    "channels": (16, 32, 32),
    "strides": (2, 2, 1),
    "keypoints": 32,
    "width": 32,
    "hidden": (128, 128),
}
RATE: Mapping[str, Any] = {"learning_rate": 2e-3, "warmup": 400}


@dataclass(frozen=True)
class Arm:
    """An encoder: how it is made, from which recordings, and how many of them."""

    make: Callable[..., Any]
    setting: str = "hidden"
    episodes: int | None = None  # None: `Size.corpus`


INVERSE, CLONED = partial(InverseDynamicsPretraining, batch=48, **RATE), partial(ClonedEncoder, batch=192, **RATE)
ENCODERS: Mapping[str, Arm] = {
    "inverse dynamics": Arm(INVERSE),
    "cloning": Arm(CLONED),
    "random": Arm(RandomEncoder),
    "inverse dynamics, visible": Arm(INVERSE, "visible"),
    "cloning, visible": Arm(CLONED, "visible"),
    "inverse dynamics, plain": Arm(INVERSE, "plain"),
    "cloning, plain": Arm(CLONED, "plain"),
    "inverse dynamics, 10 steps": Arm(partial(InverseDynamicsPretraining, batch=24, k=10, frames=12, **RATE)),
    "inverse dynamics, 100 episodes": Arm(INVERSE, episodes=100),
    "inverse dynamics, 1000 episodes": Arm(INVERSE, episodes=1000),
}


class InverseDynamicsClaim(Experiment):
    """A point mass with a hidden goal, and a ball of another colour in every episode that goes its own way."""

    slug = "inverse-dynamics-pretraining"
    claim = InverseDynamicsPretraining.card.claim
    needs: Mapping[str, Sequence[str]] = {
        **{f"encode {name}": (f"record {arm.setting}",) for name, arm in ENCODERS.items()},
        **{f"few-shot {name}": (f"encode {name}",) for name in ENCODERS},
        **{f"few-shot scratch, {shots}": ("record hidden",) for shots in SHOTS},
        "few-shot true state": ("record hidden",),
    }
    left_out = (
        "arms without a margin on the page: contrastive and reconstructing forward models, three distractors, noisy pretraining",
        "idp_metaworld: the page sets no margin for it",
        "peer: the JAX repository of 2023",
    )

    def arms(self, quick: bool) -> Mapping[str, Callable[[int, Path, bool], Measured]]:
        made: dict[str, Callable[[int, Path, bool], Measured]] = {
            **{f"record {setting}": partial(_record, setting) for setting in SETTINGS},
            **{f"encode {name}": partial(_encode, name) for name in ENCODERS},
            "few-shot true state": _true_state,
            **{f"few-shot {name}": partial(_few_shot, name) for name in ENCODERS},
            **{f"few-shot scratch, {shots}": partial(_scratch, shots) for shots in SHOTS},
        }
        return {name: made[name] for name in QUICK_ARMS} if quick else made

    def checks(self, measured: Mapping[str, Mapping[int, Measured]], quick: bool) -> Sequence[Check]:
        if quick:  # too short for the thresholds: only from which encoder the place is read better
            return [replace(c, asked="> 0", holds=c.value > 0) for c in self._probes(measured)[1:]]
        found = []

        def by_goal(arm: str, shots: int) -> dict[tuple[int, int], float]:
            """(seed, goal) -> share of roll-outs that ended at the goal."""
            name = f"scratch, {shots}" if arm == "scratch" else arm
            cells = measured.get(f"few-shot {name}", {})
            return {(s, g): v for s, numbers in cells.items() for g, v in enumerate(numbers["success"][str(shots)])}

        def difference(a: str, b: str, shots: int) -> Any:
            mine, theirs = by_goal(a, shots), by_goal(b, shots)
            both = sorted(mine.keys() & theirs.keys())
            return paired([mine[c] for c in both], [theirs[c] for c in both]) if both else None

        for other, margin in (("cloning", 0.15), ("scratch", 0.10)):
            for shots in (5, 2):
                gap = difference("inverse dynamics", other, shots)
                if gap is not None:
                    holds = gap.value >= margin and gap.low > 0
                    name = f"success with {shots} demonstrations, inverse dynamics - {other}"
                    found.append(Check.of(name, gap, f">= {margin:.2f}, interval above 0", holds))
        found += self._probes(measured)
        ceiling = by_goal("true state", 5)
        if ceiling:
            estimate = interval(list(ceiling.values()), "bootstrap")
            found.append(Check.of("success with 5 demonstrations, true state", estimate, ">= 0.75", estimate.value >= 0.75))
        hidden = difference("inverse dynamics", "cloning", 5)
        shown = difference("inverse dynamics, visible", "cloning, visible", 5)
        if hidden is not None and shown is not None:
            holds = shown.value <= hidden.value / 2
            name = f"the same difference with the goal visible (hidden: {hidden.value:.2f})"
            found.append(Check.of(name, shown, "at most half of it", holds))
        plain = difference("inverse dynamics, plain", "cloning, plain", 5)
        if plain is not None:
            found.append(Check.of("the same difference without a distractor", plain, ">= 0", plain.value >= 0))
        return found

    def _probes(self, measured: Mapping[str, Mapping[int, Measured]]) -> list[Check]:
        mine, theirs = (measured.get(f"encode {name}", {}) for name in ("inverse dynamics", "cloning"))
        seeds = sorted(mine.keys() & theirs.keys())
        if not seeds:
            return []
        least = min(mine[s]["position"] for s in seeds)
        apart = min(mine[s]["position"] - theirs[s]["position"] for s in seeds)
        return [
            Check("R^2 of the position, inverse dynamics, worst seed", least, None, ">= 0.85", least >= 0.85),
            Check("R^2 of the position, inverse dynamics - cloning, worst seed", apart, None, ">= 0.25", apart >= 0.25),
        ]


# ---- recordings -------------------------------------------------------------------------------------------------------


def _record(setting: str, seed: int, folder: Path, quick: bool) -> Measured:
    size = QUICK if quick else FULL
    count = size.largest if setting == "hidden" else size.corpus
    return record_all(folder / setting, seed, count, size.tasks, SETTINGS[setting])


# ---- encoders ---------------------------------------------------------------------------------------------------------


def _encode(name: str, seed: int, folder: Path, quick: bool) -> Measured:
    size, arm = QUICK if quick else FULL, ENCODERS[name]
    corpus = open_recordings(folder / arm.setting / "corpus")[: arm.episodes or size.corpus]
    net = {key: value for key, value in NET.items() if key != "hidden" or arm.make is not RandomEncoder}
    steps = {"steps": size.steps, "warmup": min(400, size.steps)} if arm.make is not RandomEncoder else {}
    encoder = arm.make(**{**net, **steps}, seed=seed)
    encoder.fit(corpus, run=Run(progress=False))
    encoder.save(folder / name)
    return {kind: _probed(encoder, folder / arm.setting / "probe", kind) for kind in ("position", "position, MLP")}


def _probed(encoder: Any, folder: Path, kind: str) -> float:
    """R^2 of the ball's place, read from codes of episodes of other goals."""
    truth = "privileged.position"
    seen = encoded(encoder, open_recordings(folder), (truth,))
    split = Split(np.flatnonzero(seen.episode < PROBED), np.flatnonzero(seen.episode >= PROBED))
    return probe(seen.codes, seen.values[truth], split, "ridge" if kind == "position" else "mlp").value


# ---- few-shot cloning -------------------------------------------------------------------------------------------------


def _few_shot(name: str, seed: int, folder: Path, quick: bool) -> Measured:
    size, arm = QUICK if quick else FULL, ENCODERS[name]
    encoder = type(arm.make()).load(folder / name)

    def cloned(demonstrated: Recordings) -> FewShotCloning:
        return _head(encoder, size, seed).fit(demonstrated, run=Run(progress=False))

    return tried(cloned, folder / arm.setting, seed, size.tasks, SETTINGS[arm.setting], SHOTS)


def _head(encoder: Any, size: Size, seed: int) -> FewShotCloning:
    return FewShotCloning(encoder, hidden=(64, 64), steps=size.head_steps, weight_decay=0.01, seed=seed)


def _true_state(seed: int, folder: Path, quick: bool) -> Measured:
    size = QUICK if quick else FULL

    def cloned(demonstrated: Recordings) -> FewShotCloning:
        states = [np.concatenate([e["privileged.position"], e["privileged.velocity"]], 1) for e in demonstrated]
        numbers = demonstrated.with_column(STATE, states)
        return _head(TrueState().fit(numbers), size, seed).fit(numbers, run=Run(progress=False))

    return tried(cloned, folder / "hidden", seed, size.tasks, {**SETTINGS["hidden"], "camera": None}, SHOTS)


def _scratch(shots: int, seed: int, folder: Path, quick: bool) -> Measured:
    size = QUICK if quick else FULL
    options = {**NET, "hidden": (64, 64), "batch": 192, "learning_rate": 2e-3, "warmup": size.scratch_steps // 4}

    def cloned(demonstrated: Recordings) -> ClonedEncoder:
        return ClonedEncoder(**options, steps=size.scratch_steps, seed=seed).fit(demonstrated, run=Run(progress=False))

    return tried(cloned, folder / "hidden", seed, size.tasks, SETTINGS["hidden"], (shots,))


EXPERIMENT = InverseDynamicsClaim()
