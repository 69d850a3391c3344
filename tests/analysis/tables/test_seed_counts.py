"""`ablate run --until`: how many seeds each row gets, what is written, and what tables make of it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from conftest import TINY_WORDS, Result
from specs import fake_record

from metaformer_ablate.records.store import Store
from metaformer_ablate.settings.yaml_reader import parse
from metaformer_ablate.spec.experiment import load_experiment
from metaformer_ablate.spec.plan import plan

Ablate = Callable[..., Result]

EXPERIMENT = """
title: Made up
baseline: pool3
interactions: [[pool5, relu]]
rows:
  pool3: {label: Pooling 3, paper: {top1: 72.0}}
  pool5: {label: Pooling 5, set: {model.pool_size: 5}, paper: {top1: 74.0}}
  relu: {label: ReLU, set: {model.activation: relu}, paper: {top1: 76.0}}
  silu: {label: SiLU, set: {model.activation: silu}, paper: {top1: 78.0}}
"""

FILE = Path("results/until/mine.digits.yaml")
UNTIL = ["--until", "0.5", "--seeds", "4", "--max-seeds", "12"]
SPREAD = {"pool3": 0.0, "pool5": 0.2, "relu": 0.3, "silu": 2.0, "pool5+relu": 0.2}
TOPS = {
    row: np.round(90 + np.random.default_rng(i).normal(0, spread, 14), 3).tolist()
    for i, (row, spread) in enumerate(SPREAD.items())
}
TOPS["pool3"] = [90.0, 90.1] * 7


def counts(row: str) -> int:
    """By Stein's formula."""
    std = np.subtract(TOPS[row], TOPS["pool3"])[:4].std(ddof=1)
    return max(4, min(12, math.ceil((scipy.stats.t.ppf(0.975, 3) * std / 0.5) ** 2)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """More records than any row needs."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.yaml").write_text(EXPERIMENT)
    load_experiment.cache_clear()
    store = Store(tmp_path / "results")
    for row, spec in plan(str(tmp_path / "experiments" / "mine.yaml")).everything():
        for seed, value in enumerate(TOPS[row]):
            fake_record(store, spec.with_seed(seed), value)
    return tmp_path


def test_each_row_gets_the_seeds_that_its_spread_asks_for(folder: Path, ablate: Ablate) -> None:
    done = ablate("run", "mine", *UNTIL, "--json", cwd=folder)
    assert done.code == 0, done.err
    wanted = {row: counts(row) for row in ("pool5", "relu", "silu", "pool5+relu")}
    assert wanted["pool5"] < wanted["relu"] < 12 == wanted["silu"], "the test is of three kinds of rows"
    written = parse((folder / FILE).read_text(), "x")
    assert written["seeds"] == {"pool3": 12, **wanted}
    assert f"mine: more than 4 seeds for relu {wanted['relu']}, silu 12" in done.err
    (tree,) = done.json["tables"]
    rows = {row["name"]: row for row in tree["rows"]}
    assert {name: row["n"] for name, row in rows.items()} == {name: written["seeds"][name] for name in rows}
    apart = np.subtract(TOPS["relu"], TOPS["pool3"])
    error = apart[:4].std(ddof=1) / math.sqrt(wanted["relu"])
    low, high = scipy.stats.t.interval(0.95, 3, apart[: wanted["relu"]].mean(), error)
    assert rows["relu"]["delta"]["ci95"] == pytest.approx([low, high]) and (high - low) / 2 <= 0.5
    assert rows["relu"]["delta"]["method"].startswith(
        "Stein's two-stage t over common seeds, by the deviation of the first 4"
    )
    assert tree["seed_counts"]["not_reached"] == ["silu"]
    assert not tree["audit"], "fewer seeds than the baseline are as decided"


def test_the_table_says_which_rows_did_not_get_there(folder: Path, ablate: Ablate) -> None:
    ablate("run", "mine", *UNTIL, cwd=folder)
    text = " ".join(ablate("table", "mine", cwd=folder).out.split())
    assert "[95% two-stage t interval]; p: two-stage t test" in text
    assert (
        "Seeds by the spread: of the first 4 follows how many each row gets, at most 12, for half an interval" in text
    )
    assert "Not reached by: silu (" in text and "different numbers of seeds" not in text
    other = ablate("table", "mine", "--seeds", "12", "--json", cwd=folder).json
    theirs = scipy.stats.ttest_rel(TOPS["relu"][:12], TOPS["pool3"][:12])
    assert other["rows"][2]["delta"]["p_uncorrected"] == pytest.approx(theirs.pvalue)
    assert "this table has other seeds than --until 0.5 decided" in " ".join(other["warnings"])


def test_another_metric_has_the_same_test_and_no_width_of_its_own(folder: Path, ablate: Ablate) -> None:
    ablate("run", "mine", *UNTIL, cwd=folder)
    store, spec = Store(folder / "results"), plan(str(folder / "experiments" / "mine.yaml")).spec
    n = counts("relu")
    losses = {row: np.random.default_rng(len(row)).normal(1, 0.1, n).round(4) for row in ("pool3", "relu")}
    for row, values in losses.items():
        for seed, value in enumerate(values):
            metrics = {"top1": TOPS[row][seed], "top5": 100.0, "loss": float(value)}
            fake_record(store, spec(row, seed), TOPS[row][seed], metrics=metrics)
    tree = ablate("table", "mine", "--metric", "loss", "--json", cwd=folder).json
    apart = losses["relu"] - losses["pool3"]
    error = apart[:4].std(ddof=1) / math.sqrt(n)
    found = next(row for row in tree["rows"] if row["name"] == "relu")["delta"]
    assert found["ci95"] == pytest.approx(scipy.stats.t.interval(0.95, 3, apart.mean(), error))
    assert found["method"].startswith("Stein") and found["effect"]["ci95"] is None
    assert tree["seed_counts"]["not_reached"] == [] and tree["seed_counts"]["metric"] == "top1"
    text = " ".join(ablate("table", "mine", "--metric", "loss", cwd=folder).out.split())
    assert "Seeds by the spread of top-1: of the first 4" in text and "at most 0.50 points there" in text
    assert "Not reached by" not in text and "got there" not in text and "[95% two-stage t interval]" in text


def test_what_is_said_of_a_fixed_number_of_seeds_is_not_said(folder: Path, ablate: Ablate) -> None:
    """Rows have other numbers of seeds by design, and their tests fewer degrees of freedom."""
    ablate("run", "mine", *UNTIL, cwd=folder)
    words = ("table", "mine", "--power", "1", "--equivalent", "1", "--json")
    tree = ablate(*words, cwd=folder).json
    assert tree["resolution"] is tree["spread"] is None and tree["equivalent"]["least_margin"] is None
    assert not [warning for warning in tree["warnings"] if "--seeds 4 leaves them out" in warning]
    fixed = ablate(*words, "--seeds", "4", cwd=folder).json
    assert tree["power"]["seeds"] == fixed["power"]["seeds"], "by the first seeds, whose number was fixed"
    assert fixed["resolution"] is not None
    done = ablate("report", "--checklist", "runs.txt", "mine", cwd=folder)
    assert done.code == 0, done.err
    assert "with Stein's two-stage t test by the first 4 seeds" in (folder / "runs.txt").read_text()


def test_a_comparison_has_the_intervals_of_the_table(folder: Path, ablate: Ablate) -> None:
    ablate("run", "mine", *UNTIL, cwd=folder)
    theirs = ablate("table", "mine", "--json", cwd=folder).json["agreement"]
    assert ablate("compare", "digits", "paper", "mine", "--json", cwd=folder).json["agreement"] == theirs
    assert theirs["by_seed"]["seeds"] == [0, 1, 2, 3] and theirs["reversed"]
    for pair in theirs["reversed"]:
        better, worse = (TOPS[row] for row in pair["rows"])
        n = min(counts(row) for row in pair["rows"] if row != "pool3")
        apart = np.subtract(better, worse)[:n]
        error = apart[:4].std(ddof=1) / math.sqrt(n)
        assert pair["differences"][0]["ci95"] == pytest.approx(scipy.stats.t.interval(0.95, 3, apart.mean(), error))


def test_the_interaction_is_over_the_seeds_of_all(folder: Path, ablate: Ablate) -> None:
    tree = ablate("run", "mine", *UNTIL, "--json", cwd=folder).json["tables"][0]
    (found,) = tree["interactions"]
    n = min(counts(row) for row in ("pool5", "relu", "pool5+relu"))
    both, five, relu, base = (np.array(TOPS[row][:n]) for row in ("pool5+relu", "pool5", "relu", "pool3"))
    apart = both - five - relu + base
    error = apart[:4].std(ddof=1) / math.sqrt(n)
    assert found["n"] == n
    assert found["difference"]["ci95"] == pytest.approx(list(scipy.stats.t.interval(0.95, 3, apart.mean(), error)))


def test_what_was_decided_is_kept(folder: Path, ablate: Ablate) -> None:
    ablate("run", "mine", *UNTIL, cwd=folder)
    before = (folder / FILE).read_text()
    assert ablate("run", "mine", *UNTIL, cwd=folder).code == 0 and (folder / FILE).read_text() == before
    refused = ablate("run", "mine", "--until", "0.3", "--seeds", "4", "--max-seeds", "12", cwd=folder).sentence
    assert refused == (
        f"{FILE}: the seeds were decided with --until 0.5 --seeds 4 --max-seeds 12; deciding again after a look is "
        "another test, so only these are allowed"
    )
    changed = EXPERIMENT.replace("activation: relu}", "activation: squared_relu}")
    (folder / "experiments" / "mine.yaml").write_text(changed)
    load_experiment.cache_clear()
    shown = ablate("table", "mine", "--json", cwd=folder).json
    assert "the seed counts of --until are of other runs" in " ".join(shown["warnings"]) and "seed_counts" not in shown
    assert "move it aside" in ablate("run", "mine", *UNTIL, cwd=folder).sentence


def test_a_row_with_a_diverged_seed_gets_no_more(folder: Path, ablate: Ablate) -> None:
    chosen = plan(str(folder / "experiments" / "mine.yaml"))
    fake_record(Store(folder / "results"), chosen.spec("silu", 2), status="diverged")
    done = ablate("run", "mine", *UNTIL, "--json", cwd=folder)
    assert done.code == 0 and parse((folder / FILE).read_text(), "x")["seeds"]["silu"] == 4
    assert done.json["tables"][0]["seed_counts"]["not_reached"] == []


def test_a_registration_may_have_it_as_its_stopping_rule(folder: Path, ablate: Ablate) -> None:
    done = ablate("register", "mine", *UNTIL, "--expect", "relu < pool3", "--json", cwd=folder)
    assert done.code == 0, done.err
    assert done.json["stopping"]["rule"].startswith("Stein's two-stage procedure: 4 seeds of every row")
    assert len(done.json["runs"]["relu"]) == 12, "the most that there may be"
    ablate("run", "mine", *UNTIL, cwd=folder)
    tree = ablate("table", "mine", "--json", cwd=folder).json
    (verdict,) = tree["registration"]["hypotheses"]
    assert verdict["n"] == counts("relu")
    assert verdict["p_uncorrected"] == pytest.approx(tree["rows"][2]["delta"]["p_uncorrected"])
    assert tree["registration"]["other_seeds"] == []


@pytest.mark.slow
def test_runs_are_trained_for_it(folder: Path, ablate: Ablate) -> None:
    (folder / "experiments" / "two.yaml").write_text(
        "title: Two\nbaseline: a\nrows:\n  a: {label: A}\n  b: {label: B, set: {model.activation: relu}}\n"
    )
    words = ["run", "two", *TINY_WORDS, "--until", "0.01", "--seeds", "3", "--max-seeds", "4", "--workers", "0"]
    done = ablate(*words, "--json", cwd=folder)
    assert done.code == 0, done.err
    assert [row["n"] for row in done.json["tables"][0]["rows"]] == [4, 4]
    assert "two: more than 3 seeds for b 4" in done.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--until 0", "--until is 0; allowed: a half width in points, above 0 and at most 100"),
        ("--max-seeds 5", "--max-seeds 5 is for --until"),
        ("--until 0.5 --seeds 2", "--seeds is 0,1 with --until; allowed: a number of first seeds, 3 or more"),
        ("--until 0.5 --seeds 0,1,4", "--seeds is 0,1,4 with --until; allowed: a number of first seeds, 3 or more"),
        (
            "--until 0.5 --seeds 6 --max-seeds 5",
            "--max-seeds is 5; allowed: at least the 6 first seeds and at most 1000",
        ),
    ],
)
def test_what_is_refused(words: str, says: str, folder: Path, ablate: Ablate) -> None:
    assert ablate("run", "mine", *words.split(), cwd=folder).sentence == says


def test_a_dry_run_knows_what_was_decided(folder: Path, ablate: Ablate) -> None:
    words = ["run", "mine", *UNTIL]
    for row, spec in plan(str(folder / "experiments" / "mine.yaml")).everything():
        for seed in range(4 if row == "pool3" else 3, 14):
            shutil.rmtree(folder / "results" / "runs" / spec.with_seed(seed).run_id)
    before = ablate(*words, "--dry-run", "--json", cwd=folder)
    assert before.code == 0 and before.json["to_run"] == 4, "the fourth seeds of all but the baseline"
    assert "then the spread of the first 4 seeds decides which rows get more" in before.err
    store = Store(folder / "results")
    for row, spec in plan(str(folder / "experiments" / "mine.yaml")).everything():
        fake_record(store, spec.with_seed(3), TOPS[row][3])
    # One of the rows has all its seeds now: the baseline and the others lack some.
    ablate(*words, "--max-hours", "1e-9", cwd=folder)
    wanted = parse((folder / FILE).read_text(), "x")["seeds"]
    assert wanted["pool3"] == 12
    after = ablate(*words, "--dry-run", "--json", cwd=folder)
    assert after.code == 0 and after.json["to_run"] == sum(wanted.values()) - 4 * 5
    assert "decides" not in after.err
    other = [word if word != "0.5" else "0.4" for word in words]
    assert "deciding again after a look is another test" in ablate(*other, "--dry-run", cwd=folder).sentence
