"""The committed study: its records are whole, and its tables and figures come out of them again, byte for byte."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from committed_study import COMMANDS, EXPERIMENT, PAGE, RECIPE, STUDY, ids
from conftest import REPOSITORY

from metaformer_ablate.records.store import Store


def close(here: object, there: object) -> bool:
    """The same but for the last digits of numbers, which another processor may round otherwise."""
    if isinstance(here, dict) and isinstance(there, dict):
        return here.keys() == there.keys() and all(close(here[key], there[key]) for key in here)
    if isinstance(here, list) and isinstance(there, list):
        return len(here) == len(there) and all(map(close, here, there))
    if isinstance(here, float) and isinstance(there, float):
        return math.isclose(here, there, rel_tol=1e-9, abs_tol=1e-12)
    return here == there


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the records of the study and nothing else."""
    folder = tmp_path_factory.mktemp("study")
    for run_id in ids():
        shutil.copytree(STUDY / "runs" / run_id, folder / "results" / "runs" / run_id)
    (folder / "results" / "tables").mkdir()
    (folder / "results" / "figures").mkdir()
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_tables_and_figures_are_those_of_the_records(command, ablate, records):
    """The commands of the page of the study, from the records alone."""
    words, _, target = command.partition(" > ")
    before = {path for path in records.rglob("*") if path.is_file()}
    done = ablate(*shlex.split(words)[1:], cwd=records)
    assert done.code == 0, done.err
    if target:
        (records / target).write_text(done.out, encoding="utf-8")
    made = {path for path in records.rglob("*") if path.is_file()} - before
    assert made, "the command has written nothing"
    for path in made:
        committed = STUDY / path.relative_to(records / "results")
        assert committed.is_file(), f"{committed.name} is not committed"
        if path.suffix in (".png", ".svg", ".pdf"):
            continue  # fonts differ; the numbers behind them are in a JSON file
        same = path.read_bytes() == committed.read_bytes()
        if not same and path.suffix == ".json" and not os.environ.get("CI"):
            same = close(json.loads(path.read_text()), json.loads(committed.read_text()))
        assert same, f"{committed.name} is not what the records give"


def test_every_file_of_tables_and_figures_has_its_command():
    named = set(re.findall(r"results/((?:tables|figures)/[\w.-]+)", " ".join(COMMANDS)))
    drawn = {f"figures/{EXPERIMENT}-{RECIPE}-{kind}" for kind in ("rows", "curves", "cost", "paper", "seeds")}
    for path in (*STUDY.glob("tables/*"), *STUDY.glob("figures/*")):
        name = path.relative_to(STUDY).as_posix()
        assert name in named or any(name.startswith(kind) for kind in drawn), name


def test_records_are_whole_of_one_commit_and_without_checkpoints(records):
    store = Store(records / "results")
    found = {record.run_id: record for record in store}
    assert not store.problems
    assert set(found) == set(ids()), "a row or a seed was left out"
    commits = {record.data["git"]["commit"] for record in found.values()}
    assert len(commits) == 1 and not any(record.data["git"]["dirty"] for record in found.values())
    (commit,) = commits
    assert commit[:7] in PAGE, "the page names the commit that trained it"
    for record in found.values():
        names = {path.name for path in record.folder.iterdir()}
        assert names >= {"spec.yaml", "record.json", "history.csv"}
        assert not any(name.endswith(".ckpt") for name in names)
        if record.status == "ok":
            arrays = record.predictions()
            right = (arrays["label"] == arrays["predicted"]).mean() * 100
            assert right == pytest.approx(record.value("top1"), abs=1e-4)


def test_git_has_every_run_of_the_study():
    """What lies in results/runs is no evidence that it was committed."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("needs the checkout")
    listed = subprocess.run(
        ["git", "ls-files", "results/runs"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    committed = {Path(line).parent.name for line in listed if line.endswith("/record.json")}
    assert committed >= set(ids())
    assert not [line for line in listed if line.endswith(".ckpt")]


def test_the_readme_shows_the_table_and_a_figure_of_the_study():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    short = (STUDY / "tables" / "short.md").read_text(encoding="utf-8")
    assert "\n".join(line for line in short.splitlines() if line.startswith("|")) in readme
    assert "](results/figures/table5-cifar10_small-rows.png)" in readme
