"""A request that is wrong ends with code 2 and one sentence that names the place, the value and what is allowed.

Every case asserts the parts of its sentence that a person needs. `Result.sentence` checks what holds for all of them:
one line on standard error that begins with "error: ", nothing on standard output, no traceback.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
from conftest import REPOSITORY, Result, Trained, call
from specs import seal

from metaformer_ablate.records.store import Store

Ablate = Callable[..., Result]

HEAD = "# A test.\ntitle: T\nbaseline: a\n"
ROWS = HEAD + "rows:\n  a: {label: A}\n"  # row b follows, in line 6
RECIPE = "title: R\nmodel: {size: t5, stem: {kernel: 3, stride: 1, padding: 1}}\ndata: {name: digits, image_size: 16}\n"


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def names(sentence: str, *parts: str) -> None:
    for part in parts:
        assert part in sentence, sentence


# ---------------------------------------------------------------------------------------------------------------------
# The command line


@pytest.mark.parametrize("command", ["run", "show", "table", "cost"])
@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["pooling_sise"], ["experiment", "'pooling_sise'", "did you mean 'pooling_size'?", "allowed: "]),
        (["../pooling_size"], ["'../pooling_size'", "allowed: ", "pooling_size"]),
        (["pooling_size", "seeds=3"], ["unknown key 'seeds'", "did you mean the option --seeds N?"]),
        (["pooling_size", "recipe=cifar10"], ["unknown key 'recipe'", "did you mean the option --recipe NAME?"]),
        (["nowhere.yaml"], ["'nowhere.yaml'", "no such file"]),
        (["pooling_size", "--recipe", "digit"], ["recipe", "'digit'", "did you mean 'digits'?", "cifar10", "imagenet"]),
        (["pooling_size", "--recipe", "nowhere/r.yaml"], ["'nowhere/r.yaml'", "no such file"]),
        (["pooling_size", "--jsn"], ["'--jsn'", "'--json'"]),
        (["pooling_size", "--zzz"], ["'--zzz'", "allowed: ", "--recipe"]),
        (["pooling_size", "--recipe"], ["--recipe", "requires an argument"]),
        ([], ["give "]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value and "-" in value[-1] else None,
)
def test_names_and_options(ablate: Ablate, command: str, words: list[str], parts: list[str]) -> None:
    names(ablate(command, *words).sentence, *parts)


def test_an_unknown_command(ablate: Ablate) -> None:
    names(
        ablate("runn", "pooling_size").sentence, "command", "'runn'", "did you mean 'run'?", "init, list, show, explain"
    )


def test_two_experiments_where_one_is_meant(ablate: Ablate) -> None:
    for command in ("show", "table", "cost"):
        names(ablate(command, "pooling_size", "digits").sentence, "one", "pooling_size digits", "key.path=value")


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("model.pool_size", ["'model.pool_size'", "not an override", "key.path=value"]),
        ("=3", ["'=3'", "not an override"]),
        ("pool_size=3", ["'pool_size'", "model."]),
        ("model.pool_sise=3", ["'model.pool_sise'", "did you mean 'model.pool_size'?", "token_mixer"]),
        ("modell.pool_size=3", ["'modell.pool_size'", "model.", "data.", "train."]),
        ("model=3", ["model must be a mapping", "pool_size"]),
        ("model={}", ["model is an empty mapping"]),
        ("model.stem=3", ["model.stem must be a mapping", "kernel"]),
        ("model.stem.kernal=3", ["'model.stem.kernal'", "did you mean 'model.stem.kernel'?", "stride"]),
        ("model.pool_size=4", ["model.pool_size is 4", "odd integer"]),
        ("model.pool_size=-3", ["model.pool_size is -3", "odd integer of at least 1"]),
        ("model.pool_size=0", ["model.pool_size is 0", "odd integer"]),
        ("model.pool_size=3.0", ["model.pool_size is 3.0", "odd integer"]),
        ("model.pool_size=[3, 4, 5, 7]", ["model.pool_size is [3, 4, 5, 7]", "odd integer"]),
        ("model.pool_size=[3, 5, 7]", ["model.pool_size has 3 entries", "[3, 5, 7]", "4 entries"]),
        ("model.token_mixer=[pooling]", ["model.token_mixer has 1 entries", "4 entries", "one value"]),
        ("model.dims=[8, 8]", ["model.dims has 2 entries", "[8, 8]", "4 entries"]),
        ("model.dims=[8, 8, 8, 0]", ["model.dims is [8, 8, 8, 0]", "integers of at least 1"]),
        ("model.depths=[]", ["model.depths is []", "a list of integers"]),
        ("model.depths=3", ["model.depths is 3", "a list of integers"]),
        ("model.token_mixer=poling", ["model.token_mixer is 'poling'", "did you mean 'pooling'?", "identity"]),
        ("model.token_mixer=3", ["model.token_mixer is 3", "pooling", "identity"]),
        ("model.norm=bn", ["model.norm is 'bn'", "mln", "none"]),
        ("model.activation=gell", ["model.activation is 'gell'", "did you mean 'gelu'?"]),
        ("model.size=s13", ["model.size", "'s13'", "s12", "m48"]),
        ("model.name=poolformer", ["model.name", "'poolformer'", "poolformer_s12"]),
        ("data.name=cifar", ["data.name is 'cifar'", "did you mean 'cifar10'?", "digits"]),
        ("data.image_size=3", ["data.image_size is 3", "from 4"]),
        ("data.flip=1", ["data.flip is 1", "true or false"]),
        ("data.flip=alternate", ["data.flip is 'alternate'", "alternating (a set in memory)"]),
        ("data.mixup=-1", ["data.mixup is -1", "at least 0"]),
        ("train.lr=fast", ["train.lr is 'fast' (a string)", "a number above 0"]),
        ("train.lr=0", ["train.lr is 0", "a number above 0"]),
        ("train.lr=true", ["train.lr is True", "a number above 0"]),
        ("train.lr=", ["train.lr is None", "a number above 0"]),
        ("train.lr=.nan", ["train.lr is nan", "a number above 0"]),
        ("train.lr=.inf", ["train.lr is inf", "a number above 0"]),
        ("train.lr=1e999", ["train.lr is inf", "a number above 0"]),
        ("train.weight_decay=-.inf", ["train.weight_decay is -inf", "at least 0"]),
        ("train.betas=[0.9, .nan]", ["train.betas is [0.9, nan]", "two numbers"]),
        ("train.betas=[0.9]", ["train.betas is [0.9]", "two numbers"]),
        ("train.betas=[0.9, 0.99, 0.999]", ["train.betas is [0.9, 0.99, 0.999]", "two numbers"]),
        ("train.epochs=1.5", ["train.epochs is 1.5", "an integer"]),
        ("train.epochs=0", ["train.epochs is 0", "an integer of at least 1"]),
        ("train.epochs=[1, 2]", ["train.epochs is [1, 2] (a list)", "an integer"]),
        ("train.epochs={a: 1}", ["train.epochs", "integer"]),
        ("train.epoch_factor=0", ["train.epoch_factor is 0", "above 0"]),
        ("train.epoch_factor=.nan", ["train.epoch_factor is nan", "above 0"]),
        ("train.optimizer=adamwx", ["train.optimizer is 'adamwx'", "did you mean 'adamw'?"]),
        ("train.threads=0", ["train.threads is 0", "from 1 to 256"]),
        ("train.warmup_epochs=1000", ["train.warmup_epochs is 1000", "fewer warm-up epochs than epochs"]),
        ("train.batch_size=5000", ["train.batch_size is 5000", "at most 1442"]),
        ("train.lr=[1", ["train.lr", "not valid YAML"]),
        ("train.lr='", ["train.lr", "not valid YAML"]),
        ("train.lr={a: &x {b: *x}}", ["train.lr", "not valid YAML"]),
        ("train.lr=1" + "0" * 400, ["train.lr", "not valid YAML", "'1000", "of 401 digits is too large"]),
        ("train.lr=1" + "0" * 5000, ["train.lr", "not valid YAML", "of 5001 digits is too large"]),
        (f"train.epochs={2**31}", [f"train.epochs is {2**31}", f"an integer of at least 1, below {2**31}"]),
        ("train.epochs=2_0", ["train.epochs is '2_0' (a string)", "an integer"]),
        ("train.epochs=²", ["train.epochs is '²'", "an integer"]),
        ("model.pool_size=[3, null, 7, 9]", ["model.pool_size is [3, None, 7, 9]", "in stage 2", "pooling reads it"]),
        ("model.pool_size=null", ["model.pool_size is None", "odd integer"]),
        ("data.name=" + "x" * 300, ["data.name is 'xxx", "...", "digits"]),
        ("train.lr=" + "[" * 500, ["train.lr", "not valid YAML", "too deeply"]),
        ("train.lr=!!python/object/apply:os.getcwd []", ["train.lr", "not valid YAML", "python/object"]),
        ("train.lr=!!python/name:os.system", ["train.lr", "not valid YAML", "python/name"]),
        ("model.activation=", ["model.activation is None", "one of: ", "gelu"]),
        ("model.norm_eps=", ["model.norm_eps is None", "above 0"]),
        ("model.norm_bias=", ["model.norm_bias is None", "true or false"]),
        ("model.mlp_ratio=", ["model.mlp_ratio is None", "above 0"]),
        ("model.drop_path=", ["model.drop_path is None", "below 1"]),
        ("model.size=", ["model.size", "s12"]),
        ("model.name=", ["model.name", "poolformer_s12"]),
        ("data.flip=", ["data.flip is None", "true or false"]),
        ("data.crop_padding=", ["data.crop_padding is None", "at least 0"]),
        ("train.min_lr=", ["train.min_lr is None", "at least 0"]),
        ("train.warmup_lr=", ["train.warmup_lr is None", "at least 0"]),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_overrides(ablate: Ablate, word: str, parts: list[str]) -> None:
    names(ablate("show", "pooling_size", word).sentence, "command line", *parts)


@pytest.mark.parametrize(
    ("recipe", "words", "parts"),
    [
        ("digits", ["model.token_mixer=identity"], ["row 'pool5'", "model.pool_size is 5", "identity"]),
        ("digits", ["model.norm=none", "model.norm_eps=1e-3"], ["model.norm_eps is 0.001", "norm none"]),
        ("digits", ["model.residual=false", "model.layer_scale=1"], ["model.layer_scale is 1", "residual is false"]),
        ("digits", ["data.crop_scale=[0.5, 1.0]"], ["data.crop_scale is [0.5, 1.0]", "digits"]),
        ("digits", ["data.eval_crop=0.5"], ["data.eval_crop is 0.5", "digits"]),
        ("imagenet", ["data.crop_padding=4"], ["data.crop_padding is 4", "crop_scale"]),
        ("digits", ["train.warmup_epochs=0", "train.warmup_lr=0.1"], ["train.warmup_lr is 0.1", "warmup_epochs is 0"]),
        ("digits", ["train.schedule=constant", "train.min_lr=0.1"], ["train.min_lr is 0.1", "constant"]),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_overrides_that_nothing_reads(ablate: Ablate, recipe: str, words: list[str], parts: list[str]) -> None:
    sentence = ablate("show", "pooling_size", "--recipe", recipe, *words).sentence
    names(sentence, "nothing reads it", *parts)


@pytest.mark.parametrize("recipe", ["imagenet", "scenes_detection", "camvid_semantic_fpn"])
def test_an_alternating_flip_is_for_classes_of_images_in_memory(ablate: Ablate, recipe: str) -> None:
    sentence = ablate("show", "pooling_size", "--recipe", recipe, "data.flip=alternating").sentence
    names(sentence, "data.flip is 'alternating'", "allowed: true or false", "classification of a set in memory")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["train.lr=1", "train.lr=2"], ["train.lr is set twice"]),
        (["model={pool_size: 3, pool_size: 5}"], ["pool_size", "only once"]),
        (["model.stem={kernel: 3}", "model.stem.kernel=5"], ["model.stem.kernel is set twice"]),
        (["model.size=s12", "model.name=poolformer_s12"], ["model.name or model.size", "not both"]),
        (
            ["data.image_size=4", "model.stem={kernel: 4, stride: 4, padding: 0}", "model.downsample.padding=0"],
            ["image"],
        ),
    ],
    ids=lambda value: value[-1],
)
def test_overrides_that_contradict_each_other(ablate: Ablate, words: list[str], parts: list[str]) -> None:
    names(ablate("show", "pooling_size", *words).sentence, "command line", *parts)


def test_an_override_that_makes_two_rows_the_same(ablate: Ablate) -> None:
    sentence = ablate("show", "pooling_size", "model.pool_size=11").sentence
    names(sentence, "pooling_size.yaml", "'pool3' and 'pool5'", "same run", "model.pool_size=11")


@pytest.mark.parametrize(
    ("seeds", "part"),
    [
        ("0,1,0", "seed 0 is repeated"),
        ("3,3", "seed 3 is repeated"),
        ("-1", "'-1'"),
        ("0,-1", "'0,-1'"),
        ("0", "'0'"),
        ("two", "'two'"),
        ("1.5", "'1.5'"),
        ("", "''"),
        (",", "','"),
        ("0,,1", "'0,,1'"),
        ("0,x", "'0,x'"),
        ("1_0", "'1_0'"),
        ("٣", "'٣'"),
        ("9" * 5000, "'999"),
        (f"{2**31},", f"'{2**31},'"),
        ("99999999999", "'99999999999'"),
    ],
)
def test_seeds(ablate: Ablate, seeds: str, part: str) -> None:
    for command in (["run", "--dry-run"], ["show"], ["table"]):
        names(
            ablate(*command, "pooling_size", "--seeds", seeds).sentence, "--seeds", part, "allowed: a number of seeds"
        )


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["run", "pooling_size", "--max-hours", "0"], ["--max-hours is 0", "above 0"]),
        (["run", "pooling_size", "--max-hours", "nan"], ["--max-hours is 'nan'", "a number"]),
        (["run", "pooling_size", "--max-hours", "1_0"], ["--max-hours is '1_0'", "a number"]),
        (["run", "pooling_size", "--workers", "²"], ["--workers is '²'", "an integer"]),
        (["run", "pooling_size", "--workers", "1_0"], ["--workers is '1_0'", "an integer"]),
        (["run", "pooling_size", "--checkpoint-seconds", "1_0"], ["--checkpoint-seconds is '1_0'", "a number"]),
        (["cost", "pooling_size", "--batch", "٨"], ["--batch is '٨'", "an integer"]),
        (["table", "pooling_size", "--digits", "1_0"], ["--digits is '1_0'", "an integer"]),
        (["show", "x" * 300], ["unknown experiment 'xxx", "allowed: "]),
        (["show", "x" * 300 + ".yaml"], ["xxx", "file name too long"]),
        (["show", "pooling_size", "--results", "x" * 300], ["--results is 'xxx", "File name too long"]),
        (["show", "pooling_size", "model.init_from=" + "x" * 300], ["init_from", "File name too long"]),
        (["show", "pooling_size", "model.init_from=loop"], ["init_from", "'loop'", "symbolic links"]),
        (["show", "pooling_size", "--results", "loop"], ["--results is 'loop'", "symbolic links"]),
        (["show", "loop.yaml"], ["'loop.yaml'", "symbolic links"]),
        (["run", "pooling_size", "--max-hours", "soon"], ["--max-hours", "'soon'"]),
        (["run", "pooling_size", "--device", "tpu"], ["--device is 'tpu'", "auto, cpu, cuda"]),
        (["run", "pooling_size", "--device", "cuda:99"], ["--device is 'cuda:99'", "CUDA devices"]),
        (["table", "pooling_size", "--format", "pdf"], ["--format", "'pdf'", "text, markdown, csv"]),
        (["table", "pooling_size", "--out", "file/table.csv"], ["--out file/table.csv", "cannot be written"]),
        (
            ["cost", "poolformer_s13"],
            ["'poolformer_s13'", "did you mean 'poolformer_", "poolformer_s12, ", "pooling_size"],
        ),
        (["cost", "pooling_size", "--batch", "0"], ["--batch is 0", "at least 1"]),
        (
            ["run", "pooling_size", "--recipe", "imagenet"],
            ["imagenet is not in", "not downloaded", "--data", "{train,val}"],
        ),
    ],
    ids=lambda value: " ".join(value) if value[0] in ("run", "table", "cost") else "",
)
def test_values_of_options(ablate: Ablate, tmp_path: Path, arguments: list[str], parts: list[str]) -> None:
    write(tmp_path / "file", "")
    for name in ("loop", "loop.yaml"):
        (tmp_path / name).symlink_to(name)
    sentence = ablate(*arguments).sentence
    names(sentence, *parts)
    assert len(sentence) <= 600


# ---------------------------------------------------------------------------------------------------------------------
# Experiments and recipes


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["is empty"]),
        ("# Only a comment.\n", ["is empty"]),
        ("- a\n- b\n", ["mapping", "found a list"]),
        ("hello\n", ["mapping", "found a string"]),
        (b"\xff\xfe", ["not UTF-8"]),
        (ROWS + "  b: {label: B\nx: 3\n", [":7: ", "not valid YAML"]),
        ("title: T\n\tbaseline: a\n", [":2: ", "not valid YAML"]),
        ("a: 1\n---\nb: 2\n", [":2: ", "not valid YAML"]),
        ("title: 'T\n", [":2: ", "not valid YAML"]),
        ("title: &z T\nbaseline: &z a\nrows: {a: {}}\n", [":2: ", "anchor 'z' is there twice"]),
        (ROWS + "  b: {set: {train.epochs: !!int ''}}\n", [":6: ", "'' is not of the type !!int"]),
        (ROWS + "  b: {set: {train.lr: !!float ''}}\n", [":6: ", "'' is not of the type !!float"]),
        (ROWS + "  b: {set: {train.compile: !!bool maybe}}\n", [":6: ", "'maybe' is not of the type !!bool"]),
        (ROWS + "  b: {set: {[[a]]: 1}}\n", [":6: ", "a key is a list or a mapping"]),
        (ROWS + '  b: {set: {model.timm: "\\ud800"}}\n', [":6: ", "half a surrogate pair"]),
        (ROWS + '  b: {set: {model.init_from: "\\0"}}\n', [":6: ", "NUL"]),
        (ROWS + '  "b\\nc": {sett: 1}\n', [":6: ", "'rows.b\\nc.sett'"]),
        (ROWS + '  b: {"\\e[31m": 1}\n', [":6: ", "'rows.b.\\x1b[31m'"]),
        (ROWS + "  b: {set: {train.epochs: 2_0}}\n", [":6: ", "train.epochs is '2_0'", "an integer"]),
        (ROWS + "  <<: {b: {}}\n", [":6: ", "'rows.<<.b'"]),
        ("%YAML 1.1\n---\n" + ROWS, [":2: ", "%YAML", "allowed: 1.2"]),
        ("%TAG ! tag:x,2000:\n---\ntitle: !y T\n", [":3: ", "'tag:x,2000:y' is not allowed"]),
        ("x" * (2**18 + 1), ["larger than 262144 bytes"]),
        (HEAD + "baseline: a\nrows: {a: {}}\n", [":4: ", '"baseline"', "only once"]),
        (ROWS + "  a: {label: B}\n", [":6: ", '"a"', "only once"]),
        (ROWS + "  b:\n    set:\n      model.pool_size: 5\n      model.pool_size: 7\n", [":9: ", '"model.pool_size"']),
        (ROWS + "  b: {set: {model.pool_size: 5, model: {pool_size: 7}}}\n", [":6: ", "model.pool_size is set twice"]),
        (ROWS + "  b: {set: {model.pool_size: !!python/name:os.system }}\n", [":6: ", "python/name"]),
        (ROWS + "  b: {set: &x {model: *x}}\n", ["not valid YAML"]),
        ("title: T\nrows: {a: {}}\n", ["'baseline' is missing"]),
        ("title: T\nbaseline: a\n", ["'rows' is missing"]),
        ("title: T\nbaseline: b\nrows: {a: {}}\n", [":2: ", "baseline", "unknown row 'b'", "allowed: a"]),
        ("title: T\nbaseline: [a]\nrows: {a: {}}\n", [":2: ", "baseline", "allowed: a"]),
        ("title: T\nbaseline: a\nrows: [a]\n", [":3: ", "rows", "mapping", "found a list"]),
        ("title: T\nbaseline: a\nrows:\n", [":3: ", "rows", "mapping", "found nothing"]),
        ("title: T\nbaseline: a\nrows:\n  a: {}\n  5: {}\n", ["5", "not a string"]),
        ("titel: T\nbaseline: a\nrows: {a: {}}\n", [":1: ", "'titel'", "did you mean 'title'?", "baseline"]),
        ("title: 3\nbaseline: a\nrows: {a: {}}\n", [":1: ", "title is 3", "text"]),
        (ROWS + "  b: {sett: {model.pool_size: 5}}\n", [":6: ", "'rows.b.sett'", "did you mean 'set'?", "label"]),
        (ROWS + "  b: [1]\n", [":6: ", "rows.b must be a mapping", "found a list"]),
        (ROWS + "  b: {label: 5}\n", [":6: ", "rows.b.label is 5", "text"]),
        (ROWS + "  b: {notes: 5}\n", [":6: ", "rows.b.notes", "text"]),
        (ROWS + "  b: {set: [model.pool_size]}\n", [":6: ", "rows.b.set", "mapping", "found a list"]),
        (ROWS + "  b: {set: {model: {1: 2}}}\n", [":6: ", "key 1", "not a string"]),
        (ROWS + "  b: {set: {model.pool_sise: 5}}\n", [":6: ", "did you mean 'model.pool_size'?", "token_mixer"]),
        (ROWS + "  b:\n    set:\n      model:\n        pool_sise: 5\n", [":9: ", "did you mean 'model.pool_size'?"]),
        (ROWS + "  b: {set: {model.pool_size: 4}}\n", [":6: ", "row 'b'", "model.pool_size is 4", "odd"]),
        (ROWS + "  b: {set: {model.pool_size: three}}\n", [":6: ", "model.pool_size is 'three'", "odd"]),
        (ROWS + "  b: {set: {model.pool_size: [3, 5, 7]}}\n", [":6: ", "row 'b'", "has 3 entries", "4 entries"]),
        (ROWS + "  b: {set: {model.token_mixer: poling}}\n", [":6: ", "'poling'", "did you mean 'pooling'?"]),
        (ROWS + "  b: {set: {train.lr: .nan}}\n", [":6: ", "train.lr is nan", "above 0"]),
        (ROWS + "  b: {set: {train.lr: .inf}}\n", [":6: ", "train.lr is inf", "above 0"]),
        (ROWS + "  b: {set: {train.lr: 2024-01-01}}\n", [":6: ", "train.lr", "above 0"]),
        (ROWS + "  b: {set: {model.size: s99}}\n", [":6: ", "model.size", "'s99'", "s12"]),
        (ROWS + "  b: {set: {model.size: s12, model.name: poolformer_s12}}\n", [":6: ", "not both"]),
        (ROWS + "  b: {set: {model.size: null}}\n", [":6: ", "model.size", "s12"]),
        (
            ROWS + "  b: {set: {model.token_mixer: identity, model.pool_size: 5}}\n",
            [":6: ", "row 'b'", "model.pool_size is 5", "nothing reads it", "identity"],
        ),
        (
            ROWS + "  b: {set: {data.crop_scale: [0.5, 1.0]}}\n",
            [":6: ", "row 'b'", "data.crop_scale is [0.5, 1.0]", "nothing reads it", "digits"],
        ),
        (ROWS + "  b: {paper: {top: 5}}\n", [":6: ", "'rows.b.paper.top'", "did you mean 'top1'?", "params_m"]),
        (ROWS + "  b: {paper: {top1: high}}\n", [":6: ", "rows.b.paper.top1 is 'high'", "a number"]),
        (ROWS + "  b: {paper: {top1: .nan}, set: {model.pool_size: 5}}\n", [":6: ", "rows.b.paper.top1", "a number"]),
        (
            ROWS + "  b: {paper: {imagenat: {top1: 5}}}\n",
            [":6: ", "'rows.b.paper.imagenat'", "did you mean 'imagenet'?"],
        ),
        (ROWS + "  b: {paper: {imagenet: {top: 5}}}\n", [":6: ", "'rows.b.paper.imagenet.top'", "'top1'"]),
        (ROWS + "  b: {paper: {imagenet: {top1: high}}}\n", [":6: ", "rows.b.paper.imagenet.top1 is 'high'"]),
        (ROWS + "  b: {paper: {top1: {top1: 5}}}\n", [":6: ", "rows.b.paper.top1", "a number"]),
        (ROWS + "  b: {}\n", ["'a' and 'b'", "same run"]),
        (ROWS + "  b: {set: {model.pool_size: 3}}\n", ["'a' and 'b'", "same run"]),
        (ROWS + "  b: {set: {train.lr: 1}}\n  c: {set: {train.lr: 1.0}}\n", ["'b' and 'c'", "same run"]),
        (ROWS + "set: {train.epoch: 3}\n", [":6: ", "'train.epoch'", "did you mean 'train.epochs'?"]),
        (ROWS + "set: {train.epochs: ten}\n", [":6: ", "train.epochs is 'ten'", "an integer"]),
        (ROWS + "set: {pool_size: 3}\n", [":6: ", "'pool_size'", "model."]),
    ],
)
def test_experiments(ablate: Ablate, tmp_path: Path, text: str | bytes, parts: list[str]) -> None:
    write(tmp_path / "experiments/e.yaml", text)
    for command in ("show", "run"):
        sentence = ablate(command, "e").sentence
        names(sentence, *parts)
        assert sentence.startswith("experiments/e.yaml"), sentence


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["is empty"]),
        ("- train\n", ["found a list"]),
        (RECIPE + "train: {epochs: 3\nx: 1", [":5: ", "not valid YAML"]),
        (RECIPE + "train: {epochs: 3}\ntrain: {epochs: 4}\n", [":5: ", '"train"', "only once"]),
        (RECIPE + "train:\n  epochs: 3\n  epochs: 4\n", [":6: ", '"epochs"', "only once"]),
        (RECIPE + "trane: {epochs: 3}\n", [":4: ", "'trane'", "did you mean 'train'?", "model"]),
        (RECIPE + "train: {epoch: 3}\n", [":4: ", "'train.epoch'", "did you mean 'train.epochs'?", "batch_size"]),
        (RECIPE + "train:\n  epochs: 3\n  lrr: 1\n", [":6: ", "'train.lrr'", "did you mean 'train.lr'?"]),
        (RECIPE + "train: 3\n", [":4: ", "train must be a mapping"]),
        (RECIPE + "train: {}\n", [":4: ", "train", "empty"]),
        (RECIPE + "train: {lr: .inf}\n", [":4: ", "train.lr is inf", "above 0"]),
        (RECIPE + "train: {epochs: many}\n", [":4: ", "train.epochs is 'many'", "an integer"]),
        (RECIPE + "train: {lr: !!python/object/apply:os.getcwd []}\n", [":4: ", "python/object"]),
        ("title: R\ntrain: {epochs: 3}\n", ["data.name is not set", "digits"]),
        ("title: R\ndata: {name: digits}\n", ["data.image_size is not set", "integer"]),
    ],
)
def test_recipes(ablate: Ablate, tmp_path: Path, text: str, parts: list[str]) -> None:
    write(tmp_path / "experiments/recipes/r.yaml", text)
    sentence = ablate("show", "pooling_size", "--recipe", "r").sentence
    names(sentence, *parts)
    assert sentence.startswith("experiments/recipes/r.yaml"), sentence


def test_list_survives_files_that_cannot_be_read(ablate: Ablate, tmp_path: Path) -> None:
    write(tmp_path / "experiments/broken.yaml", "title: [\n")
    write(tmp_path / "experiments/bytes.yaml", b"\xff\xfe")
    listed = ablate("list", "--json")
    assert listed.code == 0
    assert {"broken", "bytes", "pooling_size"} <= listed.json["experiments"].keys()


@pytest.mark.parametrize("what", ["fifo", "device", "folder", "loop", "bomb", "large"])
def test_only_regular_files_of_bounded_size_are_read(what: str, ablate_process: Ablate, tmp_path: Path) -> None:
    """A FIFO without a writer and /dev/zero never end; nine aliases of nine aliases, ten times, fill any memory."""
    odd = tmp_path / "odd.yaml"
    if what == "fifo":
        os.mkfifo(odd)
    elif what == "device":
        odd.symlink_to("/dev/zero")
    elif what == "folder":
        odd.mkdir()
    elif what == "loop":
        odd.symlink_to(odd)
    elif what == "large":
        odd.write_bytes(b"#" * 2**24)
    else:
        bomb = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)]
        odd.write_text("a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(bomb))
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32))\n"
        "from conftest import call\n"
        "from pathlib import Path\n"
        "for words in (['show', 'odd.yaml'], ['show', 'pooling_size', '--recipe', 'odd.yaml'], ['list'],\n"
        "        ['trial', 'pooling_size', '--config-json', 'odd.yaml'],\n"
        "        ['show', 'pooling_size', 'model.init_from=odd.yaml', 'model.name=none']):\n"
        "    print(words, call(*words, cwd=Path('.'), env={'ABLATE_PARTS': None}).code)\n"
        "print('parts', call('show', 'pooling_size', cwd=Path('.'), env={'ABLATE_PARTS': 'odd.yaml'}).sentence)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY / "tests")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 6, done.stderr
    assert [line[-1] for line in lines[:5]] == ["2", "2", "0", "2", "2"], lines
    assert "odd.yaml" in lines[5], lines


def test_python_tags_call_nothing(ablate: Ablate, tmp_path: Path) -> None:
    tag = f"!!python/object/apply:os.mkdir [{tmp_path / 'made'}]"
    write(tmp_path / "experiments/e.yaml", ROWS + f"  b: {{set: {{train.lr: {tag} }}}}\n")
    assert ablate("show", "e").code == ablate("show", "pooling_size", f"train.lr={tag}").code == 2
    assert not (tmp_path / "made").exists()


# ---------------------------------------------------------------------------------------------------------------------
# Folders


@pytest.mark.parametrize("results", ["file", "file/results"])
def test_results_that_cannot_be_written(ablate: Ablate, tmp_path: Path, results: str) -> None:
    write(tmp_path / "file", "")
    names(ablate("run", "pooling_size", "--results", results).sentence, results)
    names(ablate("run", "pooling_size", env={"ABLATE_RESULTS": results}).sentence, results)


def test_results_without_permission(ablate: Ablate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, *args: object, **kwargs: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_text", refuse)
    sentence = ablate("run", "pooling_size", "--results", "closed").sentence
    names(sentence, "--results closed", "cannot be written", "Permission denied")


@pytest.mark.parametrize("data", ["nowhere", "file"])
def test_data_that_is_no_folder(ablate: Ablate, tmp_path: Path, data: str) -> None:
    write(tmp_path / "file", "")
    for command in ("run", "show", "table"):
        sentence = ablate(command, "pooling_size", "--recipe", "cifar10", "--data", data).sentence
        names(sentence, "--data", f"'{data}'", "not a folder")
    names(ablate("run", "pooling_size", env={"ABLATE_DATA": data}).sentence, "ABLATE_DATA", f"'{data}'")


@pytest.mark.parametrize(
    ("recipe", "there", "missing", "command"),
    [
        ("cifar10", [], ["cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/test_batch"], "CIFAR10"),
        ("cifar10", ["cifar-10-batches-py/data_batch_1"], ["cifar-10-batches-py/data_batch_2"], "CIFAR10"),
        ("cifar100", [], ["cifar-100-python/train", "cifar-100-python/meta"], "CIFAR100"),
        ("fashion_mnist", [], ["FashionMNIST/raw/train-images-idx3-ubyte"], "FashionMNIST"),
    ],
)
def test_data_without_its_files(
    ablate: Ablate, tmp_path: Path, recipe: str, there: list[str], missing: list[str], command: str
) -> None:
    (tmp_path / "data").mkdir()
    for name in there:
        write(tmp_path / "data" / name, "")
    for how in ({"env": {"ABLATE_DATA": "data"}}, {}):
        option = [] if how else ["--data", "data"]
        sentence = ablate("run", "pooling_size", "--recipe", recipe, *option, **how).sentence
        names(sentence, recipe, *missing, "python -c", f"import {command} as D", "D('data', download=True)")
        for name in there:
            assert name not in sentence, "it is there"
    left = [str(path.relative_to(tmp_path / "data")) for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert left == there, "a folder that the user named is only read"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing listens at port 9 of this machine; a cache of its own, in which no data lies."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield


@pytest.mark.parametrize("recipe", ["fashion_mnist", "cifar10", "cifar100"])
def test_a_download_without_a_network(ablate: Ablate, tmp_path: Path, no_network: None, recipe: str) -> None:
    sentence = ablate("run", "pooling_size", "--recipe", recipe).sentence
    cache = str(tmp_path / "cache/metaformer_ablate/data")
    names(sentence, recipe, cache, "cannot be downloaded", "python -c", "--data")


def test_a_download_that_breaks_off(
    ablate: Ablate, tmp_path: Path, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(*args: object, **kwargs: object) -> None:
        raise URLError("[Errno -2] Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", break_off)
    sentence = ablate("run", "pooling_size", "--recipe", "cifar10").sentence
    names(sentence, "cifar10", "cannot be downloaded", "Name or service not known")


def test_show_and_cost_need_no_data(ablate: Ablate) -> None:
    words = ["model.depths=[1, 1, 1, 1]", "model.dims=[2, 2, 2, 2]"]
    for recipe in ("cifar10", "imagenet"):
        assert ablate("show", "pooling_size", "--recipe", recipe, *words).code == 0
        assert ablate("cost", "pooling_size", "--recipe", recipe, "--no-speed", *words).code == 0


# ---------------------------------------------------------------------------------------------------------------------
# Records that are none


@pytest.fixture
def copy(trained: Trained, tmp_path: Path) -> Path:
    """A results folder that a test may break."""
    shutil.copytree(trained.results, tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture(scope="session")
def before(trained: Trained) -> dict[str, Any]:
    """The table of the whole folder."""
    table = call("table", "pooling_size", *trained.words, "--json", "--results", trained.results, cwd=trained.results)
    assert table.err == ""
    return table.json


def edit_record(folder: Path, **changes: object) -> None:
    path = folder / "record.json"
    data = json.loads(path.read_text())
    data.update(changes)
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}))


def edit_top1(folder: Path, top1: object, keep_sums: bool = True) -> None:
    metrics = json.loads((folder / "record.json").read_text())["metrics"]
    sums = {} if keep_sums else {"checksums": ...}
    edit_record(folder, metrics={**metrics, "top1": top1}, **sums)


def swap(folder: Path) -> None:
    """Puts the files of another run into a run's folder."""
    other = next(path for path in sorted(folder.parent.iterdir()) if path != folder)
    shutil.rmtree(folder)
    shutil.copytree(other, folder)


