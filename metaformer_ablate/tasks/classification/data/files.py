"""Image files with labels, by index: the splits of a data set as they lie, before anything is made of a picture."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from metaformer_ablate.data.datasets import HOLDOUT_EVERY
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.data.layouts import find_location
from metaformer_ablate.data.loading import why_unreadable
from metaformer_ablate.data.pictures import as_rgb, remark_on
from metaformer_ablate.data.readers import Source, check_counts, open_sources, trained_on
from metaformer_ablate.data.rules import check_classes, named
from metaformer_ablate.data.spec import DataSpec
from metaformer_ablate.errors import RequestError


@dataclass(frozen=True, eq=False)
class ImageFiles(Dataset):
    """Images of a source: those at `positions` [N], all where it is None. Frozen, for processes have copies of it."""

    source: Source
    positions: np.ndarray | None

    def __len__(self) -> int:
        return len(self.source.labels if self.positions is None else self.positions)

    def open(self, index: int, remarks: dict[str, str] | None = None) -> tuple[Image.Image, int]:
        """Decoded, RGB, and its label. Adds the kind of remark to `remarks` by name (`REMARKS`). Raises whatever the
        reader and the decoder raise where it cannot be read."""
        file, label = self.source.reader[self._position(index)]
        with file, Image.open(file) as picture:
            image = as_rgb(picture)
            if remarks is not None and (remark := remark_on(picture)):
                remarks[self.name(index)] = remark
            return image, label

    @property
    def labels(self) -> np.ndarray:
        """[N] int64, without reading images."""
        return self.source.labels if self.positions is None else self.source.labels[self.positions]

    def label(self, index: int) -> int:
        return int(self.source.labels[self._position(index)])

    def name(self, index: int) -> str:
        return str(self.source.reader.filename(self._position(index)))

    def _position(self, index: int) -> int:
        return index if self.positions is None else int(self.positions[index])

    def squares(self, channels: int, size: int) -> tuple[Tensor, dict[str, str]]:
        """All images as uint8 [N, channels, size, size], and kinds of remark by name.

        Of each the middle square of its shorter side, resized with Pillow's bilinear filter, which averages where it
        shrinks. Raises RequestError where an image cannot be read: of a small set none is left out.
        """
        pixels = torch.empty((len(self), channels, size, size), dtype=torch.uint8)
        remarks: dict[str, str] = {}
        broken: dict[str, str] = {}

        def read(index: int) -> None:
            try:
                picture, _ = self.open(index, remarks)
            except Exception as error:
                broken[self.name(index)] = why_unreadable(error)
                return
            if channels == 1:
                picture = picture.convert("L")
            square = ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
            pixels[index] = torch.from_numpy(np.array(square).reshape(size, size, channels)).permute(2, 0, 1)

        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
            list(threads.map(read, range(len(self))))
        if broken:
            told = [f"{named(name)} ({broken[name]})" for name in sorted(broken)[:2]] + ["..."] * (len(broken) > 2)
            raise RequestError(
                f"{len(broken)} of {len(self)} images cannot be read: {', '.join(told)}; allowed: a folder without "
                "them, or data.held_in=disk with data.max_unreadable"
            )
        return pixels, remarks


@dataclass(frozen=True)
class Splits:
    """What is trained on and what is evaluated on, the names of the classes where they are known, what people have to
    know of the files, and the names of what is evaluated and trained on."""

    train: ImageFiles
    evaluation: ImageFiles
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    trained_on: tuple[str, ...]


def open_splits(spec: DataSpec, folder: DataFolder) -> Splits:
    """Finds the images of a data set that lies in a folder. Raises RequestError where it is not what the spec says."""
    place = find_location(folder.path, spec.name, spec.reader or "auto")
    assert place is not None
    sources = open_sources(place)
    check_counts(place, sources, spec)
    train, evaluation = (ImageFiles(sources[split], None) for split in ("train", "evaluation"))
    both = trained_on(sources) if spec.evaluate_on == "test" else ()
    if spec.evaluate_on == "holdout":
        every = np.arange(len(train))
        held = every % HOLDOUT_EVERY == HOLDOUT_EVERY - 1
        train, evaluation = (ImageFiles(sources["train"], every[places]) for places in (~held, held))
    classes = sources["train"].classes
    notes = [check_classes(place.root, train.labels, evaluation.labels, spec.classes, classes)]
    notes += [f"not counted for {split} are {source.left_out}" for split, source in sources.items() if source.left_out]
    return Splits(train, evaluation, classes, tuple(f"{place.root}: {note}" for note in notes if note), both)
