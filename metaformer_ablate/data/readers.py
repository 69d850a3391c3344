"""Readers of single images: folders, tar shards and Hugging Face data sets."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from timm.data.readers.reader import Reader

from metaformer_ablate.data.datasets import DATASETS, every_fifth_of_a_class
from metaformer_ablate.data.layouts import LAYOUTS, DatasetLocation
from metaformer_ablate.data.listings import FolderListing
from metaformer_ablate.data.parquet import open_parquet
from metaformer_ablate.data.rules import LeftOut, in_both, same_classes, some
from metaformer_ablate.data.shards import ShardListing
from metaformer_ablate.data.spec import DataSpec
from metaformer_ablate.errors import RequestError
from metaformer_ablate.system.files import open_regular


class FolderReader(Reader):
    """timm's `ReaderImageFolder`, images and labels in its order, from a listing that is kept.

    timm's own walks through the folder at each start, and holds two objects per image, which spawned loader processes
    would each be sent.
    """

    def __init__(self, listing: FolderListing):
        super().__init__()
        self.listing = listing

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return open_regular(self.listing.root / self.listing.names[index]), int(self.listing.labels[index])

    def __len__(self) -> int:
        return len(self.listing.names)

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        path = self.listing.names[index]
        return os.path.basename(path) if basename else str(self.listing.root / path) if absolute else path


class ShardReader(Reader):
    """Images of WebDataset shards by index.

    timm's `ReaderWds` streams: it cannot begin in the middle of an epoch, it repeats and leaves out images where
    shards do not divide evenly among processes, and its order depends on their number. An index of where each member
    begins makes of the shards a data set like any other.
    """

    def __init__(self, listing: ShardListing):
        super().__init__()
        self.listing = listing

    def __getitem__(self, index: int) -> tuple[Any, int]:
        listing = self.listing
        with open_regular(listing.shards[listing.shard[index]]) as shard:
            content = os.pread(shard.fileno(), int(listing.size[index]), int(listing.offset[index]))
        return io.BytesIO(content), int(listing.labels[index])

    def __len__(self) -> int:
        return len(self.listing.names)

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        shard, name = self.listing.shards[self.listing.shard[index]], self.listing.names[index]
        return os.path.basename(name) if basename else f"{shard if absolute else shard.name}/{name}"


@dataclass(frozen=True)
class Source:
    """A split: a reader of timm's kind, the labels [N] of its images without reading them, the names of the classes
    where they are known, and what lies there and is no part of it."""

    reader: Any
    labels: np.ndarray
    classes: tuple[str, ...] = ()
    left_out: LeftOut = field(default_factory=LeftOut)


def open_sources(place: DatasetLocation) -> dict[str, Source]:
    """Both splits. Raises RequestError where they cannot be read, or the evaluation has classes that training lacks."""
    if place.kind == "hf":
        readers, classes = open_parquet(place)
        return {split: Source(reader, reader.labels, classes, place.left_out) for split, reader in readers.items()}
    if place.kind == "tar":
        shards = {split: ShardListing.of(paths) for split, paths in place.parts.items()}
        return {
            split: Source(ShardReader(listing), listing.labels, (), place.left_out.join(listing.left_out))
            for split, listing in shards.items()
        }
    if place.kind == "classes":
        everything = FolderListing.of(place.root)
        held = every_fifth_of_a_class(everything.labels)
        parts = {"train": everything.at(np.flatnonzero(~held)), "evaluation": everything.at(np.flatnonzero(held))}
        return {
            split: Source(FolderReader(listing), listing.labels, listing.classes, listing.left_out)
            for split, listing in parts.items()
        }
    listings = {split: FolderListing.of(paths[0]) for split, paths in place.parts.items()}
    train, evaluation = listings["train"], listings["evaluation"]
    names = place.parts["train"][0].name, place.parts["evaluation"][0].name
    number = np.array(
        same_classes(place.root, train.classes, evaluation.classes, names, train.left_out), dtype=np.int64
    )
    listings["evaluation"] = replace(evaluation, labels=number[evaluation.labels], classes=train.classes)
    left_out = {"train": train.left_out.join(place.left_out), "evaluation": evaluation.left_out}
    return {
        split: Source(FolderReader(listing), listing.labels, train.classes, left_out[split])
        for split, listing in listings.items()
    }


def trained_on(sources: dict[str, Source]) -> tuple[str, ...]:
    """The names of images to evaluate on that are trained on too, where both splits are folders of images."""
    readers = [sources[split].reader for split in ("train", "evaluation")]
    if not all(isinstance(reader, FolderReader) for reader in readers):
        return ()
    train, evaluation = ((reader.listing.root, reader.listing.names) for reader in readers)
    return in_both(train, evaluation)


def check_counts(place: DatasetLocation, sources: dict[str, Source], spec: DataSpec) -> None:
    for split, key in (("train", "train_images"), ("evaluation", "test_images")):
        found, left_out = len(sources[split].labels), sources[split].left_out
        wanted = getattr(spec, key) or getattr(DATASETS[spec.name], key)
        if not found:
            raise RequestError(
                f"{place.root}: {spec.name} holds no image for {split}{left_out.said()}; allowed: {LAYOUTS[place.kind]}"
            )
        if found != wanted:
            other = f", or data.{key}={found}{' without these' if left_out else ''}" if getattr(spec, key) else ""
            raise RequestError(
                f"{place.root}: {spec.name} holds {found} images for {split}, but data.{key} is {wanted}"
                f"{left_out.said()}; allowed: the whole data set{other}"
            )
    labels = np.concatenate([sources[split].labels for split in ("train", "evaluation")])
    low, high = labels.min(), labels.max()
    if low < 0 or high + 1 != spec.classes:
        names = sources["train"].classes
        raise RequestError(
            f"{place.root}: the labels of {spec.name} go from {low} to {high}, but data.num_classes is {spec.classes}; "
            f"allowed: labels from 0 on, and data.num_classes={high + 1}{f' ({some(names)})' if names else ''}"
        )
