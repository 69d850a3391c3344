"""Requests of any text end in what they ask for or in one RequestError, and never in another exception.

200 cases each; 10,000 with `-m fuzz`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metaformer_ablate.errors import RequestError, one_line
from metaformer_ablate.models.weights import read_weights
from metaformer_ablate.settings.yaml_reader import DEEPEST, MOST_VALUES, YamlFile, parse
from metaformer_ablate.spec.experiment import load_recipe
from metaformer_ablate.spec.known import LEAVES, SHORTHANDS
from metaformer_ablate.spec.plan import parse_seeds, plan
from metaformer_ablate.spec.resolve import resolve
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.spec.words import as_words, override_layer, read_value
from metaformer_ablate.tracking.sweep_file import read_axes
from metaformer_ablate.tracking.trial import plan_of, read_trial, split_trial

# Texts in which readers of YAML and of numbers have been wrong, here or elsewhere.
ODD = [
    *("", "null", "~", "None", "true", "True", "no", "off", "-0", "010", "0o17", "0x1F", "0b1", "1_0", "2_0", "²", "٣"),
    *(
        "1e3",
        "3.0",
        "32.0",
        ".5",
        "1.",
        "1e999",
        "-1e999",
        ".inf",
        "-.inf",
        ".nan",
        "9" * 5000,
        "1" + "0" * 400,
        "1:30",
    ),
    *("2024-01-01", "a: b.pth", "a #b", "[", "]", "{", "}", "[[[[", "{[a]: 1}", "[a]: 1", "? a", "- a", "&a x", "*a"),
    *("&a [*a]", "&a x &a y", "!!int ''", "!!float ''", "!!bool maybe", "!!set {a}", "!x y", "!<", "%YAML 1.1", "%"),
    *(
        '"\\ud800"',
        '"\\0"',
        '"\\x1b[31m"',
        '"',
        "'",
        "\\",
        "\0",
        "\x1b",
        "\ud800",
        "\u202e",
        "a\nb",
        "---",
        "...",
        "|",
        ">",
    ),
    *("3", "5", "0.1", "pooling", "identity", "[3, null, 7, 9]", "[3, 5, 7, 9]", "(1, 2)", "{1, 2}", "b'x'", "{1: 2}"),
    *("pool_size", "poolformer_s12", "s12", "x" * 300, "/dev/null", "<<", "__class__", "{}", "[]", "{kernel: 5}"),
]
TEXT = st.one_of(st.sampled_from(ODD), st.text(max_size=20), st.lists(st.sampled_from(ODD), max_size=4).map(" ".join))
KEYS = st.one_of(
    st.sampled_from(
        [*LEAVES, *SHORTHANDS, "model", "model.stem", "data", "train", "row", "seed", "recipe", "_wandb.x"]
    ),
    TEXT,
)
WORDS = st.tuples(KEYS, TEXT).map("=".join)
DOCUMENT = """title: T
baseline: a
set: {train.epochs: 2}
rows:
  a: {label: A}
  b: {label: B, set: {model.pool_size: 5}, paper: {top1: 77.2}}
