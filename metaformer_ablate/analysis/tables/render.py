"""A table as text, markdown, LaTeX and HTML for people, and as csv and JSON for programs.

No row is ranked, none is bold, and no p has stars. The same table gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from metaformer_ablate.analysis.tables.columns import choose_columns
from metaformer_ablate.analysis.tables.csv import render_csv
from metaformer_ablate.analysis.tables.html import render_html
from metaformer_ablate.analysis.tables.interactions import interactions_sheet
from metaformer_ablate.analysis.tables.latex import render_latex
from metaformer_ablate.analysis.tables.sheet import Sheet, make_sheet
from metaformer_ablate.analysis.tables.text import needed_width, render_markdown, render_text, text_width
from metaformer_ablate.analysis.tables.tuning import tuning_sheets
from metaformer_ablate.analysis.tables.types import Table

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
) -> str:
    """A table built by `build_table` in one of FORMATS, with its notes.

    `columns` (of `columns_of`), `digits` (decimals, by default the metric's) and `transposed` (a row becomes a column)
    are for people: csv and JSON hold everything, unrounded. Without `notes` each note of a text is its first sentence.
    """
    if style == "json":
        return json.dumps(table.to_json(), indent=1, allow_nan=False) + "\n"
    if style == "csv":
        return render_csv(table)
    names = choose_columns(table.metric, columns)
    decimals = table.metric.digits if digits is None else digits
    if columns is None:
        names = _usual(table, names, style)
    sheet = make_sheet(table, names, decimals, style)
    if style == "text" and columns is None and not transposed:
        sheet = _narrowed(table, sheet, width or text_width())
    if style == "text" and not notes:
        sheet = sheet.with_short_notes("table")
    text = render_sheet(sheet, style, width, transposed)
    if table.interactions:
        text += "\n" + render_sheet(
            interactions_sheet(table.title, table.interactions, decimals, table.audit), style, width
        )
    for part in tuning_sheets(table.tuning, decimals) if table.tuning else ():
        text += "\n" + render_sheet(part, style, width)
    return text


def _usual(table: Table, names: Sequence[str], style: str) -> tuple[str, ...]:
    """The usual columns with those of the tests that were asked for; in LaTeX, which is as narrow as a page, without
    the sizes that stand beside a difference."""
    fitting = [name for name in names if not (style == "latex" and name in ("effect", "better"))]
    asked = {"equal": table.equivalent is not None, "images": any(row.images for row in table.rows)}
    at = fitting.index("p") + 1
    return (*fitting[:at], *(name for name, there in asked.items() if there), *fitting[at:])


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


def render_sheet(sheet: Sheet, style: str, width: int | None = None, transposed: bool = False) -> str:
    """A sheet in one of HUMAN_FORMATS."""
    if style == "latex":
        return render_latex(sheet, transposed)
    if style == "html":
        return render_html(sheet, transposed)
    if style == "markdown":
        return render_markdown(sheet, transposed)
    return render_text(sheet, transposed, width)
