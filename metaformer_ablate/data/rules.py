"""One rule for folders, shards and parquet files: what is part of a data set, what is left out, what is refused.

What is left out is counted by the rule that it falls under, and said. What could be read in two ways is refused. No
torch.
"""

from __future__ import annotations

import filecmp
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaformer_ablate.errors import RequestError, visible

if TYPE_CHECKING:
    import numpy as np

# The endings of torchvision's ImageFolder. (timm's reads the first three alone, and says nothing of the others.)
IMAGES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
NAMED = 2  # examples in a sentence
NAME_LENGTH = 40

HIDDEN = "hidden (their names begin with a dot)"
OTHER_ENDINGS = "with endings that are not read"
EMPTY_FOLDERS = "folders without an image"
NO_IMAGE = "members of samples without an image"
FURTHER_IMAGES = "further images of a sample (x.seg.png beside x.jpg)"
NO_SPLIT = "files and folders that are of no split"

# What was read, but not as every program reads it: a kind, and what is said of such images.
REMARKS = {
    "orientation": "have an EXIF orientation: they are read as they are stored, as timm does, and not turned",
    "sixteen_bits": "have 16 bits per channel: they are scaled to 8",
    "transparency": "are transparent in places: they are read without their alpha channel, as timm does",
    "frames": "have several frames: the first one is read, as timm does",
    "trained_on": "are trained on too: they say nothing of images that a net has not seen",
}


def is_hidden(path: str) -> bool:
    """Whether a relative path leads through a name that begins with a dot."""
    return any(part.startswith(".") and part not in (".", "..") for part in path.split("/"))


def is_image(path: str) -> bool:
    """Whether a file is an image by its ending."""
    return os.path.splitext(path)[1].lower() in IMAGES


def named(name: str) -> str:
    """A name as a sentence has it: control characters made visible, and not too long."""
    text = visible(name)
    return text if len(text) <= NAME_LENGTH else f"{text[: NAME_LENGTH // 2 - 2]}...{text[1 - NAME_LENGTH // 2 :]}"


def some(names: Sequence[str]) -> str:
    """The first of many names."""
    return ", ".join([*map(named, names[:NAMED]), *(["..."] if len(names) > NAMED else [])])


class LeftOut:
    """What is no part of a data set: by rule how many there are, and the first names."""

    def __init__(self, found: Mapping[str, Sequence[Any]] | None = None):
        self.found = {rule: (int(count), list(names)) for rule, (count, names) in (found or {}).items()}

    def add(self, rule: str, name: str) -> None:
        count, names = self.found.get(rule, (0, []))
        self.found[rule] = count + 1, sorted([*names, name])[: NAMED + 1]

    def join(self, other: LeftOut) -> LeftOut:
        """Both."""
        joined = LeftOut(self.found)
        for rule, (count, names) in other.found.items():
            before, earlier = joined.found.get(rule, (0, []))
            joined.found[rule] = before + count, sorted([*earlier, *names])[: NAMED + 1]
        return joined

    def said(self) -> str:
        """The end of a sentence about what is wrong: what may be why. Empty where nothing is left out."""
        return f"; not counted are {self}; read are {', '.join(IMAGES)}" if self else ""

    def __bool__(self) -> bool:
        return bool(self.found)

    def __str__(self) -> str:
        return "; ".join(f"{count} {rule}: {some(names)}" for rule, (count, names) in sorted(self.found.items()))


def in_both(train: tuple[Path, Iterable[str]], evaluation: tuple[Path, Iterable[str]]) -> tuple[str, ...]:
    """The images to evaluate on that are trained on too. Of each split its folder and its names, relative to that:
    one name and the same bytes make one image."""
    evaluated = set(evaluation[1])
    shared = sorted(name for name in train[1] if name in evaluated)
    return tuple(name for name in shared if _same_bytes(train[0] / name, evaluation[0] / name))


def _same_bytes(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other) or filecmp.cmp(one, other, shallow=False)  # a link need not be read
    except OSError:  # it cannot be read, which is counted where it would be
        return False


@contextmanager
def readable(what: Path) -> Iterator[None]:
    """A file system that refuses to be read gives one sentence: RequestError."""
    try:
        yield
    except OSError as error:
        raise RequestError(f"{error.filename or what}: cannot be read: {error.strerror or error}") from None


def require_regular(path: Path) -> None:
    """Raises RequestError for a FIFO, a device or a socket: to read one may never end. OSError where nothing is."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise RequestError(f"{path}: is not a regular file; allowed: files, or links to files")


def natural(name: str) -> tuple[list[int | str], str]:
    """A key that sorts as timm does, digits as numbers and without case."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name.lower())], name


def natural_classes(root: Path, folders: set[str]) -> dict[str, str]:
    """The class of each folder that holds images: its own name, as with timm.

    Raises RequestError where that is not the only way to read it: one name under two folders (torchvision would take
    the upper folders), or images both in a folder and in one below it.
    """
    of_class: dict[str, str] = {}
    for folder in sorted(folders):
        for above in _above(folder):
            if above in folders:
                raise RequestError(
                    f"{root}: {named(above)} holds images, and so does {named(folder)} in it: which is the class "
                    "cannot be told; allowed: CLASS/*.jpg, the images of a class in one folder"
                )
        name = folder.rpartition("/")[2]
        if name in of_class:
            raise RequestError(
                f"{root}: the last folder of {named(of_class[name])} and of {named(folder)} is {named(name)}: which "
                "is the class cannot be told; allowed: CLASS/*.jpg, the images of a class in one folder"
            )
        of_class[name] = folder
    return {folder: name for name, folder in of_class.items()}


def _above(folder: str) -> Iterator[str]:
    """The folders that a relative one lies in, the root apart."""
    while "/" in folder:
        folder = folder.rpartition("/")[0]
        yield folder


def same_classes(
    root: Path, train: Sequence[str], evaluation: Sequence[str], names: tuple[str, str], left_out: LeftOut
) -> list[int]:
    """The number in training of each class of the evaluation. `names` are those of the splits.

    Raises RequestError where the evaluation has a class that training lacks; `left_out` may be why.
    """
    number = {name: i for i, name in enumerate(train)}
    if odd := [name for name in evaluation if name not in number]:
        rest = [name for name in train if name not in set(evaluation)]
        also = f", {some(rest)} {_is(rest)} in {names[0]} alone" if rest else ""
        raise RequestError(
            f"{root}: {len(train)} classes to train on and {len(evaluation)} to evaluate on are not the same: "
            f"{some(odd)} {_is(odd)} in {names[1]} alone{also}{left_out.said()}; allowed: classes that are trained on"
        )
    return [number[name] for name in evaluation]


def _is(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def check_classes(root: Path, train: np.ndarray, evaluation: np.ndarray, classes: int, names: Sequence[str]) -> str:
    """What is to be said of the labels [N] of both splits: which classes have no image to evaluate on; empty for none.

    Raises RequestError where a class has no image to train on.
    """
    import numpy as np  # which few commands need

    def called(missing: np.ndarray) -> str:
        return some([names[i] if names else str(i) for i in missing])

    counts, evaluated = (np.bincount(labels, minlength=classes) for labels in (train, evaluation))
    if len(missing := np.flatnonzero(counts == 0)):
        number = int(evaluated[missing].sum())
        raise RequestError(
            f"{root}: {len(missing)} of {classes} classes have no image to train on, and {number} to evaluate on: "
            f"{called(missing)}; allowed: images of each class to train on"
        )
    if len(missing := np.flatnonzero(evaluated == 0)):
        return f"{len(missing)} of {classes} classes have no image to evaluate on: {called(missing)}"
    return ""
