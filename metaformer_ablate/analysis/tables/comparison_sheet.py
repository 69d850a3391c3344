"""A comparison of recipes as it is printed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from metaformer_ablate.analysis.tables.columns import Column, columns_of, format_pair
from metaformer_ablate.analysis.tables.comparison import PAPER, Comparison, names_of, spaced
from metaformer_ablate.analysis.tables.csv import csv_text
from metaformer_ablate.analysis.tables.render import render_sheet
from metaformer_ablate.analysis.tables.sheet import Sheet
from metaformer_ablate.statistics.agreement import CLEAR
from metaformer_ablate.tasks.base import Metric

MOST_PAIRS = 6  # that a line names; JSON has all of them


def render_comparison(comparison: Comparison, style: str, digits: int | None = None) -> str:
    """A comparison in one of the formats of a table. Of three or more recipes, agreements have a part of their own."""
    if style == "json":
        return json.dumps(comparison.to_json(), indent=1, allow_nan=False) + "\n"
    if style == "csv":
        return _csv(comparison)
    decimals = comparison.metric.digits if digits is None else digits
    together = style == "text" and len(comparison.recipes) > 2  # a line has no room for two columns per recipe
    text = render_sheet(_means(comparison, decimals, "short" if style == "latex" else "row", together), style)
    if len(comparison.recipes) > 2 and comparison.agreements:
        text += "\n" + render_sheet(_agreements(comparison), style)
    return text


def _means(comparison: Comparison, digits: int, label: str, together: bool) -> Sheet:
    """The rows with a column per recipe, or with one for the means and one for the ranks."""
    metric, recipes = comparison.metric, comparison.recipes
    two = len(recipes) == 2
    usual = columns_of(metric)
    columns = {"group": usual["group"], label: usual[label]}
    for i, recipe in enumerate(recipes):
        if together:
            columns[recipe] = _mean_and_rank(comparison, i)
        else:
            columns |= {f"{recipe} {key}": column for key, column in _columns(metric, recipe, i, two).items()}
    if two:
        columns["change"] = Column("Rank change", lambda row, digits: _rank(row.rank_change, "+"))
    else:
        columns["mean rank"] = Column("Mean rank", lambda row, digits: _mean_rank(row.mean_rank))
    best = "the highest" if metric.higher_is_better else "the lowest"
    among = f"among the rows that {'both' if two else 'all'} have, 1 for {best}; ties share theirs."
    unit = f" ({metric.unit})" if metric.unit else ""
    notes = [
        f"Mean {metric.phrase}{unit} and, in brackets, its rank {among}"
        if together
        else f"Ranks are of the mean {metric.phrase} {among}",
        *([] if two else ["Deviations, intervals and n are in csv and JSON."]),
        *_chosen(comparison),
        *(comparison.agreement["text"] if comparison.agreement else []),
        *_left_out(comparison),
        *(f"Warning: {warning}" for warning in comparison.warnings),
    ]
    narrow: list[tuple[str, Column | None]] = [("group", None)]
    for i, recipe in enumerate(recipes if two else ()):
        if recipe != PAPER:
            shorter = _columns(metric, recipe, i, two, interval=False)["mean"]
            narrow += [(f"{recipe} n", None), (f"{recipe} mean", shorter)]
    narrow += [] if two else [("row", usual["short"]), ("mean rank", None)]
    marks: list[tuple[int, ...]] = [()] * len(comparison.rows)
    return Sheet(_title(comparison), comparison.rows, columns, digits, marks, (), notes, (), narrow)


def _title(comparison: Comparison) -> str:
    *recipes, last = comparison.recipes
    return f"{comparison.experiment} under {', '.join(recipes)} and {last}"


def _chosen(comparison: Comparison) -> list[str]:
    """Which rows were asked for, where these are not all."""
    if not comparison.not_chosen:
        return []
    everything = len(comparison.rows) + len(comparison.not_chosen)
    return [
        f"{len(comparison.rows)} of the {everything} rows of {comparison.experiment}, as asked for by --rows; "
        f"without {', '.join(comparison.not_chosen)}."
    ]


def _left_out(comparison: Comparison) -> list[str]:
    """What each recipe alone decides, a line each."""
    if not comparison.left_out:
        return []
    lines = ["Pairs of rows that change their order by mean rank where one recipe is left out, here in that of all:"]
    for each in comparison.left_out:
        if not each.pairs:
            lines.append(f"without {each.column}: none.")
            continue
        text = f"without {each.column}: {len(each.pairs)}, {names_of(each.pairs, MOST_PAIRS)}"
        sides = f"; on the other side of the baseline then: {', '.join(each.against_baseline)}"
        lines.append(text + (sides if each.against_baseline else "") + ".")
    return lines


@dataclass(frozen=True)
class _Pair:
    """A line of the part of agreements: that of two recipes."""

    found: Mapping[str, Any]

    @property
    def group(self) -> str:
        return ""

    @property
    def beyond(self) -> str:
        known = [pair["beyond_noise"] for pair in self.found["reversed"]]
        unknown = sum(each is None for each in known)
        return f"{sum(map(bool, known))}" + (f" ({unknown} unknown)" if unknown else "")

    @property
    def clear(self) -> str:
        found = self.found["clear_pairs"]
        return f"{found['in_order']} of {found['pairs']}" if found and found["pairs"] else ""


def _agreements(comparison: Comparison) -> Sheet:
    def correlation(name: str, part: str | None = None) -> Callable[[_Pair, int], str]:
        def cell(pair: _Pair, digits: int) -> str:
            found = (pair.found[part] or {}).get(name) if part else pair.found[name]
            if found is None or found["value"] is None:
                return ""
            return f"{found['value']:.2f} {format_pair(found['ci95'], 2)}".strip()

        return cell

    columns = {
        "row": Column("Recipes", lambda pair, digits: " and ".join(pair.found["between"]), left=True),
        "rows": Column("Rows", lambda pair, digits: str(len(pair.found["rows"]))),
        "kendall": Column("Kendall tau-b", correlation("kendall"), whole=True),
        "spearman": Column("Spearman rho", correlation("spearman"), whole=True),
        "reversed": Column("Reversed", lambda p, digits: f"{len(p.found['reversed'])} of {p.found['pairs']}"),
        "beyond": Column("Beyond noise", lambda pair, digits: pair.beyond),
    }
    rows = [_Pair(found) for found in comparison.agreements]
    if any(row.clear for row in rows):
        columns["clear"] = Column("Clear pairs", lambda pair, digits: pair.clear)
    if any(row.found["by_seed"] for row in rows):
        columns["by_seed"] = Column("tau-b by seed", correlation("kendall", "by_seed"), whole=True)
    notes = [
        "Correlations of the rows' means [95% intervals by Fisher z, as if these rows were drawn from many].",
        "Reversed: pairs of rows in the other order.",
        "Beyond noise: of these, those whose paired 95% interval excludes 0 wherever there are seeds.",
    ]
    if "clear" in columns:
        notes.append(f"Clear pairs: of those {CLEAR:g} point or more apart in the paper, how many are in its order.")
    if "by_seed" in columns:
        notes.append("tau-b by seed: mean over the seeds, each taken alone [95% t interval].")
    notes += [_change(change) for change in comparison.changes]
    title = f"Agreement of {_title(comparison)}"
    narrow = [(name, None) for name in ("spearman", "by_seed", "rows", "beyond", "reversed") if name in columns]
    return Sheet(title, rows, columns, 2, [()] * len(rows), (), notes, (), narrow)


def _change(change: Mapping[str, Any]) -> str:
    def words(name: str, times: float, digits: int) -> str:
        found = change[name]
        ci95 = found["ci95"] and [times * end for end in found["ci95"]]
        return f"{times * found['mean']:+.{digits}f} {format_pair(ci95, digits, '+')}".strip()

    return (
        f"From {change['from']} to {change['to']}, paired over {len(change['seeds'])} seeds: tau-b by seed "
        f"{words('kendall', 1, 2)}, share of clear pairs {words('clear_pairs', 100, 0)} points [95% t intervals]."
    )


def _columns(metric: Metric, recipe: str, i: int, two: bool, interval: bool = True) -> dict[str, Column]:
    """The columns of a table that speak of one recipe, over that recipe's results in a row of a comparison."""

    def of(cell: Callable[[Any, int], str]) -> Callable[[Any, int], str]:
        return lambda row, digits: cell(row.results[i].row, metric.paper_digits if recipe == PAPER else digits)

    usual = columns_of(metric)
    mean = usual[metric.name if interval else "mean"]
    parts = tuple(replace(part, of=of(part.of)) for part in mean.parts)
    heading = f"{spaced(recipe)}: {metric.phrase}" + (f" ({metric.unit})" if metric.unit else "")
    parts = (*(replace(part, heading=heading) for part in parts[:1]), *(() if recipe == PAPER else parts[1:]))
    columns = {"mean": replace(mean, heading=heading, of=of(mean.of), parts=parts)}
    if not two:  # with deviations and intervals a line would be too wide
        columns["mean"] = Column(heading, of(mean.parts[0].of))
    if recipe != PAPER and two:
        columns["n"] = replace(usual["n"], of=of(usual["n"].of))
    return {**columns, "rank": Column("Rank", lambda row, digits: _rank(row.results[i].rank))}


