"""Which images a folder of classes holds, and what was found before, in the user's cache. No torch.

What is part of a data set and what is not is in `rules.py`. A listing in the cache is true for the times of change of
the folders that it names (of shards: their sizes and times): a million files are walked through once, not at every
command.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from metaformer_ablate.data.rules import (
    EMPTY_FOLDERS,
    HIDDEN,
    OTHER_ENDINGS,
    LeftOut,
    is_hidden,
    is_image,
    named,
    natural,
    natural_classes,
    readable,
    require_regular,
)
from metaformer_ablate.errors import RequestError
from metaformer_ablate.system.cache import cache_dir
from metaformer_ablate.system.files import open_regular

RULES = 3  # a listing in the cache that was made by other rules is made anew


class Names:
    """Many strings in one: a list of a million would be copied into every loader process string by string."""

    def __init__(self, text: np.ndarray, ends: np.ndarray):
        self.text, self.ends = text, ends

    @classmethod
    def of(cls, names: list[str]) -> Names:
        return cls.of_bytes([os.fsencode(name) for name in names])

    @classmethod
    def of_bytes(cls, parts: list[bytes]) -> Names:
        ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        return cls(np.frombuffer(b"".join(parts), dtype=np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[str]:
        whole, begin = self.text.tobytes(), 0
        for end in self.ends.tolist():
            yield os.fsdecode(whole[begin:end])
            begin = end

    def __getitem__(self, index: int) -> str:
        return os.fsdecode(self.raw(index))

    def raw(self, index: int) -> bytes:
        begin = self.ends[index - 1] if index else 0
        return self.text[begin : self.ends[index]].tobytes()


@dataclass(frozen=True)
class FolderListing:
    """The images of a folder of classes in timm's order: by path, labels by the natural order of the classes."""

    root: Path
    names: Names  # relative to root
    labels: np.ndarray  # [N] int64
    classes: tuple[str, ...]
    digest: str  # of names and sizes
    left_out: LeftOut = field(default_factory=LeftOut)

    @classmethod
    def of(cls, root: Path) -> FolderListing:
        """Walks through a folder, unless it is known. Raises RequestError where it cannot be read, where an image lies
        in no class, and where the classes cannot be told (`natural_classes`)."""
        memory = listing_path(root)
        known = read_listing(memory, ("folders", "text", "ends", "labels", "classes", "digest", "left_out"))
        if known is not None and _unchanged(root, known["folders"]):
            names, left_out = Names(known["text"], known["ends"]), LeftOut(known["left_out"])
            return cls(root, names, known["labels"], tuple(known["classes"]), known["digest"], left_out)
        folders: dict[str, int] = {}
        left_out = LeftOut()
        with readable(root):
            found = list(_walk(root, folders, left_out))
        found.sort(key=lambda file: natural(file[0]))
        class_of = natural_classes(root, {path.rpartition("/")[0] for path, _ in found})
        _note_empty_folders(folders, class_of, left_out)
        classes = tuple(sorted(class_of.values(), key=natural))
        number = {name: i for i, name in enumerate(classes)}
        lines = "\n".join(f"{path}:{size}" for path, size in found)
        listing = cls(
            root,
            Names.of([path for path, _ in found]),
            np.array([number[class_of[path.rpartition("/")[0]]] for path, _ in found], dtype=np.int64),
            classes,
            hashlib.sha256(os.fsencode(lines)).hexdigest(),
            left_out,
        )
        write_listing(
            memory,
            folders=folders,
            text=listing.names.text,
            ends=listing.names.ends,
            labels=listing.labels,
            classes=classes,
            digest=listing.digest,
            left_out=left_out.found,
        )
        return listing

    def at(self, places: np.ndarray) -> FolderListing:
        """Of these images alone, by their places [n]; classes and what is left out are those of all."""
        return replace(self, names=Names.of([self.names[int(i)] for i in places]), labels=self.labels[places])


