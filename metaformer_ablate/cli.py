"""The `ablate` command: parse, call, print. Imports no torch until a command needs it.

Exit codes: 0 everything asked for is there (a diverged run is a result), 1 a run failed or is left over, 2 the request
was wrong, 130 interrupted, 128 + n on signal n.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from metaformer_ablate import __version__
from metaformer_ablate.yaml_reader import RequestError


class Interrupted(BaseException):
    """A signal asked the sweep to stop. Not an Exception: nothing on the way may take it for a failed run."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: runs a command and exits with a code of the contract, without a traceback for bad input."""
    try:
        sys.exit(_run(list(sys.argv[1:] if arguments is None else arguments)) or 0)
    except BrokenPipeError:  # `ablate table | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _run(arguments: list[str]) -> int | None:
    from metaformer_ablate.records import StoreError

    try:
        # Not `ablate.main`: of a reader that left (`ablate table | head`) that makes a failure, code 1.
        with ablate.make_context("ablate", arguments) as context:
            return ablate.invoke(context)
    except click.exceptions.Exit as stop:  # --help and --version
        return stop.exit_code
    except RequestError as error:
        return _fail(str(error), 2)
    except StoreError as error:
        return _fail(f"{error}; what was finished before is kept", 1)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        return _fail(_one_sentence(error), 2)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", 130)
    except Interrupted as stop:
        return _fail(f"stopped by {stop}", 128 + stop.number)


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _one_sentence(error: click.ClickException) -> str:
    from metaformer_ablate.spec import unknown

    context = getattr(error, "ctx", None)
    if isinstance(error, click.NoSuchOption) and context is not None:
        names = sorted(option for p in context.command.params for option in p.opts if option.startswith("--"))
        return f"{context.command_path}: {unknown('option', error.option_name, names)}"
    text = " ".join(error.format_message().split()).rstrip(".")
    return f"{context.command_path}: {text}" if context is not None else text


class _Commands(click.Group):
    """Names the commands when one is unknown."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        from metaformer_ablate.spec import unknown

        if args and args[0] not in self.commands:
            raise RequestError(unknown("command", args[0], self.commands))
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="ablate")
def ablate() -> None:
    """Ablations of MetaFormer: which part of the model matters?"""


def _options(*names: str) -> Callable[[Any], Any]:
    """The options that recur, by name, in the order given."""
    known = {
        "recipe": click.option("--recipe", metavar="NAME", help="Where it is measured (default: digits)."),
        "seeds": click.option("--seeds", metavar="N|LIST", help="3 means seeds 0,1,2; or a list: 0,2,5."),
        "results": click.option(
            "--results", metavar="DIR", help="Folder of records (default: $ABLATE_RESULTS, else results)."
        ),
        "data": click.option(
            "--data", metavar="DIR", help="Folder of data sets (default: $ABLATE_DATA, else a cache)."
        ),
        "device": click.option("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N."),
        "json": click.option("--json", "as_json", is_flag=True, help="Machine-readable output on standard output."),
    }

    def decorate(command: Any) -> Any:
        for name in reversed(names):
            command = known[name](command)
        return command

    return decorate


def _split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names, then overrides. A word with a dot and no `=` is an override gone wrong, unless it is a path."""
    names: list[str] = []
    overrides: list[str] = []
    for word in words:
        is_name = "=" not in word and ("." not in word or "/" in word or word.endswith((".yaml", ".yml")))
        (names if is_name else overrides).append(word)
    return names, overrides


def _one_name(words: Sequence[str], what: str) -> tuple[str, list[str]]:
    names, overrides = _split_words(words)
    if len(names) != 1:
        found = f"found {len(names)}: {' '.join(names)}" if names else "found none"
        raise RequestError(f"give one {what}, then overrides as key.path=value; {found}")
    return names[0], overrides


def _store(option: str | None) -> Any:
    from metaformer_ablate.records import Store

    path = Path(option or os.environ.get("ABLATE_RESULTS") or "results")
    if path.exists() and not path.is_dir():
        raise RequestError(f"{'--results' if option else 'ABLATE_RESULTS'} is {str(path)!r}, which is not a folder")
    return Store(path)


