"""`ablate export`: what timm, safetensors and the ONNX runtime make of the files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from kept_runs import changed, digits_spec, keep, net_of, save
from safetensors import safe_open
from safetensors.torch import load_file
from specs import build_net, fake_record, spec_of
from timm.models import load_checkpoint
from torch import Tensor, nn

from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.components import ACTIVATIONS, MIXERS, NORMS
from metaformer_ablate.models.presets import NAMED
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.tasks.classification.data.in_memory import load_images
from metaformer_ablate.trained import export as exporting
from metaformer_ablate.trained.export import NotExported, export, timm_name

FOLDER = DataFolder(Path("nowhere"), given=True)  # the digits are embedded


def named_record(store: Store, name: str) -> tuple[Record, nn.Module]:
    """A record of a named model for ImageNet and its weights, away from their start."""
    spec = spec_of({"model.name": name}, recipe="imagenet")
    net = build_net(spec).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=generator))
    record = fake_record(store, spec)
    save(record, net.state_dict())
    return record, net


def logits_of_onnx(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": images})[0]


# ---------------------------------------------------------------------------------------------------------------------
# The command


@pytest.mark.slow
def test_a_run_s_files_repeat_its_predictions(ablate, tiny_words, tmp_path):
    words = ("pooling_size", *tiny_words, "--results", "results")
    assert ablate("run", *words, "--keep-checkpoints").code == 0
    run_id = ablate("table", *words, "--json").json["rows"][1]["runs"][0]["run_id"]
    done = ablate("export", run_id, "--results", "results", "--json")
    assert done.code == 0, done.err
    about, out = done.json, tmp_path / f"export-{run_id}"
    assert about == json.loads((out / "export.json").read_text())
    assert {path.name for path in out.iterdir()} == {"export.json", "model.safetensors", "model.onnx"}
    assert about["weights"]["predictions_repeated"] == about["weights"]["images"]
    assert about["timm"] is None and about["notes"] == []

    record = Store(tmp_path / "results").find(run_id)
    recorded = np.load(record.folder / "predictions.npz")
    spec = RunSpec.model_validate(record.spec())
    pixels = load_images(spec.data, FOLDER).evaluation.images.numpy().astype(np.float32) / 255
    mean, std = (np.array(about["input"][key], dtype=np.float32)[:, None, None] for key in ("mean", "std"))
    images = (pixels - mean) / std
    assert list(images.shape[1:]) == about["input"]["shape"][1:]
    net = build_net(spec).eval()
    net.load_state_dict(load_file(out / "model.safetensors"))
    with torch.no_grad():
        of_torch = net(torch.from_numpy(images))
    for logits in (of_torch, torch.from_numpy(logits_of_onnx(out / "model.onnx", images))):
        confidence, predicted = logits.softmax(1).max(1)
        assert (predicted.numpy() == recorded["predicted"]).all()
        np.testing.assert_allclose(confidence.numpy(), recorded["confidence"], atol=1e-4)


def test_a_finished_run_gets_its_weights_by_being_trained_again(ablate, trained, tmp_path):
    run_id = ablate("table", *trained.arguments, "--json").json["rows"][0]["runs"][0]["run_id"]
    assert ablate("reproduce", run_id, "--results", trained.results, "--keep", "again").code == 0
    done = ablate("export", run_id, "--results", "again", "--format", "safetensors", "--json")
    assert done.code == 0, done.err
    assert done.json["weights"]["predictions_repeated"] == done.json["weights"]["images"] == 355


def test_the_text_names_files_and_formats(ablate, tmp_path):
    record = keep(Store(tmp_path / "results"), digits_spec())
    done = ablate("export", record.run_id[:6], "--format", "safetensors", "--out", "here")
    assert done.code == 0, done.err
    assert "here/model.safetensors" in done.out and "timm has no such model" in done.out
    assert {path.name for path in (tmp_path / "here").iterdir()} == {"export.json", "model.safetensors"}


def test_what_is_wrong_is_said_and_nothing_is_written(ablate, tmp_path, monkeypatch):
    store = Store(tmp_path / "results")
    bare = fake_record(store, digits_spec(model__token_mixer="identity"))
    kept = keep(store, digits_spec())
    (tmp_path / "file").write_text("")

    def refused(*arguments: object) -> str:
        done = ablate("export", *arguments)
        assert done.code == 2 and done.err.startswith("error: ") and done.err.count("\n") == 1, done.err
        return done.err

    assert "has no weights: train it with" in refused(bare.run_id)
    assert "unknown format 'onxx' (did you mean 'onnx'?)" in refused(kept.run_id, "--format", "onxx")
    assert "--out file: cannot be written" in refused(kept.run_id, "--out", "file")
    save(kept, changed(net_of(digits_spec()).state_dict(), 10.0))
    assert "not the weights of the record" in refused(kept.run_id)
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == "onnxscript" else name)
    assert "needs the packages onnxscript: pip install 'metaformer-ablate[export]'" in refused(kept.run_id)
    assert not list(tmp_path.glob("export-*/*"))


def test_a_folder_that_cannot_be_written_to_is_a_failure(tmp_path):
    record = keep(Store(tmp_path / "results"), digits_spec())
    with pytest.raises(NotExported, match=r"model\.safetensors cannot be written"):
        export(record, FOLDER, tmp_path / "gone", ("safetensors",))


# ---------------------------------------------------------------------------------------------------------------------
# timm


@pytest.mark.parametrize("name", [name for name in NAMED if timm.is_model(name)])
def test_a_model_that_timm_has_is_found_however_it_is_trained(name):
    spec = spec_of({"model.name": name}, recipe="imagenet")
    training = {"model.drop_path": 0.25, "model.conv_init": "trunc_normal"}
    training |= {"model.layer_scale": 0.3} if spec.model.layer_scale else {}
    assert timm_name(spec) == timm_name(spec_of({"model.name": name, **training}, recipe="imagenet")) == name


@pytest.mark.parametrize(
    "settings",
    [
        {"model.pool_size": 5},
        {"model.token_mixer": "identity"},
        {"model.norm": "layer_norm"},
        {"model.activation": "relu"},
        {"model.layer_scale": None},
        {"model.residual": False},
        {"model.stem.kernel": 3, "model.stem.padding": 1},
        {"model.comparator": "pvt_tiny"},
    ],
    ids=str,
)
def test_another_architecture_is_none_of_timms(settings):
    assert timm_name(spec_of(settings, recipe="imagenet")) is None


@pytest.mark.parametrize(
    "name",
    ["poolformer_s12", *(pytest.param(n, marks=pytest.mark.slow) for n in ("poolformerv2_s12", "convformer_s18"))],
)
@torch.no_grad()
def test_timm_loads_its_names(name, tmp_path):
    record, net = named_record(Store(tmp_path / "results"), name)
    about = export(record, FOLDER, tmp_path, ("safetensors",))
    assert about["timm"] == name and about["weights"] is None
    assert "were not checked against the record's predictions" in about["notes"][0]
    theirs = timm.create_model(name).eval()
    load_checkpoint(theirs, str(tmp_path / "model.safetensors"), strict=True)
    images = torch.randn((2, 3, 224, 224), generator=torch.Generator().manual_seed(2))
    ours = net(images)
    difference = float((theirs(images) - ours).abs().max() / ours.abs().max())
    # PoolFormer's head is not timm's, and the file says so.
    other_head = name == "poolformer_s12"
    assert (difference > 1e-2) == other_head and any("other logits" in note for note in about["notes"]) == other_head
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        words = file.metadata()
    assert json.loads(words["timm"]) == name and json.loads(words["spec"]) == record.spec()


def test_weights_go_back_into_a_run(tmp_path):
    record, net = named_record(Store(tmp_path / "results"), "poolformer_s12")
    export(record, FOLDER, tmp_path, ("safetensors",))
    started = {"model.name": "poolformer_s12", "model.init_from": str(tmp_path / "model.safetensors")}
    again = build_net(spec_of(started, recipe="imagenet"))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))


@pytest.mark.slow
def test_a_model_of_timm_keeps_its_name(tmp_path):
    spec = spec_of({"model.timm": "deit_tiny_patch16_224"}, recipe="imagenet")
    record = fake_record(Store(tmp_path / "results"), spec)
    save(record, build_net(spec).state_dict())
    about = export(record, FOLDER, tmp_path)
    assert about["timm"] == "deit_tiny_patch16_224"
    load_checkpoint(timm.create_model(about["timm"]), str(tmp_path / "model.safetensors"), strict=True)


# ---------------------------------------------------------------------------------------------------------------------
# ONNX


def onnx_of(spec: RunSpec, folder: Path) -> tuple[Tensor, np.ndarray]:
    """Logits of torch and of the ONNX runtime for five images of noise."""
    record = keep(Store(folder / "results"), spec)
    export(record, FOLDER, folder, ("onnx",))
    onnx.checker.check_model(folder / "model.onnx", full_check=True)
    size = spec.data.image_size
    images = torch.randn((5, 1, size, size), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        return net_of(spec)(images), logits_of_onnx(folder / "model.onnx", images.numpy())


def check_onnx(settings: dict[str, Any], folder: Path) -> None:
    torchs, onnxs = onnx_of(digits_spec(**settings), folder)
    assert float(torchs.std()) > 0
    np.testing.assert_allclose(onnxs, torchs.numpy(), atol=1e-4 * float(torchs.abs().max()), rtol=0)


def test_onnx_of_a_hybrid_takes_any_number_of_images(tmp_path):
    check_onnx({"model__token_mixer": ["pooling", "pooling", "attention", "attention"]}, tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    properties = {p.key: json.loads(p.value) for p in model.metadata_props}
    assert properties["input"]["shape"][1:] == [1, 16, 16] and len(properties["input"]["mean"]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, len(MIXERS), 2))
def test_onnx_of_each_mixer_norm_and_activation(first, tmp_path):
    """Two mixers in a net, and with them the next norm and activation: an export takes many seconds."""
    assert max(len(NORMS), len(ACTIVATIONS)) <= len(range(0, len(MIXERS), 2))
    one, two = (list(MIXERS)[place % len(MIXERS)] for place in (first, first + 1))
    norm, activation = (list(parts)[first // 2 % len(parts)] for parts in (NORMS, ACTIVATIONS))
    parts = {"token_mixer": [one, one, two, two], "norm": norm, "activation": activation}
    check_onnx({f"model__{key}": part for key, part in parts.items()}, tmp_path)


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


class Throws(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) + torch.rand(())


@pytest.mark.parametrize(
    "net, said", [(Branches(), "cannot be written as ONNX: "), (Throws(), "ONNX gives other logits than torch, by")]
)
def test_what_onnx_cannot_say_leaves_no_file(net, said, tmp_path):
    images = torch.ones((3, 2, 4, 4))
    with pytest.raises(NotExported, match=said):
        exporting._whole(
            tmp_path / "model.onnx", lambda path: exporting._write_onnx(path, net, images, net(images), {}, "logits")
        )
    assert not list(tmp_path.iterdir())


def test_a_diverged_run_has_nothing_to_export(tmp_path):
    record = fake_record(Store(tmp_path / "results"), digits_spec(), status="diverged")
    with pytest.raises(RequestError, match="has no weights"):
        export(record, FOLDER, tmp_path)
