"""The store: whole or not at all, found by prefix, never a result that somebody edited."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from specs import fake_record, seal, spec_of

from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.record import StoreError
from metaformer_ablate.records.store import Store
from metaformer_ablate.settings.layers import digest
from metaformer_ablate.settings.yaml_reader import YamlFile
from metaformer_ablate.spec.run_spec import RunSpec


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


@pytest.fixture
def spec() -> RunSpec:
    return spec_of()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---------------------------------------------------------------------------------------------------------------------
# What is written is what is read


def test_a_record_comes_back_as_it_was_written(store: Store, spec: RunSpec) -> None:
    written = fake_record(store, spec, 96.25)
    assert written.folder == store.path / "runs" / spec.run_id
    assert names(written.folder) == ["history.csv", "predictions.npz", "record.json", "spec.yaml"]
    read = Store(store.path).read(spec.run_id)
    assert read == written
    assert (read.run_id, read.status, read.value("top1")) == (spec.run_id, "ok", 96.25)
    assert read.spec() == spec.to_dict()
    assert [row["val_top1"] for row in read.history()] == [40.0, 96.25]
    assert all(tuple(row) == read.task.history_columns for row in read.history())
    predictions = read.predictions()
    assert {key: value.dtype for key, value in predictions.items()} == {
        "label": np.uint8,
        "predicted": np.uint8,
        "confidence": np.float32,
    }
    assert predictions["label"].tolist() == list(range(10))


@pytest.mark.parametrize("status", ["diverged", "failed"])
def test_a_run_that_did_not_end_has_no_predictions_and_no_number(store: Store, spec: RunSpec, status: str) -> None:
    record = fake_record(store, spec, status=status)
    assert names(record.folder) == sorted(
        ["history.csv", "record.json", "spec.yaml", *(["log.txt"] if status == "failed" else [])]
    )
    assert store.read(spec.run_id) == record
    assert record.value("top1") is None
    assert store.problems == {}


def test_history_keeps_every_digit(store: Store, spec: RunSpec) -> None:
    values = {
        "epoch": 1,
        "step": 5,
        "lr": 1 / 3,
        "train_loss": 2.301575469970703,
        "val_loss": 1e-17,
        "val_top1": 100 / 7,
    }
    record = store.write(
        spec,
        fake_record(Store(store.path / "other"), spec).data | {"status": "diverged"},
        [{**values, "val_top5": 0.0, "seconds": 0.175}],
    )
    with (record.folder / "history.csv").open(newline="") as stream:
        (line,) = csv.DictReader(stream)
    assert {key: float(line[key]) for key in values} == values


SPECS = {
    "digits": {},
    "small numbers": {"train.lr": 1e-300, "train.eps": 1e-8, "train.min_lr": 0, "model.layer_scale": 1e-6},
    "large numbers": {"train.lr": 1e22, "train.weight_decay": 1 / 3, "train.betas": [0.1 + 0.2, 0.999]},
    "nulls": {"model.token_mixer": "identity", "model.norm": "none", "model.layer_scale": None},
    "switches": {"model.residual": False, "data.flip": True, "train.clip_grad": 1},
}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("recipe", ["digits", "imagenet"])
def test_the_spec_read_back_has_the_id_of_the_folder(store: Store, name: str, recipe: str) -> None:
    spec = spec_of(SPECS[name], recipe=recipe, seed=7)
    record = fake_record(store, spec)
    tree = YamlFile(record.folder / "spec.yaml").data
    assert digest(tree)[:12] == record.run_id == record.folder.name == spec.run_id
    assert tree == spec.to_dict()


def test_runs_are_listed_in_the_order_of_their_ids(store: Store) -> None:
    specs = [spec_of(seed=seed) for seed in range(5)]
    for spec in specs:
        fake_record(store, spec)
    (store.runs / "notes").mkdir()
    (store.runs / "readme.txt").write_text("")
    assert store.ids() == sorted(spec.run_id for spec in specs)
    assert [record.run_id for record in store] == store.ids()
    assert store.problems == {}


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "nowhere")
    assert store.ids() == [] and list(store) == []
    assert store.read("0" * 12) is None
    assert store.frame().empty
    assert not store.path.exists(), "reading made a folder"


def test_frame_has_a_line_a_run(store: Store) -> None:
    fake_record(store, spec_of(seed=0), 97.0)
    fake_record(store, spec_of({"model.pool_size": 5}, seed=1), 95.5)
    fake_record(store, spec_of({"train.lr": 0.5}, seed=2), status="diverged")
    frame = store.frame()
    assert isinstance(frame, pd.DataFrame)
    assert len(frame) == 3 and list(frame["run_id"]) == store.ids()
    lines = {line["seed"]: line for line in frame.to_dict("records")}
    assert (lines[0]["top1"], lines[1]["top1"]) == (97.0, 95.5)
    assert np.isnan(lines[2]["top1"])
    assert [lines[seed]["status"] for seed in range(3)] == ["ok", "ok", "diverged"]
    assert list(lines[1]["model.pool_size"]) == [5, 5, 5, 5]
    assert (lines[0]["train.lr"], lines[2]["train.lr"]) == (0.002, 0.5)
    assert lines[0]["model.stem.kernel"] == 3
    assert lines[0]["data.name"] == "digits"
    assert {"params", "frozen_params", "macs", "seconds", "top5", "loss"} <= set(frame.columns)


# ---------------------------------------------------------------------------------------------------------------------
# Whole or not at all


def fail_with(error: BaseException) -> Callable[..., Any]:
    def fail(*of: Any, **more: Any) -> Any:
        raise error

    return fail


def half_written(data: Any, stream: Any, **options: Any) -> None:
    stream.write('{"format": 1, "run_id": ')
    raise KeyboardInterrupt


# Places where a process may die: each after another file.
CRASHES = {
    "before history.csv": ("_history", fail_with(KeyboardInterrupt())),
    "before the checksums": ("file_digest", fail_with(KeyboardInterrupt())),
    "within record.json": ("json.dump", half_written),
    "before record.json is on the disk": ("os.fsync", fail_with(KeyboardInterrupt())),
}


@pytest.mark.parametrize("place", CRASHES)
@pytest.mark.parametrize("there_before", [False, True])
def test_a_crash_leaves_no_folder_under_the_name_of_the_run(
    place: str, there_before: bool, store: Store, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fake_record(store, spec, status="failed") if there_before else None
    name, replacement = CRASHES[place]
    with monkeypatch.context() as patch:
        patch.setattr(f"metaformer_ablate.records.writing.{name}", replacement)
        with pytest.raises(KeyboardInterrupt):
            fake_record(store, spec, 95.0)
    assert store.read(spec.run_id) == before, "an old record has to stand until the new one is whole"
    assert store.ids() == ([spec.run_id] if there_before else [])
    assert store.problems == {}
    assert fake_record(store, spec, 96.0).value("top1") == 96.0  # what the crash left is not in the way
    assert names(store.runs) == [spec.run_id]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "it is read-only"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
@pytest.mark.parametrize("place", ["_history", "json.dump", "os.fsync", "Path.rename"])
def test_a_folder_that_cannot_be_written_says_why(
    place: str, number: int, message: str, store: Store, spec: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"metaformer_ablate.records.writing.{place}", fail_with(OSError(number, os.strerror(number))))
    with pytest.raises(StoreError) as caught:
        fake_record(store, spec)
    assert str(caught.value).startswith(f"{store.path}: the record of run {spec.run_id} cannot be written: ")
    assert message in str(caught.value)
    assert names(store.runs) == [], "something half-written is left"


def test_record_json_is_written_last(store: Store, spec: RunSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    dump = json.dump
    there: list[list[str]] = []

    def watch(data: Any, stream: Any, **options: Any) -> None:
        there.append(names(Path(stream.name).parent))
        dump(data, stream, **options)

    monkeypatch.setattr(json, "dump", watch)
    fake_record(store, spec)
    assert there == [["history.csv", "predictions.npz", "record.json", "spec.yaml"]]


def test_an_old_record_is_moved_aside_and_kept(store: Store, spec: RunSpec) -> None:
    for reason in ("it fell", "it fell again"):
        fake_record(store, spec, status="failed", reason=reason)
    fake_record(store, spec, 92.0)
    assert store.read(spec.run_id).value("top1") == 92.0
    aside = store.path / "aside"
    assert names(aside) == [f"{spec.run_id}-1", f"{spec.run_id}-2"]
    kept = [json.loads((aside / name / "record.json").read_text())["reason"] for name in names(aside)]
    assert kept == ["it fell", "it fell again"]
    moved = store.set_aside(spec.run_id)
    assert moved == aside / f"{spec.run_id}-3" and (moved / "predictions.npz").is_file()
    assert store.read(spec.run_id) is None
    assert store.set_aside(spec.run_id) is None


def test_a_folder_can_be_asked_whether_it_is_writable(tmp_path: Path) -> None:
    good = Store(tmp_path / "new" / "results")
    good.check_writable()
    assert names(good.runs) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=f"--results {tmp_path}/file: cannot be written: "):
        Store(tmp_path / "file").check_writable()


# ---------------------------------------------------------------------------------------------------------------------
# Finding


def test_a_run_is_found_by_any_unique_prefix(store: Store, spec: RunSpec) -> None:
    record = fake_record(store, spec)
    for length in range(6, 13):
        assert store.find(spec.run_id[:length]) == record


@pytest.mark.parametrize("prefix", ["", "12345", "0123456789abc", "ABCDEF", "../../", "zzzzzz", "01234 "])
def test_what_is_no_prefix_is_refused(store: Store, prefix: str) -> None:
    with pytest.raises(RequestError, match="is not a run id"):
        store.find(prefix)


def test_a_prefix_of_none_or_of_several_is_refused(store: Store, spec: RunSpec) -> None:
    record = fake_record(store, spec)
    twin = record.run_id[:8] + ("0000" if record.run_id[8:] != "0000" else "1111")
    shutil.copytree(record.folder, store.folder(twin))
    with pytest.raises(RequestError, match=f"run '{record.run_id[:8]}' begins 2 run ids: ") as caught:
        store.find(record.run_id[:8])
    assert record.run_id in str(caught.value) and twin in str(caught.value)
    assert store.find(record.run_id) == record
    with pytest.raises(RequestError, match="is no run in"):
        store.find("ffffffffffff" if not record.run_id.startswith("f") else "000000000000")
    with pytest.raises(RequestError, match=r"record\.json is of run"):
        store.find(twin)


# ---------------------------------------------------------------------------------------------------------------------
# What was edited is no result


def change_json(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        data = json.loads((folder / "record.json").read_text())
        (folder / "record.json").write_text(json.dumps({**data, **changes}))

    return change


def append(name: str, content: bytes = b"\n") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / name).open("ab") as stream:
            stream.write(content)

    return change


def replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


OK = {"top1": 99.9, "top5": 100.0, "loss": 0.25}
EDITS: dict[str, tuple[Callable[[Path], None], str]] = {
    "another number": (change_json(metrics=OK), "record.json was changed after it was written"),
    "a new key": (change_json(best_top1=99.0), "record.json was changed"),
    "NaN": (change_json(metrics={**OK, "loss": float("nan")}), "record.json cannot be read: NaN is not JSON"),
    "another status": (change_json(status="failed", metrics=None), "record.json was changed"),
    "an unknown status": (change_json(status="great"), "format 1 and status 'great'"),
    "another format": (change_json(format=2), "format 2 and status 'ok'"),
    "another run": (change_json(run_id="0123456789ab"), "record.json is of run 0123456789ab"),
    "no metrics": (
        change_json(metrics=None),
        "metrics is None; allowed: numbers by name, top1 among them",
    ),
    "text for a number": (change_json(metrics={**OK, "top1": "99.9"}), "record.json: metrics.top1: "),
    "more than all": (change_json(metrics={**OK, "top1": 101}), "metrics.top1 is 101; allowed: a number from 0 to 100"),
    "fewer than none": (change_json(metrics={**OK, "top5": -1}), "metrics.top5 is -1; allowed: a number from 0 to 100"),
    "no reported metric": (change_json(metrics={"loss": 0.25}), "metrics is {'loss': 0.25}; allowed: numbers by name"),
    "an unknown task": (change_json(task="classifcation"), "unknown task 'classifcation' (did you mean"),
    "broken checksums": (change_json(checksums=["x"]), "record.json was changed"),
    "empty checksums": (change_json(checksums={}), "record.json was changed"),
    "half a record.json": (lambda folder: os.truncate(folder / "record.json", 100), "record.json cannot be read: "),
    "an empty record.json": (lambda folder: os.truncate(folder / "record.json", 0), "record.json cannot be read: "),
    "a list": (lambda folder: (folder / "record.json").write_text("[]") and None, "record.json lacks"),
    "no record.json": (remove("record.json"), "half-written: it has no record.json"),
    "another history": (replace("history.csv", "40.0", "80.0"), "history.csv was changed after it was written"),
    "no history": (remove("history.csv"), "half-written: history.csv is missing"),
    "other predictions": (append("predictions.npz"), "predictions.npz was changed after it was written"),
    "no predictions": (remove("predictions.npz"), "half-written: predictions.npz is missing"),
    "another spec": (replace("spec.yaml", "seed: 0", "seed: 1"), "spec.yaml was changed after it was written"),
    "a comment in the spec": (append("spec.yaml", b"# mine\n"), "spec.yaml was changed"),
    "no spec": (remove("spec.yaml"), "half-written: spec.yaml is missing"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_folder_is_named_and_not_counted(name: str, store: Store, spec: RunSpec) -> None:
    record = fake_record(store, spec)
    good = fake_record(store, spec_of(seed=1))
    edit, problem = EDITS[name]
    edit(record.folder)
    assert store.read(record.run_id) is None
    message = store.problems[record.run_id]
    assert message.startswith(f"{record.folder}: ") and message.endswith("; not counted as a result")
    assert problem in message
    assert list(store) == [good], "the others still count"
    assert len(store.frame()) == 1
    with pytest.raises(RequestError, match="not counted as a result"):
        store.find(record.run_id)


def test_a_record_written_over_a_broken_one_counts_again(store: Store, spec: RunSpec) -> None:
    record = fake_record(store, spec)
    remove("history.csv")(record.folder)
    assert store.read(spec.run_id) is None
    again = fake_record(store, spec, 95.0)
    assert store.problems == {}
    assert store.read(spec.run_id) == again


def test_a_record_whose_checksums_were_taken_out_is_damaged(store: Store, spec: RunSpec) -> None:
    """As they have to be for a number to be changed by hand: every record of this format was written with them."""
    record = fake_record(store, spec)
    data = {**record.data, "metrics": OK}
    del data["checksums"]
    (record.folder / "record.json").write_text(json.dumps(data))
    append("history.csv", b"3,99,1,1,1,99.9,100,20\n")(record.folder)
    assert store.read(spec.run_id) is None
    assert "record.json has no checksums" in store.problems[spec.run_id]


def test_what_a_record_left_aside_says_has_its_checksums(store: Store, spec: RunSpec) -> None:
    record = fake_record(store, spec)
    seal(record.folder, device="another CPU")
    found = store.read(spec.run_id)
    assert found is not None and found.data["device"] == "another CPU"


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (replace("spec.yaml", "seed: 0", "seed: 1"), "spec.yaml is of another run"),
        (append("spec.yaml", b"label: mine\n"), "spec.yaml is of another run"),
        (append("spec.yaml", b"seed: 0\n"), "spec.yaml cannot be read"),
        (append("spec.yaml", b"x: .nan\n"), "spec.yaml cannot be read"),
        (lambda folder: (folder / "spec.yaml").write_bytes(b"\xff\xfe") and None, "spec.yaml cannot be read"),
        (lambda folder: (folder / "spec.yaml").write_text("[]") and None, "spec.yaml cannot be read"),
    ],
)
def test_a_record_of_another_program_with_another_spec_is_in_no_frame(
    edit: Callable[[Path], None], problem: str, store: Store, spec: RunSpec
) -> None:
    record, good = fake_record(store, spec), fake_record(store, spec_of(seed=1))
    edit(record.folder)
    seal(record.folder)
    assert list(store.frame()["run_id"]) == [good.run_id]
    assert problem in store.problems[spec.run_id]
