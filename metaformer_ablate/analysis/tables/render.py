"""A table as text, markdown, LaTeX and HTML for people, and as csv and JSON for programs.

No row is ranked, none is bold unless that is asked for, and no p has stars. The same table gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from metaformer_ablate.analysis.tables.columns import choose_columns
from metaformer_ablate.analysis.tables.csv import render_csv
from metaformer_ablate.analysis.tables.html import render_html
from metaformer_ablate.analysis.tables.interactions import interactions_sheet
from metaformer_ablate.analysis.tables.latex import Latex, render_latex
from metaformer_ablate.analysis.tables.sheet import Sheet, make_sheet
from metaformer_ablate.analysis.tables.text import needed_width, render_markdown, render_text, text_width
from metaformer_ablate.analysis.tables.tuning import tuning_sheets
from metaformer_ablate.analysis.tables.types import Table

COLUMN = Latex()


FORMATS = ("text", "markdown", "csv", "latex", "html", "json")


HUMAN_FORMATS = ("text", "markdown", "latex", "html")


def render(
    table: Table,
    style: str,
    width: int | None = None,
    columns: Sequence[str] | None = None,
    digits: int | None = None,
    transposed: bool = False,
    notes: bool = True,
    latex: Latex = COLUMN,
) -> str:
    """A table built by `build_table` in one of FORMATS, with its notes.

    `columns` (of `columns_of`), `digits` (decimals, by default the metric's) and `transposed` (a row becomes a column)
    are for people: csv and JSON hold everything, unrounded. Without `notes` each note of a text is its first sentence;
    `latex` is for that format alone.
    """
    if style == "json":
        return json.dumps(table.to_json(), indent=1, allow_nan=False) + "\n"
    if style == "csv":
        return render_csv(table)
    names = choose_columns(table.metric, columns)
    decimals = table.metric.digits if digits is None else digits
    if columns is None:
        names = _with_tests(table, _usual_in_latex(table, latex.fit) if style == "latex" else names)
    sheet = make_sheet(table, names, decimals, style)
    if style == "text" and columns is None and not transposed:
        sheet = _narrowed(table, sheet, width or text_width())
    if style == "text" and not notes:
        sheet = sheet.with_short_notes("table")
    if style == "latex":
        text = render_latex(sheet, transposed, latex, _best(table, decimals) if latex.bold else ())
    else:
        text = render_sheet(sheet, style, width, transposed)
    others = list(tuning_sheets(table.tuning, decimals)) if table.tuning else []
    if table.interactions:
        others.insert(0, interactions_sheet(table.title, table.interactions, decimals, table.audit))
    return "\n".join([text, *(render_sheet(part, style, width, fit=latex.fit) for part in others)])


def _with_tests(table: Table, names: Sequence[str]) -> tuple[str, ...]:
    """The usual columns with those of the tests that were asked for."""
    asked = {"equal": table.equivalent is not None, "images": any(row.images for row in table.rows)}
    at = names.index("p") + 1 if "p" in names else len(names)
    return (*names[:at], *(name for name, there in asked.items() if there), *names[at:])


def _usual_in_latex(table: Table, fit: str) -> tuple[str, ...]:
    """The columns that a column or a page has room for. How many seeds a row has is a note where all have as many."""
    if fit == "column":
        return ("group", "short", "mean", "difference")
    count = ("n",) if len({row.n for row in table.rows}) > 1 else ()
    return ("group", "short", "params", "macs", table.metric.name, *count, "difference", "p", "paper")


def _best(table: Table, digits: int) -> set[int]:
    """The places of the rows with the best mean, as it is printed."""
    means = {i: round(row.mean, digits) for i, row in enumerate(table.rows) if row.mean is not None}
    best = max((table.metric.sign * mean for mean in means.values()), default=None)
    return {i for i, mean in means.items() if table.metric.sign * mean == best}


def _narrowed(table: Table, sheet: Sheet, width: int) -> Sheet:
    """The sheet without the columns that find no room in a width, the least telling ones first; a line names them."""
    metric, names, gone = table.metric.name, list(sheet.columns), []
    for name in ("effect", "better", "group", "macs", metric, "params", "paper", "n"):
        if needed_width(sheet) <= width:
            break
        if name not in names:
            continue
        at = names.index(name)
        names[at : at + 1] = ["mean"] if name == metric else []
        gone.append("intervals of the means" if name == metric else sheet.columns[name].heading)
        sheet = make_sheet(table, names, sheet.digits, "text")
    if not gone:
        return sheet
    said = f"Not shown at {width} columns: {', '.join(gone)}; a wider terminal or --columns shows them."
    return replace(sheet, explanations=[*sheet.explanations, said])


def render_sheet(
    sheet: Sheet, style: str, width: int | None = None, transposed: bool = False, fit: str = "page"
) -> str:
    """A sheet in one of HUMAN_FORMATS; `fit` is LaTeX's."""
    if style == "latex":
        return render_latex(sheet, transposed, Latex(fit))
    if style == "html":
        return render_html(sheet, transposed)
    if style == "markdown":
        return render_markdown(sheet, transposed)
    return render_text(sheet, transposed, width)
