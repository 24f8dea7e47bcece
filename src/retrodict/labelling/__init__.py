"""The main job at scale: infer, calibrate, select, emit, resume."""

from retrodict.labelling.conformal import CannotPromise
from retrodict.labelling.infer import infer
from retrodict.labelling.job import unlabelled
from retrodict.labelling.label import label
from retrodict.labelling.summary import Labelled, Summary

__all__ = ["CannotPromise", "Labelled", "Summary", "infer", "label", "unlabelled"]
