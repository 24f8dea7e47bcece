"""Numeric columns of Parquet files, converted once into `.npy` files of the cache folder and opened memory-mapped.

Parquet cannot be read at a row number without decoding a page; an array on disk can, and its memory is the system's to give back.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrodict.errors import DataError
from retrodict.trajectories.columns import ArrayColumn
from retrodict.trajectories.features import ACTION, Feature
from retrodict.trajectories.frames import EncodedImageColumn
from retrodict.trajectories.room import PARTIAL, bytes_of, cache_room, opened
from retrodict.trajectories.stores.checks import check_finite
from retrodict.trajectories.stores.gaps import MARKING
from retrodict.trajectories.stores.lerobot import layout
from retrodict.trajectories.stores.lerobot.text import ArrowColumn

FORMAT = "1"  # part of the key: changes with what stands in the cached files
ROWS_AT_ONCE = 16_384
WITHOUT_CACHE = ("index", "frame_index")  # known without reading


@dataclass(frozen=True)
class Ragged:
    """Flat lists of a feature whose size differs between episodes: the values, and where each row's begin."""

    values: np.ndarray
    offsets: np.ndarray

    def rows(self, start: int, length: int, shape: Sequence[int]) -> ArrayColumn:
        """The rows of one episode, (length, *shape) with the -1 of the shape resolved."""
        flat = self.values[self.offsets[start] : self.offsets[start + length]]
        known = int(np.prod([size for size in shape if size >= 0]))
        open_size = len(flat) // max(length * known, 1)
        return ArrayColumn(flat.reshape(length, *(open_size if size < 0 else size for size in shape)))


@dataclass(frozen=True)
class Stored:
    """A column of several files: its rows one file after the other, and the first row of each file that has it."""

    column: ArrayColumn | ArrowColumn | Ragged | EncodedImageColumn
    starts: Mapping[Path, int]


@dataclass(frozen=True)
class File:
    """A Parquet file as its footer describes it."""

    path: Path
    rows: int
    schema: pa.Schema

    @classmethod
    def open(cls, path: Path) -> File:
        with layout.open_parquet(path) as file:
            return cls(path, file.metadata.num_rows, file.schema_arrow)

    @property
    def version(self) -> list[Any]:
        stat = self.path.stat()
        return [str(self.path.resolve()), stat.st_size, stat.st_mtime_ns]


def cache_folder() -> Path:
    return cache_room().folder / "columns"


