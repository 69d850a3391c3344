"""Folders of images and masks: rectangles of a colour per class over noise, so that a net learns them in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = np.array([(40, 40, 40), (220, 40, 40), (40, 220, 40), (60, 60, 230)])

# What a run of such a folder takes in a second or two.
RECIPE = """
title: Rectangles
task: {name: segmentation, crop: [32, 32], ratio: [0.5, 2.0], fpn_channels: 8, head_channels: 8, head_norm: group_norm,
       eval_multiple: 16, distortion: false}
model: {depths: [1, 1, 1, 1], dims: [8, 8, 16, 16], head_dim: 8, layer_scale: 0.1, drop_path: 0,
        stem: {kernel: 3, stride: 2, padding: 1}}
data: {name: camvid, image_size: null, num_classes: 4, train_images: 16, test_images: 6, flip: true, workers: 0}
train: {epochs: 2, batch_size: 4, lr: 2e-2, warmup_epochs: 0, threads: 1}
"""


EXPERIMENT = """
title: Pooling or nothing
baseline: pooling
rows:
  pooling: {label: Pooling, set: {}, paper: {miou: 60.0}}
  identity: {label: Identity, set: {model.token_mixer: identity}}
"""


ONE_ROW = """
title: Pooling
baseline: pooling
rows:
  pooling: {label: Pooling, set: {}}
"""


def write_folder(root: Path, train: int = 16, val: int = 6, first: int = 0) -> Path:
    """`images/{train,val}` and `annotations/{train,val}` of some sizes; masks hold `first` on, and 255 at an edge."""
    for split, count in (("train", train), ("val", val)):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image, mask = picture(1000 * (split == "val") + i)
            Image.fromarray(image).save(root / "images" / split / f"{split}{i}.png")
            held = np.where(mask == 255, 255, mask + first).astype(np.uint8)
            Image.fromarray(held).save(root / "annotations" / split / f"{split}{i}.png")
    return root


def picture(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An image [h, w, 3] and its mask [h, w], uint8."""
    draw = np.random.RandomState(seed)
    height, width = draw.randint(36, 60, 2)
    mask = np.zeros((height, width), dtype=np.uint8)
    for _ in range(4):
        top, left = draw.randint(0, height - 12), draw.randint(0, width - 12)
        mask[top : top + draw.randint(10, 24), left : left + draw.randint(10, 24)] = draw.randint(1, 4)
    image = COLOURS[mask] + draw.randint(-20, 21, (height, width, 3))
    mask[:2] = 255
    return image.clip(0, 255).astype(np.uint8), mask
