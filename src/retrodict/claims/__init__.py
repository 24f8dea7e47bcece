"""Claims: one experiment per system. Does what its paper says hold here?"""

from retrodict.claims.experiment import Check, Experiment, Number, Standing, Table, claims, reproduce

__all__ = ["Check", "Experiment", "Number", "Standing", "Table", "claims", "reproduce"]
