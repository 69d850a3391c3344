"""A task is one folder: one of the tests' own goes from a recipe to the report, and no line elsewhere knows of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_WORDS, Result
from toy_task.task import DATA_NAME, GREY_DIGITS, TASK

from metaformer_ablate.data import datasets
from metaformer_ablate.records.store import Store
from metaformer_ablate.tasks import registry

RECIPE = """
title: How grey a digit is
task: {{name: toy}}
model: {{size: t5, head_dim: 16, layer_scale: 0.1, drop_path: 0, stem: {{kernel: 3, stride: 1, padding: 1}}}}
data: {{name: grey_digits, image_size: 8}}
train: {{epochs: 1, batch_size: 64, lr: {lr}, warmup_epochs: 0, threads: 1}}
"""


EXPERIMENT = """
title: Pooling or nothing
baseline: pooling
rows:
  pooling: {label: Pooling, set: {}, paper: {rmse: 0.02}}
  identity: {label: Identity, set: {model.token_mixer: identity}, paper: {rmse: 0.03}}
"""


WORDS = [word for word in TINY_WORDS if word.startswith("model.")]


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The toy task, its data set and two recipes of it, in the folder that the command runs in."""
    monkeypatch.setitem(registry.TASKS, "toy", "toy_task.task:TASK")
    monkeypatch.setitem(datasets.DATASETS, DATA_NAME, GREY_DIGITS)
    recipes = tmp_path / "experiments" / "recipes"
    recipes.mkdir(parents=True)
    for name, lr in (("toy", 2e-3), ("toy_slow", 1e-3)):
        (recipes / f"{name}.yaml").write_text(RECIPE.format(lr=lr))
    (tmp_path / "experiments" / "mixers.yaml").write_text(EXPERIMENT)


@pytest.mark.usefixtures("toy")
def test_a_run_leaves_a_record_and_tables_show_its_metric(ablate: Callable[..., Result], tmp_path: Path) -> None:
    words = ("mixers", *WORDS, "--recipe", "toy", "--seeds", "2", "--results", "results")
    done = ablate("run", *words)
    assert done.code == 0, done.err
    assert "RMSE" in done.out and "Top-1" not in done.out

    records = list(Store(tmp_path / "results"))
    assert len(records) == 4 and {record.status for record in records} == {"ok"}
    for record in records:
        assert record.data["task"] == "toy" and record.spec()["task"] == {"name": "toy", "semantics": 1}
        assert set(record.data["metrics"]) == {"rmse"} and record.data["at_chance"] is None
        assert list(record.history()[-1]) == list(TASK.history_columns)
        found = record.predictions()
        rmse = float(np.sqrt(np.mean((found["number"] - found["predicted"]) ** 2)))
        assert record.value("rmse") == pytest.approx(rmse, rel=1e-5) == record.history()[-1]["val_rmse"]

    table = ablate("table", *words, "--json").json
    assert [row["n"] for row in table["rows"]] == [2, 2]
    measured = {record.run_id: record.value("rmse") for record in records}
    for row in table["rows"]:
        values = [measured[run["run_id"]] for run in row["runs"]]
        assert [run["rmse"] for run in row["runs"]] == values
        assert row["mean"] == pytest.approx(np.mean(values))
    assert table["rows"][0]["paper"]["rmse"] == 0.02
    delta = table["rows"][1]["delta"]["mean"]
    assert delta == pytest.approx(table["rows"][1]["mean"] - table["rows"][0]["mean"])
    text = ablate("table", *words).out
    assert f"{table['rows'][0]['mean']:.4f}" in text and "points" not in text
    assert ablate("table", *words, "--images").code == 0


@pytest.mark.usefixtures("toy")
def test_figures_the_report_and_two_recipes_side_by_side(ablate: Callable[..., Result], tmp_path: Path) -> None:
    for recipe in ("toy", "toy_slow"):
        assert ablate("run", "mixers", *WORDS, "--recipe", recipe, "--results", "results").code == 0
    words = ("mixers", *WORDS, "--results", "results")
    done = ablate("plot", *words, "--recipe", "toy", "--kind", "rows", "--out", "figure.svg")
    assert done.code == 0, done.err
    assert "RMSE" in (tmp_path / "figure.svg").read_text()
    done = ablate("compare", "toy", "toy_slow", *words)
    assert done.code == 0 and "RMSE" in done.out, done.err
    done = ablate("report", "--results", "results", "--out", "report.html")
    assert done.code == 0, done.err
    page = (tmp_path / "report.html").read_text()
    assert "RMSE" in page and "Top-1" not in page


@pytest.mark.usefixtures("toy")
def test_what_the_task_lacks_is_said_in_one_sentence(ablate: Callable[..., Result], tmp_path: Path) -> None:
    words = ("mixers", *WORDS, "--recipe", "toy", "--results", "results", "--keep-checkpoints")
    assert ablate("run", *words).code == 0
    run_id = next(iter(Store(tmp_path / "results"))).run_id
    sentence = ablate("errors", run_id, "--results", "results").sentence
    assert sentence.startswith("the task toy has no error analysis; allowed: a run of classification")
    sentence = ablate("export", run_id, "--results", "results", "--format", "safetensors").sentence
    assert sentence.startswith("the task toy has no graph to export; allowed: a run of classification")
    assert not (tmp_path / f"errors-{run_id}").exists()
