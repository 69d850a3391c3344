"""Settings over a recipe and an experiment, as programs give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from metaformer_ablate.settings.layers import Layer
from metaformer_ablate.spec import words
from metaformer_ablate.spec.known import flatten

# {"train.epochs": 2}, nested or dotted, or words of a command line: ["train.epochs=2"].
Overrides: TypeAlias = Mapping[str, Any] | Sequence[str]


def override_layer(overrides: Overrides) -> Layer:
    """The layer of what a program sets. A tuple is a list to the spec. Raises RequestError for what is no setting."""
    if not isinstance(overrides, Mapping):
        return words.override_layer(overrides)
    values = flatten(overrides, lambda path: "overrides")
    listed = {path: list(value) if isinstance(value, tuple) else value for path, value in values.items()}
    return Layer(listed, lambda path: "overrides", strict=True)
