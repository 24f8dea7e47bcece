"""A folder of videos, each an episode, with or without logs of what was done: beside each video, or one for all."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.actions import ActionSpace
from retrodict.trajectories.columns import ArrayColumn, Slice
from retrodict.trajectories.episodes import Episode
from retrodict.trajectories.features import ACTION, BOOKKEEPING, IMAGES, STATE, VALID, Feature
from retrodict.trajectories.frames import Clip, VideoColumn
from retrodict.trajectories.recordings import Recordings, describe
from retrodict.trajectories.stores import logs
from retrodict.trajectories.stores.alignment import Film, Match, match, unit_by_length, video_clock
from retrodict.trajectories.stores.headers import Headers, read_headers
from retrodict.trajectories.stores.logs import Log, read_log
from retrodict.trajectories.stores.series import episode_features, name_entries, rate, settle_actions
from retrodict.trajectories.stores.stating import Stated
from retrodict.trajectories.stores.tables import check_same_columns
from retrodict.trajectories.video import VideoInfo, count_frames, frame_times, probe

KIND = "a video, or a folder of videos with or without logs (CSV, TSV, JSONL, Parquet) of their actions"
SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v")
CAMERA = IMAGES + "main"


@dataclass(frozen=True)
class Share:
    """The rows of a log that belong to one video."""

    log: Log
    headers: Headers
    rows: np.ndarray


def recognises(path: Path) -> bool:
    """True for a video file, and for a folder that holds some."""
    return bool(_videos(path))


def read(
    path: Path,
    *,
    time: str | None = None,
    action_columns: Sequence[str] | None = None,
    leave_out: Sequence[str] = (),
    actions: Stated | None = None,
    nan_is_missing: bool = False,
) -> Recordings:
    """Recordings of which each video is an episode; one without a log has no `action`.

    A log is a table with the video's name (`clip.csv` beside `clip.mp4`), or one table for all with a column that names the video
    or counts it. Its rows go to the frames they name, else to the frames shown at or after their time, else one by one. The unit
    of a clock stands in its name (`time_ms`), or else is the one in which the logs are about as long as their videos. A frame
    before the first row or long after the last has none: `valid.<feature>` is False there. Videos whose frames are not evenly
    spaced keep their clock as `timestamp`, and the recordings have no fps.

    Args:
        path: a video or a folder.
        time: column of the logs that is their clock; guessed where not given, `none` where there is none.
        action_columns: columns that make up `action`; those called action, or else all numbers, where not given.
        leave_out: columns of the logs that are not read.
        actions: what an action means, see `opening.open`.
        nan_is_missing: mark empty cells of the logs in `valid.<feature>` instead of refusing them.

    Raises DataError for damaged or empty videos, videos of unequal size or frame rate, and logs that do not fit their videos or
    whose clock may be in several units, or in none.
    """
    videos = _videos(path)
    first, films = _probe(videos)
    guessed: list[str] = []
    shares = _timed(dict(_shares(path, videos, time, action_columns, leave_out, guessed)), films, guessed)
    values: list[dict[str, np.ndarray]] = []
    matches: dict[Path, Match] = {}
    from_start = _is_running(shares, films)
    for video, film in zip(videos, films, strict=True):
        share = shares.get(video)
        if share is None:
            values.append({})
            continue
        found = match(share.log, share.headers, share.rows, film, from_start=from_start)
        matches[video] = found
        values.append(_matched(episode_features(share.log, share.headers, share.rows, nan_is_missing=nan_is_missing), found))
    guessed += _on_matches(matches, shares, from_start)
    entries: dict[str, tuple[str, ...]] = {}
    if shares:
        share = next(iter(shares.values()))
        guessed[:0] = share.headers.guessed
        entries = {ACTION: share.log.entries(share.headers.actions), STATE: share.log.entries(share.headers.state)}
    space: ActionSpace | None
    space, values = settle_actions(values, entries.get(ACTION, ()), actions, guessed)
    if uneven := [film.name for film in films if film.uneven is not None]:
        guessed.append(
            f"{len(uneven)} of {len(videos)} videos show their frames at uneven intervals ({uneven[0]} is the first); every "
            "episode has its own clock, and steps per second are unknown."
        )
    lacking = [video.name for video in videos if video not in shares]
    if lacking:
        guessed.append(f"{len(lacking)} of {len(videos)} videos have no log and so no actions ({lacking[0]} is the first).")
    return _assemble(videos, first, films, values, shares, space, entries, guessed)


def _videos(path: Path) -> list[Path]:
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file() and not file.name.startswith(".")]
    return sorted((file for file in files if file.suffix.lower() in SUFFIXES), key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    """`clip2` before `clip10`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name) if part]


