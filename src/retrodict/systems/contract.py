"""The contract every system keeps: a dataclass estimator with fit, save, load and a card.

A system's hyperparameters are its dataclass fields; what it learns goes into attributes that end with an underscore.
"""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from retrodict import roles
from retrodict._version import __version__
from retrodict.errors import DataError, NotFittedError
from retrodict.files import replacing_folder
from retrodict.training.run import Run
from retrodict.trajectories import ActionSpace, Feature, Recordings

ROLES = (
    roles.InverseModel,
    roles.Encoder,
    roles.Policy,
    roles.ForwardModel,
    roles.Law,
    roles.Generator,
    roles.Curator,
    roles.Analysis,
)

REGISTRY: dict[str, type[System]] = {}
"""Every system class that has been imported, by slug."""

MANIFEST = "system.json"
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Card:
    """What a system is, for the catalogue, the docs and the results tables.

    Attributes:
        slug: its name on the command line and of its results file.
        title, authors, year, url: the paper.
        reads: what it needs to see, in words.
        returns: what it gives back, in words.
        claim: the paper's claim in one line.
        missing: `refused` when NaN met in data is an error, `masked` when the system handles gaps.
        baseline: True for a method that systems are held against and that is none of the published 48.
    """

    slug: str
    title: str
    authors: str
    year: int
    reads: str
    returns: str
    claim: str
    url: str = ""
    missing: Literal["refused", "masked"] = "refused"
    baseline: bool = False


