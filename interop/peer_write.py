"""Write datasets with lerobot for retrodict to open: frames as video and as images, actions or none, tasks, several files."""

from __future__ import annotations

import shutil
import sys

import scenes
from peer import LeRobotDataset

out = scenes.folder(sys.argv)
NUMBERS = {"observation.state": ("float32", (6,)), "action": ("float32", (3,))}
SCALARS = {"next.reward": ("float32", (1,)), "next.done": ("bool", (1,))}

for kind, actions in (("video", True), ("image", True), ("video", False)):
    name = f"peer_{kind}" + ("" if actions else "_without_actions")
    features = {
        n: {"dtype": d, "shape": s, "names": None} for n, (d, s) in {**NUMBERS, **SCALARS}.items() if actions or n != "action"
    }
    for camera in scenes.CAMERAS:
        shape = (scenes.HEIGHT, scenes.WIDTH, 3)
        features[f"observation.images.{camera}"] = {"dtype": kind, "shape": shape, "names": ["height", "width", "channels"]}
    features["instruction"] = {"dtype": "string", "shape": (1,), "names": None}
    shutil.rmtree(out / name, ignore_errors=True)
    dataset = LeRobotDataset.create("peer/" + name, scenes.FPS, features, root=out / name, robot_type="doomguy")
    dataset.meta.update_chunk_settings(data_files_size_in_mb=0.002, video_files_size_in_mb=0.05)
    for number, values in enumerate(scenes.episodes()):
        for t in range(scenes.LENGTHS[number]):
            frame = {n: v[t] for n, v in values.items() if n not in SCALARS and (actions or n != "action")}
            frame |= {n: values[n][t : t + 1] for n in SCALARS}
            dataset.add_frame({**frame, "instruction": f"step {t}", "task": scenes.TASKS[number]})
        dataset.save_episode()
    dataset.finalize()
    scenes.done(
        f"lerobot wrote {name}: {len(list((out / name).rglob('*.parquet')))} Parquet and "
        f"{len(list((out / name).rglob('*.mp4')))} video files"
    )
