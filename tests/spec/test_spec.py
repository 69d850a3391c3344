"""What a run is: how its spec comes out of layers of settings, and the id that names its result."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.presets import NAMED, SIZES
from metaformer_ablate.models.spec import STAGED
from metaformer_ablate.records.status import seeds_with_records
from metaformer_ablate.records.store import Store
from metaformer_ablate.settings.layers import Layer, digest
from metaformer_ablate.spec import known
from metaformer_ablate.spec.experiment import load_recipe
from metaformer_ablate.spec.known import flatten
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.spec.resolve import resolve
from metaformer_ablate.spec.run_spec import SECTIONS, SEMANTICS, RunSpec
from metaformer_ablate.spec.words import override_layer

LEAVES = known.LEAVES  # every field that a layer may set, by dotted path
# What is not part of the id: where and how a run executes, and a path whose content is.
EXECUTION = {
    *(f"train.{key}" for key in ("devices", "nodes", "strategy", "micro_batch", "grad_checkpointing")),
    *(f"data.{key}" for key in ("reader", "workers", "max_unreadable")),
    "model.init_from",
}

# Everything random or mixed is on, so that as many fields as can be are read.
ALL_AUGMENTED = {"data.mixup": 0.8, "data.cutmix": 1.0}


def layer(values: Mapping[str, Any], strict: bool = False) -> Layer:
    """Settings that a test makes up, dotted or nested."""
    return Layer(flatten(values, lambda path: "test"), lambda path: "test", strict)


def build(*settings: Mapping[str, Any], recipe: str = "digits", strict: bool = False, seed: int = 0) -> RunSpec:
    """A recipe with layers of settings over it, in their order."""
    return resolve([load_recipe(recipe).layer, *(layer(values, strict) for values in settings)], seed)


def get(run: RunSpec, path: str) -> Any:
    value: Any = run
    for name in path.split("."):
        value = getattr(value, name)
    return value


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------------------
# Layers


def test_later_layers_stand_over_earlier_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defaults, recipe, experiment, row, command line: five fields, each set by every layer up to one of them."""
    monkeypatch.chdir(tmp_path)
    write(
        tmp_path / "experiments/recipes/r.yaml",
        "model: {size: t5, stem: {kernel: 3, stride: 1, padding: 1}}\n"
        "data: {name: digits, image_size: 16}\n"
        "train: {epochs: 20, lr: 0.1, weight_decay: 0.1, label_smoothing: 0.1, clip_grad: 0.1}\n",
    )
    write(
        tmp_path / "experiments/e.yaml",
        "baseline: a\n"
        "set: {train: {weight_decay: 0.2, label_smoothing: 0.2, clip_grad: 0.2}}\n"
        "rows:\n"
        "  a: {set: {train.label_smoothing: 0.3, train.clip_grad: 0.3}}\n"
        "  b: {set: {train.label_smoothing: 0.35, train.clip_grad: 0.35}}\n",
    )
    made = plan("e", "r", ["train.clip_grad=0.4"])
    row_a, row_b = made.specs["a"].train, made.specs["b"].train
    assert row_a.eps == SECTIONS["train"].model_fields["eps"].default
    assert (row_a.epochs, row_a.lr, row_a.weight_decay, row_a.label_smoothing, row_a.clip_grad) == (
        20,
        0.1,
        0.2,
        0.3,
        0.4,
    )
    assert (row_b.label_smoothing, row_b.clip_grad) == (0.35, 0.4), "an override applies to every row"
    assert plan("e", "r").specs["a"].train.clip_grad == 0.3


def test_a_part_of_a_geometry_keeps_the_rest_of_it() -> None:
    assert (
        get(build({"model.stem.kernel": 5}), "model.stem").model_dump().items()
        >= {"kernel": 5, "stride": 1, "padding": 1}.items()
    )
    by_default = get(build({"model.stem.kernel": 5}, recipe="imagenet"), "model.stem")
    assert by_default.model_dump().items() >= {"kernel": 5, "stride": 4, "padding": 2}.items()


