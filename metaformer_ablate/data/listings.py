"""Where images lie that are read one by one, and which there are: folders, tar shards, Hugging Face. No torch.

What is part of a data set and what is not is in `rules.py`.

What a folder or shard holds is written down in the user's cache, with the times of change of the folders (of shards:
their sizes and times) that it is true for: a million files are walked through once, not at every command.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
import stat
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from zipfile import BadZipFile

import numpy as np

from metaformer_ablate.data.rules import (
    EMPTY_FOLDERS,
    HIDDEN,
    IMAGES,
    NO_IMAGE,
    NO_SPLIT,
    OTHER_ENDINGS,
    LeftOut,
    is_hidden,
    is_image,
    natural_classes,
    readable,
    require_regular,
    shown,
    some,
)
from metaformer_ablate.errors import RequestError
from metaformer_ablate.system.files import open_regular

RULES = 2  # a listing in the cache that was made by other rules is made anew


SPLITS = {"train": ("train",), "evaluation": ("val", "validation")}


# The name of a shard tells its split: train-0001.tar, imagenet1k-validation-00.tar.
_SHARD = {split: re.compile(rf"(?<![a-z])({'|'.join(names)})(?![a-z])") for split, names in SPLITS.items()}


LAYOUTS = {
    "folder": "{train,val}/CLASS/*.jpg",
    "tar": "*train*.tar and *val*.tar, or {train,val}/*.tar",
    "hf": "*train*.parquet and *val*.parquet, also in data/",
}


@dataclass(frozen=True)
class DatasetLocation:
    """A data set that was found: `kind` is folder, tar or hf. `parts` are of each split the folder or the files."""

    root: Path
    kind: str
    parts: dict[str, tuple[Path, ...]]
    left_out: LeftOut = field(default_factory=LeftOut)

    def fingerprint(self) -> str:
        """First 16 hex digits of a SHA-256 over the relative names and sizes of all images; of shards and parquet
        files over theirs. It does not see bytes: not what was overwritten in place, nor what kept its size."""
        lines = [self.kind]
        with readable(self.root):
            for split, paths in self.parts.items():
                if self.kind == "folder":
                    lines.append(f"{split}:{FolderListing.of(paths[0]).digest}")
                else:
                    lines += [f"{split}:{path.relative_to(self.root)}:{path.stat().st_size}" for path in paths]
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def natural(name: str) -> tuple[list[int | str], str]:
    """A key that sorts as timm does, digits as numbers and without case."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name.lower())], name


def find_location(folder: Path, name: str, reader: str = "auto") -> DatasetLocation | None:
    """What lies in `folder/name`, or else in `folder` itself; None where nothing does.

    Raises RequestError where a split is missing, where a file is not a regular one, where files of a split lie in two
    folders, or where more than one layout is there and `reader` names none.
    """
    with readable(folder):
        root = folder / name if (folder / name).is_dir() else folder
        if not root.is_dir():
            return None
        return _find_place(root, name, reader)


