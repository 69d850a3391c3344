"""How the numbers of the report are made."""

from __future__ import annotations

from collections.abc import Sequence

from metaformer_ablate.analysis.report.markup import Html, element
from metaformer_ablate.tasks.base import Task
from metaformer_ablate.tasks.registry import get_task

_METHOD = {
    "What a number is": """
        {label}{percent} on the recipe's evaluation split at the last epoch; nothing is chosen on that split. n is the
        number of runs that ended (status ok), one a seed. A number of one seed is a single draw and has no spread.""",
    "Spread": """
        The standard deviation is over seeds, with n - 1. The interval of a mean is Student's t at 95%.""",
    "Differences": """
        Row and baseline are paired by seed: the same seed sees the same images in the same order. Interval and p are
        those of the paired t test over the seeds that both have, p corrected by Holm over the rows of the table. The
        same two rows may stand in two tables with two p, for these are corrected over different numbers of comparisons;
        a note beside each p says over how many, and where the other is. A large p does not say that two rows are
        equal. Effect is the difference over its deviation (Hedges' g of pairs); Better is the share of the seeds in
        which the row is the better one, a tie as half.""",
    "Runs that did not end": """
        A diverged or failed run is in no mean, and its row says so. Where a seed of a row or of the baseline diverged,
        no difference is shown: the seeds that are left would be the fortunate ones. A stale run saw other data than
        today's; it is shown and not counted.""",
    "Cost": """
        Parameters are the trained ones; frozen ones stand apart. MACs are multiply-adds of one image at the recipe's
        resolution, as fvcore counts them.""",
    "Identity": """
        A run is named by a hash of everything that can change its result, seed included. A row shows the runs whose
        hash is that of the row's spec, so a run with an override is never in the table of the plain recipe.""",
    "Paper": """
        {label} as the experiment's file quotes it{where}. Under another recipe its order of rows can be
        compared, its values cannot.""",
}


def method(tasks: Sequence[Task]) -> Html:
    """The definitions, in words of the tasks that the page shows."""
    metrics = [task.reported for task in tasks] or [get_task().reported]
    words = {
        "label": " or ".join(dict.fromkeys(metric.label for metric in metrics)),
        "percent": " in percent" if all(metric.unit == "%" for metric in metrics) else "",
        # What the paper trains classification on.
        "where": ", on ImageNet-1K" if all(task is get_task() for task in tasks) else "",
    }
    terms = [
        piece
        for term, text in _METHOD.items()
        for piece in (element("dt", term), element("dd", " ".join(text.format(**words).split())))
    ]
    return element("section", element("h2", "Method"), element("dl", *terms), id="method")
