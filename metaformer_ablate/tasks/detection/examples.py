"""Images with what is annotated in them, by index: files in COCO's format, or scenes composed in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from metaformer_ablate.data import run_lengths
from metaformer_ablate.data.coco_annotations import CocoSplit
from metaformer_ablate.data.pictures import as_rgb, remark_on
from metaformer_ablate.data.scenes import SEED, SceneRules, scene
from metaformer_ablate.data.unreadable import Seen
from metaformer_ablate.system.files import open_regular
from metaformer_ablate.tasks.detection.transforms import Truth

# Photographs as they are and digits of more sizes than segmentation has: in its scenes all is found within a minute.
# Other rules are other data under the same fingerprint: then raise the `semantics` of DetectionSpec.
SCENES = SceneRules(side=(0.25, 0.55), brightness=1.0)


class Examples(Protocol):
    """A split, or a part of one."""

    @property
    def sizes(self) -> NDArray[np.int64]:
        """[N, 2]: height and width of each image."""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str: ...

    def picture(self, index: int, seen: Seen) -> Tensor:
        """uint8 [3, H, W]. Adds a remark to `seen`. Raises whatever decoders raise where it cannot be read, and
        ValueError where it is not of the size that its annotations are for."""
        ...

    def truth(self, index: int) -> Truth: ...


@dataclass(frozen=True, eq=False)
class CocoExamples:
    """Those images of an annotation file that are at `positions` [N] in it."""

    split: CocoSplit
    folder: Path  # of the images
    positions: NDArray[np.int64]
    masks: bool  # whether truth has them

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def sizes(self) -> NDArray[np.int64]:
        return self.split.sizes[self.positions]

    def name(self, index: int) -> str:
        return self.split.names[int(self.positions[index])]

    def picture(self, index: int, seen: Seen) -> Tensor:
        with open_regular(self.folder / self.name(index)) as file, Image.open(file) as picture:
            image = np.asarray(as_rgb(picture))
            if (remark := remark_on(picture)) is not None:
                seen.remarks[self.name(index)] = remark
        height, width = self.split.sizes[self.positions[index]]
        if image.shape[:2] != (height, width):
            found = f"{image.shape[1]} x {image.shape[0]}"
            raise ValueError(f"it is {found} pixels, its annotations are for {width} x {height}")
        return torch.from_numpy(image.transpose(2, 0, 1).copy())

    def truth(self, index: int) -> Truth:
        split, image = self.split, int(self.positions[index])
        entries = split.entries(image)
        height, width = split.sizes[image].tolist()
        return Truth(
            int(split.image_ids[image]),
            (height, width),
            split.boxes[entries],
            split.labels[entries],
            split.areas[entries],
            split.crowds[entries],
            split.masks(entries) if self.masks else None,
        )


@dataclass(frozen=True, eq=False)
class SceneExamples:
    """Scenes of a split (`train` or `test`) by their numbers; each is composed when it is asked for, and kept."""

    split: str
    numbers: Sequence[int]
    side: int
    masks: bool
    kept: dict[int, tuple[Tensor, Truth]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def sizes(self) -> NDArray[np.int64]:
        return np.full((len(self), 2), self.side, dtype=np.int64)

    def name(self, index: int) -> str:
        return f"{self.split} scene {self.numbers[index]}"

    def picture(self, index: int, seen: Seen) -> Tensor:
        return self._composed(index)[0]

    def truth(self, index: int) -> Truth:
        return self._composed(index)[1]

    def _composed(self, index: int) -> tuple[Tensor, Truth]:
        number = self.numbers[index]
        if number not in self.kept:
            found = scene(SEED, self.split, number, self.side, SCENES)
            codes, size = run_lengths.encode(found.masks), (self.side, self.side)
            areas = run_lengths.areas(codes, size).astype(np.float64)
            crowds = np.zeros(len(codes), dtype=bool)
            boxes = found.boxes.astype(np.float64)
            truth = Truth(number, size, boxes, found.labels, areas, crowds, codes if self.masks else None)
            self.kept[number] = torch.from_numpy(found.image), truth
        return self.kept[number]
