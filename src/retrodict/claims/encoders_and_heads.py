"""Any encoder under any head: what each pair makes of five demonstrations of a new goal, the same for all.

No paper claims this; it shows which part of a result is the representation's and which the policy's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from retrodict.claims._hidden_goal import PROBED, Tasks, record_all, tried
from retrodict.claims.baselines.cloned_encoder import ClonedEncoder
from retrodict.claims.baselines.random_encoder import RandomEncoder
from retrodict.claims.experiment import Check, Experiment, Measured, Number, Table
from retrodict.metrics import interval
from retrodict.systems import System
from retrodict.systems.policies.behavior_cloning import BehaviorCloning
from retrodict.systems.policies.diffusion_policy import DiffusionPolicy
from retrodict.systems.policies.few_shot_cloning import FewShotCloning
from retrodict.systems.policies.nearest_neighbours import NearestNeighbours
from retrodict.systems.policies.vq_bet import VQBeT
from retrodict.systems.states.dynamo import DynaMo
from retrodict.systems.states.inverse_dynamics_pretraining import InverseDynamicsPretraining
from retrodict.training.probes import Split, encoded, probe
from retrodict.training.run import Run
from retrodict.trajectories import Recordings
from retrodict.trajectories.stores import open as open_recordings

OPTIONS: Mapping[str, Any] = {"size": (48, 48), "others": 1}
QUIET = Run(progress=False)


@dataclass(frozen=True)
class Size:
    """How large a run is: episodes of the corpus, steps of an encoder and of a head, and what is played."""

    corpus: int = 300
    steps: int = 1500
    head_steps: int = 500
    tasks: Tasks = field(default_factory=Tasks)


FULL, QUICK = Size(), Size(corpus=30, steps=20, head_steps=20, tasks=Tasks(1, 2))

#: One network for all, of single frames.
NET: Mapping[str, Any] = {"backbone": "keypoints", "channels": (16, 32, 32), "strides": (2, 2, 1), "keypoints": 32, "width": 32}
TRAINED: Mapping[str, Any] = {"learning_rate": 2e-3}
ENCODERS: Mapping[str, Callable[..., Any]] = {
    "inverse dynamics": partial(InverseDynamicsPretraining, hidden=(128, 128), batch=48, **TRAINED),
    "dynamo": partial(DynaMo, batch=38),  # its own rate: that of the others makes its codes collapse
    "cloning": partial(ClonedEncoder, hidden=(128, 128), batch=192, **TRAINED),
    "random": RandomEncoder,
}

#: An encoder, steps and seed -> a policy.
HEADS: Mapping[str, Callable[[Any, int, int], Any]] = {
    "perceptron": lambda encoder, steps, seed: FewShotCloning(
        encoder, hidden=(64, 64), steps=steps, weight_decay=0.01, seed=seed
    ),
    "nearest neighbours": lambda encoder, steps, seed: NearestNeighbours(encoder, seed=seed),
    "diffusion": lambda encoder, steps, seed: DiffusionPolicy(
        encoder=encoder, observed=1, chunk=4, hidden=64, depth=2, steps=steps, batch=64, learning_rate=1e-3, seed=seed
    ),
    "quantised": lambda encoder, steps, seed: VQBeT(
        encoder=encoder, observed=1, chunk=4, hidden=64, depth=2, token_steps=steps, steps=steps, seed=seed
    ),
    "transformer over clips": lambda encoder, steps, seed: BehaviorCloning(
        encoder=encoder, frames=8, width=64, depth=1, numbers=False, steps=steps, batch=16, seed=seed
    ),
}


class EncodersAndHeads(Experiment):
    """A point mass with a hidden goal and a distractor; encoders learn from many goals, heads from five demonstrations of one."""

    slug = "encoders-and-heads"
    claim = "an encoder serves under any head, and a head on any encoder: success after 5 demonstrations of a goal never met"
    needs: Mapping[str, Sequence[str]] = {
        **{f"encode {name}": ("record",) for name in ENCODERS},
        **{f"{name} under {head}": (f"encode {name}",) for name in ENCODERS for head in HEADS},
    }

    def arms(self, quick: bool) -> Mapping[str, Callable[[int, Path, bool], Measured]]:
        return {
            "record": _record,
            **{f"encode {name}": partial(_encode, name) for name in ENCODERS},
            **{f"{name} under {head}": partial(_play, name, head) for name in ENCODERS for head in HEADS},
        }

    def checks(self, measured: Mapping[str, Mapping[int, Measured]], quick: bool) -> Sequence[Check]:
        pairs = sum(bool(measured.get(f"{name} under {head}")) for name in ENCODERS for head in HEADS)
        every = len(ENCODERS) * len(HEADS)
        return [Check("pairs of an encoder and a head that learned and played", pairs, None, f"all {every}", pairs == every)]

    def tables(self, measured: Mapping[str, Mapping[int, Measured]]) -> Sequence[Table]:
        """How often each pair succeeds, and how well the position is read from the encoder's codes."""
        rows = {}
        for name in ENCODERS:
            cells = [measured.get(f"encode {name}", {}), *(measured.get(f"{name} under {head}", {}) for head in HEADS)]
            if all(cells):
                seen, *played = (list(cell.values()) for cell in cells)
                goals = [[goal for numbers in cell for goal in numbers["success"]["5"]] for cell in played]
                position = Number(float(np.mean([numbers["position"] for numbers in seen])))
                rows[name] = [position, *(Number.of(interval(outcomes, "bootstrap")) for outcomes in goals)]
        title = "Success with a new goal after 5 demonstrations"
        return [Table(title, ("encoder", "R^2 of the position", *HEADS), rows)] if rows else []


def _record(seed: int, folder: Path, quick: bool) -> Measured:
    size = QUICK if quick else FULL
    return record_all(folder, seed, size.corpus, size.tasks, OPTIONS)


def _encode(name: str, seed: int, folder: Path, quick: bool) -> Measured:
    """Pretrain on the corpus (dynamo without its actions) and see how well the place of the ball is read from the codes."""
    size = QUICK if quick else FULL
    learned = {"steps": size.steps, "warmup": min(400, size.steps)} if name != "random" else {}
    encoder = ENCODERS[name](**NET, **learned, seed=seed)
    encoder.fit(open_recordings(folder / "corpus"), run=QUIET).save(folder / f"encoder {name}")
    seen = encoded(encoder, open_recordings(folder / "probe"), ("privileged.position",))
    split = Split(np.flatnonzero(seen.episode < PROBED), np.flatnonzero(seen.episode >= PROBED))
    return {"position": probe(seen.codes, seen.values["privileged.position"], split, "ridge").value}


def _play(name: str, head: str, seed: int, folder: Path, quick: bool) -> Measured:
    size = QUICK if quick else FULL
    encoder = System.load(folder / f"encoder {name}")

    def fitted(demonstrated: Recordings) -> Any:
        return HEADS[head](encoder, size.head_steps, seed).fit(demonstrated, run=QUIET)

    return tried(fitted, folder, seed, size.tasks, OPTIONS, (size.tasks.shots,))


EXPERIMENT = EncodersAndHeads()