BROKEN: dict[str, Callable[[Path], object]] = {
    "no record.json": lambda folder: (folder / "record.json").unlink(),
    "no predictions": lambda folder: (folder / "predictions.npz").unlink(),
    "no history": lambda folder: (folder / "history.csv").unlink(),
    "no spec": lambda folder: (folder / "spec.yaml").unlink(),
    "an empty record": lambda folder: (folder / "record.json").write_text(""),
    "half a record": lambda folder: (folder / "record.json").write_text((folder / "record.json").read_text()[:200]),
    "not a mapping": lambda folder: (folder / "record.json").write_text("[]"),
    "an empty mapping": lambda folder: (folder / "record.json").write_text("{}"),
    "bytes": lambda folder: (folder / "record.json").write_bytes(b"\xff\x00"),
    "another accuracy": lambda folder: edit_top1(folder, 99.9),
    "no number": lambda folder: edit_top1(folder, float("nan")),
    "no number, no checksums": lambda folder: edit_top1(folder, float("nan"), keep_sums=False),
    "text, no checksums": lambda folder: edit_top1(folder, "99", keep_sums=False),
    "over 100, no checksums": lambda folder: edit_top1(folder, 990, keep_sums=False),
    "no metrics, no checksums": lambda folder: edit_record(folder, metrics=[1], checksums=...),
    "seconds that are no number": lambda folder: edit_record(folder, seconds=float("nan")),
    "odd checksums": lambda folder: edit_record(folder, checksums=3),
    "another status": lambda folder: edit_record(folder, status="diverged"),
    "an unknown status": lambda folder: edit_record(folder, status="done"),
    "another format": lambda folder: edit_record(folder, format=2),
    "a key less": lambda folder: edit_record(folder, macs=...),
    "a key more": lambda folder: edit_record(folder, comment="mine"),
    "another spec": lambda folder: (folder / "spec.yaml").write_text(
        (folder / "spec.yaml").read_text().replace("lr: 0.02", "lr: 0.01")
    ),
    "other predictions": lambda folder: (folder / "predictions.npz").write_bytes(b"changed"),
    "another history": lambda folder: (folder / "history.csv").write_text("epoch\n1\n"),
    "of another run": swap,
    "of another run, renamed": lambda folder: (swap(folder), edit_record(folder, run_id=folder.name)),
    "of another run, renamed, no checksums": lambda folder: (
        swap(folder),
        edit_record(folder, run_id=folder.name, checksums=...),
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_record_is_never_a_result(
    ablate: Ablate, trained: Trained, before: dict[str, Any], copy: Path, how: str
) -> None:
    words = ["pooling_size", *trained.words, "--json", "--results", copy]
    broken, other = before["rows"][1]["runs"]
    assert (broken["status"], broken["seed"]) == ("ok", 0)
    folder = copy / "runs" / broken["run_id"]
    BROKEN[how](folder)

    shown = ablate("show", *words)
    assert shown.code == 0
    statuses = {run["run_id"]: run["status"] for row in shown.json["rows"] for run in row["runs"]}
    assert statuses.pop(broken["run_id"]) == "missing"
    assert set(statuses.values()) == {"ok"}
    assert shown.json["to_run"] == 1
    names(shown.err, str(folder), "not counted")

    now = ablate("table", *words)
    row = now.json["rows"][1]
    assert (row["status"], row["n"], row["mean"]) == ("partial", 1, other["top1"])
    assert row["runs"][0] == {
        "run_id": broken["run_id"],
        "seed": 0,
        "status": "missing",
        "top1": None,
        "value": None,
        "metrics": None,
    }
    names(now.err, str(folder), "not counted")
    assert any(str(folder) in warning for warning in now.json["warnings"])


def test_a_broken_record_is_moved_aside_and_trained_again(
    ablate: Ablate, trained: Trained, before: dict[str, Any], copy: Path
) -> None:
    folder = copy / "runs" / before["rows"][2]["runs"][0]["run_id"]
    edit_top1(folder, 99.9)
    done = ablate("run", "pooling_size", *trained.words, "--seeds", "2", "--json", "--results", copy)
    assert done.code == 0
    names(done.err, str(folder), "8 runs, 7 have a record, 1 to train")
    assert done.json["tables"] == [before], "the same run gives the same record"
    aside = [path.name for path in (copy / "aside").iterdir()]
    assert aside == [f"{folder.name}-1"], "nothing is destroyed"


def test_other_things_in_the_folder_are_left_alone(ablate: Ablate, trained: Trained, copy: Path) -> None:
    write(copy / "runs/notes.txt", "mine")
    (copy / "runs/.0123456789ab.17").mkdir()
    (copy / "runs/0123456789ab").mkdir()
    shown = ablate("show", "pooling_size", *trained.words, "--json", "--results", copy)
    assert shown.err == ""
    assert shown.json["to_run"] == 0


def test_a_record_of_other_data_is_stale(ablate: Ablate, trained: Trained, before: dict[str, Any], copy: Path) -> None:
    """Shown, not counted, and trained again."""
    words = ["pooling_size", *trained.words, "--seeds", "2", "--results", copy, "--json"]
    run = before["rows"][1]["runs"][1]
    seal(copy / "runs" / run["run_id"], data_fingerprint="0" * 16)
    shown = ablate("show", *words).json
    assert [run["status"] for run in shown["rows"][1]["runs"]] == ["ok", "stale"]
    assert shown["to_run"] == 1
    table = ablate("table", *words).json
    assert (table["rows"][1]["n"], table["rows"][1]["status"]) == (1, "partial")
    assert any("stale" in warning for warning in table["warnings"])
    done = ablate("run", *words)
    assert "8 runs, 7 have a record, 1 to train" in done.err
    assert done.json["tables"] == [before]


def test_nothing_half_written_stays_when_the_disk_is_full(
    ablate: Ablate, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1: the request was right. What was finished before is kept, and the message says what is wrong."""
    written = 0

    def fail_at_the_second(file: int) -> None:
        nonlocal written
        written += 1
        if written == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail_at_the_second)
    done = ablate("run", "pooling_size", *trained.words)
    assert done.code == 1
    assert done.out == ""
    names(done.err.splitlines()[-1], "error: ", "results: ", "the disk is full", "kept")
    assert len(list((tmp_path / "results/runs").iterdir())) == 1
    assert len(list(Store(tmp_path / "results"))) == 1


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["imagenet_models", "model.size=t5"], ["row 'resnet18'", "model.size is 't5'", "the model is resnet18"]),
        (
            ["training_length", "model.timm=resnet18", "model.comparator=pvt_tiny"],
            ["model.timm is 'resnet18' and model.comparator is 'pvt_tiny'", "allowed: one of them"],
        ),
    ],
)
def test_a_comparator_has_no_size_and_no_second_one(ablate: Ablate, words: list[str], parts: list[str]) -> None:
    names(ablate("show", *words, "--recipe", "imagenet").sentence, *parts)
