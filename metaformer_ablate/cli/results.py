"""`ablate reproduce`, `rm` and `merge`: whether a record comes out again, records out and in."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from functools import partial
from pathlib import Path

import click

from metaformer_ablate.cli.completion import complete_folders, complete_runs
from metaformer_ablate.cli.options import examples, options, say, store_of
from metaformer_ablate.errors import RequestError

logger = logging.getLogger(__name__)


_REPRODUCE_EXAMPLES = examples(
    "ablate reproduce 3f2a91",
    "ablate reproduce 3f2a91 --keep again",
)


@click.command("reproduce", epilog=_REPRODUCE_EXAMPLES)
@click.argument("run", metavar="RUN", shell_complete=complete_runs)
@options("results", "data", "device", "class")
@click.option("--init-from", metavar="FILE", help="The weights it started from, where it started from a file.")
@click.option("--keep", metavar="DIR", help="Keep the new record and its weights in this results folder.")
@options("json")
def reproduce_command(
    run: str,
    results: str | None,
    data: str | None,
    device: str,
    own_class: tuple[str, ...],
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
    from metaformer_ablate.sweep.progress import listener_for
    from metaformer_ablate.sweep.scheduler import Sweep
    from metaformer_ablate.system.signals import Interrupted, StopRequest

    store, folder = store_of(results), DataFolder.choose(data)
    record = store.find(run)
    spec = spec_of_record(record, init_from, own_class)
    folder.require(spec.data.name, spec.data.reader)
    if spec.semantics != SEMANTICS:
        changed = f"run {record.run_id} has semantics {spec.semantics}, and this code {SEMANTICS}"
        if keep is not None:
            raise RequestError(f"--keep {keep}: {changed}: its new record would not be what its id says")
        logger.warning(f"{changed}, which trains the same spec differently; CHANGELOG.md says how")
    with TemporaryDirectory(prefix="ablate-reproduce-") as scratch, StopRequest().catching() as stop:
        again = Store(Path(keep or scratch))
        again.check_writable()
        if again.read(spec.run_id) is not None:
            raise RequestError(f"--keep {again.path}: run {spec.run_id} has a record there; choose another folder")
        listener = listener_for(sys.stderr)
        job = Job(spec, (f"reproduce {record.run_id}",))
        listener.begin([job], record.data["seconds"])
        keeps = keep is not None
        make = partial(make_request, store=again, folder=folder, device=device, keep_checkpoints=keeps)
        try:
            Sweep([job], make, InProcess(devices_of(device)[0], stop), again, listener, stop=stop).run()
        except Interrupted as interruption:
            kept = "the same command goes on from its checkpoint" if keeps else "what was trained is not kept"
            interruption.advice = f"{kept}; the record of run {record.run_id} is as it was"
            raise
        finally:
            listener.close()
        tree = compare(record, again.find(spec.run_id))
    if as_json:
        click.echo(json.dumps(tree, indent=1))
    else:
        say(f"run {record.run_id}: {'identical' if tree['identical'] else 'not identical'}")
        for key in ("differences", "environment"):
            for line in tree[key]:
                what = "differs" if key == "differences" else "could explain it" if tree["differences"] else "differs"
                say(f"  {line['what']}: {line['then']} then, {line['now']} now ({what})")
    return 0 if tree["identical"] else 1


_RM_EXAMPLES = examples(
    "ablate rm 3f2a91 77c0de",
)


@click.command("rm", epilog=_RM_EXAMPLES)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", shell_complete=complete_runs)
@options("results", "json")
def rm_command(runs: tuple[str, ...], results: str | None, as_json: bool) -> None:
    """Take records out of the results; `ablate merge` takes them back.

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
    undo = " ".join(["ablate merge", *map(shlex.quote, moved.values()), *_results_words(results)])
    if as_json:
        click.echo(json.dumps({"moved": moved, "undo": undo}, indent=1))
        return
    lines = [f"{run_id} moved to {place}" for run_id, place in moved.items()]
    say("\n".join([*lines, f"Undo: {undo}"]))


def _results_words(results: str | None) -> list[str]:
    return [] if results is None else ["--results", shlex.quote(results)]


_MERGE_EXAMPLES = examples(
    "ablate merge /mnt/cluster/results",
    "ablate merge results/aside",
)


@click.command("merge", epilog=_MERGE_EXAMPLES)
@click.argument("folders", nargs=-1, required=True, metavar="DIR...", shell_complete=complete_folders)
@options("results", "json")
def merge_command(folders: tuple[str, ...], results: str | None, as_json: bool) -> int:
    """Bring in the records of other results folders.

    Or take back what `ablate rm` moved aside.

    DIR is a results folder, its folder `aside`, or one run in that. Where both have a result, ours stays. Only the
    regular files of a record are copied; links are not followed.
    """
    from dataclasses import asdict

    from metaformer_ablate.records.merging import merge

    ours = store_of(results)
    done = merge(ours, [Path(folder) for folder in folders])
    for problem in done.problems.values():
        logger.warning(problem)
    if as_json:
        click.echo(json.dumps({**asdict(done), "problems": list(done.problems.values())}, indent=1))
    else:
        rest = f"; {len(done.left_out)} files were left out" if done.left_out else ""
        say(f"{len(done.brought)} runs brought in, {len(done.there)} were there already{rest}")
        for path in done.left_out:
            say(f"left out, as it is not a regular file of a record: {path}")
        for run_id in done.conflicts:
            say(f"{run_id} differs from ours, which is kept; `ablate reproduce {run_id}` tells whether ours repeats")
    return 1 if done.conflicts or done.problems else 0
