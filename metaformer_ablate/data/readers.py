"""Readers of single images: folders, tar shards and Hugging Face data sets."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from timm.data.readers.reader import Reader

from metaformer_ablate.data.listings import FolderListing, Place, ShardListing
from metaformer_ablate.data.spec import DataSpec
from metaformer_ablate.errors import RequestError


class FolderReader(Reader):
    """timm's `ReaderImageFolder`, images and labels in its order, from a listing that is kept.

    timm's own walks through the folder at each start, and holds two objects an image, which spawned loader processes
    would each be sent.
    """

    def __init__(self, listing: FolderListing):
        super().__init__()
        self.listing = listing

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return open(self.listing.root / self.listing.names[index], "rb"), int(self.listing.labels[index])

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
        with open(listing.shards[listing.shard[index]], "rb", buffering=0) as shard:
            content = os.pread(shard.fileno(), int(listing.size[index]), int(listing.offset[index]))
        return io.BytesIO(content), int(listing.labels[index])

    def __len__(self) -> int:
        return len(self.listing.names)

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        shard, name = self.listing.shards[self.listing.shard[index]], self.listing.names[index]
        return os.path.basename(name) if basename else f"{shard if absolute else shard.name}/{name}"


@dataclass(frozen=True)
class Source:
    """A split: a reader of timm's kind, and the labels [N] of its images without reading them."""

    reader: Any
    labels: np.ndarray


def _hf_source(place: Place, split: str) -> Source:
    """timm's `ReaderHfds` over the parquet files of a split. The package copies what they hold into its own cache."""
    try:
        from timm.data.readers.reader_hfds import ReaderHfds
    except ImportError:
        raise RequestError(
            f"{place.root}: reading parquet files needs the package datasets: pip install 'metaformer-ablate[hf]'"
        ) from None
    try:
        reader = ReaderHfds(str(place.root), split="train" if split == "train" else "validation")
        labels = np.asarray(reader.dataset.with_format("numpy")[reader.label_key][:], dtype=np.int64)
    except Exception as error:  # whatever the package makes of what lies there
        reason = " ".join(str(error).split())[:300]
        raise RequestError(f"{place.root}: cannot be read with the package datasets: {reason}") from None
    return Source(reader, labels)


def open_sources(place: Place) -> dict[str, Source]:
    """Both splits. Raises RequestError where they cannot be read, or their classes are not the same."""
    if place.kind == "hf":
        return {split: _hf_source(place, split) for split in place.parts}
    if place.kind == "tar":
        shards = {split: ShardListing.of(paths) for split, paths in place.parts.items()}
        return {split: Source(ShardReader(listing), listing.labels) for split, listing in shards.items()}
    listings = {split: FolderListing.of(paths[0]) for split, paths in place.parts.items()}
    train, evaluation = (set(listings[split].classes) for split in ("train", "evaluation"))
    if odd := sorted(train ^ evaluation):
        where = place.parts["train" if odd[0] in train else "evaluation"][0].name
        raise RequestError(
            f"{place.root}: {len(train)} classes to train on and {len(evaluation)} to evaluate on are not the same: "
            f"{odd[0]} is in {where} alone; allowed: a folder for each class in both"
        )
    return {split: Source(FolderReader(listing), listing.labels) for split, listing in listings.items()}


def _check_counts(place: Place, sources: dict[str, Source], spec: DataSpec) -> None:
    for split, key in (("train", "train_images"), ("evaluation", "test_images")):
        found, wanted = len(sources[split].labels), getattr(spec, key)
        if found != wanted:
            raise RequestError(
                f"{place.root}: {spec.name} holds {found} images for {split}, but data.{key} is {wanted}; "
                f"allowed: the whole data set, or data.{key}={found}"
            )
    labels = np.concatenate([sources[split].labels for split in ("train", "evaluation")])
    low, high = labels.min(), labels.max()
    if low < 0 or high + 1 != spec.classes:
        raise RequestError(
            f"{place.root}: the labels of {spec.name} go from {low} to {high}, but data.num_classes is {spec.classes}; "
            f"allowed: labels from 0 on, and data.num_classes={high + 1}"
        )
