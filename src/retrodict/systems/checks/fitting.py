"""Checks of what a system says of itself, and of how it is fitted."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import numpy as np
import torch

from retrodict.errors import NotFittedError
from retrodict.systems.checks.answers import METHODS, ContractBroken, answers, expect
from retrodict.systems.checks.subject import Subject, check, differs, refused, same
from retrodict.systems.contract import System, identities, roles_of
from retrodict.systems.gradient import GradientSystem
from retrodict.training.run import Moment, Run
from retrodict.trajectories import Feature
from retrodict.trajectories.columns import Slice


@check
def card_is_complete(subject: Subject) -> None:
    card = subject.system.card
    for name in ("slug", "title", "authors", "reads", "returns", "claim"):
        expect(bool(str(getattr(card, name)).strip()), f"its card says nothing under {name!r}.")
    expect(
        re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", card.slug) is not None, f"the slug {card.slug!r} is not lower case with hyphens."
    )
    expect(1900 < card.year < 2100, f"its card gives the year {card.year}.")
    expect("\n" not in card.claim, "its claim is longer than one line.")
    expect(bool(roles_of(type(subject.system))), "it plays no role.")
    expect(bool((type(subject.system).__doc__ or "").strip()), "it has no docstring.")


@check
def hyperparameters_are_json(subject: Subject) -> None:
    def plain(value: Any) -> Any:
        if isinstance(value, System):
            return value.hyperparameters()
        raise ContractBroken(f"a hyperparameter holds {value!r}, which JSON cannot.")

    json.dumps(subject.system.hyperparameters(), default=plain, allow_nan=False)


@check
def asking_before_fit_says_so(subject: Subject) -> None:
    system = subject.fresh()
    expect(not system.is_fitted, "a new instance calls itself fitted.")
    for role, methods in METHODS.items():
        for method in methods if isinstance(system, role) else ():
            refused(lambda method=method: getattr(system, method)({}), f"{method} before fit", NotFittedError)  # type: ignore[misc]
    refused(lambda: system.save(subject.folder / "unfitted"), "save before fit", NotFittedError)
    expect(not (subject.folder / "unfitted").exists(), "save before fit left a folder behind.")


@check
def fits_and_answers(subject: Subject) -> None:
    for kind, recordings in subject.suitable.items():
        system, before = subject.fresh(), subject.fresh()
        expect(system.fit(recordings) is system, "fit does not return the system itself.")
        expect(system.is_fitted, "fit leaves the system unfitted.")
        expect(system == before, "fit changes a hyperparameter.")
        try:
            answers(system, recordings)
        except ContractBroken as error:
            raise ContractBroken(f"{error} (fitted on {kind})") from error


@check
def says_which_episodes_taught_it(subject: Subject) -> None:
    known = set(identities(subject.recordings))
    learned, heldout = set(subject.fitted.learned_from_), set(subject.fitted.heldout_)
    expect(bool(learned) and learned <= known, "learned_from_ is not a part of the episodes it was given.")
    expect(
        heldout <= known and not heldout & learned, "heldout_ is not apart from learned_from_, within the episodes it was given."
    )


@check
def repeats_under_a_seed(subject: Subject) -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 -- the global generators must make no difference
    again = subject.fresh().fit(subject.recordings)
    where = differs(again, subject.fitted, subject.recordings)
    expect(where is None, f"two fits with one seed differ in {where}.")
    if isinstance(again, GradientSystem):  # a system of pure mathematics may have nothing to draw
        other = subject.fresh(seed=again.seed + 1).fit(subject.recordings)
        expect(same(other.state()[0], again.state()[0]) is not None, "another seed makes no difference.")


@check
def resumes_after_an_interruption(subject: Subject) -> None:
    if not isinstance(subject.system, GradientSystem):
        return

    def interrupt(moment: Moment) -> None:
        if moment.step == 2:
            raise KeyboardInterrupt

    run = Run(subject.folder / "run", checkpoint_every=1, progress=False)
    try:
        subject.fresh().fit(subject.recordings, run=dataclasses.replace(run, callbacks=(interrupt,)))
    except KeyboardInterrupt:
        pass
    else:
        raise ContractBroken("a fit of two steps or fewer cannot be interrupted; give check_system one with more.")
    resumed = subject.fresh().fit(subject.recordings, run=run)
    expect(resumed.trained_.resumed_at > 0, "a fit with the same folder began anew.")
    where = differs(resumed, subject.fitted, subject.recordings)
    expect(where is None, f"a fit that was interrupted and resumed differs in {where}.")


@check
def cannot_read_what_is_privileged(subject: Subject) -> None:
    for column, what in ((_Forbidden(), "reading raises"), (_Other(), "values are others")):
        episodes = tuple(
            dataclasses.replace(e, slices={**e.slices, "privileged.truth": Slice(column), "privileged.more": Slice(column)})
            for e in subject.recordings
        )
        features = {
            **subject.recordings.features,
            **dict.fromkeys(("privileged.truth", "privileged.more"), Feature("float32", (5,))),
        }
        hidden = dataclasses.replace(subject.recordings, episodes=episodes, features=features)
        where = differs(subject.fresh().fit(hidden), subject.fitted, subject.recordings)
        expect(where is None, f"with privileged.* whose {what} it learns something else ({where}).")


class _Forbidden:
    """A column that must not be read."""

    def __len__(self) -> int:
        return 10**6

    def take(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        raise ContractBroken("it read a privileged.* feature.")


class _Other(_Forbidden):
    """A column with values unlike any other."""

    def take(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        return np.random.default_rng(7).normal(size=(len(rows), 5)).astype(np.float32)
