"""A stage under way: its optimisers, its averaged weights, and what validation has said so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from retrodict.errors import DataError, RetrodictError
from retrodict.training.devices import nothing_to_wrap
from retrodict.training.ema import EMA
from retrodict.training.randomness import mixed, seed_step
from retrodict.training.stage import Batch, Objective, Stage, check_terms
from retrodict.training.validation import Slowdown, Watch

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Course:
    """One stage of a training, step by step.

    Attributes:
        step: steps of this stage that are done.
        judgement: what validation said last, None before it spoke.
    """

    def __init__(self, fabric: Fabric, net: nn.Module, stage: Stage, seed: int) -> None:
        self.fabric, self.net, self.stage, self.seed = fabric, net, stage, seed
        self.step = 0
        self.judgement: float | None = None
        moved = [optimiser.of(net) for optimiser in stage.optimisers]
        self._asked = [(p, p.requires_grad) for p in net.parameters()]
        moving = {id(p) for group in moved for p in group}
        for parameter, _ in self._asked:
            parameter.requires_grad_(id(parameter) in moving)
        net.train()
        objective = Objective(net, stage.loss).train()
        built = [optimiser.build(group) for optimiser, group in zip(stage.optimisers, moved, strict=True)]
        # On one device in full precision Fabric's wrappers pass everything on, and a small net is done before they are.
        self._bare = nothing_to_wrap(fabric)
        self._objective: Any = objective.to(fabric.device) if self._bare else fabric.setup_module(objective)
        self._optimizers: list[Any] = built if self._bare else [fabric.setup_optimizers(optimizer) for optimizer in built]
        self._built = built
        if fabric.strategy.precision.precision == "16-mixed" and len(moved) > 1:
            raise DataError("16-mixed scales the loss for one optimiser and there are several; choose bf16-mixed or 32-true.")
        self._moved = moved
        self._all: list[Tensor] = [p for p in net.parameters() if id(p) in moving]
        self._ema = EMA(net, stage.ema) if stage.ema is not None else None
        self._watch = Watch(stage.validation) if stage.validation else None
        self._slow = {
            i: Slowdown(o.plateau.factor, o.plateau.patience, o.plateau.minimum)
            for i, o in enumerate(stage.optimisers)
            if o.plateau
        }
        self._names: tuple[str, ...] = ()
        self._rows: list[Tensor] = []
        self._device = fabric.device

    # ---- training -----------------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        return self.step >= self.stage.steps or (self._watch is not None and self._watch.exhausted)

    def advance(self, batch: Batch, step: int) -> tuple[dict[str, Tensor], Tensor]:
        """One step of all optimisers, `step` being that of the whole training; the terms and the norm of the gradient."""
        fabric, stage = self.fabric, self.stage
        if self._device.type != "cpu":
            batch = fabric.to_device(batch)
        if stage.augment is not None:
            generator = torch.Generator(self._device).manual_seed(mixed(self.seed, step, fabric.global_rank, 1))
            batch = stage.augment(batch, generator)
        for i, (optimiser, optimizer) in enumerate(zip(stage.optimisers, self._built, strict=True)):
            optimiser.set(optimizer, self.step, self._slow[i].factor if i in self._slow else 1.0)
        first: dict[str, Tensor] = {}

        def evaluate() -> Tensor:
            seed_step(self._device, self.seed, step, fabric.global_rank)
            for parameter in self._all:
                parameter.grad = None
            terms: dict[str, Tensor] = self._objective(batch, self.step)
            if not self._names:
                check_terms(terms, stage.name)
                self._names = tuple(terms)
            total: Tensor = sum(terms.values())  # type: ignore[assignment]
            if self._bare:
                total.backward()  # type: ignore[no-untyped-call]
            else:
                fabric.backward(total)
            first.update({} if first else {name: value.detach() for name, value in terms.items()})
            return total

        if stage.optimisers[0].asks_again:
            self._optimizers[0].step(evaluate)
            norm = self._norm()
        else:
            evaluate()
            norm = self._clip()
            for optimizer in self._optimizers:
                optimizer.step()
        if self._ema is not None:
            self._ema.update(self.step)
        if stage.after is not None:
            stage.after(self.net, self.step)
        self.step += 1
        self._rows.append(torch.stack([*(first[name].reshape(()) for name in self._names), norm]))
        return first, norm

    def _norm(self) -> Tensor:
        grads = [p.grad for p in self._all if p.grad is not None]
        if not grads:
            return torch.zeros((), device=self._device)
        total: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        return total

    def _clip(self) -> Tensor:
        for optimizer in self._built:
            self.fabric.strategy.precision.unscale_gradients(optimizer)
        norm = self._norm()
        if self.stage.clip is not None:
            clip_grads_with_norm_(self._all, self.stage.clip, norm, foreach=True)
        for optimiser, moved in zip(self.stage.optimisers, self._moved, strict=True):
            if optimiser.clip is not None:
                own = get_total_norm([p.grad for p in moved if p.grad is not None], foreach=True)
                clip_grads_with_norm_(moved, optimiser.clip, own, foreach=True)
        return norm

    # ---- judging ------------------------------------------------------------------------------------------------------

    def judge(self) -> bool:
        """Ask validation where it is due; True where it spoke."""
        validation = self.stage.validation
        if validation is None or self._watch is None or (self.step % validation.every and self.step < self.stage.steps):
            return False
        with self._ema.swapped() if self._ema is not None else nullcontext():
            self.net.eval()
            value = validation.measure(self.net, self.step) if self.fabric.is_global_zero else 0.0
            self.judgement = float(self.fabric.broadcast(value))
            self._watch.judged(self.judgement, self.net)
            self.net.train()
        for slow in self._slow.values():
            slow.judged(self.judgement)
        return True

    def take_values(self, step: int) -> dict[str, float]:
        """Means since the last call: every term, their sum, the norm of the gradient; and the rate. Waits for the device.

        Raises RetrodictError when a term is not finite, naming the first such step and its term.
        """
        rows = torch.stack(self._rows)
        self._rows = []
        if self.fabric.world_size > 1:
            rows = torch.as_tensor(
                self.fabric.all_reduce(rows, reduce_op="mean")
            )  # so that all processes stop when one meets NaN
        listed = rows.double().cpu() if rows.device.type != "mps" else rows.cpu().double()
        finite = torch.isfinite(listed[:, : len(self._names)])
        if not finite.all():
            row = int((~finite.all(1)).to(torch.int8).argmax())
            term = int((~finite[row]).to(torch.int8).argmax())
            raise RetrodictError(
                f"the loss term {self._names[term]!r} became {float(listed[row, term])} at step {step - len(listed) + 1 + row} "
                f"of stage {self.stage.name!r}; lower the learning rate, clip the gradient, or look at the data of that step."
            )
        *terms, norm = listed.mean(0).tolist()
        values = {"loss": sum(terms)}
        if len(terms) > 1:
            values |= {f"loss.{name}": value for name, value in zip(self._names, terms, strict=True)}
        values["gradient_norm"] = norm
        for i, optimizer in enumerate(self._built):
            values["rate" if i == 0 else f"rate.{i}"] = float(optimizer.param_groups[0]["lr"])
        return values

    def refuse_broken_weights(self, step: int) -> None:
        """Raise RetrodictError when a weight is not finite, so that no checkpoint and no finished net carries one."""
        largest = torch._foreach_norm(self._all, math.inf)
        if not torch.isfinite(torch.stack([value.float() for value in largest])).all():
            raise RetrodictError(
                f"the weights were not finite any more after step {step} of stage {self.stage.name!r}, though the loss was; "
                "lower the learning rate or clip the gradient."
            )

    def finish(self) -> float | None:
        """End the stage: the best, averaged or last weights stay in the net. Returns the best judgement, if any."""
        if self._watch is not None and self._watch.weights is not None:
            self.net.load_state_dict(self._watch.weights)
        elif self._ema is not None:
            self.net.load_state_dict(self._ema.module.state_dict())
        for parameter, asked in self._asked:
            parameter.requires_grad_(asked)
            parameter.grad = None
        return self._watch.best if self._watch is not None else None

    # ---- checkpoints --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "optimisers": [optimizer.state_dict() for optimizer in self._optimizers],
            "ema": self._ema.module.state_dict() if self._ema is not None else None,
            "watch": self._watch.state_dict() if self._watch is not None else None,
            "slow": {i: slow.state_dict() for i, slow in self._slow.items()},
            "precision": self.fabric.strategy.precision.state_dict(),
            "judgement": self.judgement,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        self.step, self.judgement = saved["step"], saved["judgement"]
        for optimizer, state in zip(self._optimizers, saved["optimisers"], strict=True):
            optimizer.load_state_dict(state)
        if self._ema is not None:
            self._ema.module.load_state_dict(saved["ema"])
        if self._watch is not None:
            self._watch.load_state_dict(saved["watch"])
        for i, state in saved["slow"].items():
            self._slow[i].load_state_dict(state)
        self.fabric.strategy.precision.load_state_dict(saved["precision"])
