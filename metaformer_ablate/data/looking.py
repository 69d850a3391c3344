"""A folder of images that nobody has described: looked at once, for the facts that a recipe says of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.data.layouts import LAYOUTS, DatasetLocation
from metaformer_ablate.data.pictures import is_grey, remark_on
from metaformer_ablate.data.readers import Source, open_sources, trained_on
from metaformer_ablate.data.rules import REMARKS, check_classes, named
from metaformer_ablate.errors import RequestError

# Headers that are read: of a larger set so many images, evenly spaced.
LOOKED_AT = 20_000


@dataclass(frozen=True)
class FoundImages:
    """What a folder of images holds. `sides` are those of the images that were looked at, in pixels."""

    place: DatasetLocation
    name: str  # the folder's
    classes: tuple[str, ...]  # empty where the files have numbers alone
    num_classes: int
    train_images: int
    test_images: int
    channels: int  # 1 where all are grey, else 3
    sides: tuple[int, int]  # the smallest and the largest
    shorter_side: int  # the median of the shorter ones
    looked_at: int
    notes: tuple[str, ...]

    @property
    def one_size(self) -> bool:
        """Whether all images that were looked at are squares of one size."""
        return self.sides[0] == self.sides[1]


def look_at(path: Path) -> FoundImages:
    """Finds the images of a folder and reads their headers.

    Raises RequestError where there are none, where it cannot be told which is whose (`data/rules.py`), where a class
    has none to train on, and where none can be read.
    """
    folder = DataFolder(path, given=True)
    folder.require("folder")
    place = folder.place("folder")
    assert isinstance(place, DatasetLocation)
    sources = open_sources(place)
    train, evaluation = sources["train"], sources["evaluation"]
    for split, source in sources.items():
        if not len(source.labels):
            allowed = f"allowed: {LAYOUTS[place.kind]}"
            raise RequestError(f"{place.root}: holds no image for {split}{source.left_out.said()}; {allowed}")
    low, high = (int(of([of(source.labels) for source in sources.values()])) for of in (np.min, np.max))
    count = len(train.classes) or high + 1
    if low < 0 or count < 2:
        raise RequestError(
            f"{place.root}: holds {count} class, labels from {low} to {high}; allowed: 2 classes or more, labels "
            "from 0 on"
        )
    empty = check_classes(place.root, train.labels, evaluation.labels, count, train.classes)
    seen = _Headers()
    for source in sources.values():
        seen.look(source, LOOKED_AT * len(source.labels) // sum(len(each.labels) for each in sources.values()))
    if not seen.shorter:
        raise RequestError(f"{place.root}: none of its images can be read: {seen.told_unreadable()}")
    left_out = train.left_out if place.kind == "classes" else train.left_out.join(evaluation.left_out)
    both = trained_on(sources)
    notes = [
        empty,
        f"not counted are {left_out}" if left_out else "",
        f"{len(both)} images to evaluate on {REMARKS['trained_on']}" if both else "",
        *seen.notes(),
    ]
    return FoundImages(
        place=place,
        name=path.resolve().name or "images",
        classes=train.classes,
        num_classes=count,
        train_images=len(train.labels),
        test_images=len(evaluation.labels),
        channels=3 if seen.coloured else 1,
        sides=(min(seen.shorter), max(seen.longer)),
        shorter_side=int(np.median(seen.shorter)),
        looked_at=len(seen.shorter),
        notes=tuple(note for note in notes if note),
    )


class _Headers:
    """What the headers of images say."""

    def __init__(self) -> None:
        self.shorter: list[int] = []
        self.longer: list[int] = []
        self.coloured = False
        self.remarks: Counter[str] = Counter()
        self.unreadable: dict[str, str] = {}

    def look(self, source: Source, most: int) -> None:
        """Looks at so many images of a split, evenly spaced."""
        count = len(source.labels)
        for index in np.unique(np.linspace(0, count - 1, max(1, min(most, count))).astype(int)).tolist():
            try:
                file, _ = source.reader[index]
                with file, Image.open(file) as picture:
                    self._add(picture)
            except Exception as error:  # whatever a reader or a decoder makes of it
                self.unreadable[str(source.reader.filename(index))] = type(error).__name__

    def _add(self, picture: Any) -> None:
        self.shorter.append(min(picture.size))
        self.longer.append(max(picture.size))
        self.coloured = self.coloured or not is_grey(picture)
        if (kind := remark_on(picture)) is not None:
            self.remarks[kind] += 1

    def notes(self) -> list[str]:
        found = [f"{count} images {REMARKS[kind]}" for kind, count in sorted(self.remarks.items())]
        return [*found, self.told_unreadable()] if self.unreadable else found

    def told_unreadable(self) -> str:
        first = [f"{named(name)} ({why})" for name, why in sorted(self.unreadable.items())[:2]]
        return f"{len(self.unreadable)} images cannot be read: {', '.join(first)}"
