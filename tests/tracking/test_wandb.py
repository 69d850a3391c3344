"""Weights & Biases: what it is told of runs and records, that it never fails one, sweep files, trials and agents."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY, TINY_WORDS, Result, command
from disturbed import StopAfter
from offline_wandb import PRIVATE, OfflineRun, offline_runs
from own_net import WORDS, write_net
from specs import fake_record, seal, spec_of

from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.claims import Claims
from metaformer_ablate.records.compare import compare
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.request import RunRequest, RunResult
from metaformer_ablate.settings.layers import digest
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system.signals import PatientStop, StopRequest
from metaformer_ablate.tracking import sent, tracker, tracking
from metaformer_ablate.tracking.tracking import Tracking
from metaformer_ablate.tracking.trial import plan_of, read_trial, split_trial

wandb = pytest.importorskip("wandb")
Ablate = Callable[..., Result]
ONE_ROW = "title: One\nbaseline: pool3\nrows: {pool3: {label: Pooling, set: {}}}\n"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test reaches a server or an account; nothing stays open."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield
    if wandb.run is not None:
        wandb.finish()


@pytest.fixture
def one(tmp_path: Path) -> str:
    """An experiment of one row, and the words that make it tiny."""
    (tmp_path / "one.yaml").write_text(ONE_ROW)
    return "one.yaml"


def rows_of(run: OfflineRun) -> list[dict[str, Any]]:
    """The epochs of the history without W&B's own clocks."""
    own = ("_runtime", "_timestamp")
    return [{key: v for key, v in row.items() if key not in own} for row in run.history if "epoch" in row]


def expected_rows(record: Record) -> list[dict[str, Any]]:
    """What W&B should hold of a record's history."""
    names = {"train_loss": "train/loss", "lr": "train/lr", "seconds": "train/seconds"}
    names |= {f"val_{key}": f"val/{key}" for key in ("loss", "top1", "top5")}
    rows = []
    for line in record.history():
        row = {name: line[key] for key, name in names.items()}
        rows.append({**row, "epoch": line["epoch"], "trainer/global_step": line["step"], "_step": line["step"]})
    return rows


def check_told(run: OfflineRun, record: Record) -> None:
    """The W&B run holds the spec, the history and the record, all of each."""
    spec = record.spec()
    assert {key: run.config[key] for key in spec} == spec
    assert run.config["run_id"] == record.run_id
    assert rows_of(run) == expected_rows(record)
    told = {key: run.summary[key] for key in record.data if key != "checksums"}
    assert told == {key: value for key, value in record.data.items() if key != "checksums"}


# What is logged


def test_a_run_its_record_and_the_table(ablate: Ablate, one: str, tmp_path: Path) -> None:
    words = [word for word in TINY_WORDS if not word.startswith("train.epochs")]
    done = ablate("run", one, *words, "train.epochs=2", "--seeds", "2", "--wandb", "my-project", "--json")
    assert done.code == 0, done.err
    records = list(Store(tmp_path / "results"))
    runs = offline_runs(tmp_path / "results")
    assert [run.job_type for run in runs] == ["train", "train", "table"]
    assert {run.project for run in runs} == {"my-project"} and {run.exit_code for run in runs} == {0}
    by_id = {run.config["run_id"]: run for run in runs[:2]}
    for record in records:
        run = by_id[record.run_id]
        check_told(run, record)
        labels = {key: run.config[key] for key in ("experiment", "row", "rows", "recipe", "seed")}
        assert labels == {
            "experiment": "one",
            "row": "pool3",
            "rows": ["one/pool3"],
            "recipe": "digits",
            "seed": record.spec()["seed"],
        }
        assert run.name == f"one/pool3 seed {record.spec()['seed']}"
        assert run.id.startswith(record.run_id)
    assert len({run.group for run in runs[:2]}) == 1 and runs[0].group.startswith("one/pool3 digits ")
    table = runs[2].table()
    (line,) = [dict(zip(table["columns"], line, strict=True)) for line in table["data"]]
    (row,) = done.json["tables"][0]["rows"]
    names = {"row": "name", "n": "n", "top1 mean": "mean", "top1 std": "std", "params": "params", "status": "status"}
    assert {name: line[name] for name in names} == {name: row[key] for name, key in names.items()}
    assert [line["ci95 low"], line["ci95 high"]] == row["ci95"] and line["difference"] is None
    assert not (tmp_path / "wandb").exists()  # nothing beside the results folder
    assert not list((tmp_path / "results").rglob("wandb-metadata.json"))
    assert {run.host for run in runs} == {""}
    for run in runs:  # nor who and where
        (content,) = (path.read_bytes() for path in run.folder.glob("*.wandb"))
        for private in (str(tmp_path), sys.executable, str(REPOSITORY)):
            assert private.encode() not in content, private


def test_the_run_that_a_trial_starts_from_is_not_logged_into_the_trials(ablate: Ablate, tmp_path: Path) -> None:
    """W&B drops steps that lie behind: of the trial's own history nothing would be left."""
    recipes = tmp_path / "experiments" / "recipes"
    recipes.mkdir(parents=True)
    for name, epochs, start in (("first", 3, ""), ("second", 2, "init_from: 'recipe:first', ")):
        (recipes / f"{name}.yaml").write_text(
            f"title: {name}\ndata: {{name: digits, image_size: 8}}\n"
            f"train: {{epochs: {epochs}, batch_size: 64, warmup_epochs: 0}}\n"
            f"model: {{{start}size: t5, layer_scale: 0.1, drop_path: 0, stem: {{kernel: 3, stride: 1, padding: 1}}}}\n"
        )
    done = ablate("trial", "pooling_size", "row=pool5", "--recipe", "second", "--wandb", "p")
    assert done.code == 0, done.err
    store = Store(tmp_path / "results")
    (run,) = offline_runs(tmp_path)
    record = store.find(plan("pooling_size", str(recipes / "second.yaml")).spec("pool5", 0).run_id)
    assert len(store.ids()) == 2 and run.exit_code == 0
    check_told(run, record)


def test_without_the_option_nothing_is_told(ablate: Ablate, one: str, tmp_path: Path) -> None:
    assert ablate("run", one, *TINY_WORDS).code == 0
    assert offline_runs(tmp_path) == [] and not (tmp_path / "results" / ".wandb").exists()


