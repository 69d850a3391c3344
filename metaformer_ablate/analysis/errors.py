"""The mistakes of a trained model, from the predictions of its record alone. Loads neither torch nor matplotlib.

Shares (accuracies, confidences, intervals, calibration errors) are in percent. Intervals are 95% Wilson intervals of a
share over the images: they say how far this trained model's accuracy is known from these images, and nothing about
another seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from metaformer_ablate.analysis.stats import mcnemar
from metaformer_ablate.data.catalogue import DATASETS, DataSet
from metaformer_ablate.spec import unknown
from metaformer_ablate.yaml_reader import RequestError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from metaformer_ablate.records import Record

WORST = 24  # mistakes on a sheet
PAIRS = 10
BINS = 15
SIZE_BINS = 5
# The names in probes.py, which loads torch.
PROBE_NAMES = ("scale", "resolution", "crop", "shift", "rotate", "blur", "noise")
CALIBRATION = (
    f"expected calibration error of the top confidence: {BINS} bins of equal width, each with its upper edge, "
    "weighted by their images (Guo et al. 2017)"
)
MCNEMAR = "exact McNemar test, two-sided, over the images that one of them gets right"
MCNEMAR_QUESTION = (
    "whether these two trained models differ on images like these; whether their architectures or settings differ is "
    "another question, which needs several seeds of each (ablate table)"
)
_Z95 = 1.959963984540054  # the 97.5% quantile of the standard normal


def wilson(right: int, n: int) -> list[float] | None:
    """The 95% Wilson score interval (1927) of `right` of `n`, in percent; None of no images."""
    if n == 0:
        return None
    share, z2 = right / n, _Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # At none and at all right one end is exact; rounding would put it a hair beyond.
    return [0.0 if right == 0 else 100 * (centre - half), 100.0 if right == n else 100 * (centre + half)]


def accuracy(right: NDArray[np.bool_]) -> dict[str, Any]:
    """images, correct, accuracy and ci95 of an array that says of each image whether it was right."""
    n, correct = len(right), int(right.sum())
    return {
        "images": n,
        "correct": correct,
        "accuracy": 100 * correct / n if n else None,
        "ci95": wilson(correct, n),
    }


def by_class(right: NDArray[np.bool_], labels: NDArray[np.int64], facts: DataSet) -> list[dict[str, Any]]:
    """`accuracy` for each class of a data set."""
    return [{"class": k, "name": facts.class_name(k), **accuracy(right[labels == k])} for k in range(facts.num_classes)]


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
    try:
        arrays = record.predictions()
    except (OSError, ValueError) as error:
        raise RequestError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    if missing := [name for name in ("label", "predicted", "confidence") if name not in arrays]:
        raise RequestError(f"{path}: lacks {', '.join(missing)}; allowed: label, predicted and confidence")
    labels, predicted, confidence = (arrays[name] for name in ("label", "predicted", "confidence"))
    if labels.ndim != 1 or not len(labels) or not labels.shape == predicted.shape == confidence.shape:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise RequestError(f"{path}: found {shapes}; allowed: three lists of one length, an entry an image")
    classes = _facts(record.spec()["data"]).num_classes
    for name, array in (("label", labels), ("predicted", predicted)):
        if array.dtype.kind not in "ui" or array.min() < 0 or array.max() >= classes:
            raise RequestError(f"{path}: {name} goes from {array.min()} to {array.max()}; allowed: 0 to {classes - 1}")
    confidence = confidence.astype(np.float64)
    if not ((confidence >= 0) & (confidence <= 1 + 1e-6)).all():
        raise RequestError(f"{path}: confidence holds {confidence.min():g} to {confidence.max():g}; allowed: 0 to 1")
    return labels.astype(np.int64), predicted.astype(np.int64), confidence.clip(max=1)


def summary(record: Record, *, worst: int = WORST) -> dict[str, Any]:
    """What a run gets wrong, as plain values: needs its spec and predictions, no data and no weights.

    Keys: the run (`run_id`, `dataset`, `split`, `data_fingerprint`, `model`), its accuracy, `classes`, `confusion`
    (a row a label, a column a prediction), `pairs` (the most frequent mistakes), `calibration`, `mistakes` (the most
    confident ones, with the index in the evaluation split) and `warnings`. Raises RequestError as `read_predictions`.
    """
    labels, predicted, confidence = read_predictions(record)
    spec = record.spec()
    facts = _facts(spec["data"])
    right = predicted == labels
    confusion = np.bincount(labels * facts.num_classes + predicted, minlength=facts.num_classes**2)
    confusion = confusion.reshape(facts.num_classes, facts.num_classes)
    whole = accuracy(right)
    warnings = []
    if record.top1 is not None and abs(record.top1 - whole["accuracy"]) > 0.005:
        warnings.append(
            f"run {record.run_id}: its predictions are {whole['accuracy']:.2f}% right, its record says "
            f"{record.top1:.2f}%: one of them is not of this run"
        )
    smoothing, mixed = spec["train"]["label_smoothing"], spec["data"]["mixup"] or spec["data"]["cutmix"]
    softened = [f"label smoothing {smoothing:g}"] * bool(smoothing) + ["mixed images"] * bool(mixed)
    return {
        "run_id": record.run_id,
        "dataset": spec["data"]["name"],
        "split": spec["data"]["evaluate_on"],
        "data_fingerprint": record.data["data_fingerprint"],
        "model": model_name(spec),
        "seed": spec["seed"],
        **whole,
        "classes": [
            {**line, "predicted": int(confusion[:, k].sum())} for k, line in enumerate(by_class(right, labels, facts))
        ],
        "confusion": confusion.tolist(),
        "pairs": _pairs(confusion, facts),
        "calibration": calibration(confidence, right) | {"trained_with": softened},
        "mistakes": _worst(np.flatnonzero(~right), labels, predicted, confidence, facts, worst),
        "warnings": warnings,
    }


def _facts(data: Mapping[str, Any]) -> DataSet:
    """The facts of a spec's data set, with the number of classes that it says, if it does."""
    if data["name"] not in DATASETS:
        raise RequestError(unknown("data set", data["name"], DATASETS))
    facts = DATASETS[data["name"]]
    return replace(facts, num_classes=data.get("num_classes") or facts.num_classes)


