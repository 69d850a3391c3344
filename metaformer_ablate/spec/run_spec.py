"""A run, fully resolved, and its id."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import Field, model_validator

from metaformer_ablate.data.spec import DataSpec
from metaformer_ablate.models.registry import COMPONENTS
from metaformer_ablate.models.spec import ModelSpec
from metaformer_ablate.settings.layers import digest
from metaformer_ablate.settings.schema import Strict
from metaformer_ablate.training.spec import TrainSpec

# Raised by hand whenever the same spec would train differently; CHANGELOG.md says why.
SEMANTICS = 2


SECTIONS: dict[str, type[Strict]] = {"model": ModelSpec, "data": DataSpec, "train": TrainSpec}


class RunSpec(Strict):
    """One run, fully resolved."""

    model: ModelSpec
    data: DataSpec
    train: TrainSpec
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    semantics: int = SEMANTICS

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
        for name in SECTIONS:
            section = getattr(self, name)
            fields = type(section).model_fields.items()
            tree[name] |= {key: getattr(section, key) for key, info in fields if info.exclude}
        return tree

    @property
    def run_id(self) -> str:
        """The first 12 hex digits of the SHA-256 of the canonical JSON of the resolved spec with the seed."""
        return digest(self.to_dict())[:12]

    def with_seed(self, seed: int) -> RunSpec:
        return self.model_copy(update={"seed": seed})

    def cost_key(self) -> str:
        """Names what parameters and MACs depend on: the model, the channels, the classes and the resolution."""
        model = {
            k: v for k, v in self.to_dict()["model"].items() if k not in ("drop_path", "layer_scale", "init_sha256")
        }
        model["layer_scale"] = self.model.layer_scale is not None
        return digest([model, self.data.net_shape])
