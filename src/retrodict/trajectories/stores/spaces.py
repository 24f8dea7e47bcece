"""Gymnasium spaces in Minari's JSON, and what they are here: leaves with keys, and the `ActionSpace` of an action."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.actions import ActionSpace, Box, Discrete, MultiBinary, Part
from retrodict.trajectories.features import ACTION, STATE, Feature
from retrodict.trajectories.stores.views import SMALLEST, layout, observation_name

Space = Mapping[str, Any]


@dataclass(frozen=True)
class Leaf:
    """A space that holds no other spaces, and the keys (texts of a dict, numbers of a tuple) under which it stands."""

    keys: tuple[str | int, ...]
    space: Space

    @property
    def kind(self) -> str:
        return str(self.space["type"])

    @property
    def dtype(self) -> np.dtype:
        given = {"Text": "object", "Discrete": "int64", "MultiBinary": "int8"}
        return np.dtype(given.get(self.kind) or self.space["dtype"])

    @property
    def shape(self) -> tuple[int, ...]:
        if self.kind == "Box":
            return tuple(self.space["shape"])
        if self.kind == "MultiBinary":
            return tuple(np.atleast_1d(self.space["n"]).tolist())
        return np.shape(self.space["nvec"]) if self.kind == "MultiDiscrete" else ()

    @property
    def width(self) -> int:
        """Numbers in one value."""
        return int(np.prod(self.shape))

    @property
    def start(self) -> Any:
        """The least choice, a number or one for each entry; 0 for values that are no choices."""
        return np.asarray(self.space.get("start", 0)).reshape(-1) if self.kind == "MultiDiscrete" else self.space.get("start", 0)

    @property
    def is_picture(self) -> bool:
        """Minari's own rule for what it encodes as JPEG."""
        if self.kind != "Box" or self.dtype != np.uint8 or len(self.shape) not in (2, 3) or min(self.shape[:2]) < SMALLEST:
            return False
        return bool(np.all(np.array(self.space["low"]) == 0) and np.all(np.array(self.space["high"]) == 255))

    @property
    def name(self) -> str:
        return ".".join(map(str, self.keys))


def leaves(space: Space, keys: tuple[str | int, ...] = ()) -> list[Leaf]:
    """The leaves of a space, in the order in which it lists them.

    Raises DataError for a kind of space that Minari does not write.
    """
    kind = space.get("type")
    if kind == "Dict":
        return [leaf for key, inner in space["subspaces"].items() for leaf in leaves(inner, (*keys, key))]
    if kind == "Tuple":
        return [leaf for i, inner in enumerate(space["subspaces"]) for leaf in leaves(inner, (*keys, i))]
    if kind not in ("Box", "Discrete", "MultiDiscrete", "MultiBinary", "Text"):
        raise DataError(f"a space of type {kind!r} is not known; Minari writes Box, Discrete, Multi*, Text, Dict and Tuple.")
    return [Leaf(keys, space)]


def observation_names(found: list[Leaf], given: Mapping[str, str]) -> dict[tuple[str | int, ...], str]:
    """Feature names of an observation's leaves by their keys; `given` says some by keys joined with slashes."""
    names = {}
    for leaf in found:
        keys = [str(key) for key in leaf.keys]
        plain = observation_name(keys, layout(leaf.shape, leaf.dtype))
        # A goal environment calls its plain state `observation`; where a `state` stands beside it, that one is.
        if plain == STATE and keys and any(other.keys == ("state",) for other in found):
            plain = "observation.observation"
        names[leaf.keys] = given.get("/".join(keys)) or plain
    return names


