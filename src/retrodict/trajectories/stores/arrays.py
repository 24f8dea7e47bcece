"""Time series in NumPy files: one array (`.npy`), or several by name (`.npz`)."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.features import ACTION, STATE
from retrodict.trajectories.recordings import Recordings, from_arrays
from retrodict.trajectories.stores import d4rl
from retrodict.trajectories.stores.checks import check_finite
from retrodict.trajectories.stores.endings import ends_told
from retrodict.trajectories.stores.gaps import marked
from retrodict.trajectories.stores.headers import ACTION as ACTION_HEADER
from retrodict.trajectories.stores.headers import EPISODE, NAMED, PREFIXES, clock_unit
from retrodict.trajectories.stores.series import constant_entries, rate, settle_actions
from retrodict.trajectories.stores.stating import Stated

KIND = "an array of time series (.npy with (T,), (T, N) or (E, T, N); .npz)"
SUFFIXES = (".npy", ".npz")


def recognises(path: Path) -> bool:
    """True for a NumPy file."""
    return path.is_file() and path.suffix.lower() in SUFFIXES


@dataclass(frozen=True)
class Options:
    """What the user says of the arrays; see `read`."""

    fps: float | None
    nan_is_missing: bool
    actions: Stated | None


def read(
    path: Path,
    *,
    fps: float | None = None,
    leave_out: Sequence[str] = (),
    nan_is_missing: bool = False,
    actions: Stated | None = None,
) -> Recordings:
    """Recordings over the arrays of a NumPy file.

    `.npy`: (T,), (T, N) or (E, T, N) numbers become `observation.state` of one or E episodes, memory-mapped.
    `.npz`: arrays of one length whose names tell what they are (`action`, `state`, `reward`, `time`, a feature's name) are the
    features of one episode, cut where an array names the episode of each row, or else where one says that an episode ends
    (`terminals`, `timeouts`, `done`); other names make `observation.<name>`. D4RL's arrays are read as they are in HDF5. Arrays
    (E, T, ...) of E episodes each are E episodes. Where no name tells anything, each array (T, N) of the commonest width is an
    episode, and arrays of other widths stand in `structures`.

    Args:
        path: the file.
        fps: steps per second; a file holds none unless it has a clock.
        leave_out: arrays of an `.npz` that are not read.
        nan_is_missing: mark NaN in `valid.<feature>` instead of refusing it; what is NaN throughout an episode is absent.
        actions: what an action means, see `opening.open`.

    Raises DataError for damaged files, pickled objects, arrays of other shapes, gaps and infinite values.
    """
    try:
        loaded = np.load(path, mmap_mode="r" if path.suffix.lower() == ".npy" else None, allow_pickle=False)
        arrays = {STATE: loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} cannot be read as {path.suffix[1:].upper()}: {' '.join(str(error).split()).rstrip('.')}."
        ) from None
    if unknown := [name for name in leave_out if name not in arrays or isinstance(loaded, np.ndarray)]:
        raise DataError(f"{path} has no array {unknown[0]!r} to leave out; it has {', '.join(arrays)}.")
    arrays = {name: array for name, array in arrays.items() if name not in leave_out}
    if not arrays:
        raise DataError(f"{path} holds no arrays; at least one is expected.")
    for name, array in arrays.items():
        if array.dtype.kind not in "biufU":
            raise DataError(f"{path}: {name!r} holds {array.dtype}; numbers or texts are expected.")
    options = Options(fps, nan_is_missing, actions)
    if isinstance(loaded, np.ndarray):
        return _from_one(path, loaded, options)
    return _from_several(path, arrays, options)


def _from_one(path: Path, array: np.ndarray, options: Options) -> Recordings:
    if array.ndim not in (1, 2, 3) or array.size == 0 or array.dtype.kind == "U":
        raise DataError(f"{path} holds {array.dtype} of shape {array.shape}; numbers (T,), (T, N) or (E, T, N) are expected.")
    series = list(array) if array.ndim == 3 else [array[:, None] if array.ndim == 1 else array]
    guessed = [f"{path.name}: {array.shape} is read as {'(E, T, N)' if array.ndim == 3 else '(T, N)'[: 3 * array.ndim]}."]
    return _assemble(path, [{STATE: values} for values in series], [], options, guessed)


def _from_several(path: Path, arrays: Mapping[str, np.ndarray], options: Options) -> Recordings:
    guessed: list[str] = []
    arrays, cuts = _end_to_end(path, arrays, guessed)
    if cuts is None and _is_d4rl(arrays):
        texts = {name: array.astype(object) if array.dtype.kind == "U" else array for name, array in arrays.items()}
        return d4rl.read(texts, path, about={}, infos=True, **vars(options))
    clocks = {
        name: unit
        for name, array in arrays.items()
        if array.ndim == 1 and array.dtype.kind in "iuf" and len(array) and (unit := clock_unit(name, array)) is not None
    }
    told = [name for name in arrays if _feature(name) or name in clocks or name.lower() in EPISODE]
    if not told:
        return _clips(path, arrays, options)
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise DataError(f"{path}: arrays need one common length above 0 (one row a step), got {lengths}.")
    values: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        if name.lower() in EPISODE and array.ndim == 1:
            cuts = array
            guessed.append(f"{path.name}: {name!r} is taken for the episode of a row.")
        else:
            feature = "timestamp" if name in clocks else _feature(name) or f"observation.{name}"
            if feature in values:
                raise DataError(f"{path}: two arrays mean {feature!r}, {name!r} among them; keep one of them.")
            values[feature] = array.astype(object) if array.dtype.kind == "U" else array
            if name in clocks:
                values[feature] = array.astype(np.float64) * clocks[name]
                guessed.append(f"{path.name}: {name!r} is taken for the clock, in units of {clocks[name]:g} s.")
            elif feature != name:
                guessed.append(f"{path.name}: {name!r} is taken for {feature!r}, by its name.")
    if ACTION in values:
        action = values[ACTION]
        values[ACTION] = action if action.dtype == object else action.reshape(len(action), -1).astype(np.float32)
    whole = np.arange(next(iter(lengths.values())))
    if cuts is None and (ends := ends_told(values, len(whole), path, guessed)) is not None:
        cuts = np.searchsorted(ends, whole)
    rows = [whole] if cuts is None else [np.flatnonzero(cuts == key) for key in dict.fromkeys(cuts.tolist())]
    episodes = [{name: array[where] for name, array in values.items()} for where in rows]
    for episode in episodes:
        if "timestamp" in episode:
            clock = np.asarray(episode["timestamp"], np.float64)
            if (np.diff(clock) < 0).any():
                raise DataError(
                    f"{path}: its clock runs backwards at row {int((np.diff(clock) < 0).argmax()) + 1}; sort the rows."
                )
            episode["timestamp"] = clock - clock[0]
    return _assemble(path, episodes, [], options, guessed)


def _is_d4rl(arrays: Mapping[str, np.ndarray]) -> bool:
    """True where all arrays are such as D4RL's files have, and some say where episodes end."""
    heads = {name.partition("/")[0] for name in arrays}
    return d4rl.recognises(arrays) and heads <= {*d4rl.GROUPS, d4rl.METADATA} and bool(heads & {*d4rl.FLAGS.values()})


def _end_to_end(
    path: Path, arrays: Mapping[str, np.ndarray], guessed: list[str]
) -> tuple[Mapping[str, np.ndarray], np.ndarray | None]:
    """Arrays (E, T, ...) of E episodes laid end to end, and the episode of each row; others as they are, and None.

    Raises DataError where the actions are (E, T, N) and something else is not.
    """
    named = {_feature(name): name for name in arrays}
    deep = [named[f] for f in (ACTION, STATE) if f in named and arrays[named[f]].ndim == 3 and arrays[named[f]].dtype.kind == "f"]
    if not deep:
        return arrays, None
    name = deep[0]
    episodes, steps = arrays[name].shape[:2]
    others = [other for other, array in arrays.items() if array.shape[:2] != (episodes, steps)]
    if others and name == named.get(ACTION):
        raise DataError(
            f"{path}: {name!r} {arrays[name].shape} is (E, T, N), {episodes} episodes of {steps} steps, and {others[0]!r} has "
            f"the shape {arrays[others[0]].shape}; give every array as (E, T, ...), or all end to end beside one called episode."
        )
    if others or not arrays[name].size:
        return arrays, None
    guessed.append(f"{path.name}: {name!r} {arrays[name].shape} is read as (E, T, N), {episodes} episodes of {steps} steps.")
    flat = {name: array.reshape(episodes * steps, *array.shape[2:]) for name, array in arrays.items()}
    return flat, np.repeat(np.arange(episodes), steps)


def _clips(path: Path, arrays: Mapping[str, np.ndarray], options: Options) -> Recordings:
    """Each array an episode: the commonest width is that of the clips, the rest is kept as structures."""
    widths = [array.shape[1] for array in arrays.values() if array.ndim == 2 and array.dtype.kind == "f" and len(array)]
    if not widths:
        shapes = {name: array.shape for name, array in arrays.items()}
        raise DataError(
            f"{path}: no array is a time series (T, N) of floating-point numbers, got {shapes}; arrays "
            "called state, action, reward, ... may also be (E, T, N)."
        )
    width = max(set(widths), key=lambda w: (widths.count(w), w))
    clips = {name: a for name, a in arrays.items() if a.ndim == 2 and a.dtype.kind == "f" and a.shape[1] == width and len(a)}
    rest = {name: array.tolist() for name, array in arrays.items() if name not in clips}
    guessed = [f"{path.name}: each of {len(clips)} arrays with {width} columns is read as an episode."]
    guessed += [f"{path.name}: {name!r} {arrays[name].shape} is kept under structures." for name in rest]
    return _assemble(path, [{STATE: clip} for clip in clips.values()], list(clips), options, guessed, structures=rest)


def _assemble(
    path: Path,
    episodes: list[dict[str, np.ndarray]],
    names: list[str],
    options: Options,
    guessed: list[str],
    **about: Any,
) -> Recordings:
    for i, episode in enumerate(episodes):
        for name in list(episode):
            where = f"{path}: {name!r} of episode {names[i] if names else i}"
            if check_finite(episode[name], where, nan_is_missing=None if name == "timestamp" else options.nan_is_missing):
                episode |= marked(name, episode.pop(name), f"{path}, episode {names[i] if names else i}")
    width = next((episode[ACTION].shape[1:] for episode in episodes if ACTION in episode), None)
    entries = [] if width is None else ["action"] if width in ((), (1,)) else [f"action_{i}" for i in range(width[0])]
    space, episodes = settle_actions(episodes, entries, options.actions, guessed)
    if STATE in episodes[0] and episodes[0][STATE].ndim == 2:
        guessed += constant_entries(episodes, [f"entry {i} of observation.state" for i in range(episodes[0][STATE].shape[1])])
    clocks = [episode["timestamp"] for episode in episodes if "timestamp" in episode]
    fps = rate(clocks) if options.fps is None else options.fps
    if fps is None:
        guessed.append("no even clock: steps are counted and fps is unknown (fps=..., on the command line --fps, says it).")
    made = from_arrays(episodes, fps=fps, actions=space, source=str(path), meta={"guessed": guessed}, **about)
    if not names:
        return made
    return replace(made, episodes=tuple(replace(e, meta={"clip": clip}) for e, clip in zip(made, names, strict=True)))


def _feature(name: str) -> str | None:
    if ACTION_HEADER.fullmatch(name):
        return ACTION
    return name if name.startswith(PREFIXES) else NAMED.get(name.lower())
