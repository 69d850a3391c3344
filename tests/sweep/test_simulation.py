"""How often the statistics are right, by simulation. Slow; docs/error_rates.md quotes what `-s` prints."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from metaformer_ablate.statistics.images import compare_on_images, mcnemar
from metaformer_ablate.statistics.stats import bootstrap_interval, holm, paired_difference, summarise

pytestmark = pytest.mark.slow

TABLES = 10_000
ROWS = 17  # beside the baseline: those of table 5
TOP1 = 77.0
SEED_DEVIATION, RUN_DEVIATION = 0.2, 0.3  # points: what all rows of a seed share, and what a run has of its own
IMAGES = 10_000


def equal_rows(n: int, noise: str, generator: np.random.Generator) -> np.ndarray:
    """Top-1 of a table whose rows are all equal, [1 + ROWS, n] in percent, in steps of one image."""
    shape = (1 + ROWS, n)
    if noise == "normal":
        own = generator.normal(size=shape)
    else:  # now and then a run ends much lower: an exponential tail downwards
        own = 1 - generator.exponential(size=shape)
    top1 = TOP1 + SEED_DEVIATION * generator.normal(size=n) + RUN_DEVIATION * own
    return np.round(top1 * IMAGES / 100) * 100 / IMAGES


@pytest.mark.parametrize("noise", ["normal", pytest.param("skewed", marks=pytest.mark.fuzz)])
@pytest.mark.parametrize("n", [3, 5, 10])
def test_intervals_cover_and_tables_raise_no_false_alarm(n: int, noise: str) -> None:
    generator = np.random.default_rng([n, len(noise)])
    means = differences = alarms = uncorrected = boots = tested = 0
    for _ in range(TABLES):
        baseline, *rows = equal_rows(n, noise, generator).tolist()
        interval = summarise(baseline).ci95
        means += interval is not None and interval[0] <= TOP1 <= interval[1]
        found = [paired_difference(row, baseline) for row in rows]
        known = [d.ci95 for d in found if d.ci95 is not None]
        tested += len(known)
        differences += sum(low <= 0 <= high for low, high in known)
        alarms += any(p is not None and p < 0.05 for p in holm([d.p for d in found]))
        uncorrected += any(d.p is not None and d.p < 0.05 for d in found)
        if n == 10:
            boot = bootstrap_interval(baseline)
            assert boot is not None
            boots += boot[0] <= TOP1 <= boot[1]
    mean, difference, alarm = means / TABLES, differences / tested, alarms / TABLES
    print(
        f"\n{noise} noise, {n} seeds: interval of the mean covers {mean:.1%}, of the difference {difference:.1%}; "
        f"tables with a false alarm {alarm:.1%} after Holm, {uncorrected / TABLES:.1%} without"
        + (f"; bootstrap of the mean covers {boots / TABLES:.1%}" if n == 10 else "")
    )
    assert alarm < 0.05
    assert difference == pytest.approx(0.95, abs=0.01) or (noise == "skewed" and difference > 0.94)
    if noise == "normal":
        assert mean == pytest.approx(0.95, abs=0.01)
        assert uncorrected / TABLES > 0.2, "the correction is needed"
    if n == 10:
        assert boots / TABLES < mean, "why t is the interval of the table"


@pytest.mark.parametrize("n", [1, 3, 5])
def test_models_that_are_equal_on_average_over_images(n: int) -> None:
    """Each architecture is better on a tenth of the images, and all in all they are equal: the seeds of a row agree."""
    generator = np.random.default_rng(n)
    images, trials = 2_000, 2_000
    alarms = combined = 0
    for _ in range(trials):
        contested = generator.choice([-0.45, 0, 0.45], images, p=[0.1, 0.8, 0.1])
        share = np.where(contested == 0, 0.98, 0.5)  # of the models of either architecture that have an image right
        row = {seed: generator.random(images) < share + contested for seed in range(n)}
        baseline = {seed: generator.random(images) < share - contested for seed in range(n)}
        test = compare_on_images(row, baseline)
        alarms += test.p < 0.05
        each = [mcnemar(seed["gained"], seed["lost"]) for seed in test.seeds]
        combined += scipy.stats.combine_pvalues(each, "fisher").pvalue < 0.05
    print(
        f"\n{n} seeds: false alarms over images {alarms / trials:.1%}, by Fisher's combination {combined / trials:.1%}"
    )
    assert alarms / trials < 0.065, "5% and three standard errors"
    assert n == 1 or combined > 1.5 * alarms, "why the tests of the seeds are not combined as if independent"
