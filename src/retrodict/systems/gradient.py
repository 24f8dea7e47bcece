"""Systems trained by gradients: they say what they read, their network and their loss; the one training loop does the rest."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from retrodict.errors import DataError
from retrodict.systems.batches import look_over
from retrodict.systems.contract import Spec, System, identities
from retrodict.training.loop import Trained, train
from retrodict.training.optimisers import Optimiser
from retrodict.training.randomness import isolated
from retrodict.training.run import Run
from retrodict.training.schedules import Scalar, schedule
from retrodict.training.stage import Batch, Batches, Stage, read_on
from retrodict.training.validation import Measure, Validation, heldout_loss
from retrodict.trajectories import Recordings, Window
from retrodict.trajectories.fingerprint import fingerprint

HELDOUT_BATCHES = 50
"""Held-out batches judged at a time, drawn once for all: early stopping wants the same question again, not every frame."""


@dataclass
class GradientSystem(System):
    """Base of the systems that are trained by gradients.

    A system supplies `window`, `build` and `loss`, and where it needs them `features`, `prepare`, `augment`, `stages`, `reader`.
    It sets its own defaults for the fields below.

    Attributes:
        steps: optimiser steps.
        batch: windows per step.
        learning_rate: largest rate of AdamW.
        weight_decay: of AdamW.
        warmup: steps in which the rate climbs to `learning_rate`.
        decay: how the rate goes from there to zero, or stays (`constant`).
        clip: largest norm of the gradient.
        ema: momentum of averaged weights, which then are the ones that are kept.
        holdout: share of the episodes put aside to judge by when `fit` is given no validation; 0 puts none aside.
        evaluate_every: steps between judgements on held-out episodes; the best weights are kept.
        patience: judgements without improvement after which training stops; 0 never stops it early.
        spec_: what the network was built for.
        net_: the network, in evaluation mode.
        trained_: how training went, None in a system that was loaded.
        now: the step of the stage under way, for losses whose weights are schedules.
        mixes: False where the numbers need all their digits: a run whose precision is `auto` then does not mix on a GPU.
    """

    mixes: ClassVar[bool] = True

    steps: int = field(default=2000, kw_only=True)
    batch: int = field(default=32, kw_only=True)
    learning_rate: float = field(default=1e-3, kw_only=True)
    weight_decay: float = field(default=0.0, kw_only=True)
    warmup: int = field(default=0, kw_only=True)
    decay: Literal["constant", "linear", "cosine"] = field(default="cosine", kw_only=True)
    clip: float | None = field(default=None, kw_only=True)
    ema: float | None = field(default=None, kw_only=True)
    holdout: float = field(default=0.0, kw_only=True)
    evaluate_every: int = field(default=100, kw_only=True)
    patience: int = field(default=0, kw_only=True)

    spec_: Spec = field(init=False, repr=False, compare=False)
    net_: Any = field(init=False, repr=False, compare=False)  # Any: a ModuleDict, a Sequential, ...: `build` decides
    trained_: Trained | None = field(init=False, repr=False, compare=False)
    now: int = field(default=0, init=False, repr=False, compare=False)

    # ---- what a system supplies ---------------------------------------------------------------------------------------

    @abstractmethod
    def window(self, spec: Spec) -> Window:
        """What training reads around a step; raises DataError where the recordings cannot serve."""

    @abstractmethod
    def build(self, spec: Spec) -> nn.Module:
        """The network for recordings of this kind, freshly initialised; parameters and buffers hold all that is learned."""

    @abstractmethod
    def loss(self, net: Any, batch: Batch) -> Mapping[str, Tensor]:
        """Named scalar terms for a batch of windows on the device; they are summed, and each is logged."""

    def features(self, recordings: Recordings) -> tuple[str, ...]:
        """The features that `window` chooses from: by default everything that is no text."""
        return tuple(name for name, feature in recordings.features.items() if not feature.is_text)

    def prepare(self, recordings: Recordings) -> None:
        """Set statistics of the training episodes (normalisers) in the buffers of `net_`, before training and on the CPU."""

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Change a training batch on the device, drawing from the generator only."""
        return batch

    def stages(self, net: Any) -> tuple[Stage, ...]:
        """What is minimised one after the other; augmentation and validation are added where a stage has none of its own."""
        optimiser = Optimiser(rate=self.scheduled(self.learning_rate), weight_decay=self.weight_decay)
        return (Stage(self.steps, self.stage_loss, (optimiser,), clip=self.clip, ema=self.ema),)

    def reader(self, recordings: Recordings) -> Batches:
        """Batches of the training episodes, or of those it is judged by; override it to leave out, balance or weigh steps."""
        return recordings.windows(self.window(self.spec_), self.batch, seed=self.seed)

    # ---- what every such system does ----------------------------------------------------------------------------------

    def scheduled(self, peak: float, steps: int | None = None) -> Scalar:
        """A learning rate over the steps of a stage (all where None): up to `peak` while it warms up, then as `decay` says."""
        steps = self.steps if steps is None else steps
        return schedule(self.decay, peak, 0.0, steps, min(self.warmup, steps))

    def stage_loss(self, net: nn.Module, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """`loss` in the form that a stage takes; sets `now`."""
        self.now = step
        return self.loss(net, batch)

    def inputs(self, recordings: Recordings) -> tuple[str, ...]:
        spec = self._offered(recordings)
        window = self.window(spec)
        for name in window.spans:
            if name in recordings.features and name not in spec.features:
                raise DataError(f"{self.card.slug} cannot read {name!r}, which holds {recordings.features[name].dtype}.")
        return tuple(name for name in window.spans if name not in window.optional)

    def measure(self, stage: Stage, validation: Recordings) -> Measure:
        """What the net of a stage is judged by on held-out recordings: the stage's loss, if nothing better is known."""
        read = self.reader(validation)  # as in training: what weighs steps there, by drawing or in the loss, does so here
        epoch = len(read) if isinstance(read, Sized) else -(-validation.steps // self.batch)
        count = min(epoch, HELDOUT_BATCHES)
        return heldout_loss(stage.loss, lambda: islice(read_on(read, 0), count), self.torch_device, self.seed)

    def learn(self, recordings: Recordings, world: Any, validation: Recordings | None, run: Run) -> None:
        training = recordings
        if validation is None and self.holdout > 0:
            training, validation = recordings.split(self.holdout, seed=self.seed)
        window = self.window(self._offered(recordings))
        self.spec_ = Spec.of(recordings, tuple(name for name in window.spans if name in recordings.features))
        for name in window.optional:  # `admit` looks at the features that every episode must have
            if name in self.spec_.features:
                self.refuse_unfit(recordings.having(name), (name,))
        with isolated(self.seed):
            self.net_ = self.build(self.spec_)
            self.prepare(training)
        stages = [self._completed(stage, validation) for stage in self.stages(self.net_)]
        if run.precision == "auto" and not self.mixes:
            run = replace(run, precision="32-true")
        self.trained_ = train(
            self.net_,
            self.reader(training),
            stages,
            run,
            seed=self.seed,
            device=self.torch_device,
            identity=self._identity(window, training, validation) if run.folder is not None else None,
        )
        self.learned_from_ = identities(training)
        judged = set() if validation is None else {*identities(validation)}
        self.heldout_ = tuple(sorted(judged - {*self.learned_from_}))  # one that taught it in part is not apart

    def checked(self, batch: Mapping[str, Any], names: Iterable[str] | None = None, *, time: bool = True) -> Batch:
        """What a role method was given, looked over and brought to the device: the first line of `infer`, `encode`, `act`, ...

        Args:
            batch: named tensors (B, T, *shape), camera frames uint8 (B, T, C, H, W); without T where `time` is False.
            names: the features that are read; by default every `observation.*` of the spec. Others pass unlooked at.
            time: whether there is a time dimension.

        Raises NotFittedError before `fit`; DataError when a feature is missing, has another shape or dtype than the recordings
        had that the system learned from, or is not finite.
        """
        self.check_fitted()
        seen = look_over(batch, self.spec_, self.card, names, time=time)
        return {name: value.to(self.torch_device) if isinstance(value, Tensor) else value for name, value in seen.items()}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return self.net_.state_dict(), {"spec": self.spec_.to_json()}

    def restore(self, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
        self.spec_ = Spec.from_json(about["spec"])
        with isolated(self.seed):
            self.net_ = self.build(self.spec_)
        self.net_.load_state_dict(tensors)
        self.net_.to(self.torch_device).eval()
        self.trained_ = None

    # ---- details ------------------------------------------------------------------------------------------------------

    def _offered(self, recordings: Recordings) -> Spec:
        """What `window` may choose from; a feature that is not there is missed when `window` chooses it, by name."""
        return Spec.of(recordings, tuple(name for name in self.features(recordings) if name in recordings.features))

    def _identity(self, window: Window, training: Recordings, validation: Recordings | None) -> dict[str, Any]:
        return {
            "system": self.card.slug,
            "hyperparameters": self._described(),
            "data": fingerprint(training, window.spans),
            "validation": fingerprint(validation, window.spans) if validation is not None else None,
        }

    def _completed(self, stage: Stage, validation: Recordings | None) -> Stage:
        """The stage with augmentation and held-out judgement where it has none of its own."""
        if stage.augment is None and type(self).augment is not GradientSystem.augment:
            stage = replace(stage, augment=self.augment)
        if stage.validation is None and validation is not None:
            stage = replace(stage, validation=Validation(self.measure(stage, validation), self.evaluate_every, self.patience))
        return stage

    def _described(self) -> dict[str, Any]:
        def plain(value: Any) -> Any:
            if isinstance(value, System):
                learned = list(value.learned_from_) if value.is_fitted else None
                return {"system": value.card.slug, "learned_from": learned, **value.hyperparameters()}
            return str(value)

        described: dict[str, Any] = json.loads(json.dumps(self.hyperparameters(), default=plain))
        return described
