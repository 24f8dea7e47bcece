"""Action spaces: what the numbers in the `action` column mean, and the exact way between them and named parts.

An action is one flat float32 vector on disk (LeRobot's `action`); an `ActionSpace` cuts it into named parts on Gymnasium's
vocabulary and says what is known of their meaning. What is unknown is said to be unknown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium
import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.features import ACTION, Feature

if TYPE_CHECKING:
    from retrodict.trajectories.recordings import Recordings

UNKNOWN = "unknown"


@dataclass(frozen=True)
class MuLaw:
    """Quantiser with fine bins near zero and coarse ones far from it (mu-law, as VPT uses it for the mouse).

    Attributes:
        limit: values are clipped to [-limit, limit].
        bins: number of bins, odd so that zero has its own.
        mu: how strongly bins crowd around zero.
    """

    limit: float
    bins: int = 11
    mu: float = 10.0

    def encode(self, x: np.ndarray) -> np.ndarray:
        """Bin indices of values, same shape, int64."""
        x = np.clip(np.asarray(x, float) / self.limit, -1, 1)
        compressed = np.sign(x) * np.log1p(self.mu * np.abs(x)) / np.log1p(self.mu)
        return np.asarray(np.rint((compressed + 1) / 2 * (self.bins - 1)), np.int64)

    def decode(self, index: np.ndarray) -> np.ndarray:
        """Values at the bin centres; `encode(decode(i)) == i` for every bin."""
        v = np.asarray(index, float) / (self.bins - 1) * 2 - 1
        return np.asarray(self.limit * np.sign(v) * ((1 + self.mu) ** np.abs(v) - 1) / self.mu)


ROUNDING = 1e-4
"""Share of half its range by which a number may lie outside it: what is written with few digits is not wrong."""


@dataclass(frozen=True)
class Box:
    """Continuous values, one per name. `low`/`high` are None where the range is unknown; infinite bounds become None.

    Raises DataError where `low` is above `high`, or one of them is no number or infinite on the wrong side.
    """

    kind: ClassVar[str] = "box"
    names: tuple[str, ...]
    low: float | None = None
    high: float | None = None
    unit: str = UNKNOWN
    quantiser: MuLaw | None = None

    def __post_init__(self) -> None:
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        if not low <= high or low == math.inf or high == -math.inf:
            raise DataError(f"the range of {', '.join(self.names)} must not fall, got low {self.low} and high {self.high}.")
        object.__setattr__(self, "low", None if low == -math.inf else self.low)
        object.__setattr__(self, "high", None if high == math.inf else self.high)

    @property
    def width(self) -> int:
        return len(self.names)

    @property
    def span(self) -> float | None:
        """`high - low`; None where the range is unknown, or one point."""
        return None if self.low is None or self.high is None or self.low == self.high else self.high - self.low

    @property
    def domain(self) -> str:
        """What its numbers may be, in words."""
        return f"its range from {self.low} to {self.high}"

    def beyond(self, values: np.ndarray) -> np.ndarray:
        """Which values (..., width) lie outside the range by more than rounding; none where a quantiser is there to clip them."""
        low, high = (-math.inf if self.low is None else self.low), (math.inf if self.high is None else self.high)
        if self.quantiser is not None:
            low, high = -math.inf, math.inf
        size = max(abs(bound) for bound in (low, high, 0.0) if math.isfinite(bound))
        slack = ROUNDING * (self.span or 0.0) / 2 + float(np.finfo(np.float32).eps) * size
        return np.asarray((values < low - slack) | (values > high + slack))

    def gymnasium(self) -> gymnasium.Space[Any]:
        low, high = (-np.inf if self.low is None else self.low), (np.inf if self.high is None else self.high)
        return gymnasium.spaces.Box(low, high, (self.width,), np.float32)


@dataclass(frozen=True)
class MultiBinary:
    """Buttons, each pressed (1) or not (0)."""

    kind: ClassVar[str] = "multi_binary"
    names: tuple[str, ...]

    @property
    def width(self) -> int:
        return len(self.names)

    @property
    def domain(self) -> str:
        """What its numbers may be, in words."""
        return "0 and 1"

    def beyond(self, values: np.ndarray) -> np.ndarray:
        """Which values (..., width) are no state of a button."""
        return np.asarray((values != 0) & (values != 1))

    def gymnasium(self) -> gymnasium.Space[Any]:
        return gymnasium.spaces.MultiBinary(self.width)


@dataclass(frozen=True)
class Discrete:
    """One of several choices, written as its index."""

    kind: ClassVar[str] = "discrete"
    names: tuple[str, ...]
    width: ClassVar[int] = 1

    @property
    def n(self) -> int:
        return len(self.names)

    @property
    def domain(self) -> str:
        """What its number may be, in words."""
        return f"the whole numbers from 0 to {self.n - 1}"

    def beyond(self, values: np.ndarray) -> np.ndarray:
        """Which values (..., 1) are none of the choices."""
        return np.asarray((values != np.rint(values)) | (values < 0) | (values >= self.n))

    def gymnasium(self) -> gymnasium.Space[Any]:
        return gymnasium.spaces.Discrete(self.n)


Part = Box | MultiBinary | Discrete
PARTS: dict[str, type[Box] | type[MultiBinary] | type[Discrete]] = {p.kind: p for p in (Box, MultiBinary, Discrete)}


def range_met(values: np.ndarray) -> np.ndarray:
    """The range (width,) of values (n, width); of a number that never changes its own size, or 1 where that is 0."""
    values = values.astype(np.float64)
    span, size = np.ptp(values, 0), np.abs(values).max(0)
    return np.where(span > 0, span, np.where(size > 0, size, 1.0))


@dataclass(frozen=True)
class ActionSpace:
    """The parts of an action in the order in which they lie in the flat vector, and what is known of its meaning.

    Attributes:
        parts: part name -> Box, MultiBinary or Discrete.
        mode: `absolute`, `delta` (against the current state), `relative` (against the start of a chunk) or `unknown`.
        frame: frame of reference (`base`, `camera`, `screen`, ...) or `unknown`.
        leads: True where `action[t]` leads from `observation[t]` to `observation[t+1]`, False where `action[t]` led to
            `observation[t]`, None where unknown.
        null: flat vector of the action that does nothing, or None where there is none.
    """

    parts: Mapping[str, Part]
    mode: str = UNKNOWN
    frame: str = UNKNOWN
    leads: bool | None = None
    null: tuple[float, ...] | None = field(default=None)

    def __post_init__(self) -> None:
        if self.null is not None and len(self.null) != self.width:
            raise DataError(f"the null action has {len(self.null)} numbers, the action space {self.width}.")

    @property
    def width(self) -> int:
        """Length of the flat vector."""
        return sum(part.width for part in self.parts.values())

    @property
    def slices(self) -> dict[str, slice]:
        """Where each part lies in the flat vector."""
        ends = np.cumsum([part.width for part in self.parts.values()])
        return {name: slice(int(end) - part.width, int(end)) for (name, part), end in zip(self.parts.items(), ends, strict=True)}

    @property
    def names(self) -> tuple[str, ...]:
        """A name for every number of the flat vector; a discrete part goes by its part's name."""
        return tuple(
            entry for name, part in self.parts.items() for entry in ((name,) if isinstance(part, Discrete) else part.names)
        )

    def encode(self, action: Mapping[str, Any]) -> np.ndarray:
        """Flat float32 vector (..., width) of a mapping of part name -> value (..., part width); discrete parts (...)."""
        if action.keys() != self.parts.keys():
            raise DataError(f"an action needs the parts {list(self.parts)}, got {list(action)}.")
        pieces = []
        for name, part in self.parts.items():
            value = np.asarray(action[name], np.float32)
            pieces.append(value[..., None] if isinstance(part, Discrete) else value)
        return np.concatenate(pieces, -1)

    def decode(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """Mapping of part name -> value, the inverse of `encode`; buttons and choices come back as int64."""
        flat = np.asarray(flat)
        if flat.shape[-1] != self.width:
            raise DataError(f"a flat action of this space has {self.width} numbers, got {flat.shape[-1]}.")
        out = {}
        for (name, part), where in zip(self.parts.items(), self.slices.values(), strict=True):
            piece = flat[..., where]
            if isinstance(part, Discrete):
                out[name] = np.rint(piece[..., 0]).astype(np.int64)
            else:
                out[name] = np.rint(piece).astype(np.int64) if isinstance(part, MultiBinary) else piece
        return out

    def beyond(self, flat: np.ndarray) -> np.ndarray:
        """Which numbers of flat actions (..., width) are none that their part may have, (..., width).

        Raises DataError where an action has another width.
        """
        flat = np.asarray(flat)
        if flat.shape[-1] != self.width:
            raise DataError(f"a flat action of this space has {self.width} numbers, got {flat.shape[-1]}.")
        return np.concatenate([part.beyond(flat[..., self.slices[name]]) for name, part in self.parts.items()], -1)

    def gymnasium(self) -> gymnasium.spaces.Dict:
        """The same space in Gymnasium's words."""
        return gymnasium.spaces.Dict({name: part.gymnasium() for name, part in self.parts.items()})

    def to_json(self) -> dict[str, Any]:
        parts = {name: {"kind": part.kind, **asdict(part)} for name, part in self.parts.items()}
        return {"parts": parts, "mode": self.mode, "frame": self.frame, "leads": self.leads, "null": self.null}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> ActionSpace:
        parts: dict[str, Part] = {}
        for name, raw in entry["parts"].items():
            values = {k: v for k, v in raw.items() if k != "kind"}
            values["names"] = tuple(values["names"])
            if values.get("quantiser"):
                values["quantiser"] = MuLaw(**values["quantiser"])
            parts[name] = PARTS[raw["kind"]](**values)
        null = entry.get("null")
        about = {key: entry[key] for key in ("mode", "frame", "leads") if key in entry}
        return cls(parts, null=None if null is None else tuple(null), **about)

    @classmethod
    def unknown(cls, feature: Feature) -> ActionSpace:
        """The space of an `action` feature of which nothing but its names is known: one continuous part."""
        width = int(np.prod(feature.shape))
        names = feature.names
        flat = tuple(str(n) for n in names) if isinstance(names, (list, tuple)) and len(names) == width else None
        return cls({"action": Box(flat or tuple(f"action_{i}" for i in range(width)))})

    def __str__(self) -> str:
        return ", ".join(f"{name}: {part.kind}({', '.join(part.names)})" for name, part in self.parts.items())


def outsider(recordings: Recordings) -> str | None:
    """What the first recorded action is that is none of the recordings' space, in words; None where all are, or it is unknown."""
    space = recordings.actions
    if space is None:
        return None
    for episode in recordings.having(ACTION):
        there = np.flatnonzero(episode.there(ACTION))
        values = np.asarray(episode.read(ACTION, there)).reshape(len(there), space.width)
        if (beyond := space.beyond(values)).any():
            row, entry = (int(i) for i in np.argwhere(beyond)[0])
            part = next(space.parts[name] for name, where in space.slices.items() if where.start <= entry < where.stop)
            seen = f"at step {there[row]} {space.names[entry]!r} of the action is {values[row, entry]:g}"
            return f"{episode}: {seen}, outside {part.domain}"
    return None
