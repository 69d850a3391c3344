"""Images of parquet files, read with the package datasets. It copies what they hold into its own cache."""

from __future__ import annotations

import io
import json
from pathlib import Path
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
        """By its row: the paths in a parquet file need not differ."""
        path = self.dataset[index]["image"]["path"]
        return f"row {index} ({path})" if path else f"row {index}"


def open_parquet(place: DatasetLocation) -> tuple[dict[str, ParquetReader], tuple[str, ...]]:
    """A reader of each split, and the names of the classes where the files tell them.

    Each split counts its classes by its own names, and the name is what counts. Raises RequestError where the files
    cannot be read, where labels are neither whole numbers nor text, and where one split alone has names.
    """
    datasets = {split: _dataset(place, split) for split in place.parts}
    found = {split: _labels(place, split, dataset) for split, dataset in datasets.items()}
    labels = {split: numbers for split, (numbers, _) in found.items()}
    names = {split: of_split for split, (_, of_split) in found.items()}
    if any(names.values()):
        if lacking := [split for split in place.parts if not names[split]]:
            raise RequestError(
                f"{place.root}: labels of {lacking[0]} are whole numbers without names, those of the other split have "
                "names; allowed: names in both, or in neither"
            )
        there = np.unique(labels["evaluation"])
        evaluated = [names["evaluation"][i] for i in there]
        number = same_classes(place.root, names["train"], evaluated, ("train", "validation"), place.left_out)
        labels["evaluation"] = np.array(number, dtype=np.int64)[np.searchsorted(there, labels["evaluation"])]
    used = 1 + max((int(numbers.max()) for numbers in labels.values() if len(numbers)), default=-1)
    return {split: ParquetReader(datasets[split], labels[split]) for split in place.parts}, names["train"][:used]


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


def _labels(place: DatasetLocation, split: str, dataset: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    """[N] int64, and the name of each number, or none.

    Labels that are text are their own names, in their natural order.
    """
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
    if text:
        names = tuple(sorted(set(values.tolist()), key=natural))
        number = {name: i for i, name in enumerate(names)}
        return np.array([number[value] for value in values.tolist()], dtype=np.int64), names
    labels, names = values.astype(np.int64), _class_label(place, split)
    if names and len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
        raise RequestError(
            f"{place.root}: labels of {split} go from {labels.min()} to {labels.max()}, and its files name "
            f"{len(names)} classes; allowed: a name for each"
        )
    return labels, names


def _class_label(place: DatasetLocation, split: str) -> tuple[str, ...]:
    """The names that the package datasets wrote beside whole numbers, its ClassLabel; none where there are none.

    Read from the files themselves: the package gives every split the names of the first.
    """
    from pyarrow.parquet import read_schema

    found: dict[tuple[str, ...], Path] = {}
    for path in place.parts[split]:
        try:
            feature = json.loads(read_schema(path).metadata[b"huggingface"])["info"]["features"]["label"]
            names = tuple(map(str, feature["names"])) if feature["_type"] == "ClassLabel" else ()
        except (KeyError, TypeError, ValueError):  # written by another program
            names = ()
        found.setdefault(names, path)
    if len(found) > 1:
        one, other = (named(path.name) for path in list(found.values())[:2])
        raise RequestError(
            f"{place.root}: {one} and {other} name the numbers of their labels otherwise; allowed: the files of one "
            "data set"
        )
    return next(iter(found))