def _probe(videos: Sequence[Path]) -> tuple[VideoInfo, list[Film]]:
    infos = {video: probe(video) for video in videos}
    first = infos[videos[0]]
    films = []
    for video, info in infos.items():
        if (info.height, info.width) != (first.height, first.width):
            raise DataError(
                f"{videos[0]} is {first.width}x{first.height} and {video} {info.width}x{info.height}; "
                "scale one of them, or put them into folders of their own."
            )
        if (frames := count_frames(video)) == 0:
            raise DataError(f"{video} holds no frames; at least one is expected.")
        clock = frame_times(video)
        if clock is not None and frames > 1 and rate([clock]) is None:
            films.append(Film(str(video), frames, (frames - 1) / float(clock[-1]), clock))
        elif info.fps > 0:
            films.append(Film(str(video), frames, info.fps))
        else:
            raise DataError(f"{video} does not say how many frames a second it has; re-encode it.")
    if all(film.uneven is None for film in films):
        for film in films:
            if abs(film.fps - first.fps) > 1e-3 * first.fps:
                raise DataError(
                    f"{videos[0]} has {first.fps:g} frames per second and {film.name} {film.fps:g}; "
                    "re-encode one of them, or put them into folders of their own."
                )
    return first, films


def _shares(
    path: Path,
    videos: Sequence[Path],
    time: str | None,
    actions: Sequence[str] | None,
    leave_out: Sequence[str],
    guessed: list[str],
) -> Iterator[tuple[Path, Share]]:
    """The rows of logs for each video that has some."""
    folder = path.parent if path.is_file() else path
    tables = sorted(f for f in folder.iterdir() if f.suffix.lower() in logs.SUFFIXES and not f.name.startswith("."))
    by_stem: dict[str, list[Path]] = {}
    for table in tables:
        by_stem.setdefault(table.stem, []).append(table)
    common = [] if path.is_file() else [t for t in tables if t.stem not in {video.stem for video in videos}]
    if len(common) > 1:
        raise DataError(
            f"{common[0]} and {common[1]} bear no video's name; one log for all videos, or one beside each, is expected."
        )
    first: Log | None = None
    headers: Headers | None = None
    for video in videos:
        mine = by_stem.get(video.stem, [])
        if len(mine) > 1 or (mine and common):
            raise DataError(f"{video} has two logs, {mine[0]} and {[*mine, *common][1]}; keep one of them.")
        if mine:
            log = read_log(mine[0], leave_out)
            if first is None or headers is None:
                first, headers = log, read_headers(log, time=time, episode="none", actions=actions, of_video=True)
            else:
                check_same_columns(first, log)
            yield video, Share(log, headers, np.arange(len(log)))
    if common:
        log = read_log(common[0], leave_out)
        yield from _split(log, read_headers(log, time=time, actions=actions, of_video=True), videos, guessed)


def _split(log: Log, headers: Headers, videos: Sequence[Path], guessed: list[str]) -> Iterator[tuple[Path, Share]]:
    key = headers.video or headers.episode
    if key is None:
        raise DataError(
            f"{log.path} bears no video's name and has no column that names videos; add a column called video, "
            "or name the log like its video."
        )
    column = log.columns[key]
    for value in dict.fromkeys(column.tolist()):
        yield _named_video(log, key, value, videos, guessed), Share(log, headers, np.flatnonzero(column == value))


def _named_video(log: Log, key: str, value: object, videos: Sequence[Path], guessed: list[str]) -> Path:
    name = Path(str(value)).name
    for video in videos:
        if name in (video.name, video.stem):
            return video
    if isinstance(value, int):
        numbered = [video for video in videos if (digits := re.findall(r"\d+", video.stem)) and int(digits[-1]) == value]
        if len(numbered) == 1:
            return numbered[0]
        if not numbered and 0 <= value < len(videos):
            guessed.append(f"{log.path.name}: {key!r} {value} is taken for the video at that place, {videos[value].name}.")
            return videos[value]
    raise DataError(f"{log.path}: {key!r} names {value!r}, which is none of the {len(videos)} videos ({videos[0].name}, ...).")


