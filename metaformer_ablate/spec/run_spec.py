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
from metaformer_ablate.settings.schema import Strict, later_setting
from metaformer_ablate.settings.typed_files import first_problem
from metaformer_ablate.tasks.registry import get_task
from metaformer_ablate.training.spec import TrainSpec

# Raised by hand whenever the same spec would train differently; CHANGELOG.md says why. What changes the runs of one
# other task alone raises the `semantics` of that task's section.
SEMANTICS = 2


SECTIONS: dict[str, type[Strict]] = {"model": ModelSpec, "data": DataSpec, "train": TrainSpec}


SECTION_NAMES = (*SECTIONS, "task")


# What stands for the seed where only the seed differs: no string of a spec holds NUL.
_NO_SEED = "\0"


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
        return tree

    @property
    def run_id(self) -> str:
        """The first 12 hex digits of the SHA-256 of the canonical JSON of the resolved spec with the seed."""
        return digest(self.to_dict())[:12]

    def ids(self, seeds: Iterable[int]) -> Iterator[str]:
        """The run ids with other seeds: a hash per seed, where `with_seed(seed).run_id` makes a spec of each."""
        before, after = canonical({**self.to_dict(), "seed": _NO_SEED}).split(canonical(_NO_SEED))
        start = hashlib.sha256(before.encode("ascii"))
        for seed in seeds:
            whole = start.copy()
            whole.update(f"{seed}{after}".encode("ascii"))
            yield whole.hexdigest()[:12]

    def with_seed(self, seed: int) -> RunSpec:
        return self.model_copy(update={"seed": seed})

    def cost_key(self) -> str:
        """Names what parameters and MACs depend on: the model, the channels, the classes, the resolution, the task."""
        model = {
            k: v for k, v in self.to_dict()["model"].items() if k not in ("drop_path", "layer_scale", "init_sha256")
        }
        model["layer_scale"] = self.model.layer_scale is not None
        task = [] if self.task is None else [self.to_dict()["task"]]
        return digest([model, self.data.net_shape, *task])
