"""The error analysis in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metaformer_ablate.tasks.classification.error_analysis.accuracy import share
from metaformer_ablate.tasks.classification.error_analysis.calibration import BINS
from metaformer_ablate.tasks.error_analysis.runs import called
from metaformer_ablate.tasks.error_analysis.words import SHOWN, against, confusions, opening


def describe(result: Mapping[str, Any]) -> str:
    """The text summary of `summary` and of what the command added to it."""
    lines = [
        opening(result, f"{result['images']:,} images"),
        "",
        f"Accuracy         {result['correct']:,} of {result['images']:,}: {share(result)}",
        "",
    ]
    shown = sorted(result["classes"], key=lambda c: (c["accuracy"] is None, c["accuracy"] or 0))
    lines += ["Accuracy per class" if len(shown) <= SHOWN else f"The {SHOWN} worst classes"]
    width = max(len(c["name"]) for c in shown)
    lines += [f"  {c['name']:<{width}}  {share(c)} of {c['images']:,}" for c in shown[:SHOWN]]
    lines += ["", "Most frequent confusions" if result["pairs"] else "No mistakes"]
    lines += confusions(result["pairs"])
    found = result["calibration"]
    chance = found["ece_if_calibrated"]
    lines += [
        "",
        f"Calibration      mean confidence {found['mean_confidence']:.2f}%, accuracy {result['accuracy']:.2f}%; "
        f"ECE {found['ece']:.2f} points ({BINS} bins)",
        f"                 a perfectly calibrated model would show about {chance['mean']:.2f} (95%: up to "
        f"{chance['q95']:.2f})",
    ]
    if found["trained_with"]:
        lines += [f"                 trained with {' and '.join(found['trained_with'])}, which lowers confidence"]
    if result.get("object_size"):
        how = result["object_size_method"]
        lines += [
            "",
            f"By object size (fifths of each class, by the share of the picture it fills, {how})",
        ]
        lines += [f"  {c['fifth']}  {c['size']:5.1f}% filled  {share(c)}" for c in result["object_size"]]
    elif "object_size_method" in result:
        lines += ["", f"Object size      {result['object_size_method']}"]
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
    lines += ["", "Intervals: 95% Wilson over the images, of this trained model. They say nothing about other seeds."]
    return "\n".join(lines) + "\n"


def _describe_comparison(found: Mapping[str, Any]) -> list[str]:
    lines = [
        *against(found, share(found["second"])),
        f"  both right {found['both_right']:,}, both wrong {found['both_wrong']:,} "
        f"(with the same class {found['both_wrong_alike']:,}), only the first right {found['only_first']:,}, "
        f"only the second right {found['only_second']:,}",
    ]
    if found["p"] is None:
        return [*lines, "  no image where only one of them is right: nothing to test"]
    return [
        *lines,
        f"  difference {found['difference']:+.2f} points, p = {found['p']:.3g} ({found['method']})",
        f"  the test asks {found['question']}",
    ]


def _describe_probe(name: str, probe: Mapping[str, Any]) -> list[str]:
    few = (
        "" if probe["images"] == probe["of"] else f" (on {probe['images']:,} of {probe['of']:,} images, evenly spaced)"
    )
    lines = [f"Probe {name}: {probe['about']}{few}"]
    for number, run in enumerate(probe["runs"]):
        lines += [f"  {called(run)}"]
        for point, paired in zip(run["points"], probe["against"] or [None] * len(run["points"]), strict=True):
            text = f"    {point['severity']:>6g}  {share(point)}"
            if number and paired:
                text += f"  only the first right {paired['only_first']:,}, only this one {paired['only_second']:,}"
                text += "" if paired["p"] is None else f", p = {paired['p']:.3g}"
            lines += [text]
    if probe["against"]:
        lines += [f"  p: {probe['method']}; about these two trained models"]
    return lines
