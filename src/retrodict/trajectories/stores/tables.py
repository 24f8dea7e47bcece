"""Time series in tables: CSV, TSV, JSONL and Parquet files, one or a folder of them with the same columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.features import ACTION, STATE
from retrodict.trajectories.recordings import Recordings, from_arrays
from retrodict.trajectories.stores.endings import ends_told
from retrodict.trajectories.stores.headers import Headers, read_headers
from retrodict.trajectories.stores.logs import SUFFIXES, Log, read_log
from retrodict.trajectories.stores.series import (
    constant_entries,
    episode_features,
    name_entries,
    rate,
    seconds_of,
    settle_actions,
)
from retrodict.trajectories.stores.stating import Stated

KIND = "a table of time series (CSV, TSV, JSONL, Parquet), or a folder of such files"
BESIDE = (".md", ".txt")
"""Files that may stand beside the tables of a folder."""


@dataclass(frozen=True)
class Piece:
    """One episode of a table, before it is known what all episodes have in common."""

    values: dict[str, np.ndarray]
    clock: np.ndarray | None
    source: str
    tasks: tuple[str, ...]
    domain: str | None
    meta: dict[str, Any]


def recognises(path: Path) -> bool:
    """True for a table file, and for a folder that holds tables and nothing else but notes."""
    if path.is_file():
        return path.suffix.lower() in SUFFIXES
    return bool(files_in(path, SUFFIXES))


def files_in(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files of a folder, in order, where all of them have one of these suffixes or are notes; else none."""
    files = sorted(file for file in folder.iterdir() if not file.name.startswith(".") and file.suffix.lower() not in BESIDE)
    return files if all(file.is_file() and file.suffix.lower() in suffixes for file in files) else []


def read(
    path: Path,
    *,
    time: str | None = None,
    episode: str | None = None,
    action_columns: Sequence[str] | None = None,
    leave_out: Sequence[str] = (),
    actions: Stated | None = None,
    fps: float | None = None,
    nan_is_missing: bool = False,
) -> Recordings:
    """Recordings over the rows of tables, each step one row.

    Where no column names the episode of a row, episodes end where columns of 0 and 1 say so (`done`, `terminated`, `truncated`)
    and with the file. Columns called action make up `action`, other columns of numbers `observation.state`; texts and columns
    that bear the name of a feature or of a reward or an ending are features of their own. An even clock gives `fps`; `timestamp`
    (seconds since the start of the episode) is kept, and `meta["start"]` of an episode where its clock does not start at 0.

    Args:
        path: a file, or a folder of files with the same columns.
        time, episode: columns of the clock and of the episode of a row; guessed where not given, `none` where there is none.
        action_columns: columns that make up `action`.
        leave_out: columns that are not read.
        actions: what an action means, see `opening.open`.
        fps: steps per second where the table has no clock.
        nan_is_missing: mark empty and NaN cells in `valid.<feature>` instead of refusing them.

    Raises DataError for damaged files, gaps, clocks that run backwards, and files whose columns differ.
    """
    logs = [read_log(file, leave_out) for file in (files_in(path, SUFFIXES) if path.is_dir() else [path])]
    headers = read_headers(logs[0], time=time, episode=episode, actions=action_columns)
    for log in logs[1:]:
        check_same_columns(logs[0], log)
    ends: list[str] = []
    pieces = [piece for log in logs for piece in _pieces(log, headers, nan_is_missing, ends)]
    guessed = [*headers.guessed, *(ends if len(logs) == 1 else [])]
    if len(logs) > 1 and headers.episode is None:
        guessed.append(f"no column names an episode: {len(logs)} files hold {len(pieces)}, by where one ends or is said to.")
    action_names, state_names = logs[0].entries(headers.actions), logs[0].entries(headers.state)
    space, values = settle_actions([piece.values for piece in pieces], action_names, actions, guessed)
    guessed += constant_entries(values, state_names)
    clocks = [piece.clock for piece in pieces if piece.clock is not None]
    if clocks and fps is None:
        fps = rate(clocks)
        guessed.append(
            f"the clock gives {fps:g} steps per second." if fps else "the clock is uneven: timestamps are kept, fps is unknown."
        )
    elif fps is None:
        guessed.append(
            "no column is a clock: steps are counted and fps is unknown (fps=..., on the command line --fps, says it)."
        )
    made = from_arrays(
        [v if p.clock is None else {**v, "timestamp": p.clock} for v, p in zip(values, pieces, strict=True)],
        fps=fps,
        actions=space,
        meta={"guessed": guessed},
    )
    episodes = tuple(
        replace(e, source=p.source, tasks=p.tasks, domain=p.domain, meta=p.meta) for e, p in zip(made, pieces, strict=True)
    )
    return replace(made, episodes=episodes, features=name_entries(made.features, {ACTION: action_names, STATE: state_names}))


