"""The notebooks run from top to bottom, use the public interface alone, and show what today's code shows.

They are committed with their outputs. `WRITE_GOLDEN=1 pytest -n 0 -m slow tests/contract/test_notebooks.py` runs them
and writes them again; the difference is then to be read.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from conftest import REPOSITORY
from specs import fake_record

import metaformer_ablate as ma
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.plan import plan

FOLDER = REPOSITORY / "notebooks"
NAMES = ["ablation_results", "add_your_own_mixer"]
WITH_OUTPUTS = 250_000  # bytes of a notebook at most


def notebook(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def execute(name: str, monkeypatch: pytest.MonkeyPatch, **environment: str) -> Any:
    """The notebook after all of its cells; a cell that raises fails here."""
    from nbclient import NotebookClient

    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    executed = notebook(name)
    for cell in executed.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    resources = {"metadata": {"path": str(FOLDER)}}
    NotebookClient(executed, timeout=600, kernel_name="python3", resources=resources, record_timing=False).execute()
    executed.metadata.language_info = {"name": "python"}
    assert "Traceback" not in "".join(texts(executed))
    for cell in executed.cells:  # what libraries say of this machine stays here
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    return executed


def outputs(executed: Any, kind: str) -> list[str]:
    return [
        out["data"][kind] for cell in executed.cells for out in cell.get("outputs", []) if kind in out.get("data", {})
    ]


def texts(executed: Any) -> list[str]:
    """What each output says, figures apart: as HTML where it is that."""
    found = []
    for cell in executed.cells:
        for out in cell.get("outputs", []):
            data = out.get("data", {"text/plain": out.get("text", "")})
            found.append("a figure" if "image/png" in data else data.get("text/html", data.get("text/plain", "")))
    return found


def compare_or_write(name: str, executed: Any, same: re.Pattern[str]) -> None:
    """Holds a notebook's committed outputs to those of today, but for what matches `same`."""
    if os.environ.get("WRITE_GOLDEN"):
        nbformat.write(executed, FOLDER / f"{name}.ipynb")
    here, there = ([same.sub("", text) for text in texts(each)] for each in (executed, notebook(name)))
    assert here == there


def test_these_are_all() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_its_outputs_and_is_small(name: str) -> None:
    cells = notebook(name).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run it from top to bottom"
    assert not any(out["output_type"] == "error" for cell in code for out in cell.outputs)
    assert (FOLDER / f"{name}.ipynb").stat().st_size < WITH_OUTPUTS
    assert all(before.cell_type == "markdown" for before in cells[:1])
    assert "/tmp/" not in "".join(texts(notebook(name)))


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_uses_the_public_interface_alone(name: str) -> None:
    """No function of its own, no shell, nothing of the package but what `metaformer_ablate` names."""
    for cell in notebook(name).cells:
        if cell.cell_type != "code":
            continue
        source = cell.source
        if source.startswith("%%writefile"):
            path, _, source = source.partition("\n")
            if not path.endswith(".py"):
                continue
        else:
            assert not re.search(r"^\s*(def|class|lambda)\b|^[!%]", source, re.MULTILINE), source
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                ours = [alias.name for alias in node.names if alias.name.startswith("metaformer_ablate")]
                assert ours in ([], ["metaformer_ablate"])
            elif isinstance(node, ast.ImportFrom):
                assert not str(node.module).startswith("metaformer_ablate")
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ma":
                assert node.attr in ma.__all__


@pytest.mark.slow
def test_results_of_the_committed_study(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ABLATE_RESULTS", raising=False)
    before = sorted((REPOSITORY / "results").rglob("*"))
    executed = execute("ablation_results", monkeypatch)
    assert len(outputs(executed, "image/png")) == 5
    compare_or_write("ablation_results", executed, re.compile("$^"))
    assert sorted((REPOSITORY / "results").rglob("*")) == before, "a notebook that reads has written"


@pytest.mark.slow
def test_results_of_records_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, chosen = Store(tmp_path / "results"), plan("table5", "cifar10_small")
    now = DataFolder.choose(None).fingerprint("cifar10")
    for place, spec in enumerate(chosen.specs.values()):
        for seed in range(3):
            fake_record(store, spec.with_seed(seed), 96 + place / 8 + seed / 16, fingerprint=now)
    executed = execute("ablation_results", monkeypatch, ABLATE_RESULTS=str(store.path))
    assert len(outputs(executed, "image/png")) == 5
    assert "96.31" in "".join(outputs(executed, "text/html")) and "No records found" not in "".join(texts(executed))


@pytest.mark.slow
def test_results_without_records_explain_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executed = execute("ablation_results", monkeypatch, ABLATE_RESULTS=str(tmp_path / "none"))
    assert "No records found: trained pooling_size for two epochs" in "".join(texts(executed))
    assert any(re.match(r"8 runs: 8 ok; \d+ (s|min)$", text) for text in texts(executed)), "what is left of the bar"
    assert len(outputs(executed, "image/png")) == 5


@pytest.mark.slow
def test_a_mixer_of_ones_own_goes_from_class_to_table(monkeypatch: pytest.MonkeyPatch) -> None:
    executed = execute("add_your_own_mixer", monkeypatch)
    said = texts(executed)
    assert "1.82 G multiply-adds per image" in "".join(said)
    assert "Pooling -&gt; Roll in the last stage" in "".join(said)
    assert (
        "{'pooling': ['ok', 'ok', 'ok'],\n 'roll': ['missing', 'missing', 'missing'],\n"
        " 'roll_last': ['missing', 'missing', 'missing']}"
    ) in said, "an edited class is another run"
    assert len(outputs(executed, "image/png")) == 1
    # Another processor rounds otherwise and takes another time.
    compare_or_write("add_your_own_mixer", executed, re.compile(r"[-+]?\d+(\.\d+)?( (s|min)\b)?"))
