"""Sweeps whose workers die, hang or are stopped; two sweeps over one folder; `status`; records in and out."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from conftest import TINY_WORDS, Result, Trained, command
from specs import fake_record, spec_of

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.records.claims import ClaimOwner, Claims, Progress
from metaformer_ablate.records.compare import compare
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.run_spec import SEMANTICS
from metaformer_ablate.sweep.jobs import Job, make_request
from metaformer_ablate.sweep.launchers.local import InProcess
from metaformer_ablate.sweep.progress import describe_metric
from metaformer_ablate.sweep.scheduler import Sweep
from metaformer_ablate.system.processes import of_this_process, process_started
from metaformer_ablate.system.signals import Interrupted, StopRequest
from metaformer_ablate.tasks.base import Metric

Ablate = Callable[..., Result]
# A run of some seconds, so that there is a middle to disturb.
SLOWER = [word for word in TINY_WORDS if not word.startswith("train.epochs")] + ["train.epochs=75"]
TO_THE_END = [*SLOWER[:-1], "train.epochs=25"]  # for sweeps that are trained to their end


@contextmanager
def sweep(*words: object, cwd: Path, **env: str) -> Iterator[subprocess.Popen[str]]:
    """`ablate run WORDS` as a process in a session of its own; whatever is left of it is killed at the end."""
    process = subprocess.Popen(
        command("run", *words),
        cwd=cwd,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.communicate()
        wait_for_the_end_of_group(process.pid)


def wait_for_the_end_of_group(group: int, seconds: float = 60) -> None:
    """Killed workers end a moment after the sweep that started them: the last of them gives back its memory first."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        members = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                members += [process.name] if int(fields[2]) == group and fields[0] not in "ZX" else []
        if not members:
            return
        time.sleep(0.05)
    raise AssertionError(f"processes {members} outlive SIGKILL")


