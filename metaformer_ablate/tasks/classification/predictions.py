"""What a record keeps of the predictions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from metaformer_ablate.data.datasets import DATASETS, DatasetInfo
from metaformer_ablate.errors import RequestError, unknown
from metaformer_ablate.records.status import RunState
from metaformer_ablate.records.store import Store

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from metaformer_ablate.records.record import Record


def check(predictions: Mapping[str, NDArray[Any]]) -> None:
    """Raises ValueError unless these are label, predicted and confidence, with an entry per evaluation image."""
    names = ("label", "predicted", "confidence")
    if missing := [name for name in names if name not in predictions]:
        raise ValueError(f"lacks {', '.join(missing)}; allowed: label, predicted and confidence")
    label, predicted, confidence = (predictions[name] for name in names)
    listed = label.ndim == 1 and len(label) and label.shape == predicted.shape == confidence.shape
    kinds = "".join(array.dtype.kind for array in (label, predicted, confidence))
    if not listed or not re.fullmatch("[ui][ui]f", kinds):
        shown = ", ".join(f"{name} {array.dtype} {list(array.shape)}" for name, array in predictions.items())
        raise ValueError(f"found {shown[:200]}; allowed: three lists of one length, an entry per image")


def facts_of(data: Mapping[str, Any]) -> DatasetInfo:
    """The facts of a spec's data set, with the number of classes that it says, if it does."""
    if data["name"] not in DATASETS:
        raise RequestError(unknown("data set", data["name"], DATASETS))
    facts = DATASETS[data["name"]]
    return replace(facts, num_classes=data.get("num_classes") or facts.num_classes)


def read_predictions(record: Record) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Label, predicted and confidence (0 to 1) of each evaluation image, in the order of the data set.

    Raises RequestError where the run has none, or where they cannot be what such a run leaves behind.
    """
    if record.status != "ok":
        raise RequestError(
            f"run {record.run_id} {record.status} ({record.data.get('reason')}): it has no predictions; "
            "allowed: a run with status ok"
        )
    path = record.folder / "predictions.npz"
    arrays = record.predictions()
    labels, predicted, confidence = (arrays[name] for name in ("label", "predicted", "confidence"))
    classes = facts_of(record.spec()["data"]).num_classes
    for name, array in (("label", labels), ("predicted", predicted)):
        if array.min() < 0 or array.max() >= classes:
            raise RequestError(f"{path}: {name} goes from {array.min()} to {array.max()}; allowed: 0 to {classes - 1}")
    confidence = confidence.astype(np.float64)
    if not ((confidence >= 0) & (confidence <= 1 + 1e-6)).all():
        raise RequestError(f"{path}: confidence holds {confidence.min():g} to {confidence.max():g}; allowed: 0 to 1")
    return labels.astype(np.int64), predicted.astype(np.int64), confidence.clip(max=1)


def read_answers(states: Sequence[RunState], store: Store) -> dict[int, tuple[Any, Any]]:
    """By seed, the labels of the evaluation split and which of them a run has right."""
    found = {}
    for state in states:
        if state.status == "ok" and state.record is not None:
            try:
                predictions = state.record.predictions()
            except RequestError as error:
                store.problems[state.run_id] = f"{error}; left out of the test over images"
                continue
            found[state.seed] = predictions["label"], predictions["label"] == predictions["predicted"]
    return found


def same_labels(labels: Any, others: Any) -> bool:
    return labels.shape == others.shape and bool((labels == others).all())
