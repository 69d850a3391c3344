"""Which images tar shards hold, and where each begins. No torch."""

from __future__ import annotations

import posixpath
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np

from metaformer_ablate.data.listings import Names, listing_path, read_listing, write_listing
from metaformer_ablate.data.rules import (
    FURTHER_IMAGES,
    HIDDEN,
    IMAGES,
    NO_IMAGE,
    LeftOut,
    is_hidden,
    is_image,
    named,
    readable,
    some,
)
from metaformer_ablate.errors import RequestError
from metaformer_ablate.system.files import open_regular


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
        memory = listing_path(*shards)
        columns = ("shard", "offset", "size", "labels")
        known = read_listing(memory, ("shards", "text", "ends", "left_out", *columns))
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
        write_listing(
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
            self._refuse(f"holds {named(name)} twice, of which one would be lost; allowed: each name once in a shard")
        self.names.add(name)
        if f".{ending}" not in IMAGES and ending != "cls":
            if is_image(base):
                self.dotted.setdefault(sample, []).append(name)
            else:
                self.others.append((sample, name))
            return
        if not member.isreg() or member.issparse():
            self._refuse(f"{named(name)} is a link, a sparse file or a device; allowed: files that are in the shard")
        if ending == "cls":
            if sample in self.label:
                self._refuse(f"{named(name)} is a second label of its sample; allowed: one")
            self.label[sample] = self._label(member, archive)
        elif sample in self.image:
            self._refuse(f"{named(self.image[sample][0])} and {named(name)} are two images of one sample; allowed: one")
        else:
            self.image[sample] = (member.name, member.offset_data, member.size)

    def _label(self, member: tarfile.TarInfo, archive: tarfile.TarFile) -> int:
        stream = archive.extractfile(member)
        content = stream.read(40).strip() if stream is not None else b""
        if not re.fullmatch(rb"[0-9]{1,18}", content):
            found = named(content.decode("utf-8", "replace"))
            self._refuse(f"{named(member.name)} holds {found!r}; allowed: a label in digits, from 0 on")
        return int(content)

    def finish(self, left_out: LeftOut) -> Iterator[tuple[str, int, int, int]]:
        """name, offset, size and label of each image. What belongs to no image is noted."""
        if lost := [name for sample, names in self.dotted.items() if sample not in self.image for name in names]:
            self._refuse(
                f"{len(lost)} images have more than one dot in their names ({some(lost)}), and WebDataset takes all "
                "after the first for the ending; allowed: one dot, before the ending"
            )
        names = {name for _, name in self.others}
        further = [name for images in self.dotted.values() for name in images]
        if labelled := [name for name in further if f"{name.rpartition('.')[0]}.cls" in names]:
            self._refuse(
                f"{some(labelled)}: more than one dot in the name, and a label of its own, but WebDataset takes all "
                "after the first dot for the ending; allowed: one dot, before the ending"
            )
        for name in further:
            left_out.add(FURTHER_IMAGES, f"{self.shard.name}/{name}")
        labels = [(sample, sample.strip("/") + ".cls") for sample in self.label]
        for sample, name in [*labels, *self.others]:
            if sample not in self.image:
                left_out.add(NO_IMAGE, f"{self.shard.name}/{name}")
        for sample, (name, offset, size) in self.image.items():
            if sample not in self.label:
                self._refuse(f"{named(name)} has no label; allowed: a member {named(sample.strip('/'))}.cls beside it")
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
