"""Tables from made-up records: the contract's keys, what is shown of runs that are not ok, and every format."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import scipy.stats
from specs import fake_record

from metaformer_ablate.analysis.tables.render import FORMATS, render
from metaformer_ablate.analysis.tables.table import build_table
from metaformer_ablate.analysis.tables.text import text_width
from metaformer_ablate.analysis.tables.types import Table
from metaformer_ablate.cost.cost import count
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec import experiment
from metaformer_ablate.spec.plan import Plan, plan
from metaformer_ablate.statistics.stats import holm

ROW_KEYS = "name label group set params frozen_params macs uncounted n mean std ci95 delta bootstrap images".split()
ROW_KEYS += ["equivalence", "paper", "status", "notes", "runs"]
DELTA_KEYS = ["mean", "ci95", "p", "method", "p_uncorrected", "comparisons", "effect", "better"]

EXPERIMENT = """
title: Made up
baseline: pool3
rows:
  pool3: {label: Pooling 3, group: Baseline, set: {}, paper: {table: 5, top1: 77.2}}
  pool5: {label: 'Pooling "5", | wider', group: Mixers, set: {model.pool_size: 5}, paper: {top1: 77.1}}
  none: {label: Identity, group: Mixers, set: {model.token_mixer: identity}, notes: [its own note]}
