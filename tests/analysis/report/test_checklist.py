"""`ablate report --checklist`: what was run of an experiment, as its records tell it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Result
from specs import fake_record

from metaformer_ablate.analysis.report.checklist import build_checklist, render_checklist
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.plan import plan

Ablate = Callable[..., Result]

HOLDOUT = ("data.evaluate_on=holdout",)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two rows of pooling_size with two seeds, one that diverged; two trials of a learning rate; one run with an
    override; and one of other data."""
    store, chosen = Store(tmp_path / "results"), plan("pooling_size")
    git = {"commit": "c0ffee" * 6 + "abcd", "dirty": True}
    for row, tops in {"pool3": (97.0, 96.5), "pool5": (97.5, 96.75)}.items():
        for seed, top1 in enumerate(tops):
            fake_record(store, chosen.spec(row, seed), top1, device="a & b", seconds=1800.0, git=git)
    fake_record(store, chosen.spec("pool7", 0), 97.0)
    fake_record(store, chosen.spec("pool7", 1), status="diverged", seconds=900.0)
    for rate in ("0.002", "0.004"):
        fake_record(store, plan("pooling_size", "digits", (*HOLDOUT, f"train.lr={rate}")).spec("pool3", 0), 90.0)
    fake_record(store, plan("pooling_size", "digits", ("train.epochs=3",)).spec("pool3", 0), 90.0)
    fake_record(store, plan("pooling_size", "fashion_mnist").spec("pool3", 0), 80.0)
    return store


def test_it_says_what_was_run(store: Store) -> None:
    said = dict(build_checklist(plan("pooling_size"), store, DataFolder.choose(None)).items)
    runs = "8 runs of 4 rows: 5 ok, 1 diverged, 0 failed, 2 missing. Diverged: pool7 seed 1; these are in no mean."
    assert said["Runs"] == runs
    assert said["Seeds"] == "0, 1 of pool3, pool5; 0 of pool7; none of pool9."
    assert said["Tuning"] == (
        "2 runs on held-out training images: 2 ok, 0 diverged, 0 failed; tried were train.lr (0.002, 0.004)."
    )
    assert said["Other runs"].startswith("1 run of the same data that are not in the table: 1 ok")
    hours = said["Device hours"]
    assert "of the table 2.00 on a & b, 0.25 on a CPU (0.25 of runs that are not ok)" in hours
    assert "of tuning 0.01 on a CPU" in hours and "of other runs 0.00 on a CPU" in hours
    assert said["Hardware"] == "a & b (4 runs), a CPU (2 runs)."
    assert said["Software"] == ("torch 2.15.0, code at c0ffeec0ff, 4 runs from a checkout with uncommitted changes.")
    assert "1,442 images to train on, 355 to evaluate on (its test split)" in said["Data and splits"]
    assert said["Training"].startswith("12 epochs, batch 32, adamw at learning rate")
    assert said["Numbers"].endswith("with the paired t test, corrected by Holm over 1 comparison.")


def test_what_the_rows_set_of_their_training_is_said(tmp_path: Path) -> None:
    said = dict(build_checklist(plan("training_length"), Store(tmp_path), DataFolder.choose(None)).items)
    assert "x5 sets train.epoch_factor to 5" in said["Training"]
    assert said["Hardware"] == "unknown: there are no records" and said["Device hours"] == "None."
    assert "no run on held-out training images" in said["Tuning"]


def test_text_and_latex(ablate: Ablate, store: Store, tmp_path: Path) -> None:
    found = build_checklist(plan("pooling_size"), store, DataFolder.choose(None))
    for name in ("runs.txt", "runs.tex"):
        done = ablate("report", "--checklist", name, "pooling_size")
        assert (done.code, done.out) == (0, f"{name}: the checklist of pooling_size under digits\n")
        assert (tmp_path / name).read_text() == render_checklist(found, Path(name).suffix)
    text, source = ((tmp_path / name).read_text() for name in ("runs.txt", "runs.tex"))
    assert "- Hardware: a & b (4 runs), a CPU (2 runs).\n" in text
    assert "\\item[Hardware] a \\& b (4 runs), a CPU (2 runs).\n" in source
    if (latex := shutil.which("pdflatex")) is not None:
        whole = f"\\documentclass{{article}}\\begin{{document}}{source}\\end{{document}}"
        (tmp_path / "whole.tex").write_text(whole)
        command = [latex, "-interaction=nonstopmode", "-halt-on-error", "whole.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_under_another_recipe_with_overrides(ablate: Ablate, store: Store, tmp_path: Path) -> None:
    assert ablate("report", "--checklist", "a.md", "pooling_size", "--recipe", "fashion_mnist").code == 0
    assert "4 runs of 4 rows: 1 ok, 0 diverged, 0 failed, 3 missing." in (tmp_path / "a.md").read_text()
    assert ablate("report", "--checklist", "b.md", "pooling_size", *HOLDOUT, "train.lr=0.002", "--seeds", "1").code == 0
    text = (tmp_path / "b.md").read_text()
    assert "1 ok" in text and "(a held-out tenth of the training images)" in text


def test_of_nothing_no_file_is_written(ablate: Ablate, store: Store, tmp_path: Path) -> None:
    done = ablate("report", "--checklist", "a.txt", "pooling_size", "train.epochs=7")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("nothing to list: none of the ") and "without these overrides" in done.err
    assert not (tmp_path / "a.txt").exists()


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--checklist", "a.pdf", "pooling_size"], ["--checklist is 'a.pdf'", ".txt, .md, .tex"]),
        (["--checklist", "a.txt"], ["give one experiment", "found none"]),
        (["--checklist", "a.txt", "pooling_size", "--recipe", "digits", "--recipe", "cifar10"], ["of one recipe"]),
        (["--checklist", "no/a.txt", "pooling_size"], ["--checklist no/a.txt", "No such file or directory"]),
        (["pooling_size"], ["'pooling_size' is for --checklist FILE"]),
        (["--seeds", "2"], ["--seeds is for --checklist FILE"]),
    ],
)
def test_bad_requests(ablate: Ablate, store: Store, words: list[str], parts: list[str]) -> None:
    sentence = ablate("report", *words).sentence
    for part in parts:
        assert part in sentence
