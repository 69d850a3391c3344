"""Images that could not be read: named, counted and limited; and those that were read with a remark. Holds no torch."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from metaformer_ablate.data.rules import REMARKS
from metaformer_ablate.errors import as_text

logger = logging.getLogger(__name__)


SPLITS = ("train", "evaluation")
NAMED = 20  # of each split, in a record
NAMED_IN_REASON = 5


@dataclass(frozen=True)
class Seen:
    """What there is to say of the images of a batch, by name: why one cannot be read, and kinds of `REMARKS`.

    `wrong` is a sentence of what no other image may stand in for: an annotation that cannot be meant.
    """

    unreadable: dict[str, str] = field(default_factory=dict)
    remarks: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


class TooManyUnreadable(Exception):
    """More images of a run are missing or damaged than `data.max_unreadable` allows: the run fails."""


class Unreadable:
    """Why images could not be read, by split and name. Each counts once, however often it is asked for.

    In `found` are also, as `SPLIT KIND`, images that were read with a remark (`REMARKS`): these are not limited.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.found: dict[str, dict[str, str]] = {split: {} for split in SPLITS}

    @property
    def count(self) -> int:
        return sum(len(self.found[split]) for split in SPLITS)

    def note(self, split: str, reasons: Mapping[str, str]) -> None:
        """Adds images with the reason for each; a new one is told to standard error. Raises TooManyUnreadable."""
        new = {name: why for name, why in reasons.items() if name not in self.found[split]}
        self.found[split] |= new
        for name, why in new.items():
            logger.warning(f"{split} image {as_text(name)} cannot be read ({why}); {self.limit} may be")
        self.check()

    def remark(self, split: str, kinds: Mapping[str, str]) -> None:
        """Adds images that were read, with the kind of remark of each; the first of a kind is told."""
        for name, kind in kinds.items():
            known = self.found.setdefault(f"{split} {kind}", {})
            if not known:
                logger.info(f"note: {split} images such as {as_text(name)} {REMARKS[kind]}")
            known[name] = kind

    def add(self, found: Mapping[str, Mapping[str, str]]) -> None:
        """What another device has found, or this one before a checkpoint. Raises TooManyUnreadable."""
        for key, reasons in found.items():
            self.found[key] = {**reasons, **self.found.get(key, {})}
        self.check()

    def check(self) -> None:
        if self.count > self.limit:
            names = [f"{as_text(name)} ({why})" for split in SPLITS for name, why in sorted(self.found[split].items())]
            some = ", ".join(names[:NAMED_IN_REASON]) + (", ..." if len(names) > NAMED_IN_REASON else "")
            raise TooManyUnreadable(
                f"{self.count} images cannot be read; allowed: data.max_unreadable, which is {self.limit}; "
                f"they are {some}"
            )

    def to_record(self) -> dict[str, Any]:
        """{"unreadable": {split: {"images": count, "names": the first ones}}}, and "remarks" the same by kind and
        split; without what there is none of."""
        told = {split: _told(self.found[split]) for split in SPLITS if self.found[split]}
        remarks: dict[str, dict[str, Any]] = {}
        for kind in REMARKS:
            for split in SPLITS:
                if names := self.found.get(f"{split} {kind}"):
                    remarks.setdefault(kind, {})[split] = _told(names)
        return {key: value for key, value in (("unreadable", told), ("remarks", remarks)) if value}


def _told(names: Mapping[str, str]) -> dict[str, Any]:
    return {"images": len(names), "names": [as_text(name) for name in sorted(names)[:NAMED]]}
