"""Writing so that nothing already written is lost: to a temporary name first, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retrodict.errors import DataError


@contextmanager
def replacing_folder(folder: Path, marker: str) -> Iterator[Path]:
    """A fresh folder to write into, which takes the place of `folder` when the block ends without an error.

    An existing folder is replaced only where it holds a file `marker` (what was written there is of the same kind).
    Raises DataError when it holds something else; nothing is touched then.
    """
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or (folder / marker).exists())):
        raise DataError(f"{folder} exists and is not something this command wrote ({marker} is missing); name another folder.")
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
