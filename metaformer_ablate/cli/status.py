"""`ablate status`: what runs where, what is finished, failed and left."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from metaformer_ablate.cli.completion import complete_experiments
from metaformer_ablate.cli.options import examples, options, say, seeds_of, split_words, store_of, warn_problems
from metaformer_ablate.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from metaformer_ablate.records.claims import ClaimOwner
    from metaformer_ablate.records.store import Store
    from metaformer_ablate.spec.plan import Plan


_EXAMPLES = examples("ablate status", "ablate status table5 --recipe cifar10_small --seeds 5")


@click.command("status", epilog=_EXAMPLES)
@click.argument("words", nargs=-1, metavar="[EXPERIMENT...] [KEY.PATH=VALUE]...", shell_complete=complete_experiments)
@options("recipe", "seeds", "results", "data", "json")
def status_command(
    words: tuple[str, ...],
    recipe: str | None,
    seeds: str | None,
    results: str | None,
    data: str | None,
    as_json: bool,
) -> None:
    """What runs where, and what is finished, failed and left.

    Of the whole results folder, or of the experiments that are named.
    """
    from metaformer_ablate.data.folder import DataFolder
    from metaformer_ablate.records.claims import Claims
    from metaformer_ablate.spec.plan import plan
    from metaformer_ablate.sweep.jobs import plan_jobs
    from metaformer_ablate.sweep.scheduler import active_sweeps

    experiments, overrides = split_words(words)
    if (overrides or seeds or recipe) and not experiments:
        raise RequestError("--recipe, --seeds and overrides are for experiments; name one or more")
    store = store_of(results)
    counts, claims, sweeps = store.counts(), Claims(store.path), active_sweeps(store)
    held = claims.held()
    left = sum(sweep["left"] + sweep["running"] for sweep in sweeps) if sweeps else None
    names = {run_id: owner.name for run_id, owner in held.items()}
    if experiments:
        plans = [plan(name, recipe or "digits", overrides) for name in dict.fromkeys(experiments)]
        wanted = seeds_of(seeds) or (0,)
        jobs, _ = plan_jobs(plans, wanted, store, DataFolder.choose(data))
        left, planned = len(jobs), _names_of_plans(plans, wanted)
        names |= planned
        held = {run_id: owner for run_id, owner in held.items() if run_id in planned}
        counts = {status: [i for i in ids if i in planned] for status, ids in counts.items()}
    counts["interrupted"] = [run_id for run_id in counts.get("interrupted", []) if run_id not in held]
    owners = {run_id: claims.last_owner(run_id) for run_id in (*counts["interrupted"], *counts.get("failed", []))}
    names = {run_id: owner.name for run_id, owner in owners.items() if owner and owner.name} | names
    failed, looked_up = _failed(store, counts.get("failed", []), names)
    names |= looked_up
    tree = {
        "results": str(store.path),
        "runs": {status: len(ids) for status, ids in sorted(counts.items()) if ids},
        "running": [_running(owner) for owner in held.values()],
        "interrupted": counts["interrupted"],
        "failed": failed,
        "sweeps": sweeps,
        "left": left,
        "names": {i: names[i] for i in [*held, *counts["interrupted"], *counts.get("failed", [])] if names.get(i)},
    }
    warn_problems(store)
    if as_json:
        click.echo(json.dumps(tree, indent=1))
        return
    say("\n".join(_lines(tree, {**owners, **held}, whole=not experiments)))


def _names_of_plans(plans: Sequence[Plan], seeds: Sequence[int]) -> dict[str, str]:
    """What to call each run of plans, whether it has a record or not."""
    found: dict[str, str] = {}
    for chosen in plans:
        for row, spec in chosen.everything():
            for seed, run_id in zip(seeds, spec.ids(seeds), strict=True):
                found.setdefault(run_id, f"{chosen.experiment.name}/{row} seed {seed}")
    return found


def _failed(
    store: Store, run_ids: Sequence[str], known: Mapping[str, str]
) -> tuple[list[dict[str, str]], dict[str, str]]:
    """What is said of failed runs, and names for those that none is known of."""
    from metaformer_ablate.records.names import with_names

    records = {run_id: store.read(run_id) for run_id in run_ids}
    unnamed = [record for run_id, record in records.items() if record is not None and run_id not in known]
    told = []
    for run_id, record in records.items():
        reason = record.data["reason"] if record is not None else "its record is damaged"
        told.append({"run_id": run_id, "reason": reason, "log": str(store.folder(run_id) / "log.txt")})
    return told, {record.run_id: record.name for record in with_names(unnamed, closest=False) if record.name}


def _running(owner: ClaimOwner) -> dict[str, Any]:
    return {
        "run_id": owner.run_id,
        "name": owner.name,
        "host": owner.host,
        "pid": owner.pid,
        "progress": owner.progress and owner.progress.to_json(),
    }


def _lines(tree: dict[str, Any], owners: Mapping[str, ClaimOwner | None], whole: bool) -> list[str]:
    """The status in words. A run that a sweep has begun and nobody claims yet is starting."""
    counts = ", ".join(f"{number} {status}" for status, number in tree["runs"].items()) or "no records"
    running = len(tree["running"])
    starting = max(0, sum(sweep["running"] for sweep in tree["sweeps"]) - running) if whole else 0
    parts = [f"{running} running", *([f"{starting} starting"] if starting else [])]
    if tree["left"] is not None:
        begun = running + starting + len(tree["interrupted"])
        most = "up to " if whole and len(tree["sweeps"]) > 1 else ""  # sweeps that share runs each count them
        parts.append(f"{most}{max(0, tree['left'] - begun)} not begun")
    lines = [f"{tree['results']}: {counts}; {', '.join(parts)}"]
    for sweep in tree["sweeps"]:
        where = f"sweep on {sweep['host']} (pid {sweep['pid']}) since {_local(sweep['since'])}"
        total = sweep["finished"] + sweep["running"] + sweep["left"]
        done = f": {sweep['finished']} of its {total} runs finished, {sweep['failed']} of them failed"
        lines.append(where + (done if whole else ""))
    for run in tree["running"]:
        how = _how_far(owners[run["run_id"]]) or "starts"
        lines.append(f"running {run['run_id']} {run['name']} on {run['host']} (pid {run['pid']}): {how}")
    for run_id in tree["interrupted"]:
        far = _how_far(owners[run_id], speed=False)
        called = f"interrupted {_called(tree, run_id)}" + (f" at {far}" if far else "")
        lines.append(f"{called}: `ablate run` goes on from its checkpoint")
    lines += [f"failed {_called(tree, run['run_id'])}: {run['reason']}; log {run['log']}" for run in tree["failed"]]
    return lines


def _called(tree: dict[str, Any], run_id: str) -> str:
    return f"{run_id} {tree['names'].get(run_id, '')}".strip()


def _how_far(owner: ClaimOwner | None, speed: bool = True) -> str:
    from metaformer_ablate.sweep.progress import describe_evaluation

    progress = None if owner is None else owner.progress
    if progress is None:
        return ""
    parts = [f"epoch {progress.epoch}/{progress.epochs} ({progress.share:.0%})", *describe_evaluation(progress)]
    return ", ".join([*parts, *([f"{progress.images_per_second:.0f} images/s"] if speed else [])])


def _local(moment: str) -> str:
    """A moment of UTC as the clock here shows it, with the day where that is not today."""
    try:
        here = datetime.fromisoformat(moment).astimezone()
    except ValueError:  # a sign of other code
        return moment
    return here.strftime("%H:%M" if here.date() == datetime.now().date() else "%d %b, %H:%M")
