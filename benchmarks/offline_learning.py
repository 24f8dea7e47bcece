"""TD3+BC here and in d3rlpy, on the same transitions with the same settings: does it follow the same gradients, and how fast?

    python benchmarks/offline_learning.py --world cheetah    # writes results/benchmarks/offline_learning.json

Trajectories are recorded as for SS-ORL's claim, their actions inferred by its inverse model where they are taken away, and both
learn from these arrays, one seed after the other by turns, each in a single thread. Both policies play the same episodes of the
same world. Seeds differ by more than learners do, so weights are also copied and what both would follow from there is compared.
Needs `.venv-d3rlpy`, see `peers/d3rlpy_td3bc.py`.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

import reporting
from retrodict.claims import ss_orl
from retrodict.labelling import label
from retrodict.metrics import interval, paired
from retrodict.roles import Policy
from retrodict.systems.actions.offline import Transitions
from retrodict.systems.actions.ss_orl import SSORL
from retrodict.systems.actions.td3_bc import TD3BC
from retrodict.systems.actions.transitions import successors
from retrodict.trajectories import Recordings, from_arrays
from retrodict.trajectories.features import ACTION, REWARD, STATE, TERMINATED
from retrodict.worlds import rollout

ROOT = Path(__file__).parents[1]
PEER = ROOT / "benchmarks" / "peers" / "d3rlpy_td3bc.py"
CLOSE = 1e-5
EPISODES = range(1_000_000, 1_000_020)


class Scripted(Policy):
    """A policy that d3rlpy wrote."""

    def __init__(self, file: Path) -> None:
        self.policy = torch.jit.load(str(file))

    def act(self, observation: Any) -> Tensor:
        action: Tensor = self.policy(observation[STATE])
        return action

    def reset(self, mask: Tensor | None = None) -> None:
        """Nothing is remembered."""


def proxy_labelled(world: str, folder: Path) -> Recordings:
    """Trajectories of graded quality, of which a tenth keeps its actions and the others have inferred ones."""
    if not (folder / ss_orl.model_name(world, 1, ss_orl.SHARE)).exists():
        ss_orl.record(0, folder, False, world)
        ss_orl.inverse_model(0, folder, False, world, past=1, share=ss_orl.SHARE)
    recordings = ss_orl.opened(folder, world)
    labelled = ss_orl.split(recordings, ss_orl.SHARE, 0).labelled
    model = SSORL.load(folder / ss_orl.model_name(world, 1, ss_orl.SHARE), device="cpu")
    made = label(ss_orl.action_free(recordings, labelled), model, batch=4096, progress=False)
    # d3rlpy knows no final observation, so neither does ours here: steps that a time limit cut off are left out by both.
    names = (STATE, ACTION, REWARD, TERMINATED)
    return from_arrays([{name: np.asarray(e[name]) for name in names} for e in made], fps=made.fps, actions=made.actions)


def written(recordings: Recordings, file: Path) -> Path:
    """The same as d3rlpy's arrays."""
    last = [np.arange(e.length) == e.length - 1 for e in recordings]
    ended = [np.asarray(e[TERMINATED]).reshape(-1).astype(bool) for e in recordings]
    np.savez(
        file,
        observations=np.concatenate([e[STATE] for e in recordings]),
        actions=np.concatenate([e[ACTION] for e in recordings]),
        rewards=np.concatenate([e[REWARD] for e in recordings]),
        terminals=np.concatenate(ended).astype(np.float32),
        timeouts=np.concatenate([at & ~end for at, end in zip(last, ended, strict=True)]).astype(np.float32),
    )
    return file


