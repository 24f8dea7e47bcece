"""Checks of how a system is saved and loaded."""

from __future__ import annotations

import json
import pickle
import shutil
from typing import Any

from safetensors.torch import load_file, save

from retrodict.systems.checks.answers import expect
from retrodict.systems.checks.subject import Subject, check, differs, refused
from retrodict.systems.contract import MANIFEST, WEIGHTS, System


@check
def survives_saving_and_loading(subject: Subject) -> None:
    loaded = System.load(subject.saved, device="cpu")
    expect(type(loaded) is type(subject.fitted), f"a saved system comes back as {type(loaded).__name__}.")
    expect(loaded == subject.fresh(), "hyperparameters come back changed.")
    where = differs(loaded, subject.fitted, subject.recordings)
    expect(where is None, f"a loaded system differs in {where}.")
    expect(loaded.learned_from_ == subject.fitted.learned_from_, "a loaded system does not know which episodes taught it.")
    expect(loaded.heldout_ == subject.fitted.heldout_, "a loaded system does not know which episodes were held out.")
    again = System.load(loaded.save(subject.folder / "again"), device="cpu")
    where = differs(again, loaded, subject.recordings)
    expect(where is None, f"a system saved, loaded, saved and loaded differs in {where}.")
    kinds = {path.suffix for path in subject.saved.rglob("*") if path.is_file()}
    expect(kinds <= {".json", ".safetensors"}, f"it saves files of the kinds {sorted(kinds)}; JSON and safetensors are expected.")


@check
def loading_refuses_what_is_damaged_and_runs_no_code(subject: Subject) -> None:
    sprung = subject.folder / "sprung"
    trap = pickle.dumps(_Trap(str(sprung)))
    manifest, weights = (subject.saved / MANIFEST).read_bytes(), (subject.saved / WEIGHTS).read_bytes()
    cases: dict[str, tuple[str, bytes | None]] = {
        "a pickle for weights": (WEIGHTS, trap),
        "truncated weights": (WEIGHTS, weights[: len(weights) // 2]),
        "empty weights": (WEIGHTS, b""),
        "no weights": (WEIGHTS, None),
        "a truncated manifest": (MANIFEST, manifest[: len(manifest) // 2]),
        "no manifest": (MANIFEST, None),
        "a manifest that is a list": (MANIFEST, b"[1]"),
        "an unknown system": (MANIFEST, json.dumps({**json.loads(manifest), "system": "os.system"}).encode()),
        "an unknown hyperparameter": (
            MANIFEST,
            json.dumps({**json.loads(manifest), "hyperparameters": {"no_such_field": 1}}).encode(),
        ),
    }
    tensors = load_file(subject.saved / WEIGHTS)
    if tensors:
        largest = max(tensors, key=lambda name: tensors[name].numel())
        cases["weights that lack a tensor"] = (WEIGHTS, save({k: v for k, v in tensors.items() if k != largest}))
    for what, (name, content) in cases.items():
        folder = subject.folder / "damaged"
        shutil.copytree(subject.saved, folder)
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)
        refused(lambda folder=folder: System.load(folder, device="cpu"), f"loading {what}")  # type: ignore[misc]
        shutil.rmtree(folder)
        expect(not sprung.exists(), f"loading {what} ran code from the folder.")
    refused(lambda: System.load(subject.folder / "nowhere"), "loading a folder that is not there")


class _Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))
