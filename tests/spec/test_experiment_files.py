"""Every YAML that comes with the package, found by glob; and where names are looked up."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, Result, call

from metaformer_ablate.errors import RequestError
from metaformer_ablate.models.components import MIXERS, NORMS
from metaformer_ablate.models.presets import NAMED
from metaformer_ablate.settings.yaml_reader import parse
from metaformer_ablate.spec import known
from metaformer_ablate.spec.experiment import find_all, load_experiment, load_recipe
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.spec.resolve import resolve
from metaformer_ablate.spec.run_spec import RunSpec

FOLDER = REPOSITORY / "experiments"
EXPERIMENTS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
RECIPES = sorted(path.stem for path in (FOLDER / "recipes").glob("*.yaml"))
FILES = sorted(FOLDER.rglob("*.y*ml"))

# What a change of one field makes unread, or read: such fields may differ from the baseline without being set.
MADE_UNREAD = {
    "model.token_mixer": {f"model.{option}" for part in MIXERS.values() for option in part.reads},
    "model.head": {"model.head_dropout"},
    "model.norm": {f"model.{option}" for part in NORMS.values() for option in part.reads},
    "model.residual": {"model.layer_scale", "model.res_scale", "model.drop_path"},
    "model.channel_mlp": {"model.mlp_ratio", "model.mlp_bias", "model.activation"},
    # Of a model that is not a MetaFormer nothing is read but its name.
    "model.timm": {path for path in known.LEAVES if path.startswith("model.")},
    "model.comparator": {path for path in known.LEAVES if path.startswith("model.")},
    "train.warmup_epochs": {"train.warmup_lr"},
    "train.schedule": {"train.min_lr"},
    "train.optimizer": {"train.betas", "train.eps"},
    "data.mixup": {"data.cutmix_switch"},
    "data.cutmix": {"data.cutmix_switch"},
}


def leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def differing(one: RunSpec, other: RunSpec) -> dict[str, tuple[Any, Any]]:
    """{field: its values in both} of the fields in which two specs differ."""
    a, b = leaves(one.to_dict()), leaves(other.to_dict())
    follows = {"model.init_run"}  # from what the row sets
    return {key: (a.get(key), b.get(key)) for key in {**a, **b} if a.get(key) != b.get(key) and key not in follows}


def becomes_unread(before: Any, after: Any) -> bool:
    """Whether one of two values is null, or a list with nulls, where the other is not."""
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return all(a == b or None in (a, b) for a, b in zip(before, after, strict=True))
    return None in (before, after)


def means(field: str, value: Any) -> set[str]:
    """The fields that a setting of a row may change."""
    size = {"model.depths", "model.dims", "model.drop_path", "model.layer_scale"}
    if field == "train.epoch_factor":
        return {"train.epochs", "train.steps", "train.milestones"}
    if field == "model.size":
        return size
    if field == "model.name":
        return size | {f"model.{key}" for key in NAMED[value]}
    if isinstance(value, dict):
        return {f"{field}.{key}" for key in value}
    return {field}


def test_the_globs_find_what_there_is() -> None:
    assert "pooling_size" in EXPERIMENTS
    assert {"digits", "fashion_mnist", "cifar10", "imagenet"} <= set(RECIPES)
    assert len(FILES) == len(EXPERIMENTS) + len(RECIPES), "a YAML that no name reaches"
    assert sorted(find_all("experiment")) == EXPERIMENTS
    assert sorted(find_all("recipe")) == RECIPES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_valid_named_plainly_and_begins_with_its_meaning(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert isinstance(parse(text, str(path)), dict)
    assert re.fullmatch(r"[a-z][a-z0-9_]*", path.stem)
    header = [line for line in text.split("\ntitle:")[0].splitlines() if line.startswith("# ")]
    assert text.startswith("# ")
    assert len(header) >= 2, "a comment of two lines or more says what it is and what to expect"
    if path.parent == FOLDER:
        assert re.search(rf"ablate (run|show) {path.stem}\b", " ".join(header)), "the header gives the command"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_is_complete(name: str) -> None:
    experiment = load_experiment(name)
    assert experiment.name == name
    assert experiment.title not in ("", name)
    assert len(experiment.rows) >= 2
    labels = [row.label for row in experiment.rows.values()]
    assert len(set(labels)) == len(labels)
    for row in experiment.rows.values():
        assert row.label != row.name, "a label is for people"
        assert row.group != "Rows", "a group of its own"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_a_whole_run(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.title != name
    made = resolve([recipe.layer])
    assert name == made.data.name or name.startswith(f"{made.data.name}_"), "a recipe is named for its images"
    assert made.train.threads >= 1


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_row_differs_from_the_baseline_in_what_it_sets(name: str) -> None:
    """Under every recipe. A row that is not applicable to the recipe's images has no spec, but a reason."""
    for recipe in RECIPES:
        made = plan(name, recipe)
        assert sorted([*made.specs, *made.not_applicable]) == sorted(made.experiment.rows)
        baseline = made.specs[made.experiment.baseline]
        of_baseline = made.experiment.rows[made.experiment.baseline].sets(recipe)
        for row in made.experiment.rows.values():
            where = f"{row.name} under {recipe}"
            if row.name in made.not_applicable:
                assert made.not_applicable[row.name], where
                continue
            if row.name == made.experiment.baseline:
                continue
            differences = differing(baseline, made.specs[row.name])
            settings = row.sets(recipe)
            for field, value in settings.items():
                assert means(field, value) & differences.keys(), f"{where} sets {field} to what it is"
            both = [*settings.items(), *of_baseline.items()]
            stated = set().union(*(means(field, value) for field, value in both))
            unread = set().union(*(MADE_UNREAD.get(field, set()) for field in stated))
            for field in differences.keys() - stated:
                assert field in unread, f"{where} does not set {field}, which differs: {differences[field]}"
                assert becomes_unread(*differences[field]), f"{where}: {field} differs: {differences[field]}"


