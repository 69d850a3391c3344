"""Masks as COCO's compressed run-length codes, a few hundred bytes each: what is kept, gathered and compared.

faster-coco-eval's functions; on polygons and codes alike they give the bits of pycocotools. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from faster_coco_eval.core import mask
from numpy.typing import NDArray

POLYGON = "a list of polygons [x, y, x, y, ...], or {counts, size: [height, width]}"


def encode(masks: NDArray[Any]) -> list[bytes]:
    """Codes of masks [N, H, W]."""
    if not len(masks):
        return []
    columns = np.ascontiguousarray(masks.transpose(0, 2, 1), dtype=np.uint8)  # it reads column by column
    return [code["counts"] for code in mask.encode(columns.transpose(2, 1, 0))]


def decode(codes: Sequence[bytes], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Masks [N, H, W] of 0 and 1, of codes of one size (height, width)."""
    if not codes:
        return np.zeros((0, *size), dtype=np.uint8)
    found = mask.decode([{"size": list(size), "counts": code} for code in codes])  # [H, W, N]
    return np.ascontiguousarray(found.transpose(2, 0, 1))


def areas(codes: Sequence[bytes], size: tuple[int, int]) -> NDArray[np.int64]:
    """Pixels [N] of each mask."""
    if not codes:
        return np.zeros(0, dtype=np.int64)
    return np.asarray(mask.area([{"size": list(size), "counts": code} for code in codes]), dtype=np.int64)


def of_segmentation(found: Any, size: tuple[int, int]) -> bytes:
    """The code of an annotation's `segmentation` in an image of (height, width): polygons, runs or a code.

    Polygons of fewer than three points enclose nothing and are left out. Raises ValueError with what is wrong.
    """
    height, width = size
    if isinstance(found, list):
        polygons = [_checked(polygon) for polygon in found]
        drawn = [polygon for polygon in polygons if len(polygon) >= 6]
        if not drawn:
            raise ValueError("it has no polygon of three points")
        return mask.merge(mask.frPyObjects(drawn, height, width))["counts"]
    if not isinstance(found, dict) or not {"counts", "size"} <= set(found):
        raise ValueError("it is neither polygons nor runs")
    if list(found["size"]) != [height, width]:
        shown = " x ".join(str(side) for side in reversed(found["size"]))
        raise ValueError(f"it is {shown} pixels, and the image {width} x {height}")
    counts = found["counts"]
    if isinstance(counts, list):
        if not all(type(run) is int and run >= 0 for run in counts) or sum(counts) != height * width:
            raise ValueError(f"its runs do not add up to the {height * width} pixels of the image")
        return mask.frPyObjects(found, height, width)["counts"]
    code = counts.encode() if isinstance(counts, str) else counts
    if not isinstance(code, bytes) or _pixels(code) != height * width:
        raise ValueError(f"its code does not add up to the {height * width} pixels of the image")
    return code


def _checked(polygon: Any) -> list[float]:
    if not isinstance(polygon, list) or len(polygon) % 2:
        raise ValueError("a polygon is not a list of an even number of coordinates")
    if not all(type(x) in (int, float) and math.isfinite(x) for x in polygon):
        raise ValueError("a polygon holds what is not a finite number")
    return polygon


def _pixels(code: bytes) -> int:
    """The sum of the runs of a compressed code (cocoapi's maskApi.c, rleFrString); -1 where it is none."""
    runs: list[int] = []
    value = shift = 0
    for byte in code:
        part = byte - 48
        if not 0 <= part < 64:
            return -1
        value |= (part & 31) << shift
        shift += 5
        if not part & 32:
            if part & 16:
                value -= 1 << shift
            if len(runs) > 2:
                value += runs[-2]
            if value < 0:
                return -1
            runs.append(value)
            value = shift = 0
    return -1 if shift else sum(runs)