def test_groups_hold_seeds_of_one_spec_only(tmp_path: Path) -> None:
    """Another recipe or override under the same row name is another group: W&B draws means over groups."""
    store = Store(tmp_path)
    how = {"project": "p", "entity": None, "mode": "offline", "rows": ["e/row"]}
    for recipe, spec in (("digits", spec_of()), ("digits", spec_of(seed=1)), ("digits", spec_of({"train.epochs": 7}))):
        with Tracking().run({**how, "recipe": recipe}, spec, store, None, {}):
            pass
    groups = [run.group for run in offline_runs(tmp_path)]
    assert len(groups) == 3 and len(set(groups)) == 2


def test_losses_of_single_steps(ablate: Ablate, one: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker, "LOSS_EVERY", 1)
    assert ablate("run", one, *TINY_WORDS, "--wandb").code == 0
    (record,) = Store(tmp_path / "results")
    history = offline_runs(tmp_path)[0].history
    assert [row["_step"] for row in history] == list(range(1, 23))
    losses = [row["train/loss_step"] for row in history[:-1]]
    last = 22 * record.history()[0]["train_loss"] - sum(losses)  # what the mean of the epoch leaves for it
    assert min(losses) / 2 < last < max(losses) * 2


# Resuming


def execute(spec: RunSpec, results: Path, stop: StopRequest) -> RunResult:
    from metaformer_ablate.runs.worker import execute

    how = {"project": "p", "entity": None, "mode": "offline", "rows": ["one/pool3"], "recipe": "digits"}
    return execute(RunRequest(spec.with_execution(), str(results), None, "cpu", "a run", spec.run_id, wandb=how), stop)


def test_a_run_that_is_resumed_goes_on_in_the_same_wandb_run(tmp_path: Path) -> None:
    spec = spec_of({"train.epochs": 3}, words=TINY_WORDS)
    assert execute(spec, tmp_path, StopAfter(30)).outcome == "stopped"
    assert execute(spec, tmp_path, StopRequest()).outcome == "recorded"
    record = Store(tmp_path).read(spec.run_id)
    before, after = offline_runs(tmp_path)
    assert record is not None and before.id == after.id
    assert (before.preempting, before.exit_code) == (True, 1)
    assert (after.preempting, after.exit_code) == (False, 0)
    assert [row["_step"] for row in before.history] == [22]
    assert [row["_step"] for row in after.history] == [22, 44, 50, 66]
    check_told(after, record)  # a file for itself, with the epoch before the checkpoint: the same numbers at its step
    assert rows_of(before) == rows_of(after)[:1]


class Online:
    """A W&B run that was resumed: W&B has steps up to some."""

    def __init__(self, step: int):
        self.step, self.rows = step, []
        self.summary: dict[str, Any] = {}

    def log(self, values: dict[str, Any], step: int) -> None:
        assert step >= self.step, "W&B drops steps that it has passed"
        self.step = step + 1
        self.rows.append((step, values))


def test_what_wandb_has_already_is_not_told_again(tmp_path: Path) -> None:
    record = fake_record(Store(tmp_path), spec_of())  # steps 44 and 88
    for known, told in ((0, [44, 88]), (45, [88]), (89, [])):
        run = Online(known)
        of_run = tracker.Tracker(run, broken)
        of_run.epoch(record.history()[0])
        of_run.end(record)
        assert [step for step, _ in run.rows] == told
        assert run.summary["status"] == "ok"


def test_the_id_follows_from_the_run_the_project_the_data_and_the_versions() -> None:
    one = tracking.wandb_id("0123456789ab", "p", "f", {"torch": "1"})
    assert one == tracking.wandb_id("0123456789ab", "p", "f", {"torch": "1"})
    others = [("0123456789ac", "p", "f", {"torch": "1"}), ("0123456789ab", "q", "f", {"torch": "1"})]
    others += [("0123456789ab", "p", "g", {"torch": "1"}), ("0123456789ab", "p", "f", {"torch": "2"})]
    assert len({one, *(tracking.wandb_id(*other) for other in others)}) == 5


# Failures


def broken(*arguments: Any, **options: Any) -> None:
    raise wandb.errors.CommError("made to fail")


