"""Batches of windows, gathered by index."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.episodes import Episode
from retrodict.trajectories.features import TASK, VALID, WEIGHT
from retrodict.trajectories.windows import sampling
from retrodict.trajectories.windows.gathering import Reader
from retrodict.trajectories.windows.prefetch import ahead
from retrodict.trajectories.windows.reach import Clock, Reach, reach
from retrodict.trajectories.windows.spans import Reading, Span, Window

if TYPE_CHECKING:
    import torch

    from retrodict.trajectories.recordings import Recordings

Batch = dict[str, Any]
"""Tensors by name, and lists of lists of str for text."""


TOGETHER_BYTES, MOST_TOGETHER = 500_000, 32
"""Batches that are smaller are gathered several at a time, up to about this size, and at most so many."""


class Windows:
    """Batches of windows, each a dict of tensors (B, T, *shape); camera frames are uint8 (B, T, C, H, W), text lists of str.

    Beside the features a batch holds

    - `mask` (B, T): False where the window overran its episode;
    - `mask.<feature>` (B, T): the same for a feature that has its own span, has gaps (`valid.<feature>`, read as zeros) or is
      optional; (B, T, N) for points whose number N differs between episodes, which are padded with zeros;
    - `episode` (B,): position in the recordings; `frame` (B,): the anchor; `domain` (B,): that in `recordings.domains`, or -1;
    - `fraction` (B, T): how far through its episode a step lies, 0 to 1; `first` (B, T): True at the first step of an episode;
    - `stride` (B,) and `reversed` (B,) where strides are drawn and windows may be read backwards.

    The batch at a step is a pure function of the seed and the step, so that a resumed run reads what it would have read.

    Args:
        recordings: episodes to read; those that lack a required feature are left out.
        window: what to read around each anchor.
        batch: windows per batch.
        order: `shuffle` (each anchor once per epoch), `sequence` (in order), or `replacement` (independent draws).
        seed: seed of the order, and of the strides and directions drawn.
        weights: a feature with one weight per step, or one weight per episode; None for equal ones. Anchors of weight 0 are never
            read; where the others differ, anchors are drawn with replacement in proportion. By default `sample.weight`, where
            there is one. Reading in `sequence` takes no notice of weights.
        balance: draw with replacement so that every batch has an equal share of each domain, task or episode.
        where: which steps may be anchors: a boolean feature, or a function from an episode to booleans (T,).
        clips: an epoch visits every episode once and draws this many windows from it, one behind the other.
        prefetch: batches made ahead by a thread while iterating, as soon as it is seen that there is time to; by default 2 where
            there are camera frames to read, else 0.

    Raises DataError when there is no window to read, and for windows over samples that have no time.
    """

    def __init__(
        self,
        recordings: Recordings,
        window: Window,
        batch: int = 32,
        *,
        order: Literal["shuffle", "sequence", "replacement"] = "shuffle",
        seed: int = 0,
        weights: str | Sequence[float] | None = WEIGHT,
        balance: Literal["domain", "task", "episode"] | None = None,
        where: str | Callable[[Episode], np.ndarray] | None = None,
        clips: int | None = None,
        prefetch: int | None = None,
    ) -> None:
        if batch < 1:
            raise DataError(f"a batch has at least one window, {batch} was asked for.")
        self.recordings, self.window, self.batch, self.order, self.seed = recordings, window, batch, order, seed
        self._lengths = np.array([episode.length for episode in recordings], np.int64)
        domains = {name: i for i, name in enumerate(recordings.domains)}
        self._domains = np.array([domains.get(episode.domain or "", -1) for episode in recordings], np.int64)
        readings = {
            name: reading
            for name, reading in window.spans.items()
            if name not in window.optional or any(name in episode for episode in recordings)
        }
        usable = self._usable([name for name in readings if name not in window.optional])
        clock = self._clock(usable, readings)
        self._span = reach(window, window.span, recordings.fps, clock)
        self._reaches = {
            name: self._span if reading == window.span else reach(window, reading, recordings.fps, clock)
            for name, reading in readings.items()
        }
        self._strides, self._draws = np.array(window.strides or (1,)), bool(window.strides)
        if recordings.independent and any(_reads_around(r) for r in (self._span, *self._reaches.values())):
            raise DataError(
                "these recordings are independent samples without time; a window over them has one step and no offset."
            )
        self.anchors = self._anchors(usable, where)
        self._readers = {name: self._reader(name) for name in readings if not self._is_episode_task(name)}
        self._gaps = {
            name: self._reader(VALID + name) for name in self._readers if any(VALID + name in episode for episode in recordings)
        }
        self._order = self._ordered(weights, balance, clips)
        self._visual = {name: reader for name, reader in self._readers.items() if self._is_visual(name)}
        self._prefetch = (2 if self._visual else 0) if prefetch is None else prefetch
        self._together = self._how_many_together()
        self._prepared = order == "sequence"  # what is read once, in order, is decoded as it goes
        self._preparing = threading.Lock()

    def __len__(self) -> int:
        """Batches in one epoch."""
        return len(self._order)

    def __iter__(self) -> Iterator[Batch]:
        """One epoch."""
        return self.stream(0, len(self))

    def stream(self, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """The batches of the steps from `start` to `stop` (not included; None: through all epochs without end)."""
        steps = itertools.count(start) if stop is None else iter(range(start, stop))
        if self._prefetch:
            return ahead(self.at, steps, self._prefetch)
        return map(self.at, steps) if self._together == 1 else self._gathered_together(steps)

    def at(self, step: int) -> Batch:
        """The batch of a step, counted through all epochs."""
        if not self._prepared:
            self._prepare()
        return self.gather(self.anchors[self._order.at(step)], step)

    def gather(self, anchors: np.ndarray, step: int = 0) -> Batch:
        """The windows at `anchors` (B, 2): position of the episode in the recordings, frame in it.

        Strides and directions, where the window leaves them to chance, are drawn for `step`.
        """
        positions, frames = np.asarray(anchors, np.int64).T
        lengths = self._lengths[positions]
        out: Batch = {}
        strides, backwards = self._drawn(positions, frames, lengths, step, out)
        located: dict[int, tuple[np.ndarray, np.ndarray]] = {}

        def locate(of: Reach) -> tuple[np.ndarray, np.ndarray]:
            if id(of) not in located:
                steps, inside = of.locate(positions, frames, lengths, strides)
                if backwards is not None:
                    steps, inside = (np.where(backwards[:, None], a[:, ::-1], a) for a in (steps, inside))
                located[id(of)] = steps, inside
            return located[id(of)]

        steps, inside = locate(self._span)
        out["mask"] = _tensor(inside)
        out["episode"], out["frame"] = _tensor(positions.copy()), _tensor(frames.copy())
        out["domain"] = _tensor(self._domains[positions])
        out["first"] = _tensor((steps == 0) & inside)
        out["fraction"] = _tensor((steps / np.maximum(lengths - 1, 1)[:, None]).astype(np.float32))
        for name, of in self._reaches.items():
            steps, inside = locate(of)
            if name not in self._readers:
                out[name] = [[self.recordings[position].tasks[0]] * len(of) for position in positions.tolist()]
                continue
            reader = self._readers[name]
            values = reader.read(positions, steps)
            if of is not self._span or name in self._gaps or name in self.window.optional or reader.ragged:
                mask = _both(inside, reader.present(positions, len(of)))
                if name in self._gaps:
                    mask = _both(mask, self._without_gaps(name, positions, steps, values))
                out[f"mask.{name}"] = _tensor(mask)
            out[name] = self._handed_out(name, values)
        return out

    def resident(self, device: torch.device | str = "cpu") -> Callable[[int], Batch]:
        """The batches of `at`, by step, out of one table of all windows that is gathered once and stays on a device.

        For small windows of numbers that are read many times over: a batch costs a few microseconds, and none is copied to the
        device. Windows without text or drawn strides only.
        """
        table = {name: values.to(device) for name, values in self.gather(self.anchors).items()}

        def batch(step: int) -> Batch:
            chosen = _tensor(self._order.at(step)).to(device)
            return {name: values.index_select(0, chosen) for name, values in table.items()}

        return batch

    # ---- reading ------------------------------------------------------------------------------------------------------

    def _gathered_together(self, steps: Iterator[int]) -> Iterator[Batch]:
        """The batches of steps, some gathered at once and cut apart: small ones cost more to ask for than to read."""
        self._prepare()
        while chosen := [self.anchors[self._order.at(step)] for step in itertools.islice(steps, self._together)]:
            together, end = self.gather(np.concatenate(chosen)), 0
            for anchors in chosen:
                begin, end = end, end + len(anchors)
                yield {name: values[begin:end] for name, values in together.items()}

    def _how_many_together(self) -> int:
        """Steps whose batches are gathered at once: 1 where something is drawn for each step, or a batch is large."""
        if self._draws or self.window.reverse or self._visual:
            return 1
        row = sum(np.prod(r.shape) * r.dtype.itemsize * len(self._reaches[name]) for name, r in self._readers.items())
        return int(np.clip(TOGETHER_BYTES // max(self.batch * row, 1), 1, MOST_TOGETHER))

    def _drawn(
        self, positions: np.ndarray, frames: np.ndarray, lengths: np.ndarray, step: int, out: Batch
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The stride of each window, of those that fit, and which windows are read backwards."""
        strides, backwards = np.repeat(self._strides[:1], len(positions)), None
        if not (self._draws or self.window.reverse):
            return strides, None
        rng = np.random.default_rng((self.seed, step, 1))
        if self._draws:
            fitting = np.sum([self._fits(positions, frames, int(stride)) for stride in self._strides], 0)
            strides = self._strides[(rng.random(len(positions)) * fitting).astype(np.int64)]
            out["stride"] = _tensor(strides)
        if self.window.reverse:
            backwards = rng.random(len(positions)) < self.window.reverse
            out["reversed"] = _tensor(backwards)
        return strides, backwards

    def _without_gaps(self, name: str, positions: np.ndarray, steps: np.ndarray, values: np.ndarray) -> np.ndarray:
        """`valid.<name>`, (B, T) or for points (B, T, N); what is not valid is set to zero, so that no filler is handed out."""
        gaps = self._gaps[name]
        valid = gaps.read(positions, steps).astype(bool)
        valid[gaps.number[positions] < 0] = True
        valid = valid.reshape(steps.shape) if valid.size == steps.size else valid
        values[~valid] = 0
        return valid

    def _handed_out(self, name: str, values: np.ndarray) -> Any:
        if values.dtype == object:
            return [[str(entry) for entry in row] for row in values.reshape(*values.shape[:2], -1)[:, :, 0]]
        tensor = _tensor(values)
        return tensor.movedim(-1, 2) if name in self._visual else tensor

    def _prepare(self) -> None:
        with self._preparing:
            if not self._prepared:
                lengths = np.where(np.isin(np.arange(len(self._lengths)), self.anchors[:, 0]), self._lengths, 0)
                for reader in self._visual.values():
                    reader.prepare(lengths)
                self._prepared = True

    # ---- what may be read ---------------------------------------------------------------------------------------------

    def _usable(self, required: list[str]) -> np.ndarray:
        """Positions of the episodes that have every required feature."""
        usable = [
            i
            for i, episode in enumerate(self.recordings)
            if all(name in episode or (name == TASK and episode.tasks) for name in required)
        ]
        if not usable:
            raise DataError(
                f"no episode has all of {', '.join(required)}; there are {len(self.recordings)} episode(s) "
                f"with {', '.join(self.recordings.features) or 'no features'}."
            )
        return np.array(usable, np.int64)

    def _clock(self, usable: np.ndarray, readings: dict[str, Reading]) -> Clock | None:
        """The clock of recordings without a steady rate, where something is read by time."""
        spans = [s for r in (self.window.span, *readings.values()) for s in (r if isinstance(r, tuple) else (r,))]
        if self.recordings.fps is not None or not any(isinstance(span, Span) and span.every is not None for span in spans):
            return None
        times = []
        for position in range(len(self.recordings)):
            episode = self.recordings[position]
            if "timestamp" in episode:
                times.append(np.asarray(episode["timestamp"], np.float64).reshape(-1))
            elif position in usable:
                raise DataError(f"{episode} has neither fps nor timestamps; a window in seconds needs one of them.")
            else:
                times.append(np.arange(episode.length, dtype=np.float64))
        return Clock(times, [str(episode) for episode in self.recordings])

    def _anchors(self, usable: np.ndarray, where: str | Callable[[Episode], np.ndarray] | None) -> np.ndarray:
        """Every anchor (N, 2) that may be read, in order."""
        lengths = self._lengths[usable]
        positions = np.repeat(usable, lengths)
        frames = np.arange(len(positions)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        keep = self._fits(positions, frames, int(self._strides[0]))
        if not keep.any():
            raise DataError(
                f"no window fits: the longest of {len(usable)} episode(s) has {lengths.max()} steps; "
                "read fewer steps, or let edges replicate."
            )
        if where is not None:
            keep &= np.concatenate([_steps_where(self.recordings[int(position)], where) for position in usable])
            if not keep.any():
                raise DataError("`where` leaves no step of any episode that could be an anchor.")
        return np.stack([positions[keep], frames[keep]], 1).astype(np.int32)

    def _fits(self, positions: np.ndarray, frames: np.ndarray, stride: int) -> np.ndarray:
        keep = np.ones(len(positions), bool)
        if "drop" in self.window.edges:
            for of in {id(r): r for r in (self._reaches.values() or (self._span,))}.values():
                keep &= of.fits(positions, frames, self._lengths[positions], stride, self.window.edges)
        return keep

    def _ordered(self, weights: str | Sequence[float] | None, balance: str | None, clips: int | None) -> sampling.Order:
        if self.order == "sequence":
            return sampling.InOrder(len(self.anchors), self.batch)
        weight = self._weights(weights)
        if weight is not None:
            self.anchors, weight = self.anchors[weight > 0], weight[weight > 0]
            weight = None if (weight == weight[0]).all() else weight
        if clips is not None:
            return sampling.PerEpisode(self.anchors[:, 0], clips, self.batch, self.seed, weight)
        if self.order == "shuffle" and weight is None and balance is None:
            return sampling.Shuffle(len(self.anchors), self.batch, self.seed)
        return sampling.Draws(len(self.anchors), self.batch, self.seed, weight, self._groups(balance))

    def _weights(self, weights: str | Sequence[float] | None) -> np.ndarray | None:
        """Weight of each anchor, None where they are equal."""
        if weights is None or (isinstance(weights, str) and not any(weights in episode for episode in self.recordings)):
            if isinstance(weights, str) and weights != WEIGHT:
                raise DataError(f"no episode has the feature {weights!r} to weigh its steps by.")
            return None
        positions, frames = self.anchors.T
        if isinstance(weights, str):
            reader = self._reader(weights)
            found = reader.read(positions, frames[:, None]).reshape(-1)
            found = np.where(reader.present(positions, 1)[:, 0], found, 1)
            return sampling.checked_weights(found, repr(weights))
        if len(weights) != len(self.recordings):
            raise DataError(f"{len(weights)} weights were given for {len(self.recordings)} episodes.")
        return sampling.checked_weights(np.asarray(weights)[positions], "weights")

    def _groups(self, balance: str | None) -> np.ndarray | None:
        """Number of the group of each anchor among which shares are equal."""
        if balance is None:
            return None
        numbers: dict[object, int] = {}
        of = np.array([numbers.setdefault(_group(episode, balance), len(numbers)) for episode in self.recordings])
        return np.asarray(of[self.anchors[:, 0]])

    def _reader(self, name: str) -> Reader:
        return Reader(name, self.recordings.episodes, self.recordings.features.get(name), self.window.image_size)

    def _is_visual(self, name: str) -> bool:
        return name in self.recordings.features and self.recordings.features[name].is_visual

    def _is_episode_task(self, name: str) -> bool:
        """True for the task where it stands with the episode and not with each step."""
        return name == TASK and not any(TASK in episode for episode in self.recordings)


def _tensor(values: np.ndarray) -> Any:
    import torch  # here, as it takes a second and who records or converts reads no batch

    return torch.from_numpy(values)


def _group(episode: Episode, balance: str) -> object:
    match balance:
        case "domain":
            return episode.domain
        case "task":
            return episode.tasks[:1]
        case "episode":
            return episode.identity
    raise DataError(f"balance is {balance!r}; it is one of domain, task and episode.")


def _reads_around(of: Reach) -> bool:
    held, _ = of.locate(np.array([0]), np.array([500]), np.array([1000]), np.array([1]))
    return len(of) > 1 or int(held[0, 0]) != 500


def _steps_where(episode: Episode, where: str | Callable[[Episode], np.ndarray]) -> np.ndarray:
    chosen = np.asarray(episode[where] if isinstance(where, str) else where(episode))
    if chosen.size != episode.length or chosen.dtype != bool:
        raise DataError(f"{episode}: `where` gave {chosen.dtype}{list(chosen.shape)}, expected {episode.length} booleans.")
    return chosen.reshape(-1)


def _both(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where both masks (B, T) or (B, T, N) are True."""
    rank = max(a.ndim, b.ndim)
    a, b = (mask.reshape(*mask.shape, *[1] * (rank - mask.ndim)) for mask in (a, b))
    return np.asarray(np.logical_and(a, b))
