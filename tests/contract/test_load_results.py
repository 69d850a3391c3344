"""`load_results`: the store as a frame, by hand and by experiment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from specs import fake_record, spec_of

from metaformer_ablate import load_results
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.store import Store, frame_columns
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.tasks.registry import get_task

# As they were before there were other tasks; programs read them by position.
FRAME_COLUMNS = (
    "run_id status top1 top5 loss at_chance params frozen_params macs macs_224 epochs images_seen seconds "
    "peak_memory_bytes device started data_fingerprint".split()
)


@pytest.fixture
def results(environment: None, tmp_path: Path) -> Path:
    """Two rows of pooling_size with two seeds, one of them diverged, one stale, and a run that no experiment shows."""
    store, chosen = Store(tmp_path / "results"), plan("pooling_size")
    now = DataFolder.choose(None).fingerprint("digits")
    fake_record(store, chosen.spec("pool3", 0), 97.0, fingerprint=now, git={"commit": "c" * 40, "dirty": False})
    fake_record(store, chosen.spec("pool3", 1), 96.0, fingerprint="0123456789abcdef")
    fake_record(store, chosen.spec("pool9", 0), 95.5, fingerprint=now, device="another CPU")
    fake_record(store, chosen.spec("pool9", 1), status="diverged", fingerprint=now)
    fake_record(store, spec_of({"train.lr": 0.5}, seed=3), 50.0, fingerprint=now, at_chance=True)
    return tmp_path / "results"


def test_a_line_a_run_with_every_field(results: Path) -> None:
    frame = load_results(results)
    store = Store(results)
    assert list(frame["run_id"]) == store.ids() and len(frame) == 5
    assert list(frame.columns[: len(FRAME_COLUMNS)]) == FRAME_COLUMNS == list(frame_columns(get_task()))
    assert frame.columns.is_unique and not frame.columns.isin(["row", "label"]).any()
    lines = frame.set_index("run_id")
    for record in store:
        line = lines.loc[record.run_id]
        spec = record.spec()
        assert (line["seed"], line["status"], line["device"]) == (spec["seed"], record.status, record.data["device"])
        assert line["model.pool_size"] == spec["model"]["pool_size"]
        assert (line["model.stem.kernel"], line["data.name"]) == (3, "digits")
        assert line["train.lr"] == spec["train"]["lr"]
        assert (line["top1"] == record.value("top1")) or (record.value("top1") is None and pd.isna(line["top1"]))
        assert (line["params"], line["macs"], line["torch"]) == (119_000, 18_000_000, "2.15.0")
    assert lines.loc[plan("pooling_size").spec("pool3", 0).run_id, "commit"] == "c" * 40
    assert sorted(frame["seed"]) == [0, 0, 1, 1, 3]
    assert frame.loc[frame["seed"] == 3, "at_chance"].item() is True
    assert frame["top1"].isna().sum() == 1


def test_the_lines_of_an_experiment_are_its_rows(results: Path) -> None:
    frame = load_results(results, experiment="pooling_size")
    assert list(frame.columns[:4]) == ["row", "label", "group", "run_id"]
    assert list(zip(frame["row"], frame["seed"], frame["status"], strict=True)) == [
        ("pool3", 0, "ok"), ("pool3", 1, "stale"), ("pool9", 0, "ok"), ("pool9", 1, "diverged"),
    ]  # fmt: skip
    assert list(frame["label"].unique()) == ["Pooling size 3", "Pooling size 3 -> 9"]
    ids = [plan("pooling_size").spec(row, seed).run_id for row in ("pool3", "pool9") for seed in (0, 1)]
    assert list(frame["run_id"]) == ids
    other = load_results(results, experiment="normalization")
    assert list(other["row"].unique()) == [plan("normalization").experiment.baseline], "the shared baseline"
    assert load_results(results, "pooling_size", overrides=["train.epochs=3"]).empty
    assert load_results(results, "pooling_size", recipe="cifar10").empty


def test_no_records_no_lines_the_same_columns(tmp_path: Path) -> None:
    frame = load_results(tmp_path)
    assert frame.empty and set(FRAME_COLUMNS) <= set(frame.columns)
    assert {"row", "seed", "top1"} <= set(load_results(tmp_path, "pooling_size").columns)
    with pytest.raises(RequestError, match="results folder 'nowhere': no such folder"):
        load_results("nowhere")
    with pytest.raises(RequestError, match="unknown experiment 'pooling'"):
        load_results(tmp_path, "pooling")


def test_what_is_no_record_is_warned_of(results: Path) -> None:
    broken = plan("pooling_size").spec("pool9", 0).run_id
    (results / "runs" / broken / "history.csv").write_text("epoch\n1\n")
    with pytest.warns(UserWarning, match=f"{broken}: history.csv was changed"):
        assert broken not in set(load_results(results)["run_id"])


def test_a_spec_read_again_is_its_own_copy(results: Path) -> None:
    """Records of one row share what was parsed, and must not share what is handed out."""
    store, chosen = Store(results), plan("pooling_size")
    first, second = (store.read(chosen.spec("pool3", seed).run_id) for seed in (0, 1))
    assert first is not None and second is not None
    first.spec()["model"]["norm"] = "changed"
    assert second.spec() == chosen.spec("pool3", 1).to_dict()
    assert first.spec() == chosen.spec("pool3", 0).to_dict()


def test_the_package_stays_light(tmp_path: Path) -> None:
    program = (
        "import sys, metaformer_ablate; heavy = {'torch', 'pandas', 'numpy', 'pydantic', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules); metaformer_ablate.load_results('.')\n"
        "assert 'torch' not in sys.modules and 'pandas' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
