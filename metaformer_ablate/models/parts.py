"""The tables of names: every token mixer, norm and activation that a spec may ask for.

To add one, write its class in the module named by the table and add its line here. The schema, `ablate list`, the
error messages and the tests read these tables. They name classes as strings, so that `ablate list`, `table` and the
checking of a spec never load torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Part:
    """One line of a table: the class, the fields of the model spec that it reads, and what it is."""

    target: str  # "module.Class" in this package
    about: str
    reads: tuple[str, ...] = ()
    window: str | None = None  # of `reads`, the field that says how far the mixer sees; None: see `mixes`
    mixes: bool = True  # False: nothing passes between tokens
    fixed_resolution: bool = False  # True: the weights fit one size of feature map only

    def load(self) -> Any:
        """The class itself. Loads torch."""
        module, name = self.target.split(".")
        return getattr(import_module(f"metaformer_ablate.models.{module}"), name)


MIXERS: dict[str, Part] = {
    "pooling": Part("mixers.Pooling", "average pooling minus its input", reads=("pool_size",), window="pool_size"),
    "identity": Part("mixers.Identity", "nothing: every token keeps to itself", mixes=False),
}

NORMS: dict[str, Part] = {
    "mln": Part(
        "norms.ModifiedLayerNorm",
        "Modified Layer Normalization: over channels and positions, GroupNorm with one group",
        reads=("norm_eps", "norm_bias"),
    ),
    "none": Part("norms.NoNorm", "no normalization"),
}

ACTIVATIONS: dict[str, Part] = {
    "gelu": Part("activations.GELU", "GELU, the exact one"),
}


def readers(field: str, table: dict[str, Part]) -> list[str]:
    """The names of the parts that read a field of the model spec."""
    return [name for name, part in table.items() if field in part.reads]
