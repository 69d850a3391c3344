"""The error analysis in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metaformer_ablate.tasks.error_analysis.words import SHOWN, against, confusions, opening, percent, percents

LABELS = {
    "box_ap": "Box AP",
    "box_ap50": "Box AP50",
    "box_ap75": "Box AP75",
    "mask_ap": "Mask AP",
    "mask_ap50": "Mask AP50",
    "mask_ap75": "Mask AP75",
}


def describe(result: Mapping[str, Any]) -> str:
    """The text summary of `summary` and of what the command added to it."""
    metrics = result["metrics"]
    lines = [
        opening(result, f"{result['images']:,} images, {result['truths']:,} objects"),
        "",
        *(f"{label:<16} {metrics[name]:.2f}%" for name, label in LABELS.items() if name in metrics),
        "",
        f"At scores from {result['score']:.2f} on, where F1 is highest, {result['found']:,} of {result['truths']:,} "
        f"objects are found ({percent(result['recall']).strip()}), and of {result['detections']:,} detections "
        f"{result['false']:,} are wrong",
        *(f"  {line['count']:>7,}  {line['kind']}" for line in result["kinds"]),
        "",
    ]
    shown = sorted((c for c in result["classes"] if c["box_ap"] is not None), key=lambda c: c["box_ap"])
    lines += ["Per class: AP, AP50, recall, precision" if len(shown) <= SHOWN else f"The {SHOWN} worst classes"]
    width = max(len(c["name"]) for c in result["classes"])
    for c in shown[:SHOWN]:
        shares = percents(c, ("box_ap", "box_ap50", "recall", "precision"))
        lines.append(f"  {c['name']:<{width}}  {shares}  {c['truths']:,} objects")
    lines += ["", "Most frequent confusions" if result["pairs"] else "No confusions"]
    lines += confusions(result["pairs"])
    lines += ["", "By size: AP, recall, side of the predicted boxes in percent of the true ones"]
    for line in result["sizes"]:
        shares = percents(line, ("box_ap", "recall", "size"))
        lines.append(
            f"  {line['size_name']:<6}  {shares}  {line['truths']:,} objects, {line['drawn']:,} predicted boxes"
        )
    lines += ["", "Worst images: index, id, F1, found, wrong, missed"]
    for line in result["worst"][:10]:
        missed = ", ".join(line["missed"][:4]) + (", ..." if len(line["missed"]) > 4 else "")
        name = f"  {line['name']}" if "name" in line else ""
        of = f"{line['found']} of {line['truths']}, {line['false']} wrong"
        lines.append(f"  {line['index']:>6}  {line['image_id']:>8}  {percent(line['f1'])}  {of}  {missed or '-'}{name}")
    if result.get("against"):
        lines += ["", *_describe_comparison(result["against"])]
    if checked := result.get("weights"):
        lines += ["", f"Weights          {checked['repeated']:,} of {checked['detections']:,} detections repeated"]
    lines += [
        "",
        "In its place: an IoU of at least 0.5; over something: at least 0.1 (the kinds of mistakes of TIDE).",
        "This is about one trained model and says nothing about other seeds.",
    ]
    return "\n".join(lines) + "\n"


def _describe_comparison(found: Mapping[str, Any]) -> list[str]:
    value = f"box AP {found['second']['box_ap']:.2f}%, a difference of {found['difference']:+.2f} points"
    return [
        *against(found, value),
        f"  both find {found['both']:,} objects, only the first {found['only_first']:,}, only the second "
        f"{found['only_second']:,}, neither {found['neither']:,}",
        f"  {found['test']}",
    ]
