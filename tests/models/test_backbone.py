"""Backbones: the maps of timm's features_only, PVT at other sizes, output norms, what cannot be one."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from specs import spec_of
from timm.layers import DropPath
from torch import nn
from torch.nn import functional as F

from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.backbone import build_backbone, load_backbone
from metaformer_ablate.models.build import build_model
from metaformer_ablate.models.comparators.build import build_comparator
from metaformer_ablate.models.spec import ModelSpec
from metaformer_ablate.models.starting import start_of
from metaformer_ablate.models.weights import to_timm

IMAGES = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(0))


def model_of(**settings: object) -> ModelSpec:
    return spec_of({f"model.{key}": value for key, value in settings.items()}, recipe="imagenet").model


@pytest.mark.parametrize("size", ["s12", "m36"])
def test_poolformers_maps_are_those_of_timms_features_only(size: str) -> None:
    model = model_of(name=f"poolformer_{size}")
    ours = build_backbone(model, 3, None, seed=3).eval()
    assert ours.strides == (4, 8, 16, 32) and ours.channels == model.dims
    theirs = timm.create_model(f"poolformer_{size}", features_only=True).eval()
    whole = timm.create_model(f"poolformer_{size}", num_classes=1)
    classifier = build_model(model, 3, 1, 224)
    classifier.load_state_dict({**classifier.state_dict(), **ours.body.state_dict()})
    weights = to_timm(classifier, whole)
    renamed = {name.replace("stages.", "stages_"): value for name, value in weights.items()}
    theirs.load_state_dict({name: renamed[name] for name in theirs.state_dict()})
    ours.norms = nn.ModuleList(nn.Identity() for _ in ours.norms)
    with torch.no_grad():
        for found, wanted in zip(ours(IMAGES), theirs(IMAGES), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_each_map_goes_through_a_norm_of_the_blocks_kind() -> None:
    net = build_backbone(model_of(name="poolformer_s12"), 3, None, outputs=(1, 2, 3)).eval()
    assert net.channels == (128, 320, 512) and net.strides == (8, 16, 32)
    x = net.body.stages[0](net.body.stem(IMAGES))  # which goes on without a norm
    for i, found in zip((1, 2, 3), net(IMAGES), strict=True):
        x = net.body.stages[i](x)
        torch.testing.assert_close(found, F.group_norm(x, 1, eps=1e-5))
    assert not any(name.startswith("body.head") for name in net.state_dict())
    plain = build_backbone(model_of(name="poolformer_s12", norm="none"), 3, None)
    assert not list(plain.norms.parameters())


@pytest.mark.parametrize(
    ("name", "channels"), [("resnet18", (64, 128, 256, 512)), ("resnet50", (256, 512, 1024, 2048))]
)
def test_timms_models_give_their_own_maps(name: str, channels: tuple[int, ...]) -> None:
    net = build_backbone(model_of(timm=name), 3, None).eval()
    assert net.channels == channels and net.strides == (4, 8, 16, 32)
    theirs = timm.create_model(name, features_only=True, out_indices=(1, 2, 3, 4)).eval()
    theirs.load_state_dict(net.body.state_dict())
    with torch.no_grad():
        for found, wanted in zip(net(IMAGES), theirs(IMAGES), strict=True):
            torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("rate", [0.0, 0.2])
def test_the_rate_of_stochastic_depth_is_the_settings_where_timm_has_another_default(rate: float) -> None:
    settings = {"timm": "swin_tiny_patch4_window7_224", "args.img_size": 64, "drop_path": rate}
    net = build_backbone(model_of(**settings), 3, None)
    found = [module.drop_prob for module in net.modules() if isinstance(module, DropPath)]
    assert max(found, default=0.0) == pytest.approx(rate)
    assert build_backbone(model_of(timm="densenet121", drop_path=0.0), 3, None).strides == (4, 8, 16, 32)
    with pytest.raises(RequestError, match="timm's dla34 has no stochastic depth; allowed: 0"):
        build_backbone(model_of(timm="dla34", drop_path=0.1), 3, None)


def test_a_classifier_of_timm_fills_the_backbone_of_its_name(tmp_path: Path) -> None:
    for name in ("resnet18", "convnext_atto"):
        classifier = timm.create_model(name, num_classes=7)
        net = build_backbone(model_of(timm=name), 3, None)
        load_backbone(net, dict(classifier.state_dict()), "weights")
        state = {key.replace("_", "."): value for key, value in classifier.state_dict().items()}
        for key, value in net.body.state_dict().items():
            assert torch.equal(value, state[key.replace("_", ".")])


def test_what_it_does_not_take_as_it_is_from_a_file_is_said(tmp_path: Path) -> None:
    file = tmp_path / "grey.safetensors"
    save_file(timm.create_model("resnet18", num_classes=7, in_chans=1).state_dict(), file)
    assert start_of(build_backbone(model_of(timm="resnet18"), 3, None)) is None
    one, three = (build_backbone(model_of(timm="resnet18", init_from=str(file)), channels, None) for channels in (1, 3))
    assert start_of(one) == {"weights": "as trained"}
    assert start_of(three) == {"weights": "as trained", "channels": ["conv1.weight"]}


def test_pvt_gives_maps_of_any_size_and_at_its_own_those_of_the_classifier() -> None:
    net = build_backbone(model_of(comparator="pvt_tiny"), 3, None, seed=1).eval()
    assert net.channels == (64, 128, 320, 512) and net.strides == (4, 8, 16, 32)
    shape = {"in_chans": 3, "num_classes": 5, "image_size": 224, "drop_path": 0.0}
    classifier = build_comparator("pvt_tiny", **shape).eval()
    load_backbone(net, dict(classifier.state_dict()), "weights")
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        maps, x = net(images), images
        for stage, found in zip(classifier.stages[:3], maps, strict=False):
            x = stage(x)
            assert torch.equal(found, x)
        sizes = [tuple(found.shape[-2:]) for found in net(IMAGES)]
    assert sizes == [(24, 16), (12, 8), (6, 4), (3, 2)]
    # A map twice as large has the embedding interpolated: bilinear keeps a plane what it is.
    stage = net.body.stages[0]
    plane = torch.arange(56.0).view(1, 1, 56, 1).expand(1, 64, 56, 56)
    stage.position_embedding.data = plane.flatten(2).transpose(1, 2).clone()
    resized = stage.positions((112, 56)).transpose(1, 2).view(1, 64, 112, 56)
    torch.testing.assert_close(resized, F.interpolate(plane, size=(112, 56), mode="bilinear"))
    assert torch.equal(stage.positions((56, 56)), stage.position_embedding)


def test_a_position_embedding_follows_the_map_and_is_itself_at_its_own_size() -> None:
    model = model_of(name="metaformer_pppa_s12")
    net = build_backbone(model, 3, (224, 224)).eval()
    position = net.body.stages[3].position
    position.pos_embed.data.normal_(generator=torch.Generator().manual_seed(0))
    zeros = torch.zeros(1, 512, 7, 7)
    assert torch.equal(position(zeros), position.pos_embed)
    wide = position(torch.zeros(1, 512, 7, 14))
    torch.testing.assert_close(wide, F.interpolate(position.pos_embed, size=(7, 14), mode="bilinear"))
    assert [tuple(found.shape[-2:]) for found in net(IMAGES)] == [(24, 16), (12, 8), (6, 4), (3, 2)]
    # A classifier still refuses what it was not built for.
    with pytest.raises(ValueError, match="fits one resolution"):
        build_model(model, 3, 5, 224)(torch.zeros(1, 3, 256, 256))


@pytest.mark.parametrize(
    ("settings", "size", "said"),
    [
        (
            {"token_mixer": "random"},
            None,
            "token_mixer random of stage 1 fits one resolution, and the images have many",
        ),
        ({"name": "metaformer_pppf_s12"}, None, "token_mixer spatial_fc of stage 4 fits one resolution"),
        ({"timm": "deit_small_patch16_224"}, None, "deit_small_patch16_224 has maps of one stride alone"),
        ({"comparator": "swin_mixer_b_d24"}, None, "swin_mixer_b_d24 fits one resolution"),
        ({"timm": "resnet999"}, None, "unknown timm model 'resnet999'"),
    ],
)
def test_what_cannot_be_a_backbone_says_why(settings: dict, size: tuple[int, int] | None, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        build_backbone(model_of(**settings), 3, size)


def test_one_resolution_is_enough_where_the_images_have_one() -> None:
    net = build_backbone(model_of(token_mixer=["pooling", "pooling", "random", "spatial_fc"]), 3, (64, 96))
    assert [tuple(found.shape[-2:]) for found in net(torch.rand(1, 3, 64, 96))] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    with pytest.raises(ValueError, match="was built for a map of 4 x 6"):
        net(torch.rand(1, 3, 96, 64))


def test_a_backbone_starts_from_a_classifier_of_any_number_of_classes(tmp_path) -> None:
    model = model_of(size="t12", token_mixer=["pooling", "pooling", "attention", "attention"], position_embedding=True)
    classifier = build_model(model, 3, 7, 64, seed=5)
    classifier.stages[3].position.pos_embed.data.normal_()
    torch.save(classifier.state_dict(), tmp_path / "start.pt")
    started = model.model_copy(update={"init_from": str(tmp_path / "start.pt")})
    same = build_backbone(started, 3, (64, 64), seed=6)
    for name, value in same.body.state_dict().items():
        assert torch.equal(value, classifier.state_dict()[name])
    wide = build_backbone(started, 3, (64, 128), seed=6).body.stages[3].position.pos_embed
    torch.testing.assert_close(
        wide, F.interpolate(classifier.stages[3].position.pos_embed, size=(2, 4), mode="bilinear")
    )
    fixed = model_of(size="t12", token_mixer="random")
    torch.save(build_model(fixed, 3, 7, 64).state_dict(), tmp_path / "fixed.pt")
    refused = fixed.model_copy(update={"init_from": str(tmp_path / "fixed.pt")})
    with pytest.raises(RequestError, match="random_matrix is"):
        build_backbone(refused, 3, (128, 128))
