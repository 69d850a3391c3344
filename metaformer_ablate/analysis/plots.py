"""Figures of an experiment from its records.

`figure_data` reads the records and gives exactly the numbers that are drawn, as plain values; `draw` makes the figure
of them and of nothing else. The same records give the same bytes under the same version of matplotlib: no dates, fixed
hash salts, the font that matplotlib brings along, and nobody's matplotlibrc. matplotlib is loaded by `draw` alone.

What has no number is said in every figure: rows that are missing, diverged, failed, at chance or of one seed.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean, median, quantiles
from typing import TYPE_CHECKING, Any

from metaformer_ablate.analysis.tables import build_table
from metaformer_ablate.data.files import DataFolder
from metaformer_ablate.experiment import Plan
from metaformer_ablate.records import Record, Store
from metaformer_ablate.spec import unknown
from metaformer_ablate.yaml_reader import RequestError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")

# What a figure can show along an axis, and how the axis is called.
COSTS = {
    "macs": "Multiply-adds an image",
    "params": "Trained parameters",
    "images_per_second": "Training speed (images/s, evaluation included)",
}
CURVES = {
    "val_top1": "Top-1 (%)",
    "val_loss": "Evaluation loss",
    "train_loss": "Training loss",
}

# ---------------------------------------------------------------------------------------------------------------------
# The numbers


def figure_data(
    kind: str, plan: Plan, store: Store, folder: DataFolder, seeds: Sequence[int] | None = None, **options: str
) -> dict[str, Any]:
    """Exactly the numbers of a figure, as values that JSON can hold. Top-1 in percent, differences in points.

    Args:
        kind: one of KINDS.
        seeds: by default all that have a record.
        options: `x`, one of COSTS, for cost; `y`, one of CURVES, for curves.

    Raises RequestError for an unknown kind or option.
    """
    if kind not in KINDS:
        raise RequestError(unknown("kind of figure", kind, KINDS))
    chosen = KINDS[kind]
    for name, value in options.items():
        if name not in chosen.options:
            raise RequestError(f"a figure of kind {kind!r} has no option {name!r}")
        if value not in chosen.options[name]:
            raise RequestError(f"--{name}: {unknown('quantity', value, chosen.options[name])}")
    table = {**build_table(plan, store, folder, seeds), "baseline": plan.experiment.baseline}
    rows = []
    for row in table["rows"]:
        records = {run["seed"]: store.read(run["run_id"]) for run in row["runs"] if run["status"] != "missing"}
        known = {seed: record for seed, record in records.items() if record is not None}
        rows.append((row, known))
    return {
        "kind": kind,
        "experiment": table["experiment"],
        "recipe": table["recipe"],
        "overrides": list(plan.overrides),
        "baseline": table["baseline"],
        **chosen.data(table, rows, **{**chosen.defaults(), **options}),
    }


Rows = list[tuple[dict[str, Any], dict[int, Record]]]


def _stated(row: dict[str, Any], records: dict[int, Record]) -> dict[str, Any]:
    """What every figure says of a row: its names and which seeds ended how."""
    ended: dict[str, list[int]] = {}
    for run in row["runs"]:
        ended.setdefault(run["status"], []).append(run["seed"])
    at_chance = [seed for seed in ended.get("ok", []) if seed in records and records[seed].data.get("at_chance")]
    return {
        **{key: row[key] for key in ("name", "label", "group", "n")},
        "seeds": ended,  # none at all where the row does not apply under the recipe
        "at_chance": at_chance,
    }


def _rows_data(table: dict[str, Any], rows: Rows) -> dict[str, Any]:
    return {
        "rows": [
            {
                **_stated(row, records),
                "mean": row["mean"],
                "ci95": row["ci95"],
                "delta": row["delta"] and {key: row["delta"][key] for key in ("mean", "ci95")},
            }
            for row, records in rows
        ]
    }


def _seeds_data(table: dict[str, Any], rows: Rows) -> dict[str, Any]:
    def tops(row: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"seed": run["seed"], "top1": run["top1"]} for run in row["runs"] if run["top1"] is not None]

    return {"rows": [{**_stated(row, records), "mean": row["mean"], "runs": tops(row)} for row, records in rows]}


def _curves_data(table: dict[str, Any], rows: Rows, y: str) -> dict[str, Any]:
    """The history of every run, and at each epoch mean, lowest and highest over the runs that ended ok."""
    lines = []
    for row, records in rows:
        runs = []
        for run in row["runs"]:
            if run["status"] in ("ok", "diverged") and run["seed"] in records:
                history = records[run["seed"]].history()
                values = {"epochs": [line["epoch"] for line in history], "values": [line[y] for line in history]}
                runs.append({"seed": run["seed"], "status": run["status"], **values})
        by_epoch: dict[float, list[float]] = {}
        for run in runs:
            if run["status"] == "ok":
                for epoch, value in zip(run["epochs"], run["values"], strict=True):
                    by_epoch.setdefault(epoch, []).append(value)
        band = [
            {"epoch": epoch, "mean": fmean(values), "low": min(values), "high": max(values)}
            for epoch, values in sorted(by_epoch.items())
        ]
        lines.append({**_stated(row, records), "band": band, "runs": runs})
    return {"y": y, "rows": lines}


def _cost_data(table: dict[str, Any], rows: Rows, x: str) -> dict[str, Any]:
    """`x_low` and `x_high`: over the seeds, where the quantity is measured and not counted."""
    lines, devices = [], set()
    for row, records in rows:
        ok = [records[run["seed"]].data for run in row["runs"] if run["status"] == "ok" and run["seed"] in records]
        if x == "images_per_second":
            speeds = [data["images_seen"] / data["seconds"] for data in ok if data.get("images_seen")]
            devices |= {str(data.get("device")) for data in ok}
            low, middle, high = (min(speeds), median(speeds), max(speeds)) if speeds else (None, None, None)
        else:
            low = middle = high = row[x]
        values = {"x": middle, "x_low": low, "x_high": high, "mean": row["mean"], "ci95": row["ci95"]}
        lines.append({**_stated(row, records), **values})
    return {"x": x, "devices": sorted(devices), "rows": lines}


def _paper_data(table: dict[str, Any], rows: Rows) -> dict[str, Any]:
    """Differences to the baseline, in points: the paper's as printed, ours paired by seed."""
    base = next(row["paper"].get("top1") for row, _ in rows if row["name"] == table["baseline"])
    lines = []
    for row, records in rows:
        printed = row["paper"].get("top1")
        known = base is not None and printed is not None
        delta = row["delta"]
        lines.append(
            {
                **_stated(row, records),
                "paper_top1": printed,
                "paper_delta": round(printed - base, 4) if known else None,
                "mean": row["mean"],
                "delta": delta and {key: delta[key] for key in ("mean", "ci95")},
            }
        )
    return {"agreement": table.get("agreement"), "rows": lines}


