"""The health-gathering map with another supply of medikits and poison, made from the map that ViZDoom's package ships."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from retrodict.errors import DataError, require

#: Start values of the map's script, in the order in which its compiled form keeps them: tics between two deliveries, side of the
#: map (16.16 fixed point), medikits and poisons at the start, their thing ids, damage of a poison.
SHIPPED = (25, 1856 << 16, 30, 2, 111, 112, 30)


@dataclass(frozen=True)
class Supply:
    """What lies about, and what comes.

    Attributes:
        medikits, poisons: number at the start.
        interval: tics between two deliveries, which are a medikit and a poison, then a medikit, and so on.
    """

    medikits: int
    poisons: int
    interval: int


def scenario(supply: Supply, folder: Path) -> Path:
    """The map with that supply, written into `folder`.

    Only numbers of the map's script change: the compiled script keeps the start values of its variables as one block of 32-bit
    integers, which is found by its shipped content.

    Raises DataError where the installed ViZDoom ships another map.
    """
    original = Path(require("vizdoom", extra="games").scenarios_path) / "health_gathering_supreme.wad"
    shipped = struct.pack("<7i", *SHIPPED)
    data = original.read_bytes()
    if data.count(shipped) != 1:
        raise DataError(f"{original} is not the map that this was written for; install the vizdoom of constraints.txt.")
    values = (supply.interval, SHIPPED[1], supply.medikits, supply.poisons, *SHIPPED[4:])
    path = folder / "health_gathering.wad"
    path.write_bytes(data.replace(shipped, struct.pack("<7i", *values)))
    return path
