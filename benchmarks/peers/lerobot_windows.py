"""Random windows per second with LeRobotDataset (torchcodec), in LeRobot's own environment.

Started by `window_reading.py`; answers every line it is sent (seconds to read for) with one line of JSON: windows per second by
number of DataLoader workers.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "interop"))

from peer import LeRobotDataset, torch

FOLDER, CAMERA, FRAMES, BATCH = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
AHEAD = 4  # batches that two workers have ready while they wait


def dataset() -> LeRobotDataset:
    fps = LeRobotDataset("local/windows", root=FOLDER).fps
    times = [-step / fps for step in reversed(range(FRAMES))]
    deltas = dict.fromkeys((CAMERA, "observation.state", "action"), times)
    return LeRobotDataset("local/windows", root=FOLDER, delta_timestamps=deltas, video_backend="torchcodec")


def rate(batches: Iterator[dict[str, torch.Tensor]], seconds: float) -> float:
    """Windows per second, without those that workers had made beforehand."""
    for _ in range(AHEAD + 1):
        next(batches)
    began, windows = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        windows += len(next(batches)["action"])
    return windows / (time.perf_counter() - began)


def main() -> None:
    torch.set_num_threads(1)
    source = dataset()
    sampler = torch.utils.data.RandomSampler(source, replacement=True, num_samples=10_000_000)
    # Workers are forked before this process reads: they would share its open video files, and read garbage.
    readers = {n: iter(torch.utils.data.DataLoader(source, BATCH, sampler=sampler, num_workers=n)) for n in (2, 0)}
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps({f"workers {n}": rate(batches, float(line)) for n, batches in readers.items()}), flush=True)


if __name__ == "__main__":
    main()
