"""Data sets in COCO's format: where the annotation file and the images of each split lie, and their fingerprint.

No torch; the annotation files themselves are read in `coco_annotations.py`.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from metaformer_ablate.data.listings import Names, listing_path, read_listing, time_of_change, write_listing
from metaformer_ablate.data.rules import is_hidden, is_image, natural, readable, require_regular
from metaformer_ablate.errors import RequestError
from metaformer_ablate.system.files import open_regular

SPLITS = {"train": ("train",), "evaluation": ("val", "valid", "validation", "test")}
LAYOUTS = {
    "coco": "annotations/instances_train*.json and annotations/instances_val*.json with the images in train*/ and "
    "val*/, or *train*.json and *val*.json with the images in train/ and val/, images/ or the folder itself"
}


@dataclass(frozen=True)
class CocoLocation:
    """A data set that was found: of each split the annotation file and the folder that names in it begin from."""

    root: Path
    annotations: dict[str, Path]
    images: dict[str, Path]

    def fingerprint(self) -> str:
        """First 16 hex digits of a SHA-256 over the bytes of the annotation files and over the names and sizes of all
        images in the folders. It does not see an image that was overwritten in place and kept its size."""
        lines = ["coco"]
        with readable(self.root):
            for split, path in self.annotations.items():
                lines += [f"{split}:{file_digest(path)}", f"{split}:{_images_digest(self.images[split])}"]
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def find_location(folder: Path, name: str, reader: str = "auto") -> CocoLocation | None:
    """What lies in `folder/name`, or else in `folder` itself; None where nothing does. There is one layout, so `reader`
    tells nothing.

    Raises RequestError where a split is missing, or where more than one annotation file may be that of a split.
    """
    with readable(folder):
        root = folder / name if (folder / name).is_dir() else folder
        if not root.is_dir():
            return None
        found = {split: _annotation_files(root, names) for split, names in SPLITS.items()}
        if not any(found.values()):
            return None
        for split, paths in found.items():
            if not paths:
                raise RequestError(
                    f"{root}: {name} has no annotation file for {split} ({' or '.join(SPLITS[split])}); allowed: "
                    f"{LAYOUTS['coco']}"
                )
            if len(paths) > 1:
                shown = ", ".join(str(path.relative_to(root)) for path in paths)
                raise RequestError(
                    f"{root}: {name} has more than one annotation file for {split} ({shown}); allowed: one of them, "
                    "or one whose name begins with instances"
                )
            require_regular(paths[0])
        annotations = {split: paths[0] for split, paths in found.items()}
        images = {split: _image_folder(root, path, SPLITS[split]) for split, path in annotations.items()}
    return CocoLocation(root, annotations, images)


def _annotation_files(root: Path, names: tuple[str, ...]) -> list[Path]:
    """The JSON files of a split, told by the first of its names that any has, in their own name or else in that of
    their folder. Of several those are meant whose name begins with `instances`: COCO's folder has captions and
    keypoints beside them."""
    files = [path for sub in ("", "annotations") for path in sorted((root / sub).glob("*.json"))]
    folders = [path for path in sorted(root.iterdir()) if path.is_dir() and not is_hidden(path.name)]
    for name in names:
        own = re.compile(rf"(?<![a-z]){name}(?![a-z])")
        found = [path for path in files if own.search(path.stem.lower()) and not is_hidden(path.name)]
        found = found or [path for folder in folders if folder.name == name for path in sorted(folder.glob("*.json"))]
        if instances := [path for path in found if path.name.startswith("instances")]:
            found = instances
        if found:
            return found
    return []


def _image_folder(root: Path, annotations: Path, names: tuple[str, ...]) -> Path:
    """The folder in which the first image that an annotation file names lies; where it lies nowhere, the likeliest."""
    stem = re.sub(r"^instances[_-]", "", annotations.stem)
    folders = [*(stem, *names), *(f"images/{name}" for name in (stem, *names)), "images", ""]
    candidates = [root / folder for folder in folders] + [annotations.parent]
    candidates = [path for path in dict.fromkeys(candidates) if path.is_dir()]
    first = _first_name(annotations)
    return next((path for path in candidates if first and (path / first).is_file()), candidates[0])


def _first_name(annotations: Path) -> str | None:
    """The first name of an image in an annotation file, without reading it all: COCO's own has 450 MB."""
    with open_regular(annotations) as stream:
        if not os.fstat(stream.fileno()).st_size:
            return None
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = re.search(rb'"file_name"\s*:\s*"((?:[^"\\]|\\.)*)"', content)
            if found is None:
                return None
            return found[1].decode("utf-8", "surrogateescape").replace("\\/", "/")


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in the cache by size and time of change."""
    state = path.stat()
    now = [state.st_size, state.st_mtime_ns]
    memory = listing_path(path, kind="digest")
    known = read_listing(memory, ("state", "digest"))
    if known is not None and known["state"] == now:
        return known["digest"]
    with open_regular(path) as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    write_listing(memory, state=now, digest=digest)
    return digest


def _images_digest(folder: Path) -> str:
    """SHA-256 of the names and sizes of the images in a folder and below, in the cache by the folders' times."""
    memory = listing_path(folder, kind="images")
    known = read_listing(memory, ("folders", "digest"))
    if known is not None and all(_time(folder / path) == time for path, time in known["folders"].items()):
        return known["digest"]
    folders: dict[str, int | None] = {}
    found = sorted(_walk(folder, folders), key=lambda file: natural(file[0]))
    digest = hashlib.sha256(os.fsencode("\n".join(f"{path}:{size}" for path, size in found))).hexdigest()
    write_listing(memory, folders=folders, digest=digest)
    return digest


def _time(folder: Path) -> int | None:
    try:
        return time_of_change(folder.stat())
    except OSError:
        return None


def _walk(root: Path, folders: dict[str, int | None]) -> Iterator[tuple[str, int]]:
    """(relative path, size) of each image; notes the time of change of each folder before it is read."""
    below = [""]
    while below:
        inside = below.pop()
        folders[inside] = _time(root / inside)
        with os.scandir(root / inside) as entries:
            for entry in entries:
                path = f"{inside}/{entry.name}" if inside else entry.name
                if is_hidden(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    below.append(path)
                elif is_image(entry.name):
                    try:
                        yield path, entry.stat().st_size
                    except FileNotFoundError:  # a link to nothing: an image that cannot be read
                        yield path, 0


def missing_images(folder: Path, names: Names) -> list[str]:
    """Those of many names that are no file in a folder or below it, by one listing per folder."""
    there: dict[str, set[str]] = {}
    missing = []
    for name in (names[i] for i in range(len(names))):
        inside, _, file = name.rpartition("/")
        if inside not in there:
            try:
                there[inside] = set(os.listdir(folder / inside))
            except OSError:
                there[inside] = set()
        if file not in there[inside]:
            missing.append(name)
    return missing
