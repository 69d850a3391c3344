"""An annotation file in COCO's format, read once and held to what training and evaluation need. No torch.

What was read lies in the user's cache as arrays: COCO's own file takes half a minute to parse.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaformer_ablate.data import run_lengths
from metaformer_ablate.data.listings import Names, listing_path, read_listing, write_listing
from metaformer_ablate.data.rules import named, some
from metaformer_ablate.errors import RequestError, shown
from metaformer_ablate.system.files import open_regular

RULES = 1  # what was cached by other rules is read anew

BOX = "four finite numbers: left, top, width and height in pixels"
FORMAT = "an object with the lists images, annotations and categories"


@dataclass(frozen=True, eq=False)
class CocoSplit:
    """The images of a split by id, and what is annotated in them: entries first[i] to first[i + 1] of image i.

    Boxes are in pixels and lie in the file as here, also where they reach beyond the image. `codes` are run-length
    codes; None where masks were not asked for.
    """

    path: Path
    names: Names  # of the images, relative to their folder
    image_ids: NDArray[np.int64]  # [N]
    sizes: NDArray[np.int64]  # [N, 2]: height and width
    first: NDArray[np.int64]  # [N + 1]
    ids: NDArray[np.int64]  # [M], of annotations
    boxes: NDArray[np.float64]  # [M, 4]: left, top, right, bottom
    labels: NDArray[np.int64]  # [M], from 0 in the order of the categories' ids
    areas: NDArray[np.float64]  # [M], of the masks where they are known
    crowds: NDArray[np.bool_]  # [M]: a crowd is one entry for many things; nothing is trained on it
    categories: tuple[str, ...]
    category_ids: tuple[int, ...]
    codes: Names | None = None

    def __len__(self) -> int:
        return len(self.image_ids)

    def entries(self, image: int) -> NDArray[np.int64]:
        """The indices of an image's entries."""
        return np.arange(self.first[image], self.first[image + 1])

    def masks(self, entries: Iterable[int]) -> list[bytes]:
        """The codes of some entries."""
        assert self.codes is not None
        return [self.codes.raw(i) for i in entries]

    @classmethod
    def of(cls, path: Path, masks: bool) -> CocoSplit:
        """Reads an annotation file. Raises RequestError for what cannot be meant, with the entry."""
        try:
            state = path.stat()
            now = [RULES, state.st_size, state.st_mtime_ns]
            memory = listing_path(path, kind="annotations")
            known = read_listing(memory, (*_ARRAYS, "state", "masks", "categories", "category_ids"))
            if known is None or known["state"] != now or (masks and not known["masks"]):
                known = _Reader(path, masks).arrays()
                write_listing(memory, state=now, masks=masks, **known)
        except OSError as error:
            raise RequestError(f"{path}: cannot be read: {error.strerror or error}") from None
        codes = Names(known["codes"], known["code_ends"]) if masks else None
        values = {name: known[name] for name in _ARRAYS[4:]}
        names = Names(known["names"], known["name_ends"])
        return cls(
            path, names, **values, categories=tuple(known["categories"]), category_ids=tuple(known["category_ids"]),
            codes=codes,
        )  # fmt: skip


_ARRAYS = (
    "names", "name_ends", "codes", "code_ends",
    "image_ids", "sizes", "first", "ids", "boxes", "labels", "areas", "crowds",
)  # fmt: skip