class Peer:
    """d3rlpy in its own environment and process."""

    def __init__(self, python: Path, arrays: Path, log: Path) -> None:
        self.log = log
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                [str(python), str(PEER), str(arrays)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        self._line("ready")

    def ask(self, *words: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        said: dict[str, Any] = json.loads(self._line("{"))
        return said

    def _line(self, start: str) -> str:
        """The next line that begins so; d3rlpy writes others between."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(start):
                return line
        raise SystemExit(f"d3rlpy ended: {self.log.read_text()[-2000:]}")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def gradients_apart(recordings: Recordings, peer: Peer, work: Path) -> dict[str, float]:
    """Largest difference of any gradient from d3rlpy's under its weights, as a share of the largest, of critics and of actor."""
    learner = TD3BC(steps=1, noise=0.0, seed=0, device="cpu").fit(recordings, run=ss_orl.QUIET)
    batch = learner.reader(successors(recordings))(0)
    step = Transitions.of(learner.net_, batch)
    given = {
        "observations": step.state,
        "actions": step.action,
        "rewards": step.reward[:, None],
        "next_observations": step.following,
        "terminals": 1 - step.goes_on[:, None],
    }
    np.savez(work / "transitions.npz", **{name: values.numpy() for name, values in given.items()})
    peer.ask("gradients", work / "transitions.npz", work / "gradients.npz")
    theirs = np.load(work / "gradients.npz")
    for name in ("actor", "critic", "actor_target", "critic_target"):
        for i, parameter in enumerate(learner.net_[name].parameters()):
            parameter.data.copy_(torch.from_numpy(theirs[f"{name}.{i}"]))
    learner.now, found = 0, dict[str, float]()
    learner.net_.zero_grad()
    sum(learner.loss(learner.net_, batch).values(), torch.zeros(())).backward()
    for name in ("critic", "actor"):
        parameters = list(learner.net_[name].parameters())
        said = [theirs[f"{name}.{i}.gradient"] for i in range(len(parameters))]
        off = max(float(np.abs(p.grad.numpy() - g).max()) for p, g in zip(parameters, said, strict=True))
        found[name] = off / max(float(np.abs(g).max()) for g in said)
    return found


def main() -> None:
    parser = reporting.options("offline_learning", __doc__)
    parser.add_argument("--world", choices=(*ss_orl.RUNNERS, *ss_orl.MAZE), default="cheetah")
    parser.add_argument("--updates", type=int, default=30_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--python", type=Path, default=ROOT / ".venv-d3rlpy" / "bin" / "python", help="of d3rlpy's environment")
    parser.add_argument(
        "--work", type=Path, help="folder of the recordings, such as a seed's of the claim; temporary where not given"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    name = (ss_orl.RUNNERS | ss_orl.MAZE)[options.world]
    rows: dict[str, list[dict[str, Any]]] = {"ours": [], "d3rlpy": []}
    with tempfile.TemporaryDirectory(prefix="offline-learning-") as temporary:
        work = (options.work or Path(temporary)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        recordings = proxy_labelled(options.world, work)
        peer = Peer(options.python.absolute(), written(recordings, work / "arrays.npz"), work / "d3rlpy.log")
        off, version = gradients_apart(recordings, peer, work), ""
        print("gradients differ by", off, flush=True)
        for seed in range(options.seeds):
            learner = TD3BC(steps=options.updates, seed=seed, device="cpu")
            began = time.perf_counter()
            learner.fit(recordings, run=ss_orl.QUIET)
            seconds = {"ours": time.perf_counter() - began}
            said = peer.ask("fit", seed, options.updates, work / "peer.pt")
            seconds["d3rlpy"], version = said["seconds"], said["version"]
            for who, policy in (("ours", learner), ("d3rlpy", Scripted(work / "peer.pt"))):
                returns = rollout(policy, f"gymnasium/{name}", EPISODES, parallel=len(EPISODES)).returns
                rows[who].append(
                    {"seed": seed, "return": float(returns.mean()), "updates per second": options.updates / seconds[who]}
                )
                print(who, rows[who][-1], flush=True)
        peer.close()
    returns = {who: [row["return"] for row in found] for who, found in rows.items()}
    rates = {who: median(row["updates per second"] for row in found) for who, found in rows.items()}
    apart = paired(returns["ours"], returns["d3rlpy"], "t")
    means = {who: interval(values) for who, values in returns.items()}
    largest, faster = max(off.values()), rates["ours"] / rates["d3rlpy"]
    reporting.write(
        options.out,
        "offline_learning",
        work=f"TD3+BC on {recordings.steps} proxy-labelled transitions of {name}, {options.updates} updates of 256, equal "
        f"settings; updates per second in one thread, medians over {options.seeds} seeds by turns, ours with all that `fit` does",
        ours=round(rates["ours"], 1),
        peers={"d3rlpy": round(rates["d3rlpy"], 1)},
        ratio=round(faster, 2),
        checks=[
            reporting.check(
                "gradients of copied weights, difference over the largest", largest, f"<= {CLOSE:.0e}", largest <= CLOSE
            ),
            reporting.check(
                "return, ours minus d3rlpy", apart.value, "0 lies in its 95 % interval", apart.low <= 0 <= apart.high
            ),
            reporting.check("updates per second against d3rlpy", faster, ">= 1", faster >= 1),
        ],
        measured={"gradients apart": off, "returns apart": str(apart)}
        | {who: {"return": str(means[who]), "seeds": rows[who]} for who in rows},
        packages=("torch",),
        arguments=f"--world {options.world} --updates {options.updates} --seeds {options.seeds}",
        d3rlpy=version,
    )


if __name__ == "__main__":
    main()
