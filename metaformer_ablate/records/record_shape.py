"""What record.json may hold: the type and range of each key that anything reads."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from metaformer_ablate.settings.typed_files import FileShape
from metaformer_ablate.tasks.registry import DEFAULT

Count = Annotated[int, Field(ge=0, lt=2**63)]


Text = Annotated[str, Field(max_length=100_000)]


class GitShape(FileShape):
    """The state of the checkout that trained a run."""

    commit: Text | None = None
    dirty: bool | None = None
    given: bool = False  # by $ABLATE_COMMIT, and not seen


class UnreadableShape(FileShape):
    """How many images of a split a run could not read."""

    images: Count = 0


class StartShape(FileShape):
    """How a net started from a file of weights: which of the file's, and the names of what was not taken as it is."""

    weights: Text = ""
    new: list[Text] | None = None
    interpolated: list[Text] | None = None
    channels: list[Text] | None = None


class RecordShape(FileShape):
    """record.json of format 1. Keys that came later have a default, for older records lack them."""

    task: Text = DEFAULT
    reason: Text | None
    metrics: dict[str, float] | None
    at_chance: bool | None = None
    params: Count | None
    frozen_params: Count | None
    macs: Count | None
    macs_224: Count | None = None
    uncounted: dict[str, Count] | None = None
    classes: list[Text] | None = None  # names in the order of the labels
    epochs: Count | None = None
    images_seen: Count | None = None
    seconds: Annotated[float, Field(ge=0, lt=1e12)]
    device: Text | None
    precision: Text | None = None
    compiled: bool | None = None
    kernels: Text | None = None
    cpu: dict[str, Any] | None = None
    not_repeatable: list[Text] | None = None  # operators of the device that give other bits each time
    peak_memory_bytes: Count | None = None
    versions: dict[str, Text] | None
    git: GitShape | None
    earlier_code: list[GitShape] | None = None  # what trained the run before it was resumed
    data_fingerprint: Text | None
    unreadable: dict[str, UnreadableShape] | None = None
    remarks: dict[str, dict[str, UnreadableShape]] | None = None
    start: StartShape | None = None
    started: Text | None = None
    ended: Text | None = None