"""

# Top-1 by row and seed, or a status.
Results = Mapping[str, Mapping[int, float | str]]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Table]:
    """make(results, seeds): the table of EXPERIMENT after runs that ended so."""
    (tmp_path / "made_up.yaml").write_text(EXPERIMENT)
    store = Store(tmp_path / "results")

    def table(results: Results, seeds: tuple[int, ...] | None = None, **of: Any) -> Table:
        chosen = made_up_plan(tmp_path)
        folder = DataFolder.choose(None)
        for row, runs in results.items():
            for seed, outcome in runs.items():
                ok = isinstance(outcome, float)
                options: dict[str, Any] = {"fingerprint": folder.fingerprint("digits"), **of}
                if outcome == "stale":
                    ok, options["fingerprint"] = True, "0123456789abcdef"
                number = outcome if isinstance(outcome, float) else 50.0
                fake_record(store, chosen.spec(row, seed), number, "ok" if ok else str(outcome), **options)
        return build_table(chosen, store, folder, seeds)

    return table


def made_up_plan(folder: Path, overrides: tuple[str, ...] = ()) -> Plan:
    experiment.load_experiment.cache_clear()
    return plan(str(folder / "made_up.yaml"), overrides=overrides)


def by_name(table: Table) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in table.to_json()["rows"]}


FULL: Results = {
    "pool3": {0: 97.0, 1: 96.5, 2: 97.25},
    "pool5": {0: 97.5, 1: 96.75, 2: 98.0},
    "none": {0: 95.0, 1: 95.5, 2: 94.0},
}


# ---------------------------------------------------------------------------------------------------------------------
# Numbers


def test_a_table_has_the_keys_of_the_contract(make: Callable[..., Table]) -> None:
    table = make(FULL)
    keys = ["experiment", "recipe", "task", "metric", "unit", "higher_is_better", "rows", "warnings"]
    tree = table.to_json()
    assert list(tree) == [*keys, "audit", "resolution", "spread", "agreement"]
    assert [tree[key] for key in keys[:6]] == ["made_up", "digits", "classification", "top1", "%", True]
    assert [row.name for row in table.rows] == ["pool3", "pool5", "none"], "not in the order of the file"
    for row in table.to_json()["rows"]:
        assert list(row) == ROW_KEYS
        assert row["status"] == "ok"
        assert [list(run) for run in row["runs"]] == [["run_id", "seed", "status", "top1", "value", "metrics"]] * 3
        assert all(run["top1"] == run["value"] == run["metrics"]["top1"] for run in row["runs"])
        assert [run["seed"] for run in row["runs"]] == [0, 1, 2]
        assert all(re.fullmatch("[0-9a-f]{12}", run["run_id"]) for run in row["runs"])
    rows = by_name(table)
    assert rows["pool3"]["delta"] is None
    assert list(rows["pool5"]["delta"]) == DELTA_KEYS
    assert rows["pool5"]["label"] == 'Pooling "5", | wider'
    assert rows["pool3"]["paper"] == {"table": 5, "top1": 77.2}
    assert rows["none"]["notes"] == ["its own note"]
    assert (rows["none"]["params"], rows["none"]["frozen_params"], rows["none"]["macs"]) == (119_000, 0, 18_000_000)
    assert json.loads(json.dumps(tree, allow_nan=False)) == tree


def test_its_numbers_are_those_of_scipy(make: Callable[..., Table]) -> None:
    rows = by_name(make(FULL))
    tops = {name: list(runs.values()) for name, runs in FULL.items()}
    p_values = []
    for name, values in tops.items():
        row = rows[name]
        assert row["n"] == 3
        assert row["mean"] == pytest.approx(scipy.stats.tmean(values))
        assert row["std"] == pytest.approx(scipy.stats.tstd(values))
        assert row["ci95"] == pytest.approx(
            scipy.stats.t.interval(0.95, 2, loc=scipy.stats.tmean(values), scale=scipy.stats.sem(values))
        )
        if name != "pool3":
            theirs = scipy.stats.ttest_rel(values, tops["pool3"])
            assert row["delta"]["mean"] == pytest.approx(sum(values) / 3 - sum(tops["pool3"]) / 3)
            assert row["delta"]["ci95"] == pytest.approx(tuple(theirs.confidence_interval()))
            assert row["delta"]["method"] == "paired t over common seeds, Holm over the rows"
            p_values.append(theirs.pvalue)
    assert [rows[name]["delta"]["p"] for name in ("pool5", "none")] == pytest.approx(holm(p_values))
    assert [rows[name]["delta"]["p_uncorrected"] for name in ("pool5", "none")] == pytest.approx(p_values)


def test_the_family_of_a_p_is_stated(make: Callable[..., Table]) -> None:
    """Only what was tested counts: a row of one seed has a difference and no p."""
    table = make(FULL)
    assert [row.delta.comparisons for row in table.rows if row.delta] == [2, 2]
    columns = ["row", "top1", "difference", "p"]  # of LaTeX a column of text has no room for p
    for style, shown in {"text": None, "markdown": None, "html": None, "latex": columns}.items():
        text = " ".join(render(table, style, columns=shown).split())
        assert "corrected by Holm over the 2 comparisons of this table" in text
    alone = make({"none": {0: "diverged"}})
    assert [row.delta.comparisons for row in alone.rows if row.delta] == [1]
    assert "not corrected, for it is the only comparison of this table" in render(alone, "markdown")


def test_one_seed_has_a_mean_and_no_spread(make: Callable[..., Table]) -> None:
    table = make({"pool3": {0: 97.0}, "pool5": {0: 97.5}, "none": {0: 95.0}})
    for row in table.to_json()["rows"]:
        assert (row["n"], row["std"], row["ci95"]) == (1, None, None)
    delta = by_name(table)["pool5"]["delta"]
    assert (delta["mean"], delta["ci95"], delta["p"]) == (0.5, None, None)
    assert any("one seed" in warning for warning in table.to_json()["warnings"])


def test_equal_rows_have_no_interval_and_no_winner(make: Callable[..., Table]) -> None:
    table = make({name: {0: 97.0, 1: 97.0} for name in FULL})
    for row in table.to_json()["rows"]:
        assert (row["std"], row["ci95"]) == (0.0, None)
    delta = by_name(table)["none"]["delta"]
    assert (delta["mean"], delta["ci95"]) == (0.0, None) and "undefined" in delta["method"]


def test_a_difference_is_over_the_seeds_that_both_rows_have(make: Callable[..., Table]) -> None:
    table = make({"pool3": {0: 90.0, 1: 91.0, 5: 99.0}, "pool5": {1: 91.5, 2: 10.0, 5: 99.25}})
    rows = by_name(table)
    assert rows["pool5"]["delta"]["mean"] == pytest.approx((0.5 + 0.25) / 2)
    assert rows["pool3"]["n"] == rows["pool5"]["n"] == 3
    assert [run["status"] for run in rows["pool5"]["runs"]] == ["missing", "ok", "ok", "ok"]
    assert rows["pool5"]["status"] == rows["pool3"]["status"] == "partial"
    apart = by_name(make({"none": {7: 90.0}}))["none"]
    assert apart["n"] == 1 and apart["delta"] is None, "no seed in common"


# ---------------------------------------------------------------------------------------------------------------------
# What is not ok


@pytest.mark.parametrize(
    ("runs", "status", "n", "mean"),
    [
        ({0: 97.0, 1: 96.0}, "ok", 2, 96.5),
        ({0: 97.0}, "partial", 1, 97.0),
        ({0: 97.0, 1: "failed"}, "partial", 1, 97.0),
        ({0: 97.0, 1: "diverged"}, "partial", 1, 97.0),
        ({0: 97.0, 1: "stale"}, "partial", 1, 97.0),
        ({0: "diverged", 1: "diverged"}, "diverged", 0, None),
        ({0: "failed", 1: "failed"}, "failed", 0, None),
        ({0: "stale", 1: "stale"}, "missing", 0, None),
        ({}, "missing", 0, None),
        ({0: "diverged"}, "partial", 0, None),
        ({0: "failed", 1: "diverged"}, "partial", 0, None),
    ],
)
def test_the_status_of_a_row(
    runs: dict[int, Any], status: str, n: int, mean: float | None, make: Callable[..., Table]
) -> None:
    row = by_name(make({"pool3": {0: 97.0, 1: 97.5}, "pool5": runs}, seeds=(0, 1)))["pool5"]
    assert (row["status"], row["n"], row["mean"]) == (status, n, mean)
    expected = {seed: outcome if isinstance(outcome, str) else "ok" for seed, outcome in runs.items()}
    assert [run["status"] for run in row["runs"]] == [expected.get(seed, "missing") for seed in (0, 1)]
    assert [run["top1"] for run in row["runs"]] == [
        outcome if isinstance(outcome := runs.get(seed), float) else None for seed in (0, 1)
    ]
    for name in ("diverged", "failed", "stale"):
        told = [note for note in row["notes"] if note.startswith(f"{name}: seed")]
        assert told == ([f"{name}: seed {', '.join(str(s) for s, o in runs.items() if o == name)}"] if name in
                        runs.values() else [])  # fmt: skip


def test_a_diverged_seed_leaves_no_difference(make: Callable[..., Table]) -> None:
    results = {**FULL, "pool5": {0: 97.5, 1: 96.75, 2: "diverged"}}
    rows = by_name(make(results))
    assert rows["pool5"]["status"] == "partial"
    assert rows["pool5"]["n"] == 2 and rows["pool5"]["mean"] == pytest.approx((97.5 + 96.75) / 2)
    assert rows["pool5"]["delta"] is None
    assert rows["none"]["delta"] is not None
    # Its p does not count among the tests of the others.
    theirs = scipy.stats.ttest_rel(list(FULL["none"].values()), list(FULL["pool3"].values()))
    assert rows["none"]["delta"]["p"] == pytest.approx(theirs.pvalue)


def test_a_diverged_baseline_leaves_no_difference_at_all(make: Callable[..., Table]) -> None:
    rows = by_name(make({**FULL, "pool3": {0: 97.0, 1: "diverged", 2: 97.25}}))
    assert [row["delta"] for row in rows.values()] == [None, None, None]
    assert rows["pool3"]["status"] == "partial"


def test_a_failed_seed_leaves_the_difference_of_the_others(make: Callable[..., Table]) -> None:
    rows = by_name(make({**FULL, "pool5": {0: 97.5, 1: 96.75, 2: "failed"}}))
    assert rows["pool5"]["delta"]["mean"] == pytest.approx(((97.5 - 97.0) + (96.75 - 96.5)) / 2)


def test_a_stale_run_is_shown_and_not_counted(make: Callable[..., Table]) -> None:
    table = make({**FULL, "pool5": {0: 97.5, 1: "stale", 2: 98.0}})
    row = by_name(table)["pool5"]
    assert row["n"] == 2 and row["runs"][1]["status"] == "stale" and row["runs"][1]["top1"] is None
    assert row["delta"]["mean"] == pytest.approx(((97.5 - 97.0) + (98.0 - 97.25)) / 2)
    assert any("stale" in warning for warning in table.to_json()["warnings"])


def test_data_of_an_override_is_not_stale(make: Callable[..., Table], tmp_path: Path) -> None:
    # The fingerprint that counts is that of the data a row is trained on, not that of the recipe's.
    make({})
    words = ("data.name=fashion_mnist", "data.image_size=28")
    chosen = made_up_plan(tmp_path, words)
    data = tmp_path / "data"
    folder = DataFolder(data, given=True)
    for path in folder.files("fashion_mnist"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"image bytes")
    fingerprint = folder.fingerprint("fashion_mnist")
    assert fingerprint not in (None, folder.fingerprint("digits"))
    store = Store(tmp_path / "results")
    fake_record(store, chosen.spec("pool3", 0), 90.0, fingerprint=fingerprint)
    assert by_name(build_table(chosen, store, folder))["pool3"]["status"] == "ok"


def test_an_edited_record_is_missing_and_named(make: Callable[..., Table], tmp_path: Path) -> None:
    make(FULL)
    chosen = made_up_plan(tmp_path)
    store = Store(tmp_path / "results")
    folder = store.folder(chosen.spec("pool5", 1).run_id)
    path = folder / "record.json"
    path.write_text(path.read_text().replace("96.75", "99.75"))
    table = build_table(chosen, store, DataFolder.choose(None))
    row = by_name(table)["pool5"]
    assert (row["status"], row["n"]) == ("partial", 2)
    assert row["runs"][1]["status"] == "missing"
    assert any(str(folder) in warning and "changed after" in warning for warning in table.to_json()["warnings"])


def test_a_run_at_chance_is_marked(make: Callable[..., Table]) -> None:
    row = by_name(make({"none": {0: 10.0, 3: 9.5}}, at_chance=True))["none"]
    assert row["status"] == "ok" and row["n"] == 2
    assert "at chance: seed 0, 3" in row["notes"]


def test_a_row_that_is_not_applicable_is_missing(tmp_path: Path) -> None:
    (tmp_path / "made_up.yaml").write_text(
        "baseline: pool\nrows:\n  pool: {set: {}}\n  swin: {set: {model.name: swin_mixer_b_d24}}\n"
    )
    chosen = made_up_plan(tmp_path)
    assert set(chosen.not_applicable) == {"swin"}
    store = Store(tmp_path / "results")
    for seed in (0, 1):
        fake_record(store, chosen.spec("pool", seed), 96.0 + seed)
    table = build_table(chosen, store, DataFolder.choose(None))
    row = by_name(table)["swin"]
    assert (row["status"], row["n"], row["delta"], row["runs"]) == ("missing", 0, None, [])
    assert any(note.startswith("not applicable: ") for note in row["notes"])
    assert by_name(table)["pool"]["n"] == 2
    assert "not applicable" in render(table, "text")


# ---------------------------------------------------------------------------------------------------------------------
# Seeds


def test_every_seed_with_a_record_is_found(make: Callable[..., Table]) -> None:
    table = make({"pool3": {3: 97.0}, "pool5": {3: 96.0, 17: 97.0}, "none": {9_999: 90.0}})
    for row in table.to_json()["rows"]:
        assert [run["seed"] for run in row["runs"]] == [3, 17, 9_999]
    assert [run["status"] for run in by_name(table)["pool5"]["runs"]] == ["ok", "ok", "missing"]


def test_without_records_seed_0_is_missing(
    make: Callable[..., Table], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for row in make({}).to_json()["rows"]:
        assert row["status"] == "missing"
        assert [(run["seed"], run["status"]) for run in row["runs"]] == [(0, "missing")]
        assert (row["params"], row["macs"], row["mean"], row["delta"]) == (None, None, None, None)
    cost = count(made_up_plan(tmp_path).specs["pool5"])
    rows = by_name(make({}))
    assert (rows["pool5"]["params"], rows["pool5"]["macs"]) == (cost.params, cost.macs), "what was counted is shown"
    assert rows["none"]["params"] is None


def test_runs_of_other_settings_are_not_taken_for_none(ablate, trained):
    """Trained with overrides, shown without them: whoever reads the table hears why it is empty."""
    where = ("--results", trained.results)
    said = "none of the 8 runs in .* is of pooling_size under digits; give the recipe, overrides and seeds"
    table = ablate("table", "pooling_size", *where, "--json").json
    assert all(row["status"] == "missing" for row in table["rows"])
    assert re.match(said, table["warnings"][0])
    plotted = ablate("plot", "pooling_size", *where, "--kind", "rows", "--json")
    assert re.search(said, plotted.err)
    seeds = ablate("table", *trained.arguments, "--seeds", "7,8", "--json").json
    assert "under digits train.epochs=1 " in seeds["warnings"][0]
    for command in ("table", "plot"):
        for arguments in (trained.arguments, ("pooling_size", "--results", "empty")):
            found = ablate(command, *arguments, "--json")
            assert "none of the" not in found.out + found.err


def test_seeds_asked_for_are_those_shown(make: Callable[..., Table]) -> None:
    row = by_name(make(FULL, seeds=(2, 40_000)))["pool3"]
    assert [(run["seed"], run["top1"]) for run in row["runs"]] == [(2, 97.25), (40_000, None)]
    assert row["mean"] == 97.25


# ---------------------------------------------------------------------------------------------------------------------
# Formats

PARTIAL: Results = {"pool3": FULL["pool3"], "pool5": {0: 97.5, 1: "diverged"}}


@pytest.mark.parametrize("results", [FULL, PARTIAL, {}], ids=["full", "partial", "empty"])
@pytest.mark.parametrize("style", FORMATS)
def test_a_rendering_is_the_same_every_time(style: str, results: Results, make: Callable[..., Table]) -> None:
    first, second = make(results), make({})
    assert render(first, style).encode() == render(first, style).encode() == render(second, style).encode()
    assert render(first, style).endswith("\n")


# Marks of emphasis or rank: stars and arrows; bold in LaTeX, HTML, markdown and on a terminal; words.
WINNER = re.compile(r"[*★†‡✓✔↑↓▲▼]|\\(text|math)bf|<(b|strong|em)\b|\x1b|__|(?i:\b(best|winner|rank)\b)")


@pytest.mark.parametrize("style", FORMATS)
def test_no_row_is_a_winner(style: str, make: Callable[..., Table]) -> None:
    # pool5 is the best here, by name and by number: its line looks like every other.
    text = render(make(FULL), style)
    lines = [line for line in text.splitlines() if "Pooling" in line or "Identity" in line]
    assert len(lines) == 3
    for line in lines:
        assert not WINNER.search(line), line
    assert ["Pooling 3" in lines[0], "wider" in text, "Identity" in lines[2]] == [True] * 3, (
        "not in the order of the file"
    )


def test_another_metric_is_asked_for(make: Callable[..., Table], ablate: Callable[..., Any], tmp_path: Path) -> None:
    """The loss of every made-up record is 0.25: lower is better, no percent, three decimals."""
    make({row: dict.fromkeys(range(2), 97.0) for row in FULL})
    words = ("table", tmp_path / "made_up.yaml", "--results", tmp_path / "results", "--metric", "loss")
    tree = ablate(*words, "--json").json
    keys = ("task", "metric", "unit", "higher_is_better")
    assert [tree[key] for key in keys] == ["classification", "loss", "", False]
    assert [(run["value"], run["loss"]) for run in tree["rows"][0]["runs"]] == [(0.25, 0.25)] * 2
    lines = ablate(*words, "--columns", "name,loss,paper", "--format", "markdown").out.splitlines()
    assert lines[2] == "| Name | Loss | Paper loss |" and "| 0.250 ± 0.000 |  |" in lines[4]
    assert ablate(*words[:-1], "accuracy").sentence.startswith("--metric: unknown metric of classification 'accuracy'")
    runs = ablate(*words, "--runs", "--format", "csv").out.splitlines()
    assert runs[0].startswith("row,seed,run_id,status,loss,difference")


def test_a_flat_row_has_every_cell_of_the_csv(make: Callable[..., Table]) -> None:
    table = make(FULL)
    heading = render(table, "csv").splitlines()[0].split(",")
    assert heading == ["experiment", "recipe", *table.rows[0].flat(), "audit"]


def test_json_is_the_table(make: Callable[..., Table]) -> None:
    table = make(FULL)
    assert json.loads(render(table, "json")) == table.to_json()


def test_csv_is_read_by_pandas(make: Callable[..., Table]) -> None:
    table = make(PARTIAL)
    frame = pd.read_csv(io.StringIO(render(table, "csv")), keep_default_na=False, na_values=[""])
    assert list(frame["name"]) == ["pool3", "pool5", "none"]
    rows = {line["name"]: line for line in frame.to_dict("records")}
    assert rows["pool5"]["label"] == 'Pooling "5", | wider'
    assert rows["pool3"]["mean"] == pytest.approx(sum(FULL["pool3"].values()) / 3)
    assert (rows["pool3"]["ci95_lo"], rows["pool3"]["ci95_hi"]) == pytest.approx(by_name(table)["pool3"]["ci95"])
    assert list(frame["n"]) == [3, 1, 0]
    assert list(frame["status"]) == ["ok", "partial", "missing"]
    assert frame["delta_mean"].isna().all()
    assert frame["mean"].isna().tolist() == [False, False, True]
    assert rows["pool3"]["paper_top1"] == 77.2
    assert rows["pool3"]["run_ids"].split() == [run["run_id"] for run in by_name(table)["pool3"]["runs"]]
    assert set(frame["experiment"]) == {"made_up"} and set(frame["recipe"]) == {"digits"}
    full = pd.read_csv(io.StringIO(render(make(FULL), "csv")))
    delta = by_name(make(FULL))["none"]["delta"]
    line = full[full["name"] == "none"].iloc[0]
    assert (line["delta_mean"], line["delta_p"]) == pytest.approx((delta["mean"], delta["p"]))
    assert (line["delta_ci95_lo"], line["delta_ci95_hi"]) == pytest.approx(delta["ci95"])
    assert line["delta_method"] == delta["method"]


def test_markdown_has_the_same_columns_in_each_line(make: Callable[..., Table]) -> None:
    lines = [line for line in render(make(FULL), "markdown").splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 3
    cells = [re.split(r"(?<!\\)\|", line) for line in lines]
    assert len({len(line) for line in cells}) == 1
    assert cells[3][2].strip().startswith('Pooling "5", \\| wider')
    assert cells[2][-2].strip() == "77.2"


@pytest.mark.parametrize("style", ["text", "markdown"])
def test_a_person_reads_mean_spread_and_count(style: str, make: Callable[..., Table]) -> None:
    text = render(make(FULL), style)
    rows = by_name(make(FULL))
    for name, row in rows.items():
        assert f"{row['mean']:.2f} ± {row['std']:.2f} [{row['ci95'][0]:.2f}, {row['ci95'][1]:.2f}]" in text, name
    delta = rows["pool5"]["delta"]
    assert f"{delta['mean']:+.2f} [{delta['ci95'][0]:+.2f}, {delta['ci95'][1]:+.2f}]" in text
    assert "t interval" in text and "Holm" in text
    assert "its own note" in text
    partial = render(make(PARTIAL), style)
    assert "(partial)" in partial
    assert "diverged: seed 1" in partial


def test_long_labels_are_folded_and_not_cut(tmp_path: Path) -> None:
    label = "Pooling with a label that goes on and on and would not fit beside the numbers of any table whatever"
    (tmp_path / "made_up.yaml").write_text(EXPERIMENT.replace("label: Pooling 3", f"label: {label}"))
    chosen, store = made_up_plan(tmp_path), Store(tmp_path / "results")
    for row, runs in FULL.items():
        for seed, top1 in runs.items():
            fake_record(store, chosen.spec(row, seed), top1, frozen_params=21_134_000)
    table = build_table(chosen, store, DataFolder.choose(None))
    text = render(table, "text", width=132)
    assert max(map(len, text.splitlines())) <= 132 < max(map(len, render(table, "text").splitlines()))
    assert "…" not in text
    assert set(label.split()) <= set(text.split())
    assert "77.2" in text and "frozen" in text
    for row in table.to_json()["rows"]:
        assert f"{row['mean']:.2f} ± {row['std']:.2f}" in text


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_a_narrow_terminal_cuts_nothing_and_says_what_it_leaves_out(
    make: Callable[..., Table], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    text = render(make(FULL), "text", width=text_width())
    assert max(map(len, text.splitlines())) <= columns
    assert "Difference" in text and "Row" in text
    head, _, told = text.partition(f"Not shown at {columns} columns: ")
    told = re.sub(r"\s+", " ", told)
    table = head.partition("\n\n[1]")[0]
    for heading in ("Group", "Params", "MACs", "Paper"):
        assert (heading in table) != (heading in told), heading
    assert bool(told) == (columns < 130)


def test_columns_that_were_asked_for_are_shown_in_any_width(make: Callable[..., Table]) -> None:
    text = render(make(FULL), "text", width=60, columns=("row", "params", "macs", "top1"))
    assert "Not shown" not in text and "MACs" in text and "Params" in text
