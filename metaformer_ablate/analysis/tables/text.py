"""Tables as text and as markdown."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace

from metaformer_ablate.analysis.escapes import escape_markdown
from metaformer_ablate.analysis.tables.columns import LEFT, RIGHT, Column
from metaformer_ablate.analysis.tables.sheet import Sheet, sheet_cells
from metaformer_ablate.errors import visible


def text_width() -> int:
    """Columns for text: the terminal's, or enough for every table of the paper on a pipe or in a file."""
    return max(shutil.get_terminal_size().columns, NARROWEST) if sys.stdout.isatty() else 180


def needed_width(sheet: Sheet) -> int:
    """Columns that a sheet takes as text."""
    return width_of(list(sheet.columns.values()), sheet.lines)


def width_of(columns: Sequence[Column], lines: Sequence[Sequence[str]]) -> int:
    """Columns that cells take as text: labels may be folded, from a width of LABEL on, numbers may not."""
    widths = []
    for i, column in enumerate(columns):
        words = [len(word) for word in column.heading.split()]
        cells = [len(line[i]) for line in lines]
        longest = max([*cells, *words], default=0)
        widths.append(min(longest, LABEL) if column.left and not column.whole else longest)
    return sum(width + 3 for width in widths) + 1  # padding and what stands between


NARROWEST = 60  # a terminal that is narrower folds lines by itself
LABEL = 34


def render_text(sheet: Sheet, transposed: bool, width: int | None) -> str:
    width = width or text_width()
    sheet = sheet if transposed else _in_width(sheet, width)
    headings, lines = sheet_cells(sheet, transposed)
    columns = list(sheet.columns.values())
    if transposed:
        columns = [LEFT, *(RIGHT for _ in sheet.rows)]
        # Labels may be folded, numbers may not, however wide that is.
        needed = sum(max(len(line[i]) for line in lines) + 3 for i in range(len(headings))) if lines else 0
        width = max(width, needed)
    grouped = not transposed and next(iter(sheet.columns)) == "group"
    drawn = []
    for i, line in enumerate(lines):
        first = "" if grouped and i and lines[i - 1][0] == line[0] else line[0]
        drawn.append(([first, *line[1:]], grouped and i + 1 < len(lines) and lines[i + 1][0] != line[0]))
    return draw(sheet.title, headings, columns, drawn, sheet.notes, width)


def _in_width(sheet: Sheet, width: int) -> Sheet:
    """The sheet with what it can do without left out, or shorter, as far as a width asks for it; a line names that."""
    gone: list[str] = []
    for name, shorter in sheet.narrow:
        if needed_width(sheet) <= width:
            break
        if name in sheet.columns:
            shortened = "whole labels" if shorter and shorter.left else "intervals"
            gone.append(shortened if shorter else sheet.columns[name].heading)
            kept = {key: shorter if key == name else column for key, column in sheet.columns.items()}
            sheet = replace(sheet, columns={key: column for key, column in kept.items() if column is not None})
    said = [not_shown(gone, width)] if gone else []
    return replace(sheet, explanations=[*sheet.explanations, *said])


def not_shown(columns: Sequence[str], width: int) -> str:
    """The line that names the columns that a narrow terminal has no room for."""
    return f"Not shown at {width} columns: {', '.join(dict.fromkeys(columns))}; a wider terminal shows them."


def draw(
    title: str,
    headings: Sequence[str],
    columns: Sequence[Column],
    lines: Sequence[tuple[Sequence[str], bool]],
    notes: Sequence[str],
    width: int | None = None,
) -> str:
    """A text table: lines of cells, each with whether a section ends after it, and notes below."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = width or text_width()
    widths, gap = _widths(headings, columns, lines, width)
    drawn = Table(box=box.SIMPLE_HEAD, padding=(0, gap // 2))
    for heading, column, room in zip(headings, columns, widths, strict=True):
        justify = "left" if column.left else "right"
        drawn.add_column(Text(visible(heading)), justify=justify, overflow="fold", width=room)  # type: ignore[arg-type]
    for cells, ends in lines:
        drawn.add_row(*(Text(visible(cell)) for cell in cells), end_section=ends)
    stream = io.StringIO()
    console = Console(file=stream, width=width, color_system=None, highlight=False, force_jupyter=False)
    console.print(Text(visible(title)))  # not the table's own title, which would be folded to a narrow table
    console.print(drawn)
    for note in notes:
        console.print(Text(visible(note)), width=min(console.width, 120))  # a sentence is not read across a wide table
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


def _widths(
    headings: Sequence[str], columns: Sequence[Column], lines: Sequence[tuple[Sequence[str], bool]], width: int
) -> tuple[list[int], int]:
    """How wide the columns and the gaps between them are drawn, so that no word or number is broken.

    Headings give way before labels, the widest first, and the gaps of three columns last, to one. Where even that finds
    no room, rich breaks what it has to.
    """
    from rich.cells import cell_len

    def widest(texts: Iterable[str]) -> int:
        return max(map(cell_len, texts), default=0)

    widths, folded_headings, folded_labels = [], [], []
    for i, (heading, column) in enumerate(zip(map(visible, headings), columns, strict=True)):
        cells, words = [visible(line[i]) for line, _ in lines], heading.split()
        widths.append(widest([heading, *cells]))
        folded_headings.append(widest([*words, *cells]))
        parts = [word for cell in cells for word in cell.split()] if column.left and not column.whole else cells
        folded_labels.append(widest([*words, *parts]))
    gap = 3 if sum(folded_labels) + 3 * len(widths) + 1 <= width else 1
    for least in (folded_headings, folded_labels):
        while sum(widths) + gap * len(widths) + 1 > width and widths != least:
            wide = (i for i in range(len(widths)) if widths[i] > least[i])
            widths[max(wide, key=widths.__getitem__)] -= 1
    return widths, gap


def render_markdown(sheet: Sheet, transposed: bool) -> str:
    headings, lines = sheet_cells(sheet, transposed)
    name, _, recipe = sheet.title.partition(" under ")
    text = [f"**{escape_markdown(name)}** under `{escape_markdown(recipe).replace('`', '')}`", ""]
    text += [_markdown_line(headings), "|" + " --- |" * len(headings), *map(_markdown_line, lines)]
    text += [line for note in sheet.notes for line in ("", escape_markdown(note))]  # a paragraph each
    return "\n".join(text) + "\n"


def _markdown_line(cells: list[str]) -> str:
    return "| " + " | ".join(escape_markdown(cell).replace("|", "\\|") for cell in cells) + " |"
