"""Images that could not be read: named, counted and limited. Holds no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metaformer_ablate.system.console import say

NAMED = 20  # of each split, in a record
NAMED_IN_REASON = 5


class TooManyUnreadable(Exception):
    """More images of a run are missing or damaged than `data.max_unreadable` allows: the run fails."""


class Unreadable:
    """Why images could not be read, by split and name. Each counts once, however often it is asked for."""

    def __init__(self, limit: int):
        self.limit = limit
        self.found: dict[str, dict[str, str]] = {"train": {}, "evaluation": {}}

    @property
    def count(self) -> int:
        return sum(map(len, self.found.values()))

    def note(self, split: str, reasons: Mapping[str, str]) -> None:
        """Adds images with the reason for each; a new one is told to standard error. Raises TooManyUnreadable."""
        new = {name: why for name, why in reasons.items() if name not in self.found[split]}
        self.found[split] |= new
        for name, why in new.items():
            say(f"warning: {split} image {name} cannot be read ({why}); {self.limit} may be")
        self.check()

    def add(self, found: Mapping[str, Mapping[str, str]]) -> None:
        """What another device has found, or this one before a checkpoint. Raises TooManyUnreadable."""
        for split, reasons in found.items():
            self.found[split] = {**reasons, **self.found[split]}
        self.check()

    def check(self) -> None:
        if self.count > self.limit:
            names = [f"{name} ({why})" for reasons in self.found.values() for name, why in sorted(reasons.items())]
            some = ", ".join(names[:NAMED_IN_REASON]) + (", ..." if len(names) > NAMED_IN_REASON else "")
            raise TooManyUnreadable(
                f"{self.count} images cannot be read; allowed: data.max_unreadable, which is {self.limit}; "
                f"they are {some}"
            )

    def of_record(self) -> dict[str, Any]:
        """{"unreadable": {split: {"images": count, "names": the first ones}}}; empty where all could be read."""
        told = {
            split: {"images": len(reasons), "names": sorted(reasons)[:NAMED]}
            for split, reasons in self.found.items()
            if reasons
        }
        return {"unreadable": told} if told else {}
