"""Models in Python and in timm's registry, and their counts, held to timm and to fvcore."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

import metaformer_ablate as ma
from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.presets import NAMED
from metaformer_ablate.spec.experiment import forget_files


def with_weights_of(other: nn.Module, net: nn.Module) -> nn.Module:
    """A model of timm with the weights of ours, by name; its MLP is written as 1 x 1 convolutions."""
    ours, theirs = net.state_dict(), other.state_dict()
    assert set(ours) == set(theirs)
    other.load_state_dict({name: ours[name].reshape(theirs[name].shape) for name in theirs})
    return other.eval()


def test_timm_makes_our_poolformer_which_equals_its_own() -> None:
    torch.manual_seed(0)
    net = timm.create_model("ma_poolformer_s12", num_classes=10).eval()
    assert type(net).__module__.startswith("metaformer_ablate")
    other = with_weights_of(timm.create_model("poolformer_s12", num_classes=10), net)
    assert type(other).__module__ == "timm.models.metaformer", "timm's own name stays its own"
    for _, parameter in other.named_parameters():  # at the start LayerScale is 1e-5: let every block count
        parameter.data += 0.02 * torch.randn_like(parameter)
    net.load_state_dict({n: other.state_dict()[n].reshape(p.shape) for n, p in net.state_dict().items()})
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        ours, theirs = net.forward_features(images), other.forward_features(images)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
        # The head's order is the authors': the norm, then the mean; timm takes the mean first.
        norm = other.head.norm
        logits = other.head.fc(F.group_norm(theirs, 1, norm.weight, norm.bias, 1e-5).mean((2, 3)))
        torch.testing.assert_close(net(images), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_timm_knows_every_named_model_whichever_is_imported_first(tmp_path: Path) -> None:
    assert {f"ma_{name}" for name in NAMED} == set(timm.list_models("ma_*"))
    for first in ("timm, metaformer_ablate", "metaformer_ablate, timm", "metaformer_ablate.cli.main, timm"):
        program = f"import {first}\nassert len(timm.list_models('ma_*')) == {len(NAMED)}"
        done = subprocess.run(
            [sys.executable, "-W", "error::UserWarning", "-c", program], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def test_timms_words_and_no_classes() -> None:
    net = timm.create_model("ma_convformer_s18", num_classes=7, in_chans=1, img_size=64, drop_path_rate=0.5)
    rates = [m.rate for m in net.modules() if type(m).__name__ == "StochasticDepth"]
    assert max(rates) == 0.5 and net(torch.zeros(1, 1, 64, 64)).shape == (1, 7)
    assert timm.create_model("ma_poolformer_s12", num_classes=0)(torch.zeros(1, 3, 64, 64)).shape == (1, 512)
    with pytest.raises(ma.RequestError, match=r"ma_poolformer_s12: pretrained is True, .* timm's own poolformer_s12"):
        timm.create_model("ma_poolformer_s12", pretrained=True)


def test_settings_are_those_of_rows() -> None:
    mixers = ["pooling", "pooling", "attention", "attention"]
    chosen = {"norm": "layer_norm", "num_classes": 5, "in_chans": 1, "seed": 3}
    net = ma.create_model("poolformer_s12", token_mixer=mixers, **chosen)
    kinds = [type(stage.blocks[0].token_mixer).__name__ for stage in net.stages]
    assert kinds == ["Pooling", "Pooling", "Attention", "Attention"]
    again = ma.create_model("poolformer_s12", token_mixer=tuple(mixers), **chosen)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    small = ma.create_model("t5", stem={"kernel": 3, "stride": 1, "padding": 1}, image_size=16, num_classes=10)
    assert small(torch.zeros(2, 3, 16, 16)).shape == (2, 10)


def test_without_a_seed_the_weights_follow_torchs_generator() -> None:
    def first() -> torch.Tensor:
        return next(ma.create_model("t5").parameters())

    torch.manual_seed(1)
    one, other = first(), first()
    torch.manual_seed(1)
    assert torch.equal(one, first()) and not torch.equal(one, other)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: ma.create_model("poolformer"), "unknown model 'poolformer' (did you mean 'poolformer_"),
        (
            lambda: ma.create_model(token_mixer="poling"),
            "create_model: model.token_mixer is 'poling' (a string); unknown token mixer 'poling' (did you mean",
        ),
        (lambda: ma.create_model(tokenmixer="pooling"), "unknown key 'model.tokenmixer' (did you mean 'model.token_"),
        (lambda: ma.create_model(token_mixer="identity", pool_size=5), "model.pool_size is 5, but nothing reads it"),
        (lambda: ma.create_model(num_classes=-1), "num_classes is -1; allowed: an integer of at least 0"),
        (lambda: ma.create_model(in_chans=0), "in_chans is 0; allowed: an integer of at least 1"),
        (lambda: ma.create_model(image_size=2), "data.image_size is 2 (a number); allowed: an integer from 4 to 4096"),
        (lambda: ma.create_model("pvt_tiny", num_classes=0), "num_classes is 0; allowed for pvt_tiny"),
        (lambda: ma.count("poolformer_s12", (3, 224)), "size is (3, 224); allowed: pixels per side, or"),
        (lambda: ma.count("poolformer_s12", 0), "size is 0; allowed"),
    ],
)
def test_bad_input_is_one_sentence(call: object, said: str) -> None:
    with pytest.raises(ValueError) as raised:
        call()  # type: ignore[operator]
    assert isinstance(raised.value, ma.RequestError)
    assert said in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn", "densenet121", "convnext_tiny"])
def test_counts_of_torchvision_are_fvcores(name: str) -> None:
    from fvcore.nn import FlopCountAnalysis

    net = getattr(torchvision.models, name)().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = FlopCountAnalysis(net, torch.zeros(1, 3, 96, 96))
        theirs.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        cost = ma.count(net, 96)
        assert cost.macs == theirs.total()
        assert cost.macs_by_operator == {op: n for op, n in sorted(theirs.by_operator().items()) if n}
    assert cost.params == sum(parameter.numel() for parameter in net.parameters())


def test_counts_by_name_are_the_papers() -> None:
    cost = ma.count("poolformer_s12", 224)
    assert (round(cost.params / 1e6, 1), round(cost.macs / 1e9, 1)) == (11.9, 1.8)  # table 1
    net = ma.create_model("poolformer_s12", in_chans=1, num_classes=10)
    assert ma.count(net, (1, 224, 224)).params == sum(parameter.numel() for parameter in net.parameters())
    assert ma.count(net.double(), (1, 64, 64)).macs > 0


def test_a_name_means_the_same_in_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recipe of one's own that is called imagenet is for `ablate run`."""
    wanted = str(ma.create_model("poolformer_s12", seed=0))
    recipes = tmp_path / "experiments" / "recipes"
    recipes.mkdir(parents=True)
    (recipes / "imagenet.yaml").write_text(
        "title: Mine\ndata: {name: imagenet}\n"
        "model: {size: s12, activation: relu, stem: {kernel: 3, stride: 2, padding: 1}}\n"
    )
    monkeypatch.chdir(tmp_path)
    forget_files()
    assert str(ma.create_model("poolformer_s12", seed=0)) == wanted
    forget_files()


def test_timms_train_script_hands_a_dropout_of_0_to_every_model() -> None:
    assert timm.create_model("ma_poolformer_s12", drop_rate=0.0, drop_path_rate=None) is not None
    assert timm.create_model("ma_caformer_s18", drop_rate=0.0) is not None
    with pytest.raises(RequestError, match=r"head_dropout is 0\.2, but nothing reads it"):
        timm.create_model("ma_poolformer_s12", drop_rate=0.2)
