"""From the columns of a table to the features of an episode: gaps, clocks, and what the actions are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.actions import ActionSpace, Box, Discrete
from retrodict.trajectories.features import ACTION, STATE, VALID, Feature
from retrodict.trajectories.stores.gaps import MARKING, hold, marked
from retrodict.trajectories.stores.headers import Headers
from retrodict.trajectories.stores.logs import Log
from retrodict.trajectories.stores.stating import RANGE_UNKNOWN, Stated, stated_space

CHOICES = 64
"""Whole numbers from 0 to below this, in one column called action, are taken for choices."""


def seconds_of(log: Log, headers: Headers) -> np.ndarray | None:
    """The clock of all rows in seconds, (T,) float64, or in its own unit where that is unknown; None where the table has none.

    Raises DataError where a cell of it is empty.
    """
    if headers.time is None:
        return None
    raw = log.columns[headers.time]
    empty = np.isnat(raw) if raw.dtype.kind == "M" else ~np.isfinite(raw.astype(float))
    if empty.any():
        raise DataError(
            f"{log.path}, {log.line(int(empty.argmax()))}: the clock {headers.time!r} has no value; each row needs one."
        )
    if raw.dtype.kind == "M":
        return np.asarray((raw - raw[0]).astype("timedelta64[ns]").astype(np.int64) * 1e-9)
    return raw.astype(np.float64) * (1.0 if headers.seconds is None else headers.seconds)


def episode_features(log: Log, headers: Headers, rows: np.ndarray, *, nan_is_missing: bool) -> dict[str, np.ndarray]:
    """The features that rows of a table make: `action` (T, n) float32, `observation.state` (T, n), named ones (T, *shape).

    A feature that is empty in all these rows is absent. Where single rows have gaps, `valid.<feature>` (T,) is False there and
    the values are filled with the last ones seen.

    Raises DataError at the first gap, naming its line and column, unless `nan_is_missing`; and for infinite values.
    """
    features: dict[str, np.ndarray] = {}
    groups = {ACTION: headers.actions, STATE: headers.state, **{feature: (name,) for name, feature in headers.named.items()}}
    for feature, names in groups.items():
        if any(log.columns[name].dtype.kind in "OM" for name in names):
            features |= _texts(log, feature, names, rows, nan_is_missing)
        elif names:
            values = _joined([log.columns[name] for name in names], rows, alone=feature not in (ACTION, STATE))
            features |= _filled(log, feature, names, rows, values, nan_is_missing)
    return features


def _texts(log: Log, feature: str, names: Sequence[str], rows: np.ndarray, nan_is_missing: bool) -> dict[str, np.ndarray]:
    if len(names) > 1:
        raise DataError(f"{log.path}: {feature!r} would mix texts and numbers ({', '.join(names)}); keep one kind.")
    values = log.columns[names[0]][rows]
    missing = np.array([value is None for value in values])
    if missing.all():
        return {}
    texts = np.array(["" if value is None else str(value) for value in values], dtype=object)
    if feature != ACTION or not missing.any():  # elsewhere an empty cell is an empty text
        return {feature: texts}
    if not nan_is_missing:
        raise DataError(_gap(log, rows[missing.argmax()], names[0]))
    return {feature: hold(texts[:, None], missing[:, None])[:, 0], VALID + feature: ~missing}


def _gap(log: Log, row: int, column: str) -> str:
    where = f"{log.path}, {log.line(int(row))}"
    return f"{where}: {column!r} is empty or NaN; mend it, or {MARKING}."


def _joined(columns: Sequence[np.ndarray], rows: np.ndarray, *, alone: bool) -> np.ndarray:
    if alone:
        return np.asarray(columns[0][rows])
    dtype = np.result_type(np.float32, *columns)
    return np.concatenate([column[rows].reshape(len(rows), -1).astype(dtype) for column in columns], 1)


def _filled(
    log: Log, feature: str, names: Sequence[str], rows: np.ndarray, values: np.ndarray, nan_is_missing: bool
) -> dict[str, np.ndarray]:
    values = values.astype(np.float32) if feature == ACTION else values
    if values.dtype.kind != "f":
        return {feature: values}
    flat, entries = values.reshape(len(rows), -1), log.entries(names)
    missing = np.isnan(flat)
    if (bad := np.isinf(flat)).any():
        row, entry = np.argwhere(bad)[0]
        raise DataError(f"{log.path}, {log.line(int(rows[row]))}: {entries[entry]!r} is infinite; finite numbers are expected.")
    if missing.any() and not missing.all() and not nan_is_missing:
        row, entry = np.argwhere(missing)[0]
        raise DataError(_gap(log, rows[row], entries[entry]))
    return marked(feature, values, str(log.path), entries)


def rate(clocks: Iterable[np.ndarray]) -> float | None:
    """Steps per second of clocks (T,) in seconds, None where they are not evenly spaced to a tenth of a step throughout."""
    clocks = [clock for clock in clocks if len(clock) > 1]
    if not clocks:
        return None
    step = sum(clock[-1] - clock[0] for clock in clocks) / sum(len(clock) - 1 for clock in clocks)
    if step <= 0 or any(np.abs(clock - clock[0] - step * np.arange(len(clock))).max() > 0.1 * step for clock in clocks):
        return None
    return float(f"{1 / step:.6g}")


def settle_actions(
    episodes: Sequence[dict[str, np.ndarray]], names: Sequence[str], stated: Stated | None, guessed: list[str]
) -> tuple[ActionSpace | None, list[dict[str, np.ndarray]]]:
    """What the `action` arrays of all episodes mean, and the episodes with actions in its flat encoding.

    Where it is not stated, texts become choices in alphabetical order; whole numbers from 0 in one column are choices; anything
    else is continuous. `names` go with the numbers of an action; what was guessed is added to `guessed`.

    Raises DataError where episodes have actions of different widths or kinds, or others than stated.
    """
    given = [episode[ACTION] for episode in episodes if ACTION in episode]
    if not given:
        return None, list(episodes)
    if len(kinds := {(array.dtype == object, array.shape[1:]) for array in given}) > 1:
        raise DataError(f"actions differ between episodes ({', '.join(map(str, sorted(kinds)))}); one action space is expected.")
    if given[0].dtype == object:
        return _choices_by_name(episodes, names[0], stated, guessed)
    continuous = ActionSpace({ACTION: Box(tuple(names))})
    if stated is not None:
        return stated_space(stated, continuous), list(episodes)
    highest = max(float(array.max()) for array in given)
    if len(names) == 1 and 1 <= highest < CHOICES and all(map(_are_choices, given)):
        guessed.append(f"{names[0]!r} holds whole numbers from 0 to {highest:g}: taken for choices.")
        return ActionSpace({names[0]: Discrete(tuple(map(str, range(int(highest) + 1))))}), list(episodes)
    guessed.append(f"an action is taken for continuous, and {RANGE_UNKNOWN}.")
    return continuous, list(episodes)


def _choices_by_name(
    episodes: Sequence[dict[str, np.ndarray]], name: str, stated: Stated | None, guessed: list[str]
) -> tuple[ActionSpace, list[dict[str, np.ndarray]]]:
    """The same for actions that are texts."""
    texts = sorted({text for episode in episodes if ACTION in episode for text in episode[ACTION]})
    space = stated_space(stated, ActionSpace({name: Discrete(tuple(texts))}))
    part = next(iter(space.parts.values()))
    if not isinstance(part, Discrete):
        raise DataError(f"the actions in {name!r} are texts ({', '.join(texts)}), and a {part.kind} is stated; state a Discrete.")
    if unknown := [text for text in texts if text not in part.names]:
        raise DataError(f"{name!r} holds {unknown[0]!r}, which is none of the stated choices {', '.join(part.names)}.")
    if stated is None:
        guessed.append(f"the texts of {name!r} are choices: {', '.join(texts)}.")
    index = {text: i for i, text in enumerate(part.names)}
    return space, [
        {**e, ACTION: np.array([[index[text]] for text in e[ACTION]], np.float32)} if ACTION in e else e for e in episodes
    ]


def _are_choices(values: np.ndarray) -> bool:
    return bool((values >= 0).all() and (values == np.rint(values)).all())


def name_entries(features: Mapping[str, Feature], entries: Mapping[str, Sequence[str]]) -> dict[str, Feature]:
    """The features with names for their entries where there is one for each."""
    return {
        name: Feature(feature.dtype, feature.shape, list(entries[name]), feature.info)
        if name in entries and feature.shape == (len(entries[name]),)
        else feature
        for name, feature in features.items()
    }


def constant_entries(episodes: Sequence[Mapping[str, np.ndarray]], names: Sequence[str]) -> list[str]:
    """A sentence on the entries of `observation.state` that never change: kept, but no system can learn from them."""
    states = [episode[STATE] for episode in episodes if STATE in episode]
    if not states or states[0].ndim != 2 or len(names) != states[0].shape[1]:
        return []
    still = np.all([(state == states[0][0]).all(0) for state in states], axis=0)
    constant = [repr(name) for name, stays in zip(names, still, strict=True) if stays]
    return [f"{', '.join(constant)} {'is' if len(constant) == 1 else 'are'} constant and kept."] if constant else []