def model_name(spec: Mapping[str, Any]) -> str:
    """What to call a run's model in a figure: its comparator, or its token mixer or mixers."""
    model = spec["model"]
    if name := model["timm"] or model["comparator"]:
        return name
    mixers = model["token_mixer"]
    return mixers[0] if len(set(mixers)) == 1 else ", ".join(mixers)


def _pairs(confusion: NDArray[np.int64], facts: DataSet) -> list[dict[str, Any]]:
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]
    found = []
    for label, predicted in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if count := int(wrong[label, predicted]):
            of = int(confusion[label].sum())
            found.append({**_named(label, predicted, facts), "count": count, "of": of, "share": 100 * count / of})
    return found


def _named(label: Any, predicted: Any, facts: DataSet) -> dict[str, Any]:
    return {
        "label": int(label),
        "label_name": facts.class_name(int(label)),
        "predicted": int(predicted),
        "predicted_name": facts.class_name(int(predicted)),
    }


def _worst(
    candidates: NDArray[np.int64],
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    confidence: NDArray[np.float64],
    facts: DataSet,
    count: int,
) -> list[dict[str, Any]]:
    """The most confident of some images, the first of equals first."""
    order = candidates[np.argsort(-confidence[candidates], kind="stable")][:count]
    return [
        {"index": int(i), **_named(labels[i], predicted[i], facts), "confidence": 100 * float(confidence[i])}
        for i in order
    ]


def calibration(confidence: NDArray[np.float64], right: NDArray[np.bool_], bins: int = BINS) -> dict[str, Any]:
    """Whether the top confidence (0 to 1) can be taken for the share of right answers.

    `ece` is never 0 of finitely many images: `ece_if_calibrated` is what a model with these confidences would show
    if each were exactly the chance to be right (mean and 95% quantile of 200 draws with a fixed seed).
    """
    edges = np.linspace(0, 1, bins + 1)
    place = np.searchsorted(edges[1:-1], confidence, side="left")  # a value on an edge belongs to the bin below it
    n = len(confidence)

    def error(answers: NDArray[Any]) -> float:
        return 100 * float(np.abs(np.bincount(place, weights=answers - confidence, minlength=bins)).sum()) / n

    generator = np.random.default_rng(0)
    drawn = [error(generator.random(n) < confidence) for _ in range(200)]
    lines = []
    for i in range(bins):
        inside = place == i
        mean = 100 * float(confidence[inside].mean()) if inside.any() else None
        edge = {"above": 100 * float(edges[i]), "to": 100 * float(edges[i + 1])}
        lines.append({**edge, "confidence": mean, **accuracy(right[inside])})
    return {
        "method": CALIBRATION,
        "ece": error(right),
        "ece_if_calibrated": {"mean": float(np.mean(drawn)), "q95": float(np.quantile(drawn, 0.95))},
        "mean_confidence": 100 * float(confidence.mean()),
        "bins": lines,
    }


