"""What the file of a claim, and of the process that made it, may hold: the type and range of each key."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from metaformer_ablate.settings.typed_files import FileShape
from metaformer_ablate.tasks.registry import DEFAULT

Count = Annotated[int, Field(ge=0, lt=2**63)]
ProcessId = Annotated[int, Field(ge=0, lt=2**31)]
LONGEST_TEXT = 1000
ShortText = Annotated[str, Field(max_length=LONGEST_TEXT)]


class ProgressShape(FileShape):
    """`Progress` as a claim holds it."""

    epoch: Count
    epochs: Count
    share: Annotated[float, Field(ge=0, le=1)]
    train_loss: float | None
    metrics: dict[ShortText, float] | None = None
    images_per_second: Annotated[float, Field(ge=0)]
    task: ShortText = DEFAULT
    source_share: Annotated[float, Field(ge=0, le=1)] = 0.0


class ProcessShape(FileShape):
    """`of_this_process` as a file holds it."""

    host: ShortText
    machine: ShortText
    pid: ProcessId
    parent: ProcessId
    started: ShortText


class ClaimShape(ProcessShape):
    """The file of a claim."""

    token: ShortText
    beat: Count
    name: ShortText = ""
    progress: ProgressShape | None