def wait_for_training(results: Path, runs: int = 1, seconds: float = 300) -> list[ClaimOwner]:
    """The owners of the claims once so many runs have made steps."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        holders = [holder for holder in Claims(results).held().values() if holder.progress is not None]
        if len(holders) >= runs:
            return holders
        time.sleep(0.05)
    raise AssertionError("nothing trains")


def is_alive(holder: ClaimOwner) -> bool:
    return process_started(holder.pid) == holder.started


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_the_sweep_nothing(trained: Trained, tmp_path: Path) -> None:
    words = ["pooling_size", *TO_THE_END, "--workers", "2", "--checkpoint-seconds", "0.2", "--json"]
    with sweep(*words, cwd=tmp_path) as process:
        victim = wait_for_training(tmp_path / "results", 2)[0]
        os.kill(victim.pid, signal.SIGKILL)
        out, err = process.communicate(timeout=580)
    assert process.returncode == 0, err
    assert f"{victim.name}: its worker was killed by SIGKILL" in err and "goes on from its last checkpoint" in err
    assert [run["status"] for run in json.loads(out)["runs"]] == ["ok"] * 4
    assert not any(is_alive(holder) for holder in [victim])
    assert Claims(tmp_path / "results").held() == {}
    assert not list((tmp_path / "results" / ".claims").iterdir())


@pytest.mark.slow
def test_a_run_whose_workers_die_three_times_is_failed_and_the_others_go_on(tmp_path: Path) -> None:
    with sweep("pooling_size", *TO_THE_END, "--workers", "1", cwd=tmp_path) as process:
        name = None
        for _ in range(3):
            for holder in wait_for_training(tmp_path / "results"):
                name = name or holder.name
            while (holder := wait_for_training(tmp_path / "results")[0]).name != name:
                time.sleep(0.1)  # the others are trained before the run that died is tried again
            os.kill(holder.pid, signal.SIGKILL)
            while is_alive(holder):
                time.sleep(0.05)
        _, err = process.communicate(timeout=400)
    assert process.returncode == 1, err
    store = Store(tmp_path / "results")
    statuses = Counter(record.status for record in store)
    assert statuses == {"ok": 3, "failed": 1}
    failed = next(record for record in store if record.status == "failed")
    assert failed.data["reason"].startswith("given up after 3 attempts: its worker was killed by SIGKILL")
    assert f"failed: run {failed.run_id}" in err and str(Path("results/runs") / failed.run_id / "log.txt") in err
    assert "out of memory" in failed.data["reason"]


@pytest.mark.slow
def test_a_worker_that_hangs_is_killed_and_its_run_goes_on(tmp_path: Path) -> None:
    words = ["pooling_size", *TO_THE_END, "--workers", "2", "--checkpoint-seconds", "0.2", "--stall-minutes", "1"]
    with sweep(*words, cwd=tmp_path) as process:
        victim = wait_for_training(tmp_path / "results", 2)[0]
        os.kill(victim.pid, signal.SIGSTOP)
        _, err = process.communicate(timeout=580)
    assert process.returncode == 0, err
    assert f"{victim.name}: it made no step for too long and was killed" in err
    assert len(list(Store(tmp_path / "results"))) == 4
    assert not is_alive(victim)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.slow
def test_a_sweep_that_is_stopped_saves_the_place_of_each_worker(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """Ctrl-C on a terminal goes to the workers too; a SIGTERM to the sweep alone."""
    with sweep("pooling_size", *SLOWER, "--workers", "2", "--checkpoint-seconds", "1000", cwd=tmp_path) as process:
        holders = wait_for_training(tmp_path / "results", 2)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        _, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    assert "Traceback" not in err
    assert "error:" not in err and f"stopped by {number.name}" in err.splitlines()
    assert err.splitlines()[-1] == "the same command goes on with the 4 that are left"
    folders = sorted(path for path in (tmp_path / "results" / "runs").iterdir())
    assert sorted(folder.name for folder in folders) == sorted(holder.run_id for holder in holders)
    assert all([file.name for file in folder.iterdir()] == ["last.ckpt"] for folder in folders)
    assert not any(is_alive(holder) for holder in holders)
    assert not list((tmp_path / "results" / ".claims").iterdir())


@pytest.mark.slow
def test_workers_of_a_sweep_that_was_killed_end_by_themselves(tmp_path: Path) -> None:
    with sweep("pooling_size", *SLOWER, "--workers", "1", cwd=tmp_path) as process:
        (holder,) = wait_for_training(tmp_path / "results")
        os.kill(process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 120
        while is_alive(holder) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not is_alive(holder)


DRIVER = """
import sys
import metaformer_ablate.runs.runner
train = metaformer_ablate.runs.runner.Runner.run
def counted(self, spec, options=None):
    with open("trained.txt", "a") as stream:
        stream.write(spec.run_id + "\\n")
    return train(self, spec, options)
