"""retrodict: recover the action behind a recording and the law behind a motion.

    import retrodict as rd

    recordings = rd.open("robot_videos/")
    inverse = rd.VPT().fit(recordings.having("action")[:20])  # the other labelled episodes tell how far to trust it
    labelled = rd.label(recordings, inverse, max_error=0.05)
    policy = rd.BehaviorCloning().fit(labelled)
    print(rd.evaluate(policy, "vizdoom/health-gathering", episodes=50))

Everything here is imported when it is first asked for, so that `import retrodict` costs nothing. Every system of the catalogue is
found by its class name without standing in this file.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from retrodict._version import __version__
from retrodict.errors import DataError, MissingExtraError, NotFittedError, NotIdentifiableError, RetrodictError

if TYPE_CHECKING:
    from retrodict.labelling.label import label as label
    from retrodict.reports.evaluation import evaluate as evaluate
    from retrodict.systems import System as System
    from retrodict.systems import catalogue as catalogue
    from retrodict.training.run import Run as Run
    from retrodict.trajectories import ActionSpace as ActionSpace
    from retrodict.trajectories import Box as Box
    from retrodict.trajectories import Discrete as Discrete
    from retrodict.trajectories import Episode as Episode
    from retrodict.trajectories import Feature as Feature
    from retrodict.trajectories import MuLaw as MuLaw
    from retrodict.trajectories import MultiBinary as MultiBinary
    from retrodict.trajectories import Recordings as Recordings
    from retrodict.trajectories import Span as Span
    from retrodict.trajectories import Window as Window
    from retrodict.trajectories import from_arrays as from_arrays
    from retrodict.trajectories import from_samples as from_samples
    from retrodict.trajectories.alignment import align as align
    from retrodict.trajectories.stores import convert as convert
    from retrodict.trajectories.stores import open as open
    from retrodict.worlds import make as make
    from retrodict.worlds import record as record
    from retrodict.worlds import rollout as rollout

    load = System.load

HOMES = {
    **dict.fromkeys(("ActionSpace", "Box", "Discrete", "Episode", "Feature", "MuLaw", "MultiBinary"), "retrodict.trajectories"),
    **dict.fromkeys(("Recordings", "Span", "Window", "from_arrays", "from_samples"), "retrodict.trajectories"),
    **dict.fromkeys(("convert", "open"), "retrodict.trajectories.stores"),
    **dict.fromkeys(("make", "record", "rollout"), "retrodict.worlds"),
    **dict.fromkeys(("System", "catalogue"), "retrodict.systems"),
    "align": "retrodict.trajectories.alignment",
    "label": "retrodict.labelling",
    "Run": "retrodict.training.run",
    "evaluate": "retrodict.reports.evaluation",
}
"""Public name -> module it is imported from when first asked for."""


def __getattr__(name: str) -> Any:
    if name in HOMES:
        found = getattr(importlib.import_module(HOMES[name]), name)
    elif name == "load":
        from retrodict.systems import System

        found = System.load
    elif name[:1].isupper() and name in (systems := _systems()):
        found = systems[name]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    # A person or a notebook asks for completions: the systems belong there.
    return sorted({*__all__, *_systems()})


def _systems() -> dict[str, Any]:
    from retrodict.systems import catalogue

    return {system.__name__: system for system in catalogue().values()}


__all__ = [
    "ActionSpace",
    "Box",
    "DataError",
    "Discrete",
    "Episode",
    "Feature",
    "MissingExtraError",
    "MuLaw",
    "MultiBinary",
    "NotFittedError",
    "NotIdentifiableError",
    "Recordings",
    "RetrodictError",
    "Run",
    "Span",
    "System",
    "Window",
    "__version__",
    "align",
    "catalogue",
    "convert",
    "evaluate",
    "from_arrays",
    "from_samples",
    "label",
    "load",
    "make",
    "open",
    "record",
    "rollout",
]
