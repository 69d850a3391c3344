"""A table of results as a value: typed numbers, and what shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from metaformer_ablate.analysis.tables.columns import choose_columns, sort_rows
from metaformer_ablate.analysis.tables.latex import Latex
from metaformer_ablate.analysis.tables.render import COLUMN, FORMATS, render
from metaformer_ablate.analysis.tables.types import Table, TableRow
from metaformer_ablate.errors import RequestError, unknown

if TYPE_CHECKING:
    import pandas as pd


class ResultTable(Table):
    """The table of an experiment under a recipe, for one metric of its task. Notebooks show it as HTML.

    `rows` has a `TableRow` for each row, in order: `name`, `label`, `params`, `macs`, `n` (runs that count), `mean`,
    `std` and `ci95` over seeds (in the metric's unit; None where undefined), `delta` (the paired difference from the
    baseline: `mean`, `ci95`, `p` corrected by Holm, `method`), `paper` (the printed numbers), `status`, `notes` and
    `runs`. `metric`, `baseline`, `warnings`, `audit`, `agreement` and `resolution` are of the whole table. `resolution`
    is what the seeds can tell apart, and None where no difference has a spread. docs/statistics.md says how each number
    is made.
    """

    @classmethod
    def of(cls, table: Table) -> ResultTable:
        return cls(**{each.name: getattr(table, each.name) for each in fields(table)})

    def row(self, name: str) -> TableRow:
        """A row by name. Raises RequestError for another name."""
        for row in self.rows:
            if row.name == name:
                return row
        raise RequestError(f"{self.title}: {unknown('row', name, [row.name for row in self.rows])}")

    def sorted(self, by: str) -> ResultTable:
        """The table with its rows in the order of a column, from the largest with `-` before its name."""
        return ResultTable.of(sort_rows(self, by))

    def to_frame(self) -> pd.DataFrame:
        """One line per row, indexed by its name, with the columns of `ablate table --format csv`: plain, unrounded."""
        import pandas as pd

        return pd.DataFrame(self.flat()).set_index("name")

    def to_text(
        self,
        style: str = "text",
        columns: Sequence[str] | None = None,
        digits: int | None = None,
        transposed: bool = False,
        notes: bool = True,
        latex: Latex = COLUMN,
    ) -> str:
        """As `ablate table` prints it.

        Args:
            style: text, markdown, csv, latex, html or json. csv and json hold every number, unrounded.
            columns: which, in which order (`row`, `params`, `macs`, the metric's name, `n`, `difference`, `p`, ...).
            digits: decimals, 0 to 6; the metric's own by default.
            transposed: rows become columns.
            notes: whole, or of each note of a text its first sentence.
            latex: how a LaTeX table stands in a paper.

        Raises RequestError for a style or a column that there is not, and for other decimals.
        """
        if style not in FORMATS:
            raise RequestError(f"style: {unknown('format', style, FORMATS)}")
        if digits is not None and not 0 <= digits <= 6:
            raise RequestError(f"digits is {digits}; allowed: an integer from 0 to 6")
        chosen = None if columns is None else choose_columns(self.metric, list(columns))
        return render(self, style, columns=chosen, digits=digits, transposed=transposed, notes=notes, latex=latex)

    def to_latex(
        self,
        columns: Sequence[str] | None = None,
        digits: int | None = None,
        transposed: bool = False,
        *,
        fit: str = "column",
        caption: str | None = None,
        label: str | None = None,
        bold: bool = False,
    ) -> str:
        """A LaTeX `table` with booktabs rules; its first line names the packages that it needs.

        Args:
            fit: `column`, or `page` for the whole width of a page of two columns.
            caption: by default the table's title.
            label: for references; by default from the title.
            bold: whether the best mean is bold.
        """
        return self.to_text("latex", columns, digits, transposed, latex=Latex(fit, caption, label, bold))

    def to_markdown(
        self, columns: Sequence[str] | None = None, digits: int | None = None, transposed: bool = False
    ) -> str:
        """A Markdown table with its footnotes."""
        return self.to_text("markdown", columns, digits, transposed)

    def _repr_html_(self) -> str:
        return self.to_text("html")

    def __repr__(self) -> str:
        return self.to_text()

    __str__ = __repr__


def check_points(called: str, points: float | None) -> None:
    if points is not None and not 0 < points <= 100:
        raise RequestError(f"{called} is {points:g}; allowed: a difference in points, above 0 and at most 100")