def _find_place(root: Path, name: str, reader: str) -> DatasetLocation | None:
    left_out = {kind: LeftOut() for kind in LAYOUTS}
    found: dict[str, dict[str, tuple[Path, ...]]] = {
        "folder": _folders(root),
        "tar": _files(root, "tar", ("", *SPLITS["train"], *SPLITS["evaluation"]), left_out["tar"]),
        "hf": _files(root, "parquet", ("", "data", *SPLITS["train"], *SPLITS["evaluation"]), left_out["hf"]),
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
    if kind != "folder":
        for paths in found[kind].values():
            if len(folders := sorted({str(path.parent) for path in paths})) > 1:
                raise RequestError(
                    f"{root}: {paths[0].name}, ... lie in {folders[0]} and in {folders[1]}; allowed: the files of a "
                    "split in one folder"
                )
            for path in paths:
                require_regular(path)
    return DatasetLocation(root, kind, {split: found[kind][split] for split in SPLITS}, left_out[kind])


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
        return any(not is_hidden(entry.name) and entry.is_dir() for entry in entries)


def _files(root: Path, ending: str, inside: tuple[str, ...], left_out: LeftOut) -> dict[str, tuple[Path, ...]]:
    """Files with an ending whose own name, or else whose folder's, tells the split; sorted."""
    found: dict[str, list[Path]] = {}
    for sub in inside:
        for path in (root / sub).glob(f"*.{ending}"):
            of = [split for split, pattern in _SHARD.items() if pattern.search(path.stem.lower())]
            of = of or [split for split, names in SPLITS.items() if sub in names]
            if is_hidden(path.name):
                left_out.add(HIDDEN, path.name)
            elif len(of) != 1:
                left_out.add(NO_SPLIT, path.name)
            elif not path.is_dir():
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
    left_out: LeftOut = field(default_factory=LeftOut)

    @classmethod
    def of(cls, root: Path) -> FolderListing:
        """Walks through a folder, unless it is known. Raises RequestError where it cannot be read, where an image lies
        in no class, and where the classes cannot be told (`natural_classes`)."""
        memory = _cache_path(root)
        known = _read(memory, ("folders", "text", "ends", "labels", "classes", "digest", "left_out"))
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
        _write(
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
        folders[inside] = state.st_mtime_ns
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
                    raise RequestError(f"{root}: {shown(path)} lies in the folder of no class; allowed: CLASS/{path}")
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
    left_out: LeftOut = field(default_factory=LeftOut)

    @classmethod
    def of(cls, shards: tuple[Path, ...]) -> ShardListing:
        """Reads the headers of shards, unless they are known. Raises RequestError where one cannot be read, or where
        images of it would be lost (`_Samples`)."""
        with readable(shards[0]):
            state = [[str(path), (found := path.stat()).st_size, found.st_mtime_ns] for path in shards]
        memory = _cache_path(*shards)
        columns = ("shard", "offset", "size", "labels")
        known = _read(memory, ("shards", "text", "ends", "left_out", *columns))
        if known is not None and known["shards"] == state:
            names, left_out = Names(known["text"], known["ends"]), LeftOut(known["left_out"])
            return cls(shards, names, **{key: known[key] for key in columns}, left_out=left_out)
        members, lines, left_out = [], [], LeftOut()
        for number, path in enumerate(shards):
            for name, offset, size, label in _members(path, left_out):
                members.append(name)
                lines.append((number, offset, size, label))
        table = np.array(lines, dtype=np.int64).reshape(-1, 4)
        values = {key: np.ascontiguousarray(table[:, i]) for i, key in enumerate(columns)}
        listing = cls(shards, Names.of(members), **values, left_out=left_out)
        _write(
            memory,
            shards=state,
            text=listing.names.text,
            ends=listing.names.ends,
            left_out=left_out.found,
            **values,
        )
        return listing


class _Samples:
    """The samples of one shard, member by member. Raises RequestError where images would be lost or mistaken."""

    def __init__(self, shard: Path):
        self.shard = shard
        self.names: set[str] = set()
        self.image: dict[str, tuple[str, int, int]] = {}
        self.label: dict[str, int] = {}
        self.dotted: dict[str, list[str]] = {}  # images by their last ending, not by WebDataset's
        self.others: list[tuple[str, str]] = []

    def add(self, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        name = posixpath.normpath(member.name)
        folder, _, base = name.rpartition("/")
        stem, _, ending = base.partition(".")
        sample, ending = f"{folder}/{stem}", ending.lower()
        if name in self.names:
            self._refuse(f"holds {shown(name)} twice, of which one would be lost; allowed: each name once in a shard")
        self.names.add(name)
        if f".{ending}" not in IMAGES and ending != "cls":
            if is_image(base):
                self.dotted.setdefault(sample, []).append(name)
            else:
                self.others.append((sample, name))
            return
        if not member.isreg() or member.issparse():
            self._refuse(f"{shown(name)} is a link, a sparse file or a device; allowed: files that are in the shard")
        if ending == "cls":
            if sample in self.label:
                self._refuse(f"{shown(name)} is a second label of its sample; allowed: one")
            self.label[sample] = self._label(member, archive)
        elif sample in self.image:
            self._refuse(f"{shown(self.image[sample][0])} and {shown(name)} are two images of one sample; allowed: one")
        else:
            self.image[sample] = (member.name, member.offset_data, member.size)

    def _label(self, member: tarfile.TarInfo, archive: tarfile.TarFile) -> int:
        stream = archive.extractfile(member)
        content = stream.read(40).strip() if stream is not None else b""
        if not re.fullmatch(rb"[0-9]{1,18}", content):
            found = shown(content.decode("utf-8", "replace"))
            self._refuse(f"{shown(member.name)} holds {found!r}; allowed: a label in digits, from 0 on")
        return int(content)

    def finish(self, left_out: LeftOut) -> Iterator[tuple[str, int, int, int]]:
        """name, offset, size and label of each image. What belongs to no image is noted."""
        if lost := [name for sample, names in self.dotted.items() if sample not in self.image for name in names]:
            self._refuse(
                f"{len(lost)} images have more than one dot in their names ({some(lost)}), and WebDataset takes all "
                "after the first for the ending; allowed: one dot, before the ending"
            )
        labels = [(sample, sample.strip("/") + ".cls") for sample in self.label]
        for sample, name in [*labels, *self.others]:
            if sample not in self.image:
                left_out.add(NO_IMAGE, f"{self.shard.name}/{name}")
        for sample, (name, offset, size) in self.image.items():
            if sample not in self.label:
                self._refuse(f"{shown(name)} has no label; allowed: a member {shown(sample.strip('/'))}.cls beside it")
            yield name, offset, size, self.label[sample]

    def _refuse(self, why: str) -> NoReturn:
        raise RequestError(f"{self.shard}: {why}")


def _members(path: Path, left_out: LeftOut) -> Iterator[tuple[str, int, int, int]]:
    """name, offset, size and label of each image of a shard."""
    samples = _Samples(path)
    end = 0
    try:
        with open_regular(path) as stream, tarfile.open(path, "r:", stream) as archive:
            for member in archive:
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                if is_hidden(member.name):
                    left_out.add(HIDDEN, f"{path.name}/{member.name}")
                elif not member.isdir():
                    samples.add(member, archive)
        # An archive ends with empty blocks; tarfile takes one that was cut off for one that ends early.
        if path.stat().st_size < end + tarfile.BLOCKSIZE:
            raise ValueError("it is cut off")
    except RequestError:
        raise
    except (OSError, tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        raise RequestError(f"{path}: cannot be read as a shard: {' '.join(str(error).split())}") from None
    yield from samples.finish(left_out)


def _cache_path(*paths: Path) -> Path:
    from metaformer_ablate.system.cache import cache_dir

    text = "\n".join([f"rules {RULES}", *(str(path.resolve()) for path in paths)])
    return cache_dir() / "listings" / f"{hashlib.sha256(os.fsencode(text)).hexdigest()[:16]}.npz"


def _read(memory: Path, keys: tuple[str, ...]) -> dict[str, Any] | None:
    """What `_write` has written; None where it is not there, or not whole."""
    try:
        with open_regular(memory) as stream, np.load(stream, allow_pickle=False) as arrays:
            found = {key: arrays[key] for key in keys}
        return {key: value if value.ndim else json.loads(str(value)) for key, value in found.items()}
    except (OSError, ValueError, KeyError, EOFError, TypeError, BadZipFile, zlib.error, NotImplementedError):
        return None


def _write(memory: Path, **values: Any) -> None:
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
