"""Runs whose models hold components of the user's own, or start from a file: tried before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from metaformer_ablate.errors import ModelRefused
from metaformer_ablate.spec.run_spec import RunSpec
from metaformer_ablate.sweep.jobs import Job
from metaformer_ablate.tasks.registry import task_of

logger = logging.getLogger(__name__)


def possible_jobs(jobs: Sequence[Job], device: str) -> list[Job]:
    """The jobs whose model can be built and run on a device; says of the others why not, once for all seeds of a row.

    Raises ModelRefused where no job is left.
    """
    why: dict[str, str | None] = {}  # by run id of seed 0
    for job in jobs:
        key = job.spec.with_seed(0).run_id
        if key not in why:
            found = why_not(job.spec, device)
            why[key] = None if found is None else f"{job.rows[0]}: {found}"
    possible = [job for job in jobs if why[job.spec.with_seed(0).run_id] is None]
    told = [text for text in why.values() if text is not None]
    for text in told[not possible :]:
        logger.error(text)
    if not possible:
        raise ModelRefused(told[0])
    return possible


def why_not(spec: RunSpec, device: str) -> str | None:
    """Why a model with components of the user's own cannot be built or run; None where it can.

    Raises RequestError where a model cannot start from its file of weights.
    """
    if spec.model.init_from is not None and spec.model.init_recipe is None:
        task_of(spec).part("net").build_net(spec)
    if not spec.model.own_names() and spec.model.own_class is None:
        return None
    from metaformer_ablate.system.devices import choose_device  # which loads torch

    # The weights to start from may not be there yet.
    blank = spec.model_copy(update={"model": spec.model.model_copy(update={"init_from": None})})
    try:
        task_of(blank).part("net").build_net(blank, device=choose_device(device.split(",")[0]))
    except ModelRefused as error:
        return str(error)
    return None
