"""Labels of single episodes while a labelling is under way: each is written whole or not at all, so that a killed run loses
none.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from retrodict.files import write_text
from retrodict.labelling.infer import Inference
from retrodict.labelling.shift import Portrait
from retrodict.training.identity import claim

RUN_FILE = "record.json"
PORTRAIT = "portrait"
EXTRA = "extra."


class Shards:
    """Inferences by group (`held-out`, `target`) and position: in a folder, or in memory where `folder` is None.

    Raises DataError naming what differs when the folder holds labels of another model or of other recordings.
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self._memory: dict[tuple[str, int], tuple[Inference, Portrait]] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            claim(folder, identity)

    def record(self, fresh: Mapping[str, Any]) -> dict[str, Any]:
        """What was noted when the labelling began; `fresh` where it begins now."""
        if self.folder is None:
            return dict(fresh)
        path = self.folder / RUN_FILE
        if not path.exists():
            write_text(path, json.dumps(dict(fresh)))
        noted: dict[str, Any] = json.loads(path.read_text())
        return noted

    def done(self, group: str) -> set[int]:
        """Positions that are there."""
        if self.folder is None:
            return {position for name, position in self._memory if name == group}
        return {int(path.stem.rpartition("-")[2]) for path in self.folder.glob(f"{group}-*.npz") if _whole(path)}

    def put(self, group: str, inference: Inference, portrait: Portrait) -> None:
        """Keep one episode's labels."""
        if self.folder is None:
            self._memory[group, inference.position] = (inference, portrait)
            return
        path = self._path(group, inference.position)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        arrays: dict[str, Any] = {EXTRA + name: values for name, values in inference.extras.items()}
        arrays |= {"action": inference.action, "confidence": inference.confidence, "seen": inference.seen}
        arrays[PORTRAIT] = np.array(json.dumps(portrait))
        with partial.open("wb") as file:
            np.savez(file, **arrays)
        partial.replace(path)

    def get(self, group: str, position: int) -> tuple[Inference, Portrait]:
        """One episode's labels."""
        if self.folder is None:
            return self._memory[group, position]
        with np.load(self._path(group, position), allow_pickle=False) as held:
            extras = {name.removeprefix(EXTRA): held[name] for name in held.files if name.startswith(EXTRA)}
            inference = Inference(position, held["action"], held["confidence"], held["seen"], extras)
            return inference, json.loads(str(held[PORTRAIT]))

    def remove(self) -> None:
        """Forget everything."""
        self._memory.clear()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, group: str, position: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{group}-{position:08d}.npz"


def _whole(path: Path) -> bool:
    """A machine that lost power may leave a file that has its name and not its content."""
    return zipfile.is_zipfile(path)
