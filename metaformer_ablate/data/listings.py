"""Where images lie that are read one by one, and which there are: folders, tar shards, Hugging Face. No torch.

What a folder or shard holds is written down in the user's cache, with the times of change of the folders (of shards:
their sizes and times) that it is true for: a million files are walked through once, not at every command.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from metaformer_ablate.errors import RequestError

IMAGES = (".jpg", ".jpeg", ".png")  # as timm's folder reader


SPLITS = {"train": ("train",), "evaluation": ("val", "validation")}


# The name of a shard tells its split: train-0001.tar, imagenet1k-validation-00.tar.
_SHARD = {split: re.compile(rf"(?<![a-z])({'|'.join(names)})(?![a-z])") for split, names in SPLITS.items()}


LAYOUTS = {
    "folder": "{train,val}/CLASS/*.jpg",
    "tar": "*train*.tar and *val*.tar, or {train,val}/*.tar",
    "hf": "*train*.parquet and *val*.parquet, also in data/",
}


@dataclass(frozen=True)
class Place:
    """A data set that was found: `kind` is folder, tar or hf. `parts` are of each split the folder or the files."""

    root: Path
    kind: str
    parts: dict[str, tuple[Path, ...]]

    def fingerprint(self) -> str:
        """First 16 hex digits of a SHA-256 over the relative names and sizes of all images; of shards and parquet
        files over theirs. It does not see bytes: not what was overwritten in place, nor what kept its size."""
        lines = [self.kind]
        for split, paths in self.parts.items():
            if self.kind == "folder":
                lines.append(f"{split}:{FolderListing.of(paths[0]).digest}")
            else:
                lines += [f"{split}:{path.relative_to(self.root)}:{path.stat().st_size}" for path in paths]
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def natural(name: str) -> tuple[list[int | str], str]:
    """A key that sorts as timm does, digits as numbers and without case."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name.lower())], name


def find_place(folder: Path, name: str, reader: str = "auto") -> Place | None:
    """What lies in `folder/name`, or else in `folder` itself; None where nothing does.

    Raises RequestError where a split is missing, or where more than one layout is there and `reader` names none.
    """
    root = folder / name if (folder / name).is_dir() else folder
    if not root.is_dir():
        return None
    found: dict[str, dict[str, tuple[Path, ...]]] = {
        "folder": _folders(root),
        "tar": _files(root, "tar", ("", *SPLITS["train"], *SPLITS["evaluation"])),
        "hf": _files(root, "parquet", ("", "data", *SPLITS["train"], *SPLITS["evaluation"])),
    }
    kinds = [kind for kind, parts in found.items() if parts and reader in ("auto", kind)]
    if not kinds:
        return None
    if len(kinds) > 1:
        raise RequestError(
            f"{root}: holds {name} in more than one form ({', '.join(kinds)}); allowed: one, or data.reader="
            f"{' or data.reader='.join(kinds)}"
        )
    kind = kinds[0]
    if lacking := [split for split in SPLITS if split not in found[kind]]:
        names = " or ".join(SPLITS[lacking[0]])
        raise RequestError(f"{root}: {name} has no {lacking[0]} split ({names}); allowed: {LAYOUTS[kind]}")
    return Place(root, kind, {split: found[kind][split] for split in SPLITS})


def _folders(root: Path) -> dict[str, tuple[Path, ...]]:
    """The folder of each split that holds folders."""
    found: dict[str, tuple[Path, ...]] = {}
    for split, names in SPLITS.items():
        there = [root / name for name in names if (root / name).is_dir() and _holds_folders(root / name)]
        if len(there) > 1:
            raise RequestError(f"{root}: holds {there[0].name} and {there[1].name}; allowed: one of them")
        if there:
            found[split] = (there[0],)
    return found


def _holds_folders(path: Path) -> bool:
    with os.scandir(path) as entries:
        return any(entry.is_dir() for entry in entries)


def _files(root: Path, ending: str, inside: tuple[str, ...]) -> dict[str, tuple[Path, ...]]:
    """Files with an ending whose own name, or else whose folder's, tells the split; sorted."""
    found: dict[str, list[Path]] = {}
    for sub in inside:
        for path in (root / sub).glob(f"*.{ending}"):
            of = [split for split, pattern in _SHARD.items() if pattern.search(path.stem.lower())]
            of = of or [split for split, names in SPLITS.items() if sub in names]
            if len(of) == 1:
                found.setdefault(of[0], []).append(path)
    return {
        split: tuple(sorted(paths, key=lambda p: natural(str(p.relative_to(root))))) for split, paths in found.items()
    }


class Names:
    """Many strings in one: a list of a million would be copied into every loader process string by string."""

    def __init__(self, text: np.ndarray, ends: np.ndarray):
        self.text, self.ends = text, ends

    @classmethod
    def of(cls, names: list[str]) -> Names:
        encoded = [os.fsencode(name) for name in names]
        ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        begin = self.ends[index - 1] if index else 0
        return os.fsdecode(self.text[begin : self.ends[index]].tobytes())


