"""Ranks of two columns of top-1: correlations, pairs that are reversed, and which of these are more than noise."""

from __future__ import annotations

from pathlib import Path

import pytest
import scipy.stats

from metaformer_ablate.analysis.tables.ranking import measured_column, paper_column
from metaformer_ablate.analysis.tables.types import TableRow
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.status import RunState
from metaformer_ablate.statistics.agreement import RankedColumn, agreement, change_of_agreement
from metaformer_ablate.statistics.stats import holm
from metaformer_ablate.tasks.registry import get_task

TOP1 = get_task().reported

PAPER = {"a": 77.0, "b": 76.0, "c": 75.0, "d": 77.0}
# b is above a by more than noise, c above b within it; a and d are tied in the paper.
OURS = {
    "a": {0: 90.0, 1: 91.0, 2: 92.0},
    "b": {0: 91.0, 1: 92.1, 2: 92.9},
    "c": {0: 93.0, 1: 90.0, 2: 94.0},
    "d": {0: 95.0, 1: 96.0, 2: 97.2},
}


def row(name: str, runs: dict[int, float | str], paper: float | None = None) -> TableRow:
    """A row of a table, as far as ranks need it."""
    values = [value for value in runs.values() if isinstance(value, float)]
    mean = sum(values) / len(values) if values else None
    printed = {} if paper is None else {"top1": paper}
    return TableRow(TOP1, name, name, "", mean=mean, paper=printed, runs=tuple(run(*each) for each in runs.items()))


def run(seed: int, value: float | str) -> RunState:
    """A run that ended ok with a value of top-1, or in another way."""
    if isinstance(value, str):
        return RunState("0" * 12, seed, value, None)
    return RunState("0" * 12, seed, "ok", Record(Path(), {"status": "ok", "metrics": {"top1": value}}))


ROWS = [row(name, runs, PAPER[name]) for name, runs in OURS.items()]


def test_correlations_and_reversed_pairs() -> None:
    found = agreement(measured_column("digits", ROWS), paper_column(ROWS, "top1"))
    assert found is not None
    assert (found["between"], found["rows"]) == (["digits", "paper"], ["a", "b", "c", "d"])
    means = [sum(runs.values()) / 3 for runs in OURS.values()]
    tau = scipy.stats.kendalltau(means, list(PAPER.values())).statistic
    rho = scipy.stats.spearmanr(means, list(PAPER.values())).statistic
    assert (found["kendall"]["value"], found["spearman"]["value"]) == (pytest.approx(tau), pytest.approx(rho))
    assert found["kendall"]["ci95"] is None and len(found["spearman"]["ci95"]) == 2
    assert found["pairs"] == 5, "the tie of a and d is in no order"
    assert [pair["rows"] for pair in found["reversed"]] == [["a", "b"], ["a", "c"], ["b", "c"]]
    assert [pair["beyond_noise"] for pair in found["reversed"]] == [True, False, False]
    theirs = scipy.stats.ttest_rel(list(OURS["a"].values()), list(OURS["b"].values()))
    ours, paper = found["reversed"][0]["differences"]
    assert ours["mean"] == pytest.approx(-1.0)
    assert ours["ci95"] == pytest.approx(tuple(theirs.confidence_interval()))
    assert paper == {"mean": 1.0, "ci95": None, "p": None}
    pairs = [("a", "b"), ("a", "c"), ("b", "c"), ("d", "b"), ("d", "c")]
    p = [scipy.stats.ttest_rel(list(OURS[x].values()), list(OURS[y].values())).pvalue for x, y in pairs]
    corrected = dict(zip(pairs, holm(p), strict=True))
    assert ours["p"] == pytest.approx(corrected["a", "b"])
    text = " ".join(found["text"])
    assert "3 of 5 row pairs rank differently" in text and "b above a by 1.00" in text
    assert "c above" not in text
    assert corrected["a", "b"] < 0.05 and "Holm over the 5 pairs: b above a by 1.00. Of the" in text
    assert found["comparisons"] == [5, 0], "printed numbers have no p"


def test_clear_pairs_and_both_figures_of_each_seed_alone() -> None:
    found = agreement(measured_column("digits", ROWS), paper_column(ROWS, "top1"))
    assert found is not None
    # All but the tie lie a point apart in the paper; of the means, d is above b and c as there, a below both.
    assert found["clear_pairs"] == {"apart": 1.0, "pairs": 5, "in_order": 2}
    names, by_seed = list(PAPER), found["by_seed"]
    taus = [scipy.stats.kendalltau([OURS[n][s] for n in names], list(PAPER.values())).statistic for s in range(3)]
    # In the second seed a is above c, and b, too.
    shares = [2 / 5, 4 / 5, 2 / 5]
    assert by_seed["seeds"] == [0, 1, 2]
    for part, values, lowest in (("kendall", taus, -1.0), ("clear_pairs", shares, 0.0)):
        low, high = scipy.stats.ttest_1samp(values, 0.0).confidence_interval()
        assert by_seed[part]["value"] == pytest.approx(sum(values) / 3)
        cut = [max(low, lowest), min(high, 1.0)]
        assert by_seed[part]["ci95"] == (None if cut == [lowest, 1.0] else pytest.approx(cut))
    assert found["text"][-2] == "Of the 5 pairs that lie 1 point or more apart in the paper, 2 (40%) are in its order."
    assert found["text"][-1].startswith("By each of 3 seeds alone: Kendall tau-b ")
    assert "share of these pairs 53% (no interval)" in found["text"][-1], "0 to 100% says nothing"


