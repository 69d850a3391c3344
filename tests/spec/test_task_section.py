"""The section `task` of a spec, with a task that no file of the package names."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from metaformer_ablate.data.datasets import DATASETS
from metaformer_ablate.errors import RequestError
from metaformer_ablate.settings.schema import Float, Strict, execution_setting, later_setting, setting
from metaformer_ablate.spec.experiment import load_recipe
from metaformer_ablate.spec.notes import differences
from metaformer_ablate.spec.plan import plan
from metaformer_ablate.spec.resolve import resolve
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.spec.words import is_integer, is_text, override_layer
from metaformer_ablate.tasks.base import Metric, RunSections, Task
from metaformer_ablate.tasks.registry import TASKS, task_of


class CountingSettings(Strict):
    name: Literal["counting"] = "counting"
    semantics: int = 1
    bins: Annotated[int, Field(ge=1)] = setting(..., "an integer of at least 1")
    margin: Annotated[Float, Field(gt=0)] | None = setting(0.5, "a number above 0")
    loss: str = setting("l1", "l1 or l2")
    later: int | None = later_setting("an integer")
    workers: int = execution_setting(1, "an integer")


class Counting(Task):
    def unread(self, run: RunSections) -> dict[str, str]:
        found = {"model.head": "the task is counting", "train.label_smoothing": "the task is counting"}
        assert isinstance(run.task, CountingSettings)
        return found | ({"task.margin": "the loss is l2"} if run.task.loss == "l2" else {})

    def not_applicable(self, run: RunSections) -> str | None:
        return "counting needs something to mix" if "identity" in run.model.stages()[2] else None


RECIPE = """
title: Counting
model: {size: t5, stem: {kernel: 3, stride: 1, padding: 1}}
data: {name: things, image_size: 16}
train: {epochs: 2, batch_size: 32, warmup_epochs: 0}
task: {name: counting, bins: 4}
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a recipe of the task; the task and its data set are there for one test."""
    module = ModuleType("counting_task")
    module.TASK = Counting("counting", "how many", "counting", (Metric("mae", "MAE"),), ("mae",), CountingSettings)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "counting_task", module)
    monkeypatch.setitem(TASKS, "counting", "counting_task:TASK")
    monkeypatch.setitem(DATASETS, "things", replace(DATASETS["digits"], task="counting"))
    (tmp_path / "experiments" / "recipes").mkdir(parents=True)
    (tmp_path / "experiments" / "recipes" / "counting.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def spec_of(*words: str, recipe: str = "counting") -> RunSpec:
    return resolve([load_recipe(recipe).layer, override_layer(words)])


def test_a_recipe_names_the_task_and_its_settings() -> None:
    spec = spec_of("task.loss=l2", "task.bins=6")
    assert isinstance(spec.task, CountingSettings)
    assert task_of(spec).name == "counting" == task_of(spec.to_dict()).name
    assert spec.to_dict()["task"] == {"name": "counting", "semantics": 1, "bins": 6, "margin": None, "loss": "l2"}
    assert spec.task.workers == 1


def test_the_section_is_in_the_id_and_read_again() -> None:
    spec = spec_of()
    for text in (json.dumps(spec.to_dict()), spec.model_dump_json()):
        again = RunSpec.model_validate_json(text)
        assert again == spec and again.run_id == spec.run_id
    assert RunSpec.model_validate(spec_of("task.workers=3").with_execution()).task.workers == 3  # type: ignore[union-attr]
    others = [spec_of(word) for word in ("task.bins=5", "task.margin=1", "task.later=0", "train.epochs=3")]
    assert len({spec.run_id, *(other.run_id for other in others)}) == 5
    assert spec_of("task.workers=3").run_id == spec.run_id
    assert list(spec.ids([0, 7])) == [spec.run_id, spec.with_seed(7).run_id]
    assert spec.cost_key() != others[0].cost_key()
    assert differences(others[0], spec) == [("task.bins", 5, 4)]


def test_without_a_task_the_spec_has_no_section() -> None:
    plain = spec_of(recipe="digits")
    assert plain.task is None and "task" not in plain.to_dict()
    assert spec_of("task.name=classification", recipe="digits").run_id == plain.run_id
    assert list(plain.ids([3])) == [plain.with_seed(3).run_id]


def test_a_field_that_comes_later_is_left_out_while_it_is_null() -> None:
    assert "later" not in spec_of("task.later=null").to_dict()["task"]
    assert spec_of("task.later=2").to_dict()["task"]["later"] == 2


def test_what_the_task_does_not_read_is_null_or_its_default() -> None:
    spec = spec_of()
    assert spec.model.head is None and spec.train.label_smoothing == 0.0
    with pytest.raises(RequestError, match=r"model.head is 'mlp', but nothing reads it: the task is counting"):
        spec_of("model.head=mlp")
    with pytest.raises(RequestError, match=r"task.margin is 2, but nothing reads it: the loss is l2"):
        spec_of("task.loss=l2", "task.margin=2")


def test_a_row_may_not_be_of_the_task() -> None:
    chosen = plan("table5", "counting")
    mixers = {row: spec.model.stages()[2] for row, spec in chosen.specs.items()}
    assert mixers and not any("identity" in mixer for mixer in mixers.values())
    assert set(chosen.not_applicable.values()) == {"counting needs something to mix"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["task.bin=5"],
            r"command line: unknown key 'task.bin' \(did you mean 'task.bins'\?\); allowed in task of counting",
        ),
        (["task.semantics=2"], "unknown key 'task.semantics'"),
        (["task.bins=0"], r"command line: task.bins is 0 \(a number\); allowed: an integer of at least 1"),
        (["task.bins=null"], "task.bins is None"),
        (["task.name=conting"], r"task.name: unknown task 'conting' \(did you mean 'counting'\?\)"),
        (
            ["task.name=classification"],
            "data.name is 'things', a data set of the task counting, and task.name is class",
        ),
        (
            ["data.name=digits"],
            "data.name is 'digits', a data set of the task classification, and task.name is counting",
        ),
    ],
)
def test_a_wrong_setting_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        spec_of(*words)


def test_a_wrong_setting_in_a_file_is_named_with_its_line(home: Path) -> None:
    path = home / "experiments" / "recipes" / "counting.yaml"
    for right, wrong, said in (
        ("bins: 4", "bins: many", "counting.yaml:6: task.bins is 'many' (a string); allowed: an integer of at least 1"),
        ("bins: 4", "bin: 4", "counting.yaml:6: unknown key 'task.bin' (did you mean 'task.bins'?)"),
        (", bins: 4", "", "counting.yaml: task.bins is not set; allowed: an integer of at least 1"),
        ("counting, bins", "conting, bins", "counting.yaml:6: task.name: unknown task 'conting'"),
        (
            "name: counting, ",
            "",
            "counting.yaml:6: unknown key 'task.bins' (did you mean 'task.name'?); allowed in task of classification",
        ),
    ):
        path.write_text(RECIPE.replace(right, wrong))
        load_recipe.cache_clear()
        with pytest.raises(RequestError) as error:
            spec_of()
        assert said in str(error.value)


def test_a_later_task_clears_the_settings_of_an_earlier_one() -> None:
    spec = spec_of("task.name=classification", "data.name=digits")
    assert spec.task is None and "task" not in spec.to_dict()


@pytest.mark.parametrize(
    "tree", [{"name": "conting"}, {}, {"name": "counting"}, {"name": "counting", "bins": 4, "x": 1}]
)
def test_a_record_with_another_section_is_refused(tree: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="task"):
        RunSpec.model_validate({**spec_of().to_dict(), "task": tree})


def test_words_know_the_types_of_the_settings() -> None:
    assert is_text("task.loss") and is_integer("task.bins") and not is_text("task.bins")
    assert override_layer(["task.loss=1"]).values == {"task.loss": "1"}
    # A field with an entry per stage is a list, whatever its entries are.
    assert override_layer(["model.token_mixer=[pooling,identity]"]).values["model.token_mixer"] == [
        "pooling",
        "identity",
    ]
