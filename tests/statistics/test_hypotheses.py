"""Hypotheses that were registered: how they are read, tested and corrected, and how often they are right."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from metaformer_ablate.errors import RequestError
from metaformer_ablate.statistics.agreement import RankedColumn, clear_pairs
from metaformer_ablate.statistics.hypotheses import Hypothesis, judge, read_hypothesis
from metaformer_ablate.statistics.stats import holm

ROWS = ["baseline", "identity", "pool5", "silu"]

VALUES = {
    "baseline": {0: 90.0, 1: 91.0, 2: 92.1},
    "identity": {0: 85.0, 1: 86.3, 2: 87.2},
    "pool5": {0: 90.1, 1: 90.9, 2: 92.2},
    "silu": {0: 90.2, 1: 93.0, 2: 91.9},
}


def hypotheses(*texts: str) -> list[Hypothesis]:
    return [read_hypothesis(text, ROWS) for text in texts]


def test_words_are_read() -> None:
    assert hypotheses(" identity  <  baseline ")[0] == Hypothesis(
        "identity < baseline", "identity", "<", "baseline", None
    )
    assert hypotheses("pool5 = baseline within .5")[0].bound == 0.5
    assert hypotheses("clear_pairs >= 85%")[0] == Hypothesis("clear_pairs >= 85%", "clear_pairs", ">=", None, 0.85)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("identity", "; allowed: 'a < b', 'a > b', 'a = b within 0.5' (rows)"),
        ("identity = baseline", "; allowed: 'a < b'"),
        ("identity < baseline within 1", "; allowed: 'a < b'"),
        ("identiti < baseline", "unknown row 'identiti' (did you mean 'identity'?); allowed: baseline, identity"),
        ("silu < silu", "is of one row; allowed: two different rows"),
        ("silu = pool5 within 0", "allowed: a margin above 0"),
        ("kendal >= 0.6", "unknown figure of agreement 'kendal' (did you mean 'kendall'?)"),
        ("kendall >= 60", "allowed: a figure from 0 to 1, or from 0% to 100%"),
    ],
)
def test_other_words_are_refused(text: str, says: str) -> None:
    with pytest.raises(RequestError) as error:
        read_hypothesis(text, ROWS)
    assert str(error.value).startswith(f"--expect {text!r}") and says in str(error.value)


def test_p_are_scipys_and_corrected_over_all_that_were_registered() -> None:
    found = judge(
        hypotheses("identity < baseline", "identity > pool5", "silu > baseline", "pool5 = baseline within 1"), VALUES
    )
    sides = {row: np.array(list(values.values())) for row, values in VALUES.items()}
    theirs = [
        scipy.stats.ttest_rel(sides[a], sides[b]).pvalue
        for a, b in (("identity", "baseline"), ("identity", "pool5"), ("silu", "baseline"))
    ]
    apart = sides["pool5"] - sides["baseline"]
    theirs.append(
        max(
            scipy.stats.ttest_1samp(apart, -1, alternative="greater").pvalue,
            scipy.stats.ttest_1samp(apart, 1, alternative="less").pvalue,
        )
    )
    assert [each.p_uncorrected for each in found] == pytest.approx(theirs)
    assert [each.p for each in found] == pytest.approx(holm(theirs))
    assert [each.verdict for each in found] == ["held", "contradicted", "not shown", "held"]
    assert found[0].mean == pytest.approx(-4.866666666) and found[0].n == 3
    low, high = scipy.stats.t.interval(0.9, 2, apart.mean(), scipy.stats.sem(apart))
    assert found[3].interval == pytest.approx((low, high)), "the interval that goes with two one-sided tests"


def test_what_cannot_be_tested_yet_counts_in_the_correction() -> None:
    texts = ("identity < baseline", "silu > baseline", "kendall >= 0.6")
    found = judge(hypotheses(*texts), VALUES, unfinished=["silu"], measures={"kendall": 0.9})
    assert [each.verdict for each in found] == ["held", "open", "open"]
    assert found[0].p == pytest.approx(2 * (found[0].p_uncorrected or 0)), "silu may still have the smaller p"
    found = judge(hypotheses(*texts), VALUES, diverged=["silu"], measures={"kendall": 0.6})
    assert [each.verdict for each in found] == ["held", "not testable", "held"]
    assert found[2].why == "without silu: a run diverged", "what is held is of fewer rows than were registered"
    found = judge(hypotheses("kendall >= 0.6"), VALUES, diverged=["silu", "pool5"], measures={"kendall": None})
    assert found[0].verdict == "not testable" and str(found[0].why).endswith("; without pool5 and silu: a run diverged")
    assert judge(hypotheses("kendall >= 0.61"), VALUES, measures={"kendall": 0.6})[0].verdict == "not held"
    one = {row: {0: values[0]} for row, values in VALUES.items()}
    assert [each.verdict for each in judge(hypotheses(*texts[:2]), one)] == ["not shown", "not shown"]


def test_clear_pairs() -> None:
    paper = RankedColumn("paper", {"a": 77.2, "b": 76.2, "c": 76.3, "d": 70.0, "e": 60.0})
    ours = RankedColumn("ours", {"a": 90.0, "b": 91.0, "c": 92.0, "d": 90.0, "f": 1.0})
    # Clear: a over b (1.0), and a, b, c over d; not a over c, b over c. Ours: b over a; a and d tied; b, c over d.
    assert clear_pairs(ours, paper) == (2, 4)
    assert clear_pairs(ours, RankedColumn("paper", {"a": 1.0, "b": 1.5})) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["normal", pytest.param("skewed", marks=pytest.mark.fuzz)])
@pytest.mark.parametrize("n", [3, 5, 10])
def test_a_hypothesis_is_hardly_ever_decided_wrongly(n: int, noise: str) -> None:
    """Of 8 registered: four of rows that are equal, four `within 0.5` of rows that differ by 0.5 points."""
    generator, tables = np.random.default_rng([n, len(noise)]), 3_000
    rows = ["base", *(f"equal{i}" for i in range(4)), *(f"apart{i}" for i in range(4))]
    texts = [f"equal{i} {'<>'[i % 2]} base" for i in range(4)] + [f"apart{i} = base within 0.5" for i in range(4)]
    registered = [read_hypothesis(text, rows) for text in texts]
    wrong = 0
    for _ in range(tables):
        size = (len(rows), n)
        own = generator.normal(size=size) if noise == "normal" else 1 - generator.exponential(size=size)
        top1 = 77 + 0.2 * generator.normal(size=n) + 0.3 * own
        top1[5:] += np.array([0.5, -0.5, 0.5, -0.5])[:, None]
        values = {row: dict(enumerate(np.round(line, 2).tolist())) for row, line in zip(rows, top1, strict=True)}
        wrong += any(each.verdict in ("held", "contradicted") for each in judge(registered, values))
    print(f"\n{noise} noise, {n} seeds: studies with any of 8 hypotheses decided wrongly {wrong / tables:.1%}")
    assert wrong / tables < 0.05 + 3 * (0.05 * 0.95 / tables) ** 0.5
