"""Interactions: the combined rows are planned, run and shown in a part of their own."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from conftest import Result
from report_page import read
from specs import fake_record

from metaformer_ablate.analysis.report.collect import collect
from metaformer_ablate.analysis.report.page import write
from metaformer_ablate.analysis.tables.render import render
from metaformer_ablate.analysis.tables.runs import list_runs, render_runs
from metaformer_ablate.analysis.tables.table import build_table
from metaformer_ablate.analysis.tables.types import Table
from metaformer_ablate.api.experiment import Experiment
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.experiment import load_experiment
from metaformer_ablate.spec.plan import Plan, plan
from metaformer_ablate.statistics.stats import holm

Ablate = Callable[..., Result]

EXPERIMENT = """
title: Made up
baseline: pool3
interactions: [[none, batch], [batch, relu]]
rows:
  pool3: {label: Pooling 3}
  none: {label: Identity, set: {model.token_mixer: identity}, under: {fashion_mnist: {train.lr: 1e-3}}}
  batch: {label: Batch norm, set: {model.norm: batch_norm}}
  relu: {label: ReLU, set: {model.activation: relu}}
  both: {label: Both, set: {model.norm: batch_norm, model.activation: relu}}
"""

TOPS = {
    "pool3": [90.0, 91.0, 92.0],
    "none": [89.0, 90.2, 90.9],
    "batch": [92.0, 93.0, 94.5],
    "relu": [90.0, 91.1, 92.0],
    "none+batch": [85.0, 86.5, 86.0],
    "both": [92.1, 93.0, 94.4],
}


@pytest.fixture
def chosen(tmp_path: Path) -> Plan:
    (tmp_path / "mine.yaml").write_text(EXPERIMENT)
    load_experiment.cache_clear()
    return plan(str(tmp_path / "mine.yaml"))


@pytest.fixture
def store(chosen: Plan, tmp_path: Path) -> Store:
    found, specs = Store(tmp_path / "results"), dict(chosen.everything())
    for name, values in TOPS.items():
        for seed, top1 in enumerate(values):
            fake_record(found, specs[name].with_seed(seed), top1)
    return found


@pytest.fixture
def table(chosen: Plan, store: Store) -> Table:
    return build_table(chosen, store, DataFolder.choose(None))


def test_a_combination_makes_both_changes(chosen: Plan) -> None:
    specs = dict(chosen.everything())
    together = specs["none+batch"].model
    assert (set(together.stages()[2]), together.norm) == ({"identity"}, "batch_norm")
    assert specs["batch+relu"].run_id == specs["both"].run_id, "a combination that is a row is its runs"
    fashion = dict(plan(chosen.experiment.source, "fashion_mnist").everything())
    assert fashion["none+batch"].train.lr == fashion["none"].train.lr == 1e-3 != fashion["batch"].train.lr


def test_numbers_are_those_of_four_rows_paired_by_seed(table: Table) -> None:
    found = {each["name"]: each for each in table.to_json()["interactions"]}
    assert list(found) == ["none+batch", "batch+relu"]
    p = []
    for name, (first, second, both) in {
        "none+batch": ("none", "batch", "none+batch"),
        "batch+relu": ("batch", "relu", "both"),
    }.items():
        base, one, other, together = (np.array(TOPS[row]) for row in ("pool3", first, second, both))
        each, theirs = found[name], scipy.stats.ttest_1samp(together - one - other + base, 0)
        assert (each["rows"], each["n"]) == ([first, second], 3)
        assert each["sum"]["mean"] == pytest.approx((one + other - 2 * base).mean())
        assert each["both"]["mean"] == pytest.approx((together - base).mean())
        assert each["difference"]["mean"] == pytest.approx((together - one - other + base).mean())
        assert each["difference"]["ci95"] == pytest.approx(tuple(theirs.confidence_interval()))
        assert each["difference"]["p_uncorrected"] == pytest.approx(theirs.pvalue)
        assert each["difference"]["comparisons"] == 2, "a family of its own"
        assert [run["value"] for run in each["runs"]] == TOPS[both]
        p.append(theirs.pvalue)
    assert [each["difference"]["p"] for each in found.values()] == pytest.approx(holm(p))
    assert found["none+batch"]["set"] == {"model.token_mixer": "identity", "model.norm": "batch_norm"}
    assert {row.delta.comparisons for row in table.rows if row.delta} == {4}, "the rows' family is as it was"
    assert [row.name for row in table.rows] == ["pool3", "none", "batch", "relu", "both"]


def test_a_sum_of_differences_is_not_cut_where_a_difference_would_be(chosen: Plan, tmp_path: Path) -> None:
    """Two changes that destroy a model: 20 and 10 of 97 points are left, and the sum is 164 points down."""
    store, specs = Store(tmp_path / "low"), dict(chosen.everything())
    tops = {"pool3": [97.0, 97.1, 97.2], "none": [20.0, 20.1, 20.3], "batch": [10.0, 10.1, 9.9]}
    for name, values in {**tops, "none+batch": [10.0, 10.2, 10.1]}.items():
        for seed, top1 in enumerate(values):
            fake_record(store, specs[name].with_seed(seed), top1)
    base, one, other = (np.array(values) for values in tops.values())
    low, high = scipy.stats.ttest_1samp(one + other - 2 * base, 0).confidence_interval()
    text = render(build_table(chosen, store, DataFolder.choose(None)), "text", width=2000)
    assert f"{(one + other - 2 * base).mean():+.2f} [{low:+.2f}, {high:+.2f}]" in text and high < -100


def test_every_format_for_people_has_a_part_for_them(table: Table) -> None:
    for style in ("text", "markdown", "html", "latex"):
        text = " ".join(render(table, style, width=2000).split())
        assert "Interactions of mine under digits" in text.replace("**", "").replace("`", "")
        assert "Identity and Batch norm" in text and "corrected by Holm over the 2 comparisons" in text
    assert "-6.37" in render(table, "text")


def test_csv_and_the_list_of_runs_have_them(table: Table) -> None:
    lines = pd.read_csv(io.StringIO(render(table, "csv"))).set_index("name")
    assert list(lines.index) == [*(row.name for row in table.rows), "none+batch", "batch+relu"]
    first, line = (table.interactions or ())[0], lines.loc["none+batch"]
    assert first.both is not None and first.sum is not None and first.difference is not None
    assert line["mean"] == pytest.approx(np.mean(TOPS["none+batch"])) and line["n"] == 3
    assert line["delta_mean"] == pytest.approx(first.both.mean)
    assert line["interaction_of"] == "none batch" and line["interaction_sum"] == pytest.approx(first.sum.mean)
    assert line["interaction_difference"] == pytest.approx(first.difference.mean)
    assert line["interaction_p"] == pytest.approx(first.difference.p)
    assert lines.loc["none", "interaction_of"] != lines.loc["none", "interaction_of"], "a row has no interaction"
    runs = [line for line in list_runs(table) if line.row == "none+batch"]
    assert [line.value for line in runs] == TOPS["none+batch"]
    assert runs[0].difference == pytest.approx(TOPS["none+batch"][0] - TOPS["pool3"][0])
    assert "none+batch: mean 85.8333 over 3 seeds" in render_runs(table, list_runs(table), "text")


def test_the_audit_looks_at_them(chosen: Plan, store: Store) -> None:
    spec = dict(chosen.everything())["none+batch"]
    fake_record(store, spec.with_seed(1), 86.5, device="another device")
    table = build_table(chosen, store, DataFolder.choose(None))
    found = [finding for finding in table.audit if finding.rows == ("none+batch",)]
    assert [finding.text.partition(":")[0] for finding in found] == ["device differs between runs of one row"]
    above, below = render(table, "text").split("Interactions of")
    assert "device differs" not in above.partition("Warning")[0] and "[1] audit: device differs" in below
    assert any("another device" in warning and "(none+batch)" in warning for warning in table.warnings)
    for seed in range(3):
        fake_record(store, spec.with_seed(seed), 86.5, device="another device")
    text = [finding.text for finding in build_table(chosen, store, DataFolder.choose(None)).audit]
    assert len(text) == 1 and text[0].startswith("device: another device; of the baseline: ")


def test_a_diverged_seed_leaves_no_interaction(chosen: Plan, store: Store) -> None:
    fake_record(store, chosen.spec("relu", 1), status="diverged")
    first, second = build_table(chosen, store, DataFolder.choose(None)).interactions or ()
    assert first.difference is not None and first.difference.comparisons == 1
    assert (second.n, second.sum, second.both, second.difference) == (0, None, None, None)
    assert second.notes == ("diverged, here or in a row of it: seed 1",)


def test_show_run_and_status_know_them(ablate: Ablate, chosen: Plan, store: Store) -> None:
    shown = ablate("show", "mine.yaml", "--seeds", "4", "--json").json
    assert shown["to_run"] == 6, "five rows and one combination that is none of them, seed 3"
    assert [each["name"] for each in shown["interactions"]] == ["none+batch", "batch+relu"]
    assert [run["status"] for run in shown["interactions"][0]["runs"]] == ["ok"] * 3 + ["missing"]
    assert "interaction of none and batch: 3 ok, 1 missing" in ablate("show", "mine.yaml", "--seeds", "4").out
    dry = ablate("run", "mine.yaml", "--seeds", "4", "--dry-run")
    assert dry.code == 0 and "mine/none+batch seed 3" in dry.out + dry.err
    assert "mine/both" in dry.out + dry.err
    assert "interactions" not in ablate("show", "pooling_size", "--json").json


def test_a_combination_that_failed_is_told_as_a_row_is(ablate: Ablate, chosen: Plan, store: Store) -> None:
    spec = dict(chosen.everything())["none+batch"]
    fake_record(store, spec.with_seed(1), status="failed")
    done = ablate("run", "mine.yaml", "--seeds", "3", "--json")
    assert done.code == 1 and done.json["to_run"] == 0
    assert {run["run_id"]: run["status"] for run in done.json["runs"]}[spec.with_seed(1).run_id] == "failed"
    assert f"failed: run {spec.with_seed(1).run_id} (mine/none+batch seed 1): it failed; log" in done.err
    with pytest.warns(UserWarning, match=r"failed: run .* \(none\+batch seed 1\)"):
        Experiment(chosen, store, DataFolder.choose(None)).run(3, progress=False)


def test_what_a_run_has_left_is_counted(ablate: Ablate, chosen: Plan, store: Store) -> None:
    done = ablate("run", "mine.yaml", "--seeds", "4", "--max-hours", "1e-9", "--json")
    assert done.code == 1 and done.json["to_run"] == 6, done.err
    assert sum(run["status"] == "missing" for run in done.json["runs"]) == 6


def test_the_report_shows_them_and_calls_no_run_a_leftover(
    chosen: Plan, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.yaml").write_text(EXPERIMENT)
    monkeypatch.chdir(tmp_path)
    load_experiment.cache_clear()
    report = collect(store, DataFolder.choose(None), ("digits",))
    assert not report.leftovers
    page = read(write(report))
    words = page.find("mine.digits").text
    assert "Identity and Batch norm" in words and "Batch norm and ReLU" in words
    ids = {node.attributes.get("id") for node in page.all()}
    assert f"run-{dict(chosen.everything())['none+batch'].run_id}" in ids


ROWS = EXPERIMENT.replace("interactions: [[none, batch], [batch, relu]]", "interactions: %s")


@pytest.mark.parametrize(
    ("pairs", "parts"),
    [
        ("[[none, bach]]", [":4: ", "interactions", "unknown row 'bach' (did you mean 'batch'?)"]),
        ("[[none]]", [":4: ", "a pair of row names"]),
        ("[none, batch]", [":4: ", "a pair of row names"]),
        ("5", [":4: ", "interactions is 5", "a list of pairs"]),
        ("[[none, none]]", [":4: ", "row 'none' with itself"]),
        ("[[none, pool3]]", [":4: ", "'pool3' is the baseline"]),
        ("[[none, batch], [batch, none]]", [":4: ", "batch and none are named twice"]),
        ("[[batch, no_norm]]", ["batch and no_norm both set model.norm, to 'batch_norm' and 'none'", "different keys"]),
        ("[[relu, both]]", ["relu and both together are the run of row 'both'"]),
        ("[[none, pool5]]", ["row 'none' with row 'pool5'", "model.pool_size is 5", "nothing reads it"]),
    ],
)
def test_what_is_refused(tmp_path: Path, pairs: str, parts: list[str]) -> None:
    more = "  no_norm: {set: {model.norm: none}}\n  pool5: {set: {model.pool_size: 5}}\n"
    (tmp_path / "mine.yaml").write_text(ROWS % pairs + more)
    load_experiment.cache_clear()
    with pytest.raises(RequestError) as error:
        plan(str(tmp_path / "mine.yaml"))
    for part in parts:
        assert part in str(error.value)


def test_its_findings_take_no_number_of_a_row(chosen: Plan, store: Store) -> None:
    spec = dict(chosen.everything())["none+batch"]
    fake_record(store, spec.with_seed(1), 86.5, device="another device")
    fake_record(store, chosen.spec("none", 1), 90.2, at_chance=True)
    text = render(build_table(chosen, store, DataFolder.choose(None)), "text")
    assert "[1] at chance: seed 1" in text and "Identity [1]" in text
