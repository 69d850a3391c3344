"""The notebooks run from top to bottom, and hold nothing that the package does not."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import REPOSITORY
from specs import fake_record

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.plan import plan

FOLDER = REPOSITORY / "notebooks"
NAMES = ["ablation_results", "add_your_own_mixer"]


def notebook(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def execute(name: str, monkeypatch: pytest.MonkeyPatch, **environment: str) -> Any:
    """The notebook after all of its cells; a cell that raises, or a command that fails, fails here."""
    from nbclient import NotebookClient

    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    executed = notebook(name)
    NotebookClient(
        executed, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute()
    assert "error: " not in printed(executed) and "Traceback" not in printed(executed)
    return executed


def outputs(executed: Any, kind: str) -> list[str]:
    return [
        out["data"][kind] for cell in executed.cells for out in cell.get("outputs", []) if kind in out.get("data", {})
    ]


def printed(executed: Any) -> str:
    streams = [out for cell in executed.cells for out in cell.get("outputs", []) if out["output_type"] == "stream"]
    return "".join(out["text"] for name in ("stdout", "stderr") for out in streams if out["name"] == name)


def test_these_are_all() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_clean_and_holds_no_function(name: str) -> None:
    cells = notebook(name).cells
    for cell in cells:
        if cell.cell_type == "code" and not cell.source.startswith("%%writefile"):
            assert not re.search(r"^\s*(def|class|lambda)\b", cell.source, re.MULTILINE), cell.source
            assert cell.execution_count is None
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 200_000
    assert all(before.cell_type == "markdown" for before in cells[:1])


@pytest.mark.slow
def test_results_of_records_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, chosen = Store(tmp_path / "results"), plan("table5", "cifar10_small")
    now = DataFolder.choose(None).fingerprint("cifar10")
    for place, spec in enumerate(chosen.specs.values()):
        for seed in range(3):
            fake_record(store, spec.with_seed(seed), 96 + place / 8 + seed / 16, fingerprint=now)
    before = sorted(store.path.rglob("*"))
    executed = execute("ablation_results", monkeypatch, ABLATE_RESULTS=str(store.path))
    assert len(outputs(executed, "image/png")) == 5
    tables = "".join(outputs(executed, "text/markdown"))
    assert "96.31" in tables and "No records found" not in tables
    assert sorted(store.path.rglob("*")) == before, "a notebook that reads has written"


@pytest.mark.slow
def test_results_without_records_explain_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executed = execute("ablation_results", monkeypatch, ABLATE_RESULTS=str(tmp_path / "none"))
    assert "No records found: training `pooling_size` for two epochs" in "".join(outputs(executed, "text/markdown"))
    assert len(outputs(executed, "image/png")) == 5


@pytest.mark.slow
def test_a_mixer_of_ones_own_goes_from_class_to_table(monkeypatch: pytest.MonkeyPatch) -> None:
    executed = execute("add_your_own_mixer", monkeypatch)
    text = printed(executed)
    assert "roll              every channel moved by one token  (my_mixers.py:Roll)" in text
    assert "Pooling -> Roll in the last stage" in text
    assert "9 runs, 3 have a record, 6 to train" in text, "an edited class is not another run"
    assert len(outputs(executed, "image/png")) == 1
