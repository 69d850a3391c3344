"""The error analysis in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metaformer_ablate.tasks.error_analysis.words import SHOWN, against, confusions, opening, percent, percents


def describe(result: Mapping[str, Any]) -> str:
    """The text summary of `summary` and of what the command added to it."""
    lines = [
        opening(result, f"{result['images']:,} images, {result['pixels']:,} pixels"),
        "",
        f"mIoU             {result['miou']:.2f}%",
        f"Pixel accuracy   {result['pixel_accuracy']:.2f}%",
        f"Mean accuracy    {result['mean_accuracy']:.2f}%",
        "",
    ]
    shown = sorted((c for c in result["classes"] if c["iou"] is not None), key=lambda c: c["iou"])
    lines += ["Per class: IoU, recall, precision, predicted size" if len(shown) <= SHOWN else f"The {SHOWN} worst"]
    width = max(len(c["name"]) for c in result["classes"])
    for c in shown[:SHOWN]:
        shares = percents(c, ("iou", "recall", "precision", "size"))
        lines.append(f"  {c['name']:<{width}}  {shares}  in {c['images']:,} images")
    lines += ["", "Most frequent confusions" if result["pairs"] else "No mistakes"]
    lines += confusions(result["pairs"], "pixels", " pixels")
    lines += ["", "By the share of its image that a class fills: IoU, recall, predicted size"]
    for line in result["areas"]:
        shares = percents(line, ("iou", "recall", "size"))
        lines.append(f"  {line['area']:<6} ({line['above']:g} to {line['to']:g}%)  {shares}  {line['count']:,} of them")
    lines += ["", "Worst images: index, mean IoU, pixel accuracy, most missed"]
    for line in result["worst"][:10]:
        name = f"  {line['name']}" if "name" in line else ""
        accuracy = percent(line["pixel_accuracy"])
        lines.append(f"  {line['index']:>6}  {line['iou']:6.2f}%  {accuracy}  {line['most_missed'] or '-'}{name}")
    if result.get("against"):
        lines += ["", *_describe_comparison(result["against"])]
    if checked := result.get("weights"):
        lines += [
            "",
            f"Weights          {checked['pixels_different']:.3g}% of the pixels of {checked['images']} images differ",
        ]
    lines += ["", "Shares of pixels, of one trained model. They say nothing about other seeds."]
    return "\n".join(lines) + "\n"


def _describe_comparison(found: Mapping[str, Any]) -> list[str]:
    lines = [
        *against(found, f"mIoU {found['second']['miou']:.2f}%"),
        f"  the first better on {found['first_better']:,} images, the second on {found['second_better']:,}; mean "
        f"IoU per image differs by {found['mean_gap']:+.2f} points",
    ]
    if found["p"] is None:
        return [*lines, "  they differ on no image: nothing to test"]
    return [*lines, f"  p = {found['p']:.3g} ({found['method']})", f"  the test asks {found['question']}"]
