"""Runs on a GPU: rows of the paper's table, bits, checkpoints, memory, workers. Skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import TINY_WORDS, call
from disturbed import StopAfter, content
from specs import spec_of

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.options import RunOptions
from metaformer_ablate.runs.runner import Runner
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system.signals import Interrupted
from metaformer_ablate.tasks.classification.module import build_module
from metaformer_ablate.tasks.classification.net import build_net
from metaformer_ablate.training.compute import repeatable

GPU = torch.device("cuda")
needs_gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
ROWS = sorted(plan("table5", "cifar10").specs)
SMALL = {"model.depths": [1, 1, 1, 1], "model.dims": [8, 8, 16, 16], "train.epochs": 2, "train.warmup_epochs": 0}


def runner(path: Path) -> Runner:
    return Runner(Store(path), DataFolder.choose(None), GPU)


def gpu_spec(**settings: object) -> RunSpec:
    over = SMALL | {"train.precision": "bf16", "train.compile": True, "model.drop_path": 0.3, "data.mixup": 0.4}
    return spec_of(over | {key.replace("__", "."): value for key, value in settings.items()})


def gpu_test(test):  # type: ignore[no-untyped-def]
    for mark in needs_gpu:
        test = mark(test)
    return test


@gpu_test
@pytest.mark.parametrize("row", ROWS)
def test_three_steps_of_each_row_are_finite_in_bf16_and_compiled(row: str) -> None:
    spec = plan("table5", "cifar10", ["train.batch_size=32", "model.depths=[1,1,1,1]"]).specs[row]
    data = type("Data", (), {"mean": (0.5,) * 3, "std": (0.25,) * 3, "sizes": (96, 32)})()
    module = build_module(spec, build_net(spec), data).to(GPU)  # type: ignore[arg-type]
    module.on_fit_start()
    module.on_train_epoch_start()
    module.compile_nets()
    optimizer = module.configure_optimizers()["optimizer"]
    images = torch.randint(0, 256, (32, 3, 32, 32), dtype=torch.uint8, device=GPU)
    labels = torch.randint(0, 10, (32,), device=GPU)
    for step in range(3):
        with torch.autocast("cuda", torch.bfloat16):
            loss = module.training_step((images, labels), step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert loss.isfinite().item()


@gpu_test
def test_the_same_spec_gives_the_same_bits_or_the_record_says_why_not(tmp_path: Path) -> None:
    one, other = (runner(tmp_path / name).run(gpu_spec()) for name in ("one", "other"))
    assert one.data.get("not_repeatable") or content(one) == content(other)


@gpu_test
def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path) -> None:
    undisturbed = runner(tmp_path / "undisturbed").run(gpu_spec())
    with pytest.raises(Interrupted):
        runner(tmp_path / "stopped").run(gpu_spec(), RunOptions(stop=StopAfter(7)))
    again = runner(tmp_path / "stopped").run(gpu_spec())
    assert undisturbed.data.get("not_repeatable") or content(again) == content(undisturbed)


@gpu_test
def test_out_of_memory_is_a_sentence_and_the_sweep_goes_on(tmp_path: Path) -> None:
    (tmp_path / "wide.yaml").write_text(
        "title: Wide\nbaseline: wide\nrows:\n  wide: {set: {model.dims: [65536, 65536, 65536, 65536]}}\n"
        "  small: {set: {model.dims: [8, 8, 16, 16]}}\n"
    )
    words = [word for word in TINY_WORDS if not word.startswith("model.dims")]
    done = call("run", "wide.yaml", *words, "--device", "cuda", "--workers", "1", cwd=tmp_path)
    assert done.code == 1 and "out of memory" in done.err and "try a smaller model.size" in done.err
    statuses = sorted(record.status for record in Store(tmp_path / "results"))
    assert statuses == ["failed", "ok"]


@gpu_test
def test_two_workers_share_one_gpu(tmp_path: Path) -> None:
    done = call("run", "pooling_size", *TINY_WORDS, "--device", "cuda:0", "--workers", "2", cwd=tmp_path)
    assert done.code == 0, done.err
    records = list(Store(tmp_path / "results"))
    assert len(records) == 4 and all(record.status == "ok" for record in records)


def test_operators_that_do_not_repeat_are_named() -> None:
    """`put_` has no deterministic implementation on a CPU either."""
    with repeatable(gpu=True) as found:
        torch.zeros(3).put_(torch.tensor([1, 1]), torch.tensor([1.0, 2.0]))
    assert found == {"put_"}
    assert not torch.are_deterministic_algorithms_enabled()
    with repeatable(gpu=False) as found:
        torch.zeros(3).put_(torch.tensor([1, 1]), torch.tensor([1.0, 2.0]))
        assert not torch.are_deterministic_algorithms_enabled()
    assert not found
