"""Where the spread of paired differences comes from, and what would make it smaller: seeds, images, longer training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, variance
from typing import TYPE_CHECKING, Any

from metaformer_ablate.statistics import stats
from metaformer_ablate.statistics.power import Pairs, amount, largest_difference

if TYPE_CHECKING:
    import numpy as np


ROUGH = 20  # degrees of freedom over all rows: with fewer, parts of a spread are not compared with one another


@dataclass(frozen=True)
class RowRuns:
    """A row and the baseline over the seeds they share.

    `pairs` has the metric of both, `halfway` the same after half of the training. `right` has which of the N images
    each model has right, one boolean array [seeds, N] for the row and one for the baseline. None where not known.
    """

    pairs: Pairs
    halfway: Pairs | None = None
    right: tuple[np.ndarray, np.ndarray] | None = None


def variance_of_images(row: np.ndarray, baseline: np.ndarray) -> float:
    """The part of the variance of a paired difference over seeds, in points squared, that finitely many images explain.

    Both arrays are [seeds, N]. All seeds see the same images, so that these are N and no more adds the variance of each
    image's own difference over seeds, over N^2 in sum: what would vanish with endless images of the same kind. The rest
    is the variance of the true difference (Jordan, "Calibrated chaos", 2023, for single runs). Unbiased.
    """
    import numpy as np

    each = row.astype(np.int8) - baseline.astype(np.int8)
    return 1e4 * float(each.var(axis=0, ddof=1).sum()) / each.shape[1] ** 2


def where_it_comes_from(
    rows: Sequence[RowRuns], n: int, unit: str = "points", digits: int = 2
) -> dict[str, Any] | None:
    """The parts of the spread of the median row, and half of a paired interval now and as it would be otherwise.

    `n` is the number of pairs that most rows have. None where there is no spread.
    """
    compared = [row for row in rows if len(row.pairs) > 1]
    std = stats.typical_std([_apart(row.pairs) for row in compared])
    if std is None:
        return None
    known = [row.right for row in compared if row.right is not None]
    of_images = median(variance_of_images(*right) for right in known) if known else None
    halfway = stats.typical_std([_apart(row.halfway) for row in compared if row.halfway])
    kept = [ratio for row in compared if (ratio := _kept_by_pairing(row.pairs)) is not None]
    widths = {
        "now": stats.half_width(std, n),
        "twice_the_seeds": stats.half_width(std, 2 * n),
        "endless_images": None if of_images is None else stats.half_width(math.sqrt(max(0.0, std**2 - of_images)), n),
        "halfway": None if halfway is None else stats.half_width(halfway, n),
    }
    found = {
        "n": n,
        "rows": len(compared),
        "rough": sum(len(row.pairs) - 1 for row in compared) < ROUGH,
        "std": std,
        "images": known[0][0].shape[1] if known else None,
        "share_of_images": None if of_images is None else min(1.0, of_images / std**2),
        "share_taken_by_pairing": 1 - median(kept) if kept else None,
        "half_width": widths,
    }
    return {**found, "text": _in_words(found, unit, digits)}


def _apart(pairs: Pairs) -> list[float]:
    return [here - there for here, there in pairs]


def _kept_by_pairing(pairs: Pairs) -> float | None:
    """The variance of the differences over that of differences between runs of unlike seeds."""
    here, there = zip(*pairs, strict=True)
    unpaired = variance(here) + variance(there)
    return variance(_apart(pairs)) / unpaired if unpaired > 1e-12 else None


def _in_words(found: dict[str, Any], unit: str, digits: int) -> str:
    parts = []
    if (share := found["share_of_images"]) is not None:
        parts.append(f"the {found['images']:,} test images explain {share:.0%} of the variance")
    if (taken := found["share_taken_by_pairing"]) is not None:
        parts.append("pairing by seed takes " + (f"{taken:.0%} off it" if taken >= 0.005 else "nothing off it"))
    widths, largest = found["half_width"], largest_difference(unit)
    now = amount(widths["now"], unit, digits) if widths["now"] <= largest else f"over {amount(largest, unit)}"
    instead = {"twice_the_seeds": f"with {2 * found['n']} seeds", "endless_images": "with unlimited test images"}
    instead["halfway"] = "after half of the training"
    others = [
        f"{width:.{digits}f} {words}"
        for name, words in instead.items()
        if (width := widths[name]) is not None and width <= largest
    ]
    std = f"{found['std']:.{digits}f} in the median row"
    text = f"Where the spread comes from (standard deviation of a difference: {std}): "
    text += f"{', '.join(parts)}. " if parts else ""
    text += f"Half of the paired interval, {now} now, would be {', '.join(others)}. " if others else ""
    return text + _what_helps(found, widths)


def _what_helps(found: dict[str, Any], widths: dict[str, float | None]) -> str:
    if found["rough"]:
        return "With so few seeds these parts are rough."
    now, seeds, images, halfway = (widths[name] for name in ("now", "twice_the_seeds", "endless_images", "halfway"))
    said = []
    if images is not None and seeds is not None:
        said.append("twice the seeds help more than more images" if seeds <= images else "more images help most")
    if halfway is not None and now is not None:
        said.append("longer training may help" if halfway > 1.2 * now else "longer training shows no benefit")
    text = "; ".join(said) or "more seeds help"
    return f"{text[0].upper()}{text[1:]}."
