"""Images of parquet files, read with the package datasets. It copies what they hold into its own cache."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from timm.data.readers.reader import Reader

from metaformer_ablate.data.layouts import DatasetLocation
from metaformer_ablate.data.rules import named, natural, same_classes, some
from metaformer_ablate.errors import RequestError
from metaformer_ablate.system.files import open_regular


class ParquetReader(Reader):
    """The images of a data set of the package datasets, undecoded, with labels [N] int64."""

    def __init__(self, dataset: Any, labels: np.ndarray):
        super().__init__()
        self.dataset, self.labels = dataset, labels

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = self.dataset[index]["image"]
        file = io.BytesIO(image["bytes"]) if image["bytes"] else open_regular(image["path"])
        return file, int(self.labels[index])

    def __len__(self) -> int:
        return len(self.labels)

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        return self.dataset[index]["image"]["path"] or f"row {index}"


def open_parquet(place: DatasetLocation) -> tuple[dict[str, ParquetReader], tuple[str, ...]]:
    """A reader of each split, and the names of the classes where the labels are text; their order is the natural one.

    Raises RequestError where the files cannot be read, or labels are neither whole numbers nor text.
    """
    datasets = {split: _dataset(place, split) for split in place.parts}
    columns = {split: _labels(place, split, dataset) for split, dataset in datasets.items()}
    classes: tuple[str, ...] = ()
    if any(column.dtype == object for column in columns.values()):
        known = {
            split: sorted({str(label) for label in column.tolist()}, key=natural) for split, column in columns.items()
        }
        same_classes(place.root, known["train"], known["evaluation"], ("train", "validation"), place.left_out)
        classes = tuple(known["train"])
        number = {name: i for i, name in enumerate(classes)}
        columns = {
            split: np.array([number[str(label)] for label in column.tolist()], dtype=np.int64)
            for split, column in columns.items()
        }
    return {split: ParquetReader(datasets[split], columns[split]) for split in place.parts}, classes


def _dataset(place: DatasetLocation, split: str) -> Any:
    """With the rows of the files that were found, and of no others: the package looks for files by its own rules."""
    try:
        from pyarrow.parquet import read_metadata
        from timm.data.readers.reader_hfds import ReaderHfds
    except ImportError:
        raise RequestError(
            f"{place.root}: reading parquet files needs the package datasets: pip install 'metaformer-ablate[hf]'"
        ) from None
    try:
        dataset = ReaderHfds(str(place.root), split="train" if split == "train" else "validation").dataset
        rows = sum(read_metadata(path).num_rows for path in place.parts[split])
    except Exception as error:  # whatever the package makes of what lies there
        reason = " ".join(str(error).split())[:300]
        raise RequestError(f"{place.root}: cannot be read with the package datasets: {reason}") from None
    if len(dataset) != rows:
        raise RequestError(
            f"{place.root}: the package datasets reads {len(dataset)} images for {split}, but the files "
            f"{named(place.parts[split][0].name)}, ... hold {rows}; allowed: in this folder the files of one data set"
        )
    return dataset


def _labels(place: DatasetLocation, split: str, dataset: Any) -> np.ndarray:
    """[N] int64, or objects where they are text."""
    from pyarrow import types

    if "label" not in dataset.column_names:
        raise RequestError(
            f"{place.root}: the columns of {split} are {some(dataset.column_names)}; allowed: image and label"
        )
    column = dataset.select_columns(["label"]).with_format("arrow")[:].column("label")
    whole, text = types.is_integer(column.type), types.is_string(column.type) or types.is_large_string(column.type)
    if column.null_count or not (whole or text):
        found = f"{column.null_count} missing" if column.null_count else f"of type {named(str(column.type))}"
        raise RequestError(
            f"{place.root}: labels of {split} are {found}; allowed in the column label: a whole number, or a text, per "
            "image"
        )
    values = column.to_numpy()
    return values.astype(np.int64) if whole else values.astype(object)
