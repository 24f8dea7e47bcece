"""Write datasets with retrodict for lerobot to open: recordings, and each kind of emitted labels."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import scenes

import retrodict
from retrodict.trajectories import Recordings, from_arrays
from retrodict.trajectories.features import INFERRED, RECORDED
from retrodict.trajectories.stores import lerobot

out = scenes.folder(sys.argv)
episodes = scenes.episodes()


def as_video(recordings: Recordings) -> Recordings:
    features = {name: replace(f, dtype="video") if f.is_visual else f for name, f in recordings.features.items()}
    return replace(recordings, features=features)


recordings = as_video(from_arrays(episodes, fps=scenes.FPS, tasks=scenes.TASKS))
for codec in ("libx264", "libsvtav1"):
    recordings.save(out / codec, codec=codec)
    scenes.done(f"wrote {codec}")
from_arrays(episodes, fps=scenes.FPS, tasks=scenes.TASKS).save(out / "images")
scenes.done("wrote images")

few = [{k: v for k, v in values.items() if k != "action" or i == 0} for i, values in enumerate(episodes)]
as_video(from_arrays(few, fps=scenes.FPS, tasks=scenes.TASKS)).save(out / "few_actions")
scenes.done("wrote few_actions (one episode of four has actions)")


def labels(rest: Recordings) -> Iterator[lerobot.EpisodeLabels]:
    for episode in rest:
        true = episodes[episode.index]["action"]
        kept = np.arange(episode.length) % 11 != 5
        yield lerobot.EpisodeLabels(
            action=true + 0.25,
            confidence=np.where(kept, 0.9, 0.1),
            source=np.full(episode.length, RECORDED if "action" in episode else INFERRED),
            weight=kept.astype(float),
        )


source = lerobot.read(out / "few_actions")
for emit in ("split", "weight", "all"):
    lerobot.write_labelled(source, labels, out / f"labels_{emit}", emit=emit, run={"model": "none"})
    linked = (out / "few_actions" / "videos").rglob("*.mp4")
    for path in linked:
        twin = out / f"labels_{emit}" / path.relative_to(out / "few_actions")
        assert twin.stat().st_ino == path.stat().st_ino, f"{twin} is not linked"
    scenes.done(f"wrote labels_{emit}, videos linked")
print(f"retrodict {retrodict.__version__}")
