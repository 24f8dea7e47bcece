"""The main job at scale: infer, calibrate, select, emit, resume; and whether video and actions are in step."""

from retrodict.labelling.align import Alignment, align, check_alignment, mend
from retrodict.labelling.conformal import CannotPromise
from retrodict.labelling.infer import infer
from retrodict.labelling.job import unlabelled
from retrodict.labelling.label import label
from retrodict.labelling.summary import Labelled, Summary

__all__ = [
    "Alignment",
    "CannotPromise",
    "Labelled",
    "Summary",
    "align",
    "check_alignment",
    "infer",
    "label",
    "mend",
    "unlabelled",
]
