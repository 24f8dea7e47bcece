"""Open with lerobot what retrodict wrote: equal values, the right frames, and its ACT policy trains on each kind of labels."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import scenes
from peer import FeatureType, LeRobotDataset, dataset_to_policy_features, torch

out = scenes.folder(sys.argv)
episodes = scenes.episodes()


def rows(dataset: LeRobotDataset, name: str, episode: int) -> np.ndarray:
    at = dataset.meta.episodes[episode]
    items = [dataset[i][name] for i in range(at["dataset_from_index"], at["dataset_to_index"])]
    return np.stack([item.numpy() for item in items])


def frames(dataset: LeRobotDataset, camera: str, episode: int) -> np.ndarray:
    return (rows(dataset, camera, episode).transpose(0, 2, 3, 1) * 255).round().astype(np.uint8)


def check_recordings(folder: Path, *, actions: bool, exact: bool = False) -> None:
    for backend in ("torchcodec", "pyav"):
        dataset = LeRobotDataset("retrodict/" + folder.name, root=folder, video_backend=backend)
        assert len(dataset) == sum(scenes.LENGTHS)
        assert dataset.fps == scenes.FPS
        assert ("action" in dataset.features) == actions
        errors = []
        for number, values in enumerate(episodes):
            assert dataset[dataset.meta.episodes[number]["dataset_from_index"]]["task"] == scenes.TASKS[number]
            for name, true in values.items():
                if "images" in name:
                    errors.append(scenes.same_frames(frames(dataset, name, number), true, f"{folder.name} {name}", exact=exact))
                elif name != "action" or actions:
                    assert np.array_equal(rows(dataset, name, number), true), f"{folder.name}: {name} of episode {number}"
        for name in ("observation.state", "action"):
            if name in dataset.meta.stats:
                whole = np.concatenate([values[name] for values in episodes])
                assert np.allclose(dataset.meta.stats[name]["mean"], whole.mean(0), atol=1e-5)
                assert np.allclose(dataset.meta.stats[name]["std"], whole.std(0), atol=1e-5)
        scenes.done(f"lerobot reads {folder.name} ({backend}): values equal, frames within {max(errors):.2f} grey levels")


def check_labels(folder: Path) -> None:
    dataset = LeRobotDataset("retrodict/" + folder.name, root=folder)
    for number in range(dataset.num_episodes):
        source = rows(dataset, "label.source.episode_index", number) if folder.name.endswith("split") else np.array([number])
        episode = int(source[0])
        first = int(rows(dataset, "label.source.frame_index", number)[0]) if folder.name.endswith("split") else 0
        action = rows(dataset, "action", number)
        steps = slice(first, first + len(action))
        assert np.allclose(action, episodes[episode]["action"][steps] + 0.25)
        for camera in scenes.CAMERAS:
            name = f"observation.images.{camera}"
            got = frames(dataset, name, number)
            error = np.abs(got.astype(int) - episodes[episode][name][steps].astype(int)).mean()
            assert error < 6, f"{folder.name}: episode {number} shows other frames (mean error {error:.1f})"
    outputs = [n for n, f in dataset_to_policy_features(dataset.features).items() if f.type is FeatureType.ACTION]
    assert outputs == ["action"], f"{folder.name}: action outputs {outputs}"
    scenes.done(
        f"lerobot reads {folder.name}: {dataset.num_episodes} episodes, labels and frames in step, action outputs {outputs}"
    )
    train(folder, dataset)


def train(folder: Path, dataset: LeRobotDataset) -> None:
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.act.processor_act import make_act_pre_post_processors

    torch.manual_seed(0)
    features = dataset_to_policy_features(dataset.features)
    config = ACTConfig(
        input_features={name: f for name, f in features.items() if f.type is not FeatureType.ACTION},
        output_features={name: f for name, f in features.items() if f.type is FeatureType.ACTION},
        chunk_size=4,
        n_action_steps=4,
        dim_model=32,
        n_heads=2,
        dim_feedforward=32,
        n_encoder_layers=1,
        n_vae_encoder_layers=1,
        latent_dim=8,
        pretrained_backbone_weights=None,
        device="cpu",
    )
    policy = ACTPolicy(config)
    before, _ = make_act_pre_post_processors(config, dataset_stats=dataset.meta.stats)
    ahead = [step / dataset.fps for step in config.action_delta_indices]
    chunks = LeRobotDataset(dataset.repo_id, root=folder, delta_timestamps={"action": ahead})
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4)
    loader = torch.utils.data.DataLoader(chunks, batch_size=4, shuffle=True)
    losses = []
    for _, batch in zip(range(4), loader, strict=False):
        loss, _ = policy.forward(before(batch))
        assert torch.isfinite(loss), f"{folder.name}: loss {loss}"
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    scenes.done(f"lerobot trains ACT on {folder.name}: losses {[round(loss, 2) for loss in losses]}")


check_recordings(out / "libx264", actions=True)
check_recordings(out / "libsvtav1", actions=True)
check_recordings(out / "images", actions=True, exact=True)
check_recordings(out / "few_actions", actions=False)
for emit in ("split", "weight", "all"):
    check_labels(out / f"labels_{emit}")