def _mean_and_rank(comparison: Comparison, i: int) -> Column:
    """One column of a recipe: `67.17 (3)`, the means below each other."""
    recipe = comparison.recipes[i]
    of = _columns(comparison.metric, recipe, i, two=False)
    room = max(len(_rank(row.results[i].rank)) for row in comparison.rows) + 2

    def cell(row: Any, digits: int) -> str:
        mean, rank = of["mean"].of(row, digits), of["rank"].of(row, digits)
        return f"{mean} {f'({rank})' if rank else '':{room}}"

    return Column(spaced(recipe), cell)


def _rank(rank: float | None, sign: str = "") -> str:
    return "" if rank is None else f"{rank:{sign if rank else ''}g}"


def _mean_rank(rank: float | None) -> str:
    return "" if rank is None else f"{rank:.2f}"


def _csv(comparison: Comparison) -> str:
    keys = ("n", "mean", "std", "status")
    lines = []
    for row in comparison.rows:
        line = {"experiment": comparison.experiment, "name": row.name, "label": row.label, "group": row.group}
        for recipe, result in zip(comparison.recipes, row.results, strict=True):
            line |= {f"{recipe}_{key}": getattr(result.row, key) for key in keys} | {f"{recipe}_rank": result.rank}
        lines.append({**line, "rank_change": row.rank_change, "mean_rank": row.mean_rank})
    return csv_text(list(lines[0]), lines)