def test_nested_and_dotted_keys_are_the_same() -> None:
    dotted = build({"model.stem.kernel": 5, "model.pool_size": 5})
    assert build({"model": {"stem": {"kernel": 5}, "pool_size": 5}}) == dotted
    assert build({"model": {"stem.kernel": 5}, "model.pool_size": 5}) == dotted


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("train.lr=2e-3", 0.002),  # a string under YAML 1.1
        ("train.lr=1", 1.0),
        ("train.epochs=010", 10),  # 8 under YAML 1.1
        ("train.compile=true", True),
        ("train.clip_grad=null", None),
        ("train.betas=[0.8, 0.9]", (0.8, 0.9)),
        ("train.schedule=constant", "constant"),
        ("model.pool_size=[3, 5, 7, 9]", (3, 5, 7, 9)),
        ("model.stem={kernel: 5}", 5),
    ],
)
def test_values_of_overrides_are_yaml(word: str, value: Any) -> None:
    path = word.split("=")[0]
    found = get(resolve([load_recipe("digits").layer, override_layer([word])]), path)
    assert (found.kernel if path == "model.stem" else found) == value


@pytest.mark.parametrize("preset", [{"model.size": "s12"}, {"model.name": "poolformer_s12"}])
def test_a_preset_clears_depths_and_dims_from_before(preset: dict[str, str]) -> None:
    small = {"model.depths": [1, 1, 1, 1], "model.dims": [8, 8, 8, 8]}
    assert build(small).model.depths == (1, 1, 1, 1)
    after = build(small, preset).model
    assert (after.depths, after.dims) == (SIZES["s12"].depths, SIZES["s12"].dims)
    assert build({**small, **preset}).model.depths == (1, 1, 1, 1), "set together, the explicit values stand"
    again = build(preset, small).model
    assert (again.depths, again.dims) == ((1, 1, 1, 1), (8, 8, 8, 8))


def test_the_name_of_a_model_clears_its_own_fields_only() -> None:
    other = build({"model.pool_size": 9, "model.mlp_ratio": 2}, {"model.name": "poolformer_s12"}).model
    assert other.pool_size == (3, 3, 3, 3)
    assert other.mlp_ratio == 2


def test_a_size_brings_what_the_paper_trains_it_with() -> None:
    """Table 6: stochastic depth 0.1 to 0.4, LayerScale 1e-5 for S12 and S24, 1e-6 for the others."""
    found = {
        size: (m.drop_path, m.layer_scale)
        for size in ("s12", "s24", "s36", "m36", "m48")
        for m in [build({"model.size": size}, recipe="imagenet").model]
    }
    assert found == {"s12": (0.1, 1e-5), "s24": (0.1, 1e-5), "s36": (0.2, 1e-6), "m36": (0.3, 1e-6), "m48": (0.4, 1e-6)}
    assert build({"model.size": "s36", "model.drop_path": 0.5}, recipe="imagenet").model.drop_path == 0.5


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [
        ([{"train.epochs": 10}, {"train.epoch_factor": 1.5}], 15),
        ([{"train.epochs": 10}, {"train.epoch_factor": 2}], 20),
        ([{"train.epochs": 10, "train.warmup_epochs": 0}, {"train.epoch_factor": 0.001}], 1),
        ([{"train.epochs": 10}, {"train.epoch_factor": 2}, {"train.epochs": 7}], 7),
        ([{"train.epochs": 10}, {"train.epoch_factor": 2}, {"train.epoch_factor": 3}], 30),
        ([{"train.epochs": 10}, {"train.epoch_factor": 2, "train.steps": None}], 20),
        ([{"train.epochs": 10}, {"train.epoch_factor": 2}, {"train.steps": None}], 20),
    ],
)
def test_epoch_factor_multiplies_the_epochs_from_before(settings: list[dict[str, Any]], epochs: int) -> None:
    made = build(*settings)
    assert made.train.epochs == epochs
    assert "epoch_factor" not in made.to_dict()["train"]


