"""How much of a picture the thing in it fills: by boxes, or before an even background."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from metaformer_ablate.tasks.classification.trained import EvaluatedImages

DIFFERS = 25  # of 255, from the background
EVEN = 0.9  # of a picture's border is background, in
OFTEN = 0.9  # of the pictures: then the background is even
LOOKED_AT = 100  # pictures, about
UNKNOWN = "not known: the pictures have no even background, and there are no boxes"
BOXES = "Annotations"  # beside the splits, with a file per image as ImageNet and PASCAL VOC have them: STEM.xml


def object_sizes(images: EvaluatedImages, plain_background: bool) -> tuple[NDArray[np.int64], NDArray[np.float64], str]:
    """The images whose object size is known, their shares of the picture (0 to 1), and how, or why there are none.

    By boxes where there are some; else by the background, where that is even by the facts of the data set or as it is
    measured on some images.
    """
    boxes = _shares_of_boxes(images)
    if boxes:
        places = np.array(sorted(boxes), dtype=np.int64)
        return places, np.array([boxes[i] for i in places.tolist()]), f"by the boxes in {BOXES}, together"
    some = images.asked[:: max(1, len(images.asked) // LOOKED_AT)].tolist()
    if plain_background or has_even_background(images.at(some).numpy()):
        shares = share_before_background(images.asked_images.numpy())
        return images.asked, shares, "by the pixels that differ from the picture's border"
    return np.empty(0, dtype=np.int64), np.empty(0), UNKNOWN


def _grey(images: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """[N, C, H, W] -> grey [N, H, W], the pixels of the borders [N, n], and their medians [N]."""
    grey = images.mean(axis=1)
    border = np.concatenate([grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]], axis=1)
    return grey, border, np.median(border, axis=1)


def share_before_background(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """[N]: of uint8 [N, C, H, W] the share of pixels that differ by more than DIFFERS from the median of the border."""
    grey, _, background = _grey(images)
    return (np.abs(grey - background[:, None, None]) > DIFFERS).mean(axis=(1, 2))


def has_even_background(images: NDArray[np.uint8]) -> bool:
    """Whether most pictures have borders of one colour."""
    _, border, background = _grey(images)
    even = (np.abs(border - background[:, None]) <= DIFFERS).mean(axis=1) >= EVEN
    return bool(even.mean() >= OFTEN)


def _shares_of_boxes(images: EvaluatedImages) -> dict[int, float]:
    """{index: the share of the picture that its boxes cover}, of the images that have a file of boxes."""
    if images.place is None or not (root := images.place.root / BOXES).is_dir():
        return {}
    files = {path.stem: path for path in root.rglob("*.xml")}
    found: dict[int, float] = {}
    for index in range(len(images.labels)):
        stem = posixpath.splitext(posixpath.basename(images.file_of(index) or ""))[0]
        if stem in files and (share := covered(files[stem])) is not None:
            found[index] = share
    return found


def covered(path: Path) -> float | None:
    """The share of a picture that the boxes in an annotation of PASCAL VOC's form cover; None where it tells none."""
    try:
        tree = ElementTree.parse(path).getroot()
        width, height = (int(str(tree.findtext(f"size/{key}"))) for key in ("width", "height"))
        boxes = list(_boxes(tree))
    except (OSError, ValueError, ElementTree.ParseError):
        return None
    if not boxes or width < 1 or height < 1:
        return None
    inside = np.zeros((min(height, 1000), min(width, 1000)), dtype=bool)
    down, across = inside.shape[0] / height, inside.shape[1] / width
    for left, top, right, bottom in boxes:
        rows = slice(math.floor(top * down), math.ceil(bottom * down))
        inside[rows, math.floor(left * across) : math.ceil(right * across)] = True
    return float(inside.mean())


def _boxes(tree: ElementTree.Element) -> Iterator[list[float]]:
    for box in tree.iterfind("object/bndbox"):
        yield [max(0.0, float(str(box.findtext(key)))) for key in ("xmin", "ymin", "xmax", "ymax")]