def _is_inside(name: str) -> bool:
    """Whether a name can be that of a file in a folder or below it."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return bool(name) and "\0" not in name and not name.startswith("/") and ".." not in name.split("/")


class _Reader:
    """One annotation file: each of its lists checked entry by entry, and put together as arrays."""

    def __init__(self, path: Path, masks: bool):
        self.path, self.masks = path, masks
        content = self._content()
        self.categories = self._categories(content["categories"])
        self.images = self._images(content["images"])
        self.annotations = content["annotations"]

    def _wrong(self, where: str, what: str, allowed: str) -> RequestError:
        return RequestError(f"{self.path}: {where}{what}; allowed: {allowed}")

    def _content(self) -> Mapping[str, Any]:
        try:
            with open_regular(self.path) as stream:
                content = json.load(stream)
        except (ValueError, RecursionError) as error:
            said = " ".join(str(error).split())[:120]
            raise self._wrong("", f"is not JSON ({said})", f"an annotation file in COCO's format, {FORMAT}") from None
        lists = ("images", "annotations", "categories")
        lacking = [key for key in lists if not isinstance(content, dict) or not isinstance(content.get(key), list)]
        if lacking:
            found = f"has no list {' and no list '.join(lacking)}"
            raise self._wrong("", f"is not in COCO's format: it {found}", FORMAT)
        for key in lists[::2]:
            if not content[key]:
                raise self._wrong("", f"its list {key} is empty", f"at least one entry in {key}")
        return content

    def _objects(self, kind: str, found: list[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each entry of a list with what to call it: its id, or its place in the list where it has none."""
        for place, entry in enumerate(found):
            if not isinstance(entry, dict):
                raise self._wrong(f"{kind} entry {place} ", f"is {shown(entry)}", "an object")
            number = entry.get("id")
            yield (f"{kind} {number} " if type(number) is int else f"{kind} entry {place} "), entry

    def _number(self, where: str, entry: dict[str, Any], key: str, lowest: int | None = None) -> int:
        found = entry.get(key)
        if type(found) is float and found.is_integer():
            found = int(found)
        if type(found) is not int or abs(found) >= 2**63 or (lowest is not None and found < lowest):
            said = f"has no {key}" if key not in entry else f"has the {key} {shown(entry[key])}"
            raise self._wrong(where, said, "an integer" + ("" if lowest is None else f" of at least {lowest}"))
        return found

    def _categories(self, found: list[Any]) -> dict[int, str]:
        """{id: name} in the order of the ids."""
        names: dict[int, str] = {}
        for where, entry in self._objects("category", found):
            number = self._number(where, entry, "id")
            if number in names:
                raise self._wrong(where, "is there twice", "each id once")
            if not isinstance(entry.get("name"), str):
                raise self._wrong(where, "has no name", "a text")
            names[number] = entry["name"]
        return dict(sorted(names.items()))

    def _images(self, found: list[Any]) -> dict[int, tuple[str, int, int]]:
        """{id: (name, height, width)} in the order of the ids."""
        images: dict[int, tuple[str, int, int]] = {}
        names: set[str] = set()
        for where, entry in self._objects("image", found):
            number = self._number(where, entry, "id")
            name = entry.get("file_name")
            if not isinstance(name, str) or not _is_inside(name):
                raise self._wrong(where, f"has the file_name {shown(name)}", "a path below the folder of the images")
            if number in images or name in names:
                raise self._wrong(where, f"({named(name)}) is there twice", "each id and each file_name once")
            names.add(name)
            images[number] = name, self._number(where, entry, "height", 1), self._number(where, entry, "width", 1)
        return dict(sorted(images.items()))

    def arrays(self) -> dict[str, Any]:
        """All of the file, the entries in the order of their images."""
        place = {number: i for i, number in enumerate(self.images)}
        label = {number: i for i, number in enumerate(self.categories)}
        sizes = np.array([image[1:] for image in self.images.values()], dtype=np.int64)
        images, labels, boxes, areas, crowds = [], [], [], [], []
        ids: list[int] = []
        codes: list[bytes] = []
        seen: set[int] = set()
        for where, entry in self._objects("annotation", self.annotations):
            number = self._number(where, entry, "id") if "id" in entry else len(ids)
            if number in seen:
                raise self._wrong(where, "is there twice", "each id once")
            seen.add(number)
            image, category = (self._number(where, entry, key) for key in ("image_id", "category_id"))
            if image not in place:
                raise self._wrong(where, f"is of image {image}, which the file does not list", "ids of its images")
            if category not in label:
                few = some([str(key) for key in self.categories])
                raise self._wrong(where, f"is of category {category}, which the file does not list", f"its ids, {few}")
            box = self._box(where, entry)
            images.append(place[image])
            ids.append(number)
            labels.append(label[category])
            boxes.append(box)
            areas.append(self._area(where, entry, box))
            crowds.append(self._crowd(where, entry))
            if self.masks:
                codes.append(self._code(where, entry, self.images[image]))
        order = np.argsort(np.array(images, dtype=np.int64), kind="stable")
        corners = np.array(boxes, dtype=np.float64).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        self._check_corners(corners, sizes[np.array(images, dtype=np.int64)], ids)
        names, packed = (Names.of(found) for found in ([image[0] for image in self.images.values()], []))
        if codes:
            packed = Names.of_bytes([codes[i] for i in order])
        return {
            "names": names.text, "name_ends": names.ends, "codes": packed.text, "code_ends": packed.ends,
            "image_ids": np.array(list(self.images), dtype=np.int64), "sizes": sizes,
            "first": np.searchsorted(np.array(images, dtype=np.int64)[order], np.arange(len(sizes) + 1)),
            "ids": np.array(ids, dtype=np.int64)[order], "boxes": corners[order],
            "labels": np.array(labels, dtype=np.int64)[order], "areas": np.array(areas, dtype=np.float64)[order],
            "crowds": np.array(crowds, dtype=bool)[order],
            "categories": list(self.categories.values()), "category_ids": list(self.categories),
        }  # fmt: skip

    def _box(self, where: str, entry: dict[str, Any]) -> Sequence[float]:
        box: Any = entry.get("bbox")
        if "bbox" not in entry:
            raise self._wrong(where, "has no bbox", BOX)
        numbers = isinstance(box, list) and len(box) == 4 and all(type(x) in (int, float) for x in box)
        if not numbers or not all(map(math.isfinite, box)) or max(map(abs, box)) > 1e6 or min(box[2:]) < 0:
            raise self._wrong(where, f"has the bbox {shown(box)}", BOX)
        return box

    def _area(self, where: str, entry: dict[str, Any], box: Sequence[float]) -> float:
        area = entry.get("area", box[2] * box[3])
        if type(area) not in (int, float) or not math.isfinite(area):
            raise self._wrong(where, f"has the area {shown(area)}", "a finite number")
        return float(area)

    def _crowd(self, where: str, entry: dict[str, Any]) -> bool:
        crowd = entry.get("iscrowd", 0)
        if crowd not in (0, 1):
            raise self._wrong(where, f"has the iscrowd {shown(crowd)}", "0 or 1")
        return bool(crowd)

    def _code(self, where: str, entry: dict[str, Any], image: tuple[str, int, int]) -> bytes:
        found = entry.get("segmentation")
        if not found:
            raise self._wrong(where, "has no segmentation, which a mask is made of", run_lengths.POLYGON)
        try:
            return run_lengths.of_segmentation(found, image[1:])
        except (ValueError, TypeError) as error:
            raise self._wrong(where, f"has a segmentation that cannot be meant: {error}", run_lengths.POLYGON) from None

    def _check_corners(self, corners: NDArray[np.float64], sizes: NDArray[np.int64], ids: Sequence[int]) -> None:
        """Most boxes that reach far beyond their images are of another format: right and bottom in place of width and
        height, or boxes of larger images."""
        beyond = np.asarray((corners[:, 2:] > sizes[:, ::-1] + 1).any(axis=1))
        if beyond.sum() > len(beyond) / 2:
            i = int(beyond.argmax())
            left, top, right, bottom = corners[i]
            box = [round(float(x), 2) for x in (left, top, right - left, bottom - top)]
            raise self._wrong(
                f"{beyond.sum()} of {len(beyond)} boxes reach beyond their images, the first in annotation {ids[i]}: ",
                f"{box} in an image of {sizes[i][1]} x {sizes[i][0]}",
                f"{BOX} (not right and bottom), of the images as they are",
            )