def test_epoch_factor_multiplies_steps_and_milestones_too() -> None:
    steps = {"train.steps": 100, "train.schedule": "step", "train.milestones": [60, 80], "train.warmup_steps": 0}
    made = build(steps, {"train.epoch_factor": 0.1}).train
    assert (made.steps, made.epochs, made.milestones) == (10, None, (6, 8))
    assert build(steps, {"train.epoch_factor": 2}, {"train.steps": 90}).train.milestones == (60, 80)


def test_a_later_length_stands_over_an_earlier_one_in_another_unit() -> None:
    steps, epochs = {"train.steps": 40, "train.warmup_steps": 5}, {"train.epochs": 3, "train.warmup_epochs": 1}
    for layers, expected in (
        ((steps,), (None, 40, None, 5)),
        ((epochs, steps), (None, 40, None, 5)),
        ((steps, epochs), (3, None, 1.0, None)),
        ((steps, {"train.epochs": 3}), (3, None, None, 5)),
        ((epochs, {"train.steps": 100}), (None, 100, 1.0, None)),
        ((steps, {"train.steps": None, "train.epochs": 2}), (2, None, None, 5)),
    ):
        made = build(*layers, strict=True).train
        assert (made.epochs, made.steps, made.warmup_epochs, made.warmup_steps) == expected, layers


def test_milestones_are_of_the_unit_that_they_were_written_in() -> None:
    schedule = {"train.epochs": 12, "train.schedule": "step", "train.milestones": [8, 11]}
    assert build(schedule, {"train.epochs": 24}).train.milestones == (8, 11)
    with pytest.raises(RequestError, match=r"train\.milestones is None"):
        build(schedule, {"train.steps": 1000})
    assert build(schedule, {"train.steps": 1000, "train.milestones": [600]}).train.milestones == (600,)


def test_what_an_earlier_optimizer_reads_does_not_reach_a_later_one() -> None:
    adamw = {"train.betas": [0.8, 0.9], "train.eps": 1e-6, "train.optimizer_args": {"amsgrad": True}}
    made = build(adamw, {"train.optimizer": "lamb"}).train
    assert (made.betas, made.eps, made.optimizer_args) == ((0.9, 0.999), 1e-6, None)
    same = build(adamw, {"train.optimizer": "adamw"}).train
    assert (same.betas, same.eps, same.optimizer_args) == ((0.8, 0.9), 1e-6, {"amsgrad": True})
    both = build({"train.optimizer": "lamb"}, {"train.optimizer": "lion", "train.betas": [0.5, 0.6]}).train
    assert both.betas == (0.5, 0.6)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"train.optimizer": "sgd", "train.betas": [0.9, 0.9]},
            r"betas is .*nothing reads it: the optimizer is sgd",
        ),
        ({"train.gamma": 0.1}, r"train\.gamma is 0\.1, but nothing reads it: the schedule is cosine"),
        ({"train.power": 2}, r"train\.power is 2, but nothing reads it: the schedule is cosine"),
        ({"train.milestones": [1]}, r"train\.milestones is \[1\], but nothing reads it"),
        (
            {"train.steps": 99, "train.cooldown_epochs": 1},
            r"cooldown_epochs is 1, but .*: train\.steps is 99",
        ),
        ({"train.warmup_steps": 0, "train.warmup_lr": 1}, r"warmup_lr is 1, but nothing reads it: warmup_steps is 0"),
        (
            {"train.weight_decay": 0, "train.decay_on": "all"},
            r"decay_on is 'all', but nothing reads it: weight_decay is 0",
        ),
    ],
)
def test_settings_of_training_that_nothing_reads_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        build(settings, strict=True)


def test_a_model_of_timm_has_a_name() -> None:
    """An empty one would be a plain MetaFormer under another id."""
    with pytest.raises(RequestError, match=r"model\.timm is '' \(a string\); allowed: the name of a model of timm"):
        build({"model.timm": ""})


