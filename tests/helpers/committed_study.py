"""The studies whose records are committed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from conftest import REPOSITORY

from metaformer_ablate.spec.plan import plan

RESULTS = REPOSITORY / "results"
EXPERIMENT = "table5"


@dataclass(frozen=True)
class Study:
    """All rows of table 5 under a recipe; `complete` has how many seeds of each length are whole.

    More seeds may have begun: their runs are kept, and count for nothing until the seed is whole.
    """

    recipe: str
    complete: dict[tuple[str, ...], int] = field(hash=False)  # overrides of a length: seeds from 0 on

    @property
    def page(self) -> str:
        return (RESULTS / "studies" / f"{self.recipe}.md").read_text(encoding="utf-8")

    @property
    def commands(self) -> list[str]:
        """The commands of its page that read records; those that train are left out."""
        listed = re.findall(r"^    (ablate (?!run ).*)$", self.page, flags=re.MULTILINE)
        return [str(command) for command in listed]

    def ids(self) -> list[str]:
        """The runs of its whole seeds. results/runs may hold others, of another study or just trained."""
        return [run_id for length, seeds in self.complete.items() for run_id in _ids(self.recipe, length, range(seeds))]

    def begun(self) -> list[str]:
        """Runs of the seeds after those, which may be there."""
        return [
            run_id for length, seeds in self.complete.items() for run_id in _ids(self.recipe, length, range(seeds, 5))
        ]


def _ids(recipe: str, overrides: tuple[str, ...], seeds: range) -> list[str]:
    chosen = plan(EXPERIMENT, recipe, list(overrides))
    return [chosen.spec(name, seed).run_id for name in chosen.experiment.rows for seed in seeds]


FIRST = Study("cifar10_small", {(): 5})
MIXING = Study("cifar10_mixing", {(): 3, ("train.epochs=4",): 3})
STUDIES = (FIRST, MIXING)
