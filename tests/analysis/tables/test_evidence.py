"""`ablate table`, `compare` and `explain` over made-up records: what they say in each format, what they refuse."""

# ruff: noqa: RUF001 (Greek letters are what some tests are about)

from __future__ import annotations

import csv
import html.parser
import io
import re
import shutil
import subprocess
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
from conftest import REPOSITORY, Result
from specs import fake_record, seal

from metaformer_ablate.analysis.escapes import beyond_pdflatex, csv_cell, escape_latex, escape_markdown
from metaformer_ablate.analysis.tables.columns import columns_of, format_mean
from metaformer_ablate.analysis.tables.latex import Latex, brief
from metaformer_ablate.analysis.tables.render import FORMATS, render
from metaformer_ablate.analysis.tables.table import build_table
from metaformer_ablate.analysis.tables.types import Finding, Table, TableRow
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.notes import differences
from metaformer_ablate.spec.plan import Plan, plan
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.statistics.images import FLOOR_P
from metaformer_ablate.statistics.spread import variance_of_images
from metaformer_ablate.statistics.stats import bootstrap_interval, holm, seeds_needed

Ablate = Callable[..., Result]

EXPERIMENT = r"""
title: Made up
baseline: pool3
rows:
  pool3: {label: Pooling 3, group: Baseline, set: {}, paper: {top1: 77.2}}
  pool5:
    label: "[A_1, B] -> 5% & <b>more</b> of \\x^2~{y} $1 #2 'q' \"r\" `s` | --t *u"
    group: Mixers & <i>co</i>
    set: {model.pool_size: 5}
    notes: ["100% of <script>alert(1)</script> & _all_"]
    paper: {top1: 77.3}
  none: {group: Mixers & <i>co</i>, set: {model.token_mixer: identity, model.mlp_ratio: 2}, paper: {top1: 74.3}}
  bare: {label: No residual, group: Last, set: {model.residual: false}}
"""
TOPS = {"pool3": [97.0, 96.5, 97.25], "pool5": [97.5, 96.75, 98.0], "none": [95.0, 95.5, 94.0]}


@pytest.fixture
def chosen(tmp_path: Path) -> Plan:
    (tmp_path / "made_up.yaml").write_text(EXPERIMENT)
    return plan(str(tmp_path / "made_up.yaml"))


@pytest.fixture
def store(chosen: Plan, tmp_path: Path) -> Store:
    """Three rows with three seeds, and one that diverged."""
    found = Store(tmp_path / "results")
    for row, tops in TOPS.items():
        for seed, top1 in enumerate(tops):
            fake_record(found, chosen.spec(row, seed), top1)
    fake_record(found, chosen.spec("bare", 1), status="diverged")
    return found


@pytest.fixture
def table(chosen: Plan, store: Store) -> Table:
    return build_table(chosen, store, DataFolder.choose(None), power=0.5)


def predictions(store: Store, spec: RunSpec, right: str, label: int = 1) -> None:
    """A record whose predictions are right where the string has a 1; all labels are the same."""
    answers = np.array([c == "1" for c in right])
    arrays = {"label": np.full(len(right), label, dtype=np.uint8)}
    arrays["predicted"] = np.where(answers, label, label + 1).astype(np.uint8)
    arrays["confidence"] = np.full(len(right), 0.5, dtype=np.float32)
    fake_record(store, spec, 100 * float(answers.mean()), predictions=arrays)


def by_name(table: Table | dict[str, Any]) -> dict[str, dict[str, Any]]:
    tree = table.to_json() if isinstance(table, Table) else table
    return {row["name"]: row for row in tree["rows"]}


def row_of(table: Table, name: str) -> TableRow:
    return next(row for row in table.rows if row.name == name)


def changed(table: Table, name: str, **of: Any) -> Table:
    """The table with a row that says something else."""
    return replace(table, rows=tuple(replace(row, **of) if row.name == name else row for row in table.rows))


# ---------------------------------------------------------------------------------------------------------------------
# Numbers


def test_resolution_and_power(table: Table) -> None:
    found, power = table.to_json()["resolution"], table.to_json()["power"]
    deviations = [np.std(np.subtract(TOPS[row], TOPS["pool3"]), ddof=1) for row in ("pool5", "none")]
    std = np.median(deviations) / np.sqrt(scipy.stats.chi2.median(2) / 2)
    assert (found["n"], found["rows"], found["std"]) == (3, 2, pytest.approx(std))
    assert found["half_width"] == pytest.approx(scipy.stats.t.ppf(0.975, 2) * std / np.sqrt(3))
    assert found["half_width"] < found["detectable"]["alone"] < found["detectable"]["holm"]
    assert f"With 3 seeds, differences below {found['half_width']:.2f} points cannot be told apart" in found["text"]
    needed = {"alone": seeds_needed(0.5, std), "holm": seeds_needed(0.5, std, 0.05 / 2)}
    assert (power["difference"], power["power"], power["seeds"]) == (0.5, 0.8, needed)
    for style in ("text", "markdown", "html"):
        text = render(table, style, width=2000)
        assert f"{needed['alone']} seeds" in text and "cannot be told apart" in text