# ---------------------------------------------------------------------------------------------------------------------
# The figures

# Okabe and Ito (2008), told apart by every kind of colour vision; without the yellow, which white paper swallows.
# Groups differ in their marker too, for print in grey. Black is the baseline's.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "D", "P", "X", "p", "h")  # triangles are for what is off the scale
_GREY = "#737373"
_WIDTH = 7.2  # inches: the text of a page
_LINE = 0.135  # inches between two lines of text

_RC: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": _GREY,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.dpi": 200,  # as it is saved: text of other dots an inch is a little wider or narrower, and would be cut
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 7.5,
    "grid.color": "#dedede",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "lines.linewidth": 1.1,
    "lines.markersize": 4.5,
    "pdf.fonttype": 42,  # text stays text
    "savefig.dpi": 200,
    "text.parse_math": False,  # a dollar in a label is a dollar
    "svg.fonttype": "path",  # the same on machines that lack the font
    "svg.hashsalt": "metaformer_ablate",
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
}


def draw(data: dict[str, Any]) -> Figure:
    """The figure of what `figure_data` gave."""
    with _style():
        return KINDS[data["kind"]].draw(data) if _has_numbers(data) else _draw_nothing(data)


def figure(
    kind: str, plan: Plan, store: Store, folder: DataFolder, seeds: Sequence[int] | None = None, **options: str
) -> Figure:
    """A figure from records alone; `figure_data` says what the arguments are."""
    return draw(figure_data(kind, plan, store, folder, seeds, **options))


def to_bytes(figure: Figure, format: str) -> bytes:
    """A figure as a png (200 dots an inch), svg or pdf file: the same bytes for the same data."""
    if format not in FORMATS:
        raise RequestError(unknown("format", format, FORMATS))
    dates = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None, "Producer": None}}
    stream = io.BytesIO()
    with _style():
        # The solver of the layout may differ in a last digit from call to call, and the ids in an svg hash coordinates.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for axes in figure.axes:
            left, bottom, width, height = axes.get_position().bounds
            axes.set_position((round(left, 6), round(bottom, 6), round(width, 6), round(height, 6)))
        figure.savefig(stream, format=format, metadata=dates[format])
    return stream.getvalue()