@dataclass(frozen=True)
class Spec:
    """What a network must know of the recordings it was made for, so that it can be built again when loaded."""

    features: Mapping[str, Feature]
    actions: ActionSpace | None = None
    fps: float | None = None
    tasks: tuple[str, ...] = ()

    @classmethod
    def of(cls, recordings: Recordings, names: tuple[str, ...]) -> Spec:
        return cls({n: recordings.features[n] for n in names}, recordings.actions, recordings.fps, recordings.tasks)

    def to_json(self) -> dict[str, Any]:
        return {
            "features": {name: feature.to_json() for name, feature in self.features.items()},
            "actions": self.actions.to_json() if self.actions else None,
            "fps": self.fps,
            "tasks": list(self.tasks),
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Spec:
        return cls(
            {name: Feature.from_json(feature) for name, feature in entry["features"].items()},
            ActionSpace.from_json(entry["actions"]) if entry["actions"] else None,
            entry["fps"],
            tuple(entry["tasks"]),
        )


@dataclass
class System(ABC):
    """Base of all systems.

    Attributes:
        seed: makes a fit repeatable.
        device: `auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:1`, `mps`.
    """

    card: ClassVar[Card]

    seed: int = field(default=0, kw_only=True)
    device: str = field(default="auto", kw_only=True)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "card" in cls.__dict__:
            REGISTRY[cls.card.slug] = cls

    # ---- what a system supplies ---------------------------------------------------------------------------------------

    @abstractmethod
    def inputs(self, recordings: Recordings) -> tuple[str, ...]:
        """The features that `fit` reads from these recordings; raises DataError where they are not there."""

    @abstractmethod
    def learn(self, recordings: Recordings, world: Any, validation: Recordings | None, run: Run) -> None:
        """Learn from admitted recordings (see `admit`) and set the attributes ending with an underscore."""

    @abstractmethod
    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What was learned, as named tensors and as JSON."""

    @abstractmethod
    def restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        """Set what was learned from what `state` gave."""

    # ---- what every system does ---------------------------------------------------------------------------------------

    def fit(
        self,
        recordings: Recordings,
        world: Any = None,
        validation: Recordings | None = None,
        run: Run | None = None,
    ) -> Self:
        """Learn from recordings and return self.

        Args:
            recordings: what to learn from; `privileged.*` is taken away first.
            world: the world to act in, for systems that learn by acting.
            validation: episodes for early stopping and choices made on held-out data.
            run: where checkpoints and logs go, on which devices; by default nowhere, on this one.

        Raises DataError, in one sentence, when the recordings are empty, lack a feature, or hold NaN that `card.missing` refuses.
        """
        admitted = self.admit(recordings)
        self.learn(admitted, world, self.admit(validation) if validation is not None else None, run or Run())
        self.learned_from_ = tuple(sorted({episode.identity for episode in admitted}))
        return self

    def admit(self, recordings: Recordings) -> Recordings:
        """The episodes that this system can learn from, without what it must not see; raises DataError where there are none."""
        if not len(recordings) or not recordings.steps:
            raise DataError(f"{self.card.slug}: the recordings are empty; at least one episode is needed.")
        visible = recordings.visible()
        names = self.inputs(visible)
        for name in names:
            if name not in visible.features:
                raise DataError(
                    f"{self.card.slug} needs the feature {name!r}; these recordings have {', '.join(visible.features)}."
                )
        usable = visible.having(*names)
        if not len(usable):
            raise DataError(f"{self.card.slug} needs episodes that have all of {', '.join(names)}; no episode has.")
        if self.card.missing == "refused":
            for name in names:
                if usable.features[name].dtype.startswith("float"):
                    refuse_nan(usable, name)
        return usable

    @property
    def is_fitted(self) -> bool:
        return hasattr(self, "learned_from_")

    def check_fitted(self) -> None:
        """Raises NotFittedError when asked before `fit` or `load`."""
        if not self.is_fitted:
            raise NotFittedError(f"{self.card.slug} has not been fitted: call fit(recordings) or load(folder) first.")

    @property
    def torch_device(self) -> torch.device:
        if self.device != "auto":
            return torch.device(self.device)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def hyperparameters(self) -> dict[str, Any]:
        """Fields and values, except the device."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "device"}

    # ---- on disk ------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write the fitted system into a folder: JSON and safetensors, nothing that runs code when loaded.

        The folder appears whole or not at all; a system saved there before is replaced.
        Raises DataError when the folder holds something else.
        """
        self.check_fitted()
        tensors, about = self.state()
        with replacing_folder(Path(folder), marker=MANIFEST) as partial:
            plain, parts = {}, []
            for name, value in self.hyperparameters().items():
                if isinstance(value, System):
                    value.save(partial / name)
                    parts.append(name)
                else:
                    plain[name] = value
            manifest = {
                "system": self.card.slug,
                "retrodict": __version__,
                "hyperparameters": plain,
                "systems": parts,
                "learned_from": self.learned_from_,
                "about": about,
            }
            (partial / MANIFEST).write_text(json.dumps(manifest, indent=1, default=_jsonable))
            save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, partial / WEIGHTS)
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path, device: str = "auto") -> Self:
        """The system that `save` wrote. Reads JSON and safetensors only, so an untrusted folder can run no code.

        Raises DataError when the folder holds no system, another one, or a damaged one.
        """
        manifest = read_manifest(folder)
        kind = lookup(manifest["system"])
        if not issubclass(kind, cls):
            raise DataError(f"{folder} holds a {manifest['system']!r}, not a {cls.__name__}.")
        try:
            values = dict(manifest["hyperparameters"])
            for name in manifest["systems"]:
                values[name] = System.load(Path(folder) / name, device=device)
            system = kind(**_typed(values), device=device)
            system.restore(load_file(Path(folder) / WEIGHTS), manifest["about"])
        except (KeyError, TypeError, FileNotFoundError, SafetensorError, RuntimeError) as error:
            raise DataError(f"{folder} is damaged or was written by another version of retrodict: {error}") from error
        system.learned_from_ = tuple((source, index) for source, index in manifest["learned_from"])
        return system


def lookup(slug: str) -> type[System]:
    """The system class of a slug.

    Raises DataError naming the known ones.
    """
    try:
        return REGISTRY[slug]
    except KeyError:
        raise DataError(f"no system is called {slug!r}; there are {', '.join(sorted(REGISTRY))}.") from None


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """What stands in a saved system's manifest; raises DataError where the folder holds none."""
    path = Path(folder) / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        manifest["system"]
    except FileNotFoundError:
        raise DataError(f"{folder} holds no saved system: {MANIFEST} is missing.") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: {error}.") from None
    return manifest


def refuse_nan(recordings: Recordings, name: str) -> None:
    """Raise DataError naming the first episode and step at which a feature is not finite, gaps declared by `valid.*` aside."""
    for episode in recordings:
        values = np.asarray(episode[name]).reshape(episode.length, -1)
        bad = ~np.isfinite(values).all(1)
        if f"valid.{name}" in episode:
            bad &= np.asarray(episode[f"valid.{name}"]).reshape(-1).astype(bool)
        if bad.any():
            raise DataError(f"{episode}: {name!r} is not finite at step {int(bad.argmax())}; drop or mend the step first.")


def roles_of(system: type[System]) -> tuple[str, ...]:
    """Names of the roles that a system class plays."""
    return tuple(role.__name__ for role in ROLES if issubclass(system, role))


def _typed(values: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples: a list goes back as a tuple, which is what immutable hyperparameters are."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _jsonable(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, (np.integer, np.floating)):
        return value.item()
    raise TypeError(f"a hyperparameter of type {type(value).__name__} cannot be saved")