def _walk(root: Path, folders: dict[str, int], left_out: LeftOut) -> Iterator[tuple[str, int]]:
    """(relative path, size) of each image; notes the time of change of each folder before it is read.

    Raises RequestError for an image outside a folder, for one that is not a regular file, and where a link leads to a
    folder once more: its images would count twice, or without end. OSError where a folder cannot be read.
    """
    seen: dict[tuple[int, int], str] = {}
    below = [""]
    while below:
        inside = below.pop()
        state = (root / inside).stat()
        folders[inside] = time_of_change(state)
        first = seen.setdefault((state.st_dev, state.st_ino), inside)
        if first != inside and state.st_ino:  # some file systems number nothing
            leads = "leads back to" if not first or inside.startswith(f"{first}/") else "is the same folder as"
            raise RequestError(f"{root / inside} {leads} {root / first}; allowed: each folder once")
        with os.scandir(root / inside) as entries:
            for entry in entries:
                path = f"{inside}/{entry.name}" if inside else entry.name
                if is_hidden(entry.name):
                    left_out.add(HIDDEN, path)
                elif entry.is_dir():
                    below.append(path)
                elif not is_image(entry.name):
                    left_out.add(OTHER_ENDINGS, path)
                elif not inside:
                    raise RequestError(f"{root}: {named(path)} lies in the folder of no class; allowed: CLASS/{path}")
                else:
                    yield path, _size(entry)


def _size(entry: os.DirEntry[str]) -> int:
    try:
        state = entry.stat()
    except FileNotFoundError:  # a link to nothing: an image that cannot be read
        return 0
    if not stat.S_ISREG(state.st_mode):
        require_regular(Path(entry.path))
    return state.st_size


def _note_empty_folders(folders: dict[str, int], class_of: dict[str, str], left_out: LeftOut) -> None:
    """Those with no image in them or below, of several the upper one."""
    holding = {""}
    for folder in class_of:
        while folder not in holding:
            holding.add(folder)
            folder = folder.rpartition("/")[0]
    for folder in folders:
        if folder not in holding and folder.rpartition("/")[0] in holding:
            left_out.add(EMPTY_FOLDERS, folder)


def time_of_change(state: os.stat_result) -> int:
    """That of a folder, in nanoseconds. The time of its inode too, for programs set the other one back."""
    return max(state.st_mtime_ns, state.st_ctime_ns)


def _unchanged(root: Path, folders: dict[str, int]) -> bool:
    try:
        return all(time_of_change((root / folder).stat()) == time for folder, time in folders.items())
    except OSError:
        return False


def listing_path(*paths: Path, kind: str = "") -> Path:
    """The cache file of what a folder, or shards, hold. Of one path there may be several kinds."""
    text = "\n".join([f"rules {RULES}", *(str(path.resolve()) for path in paths), *([kind] if kind else [])])
    return cache_dir() / "listings" / f"{hashlib.sha256(os.fsencode(text)).hexdigest()[:16]}.npz"


def read_listing(memory: Path, keys: tuple[str, ...]) -> dict[str, Any] | None:
    """What `write_listing` has written; None where it is not there, or not whole."""
    try:
        with open_regular(memory) as stream, np.load(stream, allow_pickle=False) as arrays:
            found = {key: arrays[key] for key in keys}
        return {key: value if value.ndim else json.loads(str(value)) for key, value in found.items()}
    except (OSError, ValueError, KeyError, EOFError, TypeError, BadZipFile, zlib.error, NotImplementedError):
        return None


def write_listing(memory: Path, **values: Any) -> None:
    """Writes a cache file of arrays and JSON, whole; a cache that cannot be written is no reason to stop."""
    temporary = memory.with_name(f".{memory.stem}.{os.getpid()}.npz")
    arrays = {
        key: value if isinstance(value, np.ndarray) else np.array(json.dumps(value)) for key, value in values.items()
    }
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        np.savez(temporary, **arrays)  # type: ignore[arg-type]
        temporary.replace(memory)
    except OSError:
        pass
