"""How a run is carried out; none of it can change its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from metaformer_ablate.records.claims import Claim, Progress
from metaformer_ablate.system.signals import StopRequest
from metaformer_ablate.tracking.tracker import Tracker


class ClaimLost(Exception):
    """Another process has taken the run over, for this one showed no sign of life."""


@dataclass(frozen=True)
class RunOptions:
    """How a run is carried out; none of it can change its result.

    `stop` is asked after each step: once it says yes, the run saves its place and raises Interrupted. `claim` is kept
    up to date with the progress, and the run ends with ClaimLost when it is lost. `tracker` is told of losses and of
    the lines of the history, those before a checkpoint too.
    """

    report: Callable[[Progress], None] = lambda progress: None
    checkpoint_seconds: float = 15.0
    keep_checkpoints: bool = False
    stop: StopRequest = field(default_factory=StopRequest)
    claim: Claim | None = None
    tracker: Tracker | None = None

    def tell(self, progress: Progress | None) -> None:
        """Passes progress on. Raises ClaimLost where the claim is lost, also without progress to tell."""
        if self.claim is not None:
            self.claim.progress = progress or self.claim.progress
            if self.claim.lost:
                raise ClaimLost(self.claim.run_id)
        if progress is not None:
            self.report(progress)
