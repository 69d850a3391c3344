"""Fine-tuning: checkpoints as timm's train.py writes them; another number of classes, another size, other channels."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from conftest import Result
from own_net import WORDS, edit, write_net
from safetensors.torch import save_file
from specs import build_net, spec_of
from timm.layers import resample_abs_pos_embed
from timm.utils import CheckpointSaver, ModelEmaV3, NativeScaler
from torch import Tensor, nn

from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.averaged import averaged_in
from metaformer_ablate.models.starting import classifier_names, start_of
from metaformer_ablate.spec.notes import row_notes
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.spec.run_spec import RunSpec

RESNET = ("model.timm=resnet10t", "data.image_size=32")


def randomised(net: nn.Module, seed: int = 1) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in net.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator))
    return net


def save_as_timm(folder: Path, net: nn.Module, averaged: bool = True) -> Path:
    """What timm's train.py leaves: its saver, its arguments, its optimiser and scaler, and a metric of NumPy's."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    average = ModelEmaV3(net) if averaged else None
    if average is not None:
        randomised(average.module, 2)
    saver = CheckpointSaver(
        net,
        optimizer,
        args=Namespace(model="resnet10t", lr=0.1, model_ema=averaged, model_ema_decay=0.9998, opt_betas=None),
        model_ema=average,
        amp_scaler=NativeScaler("cpu"),
        checkpoint_dir=str(folder),
        recovery_dir=str(folder),
    )
    saver.save_checkpoint(3, metric=np.float64(81.2))
    return folder / "last.pth.tar"


def started(path: Path, *words: str, base: tuple[str, ...] = RESNET) -> tuple[RunSpec, nn.Module]:
    spec = spec_of(words=(*base, f"model.init_from={path}", *words))
    return spec, build_net(spec)


def same(net: nn.Module, other: nn.Module, but: tuple[str, ...] = ()) -> bool:
    mine, theirs = net.state_dict(), other.state_dict()
    return all(torch.equal(mine[name], theirs[name]) for name in mine if name not in but)


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return randomised(timm.create_model("resnet10t", in_chans=1, num_classes=10))


def test_a_checkpoint_of_timms_train_script(resnet: nn.Module, tmp_path: Path) -> None:
    """The averaged weights stand before the others, which is said; without them the others are taken."""
    plain = save_as_timm(tmp_path, resnet, averaged=False)
    spec, net = started(plain)
    assert spec.model.init_averaged is None and start_of(net) == {"weights": "as trained"} and same(net, resnet)
    (tmp_path / "averaged").mkdir()
    spec, net = started(save_as_timm(tmp_path / "averaged", resnet))
    assert spec.model.init_averaged == "state_dict_ema" and start_of(net) == {"weights": "state_dict_ema"}
    assert same(net, randomised(timm.create_model("resnet10t", in_chans=1, num_classes=10), 2))
    chosen = plan("pooling_size", "digits", [*RESNET[1:], f"model.init_from={tmp_path / 'averaged' / 'last.pth.tar'}"])
    assert "starts from the averaged weights (state_dict_ema) of last.pth.tar" in row_notes(chosen, "pool5")


def test_names_of_the_averaged_weights_are_seen_without_executing_anything(tmp_path: Path) -> None:
    state = {"a": torch.zeros(1)}
    for name, content, found in (
        ("plain", {"state_dict": state}, None),
        ("timm", {"state_dict": state, "state_dict_ema": state}, "state_dict_ema"),
        ("deit", {"model": state, "model_ema": state}, "model_ema"),
    ):
        torch.save(content, tmp_path / name)
        torch.save(content, tmp_path / f"{name}.old", _use_new_zipfile_serialization=False)
        assert averaged_in(tmp_path / name) == averaged_in(tmp_path / f"{name}.old") == found
    (tmp_path / "text").write_text("state_dict_ema")
    save_file(state, tmp_path / "w.safetensors")
    for name in ("text", "w.safetensors", "no"):
        assert averaged_in(tmp_path / name) is None


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod."])
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_words_before_the_names(resnet: nn.Module, tmp_path: Path, prefix: str, ending: str) -> None:
    named = {f"{prefix}{name}": value for name, value in resnet.state_dict().items()}
    path = tmp_path / f"w.{ending}"
    (save_file if ending == "safetensors" else torch.save)(named, path)
    assert same(started(path)[1], resnet)


