"""Rows whose models, with components of the user's own, cannot be built or run: they are named, the others go on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from metaformer_ablate.errors import ModelRefused

if TYPE_CHECKING:
    from metaformer_ablate.cost.counting import Cost
    from metaformer_ablate.spec.run_spec import RunSpec

logger = logging.getLogger(__name__)


def tell_refused(refused: Mapping[str, str]) -> int:
    """Says which rows cannot be trained; the exit code."""
    for row, why in refused.items():
        logger.error(f"row {row!r}: {why}")
    return 1 if refused else 0


def costs_of_rows(specs: Mapping[str, RunSpec]) -> tuple[dict[str, Cost], dict[str, str]]:
    """What the model of each row costs; and of a row with components of the user's own that cannot be, why not."""
    from metaformer_ablate.cost.cost import count

    costs: dict[str, Cost] = {}
    refused: dict[str, str] = {}
    for row, spec in specs.items():
        try:
            costs[row] = count(spec)
        except ModelRefused as error:
            refused[row] = str(error)
    return costs, refused
