"""The two ways in which Minari lays out episodes: one HDF5 file, or a folder of Arrow or Parquet files for each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet

from retrodict.errors import DataError
from retrodict.trajectories.columns import ArrayColumn, Column
from retrodict.trajectories.frames import EncodedImageColumn
from retrodict.trajectories.stores.checks import check_finite
from retrodict.trajectories.stores.finals import keep
from retrodict.trajectories.stores.hdf5_columns import HDF5Images, Place, column_of, opened, texts_of
from retrodict.trajectories.stores.spaces import Leaf
from retrodict.trajectories.stores.views import as_frames, layout

MAIN = "main_data.hdf5"
FLAGS = ("rewards", "terminations", "truncations")


@dataclass(frozen=True)
class Terms:
    """How values are read: whether pictures are encoded ones, and whether NaN is let through for what is missing."""

    jpeg: bool
    nan_is_missing: bool


@dataclass(frozen=True)
class Values:
    """Values of one observation, action or info over an episode.

    Attributes:
        column: one row a step, and maybe the one after the last action.
        row: shape and dtype of a row as the file has it.
        last: the row after the last action as JSON (see `finals`), None where there is none.
    """

    column: Column
    row: tuple[tuple[int, ...], np.dtype]
    last: Any


@dataclass(frozen=True)
class Raw:
    """One episode as Minari keeps it.

    Attributes:
        observations, actions: values of each leaf of their spaces.
        flags: rewards, terminations, truncations (T,).
        infos: key (nested ones joined by dots) -> values.
        about: whatever else is said of the episode.
    """

    observations: Sequence[Values]
    actions: Sequence[Values]
    flags: Mapping[str, np.ndarray]
    infos: Mapping[str, Values]
    about: Mapping[str, Any]


def read_hdf5(data: Path, count: int, observed: list[Leaf], acted: list[Leaf], terms: Terms) -> Iterator[Raw]:
    """The episodes of a dataset in one HDF5 file."""
    with opened(data / MAIN) as file:
        for i in range(count):
            where = f"{data / MAIN}, episode {i}"
            group = file.get(f"episode_{i}")
            if group is None:
                raise DataError(f"{data / MAIN} holds {len(file)} episodes; {count} are expected by metadata.json.")
            flags = {name: _node(group, name, where)[()] for name in FLAGS}
            steps = len(flags["rewards"])
            nodes: dict[str, Any] = {}
            if "infos" in group:
                group["infos"].visititems(lambda name, node, to=nodes: to.update({name: node}))
            yield Raw(
                [_hdf5_leaf(group, "observations", leaf, terms, steps, where) for leaf in observed],
                [_hdf5_leaf(group, "actions", leaf, terms, steps, where) for leaf in acted],
                flags,
                {
                    name.replace("/", "."): _of_dataset(node, None, terms, steps, f"{where}: info {name!r}")
                    for name, node in nodes.items()
                    if isinstance(node, h5py.Dataset) and node.shape
                },
                {key: value.item() if isinstance(value, np.generic) else value for key, value in group.attrs.items()},
            )


def _hdf5_leaf(group: Any, root: str, leaf: Leaf, terms: Terms, steps: int, where: str) -> Values:
    keys = (f"_index_{key}" if isinstance(key, int) else key for key in leaf.keys)
    node = _node(group, "/".join((root, *keys)), where)
    where = f"{where}: {root} {leaf.name}".rstrip()
    if terms.jpeg and leaf.is_picture:
        return _pictures(HDF5Images(Place.of(node), node.shape[0]), leaf, steps, where)
    return _of_dataset(node, leaf, terms, steps, where)


def _of_dataset(node: Any, leaf: Leaf | None, terms: Terms, steps: int, where: str) -> Values:
    if node.dtype.kind in "OS":
        return _of_array(texts_of(node), leaf, terms, steps, where)
    _check(node, leaf, terms, steps, where)
    lies = None if leaf is None else layout(leaf.shape, leaf.dtype)
    last = None
    if len(node) == steps + 1:
        last = _kept(as_frames(node[steps], lies) if lies else node[steps])
    return Values(column_of(node, lies), (node.shape[1:], node.dtype), last)


def _node(group: Any, path: str, where: str) -> Any:
    node = group.get(path)
    if not isinstance(node, h5py.Dataset):
        raise DataError(f"{where} has no array {path!r}, which its metadata promise; the dataset is not whole.")
    return node


def read_arrow(data: Path, count: int, observed: list[Leaf], acted: list[Leaf], terms: Terms) -> Iterator[Raw]:
    """The episodes of a dataset with a folder for each; Arrow files are memory-mapped."""
    for i in range(count):
        folder = data / str(i)
        try:
            about = json.loads((folder / "metadata.json").read_text())
            files = sorted(file for file in folder.iterdir() if file.suffix in (".arrow", ".parquet"))
            table = pa.concat_tables([_table(file) for file in files]).combine_chunks()
            steps = int(about["total_steps"])
            columns = {name: pa.concat_arrays(table.column(name).chunks) for name in table.column_names}
            actions = columns["actions"][:steps]  # Minari pads them to the length of the observations
            infos = _infos(columns["infos"]) if "infos" in columns else ()
            yield Raw(
                [_arrow_leaf(columns["observations"], leaf, terms, steps, f"{folder}: observations") for leaf in observed],
                [_arrow_leaf(actions, leaf, terms, steps, f"{folder}: actions") for leaf in acted],
                {name: columns[name].to_numpy(zero_copy_only=False)[:steps] for name in FLAGS},
                {name: _of_array(values, None, terms, steps, f"{folder}: info {name!r}") for name, values in infos},
                about,
            )
        except DataError:
            raise
        except (OSError, pa.ArrowException, json.JSONDecodeError, KeyError, ValueError) as error:
            seen = " ".join(str(error).split())
            raise DataError(f"{folder} is damaged or not whole ({type(error).__name__}: {seen}).") from None


def _table(file: Path) -> pa.Table:
    if file.suffix == ".parquet":
        return pyarrow.parquet.read_table(file, partitioning=None)
    with pa.memory_map(str(file)) as mapped:
        return pa.ipc.open_file(mapped).read_all()


def _arrow_leaf(values: pa.Array, leaf: Leaf, terms: Terms, steps: int, where: str) -> Values:
    for key in leaf.keys:
        values = values.field(str(key)).slice(values.offset, len(values))  # Arrow hands out the field of a slice unsliced
    where = f"{where} {leaf.name}".rstrip()
    if terms.jpeg and leaf.is_picture:
        return _pictures(ArrowImages(values), leaf, steps, where)
    array = _array(values)
    _check(array, leaf, terms, steps, where)
    return _of_array(array.reshape(len(values), *leaf.shape), leaf, terms, steps, where)


def _infos(values: pa.Array, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for field in values.type:
        name, inner = prefix + field.name, values.field(field.name)
        if pa.types.is_struct(field.type):
            yield from _infos(inner, name + ".")
        elif (shape := (field.metadata or {}).get(b"shape")) is not None:
            yield name, _array(inner).reshape(len(inner), *(int(size) for size in shape.split(b",") if size))
        else:
            yield name, _array(inner)


def _array(values: pa.Array) -> np.ndarray:
    """Numbers (T,) or (T, n), without a copy where Arrow has them so, or texts."""
    if pa.types.is_fixed_size_list(values.type):
        return np.asarray(values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1))
    if pa.types.is_string(values.type):
        return np.array(values.to_pylist(), dtype=object)
    return np.asarray(values.to_numpy(zero_copy_only=False))


def _of_array(array: np.ndarray, leaf: Leaf | None, terms: Terms, steps: int, where: str) -> Values:
    _check(array, leaf, terms, steps, where)
    row = (array.shape[1:], array.dtype)
    lies = None if leaf is None else layout(leaf.shape, leaf.dtype)
    array = as_frames(array, lies) if lies else array
    return Values(ArrayColumn(array), row, _kept(array[steps]) if len(array) == steps + 1 else None)


def _kept(row: Any) -> Any:
    """A row as JSON, None where a number in it is missing."""
    missing = np.asarray(row).dtype.kind == "f" and np.isnan(row).any()
    return None if missing else keep(row)


@dataclass(frozen=True)
class ArrowImages(Sequence[bytes]):
    """Encoded images in an Arrow array of bytes."""

    values: Any

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, row: int) -> bytes: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[bytes]: ...
    def __getitem__(self, row: int | slice) -> bytes | Sequence[bytes]:
        return ArrowImages(self.values[row]) if isinstance(row, slice) else bytes(self.values[row].as_py())


def _pictures(items: Sequence[bytes], leaf: Leaf, steps: int, where: str) -> Values:
    height, width, channels = (*leaf.shape, 1)[:3]
    column = EncodedImageColumn(items, height, width, channels)
    return Values(column, (leaf.shape, leaf.dtype), keep(items[steps]) if len(items) == steps + 1 else None)


def _check(values: Any, leaf: Leaf | None, terms: Terms, steps: int, where: str) -> None:
    """Raise DataError where values are not finite (unless missing), or their rows have not the size that the space says."""
    if leaf is not None and int(np.prod(values.shape[1:])) != leaf.width:
        raise DataError(f"{where} has shape {tuple(values.shape[1:])}; {leaf.shape} is expected by metadata.json.")
    if leaf is not None and len(values) not in (steps, steps + 1):
        raise DataError(f"{where} has {len(values)} rows in an episode of {steps} steps; one a step is expected.")
    check_finite(values, where, nan_is_missing=terms.nan_is_missing)
