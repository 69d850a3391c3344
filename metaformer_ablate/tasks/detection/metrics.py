"""COCO's average precision: what is gathered of an evaluation, and torchmetrics' figures of it.

What is gathered is what a record keeps (`predictions.py`), so that the figures can be had of a record again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from metaformer_ablate.data import run_lengths
from metaformer_ablate.tasks.detection.predictions import per_image_parts

# In float64: torchmetrics' own are in float32, and give other figures than pycocotools.
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10).tolist()
RECALL_THRESHOLDS = np.linspace(0, 1, 101).tolist()
NO_AREA = 1e-9  # pixels; for an area of 0 torchmetrics would take that of the box

# A figure of torchmetrics -> the metric that it is, of boxes and of masks.
BOX_METRICS = {
    "map": "box_ap",
    "map_50": "box_ap50",
    "map_75": "box_ap75",
    "map_small": "box_ap_small",
    "map_medium": "box_ap_medium",
    "map_large": "box_ap_large",
}
MASK_METRICS = {"map": "mask_ap", "map_50": "mask_ap50", "map_75": "mask_ap75"}
REPORTED = ("box_ap", "box_ap50", "box_ap75")  # of every run; the others of those that have something to find


class Evaluation:
    """What a detector found in each image, and what is annotated there, image by image."""

    def __init__(self, masks: bool):
        self.masks = masks
        self._found: dict[str, list[Any]] = {}
        self._codes: dict[str, list[bytes]] = {"": [], "truth_": []}

    def add(self, found: Mapping[str, Tensor], target: Mapping[str, Any]) -> None:
        """`found` as the net gives it, in the original image: boxes [n, 4], scores [n], labels [n] and, with masks,
        masks [n, H, W] bool; `target` as the evaluation loader gives it."""
        values = {
            "image_id": np.array([target["image_id"]], dtype=np.int64),
            "size": np.array([target["size"]], dtype=np.int32),
            "detections": np.array([len(found["boxes"])], dtype=np.int32),
            "truths": np.array([len(target["boxes"])], dtype=np.int32),
            "box": found["boxes"].float().cpu().numpy().reshape(-1, 4),
            "score": found["scores"].float().cpu().numpy(),
            "label": found["labels"].cpu().numpy().astype(np.int32),
            "truth_box": np.asarray(target["boxes"], dtype=np.float64).reshape(-1, 4),
            "truth_label": np.asarray(target["labels"], dtype=np.int32),
            "truth_area": np.asarray(target["area"], dtype=np.float64),
            "truth_crowd": np.asarray(target["iscrowd"], dtype=bool),
        }
        for name, value in values.items():
            self._found.setdefault(name, []).append(value)
        if self.masks:
            self._codes[""] += run_lengths.encode(found["masks"].cpu().numpy())
            self._codes["truth_"] += target["codes"]

    def arrays(self) -> dict[str, Tensor]:
        """All of it, each [.., ...], of which those of several devices are put together one after another."""
        arrays = {name: np.concatenate(values) for name, values in self._found.items()}
        if self.masks:
            for of, codes in self._codes.items():
                arrays[f"{of}mask_length"] = np.array([len(code) for code in codes], dtype=np.int32)
                arrays[f"{of}mask_code"] = np.frombuffer(b"".join(codes), dtype=np.uint8).copy()
        return {name: torch.from_numpy(values) for name, values in arrays.items()}


class _OfArrays(MeanAveragePrecision):
    """torchmetrics' average precision of what was gathered: masks are run-length codes already, which its own `update`
    would have to make again of masks in full."""

    def update(self, arrays: Mapping[str, NDArray[Any]]) -> None:  # type: ignore[override]
        for part in per_image_parts(arrays):
            size = tuple(part["size"].tolist())
            for of, kind in (("", "detection"), ("truth_", "groundtruth")):
                boxes = part[f"{of}box"].astype(np.float64)
                boxes[:, 2:] -= boxes[:, :2]  # left, top, width, height
                getattr(self, f"{kind}_box").append(torch.from_numpy(boxes))
                getattr(self, f"{kind}_labels").append(torch.from_numpy(part[f"{of}label"]).long())
                if "segm" in self.iou_type:
                    getattr(self, f"{kind}_mask").append(tuple((size, code) for code in part[f"{of}codes"]))
            self.detection_scores.append(torch.from_numpy(part["score"]))
            self.groundtruth_crowds.append(torch.from_numpy(part["truth_crowd"]).long())
            self.groundtruth_area.append(torch.from_numpy(part["truth_area"].clip(min=NO_AREA)))


def average_precision(arrays: Mapping[str, NDArray[Any]], *, curves: bool = False) -> dict[str, Any]:
    """torchmetrics' figures of what was gathered, of boxes (`bbox_map`) and, where there are masks, of masks
    (`segm_map`), from 0 to 1 and -1 where there is nothing to find.

    With `curves` also `bbox_precision` [IoU threshold, recall threshold, class, area, detections per image], in which
    the classes are those of `classes`.
    """
    kinds = ("bbox", "segm") if "mask_code" in arrays else ("bbox",)
    metric = _OfArrays(
        iou_type=kinds,  # type: ignore[arg-type]
        iou_thresholds=IOU_THRESHOLDS,
        rec_thresholds=RECALL_THRESHOLDS,
        extended_summary=curves,
        backend="faster_coco_eval",
        sync_on_compute=False,
        compute_with_cache=False,
    )
    metric.update(arrays)
    figures = metric.compute()
    if len(kinds) > 1:
        return figures
    return {name if name == "classes" else f"bbox_{name}": value for name, value in figures.items()}


def measure(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The metrics in percent, of `Evaluation.arrays`."""
    return metrics_of(average_precision({name: values.cpu().numpy() for name, values in arrays.items()}))


def metrics_of(figures: Mapping[str, Any]) -> dict[str, Tensor]:
    """The metrics in percent, of `average_precision`. A size of which nothing is annotated has no AP."""
    names = {f"bbox_{key}": name for key, name in BOX_METRICS.items()}
    names |= {f"segm_{key}": name for key, name in MASK_METRICS.items()}
    found = {name: 100 * figures[key].squeeze() for key, name in names.items() if key in figures}
    return {name: value for name, value in found.items() if value >= 0 or name in REPORTED}