def action_space(found: list[Leaf]) -> ActionSpace:
    """What an action with these leaves means: its parts in order, with their ranges; units are unknown.

    Raises DataError for texts, which have no flat encoding.
    """
    parts: dict[str, Part] = {}
    for leaf in found:
        name = leaf.name or ACTION
        entries = tuple(f"{name}_{i}" for i in range(leaf.width))
        if leaf.kind == "Box":
            low, high = (np.array(leaf.space[side], float).reshape(-1) for side in ("low", "high"))
            if len({*zip(low.tolist(), high.tolist(), strict=True)}) == 1:
                parts[name] = Box(entries, _bound(low[0]), _bound(high[0]))
            else:
                parts |= {entry: Box((entry,), _bound(a), _bound(b)) for entry, a, b in zip(entries, low, high, strict=True)}
        elif leaf.kind == "Discrete":
            parts[name] = Discrete(tuple(str(leaf.start + i) for i in range(leaf.space["n"])))
        elif leaf.kind == "MultiBinary":
            parts[name] = MultiBinary(entries)
        elif leaf.kind == "MultiDiscrete":
            counts, starts = np.array(leaf.space["nvec"]).reshape(-1), np.broadcast_to(leaf.start, leaf.width)
            for entry, n, start in zip(entries, counts, starts, strict=True):
                parts[entry] = Discrete(tuple(str(start + i) for i in range(n)))
        else:
            raise DataError(f"the action {name!r} is a text; actions made of numbers or choices are expected.")
    return ActionSpace(parts, leads=True)


def space_of_actions(actions: ActionSpace) -> Space:
    """A space whose leaves lie in the order of the parts: the part's own where there is one, else a dict of them."""
    spaces = {name: _space_of_part(part) for name, part in actions.parts.items()}
    return next(iter(spaces.values())) if len(spaces) == 1 else {"type": "Dict", "subspaces": spaces}


def space_of_gymnasium(space: gymnasium.Space[Any]) -> Space:
    """A space of Gymnasium as JSON.

    Raises DataError for kinds of spaces that actions here are not made of.
    """
    if isinstance(space, gymnasium.spaces.Dict):
        return {"type": "Dict", "subspaces": {key: space_of_gymnasium(inner) for key, inner in space.spaces.items()}}
    if isinstance(space, gymnasium.spaces.Tuple):
        return {"type": "Tuple", "subspaces": [space_of_gymnasium(inner) for inner in space.spaces]}
    if isinstance(space, gymnasium.spaces.Box):
        about = {"dtype": str(space.dtype), "shape": list(space.shape), "low": space.low.tolist(), "high": space.high.tolist()}
        return {"type": "Box", **about}
    if isinstance(space, gymnasium.spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return {"type": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
    if isinstance(space, gymnasium.spaces.MultiBinary):
        return {"type": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.n)}
    raise DataError(f"{space} is no space of actions here; Box, Discrete, Multi*, Dict and Tuple are.")


def space_of_feature(feature: Feature, texts: set[str]) -> Space:
    """The space of an observed feature; `texts` are all the texts that it takes."""
    if feature.is_text:
        longest = max(map(len, texts), default=1)
        return {"type": "Text", "max_length": max(longest, 1), "min_length": 0, "charset": "".join(sorted(set("".join(texts))))}
    if feature.is_visual:
        return _box("uint8", feature.shape, 0, 255)
    if feature.dtype == "bool":
        return {"type": "MultiBinary", "n": list(feature.shape)}
    if np.dtype(feature.dtype).kind in "iu":
        limits = np.iinfo(feature.dtype)
        return _box(feature.dtype, feature.shape, int(limits.min), int(limits.max))
    return _box(feature.dtype, feature.shape, -np.inf, np.inf)


def _space_of_part(part: Part) -> Space:
    if isinstance(part, Discrete):
        return {"type": "Discrete", "dtype": "int64", "start": 0, "n": part.n}
    if isinstance(part, MultiBinary):
        return {"type": "MultiBinary", "n": part.width}
    return _box("float32", (part.width,), -np.inf if part.low is None else part.low, np.inf if part.high is None else part.high)


def _box(dtype: str, shape: tuple[int, ...], low: float, high: float) -> Space:
    bounds = (np.full(shape, side, dtype).tolist() for side in (low, high))
    return {"type": "Box", "dtype": dtype, "shape": list(shape), **dict(zip(("low", "high"), bounds, strict=True))}


def _bound(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
