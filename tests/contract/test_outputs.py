"""What the commands print about the committed study, where results/tables and results/figures do not hold it already.

The inputs are fixed: the committed records, and the copies of the experiments and recipes in golden/experiments.
`WRITE_GOLDEN=1 pytest tests/contract` writes the files in golden/outputs again; the diff is then to be read.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from committed_study import FIRST, RESULTS
from conftest import Result, Terminal

from metaformer_ablate import __version__
from metaformer_ablate.cli.main import main
from metaformer_ablate.spec.plan import plan

GOLDEN = Path(__file__).resolve().parent / "golden"
OF_STUDY = "table5 --recipe cifar10_small --seeds 5"
COMMANDS = {
    "table.txt": f"table {OF_STUDY}",
    "table.html": f"table {OF_STUDY} --format html",
    "table-transposed.tex": f"table {OF_STUDY} --columns row,top1,difference --digits 1 --transposed --format latex",
    "table-sorted.txt": f"table {OF_STUDY} --columns row,top1,n,difference,p,paper --sort -top1",
    "table-images.txt": f"table {OF_STUDY} --images --power 1",
    "runs.txt": "table pooling_size --recipe cifar10_small --seeds 2 --runs",
    "runs.json": "table pooling_size --recipe cifar10_small --seeds 2 --runs --json",
    "table-without-records.txt": "table pooling_size --recipe digits",
    "compare.txt": "compare cifar10_small paper table5",
    "compare.csv": "compare cifar10_small paper table5 --format csv",
    "compare.tex": "compare cifar10_small paper table5 --format latex",
    "compare.html": "compare cifar10_small paper table5 --format html",
    "compare.json": "compare cifar10_small paper table5 --json",
    "explain.txt": "explain table5 identity",
    "explain-imagenet.txt": "explain table5 ppaa --recipe imagenet",
    "explain.json": "explain table5 identity --json",
    "show.txt": f"show {OF_STUDY}",
    "show.json": f"show {OF_STUDY} --json",
    "status.txt": f"status {OF_STUDY}",
    "status.json": f"status {OF_STUDY} --json",
    "sweep.yaml": "sweep table5 --recipe cifar10_small --seeds 2",
}
NUMBER = re.compile(r"(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)")


def alike(here: str, there: str) -> bool:
    """The same text but for the last digits of fractions, which another processor may round otherwise."""

    def same(a: str, b: str) -> bool:
        return a == b or ("." in a and "." in b and math.isclose(float(a), float(b), rel_tol=1e-9, abs_tol=1e-12))

    # The odd pieces are the numbers.
    pieces, others = NUMBER.split(here), NUMBER.split(there)
    return len(pieces) == len(others) and all(
        same(a, b) if i % 2 else a == b for i, (a, b) in enumerate(zip(pieces, others, strict=True))
    )


def check(name: str, text: str) -> None:
    """Compares a text with the golden file of a name, or writes the file on request."""
    path = GOLDEN / "outputs" / name
    if os.environ.get("WRITE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    golden = path.read_text(encoding="utf-8")
    assert alike(text, golden) or text == golden  # the second shows the difference


def copy_of(folder: Path, run_ids: list[str]) -> Path:
    """A folder with the copies of the experiments and with records of the study, and nothing else."""
    shutil.copytree(GOLDEN / "experiments", folder / "experiments")
    for run_id in run_ids:
        shutil.copytree(RESULTS / "runs" / run_id, folder / "results" / "runs" / run_id)
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of(tmp_path_factory.mktemp("study"), FIRST.ids())


def without_versions(text: str) -> Any:
    """The JSON of `show` without the operators that were not counted: their names are those of a version of torch."""
    tree = json.loads(text)
    for row in tree["rows"]:
        assert row.pop("uncounted")
    return json.dumps(tree, indent=1) + "\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_output(name: str, ablate: Callable[..., Result], study: Path, tmp_path: Path) -> None:
    # A table shows counts that another test may have cached; `show` counts, and need not do so again.
    env = None if name.startswith("show") else {"XDG_CACHE_HOME": str(tmp_path)}
    done = ablate(*shlex.split(COMMANDS[name]), cwd=study, env=env)
    assert done.code == 0, done.err
    text = done.out.replace(str(study.resolve()), "FOLDER").replace(sys.executable, "PYTHON")
    check(name, without_versions(text) if name == "show.json" else text)


@pytest.mark.parametrize("width", [80, 120])
def test_table_in_a_terminal(width: int, monkeypatch: pytest.MonkeyPatch, study: Path) -> None:
    """The file of 80 columns is 110 wide: in fewer, columns would be left out."""
    monkeypatch.chdir(study)
    monkeypatch.setenv("COLUMNS", str(width))
    with redirect_stdout(Terminal()) as out, pytest.raises(SystemExit) as stop:
        main(["table", *shlex.split(OF_STUDY)])
    assert not stop.value.code
    check(f"table-{width}.txt", out.getvalue())


def within(part: Any, whole: Any) -> bool:
    """Whether everything in a tree is in another one, which may have more keys."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and within(value, whole[key]) for key, value in part.items())
    return part == whole


def test_list_still_has_what_it_had(ablate: Callable[..., Result], study: Path) -> None:
    """A new mixer, norm, activation, model, experiment or recipe may come; none goes, and none changes."""
    done = ablate("list", "--json", cwd=study)
    path = GOLDEN / "outputs" / "list.json"
    if os.environ.get("WRITE_GOLDEN"):
        path.write_text(done.out, encoding="utf-8")
    assert within(json.loads(path.read_text(encoding="utf-8")), done.json)


def shell_of(page: str) -> str:
    """A report without what a browser draws or runs, a tag a line where rows and paragraphs end."""
    page = re.sub(r"<style>.*?</style>|<script.*?</script>|<svg.*?</svg>", "", page, flags=re.DOTALL)
    page = re.sub(r"<meta [^>]*Content-Security-Policy[^>]*>", "", page)
    page = page.replace(f"metaformer_ablate {__version__}", "metaformer_ablate VERSION")
    return re.sub(r"(</(?:tr|p|li|h[1-6]|section|thead|table|details|summary)>)(?!\n)", r"\1\n", page)


def test_report(ablate: Callable[..., Result], tmp_path: Path) -> None:
    """Of two seeds of two rows, for figures take long. A new experiment that shares these runs changes the page."""
    chosen = plan("table5", "cifar10_small")
    runs = [chosen.spec(row, seed).run_id for row in ("baseline", "identity") for seed in (0, 1)]
    folder = copy_of(tmp_path, runs)
    done = ablate("report", cwd=folder)
    assert done.code == 0, done.err
    check("report.html", shell_of((folder / "report.html").read_text(encoding="utf-8")))
