"""The one loop: stages of optimiser steps over batches, on any device, that can be killed at any moment and goes on exactly.

Batches and schedules are pure functions of the step, random draws are seeded by (seed, step), and everything else that changes
stands in the checkpoint; so a resumed run on a CPU ends with bit-equal weights. Nothing in a step waits for the device: losses
stay there until they are logged.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from retrodict.errors import DataError, RetrodictError
from retrodict.training.checkpoint import Checkpoints
from retrodict.training.course import Course
from retrodict.training.devices import fabric_for, meeting, share, starts_processes
from retrodict.training.identity import claim
from retrodict.training.journal import Journal
from retrodict.training.progress import Bar
from retrodict.training.randomness import isolated, set_states, states
from retrodict.training.run import Moment, Run
from retrodict.training.stage import Batches, Stage, read_on
from retrodict.training.stopping import Stopping

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Trained:
    """How a training went.

    Attributes:
        steps: optimiser steps done, through all stages and resumptions.
        best: the best judgement of the last stage, None where nothing was validated.
        stopped_early: names of the stages that validation ended before their steps were done.
        resumed_at: the step from which this process went on; 0 where it began anew.
    """

    steps: int
    best: float | None = None
    stopped_early: tuple[str, ...] = ()
    resumed_at: int = 0


def train(
    net: nn.Module,
    batches: Batches,
    stages: Sequence[Stage],
    run: Run | None = None,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    identity: Mapping[str, Any] | None = None,
) -> Trained:
    """Train a net, in place, through stages; it is left on the device and in evaluation mode.

    Args:
        net: what is trained.
        batches: named tensors with a leading batch dimension by step, which depend on nothing else: `Windows`, or a function.
        stages: what is minimised, one after the other.
        run: folder, devices, precision, logging; a folder that holds this training is gone on with. Ctrl-C leaves a checkpoint of
            the last finished step there.
        seed: random draws of a step follow from it and the step alone.
        device: where to train; with `run.devices` above 1, the type of all devices.
        identity: what makes this training itself (hyperparameters, data), as JSON, kept in the folder.

    Raises DataError when the run folder holds another training, or a loss is of the wrong form; RetrodictError naming step and
    term when a loss is not finite.
    """
    run, stages = run or Run(), tuple(stages)
    for stage in stages:
        if any(o.plateau for o in stage.optimisers) and stage.validation is None:
            raise DataError(f"stage {stage.name!r}: a plateau lowers the rate by what validation says, and there is none.")
    if run.precision == "64-true":
        net.double()  # Fabric would do so to its own copy only, where it starts processes
    if run.folder is not None:
        shapes = {name: f"{value.dtype} {list(value.shape)}".removeprefix("torch.") for name, value in net.state_dict().items()}
        claim(run.folder, {**(identity or {}), "seed": seed, "stages": [s.described() for s in stages], "net": shapes})
    fabric = fabric_for(run, torch.device(device), net)
    if not starts_processes(fabric):
        with isolated(seed):
            done: Trained = fabric.launch(partial(_train, net=net, batches=batches, stages=stages, run=run, seed=seed))
    else:
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / "weights.pt"
            work = partial(_train_apart, weights=weights, net=net, batches=batches, stages=stages, run=run, seed=seed)
            with meeting():
                answer = fabric.launch(work)
            if isinstance(answer, RetrodictError):
                raise answer
            done = Trained(**answer)
            net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    net.to(device).eval()
    return done


def _train_apart(fabric: Fabric, weights: Path, net: nn.Module, seed: int, **given: Any) -> dict[str, Any] | RetrodictError:
    """`_train` in a process of its own: weights go back through a file, an error as a value, so that its sentence survives."""
    if fabric.device.type == "cpu":
        torch.set_num_threads(1)  # the thread pool of the process that was forked did not come along; using it would hang
    fabric.barrier()  # where nothing is left to train, one would leave before the others have met it
    try:
        with isolated(seed):
            done = _train(fabric, net, seed=seed, **given)
    except RetrodictError as error:
        return error
    if fabric.is_global_zero:
        torch.save({name: value.cpu() for name, value in net.state_dict().items()}, weights)
    return dict(vars(done))


def _train(fabric: Fabric, net: nn.Module, batches: Batches, stages: tuple[Stage, ...], run: Run, seed: int) -> Trained:
    checkpoints = Checkpoints(run.folder) if run.folder is not None else None
    saved = checkpoints.latest() if checkpoints else None
    first, step, stopped, best = 0, 0, [], None
    if saved is not None:
        first, step, stopped, best = saved["stage"], saved["step"], saved["stopped"], saved["best"]
        net.load_state_dict(saved["net"])
    resumed_at, main = step, fabric.is_global_zero

    with ExitStack() as stack:
        journal = Journal(run.folder, step) if run.folder is not None and main and first < len(stages) else None
        if journal is not None:
            stack.callback(journal.close)
        ahead = sum(stage.steps for stage in stages[first:]) - (saved["course"]["step"] if saved and saved["course"] else 0)
        bar = stack.enter_context(Bar(step + ahead, step, run.progress and main))
        # Several processes would each stop at another step, and wait for each other for ever.
        stopping = stack.enter_context(Stopping(checkpoints is not None and fabric.world_size == 1))

        def keep(stage: int, course: Course | None) -> None:
            if journal is not None:
                journal.flush()
            if checkpoints is not None and main:
                state = {"stage": stage, "step": step, "stopped": stopped, "best": best, "net": net.state_dict()}
                checkpoints.save(step, {**state, "course": course.state_dict() if course else None, "random": states()})

        def note(course: Course, judged: bool) -> None:
            values = course.take_values(step)
            if journal is not None:
                if judged and course.judgement is not None:
                    values["validation"] = course.judgement
                journal.write(step, course.stage.name, values)
            bar.show(course.stage.name, values["loss"], values["rate"], course.judgement)

        for index in range(first, len(stages)):
            stage = stages[index]
            course = Course(fabric, net, stage, seed)
            if index == first and saved is not None and saved["course"]:
                course.load_state_dict(saved["course"])
                set_states(saved["random"])
            feed = read_on(stage.batches or batches, step)
            if isinstance(feed, Generator):
                stack.callback(feed.close)  # a thread that reads ahead ends with the training
            try:
                while not course.over:
                    batch = share(next(feed), fabric.global_rank, fabric.world_size)
                    stopping.begins()
                    terms, norm = course.advance(batch, step)
                    step += 1
                    for callback in run.callbacks if main else ():
                        callback(Moment(step, stage.name, terms, norm, net))
                    judged, due = course.judge(), step % run.checkpoint_every == 0
                    if judged or due or course.over or step % run.log_every == 0 or stopping.asked:
                        note(course, judged)
                    if due and not course.over:
                        course.refuse_broken_weights(step)
                        keep(index, course)
                    bar.advance(step)
                    stopping.ended()
            except KeyboardInterrupt:
                if not stopping.within:
                    course.refuse_broken_weights(step)
                    keep(index, course)
                raise
            course.refuse_broken_weights(step)
            if course.step < stage.steps:
                stopped = [*stopped, stage.name]
                bar.shorten(step + sum(s.steps for s in stages[index + 1 :]))
            best = course.finish()
            keep(index + 1, None)
    return Trained(step, best, tuple(stopped), resumed_at)
