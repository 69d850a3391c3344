"""Every token mixer, norm and activation that a spec may name now: the package's, and the user's own."""

from __future__ import annotations

from collections.abc import Container

from metaformer_ablate.models.components import ACTIVATIONS, MIXERS, NORMS, Component
from metaformer_ablate.models.user_components import own_components


class Registry:
    """Tables of components by name. The user's own are those of parts.yaml when it was last read."""

    def __init__(self) -> None:
        self.mixers: dict[str, Component] = dict(MIXERS)
        self.norms: dict[str, Component] = dict(NORMS)
        self.activations: dict[str, Component] = dict(ACTIVATIONS)

    def read_own(self) -> None:
        """Makes the tables hold what parts.yaml says now, and nothing that it, or another, said before.

        Raises RequestError for a file that says anything else than user_components.py describes.
        """
        found = own_components()
        self.mixers = {**MIXERS, **found["token_mixers"]}
        self.norms = {**NORMS, **found["norms"]}
        self.activations = {**ACTIVATIONS, **found["activations"]}

    @property
    def tables(self) -> tuple[dict[str, Component], ...]:
        return self.mixers, self.norms, self.activations

    def find(self, names: Container[str]) -> dict[str, Component]:
        """The components of these names, of whatever table, as far as the tables have them."""
        return {name: component for table in self.tables for name, component in table.items() if name in names}


COMPONENTS = Registry()
