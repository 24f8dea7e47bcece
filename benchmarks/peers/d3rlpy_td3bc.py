"""TD3+BC of d3rlpy on given transitions, in its own environment.

    python -m venv .venv-d3rlpy && .venv-d3rlpy/bin/pip install -c constraints.txt torch==2.13.0 d3rlpy==2.8.0 "gymnasium[mujoco]"

Started by `offline_learning.py`; answers every line it is sent, `seed updates file`, by training so long with that seed, writing
the policy as TorchScript into the file, and saying the seconds that it took.
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


def main() -> None:
    torch.set_num_threads(1)
    arrays = np.load(sys.argv[1])
    names = ("observations", "actions", "rewards", "terminals", "timeouts")
    dataset = d3rlpy.dataset.MDPDataset(**{name: arrays[name] for name in names})
    print("ready", flush=True)
    for line in sys.stdin:
        seed, updates, file = line.split()
        d3rlpy.seed(int(seed))
        scaler = d3rlpy.preprocessing.StandardObservationScaler()
        learner = d3rlpy.algos.TD3PlusBCConfig(**SETTINGS, observation_scaler=scaler).create(device="cpu:0")
        learner.build_with_dataset(dataset)
        began = time.perf_counter()
        learner.fit(
            dataset,
            n_steps=int(updates),
            n_steps_per_epoch=int(updates),
            show_progress=False,
            logger_adapter=d3rlpy.logging.NoopAdapterFactory(),
        )
        seconds = time.perf_counter() - began
        learner.save_policy(file)
        print(json.dumps({"seconds": seconds, "version": d3rlpy.__version__}), flush=True)


if __name__ == "__main__":
    main()