def test_sizes_stand_beside_a_difference_where_there_is_room(table: Table) -> None:
    found = by_name(table)["pool5"]["delta"]
    differences = np.subtract(TOPS["pool5"], TOPS["pool3"])
    ratio = differences.mean() / differences.std(ddof=1)
    assert found["effect"]["value"] == pytest.approx(ratio * scipy.special.gamma(1) / scipy.special.gamma(0.5))
    assert found["better"]["value"] == 1.0 and by_name(table)["none"]["delta"]["better"]["value"] == 0.0
    wide, narrow = (render(table, "text", width=width) for width in (180, 110))
    for text in (wide, render(table, "markdown"), render(table, "html")):
        assert "Effect" in text and "Better" in text and f"{found['effect']['value']:+.2f}" in text
        assert "0 of 3 seeds has the 95% interval [0.00, 0.71]" in " ".join(text.split())
    assert "Not shown at 110 columns: Effect, Better" in narrow
    for text in (narrow.partition("Not shown")[0], render(table, "latex")):
        assert "Effect" not in text and "Better" not in text
    line = row_of(table, "pool5").flat()
    assert (line["delta_effect"], line["delta_better"]) == (found["effect"]["value"], 1.0)


def test_no_difference_as_a_claim(chosen: Plan, tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "equal"), DataFolder.choose(None)
    apart = {"pool3": [0.0] * 5, "pool5": [0.1, -0.1, 0.05, 0.0, -0.02], "none": [-2.0, -1.8, -2.1, -1.9, -2.2]}
    apart["bare"] = [0.1] * 5  # the same each time: no test
    for row, values in apart.items():
        for seed, value in enumerate(values):
            fake_record(store, chosen.spec(row, seed), 90 + seed + value)
    assert "equivalent" not in build_table(chosen, store, folder).to_json()
    table = build_table(chosen, store, folder, equivalent=0.5)
    p = []
    for row in ("pool5", "none"):
        above = scipy.stats.ttest_1samp(apart[row], -0.5, alternative="greater").pvalue
        below = scipy.stats.ttest_1samp(apart[row], 0.5, alternative="less").pvalue
        p.append(max(above, below))
    rows = by_name(table)
    found = [rows[row]["equivalence"] for row in ("pool5", "none")]
    assert [test["p_uncorrected"] for test in found] == pytest.approx(p)
    assert [test["p"] for test in found] == pytest.approx(holm(p))
    assert {(test["margin"], test["comparisons"]) for test in found} == {(0.5, 2)}
    assert rows["pool3"]["equivalence"] is rows["bare"]["equivalence"] is None
    whole = table.to_json()["equivalent"]
    assert (whole["margin"], whole["rows"], whole["comparisons"]) == (0.5, ["pool5"], 2)
    assert "p (equal)" in render(table, "latex")
    for style in ("text", "markdown", "html"):
        text = " ".join(render(table, style, width=2000).split())
        assert "p (equal)" in text and "over the 2 comparisons of this table. Shown to lie within 0.5 points" in text
    assert row_of(table, "none").flat()["equivalence_p"] == found[1]["p"]


def test_what_cannot_be_is_not_printed(chosen: Plan, tmp_path: Path) -> None:
    """Two seeds ten points apart: the intervals and the resolution leave the scale."""
    store = Store(tmp_path / "two")
    for row, values in {"pool3": (80.0, 90.0), "pool5": (95.0, 60.0), "none": (80.0, 90.5)}.items():
        for seed, top1 in enumerate(values):
            fake_record(store, chosen.spec(row, seed), top1)
    table = build_table(chosen, store, DataFolder.choose(None))
    rows = by_name(table)
    assert rows["pool5"]["delta"]["ci95"][1] > 100 and rows["pool3"]["ci95"][1] > 100, (
        "unrounded and whole for programs"
    )
    note = "too few seeds: an interval reaches beyond the scale of 0 to 100 and is cut off there"
    assert all(note in rows[row]["notes"] for row in ("pool3", "pool5", "none")) and note not in rows["bare"]["notes"]
    for style in ("text", "markdown", "html", "latex"):
        text = render(table, style, width=2000)
        assert "+100.00]" in text and note.partition(":")[0] in " ".join(text.split())
        assert max(float(number) for number in re.findall(r"\d+\.\d+", text)) <= 100
        if style == "latex":
            continue  # what the numbers allow is for the text around the table
        assert "no differences can be told apart" in text and "there are too few seeds" in text
        assert "not at any size if Holm corrects over 2" in text


def test_small_numbers_have_the_digits_of_their_metric(chosen: Plan, tmp_path: Path) -> None:
    """A loss that differs in its third digit, and a row that differs by the same amount for every seed."""
    store = Store(tmp_path / "loss")
    losses = {"pool3": (1.0, 1.001, 1.002), "pool5": (1.001, 1.001, 1.0035), "none": (1.5, 1.501, 1.502)}
    for row, values in losses.items():
        for seed, loss in enumerate(values):
            fake_record(store, chosen.spec(row, seed), metrics={"top1": 90.0, "top5": 100.0, "loss": loss})
    table = build_table(chosen, store, DataFolder.choose(None), metric="loss", power=0.01)
    found = table.resolution
    assert found["rows"] == 1 == row_of(table, "pool5").delta.comparisons, "the other row has no test"
    text = " ".join(render(table, "text", width=2000).split())
    half = found["half_width"]
    assert 0.001 < half < 0.01 and f"differences below {half:.3f} cannot be told apart" in text
    assert f"Half of the paired interval, {half:.3f} now" in text and f"as {found['std']:.3f}, the median" in text