def check_same_columns(first: Log, other: Log) -> None:
    """Raise DataError where two tables do not have the same columns, of the same kind."""
    kinds = [
        {name: (values.dtype.kind in "OM", values.shape[1:]) for name, values in log.columns.items()} for log in (first, other)
    ]
    if differing := {name for name in kinds[0].keys() | kinds[1].keys() if kinds[0].get(name) != kinds[1].get(name)}:
        name = min(differing)
        seen = [
            "lacks it" if log_kinds.get(name) is None else f"has {'texts or dates' if log_kinds[name][0] else 'numbers'} there"
            for log_kinds in kinds
        ]
        if seen[0] == seen[1]:
            seen = [f"has {log_kinds[name][1]} numbers a row" for log_kinds in kinds]
        raise DataError(
            f"{first.path} and {other.path} differ in column {name!r} (the first {seen[0]}, the second {seen[1]}); "
            "files that are read together need the same columns; put them into folders of their own."
        )


def _pieces(log: Log, headers: Headers, nan_is_missing: bool, guessed: list[str]) -> Iterator[Piece]:
    seconds = seconds_of(log, headers)
    for key, rows in _told_apart(log, headers, guessed) if headers.episode is None else _named(log, headers.episode):
        values = episode_features(log, headers, rows, nan_is_missing=nan_is_missing)
        where = f"{log.path}" + ("" if key is None else f", episode {key}")
        if not values:
            raise DataError(f"{where} holds nothing but empty cells.")
        meta: dict[str, Any] = {} if key is None else {"episode": key}
        clock = None
        if seconds is not None:
            clock = seconds[rows]
            if (back := np.flatnonzero(np.diff(clock) < 0)).size:
                raise DataError(
                    f"{where}, {log.line(int(rows[back[0] + 1]))}: the clock {headers.time!r} runs backwards; "
                    "sort the rows, or name the column of the episodes (episode=..., on the command line --episode)."
                )
            if clock[0] != 0:
                meta["start"] = float(clock[0])
            clock = clock - clock[0]
        yield Piece(
            values,
            clock,
            str(log.path),
            log.texts(headers.task, rows),
            next(iter(log.texts(headers.domain, rows)), None),
            meta,
        )


def _told_apart(log: Log, headers: Headers, guessed: list[str]) -> Iterator[tuple[int | None, np.ndarray]]:
    """Rows of each episode where no column names it: cut where columns say that one ends; else all rows."""
    columns = {feature: log.columns[name] for name, feature in headers.named.items()}
    rows, ends = np.arange(len(log)), ends_told(columns, len(log), log.path, guessed)
    if ends is None:
        guessed.append(f"{log.path.name}: no column names an episode or says that one ends: the file is one.")
    if ends is None or len(ends) == 1:
        yield None, rows
    else:
        yield from enumerate(np.split(rows, ends[:-1] + 1))


def _named(log: Log, name: str) -> Iterator[tuple[str | int, np.ndarray]]:
    """Rows of each episode that a column names, in order of first appearance; rows of several episodes may be mixed."""
    column = log.columns[name]
    empty = np.array([value is None for value in column]) if column.dtype == object else np.isnan(column.astype(float))
    if empty.any():
        raise DataError(f"{log.path}, {log.line(int(empty.argmax()))}: {name!r} is empty; each row needs its episode.")
    keys, first, which = np.unique(column, return_index=True, return_inverse=True)
    order = np.argsort(which, kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(which))[:-1])
    for i in np.argsort(first):
        yield keys[i] if isinstance(keys[i], str) else keys[i].item(), groups[i]
