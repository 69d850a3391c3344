"""The committed studies: their records are whole, and tables and figures come out of them again, byte for byte."""

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
from committed_study import EXPERIMENT, MIXING, RESULTS, STUDIES, Study
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
    """A folder that holds the records of the studies and nothing else."""
    folder = tmp_path_factory.mktemp("study")
    for study in STUDIES:
        for run_id in (*study.ids(), *study.begun()):
            if (RESULTS / "runs" / run_id).is_dir():
                shutil.copytree(RESULTS / "runs" / run_id, folder / "results" / "runs" / run_id)
    (folder / "results" / "tables").mkdir()
    (folder / "results" / "figures").mkdir()
    return folder


@pytest.mark.parametrize("command", [command for study in STUDIES for command in study.commands])
def test_tables_and_figures_are_those_of_the_records(command, ablate, records):
    """The commands of the page of a study, from the records alone."""
    words, _, target = command.partition(" > ")
    before = {path for path in records.rglob("*") if path.is_file()}
    done = ablate(*shlex.split(words)[1:], cwd=records)
    assert done.code == 0, done.err
    if target:
        (records / target).write_text(done.out, encoding="utf-8")
    made = {path for path in records.rglob("*") if path.is_file()} - before
    assert made, "the command has written nothing"
    for path in made:
        committed = RESULTS / path.relative_to(records / "results")
        assert committed.is_file(), f"{committed.name} is not committed"
        if path.suffix in (".png", ".svg", ".pdf"):
            continue  # fonts differ; the numbers behind them are in a JSON file
        same = path.read_bytes() == committed.read_bytes()
        if not same and path.suffix == ".json" and not os.environ.get("CI"):
            same = close(json.loads(path.read_text()), json.loads(committed.read_text()))
        assert same, f"{committed.name} is not what the records give"


def test_every_file_of_tables_and_figures_has_its_command():
    commands = [command for study in STUDIES for command in study.commands]
    named = set(re.findall(r"results/((?:tables|figures)/[\w.-]+)", " ".join(commands)))
    kinds = ("rows", "curves", "cost", "paper", "seeds")
    drawn = [
        f"figures/{EXPERIMENT}-{study.recipe}-{kind}"
        for study in STUDIES
        for kind in kinds
        if any(
            re.fullmatch(rf"ablate plot {EXPERIMENT} --recipe {study.recipe}( --seeds \d+)?", each) for each in commands
        )
    ]
    for path in (*RESULTS.glob("tables/*"), *RESULTS.glob("figures/*")):
        name = path.relative_to(RESULTS).as_posix()
        assert name in named or any(name.startswith(kind) for kind in drawn), name


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.recipe)
def test_records_are_whole_of_one_commit_and_without_checkpoints(study: Study, records: Path):
    store = Store(records / "results")
    ours = {*study.ids(), *study.begun()}
    found = {record.run_id: record for record in store if record.run_id in ours}
    assert not store.problems
    assert set(study.ids()) <= set(found), "a row or a seed was left out"
    commits = {record.data["git"]["commit"] for record in found.values()}
    assert len(commits) == 1 and not any(record.data["git"]["dirty"] for record in found.values())
    (commit,) = commits
    assert commit[:7] in study.page, "the page names the commit that trained it"
    for record in found.values():
        names = {path.name for path in record.folder.iterdir()}
        assert names >= {"spec.yaml", "record.json", "history.csv"}
        assert not any(name.endswith(".ckpt") for name in names)
        if record.status == "ok":
            arrays = record.predictions()
            right = (arrays["label"] == arrays["predicted"]).mean() * 100
            assert right == pytest.approx(record.value("top1"), abs=1e-4)


def test_git_has_every_run_of_the_studies_and_no_other():
    """What lies in results/runs is no evidence that it was committed."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("needs the checkout")
    listed = subprocess.run(
        ["git", "ls-files", "results/runs"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    committed = {Path(line).parent.name for line in listed if line.endswith("/record.json")}
    assert committed >= {run_id for study in STUDIES for run_id in study.ids()}
    assert committed <= {run_id for study in STUDIES for run_id in (*study.ids(), *study.begun())}
    assert not [line for line in listed if line.endswith(".ckpt")]


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.recipe)
def test_a_study_says_how_many_seeds_are_whole(study: Study):
    """A seed that is whole counts; forgetting it here would leave it out of these tests."""
    for length, seeds in study.complete.items():
        rest = Study(study.recipe, {length: seeds + 1}).ids()
        assert not all((RESULTS / "runs" / run_id / "record.json").is_file() for run_id in rest)


def test_the_page_says_what_its_tables_of_both_lengths_say():
    """By the means and by seed, and what is paired over the seeds; of some of the rows, their clear pairs."""
    for path in sorted(RESULTS.glob("tables/lengths*.md")):
        text = path.read_text(encoding="utf-8")
        rows = re.findall(
            r"^\| \S+ and paper \| \d+ \| ([^|]+) \| .* \| (\d+ of \d+) \| ([^|]+) \|$", text, flags=re.MULTILINE
        )
        (change,) = re.findall(r"tau-b by seed (\S+ \[[^]]+\])", text)
        assert len(rows) == 2
        told = [cell for row in rows for cell in row] + [change] if path.stem == "lengths" else [row[1] for row in rows]
        assert all(cell in MIXING.page for cell in told), path.name


def test_the_readme_shows_the_table_and_a_figure_of_the_study():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    short = (RESULTS / "tables" / "short.md").read_text(encoding="utf-8")
    assert "\n".join(line for line in short.splitlines() if line.startswith("|")) in readme
    assert f"](results/figures/{EXPERIMENT}-{MIXING.recipe}-rows.png)" in readme