def test_shorthands_leave_nothing_in_the_spec() -> None:
    model = build({"model.name": "poolformer_s12"}).to_dict()["model"]
    assert not {"name", "size"} & model.keys()


# ---------------------------------------------------------------------------------------------------------------------
# Stages


@pytest.mark.parametrize("field", STAGED)
def test_one_value_stands_for_all_stages(field: str) -> None:
    one = get(build(), f"model.{field}")
    assert isinstance(one, tuple) and len(one) == 4
    assert build({f"model.{field}": list(one)}) == build({f"model.{field}": one[0]})


def test_three_stages() -> None:
    model = build({"model.depths": [1, 2, 3], "model.dims": [5, 7, 11]}).model
    assert (model.token_mixer, model.pool_size) == (("pooling",) * 3, (3,) * 3)


def sizes_of(spec: RunSpec) -> list[tuple[int, int]]:
    return spec.model.stage_sizes(spec.data.image_size)


def test_sizes_of_the_stages() -> None:
    """By hand: (224 + 4 - 7) // 4 + 1 = 56, then halves; digits keep 16 and end at 2 x 2, as the issue asks."""
    assert sizes_of(build(recipe="imagenet")) == [(56, 56), (28, 28), (14, 14), (7, 7)]
    assert sizes_of(build()) == [(16, 16), (8, 8), (4, 4), (2, 2)]
    # (17 + 2 - 3) // 1 + 1 = 17, (17 + 2 - 3) // 2 + 1 = 9, 5, 3
    assert sizes_of(build({"data.image_size": 17})) == [(17, 17), (9, 9), (5, 5), (3, 3)]


# ---------------------------------------------------------------------------------------------------------------------
# What nothing reads is null


@pytest.mark.parametrize(
    ("settings", "field", "expected"),
    [
        ({"model.token_mixer": "identity"}, "model.pool_size", (None,) * 4),
        (
            {"model.token_mixer": ["pooling", "identity", "pooling", "identity"], "model.pool_size": 5},
            "model.pool_size",
            (5, None, 5, None),
        ),
        ({"model.norm": "none"}, "model.norm_eps", None),
        ({"model.norm": "none"}, "model.norm_bias", None),
        ({"model.residual": False}, "model.layer_scale", None),
        ({"model.residual": False}, "model.drop_path", None),
        ({"model.channel_mlp": False}, "model.mlp_ratio", None),
        ({"model.channel_mlp": False}, "model.activation", None),
        ({}, "data.crop_scale", None),
        ({}, "data.rand_augment", None),
        ({}, "data.random_erasing", None),
        ({}, "data.eval_crop", None),
        ({}, "data.cutmix_switch", None),
        ({"data.mixup": 0.8}, "data.cutmix_switch", None),
        ({"data.mixup": 0.8, "data.cutmix": 1.0}, "data.cutmix_switch", 0.5),
        ({"train.warmup_epochs": 0}, "train.warmup_lr", None),
        ({"train.schedule": "constant"}, "train.min_lr", None),
    ],
)
def test_unread_fields_are_null(settings: dict[str, Any], field: str, expected: Any) -> None:
    assert get(build(settings), field) == expected


def test_pictures_are_cropped_by_scale_not_by_padding() -> None:
    data = build(recipe="imagenet").data
    assert data.crop_padding is None
    assert data.crop_scale == (0.08, 1.0)


