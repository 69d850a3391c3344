"""Tables as LaTeX (booktabs) that fit the column or the page of a paper."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from metaformer_ablate.analysis.escapes import beyond_pdflatex, escape_latex
from metaformer_ablate.analysis.tables.sheet import Sheet
from metaformer_ablate.errors import RequestError, unknown

FITS = ("column", "page")

_NUMBER = re.compile(r"[-+]\d[\d.]*|\[[-+0-9., ]+\]")  # set as mathematics, for its minus signs
_MOST_UPRIGHT = 6  # columns of a transposed table; more have headings that stand
_LONG = 34  # letters of a label that is broken into lines


@dataclass(frozen=True)
class Latex:
    """How a table stands in a paper.

    Args:
        fit: `column`, or `page` for the whole width of a page of two columns, with more of the usual columns.
        caption: of the table, as text; by default its title.
        label: for `\\ref`; by default from its title.
        bold: whether the best mean is bold.
    """

    fit: str = "column"
    caption: str | None = None
    label: str | None = None
    bold: bool = False

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise RequestError(f"fit: {unknown('width', self.fit, FITS)}")
        if self.label is not None and not re.fullmatch(r"[\w:.+/-]+", self.label, re.ASCII):
            raise RequestError(f"label is {self.label!r}; allowed: letters, digits and : . - _ + /")


def render_latex(sheet: Sheet, transposed: bool, latex: Latex, best: Collection[int] = ()) -> str:
    """A `table` with booktabs rules and notes by threeparttable; adjustbox shrinks what is wider than the column.
    The means of the rows at the places `best` are bold."""
    table = "table" if latex.fit == "column" else "table*"
    sheet = _with_brief_notes(sheet)
    columns, body = _transposed(sheet, best) if transposed else _body(sheet, best)
    notes = [f"\\item[{_letter(number)}] {escape_latex(note)}" for number, note in sheet.footnotes]
    notes += [f"\\item {escape_latex(line)}" for line in sheet.explanations]
    label = latex.label or "tab:" + re.sub("[^A-Za-z0-9]+", "-", sheet.title.replace(" under ", "-"))
    source = "\n".join(
        [
            f"\\begin{{{table}}}",
            r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
            f"\\caption{{{escape_latex(sheet.title if latex.caption is None else latex.caption)}}}",
            f"\\label{{{label}}}",
            r"\begin{adjustbox}{max width=\linewidth}",
            r"\begin{threeparttable}",
            f"\\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
            r"\toprule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *([r"\begin{tablenotes}[flushleft]\scriptsize", *notes, r"\end{tablenotes}"] if notes else []),
            r"\end{threeparttable}",
            r"\end{adjustbox}",
            f"\\end{{{table}}}",
            "",
        ]
    )
    beyond = beyond_pdflatex(source)
    needs = f"% needs lualatex or xelatex: {beyond}\n" if beyond else ""
    return f"% Packages: \\usepackage{{adjustbox,array,booktabs,threeparttable}}\n{needs}{source}"


def brief(text: str) -> str:
    """A footnote in a few words: its first sentence, without what stands behind a semicolon."""
    if found := re.fullmatch(r"besides [\w.]+ it changes (.*)", text):
        return "also changes " + ", ".join(
            path.rpartition(".")[2] for path in re.findall(r"(?:^|, )(\w+\.[\w.]+) ", found[1])
        )
    text = re.split(r"; |(?<=[a-z)\]])\. (?=[A-Z])", text)[0]
    return text.split(": ")[0] if len(text) > 70 and text.find(": ") > 25 else text


def _with_brief_notes(sheet: Sheet) -> Sheet:
    """The sheet with its footnotes in a few words, those that then say the same as one."""
    numbers: dict[str, int] = {}
    new = {number: numbers.setdefault(brief(note), len(numbers) + 1) for number, note in sheet.footnotes}
    marks = [sorted({new[number] for number in marks}) for marks in sheet.marks]
    return replace(sheet, footnotes=[(number, note) for note, number in numbers.items()], marks=marks)


def _letter(number: int) -> str:
    """a, b, ... z, aa, ..."""
    number, last = divmod(number - 1, 26)
    return (_letter(number) if number else "") + chr(ord("a") + last)


def _body(sheet: Sheet, best: Collection[int]) -> tuple[str, list[str]]:
    """The columns' formats, and the lines with a line above each group."""
    groups = sheet.groups()
    headings, lines = _cells(sheet, best, [name for name in sheet.columns if groups is None or name != "group"])
    label = list(sheet.columns)[sheet.labels]
    formats = []
    for name, _ in headings:
        longest = max((len(sheet.columns[name].of(row, sheet.digits)) for row in sheet.rows), default=0)
        broken = name == label and longest > _LONG
        formats.append(
            r">{\raggedright\arraybackslash}p{3.6cm}" if broken else "l" if sheet.columns[name].left else "r"
        )
    body = [" & ".join(heading for _, heading in headings) + r" \\", r"\midrule"]
    for group, places in groups or [("", list(range(len(lines))))]:
        if group:
            body += [r"\midrule"] if len(body) > 2 else []
            body.append(f"\\multicolumn{{{len(headings)}}}{{@{{}}l}}{{\\textit{{{escape_latex(group)}}}}} \\\\")
        body += [" & ".join(lines[i]) + r" \\" for i in places]
    return "".join(formats), body


def _transposed(sheet: Sheet, best: Collection[int]) -> tuple[str, list[str]]:
    """The same with a column for each row."""
    headings, lines = _cells(sheet, best, list(sheet.columns))
    turned = list(zip([heading for _, heading in headings], *lines, strict=True))
    at = [name for name, _ in headings].index(list(sheet.columns)[sheet.labels])
    turned = [turned[at], *turned[:at], *turned[at + 1 :]]
    if len(lines) > _MOST_UPRIGHT:
        turned[0] = (turned[0][0], *(f"\\rotatebox{{90}}{{{heading}}}" for heading in turned[0][1:]))
    body = [" & ".join(line) + r" \\" for line in turned]
    return "l" + "r" * len(lines), [body[0], r"\midrule", *body[1:]]


def _cells(
    sheet: Sheet, best: Collection[int], names: Sequence[str]
) -> tuple[list[tuple[str, str]], list[tuple[str, ...]]]:
    """Headings with the names of their columns, and a line of cells per row."""
    label = list(sheet.columns)[sheet.labels]
    headings, columns = [], []
    for name in names:
        for part in sheet.columns[name].latex_parts():
            cells = [_cell(part.of(row, sheet.digits)) for row in sheet.rows]
            if part.mean:
                cells = [f"\\textbf{{{cell}}}" if i in best else cell for i, cell in enumerate(cells)]
            if name == label:
                marks = [",".join(map(_letter, marks)) for marks in sheet.marks]
                cells = [cell + (f"\\tnote{{{mark}}}" if mark else "") for cell, mark in zip(cells, marks, strict=True)]
            headings.append((name, escape_latex(part.heading)))
            columns.append(cells)
    return headings, list(zip(*columns, strict=True))


def _cell(text: str) -> str:
    return f"${text}$" if _NUMBER.fullmatch(text) else escape_latex(text)
