"""Asking a system in every role it plays, and looking whether the answer has the form that the role promises."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retrodict import roles
from retrodict.errors import RetrodictError
from retrodict.systems.contract import System
from retrodict.training.randomness import isolated
from retrodict.trajectories import Recordings
from retrodict.trajectories.features import ACTION, WEIGHT

BATCH, HORIZON, SAMPLES = 4, 2, 3


class ContractBroken(AssertionError):
    """A system does not keep the contract; the message says which part of it."""


def expect(holds: bool, sentence: str) -> None:
    """Raise ContractBroken where something does not hold."""
    if not holds:
        raise ContractBroken(sentence)


@dataclass(frozen=True)
class Question:
    """A role method with something to ask it.

    Attributes:
        method: its name.
        ask: from named tensors to what it answers, as named tensors, once the form of the answer was looked at.
        given: what it is asked with.
        optional: names that may be left out.
        named: True where the method itself takes named tensors, so that names, shapes and dtypes are its to refuse.
    """

    method: str
    ask: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
    given: Mapping[str, Tensor]
    optional: tuple[str, ...] = ()
    named: bool = True


def answers(system: System, recordings: Recordings) -> dict[str, Tensor]:
    """What a fitted system answers in each of its roles, by `method.name`, on the CPU; the same draws every time.

    A copy is asked, as a policy remembers what it saw and drew.
    """
    said = {}
    for question in questions(copy.deepcopy(system), recordings):
        with isolated(0):
            for name, value in question.ask(question.given).items():
                said[f"{question.method}.{name}"] = value.detach().cpu()
    return said


def questions(system: System, recordings: Recordings) -> Iterator[Question]:
    """What can be asked of a fitted system about recordings like those it learned from."""
    for role, make in ASKED.items():
        if isinstance(system, role):
            yield from make(system, recordings)


def _window(system: Any, recordings: Recordings) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    return recordings.windows(system.reads, BATCH, seed=0).at(0), system.reads.optional


def _observation(recordings: Recordings) -> dict[str, Tensor]:
    """One step of the first episodes, as worlds played side by side would show it."""
    names = [name for name in recordings.features if name.startswith("observation.")]
    episodes = [episode for episode in recordings if all(name in episode for name in names)][:BATCH]
    made = {}
    for name in names:
        values = torch.from_numpy(np.stack([episode.read(name, np.array([2]))[0] for episode in episodes]))
        made[name] = values.movedim(-1, 1) if recordings.features[name].is_visual else values
    return made


def _inverse_model(system: Any, recordings: Recordings) -> Iterator[Question]:
    window, optional = _window(system, recordings)
    size, steps = window["mask"].shape
    width = system.latent_width or (recordings.actions.width if recordings.actions is not None else -1)

    def ask(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        inferred = system.infer(given)
        action, sure = inferred.action, inferred.confidence
        expect(isinstance(inferred, roles.Inferred), f"infer returned {type(inferred).__name__} where Inferred is promised.")
        expect(
            tuple(action.shape) == (size, steps, width),
            f"infer gave actions of shape {list(action.shape)} where (B, T, width) = {[size, steps, width]} is promised.",
        )
        expect(
            tuple(sure.shape) == (size, steps) and bool(((sure >= 0) & (sure <= 1)).all()),
            f"infer gave confidences of shape {list(sure.shape)}, {sure.min():.3g} to {sure.max():.3g}, "
            f"where (B, T) = {[size, steps]} in [0, 1] is promised.",
        )
        expect(bool(torch.isfinite(action).all()), "infer gave actions that are not finite.")
        expect(len(range(steps)[system.keeps]) > 0, f"keeps = {system.keeps} keeps no step of a window of {steps}.")
        return {"action": action, "confidence": sure, **inferred.extras}

    yield Question("infer", ask, window, optional)


def _encoder(system: Any, recordings: Recordings) -> Iterator[Question]:
    window, optional = _window(system, recordings)
    size, steps = window["mask"].shape

    def ask(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        code = system.encode(given)
        stepwise = system.grain in ("frame", "step")
        dimensions = 3 if stepwise or system.grain == "set" else 2
        fits = code.ndim == dimensions and len(code) == size and (not stepwise or code.shape[1] == steps)
        expect(fits, f"encode gave shape {list(code.shape)}, which is not that of grain {system.grain!r} for {[size, steps]}.")
        expect(bool(torch.isfinite(code.float()).all()), "encode gave values that are not finite.")
        return {"code": code}

    yield Question("encode", ask, window, optional)


def _policy(system: Any, recordings: Recordings) -> Iterator[Question]:
    observation = _observation(recordings)
    size = len(next(iter(observation.values())))
    width = recordings.actions.width if recordings.actions is not None else -1

    def ask(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        system.reset()
        taken = [system.act(given)]
        taken.append(system.act(given))
        system.reset(torch.arange(size) % 2 == 0)
        taken.append(system.act(given))
        for action in taken:
            expect(
                tuple(action.shape) == (size, width) and bool(torch.isfinite(action).all()),
                f"act gave shape {list(action.shape)} where finite actions (B, width) = {[size, width]} are promised.",
            )
        return {str(i): action for i, action in enumerate(taken)}

    yield Question("act", ask, observation)


def _forward_model(system: Any, recordings: Recordings) -> Iterator[Question]:
    given, optional = _window(system, recordings) if hasattr(system, "reads") else (_observation(recordings), ())
    size = len(next(iter(given.values())))
    episode = next((e for e in recordings if ACTION in e), None)
    actions = None
    if system.latent_width:
        actions = torch.linspace(-1, 1, size * HORIZON * system.latent_width).view(size, HORIZON, -1)
    elif episode is not None:
        actions = torch.from_numpy(np.asarray(episode[ACTION][:HORIZON])).expand(size, -1, -1)

    def ask(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        prediction = system.predict(given, actions, HORIZON, SAMPLES)
        for name, value in prediction.values.items():
            promised = (size, SAMPLES, HORIZON // prediction.every)
            expect(
                tuple(value.shape[:3]) == promised,
                f"predict gave {name!r} of shape {list(value.shape)}, not (B, samples, horizon, ...) of {list(promised)}.",
            )
        return dict(prediction.values)

    yield Question("predict", ask, given, optional)


def _law(system: Any, recordings: Recordings) -> Iterator[Question]:
    start = system.start(recordings)[:BATCH]

    def ask(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        x = given["start"]
        z = system.embed(x)
        d = z.shape[-1]
        after, slope = system.step(z), system.jacobian(z)
        path = system.simulate(x, torch.arange(HORIZON + 1) * system.dt)
        for name, value, shape in (
            ("embed", z, (len(x), d)),
            ("observe", system.observe(z), tuple(x.shape)),
            ("step", after, (len(x), d)),
            ("jacobian", slope, (len(x), d, d)),
            ("simulate", path, (len(x), HORIZON + 1, x.shape[-1])),
        ):
            expect(tuple(value.shape) == shape, f"{name} gave shape {list(value.shape)} where {list(shape)} is promised.")
        return {"step": after, "jacobian": slope, "simulate": path}

    yield Question("step", ask, {"start": start}, named=False)


def _generator(system: Any, recordings: Recordings) -> Iterator[Question]:
    if system.asks is None:
        yield Question("sample", lambda given: dict(system.sample(BATCH)), {}, named=False)
        return
    window = recordings.windows(system.asks, BATCH, seed=0).at(0)
    yield Question("sample", lambda given: dict(system.sample(len(window["mask"]), given)), window, system.asks.optional)


def _curator(system: Any, recordings: Recordings) -> Iterator[Question]:
    def ask(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        weighed = system.weigh(recordings)
        weights = torch.from_numpy(np.concatenate([np.asarray(episode[WEIGHT]).reshape(-1) for episode in weighed]))
        expect(len(weights) == recordings.steps, f"weigh gave {len(weights)} weights for {recordings.steps} steps.")
        expect(bool(((weights >= 0) & (weights <= 1)).all()), "weigh gave weights outside [0, 1].")
        return {"weight": weights}

    yield Question("weigh", ask, {}, named=False)


def _analysis(system: Any, recordings: Recordings) -> Iterator[Question]:
    if system.example(recordings) is None:
        return

    def ask(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        report = system.analyse(system.example(_once_more(recordings)))
        expect(isinstance(report, roles.Report), f"analyse returned {type(report).__name__} where Report is promised.")
        numbers = torch.tensor(list(report.values.values()), dtype=torch.float64)
        expect(len(numbers) > 0 and not bool(numbers.isnan().any()), f"analyse gave no values or NaN: {dict(report.values)}.")
        sentences = bool(report.findings) and all(f.endswith(".") and "\n" not in f for f in report.findings)
        expect(sentences, f"analyse found {report.findings} where one sentence or more are promised.")
        lengths = {name: len(column) for name, column in report.table.items()}
        expect(len(set(lengths.values())) <= 1, f"analyse gave a table of unequal columns: {lengths}.")
        for name, (x, y) in [pair for panel in report.panels for pair in (*panel.lines.items(), *panel.marks.items())]:
            expect(np.shape(x) == np.shape(y) and np.ndim(x) == 1, f"{name!r} draws {np.shape(y)} over {np.shape(x)}.")
        report.plot()
        try:
            system.analyse(3)
        except RetrodictError:
            return {"values": numbers}
        raise ContractBroken("analyse accepted the number 3 as its subject.")

    yield Question("analyse", ask, {}, named=False)


def _once_more(recordings: Recordings) -> Recordings:
    """The same episodes as if they had been recorded again: an analysis may refuse what taught it."""
    rng = np.random.default_rng(0)
    for name, feature in recordings.features.items():
        if name.startswith("observation.") and feature.dtype.startswith("float"):
            given = [np.asarray(episode[name]) if name in episode else None for episode in recordings]
            moved = [None if v is None else v * (1 + 0.01 * rng.normal(size=v.shape)).astype(v.dtype) for v in given]
            recordings = recordings.with_column(name, moved, feature)
    return recordings


ASKED: dict[type, Callable[[Any, Recordings], Iterator[Question]]] = {
    roles.InverseModel: _inverse_model,
    roles.Encoder: _encoder,
    roles.Policy: _policy,
    roles.ForwardModel: _forward_model,
    roles.Law: _law,
    roles.Generator: _generator,
    roles.Curator: _curator,
    roles.Analysis: _analysis,
}

METHODS: dict[type, tuple[str, ...]] = {
    roles.InverseModel: ("infer",),
    roles.Encoder: ("encode",),
    roles.Policy: ("act",),
    roles.ForwardModel: ("predict",),
    roles.Law: ("step", "jacobian"),
    roles.Curator: ("weigh",),
    roles.Analysis: ("analyse",),
}
"""What must say that nothing was fitted yet, whatever it is asked with."""
