"""Whether trained models differ on the images that they were evaluated on: exact tests over images.

They speak of these models; whether the rows would differ if trained again is a question to their seeds (`stats.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

SMALLEST_P = 1e-13  # of the sign-flip test: its rounding errors are of some 1e-14


FLOOR_P = 1e-11  # no corrected p of an exact test is told below this: SMALLEST_P over a hundred comparisons


MCNEMAR = "exact McNemar test on the images that one model of the pair has right and the other wrong, uncorrected"


SCORES = "exact sign-flip test over images of the differences of one pair of models, to a tenth of a point, uncorrected"


SCORES_SUMMED = (
    "exact sign-flip test over images of the differences summed over seeds, to a tenth of a point, Holm over the rows"
)


SIGN_FLIP = "exact sign-flip test over images of the counts summed over seeds (McNemar's for one), Holm over the rows"


@dataclass(frozen=True)
class ImageTest:
    """Two trained models a seed on the same images.

    `seeds` has, for each seed, `gained` (images that the row's model has right and the baseline's wrong), `lost` (the
    reverse) and McNemar's `p`, uncorrected. `p` is of all seeds together, uncorrected too.
    """

    seeds: tuple[dict[str, Any], ...]
    images: int
    p: float


def mcnemar(gained: int, lost: int) -> float | None:
    """Two-sided exact p of McNemar's test (1947): the discordant images as throws of a fair coin. None of none."""
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5))) if gained + lost else None


def compare_on_images(row: Mapping[int, np.ndarray], baseline: Mapping[int, np.ndarray]) -> ImageTest:
    """Compares what models have right: a boolean array [images] for each seed, with the same seeds in both.

    The models of all seeds see the same images, so their tests depend on one another and their p may not be combined
    as if they did not (Fisher, Stouffer). The image is the unit instead: d is the number of seeds whose row model has
    it right minus the number whose baseline model has, and the test flips the signs of all d. This is Durkalski's
    McNemar test for clustered pairs (2003), done exactly; with one seed it is McNemar's exact test.
    """
    import numpy as np

    counts = []
    for seed in row:
        gained = int(np.sum(row[seed] & ~baseline[seed]))
        lost = int(np.sum(baseline[seed] & ~row[seed]))
        counts.append({"seed": seed, "gained": gained, "lost": lost, "p": mcnemar(gained, lost)})
    d = np.sum([row[seed].astype(np.int64) - baseline[seed] for seed in row], axis=0)
    return ImageTest(tuple(counts), len(d), _sign_flip(d))


def compare_scores_on_images(row: Mapping[int, np.ndarray], baseline: Mapping[int, np.ndarray]) -> ImageTest:
    """`compare_on_images` of scores in percent [images], such as the IoU of each image.

    `gained` and `lost` count the images on which the row's model has the higher or the lower score, and `p` of a seed
    is of its differences.
    """
    import numpy as np

    gaps = {seed: row[seed] - baseline[seed] for seed in row}
    counts = tuple(
        {"seed": seed, "gained": int((gap > 0).sum()), "lost": int((gap < 0).sum()), "p": score_signs(gap)}
        for seed, gap in gaps.items()
    )
    total = np.sum(list(gaps.values()), axis=0)
    p = score_signs(total)
    return ImageTest(counts, len(total), 1.0 if p is None else p)


def score_signs(gaps: np.ndarray) -> float | None:
    """Two-sided p of the sign-flip test of differences of scores in percent [images], each taken to a tenth of a point;
    None where all are the same."""
    import numpy as np

    tenths = np.rint(10 * np.asarray(gaps)).astype(np.int64)
    return _sign_flip(tenths) if tenths.any() else None


def _sign_flip(d: np.ndarray) -> float:
    """P(|sum of d with random signs| >= |sum of d|), to six digits and not below SMALLEST_P.

    The sum is a whole number, so its distribution is the transform of its characteristic function, the product of
    cos(t d). It is exact but for rounding, and for the tails beyond ten standard deviations (4e-22 by Hoeffding).
    """
    import numpy as np
    from scipy.special import bdtr

    sizes, counts = np.unique(np.abs(d[d != 0]), return_counts=True)
    total = abs(int(d.sum()))
    if total == 0:
        return 1.0
    if len(sizes) == 1:  # a binomial
        m, size = int(counts[0]), int(sizes[0])
        return min(1.0, 2 * float(bdtr((m - total // size) // 2, m, 0.5)))
    reach = 10 * math.sqrt(float(np.sum(d**2)))
    if total > reach:
        return SMALLEST_P
    length = 2 * math.ceil(reach) + 2
    angle = 2 * math.pi / length * np.arange(length // 2 + 1)
    transform = np.ones(len(angle))
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        transform *= np.cos(size * angle) ** count
    distribution = np.fft.irfft(transform, length)
    p = 2 * float(distribution[total : length // 2 + 1].sum())
    # The last bits of a cosine depend on the processor; six digits do not.
    return float(f"{min(1.0, max(SMALLEST_P, p)):.6g}")
