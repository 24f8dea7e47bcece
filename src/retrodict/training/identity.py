"""What makes a training itself: its configuration and its data. A run folder belongs to one such identity and no other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from retrodict.errors import DataError
from retrodict.files import write_text
from retrodict.training.checkpoint import Checkpoints

IDENTITY = "run.json"


class OtherRun(DataError):
    """A folder holds a run of another configuration, or on other data."""


def claim(folder: Path, identity: Mapping[str, Any]) -> None:
    """Take a folder for a run, or make sure that it belongs to one of the same identity.

    Raises OtherRun naming what differs when it holds a run of another configuration or on other data.
    """
    mine = json.loads(json.dumps(identity, default=str))
    path = folder / IDENTITY
    if not path.exists():
        if Checkpoints(folder).paths():
            raise DataError(f"{folder} holds checkpoints but no {IDENTITY} that says of what; name another folder.")
        write_text(path, json.dumps(mine, indent=1))
        return
    try:
        theirs = json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); name another folder, or remove this one to start again.") from None
    old, new = _flat(theirs), _flat(mine)
    differing = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if differing:
        shown = [f"{name} = {old.get(name, 'nothing')} and now {new.get(name, 'nothing')}" for name in differing[:3]]
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise OtherRun(
            f"{folder} holds a run of another configuration ({'; '.join(shown)}{more}); "
            "name another folder, or remove this one to start again."
        )


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        entries = [(f"{name}.{key}" if name else str(key), inner) for key, inner in value.items()]
    elif isinstance(value, list):
        entries = [(f"{name}[{i}]", inner) for i, inner in enumerate(value)]
    else:
        return {name: value}
    return {k: v for key, inner in entries for k, v in _flat(inner, key).items()}