@pytest.mark.parametrize("where", ["init", "log", "summary", "finish", "exit"])
def test_a_failing_wandb_fails_no_run(
    where: str, ablate: Ablate, one: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        if where == "init":
            patch.setattr(wandb, "init", broken)
        elif where == "exit":
            patch.setattr(wandb, "init", lambda **options: sys.exit(1))
        elif where == "summary":
            patch.setattr("wandb.sdk.wandb_summary.SummaryDict.update", broken)
        else:
            patch.setattr(f"wandb.sdk.wandb_run.Run.{where}", broken)
        done = ablate("run", one, *TINY_WORDS, "--seeds", "2", "--wandb")
    assert done.code == 0, done.err
    assert [record.status for record in Store(tmp_path / "results")] == ["ok", "ok"]
    warnings = [line for line in done.err.splitlines() if line.startswith("warning:")]
    assert len(warnings) == 1 and "W&B failed; runs go on without it" in warnings[0], done.err
    assert not list((tmp_path / "results" / ".wandb").glob("*.json"))  # none of them counts as sent


def test_after_a_failure_the_next_run_does_not_go_into_the_same_wandb_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, how = Store(tmp_path), {"project": "p", "entity": None, "mode": "offline"}
    of_process = Tracking()
    with of_process.run(how, spec_of(), store, None, {}) as of_run, monkeypatch.context() as patch:
        assert of_run is not None
        patch.setattr("wandb.sdk.wandb_run.Run.log", broken)
        of_run.end(fake_record(store, spec_of()))
        assert of_run.run is None
    record = fake_record(store, spec_of(seed=1), top1=12.0)
    with of_process.run(how, spec_of(seed=1), store, None, {}) as of_run:
        assert of_run is not None
        of_run.end(record)
    first, second = offline_runs(tmp_path)
    assert first.history == [] and first.id != second.id
    check_told(second, record)


def test_without_wandb_a_run_goes_on(ablate: Ablate, one: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    done = ablate("run", one, *TINY_WORDS, "--wandb")
    assert done.code == 0
    assert [line for line in done.err.splitlines() if line.startswith("warning:")] == [
        "warning: wandb cannot be used, so nothing is logged to it (ModuleNotFoundError: import of wandb halted; "
        "None in sys.modules)"
    ]


@pytest.mark.parametrize(
    ("login", "mode"), [(lambda **k: True, "online"), (lambda **k: False, "offline"), (broken, "offline")]
)
def test_online_only_with_a_login_and_a_network(
    login: Any, mode: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr(wandb, "login", login)
    how = Tracking().resolve(None, recipe="digits")
    assert how == {"project": "metaformer_ablate", "entity": None, "mode": mode, "recipe": "digits"}
    assert (capsys.readouterr().err == "") == (mode == "online")


def test_a_run_that_cannot_begin_online_is_logged_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    true_init = wandb.init
    monkeypatch.setattr(wandb, "init", lambda **k: broken() if k["mode"] == "online" else true_init(**k))
    record = fake_record(Store(tmp_path), spec_of())
    with Tracking().run({"project": "p", "entity": None, "mode": "online"}, spec_of(), Store(tmp_path), None, {}) as t:
        assert t is not None
        t.end(record)
    check_told(offline_runs(tmp_path)[0], record)
    assert capsys.readouterr().err.count("warning: W&B cannot be reached, so runs are logged offline") == 1
    assert sent.marks(Store(tmp_path), record.run_id)["p"]["mode"] == "offline"


def test_wandb_switched_off(ablate: Ablate, one: str, tmp_path: Path) -> None:
    done = ablate("run", one, *TINY_WORDS, "--wandb", env={"WANDB_MODE": "disabled"})
    assert done.code == 0 and "warning" not in done.err
    assert not (tmp_path / "results" / ".wandb").exists()


@pytest.mark.slow
@pytest.mark.parametrize("key", [None, "0" * 40])
def test_no_login_or_no_network_asks_nothing(key: str | None, ablate_process: Ablate, one: str, tmp_path: Path) -> None:
    env = {"WANDB_MODE": None, "HOME": str(tmp_path), "NETRC": str(tmp_path / "none"), "WANDB_API_KEY": key}
    done = ablate_process("run", one, *TINY_WORDS, "--wandb", env={**env, "WANDB_BASE_URL": "http://127.0.0.1:9"})
    assert done.code == 0, done.err
    assert done.err.count("warning") == 1 and "logged offline" in done.err
    (record,) = Store(tmp_path / "results")
    check_told(offline_runs(tmp_path)[0], record)


@pytest.mark.slow
def test_workers_log_their_own_runs(ablate_process: Ablate, tmp_path: Path) -> None:
    done = ablate_process(
        "run", "pooling_size", *TINY_WORDS, "--wandb", "--workers", "2", env={"WANDB_MODE": "offline"}, timeout=300
    )
    assert done.code == 0, done.err
    runs = {run.config["run_id"]: run for run in offline_runs(tmp_path) if run.job_type == "train"}
    records = list(Store(tmp_path / "results"))
    assert len(records) == len(runs) == 4
    for record in records:
        check_told(runs[record.run_id], record)


# The words of --wandb


@pytest.mark.parametrize("words", [["--wandb", "pooling_size"], ["pooling_size", "--wandb"], ["--wandb=pooling_size"]])
def test_an_experiment_after_the_option_is_not_the_project(words: list[str], ablate: Ablate) -> None:
    done = ablate("run", *words, *TINY_WORDS, "--dry-run")
    assert done.code == 0 and "4 runs" in done.err


def test_an_override_after_the_option_is_not_lost(ablate: Ablate) -> None:
    done = ablate("run", "pooling_size", "--wandb", "train.epoch=1", "--dry-run")
    assert "unknown key 'train.epoch'" in done.sentence


def test_a_project_that_wandb_would_refuse(ablate: Ablate) -> None:
    assert "--wandb is 'a/b', which holds '/'" in ablate("run", "pooling_size", "--wandb", "a/b").sentence


def test_under_an_agent_many_runs_do_not_go_into_one(ablate: Ablate) -> None:
    done = ablate("run", "pooling_size", "--wandb", env={"WANDB_SWEEP_ID": "s"})
    assert "`ablate trial`" in done.sentence


# What a trial is called with


def test_the_three_forms_of_an_agents_arguments_are_one_trial(tmp_path: Path) -> None:
    """wandb's own code writes the forms."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    values = {
        "row": "pool5",
        "seed": 3,
        "train.compile": True,
        "train.clip_grad": None,
        "model.token_mixer": ["pooling", "attention", None, "identity"],
        "model.stem": {"kernel": 3, "norm": "none"},
        "train.lr": 1e-05,
        "data.rand_augment": "rand-m9-mstd0.5",
        "model.head": "mlp",
        "_wandb": {"resumed": True, "x": {}},
    }
    forms = create_sweep_command_args({"args": {key: {"value": value} for key, value in values.items()}})
    (tmp_path / "c.json").write_text(forms["args_json"][0])
    written = [split_trial(forms[form]) for form in ("args", "args_no_hyphens", "args_no_boolean_flags")]
    pairs = [word.removeprefix("--").partition("=")[::2] for word in forms["args"]]
    written.append(split_trial([part for key, text in pairs for part in (f"--{key}", text)]))
    assert [names for names, _ in written] == [[], [], [], []]
    trials = [read_trial(settings, None, "digits") for _, settings in written]
    trials.append(read_trial([], tmp_path / "c.json", "digits"))
    for trial in trials:
        assert (trial.row, trial.seed, trial.recipe) == ("pool5", 3, "digits")
        expected = {key: value for key, value in values.items() if "." in key and key != "model.stem"}
        assert trial.overrides == expected | {"model.stem.kernel": 3, "model.stem.norm": "none"}


def test_nested_and_dotted_keys_mix(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"model": {"pool_size": 5, "stem.kernel": 3}, "train.epochs": 2, "recipe": "x"}')
    trial = read_trial(["seed=1"], tmp_path / "c.json", None)
    assert trial.overrides == {"model.pool_size": 5, "model.stem.kernel": 3, "train.epochs": 2}
    assert (trial.seed, trial.recipe, trial.row) == (1, "x", None)


@pytest.mark.parametrize(
    ("content", "words", "parts"),
    [
        ('{"rwo": "pool5"}', [], ["c.json:1: unknown key 'rwo' (did you mean 'row'?)", "allowed: row, seed, recipe"]),
        ('{"model.pol_size": 5}', [], ["c.json:1: ", "unknown key 'model.pol_size' (did you mean 'model.pool_size'?)"]),
        ('{"row": "pool6"}', [], ["c.json:1: unknown row 'pool6'", "allowed: pool3, pool5, pool7, pool9"]),
        ('{"row": "pool5",\n "seed": 1.5}', [], ["c.json:2: seed is 1.5; allowed: an integer from 0"]),
        ('{"row": "pool5", "seed": true}', [], ["seed is True"]),
        ('{"row": 5}', [], ["c.json:1: row is 5 (a number); allowed: a name"]),
        ('{"row": {"x": 5}}', [], ["unknown key 'row.x'"]),
        ('{"row": "pool5", "row": "pool7"}', [], ["c.json:1", "row"]),
        ('{"row": "pool5"}', ["row=pool7"], ["command line: row is set twice, first in c.json:1"]),
        ('{"model.pool_size": 5, "model": {"pool_size": 7}}', [], ["c.json:1: model.pool_size is set twice"]),
        ('{"model.pool_size": 4}', [], ["c.json:1: row 'pool3': model.pool_size is 4", "an odd integer"]),
        ('{"train.lr": NaN}', [], ["train.lr is"]),
        ("[1]", [], ["c.json: must hold a mapping"]),
        ("{", [], ["c.json", "not valid YAML"]),
        ("", [], ["c.json: the file is empty"]),
        ("{}", ["seed=-1"], ["command line: seed is -1"]),
        ("{}", ["--sed=1"], ["command line: unknown key 'sed' (did you mean 'seed'?)"]),
        ("{}", ["--seed", "-1"], ["command line: seed is -1"]),
        ("{}", ["--train.lrr", "0.1"], ["unknown key 'train.lrr' (did you mean 'train.lr'?)"]),
        ("{}", ["--model.residual", "nope"], ["model.residual is 'nope'", "true or false"]),
        ("{}", ["model.residual"], ["'model.residual' is not a setting"]),
        ("{}", ["--train.lr", "--model.residual"], ["train.lr is True", "a number above 0"]),
        ("{}", ["train.lr=0.1", "--train.lr", "0.2"], ["train.lr is set twice"]),
        ("{}", ["pool5"], ["give one experiment", "found 2: pooling_size pool5"]),
        ("{}", ["train.batch_size=32.5"], ["train.batch_size is 32.5", "an integer"]),
        ('{"seed": 1_0}', [], ["seed is '1_0'"]),
        ("{}", ["row=pool5", "model.pool_size=5"], ["rows 'pool3' and 'pool5' are the same run under the overrides"]),
    ],
)
def test_a_trial_that_makes_no_sense(
    content: str, words: list[str], parts: list[str], ablate: Ablate, tmp_path: Path
) -> None:
    (tmp_path / "c.json").write_text(content)
    sentence = ablate("trial", "pooling_size", "--config-json", "c.json", *words).sentence
    for part in parts:
        assert part in sentence, sentence


@pytest.mark.parametrize("words", [[], ["pooling_size", "activation"], ["pooling_size", "--config-json", "none.json"]])
def test_a_trial_of_nothing(words: list[str], ablate: Ablate) -> None:
    assert ablate("trial", *words).code == 2


# Trials


def test_a_trial_writes_the_record_of_a_local_run_and_trains_it_once(ablate: Ablate, tmp_path: Path) -> None:
    local = ablate("run", "pooling_size", *TINY_WORDS, "--results", "local")
    assert local.code == 0
    words = ["pooling_size", "row=pool5", *TINY_WORDS, "--recipe", "digits"]
    done = ablate("trial", *words)
    spec = plan("pooling_size", "digits", TINY_WORDS).spec("pool5", 0)
    assert done.code == 0 and done.out.startswith(f"{spec.run_id} pooling_size/pool5 seed 0: top-1 "), done.err
    mine, theirs = (Store(tmp_path / folder).read(spec.run_id) for folder in ("results", "local"))
    assert mine is not None and theirs is not None
    assert compare(mine, theirs)["identical"]
    again = ablate("trial", *words)
    assert again == Result(0, done.out, "")
    assert Store(tmp_path / "results").read(spec.run_id).data == mine.data
    assert offline_runs(tmp_path) == []


def test_a_trial_without_a_row_is_the_baseline_with_the_overrides(ablate: Ablate, tmp_path: Path) -> None:
    done = ablate("trial", "pooling_size", *TINY_WORDS, "model.pool_size=5", "--wandb")
    assert done.code == 0, done.err
    (record,) = Store(tmp_path / "results")
    assert record.run_id == plan("pooling_size", "digits", TINY_WORDS).spec("pool5", 0).run_id
    (run,) = offline_runs(tmp_path)
    assert run.name.startswith("pooling_size/pool3 with train.epochs=1")  # not the baseline's label alone
    assert "model.pool_size=5" in run.config["overrides"] and "model.pool_size=5" in run.config["row"]
    check_told(run, record)


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("diverged", 0), ("failed", 1)])
def test_the_exit_code_of_a_trial_whose_record_is_there(
    status: str, code: int, ablate: Ablate, one: str, tmp_path: Path
) -> None:
    record = fake_record(Store(tmp_path / "results"), spec_of(words=TINY_WORDS), status=status)
    done = ablate("trial", one, *TINY_WORDS, "--wandb", "p")
    assert done.code == code, done.err
    (run,) = offline_runs(tmp_path)
    assert run.exit_code == code and run.summary["status"] == status
    check_told(run, record)


def test_a_trial_that_fails_exits_1_and_is_tried_again_when_asked(
    ablate: Ablate, one: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **named: Any) -> None:
        raise ArithmeticError("made to fail")

    with monkeypatch.context() as patch:
        patch.setattr("metaformer_ablate.tasks.classification.net.build_model", fail)
        done = ablate("trial", one, *TINY_WORDS, "--wandb")
    assert done.code == 1 and "failed: ArithmeticError: made to fail" in done.out
    assert offline_runs(tmp_path)[0].exit_code == 1
    assert ablate("trial", one, *TINY_WORDS).code == 1
    assert ablate("trial", one, *TINY_WORDS, "--retry-failed").code == 0


def test_a_trial_waits_for_a_run_that_somebody_else_trains(ablate: Ablate, one: str, tmp_path: Path) -> None:
    spec = spec_of(words=TINY_WORDS)
    claim = Claims(tmp_path / "results").take(spec.run_id, "elsewhere")
    assert claim is not None

    def train_elsewhere() -> None:
        fake_record(Store(tmp_path / "results"), spec, top1=12.0)
        claim.release()

    timer = threading.Timer(1.5, train_elsewhere)
    timer.start()
    done = ablate("trial", one, *TINY_WORDS, "--wandb")
    timer.join()
    assert done.code == 0 and "waiting for it" in done.err and "top-1 12.00%" in done.out
    (run,) = offline_runs(tmp_path)
    check_told(run, Store(tmp_path / "results").read(spec.run_id))


def test_what_only_asks_loads_no_torch(tmp_path: Path) -> None:
    fake_record(Store(tmp_path / "results"), spec_of())
    program = "import sys; from metaformer_ablate.cli.main import main\ntry: main(sys.argv[1:])\n"
    program += "except SystemExit as stop: assert not stop.code\nassert not {'torch', 'wandb'} & set(sys.modules)"
    for words in (["sweep", "pooling_size"], ["trial", "pooling_size", "row=pool3"], ["sync-wandb", "--help"]):
        subprocess.run([sys.executable, "-c", program, *words], cwd=tmp_path, check=True, capture_output=True)


# Supervision

SUPERVISED = """
import os, signal, sys, time
from metaformer_ablate.system.signals import PatientStop, run_supervised
def work():
    {}
sys.exit(run_supervised(work))
"""


def supervise(code: str) -> subprocess.Popen[str]:
    program = SUPERVISED.format(code)
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("return 0", 0),
        ("return 1", 1),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137),
        ("os.kill(os.getpid(), signal.SIGSEGV)", 139),
        ("os.kill(os.getpid(), signal.SIGTERM)", 143),
    ],
)
def test_a_child_that_dies_by_a_signal_is_never_a_success(code: str, exit_code: int) -> None:
    process = supervise(code)
    process.communicate(timeout=120)
    assert process.returncode == exit_code


POLITE = (
    "stop = PatientStop(); stop.catch(signal.SIGTERM, signal.SIGINT); stop.polled = 1; print(os.getpid(), flush=True); "
    "t = time.time()\n    while not stop() and time.time() < t + 20: time.sleep(0.05)\n    time.sleep(0.5)\n"
    "    print('saved', flush=True)\n    return 128 + (stop.number or 0)"
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_handed_on_and_asking_twice_by_two_ways_is_asking_once(number: signal.Signals) -> None:
    process = supervise(POLITE)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.send_signal(number)
    os.kill(child, number)  # as Slurm does, which signals every process of a job
    assert process.communicate(timeout=120)[0] == "saved\n"
    assert process.returncode == 128 + number


def test_a_signal_within_the_handling_of_another_is_the_same_one() -> None:
    class Interrupted(PatientStop):
        """Is asked again as soon as it has seen that nobody had asked."""

        def __getattribute__(self, name: str) -> Any:
            value = super().__getattribute__(name)
            if name == "number" and value is None and "again" not in self.__dict__:
                self.again = True
                self._handle(signal.SIGTERM, None)
            return value

    stop = Interrupted()
    stop.polled = 1
    stop._handle(signal.SIGTERM, None)
    assert stop()


def test_the_second_ctrl_c_kills() -> None:
    process = supervise("signal.signal(signal.SIGINT, signal.SIG_IGN); print(1, flush=True); time.sleep(30)")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 137


def test_a_child_does_not_outlive_a_killed_parent() -> None:
    process = supervise("print(os.getpid(), flush=True); time.sleep(30)")
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.1)
    raise AssertionError("it still runs")


# Sweep files


def test_a_sweep_file_names_the_runs_of_ablate_run(ablate: Ablate, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    words = ["pooling_size", "train.epochs=1", "--seeds", "0,5", "--data", "data", "--out", "sweep.yaml"]
    assert ablate("sweep", *words, "--project", "p", "--entity", "e") == Result(0, "", "")
    sweep = yaml.safe_load((tmp_path / "sweep.yaml").read_text())
    assert (sweep["method"], sweep["project"], sweep["entity"]) == ("grid", "p", "e")
    rows, seeds = (sweep["parameters"][key]["values"] for key in ("row", "seed"))
    assert rows == ["pool3", "pool5", "pool7", "pool9"] and seeds == [0, 5]
    *called, json_option, macro = sweep["command"]
    assert (json_option, macro) == ("--config-json", "${args_json_file}")
    assert called[0] == sys.executable and called[1:5] == ["-P", "-m", "metaformer_ablate", "trial"]
    assert all(Path(word).is_absolute() for word in called if "/" in word)
    assert str(tmp_path / "results") in called and str(tmp_path / "data") in called
    wanted = {plan("pooling_size", "digits", ["train.epochs=1"]).spec(*point).run_id for point in product(rows, seeds)}
    dry = ablate("run", "pooling_size", "train.epochs=1", "--seeds", "0,5", "--dry-run", "--json")
    assert {run["run_id"] for run in dry.json["runs"]} == wanted and len(wanted) == 8


def test_what_a_sweep_file_calls_works_from_any_folder(ablate: Ablate, tmp_path: Path) -> None:
    """An experiment and a recipe of the user's own, an agent started elsewhere, where those names mean other files."""
    mine, elsewhere = tmp_path / "mine", tmp_path / "elsewhere"
    for folder, flip, epochs in ((mine, "false", 1), (elsewhere, "true", 2)):
        (folder / "experiments" / "recipes").mkdir(parents=True)
        (folder / "experiments" / "one.yaml").write_text(f"{ONE_ROW}set: {{data.flip: {flip}}}\n")
        (folder / "experiments" / "recipes" / "r.yaml").write_text(
            "title: R\ndata: {name: digits, image_size: 8}\n"
            f"train: {{epochs: {epochs}, batch_size: 64, warmup_epochs: 0}}\n"
            "model: {size: t5, layer_scale: 0.1, drop_path: 0, stem: {kernel: 3, stride: 1, padding: 1}}\n"
        )
    done = ablate("sweep", "one", "--recipe", "r", cwd=mine)
    assert done.code == 0, done.err
    called = yaml.safe_load(done.out)["command"][:-2]
    (elsewhere / "c.json").write_text('{"row": "pool3", "seed": 4}')
    words = called[called.index("trial") :]
    ended = ablate(*words, "--config-json", "c.json", cwd=elsewhere)
    assert ended.code == 0, ended.err
    (record,) = Store(mine / "results")
    spec = record.spec()
    assert (spec["train"]["epochs"], spec["data"]["flip"], spec["seed"]) == (1, False, 4)
    assert not (elsewhere / "results").exists()


def test_a_sweep_file_takes_along_what_lies_in_the_folder(ablate: Ablate, tmp_path: Path) -> None:
    """One's own parts and weights to start from, which a trial would look for in the agent's folder."""
    (tmp_path / "parts.yaml").write_text("norms: {mine: {class: 'norm.py:Mine', about: a norm}}\n")
    (tmp_path / "norm.py").write_text("class Mine: pass\n")
    (tmp_path / "w.pt").write_bytes(b"weights")
    done = ablate("sweep", "pooling_size", "model.init_from=w.pt")
    assert done.code == 0, done.err
    called = yaml.safe_load(done.out)["command"]
    assert called[:3] == ["${env}", f"ABLATE_PARTS={tmp_path / 'parts.yaml'}", sys.executable]
    assert f"model.init_from={tmp_path / 'w.pt'}" in called


def test_files_that_an_experiment_names_are_found_from_any_folder(ablate: Ablate, tmp_path: Path) -> None:
    """An experiment as `ablate init --model` writes it names its class from the folder one stands in."""
    mine, elsewhere = tmp_path / "mine", tmp_path / "elsewhere"
    mine.mkdir(), elsewhere.mkdir()
    write_net(mine)
    done = ablate("sweep", "gate", *WORDS, cwd=mine)
    assert done.code == 0, done.err
    called = yaml.safe_load(done.out)["command"][:-2]
    assert called[called.index("--folder") + 1] == str(mine)
    (elsewhere / "c.json").write_text('{"row": "plain"}')
    words = called[called.index("trial") :]
    ended = ablate(*words, "--config-json", "c.json", cwd=elsewhere)
    assert ended.code == 0, ended.err
    assert len(list(Store(mine / "results"))) == 1
    gone = [str(tmp_path / "gone") if word == str(mine) else word for word in words]
    said = ablate(*gone, "--config-json", "c.json", cwd=elsewhere).sentence
    assert said == f"--folder {tmp_path / 'gone'}: cannot be entered: No such file or directory"
    assert "--folder" not in ablate("sweep", "pooling_size", cwd=mine).out
    # A module is found from the folder, too; a file has a whole path by then.
    for target, found in (("my_net:MyNet", True), ("my_net.py:MyNet", False)):
        for words in (["one.yaml"], ["pooling_size", "--axes"]):
            (mine / "one.yaml").write_text(ONE_ROW)
            swept = ablate("sweep", *words, f"model.class={target}", *([] if words[1:] else WORDS), cwd=mine)
            assert swept.code == 0 and ("--folder" in swept.out) == found, swept.err


def test_recipes_to_start_from_are_found_from_any_folder(ablate: Ablate, tmp_path: Path) -> None:
    """Elsewhere the name would be unknown, or be another recipe: the package's."""
    recipes = tmp_path / "experiments" / "recipes"
    recipes.mkdir(parents=True)
    text = (REPOSITORY / "experiments" / "recipes" / "digits.yaml").read_text(encoding="utf-8")
    assert text.count("\nmodel: {") == 1
    for name, source in (("mine", "digits"), ("other", "cifar10_small")):
        (recipes / f"{name}.yaml").write_text(text.replace("\nmodel: {", f"\nmodel: {{init_from: 'recipe:{source}', "))
    (recipes / "digits.yaml").write_text(text)
    for name, found in (("mine", True), ("other", False)):
        done = ablate("sweep", "pooling_size", "--recipe", name)
        assert done.code == 0 and ("--folder" in done.out) == found, done.err
    (tmp_path / "bad.yaml").write_text(
        "title: Bad\nbaseline: a\nrows:\n  a: {label: A}\n  b: {label: B, set: {model.init_from: 5}}\n"
    )
    assert ablate("sweep", "bad.yaml", "--axes", "train.lr=1e-3,2e-3").code == 0  # of the baseline alone


def test_a_sweep_has_the_combinations_of_rows_too(ablate: Ablate, tmp_path: Path) -> None:
    (tmp_path / "pairs.yaml").write_text(
        "title: Pairs\nbaseline: a\ninteractions: [[b, c]]\nrows:\n  a: {label: A}\n"
        "  b: {label: B, set: {model.activation: relu}}\n  c: {label: C, set: {model.norm: batch_norm}}\n"
    )
    done = ablate("sweep", "pairs.yaml", *TINY_WORDS)
    assert yaml.safe_load(done.out)["parameters"]["row"]["values"] == ["a", "b", "c", "b+c"]
    ended = ablate("trial", "pairs.yaml", "row=b+c", *TINY_WORDS)
    assert ended.code == 0 and "pairs/b+c seed 0: top-1" in ended.out, ended.err
    shown = ablate("table", "pairs.yaml", *TINY_WORDS, "--json").json["interactions"]
    assert [run["status"] for run in shown[0]["runs"]] == ["ok"]
    assert "unknown row 'c+b'" in ablate("trial", "pairs.yaml", "row=c+b", *TINY_WORDS).sentence


def test_rows_that_are_not_applicable_are_left_out(ablate: Ablate) -> None:
    done = ablate("sweep", "imagenet_models")
    chosen = plan("imagenet_models")
    assert chosen.not_applicable
    assert yaml.safe_load(done.out)["parameters"]["row"]["values"] == list(chosen.specs)
    for row in chosen.not_applicable:
        assert f"left out: row {row!r} is not applicable" in done.err


def test_a_sweep_over_axes(ablate: Ablate) -> None:
    axes = ["model.pool_size=3,5,[3,5,7,9]", "model.norm=mln,none", "train.lr=1e-5,2e-3", "train.clip_grad=null,1"]
    done = ablate("sweep", "pooling_size", "--axes", *axes, "--seeds", "2")
    assert done.code == 0 and "24 combinations" in done.err
    sweep = yaml.safe_load(done.out)
    values = {key: parameter["values"] for key, parameter in sweep["parameters"].items()}
    assert values == {
        "model.pool_size": [3, 5, [3, 5, 7, 9]],
        "model.norm": ["mln", "none"],
        "train.lr": [1e-5, 2e-3],
        "train.clip_grad": [None, 1],
        "seed": [0, 1],
    }
    assert not any("=" in word for word in sweep["command"])


@pytest.mark.parametrize(
    ("axes", "parts"),
    [
        (["model.pool_size=3,4"], ["the combination model.pool_size=4", "an odd integer"]),
        (["model.pol_size=3,5"], ["unknown key 'model.pol_size'"]),
        (
            ["model.token_mixer=pooling,identity", "model.pool_size=3,5"],
            ["model.token_mixer=identity model.pool_size=3", "nothing reads it"],
        ),
        (
            ["model.pool_size=3,[3,3,3,3]"],
            ["the combinations model.pool_size=3 and model.pool_size=[3, 3, 3, 3] are the same run"],
        ),
        (["model.pool_size=3,3"], ["model.pool_size has the value 3 twice"]),
        (["model.norm=mln", "model.norm=none"], ["model.norm is set twice"]),
        (["model.pool_size="], ["is not an axis"]),
        ([], ["--axes needs what to sweep"]),
        (["model.comparator=resnet18"], ["resnet18"]),
    ],
)
def test_axes_that_make_no_sense(axes: list[str], parts: list[str], ablate: Ablate) -> None:
    sentence = ablate("sweep", "pooling_size", "--axes", *axes).sentence
    for part in parts:
        assert part in sentence, sentence


def test_a_sweep_is_registered_only_with_a_login(
    ablate: Ablate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "--create needs W&B online" in ablate("sweep", "pooling_size", "--create").sentence
    given = []

    def register(sweep: Any, entity: str | None, project: str | None) -> str:
        print("Create sweep with ID: abc")
        given.append((sweep, entity, project))
        return "abc"

    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr(wandb, "login", lambda **k: True)
    monkeypatch.setattr(wandb, "sweep", register)
    done = ablate("sweep", "pooling_size", "--create", "--project", "p", "--entity", "e", "--out", "s.yaml")
    assert (done.code, done.out) == (0, "wandb agent e/p/abc\n"), done.err
    assert given == [(yaml.safe_load((tmp_path / "s.yaml").read_text()), "e", "p")]
    monkeypatch.setattr(wandb, "sweep", broken)
    assert "W&B refused: CommError: made to fail" in ablate("sweep", "pooling_size", "--create").sentence


# Records sent later


def test_records_are_sent_once_each(ablate: Ablate, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    records = [fake_record(store, spec_of()), fake_record(store, spec_of(seed=1), status="diverged")]
    records.append(fake_record(store, spec_of({"train.epochs": 7}), status="failed"))
    done = ablate("sync-wandb", records[0].run_id[:8], "--project", "p")
    assert (done.code, done.out) == (0, "1 records written to W&B's offline files, for `wandb sync`; 0 were there\n")
    done = ablate("sync-wandb", "--project", "p")
    assert done.out.startswith("2 records written") and done.out.endswith("1 were there\n")
    assert ablate("sync-wandb", "--project", "p").out.startswith("0 records written")
    runs = {run.config["run_id"]: run for run in offline_runs(tmp_path)}
    assert len(offline_runs(tmp_path)) == len(runs) == 3
    for record in records:
        check_told(runs[record.run_id], record)
        assert runs[record.run_id].exit_code == (record.status == "failed")
    assert "pooling_size/pool3" in runs[records[0].run_id].config["rows"]  # an experiment shows it
    assert runs[records[2].run_id].config["rows"] == [] and runs[records[2].run_id].name.startswith(records[2].run_id)
    changed = fake_record(store, spec_of(), top1=11.0)
    assert ablate("sync-wandb", "--project", "p").out.startswith("1 records written")
    assert offline_runs(tmp_path)[-1].summary["metrics"]["top1"] == changed.value("top1")
    assert ablate("sync-wandb", "--project", "other").out.startswith("3 records written")


def test_what_a_run_told_wandb_is_not_sent_again(ablate: Ablate, one: str, tmp_path: Path) -> None:
    assert ablate("run", one, *TINY_WORDS, "--wandb", "p").code == 0
    assert ablate("sync-wandb", "--project", "p").out.startswith("0 records written")
    assert len([run for run in offline_runs(tmp_path) if run.job_type == "train"]) == 1


def test_what_lies_in_offline_files_is_sent_once_one_is_online(tmp_path: Path) -> None:
    store, how = Store(tmp_path), {"project": "p", "mode": "online"}
    record = fake_record(store, spec_of())
    for mode, online, offline in ((None, False, False), ("offline", False, True), ("online", True, True)):
        if mode:
            sent.mark_sent(store, record, {"project": "p", "id": "x", "mode": mode})
        assert sent.is_sent(store, record, how) == online
        assert sent.is_sent(store, record, {**how, "mode": "offline"}) == offline
    assert not sent.is_sent(store, record, {**how, "project": "q"})


def test_a_record_of_other_code_keeps_no_other_from_being_sent(ablate: Ablate, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    fake_record(store, spec_of(seed=1))
    tree = {**spec_of().to_dict(), "unheard": 1}
    folder = store.folder(digest(tree)[:12])
    fake_record(store, spec_of()).folder.rename(folder)
    (folder / "spec.yaml").write_text(json.dumps(tree))
    seal(folder, run_id=folder.name)
    done = ablate("sync-wandb")
    assert done.code == 1 and done.out.startswith("1 records written"), done.err
    assert "not sent: " in done.err and "written by other code" in done.err


def test_a_run_that_is_not_there_cannot_be_sent(ablate: Ablate) -> None:
    assert "is no run in" in ablate("sync-wandb", "0123456789ab").sentence


# wandb's own agent


@pytest.fixture
def agent(tmp_path: Path, ablate: Ablate) -> Callable[..., list[int]]:
    """agent(commands, *words of ablate sweep) runs wandb's agent on a sweep file; the exit codes of what it called."""
    from wandb.apis.public import sweeps

    if missing := [name for name in PRIVATE if not hasattr(sweeps, name)]:
        pytest.skip(f"THE AGENT IS NOT TESTED: wandb {wandb.__version__} has no {', '.join(missing)}")

    def run(commands: list[dict[str, Any]], *words: str, form: str = "${args_json_file}") -> list[int]:
        folder = tmp_path / "agent"
        folder.mkdir(exist_ok=True)
        assert ablate("sweep", *words, "--out", "sweep.yaml").code == 0
        text = (tmp_path / "sweep.yaml").read_text()
        if form != "${args_json_file}":
            text = text.replace("- --config-json\n", "").replace("${args_json_file}", form)
        (tmp_path / "sweep.yaml").write_text(text)
        (tmp_path / "commands.json").write_text(json.dumps(commands))
        done = subprocess.run(
            [
                sys.executable,
                str(REPOSITORY / "tests" / "helpers" / "offline_wandb.py"),
                str(tmp_path / "sweep.yaml"),
                str(tmp_path / "commands.json"),
            ],
            cwd=folder,
            env={**os.environ, "ABLATE_WORKERS": "1", "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


def order(run_id: str, kind: str = "run", **values: Any) -> dict[str, Any]:
    arguments = {key: {"value": value} for key, value in values.items()}
    return {"type": kind, "run_id": run_id, "program": "ablate", "args": arguments}


@pytest.mark.slow
def test_an_agent_runs_a_trial_and_sees_one_fail(agent: Any, tmp_path: Path) -> None:
    failed = fake_record(Store(tmp_path / "results"), spec_of(words=TINY_WORDS), status="failed")
    commands = [order("first", row="pool5", seed=3), order("second", row="pool3", seed=0)]
    assert agent(commands, "pooling_size", *TINY_WORDS) == [0, 1]
    first, second = offline_runs(tmp_path)
    assert (first.id, second.id) == ("first", "second")
    record = Store(tmp_path / "results").read(plan("pooling_size", "digits", TINY_WORDS).spec("pool5", 3).run_id)
    check_told(first, record)
    check_told(second, failed)
    assert (first.exit_code, second.exit_code) == (0, 1)
    assert (first.config["row"], first.config["seed"]) == ("pool5", 3)


SLOWER = [word for word in TINY_WORDS if not word.startswith("train.epochs")] + ["train.epochs=12"]


@pytest.mark.slow
def test_a_trial_that_an_agent_stops_and_resumes(agent: Any, tmp_path: Path) -> None:
    spec = plan("pooling_size", "digits", SLOWER).spec("pool7", 0)
    commands = [order("r", row="pool7", seed=0)]
    commands.append({"type": "stop", "run_id": "r", "when": f"../results/.claims/{spec.run_id}.*"})
    commands.append(order("r", "resume", row="pool7", seed=0, _wandb={"resumed": True}))
    assert agent(commands, "pooling_size", *SLOWER) == [143, 0]
    before, after = offline_runs(tmp_path)
    assert before.id == after.id == "r"
    assert before.preempting and before.exit_code == 1 and not after.preempting
    steps = [row["_step"] for row in after.history if "epoch" in row]
    assert steps == [22 * (epoch + 1) for epoch in range(12)]
    record = Store(tmp_path / "results").read(spec.run_id)
    assert record is not None
    undisturbed = tmp_path / "undisturbed"
    subprocess.run(
        command("trial", "pooling_size", "row=pool7", *SLOWER, "--results", undisturbed),
        check=True,
        capture_output=True,
    )
    assert compare(record, Store(undisturbed).read(spec.run_id))["identical"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["${args}", "${args_no_hyphens}", "${args_json_file}"])
def test_an_agents_arguments_in_every_form(form: str, agent: Any, tmp_path: Path) -> None:
    values = {"model.token_mixer": ["pooling", "identity", "identity", "pooling"], "train.clip_grad": None}
    values |= {"train.compile": False, "model.pool_size": [5, None, None, 3], "seed": 2, "train.lr": 1e-05}
    values |= {"_wandb": {"x": None}}
    words = [word for word in TINY_WORDS if not word.startswith("train.lr")]  # words of the command, beside the agent's
    assert agent([order("r", **values)], "pooling_size", *words, form=form) == [0]
    (record,) = Store(tmp_path / "results")
    spec = record.spec()
    assert spec["model"]["token_mixer"] == values["model.token_mixer"] and spec["seed"] == 2
    assert spec["model"]["pool_size"] == [5, None, None, 3]
    assert (spec["train"]["clip_grad"], spec["train"]["compile"], spec["train"]["lr"]) == (None, False, 1e-05)


@pytest.mark.slow
def test_a_trial_whose_training_is_killed_exits_137_and_goes_on_when_called_again(tmp_path: Path) -> None:
    arguments = command("trial", "pooling_size", "row=pool7", *SLOWER, "--checkpoint-seconds", "0.2")
    env = {**os.environ, "ABLATE_WORKERS": "1"}
    process = subprocess.Popen(arguments, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    claims, until = Claims(tmp_path / "results"), time.monotonic() + 300
    while time.monotonic() < until:
        holders = [holder for holder in claims.held().values() if holder.progress is not None]
        if holders and holders[0].progress.epoch:
            break
        time.sleep(0.05)
    assert holders[0].pid != process.pid
    os.kill(holders[0].pid, signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 137 and "SIGKILL" in err
    done = subprocess.run(arguments, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shutil.copytree(tmp_path / "results", tmp_path / "first")
    subprocess.run([*arguments, "--results", "again"], cwd=tmp_path, env=env, check=True, capture_output=True)
    (record,), (again,) = Store(tmp_path / "first"), Store(tmp_path / "again")
    assert compare(record, again)["identical"]


def test_words_without_an_equals_sign_are_settings_of_a_trial() -> None:
    """As argparse reads them, and as W&B's ${args_no_boolean_flags} writes what is true."""
    words = ["--train.lr", "0.1", "pooling_size", "--model.residual", "train.epochs=2", "--seed", "3", "--data.flip"]
    names, settings = split_trial(words)
    trial = read_trial(settings, None, None)
    assert names == ["pooling_size"] and trial.seed == 3
    assert trial.overrides == {"train.lr": 0.1, "model.residual": True, "train.epochs": 2, "data.flip": True}


def test_whole_numbers_that_wandb_draws_as_floats(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"train.batch_size": 32.0, "seed": 2.0, "train.lr": 1.0}')
    trial = read_trial(["model.pool_size=[3.0, 5, 7, 9]", "train.warmup_epochs=0"], tmp_path / "c.json", None)
    chosen, row = plan_of("pooling_size", trial)
    assert (trial.seed, chosen.specs[row].train.batch_size) == (2, 32)
    assert chosen.specs[row].model.pool_size == (3, 5, 7, 9)
    whole = read_trial(["model.pool_size=[3, 5, 7, 9]", "train.batch_size=32", "train.lr=1"], None, None)
    whole_plan, row = plan_of("pooling_size", replace(whole, overrides=whole.overrides | {"train.warmup_epochs": 0}))
    assert chosen.specs[row].run_id == whole_plan.specs[row].run_id


@pytest.mark.parametrize("name", ["a: b.pth", "3.0", "1e3", "a #b.pth", "[x].pth", "true", "'", '"a', "a=b.pth"])
def test_a_path_is_its_text_and_a_sweep_file_holds_the_same_path(name: str, ablate: Ablate, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"weights")
    done = ablate("sweep", "pooling_size", f"model.init_from={name}")
    assert done.code == 0, done.err
    called = yaml.safe_load(done.out)["command"]
    (word,) = (word for word in called if word.startswith("model.init_from="))
    assert read_trial([word], None, None).overrides == {"model.init_from": str(tmp_path / name)}
    if name != "'" and "," not in name:
        done = ablate("sweep", "pooling_size", "--axes", f"model.init_from={name}")
        assert yaml.safe_load(done.out)["parameters"]["model.init_from"]["values"] == [str(tmp_path / name)]


def test_bad_words_of_a_trial_are_a_request_error() -> None:
    with pytest.raises(RequestError, match="is not a setting"):
        read_trial(["=x"], None, None)
