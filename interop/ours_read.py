"""Open with retrodict what lerobot wrote: equal values, the right frames."""

from __future__ import annotations

import sys

import numpy as np
import scenes

from retrodict.trajectories.stores import lerobot

out = scenes.folder(sys.argv)
episodes = scenes.episodes()

for name, actions in (("peer_video", True), ("peer_image", True), ("peer_video_without_actions", False)):
    recordings = lerobot.read(out / name)
    assert len(recordings) == len(episodes)
    assert recordings.fps == scenes.FPS
    assert recordings.meta["robot_type"] == "doomguy"
    errors = []
    for number, (episode, values) in enumerate(zip(recordings, episodes, strict=True)):
        assert episode.tasks == (scenes.TASKS[number],)
        assert episode.length == scenes.LENGTHS[number]
        assert list(episode["instruction"]) == [f"step {t}" for t in range(episode.length)]
        assert ("action" in episode) == actions
        for feature, true in values.items():
            if "images" in feature:
                where = f"{name} {feature}"
                errors.append(scenes.same_frames(episode[feature], true, where, exact=name == "peer_image"))
            elif feature in episode:
                assert np.array_equal(episode[feature], true), f"{name}: {feature} of episode {number}"
    scenes.done(f"retrodict reads {name}: values equal, frames within {max(errors):.2f} grey levels")
