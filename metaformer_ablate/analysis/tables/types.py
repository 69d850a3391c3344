"""A table of an experiment as typed values, and the JSON of the contract that they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from metaformer_ablate.records.status import RunState, as_dict
from metaformer_ablate.statistics.effects import Estimate
from metaformer_ablate.tasks.base import Metric, Task

Interval = tuple[float, float]


@dataclass(frozen=True)
class Finding:
    """Something that the fairness audit found, with the rows it holds for; numbered from 1."""

    number: int
    text: str
    rows: tuple[str, ...]

    @property
    def warning(self) -> str:
        return f"audit [{self.number}]: {self.text} ({', '.join(self.rows)})"


@dataclass(frozen=True)
class Delta:
    """The paired difference from the baseline, in the metric's difference unit.

    `p` is corrected by Holm over `comparisons`, the rows of the table that were tested; `p_uncorrected` is not.
    `effect` is the difference over its deviation, `better` how likely the row is the better one of a pair.
    """

    mean: float
    ci95: Interval | None
    p: float | None
    method: str
    p_uncorrected: float | None = None
    comparisons: int | None = None
    effect: Estimate | None = None
    better: Estimate | None = None


@dataclass(frozen=True)
class EquivalenceTest:
    """Whether a row lies within a margin of the baseline, in the metric's difference unit; p as in `Delta`."""

    margin: float
    p: float
    ci90: Interval
    method: str
    p_uncorrected: float
    comparisons: int


@dataclass(frozen=True)
class Bootstrap:
    """Intervals over seeds that assume no distribution: of the mean and of the mean difference."""

    ci95: Interval | None
    delta_ci95: Interval | None
    method: str


@dataclass(frozen=True)
class ImageTest:
    """The test over images against the baseline.

    `p` is corrected by Holm over `comparisons`, those of `seeds` are not. Where `p_is_bound`, p is below FLOOR_P, which
    stands in its place.
    """

    images: int | None
    p: float | None
    method: str
    seeds: tuple[Mapping[str, Any], ...] = ()
    seed_method: str | None = None
    comparisons: int | None = None
    p_is_bound: bool = False

    def to_json(self) -> dict[str, Any]:
        tree = {key: plain(getattr(self, key)) for key in ("images", "p", "method", "seeds")}
        if self.seed_method is None:
            return tree
        return {**tree, "seed_method": self.seed_method, "comparisons": self.comparisons, "p_is_bound": self.p_is_bound}


@dataclass(frozen=True)
class TableRow:
    """A row: its means over the ok runs, its tests, and its runs with their records.

    `mean`, `std` and `ci95` are of the metric and None where undefined. `paper` has the paper's numbers as printed.
    """

    metric: Metric
    name: str
    label: str
    group: str
    set: Mapping[str, Any] = field(default_factory=dict)
    params: int | None = None
    frozen_params: int | None = None
    macs: int | None = None
    uncounted: Mapping[str, int] | None = None  # calls of operators that are not in `macs`
    n: int = 0
    mean: float | None = None
    std: float | None = None
    ci95: Interval | None = None
    delta: Delta | None = None
    bootstrap: Bootstrap | None = None
    images: ImageTest | None = None
    equivalence: EquivalenceTest | None = None  # where it was asked for
    paper: Mapping[str, Any] = field(default_factory=dict)
    status: str = "missing"
    notes: tuple[str, ...] = ()
    runs: tuple[RunState, ...] = ()
    short: str = ""  # the label where room is scarce; empty: the label itself

    @property
    def printed(self) -> float | None:
        """The paper's value of the metric."""
        return self.paper.get(self.metric.name)

    def values(self) -> dict[int, float]:
        """The metric by seed, of the runs that are ok."""
        found = ((run.seed, run.value(self.metric.name)) for run in self.runs)
        return {seed: value for seed, value in found if value is not None}

    def to_json(self) -> dict[str, Any]:
        names = (each.name for each in fields(self) if each.name not in ("metric", "runs", "short"))
        tree = {name: plain(getattr(self, name)) for name in names}
        return {**tree, "runs": [run_json(run, self.metric) for run in self.runs]}

    def flat(self) -> dict[str, Any]:
        """The row as one line of plain cells, for files and services that hold no trees."""
        names = ("name", "label", "group", "params", "frozen_params", "macs", "n", "mean", "std")
        delta, images = self.delta, self.images
        bootstrap = self.bootstrap or Bootstrap(None, None, "")
        return {
            **{name: getattr(self, name) for name in names},
            **flat_interval("ci95", self.ci95),
            "delta_mean": delta and delta.mean,
            **flat_interval("delta_ci95", delta.ci95 if delta else None),
            "delta_p": delta and delta.p,
            "delta_method": delta and delta.method,
            f"paper_{self.metric.name}": self.printed,
            "status": self.status,
            "notes": "; ".join(self.notes),
            "run_ids": " ".join(run.run_id for run in self.runs if run.status == "ok"),
            **flat_interval("bootstrap", bootstrap.ci95),
            **flat_interval("delta_bootstrap", bootstrap.delta_ci95),
            "images_p": images and images.p,
            "images_method": images and images.method,
            "delta_p_uncorrected": delta and delta.p_uncorrected,
            "delta_comparisons": delta and delta.comparisons,
            "delta_effect": delta and delta.effect and delta.effect.value,
            "delta_better": delta and delta.better and delta.better.value,
            "equivalence_p": self.equivalence and self.equivalence.p,
            "images_comparisons": images and images.comparisons,
            "images_p_is_bound": images and images.p_is_bound,
        }


