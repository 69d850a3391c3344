"""The commands as other programs use them: JSON, exit codes, streams, and runs that are trained once."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Result, Trained, command
from scipy import stats

from metaformer_ablate.models.components import ACTIVATIONS, MIXERS, NORMS
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system.console import duration, log_to_stderr

Ablate = Callable[..., Result]

# design.md, "JSON". A command may say more, never less.
SHOW = {"experiment", "recipe", "baseline", "rows", "to_run", "estimated_seconds"}
SHOW_ROW = {"name", "label", "group", "set", "params", "frozen_params", "macs", "uncounted", "paper", "notes", "runs"}
TABLE = {"experiment", "recipe", "metric", "rows", "warnings"}
TABLE_ROW = {"name", "label", "group", "params", "frozen_params", "macs", "n", "mean", "std", "ci95", "delta", "paper"}
TABLE_ROW |= {"status", "notes", "runs"}
DELTA = {"mean", "ci95", "p", "method", "p_uncorrected", "comparisons", "effect", "better"}
RUN = {"run_id", "seed", "status"}

ROWS = ["pool3", "pool5", "pool7", "pool9"]

# pool3 and pool5 are those of pooling_size under other names; the third row is its own.
OTHER = """# Shares two runs with pooling_size.
title: Other
baseline: start
rows:
  start: {label: Start}
  five: {label: Five, set: {model.pool_size: 5}}
  bare: {label: Bare, set: {model.token_mixer: identity}}
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """{path: when changed, content} of every file below a folder."""
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def started(result: Result) -> list[str]:
    """The runs that a command began to train, in order."""
    return re.findall(r"^\[\d+/\d+\] (\S+ seed \d+) \([0-9a-f]{12}\): starts$", result.err, re.MULTILINE)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# ---------------------------------------------------------------------------------------------------------------------
# A new experiment


def test_a_new_experiment_runs_as_it_is(ablate: Ablate, tiny_words: tuple[str, ...], tmp_path: Path) -> None:
    result = ablate("init", "my_idea", cwd=tmp_path)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("experiments/my_idea.yaml: a baseline and two rows.")
    text = (tmp_path / "experiments" / "my_idea.yaml").read_text()
    assert text.startswith("#") and max(map(len, text.splitlines())) <= 120
    shown = ablate("show", "my_idea", "--json", cwd=tmp_path).json
    assert (shown["baseline"], shown["to_run"]) == ("pooling", 3)
    assert [(row["name"], len(row["set"])) for row in shown["rows"]] == [
        ("pooling", 0),
        ("identity", 1),
        ("attention_last", 1),
    ]
    rows = ablate("run", "my_idea", *tiny_words, "--json", cwd=tmp_path).json["tables"][0]["rows"]
    assert [row["status"] for row in rows] == ["ok"] * 3


def test_the_first_setting_that_it_suggests_is_one(ablate: Ablate, tmp_path: Path) -> None:
    ablate("init", "my_idea", cwd=tmp_path)
    path = tmp_path / "experiments" / "my_idea.yaml"
    path.write_text(path.read_text().replace("# set: {", "set: {"))
    assert ablate("explain", "my_idea", "identity", cwd=tmp_path).code == 0


def test_a_new_experiment_replaces_none(ablate: Ablate, tmp_path: Path) -> None:
    ablate("init", "true", cwd=tmp_path)  # a word that YAML reads as no text
    assert ablate("explain", "true", "identity", cwd=tmp_path).code == 0
    before = snapshot(tmp_path)
    assert ablate("init", "true", cwd=tmp_path).sentence == (
        "experiments/true.yaml is there already; choose another name or edit it"
    )
    assert "the package has an experiment 'table5'" in ablate("init", "table5", cwd=tmp_path).sentence
    for name in ("My-Idea", "a/b", "../up", "a.yaml", "2nd", ""):
        assert f"the name {name!r} is not one for an experiment; allowed: small letters" in (
            ablate("init", name, cwd=tmp_path).sentence
        )
    assert snapshot(tmp_path) == before
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "experiments").touch()
    assert "experiments/new.yaml cannot be written" in ablate("init", "new", cwd=tmp_path / "file").sentence


