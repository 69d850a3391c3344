"""`ablate status`, `reproduce`, `rm`, `merge`: what is in a results folder, whether it comes out again, in and out."""

from __future__ import annotations

import json
import logging
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metaformer_ablate.cli.completion import complete_experiments, complete_folders, complete_runs
from metaformer_ablate.cli.options import examples, options, seeds_of, split_words, store_of, warn_problems
from metaformer_ablate.errors import RequestError, visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from metaformer_ablate.records.claims import ClaimOwner

logger = logging.getLogger(__name__)


_STATUS_EXAMPLES = examples(
    "ablate status",
    "ablate status table5 --recipe cifar10_small --seeds 5",
)


@click.command("status", epilog=_STATUS_EXAMPLES)
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

    names, overrides = split_words(words)
    store = store_of(results)
    counts = store.counts()
    held = Claims(store.path).held()
    running = [
        {
            "run_id": holder.run_id,
            "name": holder.name,
            "host": holder.host,
            "pid": holder.pid,
            "progress": holder.progress and holder.progress.to_json(),
        }
        for holder in held.values()
    ]
    sweeps = active_sweeps(store)
    left = sum(sweep["left"] + sweep["running"] for sweep in sweeps) if sweeps else None
    if names:
        plans = [plan(name, recipe or "digits", overrides) for name in dict.fromkeys(names)]
        jobs, states = plan_jobs(plans, seeds_of(seeds) or (0,), store, DataFolder.choose(data))
        of_plan = {state.run_id for state in states}
        running = [run for run in running if run["run_id"] in of_plan]
        counts = {status: [i for i in ids if i in of_plan] for status, ids in counts.items()}
        left = len(jobs)
    elif overrides or seeds or recipe:
        raise RequestError("--recipe, --seeds and overrides are for experiments; name one or more")
    at_work = {run["run_id"] for run in running}
    counts["interrupted"] = [run_id for run_id in counts.get("interrupted", []) if run_id not in at_work]
    failed = []
    for run_id in counts.get("failed", []):
        record = store.read(run_id)
        reason = record.data["reason"] if record else "its record is damaged"
        failed.append({"run_id": run_id, "reason": reason, "log": str(store.folder(run_id) / "log.txt")})
    tree = {
        "results": str(store.path),
        "runs": {status: len(ids) for status, ids in sorted(counts.items()) if ids},
        "running": running,
        "interrupted": counts["interrupted"],
        "failed": failed,
        "sweeps": sweeps,
        "left": left,
    }
    warn_problems(store)
    click.echo(json.dumps(tree, indent=1) if as_json else "\n".join(map(visible, _status_text(tree, held))))


def _status_text(tree: dict[str, Any], held: Mapping[str, ClaimOwner]) -> list[str]:
    from metaformer_ablate.sweep.progress import describe_evaluation

    counts = ", ".join(f"{number} {status}" for status, number in tree["runs"].items()) or "no records"
    left = "" if tree["left"] is None else f"; {tree['left']} left"
    lines = [f"{tree['results']}: {counts}; {len(tree['running'])} running{left}"]
    for sweep in tree["sweeps"]:
        done = f"{sweep['finished']} finished ({sweep['failed']} failed), {sweep['running']} running"
        lines.append(
            f"sweep on {sweep['host']} (pid {sweep['pid']}) since {sweep['since']}: {done}, {sweep['left']} left"
        )
    for run in tree["running"]:
        progress, how = held[run["run_id"]].progress, "starts"
        if progress is not None:
            parts = [f"epoch {progress.epoch}/{progress.epochs} ({progress.share:.0%})", *describe_evaluation(progress)]
            how = ", ".join([*parts, f"{progress.images_per_second:.0f} images/s"])
        lines.append(f"running {run['run_id']} {run['name']} on {run['host']} (pid {run['pid']}): {how}")
    if tree["interrupted"]:
        lines.append(f"interrupted, go on from a checkpoint: {' '.join(tree['interrupted'])}")
    lines += [f"failed {run['run_id']}: {run['reason']}; log {run['log']}" for run in tree["failed"]]
    return lines


_REPRODUCE_EXAMPLES = examples(
    "ablate reproduce 3f2a91",
    "ablate reproduce 3f2a91 --keep again",
)


