"""Run ids are for ever: committed records keep their names, and the same request keeps its id.

The experiments and recipes in golden/experiments are copies, so a recipe of the package may change and these ids do
not. `WRITE_GOLDEN=1 pytest tests/contract` adds ids that golden_ids.json lacks; it changes none that is there.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY

from metaformer_ablate.models.registry import COMPONENTS
from metaformer_ablate.settings.yaml_reader import parse
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.spec.run_spec import RunSpec

HERE = Path(__file__).resolve().parent
GOLDEN = HERE / "golden"
IDS = HERE / "golden_ids.json"
EXPERIMENTS, RECIPES = (
    sorted(path.stem for path in folder.glob("*.yaml"))
    for folder in (GOLDEN / "experiments", GOLDEN / "experiments" / "recipes")
)

# A recipe and overrides of its baseline: every setting that is part of an id, and every type of value.
SETTINGS = (
    "digits",
    "digits model.size=s12",
    "digits model.name=poolformer_m36",
    "digits model.depths=[1,1,1,1] model.dims=[8,8,16,16]",
    "digits model.depths=[1,2,1] model.dims=[8,16,32]",
    "digits model.token_mixer=[pooling,identity,random,attention] model.position_embedding=[false,false,true,false]",
    "digits model.token_mixer=roll",
    "digits model.pool_size=[3,5,7,9]",
    "digits model.pool_size=5",
    "digits model.token_mixer=depthwise_conv model.kernel_size=[3,5,7,9] model.mixer_bias=false",
    "digits model.token_mixer=separable_conv model.mixer_expansion=3",
    "digits model.token_mixer=window_attention model.window=2 model.head_dim=8",
    "digits model.token_mixer=token_mlp model.token_mlp_ratio=1.5",
    "digits model.norm=layer_norm model.norm_eps=1e-6 model.norm_bias=false",
    "digits model.norm=none",
    "digits model.activation=star_relu model.mlp_ratio=2 model.mlp_bias=false",
    "digits model.residual=false",
    "digits model.channel_mlp=false",
    "digits model.layer_scale=null model.res_scale=[null,null,1.0,1]",
    "digits model.drop_path=0.2",
    "digits model.stem.kernel=5 model.stem.stride=2 model.stem.padding=2 model.stem.norm=layer_norm",
    "digits model.downsample={kernel: 2, stride: 2, padding: 0, norm: mln}",
    "digits model.head=mlp model.head_norm=after_pool model.head_dropout=0.1 model.conv_init=trunc_normal",
    "digits model.init_from=weights.txt",
    "imagenet",
    "imagenet model.timm=deit_small_patch16_224 model.drop_path=0.1",
    "imagenet model.comparator=pvt_tiny",
    "digits data.image_size=24 data.flip=true data.crop_padding=1 data.evaluate_on=holdout",
    "digits data.mixup=0.8 data.cutmix=1 data.cutmix_switch=0.25",
    "imagenet data.num_classes=100 data.train_images=10000 data.test_images=5000",
    "imagenet data.crop_scale=[0.2,1] data.interpolation=bicubic data.rand_augment=null data.random_erasing=0",
    "imagenet data.eval_crop=1 data.eval_interpolation=bilinear data.mixup=0 data.cutmix=0",
    "digits train.epochs=3 train.batch_size=64 train.lr=1e-3 train.weight_decay=0.1",
    "digits train.optimizer=adamw train.betas=[0.9,0.95] train.eps=1e-6",
    "digits train.schedule=constant train.schedule_unit=epoch train.warmup_epochs=0",
    "digits train.warmup_epochs=1.5 train.warmup_lr=0 train.min_lr=0 train.cooldown_epochs=2",
    "digits train.label_smoothing=0 train.clip_grad=1 train.ema=0.99",
    "digits train.precision=bf16 train.memory_format=contiguous train.compile=true train.kernels=triton",
    "digits train.compile=auto train.threads=2",
    "digits train.devices=2 train.micro_batch=8 train.strategy=ddp train.grad_checkpointing=true",
    "digits train.optimizer=momentum train.optimizer_args={momentum: 0.8, nesterov: true} train.decay_on=all",
    "digits train.optimizer=lion train.betas=[0.9,0.95] train.schedule=poly train.steps=100 train.warmup_steps=10",
    "digits train.schedule=step train.milestones=[8,11] train.gamma=0.2 train.decay_on=matrices",
    "digits model.norm=batch_norm model.freeze=[stem,stages.0] model.batch_norm_eval=true",
    "imagenet data.reader=tar data.workers=2 data.max_unreadable=0",
)


def words_of(case: str) -> tuple[str, list[str]]:
    """The recipe and the overrides. A space within a value is followed by no `key=`."""
    recipe, *parts = case.split(" ")
    words: list[str] = []
    for part in parts:
        if "=" in part:
            words.append(part)
        else:
            words[-1] += f" {part}"
    return recipe, words


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Names mean the copies, for ./experiments comes before the package; and there is a mixer of one's own."""
    monkeypatch.chdir(GOLDEN)
    monkeypatch.setenv("ABLATE_PARTS", str(GOLDEN / "own_parts" / "parts.yaml"))
    yield
    monkeypatch.delenv("ABLATE_PARTS")
    COMPONENTS.read_own()


