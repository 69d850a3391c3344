"""Folders of images and masks: where they lie, which mask is of which image, and their fingerprint. No torch.

A mask is a picture of one channel that holds the class of each pixel, with the name of its image but for the ending.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from metaformer_ablate.data.rules import (
    HIDDEN,
    OTHER_ENDINGS,
    LeftOut,
    is_hidden,
    is_image,
    natural,
    readable,
    require_regular,
    some,
)
from metaformer_ablate.errors import RequestError

SPLITS = {"train": ("train", "training"), "evaluation": ("val", "validation")}


IMAGES, MASKS = ("images",), ("annotations", "masks", "labels")


LAYOUTS = {
    "masks": "images/{train,val}/*.jpg with annotations/{train,val}/*.png, or {train,val}/images with "
    "{train,val}/masks, or {train,val} with {train,val}annot; training and validation for train and val, and masks or "
    "labels for annotations",
}


# What a data set is called where it was downloaded.
FOLDERS = {"ade20k": "ADEChallengeData2016", "camvid": "CamVid"}


@dataclass(frozen=True)
class MaskSplit:
    """The images of a split by name, in natural order, each with its mask."""

    images: Path
    masks: Path
    names: tuple[str, ...]  # of the images, relative to their folder
    mask_names: tuple[str, ...]
    lines: tuple[str, ...]  # name and size of each file, images first
    left_out: LeftOut = field(default_factory=LeftOut)

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Path:
        return self.images / self.names[index]

    def mask(self, index: int) -> Path:
        return self.masks / self.mask_names[index]

    @classmethod
    def of(cls, images: Path, masks: Path) -> MaskSplit:
        """Reads both folders, and those in them. Raises RequestError where an image has no mask, a mask no image, or
        two files of a folder one name."""
        left_out = LeftOut()
        with readable(images):
            pictures = _by_name(images, left_out)
        with readable(masks):
            maps = _by_name(masks, left_out)
        for here, there, one, other in ((pictures, maps, images, "mask"), (maps, pictures, masks, "image")):
            if lonely := sorted(here.keys() - there.keys(), key=natural):
                where = masks if other == "mask" else images
                raise RequestError(
                    f"{one}: {len(lonely)} of {len(here)} files have no {other} of the same name in {where}: "
                    f"{some([here[name][0] for name in lonely])}{left_out.said()}; allowed: an image and a mask of "
                    "each name"
                )
        order = sorted(pictures, key=natural)
        lines = [f"{kind}:{path}:{size}" for kind in (pictures, maps) for path, size in (kind[n] for n in order)]
        names, mask_names = ([kind[name][0] for name in order] for kind in (pictures, maps))
        return cls(images, masks, tuple(names), tuple(mask_names), tuple(lines), left_out)


@dataclass(frozen=True)
class MaskLocation:
    """A data set that was found: the folders of images and of masks of each split."""

    root: Path
    folders: dict[str, tuple[Path, Path]]

    @cached_property
    def splits(self) -> dict[str, MaskSplit]:
        """Both splits, listed. Raises RequestError as `MaskSplit.of` does."""
        return {split: MaskSplit.of(*pair) for split, pair in self.folders.items()}

    def fingerprint(self) -> str:
        """First 16 hex digits of a SHA-256 over the names and sizes of all images and masks. It does not see bytes: not
        what was overwritten in place and kept its size."""
        lines = ["masks"]
        for split, files in self.splits.items():
            lines += [f"{split}:{line}" for line in files.lines]
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def find_location(folder: Path, name: str, reader: str = "auto") -> MaskLocation | None:
    """What lies in `folder/name`, in the folder that the download of a set makes, or else in `folder` itself; None
    where nothing does. There is one layout, so `reader` tells nothing.

    Raises RequestError where a split is missing, or where one is there in more than one form.
    """
    with readable(folder):
        below = [folder / part for part in (name, FOLDERS.get(name, name))]
        root = next((path for path in below if path.is_dir()), folder)
        if not root.is_dir():
            return None
        found = {split: sorted(_pairs(root, names)) for split, names in SPLITS.items()}
    if not any(found.values()):
        return None
    for split, pairs in found.items():
        if not pairs:
            raise RequestError(
                f"{root}: {name} has no images and masks for {split} ({' or '.join(SPLITS[split])}); allowed: "
                f"{LAYOUTS['masks']}"
            )
        if len(pairs) > 1:
            shown = " and ".join(
                f"{images.relative_to(root)} with {masks.relative_to(root)}" for images, masks in pairs
            )
            raise RequestError(
                f"{root}: holds {name} for {split} in more than one form ({shown}); allowed: one of these"
            )
    return MaskLocation(root, {split: pairs[0] for split, pairs in found.items()})


def _pairs(root: Path, names: tuple[str, ...]) -> Iterator[tuple[Path, Path]]:
    """The folders of images and masks that may be those of a split with one of these names."""
    for name in names:
        kinds = [(root / images / name, root / masks / name) for images in IMAGES for masks in MASKS]
        kinds += [(root / name / images, root / name / masks) for images in IMAGES for masks in MASKS]
        kinds += [(root / name, root / f"{name}annot")]
        yield from (pair for pair in kinds if all(path.is_dir() for path in pair))


def _by_name(root: Path, left_out: LeftOut) -> dict[str, tuple[str, int]]:
    """{relative name without its ending: (relative name, bytes)} of the images of a folder."""
    found: dict[str, tuple[str, int]] = {}
    below = [""]
    while below:
        inside = below.pop()
        with os.scandir(root / inside) as entries:
            for entry in entries:
                path = f"{inside}/{entry.name}" if inside else entry.name
                if is_hidden(entry.name):
                    left_out.add(HIDDEN, path)
                elif entry.is_dir(follow_symlinks=False):
                    below.append(path)
                elif not is_image(entry.name):
                    left_out.add(OTHER_ENDINGS, path)
                else:
                    stem = path.rpartition(".")[0]
                    if stem in found:
                        raise RequestError(
                            f"{root}: {found[stem][0]} and {path} have one name but for the ending; allowed: one file "
                            "of each name"
                        )
                    require_regular(Path(entry.path))
                    found[stem] = path, entry.stat().st_size
    return found