def test_unread_values_do_not_split_ids() -> None:
    identity = {"model.token_mixer": "identity"}
    assert build({"model.pool_size": 9}, identity).run_id == build(identity).run_id
    flat = {"train.warmup_epochs": 0}
    assert build({"train.warmup_lr": 1e-3}, flat).run_id == build(flat).run_id


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"model.token_mixer": "identity", "model.pool_size": 3}, ["model.pool_size", "identity"]),
        (
            {"model.token_mixer": ["identity", "pooling", "pooling", "pooling"], "model.pool_size": [3, 3, 3, 3]},
            ["model.pool_size", "stage 1"],
        ),
        ({"model.norm": "none", "model.norm_eps": 1e-6}, ["model.norm_eps", "none"]),
        ({"model.residual": False, "model.layer_scale": 0.1}, ["model.layer_scale", "residual is false"]),
        ({"model.channel_mlp": False, "model.mlp_ratio": 4}, ["model.mlp_ratio", "channel_mlp is false"]),
        ({"data.eval_crop": 0.5}, ["data.eval_crop", "digits"]),
        ({"train.schedule": "constant", "train.min_lr": 0}, ["train.min_lr", "constant"]),
    ],
)
def test_a_row_that_sets_an_unread_field_is_refused(settings: dict[str, Any], names: list[str]) -> None:
    with pytest.raises(RequestError) as caught:
        build(settings, strict=True)
    for name in (*names, "nothing reads it"):
        assert name in str(caught.value)
    build(settings)  # from a recipe or an experiment it is only not read


def test_one_value_is_enough_for_the_stages_that_read_it() -> None:
    mixers = {"model.token_mixer": ["identity", "pooling", "identity", "identity"]}
    assert build({**mixers, "model.pool_size": 5}, strict=True).model.pool_size == (None, 5, None, None)
    listed = {**mixers, "model.pool_size": [None, 5, None, None]}
    assert build(listed, strict=True).model.pool_size == (None, 5, None, None)


# ---------------------------------------------------------------------------------------------------------------------
# Ids


