"""What the columns of a table are, judged by their headers; every guess is a sentence that the user gets to see."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.features import NEXT_STATE, STATE
from retrodict.trajectories.stores.logs import Log

TIME = re.compile(r"(time_?stamps?|time|t|seconds|secs?|elapsed|clock)[ _.\[(]*(\w*?)[\])]*", re.IGNORECASE)
SECONDS = {"": 1.0, "s": 1.0, "sec": 1.0, "secs": 1.0, "seconds": 1.0}
SECONDS |= {"ms": 1e-3, "msec": 1e-3, "milliseconds": 1e-3, "us": 1e-6, "microseconds": 1e-6, "ns": 1e-9, "nanoseconds": 1e-9}
EPOCH = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3))
"""Seconds since 1970 stay below 1e11 for three thousand years: a clock that reads more counts milliseconds or less."""
EPISODE = {"episode", "episode_index", "episode_id", "ep", "traj", "traj_id", "trajectory", "trajectory_id"}
EPISODE |= {"run", "run_id", "trial", "trial_id", "demo", "demo_id", "sequence", "sequence_id"}
VIDEO = {"video", "video_path", "video_file", "video_id", "file", "filename", "file_name", "path", "clip"}
FRAME = {"frame", "frame_index", "frame_id", "frame_number", "image_index"}
COUNTER = FRAME | {"", "i", "index", "row", "step", "step_index", "task_index", "column_0", "unnamed: 0", "__index_level_0__"}
ACTION = re.compile(r"actions?(?![a-z])", re.IGNORECASE)
TASK = {"task", "instruction", "language_instruction"}
DOMAIN = {"domain"}
NAMED = {
    **dict.fromkeys(("reward", "rewards"), "next.reward"),
    **dict.fromkeys(("done", "dones"), "next.done"),
    **dict.fromkeys(("terminated", "terminal", "terminals", "terminations"), "next.terminated"),
    **dict.fromkeys(("truncated", "timeout", "timeouts", "truncations"), "next.truncated"),
    **dict.fromkeys(("state", "observation", "observations"), STATE),
    **dict.fromkeys(("next_state", "next_observation", "next_observations"), NEXT_STATE),
}
PREFIXES = ("observation.", "next.", "label.", "privileged.", "latent.", "sample.", "valid.", "event.", "segment.")


@dataclass(frozen=True)
class Headers:
    """What each column of a table is.

    Attributes:
        time: the clock.
        seconds: the length of its unit; None where neither name nor size of a clock that stands beside videos says it.
        episode, video, frame: columns that say which episode, video and frame a row belongs to.
        task, domain: texts of an episode.
        actions, state: columns that make up `action` and `observation.state`.
        named: further column -> feature name, texts among them.
        guessed: sentences on all this.
    """

    time: str | None
    seconds: float | None
    episode: str | None
    video: str | None
    frame: str | None
    task: str | None
    domain: str | None
    actions: tuple[str, ...]
    state: tuple[str, ...]
    named: Mapping[str, str]
    guessed: tuple[str, ...]


def read_headers(
    log: Log,
    *,
    time: str | None = None,
    episode: str | None = None,
    actions: Sequence[str] | None = None,
    of_video: bool = False,
) -> Headers:
    """Say what the columns of a table are; what is given is not guessed, `none` for the time or the episode means there is none.

    With `of_video`, a log stands beside videos: columns may name the video and the frame, where no column is called an action
    all numbers are, and a clock that does not say its unit leaves it to the length of the videos; elsewhere it counts seconds.

    Raises DataError when a column that is given is not there, or nothing is left to read.
    """
    for name in (*(n for n in (time, episode) if n not in (None, "none")), *(actions or ())):
        if name not in log.columns:
            raise DataError(f"{log.path} has no column {name!r}; it has {', '.join(log.columns)}.")
    guessed = list(log.left_out)
    free = dict(log.columns)
    file = log.path.name

    def take(names: set[str], what: str) -> str | None:
        found = next((name for name in free if name.lower() in names), None)
        if found is not None:
            free.pop(found)
            guessed.append(f"{file}: {found!r} is taken for {what}, by its name.")
        return found

    for given in (time, episode, *(actions or ())):
        free.pop(given or "none", None)
    episode = take(EPISODE, "the episode of a row") if episode is None else (None if episode == "none" else episode)
    video = take(VIDEO, "the video of a row") if of_video else None
    frame = take(FRAME, "the frame of a row") if of_video else None
    task, domain = take(TASK, "the task of an episode"), take(DOMAIN, "the domain of an episode")
    seconds: float | None = 1.0
    if time is None:
        time, seconds, sentence = _find_time(free, of_video)
        if time is not None:
            free.pop(time)
            guessed.append(f"{file}: {sentence}")
    elif time == "none":
        time = None
    else:
        seconds = _given_unit(time, log.columns[time], of_video)
    for name in [name for name in free if name.lower() in COUNTER and _counts(free[name])]:
        free.pop(name)
        guessed.append(f"{file}: {name!r} only counts rows and is left out.")

    named = {name: feature for name in free if (feature := _named(name)) and feature != STATE}
    for name, feature in named.items():
        if (other := next(n for n, f in named.items() if f == feature)) != name:
            raise DataError(f"{log.path}: {other!r} and {name!r} both mean {feature!r}; keep one of them.")
    rest = {name: values for name, values in free.items() if name not in named}
    called = tuple(name for name in rest if ACTION.match(name)) if actions is None else tuple(actions)
    texts = [name for name, values in rest.items() if values.dtype.kind in "OM" and name not in called]
    state = tuple(name for name in rest if name not in called and name not in texts)
    if of_video and not called and state:
        called, state = state, ()
        guessed.append(f"{file}: no column is called an action, so all columns of numbers are: {', '.join(called)}.")
    elif called and actions is None:
        guessed.append(f"{file}: {', '.join(called)} make up `action`, by their names; their units are unknown.")
    if state:
        guessed.append(f"{file}: {', '.join(state)} make up `observation.state`.")
    guessed += [f"{file}: {name!r} is kept as {feature!r}." for name, feature in named.items() if name != feature]
    guessed += [f"{file}: {name!r} is kept as text." for name in texts]
    named |= {name: name for name in texts}
    if not (called or state or named):
        raise DataError(f"{log.path} has nothing to read beside clocks and counters; its columns are {', '.join(log.columns)}.")
    return Headers(time, seconds, episode, video, frame, task, domain, called, state, named, tuple(guessed))


def _named(column: str) -> str | None:
    return column if column.startswith(PREFIXES) else NAMED.get(column.lower())


def clock_unit(column: str, values: np.ndarray) -> float | None:
    """Length in seconds of the unit of a clock, by the end of its name and, where that says none, by its size.

    None where the name is none of a clock's.
    """
    if (match := TIME.fullmatch(column)) is None or (unit := SECONDS.get(match[2].lower())) is None:
        return None
    if unit == 1 and values.dtype.kind in "iuf":
        unit = next((epoch for least, epoch in EPOCH if values[0] > least), 1.0)
    return unit


def _unit_is_said(column: str, unit: float) -> bool:
    """False where a clock was given the unit of seconds because its name says none."""
    match = TIME.fullmatch(column)
    return unit != 1 or (match is not None and (bool(match[2]) or match[1].lower().startswith("sec")))


def _given_unit(column: str, values: np.ndarray, of_video: bool) -> float | None:
    """The unit of a column that is said to be the clock, whatever it is called."""
    if values.dtype.kind == "M":
        return 1.0
    word = re.split(r"[ _.\[(]+", column.rstrip("])"))[-1].lower()
    name = f"time_{word}" if word in SECONDS else "time"
    unit = clock_unit(name, values) or 1.0
    return None if of_video and not _unit_is_said(name, unit) else unit


def _find_time(columns: dict[str, np.ndarray], of_video: bool) -> tuple[str | None, float | None, str]:
    for name, values in columns.items():
        if values.dtype.kind == "M":
            return name, 1.0, f"{name!r} is taken for the clock: it holds dates."
    for name, values in columns.items():
        if values.ndim == 1 and values.dtype.kind in "iuf" and (seconds := clock_unit(name, values)) is not None:
            if of_video and not _unit_is_said(name, seconds):
                return name, None, f"{name!r} is taken for the clock, by its name."
            how = "its name" if seconds == clock_unit(name, np.zeros(1)) else "its name and its size"
            return name, seconds, f"{name!r} is taken for the clock, in units of {seconds:g} s, by {how}."
    first = next(iter(columns), None)
    if first is not None and len(columns) > 1 and _runs_evenly(columns[first]):
        unit, said = (None, "") if of_video else (1.0, ", in seconds")
        return first, unit, f"{first!r} is taken for the clock{said}: it comes first and grows evenly."
    return None, 1.0, ""


def _runs_evenly(values: np.ndarray) -> bool:
    if values.ndim != 1 or values.dtype.kind != "f" or len(values) < 3:
        return False
    steps = np.diff(values)
    return bool(steps.min() > 0 and np.ptp(steps) < 1e-3 * steps.mean())


def _counts(values: np.ndarray) -> bool:
    """True for 0, 1, 2, ..., starting again with each episode or not."""
    if values.ndim != 1 or values.dtype.kind not in "iu":
        return False
    steps = np.diff(values.astype(np.int64))
    return bool(((steps == 1) | (values[1:] == values[0])).all())
