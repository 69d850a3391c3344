"""Loader processes: batches that they have made, and what is noted of the images in them."""

from __future__ import annotations

import multiprocessing
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset

from metaformer_ablate.data.sampling import EpochBatches, derive_seed
from metaformer_ablate.data.unreadable import Seen, Unreadable
from metaformer_ablate.errors import RequestError
from metaformer_ablate.system.signals import isolate_children

# Images that are tried in place of one that cannot be read. Chance finds a whole one long before.
STAND_INS = 20


T = TypeVar("T")


def why_unreadable(error: Exception) -> str:
    """What is noted of an image that a reader or a decoder has refused so. Raises a MemoryError again."""
    if isinstance(error, MemoryError):
        raise error
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def read_or_stand_in(
    read: Callable[[int], T],
    name: Callable[[int], str],
    count: int,
    index: int,
    seed: int,
    seen: Seen,
    fatal: tuple[type[Exception], ...] = (),
) -> tuple[int, T]:
    """What `read` gives of an image of `count` and its index: of `index`, or where that cannot be read of others, drawn
    from the seed. What cannot be read is noted by name.

    Raises what is `fatal`, and RuntimeError where none of STAND_INS images can be read.
    """
    for attempt in range(STAND_INS):
        try:
            return index, read(index)
        except fatal:
            raise
        except Exception as error:
            seen.unreadable[name(index)] = why_unreadable(error)
        index = derive_seed(seed, "stand-in", attempt) % count
    raise RuntimeError(
        f"{STAND_INS} images drawn at random cannot be read, {', '.join(list(seen.unreadable)[:3])}, ..."
    )


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
