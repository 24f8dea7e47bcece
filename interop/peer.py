"""lerobot 0.4.4 beside a torch that is newer than it knows.

torchvision's compiled operators do not load on the CPU build of this torch, which it tolerates except that it registers them
unguarded: they are declared here, and nothing that we run calls them.
"""

from __future__ import annotations

import os
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.filterwarnings("ignore", module="torchvision")

import torch  # noqa: E402

for operator in ("nms", "qnms"):
    torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from lerobot.configs.types import FeatureType  # noqa: E402
from lerobot.datasets.lerobot_dataset import LeRobotDataset  # noqa: E402
from lerobot.datasets.utils import dataset_to_policy_features  # noqa: E402

__all__ = ["FeatureType", "LeRobotDataset", "dataset_to_policy_features", "torch"]