def test_another_number_of_classes_needs_a_new_head(resnet: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(timm.create_model("resnet10t", in_chans=1, num_classes=37).state_dict(), path)
    with pytest.raises(RequestError, match=r"w.pth is of 37 classes, the data has 10; allowed: model.new_head=true"):
        started(path)
    spec, net = started(path, "model.new_head=true")
    head = ("fc.weight", "fc.bias")
    assert start_of(net) == {"weights": "as trained", "new": list(head)}
    fresh = build_net(spec_of(words=RESNET))
    assert all(torch.equal(net.state_dict()[name], fresh.state_dict()[name]) for name in head), "not of the seed"
    assert spec.run_id != spec_of(words=(*RESNET, f"model.init_from={path}")).run_id
    # Of as many classes the last layer is new all the same: they are others.
    torch.save(resnet.state_dict(), path)
    _, net = started(path, "model.new_head=true")
    assert same(net, resnet, head) and not torch.equal(net.fc.weight, resnet.fc.weight)
    with pytest.raises(RequestError, match=r"model.new_head is True, but nothing reads it: model.init_from is null"):
        spec_of(words=(*RESNET, "model.new_head=true"))


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("resnet10t", ["fc.weight", "fc.bias"]),
        ("convnext_atto", ["head.fc.weight", "head.fc.bias"]),
        ("caformer_s18", ["head.fc.fc2.weight", "head.fc.fc2.bias"]),
        ("deit_tiny_distilled_patch16_224", ["head.weight", "head.bias", "head_dist.weight", "head_dist.bias"]),
        ("mobilenetv3_small_050", ["classifier.weight", "classifier.bias"]),
    ],
)
def test_the_last_layer_of_models_of_timm(name: str, names: list[str]) -> None:
    assert classifier_names(timm.create_model(name, num_classes=7), 7) == names


def vit_words(size: int) -> tuple[str, ...]:
    return ("model.timm=vit_tiny_patch16_224", f"data.image_size={size}")


def test_position_embeddings_of_timms_vit(tmp_path: Path) -> None:
    net = randomised(timm.create_model("vit_tiny_patch16_224", img_size=64, in_chans=1, num_classes=10))
    torch.save({"state_dict": net.state_dict()}, tmp_path / "w.pth")
    assert same(started(tmp_path / "w.pth", base=vit_words(64))[1], net), "patch_embed is taken for the authors' name"
    _, larger = started(tmp_path / "w.pth", base=vit_words(96))
    wanted = resample_abs_pos_embed(net.pos_embed, [6, 6], [4, 4], num_prefix_tokens=1)
    assert torch.equal(larger.pos_embed, wanted) and same(larger, net, ("pos_embed",))
    assert start_of(larger) == {"weights": "as trained", "interpolated": ["pos_embed"]}


def test_position_embeddings_of_ours(tmp_path: Path) -> None:
    words = ("model.depths=[1,1]", "model.dims=[8,16]", "model.position_embedding=true")
    net = randomised(build_net(spec_of(words=(*words, "data.image_size=16"))))
    torch.save(net.state_dict(), tmp_path / "w.pth")
    _, larger = started(tmp_path / "w.pth", "data.image_size=32", base=words)
    names = [name for name in net.state_dict() if name.endswith("pos_embed")]
    assert start_of(larger)["interpolated"] == names and len(names) == 2
    for name in names:
        value: Tensor = net.state_dict()[name]
        size = larger.state_dict()[name].shape[-2:]
        wanted = nn.functional.interpolate(value, size=size, mode="bilinear", align_corners=False)
        assert torch.equal(larger.state_dict()[name], wanted)


