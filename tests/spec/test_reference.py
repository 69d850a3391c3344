"""The reference of the settings says what the specs do, and `ablate explain --all` where each value came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import Result

from metaformer_ablate.data.datasets import DATASETS
from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.components import MIXERS, NORMS
from metaformer_ablate.settings.layers import Layer
from metaformer_ablate.spec.known import LEAVES, SHORTHANDS, task_leaves
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.spec.reference import SettingLine, settings_reference
from metaformer_ablate.spec.resolve import resolve
from metaformer_ablate.tasks.registry import all_tasks

REFERENCE = settings_reference()
BY_PATH = {line.path: line for line in REFERENCE if line.task is None}


def test_every_setting_has_its_line_once() -> None:
    own = [(path, task.name) for task in all_tasks() for path in task_leaves(task) if path != "task.name"]
    shared = [(path, None) for path in (*SHORTHANDS, *LEAVES, "task.name")]
    assert sorted(map(str, [*shared, *own])) == sorted(str((line.path, line.task)) for line in REFERENCE)
    assert all(line.allowed and line.since for line in REFERENCE)


def test_what_reads_a_setting() -> None:
    """Known from the paper and from torch: which mixer has a window, which norm a bias, which schedule milestones."""
    assert BY_PATH["model.pool_size"].read_where == {"model.token_mixer": ["pooling", "max_pooling"]}
    assert BY_PATH["model.norm_bias"].read_where == {"model.norm": ["mln", "layer_norm", "batch_norm", "affine"]}
    assert BY_PATH["train.milestones"].readers == "where train.schedule is step"
    assert BY_PATH["train.min_lr"].readers == "where train.schedule is cosine or poly"
    assert BY_PATH["train.lr"].readers == "always"
    assert BY_PATH["model.activation"].readers == (
        "where model.channel_mlp is true, or model.token_mixer is separable_conv"
    )
    assert BY_PATH["train.warmup_lr"].readers == (
        "where train.warmup_epochs is above 0, or train.warmup_steps is above 0"
    )
    assert BY_PATH["data.mixup"].readers == "where task.name is classification"
    assert BY_PATH["data.cutmix_switch"].read_where["data.mixup"] == ["above 0"]
    (proposals,) = [line for line in REFERENCE if line.path == "task.proposals"]
    assert (proposals.task, proposals.readers) == ("detection", "where task.head is mask_rcnn")


@pytest.mark.parametrize(
    ("decides", "values"), [("model.token_mixer", MIXERS), ("model.norm", NORMS), ("data.name", DATASETS)]
)
def test_a_setting_is_refused_where_the_reference_says_that_nothing_reads_it(decides: str, values: Any) -> None:
    """Asked of `resolve`, for each setting of classification that one choice alone decides on."""
    own = [line for line in REFERENCE if line.task is None]
    lines = [line for line in own if list(line.read_where) == [decides] and not line.or_where]
    assert len(lines) >= 2
    for line in lines:
        for value in values:
            if DATASETS.get(value, DATASETS["digits"]).task != "classification" or value == "folder":  # needs its facts
                continue
            assert _is_read(line, {decides: value}) == (value in line.read_where[decides]), (line.path, value)


def _is_read(line: SettingLine, chosen: dict[str, Any]) -> bool:
    """Whether a row may set a setting to its default, or to 3 where that is null, under a choice."""
    base = {"data.name": "digits", "data.image_size": 32, "model.head_dim": 32} | chosen
    base.pop(line.path, None)
    examples: dict[str, Any] = {
        "data.rand_augment": "rand-m9-mstd0.5-inc1",
        "data.image_size": 32,
        "data.train_images": 5000,
        "data.set": "mine",
        "data.held_in": "disk",
        "model.batch_norm_eval": True,
    }
    value = examples.get(line.path, 3 if line.default is None else line.default)
    row = Layer({line.path: value}, lambda path: "row", strict=True)
    try:
        resolve([Layer(base, lambda path: "recipe"), row])
    except RequestError as error:
        assert "nothing reads it" in str(error), error
        return False
    return True


def test_defaults_and_ids() -> None:
    assert BY_PATH["model.stem.kernel"].default == 7  # of the stem, and not of any convolution
    assert BY_PATH["model.depths"].default == [2, 2, 6, 2]
    assert BY_PATH["data.name"].required and not BY_PATH["train.lr"].required
    assert [path for path in ("train.devices", "train.lr", "model.init_from") if not BY_PATH[path].in_id] == [
        "train.devices",
        "model.init_from",
    ]


def test_list_settings(ablate: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    text = ablate("list", "settings", "train.warmup_lr").out
    assert text.startswith("train.warmup_lr\n    a number of at least 0: the learning rate that warm-up begins with\n")
    assert "default 1e-06; read where train.warmup_epochs is above 0, or train.warmup_steps is above 0; since" in text
    listed = ablate("list", "settings", "train.", "--json").json["settings"]
    assert [line["path"] for line in listed] == [line.path for line in REFERENCE if line.path.startswith("train.")]
    assert ablate("list", "settings", "trian.").sentence.startswith("no setting begins with 'trian.'")
    assert list(ablate("list", "mixers", "--json").json) == ["token_mixers"]
    assert ablate("list", "mixers", "max").out.splitlines()[1].startswith("  max_pooling  max pooling")
    assert "unknown part 'mixer' (did you mean 'mixers'?)" in ablate("list", "mixer").sentence


# ---------------------------------------------------------------------------------------------------------------------
# explain --all


def test_every_value_of_a_row_and_its_source(ablate: Callable[..., Result]) -> None:
    words = ("explain", "pooling_size", "pool5", "--all", "train.epoch_factor=2", "train.lr=3e-3")
    tree = ablate(*words, "--json").json
    spec = {path: (found["value"], found["from"]) for path, found in tree["spec"].items()}
    resolved = plan("pooling_size", "digits", ["train.epoch_factor=2", "train.lr=3e-3"]).specs["pool5"].to_dict()
    for section in ("model", "data", "train"):
        for field, value in resolved[section].items():
            if not isinstance(value, dict) and field != "init_sha256":
                assert spec[f"{section}.{field}"][0] == value
    assert spec["model.pool_size"] == ([5] * 4, "row 'pool5' (experiments/pooling_size.yaml:9)")
    assert spec["train.lr"] == (0.003, "command line")
    value, source = spec["train.epochs"]
    assert value == 24 and source == "experiments/recipes/digits.yaml:9, times 2 (command line)"
    assert spec["model.depths"][1] == "model.size t5 (experiments/recipes/digits.yaml:6)"
    assert spec["model.stem.kernel"][1] == "experiments/recipes/digits.yaml:6"
    assert spec["train.betas"][1] == "default of the optimizer adamw"
    assert spec["model.norm"] == ("mln", "default")
    assert spec["model.window"][1].startswith("nothing reads it: token_mixer pooling does not read it")
    assert spec["data.crop_scale"] == (None, "nothing reads it: the images of digits are small")
    assert spec["train.steps"] == (None, "default")


def test_sources_of_a_named_model_and_of_a_data_set(ablate: Callable[..., Result]) -> None:
    words = ("explain", "metaformer_baselines", "--all", "--recipe", "imagenet", "--json")
    tree = ablate("explain", "metaformer_baselines", "convformer_s18", *words[2:]).json["spec"]
    assert tree["model.token_mixer"]["from"].startswith("model.name convformer_s18 (row 'convformer_s18' (")
    assert tree["model.kernel_size"] == {"value": [7] * 4, "from": "default of separable_conv"}
    assert tree["data.train_images"] == {"value": 1281167, "from": "the data set imagenet"}


def test_the_whole_spec_as_text_fits_eighty_columns(
    ablate: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metaformer_ablate.analysis.tables.text.text_width", lambda: 80)
    monkeypatch.setattr("metaformer_ablate.cli.explain.out_width", lambda: 80)
    text = ablate("explain", "table5", "ppaa", "--all").out
    assert max(map(len, text.splitlines())) <= 80
    assert "model.head_dim" in text and "Nothing in this row reads: " in text and "model.window" in text