def test_resolution_is_of_the_seeds_that_most_rows_have(chosen: Plan, store: Store) -> None:
    for seed, top1 in enumerate([90.0, 91.0, 92.5, 90.5]):
        fake_record(store, chosen.spec("pool3", seed), top1 + 0.1 * seed**2)
        fake_record(store, chosen.spec("pool5", seed), top1)
        fake_record(store, chosen.spec("none", seed), top1 + seed)
    fake_record(store, chosen.spec("bare", 0), 50.0)
    fake_record(store, chosen.spec("bare", 1), 52.0)
    found = build_table(chosen, store, DataFolder.choose(None)).resolution
    assert (found["n"], found["rows"]) == (4, 3)


def test_ten_seeds_have_a_bootstrap_too(chosen: Plan, tmp_path: Path) -> None:
    store, generator = Store(tmp_path / "ten"), np.random.default_rng(0)
    tops = {row: generator.normal(90, 1, 10).round(3).tolist() for row in ("pool3", "pool5", "none")}
    for row, values in tops.items():
        for seed, top1 in enumerate(values[: 9 if row == "none" else 10]):
            fake_record(store, chosen.spec(row, seed), top1)
    table = build_table(chosen, store, DataFolder.choose(None))
    rows = by_name(table)
    assert rows["pool5"]["bootstrap"]["ci95"] == list(bootstrap_interval(tops["pool5"]) or ())
    paired = np.subtract(tops["pool5"], tops["pool3"]).tolist()
    assert rows["pool5"]["bootstrap"]["delta_ci95"] == pytest.approx(list(bootstrap_interval(paired) or ()))
    assert rows["pool3"]["bootstrap"]["delta_ci95"] is None
    assert rows["none"]["bootstrap"] is None, "nine seeds are too few"
    low, high = rows["pool5"]["bootstrap"]["ci95"]
    text = render(table, "text", columns=("row", "top1", "bootstrap"))
    assert f"[{low:.2f}, {high:.2f}]" in text and "BCa bootstrap" in text


def test_the_images_question(chosen: Plan, tmp_path: Path) -> None:
    store, folder = Store(tmp_path / "images"), DataFolder.choose(None)
    for seed, (base, row, other) in enumerate([("0011110", "1111110", "0011111"), ("1011110", "1111111", "0000000")]):
        predictions(store, chosen.spec("pool3", seed), base)
        predictions(store, chosen.spec("pool5", seed), row)
        predictions(store, chosen.spec("none", seed), other)
    assert [row.images for row in build_table(chosen, store, folder).rows] == [None] * 4, "only when asked"
    rows = by_name(build_table(chosen, store, folder, images=True))
    assert rows["pool3"]["images"] is rows["bare"]["images"] is None
    found = rows["pool5"]["images"]
    assert found["images"] == 7
    assert [(s["seed"], s["gained"], s["lost"]) for s in found["seeds"]] == [(0, 2, 0), (1, 2, 0)]
    assert [s["p"] for s in found["seeds"]] == [0.5, 0.5]
    # d is 1, 2 and 1: both ends of eight signs, 2 / 8; the other row: 1 - 1, -1 four times, one of them and one more.
    raw = [rows[name]["images"]["p"] for name in ("pool5", "none")]
    d = np.array([-1, 0, -1, -1, -1, -1, 1])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 7)).reshape(7, -1).T
    assert raw == pytest.approx(holm([0.25, np.mean(np.abs(signs @ d) >= abs(d.sum()))]))
    assert "sign-flip" in found["method"] and "McNemar" in found["seed_method"]
    text = render(build_table(chosen, store, folder, images=True), "text", width=2000)
    assert "p (images)" in text and "not whether the rows would if trained again" in text
    with pytest.raises(RequestError, match="the test over images is of top1, found the metric loss; allowed: top1"):
        build_table(chosen, store, folder, images=True, metric="loss")


def test_the_floor_of_the_exact_test_is_printed_as_such(chosen: Plan, tmp_path: Path) -> None:
    """90 images that one row alone has right: 2 / 2^90. The other row has one more right: p is 1."""
    store = Store(tmp_path / "images")
    predictions(store, chosen.spec("pool3", 0), "0" * 90 + "1" * 10)
    predictions(store, chosen.spec("pool5", 0), "1" * 100)
    predictions(store, chosen.spec("none", 0), "0" * 90 + "1" * 9 + "0")
    table = build_table(chosen, store, DataFolder.choose(None), images=True)
    found, other = by_name(table)["pool5"]["images"], by_name(table)["none"]["images"]
    assert (found["p"], found["p_is_bound"], found["comparisons"]) == (FLOOR_P, True, 2)
    assert (other["p"], other["p_is_bound"], other["comparisons"]) == (1.0, False, 2)
    assert row_of(table, "pool5").flat()["images_p_is_bound"] is True
    text = render(table, "text", columns=("name", "images"), width=2000)
    assert re.search(r"pool5 \[[\d,]+\] +<1e-11\n", text) and "<1e-11 is its floor" in text
    assert "<1e-11" in render(table, "markdown") and r"\textless{}1e-11" in render(table, "latex")