@contextmanager
def _style() -> Iterator[None]:
    """matplotlib as it comes, with our settings over it, whatever the user has set."""
    import matplotlib

    machine = ("backend", "interactive", "toolbar", "timezone", "tk.", "webagg.", "macosx.")
    settings: Any = {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith(machine)}
    with matplotlib.rc_context({**settings, **_RC}):
        yield


class _Page:
    """A figure of the page's width with its caption at the foot."""

    def __init__(self, data: dict[str, Any], height: float, caption: Sequence[str]):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        words = " ".join([f"{data['experiment']} under {data['recipe']}", *data["overrides"]]) + "."
        lines = textwrap.wrap(" ".join([words, *(text for text in caption if text)]), 136)
        foot = 0.07 + _LINE * 0.85 * len(lines)
        self.figure = Figure(figsize=(_WIDTH, height + foot), layout="constrained")
        FigureCanvasAgg(self.figure)
        engine: Any = self.figure.get_layout_engine()
        engine.set(rect=(0, foot / (height + foot), 1, height / (height + foot)), w_pad=0.04, h_pad=0.04)
        self.figure.text(
            0.08 / _WIDTH, 0.05 / (height + foot), "\n".join(lines), size=6.5, color="#404040", va="bottom"
        ).set_in_layout(False)


def _number(value: float, digits: int, sign: str = "") -> str:
    return f"{value:{sign}.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _plain(label: str) -> str:
    return label.replace("->", "\N{RIGHTWARDS ARROW}")


def _wrapped(label: str, width: int) -> str:
    return "\n".join(textwrap.wrap(_plain(label), width))


