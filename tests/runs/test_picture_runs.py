"""Whole runs on images that are read one by one: stopped, in parts, on several devices, with damaged images."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import command
from disturbed import StopAfter, assert_equal_to_rounding, content
from pictures import SETTINGS, TEST, pictures_spec, write_folder

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.options import RunOptions
from metaformer_ablate.runs.request import RunRequest, RunResult
from metaformer_ablate.runs.runner import Runner
from metaformer_ablate.runs.worker import execute
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.spec.words import as_words
from metaformer_ablate.system.signals import Interrupted, StopRequest
from metaformer_ablate.tasks.classification.error_analysis import summary as errors

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a training image and one to evaluate on that cannot be read."""
    root = write_folder(tmp_path_factory.mktemp("pictures"))
    for name in ("train/n2/0.jpg", "val/n10/2.jpg"):
        (root / name).write_bytes((root / name).read_bytes()[:700])
    return root


def runner(results: Path, folder: Path) -> Runner:
    return Runner(Store(results), DataFolder(folder, given=True), CPU)


@pytest.fixture(scope="module")
def undisturbed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Record:
    return runner(tmp_path_factory.mktemp("undisturbed"), folder).run(pictures_spec())


def test_a_run_evaluates_every_image_and_names_what_it_could_not_read(undisturbed: Record, folder: Path) -> None:
    assert undisturbed.status == "ok", undisturbed.data["reason"]
    predictions = undisturbed.predictions()
    assert predictions["label"].tolist() == sorted([0, 1, 2] * (TEST // 3))
    assert undisturbed.data["images_seen"] == 2 * 4 * 12
    assert undisturbed.data["data_fingerprint"] == DataFolder(folder, given=True).fingerprint("imagenet") is not None
    assert undisturbed.data["unreadable"] == {
        "train": {"images": 1, "names": ["n2/0.jpg"]},
        "evaluation": {"images": 1, "names": ["n10/2.jpg"]},
    }


# In the first epoch, at its end, at the first step of the next.
@pytest.mark.parametrize("steps", [1, 4, 5])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    steps: int, undisturbed: Record, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        runner(tmp_path, folder).run(pictures_spec(), RunOptions(stop=StopAfter(steps)))
    assert content(runner(tmp_path, folder).run(pictures_spec())) == content(undisturbed)


def test_loader_processes_change_nothing_in_a_run_nor_in_one_that_was_stopped(
    undisturbed: Record, folder: Path, tmp_path: Path
) -> None:
    spec = pictures_spec(**{"data.workers": 2})
    assert spec.run_id == undisturbed.run_id
    options = RunOptions(checkpoint_seconds=0, stop=StopAfter(2))  # and a checkpoint after every step
    with pytest.raises(Interrupted):
        runner(tmp_path, folder).run(spec, options)
    assert content(runner(tmp_path, folder).run(spec, RunOptions(checkpoint_seconds=0))) == content(undisturbed)


def test_what_was_unreadable_before_a_stop_is_still_told(undisturbed: Record, folder: Path, tmp_path: Path) -> None:
    """After the first epoch its images are whole again, under the same fingerprint: it hashes names and sizes."""
    root = write_folder(tmp_path / "pictures")
    whole = {name: (root / name).read_bytes() for name in ("train/n2/0.jpg", "val/n10/2.jpg")}
    for name, pixels in whole.items():
        (root / name).write_bytes(bytes(len(pixels)))
    with pytest.raises(Interrupted):
        runner(tmp_path / "results", root).run(pictures_spec(), RunOptions(stop=StopAfter(4)))
    for name, pixels in whole.items():
        (root / name).write_bytes(pixels)
    record = runner(tmp_path / "results", root).run(pictures_spec())
    assert record.data["unreadable"] == undisturbed.data["unreadable"]


def test_a_run_whose_data_changed_begins_at_its_beginning(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped after one of two epochs, with two classes exchanged before it goes on, and once more in one process."""
    root = write_folder(tmp_path / "pictures")
    one = runner(tmp_path / "results", root)
    with pytest.raises(Interrupted):
        one.run(pictures_spec(), RunOptions(stop=StopAfter(4)))
    for split in ("train", "val"):
        (root / split / "n2").rename(root / split / "other")
        (root / split / "n10").rename(root / split / "n2")
        (root / split / "other").rename(root / split / "n10")
    record = one.run(pictures_spec())
    assert record.data["data_fingerprint"] == DataFolder(root, given=True).fingerprint("imagenet")
    assert content(record) == content(runner(tmp_path / "expected", root).run(pictures_spec()))
    said = capsys.readouterr().err
    assert "last.ckpt is of other data (fingerprint " in said
    assert "and the run begins at its beginning\n" in said


def test_what_is_odd_about_the_files_is_said_once(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_folder(tmp_path / "pictures")
    (root / "train" / "n2" / "._0.jpg").write_bytes(b"")
    one = runner(tmp_path / "results", root)
    for settings in ({}, {"data.flip": False}):  # opened twice
        assert one.run(pictures_spec(**settings)).status == "ok"
    assert capsys.readouterr().err.count(f"note: {root}: not counted for train are 1 hidden") == 1


def test_too_many_unreadable_images_fail_a_run(folder: Path, tmp_path: Path) -> None:
    record = runner(tmp_path, folder).run(pictures_spec(**{"data.max_unreadable": 1}))
    assert record.status == "failed"
    assert "2 images cannot be read; allowed: data.max_unreadable, which is 1" in record.data["reason"]
    assert "n2/0.jpg" in record.data["reason"] and "n10/2.jpg" in record.data["reason"]


@pytest.mark.parametrize("micro_batch", [4, pytest.param(2, marks=pytest.mark.slow)])
def test_a_batch_taken_in_parts_and_at_once_end_alike(
    micro_batch: int, undisturbed: Record, folder: Path, tmp_path: Path
) -> None:
    record = runner(tmp_path, folder).run(pictures_spec(**{"train.micro_batch": micro_batch}))
    assert_equal_to_rounding(record, undisturbed)
    assert record.history() != undisturbed.history()
    assert record.data["unreadable"] == undisturbed.data["unreadable"]


def on_ranks(spec: RunSpec, folder: Path, results: Path) -> Record:
    order = RunRequest(spec.with_execution(), str(results), str(folder), "cpu", "a run", spec.run_id)
    assert execute(order, StopRequest()) == RunResult(spec.run_id, "recorded")
    return Store(results).find(spec.run_id)


@pytest.mark.parametrize(
    "settings", [{}, pytest.param({"train.micro_batch": 2, "data.workers": 1}, marks=pytest.mark.slow)]
)
def test_two_devices_and_one_end_alike(
    settings: dict[str, int], undisturbed: Record, folder: Path, tmp_path: Path
) -> None:
    record = on_ranks(pictures_spec(**{"train.devices": 2, **settings}), folder, tmp_path)
    assert_equal_to_rounding(record, undisturbed)
    assert record.data["unreadable"] == undisturbed.data["unreadable"]


def test_errors_are_told_for_the_classes_there_are(undisturbed: Record) -> None:
    found = errors.summary(undisturbed)
    assert len(found["classes"]) == 3 and np.array(found["confusion"]).shape == (3, 3)


@pytest.mark.slow
@pytest.mark.parametrize("to_group", [False, True])
def test_a_signal_to_the_process_or_to_its_group_saves_the_place(
    to_group: bool, undisturbed: Record, folder: Path, tmp_path: Path
) -> None:
    """Ctrl-C and Slurm signal the loader processes, too."""
    (tmp_path / "one.yaml").write_text("baseline: pool\nrows:\n  pool: {set: {}}\n")
    words: Any = as_words({**SETTINGS, "data.workers": 2})
    where = ["--recipe", "imagenet", "--data", folder, "--results", tmp_path / "results", "--workers", "0"]
    arguments = command("run", tmp_path / "one.yaml", *words, *where)
    run_folder = Store(tmp_path / "results").folder(undisturbed.run_id)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*arguments, "--checkpoint-seconds", "0"], env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while process.poll() is None and not any(run_folder.glob("*.ckpt")):
        time.sleep(0.01)
    if to_group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    assert process.wait(60) in (130, 0)
    assert subprocess.run(arguments, env=environment, capture_output=True).returncode == 0
    assert content(Store(tmp_path / "results").find(undisturbed.run_id)) == content(undisturbed)