def _seeds(option: str | None) -> tuple[int, ...] | None:
    from metaformer_ablate.experiment import parse_seeds

    return None if option is None else parse_seeds(option)


def _tell_problems(store: Any) -> None:
    from metaformer_ablate.progress import say

    for problem in store.problems.values():
        say(f"warning: {problem}")


@ablate.command("list")
@_options("json")
def list_command(as_json: bool) -> None:
    """Experiments, recipes, mixers, norms, activations and named models."""
    from metaformer_ablate.experiment import find_all, first_title
    from metaformer_ablate.models.parts import ACTIVATIONS, MIXERS, NORMS
    from metaformer_ablate.models.zoo import NAMED, SIZES

    files = {
        kind: {name: {"title": first_title(path), "path": str(path)} for name, path in find_all(kind).items()}
        for kind in ("experiment", "recipe")
    }
    parts = {"token mixers": MIXERS, "norms": NORMS, "activations": ACTIVATIONS}
    sizes = {name: {"depths": list(size.depths), "dims": list(size.dims)} for name, size in SIZES.items()}
    if as_json:
        tree: dict[str, Any] = {"experiments": files["experiment"], "recipes": files["recipe"]}
        tree |= {
            title.replace(" ", "_"): {
                name: {"about": part.about, "reads": list(part.reads)} for name, part in table.items()
            }
            for title, table in parts.items()
        }
        tree |= {"models": {name: dict(values) for name, values in NAMED.items()}, "sizes": sizes}
        click.echo(json.dumps(tree, indent=1))
        return
    for kind, found in files.items():
        _section(f"{kind}s", {name: f"{entry['title']}  ({entry['path']})" for name, entry in found.items()})
    for title, table in parts.items():
        _section(title, {name: part.about for name, part in table.items()})
    _section("sizes", {name: f"depths {size['depths']}, dims {size['dims']}" for name, size in sizes.items()})
    click.echo("named models\n  " + " ".join(NAMED))


def _section(title: str, lines: dict[str, str]) -> None:
    width = max((len(name) for name in lines), default=0)
    click.echo(title)
    for name, text in lines.items():
        click.echo(f"  {name:<{width}}  {text}")
    click.echo()


@ablate.command("show")
@click.argument("words", nargs=-1, metavar="EXPERIMENT [KEY.PATH=VALUE]...")
@_options("recipe", "seeds", "results", "data", "json")
def show_command(
    words: tuple[str, ...],
    recipe: str | None,
    seeds: str | None,
    results: str | None,
    data: str | None,
    as_json: bool,
) -> None:
    """The rows of an experiment: what each sets, its cost, the paper's numbers, which runs exist. Trains nothing."""
    from metaformer_ablate.cost import count
    from metaformer_ablate.data.files import DataFolder
    from metaformer_ablate.experiment import plan, row_notes
    from metaformer_ablate.sweep import as_dict, estimate_seconds, jobs_of, seeds_with_records

    name, overrides = _one_name(words, "experiment")
    chosen = plan(name, recipe or "digits", overrides)
    store, folder = _store(results), DataFolder.choose(data)
    wanted = _seeds(seeds) or seeds_with_records(chosen, store)
    jobs, states = jobs_of([chosen], wanted, store, folder)
    by_id = {state.run_id: state for state in states}
    rows = []
    for row in chosen.experiment.rows.values():
        spec = chosen.specs.get(row.name)  # none where the row is not applicable
        cost = None if spec is None else count(spec)
        rows.append(
            {
                "name": row.name,
                "label": row.label,
                "group": row.group,
                "set": row.sets(chosen.recipe.name),
                "params": cost and cost.params,
                "frozen_params": cost and cost.frozen_params,
                "macs": cost and cost.macs,
                "uncounted": cost and cost.uncounted,
                "pooling_additions": cost and cost.pooling_additions,
                "pooling_bytes": cost and cost.pooling_bytes,
                "paper": row.paper,
                "notes": row_notes(chosen, row.name),
                "runs": [] if spec is None else [as_dict(by_id[spec.with_seed(seed).run_id]) for seed in wanted],
            }
        )
    tree = {
        "experiment": chosen.experiment.name,
        "recipe": chosen.recipe.name,
        "baseline": chosen.experiment.baseline,
        "rows": rows,
        "to_run": len(jobs),
        "estimated_seconds": round(estimate_seconds(jobs, states, lambda spec: count(spec).macs), 1),
    }
    _tell_problems(store)
    click.echo(json.dumps(tree, indent=1) if as_json else _show_text(chosen, tree), nl=as_json)


