"""Where the spread of differences comes from: by hand, and by models whose parts are known."""

from __future__ import annotations

import numpy as np
import pytest

from metaformer_ablate.statistics.power import detectable_difference
from metaformer_ablate.statistics.spread import RowRuns, variance_of_images, where_it_comes_from
from metaformer_ablate.statistics.stats import half_width, typical_std


def test_variance_of_images_by_hand() -> None:
    # Three images, two seeds. Differences 1 and 1, 0 and -1, 1 and 0: variances 0, 1/2, 1/2, in sum 1, over 9.
    row = np.array([[1, 0, 1], [1, 0, 1]], dtype=bool)
    baseline = np.array([[0, 0, 0], [0, 1, 1]], dtype=bool)
    assert variance_of_images(row, baseline) == pytest.approx(1e4 / 9)
    assert variance_of_images(row, row) == 0


def models(generator: np.random.Generator, n: int, images: int, shift: float) -> np.ndarray:
    """[n, images]: models that have a third of the images right by chance; seeds differ by a shift of these chances."""
    hard = np.arange(images) < images // 3
    chance = 0.5 + shift * generator.normal(size=(n, 1))
    return np.where(hard, generator.random((n, images)) < chance, True)


def test_the_parts_are_those_of_the_models() -> None:
    """Two models of 600 images: the images' part is 2 / 3 / 4 / 600, the rest twice the square of a third of 0.02."""
    generator = np.random.default_rng(0)
    images, shift, n = 600, 0.02, 5
    of_images, of_seeds = 1e4 * 2 / 3 / 4 / images, 1e4 * 2 * (shift / 3) ** 2
    found, total = [], []
    for _ in range(400):
        row, baseline = (models(generator, n, images, shift) for _ in range(2))
        found.append(variance_of_images(row, baseline))
        total.append(np.var(100 * (row.mean(axis=1) - baseline.mean(axis=1)), ddof=1))
    assert np.mean(found) == pytest.approx(of_images, rel=0.01)
    assert np.mean(total) == pytest.approx(of_images + of_seeds, rel=0.12)


def test_shares_and_widths() -> None:
    generator = np.random.default_rng(1)
    rows = []
    for _ in range(9):
        sides = [models(generator, 5, 1200, 0.1) for _ in range(2)]
        values = [(100 * side.mean(axis=1)).tolist() for side in sides]
        halfway = [(3 * here, 3 * there) for here, there in zip(*values, strict=True)]
        rows.append(RowRuns(list(zip(*values, strict=True)), halfway, (sides[0], sides[1])))
    found = where_it_comes_from(rows, 5)
    assert found is not None
    apart = [[here - there for here, there in row.pairs] for row in rows]
    std, width = typical_std(apart), found["half_width"]
    assert std is not None
    images = np.median([variance_of_images(*row.right) for row in rows if row.right])
    assert (found["std"], found["images"], found["rows"], found["rough"]) == (std, 1200, 9, False)
    assert found["share_of_images"] == pytest.approx(images / std**2)
    assert width["now"] == pytest.approx(half_width(std, 5)) and width["halfway"] == pytest.approx(3 * width["now"])
    assert width["twice_the_seeds"] == pytest.approx(half_width(std, 10))
    assert width["endless_images"] == pytest.approx(half_width((std**2 - images) ** 0.5, 5))
    resolution = detectable_difference([row.pairs for row in rows])
    assert resolution is not None and resolution["std"] == std, "the same deviation as in the line above it"
    assert "longer training may help" in found["text"] and "1,200 test images explain" in found["text"]


def test_pairing_saves_what_seeds_share() -> None:
    pairs = [(70.0 + seed + 0.1 * (seed % 2), 70.0 + seed) for seed in range(5)]
    found = where_it_comes_from([RowRuns(pairs)], 5)
    assert found is not None and found["share_taken_by_pairing"] > 0.99
    assert found["share_of_images"] is found["images"] is found["half_width"]["endless_images"] is None
    assert "test images" not in found["text"] and found["text"].endswith("With so few seeds these parts are rough.")
    error = where_it_comes_from([RowRuns(pairs)], 5, unit="")
    assert error is not None and f"{error['half_width']['now']:.2f} now, would be" in error["text"]
    opposed = where_it_comes_from([RowRuns([(70.0 + seed, 70.0 - seed) for seed in range(5)])], 5)
    assert opposed is not None and "pairing by seed takes nothing off it" in opposed["text"]


def test_without_a_spread_there_is_nothing_to_say() -> None:
    assert where_it_comes_from([], 5) is where_it_comes_from([RowRuns([(1.0, 2.0)] * 4)], 4) is None
