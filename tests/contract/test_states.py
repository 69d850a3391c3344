"""Empty and partial states: what the commands say where there is nothing to show, or not all of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from committed_study import RESULTS
from conftest import Result, Trained
from specs import fake_record, spec_of

from metaformer_ablate.records.checkpoints import LAST
from metaformer_ablate.records.claims import Claims, Progress
from metaformer_ablate.records.names import names_of
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.system.processes import of_this_process

Ablate = Callable[..., Result]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


def fill(store: Store, *runs: tuple[str, int]) -> list[str]:
    """Records of rows of `pooling_size` by name and seed; their ids."""
    chosen = plan("pooling_size")
    return [fake_record(store, chosen.spec(row, seed), 90.0 + seed).run_id for row, seed in runs]


# Nothing to show


def test_a_figure_of_nothing_is_not_drawn(ablate: Ablate, store: Store, tmp_path: Path) -> None:
    for words in ([], ["--kind", "rows"], ["--kind", "rows", "--out", "rows.png"]):
        done = ablate("plot", "pooling_size", *words)
        assert (done.code, done.out) == (1, "")
        assert "nothing to draw: there are no runs in results; `ablate run pooling_size` trains those" in done.err
    fill(store, ("pool3", 0))
    other = ablate("plot", "pooling_size", "--recipe", "cifar10")
    assert (other.code, other.out) == (1, "")
    assert "none of the 1 runs in results is of pooling_size under cifar10; there are runs under digits" in other.err
    assert "of it with other seeds" in ablate("plot", "pooling_size", "--seeds", "7,").err
    assert "of it without these overrides" in ablate("plot", "pooling_size", "train.epochs=3").err
    assert not list(tmp_path.rglob("*.png"))


def test_a_figure_against_no_paper_is_refused_and_left_out(
    ablate: Ablate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ablate("init", "mine").code == 0
    for row, top1 in (("pooling", 90.0), ("identity", 91.0)):
        fake_record(Store(tmp_path / "results"), plan("mine").spec(row, 0), top1)
    refused = ablate("plot", "mine", "--kind", "paper")
    assert refused.sentence.startswith("--kind paper: mine has no Top-1 of a paper for its baseline and another row")
    done = ablate("plot", "mine", "--format", "svg")
    assert done.code == 0
    assert [Path(line).name for line in done.out.splitlines()] == [
        f"mine-digits-{kind}.svg" for kind in ("rows", "curves", "cost", "seeds")
    ]


# A seed of one row alone


def test_a_stray_seed_is_told(ablate: Ablate, store: Store) -> None:
    rows = list(plan("pooling_size").specs)
    fill(store, *((row, seed) for row in rows for seed in (0, 1)), ("pool5", 7))
    told = "seed 7 has runs of pool5 only, so other rows are partial; --seeds 2 leaves them out"
    table = ablate("table", "pooling_size", "--json").json
    assert [row["status"] for row in table["rows"]] == ["partial", "ok", "partial", "partial"]
    assert told in table["warnings"]
    assert f"warning: {told}\n" in ablate("show", "pooling_size").err
    asked = ablate("table", "pooling_size", "--seeds", "2", "--json").json
    assert not any("only" in warning for warning in asked["warnings"])
    assert [row["status"] for row in asked["rows"]] == ["ok"] * 4


def test_seeds_that_are_half_done_are_not_stray(ablate: Ablate, store: Store) -> None:
    fill(store, ("pool3", 0), ("pool5", 0))
    assert not any("only" in warning for warning in ablate("table", "pooling_size", "--json").json["warnings"])


# In and out


def test_rm_prints_what_undoes_it(ablate: Ablate, store: Store, tmp_path: Path) -> None:
    ids = fill(store, ("pool3", 0), ("pool5", 0), ("pool7", 0))
    before = {run_id: store.read(run_id) for run_id in ids}
    done = ablate("rm", ids[0], ids[1], "--results", "results")
    undo = done.out.splitlines()[-1].removeprefix("Undo: ablate ").split()
    assert undo == ["merge", f"results/aside/{ids[0]}-1", f"results/aside/{ids[1]}-1", "--results", "results"]
    assert Store(store.path).read(ids[0]) is None
    back = ablate(*undo)
    assert (back.code, back.out) == (0, "2 runs brought in, 0 were there already\n")
    assert {run_id: Store(store.path).read(run_id) for run_id in ids} == before
    assert not list((store.path / "aside").iterdir())


def test_merge_takes_the_last_of_what_lies_aside_back_and_a_run_that_never_ended(
    ablate: Ablate, store: Store, tmp_path: Path
) -> None:
    (run_id,) = fill(store, ("pool3", 0))
    assert ablate("rm", run_id).code == 0
    fake_record(store, plan("pooling_size").spec("pool3", 0), 77.0)
    stopped = store.folder("0123456789ab")
    stopped.mkdir()
    (stopped / LAST).write_bytes(b"a checkpoint")
    assert ablate("rm", run_id, "0123456789ab").code == 0
    done = ablate("merge", "results/aside")
    assert (done.code, done.out) == (0, "2 runs brought in, 0 were there already\n")
    assert store.read(run_id).value("top1") == 77.0
    assert (stopped / LAST).read_bytes() == b"a checkpoint"
    again = ablate("merge", "results/aside", "--json")
    assert (again.code, again.json["conflicts"]) == (1, [run_id]), "what was moved aside first differs from ours"
    assert (store.path / "aside" / f"{run_id}-1").is_dir()
    (tmp_path / "empty").mkdir()
    assert "no run that `ablate rm` moved aside" in ablate("merge", "empty").sentence


# Names


def test_a_run_is_named_by_the_row_that_shows_it() -> None:
    chosen, other = plan("table5", "cifar10_small"), plan("table5", "cifar10_small", ["train.epochs=2", "train.lr=0.5"])
    specs = [chosen.spec("identity", 3), other.spec("identity", 1), spec_of({"model.dims": [4, 4, 4, 4]}, seed=2)]
    names = list(names_of(specs).values())
    assert [str(name) for name in names] == [
        "table5/identity seed 3",
        "table5/identity with train.epochs=2 train.lr=0.5, seed 1",
        "seed 2",
    ]
    assert names[0].rows == ("table5/identity", "token_mixers/identity") and names[0].recipe == "cifar10_small"
    assert names_of(specs[1:2], closest=False)[specs[1].run_id].rows == ()


def test_errors_names_runs_and_leaves_no_figures_of_another_call(ablate: Ablate, undrawn: None, tmp_path: Path) -> None:
    chosen = plan("table5", "cifar10_small")
    first, second = (chosen.spec(row, 0).run_id for row in ("identity", "ppaa"))
    words = ["--results", RESULTS, "--out", "out"]
    both = ablate("errors", first, "--against", second, *words)
    assert both.code == 0, both.err
    assert both.out.startswith(f"table5/identity seed 0 (run {first}) on cifar10 ")
    assert f"Against table5/ppaa seed 0 (run {second}): " in both.out
    assert (tmp_path / "out" / "against.png").exists()
    (tmp_path / "out" / "mine.png").write_bytes(b"of the user")
    alone = ablate("errors", first, *words, "--json").json
    assert alone["name"] == "table5/identity seed 0"
    there = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert there == {*alone["figures"], "mine.png"} and "against.png" not in there


def test_the_title_of_a_figure_names_the_run() -> None:
    from metaformer_ablate.records.names import with_names
    from metaformer_ablate.tasks.classification.error_analysis.command import ErrorAnalysis

    record = Store(RESULTS).find(plan("table5", "cifar10_small").spec("identity", 0).run_id)
    named = ErrorAnalysis(*with_names([record]))
    unnamed = ErrorAnalysis(record)
    titles = [made.figures["classes"].axes[0].get_title(loc="left") or made.figures["classes"].axes[0].get_title()
              for made in (named, unnamed)]  # fmt: skip
    assert titles[0].startswith(f"table5/identity seed 0 (run {record.run_id}), cifar10")
    assert titles[1].startswith(f"run {record.run_id} (identity, seed 0), cifar10")


# Status


@pytest.fixture
def in_kolkata(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """5 h 30 min ahead of UTC."""
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_status_agrees_with_itself(ablate: Ablate, store: Store, in_kolkata: None) -> None:
    chosen = plan("pooling_size")
    store.runs.mkdir(parents=True)
    running, stopped, failed = (chosen.spec(row, 0) for row in ("pool3", "pool5", "pool7"))
    fake_record(store, failed, status="failed")
    claims = Claims(store.path)
    claim, other = (claims.take(spec.run_id, f"pooling_size/{row} seed 0")
                    for row, spec in (("pool3", running), ("pool5", stopped)))  # fmt: skip
    assert claim is not None and other is not None
    other.progress = Progress(3, 12, 0.25, 0.5, {"top1": 81.0}, 40.0)
    store.folder(stopped.run_id).mkdir()
    (store.folder(stopped.run_id) / LAST).write_bytes(b"a checkpoint")
    other.leave_note()
    other.release()
    since = datetime.now(UTC).replace(hour=12, minute=40, second=0).isoformat(timespec="seconds")
    counts = {"since": since, "finished": 1, "failed": 1, "running": 2, "left": 2}
    sign = claims.folder / "sweep-here-1.json"
    sign.write_text(json.dumps(of_this_process() | counts))
    lines = ablate("status").out.splitlines()
    assert lines[0] == "results: 1 failed, 1 interrupted; 1 running, 1 starting, 1 not begun"
    assert re.fullmatch(r"sweep on \S+ \(pid \d+\) since .*18:10: 1 of its 5 runs finished, 1 of them failed", lines[1])
    assert re.fullmatch(
        rf"running {running.run_id} pooling_size/pool3 seed 0 on \S+ \(pid {os.getpid()}\): starts", lines[2]
    )
    assert lines[3] == (
        f"interrupted {stopped.run_id} pooling_size/pool5 seed 0 at epoch 3/12 (25%), top-1 81.00%: "
        f"`ablate run` goes on from its checkpoint"
    )
    assert lines[4].startswith(f"failed {failed.run_id} table5/pool7 seed 0: it failed; log "), "the larger table"
    assert ablate("status", "--json").json["names"] == {
        running.run_id: "pooling_size/pool3 seed 0",
        stopped.run_id: "pooling_size/pool5 seed 0",
        failed.run_id: "table5/pool7 seed 0",
    }
    sign.unlink()
    of_plan = ablate("status", "pooling_size", "--seeds", "2").out.splitlines()
    assert of_plan[0] == "results: 1 failed, 1 interrupted; 1 running, 5 not begun"
    again = claims.take(stopped.run_id)
    assert again is not None and claims.last_owner(stopped.run_id).progress is None, "taken up, it has another owner"
    for each in (claim, again):
        each.release()


def test_counts_of_the_report_are_those_of_the_page(ablate: Ablate, trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.results, tmp_path / "results")
    # The baseline of other experiments too, which are no tables.
    fill(Store(tmp_path / "results"), ("pool3", 0), ("pool5", 0))
    done = ablate("report")
    assert done.code == 0, done.err
    told = re.fullmatch(r"report\.html: (\d+ runs?) in (\d+ tables?), .*\n", done.out)
    assert told is not None, done.out
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.search(rf"{told[1]} \([^)]*\) in {told[2]}\.", page)
