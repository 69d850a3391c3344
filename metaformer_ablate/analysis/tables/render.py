"""A table as text, markdown, LaTeX and HTML for people, and as csv and JSON for programs, from its JSON alone.

No row is ranked, none is bold, and no p has stars. The same table gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from metaformer_ablate.analysis.tables.columns import DIGITS, choose_columns
from metaformer_ablate.analysis.tables.csv import _csv
from metaformer_ablate.analysis.tables.html import _html
from metaformer_ablate.analysis.tables.latex import _latex
from metaformer_ablate.analysis.tables.sheet import Sheet, _sheet_of
from metaformer_ablate.analysis.tables.text import _markdown, _text

FORMATS = ("text", "markdown", "csv", "latex", "html", "json")


FOR_PEOPLE = ("text", "markdown", "latex", "html")


def render(
    table: dict[str, Any],
    style: str,
    width: int | None = None,
    columns: Sequence[str] | None = None,
    digits: int = DIGITS,
    transposed: bool = False,
) -> str:
    """A table built by `build_table` in one of FORMATS, with its notes.

    `columns` (of COLUMNS), `digits` (decimals of a percent) and `transposed` (a row becomes a column) are for people:
    csv and JSON hold everything, unrounded.
    """
    if style == "json":
        return json.dumps(table, indent=1, allow_nan=False) + "\n"
    if style == "csv":
        return _csv(table)
    names = choose_columns(columns, any(row["images"] for row in table["rows"]))
    return render_sheet(_sheet_of(table, names, digits, style), style, width, transposed)


def render_sheet(sheet: Sheet, style: str, width: int | None = None, transposed: bool = False) -> str:
    """A sheet in one of FOR_PEOPLE."""
    if style == "latex":
        return _latex(sheet, transposed)
    if style == "html":
        return _html(sheet, transposed)
    if style == "markdown":
        return _markdown(sheet, transposed)
    return _text(sheet, transposed, width)