def ids_under(experiment: str, recipe: str) -> dict[str, str | None]:
    """The id of each row at seed 0; None for a row that does not apply, which says why."""
    chosen = plan(experiment, recipe)
    assert all(reason.strip() for reason in chosen.not_applicable.values())
    ids = {row: chosen.spec(row, 0).run_id for row in chosen.specs}
    return {row: None if row in chosen.not_applicable else ids[row] for row in chosen.experiment.rows}


def held(part: str, key: str, found: object) -> object:
    """What golden_ids.json has for a key. On request, and where it has nothing, it is given what was found."""
    tree = json.loads(IDS.read_text(encoding="utf-8")) if IDS.exists() else {}
    if os.environ.get("WRITE_GOLDEN") and key not in tree.setdefault(part, {}):
        tree[part][key] = found
        IDS.write_text(json.dumps(tree, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return tree[part][key]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_row_under_every_recipe_keeps_its_id(experiment: str, copies: None) -> None:
    found = {recipe: ids_under(experiment, recipe) for recipe in RECIPES}
    assert found == held("experiments", experiment, found)


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_keep_their_place_in_the_id(case: str, copies: None) -> None:
    recipe, words = words_of(case)
    chosen = plan("pooling_size", recipe, words, baseline_only=True)
    found = [chosen.spec("pool3", seed).run_id for seed in (0, 7)]
    assert found == held("settings", case, found)


def test_nothing_was_dropped_from_the_list() -> None:
    tree = json.loads(IDS.read_text(encoding="utf-8"))
    assert set(tree["experiments"]) == set(EXPERIMENTS)
    assert set(tree["settings"]) == set(SETTINGS)


def test_committed_specs_give_the_names_of_their_folders() -> None:
    if not (REPOSITORY / ".git").exists():
        pytest.skip("needs the checkout")
    listed = subprocess.run(
        ["git", "ls-files", "results/runs/*/spec.yaml"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(listed) >= 90
    for line in listed:
        path = REPOSITORY / line
        spec = RunSpec.model_validate(parse(path.read_text(encoding="utf-8"), line))
        assert spec.run_id == path.parent.name, line


def test_the_recipe_of_the_study_still_gives_its_records() -> None:
    """Of today's files, not of the copies: a change to these two would orphan the committed records."""
    golden = json.loads(IDS.read_text(encoding="utf-8"))["experiments"]["table5"]["cifar10_small"]
    assert ids_under("table5", "cifar10_small") == golden
    assert all((REPOSITORY / "results" / "runs" / run_id).is_dir() for run_id in golden.values())