@dataclass(frozen=True)
class Table:
    """The table of an experiment under a recipe, for one metric of its task."""

    experiment: str
    recipe: str
    overrides: tuple[str, ...]  # words of the command line
    baseline: str  # name of the row that differences are from
    task: Task
    metric: Metric
    rows: tuple[TableRow, ...]
    warnings: tuple[str, ...]
    audit: tuple[Finding, ...]
    resolution: Mapping[str, Any] | None  # what the seeds can tell apart
    spread: Mapping[str, Any] | None  # where that comes from
    agreement: Mapping[str, Any] | None  # of our order of rows with the paper's
    power: Mapping[str, Any] | None = None  # the seeds that an asked-for difference needs
    equivalent: Mapping[str, Any] | None = None  # the rows within an asked-for margin of the baseline
    interactions: Sequence[Any] | None = None  # of the pairs of rows that the experiment names
    registration: Mapping[str, Any] | None = None  # what was written down beforehand, and what became of it
    seed_counts: Mapping[str, Any] | None = None  # where the spread of the first seeds decided how many each row gets
    first: int | None = None  # how many seeds give the deviation of a difference, None of all (as `paired_difference`)
    tuning: Any | None = None  # where each row has its own best value: the same-value rows, and the trials

    @property
    def title(self) -> str:
        return f"{self.experiment} under {self.recipe}" + (", each row at its own best value" if self.tuning else "")

    @property
    def baseline_row(self) -> TableRow:
        return next(row for row in self.rows if row.name == self.baseline)

    @property
    def shared_notes(self) -> list[str]:
        """The notes that every row has. They are said once, and of no row."""
        first = self.rows[0].notes if len(self.rows) > 1 else ()
        return [note for note in first if all(note in row.notes for row in self.rows)]

    def notes_of(self, row: TableRow) -> list[str]:
        """A row's notes that not every row has."""
        shared = self.shared_notes
        return [note for note in row.notes if note not in shared]

    def is_shared(self, finding: Finding) -> bool:
        """Whether a finding of the audit holds for every row."""
        return len(self.rows) > 1 and {row.name for row in self.rows} <= {*finding.rows}

    def findings(self, row: Any) -> list[Finding]:
        """What the audit found of a row, or of a combination of two."""
        return [finding for finding in self.audit if row.name in finding.rows]

    def own_findings(self, row: TableRow) -> list[Finding]:
        """What the audit found of a row and not of every other, too."""
        return [finding for finding in self.findings(row) if not self.is_shared(finding)]

    def to_json(self) -> dict[str, Any]:
        tree = {
            "experiment": self.experiment,
            "recipe": self.recipe,
            **metric_json(self.task, self.metric),
            **{
                name: plain(getattr(self, name))
                for name in ("rows", "warnings", "audit", "resolution", "spread", "agreement")
            },
        }
        names = ("power", "equivalent", "interactions", "registration", "seed_counts", "tuning")
        asked = {name: getattr(self, name) for name in names}
        return tree | {name: plain(value) for name, value in asked.items() if value is not None}

    def flat(self) -> list[dict[str, Any]]:
        """The rows as lines of plain cells, each with the experiment, the recipe and the audit's findings.

        Combinations of two rows follow where there are any, with columns of their own at the end.
        """
        together = list(self.interactions or ())
        lines = [
            {
                "experiment": self.experiment,
                "recipe": self.recipe,
                **row.flat(),
                "audit": "; ".join(finding.text for finding in self.findings(row)),
            }
            for row in (*self.rows, *together)
        ]
        columns = dict.fromkeys(key for line in lines for key in line)
        return [columns | line for line in lines]


def name_of_test(deltas: Iterable[Delta | None]) -> str:
    """`two-stage` where the spread of the first seeds decided how many there are, else `paired`."""
    return "two-stage" if any(delta and delta.method.startswith("Stein") for delta in deltas) else "paired"


def run_json(run: RunState, metric: Metric) -> dict[str, Any]:
    """A run with its value of a metric."""
    value = run.value(metric.name)
    metrics = run.record.data["metrics"] if run.record is not None and run.status == "ok" else None
    # The name of the metric is a key too: it was the only one while there was one metric.
    return {**as_dict(run), metric.name: value, "value": value, "metrics": metrics}


def metric_json(task: Task, metric: Metric) -> dict[str, Any]:
    """The keys that say what the numbers of a JSON are."""
    return {
        "task": task.name,
        "metric": metric.name,
        "unit": metric.unit,
        "higher_is_better": metric.higher_is_better,
    }


def plain(value: Any) -> Any:
    """A value as JSON has it: objects and mappings as dicts, sequences as lists."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if hasattr(value, "__dataclass_fields__"):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(entry) for entry in value]
    return value


def flat_interval(name: str, pair: Interval | None) -> dict[str, float | None]:
    """The ends of an interval as two cells."""
    low, high = pair or (None, None)
    return {f"{name}_lo": low, f"{name}_hi": high}
