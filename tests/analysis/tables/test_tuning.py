"""Rows at their own best value: the trials, the choice, the file, and the tables that show it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from conftest import TINY_WORDS, Result
from specs import fake_record

from metaformer_ablate.analysis.tables.tuning import TunedLine, order_in_words
from metaformer_ablate.api.experiment import Experiment
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.records.store import Store
from metaformer_ablate.settings.yaml_reader import parse
from metaformer_ablate.spec.experiment import load_experiment
from metaformer_ablate.spec.grid import edges, points, read_grid
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.statistics.budget import expected_best
from metaformer_ablate.statistics.stats import holm
from metaformer_ablate.tasks.base import Metric

Ablate = Callable[..., Result]

EXPERIMENT = """
title: Made up
baseline: pool3
interactions: [[pool5, relu]]
rows:
  pool3: {label: Pooling 3}
  pool5: {label: Pooling 5, set: {model.pool_size: 5}}
  relu: {label: ReLU, set: {model.activation: relu}}
"""

RATES = ["1e-3", "2e-3", "4e-3"]
OVER = ["--over", "train.lr=1e-3,2e-3,4e-3"]
FILE = Path("results/tuned/mine.digits.yaml")

# Of trials on held-out images by row, one per rate, two seeds; then of runs at the recipe's 2e-3 and at the own best.
TRIALS = {
    "pool3": [(80.0, 82.0), (84.0, 86.0), (83.0, 83.5)],
    "pool5": [(82.0, 82.5), (80.0, 81.0), (79.0, 79.5)],
    "relu": [(70.0, 71.0), (72.0, 73.0), (75.0, 75.5)],
    "pool5+relu": [(70.0, 71.0), (72.0, 73.0), (71.0, 71.5)],
}
SAME = {"pool3": [90.0, 91.0, 92.2], "pool5": [88.0, 89.5, 90.0], "relu": [85.0, 85.5, 87.0]}
OWN = {
    "pool3": SAME["pool3"],
    "pool5": [91.0, 91.2, 93.0],
    "relu": [86.0, 87.0, 89.0],
    "pool5+relu": [80.0, 81.0, 81.5],
}
BEST = {"pool3": 0.002, "pool5": 0.001, "relu": 0.004, "pool5+relu": 0.002}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The trials are there, as are the runs at the recipe's value and at the best ones."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.yaml").write_text(EXPERIMENT)
    load_experiment.cache_clear()
    store, path = Store(tmp_path / "results"), str(tmp_path / "experiments" / "mine.yaml")
    for i, rate in enumerate(RATES):
        trials = dict(plan(path, "digits", ["data.evaluate_on=holdout", f"train.lr={rate}"]).everything())
        for row, values in TRIALS.items():
            for seed, value in enumerate(values[i]):
                fake_record(store, trials[row].with_seed(seed), value)
    for results, chosen in (
        (SAME, plan(path)),
        (OWN, plan(path, choices={r: {"train.lr": v} for r, v in BEST.items()})),
    ):
        for row, values in results.items():
            for seed, value in enumerate(values):
                fake_record(store, dict(chosen.everything())[row].with_seed(seed), value)
    return tmp_path


def test_the_best_trial_of_each_row_is_chosen(folder: Path, ablate: Ablate) -> None:
    done = ablate("tune", "mine", *OVER, "--seeds", "2", "--json", cwd=folder)
    assert done.code == 0, done.err
    assert "4 rows with 3 trials of 2 seeds, all on held-out training images: 0 runs to train" in done.err
    tree = done.json
    assert {row: each["set"]["train.lr"] for row, each in tree["rows"].items()} == BEST
    assert {row: each["edges"] for row, each in tree["rows"].items()} == {
        "pool3": [], "pool5": ["train.lr"], "relu": ["train.lr"], "pool5+relu": []
    }  # fmt: skip
    assert [trial["mean"] for trial in tree["rows"]["pool3"]["trials"]] == [81.0, 85.0, 83.25]
    written = parse((folder / FILE).read_text(), "x")
    assert {"file": str(FILE), **written} == tree
    trial = tree["rows"]["relu"]["trials"][2]
    chosen = plan(str(folder / "experiments/mine.yaml"), "digits", ["data.evaluate_on=holdout", "train.lr=4e-3"])
    assert trial["runs"] == [chosen.spec("relu", seed).run_id for seed in (0, 1)]
    assert all(spec.data.evaluate_on == "holdout" for _, spec in chosen.everything())


def test_the_table_shows_both_values_and_how_the_differences_change(folder: Path, ablate: Ablate) -> None:
    ablate("tune", "mine", *OVER, "--seeds", "2", cwd=folder)
    done = ablate("table", "mine", "--tuned", "--json", cwd=folder)
    assert done.code == 0, done.err
    rows = {row["name"]: row for row in done.json["rows"]}
    assert {name: row["mean"] for name, row in rows.items()} == pytest.approx(
        {name: np.mean(OWN[name]) for name in SAME}
    )
    assert not done.json["audit"], "a row sets what was chosen for it"
    part = {row["name"]: row for row in done.json["tuning"]["rows"]}
    assert {name: row["same"]["mean"] for name, row in part.items()} == pytest.approx(
        {name: np.mean(values) for name, values in SAME.items()}
    )
    theirs = {}
    for name in ("pool5", "relu"):
        change = np.subtract(OWN[name], OWN["pool3"]) - np.subtract(SAME[name], SAME["pool3"])
        test = scipy.stats.ttest_1samp(change, 0)
        assert part[name]["change"]["mean"] == pytest.approx(change.mean())
        assert part[name]["change"]["ci95"] == pytest.approx(list(test.confidence_interval()))
        theirs[name] = test.pvalue
    assert [part[name]["change"]["p"] for name in theirs] == pytest.approx(holm(list(theirs.values())))
    assert part["pool3"]["change"] is None
    assert part["relu"]["expected_best"] == pytest.approx(expected_best([70.5, 72.5, 75.25]))
    # By one trial pool3 83.1, pool5 80.7, relu 72.75; by all 85, 82.25, 75.25.
    assert "no two rows change places, and it stays the same from 1 trial on." in done.json["tuning"]["text"][0]
    text = " ".join(ablate("table", "mine", "--tuned", cwd=folder).out.split())
    assert "its best train.lr, 0.004, lies at the edge of the values tried (0.001, 0.002, 0.004)" in text
    assert "mine under digits, each row at its own best value" in text
    assert "Expected best top-1 against the number of trials, mine under digits" in text
    plain = ablate("table", "mine", "--json", cwd=folder).json
    assert "tuning" not in plain and plain["rows"][2]["mean"] == pytest.approx(np.mean(SAME["relu"]))


def test_run_plot_and_compare_take_the_tuned_rows(folder: Path, ablate: Ablate) -> None:
    ablate("tune", "mine", *OVER, "--seeds", "2", cwd=folder)
    done = ablate("run", "mine", "--tuned", "--seeds", "4", "--dry-run", "--json", cwd=folder)
    assert done.json["to_run"] == 4, "seed 3 of three rows and of the combination"
    done = ablate("plot", "mine", "--tuned", "--kind", "rows", "--json", cwd=folder)
    figure = done.json["figures"]["rows"]
    assert figure["overrides"] == ["--tuned"]
    assert [row["mean"] for row in figure["rows"]] == pytest.approx([np.mean(OWN[name]) for name in SAME])
    done = ablate("compare", "digits", "digits:train.epochs=3", "mine", "--tuned", cwd=folder)
    assert "--tuned: there is no results/tuned/mine.digits." in done.sentence
    of_python = Experiment(
        plan(str(folder / "experiments/mine.yaml")), Store(folder / "results"), DataFolder.choose(None)
    ).tuned()
    assert of_python.table().row("relu").mean == pytest.approx(np.mean(OWN["relu"]))


def test_a_choice_of_other_runs_is_refused(folder: Path, ablate: Ablate) -> None:
    words = ("table", "mine", "--tuned")
    assert ablate(*words, cwd=folder).sentence == (
        f"--tuned: there is no {FILE}; `ablate tune mine --recipe digits --over KEY=A,B,C` chooses and writes it"
    )
    ablate("tune", "mine", *OVER, "--seeds", "2", cwd=folder)
    changed = EXPERIMENT.replace("model.pool_size: 5", "model.pool_size: 7")
    (folder / "experiments" / "mine.yaml").write_text(changed)
    load_experiment.cache_clear()
    assert "the trials of pool5, pool5+relu would be other runs" in ablate(*words, cwd=folder).sentence
    (folder / FILE).write_text("experiment: mine\n")
    assert ablate(*words, cwd=folder).sentence.startswith(f"{FILE}: recipe: field required")


def test_diverged_trials_are_never_the_best(folder: Path, ablate: Ablate) -> None:
    store = Store(folder / "results")
    for rate in RATES:
        chosen = plan(str(folder / "experiments/mine.yaml"), "digits", ["data.evaluate_on=holdout", f"train.lr={rate}"])
        if rate != "1e-3":
            fake_record(store, chosen.spec("relu", 1), status="diverged")
    done = ablate("tune", "mine", *OVER, "--seeds", "2", cwd=folder)
    assert "relu: train.lr=0.001 (70.50); train.lr at the edge of the values tried; 2 diverged" in done.out
    fake_record(
        store,
        plan(str(folder / "experiments/mine.yaml"), "digits", ["data.evaluate_on=holdout", "train.lr=1e-3"]).spec(
            "relu", 0
        ),
        status="diverged",
    )
    done = ablate("tune", "mine", *OVER, "--seeds", "2", cwd=folder)
    assert done.code == 2 and "error: tune: every trial of row 'relu' diverged" in done.err


def test_the_trials_are_trained_and_their_cost_is_said_before(folder: Path, ablate: Ablate) -> None:
    words = ("tune", "mine", *TINY_WORDS[:3], *TINY_WORDS[4:], "--over", "train.lr=1e-2,2e-2", "--workers", "0")
    done = ablate(*words, "--dry-run", "--json", cwd=folder)
    assert done.json["to_run"] == 8
    done = ablate(*words, cwd=folder)
    assert done.code == 0, done.err
    said = done.err.splitlines()
    cost = next(
        i for i, line in enumerate(said) if line.endswith("images: 8 runs to train, where 4 are one seed of the table")
    )
    assert cost < next(i for i, line in enumerate(said) if line.endswith(": starts"))
    again = ablate(*words, cwd=folder)
    assert again.out == done.out and ": starts" not in again.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("mine", "give --over KEY=A,B,C: a setting and the values that every row is tried with"),
        ("mine --over train.lr", "--over 'train.lr'; allowed: KEY=A,B,C, as train.lr=2e-3,4e-3,8e-3"),
        ("mine --over train.lr=1e-3", "has one value; allowed: two or more"),
        ("mine --over train.lr=1e-3,0.001", "0.001 is there twice"),
        ("mine --over train.lr=1e-3,2e-3 --over train.lr=1,2", "--over: train.lr is given twice"),
        ("mine --over train.rl=1e-3,2e-3", "unknown key 'train.rl' (did you mean 'train.lr'?)"),
        ("mine --over data.evaluate_on=test,holdout", "--over: data.evaluate_on is the same of all trials"),
        ("mine --over model.pool_size=3,5", "--over: row 'pool5' sets model.pool_size itself"),
        ("mine --over train.lr=1e-3,2e-3 train.lr=1e-3", "--over: train.lr is also an override"),
        ("mine --over train.lr=1e-3,-2", "train.lr is -2"),
    ],
)
def test_what_is_refused(words: str, says: str, folder: Path, ablate: Ablate) -> None:
    assert says in ablate("tune", *words.split(), cwd=folder).sentence


def test_a_grid() -> None:
    grid = read_grid(["train.lr=1e-3,2e-3", "model.depths=[1,1,2,1],[2,2,6,2]"])
    assert grid == {"train.lr": [1e-3, 2e-3], "model.depths": [[1, 1, 2, 1], [2, 2, 6, 2]]}
    assert len(points(grid)) == 4 and points(grid)[1] == {"train.lr": 1e-3, "model.depths": [2, 2, 6, 2]}
    three = {"train.lr": [1e-3, 2e-3, 4e-3], "model.norm": ["mln", "layer_norm"]}
    assert edges(three, {"train.lr": 4e-3, "model.norm": "mln"}) == ["train.lr"]
    assert edges(three, {"train.lr": 2e-3, "model.norm": "mln"}) == []


@pytest.mark.parametrize(
    ("curves", "said"),
    [
        ({"a": (1.0, 2.0), "b": (1.0, 3.0)}, "a and b are told apart, and the last"),
        ({"a": (1.0, 3.0), "b": (2.0, 3.0)}, "a and b are equal, and the last"),
        ({"a": (1.0, 4.0), "b": (2.0, 3.0)}, "a and b change places, and the last"),
        ({"a": (2.0, 2.0, 4.0), "b": (1.0, 3.0, 3.0)}, "no two rows change places, but the last"),
        ({"a": (2.0, 3.0), "b": (1.0, 2.0)}, "no two rows change places, and it stays the same from 1 trial on."),
    ],
)
def test_how_the_order_changes_with_the_trials(curves: dict[str, tuple[float, ...]], said: str) -> None:
    blank = TunedLine("", "", "", {}, (), None, None, None, None)  # type: ignore[arg-type]
    lines = [replace(blank, name=name, expected_best=curve) for name, curve in curves.items()]
    (text,) = order_in_words(lines, Metric("top1", "Top-1"))
    assert said in text
