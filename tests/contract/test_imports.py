"""What a command loads. Torch and Lightning take seconds: whoever only asks or reads a table does not wait for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import REPOSITORY, Trained
from loaded_modules import MAIN, loaded


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"], ["list"], ["list", "--json"]])
def test_asking_loads_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    assert loaded(MAIN, *arguments, cwd=tmp_path) == []


def test_a_table_without_records_loads_nothing_heavy(tmp_path: Path) -> None:
    assert loaded(MAIN, "table", "pooling_size", cwd=tmp_path) == []


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_table_of_records_loads_nothing_heavy(trained: Trained, style: str, tmp_path: Path) -> None:
    assert loaded(MAIN, "table", *trained.arguments, "--format", style, cwd=tmp_path) == []


def test_a_report_of_records_loads_nothing_heavy(trained: Trained, tmp_path: Path) -> None:
    assert loaded(MAIN, "report", "--results", trained.results, cwd=tmp_path) == []


def test_counts_that_are_known_load_nothing_heavy(trained: Trained, tmp_path: Path) -> None:
    """`show`, and `run` where nothing is left: they need the counts, which are cached by then."""
    assert loaded(MAIN, "run", *trained.arguments, "--seeds", "2", cwd=tmp_path) == []
    assert loaded(MAIN, "show", *trained.arguments, cwd=tmp_path) == []


@pytest.mark.parametrize(
    "module", ["cli.main", "spec.resolve", "spec.plan", "records.store", "sweep.scheduler", "sweep.progress"]
)
def test_modules_that_only_ask_and_read_load_nothing_heavy(module: str, tmp_path: Path) -> None:
    program = f"import json, sys\nimport metaformer_ablate.{module}\n"
    assert loaded(program, cwd=tmp_path) == []


def test_resolving_a_recipe_with_a_common_optimizer_loads_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import json, sys\nfrom metaformer_ablate.spec.plan import plan\n"
        "plan('pooling_size', 'digits', ['train.optimizer=momentum', 'train.optimizer_args={momentum: 0.8}'])\n"
    )
    assert loaded(program, cwd=tmp_path) == []


def test_the_test_can_tell(tmp_path: Path) -> None:
    program = "import json, sys\nimport metaformer_ablate.models.mixers\n"
    assert "torch" in loaded(program, cwd=tmp_path)
    assert (REPOSITORY / "metaformer_ablate/models/mixers.py").is_file()
