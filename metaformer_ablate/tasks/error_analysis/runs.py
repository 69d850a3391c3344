"""Two runs beside each other: what they are called, whether they saw the same images, in what they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from metaformer_ablate.data.datasets import DatasetInfo, data_name, facts_of
from metaformer_ablate.errors import RequestError
from metaformer_ablate.tasks.base import RecordedRun


def model_name(spec: Mapping[str, Any]) -> str:
    """What to call a run's model in a figure: its comparator or class, or its token mixer or mixers."""
    model = spec["model"]
    if name := model["timm"] or model["comparator"] or model.get("class", "").partition("@")[0]:
        return name
    mixers = model["token_mixer"]
    return mixers[0] if len(set(mixers)) == 1 else ", ".join(mixers)


def facts_of_run(run: RecordedRun) -> DatasetInfo:
    """The facts of a run's data set, with the names of the classes that its record holds, if it does."""
    facts, names = facts_of(run.spec()["data"]), run.data.get("classes") or ()
    return replace(facts, classes=tuple(names)) if len(names) == facts.num_classes else facts


def called(which: Mapping[str, Any]) -> str:
    """What to call a run, of `about_run` or `side_of`: its row and seed, or its model where no row is known of it."""
    if "name" in which:
        return f"{which['name']} (run {which['run_id']})"
    return f"run {which['run_id']} ({which['model']}, seed {which['seed']})"


def briefly(which: Mapping[str, Any]) -> str:
    """The same for a legend, where the run's id takes too much room."""
    return which.get("name") or called(which)


def check_same_data(runs: Sequence[RecordedRun], specs: Sequence[Mapping[str, Any]]) -> None:
    """Raises RequestError unless both runs are of one data set, one split and one data fingerprint."""
    data = [
        (data_name(spec["data"]), spec["data"]["evaluate_on"], run.data["data_fingerprint"])
        for run, spec in zip(runs, specs, strict=True)
    ]
    if data[0] == data[1] and data[0][2] is not None:
        return
    shown = [
        f"run {run.run_id} on {name} ({split}), data fingerprint {fingerprint or 'unknown'}"
        for run, (name, split, fingerprint) in zip(runs, data, strict=True)
    ]
    raise RequestError(
        f"--against: {'; '.join(shown)}; allowed: two runs of one data set, one split and one data fingerprint"
    )


def differences(first: Mapping[str, Any], second: Mapping[str, Any], prefix: str = "") -> dict[str, list[Any]]:
    """{dotted path: [value there, value here]} of what two specs of one version set otherwise."""
    found: dict[str, list[Any]] = {}
    for key in sorted({*first, *second}):
        a, b = first.get(key), second.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found[prefix + key] = [a, b]
    return found


def about_run(run: RecordedRun) -> dict[str, Any]:
    """Which run it is, as errors.json says it: run_id, name (where it is known), dataset, split, data_fingerprint,
    model and seed."""
    spec = run.spec()
    return {
        "run_id": run.run_id,
        **({} if run.name is None else {"name": run.name}),
        "dataset": data_name(spec["data"]),
        "split": spec["data"]["evaluate_on"],
        "data_fingerprint": run.data["data_fingerprint"],
        "model": model_name(spec),
        "seed": spec["seed"],
    }


def side_of(run: RecordedRun) -> dict[str, Any]:
    """Which run it is, beside another one on the same images: run_id, name, model and seed."""
    return {key: value for key, value in about_run(run).items() if key in ("run_id", "name", "model", "seed")}


def check_metric(run: RecordedRun, metric: str, value: float, predictions: str) -> list[str]:
    """A warning where a metric in percent of a run's predictions, `predictions` in words, is not the recorded one."""
    recorded = run.value(metric)
    if recorded is None or abs(recorded - value) <= 0.005:
        return []
    return [
        f"run {run.run_id}: its predictions {predictions}, its record says {recorded:.2f}%: one of them is not of this "
        f"run"
    ]


def specs_of_two(run: RecordedRun, other: RecordedRun) -> tuple[dict[str, Any], dict[str, Any]]:
    """The specs of two runs. Raises RequestError for one run twice, and unless both are of the same data."""
    if run.run_id == other.run_id:
        raise RequestError(f"--against: run {run.run_id} against itself; allowed: another run")
    specs = run.spec(), other.spec()
    check_same_data((run, other), specs)
    return specs


def check_same_images(runs: Sequence[RecordedRun], same: bool, truth: str, images: Sequence[int]) -> None:
    """Raises RequestError unless the predictions of two runs are of the `same` images; `truth` is what they hold of
    so many images each: labels, masks."""
    if not same:
        raise RequestError(
            f"--against: runs {' and '.join(run.run_id for run in runs)} hold other {truth} "
            f"({' and '.join(map(str, images))} images), so they were not evaluated on the same images in the same "
            f"order"
        )


# What a test over images asks.
QUESTION = (
    "whether these two trained models differ on images like these; whether their architectures or settings differ is "
    "another question, which needs several seeds of each (ablate table)"
)
