"""`ablate sweep`, `trial` and `sync-wandb`: the sweep file for W&B agents, what they call, and records sent later."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from metaformer_ablate.cli.completion import complete_one_experiment, complete_runs
from metaformer_ablate.cli.options import (
    examples,
    names_and_project,
    not_negative,
    one_name,
    options,
    say,
    seeds_of,
    stand_in,
    store_of,
    warn_problems,
)
from metaformer_ablate.errors import RequestError

if TYPE_CHECKING:
    from metaformer_ablate.data.folder import DataFolder
    from metaformer_ablate.records.store import Store
    from metaformer_ablate.sweep.jobs import Job

logger = logging.getLogger(__name__)


_SWEEP_EXAMPLES = examples(
    "ablate sweep pooling_size --seeds 5 --out sweep.yaml",
    "ablate sweep pooling_size --axes model.pool_size=3,5,7 train.lr=1e-3,2e-3",
    "ablate sweep pooling_size --seeds 5 --create --project my-project",
)


@click.command("sweep", epilog=_SWEEP_EXAMPLES)
@click.argument("words", nargs=-1, metavar="EXPERIMENT [KEY.PATH=VALUE]...", shell_complete=complete_one_experiment)
@options("recipe", "seeds")
@click.option("--axes", is_flag=True, help="Sweep a product instead of rows: words are then key.path=v1,v2.")
@options("results", "data", "device")
@click.option("--out", metavar="FILE", help="Write there instead of standard output.")
@click.option("--create", is_flag=True, help="Register it with W&B and print what agents are started with.")
@click.option("--project", metavar="NAME", help="W&B project.")
@click.option("--entity", metavar="NAME", help="W&B user or team.")
def sweep_command(
    words: tuple[str, ...],
    recipe: str | None,
    seeds: str | None,
    axes: bool,
    results: str | None,
    data: str | None,
    device: str,
    out: str | None,
    create: bool,
    project: str | None,
    entity: str | None,
) -> None:
    """A sweep file for W&B agents: each row with each seed.

    With --axes: a product of settings over the baseline instead.
    """
    from metaformer_ablate.data.folder import DataFolder
    from metaformer_ablate.models.user_components import own_parts_file
    from metaformer_ablate.spec.experiment import find, load_experiment, load_recipe
    from metaformer_ablate.spec.plan import plan
    from metaformer_ablate.tracking.sweep_file import (
        check_axes,
        needs_folder,
        read_axes,
        register,
        sweep_file,
        with_whole_path,
    )

    name, overrides = one_name(words, "experiment")
    under = recipe or "digits"
    parameters: dict[str, Any]
    if axes:
        if not overrides:
            raise RequestError("--axes needs what to sweep: key.path=v1,v2, for example model.pool_size=3,5,7")
        parameters, overrides = read_axes(overrides), []
        logger.info(f"{check_axes(name, under, parameters)} combinations, over the baseline of {name}")
    else:
        chosen = plan(name, under, overrides)
        for row, why in chosen.all_reasons().items():
            logger.info(f"left out: row {row!r} is not applicable: {why}")
        parameters = {"row": [row for row, _ in chosen.everything()]}
    folder = DataFolder.choose(data)
    # Whole paths: an agent may be started in any folder, where a name could mean another file, or none.
    command = [sys.executable, "-P", "-m", "metaformer_ablate", "trial", str(find(name, "experiment").resolve())]
    if (parts := own_parts_file()) is not None:
        command = ["${env}", f"ABLATE_PARTS={parts.resolve()}", *command]
    overrides = [with_whole_path(word) for word in overrides]
    if needs_folder(load_experiment(name), load_recipe(under), parameters, overrides):
        command += ["--folder", str(Path.cwd())]
    command += overrides
    command += ["--recipe", str(find(under, "recipe").resolve())]
    command += ["--results", str(store_of(results).path.resolve())]
    command += ["--data", str(folder.path.resolve())] if folder.given else []
    command += ["--device", device] if device != "auto" else []
    text = sweep_file(
        f"{load_experiment(name).name} under {load_recipe(under).name}",
        {**parameters, "seed": seeds_of(seeds) or (0,)},
        command,
        project=project,
        entity=entity,
    )
    if out is not None:
        try:
            Path(out).write_text(text, encoding="utf-8")
        except OSError as error:
            raise RequestError(f"--out {out}: cannot be written: {error.strerror}") from None
    if create:
        click.echo(f"wandb agent {register(text, project, entity)}")
    elif out is None:
        click.echo(text, nl=False)


_TRIAL_EXAMPLES = examples(
    "ablate trial pooling_size row=pool5 seed=3",
    "ablate trial pooling_size --config-json trial.json",
)


@click.command("trial", epilog=_TRIAL_EXAMPLES, context_settings={"ignore_unknown_options": True})
@click.argument(
    "words",
    nargs=-1,
    metavar="EXPERIMENT [row=NAME] [seed=N] [KEY.PATH=VALUE]...",
    shell_complete=complete_one_experiment,
)
@click.option("--config-json", metavar="FILE", help="Settings as JSON, keys dotted or nested: row, seed, recipe, ...")
@click.option("--folder", metavar="DIR", help="Stand in this folder: all other relative paths are of it.")
@options("recipe", "results", "data", "device", "keep-checkpoints", "checkpoint-seconds")
@click.option("--retry-failed", is_flag=True, help="Train a failed run again.")
@options("wandb")
def trial_command(
    words: tuple[str, ...],
    config_json: str | None,
    folder: str | None,
    recipe: str | None,
    results: str | None,
    data: str | None,
    device: str,
    keep_checkpoints: bool,
    checkpoint_seconds: float,
    retry_failed: bool,
    wandb: str | None,
) -> int:
    """Train one run, as a W&B agent or a job script calls it.

    Settings may be --key=value, --key value or --flag, too.

    Under an agent it is logged into the agent's W&B run; elsewhere only with --wandb.
    """
    from metaformer_ablate.data.folder import DataFolder
    from metaformer_ablate.spec.words import as_words
    from metaformer_ablate.sweep.jobs import Job, plan_jobs
    from metaformer_ablate.system.signals import run_supervised
    from metaformer_ablate.tracking.tracking import in_agent
    from metaformer_ablate.tracking.trial import plan_of, read_trial, split_trial

    not_negative("--checkpoint-seconds", checkpoint_seconds)
    config = Path(config_json) if config_json else None
    if folder is not None:
        config = config and config.absolute()
        stand_in(folder)
    everything, project = names_and_project(words, wandb)
    names, settings = split_trial(everything)
    name, others = one_name(names, "experiment")
    trial = read_trial([*settings, *others], config, recipe)
    chosen, row = plan_of(name, trial)
    overrides = as_words(trial.overrides)
    store, of_data = store_of(results), DataFolder.choose(data)
    jobs, _ = plan_jobs([chosen], [trial.seed], store, of_data, retry_failed)
    warn_problems(store)
    store.problems.clear()
    label = f"{chosen.experiment.name}/{row}"
    if trial.row is None and overrides:  # a point of a product, which is not the baseline any more
        label += f" with {' '.join(overrides)}"
    job = replace(jobs[0], rows=(label,)) if jobs else Job(chosen.spec(row, trial.seed), (label,))
    tracked = project is not None or in_agent()
    if not jobs and not tracked:
        return _tell(job, store)
    labels = {"recipe": chosen.recipe.name, "overrides": overrides, "agent": in_agent()}
    options = {"keep_checkpoints": keep_checkpoints, "checkpoint_seconds": checkpoint_seconds}
    work = partial(_trial, job, bool(jobs), store, of_data, device, options, project, labels if tracked else None)
    return work() if os.environ.get("ABLATE_WORKERS") == "0" else run_supervised(work)


def _trial(
    job: Job,
    to_train: bool,
    store: Store,
    folder: DataFolder,
    device: str,
    options: dict[str, Any],
    project: str | None,
    labels: dict[str, Any] | None,
) -> int:
    """Trains a job unless its record is there, and tells W&B of it. Asked to stop, it saves its place first."""
    from metaformer_ablate.api.training import make_ready
    from metaformer_ablate.sweep.jobs import make_request
    from metaformer_ablate.sweep.launchers.base import choose
    from metaformer_ablate.sweep.progress import PlainLines
    from metaformer_ablate.sweep.scheduler import Sweep
    from metaformer_ablate.system.signals import Interrupted, PatientStop
    from metaformer_ablate.tracking.tracking import Tracking

    with PatientStop().catching() as stop:
        tracking, how, versions = Tracking(), None, None
        if labels is not None:
            from metaformer_ablate.system.provenance import versions as of_packages

            how, versions = tracking.resolve(project, **labels), of_packages()
            how = how and {**how, "rows": list(job.rows)}
        # From here on, for W&B takes a run back that has not begun within the hour, and another sweep may train it.
        fingerprint = folder.fingerprint(job.spec.data.name, job.spec.data.reader)
        with tracking.run(how, job.spec, store, fingerprint, versions) as tracker:
            if to_train:
                make_ready([job], store, folder)
                launcher = choose("local", specs=[job.spec], device=device, stop=stop, workers=0, tracking=tracking)
                listener = PlainLines()
                listener.begin([job])
                make = partial(make_request, store=store, folder=folder, device=device, wandb=how, **options)
                try:
                    Sweep([job], make, launcher, store, listener, stop=stop).run()
                except Interrupted as interruption:
                    interruption.advice = "the same command goes on from the run's checkpoint"
                    raise
            if tracker is not None:
                tracker.end(store.find(job.spec.run_id))
    return _tell(job, store)


def _tell(job: Job, store: Store) -> int:
    """Prints how a run ended; its exit code."""
    from metaformer_ablate.sweep.progress import describe_result

    record = store.find(job.spec.run_id)
    say(f"{record.run_id} {job.name}: {describe_result(record)}")
    return 1 if record.status == "failed" else 0


_SYNC_WANDB_EXAMPLES = examples(
    "ablate sync-wandb",
    "ablate sync-wandb 3f2a91 --project my-project",
)


@click.command("sync-wandb", epilog=_SYNC_WANDB_EXAMPLES)
@click.argument("runs", nargs=-1, metavar="[RUN]...", shell_complete=complete_runs)
@options("results")
@click.option("--project", metavar="NAME", help="W&B project (default: $WANDB_PROJECT, else metaformer_ablate).")
@click.option("--entity", metavar="NAME", help="W&B user or team.")
def sync_wandb_command(runs: tuple[str, ...], results: str | None, project: str | None, entity: str | None) -> int:
    """Send records to W&B that it does not have, each once."""
    from metaformer_ablate.records.compare import read_spec
    from metaformer_ablate.records.names import names_of
    from metaformer_ablate.tracking.sent import is_sent
    from metaformer_ablate.tracking.tracking import Tracking

    store = store_of(results)
    records = [store.find(run) for run in dict.fromkeys(runs)] or list(store)
    warn_problems(store)
    tracking = Tracking()
    how = tracking.resolve(project, entity)
    if how is None:
        logger.info("nothing is sent: wandb is not installed, or W&B is switched off")
        return 1
    left = [record for record in records if not is_sent(store, record, how)]
    specs = {}
    for record in left:
        try:
            specs[record.run_id] = read_spec(record)
        except RequestError as error:
            logger.info(f"not sent: {error}")
    names = names_of(list(specs.values()), closest=False)
    for record in left:
        if (spec := specs.get(record.run_id)) is None:
            continue
        labels = {"rows": list(names[spec.run_id].rows), "recipe": names[spec.run_id].recipe}
        of_record = (record.data["data_fingerprint"], record.data.get("versions"))
        with tracking.run({**how, **labels}, spec, store, *of_record) as tracker:
            if tracker is not None:
                tracker.end(record)
    sent = sum(is_sent(store, record, how) for record in left)
    to = how["project"] if how["mode"] == "online" else "W&B's offline files, for `wandb sync`"
    say(f"{sent} records written to {to}; {len(records) - len(left)} were there")
    return 0 if sent == len(left) else 1