def _timed(shares: Mapping[Path, Share], films: Sequence[Film], guessed: list[str]) -> Mapping[Path, Share]:
    """The shares with the unit of their clock, which the length of the videos tells where it does not say it itself."""
    first = next(iter(shares.values()), None)
    if first is None or first.headers.seconds is not None or first.headers.frame is not None:
        return shares
    clocks = {str(v): clock for v, s in shares.items() if (clock := video_clock(s.log, s.headers, s.rows)) is not None}
    logged = [film for film in films if film.name in clocks]
    name = first.headers.time
    unit = unit_by_length(f"{first.log.path}: the clock {name!r}", [clocks[film.name] for film in logged], logged)
    guessed.append(f"logs: {name!r} is in units of {unit:g} s, by the length of the videos.")
    return {video: replace(share, headers=replace(share.headers, seconds=unit)) for video, share in shares.items()}


def _is_running(shares: Mapping[Path, Share], films: Sequence[Film]) -> bool:
    """True where the clock of the logs was not started with each video: it holds dates, or starts after the end of one."""
    by_name = {film.name: film for film in films}
    for video, share in shares.items():
        film = by_name[str(video)]
        if share.headers.frame is None and (times := video_clock(share.log, share.headers, share.rows)) is not None:
            if share.headers.time is not None and share.log.columns[share.headers.time].dtype.kind == "M":
                return True
            if times[0] >= film.seconds:
                return True
    return False


def _matched(values: Mapping[str, np.ndarray], found: Match) -> dict[str, np.ndarray]:
    matched = {name: array[found.rows] for name, array in values.items()}
    if not found.known.all():
        for name in [name for name in matched if not name.startswith(VALID)]:
            matched[VALID + name] = matched.get(VALID + name, True) & found.known
    return matched


def _on_matches(matches: Mapping[Path, Match], shares: Mapping[Path, Share], from_start: bool) -> list[str]:
    if not matches:
        return []
    means = next(iter(matches.values())).means
    said = {
        "frame": "rows go to the frames they name",
        "time": "rows go to frames by time (the last row at or before a frame)"
        + (", their first row to the first frame" if from_start else ""),
        "order": "rows go to frames one by one, there being as many",
    }
    sentences = [f"logs: {said[means]}."]
    worst = max(matches, key=lambda video: matches[video].mismatch)
    if matches[worst].mismatch > 0:
        sentences.append(f"logs: a row is older than its frame by at most {matches[worst].mismatch:.3g} s ({worst.name}).")
    passed_over = {video: len(shares[video].rows) - len(np.unique(found.rows)) for video, found in matches.items()}
    if total := sum(passed_over.values()):
        sentences.append(f"logs: {total} rows lie between or beyond frames and are passed over.")
    bare = {video.name: int((~found.known).sum()) for video, found in matches.items() if not found.known.all()}
    if bare:
        sentences.append(
            f"logs: {sum(bare.values())} frames come before the first row or long after the last and are marked in valid.* "
            f"({next(iter(bare))})."
        )
    return sentences


def _assemble(
    videos: Sequence[Path],
    info: VideoInfo,
    films: Sequence[Film],
    values: Sequence[dict[str, np.ndarray]],
    shares: Mapping[Path, Share],
    space: ActionSpace | None,
    entries: Mapping[str, Sequence[str]],
    guessed: list[str],
) -> Recordings:
    column = VideoColumn(
        [Clip(video, 0, film.frames) for video, film in zip(videos, films, strict=True)], info.height, info.width
    )
    starts = np.cumsum([0, *(film.frames for film in films)])
    uneven = any(film.uneven is not None for film in films)
    episodes = []
    for i, (video, film, arrays) in enumerate(zip(videos, films, values, strict=True)):
        if uneven:
            arrays = {**arrays, "timestamp": film.times}
        slices = {CAMERA: Slice(column, int(starts[i])), **{name: Slice(ArrayColumn(array)) for name, array in arrays.items()}}
        share = shares.get(video)
        tasks = share.log.texts(share.headers.task, share.rows) if share else ()
        domains = share.log.texts(share.headers.domain, share.rows) if share else ()
        episodes.append(Episode(i, film.frames, slices, tasks, domains[0] if domains else None, str(video)))
    names = dict.fromkeys(name for arrays in values for name in arrays if name not in BOOKKEEPING)
    features = {CAMERA: Feature("video", (info.height, info.width, 3), ["height", "width", "channels"])}
    features |= name_entries(
        {name: describe(name, {i: a[name] for i, a in enumerate(values) if name in a}) for name in names}, entries
    )
    return Recordings(features, tuple(episodes), fps=None if uneven else info.fps, actions=space, meta={"guessed": guessed})
