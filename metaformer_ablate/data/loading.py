"""Loader processes: batches that they have made, and what is noted of the images in them."""

from __future__ import annotations

import multiprocessing
import signal
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from metaformer_ablate.data.sampling import EpochBatches
from metaformer_ablate.data.unreadable import Unreadable
from metaformer_ablate.errors import RequestError
from metaformer_ablate.system.signals import isolate_children


class NamedEpochBatches(EpochBatches):
    """`EpochBatches` that name their epoch: loader processes live through all epochs, and hear of none."""

    def __iter__(self) -> Iterator[Any]:
        epoch = self.epoch
        return ((epoch, batch) for batch in super().__iter__())


class ImageFileLoader(DataLoader):
    """The batches of a data set, whose items are (batch, `Seen`): what is seen is noted in `unreadable`.
    Raises RequestError for what is wrong.

    `order` gives an index per batch. `preload` is the module that the data set needs in its loader processes.
    """

    def __init__(
        self,
        dataset: Dataset,
        order: Iterable[Any],
        workers: int,
        pinned: bool,
        unreadable: Unreadable,
        split: str,
        preload: str,
    ):
        super().__init__(
            dataset,
            sampler=order,
            batch_size=None,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=pinned,
            multiprocessing_context=_clean_processes(preload) if workers else None,
            persistent_workers=workers > 0,
            worker_init_fn=_begin_worker,
        )
        self.unreadable, self.split = unreadable, split

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch, seen in super().__iter__():
            if seen.wrong:
                raise RequestError(seen.wrong[0])
            self.unreadable.remark(self.split, seen.remarks)
            self.unreadable.note(self.split, seen.unreadable)
            yield batch


def _clean_processes(preload: str) -> Any:
    """Loader processes are forked from one that has imported what they need and holds nothing else: a fork of this
    process would have its threads and its GPU, and to spawn each one costs the imports anew."""
    isolate_children()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    return context


def _as_it_is(batch: Any) -> Any:
    return batch


def _begin_worker(number: int) -> None:
    """A signal that asks the run for an end may reach the whole group of processes: the run still wants its batches
    to save its place by, and ends its loaders itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    warnings.filterwarnings("ignore", module="PIL")  # damaged EXIF data: of no pixel