def open_columns(files: Sequence[File], features: Mapping[str, Feature], *, nan_is_missing: bool) -> dict[str, Stored]:
    """The columns of `features` in `files`; a file that lacks a column has no place in its `starts`.

    Raises DataError when a column has another type or shape than its feature, is null somewhere, has NaN in `action`, or a file
    is damaged. With `nan_is_missing`, NaN stays, and floating-point numbers that are null are NaN.
    """
    for file in files:
        for name in features.keys() & set(file.schema.names):
            check_type(file, name, features[name])
    having = {name: [file for file in files if name in file.schema.names] for name in features if name not in WITHOUT_CACHE}
    having = {name: some for name, some in having.items() if some}
    about = [FORMAT, [file.version for file in files], {name: features[name].to_json() for name in having}]
    about += ["NaN"] * nan_is_missing  # else what was let through once would be found later
    key = hashlib.blake2b(json.dumps(about, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()
    columns = _opened(cache_folder() / key, files, {name: features[name] for name in having}, having, nan_is_missing)
    stored = {}
    for name, some in having.items():
        starts = np.cumsum([0, *(file.rows for file in some)])
        places = {file.path: int(start) for file, start in zip(some, starts[:-1], strict=True)}
        stored[name] = Stored(columns[name], places)
    return stored


def _opened(
    folder: Path, files: Sequence[File], features: Mapping[str, Feature], having: Mapping[str, list[File]], nan_is_missing: bool
) -> dict[str, ArrayColumn | ArrowColumn | Ragged]:
    while True:  # again if the folder was evicted between making and opening
        if not folder.is_dir():
            _convert(folder, files, features, having, nan_is_missing)
        try:
            opened(folder)
            return {name: _open(folder / quote(name, safe=""), feature) for name, feature in features.items()}
        except FileNotFoundError:
            if folder.is_dir():
                raise


def _open(stem: Path, feature: Feature) -> ArrayColumn | ArrowColumn | Ragged:
    if not feature.is_numeric:
        return ArrowColumn.open(stem.with_name(stem.name + ".arrow"))
    path = stem.with_name(stem.name + ".npy")
    if -1 in feature.shape:
        offsets = np.load(stem.with_name(stem.name + ".offsets.npy"), mmap_mode="r")
        empty = not path.stat().st_size
        return Ragged(np.empty(0, feature.dtype) if empty else np.memmap(path, feature.dtype, mode="r"), offsets)
    return ArrayColumn(np.load(path, mmap_mode="r"))


def _convert(
    folder: Path, files: Sequence[File], features: Mapping[str, Feature], having: Mapping[str, list[File]], nan_is_missing: bool
) -> None:
    """Make the cached files of all columns in one pass; whoever is first to finish has made them."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=folder.name, suffix=PARTIAL, dir=folder.parent))
    sinks = {
        name: _sink(partial / quote(name, safe=""), feature, sum(file.rows for file in having[name]), nan_is_missing)
        for name, feature in features.items()
    }
    try:
        for file in files:
            names = [name for name in features if name in file.schema.names]
            with layout.readable(file.path), layout.open_parquet(file.path) as opened:
                for batch in opened.iter_batches(ROWS_AT_ONCE, columns=names, use_threads=False):
                    for name in names:
                        sinks[name].write(batch.column(batch.schema.names.index(name)), file.path)
        for sink in sinks.values():
            sink.close()
        cache_room().make(bytes_of(partial))
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sink(stem: Path, feature: Feature, rows: int, nan_is_missing: bool) -> _Numbers | _Lists | _Arrow:
    if not feature.is_numeric:
        return _Arrow(stem)
    return _Lists(stem, feature, rows) if -1 in feature.shape else _Numbers(stem, feature, rows, nan_is_missing)


class _Numbers:
    """Rows of one shape into an `.npy` file."""

    def __init__(self, stem: Path, feature: Feature, rows: int, nan_is_missing: bool) -> None:
        self.name, self.feature, self.row, self.nan_is_missing = stem.name, feature, 0, nan_is_missing
        path = stem.with_name(stem.name + ".npy")
        self.out = np.lib.format.open_memmap(path, mode="w+", dtype=feature.dtype, shape=(rows, *feature.shape))

    def write(self, array: pa.Array, path: Path) -> None:
        nan_for_null = self.nan_is_missing and np.dtype(self.feature.dtype).kind == "f"
        values = flat(array, self.feature, f"{path}: {self.name!r}", nan_for_null=nan_for_null)
        values = values.reshape(len(array), *self.feature.shape)
        if self.name == ACTION:
            check_finite(values, f"{path}: 'action'", self.row, nan_is_missing=self.nan_is_missing)
        self.out[self.row : self.row + len(array)] = values
        self.row += len(array)

    def close(self) -> None:
        self.out.flush()


class _Lists:
    """Rows of differing size: their values one after the other, and where each begins."""

    def __init__(self, stem: Path, feature: Feature, rows: int) -> None:
        self.name, self.feature = stem.name, feature
        self.out = stem.with_name(stem.name + ".npy").open("wb")
        self.offsets, self.path, self.row = np.zeros(rows + 1, np.int64), stem.with_name(stem.name + ".offsets.npy"), 0

    def write(self, array: pa.Array, path: Path) -> None:
        self.out.write(flat(array, self.feature, f"{path}: {self.name!r}").tobytes())
        lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
        ends = self.offsets[self.row] + np.cumsum(lengths)
        self.offsets[self.row + 1 : self.row + 1 + len(array)] = ends
        self.row += len(array)

    def close(self) -> None:
        self.out.close()
        np.save(self.path, self.offsets)


class _Arrow:
    """Rows as they are into an Arrow file."""

    def __init__(self, stem: Path) -> None:
        self.path, self.name = stem.with_name(stem.name + ".arrow"), stem.name
        self.out: Any = None
        self.schema: pa.Schema | None = None

    def write(self, array: pa.Array, path: Path) -> None:
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        batch = pa.record_batch([array], names=[self.name])
        if self.schema is None:
            self.out, self.schema = pa.ipc.new_file(str(self.path), batch.schema), batch.schema
        elif batch.schema != self.schema:
            raise DataError(f"{path}: {self.name!r} is {array.type} here and {self.schema.types[0]} in other files.")
        self.out.write_batch(batch)

    def close(self) -> None:
        if self.out is not None:
            self.out.close()


def flat(array: pa.Array, feature: Feature, what: str, *, nan_for_null: bool = False) -> np.ndarray:
    """The numbers of (nested) lists, one after the other; with `nan_for_null`, NaN where a step or a number in it is null.

    Raises DataError for other nulls and for lists of another length than the feature's shape.
    """
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    rows, shape = len(array), feature.shape if feature.shape != (1,) or _is_list(array.type) else ()
    for level, size in enumerate(shape):
        if nan_for_null and array.null_count:
            array = array.fill_null(pa.scalar(np.full(shape[level:], np.nan).tolist(), array.type))
        if array.null_count:
            break
        if size >= 0 and rows:
            lengths = pc.min_max(pc.list_value_length(array)).as_py()
            if (lengths["min"], lengths["max"]) != (size, size):
                wrong = lengths["min"] if lengths["min"] != size else lengths["max"]
                raise DataError(f"{what} has a step of {wrong} values where the metadata say shape {list(feature.shape)}.")
        array = array.flatten()
    if nan_for_null:
        array = array.fill_null(np.nan)
    if array.null_count:
        mend = f"; mend it, or {MARKING}" if pa.types.is_floating(array.type) or _is_list(array.type) else ""
        raise DataError(f"{what} has {array.null_count} null(s); every step must have a value{mend}.")
    values: np.ndarray = array.to_numpy(zero_copy_only=False)
    return values


def check_type(file: File, name: str, feature: Feature) -> None:
    """Raises DataError when the column is of another dtype or shape than the feature says, as far as the footer tells."""
    kind, shape = file.schema.field(name).type, []
    if not feature.is_numeric:
        fits = {"string": pa.types.is_string, "image": pa.types.is_struct}.get(feature.dtype, lambda _: True)
        if not (fits(kind) or (feature.is_text and (pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)))):
            raise DataError(f"{file.path}: {name!r} is {kind}, the metadata say {feature.dtype}.")
        return
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    while _is_list(kind):
        shape.append(kind.list_size if pa.types.is_fixed_size_list(kind) else None)
        kind = kind.value_type
    dtype = "float16" if pa.types.is_float16(kind) else {"double": "float64", "float": "float32"}.get(str(kind), str(kind))
    expected = [] if feature.shape == (1,) and not shape else list(feature.shape)
    alike = len(shape) == len(expected) and all(
        seen is None or size in (seen, -1) for seen, size in zip(shape, expected, strict=True)
    )
    if dtype != feature.dtype or not alike:
        seen = "".join(f"[{'?' if size is None else size}]" for size in shape)
        raise DataError(
            f"{file.path}: {name!r} is {dtype}{seen}, the metadata say {feature.dtype} of shape {list(feature.shape)}."
        )


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