def comparison(record: Record, other: Record, *, worst: int = WORST) -> dict[str, Any]:
    """What one of two runs gets right and the other wrong, image by image, as plain values.

    `only_first` and `only_second` count the images that only `record` or only `other` gets right; the examples of
    each are the most confident mistakes of the run that is wrong. Raises RequestError unless both runs were evaluated
    on the same images.
    """
    if record.run_id == other.run_id:
        raise RequestError(f"--against: run {record.run_id} against itself; allowed: another run")
    first, second = record.spec(), other.spec()
    _check_same_images(record, other, first, second)
    labels, predicted, confidence = read_predictions(record)
    labels2, predicted2, confidence2 = read_predictions(other)
    if not np.array_equal(labels, labels2):
        raise RequestError(
            f"--against: runs {record.run_id} and {other.run_id} hold other labels ({len(labels)} and {len(labels2)} "
            "images), so they were not evaluated on the same images in the same order"
        )
    facts = _facts(first["data"])
    right, right2 = predicted == labels, predicted2 == labels
    only_first, only_second = right & ~right2, right2 & ~right
    both_wrong = ~right & ~right2
    return {
        "first": {"run_id": record.run_id, "model": model_name(first), "seed": first["seed"], **accuracy(right)},
        "second": {"run_id": other.run_id, "model": model_name(second), "seed": second["seed"], **accuracy(right2)},
        "differ_in": _differences(first, second),
        "both_right": int((right & right2).sum()),
        "only_first": int(only_first.sum()),
        "only_second": int(only_second.sum()),
        "both_wrong": int(both_wrong.sum()),
        "both_wrong_alike": int((both_wrong & (predicted == predicted2)).sum()),
        "difference": 100 * (int(right.sum()) - int(right2.sum())) / len(labels),
        "p": mcnemar(int(only_first.sum()), int(only_second.sum())),
        "method": MCNEMAR,
        "question": MCNEMAR_QUESTION,
        "classes": [
            {
                "class": k,
                "name": facts.class_name(k),
                "images": int((labels == k).sum()),
                "only_first": int(only_first[labels == k].sum()),
                "only_second": int(only_second[labels == k].sum()),
            }
            for k in range(facts.num_classes)
        ],
        "examples": {
            "only_first": _worst(np.flatnonzero(only_first), labels, predicted2, confidence2, facts, worst),
            "only_second": _worst(np.flatnonzero(only_second), labels, predicted, confidence, facts, worst),
        },
    }


def _check_same_images(record: Record, other: Record, first: Any, second: Any) -> None:
    marks = []
    for run, spec in ((record, first), (other, second)):
        marks.append((spec["data"]["name"], spec["data"]["evaluate_on"], run.data["data_fingerprint"]))
    if marks[0] == marks[1] and marks[0][2] is not None:
        return
    shown = [
        f"run {run.run_id} on {name} ({split}), data fingerprint {fingerprint or 'unknown'}"
        for run, (name, split, fingerprint) in zip((record, other), marks, strict=True)
    ]
    raise RequestError(
        f"--against: {'; '.join(shown)}; allowed: two runs of one data set, one split and one data fingerprint"
    )


def _differences(first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = "") -> dict[str, list[Any]]:
    """{dotted path: [value there, value here]} of what two specs of one version set otherwise."""
    found: dict[str, list[Any]] = {}
    for key in sorted({*first, *second}):
        a, b = first.get(key), second.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found[prefix + key] = [a, b]
    return found


def by_object_size(
    images: NDArray[np.uint8], labels: NDArray[np.int64], right: NDArray[np.bool_], bins: int = SIZE_BINS
) -> list[dict[str, Any]]:
    """Accuracy by how much of the picture the thing fills, for things before an even background.

    images is [N, H, W] or [N, H, W, C]. The size is the share of pixels that differ by more than 25 of 255 from the
    median of the picture's border. The bins are fifths of each class by size, so that each holds the classes in equal
    shares: small things are compared with large ones of the same kind. `size` is the mean share of a bin, in percent.
    """
    grey = images if images.ndim == 3 else images.mean(axis=3)
    border = np.concatenate([grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]], axis=1)
    background = np.median(border, axis=1)[:, None, None]
    size = (np.abs(grey - background) > 25).mean(axis=(1, 2))
    place = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        place[members[np.argsort(size[members], kind="stable")]] = np.arange(len(members)) * bins // len(members)
    lines = []
    for i in range(bins):
        inside = place == i
        mean = 100 * float(size[inside].mean()) if inside.any() else None
        lines.append({"fifth": i + 1, "size": mean, **accuracy(right[inside])})
    return lines