def test_where_the_spread_comes_from_is_read_from_the_records(chosen: Plan, tmp_path: Path) -> None:
    store, folder, generator = Store(tmp_path / "spread"), DataFolder.choose(None), np.random.default_rng(0)
    right = {row: generator.random((4, 500)) < 0.6 for row in ("pool3", "pool5", "none")}
    for row, answers in right.items():
        for seed, each in enumerate(answers):
            predictions(store, chosen.spec(row, seed), "".join(map(str, each.astype(int))))
    fake_record(store, chosen.spec("none", 3), 12.0)  # not what its predictions come to
    table = build_table(chosen, store, folder)
    found = table.to_json()["spread"]
    apart = variance_of_images(right["pool5"], right["pool3"])
    assert (found["n"], found["rows"], found["images"]) == (4, 2, 500)
    assert found["share_of_images"] == pytest.approx(min(1, apart / found["std"] ** 2))
    assert found["half_width"]["halfway"] is None, "all had 40 after the first of two epochs"
    for style in ("text", "markdown", "html"):
        text = " ".join(render(table, style, width=2000).split())
        assert "Where the spread comes from" in text and "the 500 test images explain" in text
    assert build_table(chosen, store, folder, spread=False).spread is None


def test_other_images_are_not_compared(chosen: Plan, tmp_path: Path) -> None:
    store = Store(tmp_path / "images")
    predictions(store, chosen.spec("pool3", 0), "0011110")
    predictions(store, chosen.spec("pool5", 0), "0011110", label=2)
    predictions(store, chosen.spec("none", 0), "00111")
    rows = by_name(build_table(chosen, store, DataFolder.choose(None), images=True))
    for name in ("pool5", "none"):
        assert (rows[name]["images"]["p"], rows[name]["images"]["seeds"]) == (None, [])
        assert "other images" in rows[name]["images"]["method"]


def test_predictions_that_cannot_be_read(ablate: Ablate, chosen: Plan, store: Store) -> None:
    """A record of another program, whose checksums fit, so that only whoever reads the file can tell."""
    folder = store.folder(chosen.spec("none", 2).run_id)
    (folder / "predictions.npz").write_bytes(b"no zip file")
    seal(folder)
    whole = ablate("table", "made_up.yaml", "--images", "--json")
    assert whole.code == 0, "one bad record ends no command"
    assert f"{folder.name}/predictions.npz: cannot be read" in whole.err and "left out" in whole.err
    images = {row["name"]: row["images"] for row in whole.json["rows"]}
    assert [s["seed"] for s in images["none"]["seeds"]] == [0, 1]
    assert [s["seed"] for s in images["pool5"]["seeds"]] == [0, 1, 2]


def test_a_diverged_seed_leaves_no_question_of_images(chosen: Plan, store: Store) -> None:
    fake_record(store, chosen.spec("pool5", 2), status="diverged")
    rows = by_name(build_table(chosen, store, DataFolder.choose(None), images=True))
    assert rows["pool5"]["images"] is None and rows["none"]["images"] is not None
    fake_record(store, chosen.spec("pool3", 2), status="diverged")
    assert all(row.images is None for row in build_table(chosen, store, DataFolder.choose(None), images=True).rows)


# ---------------------------------------------------------------------------------------------------------------------
# Formats


def test_a_note_that_every_row_has_is_said_once(table: Table) -> None:
    notes = {row.name: (*row.notes, "said of all") for row in table.rows}
    for name, those in notes.items():
        table = changed(table, name, notes=those)
    shared = Finding(1, "found of all", tuple(notes))
    table = replace(table, audit=(shared, Finding(2, "found of one", ("none",))))
    for style in ("text", "markdown", "html", "latex"):
        text = " ".join(render(table, style, width=2000).split())
        assert text.count("said of all") == text.count("found of all") == text.count("found of one") == 1
        assert "Every row: said of all" in text and "audit, every row: found of all" in text
    printed = render(table, "text", columns=("name", "n"), width=2000).splitlines()
    lines = {line.split()[0]: line for line in printed if line.strip()}
    assert "[" not in lines["pool3"] and "[2,4]" in lines["none"]
    assert by_name(table)["pool3"]["notes"] == ["said of all"], "a program reads all of them"


def test_a_row_that_changes_more_than_one_thing_says_so(table: Table) -> None:
    assert by_name(table)["none"]["notes"] == ["besides model.token_mixer it changes model.mlp_ratio 4.0 -> 2.0"]


def test_windows_that_cover_the_map_are_a_note_of_show(ablate: Ablate, table: Table) -> None:
    """The last stage of digits is 2 x 2."""
    shown = {row["name"]: row["notes"] for row in ablate("show", "made_up.yaml", "--json").json["rows"]}
    (note,) = shown["pool3"]
    assert note.startswith("a window of 3 covers the whole map in stage")
    assert not [note for row in table.rows for note in row.notes if "whole map" in note]


