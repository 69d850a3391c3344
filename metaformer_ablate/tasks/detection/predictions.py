"""What a record keeps of the predictions: what was found in each evaluation image, and what is annotated there.

Per image: `image_id` and `size` (height, width), and how many `detections` and `truths` it has. Per detection, image
after image: `box` (left, top, right, bottom in pixels of the original), `score` (0 to 1) and `label`. Per annotation:
`truth_box`, `truth_label`, `truth_area` and `truth_crowd`. With masks, for both: the `mask_length` of each run-length
code in `mask_code`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaformer_ablate.errors import RequestError
from metaformer_ablate.tasks.base import RecordedRun

Arrays = Mapping[str, NDArray[Any]]

# name: (kind of number, shape of an entry, what there is an entry of)
SHAPES = {
    "image_id": ("i", (), "images"),
    "size": ("i", (2,), "images"),
    "detections": ("i", (), "images"),
    "truths": ("i", (), "images"),
    "box": ("f", (4,), "detections"),
    "score": ("f", (), "detections"),
    "label": ("i", (), "detections"),
    "truth_box": ("f", (4,), "truths"),
    "truth_label": ("i", (), "truths"),
    "truth_area": ("f", (), "truths"),
    "truth_crowd": ("b", (), "truths"),
}
OF_MASKS = {"mask_length": "detections", "truth_mask_length": "truths"}


def check(predictions: Arrays) -> None:
    """Raises ValueError unless these are detections and annotations of images, and as many of each as is said."""
    masks = any("mask" in name for name in predictions)
    codes = ("mask_length", "mask_code", "truth_mask_length", "truth_mask_code")
    allowed = [*SHAPES, *(codes if masks else ())]
    if lacking := [name for name in allowed if name not in predictions]:
        raise ValueError(f"lacks {', '.join(lacking)}; allowed: {', '.join(allowed)}")
    shapes = SHAPES | ({name: ("i", (), of) for name, of in OF_MASKS.items()} if masks else {})
    for name, (kind, entry, _) in shapes.items():
        found = predictions[name]
        if found.dtype.kind != kind or found.shape[1:] != entry or found.ndim != 1 + len(entry):
            raise ValueError(f"{name} is {found.dtype} {list(found.shape)}; allowed: numbers [n, {list(entry)}]")
    counts = {"images": len(predictions["image_id"])}
    for name in ("detections", "truths"):
        if predictions[name].min(initial=0) < 0:
            raise ValueError(f"{name} holds {predictions[name].min()}; allowed: counts")
        counts[name] = int(predictions[name].sum(dtype=np.int64))
    for name, (_, _, of) in shapes.items():
        if len(predictions[name]) != counts[of]:
            raise ValueError(f"{name} has {len(predictions[name])} entries; allowed: one for each of {counts[of]} {of}")
    for name in ("box", "score", "truth_box", "truth_area"):
        if not np.isfinite(predictions[name]).all():
            raise ValueError(f"{name} holds what is not a finite number")
    if min(predictions[name].min(initial=0) for name in ("label", "truth_label")) < 0:
        raise ValueError("a label is below 0; allowed: classes from 0 on")
    for name in OF_MASKS if masks else ():
        lengths, code = predictions[name], predictions[name.replace("length", "code")]
        if lengths.min(initial=0) < 0 or code.dtype != np.uint8 or code.shape != (lengths.sum(dtype=np.int64),):
            raise ValueError(f"{name} does not divide its codes; allowed: the bytes of each, in all {len(code)}")


def per_image(predictions: Arrays) -> None:
    """No image has an average precision of its own: it is one of a data set."""
    return None


def same_images(one: Arrays, other: Arrays) -> bool:
    """Whether two evaluations were of the same images in the same order, with the same annotations."""
    names = ("image_id", "size", "truths", "truth_box", "truth_label", "truth_crowd")
    return all(np.array_equal(one[name], other[name]) for name in names)


def per_image_parts(predictions: Arrays) -> Iterator[dict[str, Any]]:
    """The entries of each image by name; of masks the `codes` and `truth_codes`, lists of bytes."""
    ends = {of: np.cumsum(predictions[of]) for of in ("detections", "truths")}
    codes = {}
    for name in OF_MASKS if "mask_code" in predictions else ():
        of = name.removesuffix("mask_length")
        text, lengths = predictions[f"{of}mask_code"].tobytes(), np.cumsum(predictions[name]).tolist()
        codes[f"{of}codes"] = [text[begin:end] for begin, end in zip([0, *lengths], lengths, strict=False)]
    for i in range(len(predictions["image_id"])):
        parts: dict[str, Any] = {}
        for name, (_, _, of) in SHAPES.items():
            parts[name] = predictions[name][i] if of == "images" else predictions[name][_span(ends[of], i)]
        for name, found in codes.items():
            parts[name] = found[_span(ends["truths" if name.startswith("truth") else "detections"], i)]
        yield parts


def _span(ends: NDArray[np.int64], i: int) -> slice:
    return slice(int(ends[i - 1]) if i else 0, int(ends[i]))


def read_predictions(run: RecordedRun) -> dict[str, NDArray[Any]]:
    """The arrays of a run. Raises RequestError where it has none, or such as it cannot have left."""
    if run.status != "ok":
        raise RequestError(
            f"run {run.run_id} {run.status} ({run.data.get('reason')}): it has no predictions; "
            "allowed: a run with status ok"
        )
    return run.predictions()
