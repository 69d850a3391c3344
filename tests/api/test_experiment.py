"""Experiments in Python: `load_experiment` and what it gives, held to what the commands print."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY_WORDS, Result, Trained
from matplotlib.figure import Figure

import metaformer_ablate as ma
from metaformer_ablate.drawing.canvas import to_bytes

Ablate = Callable[..., Result]

TINY = {
    "train": {"epochs": 1, "warmup_epochs": 0, "batch_size": 64, "lr": 2e-2},
    "model.depths": (1, 1, 1, 1),
    "model.dims": [8, 8, 16, 16],
    "data.image_size": 8,
}


def of(trained: Trained) -> ma.Experiment:
    return ma.load_experiment("pooling_size", overrides=TINY, results=trained.results)


def test_overrides_as_a_mapping_are_those_of_the_command_line(trained: Trained) -> None:
    study = of(trained)
    assert study.rows == ("pool3", "pool5", "pool7", "pool9") and study.baseline == "pool3"
    words = ma.load_experiment("pooling_size", overrides=TINY_WORDS, results=trained.results)
    assert {row: study.spec(row).run_id for row in study.rows} == {row: words.spec(row).run_id for row in words.rows}
    assert {state.status for states in study.states().values() for state in states} == {"ok"}
    assert "4 rows, 8 runs with a record" in repr(study) and "train.epochs=1" in repr(study)


def test_the_table_is_that_of_the_command(trained: Trained, ablate: Ablate) -> None:
    table = of(trained).table()
    printed = ablate("table", *trained.arguments, "--json").json
    assert table.to_json() == printed
    assert str(table) == ablate("table", *trained.arguments).out
    assert table._repr_html_() == ablate("table", *trained.arguments, "--format", "html").out
    assert table.to_latex() == ablate("table", *trained.arguments, "--format", "latex").out
    frame = table.to_frame()
    assert list(frame.index) == [row["name"] for row in printed["rows"]]
    assert frame.loc["pool5", "mean"] == printed["rows"][1]["mean"] == table.row("pool5").mean
    assert frame.loc["pool9", "delta_mean"] == table.row("pool9").delta.mean
    assert table.sorted("-top1").rows[0].mean == max(row.mean for row in table.rows)


def test_a_figure_is_that_of_the_command(trained: Trained, ablate: Ablate, tmp_path: Path) -> None:
    study = ma.load_experiment("pooling_size", overrides=TINY_WORDS, results=trained.results)
    figure = study.plot("cost", x="params")
    assert isinstance(figure, Figure)
    out = tmp_path / "cost.png"
    ablate("plot", *trained.arguments, "--kind", "cost", "--x", "params", "--out", str(out))
    assert to_bytes(figure, "png") == out.read_bytes()
    assert figure._repr_png_().startswith(b"\x89PNG")
    numbers = ablate("plot", *trained.arguments, "--json").json["figures"]
    drawn = study.figure_data()
    assert all(each.pop("caption") for each in numbers.values())  # of the figure as the command would draw it
    assert json.loads(json.dumps({kind: data.to_json() for kind, data in drawn.items()})) == numbers


def test_counts_and_results(trained: Trained, ablate: Ablate) -> None:
    study = of(trained)
    cost = {line["name"]: line for line in ablate("cost", *trained.arguments[:-2], "--no-speed", "--json").json["rows"]}
    assert {row: (each.params, each.macs) for row, each in study.counts().items()} == {
        row: (line["params"], line["macs"]) for row, line in cost.items()
    }
    frame = ma.load_results(trained.results, "pooling_size", overrides=TINY)
    assert frame.equals(study.results()) and len(frame) == 8


def test_it_trains_what_is_missing(trained: Trained, tmp_path: Path) -> None:
    study = ma.load_experiment("pooling_size", overrides=TINY, results=tmp_path / "here")
    assert study.run(seeds=[1], workers=0, progress=False) is study
    assert [row.runs[0].seed for row in study.table().rows] == [1] * 4
    before = of(trained)
    for row in study.rows:
        here, there = study.store.read(study.spec(row, 1).run_id), before.store.read(before.spec(row, 1).run_id)
        assert here.data["metrics"] == there.data["metrics"]
    begun = {path: path.stat().st_mtime_ns for path in (tmp_path / "here").rglob("record.json")}
    study.run(seeds=[1], workers=0, progress=False)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "here").rglob("record.json")} == begun


def test_a_failed_run_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from metaformer_ablate.runs.runner import Runner

    def fail(*_: object) -> None:
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(Runner, "fit", fail)
    study = ma.load_experiment("pooling_size", overrides=TINY, results=tmp_path)
    with pytest.warns(UserWarning, match=r"failed: run .* ZeroDivisionError: on purpose; .*retry_failed=True"):
        study.run(workers=0, progress=False)
    assert [row.status for row in study.table().rows] == ["failed"] * 4


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: ma.load_experiment("pooling"), "unknown experiment 'pooling' (did you mean 'pooling_size'?)"),
        (lambda: ma.load_experiment("pooling_size", "digit"), "unknown recipe 'digit' (did you mean 'digits'?)"),
        (
            lambda: ma.load_experiment("pooling_size", overrides={"train.epoch": 2}),
            "overrides: unknown key 'train.epoch' (did you mean 'train.epochs'?)",
        ),
        (
            lambda: ma.load_experiment("pooling_size", overrides={"train.epochs": "two"}),
            "overrides: row 'pool3': train.epochs is 'two' (a string); allowed: an integer of at least 1",
        ),
        (lambda: ma.load_experiment("pooling_size", results=__file__), f"results is {__file__!r}, which is not a"),
        (lambda: ma.load_experiment("pooling_size", data="nowhere"), "data is 'nowhere', which is not a folder"),
        (lambda: ma.load_experiment("pooling_size").spec("pool4"), "unknown row 'pool4'"),
        (lambda: ma.load_experiment("pooling_size").table(metric="top2"), "unknown metric of classification 'top2'"),
        (lambda: ma.load_experiment("pooling_size").table(power=0), "power is 0; allowed: a difference in points"),
        (lambda: ma.load_experiment("pooling_size").plot("row"), "unknown kind of figure 'row'"),
        (lambda: ma.load_experiment("pooling_size").plot("rows", x="macs"), "has no option 'x'"),
        (lambda: ma.load_experiment("pooling_size").run(seeds=[0, 0]), "seed 0 is repeated"),
        (lambda: ma.load_experiment("pooling_size").run(seeds=0), "allowed: a number of seeds"),
        (lambda: ma.load_experiment("pooling_size").run(workers=-1), "workers is '-1'; allowed: an integer"),
        (lambda: ma.load_experiment("pooling_size").run(max_hours=0), "max_hours is 0; allowed: a number above 0"),
        (lambda: ma.load_experiment("pooling_size").table().to_latex(columns=["rows"]), "unknown column 'rows'"),
        (
            lambda: ma.load_experiment("pooling_size").table().to_text("txt"),
            "style: unknown format 'txt' (did you",
        ),
        (lambda: ma.load_experiment("pooling_size").table().to_text(digits=9), "digits is 9; allowed: an integer"),
        (lambda: ma.load_experiment("pooling_size").table().to_latex(fit="colum"), "fit: unknown width 'colum' (did"),
        (lambda: ma.load_experiment("pooling_size").table().to_latex(label="a}"), "label is 'a}'; allowed: letters"),
        (
            lambda: ma.load_experiment("pooling_size").plot("rows", look=ma.Look(width=99)),
            "the width is 99 in",
        ),
        (lambda: ma.load_experiment("pooling_size").table().row("pool4"), "unknown row 'pool4'"),
    ],
)
def test_bad_input_is_one_sentence(call: object, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as raised:
        call()  # type: ignore[operator]
    assert type(raised.value) is ma.RequestError
    assert said in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.slow
def test_a_script_without_a_guard_trains_with_workers(tmp_path: Path) -> None:
    """Workers are spawned, which imports the main module again, unless it is kept from them."""
    script = tmp_path / "script.py"
    script.write_text(
        "import metaformer_ablate as ma\n"
        "print('read')\n"
        f"study = ma.load_experiment('pooling_size', overrides={TINY!r}, results='results')\n"
        "study.run(workers=1)\n"
        "print(study.table().row('pool3').n)\n"
    )
    done = subprocess.run([sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "read\n1\n"), done.stderr


def test_the_package_tells_of_itself_without_loading_anything(tmp_path: Path) -> None:
    program = (
        "import sys, metaformer_ablate as ma\n"
        "heavy = {'torch', 'pandas', 'numpy', 'pydantic', 'matplotlib', 'timm'}\n"
        "assert not heavy & set(sys.modules)\n"
        "assert set(ma.__all__) <= set(dir(ma))\n"
        "study = ma.load_experiment('pooling_size'); study.table(); repr(study)\n"
        "assert 'torch' not in sys.modules and 'matplotlib' not in sys.modules\n"
        "assert all(getattr(ma, name).__doc__ for name in ma.__all__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ma.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_what_type_checkers_see_is_what_is_loaded() -> None:
    """The imports for type checkers and the table of homes name the same."""
    import ast

    source = ast.parse(Path(ma.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in source.body if isinstance(node, ast.If))
    typed = {alias.name: node.module for node in block.body for alias in node.names}
    assert sorted(typed) == ma.__all__ == sorted(ma._HOMES)
    assert {name: module.partition(".")[2] for name, module in typed.items()} == ma._HOMES
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(getattr(ma, name) is not None for name in ma.__all__)
