"""Writing so that nothing already written is lost: to a temporary name first, then renamed."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retrodict.errors import DataError


def named(path: str | Path) -> Path:
    """The path under a name of its own, for what lies beside it: `.` and `..` name no folder, and mean one.

    Raises DataError for the root of the disk.
    """
    path = Path(path)
    found = path if path.name not in ("", "..") else Path(os.path.abspath(path))
    if not found.name:
        raise DataError(f"{path} is no folder to write into; name one inside it.")
    return found


@contextmanager
def replacing_folder(folder: Path, marker: str) -> Iterator[Path]:
    """A fresh folder to write into, which takes the place of `folder` when the block ends without an error.

    An existing folder is replaced only where it holds a file `marker` (what was written there is of the same kind).
    Raises DataError when it holds something else; nothing is touched then.
    """
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or (folder / marker).exists())):
        raise DataError(f"{folder} exists and is not something this command wrote ({marker} is missing); name another folder.")
    folder = named(folder)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            folder.rename(aside)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text)
    partial.replace(path)


#: JSON knows no such numbers: they are written as these texts, as protocol buffers do.
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def write_json(path: Path, value: Any) -> None:
    """Write what `read_json` reads: dicts, lists, texts and numbers, of which those that are not finite become texts."""
    write_text(path, json.dumps(_texts(value), indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """What `write_json` wrote; raises DataError where the file is no JSON."""
    try:
        return _numbers(json.loads(path.read_text()))
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is no JSON ({error}); run the command that writes it again.") from None


def _texts(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _texts(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_texts(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    return NOT_FINITE.get(value, value) if isinstance(value, str) else value


def published_file(*parts: str) -> Path:
    """A file of the published data that claims and tests read, under the folder that `RETRODICT_DATA` names.

    Raises DataError where the variable is not set or the file is not there.
    """
    home = os.environ.get("RETRODICT_DATA")
    if not home:
        raise DataError(f"{'/'.join(parts)} is published data; set RETRODICT_DATA to the folder that holds it.")
    path = Path(home, *parts)
    if not path.exists():
        raise DataError(f"{path} is not there; RETRODICT_DATA must name the folder that holds {'/'.join(parts)}.")
    return path
