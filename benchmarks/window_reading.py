"""How fast random windows are read: here, with LeRobotDataset, from a Lance table, and by a bare gather in memory.

    python benchmarks/window_reading.py            # writes results/benchmarks/window_reading.json; minutes, on a quiet machine

One dataset of 20 episodes of 100 frames of 96x96 video and one ten times as large, both LeRobotDataset v3.0 on disk and read by
all. A window is 4 frames, states and actions; batches of 64, each held until the next is there. Everything is measured side by
side: in every round each reader has its turn, and medians over the rounds are compared. Ours is judged as a user iterates, with
the default prefetch; without it is measured beside. Of LeRobot's numbers of workers the better counts. Needs
`.venv-lerobot` (`make interop`) and pylance.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import av
import lance
import numpy as np
import pyarrow as pa
import torch

import reporting
from retrodict.trajectories import Feature, Recordings, Window
from retrodict.trajectories.stores import lerobot

ROOT = Path(__file__).parents[1]
PEER = [str(ROOT / ".venv-lerobot" / "bin" / "python"), str(ROOT / "benchmarks" / "peers" / "lerobot_windows.py")]

CAMERA, STATE, ACTION = "observation.images.top", "observation.state", "action"
EPISODES, STEPS, SIDE, FPS = 20, 100, 96, 30
FRAMES, BATCH = 4, 64
SIZES = {"1x": 1, "10x": 10}

Reader = Callable[[float], float]
"""Reads for some seconds and says how many windows it read in each."""


# ---- the data -----------------------------------------------------------------------------------------------------------


def scene(episode: int) -> Iterator[np.ndarray]:
    """A patch of noise on a slope, and a bar that moves."""
    rng = np.random.default_rng(episode)
    y, x = np.mgrid[:SIDE, :SIDE]
    slope = np.stack([x * 2 + episode * 7, y * 2, x + y + episode * 13], -1).astype(np.uint8)
    for step in range(STEPS):
        frame = slope.copy()
        frame[40:60, 40:60] = rng.integers(0, 256, (20, 20, 3))
        frame[step * 2 % 80 :][:12, 10:22] = 250
        yield frame


def write_dataset(folder: Path, episodes: int) -> None:
    features = {
        CAMERA: Feature("video", (SIDE, SIDE, 3), ["height", "width", "channels"]),
        STATE: Feature("float32", (6,)),
        ACTION: Feature("float32", (4,)),
    }
    with lerobot.Writer(folder, features, FPS) as writer:
        for episode in range(episodes):
            rng = np.random.default_rng(episode)
            numbers = {name: rng.normal(size=(STEPS, features[name].shape[0])).astype(np.float32) for name in (STATE, ACTION)}
            writer.add({CAMERA: scene(episode), **numbers}, tasks=("look",))


def arrays(recordings: Recordings) -> dict[str, np.ndarray]:
    """Every row of every feature, in memory."""
    return {name: np.concatenate([episode[name] for episode in recordings]) for name in (CAMERA, STATE, ACTION)}


# ---- the readers --------------------------------------------------------------------------------------------------------


def timed(batches: Iterator[Any]) -> Reader:
    """A reader of batches without end; as in a loop over them, one is held until the next is there."""

    def read(seconds: float) -> float:
        began, count, batch = time.perf_counter(), 0, None
        while time.perf_counter() - began < seconds:
            batch = next(batches)
            count += 1
        del batch
        return count * BATCH / (time.perf_counter() - began)

    return read


def ours(recordings: Recordings, **options: Any) -> Reader:
    """Windows; the few batches that a thread ahead has ready when the clock starts are too few to count."""
    window = Window(FRAMES - 1, 0, (CAMERA, STATE, ACTION))
    return timed(recordings.windows(window, BATCH, order="replacement", **options).stream())


def random_rows(step: int, rows: int) -> np.ndarray:
    """Rows of random windows that stay within their episodes."""
    rng = np.random.default_rng(step)
    starts = rng.integers(rows // STEPS, size=BATCH) * STEPS + rng.integers(STEPS - FRAMES + 1, size=BATCH)
    return (starts[:, None] + np.arange(FRAMES)).reshape(-1)


def bare_gather(values: dict[str, np.ndarray]) -> Reader:
    """`numpy.take` from arrays in memory: what cannot be beaten."""
    rows = len(values[CAMERA])
    return timed([np.take(array, random_rows(step, rows), axis=0) for array in values.values()] for step in itertools.count())


def lance_table(values: dict[str, np.ndarray], folder: Path) -> Reader:
    """A Lance table of raw frames, which is as fast as Lance gets: nothing is decoded when it is read."""
    columns = {
        name.replace(".", "_"): pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array[0].size)
        for name, array in values.items()
    }
    table = lance.write_dataset(pa.table(columns), str(folder))
    shapes = {name: array.shape[1:] for name, array in values.items()}

    def batch(step: int) -> dict[str, torch.Tensor]:
        taken = table.take(random_rows(step, len(values[CAMERA])))
        made = {}
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # nothing is copied, to its advantage
        for name, shape in shapes.items():
            flat = taken.column(name.replace(".", "_")).combine_chunks().flatten().to_numpy()
            made[name] = torch.from_numpy(flat.reshape(BATCH, FRAMES, *shape))
        return made

    first = batch(0)[CAMERA].numpy().reshape(-1, SIDE, SIDE, 3)
    assert np.array_equal(first, values[CAMERA][random_rows(0, len(values[CAMERA]))]), "Lance reads other frames"
    return timed(map(batch, itertools.count()))


class LeRobot:
    """LeRobotDataset in its own environment and process."""

    def __init__(self, folder: Path, log: Path) -> None:
        command, self.log = [*PEER, str(folder), CAMERA, str(FRAMES), str(BATCH)], log
        with log.open("w") as errors:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        self._line()

    def __call__(self, seconds: float) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        rates: dict[str, float] = json.loads(self._line())
        return rates

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            raise SystemExit(f"LeRobot ended: {self.log.read_text()[-2000:]}")
        return line

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


# ---- what is measured ---------------------------------------------------------------------------------------------------


def warm(folder: Path, work: Path, rounds: int, seconds: float) -> dict[str, float]:
    """Windows per second of every reader, medians over the rounds."""
    recordings = lerobot.read(folder)
    values = arrays(recordings)
    readers = {
        "ours": ours(recordings),
        "ours, prefetch 0": ours(recordings, prefetch=0),
        "numpy.take": bare_gather(values),
        "lance": lance_table(values, work / f"{folder.name}.lance"),
    }
    peer = LeRobot(folder, work / "lerobot.log")
    rates: dict[str, list[float]] = {}
    for read in readers.values():
        read(0.2)
    for _ in range(rounds):
        for name, read in readers.items():
            rates.setdefault(name, []).append(read(seconds))
        for name, rate in peer(seconds).items():
            rates.setdefault(f"lerobot, {name}", []).append(rate)
    peer.close()
    return {name: round(median(values), 1) for name, values in rates.items()}


def cold(folder: Path, work: Path, rounds: int) -> dict[str, float]:
    """Seconds of a first pass with an empty cache (open, decode, keep, read all frames) and of a plain PyAV loop."""
    seconds: dict[str, list[float]] = {"ours": [], "PyAV": []}
    before = os.environ["RETRODICT_CACHE"]
    for number in range(rounds):
        began, frames = time.perf_counter(), 0
        for path in sorted(folder.glob("videos/**/*.mp4")):
            with av.open(str(path)) as container:
                for frame in container.decode(video=0):
                    frame.to_ndarray(format="rgb24")
                    frames += 1
        seconds["PyAV"].append(time.perf_counter() - began)
        os.environ["RETRODICT_CACHE"] = str(work / f"cold-{folder.name}-{number}")
        began, read = time.perf_counter(), 0
        for batch in lerobot.read(folder).windows(Window(features=(CAMERA, STATE, ACTION)), BATCH, order="sequence"):
            read += len(batch["episode"])
        seconds["ours"].append(time.perf_counter() - began)
        assert read == frames
        shutil.rmtree(os.environ["RETRODICT_CACHE"])
    os.environ["RETRODICT_CACHE"] = before
    return {name: round(median(values), 4) for name, values in seconds.items()}


def memory_here(folder: Path) -> dict[str, float]:
    """Most resident memory of this process, in MB, anonymous and file-backed, while it reads every window once, shuffled."""
    most = {"VmRSS": 0.0}
    windows = lerobot.read(folder).windows(Window(FRAMES - 1, 0, (CAMERA, STATE, ACTION)), BATCH)
    for _ in windows:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        now = {name: int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon", "RssFile")}
        most = max(most, now, key=lambda entry: entry["VmRSS"])
    return {name: round(value, 1) for name, value in most.items()}


def memory(folder: Path) -> dict[str, float]:
    """The same, measured in a process of its own."""
    run = subprocess.run([sys.executable, __file__, "--memory", str(folder)], capture_output=True, text=True, check=True)
    measured: dict[str, float] = json.loads(run.stdout)
    return measured


def best(rates: dict[str, float], peer: str) -> float:
    """Rate of a peer with the number of workers that serves it better."""
    return max(rate for name, rate in rates.items() if name.startswith(peer))


def judged(measured: dict[str, dict[str, dict[str, float]]]) -> list[dict[str, Any]]:
    """The goals, each at the size where it is harder."""

    def worst(peer: str) -> float:
        return min(rates["ours"] / best(rates, peer) for rates in measured["windows per second"].values())

    robot, table, bare = worst("lerobot"), worst("lance"), worst("numpy.take")
    first = max(s["ours"] / s["PyAV"] for s in measured["seconds of the first pass"].values())
    resident = measured["resident MB"]
    growth = resident["10x"]["VmRSS"] / resident["1x"]["VmRSS"]
    return [
        reporting.check("windows per second against LeRobotDataset", robot, ">= 50", robot >= 50),
        reporting.check("windows per second against a Lance table", table, ">= 2", table >= 2),
        reporting.check("windows per second against a bare numpy.take in memory", bare, ">= 0.5", bare >= 0.5),
        reporting.check("first pass against plain sequential PyAV decoding, time", first, "<= 1.25", first <= 1.25),
        reporting.check(
            "resident memory (anonymous + file-backed), 10x data against 1x", growth, "0.9 to 1.1", 0.9 <= growth <= 1.1
        ),
    ]


def main() -> None:
    parser = reporting.options("window_reading", __doc__)
    parser.add_argument("--rounds", type=int, default=7, help="turns that each reader has")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn")
    parser.add_argument("--memory", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory is not None:
        print(json.dumps(memory_here(options.memory)))
        return
    with tempfile.TemporaryDirectory(prefix="window-reading-") as temporary:
        work = Path(temporary)
        os.environ["RETRODICT_CACHE"] = str(work / "cache")
        measured: dict[str, dict[str, dict[str, float]]] = {}
        for name, times in SIZES.items():
            folder = work / name
            write_dataset(folder, EPISODES * times)
            results = {
                "seconds of the first pass": cold(folder, work, min(options.rounds, 5)),
                "windows per second": warm(folder, work, options.rounds, options.seconds),
                "resident MB": memory(folder),
            }
            for what, numbers in results.items():
                measured.setdefault(what, {})[name] = numbers
                print(f"{name} {what}: {numbers}")
    checks = judged(measured)
    rates = measured["windows per second"]["1x"]
    reporting.write(
        options.out,
        "window_reading",
        work=f"random windows of {FRAMES} frames of {SIDE}x{SIDE}, state and action, batches of {BATCH}, windows per second; "
        f"{EPISODES} episodes of {STEPS} frames (1x) and ten times as many (10x); each check at the size where it is harder, "
        "ours with its default prefetch, LeRobot with the better number of workers (`measured` has the others)",
        ours=rates["ours"],
        peers={name: rate for name, rate in rates.items() if not name.startswith("ours")},
        ratio=checks[0]["value"],
        checks=checks,
        measured=measured,
        packages=("pylance", "av", "numpy", "torch"),
    )


if __name__ == "__main__":
    main()
