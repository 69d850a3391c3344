"""What the LightningModules of all tasks share."""

from __future__ import annotations


class Diverged(Exception):
    """The loss is NaN or infinite. `step` counts optimiser steps from 0."""

    def __init__(self, step: int):
        super().__init__(f"the loss is not finite at step {step}")
        self.step = step
