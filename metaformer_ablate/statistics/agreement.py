"""How far two columns of a metric agree on the order of the rows: rank correlations, and pairs that are reversed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from metaformer_ablate.statistics.stats import (
    FISHER_Z,
    LEVEL,
    holm,
    kendall,
    paired_difference,
    spearman,
    summarise,
)

FEWEST_ROWS = 3


CLEAR = 1.0  # points that a pair of rows lies apart in the paper to be called clear


@dataclass(frozen=True)
class RankedColumn:
    """A metric by row. `seeds` holds what the means are of, {row: {seed: value}}; None for printed numbers."""

    name: str
    values: Mapping[str, float]
    seeds: Mapping[str, Mapping[int, float]] | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)  # row: why its number is not to be compared
    first: int | None = None  # as of `paired_difference`

    def difference(self, row: str, other: str) -> dict[str, Any]:
        """row minus other: paired over the seeds that both have, or of the printed numbers."""
        if self.seeds is None:
            return {"mean": self.values[row] - self.values[other], "ci95": None, "p": None}
        here, there = self.seeds[row], self.seeds[other]
        common = [seed for seed in here if seed in there]
        if not common:
            return {"mean": self.values[row] - self.values[other], "ci95": None, "p": None}
        found = paired_difference([here[seed] for seed in common], [there[seed] for seed in common], self.first)
        return {"mean": found.mean, "ci95": found.ci95 and list(found.ci95), "p": found.p}


def agreement(one: RankedColumn, other: RankedColumn, sign: int = 1) -> dict[str, Any] | None:
    """Rank correlation of two columns and the pairs of rows that they order differently; None below FEWEST_ROWS rows.

    `sign` is 1 where higher values are better, -1 where lower ones are. The better row of a pair in the other column
    stands first. Orders are those of `values`, the means over all seeds; differences are over the seeds that both rows
    have, so that with unlike seeds they may point the other way. A reversed pair is beyond noise where the paired 95%
    interval lies on the side of the means in each column that has seeds, null where there is no interval. Each p is
    Holm's over all pairs that both columns order: of each column as many as `comparisons` says.

    Where one column is of printed numbers, `clear_pairs` counts the pairs that lie CLEAR or more apart there and how
    many of them the other column orders alike. `by_seed` has both figures from each seed alone that all rows have, as
    means with 95% t intervals: what other seeds might give, where Fisher's intervals say what other rows might. It is
    None below two seeds, and where no pair is clear: the paper then hardly orders the rows.
    """
    names = [row for row in one.values if row in other.values]
    if len(names) < FEWEST_ROWS:
        return None
    ours, theirs = ([column.values[row] for row in names] for column in (one, other))
    tau, rho = kendall(ours, theirs), spearman(ours, theirs)
    pairs = _ordered_pairs(names, one, other, sign)
    reversed_pairs = [pair for pair in pairs if sign * _above(one, *pair["rows"]) < 0]
    for pair in reversed_pairs:
        noisy = [
            (side["ci95"], _above(column, *pair["rows"]))
            for side, column in zip(pair["differences"], (one, other), strict=True)
            if column.seeds is not None
        ]
        known = all(ci95 for ci95, _ in noisy)
        pair["beyond_noise"] = all(min(end * apart for end in ci95) > 0 for ci95, apart in noisy) if known else None
    left_out = {**one.left_out, **other.left_out}
    either = {*one.values, *one.left_out} & {*other.values, *other.left_out}
    found = {
        "between": [one.name, other.name],
        "rows": names,
        "kendall": {"value": tau.value, "ci95": tau.ci95 and list(tau.ci95)},
        "spearman": {"value": rho.value, "ci95": rho.ci95 and list(rho.ci95)},
        "method": FISHER_Z,
        "pairs": len(pairs),
        "comparisons": [sum(pair["differences"][k]["p"] is not None for pair in pairs) for k in range(2)],
        "reversed": reversed_pairs,
        "left_out": [{"name": row, "reason": why} for row, why in left_out.items() if row in either],
        **_with_printed(one, other, names),
    }
    return {**found, "text": _in_words(found)}


def clear_pairs(one: RankedColumn, other: RankedColumn, apart: float = CLEAR) -> tuple[int, int]:
    """Of the pairs of rows that lie `apart` or more in the other column: how many one column orders alike, and all.

    A tie is not in order.
    """
    names = [row for row in one.values if row in other.values]
    pairs = [pair for pair in combinations(names, 2) if abs(_above(other, *pair)) >= apart - 1e-9]
    in_order = sum(
        (one.values[first] - one.values[second]) * (other.values[first] - other.values[second]) > 0
        for first, second in pairs
    )
    return in_order, len(pairs)


def _with_printed(one: RankedColumn, other: RankedColumn, names: Sequence[str]) -> dict[str, Any]:
    """The parts of `agreement` about printed numbers; None for two columns of one kind, or too few seeds."""
    found: dict[str, Any] = {"clear_pairs": None, "by_seed": None}
    if (one.seeds is None) == (other.seeds is None):
        return found
    measured, printed = (other, one) if one.seeds is None else (one, other)
    seeds_of = measured.seeds or {}
    in_order, pairs = clear_pairs(measured, printed)
    found["clear_pairs"] = {"apart": CLEAR, "pairs": pairs, "in_order": in_order}
    common = sorted(set.intersection(*(set(seeds_of[row]) for row in names)))[: measured.first]
    alone = [RankedColumn(measured.name, {row: seeds_of[row][seed] for row in names}) for seed in common]
    taus = [kendall(list(each.values.values()), [printed.values[row] for row in names]).value for each in alone]
    if pairs and len(common) > 1 and None not in taus:
        found["by_seed"] = {
            "seeds": common,
            "kendall": _over_seeds([tau for tau in taus if tau is not None], -1.0),
            "clear_pairs": _over_seeds([clear_pairs(each, printed)[0] / pairs for each in alone], 0.0),
        }
    return found


def _over_seeds(values: Sequence[float], lowest: float) -> dict[str, Any]:
    """Mean and interval of a figure from `lowest` to 1; an interval of all that is possible says nothing: None."""
    summary = summarise(values)
    ci95 = summary.ci95 and [max(summary.ci95[0], lowest), min(summary.ci95[1], 1.0)]
    return {"value": summary.mean, "ci95": None if ci95 == [lowest, 1.0] else ci95, "values": list(values)}


def change_of_agreement(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any] | None:
    """How much better one column agrees with printed numbers than another: `by_seed` of both, paired over the seeds.

    `before` and `after` are what `agreement` gave for two columns and the same printed one. None where they are not
    over the same rows, or have fewer than two seeds in common.
    """
    one, other = before["by_seed"], after["by_seed"]
    if not one or not other or set(before["rows"]) != set(after["rows"]):
        return None
    common = [seed for seed in one["seeds"] if seed in other["seeds"]]
    if len(common) < 2:
        return None
    found: dict[str, Any] = {"seeds": common}
    for name in ("kendall", "clear_pairs"):
        here, there = (dict(zip(side["seeds"], side[name]["values"], strict=True)) for side in (other, one))
        change = paired_difference([here[seed] for seed in common], [there[seed] for seed in common])
        found[name] = {"mean": change.mean, "ci95": change.ci95 and list(change.ci95), "p": change.p}
    return found


def _above(column: RankedColumn, first: str, second: str) -> float:
    return column.values[first] - column.values[second]


def _ordered_pairs(names: Sequence[str], one: RankedColumn, other: RankedColumn, sign: int) -> list[dict[str, Any]]:
    """The pairs of rows that both columns order, with both differences; p is Holm's over the pairs of a column."""
    pairs: list[dict[str, Any]] = []
    for first, second in combinations(names, 2):
        if sign * _above(other, first, second) < 0:
            first, second = second, first
        if all(abs(_above(column, first, second)) > 1e-9 for column in (one, other)):  # ties are in no order
            pairs.append({"rows": [first, second], "differences": [c.difference(first, second) for c in (one, other)]})
    for k in range(2):
        corrected = holm([pair["differences"][k]["p"] for pair in pairs])
        for pair, p in zip(pairs, corrected, strict=True):
            pair["differences"][k]["p"] = p
    return pairs


