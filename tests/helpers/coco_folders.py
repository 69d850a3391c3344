"""COCO folders that the tests make of scenes of many sizes, with polygons, run-length codes and crowds."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prepared import PREPARED
from pycocotools import mask as reference
from specs import spec_of

from metaformer_ablate.data.scenes import scene
from metaformer_ablate.spec.run_spec import RunSpec

# 20 training and 20 validation images of COCO, as they are.
SAMPLE = Path(PREPARED or "") / "coco-sample"
needs_coco = pytest.mark.skipif(
    not (SAMPLE / "instances_val.json").is_file(), reason="ABLATE_TEST_DATA has no folder coco-sample of COCO's images"
)

COUNTS = {"train": 12, "val": 6}
SIZES = ((96, 128), (128, 96), (80, 80))
SETTINGS: dict[str, Any] = {
    "model.depths": [1, 1, 1, 1],
    "model.dims": [8, 8, 16, 16],
    "model.init_from": None,
    "data.image_size": None,
    "data.num_classes": 10,
    "data.train_images": COUNTS["train"],
    "data.test_images": COUNTS["val"],
    "data.workers": 0,
    "task.short_side": 64,
    "task.long_side": 96,
    "task.fpn_channels": 8,
    "train.batch_size": 4,
    "train.epochs": 2,
    "train.milestones": [1],
    "train.warmup_steps": 1,
    "train.threads": 1,
}


def coco_spec(recipe: str = "coco_retinanet", seed: int = 0, **settings: Any) -> RunSpec:
    return spec_of({**SETTINGS, **settings}, recipe=recipe, seed=seed)


def annotations(
    split: str, count: int, sizes: tuple[tuple[int, int], ...] = SIZES
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """What annotation files hold, and the images [H, W, 3]. Categories have gaps in their ids, as COCO's have; ids of
    images are not in order; one image is empty, one holds a crowd as well; masks are polygons of boxes or codes."""
    images, entries, pictures = [], [], []
    for i in range(count):
        height, width = sizes[i % len(sizes)]
        found = scene(5, "train" if split == "train" else "test", i, (height, width))
        number = 1000 - 7 * i
        images.append({"id": number, "file_name": f"{number:06d}.png", "height": height, "width": width})
        pictures.append(found.image.transpose(1, 2, 0))
        for box, label, mask in zip(found.boxes.tolist(), found.labels.tolist(), found.masks, strict=True):
            if i == 1:
                continue
            entry: dict[str, Any] = {"id": len(entries) + 1, "image_id": number, "category_id": 2 * label + 1}
            entry |= {"iscrowd": int(i == 2 and box[0] == found.boxes[0, 0]), "area": float(mask.sum())}
            left, top, right, bottom = box
            entry["bbox"] = [left, top, right - left, bottom - top]
            code = reference.encode(np.asfortranarray(mask))
            entry["segmentation"] = {"size": code["size"], "counts": code["counts"].decode()}
            if len(entries) % 3 == 0:
                entry["segmentation"] = [[left, top, right, top, right, bottom, left, bottom]]
                entry["area"] = (right - left) * (bottom - top)
            entries.append(entry)
    categories = [{"id": 2 * label + 1, "name": f"digit {label}"} for label in range(10)]
    return {"images": images, "annotations": entries, "categories": categories}, pictures


def write_coco(root: Path, sizes: tuple[tuple[int, int], ...] = SIZES) -> Path:
    """root/{train,val}2017/*.png and root/annotations/instances_{train,val}2017.json."""
    (root / "annotations").mkdir(parents=True)
    for split, count in COUNTS.items():
        found, pictures = annotations(split, count, sizes)
        folder = root / f"{split}2017"
        folder.mkdir()
        for image, pixels in zip(found["images"], pictures, strict=True):
            Image.fromarray(pixels).save(folder / image["file_name"])
        annotation_file(root, split).write_text(json.dumps(found))
    return root


def annotation_file(root: Path, split: str = "train") -> Path:
    return root / "annotations" / f"instances_{split}2017.json"


def change(path: Path, **values: Any) -> None:
    """Writes lists of an annotation file anew. A function is given the list that is there."""
    found = json.loads(path.read_text())
    for key, value in values.items():
        found[key] = value(found[key]) if callable(value) else value
    path.write_text(json.dumps(found))
    os.utime(path, ns=(1, os.stat(path).st_mtime_ns + 1))
