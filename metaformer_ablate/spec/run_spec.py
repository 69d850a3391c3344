"""A run, fully resolved, and its id."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, model_validator

from metaformer_ablate.data.spec import DataSpec
from metaformer_ablate.models.registry import COMPONENTS
from metaformer_ablate.models.spec import ModelSpec
from metaformer_ablate.settings.layers import canonical, digest
from metaformer_ablate.settings.schema import Strict, execution_setting, later_setting
from metaformer_ablate.settings.typed_files import first_problem
from metaformer_ablate.tasks.registry import get_task
from metaformer_ablate.training.spec import TrainSpec

# Raised by hand whenever the same spec would train differently; CHANGELOG.md says why. What changes the runs of one
# other task alone raises the `semantics` of that task's section.
SEMANTICS = 2


SECTIONS: dict[str, type[Strict]] = {"model": ModelSpec, "data": DataSpec, "train": TrainSpec}


SECTION_NAMES = (*SECTIONS, "task")


# Fields of the model that change neither its parameters nor its multiply-adds.
_OF_NO_COST = ("drop_path", "layer_scale", "init_sha256", "init_run", "init_averaged", "new_head")


# What stands for the seed, and for the run it starts from, where only these differ: no string of a spec holds NUL.
_NO_SEED, _NO_RUN = "\0", "\0\0"


def _task_section(value: Any) -> Any:
    """The section of the task that it names, from the plain values of a record."""
    if not isinstance(value, Mapping):
        return value
    task = get_task(str(value.get("name")))
    if task.settings is None:
        raise ValueError(f"the task {task.name} has no settings")
    try:
        return task.settings.model_validate(value)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from None


class RunSpec(Strict):
    """One run, fully resolved."""

    model: ModelSpec
    data: DataSpec
    train: TrainSpec
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    semantics: int = SEMANTICS
    task: Annotated[SerializeAsAny[Strict] | None, BeforeValidator(_task_section)] = later_setting(
        "the settings of a task other than classification"
    )
    # The run whose weights this one starts from (`model.init_from: recipe:NAME`), of the same seed. Its id is in
    # `model.init_run`.
    source: RunSpec | None = execution_setting(None, "set by model.init_from")

    @model_validator(mode="before")
    @classmethod
    def _with_own_parts(cls, values: Any) -> Any:
        COMPONENTS.read_own()  # a spec out of a record names them too
        return values

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what spec.yaml holds and the id is made of."""
        return json.loads(self.model_dump_json())

    def with_execution(self) -> dict[str, Any]:
        """`to_dict` and what is not part of the id: enough to make this spec again elsewhere."""
        tree = self.to_dict()
        sections = {name: getattr(self, name) for name in SECTION_NAMES}
        for name, section in sections.items():
            if section is None:
                continue
            fields = type(section).model_fields.items()
            tree[name] |= {key: getattr(section, key) for key, info in fields if info.exclude}
        if self.source is not None:
            tree["source"] = self.source.with_execution()
        return tree

    @property
    def run_id(self) -> str:
        """The first 12 hex digits of the SHA-256 of the canonical JSON of the resolved spec with the seed."""
        return digest(self.to_dict())[:12]

    def ids(self, seeds: Iterable[int]) -> Iterator[str]:
        """The run ids with other seeds: a hash per seed, where `with_seed(seed).run_id` makes a spec of each."""
        if self.source is not None:  # whose id changes with the seed, too
            seeds = list(seeds)
            tree = self.to_dict()
            text = canonical({**tree, "model": {**tree["model"], "init_run": _NO_RUN}, "seed": _NO_SEED})
            for seed, source in zip(seeds, self.source.ids(seeds), strict=True):
                whole_text = text.replace(canonical(_NO_RUN), canonical(source)).replace(canonical(_NO_SEED), str(seed))
                yield hashlib.sha256(whole_text.encode("ascii")).hexdigest()[:12]
            return
        before, after = canonical({**self.to_dict(), "seed": _NO_SEED}).split(canonical(_NO_SEED))
        start = hashlib.sha256(before.encode("ascii"))
        for seed in seeds:
            whole = start.copy()
            whole.update(f"{seed}{after}".encode("ascii"))
            yield whole.hexdigest()[:12]

    def with_seed(self, seed: int) -> RunSpec:
        if self.source is None:
            return self.model_copy(update={"seed": seed})
        return self.model_copy(update={"seed": seed}).started_from(self.source.with_seed(seed))

    def started_from(self, source: RunSpec) -> RunSpec:
        """The same run from the weights that another run ends with."""
        model = self.model.model_copy(update={"init_run": source.run_id})
        return self.model_copy(update={"model": model, "source": source})

    def cost_key(self) -> str:
        """Names what parameters and MACs depend on: the model, the channels, the classes, the resolution, the task."""
        model = {k: v for k, v in self.to_dict()["model"].items() if k not in _OF_NO_COST}
        model["layer_scale"] = self.model.layer_scale is not None
        task = [] if self.task is None else [self.to_dict()["task"]]
        shape = [self.data.image_channels, self.data.classes, self.data.image_size]
        return digest([model, shape, *task])
