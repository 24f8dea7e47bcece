"""Checks that bad input is refused in one clear sentence, by `fit` and by role methods."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from retrodict.roles import InverseModel, Policy
from retrodict.systems.checks.answers import Question, expect, questions
from retrodict.systems.checks.subject import Subject, check, one_sentence, refused
from retrodict.trajectories import Box, Feature
from retrodict.trajectories.features import ACTION, VALID


@check
def refuses_empty_recordings(subject: Subject) -> None:
    subject.refuses(dataclasses.replace(subject.recordings, episodes=()), "fitting on no episodes")
    subject.refuses([], "fitting on a list")


@check
def refuses_missing_features(subject: Subject) -> None:
    subject.refuses(subject.recordings.without(*subject.inputs), f"fitting without {', '.join(subject.inputs)}")
    for name in subject.inputs:
        try:
            subject.fresh().fit(subject.recordings.without(name))
        except Exception as error:  # where it can do without, that is well
            one_sentence(error, f"fitting without {name!r}")


@check
def refuses_nan(subject: Subject) -> None:
    if subject.system.card.missing != "refused":
        return
    for name in subject.inputs:
        if subject.recordings.features[name].dtype.startswith("float"):
            values = [np.array(episode[name]) if name in episode else None for episode in subject.recordings]
            next(v for v in reversed(values) if v is not None)[2] = np.nan
            subject.refuses(subject.recordings.with_column(name, values), f"fitting with NaN in {name!r}")


@check
def refuses_gaps_it_takes_no_notice_of(subject: Subject) -> None:
    for name in (name for name in subject.inputs if name not in subject.system.gaps):
        there = [np.ones((episode.length, 1), bool) if name in episode else None for episode in subject.recordings]
        next(t for t in reversed(there) if t is not None)[2] = False
        marked = subject.recordings.with_column(VALID + name, there, Feature("bool", (1,)))
        subject.refuses(marked, f"fitting with a gap in {name!r}")


@check
def refuses_actions_outside_their_range(subject: Subject) -> None:
    space = subject.recordings.actions
    if not isinstance(subject.system, (InverseModel, Policy)) or ACTION not in subject.inputs or space is None:
        return
    for name, part in space.parts.items():
        if isinstance(part, Box) and part.high is not None and part.quantiser is None:
            values = [np.array(episode[ACTION]) if ACTION in episode else None for episode in subject.recordings]
            next(v for v in reversed(values) if v is not None)[2, space.slices[name].start] = part.high + (part.span or 1)
            wild = subject.recordings.with_column(ACTION, values, subject.recordings.features[ACTION])
            subject.refuses(wild, f"fitting with {name!r} of an action outside its range")


@check
def refuses_other_dtypes(subject: Subject) -> None:
    for name in subject.inputs:
        feature = subject.recordings.features[name]
        if feature.is_text:
            continue
        frames = [np.asarray(episode[name]) if name in episode else None for episode in subject.recordings]
        if feature.is_visual:
            values = [None if f is None else f.astype(np.float32) / 255 for f in frames]
            subject.refuses(subject.recordings.with_column(name, values), f"fitting with camera frames as floats in {name!r}")
        else:
            texts = [None if f is None else np.full((len(f), 1), "left", object) for f in frames]
            subject.refuses(subject.recordings.with_column(name, texts), f"fitting with text in {name!r}")


@check
def refuses_windows_unlike_those_it_learned_from(subject: Subject) -> None:
    for question in questions(copy.deepcopy(subject.fitted), subject.recordings):
        if question.named:
            _ask_badly(subject, question)


def _ask_badly(subject: Subject, question: Question) -> None:
    def wrong(name: str, change: Callable[[Tensor], Tensor], what: str) -> None:
        given = {**question.given, name: change(question.given[name])}
        refused(lambda: question.ask(given), f"{question.method} with {what} in {name!r}")

    needed = []
    for name in question.given:
        if name.startswith("observation.") and name not in question.optional:
            without = {k: v for k, v in question.given.items() if k != name}
            try:
                question.ask(without)
            except Exception as error:
                one_sentence(error, f"{question.method} without {name!r}")
                expect(name in str(error), f"{question.method} without {name!r} raised a sentence that does not name it: {error}")
                needed.append(name)
    expect(bool(needed), f"{question.method} answers whatever observation is left out.")
    for name in needed:
        visual = subject.recordings.features[name].is_visual
        wrong(name, lambda v: torch.cat([v, v], -1), "another shape")
        wrong(name, lambda v: v[0], "no batch dimension")
        if visual:
            wrong(name, lambda v: v.float() / 255, "camera frames as floats")
        elif question.given[name].is_floating_point():
            wrong(name, lambda v: v.long(), "another dtype")
            if subject.system.card.missing == "refused":
                wrong(name, lambda v: torch.full_like(v, torch.nan), "NaN")
