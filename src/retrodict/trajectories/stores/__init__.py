"""Files on disk: a module for each kind of recording, the door to all of them (`open`), and the way between them (`convert`)."""

from retrodict.trajectories.stores.convert import convert
from retrodict.trajectories.stores.opening import kind_of, open

__all__ = ["convert", "kind_of", "open"]
