"""What a labelling is asked to do, checked before anything is read or written."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from retrodict.errors import DataError
from retrodict.files import named
from retrodict.labelling.conformal import CannotPromise, check_share, fewest
from retrodict.labelling.heldout import held_out, used_up
from retrodict.labelling.shards import Shards
from retrodict.roles import InverseModel
from retrodict.systems import System, roles_of
from retrodict.trajectories import ActionSpace, Episode, Recordings
from retrodict.trajectories.alignment import check_alignment
from retrodict.trajectories.features import ACTION
from retrodict.trajectories.fingerprint import fingerprint
from retrodict.trajectories.stores.lerobot.labels import Emit

SAME_RATE = 1e-3


@dataclass(frozen=True)
class Job:
    """A labelling that can be done.

    Attributes:
        recordings: what to label.
        model: a fitted inverse model (a `System` that is an `InverseModel`, which no type can say).
        actions: what the labels mean.
        held: episodes to calibrate on; may be none.
        targets: positions of the episodes without actions.
        out: the dataset to write, None in memory.
        shards: where labels lie until then.
        max_error, emit, tolerance, batch: as asked.
        hash: of the model.
        notes: sentences on what may be wrong with the recordings.
    """

    recordings: Recordings
    model: Any
    actions: ActionSpace
    held: Recordings
    targets: tuple[int, ...]
    out: Path | None
    shards: Shards
    max_error: float | None
    emit: Emit
    tolerance: float
    batch: int
    hash: str
    notes: tuple[str, ...]


def prepare(
    recordings: Recordings,
    model: System,
    *,
    out: Path | None,
    max_error: float | None,
    emit: Emit | None,
    calibration: Recordings | None,
    tolerance: float,
    batch: int,
    overwrite: bool,
) -> Job:
    """Check what is asked for; raises DataError in one sentence where it cannot be done."""
    if not (isinstance(model, System) and isinstance(model, InverseModel)):
        played = ", ".join(roles_of(type(model))) if isinstance(model, System) else type(model).__name__
        raise DataError(f"labelling takes a fitted inverse model; this is a {played or 'system without a role'}.")
    model.check_fitted()
    if model.latent_width:
        raise DataError(
            f"{model.card.slug} infers codes of its own, {model.latent_width} numbers that are no actions; label with a model "
            "that learns from actions, which may look through this one as its encoder."
        )
    emit = emit or ("all" if max_error is None else "split")
    if emit not in get_args(Emit):
        raise DataError(f"emit is {emit!r}; {', '.join(get_args(Emit))} are known.")
    if max_error is not None:
        check_share(max_error)
    if max_error is not None and emit == "all":
        raise DataError("emit='all' withholds no label, so max_error would mean nothing; emit 'split' or 'weight'.")
    if batch < 1 or not 0 < tolerance <= 1:
        raise DataError(f"batch is 1 or more windows, and tolerance a share above 0 and up to 1; got {batch} and {tolerance:g}.")
    targets = unlabelled(recordings)
    beside = None if out is None else named(out).with_name(f"{named(out).name}.labelling")
    taken = out is not None and out.exists() and (not out.is_dir() or any(out.iterdir()))
    if taken and not overwrite and not (beside is not None and beside.exists()):
        raise DataError(
            f"{out} exists already; name another folder, or say overwrite=True, on the command line --overwrite, to replace it."
        )
    names = [name for name in model.reads.spans if name not in model.reads.optional]
    held = held_out(recordings, model, calibration, names)
    fresh = len({episode.identity for episode in held})
    if max_error is not None and fresh < fewest(max_error):
        raise CannotPromise(
            f"max_error={max_error:g} takes {fewest(max_error)} or more labelled episodes that the model never met, there "
            f"{'is' if fresh == 1 else 'are'} {fresh}: {used_up(recordings if calibration is None else calibration, model)}."
        )
    spec = getattr(model, "spec_", None)
    code = model_hash(model)
    identity: dict[str, Any] = {}
    if beside is not None:
        identity = {"model": f"{model.card.slug} {code}", "batch": batch}
        identity |= {"recordings": fingerprint(recordings), "held_out": fingerprint(held)}
    notes = (check_alignment(recordings if calibration is None else held), _other_rate(spec and spec.fps, recordings.fps))
    return Job(
        recordings=recordings,
        model=model,
        actions=_space(recordings, spec and spec.actions, calibration),
        held=held,
        targets=targets,
        out=out,
        shards=Shards(beside, identity),
        max_error=max_error,
        emit=emit,
        tolerance=tolerance,
        batch=batch,
        hash=code,
        notes=tuple(note for note in notes if note),
    )


def unlabelled(recordings: Recordings) -> tuple[int, ...]:
    """Positions of the episodes that lack actions, all or some; raises DataError where there is none."""
    targets = tuple(i for i, episode in enumerate(recordings) if lacking(episode).any())
    if not targets:
        raise DataError(f"all {len(recordings)} episodes carry actions already; there is nothing to label.")
    return targets


def lacking(episode: Episode) -> np.ndarray:
    """Which steps (T,) of an episode have no action, or one that is marked as missing (`valid.action`)."""
    return ~episode.there(ACTION) if ACTION in episode else np.ones(episode.length, bool)


def model_hash(model: System) -> str:
    """SHA-256 of what a model learned and of its settings, in hexadecimal; equal models have equal hashes, saved or not."""
    tensors, about = model.state()
    settings = [model.card.slug, model.hyperparameters(), about]
    sha = hashlib.sha256(json.dumps(settings, default=str, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def _space(recordings: Recordings, learned: ActionSpace | None, calibration: Recordings | None) -> ActionSpace:
    said = recordings.actions or learned or (calibration.actions if calibration is not None else None)
    if said is None:
        raise DataError("neither the recordings nor the model say what an action is; give recordings with an action space.")
    if learned is not None and said.parts != learned.parts:
        raise DataError(f"the model learned the actions {learned}, these recordings have {said}.")
    return said


def _other_rate(learned: float | None, given: float | None) -> str | None:
    if learned and given and abs(learned - given) > SAME_RATE * learned:
        return (
            f"the model learned at {learned:g} steps per second, these recordings have {given:g}: its actions mean other spans."
        )
    return None
