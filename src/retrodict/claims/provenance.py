"""By which code an arm was measured: numbers that an older one left must not pass for those of the code that is here."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from retrodict.files import read_json, write_json

APART = ("retrodict.cli", "retrodict.reports", "retrodict.claims.reproduction", "retrodict.claims.provenance")
"""What shows and keeps numbers and does not make them."""


def loaded() -> dict[str, str]:
    """Modules of retrodict that are loaded, each with a digest of its source."""
    names = sorted(name for name in sys.modules if name.startswith("retrodict.") and not name.startswith(APART))
    return {name: found for name in names if (found := digest(name)) is not None}


@cache
def digest(name: str) -> str | None:
    """Of a module's source, in which comments and layout do not count; None where it has no file, or none any more."""
    try:
        spec = importlib.util.find_spec(name)
    except (ModuleNotFoundError, ValueError):  # its package is gone; it was made in memory
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return hashlib.sha256(ast.unparse(ast.parse(Path(spec.origin).read_bytes())).encode()).hexdigest()[:16]


def note(cell: Path) -> None:
    """Write beside the numbers of an arm by which code they were measured."""
    write_json(_beside(cell), loaded())


def changed(cells: Iterable[Path]) -> dict[str, int]:
    """Modules that are not what they were when arms were measured, each with the number of arms that it concerns."""
    counts: dict[str, int] = {}
    for cell in cells:
        then: Mapping[str, str] = read_json(_beside(cell)) if _beside(cell).exists() else {}
        for name, was in then.items():
            if digest(name) != was:
                counts[name] = counts.get(name, 0) + 1
    return counts


def _beside(cell: Path) -> Path:
    return cell.with_name(f".{cell.stem}.code.json")
