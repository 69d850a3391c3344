"""The checklist of an experiment for a paper's appendix: what was run, for how long, on what, and on which splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from metaformer_ablate.analysis.escapes import beyond_pdflatex, escape_latex
from metaformer_ablate.analysis.tables.table import build_table
from metaformer_ablate.analysis.tables.types import Table
from metaformer_ablate.data.folder import DataFolder
from metaformer_ablate.errors import visible
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.status import of_same_data
from metaformer_ablate.records.store import Store
from metaformer_ablate.settings.layers import flatten
from metaformer_ablate.spec.plan import Plan

SUFFIXES = (".txt", ".md", ".tex")


@dataclass(frozen=True)
class Checklist:
    """What is listed, as (what it is about, sentences), and how many records of the experiment it is made from."""

    title: str
    items: tuple[tuple[str, str], ...]
    records: int


def build_checklist(plan: Plan, store: Store, folder: DataFolder, seeds: Sequence[int] | None = None) -> Checklist:
    """The checklist of a plan from its records, and of what else the results folder holds of the same data."""
    table = build_table(plan, store, folder, seeds, spread=False)
    runs = [run for row in (*table.rows, *(table.interactions or ())) for run in row.runs]
    records = [run.record for run in runs if run.record is not None]
    in_table = {run.run_id for run in runs}
    tuning, others = of_same_data(plan, store, in_table)
    items = (
        ("Runs", _runs(table)),
        ("Seeds", _seeds(table)),
        ("Tuning", _tuning(plan, store, tuning)),
        ("Other runs", _others(others)),
        ("Device hours", _hours({"of the table": records, "of tuning": tuning, "of other runs": others})),
        ("Hardware", _listed(_devices(records)) or "unknown: there are no records"),
        ("Software", _software(records)),
        ("Data and splits", _splits(plan, table, records)),
        ("Training", _training(plan)),
        ("Numbers", _numbers(table)),
    )
    return Checklist(f"Checklist of {table.title}", items, len(records))


def _runs(table: Table) -> str:
    together = table.interactions or ()
    statuses = Counter(run.status for row in (*table.rows, *together) for run in row.runs)
    also = f" and {_counted(len(together), 'combination')} of two" if together else ""
    text = (
        f"{_counted(sum(statuses.values()), 'run')} of {_counted(len(table.rows), 'row')}{also}: {_statuses(statuses)}."
    )
    ended = [f"{row.name} seed {run.seed}" for row in table.rows for run in row.runs if run.status == "diverged"]
    return text + (f" Diverged: {', '.join(ended)}; these are in no mean." if ended else "")


def _statuses(statuses: Mapping[str, int]) -> str:
    """All that matter, a zero said too."""
    named = ["ok", "diverged", "failed", *(s for s in statuses if s not in ("ok", "diverged", "failed"))]
    return ", ".join(f"{statuses.get(status, 0)} {status}" for status in named)


def _seeds(table: Table) -> str:
    counted: dict[str, list[str]] = {}
    for row in table.rows:
        seeds = ", ".join(str(run.seed) for run in row.runs if run.status == "ok")
        counted.setdefault(seeds or "none", []).append(row.name)
    if len(counted) == 1:
        return f"{next(iter(counted))} of every row; the same seed sees the same images in the same order."
    return "; ".join(f"{seeds} of {', '.join(rows)}" for seeds, rows in counted.items()) + "."


def _tuning(plan: Plan, store: Store, tuning: Sequence[Record]) -> str:
    """What the held-out runs were of, by the settings that differ among them."""
    chosen = store.path / "tuned" / f"{plan.key}.yaml"
    kept = f" What was chosen stands in {chosen.name}." if chosen.is_file() else ""
    if not tuning:
        return (
            "The results folder has no run on held-out training images (data.evaluate_on=holdout); "
            f"what left no record there is not known here.{kept}"
        )
    statuses = Counter(record.status for record in tuning)
    tried: dict[str, set[str]] = {}
    for record in tuning:
        for path, value in flatten(record.spec(), lambda path: "spec").items():
            if path != "seed":
                tried.setdefault(path, set()).add(str(value))
    varied = [f"{path} ({', '.join(sorted(values))})" for path, values in sorted(tried.items()) if len(values) > 1]
    what = f"; tried were {'; '.join(varied)}" if varied else ""
    return f"{_counted(len(tuning), 'run')} on held-out training images: {_statuses(statuses)}{what}.{kept}"


def _others(others: Sequence[Record]) -> str:
    if not others:
        return "None of the same data in the results folder."
    statuses = Counter(record.status for record in others)
    return f"{_counted(len(others), 'run')} of the same data that are not in the table: {_statuses(statuses)}."


def _hours(groups: Mapping[str, Sequence[Record]]) -> str:
    """By the clocks of the records, which also ran while other work did."""
    parts = []
    for name, records in groups.items():
        by_device: dict[str, float] = {}
        for record in records:
            device = str(record.data.get("device") or "an unknown device")
            by_device[device] = by_device.get(device, 0.0) + float(record.data.get("seconds") or 0.0)
        if by_device:
            lost = sum(float(r.data.get("seconds") or 0.0) for r in records if r.status != "ok")
            shown = ", ".join(f"{seconds / 3600:.2f} on {device}" for device, seconds in by_device.items())
            parts.append(f"{name} {shown}" + (f" ({lost / 3600:.2f} of runs that are not ok)" if lost else ""))
    return ("By the records' clocks: " + "; ".join(parts) + ".") if parts else "None."


def _devices(records: Iterable[Record]) -> dict[str, int]:
    return Counter(str(record.data.get("device") or "an unknown device") for record in records)


def _software(records: Sequence[Record]) -> str:
    versions: dict[str, set[str]] = {}
    for record in records:
        for package, version in (record.data.get("versions") or {}).items():
            versions.setdefault(package, set()).add(str(version))
    gits = [record.data.get("git") or {} for record in records]
    commits = sorted({str(git["commit"])[:10] for git in gits if git.get("commit")})
    dirty = sum(bool(git.get("dirty")) for git in gits)
    parts = [f"{package} {' and '.join(sorted(found))}" for package, found in versions.items()]
    parts += [f"code at {' and '.join(commits)}"] if commits else []
    parts += [f"{_counted(dirty, 'run')} from a checkout with uncommitted changes"] if dirty else []
    return (", ".join(parts) or "unknown") + "."


def _splits(plan: Plan, table: Table, records: Sequence[Record]) -> str:
    found: dict[str, None] = {}
    for spec in plan.specs.values():
        trained, evaluated = spec.data.split_sizes()
        split = "its test split" if spec.data.evaluate_on == "test" else "a held-out tenth of the training images"
        found[f"{spec.data.name}: {trained:,} images to train on, {evaluated:,} to evaluate on ({split})"] = None
    prints = sorted({str(record.data["data_fingerprint"]) for record in records if record.data["data_fingerprint"]})
    text = "; ".join(found) + (f"; fingerprint {' and '.join(prints)}" if prints else "")
    return f"{text}. Reported is {table.metric.phrase} at the last epoch; nothing is chosen on that split."


def _training(plan: Plan) -> str:
    """The baseline's, and what the rows set of it."""
    spec = plan.specs.get(plan.experiment.baseline)
    if spec is None:
        return "The baseline does not apply under this recipe."
    train = spec.train
    length = f"{train.steps:,} steps" if train.steps else _counted(train.epochs or 0, "epoch")
    text = f"{length}, batch {train.batch_size}, {train.optimizer} at learning rate {train.lr:g}, "
    text += f"weight decay {train.weight_decay:g}, schedule {train.schedule}"
    own = [
        f"{name} sets {path} to {value}"
        for name, row in plan.experiment.rows.items()
        for path, value in row.sets(plan.recipe.name).items()
        if path.startswith(("train.", "data."))
    ]
    return f"{text}. " + ("; ".join(own) + "." if own else "The same of every row.")