def describe(result: Mapping[str, Any]) -> str:
    """The text summary of `summary` and of what the command added to it."""
    lines = [
        f"run {result['run_id']} ({result['model']}, seed {result['seed']}) on {result['dataset']} "
        f"({result['split']}, {result['images']:,} images)",
        "",
        f"Right            {result['correct']:,} of {result['images']:,}: {share(result)}",
        "",
    ]
    shown = sorted(result["classes"], key=lambda c: (c["accuracy"] is None, c["accuracy"] or 0))
    lines += ["Class by class" if len(shown) <= 20 else "The 20 worst classes"]
    width = max(len(c["name"]) for c in shown)
    lines += [f"  {c['name']:<{width}}  {share(c)} of {c['images']:,}" for c in shown[:20]]
    lines += ["", "Most often mistaken" if result["pairs"] else "No mistakes"]
    lines += [
        f"  {pair['label_name']} taken for {pair['predicted_name']}: {pair['count']:,} of {pair['of']:,} "
        f"({pair['share']:.1f}%)"
        for pair in result["pairs"]
    ]
    found = result["calibration"]
    chance = found["ece_if_calibrated"]
    lines += [
        "",
        f"Calibration      mean confidence {found['mean_confidence']:.2f}%, right {result['accuracy']:.2f}%; "
        f"ECE {found['ece']:.2f} points ({BINS} bins)",
        f"                 confidences that are exact would show {chance['mean']:.2f}, in 95 of 100 cases at most "
        f"{chance['q95']:.2f}",
    ]
    if found["trained_with"]:
        lines += [f"                 trained with {' and '.join(found['trained_with'])}, which lowers confidence"]
    if result.get("object_size"):
        lines += ["", "By object size (fifths of each class; share of the picture it fills)"]
        lines += [f"  {c['fifth']}  {c['size']:5.1f}% filled  {share(c)}" for c in result["object_size"]]
    if result.get("against"):
        lines += ["", *_describe_comparison(result["against"])]
    for name, probe in result.get("probes", {}).items():
        lines += ["", *_describe_probe(name, probe)]
    if checked := result.get("weights"):
        lines += [
            "",
            f"Weights          {checked['predictions_repeated']:,} of {checked['images']:,} predictions repeated; "
            f"a confidence differs by at most {checked['largest_confidence_difference']:.2g} points",
        ]
    if result.get("gradcam"):
        size = " x ".join(map(str, result["gradcam"]["map"]))
        lines += [f"Grad-CAM         of {result['gradcam']['layer']}, {size} positions"]
    lines += ["", "Intervals: 95% Wilson, over the images; another seed is another model."]
    return "\n".join(lines) + "\n"


def share(line: Mapping[str, Any]) -> str:
    """`87.31% [86.64, 87.95]`."""
    if line["accuracy"] is None:
        return "no images"
    return f"{line['accuracy']:.2f}% [{line['ci95'][0]:.2f}, {line['ci95'][1]:.2f}]"


def _describe_comparison(found: Mapping[str, Any]) -> list[str]:
    second = found["second"]
    differ = "; ".join(f"{path} {_short(a)} / {_short(b)}" for path, (a, b) in found["differ_in"].items())
    lines = [
        f"Against run {second['run_id']} ({second['model']}, seed {second['seed']}): {share(second)}",
        f"  they differ in {differ}",
        f"  both right {found['both_right']:,}, both wrong {found['both_wrong']:,} "
        f"(alike {found['both_wrong_alike']:,}), only the first right {found['only_first']:,}, "
        f"only the second right {found['only_second']:,}",
    ]
    if found["p"] is None:
        return [*lines, "  no image that only one of them gets right: nothing to test"]
    return [
        *lines,
        f"  difference {found['difference']:+.2f} points, p = {found['p']:.3g} ({found['method']})",
        f"  the test asks {found['question']}",
    ]


def _short(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return str(value[0]) if len(set(map(str, value))) == 1 else "[" + ", ".join(map(str, value)) + "]"
    return "none" if value is None else str(value)


def _describe_probe(name: str, probe: Mapping[str, Any]) -> list[str]:
    lines = [f"Probe {name}: {probe['about']}"]
    for number, run in enumerate(probe["runs"]):
        lines += [f"  run {run['run_id']} ({run['model']}, seed {run['seed']})"]
        for point, paired in zip(run["points"], probe["against"] or [None] * len(run["points"]), strict=True):
            text = f"    {point['severity']:>6g}  {share(point)}"
            if number and paired:
                text += f"  only the first right {paired['only_first']:,}, only this one {paired['only_second']:,}"
                text += "" if paired["p"] is None else f", p = {paired['p']:.3g}"
            lines += [text]
    if probe["against"]:
        lines += [f"  p: {probe['method']}; as above, of these two trained models"]
    return lines
