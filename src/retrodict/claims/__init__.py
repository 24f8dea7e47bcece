"""Claims: one experiment per system. Does what its paper says hold here?"""

from retrodict.claims.experiment import Check, Experiment, Number, Table, claims
from retrodict.claims.reproduction import Standing, reproduce

__all__ = ["Check", "Experiment", "Number", "Standing", "Table", "claims", "reproduce"]