def test_seeds_alone_are_those_that_all_rows_have() -> None:
    runs = {**OURS, "d": {0: 95.0, 2: 97.2}}
    rows = [row(name, values, PAPER[name]) for name, values in runs.items()]
    paper = paper_column(rows, "top1")
    found = agreement(measured_column("digits", rows), paper)
    assert found is not None and found["by_seed"]["seeds"] == [0, 2]
    turned = agreement(paper, measured_column("digits", rows))
    assert turned is not None and turned["by_seed"] == found["by_seed"]
    assert turned["clear_pairs"] == found["clear_pairs"]
    first = agreement(measured_column("digits", ROWS, first=2), paper)
    assert first is not None and first["by_seed"]["seeds"] == [0, 1], "the others were added for what these showed"
    single = agreement(measured_column("digits", [row(n, {0: v[0]}, PAPER[n]) for n, v in OURS.items()]), paper)
    assert single is not None and single["by_seed"] is None and single["clear_pairs"] is not None
    close = [row(name, values, 77.0 + 0.1 * i) for i, (name, values) in enumerate(OURS.items())]
    unclear = agreement(measured_column("digits", close), paper_column(close, "top1"))
    assert unclear is not None and unclear["by_seed"] is None and unclear["clear_pairs"]["pairs"] == 0
    assert not any("pairs that lie" in line for line in unclear["text"])
    both = agreement(measured_column("digits", ROWS), measured_column("cifar10", rows))
    assert both is not None and both["clear_pairs"] is None and both["by_seed"] is None


def test_how_agreement_changes_from_one_recipe_to_another() -> None:
    """Paired over the seeds that both have, against scipy; none over other rows or fewer than two seeds."""
    paper, names = paper_column(ROWS, "top1"), list(PAPER)
    longer = {"a": {0: 96.0, 1: 91.5, 2: 95.0}, "b": {0: 93.0, 1: 94.0, 2: 94.5}, "c": {0: 92.0, 1: 93.0, 2: 90.0}}
    longer["d"] = {0: 97.0, 1: 96.0, 2: 95.5, 7: 99.0}
    rows = [row(name, longer[name], PAPER[name]) for name in names]
    before = agreement(measured_column("short", ROWS), paper)
    after = agreement(measured_column("long", rows), paper)
    assert before is not None and after is not None
    found = change_of_agreement(before, after)
    assert found is not None and found["seeds"] == [0, 1, 2]
    taus = [
        [scipy.stats.kendalltau([runs[n][s] for n in names], list(PAPER.values())).statistic for s in range(3)]
        for runs in (longer, OURS)
    ]
    test = scipy.stats.ttest_rel(*taus)
    assert found["kendall"]["mean"] == pytest.approx(sum(taus[0]) / 3 - sum(taus[1]) / 3)
    assert found["kendall"]["ci95"] == pytest.approx(list(test.confidence_interval()))
    assert found["kendall"]["p"] == pytest.approx(test.pvalue)
    # All pairs but a and d are clear: 5, 3 and 5 of 5 are in order, before 2, 4 and 2.
    shares = scipy.stats.ttest_rel([1.0, 0.6, 1.0], [0.4, 0.8, 0.4])
    assert found["clear_pairs"]["mean"] == pytest.approx(1 / 3)
    assert found["clear_pairs"]["ci95"] == pytest.approx(list(shares.confidence_interval()))
    three = agreement(measured_column("long", rows[:3]), paper)
    pairs = [row(n, {0: v[0], 1: v[1]}, PAPER[n]) for n, v in longer.items()]
    two_seeds = agreement(measured_column("long", pairs), paper)
    one_seed = agreement(measured_column("long", [row(n, {2: v[2]}, PAPER[n]) for n, v in longer.items()]), paper)
    assert three is not None and two_seeds is not None and one_seed is not None
    assert change_of_agreement(before, three) is None and change_of_agreement(before, one_seed) is None
    both = change_of_agreement(before, two_seeds)
    assert both is not None and both["seeds"] == [0, 1]


def test_a_perfect_order_has_no_reversal() -> None:
    rows = [row(name, {0: 90.0 + i, 1: 90.5 + i}, 70.0 + i) for i, name in enumerate("vwxyz")]
    found = agreement(measured_column("digits", rows), paper_column(rows, "top1"))
    assert found is not None
    assert (found["kendall"], found["reversed"], found["pairs"]) == ({"value": 1.0, "ci95": None}, [], 10)