# ---------------------------------------------------------------------------------------------------------------------
# JSON


def test_list(ablate: Ablate) -> None:
    listed = ablate("list", "--json").json
    assert "pooling_size" in listed["experiments"]
    assert {"digits", "imagenet"} <= listed["recipes"].keys()
    for key, table in (("token_mixers", MIXERS), ("norms", NORMS), ("activations", ACTIVATIONS)):
        assert list(listed[key]) == list(table)
    assert "poolformer_s12" in listed["models"]
    text = ablate("list").out
    for name in (*listed["experiments"], *listed["recipes"], *MIXERS, *NORMS, *ACTIVATIONS, "poolformer_m48"):
        assert name in text


def test_show_with_columns(ablate: Ablate, tiny_words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    text = ablate("show", "pooling_size", *tiny_words, "--columns", "row,sets,runs").out
    assert text.splitlines()[2].split() == ["Row", "Sets", "Runs"]
    assert re.search(r"^  pool5 +model.pool_size=5 +1 missing$", text, re.MULTILINE)
    assert "unknown column 'cost'" in ablate("show", "pooling_size", "--columns", "row,cost").sentence
    assert ablate("show", "pooling_size", "--columns", "row,row").sentence == "--columns: row is named twice"
    assert "--columns has no meaning for JSON" in ablate("show", "pooling_size", "--columns", "row", "--json").sentence
    monkeypatch.setattr("metaformer_ablate.analysis.tables.text.text_width", lambda: 80)
    text = ablate("show", "pooling_size", *tiny_words).out
    assert max(map(len, text.splitlines())) <= 80
    assert "Not shown at 80 columns: Pooling: additions (M), MB, MACs (G)" in text and "MACs, top-1" in text


def test_show_of_nothing_trained(ablate: Ablate, tiny_words: tuple[str, ...]) -> None:
    result = ablate("show", "pooling_size", *tiny_words, "--json")
    shown = result.json
    assert result.err == ""
    assert shown.keys() >= SHOW
    assert (shown["experiment"], shown["recipe"], shown["baseline"]) == ("pooling_size", "digits", "pool3")
    assert shown["to_run"] == 4
    assert shown["estimated_seconds"] > 0
    assert [row["name"] for row in shown["rows"]] == ROWS
    for row in shown["rows"]:
        assert row.keys() >= SHOW_ROW
        assert all(isinstance(row[key], int) for key in ("params", "frozen_params", "macs"))
        assert row["params"] > 0 and row["macs"] > 0 and row["frozen_params"] == 0
        assert all(isinstance(note, str) for note in row["notes"])
        (run,) = row["runs"]
        assert run.keys() == RUN
        assert (run["seed"], run["status"]) == (0, "missing")
        assert re.fullmatch("[0-9a-f]{12}", run["run_id"])
    assert [row["set"] for row in shown["rows"]] == [{}, *({"model.pool_size": size} for size in (5, 7, 9))]
    assert shown["rows"][3]["paper"]["top1"] == 76.8
    assert shown["rows"][0]["uncounted"]["aten::avg_pool2d"] == 4, "one pooling in each of four blocks"


def test_show_where_no_row_is_applicable(ablate: Ablate, tmp_path: Path) -> None:
    (tmp_path / "large.yaml").write_text(
        "title: Large\nbaseline: a\nset: {model.timm: resnet18}\n"
        "rows:\n  a: {label: A}\n  b: {label: B, set: {model.drop_path: 0.2}}\n"
    )
    done = ablate("show", "large.yaml")
    assert done.code == 0 and "resnet18 leaves less than one position of images below 32 pixels" in done.out


def test_show_of_all_trained(ablate: Ablate, trained: Trained) -> None:
    shown = ablate("show", *trained.arguments, "--json").json
    assert (shown["to_run"], shown["estimated_seconds"]) == (0, 0)
    for row in shown["rows"]:
        assert [(run["seed"], run["status"]) for run in row["runs"]] == [(0, "ok"), (1, "ok")]
    more = ablate("show", *trained.arguments, "--seeds", "3", "--json").json
    assert more["to_run"] == 4
    assert more["estimated_seconds"] > 0
    assert [run["status"] for run in more["rows"][0]["runs"]] == ["ok", "ok", "missing"]


def test_show_as_text(ablate: Ablate, trained: Trained) -> None:
    text = ablate("show", *trained.arguments, "--seeds", "0,1,7").out
    for part in ("Pooling size", "pool3 *", "pool9", "77.2", "2 ok, 1 missing", "To run: 4"):
        assert part in text
    assert "\x1b" not in text, "no colours on a pipe"


def test_numbers_are_those_of_the_recipe(ablate: Ablate) -> None:
    """Under imagenet the paper's: PoolFormer-S12 at 224, 11.92 M and 1.82 G."""
    row = ablate("show", "pooling_size", "--recipe", "imagenet", "--json").json["rows"][0]
    assert (round(row["params"] / 1e6, 2), round(row["macs"] / 1e9, 2)) == (11.92, 1.82)


def test_table_of_nothing_trained(ablate: Ablate) -> None:
    table = ablate("table", "pooling_size", "--json").json
    assert table.keys() >= TABLE
    for row in table["rows"]:
        assert row.keys() >= TABLE_ROW
        assert (row["n"], row["mean"], row["std"], row["ci95"], row["status"]) == (0, None, None, None, "missing")
        assert row["delta"] is None


def test_table_of_two_seeds(ablate: Ablate, trained: Trained) -> None:
    """The numbers against numpy and scipy, from the accuracies of the records themselves."""
    result = ablate("table", *trained.arguments, "--json")
    table = result.json
    assert result.err == ""
    assert table.keys() >= TABLE
    assert (table["experiment"], table["recipe"], table["metric"]) == ("pooling_size", "digits", "top1")
    records = {record.run_id: record for record in Store(trained.results)}
    assert len(records) == 8
    top1s = {}
    for row in table["rows"]:
        assert row.keys() >= TABLE_ROW
        for run in row["runs"]:
            assert run.keys() == RUN | {"top1", "value", "metrics"}
            assert run["status"] == "ok"
            predictions = records[run["run_id"]].predictions()
            assert len(predictions["label"]) == 355
            share = float(np.mean(predictions["label"] == predictions["predicted"]))
            assert run["top1"] == pytest.approx(100 * share, abs=1e-4)
        assert [run["seed"] for run in row["runs"]] == [0, 1]
        top1s[row["name"]] = np.array([run["top1"] for run in row["runs"]])
        assert (row["n"], row["status"]) == (2, "ok")
        assert row["mean"] == pytest.approx(top1s[row["name"]].mean())
        assert row["std"] == pytest.approx(top1s[row["name"]].std(ddof=1), abs=1e-9)
        if row["std"]:
            interval = stats.t.interval(0.95, 1, loc=row["mean"], scale=row["std"] / 2**0.5)
            assert row["ci95"] == pytest.approx(list(interval))
        assert row["params"] > 0 and row["macs"] > 0 and row["frozen_params"] == 0
    assert table["rows"][0]["delta"] is None
    expected = {row: stats.ttest_rel(top1s[row], top1s["pool3"]) for row in ROWS[1:]}
    ordered = sorted(ROWS[1:], key=lambda row: expected[row].pvalue)
    corrected, largest = {}, 0.0
    for rank, name in enumerate(ordered):
        largest = max(largest, min(1.0, (3 - rank) * expected[name].pvalue))
        corrected[name] = largest
    for row in table["rows"][1:]:
        delta = row["delta"]
        assert delta.keys() == DELTA
        difference = top1s[row["name"]] - top1s["pool3"]
        assert difference.any(), "the tiny runs are to differ, or this tells nothing"
        assert delta["mean"] == pytest.approx(difference.mean())
        interval = expected[row["name"]].confidence_interval(0.95)
        assert delta["ci95"] == pytest.approx([interval.low, interval.high])
        assert delta["p"] == pytest.approx(corrected[row["name"]])
        assert "paired t" in delta["method"] and "Holm" in delta["method"]


def test_one_seed_has_no_spread(ablate: Ablate, trained: Trained) -> None:
    for seeds in ("1", "1,"):
        table = ablate("table", *trained.arguments, "--seeds", seeds, "--json").json
        for row in table["rows"]:
            assert [run["seed"] for run in row["runs"]] == [int(seeds == "1,")]
            assert (row["n"], row["std"], row["ci95"]) == (1, None, None)
            if row["name"] != "pool3":
                assert is_number(row["delta"]["mean"])
                assert row["delta"]["ci95"] is row["delta"]["p"] is None
        assert any("--seeds 3" in warning for warning in table["warnings"])


def test_seeds_that_are_not_all_there(ablate: Ablate, trained: Trained) -> None:
    row = ablate("table", *trained.arguments, "--seeds", "0,1,5", "--json").json["rows"][1]
    assert (row["status"], row["n"]) == ("partial", 2)
    assert row["runs"][2]["status"] == "missing"
    assert row["runs"][2]["top1"] is None


def test_run_as_json(ablate: Ablate, trained: Trained) -> None:
    result = ablate("run", *trained.arguments, "--seeds", "2", "--json")
    tree = result.json
    table = ablate("table", *trained.arguments, "--json").json
    assert tree["tables"] == [table]
    assert len(tree["runs"]) == 8
    assert all(run.keys() >= RUN for run in tree["runs"])


def test_cost(ablate: Ablate, tiny_words: tuple[str, ...]) -> None:
    result = ablate("cost", "poolformer_s12", "--no-speed", "--json")
    assert result.err == ""
    (row,) = result.json["rows"]
    assert (round(row["params"] / 1e6, 2), round(row["macs"] / 1e9, 2)) == (11.92, 1.82)
    assert sum(row["macs_by_operator"].values()) == row["macs"] == row["macs_224"]
    assert row["uncounted"]["aten::avg_pool2d"] == 12, "one pooling in each of 12 blocks"
    rows = ablate("cost", "pooling_size", *tiny_words, "--no-speed", "--json").json["rows"]
    assert [row["name"] for row in rows] == ROWS
    shown = ablate("show", "pooling_size", *tiny_words, "--json").json["rows"]
    for row, other in zip(rows, shown, strict=True):
        assert all(row[key] == other[key] for key in ("params", "frozen_params", "macs", "uncounted"))
    small = ["model.depths=[1, 1, 1, 1]", "model.dims=[2, 2, 2, 2]", "data.image_size=32"]
    (row,) = ablate("cost", "poolformer_s12", *small, "--batch", "2", "--json").json["rows"]
    assert row["images_per_second"] > 0
    assert (row["batch_size"], row["image_size"]) == (2, 32)
    text = ablate("cost", "poolformer_s12", "--no-speed").out
    for part in ("11,9", "multiply-adds", "aten::avg_pool2d (12 calls)"):
        assert part in text


# ---------------------------------------------------------------------------------------------------------------------
# Streams and formats


def test_results_go_to_standard_output_and_progress_to_standard_error(
    ablate: Ablate, ablate_process: Ablate, trained: Trained, tmp_path: Path
) -> None:
    """In a process of its own, so that no library prints past the streams of this one."""
    words = [*trained.words, "--results", tmp_path / "new", "--json"]
    result = ablate_process("run", "pooling_size", *words)
    assert result.code == 0
    assert result.json["tables"][0]["rows"][0]["n"] == 1
    assert started(result) == [f"pooling_size/{row} seed 0" for row in ROWS]
    assert not re.search("warning", result.err, re.IGNORECASE), result.err
    (table,) = result.json["tables"]
    first = ablate("table", *trained.arguments, "--seeds", "1", "--json")
    assert table["rows"] == first.json["rows"], "another process gives the same result, to the last digit"


def test_progress_on_a_pipe(ablate: Ablate, tiny_words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaformer_ablate.sweep.progress.PLAIN_LINE_SECONDS", 0)
    result = ablate("run", "pooling_size", *tiny_words, "train.epochs=2")
    assert result.code == 2, "train.epochs twice"
    words = [word for word in tiny_words if not word.startswith("train.epochs")]
    result = ablate("run", "pooling_size", *words, "train.epochs=2")
    assert result.code == 0
    lines = result.err.splitlines()
    assert lines[0] == "4 runs, 0 have a record, 4 to train", "nothing was measured yet"
    pattern = r"epoch 1/2, loss \d+\.\d+, top-1 \d+\.\d+%, \d+ images/s, .+ left"
    for number, row in enumerate(ROWS, 1):
        head = re.escape(f"[{number}/4] pooling_size/{row} seed 0")
        assert any(re.fullmatch(rf"{head} \([0-9a-f]{{12}}\): starts", line) for line in lines)
        assert any(re.fullmatch(f"{head}, {pattern}", line) for line in lines), result.err
        assert any(re.fullmatch(rf"{head}: top-1 \d+\.\d+%( \(at chance\))?, \d+ s", line) for line in lines)


def test_progress_on_a_terminal(ablate: Ablate, tiny_words: tuple[str, ...]) -> None:
    result = ablate("run", "pooling_size", *tiny_words, terminal=True, env={"TERM": "xterm", "COLUMNS": "200"})
    assert result.code == 0
    assert "\x1b" in result.err and "\x1b" not in result.out
    for row in ROWS:
        assert re.search(rf"pooling_size/{row} seed 0: top-1 \d+\.\d+%", result.err)
    assert "starts" in result.err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (42.4, "42 s"), (89, "89 s"), (180, "3 min"), (5399, "90 min"), (7500, "2 h 05 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_formats(ablate: Ablate, trained: Trained, tmp_path: Path) -> None:
    table = ablate("table", *trained.arguments, "--json").json
    assert ablate("table", *trained.arguments, "--format", "json").json == table

    rows = list(csv.DictReader(io.StringIO(ablate("table", *trained.arguments, "--format", "csv").out)))
    assert [row["name"] for row in rows] == ROWS
    for line, row in zip(rows, table["rows"], strict=True):
        for key in ("params", "macs", "n", "mean", "std"):
            assert float(line[key]) == row[key]
        assert (line["label"], line["status"], float(line["paper_top1"])) == (row["label"], "ok", row["paper"]["top1"])
        assert line["run_ids"].split() == [run["run_id"] for run in row["runs"]]
        if row["delta"]:
            assert float(line["delta_mean"]) == row["delta"]["mean"]
            assert float(line["delta_p"]) == row["delta"]["p"]
    assert rows[0]["delta_mean"] == ""

    markdown = ablate("table", *trained.arguments, "--format", "markdown").out
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(ROWS)
    assert len({line.count(" | ") for line in lines if "---" not in line}) == 1
    text = ablate("table", *trained.arguments).out
    for row in table["rows"]:
        assert f"{row['mean']:.2f} ± {row['std']:.2f}" in markdown
        assert f"{row['mean']:.2f} ± {row['std']:.2f}" in text
    assert "**7" not in markdown and "\x1b" not in text, "no winner is bold"

    for style in ("text", "markdown", "csv", "json"):
        result = ablate("table", *trained.arguments, "--format", style, "--out", f"table.{style}")
        assert (result.code, result.out) == (0, "")
        printed = ablate("table", *trained.arguments, "--format", style).out
        assert (tmp_path / f"table.{style}").read_text() == printed


def test_the_folder_of_results(ablate: Ablate, trained: Trained, tmp_path: Path) -> None:
    """--results, else $ABLATE_RESULTS, else ./results."""
    show = ["show", "pooling_size", *trained.words, "--json"]
    assert ablate(*show).json["to_run"] == 4
    assert ablate(*show, env={"ABLATE_RESULTS": str(trained.results)}).json["to_run"] == 0
    assert ablate(*show, "--results", trained.results, env={"ABLATE_RESULTS": "other"}).json["to_run"] == 0
    (tmp_path / "results").symlink_to(trained.results)
    assert ablate(*show).json["to_run"] == 0
    assert not (tmp_path / "other").exists()


# ---------------------------------------------------------------------------------------------------------------------
# What is trained


def test_what_is_there_is_not_trained_again(ablate: Ablate, trained: Trained) -> None:
    before = snapshot(trained.results)
    result = ablate("run", *trained.arguments, "--seeds", "2")
    assert (result.code, result.err) == (0, "")
    assert result.out == trained.run.out, "the same table, byte for byte"
    assert ablate("table", *trained.arguments).out == result.out
    assert snapshot(trained.results) == before


def test_a_dry_run_trains_nothing(ablate: Ablate, tiny_words: tuple[str, ...], tmp_path: Path) -> None:
    result = ablate("run", "pooling_size", *tiny_words, "--seeds", "2", "--dry-run")
    assert (result.code, result.out) == (0, "")
    assert "8 runs, 0 have a record, 8 to train" in result.err
    ids = re.findall(r"^  ([0-9a-f]{12})  pooling_size/(\S+) seed (\d)$", result.err, re.MULTILINE)
    assert [(row, seed) for _, row, seed in ids] == [(row, seed) for seed in "01" for row in ROWS]
    assert not (tmp_path / "results").exists()
    as_json = ablate("run", "pooling_size", *tiny_words, "--seeds", "2", "--dry-run", "--json").json
    assert as_json["to_run"] == 8
    assert {run["run_id"] for run in as_json["runs"]} == {run_id for run_id, _, _ in ids}


def test_only_what_is_missing_is_trained(ablate: Ablate, tiny_words: tuple[str, ...], tmp_path: Path) -> None:
    assert started(ablate("run", "pooling_size", *tiny_words, "--seeds", "1,")) == [
        f"pooling_size/{row} seed 1" for row in ROWS
    ]
    before = snapshot(tmp_path / "results")
    more = ablate("run", "pooling_size", *tiny_words, "--seeds", "2")
    assert started(more) == [f"pooling_size/{row} seed 0" for row in ROWS]
    assert "8 runs, 4 have a record, 4 to train" in more.err
    after = snapshot(tmp_path / "results")
    assert {path: after[path] for path in before} == before


def test_experiments_that_share_runs_train_them_once(
    ablate: Ablate, tiny_words: tuple[str, ...], tmp_path: Path
) -> None:
    write(tmp_path / "experiments/other.yaml", OTHER)
    plan = ablate("run", "other", "pooling_size", *tiny_words, "--dry-run").err
    assert "5 runs, 0 have a record, 5 to train" in plan
    assert "other/start seed 0 (also pooling_size/pool3)" in plan
    both = ablate("run", "other", "pooling_size", "other", *tiny_words, "--json")
    assert both.code == 0
    assert sorted(started(both)) == sorted(
        f"{name} seed 0"
        for name in ("other/start", "other/five", "other/bare", "pooling_size/pool7", "pooling_size/pool9")
    )
    other, pooling = both.json["tables"]
    assert (other["experiment"], pooling["experiment"]) == ("other", "pooling_size")
    assert other["rows"][0]["runs"] == pooling["rows"][0]["runs"]
    assert other["rows"][1]["runs"] == pooling["rows"][1]["runs"]
    assert len(list(Store(tmp_path / "results"))) == 5
    assert len(both.json["runs"]) == 5
    again = ablate("run", "pooling_size", "other", *tiny_words)
    assert again.err == ""
    assert again.out.index("pooling_size under digits") < again.out.index("other under digits")


def test_max_hours(ablate: Ablate, tiny_words: tuple[str, ...]) -> None:
    """No run begins after the time, so none does after a thousandth of a second."""
    result = ablate("run", "pooling_size", *tiny_words, "--max-hours", "1e-7")
    assert result.code == 1
    assert 0 <= len(started(result)) < 4
    assert "--max-hours 1e-07 is over" in result.err and "the same command goes on" in result.err


# ---------------------------------------------------------------------------------------------------------------------
# Runs that fail, diverge or are stopped


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Training with windows of 5 raises; calling the fixture repairs it."""
    from metaformer_ablate.runs.runner import Runner

    train = Runner.fit

    def fail(self: Runner, spec: RunSpec, *rest: Any) -> Any:
        if spec.model.pool_size and spec.model.pool_size[0] == 5:
            raise RuntimeError("the window\nbroke")
        return train(self, spec, *rest)

    monkeypatch.setattr(Runner, "fit", fail)
    return lambda: monkeypatch.setattr(Runner, "fit", train)


def test_a_run_that_fails(
    ablate: Ablate, tiny_words: tuple[str, ...], tmp_path: Path, failing: Callable[[], None]
) -> None:
    words = ["pooling_size", *tiny_words]
    result = ablate("run", *words, "--json")
    assert result.code == 1
    assert len(started(result)) == 4, "the runs after it go on"
    table = result.json["tables"][0]
    assert [row["status"] for row in table["rows"]] == ["ok", "failed", "ok", "ok"]
    failed = table["rows"][1]
    assert (failed["n"], failed["mean"], failed["delta"]) == (0, None, None)
    assert [run["status"] for run in failed["runs"]] == ["failed"]
    assert any("failed: seed 0" in note for note in failed["notes"])
    assert "Traceback" not in result.err
    for run in failed["runs"]:
        log = tmp_path / "results/runs" / run["run_id"] / "log.txt"
        assert "RuntimeError: the window" in log.read_text()
        assert f"results/runs/{run['run_id']}/log.txt" in result.err
        assert json.loads((log.parent / "record.json").read_text())["reason"] == "RuntimeError: the window broke"
    assert "--retry-failed" in result.err

    again = ablate("run", *words)
    assert (again.code, started(again)) == (1, []), "it is not tried again unasked"
    assert ablate("table", *words).code == 0, "a table of what there is"
    still = ablate("run", *words, "--retry-failed")
    assert (still.code, len(started(still))) == (1, 1)

    failing()
    repaired = ablate("run", *words, "--retry-failed", "--json")
    assert repaired.code == 0
    assert started(repaired) == ["pooling_size/pool5 seed 0"]
    assert [row["status"] for row in repaired.json["tables"][0]["rows"]] == ["ok"] * 4
    assert ablate("run", *words, "--retry-failed").err == ""


def test_a_run_that_diverges_is_a_result(ablate: Ablate, tiny_words: tuple[str, ...]) -> None:
    words = [word for word in tiny_words if not word.startswith("train.lr")]
    result = ablate("run", "pooling_size", *words, "train.lr=1e36", "--json")
    assert result.code == 0
    for row in result.json["tables"][0]["rows"]:
        assert (row["status"], row["n"], row["mean"], row["delta"]) == ("diverged", 0, None, None)
        assert any("diverged: seed 0" in note for note in row["notes"])
    again = ablate("run", "pooling_size", *words, "train.lr=1e36", "--retry-failed")
    assert (again.code, again.err) == (0, ""), "diverged runs are not tried again"


def assert_stopped(result: Result, code: int, name: str, results: Path, total: int, rest: Callable[[], Result]) -> None:
    """Stopped in the third run: two records are kept, nothing half-written stays, the same command trains the rest."""
    assert result.code == code, result.err
    assert result.out == ""
    assert "Traceback" not in result.err
    kept = [record.run_id for record in Store(results)]
    first = len(kept)
    assert 2 <= first < total
    lines = result.err.splitlines()
    assert (
        lines[-1] == f"{first} finished runs are kept; the same command goes on with the {total - first} that are left"
    )
    assert lines[-2] == f"stopped by {name}" and "error:" not in result.err
    for folder in (results / "runs").iterdir():
        if folder.name not in kept:  # the run that was under way has saved its place
            assert [path.name for path in folder.iterdir()] == ["last.ckpt"]
            (folder / "last.ckpt").rename(results / "moved.ckpt")
            before = snapshot(results / "runs")
            (results / "moved.ckpt").rename(folder / "last.ckpt")
    rerun = rest()
    assert rerun.code == 0
    assert len(started(rerun)) == total - first
    after = snapshot(results / "runs")
    assert {path: after[path] for path in before} == before
    assert len(list(Store(results))) == total


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_mid_training(
    ablate: Ablate,
    tiny_words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    code: int,
) -> None:
    """In this process, at the fifth step of the third run."""
    from metaformer_ablate.runs.callback import RunCallback

    batch_end, steps = RunCallback.on_train_batch_end, 0

    def send(self: RunCallback, *arguments: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 2 * 22 + 5:
            os.kill(os.getpid(), number)
        batch_end(self, *arguments)

    monkeypatch.setattr(RunCallback, "on_train_batch_end", send)
    before = signal.getsignal(number)
    words = ["run", "pooling_size", *tiny_words]
    result = ablate(*words)
    assert signal.getsignal(number) is before
    assert_stopped(result, code, number.name, tmp_path / "results", 4, lambda: ablate(*words))
    assert steps == 4 * 22, "the third run went on where it was"


def stop_process(number: signal.Signals, words: list[str], cwd: Path) -> Result:
    """Sends a signal to a sweep while its third run trains."""
    process = subprocess.Popen(
        command("run", *words), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    seen = ""
    try:
        for line in process.stderr:
            seen += line
            if line.startswith("[3/") and line.endswith("starts\n"):
                break
        time.sleep(0.1)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    return Result(process.returncode, out, seen + err)


@pytest.mark.slow
def test_ctrl_c(ablate: Ablate, tiny_words: tuple[str, ...], trained: Trained, tmp_path: Path) -> None:
    """The real thing, in a process of its own, with the code 130."""
    words = ["pooling_size", *tiny_words, "--seeds", "2"]
    result = stop_process(signal.SIGINT, words, tmp_path)
    assert_stopped(result, 130, "SIGINT", tmp_path / "results", 8, lambda: ablate("run", *words))
    table = ablate("table", *trained.arguments).out
    assert ablate("table", *words).out == table, "as if it had never been stopped"


@pytest.mark.slow
def test_a_job_that_is_ended(ablate: Ablate, tiny_words: tuple[str, ...], tmp_path: Path) -> None:
    words = ["pooling_size", *tiny_words, "--seeds", "2"]
    result = stop_process(signal.SIGTERM, words, tmp_path)
    assert_stopped(result, 143, "SIGTERM", tmp_path / "results", 8, lambda: ablate("run", *words))


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    """`ablate list | head -1` ends quietly."""
    process = subprocess.Popen(command("list"), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=120) == 0


@pytest.mark.parametrize(
    ("redirect", "code", "error"),
    [
        (">/dev/full", 1, "error: standard output or a file: No space left on device\n"),
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
    ],
)
def test_standard_output_that_takes_nothing(redirect: str, code: int, error: str, tmp_path: Path) -> None:
    call_it = f"{shlex.join(command('show', 'pooling_size', '--json'))} {redirect}"
    done = subprocess.run(["bash", "-c", call_it], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, error)
    assert not done.stdout or json.loads(done.stdout)["experiment"] == "pooling_size"


def test_standard_output_that_lacks_letters(tmp_path: Path) -> None:
    """Of an encoding without them: they are escaped, as in a label with an arrow."""
    rows = 'rows: {a: {label: "x \u2192 y"}, b: {label: "\\e]52;c;eA==\\a \\e[31m", set: {model.pool_size: 5}}}\n'
    (tmp_path / "e.yaml").write_text("title: T\nbaseline: a\n" + rows, encoding="utf-8")
    env = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command("show", "e.yaml"), cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "x \\u2192 y" in done.stdout
    assert "\x1b" not in done.stdout and "\\x1b]52;c;eA==\\x07 \\x1b[31m" in done.stdout


def test_help(ablate: Ablate) -> None:
    result = ablate("--help")
    assert (result.code, result.err) == (0, "")
    for name in ("list", "show", "run", "table", "init", "cost"):
        assert re.search(rf"^  {name} +[A-Z]", result.out, re.MULTILINE)
        assert ablate(name, "-h").code == 0


def test_messages_go_to_standard_error_once_by_their_level(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr()
    log_to_stderr()
    logger = logging.getLogger("metaformer_ablate.a.room")
    logger.info("100% of it")
    logger.warning("a name\x1b[31m")
    logger.error("not written")
    logger.debug("of no interest")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "100% of it\nwarning: a name\\x1b[31m\nerror: not written\n"


def test_a_program_that_imports_the_package_decides_where_messages_go() -> None:
    program = (
        "import logging, io; out = io.StringIO(); logging.basicConfig(stream=out, level='INFO', format='%(message)s')\n"
        "from metaformer_ablate.data.unreadable import Unreadable\n"
        "Unreadable(1).note('train', {'a.png': 'empty'})\n"
        "assert out.getvalue() == 'train image a.png cannot be read (empty); 1 may be\\n', out.getvalue()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
