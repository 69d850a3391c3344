"""Tables as LaTeX (booktabs)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from metaformer_ablate.analysis.escapes import beyond_pdflatex, escape_latex
from metaformer_ablate.analysis.tables.columns import LatexColumn
from metaformer_ablate.analysis.tables.sheet import Sheet, sheet_cells

_INTERVAL = re.compile(r"\[[-+0-9., ]+\]")  # set as mathematics, for its minus signs


def render_latex(sheet: Sheet, transposed: bool) -> str:
    """A `table` with booktabs rules, numbers aligned by siunitx, and footnotes by threeparttable."""
    groups = None if transposed else sheet.groups()
    if transposed:
        headings, lines = sheet_cells(sheet, transposed)
        body = [" & ".join(map(escape_latex, line)) + r" \\" for line in lines]
        head, layout = " & ".join(map(escape_latex, headings)), "l" + "r" * (len(headings) - 1)
    else:
        names = [name for name in sheet.columns if groups is None or name != "group"]
        parts = [(name, part) for name in names for part in sheet.columns[name].latex_parts()]
        lines, formats = _latex_cells(sheet, parts)
        head = " & ".join(f"{{{escape_latex(part.heading)}}}" for _, part in parts)
        layout = " ".join(formats)
        body = []
        for group, places in groups or [("", list(range(len(lines))))]:
            if group:
                body += [r"\midrule"] if body else []
                body.append(f"\\multicolumn{{{len(parts)}}}{{l}}{{\\textit{{{escape_latex(group)}}}}} \\\\")
            body += [" & ".join(lines[i]) + r" \\" for i in places]
    notes = [f"\\item[{number}] {escape_latex(note)}" for number, note in sheet.footnotes]
    notes += [f"\\item {escape_latex(line)}" for line in sheet.explanations]
    source = "\n".join(
        [
            r"\begin{table}",
            r"\centering\footnotesize\setlength{\tabcolsep}{3pt}",
            r"\begin{threeparttable}",
            f"\\caption{{{escape_latex(sheet.title)}}}",
            f"\\label{{tab:{re.sub('[^A-Za-z0-9]+', '-', sheet.title.replace(' under ', '-'))}}}",
            f"\\begin{{tabular}}{{{layout}}}",
            r"\toprule",
            head + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *([r"\begin{tablenotes}\footnotesize", *notes, r"\end{tablenotes}"] if notes else []),
            r"\end{threeparttable}",
            r"\end{table}",
            "",
        ]
    )
    beyond = beyond_pdflatex(source)
    needs = f"% needs lualatex or xelatex: {beyond}\n" if beyond else ""
    return f"% Packages: \\usepackage{{booktabs,siunitx,threeparttable}}\n{needs}{source}"


def _latex_cells(sheet: Sheet, parts: Sequence[tuple[str, LatexColumn]]) -> tuple[list[list[str]], list[str]]:
    """Cells, and for each column its format: S with room for its numbers, or l. What is no number stands in braces."""
    label = list(sheet.columns)[sheet.labels]
    columns, formats = [], []
    for name, part in parts:
        cells = [part.of(row, sheet.digits) for row in sheet.rows]
        numbers = [cell for cell in cells if part.number and _is_number(cell)]
        if numbers:
            whole = max(len(cell.lstrip("<+-").partition(".")[0]) for cell in numbers)
            decimals = max(len(cell.partition(".")[2]) for cell in numbers)
            sign = "<" if any(cell[0] == "<" for cell in numbers) else "+" if any(c[0] in "+-" for c in numbers) else ""
            plus = ",retain-explicit-plus" if sign == "+" else ""
            formats.append(f"S[table-format={sign}{whole}.{decimals}{plus}]")
            cells = [c if _is_number(c) else f"{{{escape_latex(c)}}}" if c else "" for c in cells]
        else:
            # siunitx loads array, which knows `>`. A long label is broken, or no page is wide enough.
            long = name == label and max(map(len, cells)) > 32
            formats.append(r">{\raggedright\arraybackslash}p{4.2cm}" if long else "l")
            cells = [f"${cell}$" if _INTERVAL.fullmatch(cell) else escape_latex(cell) for cell in cells]
        if name == label:
            cells = [
                cell + (f"\\tnote{{{','.join(map(str, marks))}}}" if marks else "")
                for cell, marks in zip(cells, sheet.marks, strict=True)
            ]
        columns.append(cells)
    return [list(line) for line in zip(*columns, strict=True)], formats


def _is_number(cell: str) -> bool:
    return cell.lstrip("<+-").replace(".", "", 1).isdigit()