def _show_text(chosen: Any, tree: dict[str, Any]) -> str:
    import io

    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from metaformer_ablate.analysis.tables import format_billions, format_millions, text_width
    from metaformer_ablate.progress import duration

    title = f"{chosen.experiment.title} ({tree['experiment']}) under {chosen.recipe.title} ({tree['recipe']})"
    drawn = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    headings = ["Row", "Label", "Params (M)", "MACs (G)"]
    headings += ["Pooling: additions (M), MB"] if any(row["pooling_additions"] for row in tree["rows"]) else []
    headings += ["Paper: params, MACs, top-1", "Runs"]
    for heading in headings:
        drawn.add_column(heading, justify="right" if "(" in heading else "left", overflow="fold")
    for row in tree["rows"]:
        name = row["name"] + (" *" if row["name"] == tree["baseline"] else "")
        paper = row["paper"]
        printed = ", ".join(str(paper.get(key, "-")) for key in ("params_m", "macs_g", "top1")) if paper else "-"
        counts: dict[str, int] = {}
        for run in row["runs"]:
            counts[run["status"]] = counts.get(run["status"], 0) + 1
        runs = ", ".join(f"{n} {status}" for status, n in counts.items()) or "not applicable"
        cells = [name, row["label"], format_millions(row["params"], row["frozen_params"]), format_billions(row["macs"])]
        if "Pooling: additions (M), MB" in headings:
            additions, moved = row["pooling_additions"], row["pooling_bytes"]
            cells.append(f"{additions / 1e6:.2f}, {moved / 1e6:.2f}" if additions else "-")
        cells += [printed, runs]
        drawn.add_row(*(Text(cell) for cell in cells))
    stream = io.StringIO()
    console = Console(file=stream, width=text_width(), color_system=None, highlight=False)
    console.print(drawn)
    for row in tree["rows"]:
        sets = ", ".join(f"{path}={json.dumps(value)}" for path, value in row["set"].items())
        for note in [f"sets {sets}" if sets else "", *row["notes"]]:
            if note:
                console.print(Text(f"{row['name']}: {note}"))
    console.print(Text(f"* baseline. To run: {tree['to_run']}, about {duration(tree['estimated_seconds'])}."))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


@ablate.command("run")
@click.argument("words", nargs=-1, metavar="EXPERIMENT... [KEY.PATH=VALUE]...")
@_options("recipe", "seeds", "results", "data", "device")
@click.option("--dry-run", is_flag=True, help="Stop after the plan.")
@click.option("--retry-failed", is_flag=True, help="Train failed runs again; diverged ones are results.")
@click.option("--max-hours", type=float, metavar="H", help="Begin no run after H hours.")
@_options("json")
def run_command(
    words: tuple[str, ...],
    recipe: str | None,
    seeds: str | None,
    results: str | None,
    data: str | None,
    device: str,
    dry_run: bool,
    retry_failed: bool,
    max_hours: float | None,
    as_json: bool,
) -> int:
    """Train the runs that experiments lack, then print their tables."""
    from metaformer_ablate.analysis.tables import build_table, render
    from metaformer_ablate.data.files import DataFolder
    from metaformer_ablate.experiment import plan
    from metaformer_ablate.progress import say
    from metaformer_ablate.sweep import jobs_of

    names, overrides = _split_words(words)
    if not names:
        raise RequestError("give the name of an experiment; `ablate list` shows them")
    if max_hours is not None and not max_hours > 0:
        raise RequestError(f"--max-hours is {max_hours:g}; allowed: a number above 0")
    plans = [plan(name, recipe or "digits", overrides) for name in dict.fromkeys(names)]
    wanted = _seeds(seeds) or (0,)
    store, folder = _store(results), DataFolder.choose(data)
    jobs, states = jobs_of(plans, wanted, store, folder, retry_failed)
    _tell_problems(store)
    code = 0
    if dry_run:
        _announce(jobs, states)
        for job in jobs:
            say(f"  {job.spec.run_id}  {job.name}" + (f" (also {', '.join(job.rows[1:])})" if job.rows[1:] else ""))
    elif jobs:
        store.check_writable()
        code = _train(jobs, states, store, folder, device, max_hours)
        store.problems.clear()
    tables = [build_table(chosen, store, folder, wanted) for chosen in plans]
    failed = [r for table in tables for row in table["rows"] for r in row["runs"] if r["status"] == "failed"]
    if as_json:
        states_now = {r["run_id"]: r for table in tables for row in table["rows"] for r in row["runs"]}
        tree = {"tables": tables, "runs": list(states_now.values()), "to_run": len(jobs) if dry_run else 0}
        click.echo(json.dumps(tree, indent=1, allow_nan=False))
    elif not dry_run:
        click.echo("\n".join(render(table, "text") for table in tables), nl=False)
    for run in {run["run_id"]: run for run in failed}.values():
        log = store.folder(run["run_id"]) / "log.txt"
        say(f"failed: run {run['run_id']} (seed {run['seed']}), log {log}; again with --retry-failed")
    return 1 if failed and not dry_run else code


