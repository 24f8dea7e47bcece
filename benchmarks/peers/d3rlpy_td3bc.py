"""TD3+BC of d3rlpy on given transitions, in its own environment.

    python -m venv .venv-d3rlpy && .venv-d3rlpy/bin/pip install -c constraints.txt torch==2.13.0 d3rlpy==2.8.0 "gymnasium[mujoco]"

Started by `offline_learning.py`, and answers every line that it is sent:
    fit SEED UPDATES FILE       trains so long with that seed, writes the policy into the file, and says the seconds that it took
    gradients TRANSITIONS FILE  writes weights, and what one update of them would follow on these transitions
"""

from __future__ import annotations

import json
import sys
import time

import d3rlpy
import numpy as np
import torch

SETTINGS = {
    "actor_learning_rate": 3e-4,
    "critic_learning_rate": 3e-4,
    "batch_size": 256,
    "gamma": 0.99,
    "tau": 0.005,
    "n_critics": 2,
    "target_smoothing_sigma": 0.2,
    "target_smoothing_clip": 0.5,
    "alpha": 2.5,
    "update_actor_interval": 2,
}
"""Those of `TD3BC` here; its networks are two hidden layers of 256 by default."""


NETWORKS = {"actor": "policy", "critic": "q_funcs", "actor_target": "targ_policy", "critic_target": "targ_q_funcs"}
"""Their names here and in d3rlpy."""


def fit(dataset: d3rlpy.dataset.MDPDataset, seed: int, updates: int, file: str) -> dict[str, float]:
    d3rlpy.seed(seed)
    scaler = d3rlpy.preprocessing.StandardObservationScaler()
    learner = d3rlpy.algos.TD3PlusBCConfig(**SETTINGS, observation_scaler=scaler).create(device="cpu:0")
    learner.build_with_dataset(dataset)
    began = time.perf_counter()
    learner.fit(
        dataset,
        n_steps=updates,
        n_steps_per_epoch=updates,
        show_progress=False,
        logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
    )
    seconds = time.perf_counter() - began
    learner.save_policy(file)
    return {"seconds": seconds}


def gradients(transitions: str, file: str, updates: int = 20) -> dict[str, float]:
    """Weights after some updates, so that the delayed copies differ from what they follow, and both gradients of those weights.

    The target's action gets no noise, which neither side could copy from the other.
    """
    d3rlpy.seed(0)
    arrays = {name: torch.from_numpy(values) for name, values in np.load(transitions).items()}
    steps = len(arrays["rewards"])
    batch = d3rlpy.torch_utility.TorchMiniBatch(
        **arrays,
        next_actions=torch.zeros_like(arrays["actions"]),
        returns_to_go=torch.zeros(steps, 1),
        intervals=torch.ones(steps, 1),
        device="cpu:0",
    )
    learner = d3rlpy.algos.TD3PlusBCConfig(**SETTINGS | {"target_smoothing_sigma": 0.0}).create(device="cpu:0")
    learner.create_impl(arrays["observations"].shape[1:], arrays["actions"].shape[1])
    for step in range(updates):
        learner.impl.update(batch, step)
    parts = {ours: list(getattr(learner.impl.modules, theirs).parameters()) for ours, theirs in NETWORKS.items()}
    written = {f"{name}.{i}": p.detach().numpy() for name, part in parts.items() for i, p in enumerate(part)}
    for name, step in (("critic", learner.impl.compute_critic_grad), ("actor", learner.impl.compute_actor_grad)):
        step(batch)
        written |= {f"{name}.{i}.gradient": p.grad.clone().numpy() for i, p in enumerate(parts[name])}
    np.savez(file, **written)
    return {}


def main() -> None:
    torch.set_num_threads(1)
    arrays = np.load(sys.argv[1])
    names = ("observations", "actions", "rewards", "terminals", "timeouts")
    dataset = d3rlpy.dataset.MDPDataset(**{name: arrays[name] for name in names})
    print("ready", flush=True)
    for line in sys.stdin:
        command, first, *others = line.split()
        if command == "fit":
            said = fit(dataset, int(first), int(others[0]), others[1])
        else:
            said = gradients(first, others[0])
        print(json.dumps({**said, "version": d3rlpy.__version__}), flush=True)


if __name__ == "__main__":
    main()