"""

Fuzz = Callable[[Callable[..., None]], None]


@pytest.fixture(params=[200, pytest.param(10_000, marks=(pytest.mark.slow, pytest.mark.fuzz))])
def fuzz(request: pytest.FixtureRequest) -> Fuzz:
    """Runs a property with the number of cases that is asked for."""

    def run(check: Callable[..., None]) -> None:
        settings(
            max_examples=request.param,
            deadline=None,
            derandomize=request.param == 200,  # the same cases for everybody
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )(check)()

    return run


def refused(error: RequestError) -> None:
    """A refusal is one line of bounded length that a terminal can show."""
    line = one_line(str(error))
    assert line.isprintable() and 0 < len(line) <= 600


def test_any_text_is_yaml_or_refused(fuzz: Fuzz) -> None:
    @given(st.lists(st.one_of(TEXT, st.sampled_from(["\n", "  ", ": ", ", ", "\n- "])), max_size=12).map("".join))
    def check(text: str) -> None:
        try:
            value = parse(text, "x.yaml")
        except RequestError as error:
            refused(error)
        else:
            written = json.dumps(value, skipkeys=True)
            assert "\\u0000" not in written
            written.encode()
            assert values_of(value) <= MOST_VALUES

    fuzz(check)


def values_of(value: Any, depth: int = 0) -> int:
    assert depth <= DEEPEST + 1
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(values_of(entry, depth + 1) for entry in inside)


def test_any_change_of_an_experiment_is_one_or_is_refused(fuzz: Fuzz, tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"

    @given(st.integers(0, len(DOCUMENT)), st.integers(0, 12), TEXT)
    def check(at: int, cut: int, text: str) -> None:
        changed = DOCUMENT[:at] + text + DOCUMENT[at + cut :]
        path.write_bytes(changed.encode(errors="surrogatepass"))
        from conftest import forget_files

        forget_files()
        try:
            assert all(isinstance(spec, RunSpec) for spec in plan(str(path)).specs.values())
        except RequestError as error:
            refused(error)
            assert "e.yaml" in str(error)

    fuzz(check)


def test_any_override_is_a_spec_or_is_refused(fuzz: Fuzz) -> None:
    layers = [load_recipe("digits").layer]

    @given(st.lists(WORDS, max_size=3))
    def check(words: list[str]) -> None:
        try:
            layer = override_layer(words)
            again = resolve([*layers, override_layer(as_words(layer.values))])
            spec = resolve([*layers, layer])
        except RequestError as error:
            refused(error)
        else:
            assert again.run_id == spec.run_id and len(spec.run_id) == 12

    fuzz(check)


def test_a_text_setting_is_its_text(fuzz: Fuzz) -> None:
    @given(TEXT)
    def check(text: str) -> None:
        try:
            value = read_value("model.init_from", text)
        except RequestError as error:
            refused(error)
        else:
            quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
            assert quoted or value == (None if text in ("", "null") else text)
            word = as_words({"model.init_from": value})[0]
            assert read_value("model.init_from", word.partition("=")[2]) == value

    fuzz(check)


def test_any_words_of_a_trial_are_all_read_or_refused(fuzz: Fuzz) -> None:
    word = st.one_of(WORDS, WORDS.map("--{}".format), KEYS.map("--{}".format), TEXT)

    @given(st.lists(word, max_size=4))
    def check(words: list[str]) -> None:
        names, given_words = split_trial(words)
        assert len(names) + len(given_words) <= len(words)
        try:
            trial = read_trial(given_words, None, None)
            plan_of("pooling_size", trial)
        except RequestError as error:
            refused(error)
        else:
            told = {word.partition("=")[0] for word in given_words}
            assert {key for key in told if not key.startswith("_wandb")} <= {
                *trial.where,
                *(path.rpartition(".")[0] for path in trial.where),
            }

    fuzz(check)


def test_any_config_of_a_trial_is_read_or_refused(fuzz: Fuzz, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=6,
    )

    @given(st.dictionaries(KEYS, values, max_size=4))
    def check(tree: dict[str, Any]) -> None:
        path.write_text(json.dumps(tree))
        try:
            plan_of("pooling_size", read_trial([], path, None))
        except RequestError as error:
            refused(error)

    fuzz(check)


def test_any_seeds_and_axes_are_read_or_refused(fuzz: Fuzz) -> None:
    @given(TEXT, WORDS)
    def check(seeds: str, axis: str) -> None:
        try:
            assert all(0 <= seed < 2**31 for seed in parse_seeds(seeds))
        except RequestError as error:
            refused(error)
        try:
            assert all(isinstance(values, list) for values in read_axes([axis]).values())
        except RequestError as error:
            refused(error)

    fuzz(check)


def test_any_bytes_are_a_file_of_settings_or_are_refused(fuzz: Fuzz, tmp_path: Path) -> None:
    path = tmp_path / "b.yaml"

    @given(st.binary(max_size=200))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            assert isinstance(YamlFile(path).data, dict)
        except RequestError as error:
            refused(error)

    fuzz(check)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_any_damage_of_weights_is_refused_or_harmless(fuzz: Fuzz, tmp_path: Path, name: str) -> None:
    from safetensors.torch import save_file

    path, weights = tmp_path / name, {"stem.conv.weight": torch.ones(2, 3), "head.fc.bias": torch.zeros(4)}
    save_file(weights, path) if name == "w.safetensors" else torch.save(weights, path)
    whole = path.read_bytes()

    @given(st.integers(0, len(whole)), st.integers(0, 40), st.binary(max_size=40))
    def check(at: int, cut: int, inserted: bytes) -> None:
        path.write_bytes(whole[:at] + inserted + whole[at + cut :])
        try:
            found = read_weights(path)
        except RequestError as error:
            refused(error)
        else:
            assert all(torch.isfinite(value.float()).all() for value in found.values())

    fuzz(check)
