"""Recipes and experiment of table 3: parameters, costs, schedules; which rows can be backbones, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from metaformer_ablate.errors import RequestError
from metaformer_ablate.spec.experiment import load_experiment
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.tasks.detection.mask_rcnn import MaskRcnn
from metaformer_ablate.tasks.detection.net import build_net, cost_parts, image_shape
from metaformer_ablate.training.optim import decayed_names, learning_rate

RECIPES = ("coco_retinanet", "coco_mask_rcnn")
SMALL = ("model.depths=[1,1,1,1]", "model.dims=[8,8,16,16]", "task.fpn_channels=16")


def spec(recipe: str, *words: str, row: str | None = None, experiment: str = "token_mixers") -> RunSpec:
    found = plan(experiment, recipe, ["model.init_from=null", *words], baseline_only=row is None)
    return found.specs[row or found.experiment.baseline]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("row", list(load_experiment("coco_backbones").rows))
def test_parameters_of_table_3(recipe: str, row: str) -> None:
    printed = load_experiment("coco_backbones").rows[row].printed(recipe)["params_m"]
    with torch.device("meta"):
        net = build_net(spec(recipe, row=row, experiment="coco_backbones"))
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in net.parameters()]
    trained = sum(size for size, requires in sizes if requires)
    assert abs(trained / 1e6 - printed) < 0.06
    frozen = sum(size for size, requires in sizes if not requires)
    expected = 0 if "poolformer" in row else 157_504 if row == "resnet18" else 225_344
    assert frozen == expected  # conv1, bn1 and layer1


@pytest.mark.parametrize(("recipe", "rate"), [("coco_retinanet", 1e-4), ("coco_mask_rcnn", 2e-4)])
def test_the_schedule_of_the_authors_configs(recipe: str, rate: float) -> None:
    train, each = spec(recipe).train, 7330
    rates = [
        learning_rate(train, step, each) for step in (0, 250, 500, 8 * each - 1, 8 * each, 11 * each - 1, 11 * each)
    ]
    assert rates == pytest.approx([1e-3 * rate, 0.5005 * rate, rate, rate, 0.1 * rate, 0.1 * rate, 0.01 * rate])
    assert (train.all_epochs(each), train.batch_size, train.weight_decay, train.decay_on) == (12, 16, 1e-4, "all")
    assert spec(recipe).model.drop_path == 0


def test_costs_are_counted_part_by_part_at_the_size_that_mmdet_counts() -> None:
    from metaformer_ablate.cost.counting import count_parts

    small = ("task.short_side=100", "task.long_side=200", *SMALL)
    for recipe, names in (
        ("coco_retinanet", ["backbone", "neck", "head"]),
        ("coco_mask_rcnn", ["backbone", "neck", "proposal head", "box head, 10 regions", "mask head, 100 regions"]),
    ):
        of_regions = ("task.proposals=10", "task.fc_width=32", "task.mask_width=8") if "mask" in recipe else ()
        assert image_shape(spec(recipe)) == (3, 800, 1280)
        run = spec(recipe, *small, *of_regions)
        assert image_shape(run) == (3, 128, 160)
        net = build_net(run)
        macs = count_parts(net, cost_parts(net, run)).macs_by_part
        assert list(macs) == names and min(macs.values()) > 0
        if "mask" in recipe:
            hidden = 10 * (16 * 49 * 32 + 32 * 32 + 32 * 81 * 5)
            assert macs["box head, 10 regions"] == hidden
        else:
            positions = sum((128 // stride) * (160 // stride) for stride in (8, 16, 32)) + 2 * 3 + 1 * 2
            assert macs["head"] == positions * 9 * 16 * (8 * 16 + 9 * 80 + 9 * 4)


@pytest.mark.parametrize("recipe", RECIPES)
def test_rows_of_one_resolution_and_of_one_stride_are_not_applicable(recipe: str) -> None:
    found = plan("token_mixers", recipe)
    assert found.specs and "pooling" in found.specs
    assert "token_mixer random of stage 1 fits one resolution" in found.not_applicable["random"]
    found = plan("imagenet_models", recipe)
    assert "maps of one stride" in found.not_applicable["deit_small_patch16_224"]
    assert {"pvt_tiny", "resnet50", "poolformer_s12"} <= set(found.specs)


def test_in_scenes_of_one_size_a_row_of_one_resolution_is_a_backbone() -> None:
    assert spec("scenes_detection", row="random").task.short_side is None  # type: ignore[union-attr]
    refused = plan("token_mixers", "scenes_detection", ["model.init_from=recipe:digits"]).not_applicable["random"]
    assert refused.endswith("fits one resolution: it cannot start from a run under digits, which has another")


def test_what_only_mask_rcnn_reads_is_null_and_anchors_follow_the_head() -> None:
    task: Any = spec("coco_retinanet").task
    assert (task.proposals, task.box_samples, task.fc_width, task.mask_width) == (None,) * 4
    assert task.scale_of_anchors == 4
    task = spec("coco_mask_rcnn").task
    assert (task.proposals, task.box_samples, task.fc_width, task.mask_width) == (1000, 512, 1024, 256)
    assert task.scale_of_anchors == 8


def test_parts_of_mask_rcnn_are_as_large_as_its_settings() -> None:
    words = ("task.fc_width=32", "task.mask_width=24", "task.proposals=50", "task.box_samples=20")
    net = build_net(spec("coco_mask_rcnn", *SMALL, *words))
    assert isinstance(net, MaskRcnn)
    heads: Any = net.roi_heads
    assert heads.box_head.fc6.weight.shape == (32, 16 * 49) and heads.box_predictor.cls_score.out_features == 81
    assert heads.mask_predictor.mask_fcn_logits.weight.shape == (81, 24, 1, 1)
    assert heads.fg_bg_sampler.batch_size_per_image == 20
    assert net.rpn._post_nms_top_n == {"training": 50, "testing": 50}  # type: ignore[union-attr]
    assert net.rpn.anchor_generator.strides == (4, 8, 16, 32, 64)  # type: ignore[union-attr]


def test_weights_follow_from_the_seed() -> None:
    one, same, other = (build_net(spec("coco_retinanet", *SMALL).with_seed(seed)).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    drawn = decayed_names(build_net(spec("coco_retinanet", *SMALL)))
    assert not any(torch.equal(one[name], other[name]) for name in drawn)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("train.batch_size=9",),
            "train.batch_size is 9, but task.loss_images is 2; allowed: a batch of whole groups of so many images, or "
            "null",
        ),
        (
            ("train.micro_batch=1",),
            "task.loss_images is 2, but train.devices, train.nodes and train.micro_batch take a batch of 16 in parts "
            "of 1; allowed: parts of whole groups of images that share a divisor of the loss",
        ),
        (
            ("train.devices=2", "task.loss_images=null"),
            "task.loss_images is null, but train.devices, train.nodes and train.micro_batch take a batch of 16 in "
            "parts of 8; allowed: parts of whole groups of images that share a divisor of the loss, here the whole "
            "batch",
        ),
        (
            ("model.stem.stride=3",),
            "the maps of the backbone have strides 6, 12, 24; allowed in detection: powers of two up to 32, each "
            "twice the one before",
        ),
        (
            ("model.stem.stride=8",),
            "the maps of the backbone have strides 16, 32, 64; allowed in detection: powers of two up to 32, each "
            "twice the one before",
        ),
    ],
)
def test_what_cannot_be_built_is_said_in_one_sentence(words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(RequestError) as error:
        build_net(spec("coco_retinanet", *SMALL, *words))
    assert str(error.value) == sentence


def test_a_long_side_below_the_short_one_is_refused() -> None:
    with pytest.raises(RequestError, match=r"task.long_side is 400 .*; allowed: .* at least task.short_side$"):
        spec("coco_retinanet", "task.long_side=400")