def _numbers(table: Table) -> str:
    tested = next((row.delta.comparisons for row in table.rows if row.delta and row.delta.comparisons), 0)
    text = f"{table.metric.label}: means over the ok runs with standard deviation (n - 1) and 95% t interval."
    if not tested:
        return f"{text} No difference was tested."
    over = f"corrected by Holm over {_counted(tested, 'comparison')}"
    test = "the paired t test" if table.first is None else f"Stein's two-stage t test by the first {table.first} seeds"
    return f"{text} Differences to {table.baseline} are paired by seed, with {test}, {over}."


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _listed(counts: Mapping[str, int]) -> str:
    shown = ", ".join(f"{name} ({_counted(count, 'run')})" for name, count in counts.items())
    return f"{shown}." if shown else ""


def render_checklist(checklist: Checklist, suffix: str) -> str:
    """The checklist as text or, for `.tex`, as a LaTeX description list that needs no package."""
    if suffix != ".tex":
        lines = [visible(checklist.title), "", *(f"- {about}: {visible(text)}" for about, text in checklist.items)]
        return "\n".join(lines) + "\n"
    items = [f"\\item[{escape_latex(about)}] {escape_latex(text)}" for about, text in checklist.items]
    title = f"\\paragraph{{{escape_latex(checklist.title)}}}"
    source = "\n".join([title, r"\begin{description}", *items, r"\end{description}", ""])
    beyond = beyond_pdflatex(source)
    return (f"% needs lualatex or xelatex: {beyond}\n" if beyond else "") + source
