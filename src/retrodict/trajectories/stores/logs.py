"""Tables of values as they stand in CSV, TSV, JSONL and Parquet files: named columns, before anything is made of them."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from retrodict.errors import DataError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
DELIMITERS = "\t;|, "
"""In the order in which they are tried: a comma may be a decimal one, a space may stand in a heading."""
LOOKED_AT = 50
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Log:
    """One table file.

    Attributes:
        path: the file.
        columns: name -> values of all rows: numbers (T,) or (T, n) with NaN where a cell is empty, texts as objects (T,) with
            None there, or datetime64[ns] (T,).
        first_line: number by which an editor shows the first row.
        left_out: sentences on columns of types that are not read.
    """

    path: Path
    columns: Mapping[str, np.ndarray]
    first_line: int
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def entries(self, names: Iterable[str]) -> tuple[str, ...]:
        """A name for every number that these columns hold: their own, numbered where a column holds several."""
        widths = {name: self.columns[name][:1].size for name in names}
        return tuple(entry for name, n in widths.items() for entry in ([name] if n == 1 else [f"{name}_{i}" for i in range(n)]))

    def texts(self, name: str | None, rows: np.ndarray) -> tuple[str, ...]:
        """The different texts of a column in these rows, in order; none where there is no such column."""
        return () if name is None else tuple(dict.fromkeys(str(v) for v in self.columns[name][rows] if v is not None))

    def line(self, row: int) -> str:
        """Where a row stands, in words."""
        return f"row {row}" if self.path.suffix.lower() == ".parquet" else f"line {self.first_line + row}"


def read_log(path: Path, leave_out: Sequence[str] = ()) -> Log:
    """The table in a CSV, TSV, JSONL or Parquet file, without the columns to leave out.

    Raises DataError when the file is damaged, empty, names a column twice, or a column of numbers holds something else.
    """
    first_line, suffix = 1, path.suffix.lower()
    try:
        if suffix == ".parquet":
            table = pyarrow.parquet.read_table(path)
        elif suffix == ".jsonl":
            table = pyarrow.json.read_json(path)
        else:
            table, first_line = _read_delimited(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as {suffix[1:].upper()}: {_one_line(error)}.") from None
    while any(pa.types.is_struct(field.type) for field in table.schema):
        table = table.flatten()
    if not table.num_rows or not table.num_columns:
        raise DataError(f"{path} has no rows; at least one is expected.")
    if twice := {name for name in table.column_names if table.column_names.count(name) > 1}:
        raise DataError(f"{path} has the column {min(twice)!r} twice; column names must differ.")
    if unknown := [name for name in leave_out if name not in table.column_names]:
        raise DataError(f"{path} has no column {unknown[0]!r} to leave out; it has {', '.join(table.column_names)}.")
    table = table.drop_columns(list(leave_out))
    columns, left_out = {}, []
    log = Log(path, {}, first_line)
    for name, column in zip(table.column_names, table.columns, strict=True):
        values = _values(log, name, column)
        if values is None:
            left_out.append(f"{path.name}: column {name!r} ({column.type}) is left out.")
        else:
            columns[name] = values
    if not columns:
        raise DataError(f"{path} has no column of numbers or texts; it has {', '.join(table.column_names)}.")
    return Log(path, columns, first_line, tuple(left_out))


def _read_delimited(path: Path) -> tuple[pa.Table, int]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = [line for line in itertools.islice(file, LOOKED_AT) if line.strip()]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(lines)
    rows = list(csv.reader(lines, delimiter=delimiter))
    cells = [cell.strip() for row in rows for cell in row]
    comma = delimiter != "," and any(map(DECIMAL_COMMA.fullmatch, cells))
    point = "," if comma and not any("." in cell and _is_number(cell) for cell in cells) else "."
    fields = rows[0] if rows else []
    bare = bool(fields) and all(_is_number(field.replace(point, ".")) for field in fields)
    table = pyarrow.csv.read_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(column_names=[f"column_{i}" for i in range(len(fields))] if bare else None),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter),
        convert_options=pyarrow.csv.ConvertOptions(decimal_point=point),
    )
    return table.rename_columns([name.strip() for name in table.column_names]), 1 if bare else 2


def _delimiter(lines: list[str]) -> str:
    """What cuts every line into the same number of cells; where nothing does, what the first one has most of."""
    for mark in DELIMITERS:
        widths = {len(row) for row in csv.reader(lines, delimiter=mark)}
        if len(widths) == 1 and widths != {1}:
            return mark
    return max(",\t;|", key="".join(lines[:1]).count)


def _values(log: Log, name: str, column: pa.ChunkedArray) -> np.ndarray | None:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts = np.array([text or None for text in column.to_pylist()], dtype=object)
        _refuse_broken_numbers(log, name, texts)
        return texts
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return np.asarray(column.cast(pa.timestamp("ns")).to_numpy())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _vectors(log, name, column)
    if pa.types.is_boolean(kind) and not column.null_count:
        return np.asarray(column.to_numpy())
    if pa.types.is_boolean(kind) or pa.types.is_decimal(kind):
        column = column.cast(pa.uint8() if pa.types.is_boolean(kind) else pa.float64())
        kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return np.asarray(column.to_numpy())
    return None


def _vectors(log: Log, name: str, column: pa.ChunkedArray) -> np.ndarray | None:
    """Lists of numbers as (T, n, ...)."""
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    if (odd := np.flatnonzero(lengths != lengths[0])).size:
        row = int(odd[0])
        raise DataError(
            f"{log.path}, {log.line(row)}: {name!r} has {lengths[row]} entries and {lengths[0]} in the first row; "
            "one length is expected."
        )
    entries = _values(log, name, pc.list_flatten(column))
    if entries is None or entries.dtype.kind in "OM":
        return None
    return entries.reshape(len(column), int(lengths[0]), *entries.shape[1:])


def _refuse_broken_numbers(log: Log, name: str, texts: np.ndarray) -> None:
    """A column that holds numbers but for a few cells was meant as numbers; taking it as text would lose it silently."""
    numbers = np.array([text is None or _is_number(text) for text in texts])
    if 0.9 <= numbers.mean() < 1:
        row = int(numbers.argmin())
        raise DataError(f"{log.path}, {log.line(row)}: {name!r} holds {texts[row]!r} where the other rows hold numbers.")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
