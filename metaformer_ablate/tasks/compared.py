"""Two runs beside each other: what they are called, whether they saw the same images, in what they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metaformer_ablate.errors import RequestError
from metaformer_ablate.tasks.base import RecordedRun


def model_name(spec: Mapping[str, Any]) -> str:
    """What to call a run's model in a figure: its comparator, or its token mixer or mixers."""
    model = spec["model"]
    if name := model["timm"] or model["comparator"]:
        return name
    mixers = model["token_mixer"]
    return mixers[0] if len(set(mixers)) == 1 else ", ".join(mixers)


def check_same_data(runs: Sequence[RecordedRun], specs: Sequence[Mapping[str, Any]]) -> None:
    """Raises RequestError unless both runs are of one data set, one split and one data fingerprint."""
    data = [
        (spec["data"]["name"], spec["data"]["evaluate_on"], run.data["data_fingerprint"])
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