def test_labels_show_what_differs_where_none_was_given(table: Table) -> None:
    assert by_name(table)["none"]["label"] == "none"
    assert "none: token_mixer identity, mlp_ratio 2" in render(table, "text", width=2000)


def test_counts_of_runs_that_are_not_all_there(table: Table) -> None:
    text = render(table, "text", columns=("name", "n"))
    assert re.search(r"bare \[[\d,]+\] +0/3\n", text) and re.search(r"pool3 \[?[\d,]*\]? +3\n", text)
    assert "missing: seed 0, 2" in text and "diverged: seed 1" in text


def test_columns_digits_sort_and_transposed(ablate: Ablate, table: Table, store: Store) -> None:
    words = ["table", "made_up.yaml", "--format", "markdown"]
    lines = ablate(*words, "--columns", "name,top1, n", "--digits", "1", "--sort", "-top1").out.splitlines()
    assert lines[2] == "| Name | Top-1 (%) | n |"
    assert [re.match(r"\| (\w+)", line)[1] for line in lines[4:8]] == ["pool5", "pool3", "none", "bare"]  # type: ignore[index]
    assert "| 97.4 ± 0.6 [95.9, 99.0] | 3 |" in lines[4]
    ascending = ablate(*words, "--columns", "name", "--sort", "difference").out.splitlines()[4:8]
    assert [re.match(r"\| (\w+)", line)[1] for line in ascending] == ["none", "pool5", "pool3", "bare"]  # type: ignore[index]
    turned = ablate(*words, "--columns", "n,name,p", "--transposed").out.splitlines()
    assert [cell.split(" [")[0] for cell in turned[2].strip("| ").split(" | ")] == ["Name", *by_name(table)]
    assert turned[4].startswith("| n | 3 | 3 | 3 | 0/3 |")
    p = by_name(table)["pool5"]["delta"]["p"]
    assert turned[5].startswith(f"| p |  | {p:.3f} | ")
    text = ablate("table", "made_up.yaml", "--transposed").out
    assert format_mean(row_of(table, "pool5")) in text, "numbers are in one piece"
    assert len([line for line in text.splitlines() if line.startswith("  Params (M)")]) == 1
    rows = ablate("table", "made_up.yaml", "--json", "--sort", "-top1").json["rows"]
    assert [row["name"] for row in rows] == ["pool5", "pool3", "none", "bare"]


def test_every_column_can_be_shown_and_every_format_is_steady(table: Table) -> None:
    for style in FORMATS:
        for transposed in (False, True):
            shown = render(table, style, columns=tuple(columns_of(table.metric)), transposed=transposed)
            assert shown == render(table, style, columns=tuple(columns_of(table.metric)), transposed=transposed)
            assert shown.endswith("\n")


