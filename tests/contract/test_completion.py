"""What a real bash offers when Tab is pressed, through the script that `_ABLATE_COMPLETE=bash_source ablate` prints."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, Trained
from loaded_modules import MAIN, REPORT

from metaformer_ablate.cli.completion import listed_values
from metaformer_ablate.models.components import MIXERS
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.experiment import find_all, load_experiment

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")

# Bash asks as if Tab was pressed after the last word; its `compopt` works in a real completion alone.
ASK = """
eval "$(_ABLATE_COMPLETE=bash_source ablate)"
compopt() { echo "compopt $1 $2" >&2; }
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_ablate_completion ablate
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def offered(tmp_path: Path):
    """offered("run", "po") is what bash offers for `ablate run po` and Tab. Words as bash splits them: at `=` too."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "ablate"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from metaformer_ablate.cli.main import main\nmain()\n"
    )
    program.chmod(0o755)

    def ask(*words: str, stays_open: bool | None = None) -> list[str]:
        done = subprocess.run(
            ["bash", "--norc", "-c", ASK, "bash", "ablate", *words],
            env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        if stays_open is not None:
            assert ("compopt -o nospace" in done.stderr) == stays_open
        return [line for line in done.stdout.splitlines() if line]

    return ask


def test_commands_and_options(offered) -> None:
    assert offered("s") == ["show", "status", "sweep", "sync-wandb"]
    assert {"--seeds", "--slurm", "--stall-minutes"} == set(offered("run", "--s"))


def test_experiments_rows_and_recipes(offered, tmp_path: Path) -> None:
    assert offered("run", "") == list(find_all("experiment"))
    assert offered("table", "pool", stays_open=False) == ["pooling_size"]
    assert offered("explain", "pooling_size", "") == list(load_experiment("pooling_size").rows)
    assert offered("run", "table5", "--recipe", "cifar100") == ["cifar100"]
    assert offered("compare", "digits", "pap") == ["paper"]
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.yaml").write_text("title: Mine\nbaseline: a\nrows: {a: {}}\n")
    assert offered("run", "min") == ["mine"]


def test_settings_and_their_values(offered) -> None:
    """A key stays open for its value, a section for its keys; `=` is a word of its own for bash."""
    assert offered("run", "pooling_size", "dat", stays_open=True) == ["data."]
    assert offered("run", "pooling_size", "train.sched", stays_open=True) == ["train.schedule=", "train.schedule_unit="]
    assert offered("run", "pooling_size", "train.schedule", "=") == ["cosine", "constant", "step", "poly"]
    assert offered("show", "pooling_size", "train.schedule", "=", "co") == ["cosine", "constant"]
    assert offered("run", "table5", "model.token_mixer", "=") == list(MIXERS)
    assert offered("run", "table5", "model.residual", "=", "t") == ["true"]
    assert offered("cost", "table5", "model.size", "=", "m") == ["m36", "m48"]
    assert offered("run", "table5", "train.lr", "=") == []


def test_parts_of_the_list(offered) -> None:
    assert offered("list", "m") == ["mixers", "models"]
    assert offered("list", "mixers", "p") == ["pooling"]
    assert offered("list", "settings", "tr", stays_open=True) == ["train."]
    assert offered("list", "settings", "train.lr") == ["train.lr"]


def test_runs_are_those_of_the_results(offered, trained: Trained) -> None:
    ids = Store(trained.results).ids()
    assert offered("errors", "--results", str(trained.results), "") == ids
    assert offered("rm", "--results", str(trained.results), ids[2][:6]) == [ids[2]]


def test_values_of_options(offered) -> None:
    assert offered("table", "table5", "--format", "l") == ["latex"]
    assert offered("run", "table5", "--launcher", "=", "s") == ["slurm"]
    assert offered("plot", "table5", "--kind", "c") == ["curves", "cost"]


def test_a_line_that_makes_no_sense_gets_no_offer(offered, tmp_path: Path) -> None:
    assert offered("nosuch", "x") == []
    assert offered("explain", "nosuch", "") == []
    assert offered("run", "table5", "--max-hours", "abc", "--seeds", "") == []
    (tmp_path / "parts.yaml").write_text("token_mixers: 3\n")
    assert offered("run", "table5", "model.token_mixer", "=") == []


def test_completing_loads_nothing_heavy(tmp_path: Path) -> None:
    words = shlex.join(["ablate", "run", "table5", "model.token_mixer="])
    done = subprocess.run(
        [sys.executable, "-c", MAIN + REPORT.format(heavy=("torch", "timm", "pandas", "matplotlib", "sklearn"))],
        env={**os.environ, "_ABLATE_COMPLETE": "zsh_complete", "COMP_WORDS": words, "COMP_CWORD": "3"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    *offered, modules = [line for line in done.stdout.splitlines() if line]
    assert "model.token_mixer=pooling" in offered
    assert json.loads(modules) == []


def test_lists_of_values_are_told_from_sentences() -> None:
    assert listed_values("fp32, bf16 or auto (bf16 on GPUs that have it)") == ["fp32", "bf16", "auto"]
    assert listed_values("one name or one per stage, of: pooling, identity") == ["pooling", "identity"]
    assert listed_values("true or false: flip left to right at random") == ["true", "false"]
    assert listed_values("test, or holdout (every tenth image)") == ["test", "holdout"]
    assert listed_values("a number above 0, or null for none") == []
