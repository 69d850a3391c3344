"""`ablate register`: a study written down before its runs."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from metaformer_ablate.cli.completion import complete_one_experiment
from metaformer_ablate.cli.options import (
    INTEGER,
    NUMBER,
    examples,
    one_name,
    options,
    say,
    seeds_of,
    store_of,
    warn_problems,
)
from metaformer_ablate.errors import RequestError, shown

if TYPE_CHECKING:
    from metaformer_ablate.records.registration import Registration, Stopping
    from metaformer_ablate.records.store import Store
    from metaformer_ablate.spec.plan import Plan
    from metaformer_ablate.statistics.hypotheses import Hypothesis

logger = logging.getLogger(__name__)

_EXPECT = (
    "A hypothesis of rows by their names, as 'identity < pooling' or 'pool5 = pool3 within 0.5', or 'kendall >= 0.6'; "
    "may be given again."
)

_FIXED = (
    "every registered run once; one that fails is trained again, one that diverges is a result; no result ends the "
    "study or adds a run"
)


_EXAMPLES = examples(
    "ablate register table5 --seeds 5",
    "ablate register token_mixers --seeds 5 --expect 'identity < pooling'",
)


@click.command("register", epilog=_EXAMPLES)
@click.argument("words", nargs=-1, metavar="EXPERIMENT [KEY.PATH=VALUE]...", shell_complete=complete_one_experiment)
@options("recipe", "planned seeds")
@click.option("--expect", multiple=True, metavar="TEXT", help=_EXPECT)
@click.option("--question", metavar="TEXT", help="What the study asks, and what would count as agreement.")
@click.option("--stop", metavar="TEXT", help="The stopping rule (default: the seeds are fixed).")
@click.option("--until", type=NUMBER, metavar="POINTS", help="As of `ablate run`: --seeds are then the first ones.")
@click.option("--max-seeds", type=INTEGER, metavar="N", help="As of `ablate run --until`.")
@click.option("--change", metavar="REASON", help="Change a registered plan; the change is shown with the results.")
@options("results", "metric", "json")
def register_command(
    words: tuple[str, ...],
    recipe: str | None,
    seeds: str | None,
    expect: tuple[str, ...],
    question: str | None,
    stop: str | None,
    until: float | None,
    max_seeds: int | None,
    change: str | None,
    results: str | None,
    metric: str | None,
    as_json: bool,
) -> None:
    """Write down runs, tests and hypotheses before the first run.

    The stopping rule too.

    The file is registrations/EXPERIMENT.RECIPE.yaml; `ablate table` and `ablate report` then say what came of it.
    """
    from metaformer_ablate.analysis.tables.table import plan_task
    from metaformer_ablate.records.registration import (
        Request,
        make_registration,
        path_of,
        read_registration,
        write_registration,
    )
    from metaformer_ablate.spec.plan import plan
    from metaformer_ablate.statistics.hypotheses import read_hypothesis

    name, overrides = one_name(words, "experiment")
    if seeds is None:
        raise RequestError("register: give --seeds, as --seeds 5: which runs there will be is part of the plan")
    for option, text in {"--question": question, "--stop": stop, "--change": change}.items():
        if text is not None and (not text.strip() or len(text) > 10_000):
            raise RequestError(f"{option} is {shown(text)}; allowed: some text of at most 10,000 characters")
    chosen = plan(name, recipe or "digits", overrides)
    rows = [row for row, _ in chosen.everything()]
    hypotheses = [read_hypothesis(text, rows) for text in expect]
    texts = [each.text for each in hypotheses]
    if repeated := next((text for text in texts if texts.count(text) > 1), None):
        raise RequestError(f"--expect {shown(repeated)} is given twice")
    store, path = store_of(results), path_of(chosen)
    stopping = _stopping(stop, until, seeds_of(seeds), max_seeds)
    request = Request(
        seeds=(seeds_of(seeds) or ()) if until is None else range(stopping.max_seeds or 0),
        metric=plan_task(chosen).metric(metric).name,
        hypotheses=texts,
        tests=_tests(chosen, hypotheses),
        stopping=stopping,
        question=question,
    )
    wanted = make_registration(chosen, request, store)
    before = read_registration(path)
    found = _kept_or_changed(before, wanted, change, str(path), store)
    if found is not before:
        write_registration(path, found)
    warn_problems(store)
    if as_json:
        click.echo(json.dumps({"file": str(path), **found.tree()}, indent=1, allow_nan=False))
        return
    say(_in_words(found, str(path), found is before))


def _stopping(stop: str | None, until: float | None, seeds: tuple[int, ...] | None, most: int | None) -> Stopping:
    from metaformer_ablate.records.registration import Stopping
    from metaformer_ablate.statistics.two_stage import check_until

    first, chosen = check_until(until, seeds, most)
    if until is None:
        return Stopping(rule=(stop or _FIXED).strip().removesuffix("."))
    rule = (
        f"Stein's two-stage procedure: {first} seeds of every row, then of each as many as bring half the interval of "
        f"its difference to {until:g}, by the deviation of the first, at most {chosen}"
    )
    return Stopping(rule=(stop or rule).strip().removesuffix("."), until=float(until), first=first, max_seeds=chosen)


def _kept_or_changed(
    before: Registration | None, wanted: Registration, change: str | None, path: str, store: Store
) -> Registration:
    """The registration that stands: the one before where it plans the same, else the one wanted."""
    from metaformer_ablate.records.registration import changed, differences

    if before is None:
        if change is not None:
            raise RequestError(f"--change: there is no {path} that could be changed; register the study without it")
        return wanted
    what = differences(before, wanted)
    if not what:
        return before
    if change is None:
        raise RequestError(
            f"{path} is registered since {before.registered} and differs ({'; '.join(what)}); "
            f"--change REASON changes it, and the change is shown with the results"
        )
    return changed(before, wanted, " ".join(change.split()).removesuffix("."), store)


def _tests(chosen: Plan, hypotheses: Sequence[Hypothesis]) -> list[str]:
    """What will be tested, in sentences."""
    rows = sum(row != chosen.experiment.baseline for row in chosen.specs)
    tests = [
        f"Rows against {chosen.experiment.baseline}: paired t over the seeds, two-sided, 95% intervals, p corrected by "
        f"Holm over the {rows} rows, as `ablate table` has it."
    ]
    if of_rows := sum(bool(each.rows) for each in hypotheses):
        tests.append(
            f"Hypotheses of rows: paired t, two-sided, and two one-sided tests for `within`, p corrected by Holm over "
            f"the {of_rows} of them: held, contradicted or not shown at 5%."
        )
    if any(not each.rows for each in hypotheses):
        tests.append("Figures of agreement with the paper's numbers: reached or not, once all runs have ended.")
    if chosen.combinations:
        tests.append(f"Interactions: paired t, p corrected by Holm over the {len(chosen.combinations)} of them.")
    return tests


def _in_words(found: Registration, path: str, kept: bool) -> str:
    there = len(found.seen.runs)
    text = f"{path}: {len(found.ids)} runs of {len(found.runs)} rows, {len(found.hypotheses)} hypotheses, "
    text += f"digest {found.digest[:12]}; "
    text += "none of the runs was there before." if not there else f"{there} of the runs were there before."
    if kept:
        return f"{text} It is registered already, since {found.registered}; nothing was written."
    if found.changes:
        return f"{text} The plan has changed ({len(found.changes)}); the table says in what, and why. Commit it."
    return f"{text} Commit it before the first run."
