"""The study of cifar10_small, as it is committed."""

from __future__ import annotations

import re

from conftest import REPOSITORY

from metaformer_ablate.spec.plan import plan

STUDY = REPOSITORY / "results"


PAGE = (STUDY / "studies" / "cifar10_small.md").read_text(encoding="utf-8")


COMMANDS = [
    line for line in re.findall(r"^    (ablate .*)$", PAGE, flags=re.MULTILINE) if not line.startswith("ablate run")
]


EXPERIMENT, RECIPE, SEEDS = "table5", "cifar10_small", range(5)


def ids() -> list[str]:
    """The runs of the study. results/runs may hold others: of another study, or what a user has just trained."""
    chosen = plan(EXPERIMENT, RECIPE)
    return [chosen.spec(name, seed).run_id for name in chosen.experiment.rows for seed in SEEDS]