def test_below_three_rows_there_is_none() -> None:
    assert agreement(measured_column("digits", ROWS[:2]), paper_column(ROWS[:2], "top1")) is None
    assert agreement(measured_column("digits", ROWS), paper_column(ROWS[:2], "top1")) is None


def test_a_mean_of_the_fortunate_is_not_compared() -> None:
    rows = [*ROWS, row("e", {0: 99.0, 1: "diverged"}, 60.0), row("f", {0: "failed"}, 61.0), row("g", {0: "diverged"})]
    found = agreement(measured_column("digits", rows), paper_column(rows, "top1"))
    assert found is not None
    assert found["rows"] == ["a", "b", "c", "d"]
    assert found["left_out"] == [
        {"name": "e", "reason": "diverged: seed 1"},
        {"name": "f", "reason": "no run that counts"},
    ]
    assert "Not compared: e (diverged: seed 1)" in found["text"][-1]


def test_one_seed_cannot_say_what_noise_is() -> None:
    rows = [row(name, {0: runs[0]}, PAPER[name]) for name, runs in OURS.items()]
    found = agreement(measured_column("digits", rows), paper_column(rows, "top1"))
    assert found is not None
    assert {pair["beyond_noise"] for pair in found["reversed"]} == {None}
    assert "Whether that exceeds noise needs more seeds" in found["text"][1]


def test_two_measured_columns_have_to_disagree_both() -> None:
    other = RankedColumn("cifar10", {"a": 1.0, "b": 0.0, "c": -9.0}, {"a": {0: 1.0, 1: 1.2}, "b": {0: 0.0, 1: 0.1},
                                                               "c": {0: -9.0, 1: -9.0}})  # fmt: skip
    found = agreement(measured_column("digits", ROWS), other)
    assert found is not None
    beyond = {tuple(pair["rows"]): pair["beyond_noise"] for pair in found["reversed"]}
    # a and b: beyond noise in both, two seeds of 1.0 and 1.1 apart; c and b: not in ours.
    assert beyond == {("a", "b"): True, ("a", "c"): False, ("b", "c"): False}
    assert all(side["ci95"] for side in found["reversed"][0]["differences"])
    assert other.seeds is not None
    unsure = RankedColumn("cifar10", other.values, {**other.seeds, "b": {0: 0.0, 1: 1.1}})
    found = agreement(measured_column("digits", ROWS), unsure)
    assert found is not None
    assert not any(pair["beyond_noise"] for pair in found["reversed"]), "a and b are noise in the other column"


def test_orders_are_those_of_the_means_where_rows_have_other_seeds() -> None:
    """The mean of a is above that of b, over the seeds that both have it is below: not reversed, for the paper has a
    above b; and c, which is above b in the means alone, is reversed but not beyond noise."""
    runs = {
        "a": {0: 90.0, 1: 90.5, 2: 93.0, 3: 93.4},
        "b": {0: 90.5, 1: 91.1, 2: 90.0},
        "c": {0: 90.4, 1: 90.9, 2: 89.9, 3: 99.0},
    }
    printed = {"a": 78.0, "b": 77.0, "c": 76.0}
    rows = [row(name, values, printed[name]) for name, values in runs.items()]
    found = agreement(measured_column("digits", rows), paper_column(rows, "top1"))
    assert found is not None
    means = [sum(values.values()) / len(values) for values in runs.values()]
    assert found["kendall"]["value"] == pytest.approx(scipy.stats.kendalltau(means, list(printed.values())).statistic)
    (first, second) = found["reversed"]
    assert (first["rows"], second["rows"]) == (["a", "c"], ["b", "c"]) and found["pairs"] == 3
    theirs = scipy.stats.ttest_rel([90.5, 91.1, 90.0], [90.4, 90.9, 89.9])
    assert second["differences"][0]["mean"] == pytest.approx(0.4 / 3)
    assert second["differences"][0]["ci95"] == pytest.approx(list(theirs.confidence_interval()))
    assert second["differences"][0]["ci95"][0] > -0.02 and second["beyond_noise"] is False
    assert found["clear_pairs"]["in_order"] == 1 == 3 - len(found["reversed"])


def test_equal_counts_are_a_tie() -> None:
    """Three means of the same counts that differ in their last digit are no order."""
    rows = [row("x", {0: 0.1, 1: 0.2, 2: 0.3}, 3.0), row("y", {0: 0.2, 1: 0.2, 2: 0.2}, 2.0)]
    rows.append(row("z", {0: 0.0, 1: 0.0, 2: 0.0}, 1.0))
    found = agreement(measured_column("digits", rows), paper_column(rows, "top1"))
    assert found is not None
    assert found["pairs"] == 2 and found["reversed"] == []


def test_where_lower_is_better_the_better_row_stands_first() -> None:
    """The same order of rows as losses: as many reversals, told the other way round."""
    found = agreement(measured_column("digits", ROWS), paper_column(ROWS, "top1"), sign=-1)
    assert found is not None
    assert [pair["rows"] for pair in found["reversed"]] == [["b", "a"], ["c", "a"], ["c", "b"]]
    assert "a above b by 1.00" in " ".join(found["text"])
