"""The contract as a test: `check_system` makes sure of a system what every other part of this package takes for granted.

Each check is a function of a `Subject`, raises ContractBroken with one sentence, and can be run by itself.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from retrodict.systems.checks import fitting, folders, refusals  # noqa: F401 -- importing them registers their checks
from retrodict.systems.checks.answers import ContractBroken, answers
from retrodict.systems.checks.subject import CHECKS, Subject
from retrodict.systems.checks.tiny import SPACES, candidates, tiny_recordings
from retrodict.systems.contract import System
from retrodict.trajectories import Recordings

__all__ = [
    "CHECKS",
    "SPACES",
    "ContractBroken",
    "Subject",
    "answers",
    "candidates",
    "check_system",
    "tiny_recordings",
]


def check_system(system: System, recordings: Recordings | None = None) -> tuple[str, ...]:
    """Run every check on a system; the names of the checks are returned.

    Args:
        system: an instance with hyperparameters small enough to be fitted some dozen times; it is left unfitted.
        recordings: what it can learn from; where not given, the tiny recordings of every kind that it accepts are used.

    Raises ContractBroken, one sentence, at the first part of the contract that is not kept.
    """
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject(system, recordings, Path(folder))
        for name in CHECKS:
            subject.run(name)
    return tuple(CHECKS)