metaformer_ablate.runs.runner.Runner.run = counted
from metaformer_ablate.cli.main import main
main()
"""


def test_two_sweeps_over_one_folder_train_each_run_once(tmp_path: Path) -> None:
    words = ["run", "pooling_size", *TINY_WORDS, "--seeds", "6", "--workers", "0", "--json"]
    both = [
        subprocess.Popen(
            [sys.executable, "-c", DRIVER, *words],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    ended = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    trained = (tmp_path / "trained.txt").read_text().split()
    assert len(trained) == len(set(trained)) == 24
    tables = [json.loads(out)["tables"] for out, _ in ended]
    assert tables[0] == tables[1], "each waits for what the other trains"
    assert all(row["n"] == 6 for row in tables[0][0]["rows"])


def test_status_sees_a_sweep_from_another_terminal(ablate: Ablate, tmp_path: Path) -> None:
    assert ablate("status").out == "results: no records; 0 running\n"
    with sweep("pooling_size", *SLOWER, "--workers", "1", cwd=tmp_path) as process:
        (holder,) = wait_for_training(tmp_path / "results")
        tree = ablate("status", "--json").json
        text = ablate("status").out
        shown = ablate("show", "pooling_size", *SLOWER, "--json").json
    assert [run["run_id"] for run in tree["running"]] == [holder.run_id]
    assert tree["running"][0]["name"] == "pooling_size/pool3 seed 0"
    assert tree["running"][0]["progress"]["epochs"] == 75
    assert (tree["left"], tree["sweeps"][0]["pid"]) == (4, process.pid)
    assert re.search(rf"running {holder.run_id} pooling_size/pool3 seed 0 on \S+ \(pid {holder.pid}\): epoch ", text)
    assert [run["status"] for row in shown["rows"] for run in row["runs"]] == ["running", *["missing"] * 3]
    assert shown["to_run"] == 4
    after = ablate("status", "--json").json
    assert (after["running"], after["sweeps"]) == ([], [])


def test_sweeps_that_may_share_runs_are_not_added_up_as_if_they_did_not(ablate: Ablate, tmp_path: Path) -> None:
    claims = Claims(tmp_path / "results")
    claims.folder.mkdir(parents=True)
    of_sweep = {"since": "2026-01-01T00:00:00+00:00", "finished": 0, "failed": 0, "running": 1, "left": 3}
    for number, said in ((1, "0 running, 1 starting, 3 not begun"), (2, "0 running, 2 starting, up to 6 not begun")):
        (claims.folder / f"sweep-here-{number}.json").write_text(json.dumps(of_this_process() | of_sweep))
        assert ablate("status").out.splitlines()[0] == f"results: no records; {said}"


def test_status_gives_the_reported_metric_under_its_name(ablate: Ablate, tmp_path: Path) -> None:
    """Of a claim as this code writes it, as older code did, and of a task that this code does not have."""
    specs = [spec_of(seed=seed) for seed in range(4)]
    claims = Claims(tmp_path / "results")
    held = [claims.take(spec.run_id, f"run {spec.seed}") for spec in specs]
    progress = Progress(3, 4, 0.75, 0.5, {"loss": 0.25, "top1": 96.125}, 40.0)
    for claim, so_far in zip(held, (progress, replace(progress, metrics=None), progress, progress), strict=True):
        assert claim is not None
        claim.progress = so_far
        claim.heartbeat()
    older, foreign = held[2].path, held[3].path
    tree = json.loads(older.read_text())
    del tree["progress"]["metrics"], tree["progress"]["task"]
    older.write_text(json.dumps(tree))
    foreign.write_text(foreign.read_text().replace('"classification"', '"captioning"'))
    assert [claims.current(spec.run_id).progress for spec in specs[:3]] == [
        progress, replace(progress, metrics=None), replace(progress, metrics={"top1": 96.125}),
    ]  # fmt: skip
    running = {run["name"]: run["progress"] for run in ablate("status", "--json").json["running"]}
    assert [running[f"run {seed}"].get("top1") for seed in range(4)] == [96.125, None, 96.125, None]
    assert running["run 1"].keys() >= {"epoch", "epochs", "share", "train_loss", "top1", "images_per_second"}
    text = ablate("status").out
    for seed, shown in enumerate([", top-1 96.12%", "", ", top-1 96.12%", ""]):
        assert re.search(rf"run {seed} on .*: epoch 3/4 \(75%\){shown}, 40 images/s\n", text)
    for claim in held:
        claim.release()


def test_a_metric_in_a_sentence() -> None:
    assert describe_metric(Metric("top1", "Top-1"), 98.0469) == "top-1 98.05%"
    assert describe_metric(Metric("box_ap", "Box AP", digits=1), 36.25) == "box AP 36.2%"
    assert describe_metric(Metric("miou", "mIoU"), 37.0) == "mIoU 37.00%"
    assert describe_metric(Metric("mae", "MAE", unit="px", higher_is_better=False), 1.5) == "MAE 1.50 px"


def test_status_of_an_experiment(ablate: Ablate, trained: Trained) -> None:
    words = [*trained.arguments]
    tree = ablate("status", *words, "--seeds", "3", "--json").json
    assert (tree["runs"], tree["left"]) == ({"ok": 8}, 4)
    assert "--recipe" in ablate("status", "--recipe", "cifar10").sentence


def test_a_failed_run_is_in_the_status(ablate: Ablate, tmp_path: Path) -> None:
    record = fake_record(Store(tmp_path / "results"), spec_of(), status="failed")
    tree = ablate("status", "--json").json
    assert tree["failed"] == [
        {"run_id": record.run_id, "reason": "it failed", "log": f"results/runs/{record.run_id}/log.txt"}
    ]


def test_a_results_folder_that_is_removed_ends_the_sweep(
    ablate: Ablate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from metaformer_ablate.runs.callback import RunCallback

    step, steps = RunCallback.on_train_batch_end, 0

    def remove(self: RunCallback, *arguments: object) -> None:
        nonlocal steps
        steps += 1
        if steps == 22 + 5:  # in the second run
            shutil.rmtree(tmp_path / "results")
        step(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(RunCallback, "on_train_batch_end", remove)
    monkeypatch.setattr("metaformer_ablate.runs.callback.PROGRESS_SECONDS", 0.0)
    done = ablate("run", "pooling_size", *TINY_WORDS)
    assert (done.code, done.out) == (1, "")
    assert "the results folder was removed while run" in done.err.splitlines()[-1]
    assert steps == 22 + 5, "it went on"
    assert not (tmp_path / "results" / "runs").exists()


# Again, out and in


def test_a_record_comes_out_again(ablate: Ablate, trained: Trained) -> None:
    record = next(iter(Store(trained.results)))
    done = ablate("reproduce", record.run_id[:8], "--results", trained.results, "--json")
    assert done.code == 0, done.err
    assert done.json == {"run_id": record.run_id, "identical": True, "differences": [], "environment": []}


def test_what_differs_is_told_with_what_could_explain_it(
    ablate: Ablate, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = next(iter(Store(trained.results)))
    monkeypatch.setattr(
        "metaformer_ablate.system.provenance.versions", lambda: {**record.data["versions"], "torch": "9.9"}
    )
    monkeypatch.setattr("metaformer_ablate.data.sampling.derive_seed", lambda *of: 7)  # another order
    done = ablate("reproduce", record.run_id, "--results", trained.results, "--keep", "kept", "--json")
    assert done.code == 1
    kept = Store(tmp_path / "kept").read(record.run_id)
    assert kept is not None
    top1 = next(line for line in done.json["differences"] if line["what"] == "top1")
    assert (top1["then"], top1["now"]) == (record.value("top1"), kept.value("top1"))
    before, after = record.predictions()["predicted"], kept.predictions()["predicted"]
    images = next(line for line in done.json["differences"] if line["what"] == "entries of predicted that differ")
    assert images["now"] == sum(before != after)
    assert {"what": "version of torch", "then": record.data["versions"]["torch"], "now": "9.9"} in done.json[
        "environment"
    ]
    assert "--keep" in ablate("reproduce", record.run_id, "--results", trained.results, "--keep", "kept").sentence


def test_a_record_of_other_semantics_is_said_to_be_one(ablate: Ablate, tmp_path: Path) -> None:
    """Trained by the code of then, which no longer is: what differs is explained, and no record of it is kept."""
    spec = spec_of(words=TINY_WORDS).model_copy(update={"semantics": SEMANTICS - 1})
    record = fake_record(Store(tmp_path / "results"), spec, 12.5)
    told = f"run {spec.run_id} has semantics {SEMANTICS - 1}, and this code {SEMANTICS}"
    done = ablate("reproduce", record.run_id, "--json")
    assert done.code == 1 and f"warning: {told}, which trains the same spec differently" in done.err
    assert {"what": "semantics", "then": SEMANTICS - 1, "now": SEMANTICS} in done.json["environment"]
    assert ablate("reproduce", record.run_id, "--keep", "kept").sentence.startswith(f"--keep kept: {told}")


def test_a_user_without_a_home_is_told_so(ablate: Ablate, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    words = ("run", "pooling_size", *TINY_WORDS)
    sentence = ablate(*words, env={"HOME": None, "XDG_CACHE_HOME": None}).sentence
    assert sentence == "this user has no home directory, which the cache is in; set HOME or XDG_CACHE_HOME"


@pytest.mark.parametrize("key", ["top1", "top5", "loss"])
def test_a_last_digit_is_a_difference(key: str, trained: Trained, tmp_path: Path) -> None:
    record = next(iter(Store(trained.results)))
    other = Record(record.folder, {**record.data, "metrics": {**record.data["metrics"]}})
    assert compare(record, other)["identical"]
    other.data["metrics"][key] += 1e-12
    assert [line["what"] for line in compare(record, other)["differences"]] == [key]


def test_rm_moves_records_aside_and_merge_brings_them_in(ablate: Ablate, trained: Trained, tmp_path: Path) -> None:
    all_of_them = [record.run_id for record in Store(trained.results)]
    merged = ablate("merge", trained.results, "--json")
    assert (merged.code, merged.json["brought"]) == (0, all_of_them)
    first, second = all_of_them[:2]
    assert ablate("rm", first[:6], second, "--json").json["moved"].keys() == {first, second}
    assert (tmp_path / "results" / "aside" / f"{first}-1" / "predictions.npz").is_file()
    store = Store(tmp_path / "results")
    assert [record.run_id for record in store] == all_of_them[2:]
    again = ablate("merge", trained.results, "--json").json
    assert (again["brought"], again["there"]) == ([first, second], all_of_them[2:])
    assert store.read(first).data == Store(trained.results).read(first).data


def test_merge_leaves_a_run_alone_that_is_being_trained(ablate: Ablate, tmp_path: Path) -> None:
    theirs, (held, free) = Store(tmp_path / "theirs"), [spec_of(seed=seed) for seed in range(2)]
    fake_record(theirs, held, 91.0), fake_record(theirs, free, 92.0)
    claim = Claims(tmp_path / "results").take(held.run_id)
    assert claim is not None
    done = ablate("merge", "theirs", "--json").json
    claim.release()
    assert done["brought"] == [free.run_id] and [
        held.run_id in each and "is being trained here by" in each for each in done["problems"]
    ] == [True]
    assert ablate("merge", "theirs", "--json").json["brought"] == [held.run_id]


def test_merge_keeps_ours_where_results_differ_and_takes_theirs_for_a_failed_one(
    ablate: Ablate, tmp_path: Path
) -> None:
    ours, theirs = Store(tmp_path / "results"), Store(tmp_path / "theirs")
    differs, failed = spec_of(seed=0), spec_of(seed=1)
    fake_record(ours, differs, 90.0), fake_record(theirs, differs, 91.0)
    fake_record(ours, failed, status="failed"), fake_record(theirs, failed, 92.0)
    done = ablate("merge", "theirs", "--json")
    assert done.code == 1
    assert (done.json["conflicts"], done.json["brought"]) == ([differs.run_id], [failed.run_id])
    assert (ours.read(differs.run_id).value("top1"), ours.read(failed.run_id).value("top1")) == (90.0, 92.0)


def test_what_is_being_trained_is_not_removed(ablate: Ablate, tmp_path: Path) -> None:
    record = fake_record(Store(tmp_path / "results"), spec_of())
    claim = Claims(tmp_path / "results").take(record.run_id)
    assert claim is not None
    assert "is being trained by" in ablate("rm", record.run_id).sentence
    claim.release()
    assert ablate("rm", record.run_id).code == 0


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--workers", "two"], ["--workers is 'two'", "an integer of at least 0"]),
        (["--launcher", "slrum"], ["unknown launcher 'slrum' (did you mean 'slurm'?)", "local, ray, slurm"]),
        (["--slurm", "time=60"], ["--slurm time=60 is for --launcher slurm"]),
        (["--checkpoint-seconds", "-1"], ["--checkpoint-seconds is -1"]),
        (["--stall-minutes", "nan"], ["--stall-minutes is 'nan'"]),
    ],
)
def test_options_of_execution(ablate: Ablate, words: list[str], parts: list[str]) -> None:
    sentence = ablate("run", "pooling_size", *TINY_WORDS, *words).sentence
    assert all(part in sentence for part in parts), sentence


def test_a_sweep_that_is_stopped_in_its_last_run_is_interrupted_and_not_done(tmp_path: Path) -> None:
    class StopAfter(StopRequest):
        left = 5

        def __call__(self) -> bool:
            self.left -= 1
            self.number = signal.SIGTERM if self.left < 0 else None
            return self.left < 0

    store, folder, stop = Store(tmp_path), DataFolder.choose(None), StopAfter()
    jobs = [Job(spec_of(words=TINY_WORDS), ("one/row",))]
    order = partial(make_request, store=store, folder=folder, device="cpu")
    with pytest.raises(Interrupted):
        Sweep(jobs, order, InProcess("cpu", stop), store, stop=stop).run()
