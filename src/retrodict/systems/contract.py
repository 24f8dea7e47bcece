"""The contract every system keeps: a dataclass estimator with fit, save, load and a card.

A system's hyperparameters are its dataclass fields; what it learns goes into attributes that end with an underscore.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from retrodict import roles
from retrodict._version import __version__
from retrodict.errors import DataError, NotFittedError, RetrodictError
from retrodict.files import replacing_folder
from retrodict.systems.registry import REGISTRY, lookup
from retrodict.training.run import Run
from retrodict.trajectories import ActionSpace, Feature, Recordings
from retrodict.trajectories.actions import outsider
from retrodict.trajectories.alignment import check_alignment
from retrodict.trajectories.features import ACTION, IMAGES, STATE, VALID
from retrodict.trajectories.stores.gaps import MARKING

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
        gaps: features of whose missing steps (`valid.<feature>`) `fit` takes notice; a gap in any other that it reads is refused.
        seed: makes a fit repeatable.
        device: `auto` (a GPU where there is one), `cpu`, `cuda`, `cuda:1`, `mps`.
        learned_from_: identities of the episodes that taught it; `learn` may set it where it put some aside.
        heldout_: identities of the episodes that only chose between what was learned (early stopping).
    """

    card: ClassVar[Card]
    gaps: ClassVar[tuple[str, ...]] = ()

    seed: int = field(default=0, kw_only=True)
    device: str = field(default="auto", kw_only=True)

    learned_from_: tuple[tuple[str, int], ...] = field(init=False, repr=False, compare=False)
    heldout_: tuple[tuple[str, int], ...] = field(init=False, repr=False, compare=False)

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

        Inverse models and policies warn where actions are out of step with what was seen, if that can be told beforehand.

        Raises DataError, in one sentence, when the recordings are empty, lack a feature, hold NaN that `card.missing` refuses or
        gaps that are none of `gaps`; and for inverse models and policies, when an action lies outside its declared range.
        """
        admitted = self.admit(recordings)
        if isinstance(self, (roles.InverseModel, roles.Policy)) and ACTION in admitted.features:
            out_of_step = check_alignment(admitted)
            if out_of_step is not None:
                warnings.warn(f"{self.card.slug}: {out_of_step}", stacklevel=2)
        judged = self.admit(validation) if validation is not None else None
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)  # a fit that fails half way must not leave what an earlier one learned beside its own
        self.learn(admitted, world, judged, run or Run())
        learned = vars(self)
        learned.setdefault("heldout_", identities(judged) if judged is not None else ())
        learned.setdefault("learned_from_", identities(admitted))
        return self

    def admit(self, recordings: Recordings) -> Recordings:
        """The episodes that this system can learn from, without what it must not see; raises DataError where there are none."""
        if not isinstance(recordings, Recordings):
            raise DataError(
                f"{self.card.slug} learns from Recordings, got {type(recordings).__name__}; "
                "retrodict.open(path) and retrodict.from_arrays(...) make them."
            )
        if not len(recordings) or not recordings.steps:
            raise DataError(f"{self.card.slug}: the recordings are empty; at least one episode is needed.")
        visible = recordings.visible()
        self._refuse_wrong_forms(visible)
        names = self.inputs(visible)
        for name in names:
            if name not in visible.features:
                raise DataError(
                    f"{self.card.slug} needs the feature {name!r}; these recordings have {', '.join(visible.features)}."
                )
        usable = visible.having(*names)
        if not len(usable):
            raise DataError(f"{self.card.slug} needs episodes that have all of {', '.join(names)}; no episode has.")
        self.refuse_unfit(usable, names)
        return usable

    def refuse_unfit(self, recordings: Recordings, names: Iterable[str]) -> None:
        """Raise DataError naming episode and step where a feature is NaN or has a gap that this system cannot deal with, or an
        action lies outside its declared range, within which inverse models and policies answer.
        """
        for name in names:
            if name not in self.gaps:
                refuse_gaps(recordings, name, self.card.slug)
            if self.card.missing == "refused" and recordings.features[name].dtype.startswith("float"):
                refuse_nan(recordings, name)
            if name == ACTION and isinstance(self, (roles.InverseModel, roles.Policy)) and (said := outsider(recordings)):
                raise DataError(f"{self.card.slug}: {said}; clip the actions, or mend the action space.")

    def _refuse_wrong_forms(self, recordings: Recordings) -> None:
        """Raise DataError where a feature is not what its name says; a system that knows it by its form would overlook it."""
        for name, feature in recordings.features.items():
            if name.startswith(IMAGES) and not feature.is_visual:
                raise DataError(
                    f"{self.card.slug}: {name!r} holds {feature.dtype} of shape {list(feature.shape)}; camera frames are uint8 "
                    f"from 0 to 255, (height, width, channels): convert them, or drop them by recordings.without({name!r})."
                )
            if name in (ACTION, STATE) and not feature.is_numeric:
                raise DataError(f"{self.card.slug}: {name!r} holds {feature.dtype}; numbers are expected.")
            if name in (ACTION, STATE) and -1 in feature.shape:
                episodes = {episode[name].shape[1:]: episode for episode in reversed(recordings.having(name).episodes)}
                (shape, one), (other, another), *_ = reversed(episodes.items())
                raise DataError(
                    f"{self.card.slug}: {name!r} has the shape {shape} a step in {one} and {other} in {another}; bring all "
                    "episodes to one shape, or keep those of one shape in recordings of their own."
                )

    @property
    def is_fitted(self) -> bool:
        return hasattr(self, "learned_from_")

    def check_fitted(self) -> None:
        """Raises NotFittedError when asked before `fit` or `load`."""
        if not self.is_fitted:
            raise NotFittedError(f"{self.card.slug} has not been fitted: call fit(recordings) or load(folder) first.")

    def taught_by(self, recordings: Recordings) -> None:
        """Note that these episodes taught it too, so that none of them serves to judge or to calibrate it."""
        self.learned_from_ = tuple(sorted({*self.learned_from_, *identities(recordings)}))
        self.heldout_ = tuple(sorted({*self.heldout_} - {*self.learned_from_}))

    @property
    def torch_device(self) -> torch.device:
        if self.device != "auto":
            return torch.device(self.device)
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def hyperparameters(self) -> dict[str, Any]:
        """Fields and values, except the device and what is learned."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init and f.name != "device"}

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
                "heldout": self.heldout_,
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
        fields = {f.name for f in dataclasses.fields(kind) if f.init}
        try:
            values = {name: _typed(value) for name, value in manifest["hyperparameters"].items()}
            for name in fields.intersection(manifest["systems"]):  # a field's name leads nowhere but into this folder
                values[name] = System.load(Path(folder) / name, device=device)
            system = kind(**values, device=device)
            system.restore(load_file(Path(folder) / WEIGHTS), manifest["about"])
            system.heldout_, system.learned_from_ = _typed(manifest["heldout"]), _typed(manifest["learned_from"])
        except RetrodictError:
            raise
        except Exception as error:  # what a damaged file makes of it has no end; the sentence is the same
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise DataError(f"{folder} is damaged or was written by another version of retrodict ({reason}).") from error
        return system


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """What stands in a saved system's manifest; raises DataError where the folder holds none."""
    path = Path(folder) / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        if not isinstance(manifest["system"], str):
            raise TypeError("the name of the system is no text")
    except FileNotFoundError:
        raise DataError(f"{folder} holds no saved system: {MANIFEST} is missing.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}: {error}).") from None
    return manifest