def _announce(jobs: Any, states: Any) -> float:
    """Says what is to be trained and about how many seconds that takes, and returns these."""
    from metaformer_ablate.cost import count
    from metaformer_ablate.progress import duration, say
    from metaformer_ablate.sweep import estimate_seconds

    seconds = estimate_seconds(jobs, states, lambda spec: count(spec).macs)
    done = len(states) - len(jobs)
    say(f"{len(states)} runs, {done} have a record, {len(jobs)} to train: about {duration(seconds)}")
    return seconds


def _train(jobs: Any, states: Any, store: Any, folder: Any, device: str, max_hours: float | None) -> int:
    """Trains jobs with a live view; says how to go on where it is stopped."""
    from metaformer_ablate.progress import LiveLine, PlainLines, say

    def stop(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one stops at once
        raise Interrupted(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    listener = LiveLine() if sys.stderr.isatty() else PlainLines()
    finished = 0
    try:
        from metaformer_ablate.run import Runner, choose_device
        from metaformer_ablate.sweep import run_jobs

        runner = Runner(store, folder, choose_device(device))
        runner.data(jobs[0].spec.data)  # what is missing is said before anything is announced
        listener.begin(jobs, _announce(jobs, states))
        outcome = run_jobs(jobs, runner, listener, max_hours)
        finished = len(outcome.done)
        if outcome.stopped:
            say(f"{outcome.stopped}: {len(outcome.left)} runs are left; the same command goes on with them")
            return 1
        return 0
    except Interrupted as interruption:
        finished = getattr(listener, "finished", finished)
        say(
            f"{finished} finished runs are kept; the same command goes on with the {len(jobs) - finished} that are left"
        )
        raise interruption
    finally:
        if isinstance(listener, LiveLine):
            listener.close()
        for number, handler in before.items():
            signal.signal(number, handler)


@ablate.command("table")
@click.argument("words", nargs=-1, metavar="EXPERIMENT [KEY.PATH=VALUE]...")
@_options("recipe", "seeds", "results", "data")
@click.option("--format", "style", default="text", metavar="NAME", help="text, markdown, csv or json.")
@click.option("--out", metavar="FILE", help="Write there instead of standard output.")
@_options("json")
def table_command(
    words: tuple[str, ...],
    recipe: str | None,
    seeds: str | None,
    results: str | None,
    data: str | None,
    style: str,
    out: str | None,
    as_json: bool,
) -> None:
    """The table of an experiment, from its records alone."""
    from metaformer_ablate.analysis.tables import FORMATS, build_table, render
    from metaformer_ablate.data.files import DataFolder
    from metaformer_ablate.experiment import plan
    from metaformer_ablate.spec import unknown

    style = "json" if as_json else style
    if style not in FORMATS:
        raise RequestError(f"--format: {unknown('format', style, FORMATS)}")
    name, overrides = _one_name(words, "experiment")
    chosen = plan(name, recipe or "digits", overrides)
    store = _store(results)
    table = build_table(chosen, store, DataFolder.choose(data), _seeds(seeds))
    _tell_problems(store)
    text = render(table, style)
    if out is None:
        click.echo(text, nl=False)
        return
    try:
        Path(out).write_text(text, encoding="utf-8")
    except OSError as error:
        raise RequestError(f"--out {out}: cannot be written: {error.strerror}") from None


@ablate.command("cost")
@click.argument("words", nargs=-1, metavar="MODEL-OR-EXPERIMENT [KEY.PATH=VALUE]...")
@click.option("--recipe", metavar="NAME", help="Resolution and geometry (default: imagenet for a model, else digits).")
@_options("device")
@click.option("--batch", default=8, show_default=True, help="Images at once when speed is measured.")
@click.option("--no-speed", is_flag=True, help="Count only.")
@_options("json")
def cost_command(
    words: tuple[str, ...], recipe: str | None, device: str, batch: int, no_speed: bool, as_json: bool
) -> None:
    """Parameters, multiply-adds by operator, what was not counted, images a second and peak memory."""
    from dataclasses import asdict

    from metaformer_ablate.cost import count, macs_at_224, measure_speed
    from metaformer_ablate.experiment import find_all, load_recipe, plan
    from metaformer_ablate.models.zoo import NAMED
    from metaformer_ablate.spec import Layer, override_layer, resolve, unknown

    if batch < 1:
        raise RequestError(f"--batch is {batch}; allowed: an integer of at least 1")
    name, overrides = _one_name(words, "model or experiment")
    if name in NAMED:
        recipe = recipe or "imagenet"
        layers = [load_recipe(recipe).layer, Layer({"model.name": name}, lambda path: "command line")]
        specs = {name: resolve([*layers, override_layer(overrides)])}
    elif name in find_all("experiment") or name.endswith((".yaml", ".yml")):
        recipe = recipe or "digits"
        specs = plan(name, recipe, overrides).specs
    else:
        raise RequestError(unknown("model or experiment", name, [*NAMED, *find_all("experiment")]))
    rows = []
    for row, spec in specs.items():
        cost = count(spec)
        line: dict[str, Any] = {"name": row, **asdict(cost), "macs_224": macs_at_224(spec)}
        line["image_size"] = spec.data.image_size
        if not no_speed:
            from metaformer_ablate.run import choose_device

            line |= asdict(measure_speed(spec, choose_device(device), batch))
        rows.append(line)
    if as_json:
        click.echo(json.dumps({"name": name, "recipe": recipe, "rows": rows}, indent=1))
        return
    for line in rows:
        click.echo(_cost_text(line, str(recipe)))


def _cost_text(line: dict[str, Any], recipe: str) -> str:
    frozen = f", {line['frozen_params']:,} frozen" if line["frozen_params"] else ""
    scales = line["params"] - line["layer_scale_params"]
    at_224 = "" if line["macs_224"] is None else f" ({line['macs_224']:,} at 224 x 224)"
    text = [f"{line['name']} at {line['image_size']} x {line['image_size']} (recipe {recipe})"]
    text += [f"  parameters          {line['params']:,} trained{frozen} ({scales:,} without LayerScale, as in table 1)"]
    text += [f"  multiply-adds       {line['macs']:,} an image{at_224}"]
    text += [f"    {operator:<30}{macs:,}" for operator, macs in line["macs_by_operator"].items()]
    text += ["  not counted         " + ", ".join(f"{op} ({calls} calls)" for op, calls in line["uncounted"].items())]
    text += [f"  activations         {line['activations']:,} elements out of convolutions and matrix products"]
    if line["pooling_additions"]:
        moved = f"{line['pooling_bytes']:,} bytes moved in fp32"
        text += [f"  pooling             {line['pooling_additions']:,} additions, {moved}"]
    if "images_per_second" in line:
        memory = line["peak_memory_bytes"]
        how = f"batch {line['batch_size']}, fp32, {line['device']}, {line['threads']} threads"
        text += [f"  inference           {line['images_per_second']:,.1f} images a second ({how})"]
        shown = "unknown" if memory is None else f"{memory / 2**20:,.0f} MiB above the model"
        text += [f"  peak memory         {shown}"]
    return "\n".join(text)