class Reader(html.parser.HTMLParser):
    """Tags and texts; fails where a tag is closed that is not the open one."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.tags.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data


@pytest.mark.parametrize("transposed", [False, True])
def test_html_escapes_every_string(table: Table, transposed: bool) -> None:
    text = render(table, "html", transposed=transposed)
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert {*reader.tags} <= {"div", "table", "caption", "thead", "tbody", "tr", "th", "td", "p"}
    assert any(cell.startswith(by_name(table)["pool5"]["label"]) for cell in reader.cells)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    if not transposed:
        for row in table.to_json()["rows"]:
            assert f'<tr data-runs="{" ".join(run["run_id"] for run in row["runs"])}">' in text


def test_latex(table: Table) -> None:
    text = render(table, "latex", latex=Latex("page"))
    assert text.startswith("% Packages: ") and "\\begin{table*}" in text
    assert r"\label{tab:made-up-digits}" in text and r"\caption{made\_up under digits}" in text
    lines = text.splitlines()
    (line,) = [line for line in lines if line.startswith("Pooling 3")]
    mean, std = (f"{by_name(table)['pool3'][key]:.2f}" for key in ("mean", "std"))
    assert f"& {mean} & {std} & 3 &" in line and line.endswith(r"& 77.2 \\")
    (line,) = [line for line in lines if line.startswith("{[}A\\_1, B{]}")]
    low, high = by_name(table)["pool5"]["delta"]["ci95"]
    assert f"$[{low:+.2f}, {high:+.2f}]$" in line
    assert [line for line in lines if r"\textit{Mixers \& \textless{}i" in line], "groups are lines of their own"
    body = lines[lines.index(r"\toprule") : lines.index(r"\bottomrule")]
    cells = {len(re.findall(r"(?<!\\)&", line)) for line in body if line.endswith(r"\\") and "multicolumn" not in line}
    assert len(cells) == 1, "each line has a cell for each column"
    assert "& 0/3 &" in text and r"\textbf" not in text


def test_latex_of_a_column_is_narrow_bold_if_asked_and_named(table: Table) -> None:
    text = render(table, "latex", latex=Latex(caption="50% of $x$", label="tab:mine", bold=True))
    assert "\\begin{table}" in text and r"Row & Top-1 (\%) & Diff. & 95\% interval \\" in text
    assert r"\caption{50\% of \$x\$}" in text and r"\label{tab:mine}" in text
    best = max(table.rows, key=lambda row: row.mean or 0)
    mean, std = f"{best.mean:.2f}", f"{best.std:.2f}"
    assert re.findall(r"\\textbf\{(.*?)\}", text) == [rf"{mean} $\pm$ {std}"]
    short = render(changed(table, "pool5", short="P -> 5"), "latex")
    assert any(line.startswith(r"P $\rightarrow$ 5") for line in short.splitlines())


@pytest.mark.parametrize(
    ("text", "few"),
    [
        (
            "besides model.token_mixer it changes model.norm mln -> layer_norm, model.position_embedding false -> true",
            "also changes norm, position_embedding",
        ),
        ("LayerScale and drop path go with the residual: our choice, the paper names one", None),
        ("audit: device: an H100", "audit: device: an H100"),
        (
            "one seed: a difference cannot be told from chance; run more",
            "one seed: a difference cannot be told from chance",
        ),
    ],
)
def test_table_notes_are_of_a_few_words(text: str, few: str | None) -> None:
    assert brief(text) == (few or text.partition(":")[0])


def test_latex_escapes() -> None:
    assert escape_latex("a->b & 5% [x]") == r"a$\rightarrow$b \& 5\% {[}x{]}"
    assert escape_latex("--seeds 3, <0.05_") == r"-{}-seeds 3, \textless{}0.05\_"
    assert escape_latex("\\") == r"\textbackslash{}"
    assert escape_latex("pool α→β ≥ 3") == (
        r"pool \ensuremath{\alpha}\ensuremath{\rightarrow}\ensuremath{\beta} \ensuremath{\ge} 3"
    )
    assert escape_latex("Mélange de Poincare\u0301, Ω₂") == (
        r"M\'{e}lange de Poincar\'{e}, \ensuremath{\Omega}\ensuremath{_{2}}"
    )
    assert beyond_pdflatex(escape_latex("α 图 é 图像")) == "像图"


def test_latex_names_what_pdflatex_cannot_set(table: Table) -> None:
    assert "% needs" not in render(table, "latex")
    odd = changed(table, "pool3", label="α 图 \x1b[31m")
    lines = render(odd, "latex").splitlines()
    assert lines[1] == "% needs lualatex or xelatex: 图"
    assert any(line.startswith(r"\ensuremath{\alpha} 图 \textbackslash{}x1b{[}31m") for line in lines)


def test_markdown_opens_no_tag_and_no_link() -> None:
    assert escape_markdown("<script>x</script> <!-- &lt; a&b <0.001 a->b") == (
        "&lt;script>x&lt;/script> &lt;!-- &amp;lt; a&b <0.001 a->b"
    )
    assert escape_markdown("[x](javascript:alert(1)) [y]: z [1, 2] [3]") == (
        r"[x]\(javascript:alert(1)) [y]\: z [1, 2] [3]"
    )
    assert escape_markdown("a\\](b) two\nlines \x1b[31m") == r"a\\]\(b) two lines \x1b[31m"


def test_csv_cells_begin_no_formula() -> None:
    hostile = ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", " =1", "\r=1", "\uff1d1"]
    assert [csv_cell(text) for text in hostile] == [f"'{text}" for text in hostile]
    assert [csv_cell(value) for value in (-1.5, 3, None, "a=1", "[-1, 2]")] == [-1.5, 3, None, "a=1", "[-1, 2]"]


@pytest.mark.parametrize("style", ["text", "markdown", "latex", "html", "csv", "json"])
def test_no_string_of_a_table_steers_what_shows_it(table: Table, store: Store, style: str) -> None:
    hostile = "=\x1b]0;title\x07\x9b31m\u202e[x](javascript:1)<script>"
    odd = changed(table, "pool3", label=hostile, group=hostile, notes=(hostile,))
    shown = render(replace(odd, warnings=(*odd.warnings, hostile)), style)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown if style != "csv" else "")
    assert "<script>" not in shown or style not in ("markdown", "html")
    assert "](javascript:" not in shown or style != "markdown"
    assert style != "csv" or csv.DictReader(io.StringIO(shown)).__next__()["label"] == f"'{hostile}"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("document", ["article", "[twocolumn]{article}"])
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"latex": Latex("page", bold=True)},
        {"transposed": True},
        {"columns": ("name", "status", "top1", "bootstrap")},
    ],
)
def test_latex_compiles_and_fits(table: Table, shape: dict[str, Any], document: str, tmp_path: Path) -> None:
    """With the packages that it names; no line is wider than the column or the page, and every letter comes out."""
    labels = {"pool3": "Größe α→β ≥ 3, Poincaré’s Ω₂", "pool5": "[Pool, Pool, Pool, Pool] -> [A_1, B] & 5% of $x$"}
    for name, label in labels.items():
        table = changed(table, name, label=label, short=label)
    done, words = compiled(render(table, "latex", **shape), document, tmp_path)
    assert "Overfull" not in done and "Missing character" not in done
    if "name" not in shape.get("columns", ()):
        for part in ("Größe", "α→β", "≥", "Poincaré’s", "Ω2", "&", "5%", "$x$", "→"):
            assert part in words, f"{part} does not come out"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("fit", ["column", "page"])
def test_latex_of_the_study_fits_two_columns(fit: str, tmp_path: Path) -> None:
    """18 rows with their groups and notes, at no less than 85 of 100 of the size of footnotes."""
    found = build_table(plan("table5", "cifar10_small"), Store(REPOSITORY / "results"), DataFolder.choose(None))
    text = render(found, "latex", latex=Latex(fit))
    done, words = compiled(text, "[twocolumn]{article}", tmp_path)
    assert "Overfull" not in done and "Pooling → DWConv" in " ".join(words.split()) and "72.28" in words
    # Without the shrinking it is at most a little too wide.
    whole = text.replace("max width=", "max width=1.17")
    over = re.findall(r"Overfull \\hbox \((\d+)", compiled(whole, "[twocolumn]{article}", tmp_path)[0])
    assert all(int(points) < 35 for points in over), over


def compiled(text: str, document: str, folder: Path) -> tuple[str, str]:
    """What pdflatex says of a table in a document of a class, and what stands on its pages."""
    packages = text.splitlines()[0].removeprefix("% Packages: ")
    document = document if document.startswith("[") else f"{{{document}}}"
    (folder / "table.tex").write_text(
        f"\\documentclass{document}{packages}\\begin{{document}}\n{text}\\end{{document}}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    words = subprocess.run(
        ["pdftotext", "-layout", "table.pdf", "-"], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout, unicodedata.normalize("NFC", words.stdout)


# ---------------------------------------------------------------------------------------------------------------------
# The runs behind the numbers


def test_every_number_can_be_traced_to_its_runs(ablate: Ablate, table: Table, store: Store) -> None:
    listed = ablate("table", "made_up.yaml", "--runs", "--json").json["runs"]
    rows = by_name(table)
    for name, row in rows.items():
        runs = [run for run in listed if run["row"] == name]
        assert [(run["run_id"], run["status"]) for run in runs] == [(r["run_id"], r["status"]) for r in row["runs"]]
        for run in runs:
            record = store.read(run["run_id"])
            assert (run["folder"] is None) == (run["status"] == "missing") == (record is None)
            assert record is None or run["top1"] == record.value("top1")
        if row["mean"] is not None:
            assert np.mean([run["top1"] for run in runs]) == pytest.approx(row["mean"])
        if row["delta"] is not None:
            assert np.mean([run["difference"] for run in runs]) == pytest.approx(row["delta"]["mean"])
    lines = list(csv.DictReader(io.StringIO(ablate("table", "made_up.yaml", "--runs", "--format", "csv").out)))
    assert [line["run_id"] for line in lines] == [run["run_id"] for run in listed]
    text = ablate("table", "made_up.yaml", "--runs").out
    for run in listed:
        assert run["run_id"] in text
    assert "pool3: mean 96.9167 over 3 seeds" in text


def test_only_planned_runs_are_read(
    ablate: Ablate, store: Store, chosen: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand records of other experiments cost a table a listing of their names."""
    for i in range(50):
        (store.runs / f"{i:012x}").mkdir()
    read: list[str] = []
    monkeypatch.setattr(Store, "read", lambda self, run_id: read.append(run_id))
    assert ablate("table", "made_up.yaml").err == ""
    planned = {chosen.spec(row, seed).run_id for row in chosen.specs for seed in range(3)}
    assert {*read} == planned and len(read) == len(planned), "each once"


