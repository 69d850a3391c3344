"""What is not trained: frozen parts, and batch norms that keep their statistics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_WORDS
from disturbed import StopAfter, content, runner
from specs import build_net, spec_of
from torch import nn

from metaformer_ablate.cost.cost import count
from metaformer_ablate.cost.counting import count_model
from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.backbone import build_backbone
from metaformer_ablate.models.freezing import kept_in_evaluation, trained_batch_norms
from metaformer_ablate.models.spec import ModelSpec
from metaformer_ablate.records.checkpoints import LAST
from metaformer_ablate.runs.constraints import check_hardware
from metaformer_ablate.runs.options import RunOptions
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.system.signals import Interrupted

# On maps of one token the pooling of the last stage is 0, and nothing before it would be trained.
NORMED = {"model.norm": "batch_norm", "data.image_size": 16}


def tiny(settings: dict[str, Any]) -> RunSpec:
    return spec_of(settings, words=TINY_WORDS)


def state(spec: RunSpec, results: Path) -> dict[str, torch.Tensor]:
    """The weights that a run ends with."""
    record = runner(results).run(spec, RunOptions(keep_checkpoints=True))
    assert record.status == "ok", record.data["reason"]
    found = torch.load(record.folder / LAST, weights_only=True)["state_dict"]
    return {name.removeprefix("net."): value for name, value in found.items()}


def test_what_is_frozen_does_not_move_and_the_rest_does(tmp_path: Path) -> None:
    """Its batch norms keep their statistics, too; those of other parts follow the batches."""
    spec = tiny({**NORMED, "model.freeze": ["stem", "stages.0"], "model.drop_path": 0.5})
    before, after = build_net(spec).state_dict(), state(spec, tmp_path)
    frozen = {name for name in before if name.startswith(("stem.", "stages.0."))}
    assert "stages.0.blocks.0.norm1.running_mean" in frozen
    assert {name for name in before if torch.equal(before[name], after[name])} == frozen
    record = runner(tmp_path).store.read(spec.run_id)
    assert record is not None
    sizes = [(p.numel(), name in frozen) for name, p in build_net(spec).named_parameters()]
    assert record.data["frozen_params"] == sum(size for size, still in sizes if still) > 0
    assert record.data["params"] == sum(size for size, still in sizes if not still)


def test_batch_norms_that_keep_their_statistics_are_trained_all_the_same(tmp_path: Path) -> None:
    spec = tiny({**NORMED, "model.batch_norm_eval": True})
    before, after = build_net(spec).state_dict(), state(spec, tmp_path)
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still == {name for name in before if "running_" in name or "num_batches" in name}
    assert not trained_batch_norms(build_net(spec).modules())
    moving = state(tiny(NORMED), tmp_path / "moving")
    assert not any(torch.equal(moving[name], before[name]) for name in still)


@pytest.mark.parametrize("steps", [5, 22])
def test_a_run_with_frozen_parts_that_was_stopped(steps: int, tmp_path: Path) -> None:
    """The evaluation between its epochs leaves what is in evaluation mode there."""
    settings = {"model.norm": "batch_norm", "model.freeze": ["stages.0"], "model.batch_norm_eval": True}
    spec = tiny({**settings, "train.epochs": 2, "train.ema": 0.9, "model.drop_path": 0.3})
    plain = runner(tmp_path / "plain").run(spec)
    with pytest.raises(Interrupted):
        runner(tmp_path).run(spec, RunOptions(stop=StopAfter(steps)))
    assert content(runner(tmp_path).run(spec)) == content(plain)


@pytest.mark.parametrize(
    ("freeze", "said"),
    [
        (
            ["stages.0", "stagez.1"],
            r"has 'stagez.1', which is no part of MetaFormer .did you mean 'stages.1'",
        ),
        (["stage"], r"has 'stage', .*allowed: paths of modules or parameters, which begin with: stem, stages, head"),
        (["stages.00"], "which is no part of MetaFormer"),
        ([""], "which is no part of MetaFormer"),
        ("stem", "model.freeze is 'stem' .*; allowed: a list of paths in the net"),
        ([3], "model.freeze is .*; allowed: a list of paths in the net"),
    ],
)
def test_a_path_of_nothing_is_told(freeze: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        build_net(tiny({"model.freeze": freeze}))


def test_a_parameter_and_a_part_without_parameters_are_paths_too() -> None:
    net = build_net(tiny({"model.freeze": ["head.fc.bias", "stages.1.blocks.0.token_mixer"]}))
    assert [name for name, p in net.named_parameters() if not p.requires_grad] == ["head.fc.bias"]


def test_a_run_that_trains_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"model\.freeze leaves nothing to train of MetaFormer"):
        runner(tmp_path).run(tiny({"model.freeze": ["stem", "stages", "head"]}))


def test_no_choice_and_none_are_one_run() -> None:
    plain = tiny({}).run_id
    assert {tiny({"model.freeze": value}).run_id for value in (None, [])} == {plain}
    assert {tiny({"model.batch_norm_eval": value}).run_id for value in (None, False)} == {plain}
    assert tiny({"model.freeze": ["stem"]}).run_id != plain


def resnet(**settings: Any) -> ModelSpec:
    return spec_of(
        {"model.timm": "resnet18", **{f"model.{k}": v for k, v in settings.items()}}, recipe="imagenet"
    ).model


def test_the_frozen_part_of_the_papers_detectors() -> None:
    """mmdet's `frozen_stages=1, norm_eval=True`: 0.158 M of ResNet-18 (its stem and first stage) are not trained."""
    net = build_backbone(resnet(freeze=["conv1", "bn1", "layer1"], batch_norm_eval=True), 3, None)
    cost = count_model(net, (3, 64, 64))
    assert cost.frozen_params == 64 * 3 * 49 + 128 + 4 * (64 * 64 * 9 + 128) == 157_504
    assert cost.params == 11_176_512 - 157_504
    kept = kept_in_evaluation(net)
    norms = [name for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 20 and set(norms) <= set(kept)
    assert "body.layer1.0.conv1" in kept and "body.layer2.0.conv1" not in kept


def test_frozen_parameters_are_counted_apart() -> None:
    whole, part = (count(tiny({"model.freeze": paths})) for paths in (None, ["stem", "stages.0"]))
    assert part.params + part.frozen_params == whole.params and part.macs == whole.macs
    # Of one block a stage, of widths 8, 8, 16 and 16, with two scales each.
    assert (whole.layer_scale_params, part.layer_scale_params) == (2 * 48, 2 * 40)


@pytest.mark.parametrize("build", [build_net, lambda spec: build_backbone(spec.model, 3, None)])
def test_a_net_without_batch_norms_has_no_statistics_to_keep(build: Callable[[RunSpec], nn.Module]) -> None:
    """Its row would train the baseline under another label."""
    build(tiny({"model.norm": "batch_norm", "model.batch_norm_eval": True}))
    build(tiny({"model.stem.norm": "batch_norm", "model.batch_norm_eval": True}))
    with pytest.raises(RequestError, match="but nothing reads it: norm mln is no batch norm"):
        spec_of(words=[*TINY_WORDS, "model.batch_norm_eval=true"])
    with pytest.raises(RequestError, match=r"reads it: \w+ has no batch norm; allowed for this model: false"):
        build(spec_of(words=["data.image_size=32", "model.timm=convnext_atto", "model.batch_norm_eval=true"]))


def test_a_recipe_may_keep_the_statistics_of_the_rows_that_have_them(tmp_path: Path) -> None:
    recipe = tmp_path / "kept.yaml"
    recipe.write_text(
        "title: Kept\nmodel: {size: t5, batch_norm_eval: true}\ndata: {name: digits, image_size: 32}\n"
        "train: {epochs: 1, warmup_epochs: 0}\n"
    )
    found = plan("normalization", str(recipe)).specs
    assert {row for row, spec in found.items() if spec.model.batch_norm_eval} == {"batch_norm"}
    # A record from before says it of a net that has none: its net is still built.
    model = found["mln"].model.model_copy(update={"batch_norm_eval": True})
    build_net(found["mln"].model_copy(update={"model": model}))


def test_batch_norms_that_keep_their_statistics_need_no_synchronising() -> None:
    for words, fits in (({}, False), ({"model.batch_norm_eval": True}, True)):
        spec = tiny({"model.norm": "batch_norm", "train.devices": 2, **words})
        if fits:
            check_hardware(spec, "cpu")
        else:
            with pytest.raises(RequestError, match="has batch norm"):
                check_hardware(spec, "cpu")