def _styles(data: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each row: those of its group; the baseline's own."""
    others = dict.fromkeys(row["group"] for row in data["rows"] if row["name"] != data["baseline"])
    by_group = {
        group: {"color": _COLOURS[i % len(_COLOURS)], "marker": _MARKERS[1 + i % (len(_MARKERS) - 1)]}
        for i, group in enumerate(others)
    }
    baseline = {"color": "black", "marker": "o"}
    return {
        row["name"]: baseline if row["name"] == data["baseline"] else by_group[row["group"]] for row in data["rows"]
    }


def _ending(row: dict[str, Any]) -> str:
    """`2 of 3 diverged, at chance`: what of a row's runs is not as it should be; empty where all is."""
    if not row["seeds"]:
        return "not applicable"
    planned = sum(map(len, row["seeds"].values()))
    parts = []
    for status, seeds in row["seeds"].items():
        if status != "ok":
            parts.append(status if len(seeds) == planned else f"{len(seeds)} of {planned} {status}")
    if chance := len(row["at_chance"]):
        parts.append("at chance" if chance == row["n"] else f"{chance} of {planned} at chance")
    return ", ".join(parts)


def _seeds_said(data: dict[str, Any]) -> str:
    counts = sorted({row["n"] for row in data["rows"] if row["n"]})
    if not counts:
        return "No run has a result yet."
    if len(counts) == 1:
        return f"{counts[0]} seed{'s' if counts[0] > 1 else ''} a row."
    return f"{counts[0]} to {counts[-1]} seeds a row."


def _hollow_said(intervals: Iterable[Any]) -> str:
    if all(intervals):
        return ""
    return "Hollow: no interval, being of one seed or of seeds that all gave the same."


@dataclass(frozen=True)
class _Scale:
    """The part of an axis that is drawn. What lies outside is drawn at its edge, with its number beside it."""

    low: float
    high: float

    @classmethod
    def of(
        cls, values: Sequence[float], intervals: Sequence[Sequence[float] | None] = (), zero: bool = False
    ) -> _Scale:
        """Leaves out what lies far from the middle half of the values: a row that collapsed would flatten the others.

        The rule is Tukey's far fence (three times the distance between the quartiles); intervals more than three times
        as wide as the middle one are cut.
        """
        kept = list(values)
        if len(values) >= 3:
            low, _, high = quantiles(values, n=4, method="inclusive")
            reach = 3 * max(high - low, 0.5)
            kept = [value for value in values if low - reach <= value <= high + reach]
        widths = [pair[1] - pair[0] for pair in intervals if pair]
        for value, pair in zip(values, intervals, strict=False):
            if pair and value in kept and pair[1] - pair[0] <= 3 * median(widths):
                kept += pair
        kept += [0.0] if zero or not kept else []
        margin = 0.05 * (max(kept) - min(kept)) or 0.5
        return cls(min(kept) - margin, max(kept) + margin)

    @classmethod
    def all_of(cls, values: Sequence[float]) -> _Scale:
        """Leaves nothing out."""
        low, high = min(values, default=0.0), max(values, default=1.0)
        margin = 0.08 * (high - low) or 0.1 * abs(high) or 0.5
        return cls(low - margin, high + margin)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def clip(self, value: float) -> float:
        return min(max(value, self.low), self.high)


def _dot(axes: Any, scale: _Scale, value: float, ci95: Sequence[float] | None, y: float, style: dict[str, Any]) -> None:
    """A dot with its horizontal interval, hollow without one; off the scale a triangle at the edge and the number."""
    colour = style["color"]
    if value not in scale:
        left = value < scale.low
        edge = scale.low if left else scale.high
        axes.plot(edge, y, marker="<" if left else ">", color=colour, clip_on=False)
        axes.annotate(
            _number(value, 2), (edge, y), (5 if left else -5, 0), textcoords="offset points", color=colour, size=7,
            ha="left" if left else "right", va="center_baseline",
        )  # fmt: skip
        return
    if ci95:
        axes.plot([scale.clip(end) for end in ci95], [y, y], color=colour, solid_capstyle="butt")
        for end, marker in zip(ci95, "<>", strict=True):
            if end not in scale:
                axes.plot(scale.clip(end), y, marker=marker, color=colour, markersize=2.5, clip_on=False)
    face = colour if ci95 else "white"
    axes.plot(value, y, color=colour, marker=style["marker"], markerfacecolor=face, clip_on=False)


def _row_axis(data: dict[str, Any]) -> tuple[dict[str, float], list[tuple[float, str, bool]], float]:
    """Where each row stands, from the top, in inches; the labels (place, text, whether a heading); the height."""
    places: dict[str, float] = {}
    labels: list[tuple[float, str, bool]] = []
    groups = groupby(data["rows"], key=lambda row: row["group"])
    headed = len({row["group"] for row in data["rows"]}) > 1
    y = 0.0
    for group, rows in groups:
        if headed:
            y += 0.06
            labels.append((y + 0.1, group, True))
            y += 0.2
        for row in rows:
            label = _wrapped(row["label"], 36)
            height = _LINE * (label.count("\n") + 1) + 0.075
            places[row["name"]] = y + height / 2
            labels.append((places[row["name"]], label, False))
            y += height
    return places, labels, y


def _set_row_axis(axes: Any, labels: Sequence[tuple[float, str, bool]], height: float) -> None:
    axes.set_ylim(height + 0.04, -0.04)
    axes.set_yticks([y for y, _, _ in labels], [text for _, text, _ in labels])
    for tick, (_, _, heading) in zip(axes.get_yticklabels(), labels, strict=False):  # none on a panel to the right
        tick.set_linespacing(1.05)
        if heading:
            tick.set_fontweight("bold")
    axes.tick_params(axis="y", length=0, pad=7)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def _remarks(axes: Any, data: dict[str, Any], places: dict[str, float]) -> None:
    """n of each row right of the axes, and what has to be said of its runs."""
    side = axes.get_yaxis_transform()
    axes.text(1.03, -0.06, "n", transform=side, va="bottom", color=_GREY)
    for row in data["rows"]:
        ending = _ending(row)
        text = "  ".join([str(row["n"]), *([_wrapped(ending, 18).replace("\n", "\n     ")] if ending else [])])
        axes.text(1.03, places[row["name"]], text, transform=side, va="center_baseline", size=7, linespacing=1.05)


def _has_numbers(data: dict[str, Any]) -> bool:
    return any(row["n"] or row.get("runs") for row in data["rows"])


def _draw_nothing(data: dict[str, Any]) -> Figure:
    """The rows and how their runs ended, where no run has a number."""
    places, labels, height = _row_axis(data)
    page = _Page(data, height + 0.2, ["No run has a result yet."])
    axes = page.figure.subplots()
    _set_row_axis(axes, labels, height)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    _remarks(axes, data, places)
    return page.figure


def _draw_rows(data: dict[str, Any]) -> Figure:
    rows, styles = data["rows"], _styles(data)
    places, labels, height = _row_axis(data)
    baseline = next(row for row in rows if row["name"] == data["baseline"])
    means = {row["name"]: (row["mean"], row["ci95"]) for row in rows if row["mean"] is not None}
    deltas = {row["name"]: (row["delta"]["mean"], row["delta"]["ci95"]) for row in rows if row["delta"]}
    scales = [_Scale.of(*_columns(means)), _Scale.of(*_columns(deltas), zero=True)]
    off = any(value not in scale for scale, of in zip(scales, (means, deltas), strict=True) for value, _ in of.values())
    caption = [
        "Left: mean top-1 over seeds with the 95% t interval of the mean; in grey the baseline's.",
        "Right: mean difference to the baseline over common seeds with the 95% paired t interval.",
        _seeds_said(data),
        _hollow_said(ci95 for drawn in (means, deltas) for _, ci95 in drawn.values()),
        "No difference is shown where a seed diverged." if any("diverged" in row["seeds"] for row in rows) else "",
        "Triangle with a number: off the scale." if off else "",
    ]
    page = _Page(data, height + 0.6, caption)
    left, right = page.figure.subplots(1, 2, sharey=True)
    if baseline["mean"] is not None:
        if baseline["ci95"]:
            left.axvspan(*map(scales[0].clip, baseline["ci95"]), color="#ececec", linewidth=0, zorder=0)
        left.axvline(baseline["mean"], color=_GREY, linewidth=0.8, zorder=1)
    right.axvline(0, color=_GREY, linewidth=0.8, zorder=1)
    for axes, scale, drawn in ((left, scales[0], means), (right, scales[1], deltas)):
        _set_row_axis(axes, labels, height)
        axes.set_xlim(scale.low, scale.high)
        for name, (value, ci95) in drawn.items():
            _dot(axes, scale, value, ci95, places[name], styles[name])
    left.set_xlabel("Top-1 (%)")
    right.set_xlabel("Difference to the baseline (points)")
    right.tick_params(axis="y", labelleft=False)
    _remarks(right, data, places)
    return page.figure


def _columns(drawn: dict[str, tuple[float, Any]]) -> tuple[list[float], list[Any]]:
    return [value for value, _ in drawn.values()], [ci95 for _, ci95 in drawn.values()]


def _draw_seeds(data: dict[str, Any]) -> Figure:
    rows = data["rows"]
    places, labels, height = _row_axis(data)
    seeds = sorted({run["seed"] for row in rows for run in row["runs"]})
    scale = _Scale.of([run["top1"] for row in rows for run in row["runs"]])
    off = any(run["top1"] not in scale for row in rows for run in row["runs"])
    caption = [
        "Every run: top-1 at the last epoch. Lines join runs of the same seed, which sees the same images in the same "
        "order. Vertical tick: the row's mean.",
        _seeds_said(data),
        "At the edge: off the scale, with the row's mean beside it." if off else "",
    ]
    page = _Page(data, height + (0.9 if seeds else 0.6), caption)
    axes = page.figure.subplots()
    _set_row_axis(axes, labels, height)
    axes.set_xlim(scale.low, scale.high)
    axes.set_xlabel("Top-1 (%)")
    few = len(seeds) <= len(_COLOURS)
    for i, seed in enumerate(seeds):
        # A little above and below each other, so that equal runs are both seen.
        shift = 0.07 * (2 * i / (len(seeds) - 1) - 1) if len(seeds) > 1 else 0.0
        style: dict[str, Any] = (
            {"color": _COLOURS[i], "marker": _MARKERS[i]} if few else {"color": _GREY, "marker": "o"}
        )
        path: list[tuple[float, float]] = []
        for row in rows:
            top1 = next((run["top1"] for run in row["runs"] if run["seed"] == seed), None)
            if top1 is None or top1 not in scale:
                path.append((float("nan"), places[row["name"]]))
                if top1 is not None:
                    edge, marker = (scale.low, "<") if top1 < scale.low else (scale.high, ">")
                    axes.plot(edge, places[row["name"]] + shift, **{**style, "marker": marker}, clip_on=False)
                continue
            path.append((top1, places[row["name"]] + shift))
        xs, ys = [x for x, _ in path], [y for _, y in path]
        axes.plot(xs, ys, color=style["color"], linewidth=0.6, alpha=0.45)
        label = f"seed {seed}" if few else f"{len(seeds)} seeds" if not i else None
        axes.plot(xs, ys, linestyle="none", label=label, clip_on=False, markersize=4, **style)
    for row in rows:
        y = places[row["name"]]
        if row["mean"] is not None and row["mean"] in scale:
            axes.plot([row["mean"]] * 2, [y - 0.1, y + 0.1], color="black", linewidth=1.3)
        elif row["mean"] is not None:
            left = row["mean"] < scale.low
            axes.annotate(
                f"{row['mean']:.2f}", (scale.low if left else scale.high, y), (6 if left else -6, 0), size=7,
                textcoords="offset points", ha="left" if left else "right", va="center_baseline",
            )  # fmt: skip
    if seeds:
        page.figure.legend(loc="outside upper center", ncols=min(len(seeds), 8), handletextpad=0.3, columnspacing=1.2)
    _remarks(axes, data, places)
    return page.figure


def _draw_curves(data: dict[str, Any]) -> Figure:
    """A panel a row, the baseline's mean in each."""
    rows, styles = data["rows"], _styles(data)
    baseline = next(row for row in rows if row["name"] == data["baseline"])
    columns = min(4, len(rows))
    lines = -(-len(rows) // columns)
    titles = {row["name"]: _panel_title(row, 27 if columns == 4 else 36) for row in rows}
    most = max(title.count("\n") for title in titles.values()) + 1
    several = any(len(row["seeds"].get("ok", [])) > 1 for row in rows)
    diverged = any("diverged" in row["seeds"] for row in rows)
    caption = [
        f"{CURVES[data['y']]} after each epoch: mean over seeds" + ("; band: lowest to highest." if several else "."),
        "Grey: the baseline." if len(rows) > 1 else "",
        "Dashed: runs that diverged, up to their last whole epoch." if diverged else "",
        _seeds_said(data),
    ]
    page = _Page(data, lines * ((1.6 if lines == 1 else 1.15) + _LINE * most) + 0.3, caption)
    panels = page.figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axes, row in zip(panels, rows, strict=False):
        axes.set_title(titles[row["name"]], size=6.8, linespacing=1.05, pad=3)
        axes.grid(axis="y")
        if row is not baseline:
            _line(axes, baseline["band"], color="#9a9a9a", linewidth=0.9)
        style = styles[row["name"]]
        if row["band"]:
            epochs = [point["epoch"] for point in row["band"]]
            low, high = ([point[end] for point in row["band"]] for end in ("low", "high"))
            axes.fill_between(epochs, low, high, color=style["color"], alpha=0.25, linewidth=0)
            _line(axes, row["band"], color=style["color"])
        for run in row["runs"]:
            if run["status"] == "diverged":
                axes.plot(run["epochs"], run["values"], color=style["color"], linewidth=0.8, linestyle=(0, (3, 1.5)))
                axes.plot(run["epochs"][-1:], run["values"][-1:], color=style["color"], marker="x", markersize=4)
    for i, axes in enumerate(panels):
        axes.set_visible(i < len(rows))
        # Below the last panel of a column that is one short, the axis would be without numbers.
        if last := i + columns >= len(rows):
            axes.set_xlabel("Epoch")
        axes.tick_params(labelbottom=last)
        if i % columns == 0:
            axes.set_ylabel(CURVES[data["y"]])
        axes.locator_params(axis="x", integer=True, nbins=5)
    return page.figure


def _panel_title(row: dict[str, Any], width: int) -> str:
    ending = _ending(row)
    return _wrapped(row["label"], width) + (f"\n({ending})" if ending else "")


def _line(axes: Any, band: Sequence[dict[str, float]], **style: Any) -> None:
    dot = {"marker": "o", "markersize": 2.5} if len(band) == 1 else {}
    axes.plot([point["epoch"] for point in band], [point["mean"] for point in band], **style, **dot)


def _draw_cost(data: dict[str, Any]) -> Figure:
    styles, speed = _styles(data), data["x"] == "images_per_second"
    known = [row for row in data["rows"] if row["mean"] is not None and row["x"] is not None]
    largest = max((row["x"] for row in known), default=1)
    factor, unit = (1, "") if speed else (1e9, " (G)") if largest >= 1e9 else (1e6, " (M)")
    points = [
        _Point(
            row["name"], _plain(row["label"]), row["x"] / factor, row["mean"],
            None if row["x_low"] == row["x_high"] else (row["x_low"] / factor, row["x_high"] / factor), row["ci95"],
            f"{row['mean']:.2f}",
        )
        for row in known
    ]  # fmt: skip
    devices = data["devices"]
    caption = [
        "Mean top-1 over seeds with the 95% t interval of the mean.",
        "Speed: median over seeds, bar from slowest to fastest." if speed else "",
        f"Device: {devices[0]}." if speed and len(devices) == 1 else "",
        f"Not of one device, so speeds do not compare: {'; '.join(devices)}." if len(devices) > 1 else "",
        _seeds_said(data),
        _hollow_said(point.ci95 for point in points),
    ]
    return _scatter(data, points, styles, caption, COSTS[data["x"]] + unit, "Top-1 (%)")


def _draw_paper(data: dict[str, Any]) -> Figure:
    known = [row for row in data["rows"] if row["paper_delta"] is not None and row["delta"]]
    points = [
        _Point(
            row["name"], _plain(row["label"]), row["paper_delta"], row["delta"]["mean"], None, row["delta"]["ci95"],
            f"paper {_number(row['paper_delta'], 1, '+')}, here {_number(row['delta']['mean'], 2, '+')}",
        )
        for row in known
    ]  # fmt: skip
    tau = ((data["agreement"] or {}).get("kendall") or {}).get("value")
    caption = [
        "Differences to the baseline: the paper's on ImageNet, as printed, against ours over common seeds with the 95% "
        "paired t interval. Dashed: the same difference. In the two shaded quarters the sign is the other one.",
        "" if tau is None else f"Kendall's tau-b of top-1 over the rows: {_number(tau, 2)}.",
        _seeds_said(data),
        _hollow_said(point.ci95 for point in points),
    ]
    x, y = "Difference in the paper (points)", "Difference here (points)"
    return _scatter(data, points, _styles(data), caption, x, y, diagonal=True)


@dataclass(frozen=True)
class _Point:
    name: str
    label: str
    x: float
    y: float
    x_range: tuple[float, float] | None
    ci95: Sequence[float] | None
    number: str  # said beside the label where the point is off the scale


def _scatter(
    data: dict[str, Any],
    points: Sequence[_Point],
    styles: dict[str, dict[str, Any]],
    caption: Sequence[str],
    x_label: str,
    y_label: str,
    diagonal: bool = False,
) -> Figure:
    """Points with their intervals, their labels in a column at the side, from top to bottom as the points stand."""
    ys = _Scale.of([p.y for p in points], [p.ci95 for p in points], zero=diagonal)
    if diagonal:  # of one scale along both axes, so that a point's place shows how large both differences are
        xs = _Scale.of([p.x for p in points], zero=True)
        xs = ys = _Scale(min(xs.low, ys.low), max(xs.high, ys.high))
    else:
        xs = _Scale.all_of([x for p in points for x in p.x_range or [p.x]])
    off = any(p.x not in xs or p.y not in ys for p in points)
    absent = [row for row in data["rows"] if row["name"] not in {p.name for p in points}]
    if diagonal:
        absent = [row for row in absent if row["name"] != data["baseline"]]
    endings = {row["name"]: _ending(row) for row in data["rows"]}
    texts = {}
    for p in points:
        remark = ", ".join([p.number] * (p.x not in xs or p.y not in ys) + [endings[p.name]] * bool(endings[p.name]))
        texts[p.name] = _wrapped(p.label + (f" ({remark})" if remark else ""), 48)
    missing = [_wrapped(f"{row['label']} ({_why_absent(row, diagonal)})", 48) for row in absent]
    lines = sum(text.count("\n") + 1 for text in texts.values())
    below = sum(text.count("\n") + 1 for text in missing)
    foot = _LINE * (below + 1.8) if missing else 0.0
    height = max(3.4, 0.5 + _LINE * 1.25 * lines + foot)
    if len({p.x for p in points}) < len(points):
        caption = [*caption, "Rows with the same horizontal value stand side by side."]
    page = _Page(data, height, [*caption, "Triangle: off the scale, with its numbers in the label." if off else ""])
    axes, side = page.figure.subplots(1, 2, width_ratios=(1.25, 1))
    side.set_axis_off()
    side.set_xlim(0, 1)
    side.set_ylim(0, height)
    axes.set_xlim(xs.low, xs.high)
    axes.set_ylim(ys.low, ys.high)
    axes.grid()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if diagonal:
        axes.axhline(0, color=_GREY, linewidth=0.6)
        axes.axvline(0, color=_GREY, linewidth=0.6)
        axes.axline((0, 0), slope=1, color=_GREY, linewidth=0.8, linestyle=(0, (4, 2)))
        axes.fill_between([xs.low, 0], 0, ys.high, color="#f3f3f3", linewidth=0, zorder=0)
        axes.fill_between([0, xs.high], ys.low, 0, color="#f3f3f3", linewidth=0, zorder=0)
    places = _side_by_side(points, xs, ys)
    for p in points:
        style, colour = styles[p.name], styles[p.name]["color"]
        x, y = places[p.name]
        inside = p.x in xs and p.y in ys
        if p.ci95 and inside:
            axes.plot([x, x], [ys.clip(end) for end in p.ci95], color=colour, linewidth=0.8)
        if p.x_range and inside:
            axes.plot(p.x_range, [y, y], color=colour, linewidth=0.8)
        edge = "v" if p.y < ys.low else "^" if p.y > ys.high else "<" if p.x < xs.low else ">"
        face = colour if p.ci95 else "white"
        axes.plot(x, y, color=colour, marker=style["marker"] if inside else edge, markerfacecolor=face, clip_on=False)
    _label_column(axes, side, points, texts, styles, places, foot, height)
    if missing:
        side.text(
            0.06, 0.02, "Without a point:\n" + "\n".join(missing), va="bottom", size=7, color=_GREY, style="italic"
        )
    return page.figure


def _side_by_side(points: Sequence[_Point], xs: _Scale, ys: _Scale) -> dict[str, tuple[float, float]]:
    """Where each point is drawn: those of one x a little beside each other, that intervals do not hide intervals."""
    places = {}
    for x in {p.x for p in points}:
        here = [p for p in points if p.x == x]
        step = (xs.high - xs.low) * min(0.018, 0.16 / len(here))
        for i, p in enumerate(here):
            places[p.name] = xs.clip(xs.clip(x) + (i - (len(here) - 1) / 2) * step), ys.clip(p.y)
    return places


def _why_absent(row: dict[str, Any], diagonal: bool) -> str:
    if ending := _ending(row):
        return ending
    if diagonal and row["paper_top1"] is None:
        return "no number in the paper"
    return "no difference: the baseline has no such seed" if diagonal else "not counted"


def _label_column(
    axes: Any,
    side: Any,
    points: Sequence[_Point],
    texts: dict[str, str],
    styles: Any,
    places: dict[str, tuple[float, float]],
    foot: float,
    height: float,
) -> None:
    """A label a point, joined to it by a thin line; moved apart so that no two overlap."""
    from matplotlib.patches import ConnectionPatch

    ordered = sorted(points, key=lambda p: (-p.y, p.x, p.name))
    sizes = [_LINE * (1.15 * (texts[p.name].count("\n") + 1) + 0.1) for p in ordered]
    low, high = axes.get_ylim()
    wished = [height * (places[p.name][1] - low) / (high - low) for p in ordered]
    centres = _apart(wished, sizes, foot, height)
    for p, centre in zip(ordered, centres, strict=True):
        side.text(0.06, centre, texts[p.name], va="center", size=7, linespacing=1.05)
        side.plot(0.03, centre, clip_on=False, markersize=4, linestyle="none", **styles[p.name])
        line = ConnectionPatch(
            places[p.name], (0.015, centre), "data", "data", axesA=axes, axesB=side,
            color="#bdbdbd", linewidth=0.5, zorder=0.5,
        )  # fmt: skip
        line.set_in_layout(False)
        axes.figure.add_artist(line)


def _apart(wished: Sequence[float], sizes: Sequence[float], low: float, high: float) -> list[float]:
    """Centres between low and high, from top to bottom, near to the wished ones: labels that touch move as one."""
    blocks: list[list[float]] = []  # [centre wished on average, size, labels]
    for wish, size in zip(wished, sizes, strict=True):
        blocks.append([wish, size, 1])
        while True:
            block = blocks[-1]
            block[0] = min(max(block[0], low + block[1] / 2), high - block[1] / 2)
            if len(blocks) == 1 or blocks[-2][0] - blocks[-2][1] / 2 >= block[0] + block[1] / 2:
                break
            above = blocks[-2]
            total = above[2] + block[2]
            blocks[-2:] = [[(above[0] * above[2] + block[0] * block[2]) / total, above[1] + block[1], total]]
    centres: list[float] = []
    for centre, size, labels in blocks:
        top = centre + size / 2
        for _ in range(int(labels)):
            centres.append(top - sizes[len(centres)] / 2)
            top -= sizes[len(centres) - 1]
    return centres


@dataclass(frozen=True)
class Kind:
    """A kind of figure: what it shows, its options with their values (the first is the default), its two halves."""

    about: str
    data: Callable[..., dict[str, Any]]
    draw: Callable[[dict[str, Any]], Figure]
    options: dict[str, dict[str, str]]

    def defaults(self) -> dict[str, str]:
        return {name: next(iter(values)) for name, values in self.options.items()}


KINDS: dict[str, Kind] = {
    "rows": Kind("mean top-1 and the difference to the baseline, with intervals", _rows_data, _draw_rows, {}),
    "curves": Kind(
        "every row's course of training, with the band over seeds", _curves_data, _draw_curves, {"y": CURVES}
    ),
    "cost": Kind("top-1 against multiply-adds, parameters or speed", _cost_data, _draw_cost, {"x": COSTS}),
    "paper": Kind("differences to the baseline: ours against the paper's", _paper_data, _draw_paper, {}),
    "seeds": Kind("every run as a point", _seeds_data, _draw_seeds, {}),
}
