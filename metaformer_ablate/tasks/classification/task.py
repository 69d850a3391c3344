"""Image classification, as a task: its metrics, and what of a record holds its predictions."""

from __future__ import annotations

from metaformer_ablate.tasks.base import Metric, Task

TASK = Task(
    name="classification",
    description="one label per image: top-1 and top-5 accuracy",
    package="metaformer_ablate.tasks.classification",
    metrics=(
        Metric("top1", "Top-1"),
        Metric("top5", "Top-5"),
        Metric("loss", "Loss", unit="", higher_is_better=False, digits=3, paper_digits=2),
    ),
    history=("loss", "top1", "top5"),
    derived=(Metric("balanced_accuracy", "Balanced accuracy"),),
)