@dataclass(frozen=True)
class FolderListing:
    """The images of a folder of classes in timm's order: by path, labels by the natural order of the classes."""

    root: Path
    names: Names  # relative to root
    labels: np.ndarray  # [N] int64
    classes: tuple[str, ...]
    digest: str  # of names and sizes

    @classmethod
    def of(cls, root: Path) -> FolderListing:
        """Walks through a folder, unless it is known. Raises RequestError where an image lies in no class."""
        memory = _memory(root)
        known = _read(memory)
        if known is not None and _unchanged(root, json.loads(str(known["folders"]))):
            names = Names(known["text"], known["ends"])
            return cls(root, names, known["labels"], tuple(json.loads(str(known["classes"]))), str(known["digest"]))
        folders: dict[str, int] = {}
        found = []
        for path, size in _walk(root, "", folders):
            if "/" not in path:
                raise RequestError(f"{root}: {path} lies in the folder of no class; allowed: CLASS/{path}")
            found.append((path, size))
        found.sort(key=lambda file: natural(file[0]))
        of_class = [path.rsplit("/", 2)[-2] for path, _ in found]
        classes = tuple(sorted(set(of_class), key=natural))
        number = {name: i for i, name in enumerate(classes)}
        lines = "\n".join(f"{path}:{size}" for path, size in found)
        listing = cls(
            root,
            Names.of([path for path, _ in found]),
            np.array([number[name] for name in of_class], dtype=np.int64),
            classes,
            hashlib.sha256(os.fsencode(lines)).hexdigest(),
        )
        _write(
            memory,
            folders=np.array(json.dumps(folders)),
            text=listing.names.text,
            ends=listing.names.ends,
            labels=listing.labels,
            classes=np.array(json.dumps(classes)),
            digest=np.array(listing.digest),
        )
        return listing


def _walk(root: Path, inside: str, folders: dict[str, int]) -> Iterator[tuple[str, int]]:
    """(relative path, size) of each image; notes the time of change of each folder before it is read."""
    folders[inside] = (root / inside).stat().st_mtime_ns
    below = []
    with os.scandir(root / inside) as entries:
        for entry in entries:
            path = f"{inside}/{entry.name}" if inside else entry.name
            if entry.is_dir():
                below.append(path)
            elif os.path.splitext(entry.name)[1].lower() in IMAGES:
                try:
                    yield path, entry.stat().st_size
                except OSError:  # a link to nothing: an image that cannot be read
                    yield path, 0
    for path in below:
        yield from _walk(root, path, folders)


def _unchanged(root: Path, folders: dict[str, int]) -> bool:
    try:
        return all((root / folder).stat().st_mtime_ns == time for folder, time in folders.items())
    except OSError:
        return False


@dataclass(frozen=True)
class ShardListing:
    """Where the images of tar shards begin, in the order of the shards. Members of one sample share their name up to
    the first dot, as in WebDataset: `x.jpg` and `x.cls`, the label in digits."""

    shards: tuple[Path, ...]
    names: Names  # member.jpg
    shard: np.ndarray  # [N] which of the shards
    offset: np.ndarray  # [N] bytes
    size: np.ndarray  # [N] bytes
    labels: np.ndarray  # [N] int64

    @classmethod
    def of(cls, shards: tuple[Path, ...]) -> ShardListing:
        """Reads the headers of shards, unless they are known. Raises RequestError where one cannot be read."""
        state = [[str(path), (stat := path.stat()).st_size, stat.st_mtime_ns] for path in shards]
        memory = _memory(*shards)
        known = _read(memory)
        if known is not None and json.loads(str(known["shards"])) == state:
            names = Names(known["text"], known["ends"])
            return cls(shards, names, known["shard"], known["offset"], known["size"], known["labels"])
        members, lines = [], []
        for number, path in enumerate(shards):
            for name, offset, size, label in _members(path):
                members.append(name)
                lines.append((number, offset, size, label))
        table = np.array(lines, dtype=np.int64).reshape(-1, 4)
        columns = {
            key: np.ascontiguousarray(table[:, i]) for i, key in enumerate(("shard", "offset", "size", "labels"))
        }
        listing = cls(shards, Names.of(members), **columns)
        _write(memory, shards=np.array(json.dumps(state)), text=listing.names.text, ends=listing.names.ends, **columns)
        return listing


def _members(path: Path) -> Iterator[tuple[str, int, int, int]]:
    """name, offset, size and label of each image of a shard."""
    image: dict[str, tuple[str, int, int]] = {}
    label: dict[str, int] = {}
    end = 0
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                folder, _, base = member.name.rpartition("/")
                stem, _, ending = base.partition(".")
                sample = f"{folder}/{stem}"
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                if not member.isfile():
                    continue
                if f".{ending.lower()}" in IMAGES:
                    image[sample] = (member.name, member.offset_data, member.size)
                elif ending.lower() == "cls":
                    content = archive.extractfile(member)
                    assert content is not None
                    label[sample] = int(content.read())
        # An archive ends with empty blocks; tarfile takes one that was cut off for one that ends early.
        if path.stat().st_size < end + tarfile.BLOCKSIZE:
            raise ValueError("it is cut off")
    except (OSError, tarfile.TarError, ValueError) as error:
        raise RequestError(f"{path}: cannot be read as a shard: {' '.join(str(error).split())}") from None
    for sample, (name, offset, size) in image.items():
        if sample not in label:
            raise RequestError(f"{path}: {name} has no label; allowed: a member {sample.strip('/')}.cls beside it")
        yield name, offset, size, label[sample]


def _memory(*paths: Path) -> Path:
    from metaformer_ablate.system.cache import cache_folder

    text = "\n".join(str(path.resolve()) for path in paths)
    return cache_folder() / "listings" / f"{hashlib.sha256(os.fsencode(text)).hexdigest()[:16]}.npz"


def _read(memory: Path) -> dict[str, np.ndarray] | None:
    try:
        with np.load(memory, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, BadZipFile):  # not there, or not whole
        return None


def _write(memory: Path, **arrays: Any) -> None:
    """Writes a cache file whole; a cache that cannot be written is no reason to stop."""
    temporary = memory.with_name(f".{memory.stem}.{os.getpid()}.npz")
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        np.savez(temporary, **arrays)
        temporary.replace(memory)
    except OSError:
        pass