def recompute(run: RunSpec) -> str:
    """The id as the contract defines it, written out."""
    text = json.dumps(run.to_dict(), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@pytest.mark.parametrize("recipe", ["digits", "fashion_mnist", "cifar10", "cifar100", "imagenet"])
def test_an_id_is_the_sha256_of_the_canonical_json(recipe: str) -> None:
    run = build(recipe=recipe, seed=17)
    assert re.fullmatch("[0-9a-f]{12}", run.run_id)
    assert run.run_id == recompute(run)


def test_the_dictionary_of_the_id_holds_everything_resolved() -> None:
    """Written out from the recipe and the defaults of the paper; a field without its value here would split nothing."""
    tree = build(seed=3).to_dict()
    assert tree["seed"] == 3
    assert tree["semantics"] == SEMANTICS
    assert tree.keys() == {"model", "data", "train", "seed", "semantics"}
    assert tree["model"]["depths"] == [1, 1, 2, 1]
    assert tree["model"]["dims"] == [16, 32, 64, 128]
    assert tree["model"]["token_mixer"] == ["pooling"] * 4
    assert tree["model"]["pool_size"] == [3, 3, 3, 3]
    assert tree["model"]["stem"].items() >= {"kernel": 3, "stride": 1, "padding": 1}.items()
    assert tree["model"]["mlp_ratio"] == 4.0
    assert tree["data"]["name"] == "digits"
    assert tree["data"]["eval_crop"] is None
    assert tree["train"]["batch_size"] == 32
    assert tree["train"]["betas"] == [0.9, 0.999]
    later = {path for path, info in LEAVES.items() if info.exclude_if is not None}  # left out while they are null
    for path in LEAVES.keys() - EXECUTION - later:  # defaults too: editing one may not relabel old results
        here: Any = tree
        for key in path.split("."):
            assert key in here, path
            here = here[key]
    for section, key in (path.split(".") for path in EXECUTION):
        assert key not in tree[section]


def test_the_digest_is_fixed() -> None:
    """Computed by sha256sum over exactly these bytes, so no version of anything may change it."""
    expected = hashlib.sha256(b'{"a":[1.0,2,null,true],"b":"\\u00e9"}').hexdigest()
    assert expected.startswith("494728f0d363")
    assert digest({"b": "é", "a": [1.0, 2, None, True]}) == expected


def test_ids_do_not_depend_on_the_order_of_keys() -> None:
    values = {"model.pool_size": 5, "train.lr": 0.1, "data.flip": True, "model.stem": {"kernel": 5, "padding": 2}}
    turned = dict(reversed(values.items())) | {"model.stem": {"padding": 2, "kernel": 5}}
    assert list(turned) != list(values)
    assert build(values).run_id == build(turned).run_id


def test_ids_do_not_depend_on_the_process(tmp_path: Path) -> None:
    program = (
        "from metaformer_ablate.spec.plan import plan\n"
        "print([plan('pooling_size', r).spec('pool5', 1).run_id for r in ('digits', 'imagenet')])"
    )
    here = [plan("pooling_size", recipe).spec("pool5", 1).run_id for recipe in ("digits", "imagenet")]
    for hash_seed in ("0", "4711"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == str(here)


REALS = [path for path, info in LEAVES.items() if info.description.startswith("a number")]


@pytest.mark.parametrize("path", REALS)
def test_whole_numbers_may_be_written_either_way(path: str) -> None:
    """1 and 1.0, 0 and 0.0, are one value of a field of real numbers, and one id."""
    for context in contexts():
        for number in (1, 0):
            if resolves((*context, layer({path: number}, True))):
                one, other = (resolve([*context, layer({path: value}, True)]) for value in (number, float(number)))
                assert get(one, path) is not None
                assert one.run_id == other.run_id
                return
    pytest.fail(f"neither 0 nor 1 is allowed for {path}: not a field of real numbers, or a new range")


def test_zero_has_no_sign() -> None:
    assert build({"train.weight_decay": -0.0}).run_id == build({"train.weight_decay": 0}).run_id


def test_whole_numbers_inside_lists_too() -> None:
    assert build({"train.betas": [0, 0.5]}).run_id == build({"train.betas": [0.0, 0.5]}).run_id
    scales = ({"data.crop_scale": [0.5, 1]}, {"data.crop_scale": [0.5, 1.0]})
    assert len({build(scale, recipe="imagenet").run_id for scale in scales}) == 1


def test_the_same_run_by_different_ways_has_one_id() -> None:
    s12 = {"model.depths": [2, 2, 6, 2], "model.dims": [64, 128, 320, 512]}
    explicit = {**s12, "model.drop_path": 0.1, "model.layer_scale": 1e-5}
    ways = [
        build(recipe="imagenet"),
        build({"model.size": "s12"}, recipe="imagenet"),
        build({"model.size": "s36"}, {"model.size": "s12"}, recipe="imagenet"),
        build({"model.size": "s36"}, explicit, recipe="imagenet"),
        build({"model.name": "poolformer_s12"}, recipe="imagenet"),
        build({"model.pool_size": [3, 3, 3, 3]}, recipe="imagenet"),
        build({"train.epochs": 150}, {"train.epoch_factor": 2}, recipe="imagenet"),
        resolve([load_recipe("imagenet").layer, override_layer(["model.size=s12", "train.lr=0.004"])]),
    ]
    assert len({run.run_id for run in ways}) == 1


def test_seeds_differ() -> None:
    base = build()
    ids = [base.with_seed(seed).run_id for seed in range(20)]
    assert len(set(ids)) == 20
    assert ids[7] == build(seed=7).run_id


def test_semantics_differ() -> None:
    base = build()
    assert base.model_copy(update={"semantics": base.semantics + 1}).run_id != base.run_id


def test_rows_of_several_experiments_share_runs_and_names_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(
        tmp_path / "experiments/other.yaml",
        "title: Something else\n"
        "baseline: start\n"
        "rows:\n"
        "  start: {label: Another label, group: Another group, notes: [n], paper: {top1: 1}}\n"
        "  bare: {set: {model.token_mixer: identity}}\n"
        "  wide: {set: {model: {pool_size: [5, 5, 5, 5]}}}\n",
    )
    digits = (REPOSITORY / "experiments/recipes/digits.yaml").read_text()
    write(tmp_path / "experiments/recipes/renamed.yaml", digits.replace("title: ", "title: My "))
    one, other = plan("pooling_size"), plan("other", "renamed")
    assert one.recipe.title != other.recipe.title
    for seed in (0, 1):
        assert one.spec("pool3", seed).run_id == other.spec("start", seed).run_id
        assert one.spec("pool5", seed).run_id == other.spec("wide", seed).run_id
    assert len({run.run_id for made in (one, other) for run in made.specs.values()}) == 5


# Fields that are not in the id.
# The last three in tests/models/test_own_class.py and test_starting.py.
NOT_CHANGED = {*EXECUTION, "model.class", "model.args", "model.new_head"}
# Values of fields whose description does not name any.
FREE_TEXT = {"model.timm": ["resnet18", "resnet34"], "data.rand_augment": ["rand-m9-mstd0.5-inc1"]}


# A folder of images of one's own.
OWN_FOLDER = {
    **{"data.name": "folder", "data.set": "mine", "data.held_in": "memory"},
    **{"data.num_classes": 3, "data.train_images": 4096, "data.test_images": 64},
}


def words(path: str) -> list[str]:
    """The words of a field's description, among them the names that it allows."""
    return FREE_TEXT.get(path) or re.findall(r"[a-z0-9_]{2,}", LEAVES[path].description)


def resolves(layers: tuple[Layer, ...]) -> bool:
    try:
        resolve(layers)
    except RequestError:
        return False
    return True


@cache
def contexts() -> tuple[tuple[Layer, ...], ...]:
    """Layers under which a field may be read: small and large images, with each name that any field allows."""
    digits, imagenet = load_recipe("digits").layer, load_recipe("imagenet").layer
    made: list[tuple[Layer, ...]] = [(base, layer(ALL_AUGMENTED)) for base in (digits, imagenet)]
    made += [(base, layer({"train.schedule": "step", "train.milestones": [1, 2]})) for base in (digits, imagenet)]
    made += [(digits, layer({**OWN_FOLDER, "data.channels": channels})) for channels in (1, 3)]
    for path in LEAVES:
        made += [(base, layer({path: word})) for word in words(path) for base in (digits, imagenet)]
    return tuple(context for context in made if resolves(context))


def candidates(path: str) -> list[Any]:
    """Values to try for a field, most of which it refuses."""
    numbers: list[Any] = [0.25, 0.75, 2, 3, 5, 7, 8, 9, 40, [0.1, 0.5], [2, 3, 4, 5], [8, 16, 24, 32], [3, 5, 7, 9]]
    mappings: list[Any] = [{"momentum": 0.5}, {"amsgrad": True}]
    return [True, False, *numbers, *mappings, *words(path), *([word] * 4 for word in words(path))]


def same(value: Any, base: Any) -> bool:
    """Whether a value as it is written is the resolved one, which may be spread over the stages."""
    if base is None and value is False:  # of a later setting: not, as before
        return True
    spread = isinstance(base, tuple) and not isinstance(value, list)
    value = [value] * len(base) if spread else value
    return (list(base) if isinstance(base, tuple) else base) == value


@pytest.mark.parametrize("path", LEAVES)
def test_every_field_is_in_the_id(path: str) -> None:
    """A row may set the field to something else, and that is another run."""
    if path in NOT_CHANGED:
        pytest.skip("tested by other means")
    changed = 0
    for context in contexts():
        base = resolve(context)
        for value in candidates(path):
            try:
                other = resolve([*context, layer({path: value}, strict=True)])
            except RequestError:
                continue
            if same(value, get(base, path)):
                assert other.run_id == base.run_id
            else:
                changed += 1
                assert other.run_id != base.run_id, f"{path}={value!r} is the same run as {get(base, path)!r}"
        if changed:
            return
    pytest.fail(f"no candidate for {path} ({LEAVES[path].description}): add one")


@pytest.mark.skipif("model.init_from" not in LEAVES, reason="no initial weights yet")
def test_initial_weights_count_by_their_content(tmp_path: Path) -> None:
    for name, content in (("a", b"weights"), ("b", b"weights"), ("c", b"others")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (build({"model.init_from": str(tmp_path / name)}).run_id for name in "abc")
    assert a == b
    assert len({a, c, build().run_id}) == 3


@pytest.mark.parametrize("name", NAMED)
def test_named_models_are_settings_of_the_schema(name: str) -> None:
    build({"model.name": name}, recipe="imagenet")
    for key in NAMED[name]:
        assert key == "size" or f"model.{key}" in LEAVES


def test_a_spec_cannot_be_changed() -> None:
    run = build()
    with pytest.raises(ValueError, match="frozen"):
        run.seed = 3  # type: ignore[misc]


def test_records_of_any_seed_are_found_by_id(tmp_path: Path) -> None:
    """The fast way, which hashes around the seed, finds the ids that the slow way makes."""
    made = plan("pooling_size", "digits", ["train.epochs=3"])
    store = Store(tmp_path)
    for row, seed in (("pool3", 0), ("pool7", 12), ("pool9", 9999), ("pool5", 10_000)):
        (tmp_path / "runs" / made.spec(row, seed).run_id).mkdir(parents=True)
    (tmp_path / "runs" / plan("pooling_size").spec("pool3", 5).run_id).mkdir()
    assert seeds_with_records(made, store) == (0, 12, 9999)
    assert seeds_with_records(made, Store(tmp_path / "nothing")) == (0,)


def test_costs_are_shared_by_models_that_cost_the_same() -> None:
    """What trains differently but is the same arithmetic is counted once; anything else is not."""
    base = build()
    for change in ({"train.lr": 0.5}, {"model.drop_path": 0.2}, {"data.flip": True}, {"model.layer_scale": 0.5}):
        assert build(change).cost_key() == base.cost_key(), change
    different = [
        build({"model.layer_scale": None}),
        build({"model.pool_size": 5}),
        build({"model.token_mixer": "identity"}),
        build({"data.image_size": 20}),
        build({"data.name": "cifar10"}),
        build({"model.mlp_ratio": 2}),
    ]
    assert len({run.cost_key() for run in (base, *different)}) == len(different) + 1


@pytest.mark.parametrize(
    ("recipe", "pixels"), [("imagenet", 63), ("cifar10_small", 31), ("cifar10", 10), ("cifar10_mixing", 10)]
)
def test_what_the_embeddings_alone_show_of_an_image(recipe: str, pixels: int) -> None:
    """Worked out by hand: a field grows by (kernel - 1) times the stride of what is below."""
    assert plan("pooling_size", recipe).specs["pool3"].model.embedding_field() == pixels


def test_a_comparator_shows_no_field_of_its_embeddings() -> None:
    (vit, *_) = [s for s in plan("imagenet_models", "imagenet").specs.values() if s.model.timm is not None]
    assert vit.model.embedding_field() is None


@pytest.mark.parametrize("other", [{"train.epochs": 20}, {"train.steps": 20, "train.warmup_steps": 0}])
def test_a_factor_of_epochs_beside_a_length_is_refused(other: dict[str, Any]) -> None:
    """Neither would say which of them counts."""
    with pytest.raises(RequestError, match=r"epoch_factor is 3 and train\.(epochs|steps) is 20; allowed: one of them"):
        build({**other, "train.epoch_factor": 3})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"data.name": "camvid", "train.devices": 2},
            r"leaves 1 images to evaluate on; train.devices x .* is 2; allowed",
        ),
        (
            {"data.name": "camvid", "data.train_images": 9, "train.batch_size": 2},
            "leaves 0 images to evaluate on; allowed",
        ),
    ],
)
def test_each_device_has_an_image_to_evaluate_on(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        build({"data.evaluate_on": "holdout", "data.train_images": 12, **settings}, recipe="camvid_semantic_fpn")