# ---------------------------------------------------------------------------------------------------------------------
# compare


def test_compare_with_the_paper(ablate: Ablate, store: Store, table: Table) -> None:
    found = ablate("compare", "digits", "paper", "made_up.yaml", "--json").json
    assert (found["experiment"], found["recipes"], found["metric"]) == ("made_up", ["digits", "paper"], "top1")
    rows = by_name(found)
    for name, row in by_name(table).items():
        ours, paper = rows[name]["results"]
        for key in ("n", "mean", "std", "ci95", "delta", "status", "runs"):
            assert ours[key] == row[key]
        assert paper["mean"] == row["paper"].get("top1")
    ranks = {name: [result["rank"] for result in row["results"]] for name, row in rows.items()}
    assert ranks == {"pool3": [2, 2], "pool5": [1, 1], "none": [3, 3], "bare": [None, None]}
    assert found["agreement"] == table.to_json()["agreement"]
    turned = ablate("compare", "paper", "digits", "made_up.yaml", "--json").json
    assert turned["recipes"] == ["paper", "digits"]
    assert turned["agreement"]["kendall"] == found["agreement"]["kendall"]


def test_compare_two_recipes(ablate: Ablate, store: Store, chosen: Plan, tmp_path: Path) -> None:
    other = plan(str(tmp_path / "made_up.yaml"), "cifar10")
    for row, tops in {"pool3": [80.0, 81.0], "pool5": [70.0, 71.5], "none": [90.0, 90.5]}.items():
        for seed, top1 in enumerate(tops):
            fake_record(store, other.spec(row, seed), top1)
    words = ["compare", "digits", "cifar10", "made_up.yaml"]
    found = ablate(*words, "--json").json
    rows = by_name(found)
    assert {name: row["rank_change"] for name, row in rows.items()} == {
        "pool3": 0, "pool5": 2, "none": -2, "bare": None
    }  # fmt: skip
    assert found["agreement"]["between"] == ["digits", "cifar10"]
    assert len(found["agreement"]["reversed"]) == 3
    text = ablate(*words).out
    assert "made_up under digits and cifar10" in text and "+2" in text and "80.50" in text
    for style in FORMATS:
        printed = ablate(*words, "--format", style).out
        assert "80.5" in printed and printed == ablate(*words, "--format", style).out
    lines = list(csv.DictReader(io.StringIO(ablate(*words, "--format", "csv").out)))
    assert [line["rank_change"] for line in lines] == ["0.0", "2.0", "-2.0", ""]
    assert float(lines[0]["cifar10_mean"]) == 80.5