def refuse_nan(recordings: Recordings, name: str) -> None:
    """Raise DataError naming the first episode and step at which a feature is not finite, gaps declared by `valid.*` aside."""
    for episode in recordings:
        values = np.asarray(episode[name]).reshape(episode.length, -1)
        bad = ~np.isfinite(values).all(1) & episode.there(name)
        if bad.any():
            raise DataError(f"{episode}: {name!r} is not finite at step {int(bad.argmax())}; mend or drop it, or {MARKING}.")


def refuse_gaps(recordings: Recordings, name: str, who: str) -> None:
    """Raise DataError naming the first episode and step at which a feature is missing, as its `valid.<name>` says."""
    for episode in recordings:
        if VALID + name in episode and not (there := episode.there(name)).all():
            raise DataError(
                f"{episode}: {name!r} is missing at step {int((~there).argmax())} ({(~there).sum()} of {len(there)} in all), and "
                f"{who} reads series without gaps: recordings.unbroken({name!r}) gives the stretches between them."
            )


def roles_of(system: type[System]) -> tuple[str, ...]:
    """Names of the roles that a system class plays."""
    return tuple(role.__name__ for role in ROLES if issubclass(system, role))


def identities(recordings: Recordings) -> tuple[tuple[str, int], ...]:
    """Identities of the episodes, each once, in order."""
    return tuple(sorted({episode.identity for episode in recordings}))


def _typed(value: Any) -> Any:
    """JSON knows no tuples: a list goes back as a tuple, which is what immutable hyperparameters are."""
    return tuple(_typed(entry) for entry in value) if isinstance(value, list) else value


def _jsonable(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, (np.integer, np.floating)):
        return value.item()
    raise DataError(f"a hyperparameter of type {type(value).__name__} cannot be saved; numbers, text, lists and mappings can.")
