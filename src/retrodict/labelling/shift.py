"""Do the recordings to be labelled look like those that the confidence was calibrated on? If not, no promise holds for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from retrodict.labelling.infer import Inference
from retrodict.trajectories import Recordings, Window

#: Frames of an episode that are looked at.
LOOKS = 8
#: Chance of a false alarm, all statistics of one comparison together.
FALSE_ALARM = 0.01

Portrait = Mapping[str, float]
"""A few numbers on one episode."""


def portrait(recordings: Recordings, inference: Inference, reads: Window) -> dict[str, float]:
    """What one episode looks like to the model: its confidence, and level and spread of each feature that the model reads.

    Frames are taken at the size at which the model reads them, a few of each episode.
    """
    out = {"mean confidence": float(inference.confidence.mean())}
    names = tuple(name for name in reads.spans if name in recordings.features and not recordings.features[name].is_text)
    looks = Window(features=names, image_size=reads.image_size, optional=tuple(n for n in names if n in reads.optional))
    length = recordings[inference.position].length
    at = np.unique(np.linspace(0, length - 1, min(LOOKS, length)).astype(int))
    for name, values in recordings.windows(looks).gather(np.stack([np.full_like(at, inference.position), at], 1)).items():
        if name in names:
            array = values.numpy().astype(float).reshape(len(at), -1)
            if recordings.features[name].is_visual:
                out[f"brightness of {name}"] = float(array.mean())
                out[f"contrast of {name}"] = float(array.std(1).mean())
            else:
                out[f"level of {name}"] = float(array.mean())
                out[f"spread of {name}"] = float(array.std())
    return out


def shifted(calibrated: Sequence[Portrait], target: Sequence[Portrait]) -> str | None:
    """One sentence on how the target differs from what was calibrated on, or None where nothing speaks for a difference.

    Episodes are compared as wholes, statistic by statistic, with the Kolmogorov-Smirnov test (exact for few episodes) and Holm's
    correction. Few episodes can hide a difference: silence is no proof.
    """
    found = []
    names = sorted({name for episode in (*calibrated, *target) for name in episode})
    tested = [name for name in names if all(name in episode for episode in (*calibrated, *target))]
    for name in tested:
        ours, theirs = (np.array([episode[name] for episode in side]) for side in (calibrated, target))
        if len(ours) and len(theirs):
            found.append((float(stats.ks_2samp(ours, theirs).pvalue), name, float(np.median(ours)), float(np.median(theirs))))
    if not found:
        return None
    p, name, ours_middle, theirs_middle = min(found)
    if p * len(found) > FALSE_ALARM:
        return None
    way = "higher" if theirs_middle > ours_middle else "lower" if theirs_middle < ours_middle else "spread otherwise"
    return (
        f"the recordings to be labelled differ from those calibrated on: {name} is {way} (median {theirs_middle:.3g} against "
        f"{ours_middle:.3g}, p = {p * len(found):.1g}), so confidences and promises may not hold for them."
    )