# ---------------------------------------------------------------------------------------------------------------------
# explain


def test_explain(ablate: Ablate, chosen: Plan) -> None:
    found = ablate("explain", "made_up.yaml", "none", "--json").json
    assert (found["row"], found["baseline"], found["recipe"]) == ("none", "pool3", "digits")
    assert found["set"] == {"model.token_mixer": "identity", "model.mlp_ratio": 2}
    expected = differences(chosen.specs["none"], chosen.specs["pool3"])
    assert [(d["path"], d["value"], d["baseline"]) for d in found["differences"]] == expected
    declared = {d["path"]: d["declared"] for d in found["differences"]}
    assert declared == {"model.token_mixer": True, "model.mlp_ratio": True, "model.pool_size": False}
    text = ablate("explain", "made_up.yaml", "none").out
    assert "model.mlp_ratio: 4.0 -> 2.0\n" in text
    assert "model.pool_size: [3, 3, 3, 3] -> [null, null, null, null]  (follows)" in text
    assert "there is no difference" in ablate("explain", "made_up.yaml", "pool3").out
    for words in ((), ("train.epochs=2",)):
        without = ablate("explain", "made_up.yaml", *words)
        assert (without.code, without.out) == (2, "") and "give a row of made_up.yaml: pool3, " in without.err
    assert ablate("explain", "made_up.yaml", "pool3", "--json").json["differences"] == []


def test_explain_under_a_recipe_and_overrides(ablate: Ablate) -> None:
    found = ablate("explain", "table5", "pppa", "--recipe", "imagenet", "--json").json
    values = {d["path"]: (d["value"], d["baseline"], d["declared"]) for d in found["differences"]}
    assert values["train.batch_size"] == (1024, 4096, True)
    assert values["data.eval_crop"] == (0.95, 0.9, True)
    assert values["model.head_dim"] == (32, None, False)
    more = ablate("explain", "table5", "pppa", "model.head_dim=8", "--json")
    assert "model.head_dim is 8, but nothing reads it" in more.sentence


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["table", "pooling_size", "--columns", "top2"], ["--columns", "'top2' (did you mean 'top1'?)", "difference"]),
        (["table", "pooling_size", "--columns", "n,n"], ["--columns", "n is named twice"]),
        (["table", "pooling_size", "--sort", "+top1"], ["--sort", "'+top1'", "largest first"]),
        (["table", "pooling_size", "--digits", "7"], ["--digits is 7", "from 0 to 6"]),
        (["table", "pooling_size", "--digits", "1", "--json"], ["--digits has no meaning for json"]),
        (["table", "pooling_size", "--columns", "n", "--format", "csv"], ["--columns has no meaning for csv"]),
        (["table", "pooling_size", "--transposed", "--runs"], ["--transposed has no meaning for --runs"]),
        (["table", "pooling_size", "--runs", "--format", "latex"], ["'latex'", "with --runs: text, csv, json"]),
        (["table", "pooling_size", "--power", "0"], ["--power is 0", "above 0 and at most 100"]),
        (["table", "pooling_size", "--equivalent", "0"], ["--equivalent is 0", "above 0 and at most 100"]),
        (["table", "pooling_size", "--power", "nan"], ["--power is 'nan'"]),
        (["compare", "digits", "digits", "pooling_size"], ["'digits' twice"]),
        (["compare", "digits", "cifar", "pooling_size"], ["unknown recipe 'cifar' (did you mean 'cifar10'?)"]),
        (["compare", "digits", "paper"], ["give two recipes or more, then one experiment"]),
        (["explain", "pooling_size"], ["give a row of pooling_size: pool3, pool5, pool7, pool9"]),
        (["explain", "pooling_size", "pool4"], ["unknown row 'pool4' (did you mean 'pool"]),
        (["explain", "pooling_size", "pool5", "pool7"], ["one experiment, one row", "'pool7'"]),
        (["explain", "imagenet_models", "vit_base_patch16_224"], ["vit_base_patch16_224", "64"]),
    ],
)
def test_bad_requests(ablate: Ablate, words: list[str], parts: list[str]) -> None:
    sentence = ablate(*words).sentence
    for part in parts:
        assert part in sentence
