"""How a run is computed: averaged weights, gradient checkpointing, torch.compile, what `auto` comes to, host syncs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_WORDS, command
from disturbed import SETTINGS, StopAfter, assert_equal_to_rounding, content, runner, trained_by
from specs import build_net, fake_record, spec_of
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.cpu_ops import _convolutions_are_faster
from metaformer_ablate.records.checkpoints import LAST, evaluated_weights
from metaformer_ablate.records.compare import compare
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.runs.constraints import check_hardware
from metaformer_ablate.runs.options import RunOptions
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system.signals import Interrupted
from metaformer_ablate.tasks.classification.data.augment import Augment
from metaformer_ablate.tasks.classification.data.in_memory import evaluation_loader
from metaformer_ablate.tasks.classification.module import Classification
from metaformer_ablate.tasks.module import TaskModule
from metaformer_ablate.trained.load import load_images_of, load_trained
from metaformer_ablate.training.compute import ComputeSettings, checkpoint_activations, compile_in_place
from metaformer_ablate.training.optim import make_optimizer

CPU = torch.device("cpu")
# All that draws at random, without batch norm.
DRAWN: dict[str, Any] = {**SETTINGS, "model.norm": "mln", "model.head": "mlp", "model.head_dropout": 0.2}


def drawn_spec(settings: dict[str, Any] | None = None, **train: Any) -> RunSpec:
    return spec_of({**DRAWN, **(settings or {}), **{f"train.{k}": v for k, v in train.items()}}, words=TINY_WORDS)


@pytest.fixture(scope="module")
def plain(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Record:
    return runner(tmp_path_factory.mktemp("plain")).run(drawn_spec())


# ---------------------------------------------------------------------------------------------------------------------
# Averaged weights

EMA = 0.9


def averaged_spec(**train: Any) -> RunSpec:
    return drawn_spec({"model.norm": "batch_norm"}, ema=EMA, **train)


@pytest.fixture(scope="module")
def averaged(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Record:
    folder = tmp_path_factory.mktemp("averaged")
    return runner(folder).run(averaged_spec(), RunOptions(keep_checkpoints=True))


def test_averaged_weights_are_timms(averaged: Record) -> None:
    """timm's own average, fed with the weights after each step of the same run without one."""
    from timm.utils import ModelEmaV3

    spec, steps = averaged_spec(), []

    class Remembering(Classification):
        def on_train_batch_end(self, *of_batch: Any) -> None:
            steps.append({name: value.clone() for name, value in self.net.state_dict().items()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metaformer_ablate.tasks.classification.module.Classification", Remembering)
        runner(averaged.folder.parent.parent / "again").run(spec)
    net = build_net(spec)
    theirs = ModelEmaV3(net, decay=EMA)
    for number, weights in enumerate(steps, 1):
        net.load_state_dict(weights)
        theirs.update(net, step=number)
    state = torch.load(averaged.folder / LAST, weights_only=True)["state_dict"]
    ours = evaluated_weights(state, averaged=True)
    assert len(steps) == 66 and ours.keys() == net.state_dict().keys()
    for name, value in theirs.module.state_dict().items():
        assert torch.equal(ours[name], value), name
    assert any(not torch.equal(ours[name], value) for name, value in evaluated_weights(state, averaged=False).items())


def test_kept_averaged_weights_are_those_that_predicted(averaged: Record) -> None:
    _, checked = load_trained(averaged, load_images_of(averaged, DataFolder.choose(None)), CPU)
    assert checked["predictions_repeated"] == checked["images"]
    assert checked["largest_confidence_difference"] < 1e-3


def test_what_the_net_itself_predicts_is_something_else(averaged: Record, tmp_path: Path) -> None:
    alone = runner(tmp_path).run(drawn_spec({"model.norm": "batch_norm"}))
    assert [line["train_loss"] for line in alone.history()] == [line["train_loss"] for line in averaged.history()]
    assert all(a["val_loss"] != b["val_loss"] for a, b in zip(alone.history(), averaged.history(), strict=True))


@pytest.mark.parametrize("steps", [0, 9, 22, 47])
def test_a_run_with_averaged_weights_that_was_stopped(steps: int, averaged: Record, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        runner(tmp_path).run(averaged_spec(), RunOptions(stop=StopAfter(steps)))
    assert content(runner(tmp_path).run(averaged_spec())) == content(averaged)


@pytest.mark.slow
def test_averaged_weights_of_a_batch_in_parts_and_on_two_devices(tmp_path: Path) -> None:
    one = runner(tmp_path / "one").run(drawn_spec(ema=EMA))
    assert_equal_to_rounding(runner(tmp_path / "parts").run(drawn_spec(ema=EMA, micro_batch=16)), one)
    assert_equal_to_rounding(trained_by(drawn_spec(ema=EMA, devices=2), tmp_path / "two"), one)


# ---------------------------------------------------------------------------------------------------------------------
# Gradient checkpointing


def test_blocks_computed_twice_give_the_same_record(plain: Record, tmp_path: Path) -> None:
    spec = drawn_spec(grad_checkpointing=True)
    assert spec.run_id == plain.run_id
    assert content(runner(tmp_path).run(spec)) == content(plain)


def test_blocks_computed_twice_keep_less() -> None:
    """The tensors that are kept for the backward pass, counted by torch's own hooks."""
    kept = []
    for enable in (False, True):
        net = build_net(drawn_spec())
        net.set_grad_checkpointing(enable)
        sizes: list[int] = []

        def note(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            net(torch.randn(4, 1, 8, 8))
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "poolformer_s12"])
def test_blocks_of_timm_computed_twice(name: str) -> None:
    spec = spec_of({"model.timm": name, "data.image_size": 64})
    gradients = []
    for twice in (False, True):
        net = build_net(spec)
        if twice:
            checkpoint_activations(net)
        torch.manual_seed(0)
        net(torch.linspace(0, 1, 2 * 64 * 64).view(2, 1, 64, 64)).square().sum().backward()
        gradients.append([p.grad for p in net.parameters()])
    assert all(map(torch.equal, *gradients))


def test_what_cannot_be_computed_twice_is_refused(ablate: Any) -> None:
    words = ["train.grad_checkpointing=true", "--device", "cpu"]
    assert "whose running statistics would follow each batch twice" in (
        ablate("run", "pooling_size", "model.norm=batch_norm", *words).sentence
    )
    with pytest.raises(RequestError, match=r"which PVT cannot do; allowed: false"):
        checkpoint_activations(build_net(spec_of({"model.comparator": "pvt_tiny", "data.image_size": 64})))


# ---------------------------------------------------------------------------------------------------------------------
# What `auto` comes to, and how it is told


def test_auto_on_a_cpu_is_the_plain_run(plain: Record, tmp_path: Path) -> None:
    record = runner(tmp_path).run(drawn_spec(precision="auto", compile="auto", kernels="auto"))
    assert record.run_id != plain.run_id
    assert record.history()[-1]["val_loss"] == plain.history()[-1]["val_loss"]
    for told in (record, plain):
        assert {key: told.data[key] for key in ("precision", "compiled", "kernels")} == {
            "precision": "fp32",
            "compiled": False,
            "kernels": "torch",
        }


@pytest.mark.parametrize(("has", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_on_a_gpu(has: bool, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: has or including_emulation)
    train = drawn_spec(precision="auto", compile="auto").train
    assert ComputeSettings.on(torch.device("cuda"), train) == ComputeSettings(precision, True, "torch")
    fixed = drawn_spec(precision="fp32", compile=False).train
    assert ComputeSettings.on(torch.device("cuda"), fixed) == ComputeSettings("fp32", False, "torch")


def test_kernels_that_the_device_cannot_run_are_refused(ablate: Any) -> None:
    sentence = ablate("run", "pooling_size", "train.kernels=triton", "--device", "cpu").sentence
    assert sentence == "train.kernels is 'triton', which needs a GPU with Triton; allowed on a CPU: torch, auto"
    with pytest.raises(RequestError, match="needs a GPU with Triton"):
        ComputeSettings.on(CPU, drawn_spec(kernels="triton").train)


def test_averaged_weights_in_pieces_are_refused() -> None:
    with pytest.raises(RequestError, match=r"train\.ema is 0\.9 and train\.strategy is 'fsdp'"):
        check_hardware(drawn_spec(ema=EMA, clip_grad=None, devices=2, strategy="fsdp"), "cuda")


def test_bf16_on_a_cpu_is_warned_of_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    used = runner(tmp_path)
    for seed in range(2):
        spec = spec_of({"train.precision": "bf16", "train.batch_size": 512}, words=TINY_WORDS, seed=seed)
        assert used.run(spec).data["precision"] == "bf16"
    assert capsys.readouterr().err.count("train.precision is bf16 on a CPU") == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_are_clipped_in_either_precision(tmp_path: Path, precision: str) -> None:
    """By torch's own clipping; Lightning refuses it in bf16 with a fused optimiser, and every run would have failed."""
    words = {"train.precision": precision, "train.clip_grad": 1e-3, "train.batch_size": 512}
    spec = spec_of(words, words=TINY_WORDS)
    record = runner(tmp_path).run(spec)
    assert record.status == "ok", record.data["reason"]
    net = build_net(spec)
    optimizer = make_optimizer(net, spec.train)
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    module = TaskModule(net, spec.train, 1, 0)
    module.configure_gradient_clipping(optimizer, 1e-3)
    norm = torch.stack([p.grad.square().sum() for p in net.parameters() if p.grad is not None]).sum().sqrt()
    torch.testing.assert_close(norm, torch.tensor(1e-3), rtol=1e-3, atol=0)


def test_a_checkpoint_of_another_precision_is_not_used(
    plain: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "metaformer_ablate.training.compute.ComputeSettings.to_record", lambda self: {"precision": "bf16"}
        )
        with pytest.raises(Interrupted):
            runner(tmp_path).run(drawn_spec(), RunOptions(stop=StopAfter(30)))
    record = runner(tmp_path).run(drawn_spec())
    assert content(record) == content(plain)
    assert re.search(r"last\.ckpt was computed otherwise \(.*precision bf16, now fp32\)", capsys.readouterr().err)


def test_what_a_cpu_computes_with_is_recorded(plain: Record, tmp_path: Path) -> None:
    """As torch itself says, and none where the device is a GPU."""
    assert plain.data["cpu"]["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert plain.data["cpu"]["linear"] == ("convolution" if _convolutions_are_faster() else "matrix product")
    assert ComputeSettings.on(torch.device("cuda"), drawn_spec(precision="fp32").train).cpu is None


@pytest.mark.skipif(not torch.backends.cpu.get_cpu_capability().startswith("AVX"), reason="needs a CPU with AVX2")
@pytest.mark.slow
def test_a_difference_that_comes_from_the_cpu_is_explained(tmp_path: Path) -> None:
    """In processes of their own: the same CPU with and without its newer instructions."""
    words = ["trial", "pooling_size", "row=pool3", *TINY_WORDS]
    for capability in ("default", "avx2"):
        environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability}
        arguments = command(*words, "--results", capability)
        subprocess.run(arguments, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=300)
    (then,), (now,) = (list(Store(tmp_path / name)) for name in ("default", "avx2"))
    assert (then.data["cpu"], now.data["cpu"]) == (
        {"instructions": "DEFAULT", "linear": "matrix product"},
        {"instructions": "AVX2", "linear": "matrix product"},
    )
    compared = compare(then, now)
    assert not compared["identical"]
    assert compared["environment"] == [{"what": "CPU instructions", "then": "DEFAULT", "now": "AVX2"}]


def test_records_that_do_not_tell_of_the_cpu_are_compared_as_before(tmp_path: Path) -> None:
    spec, cpu = drawn_spec(), {"instructions": "AVX2", "linear": "matrix product"}
    then = fake_record(Store(tmp_path / "a"), spec)
    assert compare(then, fake_record(Store(tmp_path / "b"), spec))["environment"] == []
    assert compare(then, fake_record(Store(tmp_path / "c"), spec, cpu=cpu))["environment"] == []  # nothing to explain
    assert compare(then, fake_record(Store(tmp_path / "d"), spec, 97.0, cpu=cpu))["environment"] == [
        {"what": "CPU instructions", "then": "unknown", "now": "AVX2"},
        {"what": "CPU linear", "then": "unknown", "now": "matrix product"},
    ]


def test_a_package_that_older_records_do_not_name_explains_nothing(tmp_path: Path) -> None:
    spec, torch_alone = drawn_spec(), {"torch": "2.15.0"}
    then = fake_record(Store(tmp_path / "a"), spec, versions=torch_alone)
    named = [
        fake_record(Store(tmp_path / version), spec, 97.0, versions={**torch_alone, "timm": version})
        for version in ("1.0", "1.1")
    ]
    assert compare(then, named[0])["environment"] == []
    assert compare(*named)["environment"] == [{"what": "version of timm", "then": "1.0", "now": "1.1"}]


def test_reproduce_names_how_it_was_computed(tmp_path: Path) -> None:
    spec = drawn_spec()
    then = fake_record(Store(tmp_path / "a"), spec, precision="bf16", compiled=True, kernels="torch")
    now = fake_record(Store(tmp_path / "b"), spec, 97.0, precision="fp32", compiled=False, kernels="torch")
    assert compare(then, now)["environment"] == [
        {"what": "precision", "then": "bf16", "now": "fp32"},
        {"what": "compiled", "then": True, "now": False},
    ]


# ---------------------------------------------------------------------------------------------------------------------
# torch.compile

# Two blocks: a C++ compiler takes minutes for four.
TWO_BLOCKS = {"model.depths": [1, 1], "model.dims": [8, 16]}
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")


@pytest.mark.slow
@needs_compiler
def test_a_compiled_net_computes_and_draws_as_the_plain_one() -> None:
    """Outputs and gradients, with stochastic depth and dropout on: other masks would be no rounding."""
    results = []
    for compiled in (False, True):
        net = build_net(drawn_spec(TWO_BLOCKS))
        if compiled:
            compile_in_place(net)
        torch.manual_seed(3)
        out = net(torch.linspace(-1, 1, 16 * 64).view(16, 1, 8, 8))
        F.cross_entropy(out, torch.arange(16) % 10).backward()
        results.append([out.detach(), *(p.grad for p in net.parameters())])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@needs_compiler
def test_a_compiled_run(tmp_path: Path) -> None:
    """It ends as the plain one to rounding, and a stopped one as one that was not; evaluation is compiled once."""
    from torch._dynamo.utils import counters

    plain = runner(tmp_path / "plain").run(drawn_spec(TWO_BLOCKS))
    with pytest.MonkeyPatch.context() as patch:
        in_batches_of_100 = partial(evaluation_loader, batch_size=100)
        patch.setattr("metaformer_ablate.tasks.classification.data.in_memory.evaluation_loader", in_batches_of_100)
        counters.clear()
        record = runner(tmp_path / "whole").run(drawn_spec(TWO_BLOCKS, compile=True))
        # One of evaluation, whose last batch is smaller; of training two: images of one channel that are mixed and
        # those that are not differ in a stride.
        assert counters["stats"]["unique_graphs"] <= 3
        with pytest.raises(Interrupted):
            runner(tmp_path / "stopped").run(drawn_spec(TWO_BLOCKS, compile=True), RunOptions(stop=StopAfter(30)))
        assert content(runner(tmp_path / "stopped").run(drawn_spec(TWO_BLOCKS, compile=True))) == content(record)
    assert record.data["compiled"] is True
    for line, expected in zip(record.history(), plain.history(), strict=True):
        assert line["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-4)
        assert line["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-4)
    assert np.abs(record.predictions()["confidence"] - plain.predictions()["confidence"]).max() < 1e-3


def test_what_the_compiler_cannot_do_is_a_failed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.exc import BackendCompilerFailed

    def broken(self: Classification, batch: Any, batch_idx: int) -> Tensor:
        raise BackendCompilerFailed(compile_in_place, RuntimeError("no such compiler"), None)

    monkeypatch.setattr(Classification, "training_step", broken)
    record = runner(tmp_path).run(drawn_spec(compile=False))
    assert record.status == "failed"
    assert record.data["reason"].startswith("torch.compile failed (BackendCompilerFailed: ")
    assert record.data["reason"].endswith("try train.compile=false")


def test_what_is_compiled_is_kept_for_each_version_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    compile_in_place()
    home = Path(os.environ["XDG_CACHE_HOME"])
    assert (
        Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
        == home / "metaformer_ablate/compiled" / f"torch-{torch.__version__}"
    )


# ---------------------------------------------------------------------------------------------------------------------
# No step waits for the device


class NoTransfers(TorchDispatchMode):
    """Fails where a tensor is copied to a device from another one. Values of the meta device cannot be read at all."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.ops.aten._to_copy.default and kwargs.get("device", args[0].device) != args[0].device:
            raise AssertionError(f"a tensor goes from {args[0].device} to {kwargs['device']}")
        return function(*args, **kwargs)


@pytest.mark.parametrize("mixing", [{}, {"data.mixup": 0.8, "data.cutmix": 1.0}, {"train.micro_batch": 16}])
def test_a_training_step_reads_no_value_and_copies_none(mixing: dict[str, Any]) -> None:
    """On the meta device, which has no values to read and takes the way of a GPU through the task."""
    spec = drawn_spec({"data.mixup": 0.0, "data.cutmix": 0.0, "data.flip": True, **mixing})
    task = task_of(spec).to("meta")
    task.on_fit_start()
    task.on_train_epoch_start()
    images, labels = torch.empty(64, 1, 8, 8, dtype=torch.uint8, device="meta"), torch.empty(64, device="meta").long()
    with NoTransfers():
        for turn in range(spec.train.accumulation):
            loss = task.training_step((images, labels), turn)
            loss.backward()
    assert loss.device.type == "meta"


def test_a_read_or_a_copy_would_be_noticed() -> None:
    task = task_of(drawn_spec({"data.mixup": 0.0, "data.cutmix": 0.0})).to("meta")
    batch = torch.empty(64, 1, 8, 8, dtype=torch.uint8, device="meta"), torch.empty(64, device="meta").long()
    task.on_train_epoch_start()
    with NoTransfers(), pytest.raises(AssertionError, match="goes from cpu to meta"):  # constants were not moved
        task.training_step(batch, 0)
    with pytest.raises(RuntimeError, match="meta"):
        torch.empty((), device="meta").item()


def task_of(spec: RunSpec) -> Classification:
    augment = Augment(spec.data, 10, (0.5,), (0.5,), spec.train.memory_format)
    return Classification(build_net(spec), spec.train, augment, steps_per_epoch=22, seed=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_step_on_a_gpu_waits_for_nothing() -> None:
    device = torch.device("cuda")
    spec = drawn_spec({"data.flip": True}, ema=EMA)
    task = task_of(spec).to(device)
    task.on_fit_start()
    task.on_train_epoch_start()
    images, labels = torch.zeros(64, 1, 8, 8, dtype=torch.uint8, device=device), torch.zeros(64, device=device).long()
    optimizer = task.configure_optimizers()["optimizer"]
    task.training_step((images, labels), 0).backward()  # what is made ready once
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(1, 3):
            optimizer.zero_grad()
            task.training_step((images, labels), step).backward()
            optimizer.step()
            task.averaged.update(task.net, step=step)  # type: ignore[union-attr, operator]
    finally:
        torch.cuda.set_sync_debug_mode("default")
