"""Joint coding of buttons and mouse: one index for everything that is pressed, one for where the mouse goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from retrodict.errors import DataError
from retrodict.trajectories.actions import ActionSpace, Box, MuLaw, MultiBinary


@dataclass(frozen=True)
class JointCodec:
    """Flat actions of buttons and a quantised mouse <-> a pair of indices, as VPT's policy head has them.

    Buttons of one group exclude each other: of two pressed together the later one counts, or none where they are `opposites`.
    The last and fastest running digit of the button index says whether the mouse moves at all; where it does not, the mouse index
    is that of no movement when encoding, and is ignored when decoding. The same holds for the button that stands `alone`.

    Attributes:
        space: one part of buttons and at most one quantised continuous part (the mouse).
        groups: names of the buttons of each group, slowest digit first; every button but `alone` is in one group.
        opposites: groups in which two buttons pressed together cancel each other.
        alone: a button that excludes everything else; it has the last index.

    Raises DataError where the space or the groups do not fit.
    """

    space: ActionSpace
    groups: tuple[tuple[str, ...], ...]
    opposites: tuple[tuple[str, ...], ...] = ()
    alone: str | None = None

    def __post_init__(self) -> None:
        kinds = [MultiBinary if isinstance(part, MultiBinary) else type(part) for part in self.space.parts.values()]
        fits = kinds.count(MultiBinary) == 1 and kinds.count(Box) == len(kinds) - 1 <= 1
        if not fits or any(isinstance(part, Box) and part.quantiser is None for part in self.space.parts.values()):
            raise DataError(f"a joint code needs one part of buttons and at most one quantised part, got {self.space}.")
        grouped = sorted([name for group in self.groups for name in group] + ([self.alone] if self.alone else []))
        if grouped != sorted(self._buttons.names):
            raise DataError(
                f"every button must be in one group; the groups hold {grouped}, the buttons are {self._buttons.names}."
            )

    @classmethod
    def of(cls, space: ActionSpace, groups: Sequence[Sequence[str]] = ()) -> JointCodec:
        """The codec with the given groups, and a group of its own for every button they do not name."""
        buttons = next((part for part in space.parts.values() if isinstance(part, MultiBinary)), MultiBinary(()))
        named = {name for group in groups for name in group}
        return cls(space, (*map(tuple, groups), *((name,) for name in buttons.names if name not in named)))

    # ---- sizes --------------------------------------------------------------------------------------------------------

    @property
    def _buttons(self) -> MultiBinary:
        return next(part for part in self.space.parts.values() if isinstance(part, MultiBinary))

    @property
    def _mouse(self) -> Box | None:
        return next((part for part in self.space.parts.values() if isinstance(part, Box)), None)

    @property
    def _slice(self) -> dict[type, slice]:
        return {type(part): self.space.slices[name] for name, part in self.space.parts.items()}

    @property
    def _digits(self) -> tuple[int, ...]:
        return (*(len(group) + 1 for group in self.groups), *((2,) if self._mouse else ()))

    @property
    def buttons(self) -> int:
        """Number of button indices."""
        return int(np.prod(self._digits)) + (self.alone is not None)

    @property
    def mouse(self) -> int:
        """Number of mouse indices; 1 where there is no mouse."""
        return int(self._bins ** (self._mouse.width if self._mouse else 0))

    @property
    def _bins(self) -> int:
        quantiser = self._mouse.quantiser if self._mouse else None
        return quantiser.bins if quantiser else 1

    @property
    def still(self) -> int:
        """Mouse index of no movement."""
        return self.mouse // 2

    # ---- there and back -----------------------------------------------------------------------------------------------

    def encode(self, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Button indices and mouse indices (...), int64, of flat actions (..., width)."""
        pressed = np.rint(flat[..., self._slice[MultiBinary]]).astype(bool)
        names = self._buttons.names
        mouse = np.full(flat.shape[:-1], self.still)
        if self._mouse is not None and self._mouse.quantiser is not None:
            bins = self._mouse.quantiser.encode(flat[..., self._slice[Box]])
            mouse = np.ravel_multi_index(tuple(np.moveaxis(bins, -1, 0)), (self._bins,) * self._mouse.width)
        index = np.zeros(flat.shape[:-1], np.int64)
        for group in self.groups:
            held = pressed[..., [names.index(name) for name in group]]
            digit = np.where(held, np.arange(1, len(group) + 1), 0).max(-1)
            if group in self.opposites:
                digit = np.where(held.sum(-1) > 1, 0, digit)
            index = index * (len(group) + 1) + digit
        if self._mouse is not None:
            index = index * 2 + (mouse != self.still)
        if self.alone is not None:
            only = pressed[..., names.index(self.alone)]
            index, mouse = np.where(only, self.buttons - 1, index), np.where(only, self.still, mouse)
        return index, mouse

    def decode(self, buttons: np.ndarray, mouse: np.ndarray) -> np.ndarray:
        """Flat float32 actions (..., width) of button and mouse indices (...)."""
        flat = np.zeros((*np.shape(buttons), self.space.width), np.float32)
        flat[..., self._slice[MultiBinary]] = self.button_table[buttons]
        if self._mouse is not None:
            flat[..., self._slice[Box]] = self.mouse_table[np.where(self.moves[buttons], mouse, self.still)]
        return flat

    @cached_property
    def button_table(self) -> np.ndarray:
        """The buttons that each button index presses, bool (buttons, number of buttons)."""
        names = self._buttons.names
        table = np.zeros((self.buttons, len(names)), bool)
        digits = np.stack(np.unravel_index(np.arange(np.prod(self._digits)), self._digits), -1)
        for place, group in enumerate(self.groups):
            for digit, name in enumerate(group, start=1):
                table[: len(digits), names.index(name)] |= digits[:, place] == digit
        if self.alone is not None:
            table[-1, names.index(self.alone)] = True
        return table

    @cached_property
    def moves(self) -> np.ndarray:
        """Whether the mouse moves at each button index, bool (buttons,)."""
        moves = np.arange(self.buttons) % 2 == 1 if self._mouse else np.zeros(self.buttons, bool)
        if self.alone is not None:
            moves[-1] = False
        return moves

    @cached_property
    def mouse_table(self) -> np.ndarray:
        """The mouse movement of each mouse index, (mouse, axes)."""
        if self._mouse is None or self._mouse.quantiser is None:
            return np.zeros((1, 0))
        axes = np.unravel_index(np.arange(self.mouse), (self._bins,) * self._mouse.width)
        return self._mouse.quantiser.decode(np.stack(axes, -1))


_HOTBAR = tuple(f"hotbar.{i}" for i in range(1, 10))
_BUTTONS = ("attack", "back", "forward", "jump", "left", "right", "sneak", "sprint", "use", "drop", "inventory", *_HOTBAR)

MINECRAFT = ActionSpace(
    {
        "buttons": MultiBinary(_BUTTONS),
        "camera": Box(("pitch", "yaw"), -10.0, 10.0, unit="degree", quantiser=MuLaw(10.0, bins=11, mu=10.0)),
    },
    mode="delta",
    frame="camera",
    leads=True,
    null=(0.0,) * (len(_BUTTONS) + 2),
)
"""What a player of Minecraft does in a step of 1/20 s, as VPT recorded it."""

MINECRAFT_CODEC = JointCodec(
    MINECRAFT,
    groups=(_HOTBAR, ("forward", "back"), ("left", "right"), ("sprint", "sneak"), ("use",), ("drop",), ("attack",), ("jump",)),
    opposites=(("forward", "back"), ("left", "right")),
    alone="inventory",
)
"""VPT's policy head: 8641 button indices and 121 camera indices."""
