"""Hypotheses that were written down before the runs, and what the runs say of each.

`a < b` and `a > b` are of two rows' means and tested by the paired t test, two-sided: the hypothesis is held where the
difference has its sign, contradicted where it has the other one. `a = b within m` is tested by two one-sided t tests.
All p are corrected by Holm over every hypothesis of two rows that was registered, those that cannot be tested yet too,
so the chance that any of them is called held or contradicted wrongly is at most 5%. `kendall >= 0.6`, `spearman >= 0.6`
and `clear_pairs >= 85%` are of the agreement with the paper and no tests: the figure is reached or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from metaformer_ablate.errors import RequestError, shown, unknown
from metaformer_ablate.statistics.effects import equivalence
from metaformer_ablate.statistics.stats import LEVEL, holm, paired_difference

MEASURES = ("kendall", "spearman", "clear_pairs")

ALLOWED = "'a < b', 'a > b', 'a = b within 0.5' (rows), 'kendall >= 0.6', 'spearman >= 0.6', 'clear_pairs >= 85%'"

_NUMBER = r"(-?[0-9]*\.?[0-9]+)"

HELD, CONTRADICTED, NOT_SHOWN, NOT_HELD, OPEN, UNTESTABLE = (
    "held",
    "contradicted",
    "not shown",
    "not held",
    "open",
    "not testable",
)


@dataclass(frozen=True)
class Hypothesis:
    """A statement of two rows (`sign` <, > or =, `bound` the margin of =) or of a measure (`sign` >=)."""

    text: str
    left: str
    sign: str
    right: str | None
    bound: float | None

    @property
    def rows(self) -> tuple[str, ...]:
        """The rows that it is of; none where it is of all."""
        return () if self.right is None else (self.left, self.right)


@dataclass(frozen=True)
class Verdict:
    """What the runs say of a hypothesis. Of two rows `mean` is left minus right over `n` pairs, with its interval (95%;
    of = the 90% one that goes with the test) and p corrected and not; of a measure `value` is the figure."""

    text: str
    verdict: str
    n: int = 0
    mean: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    p_uncorrected: float | None = None
    value: float | None = None
    why: str | None = None


def read_hypothesis(text: str, rows: Sequence[str]) -> Hypothesis:
    """A hypothesis from its words. Raises RequestError for another form and for a row that there is not."""
    words = " ".join(text.split())
    about = f"--expect {shown(text)}"
    if found := re.fullmatch(rf"([a-z_]+) >= {_NUMBER}(%?)", words):
        name, bound = found[1], float(found[2]) / (100 if found[3] else 1)
        if name not in MEASURES:
            raise RequestError(f"{about}: {unknown('figure of agreement', name, MEASURES)}")
        if not 0 <= bound <= 1:
            raise RequestError(f"{about}: allowed: a figure from 0 to 1, or from 0% to 100%")
        return Hypothesis(words, name, ">=", None, bound)
    found = re.fullmatch(rf"(\S+) ([<>]|=) (\S+)(?: within {_NUMBER})?", words)
    if found is None or (found[2] == "=") != (found[4] is not None):
        raise RequestError(f"{about}; allowed: {ALLOWED}")
    for name in (found[1], found[3]):
        if name not in rows:
            raise RequestError(f"{about}: {unknown('row', name, rows)}")
    if found[1] == found[3]:
        raise RequestError(f"{about} is of one row; allowed: two different rows")
    margin = None if found[4] is None else float(found[4])
    if margin is not None and margin <= 0:
        raise RequestError(f"{about}: allowed: a margin above 0")
    return Hypothesis(words, found[1], found[2], found[3], margin)


def judge(
    hypotheses: Sequence[Hypothesis],
    values: Mapping[str, Mapping[int, float]],
    unfinished: Iterable[str] = (),
    diverged: Iterable[str] = (),
    measures: Mapping[str, float | None] | None = None,
    first: int | None = None,
) -> list[Verdict]:
    """A verdict on each hypothesis. `values` has the metric by row and seed.

    Rows in `unfinished` lack runs, so hypotheses of them, and all measures, are open; rows in `diverged` have a run
    that diverged, and what is left of them is a choice of the fortunate: measures are without them and say so. `first`
    as of `paired_difference`.
    """
    unfinished, diverged = set(unfinished), set(diverged)
    found = []
    for each in hypotheses:
        rows = each.rows
        if lacking := [row for row in unfinished if not rows or row in rows]:
            found.append(Verdict(each.text, OPEN, why=f"runs are left of {', '.join(sorted(lacking))}"))
        elif gone := [row for row in rows if row in diverged]:
            found.append(Verdict(each.text, UNTESTABLE, why=f"a run diverged of {' and '.join(gone)}"))
        elif rows:
            found.append(_tested(each, values, first))
        else:
            found.append(_measured(each, (measures or {}).get(each.left), sorted(diverged)))
    of_rows = [i for i, each in enumerate(hypotheses) if each.rows]
    known = [found[i].p_uncorrected for i in of_rows]
    corrected = holm([1.0 if p is None else p for p in known])
    for i, p, before in zip(of_rows, corrected, known, strict=True):
        if before is not None and p is not None:
            found[i] = _decided(hypotheses[i], found[i], p)
    return found


def _tested(hypothesis: Hypothesis, values: Mapping[str, Mapping[int, float]], first: int | None) -> Verdict:
    """The test of a hypothesis of two rows, p not corrected yet."""
    left, right = (values.get(row, {}) for row in hypothesis.rows)
    common = [seed for seed in left if seed in right]
    if not common:
        return Verdict(hypothesis.text, NOT_SHOWN, why="no seed that both rows have")
    sides = [[side[seed] for seed in common] for side in (left, right)]
    difference = paired_difference(sides[0], sides[1], first)
    p, interval = difference.p, difference.ci95
    if hypothesis.bound is not None:
        test = equivalence([a - b for a, b in zip(*sides, strict=True)], hypothesis.bound, first)
        p, interval = (test.p, test.ci90) if test else (None, None)
    why = None if p is not None else "one pair, or pairs that do not differ: no spread"
    return Verdict(hypothesis.text, NOT_SHOWN, len(common), difference.mean, interval, p_uncorrected=p, why=why)


def _decided(hypothesis: Hypothesis, found: Verdict, p: float) -> Verdict:
    assert found.mean is not None, "a p is of pairs"
    verdict = NOT_SHOWN
    if p < LEVEL:
        verdict = HELD
        if hypothesis.sign in "<>" and (found.mean > 0) != (hypothesis.sign == ">"):
            verdict = CONTRADICTED
    return Verdict(found.text, verdict, found.n, found.mean, found.interval, p, found.p_uncorrected)


def _measured(hypothesis: Hypothesis, value: float | None, diverged: Sequence[str]) -> Verdict:
    without = f"without {' and '.join(diverged)}: a run diverged" if diverged else None
    if value is None:
        why = "too few rows with a number of the paper, or all tied"
        return Verdict(hypothesis.text, UNTESTABLE, why=f"{why}; {without}" if without else why)
    assert hypothesis.bound is not None, "it is a figure that is to be reached"
    return Verdict(hypothesis.text, HELD if value >= hypothesis.bound else NOT_HELD, value=value, why=without)