def _in_words(found: Mapping[str, Any]) -> list[str]:
    one, other = found["between"]
    lines = [
        f"Agreement of {one} with {other} over {len(found['rows'])} rows: "
        + f"{_number('Kendall tau-b', found['kendall'])}, {_number('Spearman rho', found['spearman'])} "
        + "[95% intervals by Fisher z, as if these rows were drawn from many]."
    ]
    pairs = found["reversed"]
    beyond = [pair for pair in pairs if pair["beyond_noise"]]
    unknown = sum(pair["beyond_noise"] is None for pair in pairs)
    text = f"{len(pairs)} of {found['pairs']} row pairs rank differently in {one} and {other}."
    if pairs and unknown == len(pairs):
        text += " Whether that exceeds noise needs more seeds."
    elif pairs:
        text += f" {len(beyond)} of them exceed noise (their paired 95% interval excludes 0)"
        text += f"; {unknown} need more seeds to tell." if unknown else "."
    if beyond:
        tested = " and ".join(str(n) for n in dict.fromkeys(found["comparisons"]) if n)
        still = [p for p in beyond if all(s["p"] is None or s["p"] < LEVEL for s in p["differences"])]
        text += f" With p < {LEVEL} after Holm over the {tested} pairs: {_named(still) or 'none'}."
        rest = [pair for pair in beyond if pair not in still]
        text += f" Not after Holm: {_named(rest)}." if rest else ""
    lines.append(text)
    lines += _printed_in_words(found)
    if found["left_out"]:
        left_out = "; ".join(f"{row['name']} ({row['reason']})" for row in found["left_out"])
        lines.append(f"Not compared: {left_out}.")
    return lines


def _printed_in_words(found: Mapping[str, Any]) -> list[str]:
    clear, by_seed = found["clear_pairs"], found["by_seed"]
    lines = []
    if clear and clear["pairs"]:
        share = clear["in_order"] / clear["pairs"]
        lines.append(
            f"Of the {clear['pairs']} pairs that lie {clear['apart']:g} point or more apart in the paper, "
            f"{clear['in_order']} ({share:.0%}) are in its order."
        )
    if by_seed:
        lines.append(
            f"By each of {len(by_seed['seeds'])} seeds alone: {_number('Kendall tau-b', by_seed['kendall'])}, "
            f"{_number('share of these pairs', by_seed['clear_pairs'], '.0%')} "
            "[means, 95% t intervals, as if these seeds were drawn from many]."
        )
    return lines


def _named(pairs: list[dict[str, Any]]) -> str:
    said = [f"{b} above {a} by {abs(pair['differences'][0]['mean']):.2f}" for pair in pairs for a, b in [pair["rows"]]]
    return "; ".join(said)


def _number(name: str, of: Mapping[str, Any], form: str = ".2f") -> str:
    if of["value"] is None:
        return f"{name} undefined, all tied"
    interval = f" [{of['ci95'][0]:{form}}, {of['ci95'][1]:{form}}]" if of["ci95"] else " (no interval)"
    return f"{name} {of['value']:{form}}{interval}"
