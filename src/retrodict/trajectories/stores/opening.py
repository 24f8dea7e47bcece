"""The door to all stores: asks each whether it knows a path, and has the first that does read it.

A store module has `KIND` (what it opens, in words), `recognises(path) -> bool` (cheap: names and headers only) and
`read(path, **options) -> Recordings`. What a reader had to guess stands in `Recordings.meta["guessed"]`, a list of sentences.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from retrodict.errors import DataError
from retrodict.trajectories.stores.stating import check_stated

if TYPE_CHECKING:
    from retrodict.trajectories.recordings import Recordings

STORES = ("lerobot", "minari", "hdf5", "videos", "tables", "arrays")
"""Store modules by name, in the order in which they are asked: a folder with a manifest goes before a folder of loose files."""

GUESSED = "guessed"
ORIGIN = "origin"
SHOWN = 8


def open(path: str | Path, **options: Any) -> Recordings:
    """Recordings in whatever kind of file or folder this is; `options` go to the store that reads it.

    `meta["guessed"]` says what the reader had to guess, `meta["origin"]` where the recordings were first read from.

    Args:
        path: file or folder.
        options: what the reader of such files takes (`fps`, `time`, `nan_is_missing`, ...). All take `actions`, what an action
            means: an `ActionSpace`, a space of Gymnasium, or the range of continuous actions, `(low, high)` for all their numbers
            or `(low, high, low, high, ...)` for each in turn. What it leaves unsaid is as the file says, or unknown.

    Raises DataError when nothing is there, no store knows it, an option does not exist, the data are damaged, or an action is not
    of the space that is stated.
    """
    path = Path(path)
    name, store = _store_of(path)
    accepted = tuple(inspect.signature(store.read).parameters)[1:]
    if unknown := options.keys() - set(accepted):
        raise DataError(
            f"{path} is {store.KIND}, whose reader has no option {sorted(unknown)[0]!r}; it has {', '.join(accepted)}."
        )
    recordings = store.read(path, **options)
    if options.get("actions") is not None:
        check_stated(recordings)
    return _with_origin(recordings, path, name)


def kind_of(path: str | Path) -> str:
    """What kind of file or folder this is, by the name of the store that reads it.

    Raises DataError when nothing is there, or no store knows it.
    """
    return _store_of(Path(path))[0]


def _store_of(path: Path) -> tuple[str, ModuleType]:
    if not path.exists():
        raise DataError(f"{path} does not exist.")
    for name, store in _stores():
        if store.recognises(path):
            return name, store
    if path.is_dir() and (known := [entry for entry in sorted(path.iterdir()) if _is_known_file(entry)]):
        raise DataError(_not_together(path, known))
    raise DataError(
        f"{path} is not known here ({_seen(path)}); can be opened: {'; '.join(store.KIND for _, store in _stores())}."
    )


def _stores() -> Iterator[tuple[str, ModuleType]]:
    # Imported when asked: a store may need a slow package, and stores import recordings, which import stores to save.
    return ((name, importlib.import_module(f"{__package__}.{name}")) for name in STORES)


def _with_origin(recordings: Recordings, path: Path, kind: str) -> Recordings:
    guessed = list(recordings.meta.get(GUESSED, ()))
    origin = recordings.meta.get(ORIGIN) or {"path": str(path), "format": kind, "guessed": guessed}
    return replace(recordings, meta={**recordings.meta, GUESSED: guessed, ORIGIN: origin})


def _is_known_file(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and any(store.recognises(path) for _, store in _stores())


def _not_together(path: Path, known: list[Path]) -> str:
    """Why a folder is not read although files in it can be."""
    from retrodict.trajectories.stores.logs import SUFFIXES as TABLES
    from retrodict.trajectories.stores.tables import BESIDE as NOTES

    tables = [file for file in known if file.suffix.lower() in TABLES]
    others = [entry.name + "/" * entry.is_dir() for entry in sorted(path.iterdir()) if entry not in tables]
    others = [name for name in others if not name.startswith(".") and not name.lower().endswith(NOTES)]
    if not tables:
        return f"{path} holds {known[0].name}, and such files are not read together; name one of them."
    more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
    return (
        f"{path} holds tables ({tables[0].name}) and beside them {', '.join(others[:SHOWN])}{more}; they are read together "
        f"where nothing but notes ({', '.join(NOTES)}) stands beside them: move it, or name one table."
    )


def _seen(path: Path) -> str:
    if path.is_file():
        return f"a file of {path.stat().st_size} bytes that ends in {path.suffix or 'no suffix'}"
    names = sorted(entry.name + "/" * entry.is_dir() for entry in path.iterdir())
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"a folder with {', '.join(names[:SHOWN])}{more}" if names else "an empty folder"
