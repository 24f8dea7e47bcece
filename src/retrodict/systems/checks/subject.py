"""A system under test, and what checks have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from retrodict.errors import RetrodictError
from retrodict.systems.checks.answers import ContractBroken, answers, expect
from retrodict.systems.checks.tiny import candidates
from retrodict.systems.contract import System
from retrodict.trajectories import Recordings

Check = Callable[["Subject"], None]
CHECKS: dict[str, Check] = {}
"""Every check, by name."""


def check(function: Check) -> Check:
    """Register a check under its name."""
    CHECKS[function.__name__] = function
    return function


@dataclass
class Subject:
    """A system under test, fitted once for all checks that only ask it."""

    system: System
    given: Recordings | None
    folder: Path

    def run(self, name: str) -> None:
        """Run one check; whatever goes wrong in it becomes one ContractBroken that names system and check."""
        try:
            CHECKS[name](self)
        except Exception as error:
            kind = "" if isinstance(error, ContractBroken) else f"{type(error).__name__}: "
            raise ContractBroken(
                f"{self.system.card.slug} breaks the contract in {name!r}: {kind}{' '.join(str(error).split())}"
            ) from error

    def fresh(self, **changes: Any) -> Any:
        """An unfitted copy, on the CPU."""
        return dataclasses.replace(self.system, **{"device": "cpu", **changes})

    @cached_property
    def suitable(self) -> dict[str, Recordings]:
        """The kinds of recordings that the system accepts."""
        if self.given is not None:
            return {"given": self.given}
        found = {}
        for kind, recordings in candidates().items():
            try:
                self.fresh().fit(recordings)
            except RetrodictError as error:
                one_sentence(error, f"refusing tiny recordings ({kind})")
            else:
                found[kind] = recordings
        expect(bool(found), "it accepts none of the tiny recordings; give check_system recordings that it can learn from.")
        return found

    @property
    def recordings(self) -> Recordings:
        return next(iter(self.suitable.values()))

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self.fresh().inputs(self.recordings.visible()))

    @cached_property
    def fitted(self) -> Any:
        return self.fresh().fit(self.recordings)

    @cached_property
    def saved(self) -> Path:
        return Path(self.fitted.save(self.folder / "saved"))

    def refuses(self, recordings: Any, what: str) -> None:
        """Fitting on these must raise one clear sentence."""
        refused(lambda: self.fresh().fit(recordings), what)


def one_sentence(error: Exception, what: str) -> None:
    """Make sure that an error is one that a user can read."""
    text = str(error)
    expect(
        isinstance(error, RetrodictError), f"{what} ended in a {type(error).__name__} ({text[:200]!r}), not in a RetrodictError."
    )
    expect(
        bool(text) and "\n" not in text and len(text) < 600, f"{what} raised a message that is not one sentence: {text[:200]!r}."
    )


def refused(action: Callable[[], Any], what: str, kind: type[Exception] = RetrodictError) -> None:
    """Make sure that something raises one clear sentence."""
    try:
        action()
    except ContractBroken:
        raise
    except Exception as error:
        one_sentence(error, what)
        expect(isinstance(error, kind), f"{what} raised {type(error).__name__}, expected {kind.__name__}.")
    else:
        raise ContractBroken(f"{what} was accepted; one sentence that refuses it was expected.")


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> str | None:
    """The first name at which two sets of tensors differ in a bit, None where they are equal."""
    if one.keys() != other.keys():
        return str(sorted(one.keys() ^ other.keys()))
    return next((name for name in one if not torch.equal(one[name].cpu(), other[name].cpu())), None)


def differs(one: Any, other: Any, recordings: Recordings) -> str | None:
    """Where two fitted systems differ, in what they learned or in what they answer; None where they do not."""
    return same(one.state()[0], other.state()[0]) or same(answers(one, recordings), answers(other, recordings))
