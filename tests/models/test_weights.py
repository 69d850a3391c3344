"""Weights of the authors and of timm in ours and back; logits against numbers that the authors' code gave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm.models.metaformer as theirs
import torch
from golden import fill, image
from safetensors.torch import save_file
from specs import build_net, spec_of
from torch import Tensor, nn

from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.spec import ModelSpec
from metaformer_ablate.models.starting import start_from, weights_of
from metaformer_ablate.models.weights import fit, our_names, read_weights, save_weights, to_timm

# The first four logits of the authors' code (sail-sg/poolformer models/, sail-sg/metaformer metaformer_baselines.py) in
# float64, with the weights of `golden.fill` renamed into their models, for `golden.image(224)`.
AUTHORS_LOGITS = {
    "poolformer_s12": (-0.206955163, 0.316739795, 0.244098279, 0.025351804),
    "metaformer_id_s12": (-0.291745696, 0.267641388, 0.230429259, -0.003805987),
    "metaformer_pppa_s12": (-0.217720600, 0.332872559, 0.236031126, 0.126486668),
    "metaformer_ppaa_s12": (-0.242291362, 0.266817394, 0.158743635, 0.159437415),
    "metaformer_pppf_s12": (-0.199245377, 0.303689641, 0.241389765, 0.028742291),
    "metaformer_ppff_s12": (-0.197078143, 0.303037372, 0.245438498, 0.033932989),
    "identityformer_s12": (-0.377503185, -0.080173591, 0.008053120, 0.026450937),
    "randformer_s12": (-0.377282060, -0.061280081, -0.015394724, 0.047723728),
    "poolformerv2_s12": (-0.364029477, -0.037859407, -0.006187495, 0.039610070),
    "convformer_s18": (-0.140917151, -0.022133237, 0.034893049, 0.258405020),
    "caformer_s18": (-0.127326780, 0.006200112, 0.003309098, 0.255856053),
}
# Names and shapes of the authors' checkpoints, as their models have them.
AUTHORS_NAMES: dict[str, dict[str, list[int]]] = json.loads(
    (Path(__file__).parent / "authors_names.json").read_text(encoding="utf-8")
)


def named(name: str, recipe: str = "imagenet") -> nn.Module:
    return build_net(spec_of({"model.name": name}, recipe=recipe)).eval()


@pytest.mark.parametrize("name", AUTHORS_LOGITS)
@torch.no_grad()
def test_logits_are_those_of_the_authors_code(name):
    net = named(name)
    fill(net)
    expected = torch.tensor(AUTHORS_LOGITS[name], dtype=torch.float64)
    torch.testing.assert_close(net(image(224))[0, :4].double(), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(net.double()(image(224).double())[0, :4], expected, atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", ["poolformerv2_s12", "convformer_s18", "caformer_s18"])
@torch.no_grad()
def test_baselines_equal_timms_with_the_same_weights_and_go_back(name):
    net = named(name)
    fill(net)
    other = getattr(theirs, name)().eval()
    other.load_state_dict(to_timm(net, other))
    if hasattr(other.head.fc, "norm"):
        other.head.fc.norm.eps = 1e-5  # the authors' eps inside the MLP head; timm's port has 1e-6 there
    torch.testing.assert_close(net(image(224)), other(image(224)), atol=1e-4, rtol=0)
    again = named(name)
    again.load_state_dict(fit(our_names(other.state_dict()), again.state_dict(), "timm"))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("name", AUTHORS_NAMES)
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_the_authors_checkpoints_fill_every_parameter(name, wrapper, tmp_path):
    tensors = {key: torch.randn(shape) for key, shape in AUTHORS_NAMES[name].items()}
    torch.save(tensors if wrapper is None else {wrapper: tensors, "epoch": 300}, tmp_path / "weights.pth.tar")
    net = named(name)
    start_from(net, ModelSpec().model_copy(update={"init_from": f"{tmp_path / 'weights.pth.tar'}"}), 1000)
    for (key, value), theirs_value in zip(net.state_dict().items(), _in_our_order(net, tensors), strict=True):
        assert torch.equal(value.flatten(), theirs_value.flatten()), key


def _in_our_order(net: nn.Module, tensors: dict[str, Tensor]) -> list[Tensor]:
    renamed = our_names(tensors)
    return [renamed[key] for key in net.state_dict()]


def test_names_of_the_authors_by_hand():
    renamed = our_names({key: torch.zeros(shape) for key, shape in AUTHORS_NAMES["metaformer_ppaa_s12"].items()})
    # Their `network`: 0 stage, 1 down-sampling, 2 stage, 3 down-sampling, 4 position embedding, 5 stage, 6, 7.
    pairs = dict(zip(AUTHORS_NAMES["metaformer_ppaa_s12"], renamed, strict=True))
    assert pairs["patch_embed.proj.weight"] == "stem.conv.weight"
    assert pairs["network.0.1.layer_scale_2"] == "stages.0.blocks.1.layer_scale2.scale"
    assert pairs["network.3.proj.bias"] == "stages.2.downsample.conv.bias"
    assert pairs["network.4.pos_embed"] == "stages.2.position.pos_embed"
    assert pairs["network.5.0.token_mixer.qkv.weight"] == "stages.2.blocks.0.token_mixer.qkv.weight"
    assert pairs["network.7.1.mlp.fc2.bias"] == "stages.3.blocks.1.mlp.fc2.bias"
    assert (pairs["norm.weight"], pairs["head.bias"]) == ("head.norm.weight", "head.fc.bias")
    baselines = AUTHORS_NAMES["caformer_s18"]
    pairs = dict(zip(baselines, our_names({k: torch.zeros(s) for k, s in baselines.items()}), strict=True))
    assert pairs["downsample_layers.0.post_norm.weight"] == "stem.norm.weight"
    assert pairs["downsample_layers.2.pre_norm.weight"] == "stages.2.downsample.norm.weight"
    assert pairs["stages.3.2.res_scale1.scale"] == "stages.3.blocks.2.res_scale1.scale"
    assert (pairs["norm.weight"], pairs["head.norm.weight"]) == ("head.norm.weight", "head.fc.norm.weight")


def test_what_does_not_fit_is_listed():
    net = named("poolformer_s12", recipe="digits")
    state = dict(net.state_dict())
    state.pop("head.fc.bias")
    state["extra.weight"] = torch.zeros(1)
    state["head.fc.weight"] = torch.zeros(1000, 512)
    with pytest.raises(RequestError) as caught:
        fit(state, net.state_dict(), "file.pth")
    for part in ("file.pth", "missing head.fc.bias", "unexpected extra.weight", "[1000, 512]", "[10, 512]"):
        assert part in str(caught.value)


def test_a_square_weight_is_not_transposed_to_fit():
    with pytest.raises(RequestError, match="of another shape"):
        fit({"w": torch.zeros(3, 5)}, {"w": torch.zeros(5, 3)}, "file.pth")


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_nothing_in_a_file_is_executed(tmp_path, capsys):
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(RequestError, match="not a checkpoint of tensors"):
        read_weights(tmp_path / "evil.pth")
    assert "executed" not in capsys.readouterr().out


def test_safetensors_go_out_and_in(tmp_path):
    net = named("poolformer_s12", recipe="digits")
    save_weights(net.state_dict(), tmp_path / "w.safetensors")
    read = read_weights(tmp_path / "w.safetensors")
    assert all(torch.equal(read[key], value) for key, value in net.state_dict().items())


def test_a_run_starts_from_a_file_and_its_id_follows_the_content(tmp_path):
    words = ("model.depths=[1,1,1,1]", "model.dims=[4,4,8,8]")
    plain = spec_of(words=words)
    state = {key: torch.full_like(value, 0.5) for key, value in build_net(plain).state_dict().items()}
    save_file(state, tmp_path / "a.safetensors")
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes())
    started = {name: spec_of(words=(*words, f"model.init_from={tmp_path / name}.safetensors")) for name in "ab"}
    net = build_net(started["a"])
    assert all(bool((value == 0.5).all()) for value in net.state_dict().values())
    assert started["a"].run_id == started["b"].run_id != plain.run_id
    save_file({key: value + 1 for key, value in state.items()}, tmp_path / "b.safetensors")
    assert spec_of(words=(*words, f"model.init_from={tmp_path / 'b'}.safetensors")).run_id != started["a"].run_id


def test_a_missing_file_to_start_from_is_a_wrong_request(ablate):
    result = ablate("show", "pooling_size", "model.init_from=nowhere.pth")
    assert "model.init_from is 'nowhere.pth'" in result.sentence


TINY = ("model.depths=[1,1,1,1]", "model.dims=[4,4,8,8]")


@pytest.fixture(scope="module")
def tiny() -> dict[str, Tensor]:
    return build_net(spec_of(words=TINY)).state_dict()


@pytest.mark.parametrize(
    ("name", "changed", "sentence"),
    [
        ("stem.conv.weight", lambda w: w * float("nan"), "stem.conv.weight holds NaN or Inf"),
        ("head.fc.bias", lambda w: w + float("inf"), "head.fc.bias holds NaN or Inf"),
        ("head.fc.weight", lambda w: w.to_sparse(), "head.fc.weight is a tensor of another kind"),
        ("head.fc.weight", lambda w: w.to(torch.complex64), "head.fc.weight is a tensor of another kind"),
        ("head.fc.weight", lambda w: torch.quantize_per_tensor(w, 1.0, 0, torch.qint8), "of another kind"),
        ("head.fc.weight", lambda w: w.to(torch.int8), "of another type: head.fc.weight is torch.int8"),
        ("head.fc.weight", lambda w: w[:, :2], "of another shape: head.fc.weight is"),
        ("head.fc.weight", lambda w: w.tolist(), "holds no mapping of names to tensors"),
        (3, lambda w: w, "holds no mapping of names to tensors"),
    ],
)
def test_weights_that_no_run_can_start_from_are_refused_before_it_begins(
    name, changed, sentence, tiny, ablate, tmp_path
):
    torch.save({**tiny, name: changed(tiny.get(name, torch.zeros(2)))}, tmp_path / "w.pth")
    done = ablate("run", "pooling_size", *TINY, "train.epochs=1", f"model.init_from={tmp_path / 'w.pth'}")
    assert sentence in done.sentence
    assert not list(tmp_path.glob("results/runs/*/record.json"))


def test_checkpoints_as_other_programs_write_them(tiny, tmp_path):
    """timm's train.py keeps its arguments and a NumPy number; torch.compile and Lightning put a word before names."""
    from argparse import Namespace

    import numpy as np

    files = {
        "timm": {"state_dict": tiny, "args": Namespace(lr=1e-3), "metric": np.float64(81.2), "epoch": np.int64(3)},
        "compiled": {"state_dict": {f"_orig_mod.{key}": value for key, value in tiny.items()}},
        "lightning": {"state_dict": {f"model.{key}": value for key, value in tiny.items()}},
        "both": {f"module._orig_mod.{key}": value for key, value in tiny.items()},
    }
    for name, content in files.items():
        torch.save(content, tmp_path / name)
        read = weights_of(str(tmp_path / name), None, tiny)
        assert read.keys() == tiny.keys() and all(torch.equal(read[key], tiny[key]) for key in tiny), name
    torch.save({"module.a": torch.ones(1), "a": torch.zeros(1)}, tmp_path / "twice")
    with pytest.raises(RequestError, match="several tensors of one name"):
        weights_of(str(tmp_path / "twice"), None, tiny)


def test_the_error_of_another_reader_is_one_plain_sentence(tmp_path):
    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(RequestError) as raised:
        read_weights(tmp_path / "evil.pth")
    assert str(raised.value).isprintable() and len(str(raised.value)) < 300