def test_colour_weights_start_a_net_of_grey_images(tmp_path: Path) -> None:
    net = randomised(timm.create_model("resnet10t", in_chans=3, num_classes=10))
    torch.save(net.state_dict(), tmp_path / "w.pth")
    _, grey = started(tmp_path / "w.pth")
    first = "conv1.0.weight"
    assert start_of(grey) == {"weights": "as trained", "channels": [first]} and same(grey, net, (first,))
    image = torch.rand(2, 1, 32, 32)
    grey.eval(), net.eval()
    assert torch.allclose(grey(image), net(image.expand(2, 3, 32, 32)), rtol=1e-4)


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("executed",))


def test_errors_are_in_our_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}, "args": Evil(), "state_dict_ema": None}, tmp_path / "evil.pth")
    with pytest.raises(RequestError, match=r"evil.pth: not a checkpoint of tensors: it holds objects of print") as e:
        started(tmp_path / "evil.pth")
    assert str(e.value).isprintable() and "executed" not in capsys.readouterr().out
    torch.save({"fc.weight": torch.zeros(10, 512)}, tmp_path / "part.pth")
    with pytest.raises(RequestError, match=r"part.pth does not fit the model: missing conv1.0.weight, .* and .* more"):
        started(tmp_path / "part.pth")


def test_a_net_of_ones_own_starts_from_its_own_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ablate: Callable[..., Result]
) -> None:
    """Also where its parts are called as others call prefixes."""
    write_net(tmp_path)
    monkeypatch.chdir(tmp_path)
    for word in ("stem", "blocks", "norm"):
        edit(tmp_path / "my_net.py", f"self.{word}", f"self.{'net' if word == 'stem' else word}")
    base = (*WORDS, "model.class=my_net.py:MyNet")
    net = randomised(build_net(spec_of(words=base)))
    assert "net.weight" in net.state_dict()
    torch.save({f"module.{name}": value for name, value in net.state_dict().items()}, tmp_path / "w.pth")
    assert same(started(tmp_path / "w.pth", base=base)[1], net)
    _, new = started(tmp_path / "w.pth", "model.new_head=true", "model.freeze=[net]", base=base)
    assert start_of(new)["new"] == ["head.weight", "head.bias"] and same(new, net, ("head.weight", "head.bias"))
    assert not new.net.weight.requires_grad
    done = ablate("run", "gate", *WORDS, f"model.init_from={tmp_path / 'w.pth'}", "model.new_head=true", "--json")
    assert done.code == 1 or done.code == 2  # `plain` has no gate, which the file has
    ran = ablate("trial", "gate", *WORDS, f"model.init_from={tmp_path / 'w.pth'}", "model.new_head=true")
    assert ran.code == 0, ran.err
    from metaformer_ablate.records.store import Store

    (record,) = list(Store(tmp_path / "results"))
    assert record.data["start"] == {"weights": "as trained", "new": ["head.weight", "head.bias"]}
    assert record.spec()["model"]["new_head"] is True


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("value", [True, False, None, 0.5, 3, "cpu"])
def test_an_argument_of_the_name_is_no_set_of_weights(value: Any, zipped: bool, tmp_path: Path) -> None:
    """Else the table would say of plain weights that they are averaged ones."""
    weights = nn.Linear(2, 2).state_dict()
    content = {"state_dict": weights, "args": Namespace(model_ema=value, after=1)}
    torch.save(content, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    assert averaged_in(tmp_path / "w.pt") is None
    torch.save({**content, "model_ema": weights}, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    assert averaged_in(tmp_path / "w.pt") == "model_ema"
    torch.save({**content, "model_ema": dict(weights)}, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    assert averaged_in(tmp_path / "w.pt") == "model_ema"