@click.command("reproduce", epilog=_REPRODUCE_EXAMPLES)
@click.argument("run", metavar="RUN", shell_complete=complete_runs)
@options("results", "data", "device")
@click.option("--init-from", metavar="FILE", help="The weights it started from, where it started from a file.")
@click.option("--keep", metavar="DIR", help="Keep the new record and its weights in this results folder.")
@options("json")
def reproduce_command(
    run: str,
    results: str | None,
    data: str | None,
    device: str,
    init_from: str | None,
    keep: str | None,
    as_json: bool,
) -> int:
    """Train a record's spec again and compare the results.

    The exit code is 0 where they are identical and 1 where not. RUN is six or more digits of a run's id.
    """
    from tempfile import TemporaryDirectory

    from metaformer_ablate.data.folder import DataFolder
    from metaformer_ablate.records.compare import compare, spec_of_record
    from metaformer_ablate.records.store import Store
    from metaformer_ablate.spec.run_spec import SEMANTICS
    from metaformer_ablate.sweep.jobs import Job, make_request
    from metaformer_ablate.sweep.launchers.local import InProcess, devices_of
    from metaformer_ablate.sweep.progress import LiveLine, PlainLines
    from metaformer_ablate.sweep.scheduler import Sweep
    from metaformer_ablate.system.signals import StopRequest

    store, folder = store_of(results), DataFolder.choose(data)
    record = store.find(run)
    spec = spec_of_record(record, init_from)
    folder.require(spec.data.name, spec.data.reader)
    if spec.semantics != SEMANTICS:
        changed = f"run {record.run_id} has semantics {spec.semantics}, and this code {SEMANTICS}"
        if keep is not None:
            raise RequestError(f"--keep {keep}: {changed}: its new record would not be what its id says")
        logger.warning(f"{changed}, which trains the same spec otherwise; CHANGELOG.md says how")
    with TemporaryDirectory(prefix="ablate-reproduce-") as scratch, StopRequest().catching() as stop:
        again = Store(Path(keep or scratch))
        again.check_writable()
        if again.read(spec.run_id) is not None:
            raise RequestError(f"--keep {again.path}: run {spec.run_id} has a record there; choose another folder")
        listener = LiveLine() if sys.stderr.isatty() else PlainLines()
        job = Job(spec, (f"reproduce {record.run_id}",))
        listener.begin([job], record.data["seconds"])
        keeps = keep is not None
        make = partial(make_request, store=again, folder=folder, device=device, keep_checkpoints=keeps)
        try:
            Sweep([job], make, InProcess(devices_of(device)[0], stop), again, listener, stop=stop).run()
        finally:
            if isinstance(listener, LiveLine):
                listener.close()
        tree = compare(record, again.find(spec.run_id))
    if as_json:
        click.echo(json.dumps(tree, indent=1))
    else:
        click.echo(f"run {record.run_id}: {'identical' if tree['identical'] else 'not identical'}")
        for key in ("differences", "environment"):
            for line in tree[key]:
                what = "differs" if key == "differences" else "could explain it" if tree["differences"] else "differs"
                click.echo(f"  {line['what']}: {line['then']} then, {line['now']} now ({what})")
    return 0 if tree["identical"] else 1


_RM_EXAMPLES = examples(
    "ablate rm 3f2a91 77c0de",
)


@click.command("rm", epilog=_RM_EXAMPLES)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", shell_complete=complete_runs)
@options("results", "json")
def rm_command(runs: tuple[str, ...], results: str | None, as_json: bool) -> None:
    """Take records out of the results; none is destroyed.

    They are moved to the folder `aside` in the results folder.
    """
    from metaformer_ablate.records.claims import Claims

    store = store_of(results)
    chosen = list(dict.fromkeys(store.find_id(run) for run in runs))  # all are found before one is moved
    held = Claims(store.path).held()
    for run_id in chosen:
        if run_id in held:
            raise RequestError(f"run {run_id} is being trained by {held[run_id].host} (pid {held[run_id].pid})")
    moved = {run_id: str(store.set_aside(run_id)) for run_id in chosen}
    if as_json:
        click.echo(json.dumps({"moved": moved}, indent=1))
    else:
        click.echo("\n".join(f"{run_id} moved to {place}" for run_id, place in moved.items()))


_MERGE_EXAMPLES = examples(
    "ablate merge /mnt/cluster/results",
    "ablate merge other --results results",
)


@click.command("merge", epilog=_MERGE_EXAMPLES)
@click.argument("folder", metavar="DIR", shell_complete=complete_folders)
@options("results", "json")
def merge_command(folder: str, results: str | None, as_json: bool) -> int:
    """Bring in the records of another results folder.

    Where both have a result, ours stays.

    Only the regular files of a record are copied; links are not followed.
    """
    from metaformer_ablate.records.compare import compare
    from metaformer_ablate.records.store import Store

    theirs, ours = Store(Path(folder)), store_of(results)
    if not theirs.runs.is_dir():
        raise RequestError(f"{folder} is no results folder: it has no folder runs")
    if theirs.runs.is_symlink():
        raise RequestError(f"{theirs.runs} is a link, which merge does not follow; name the folder that it leads into")
    ours.check_writable()
    tree: dict[str, list[str]] = {"brought": [], "there": [], "conflicts": [], "left_out": []}
    for run_id in theirs.ids():
        if theirs.folder(run_id).is_symlink():
            theirs.problems[run_id] = f"{theirs.folder(run_id)}: a link, which merge does not follow"
            continue
        try:
            record, mine = theirs.read(run_id), ours.read(run_id)
            if record is None:
                continue
            if mine is None or (mine.status == "failed" and record.status != "failed"):
                left_out = ours.adopt(record)
                tree["left_out"] += [f"{record.folder / name}" for name in left_out]
                tree["brought"].append(run_id)
            elif record.status == "failed" or compare(mine, record)["identical"]:
                tree["there"].append(run_id)
            else:
                tree["conflicts"].append(run_id)
        except RequestError as error:
            theirs.problems[run_id] = str(error)
    warn_problems(theirs)
    if as_json:
        click.echo(json.dumps({**tree, "problems": list(theirs.problems.values())}, indent=1))
    else:
        rest = f"; {len(tree['left_out'])} files were left out" if tree["left_out"] else ""
        click.echo(f"{len(tree['brought'])} records brought in, {len(tree['there'])} were there already{rest}")
        for path in tree["left_out"]:
            click.echo(visible(f"left out, for it is no regular file of a record: {path}"))
        for run_id in tree["conflicts"]:
            click.echo(f"{run_id} differs from ours, which stays; `ablate reproduce` tells which one comes out again")
    return 1 if tree["conflicts"] or theirs.problems else 0