def test_the_rows_of_pooling_size_differ_in_the_pool_size_alone() -> None:
    """The same by hand, for one experiment."""
    made = plan("pooling_size")
    for size in (5, 7, 9):
        found = differing(made.specs["pool3"], made.specs[f"pool{size}"])
        assert found == {"model.pool_size": ([3, 3, 3, 3], [size] * 4)}


def test_a_change_of_mixer_makes_its_options_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "e.yaml", "baseline: a\nrows: {a: {}, b: {set: {model.token_mixer: identity}}}\n")
    made = plan("e.yaml")
    found = differing(made.specs["a"], made.specs["b"])
    assert found.keys() == {"model.token_mixer", "model.pool_size"}
    assert becomes_unread(*found["model.pool_size"])
    assert not becomes_unread([3, 3], [3, 5])


# ---------------------------------------------------------------------------------------------------------------------
# Where a name is looked up

OWN = "title: My own\nbaseline: a\nrows: {a: {label: Mine}, b: {set: {model.pool_size: 11}}}\n"
OWN_RECIPE = (FOLDER / "recipes/digits.yaml").read_text().replace("title: ", "title: My own ")


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder without experiments."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_files_of_ones_own_the_package_has_them(here: Path) -> None:
    assert load_experiment("pooling_size").title == "Pooling size"
    assert load_recipe("digits").title.startswith("Digits")
    assert sorted(find_all("recipe")) == RECIPES


def test_a_file_here_stands_before_that_of_the_package_file_by_file(here: Path) -> None:
    write(here / "experiments/pooling_size.yaml", OWN)
    assert load_experiment("pooling_size").title == "My own"
    assert load_recipe("digits").title.startswith("Digits"), "the folder here has no recipes"
    write(here / "experiments/recipes/cifar10.yaml", OWN_RECIPE)
    assert load_recipe("cifar10").title.startswith("My own")
    assert load_recipe("digits").title.startswith("Digits"), "only the file that is here stands before the package"
    assert find_all("experiment")["pooling_size"] == Path("experiments/pooling_size.yaml")
    assert find_all("recipe")["digits"] != Path("experiments/recipes/digits.yaml")


def test_list_tells_which_is_which(here: Path, ablate: Callable[..., Result]) -> None:
    write(here / "experiments/pooling_size.yaml", OWN)
    write(here / "experiments/mine.yaml", OWN)
    listed = ablate("list", "--json").json
    assert listed["experiments"]["mine"] == {"title": "My own", "path": "experiments/mine.yaml"}
    assert listed["experiments"]["pooling_size"]["path"] == "experiments/pooling_size.yaml"
    assert Path(listed["recipes"]["digits"]["path"]).is_absolute()
    text = ablate("list").out
    assert "(experiments/mine.yaml)" in text
    assert f"({listed['recipes']['digits']['path']})" in text


def test_a_folder_without_experiments_is_said(here: Path) -> None:
    """As where somebody calls from another folder than the one that holds their experiments."""
    with pytest.raises(RequestError, match=r"'mine'; allowed: activation, .*; there is no folder ./experiments here"):
        load_experiment("mine")
    write(here / "experiments/other.yaml", "title: Other\n")
    with pytest.raises(RequestError, match=r"'mine'; allowed: activation, .*other, .*training_length$"):
        load_experiment("mine")


def test_recipes_are_not_experiments(here: Path) -> None:
    write(here / "experiments/recipes/mine.yaml", OWN_RECIPE)
    assert load_recipe("mine").name == "mine"
    for name in ("mine", "recipes/mine"):
        with pytest.raises(RequestError, match="unknown experiment"):
            load_experiment(name)
    with pytest.raises(RequestError, match="unknown recipe"):
        load_recipe("pooling_size")


@pytest.mark.parametrize("name", ["elsewhere/mine.yaml", "elsewhere/mine.yml", "pooling_size.yaml"])
def test_a_path_is_taken_as_it_is(here: Path, name: str) -> None:
    with pytest.raises(RequestError, match=re.escape(name)):
        load_experiment(name)
    write(here / name, OWN)
    load_experiment.cache_clear()
    found = load_experiment(name)
    assert (found.title, found.name) == ("My own", Path(name).stem)
    assert load_experiment(str(here / name)).title == "My own"


def test_a_recipe_by_path(here: Path, ablate: Callable[..., Result]) -> None:
    write(here / "elsewhere/mine.yaml", OWN_RECIPE)
    shown = ablate("show", "pooling_size", "--recipe", "elsewhere/mine.yaml", "--json").json
    assert shown["recipe"] == "mine"
    plain = ablate("show", "pooling_size", "--json").json
    assert [row["runs"] for row in shown["rows"]] == [row["runs"] for row in plain["rows"]]


def test_a_row_has_the_papers_numbers_of_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.yaml").write_text(
        "title: T\nbaseline: a\nrows:\n  a: {paper: {table: 3, params_m: 5, imagenet: {params_m: 7, top1: 71.0}}}\n"
    )
    row = load_experiment("study.yaml").rows["a"]
    assert row.printed("digits") == {"table": 3, "params_m": 5}
    assert row.printed("imagenet") == {"table": 3, "params_m": 7, "top1": 71.0}
    done = call("table", "study.yaml", "--recipe", "imagenet", "--json", cwd=tmp_path)
    assert json.loads(done.out)["rows"][0]["paper"] == {"table": 3, "params_m": 7, "top1": 71.0}, done.err
