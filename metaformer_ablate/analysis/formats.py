"""A table as text, markdown, LaTeX and HTML for people, and as csv and JSON for programs, from its JSON alone.

No row is ranked, none is bold, and no p has stars. The same table gives the same bytes.
"""

from __future__ import annotations

import csv
import html
import io
import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metaformer_ablate.spec import unknown
from metaformer_ablate.yaml_reader import RequestError

FORMATS = ("text", "markdown", "csv", "latex", "html", "json")
FOR_PEOPLE = ("text", "markdown", "latex", "html")
DIGITS = 2

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """What LaTeX aligns by itself of a column: a heading, and a row's number as text ("" where there is none)."""

    heading: str
    of: Callable[[Row, int], str]
    number: bool = True


@dataclass(frozen=True)
class Column:
    """A column for people: a heading and a row's cell, with so many decimals of a percent."""

    heading: str
    of: Callable[[Row, int], str]
    left: bool = False
    whole: bool = False  # never broken: an interval is read in one line
    parts: tuple[Part, ...] = ()  # in LaTeX; without them the column is one number

    def latex_parts(self) -> tuple[Part, ...]:
        return self.parts or (Part(self.heading, self.of, number=not self.left),)


def format_millions(params: int | None, frozen: int | None = None) -> str:
    if params is None:
        return "-"
    digits = 2 if params >= 1e6 else 3
    return f"{params / 1e6:.{digits}f}" + (f" + {frozen / 1e6:.{digits}f} frozen" if frozen else "")


def format_billions(macs: int | None) -> str:
    return "-" if macs is None else f"{macs / 1e9:.2f}" if macs >= 1e8 else f"{macs / 1e9:.4f}"


def format_mean(row: Row, digits: int = DIGITS) -> str:
    if row["mean"] is None:
        return row["status"]
    text = f"{row['mean']:.{digits}f}"
    if row["std"] is not None:
        text += f" ± {row['std']:.{digits}f}"
    if row["ci95"] is not None:
        text += f" {format_pair(row['ci95'], digits)}"
    return text if row["status"] == "ok" else f"{text} ({row['status']})"


def format_pair(interval: Sequence[float] | None, digits: int = DIGITS, sign: str = "") -> str:
    return "" if interval is None else f"[{interval[0]:{sign}.{digits}f}, {interval[1]:{sign}.{digits}f}]"


def format_interval(mean: float, interval: Sequence[float] | None, signed: bool = False, digits: int = DIGITS) -> str:
    sign = "+" if signed else ""
    return f"{mean:{sign}.{digits}f} {format_pair(interval, digits, sign)}".rstrip()


def format_p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def format_label(row: Row) -> str:
    """The label; of a row that was given none its name and what it sets, for only that differs."""
    if row["label"] != row["name"] or not row.get("set"):
        return row["label"]
    sets = ", ".join(f"{path.rpartition('.')[2]} {_plain(value)}" for path, value in row["set"].items())
    return f"{row['name']}: {sets}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value).replace('"', "")


def format_count(row: Row) -> str:
    """Runs that count; of all there are where that is not the same."""
    total = len(row["runs"])
    return str(row["n"]) if row["n"] == total or not total else f"{row['n']}/{total}"


def _optional(value: float | None, style: str) -> str:
    return "" if value is None else f"{value:{style}}"


def _p(test: Mapping[str, Any] | None) -> str:
    return "" if not test or test["p"] is None else format_p(test["p"])


def _difference(row: Row, digits: int) -> str:
    delta = row["delta"]
    return "" if delta is None else format_interval(delta["mean"], delta["ci95"], signed=True, digits=digits)


COLUMNS = {
    "group": Column("Group", lambda row, digits: row["group"], left=True),
    "row": Column("Row", lambda row, digits: format_label(row), left=True),
    "name": Column("Name", lambda row, digits: row["name"], left=True),
    "params": Column("Params (M)", lambda row, digits: format_millions(row["params"], row["frozen_params"])),
    "macs": Column("MACs (G)", lambda row, digits: format_billions(row["macs"])),
    "top1": Column(
        "Top-1 (%)",
        format_mean,
        whole=True,
        parts=(
            Part("Top-1 (%)", lambda row, digits: _optional(row["mean"], f".{digits}f") or row["status"]),
            Part("SD", lambda row, digits: _optional(row["std"], f".{digits}f")),
        ),
    ),
    "bootstrap": Column(
        "Bootstrap (%)",
        lambda row, digits: format_pair((row["bootstrap"] or {}).get("ci95"), digits),
        whole=True,
        parts=(
            Part(
                "Bootstrap (%)",
                lambda row, digits: format_pair((row["bootstrap"] or {}).get("ci95"), digits),
                number=False,
            ),
        ),
    ),
    "n": Column("n", lambda row, digits: format_count(row)),
    "difference": Column(
        "Difference",
        _difference,
        whole=True,
        parts=(
            Part("Difference", lambda row, digits: _optional((row["delta"] or {}).get("mean"), f"+.{digits}f")),
            Part(
                "95% interval",
                lambda row, digits: format_pair((row["delta"] or {}).get("ci95"), digits, "+"),
                number=False,
            ),
        ),
    ),
    "p": Column("p", lambda row, digits: _p(row["delta"])),
    "images": Column("p (images)", lambda row, digits: _p(row["images"])),
    "paper": Column("Paper top-1", lambda row, digits: _optional(row["paper"].get("top1"), ".1f")),
    "status": Column("Status", lambda row, digits: row["status"], left=True),
}
_DEFAULT = ("group", "row", "params", "macs", "top1", "n", "difference", "p", "paper")

_SORT_KEYS: dict[str, Callable[[Row], Any]] = {
    "name": lambda row: row["name"],
    "row": format_label,
    "group": lambda row: row["group"],
    "params": lambda row: row["params"],
    "macs": lambda row: row["macs"],
    "top1": lambda row: row["mean"],
    "n": lambda row: row["n"],
    "difference": lambda row: (row["delta"] or {}).get("mean"),
    "p": lambda row: (row["delta"] or {}).get("p"),
    "paper": lambda row: row["paper"].get("top1"),
}


def choose_columns(names: Sequence[str] | None, images: bool = False) -> tuple[str, ...]:
    """The columns asked for, checked; without names the usual ones, and that of the images where they were tested."""
    if names is None:
        at = _DEFAULT.index("p") + 1
        return (*_DEFAULT[:at], *(["images"] if images else []), *_DEFAULT[at:])
    for name in names:
        if name not in COLUMNS:
            raise RequestError(f"--columns: {unknown('column', name, COLUMNS)}")
        if names.count(name) > 1:
            raise RequestError(f"--columns: {name} is named twice")
    return tuple(names)


def sort_rows(table: dict[str, Any], by: str) -> dict[str, Any]:
    """The table with its rows ordered by a column, from the largest with `-` before its name; what is unknown last."""
    name = by.removeprefix("-")
    if name not in _SORT_KEYS:
        raise RequestError(f"--sort: {unknown('column', name, _SORT_KEYS)}, or one with - before it: largest first")
    key = _SORT_KEYS[name]
    known = [row for row in table["rows"] if key(row) is not None]
    rest = [row for row in table["rows"] if key(row) is None]
    return {**table, "rows": [*sorted(known, key=key, reverse=by.startswith("-")), *rest]}


def text_width() -> int:
    """Columns for text: the terminal's, or enough for every table of the paper on a pipe or in a file.

    At least 110, whatever the terminal: rich leaves out the columns that find no room, such as the number of seeds.
    """
    return max(shutil.get_terminal_size().columns, 110) if sys.stdout.isatty() else 180


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


@dataclass
class Sheet:
    """What is printed: rows, the columns that make cells of them, and the lines below.

    `marks` has the numbers of its footnotes for each row, `explanations` the lines that have no number.
    """

    title: str
    rows: Sequence[Row]
    columns: Mapping[str, Column]
    digits: int
    marks: Sequence[Sequence[int]]
    footnotes: Sequence[tuple[int, str]]
    explanations: Sequence[str]

    @property
    def headings(self) -> list[str]:
        return [column.heading for column in self.columns.values()]

    @property
    def notes(self) -> list[str]:
        return [*(f"[{number}] {note}" for number, note in self.footnotes), *self.explanations]

    @property
    def lines(self) -> list[list[str]]:
        lines = []
        for row, marks in zip(self.rows, self.marks, strict=True):
            cells = [column.of(row, self.digits) for column in self.columns.values()]
            cells[self.labels] += f" [{','.join(map(str, marks))}]" if marks else ""
            lines.append(cells)
        return lines

    @property
    def labels(self) -> int:
        """The place of the column that names the rows and carries their marks."""
        names = list(self.columns)
        return next((names.index(name) for name in ("row", "name") if name in names), 0)

    def groups(self) -> list[tuple[str, list[int]]] | None:
        """Groups and the places of their rows, where the groups are asked for and each stands together."""
        groups: list[tuple[str, list[int]]] = []
        for i, row in enumerate(self.rows):
            if not groups or groups[-1][0] != row["group"]:
                groups.append((row["group"], []))
            groups[-1][1].append(i)
        apart = len({name for name, _ in groups}) < len(groups)
        return None if "group" not in self.columns or len(self.columns) == 1 or apart else groups


def render_sheet(sheet: Sheet, style: str, width: int | None = None, transposed: bool = False) -> str:
    """A sheet in one of FOR_PEOPLE."""
    if style == "latex":
        return _latex(sheet, transposed)
    if style == "html":
        return _html(sheet, transposed)
    if style == "markdown":
        return _markdown(sheet, transposed)
    return _text(sheet, transposed, width)


def _sheet_of(table: dict[str, Any], names: Sequence[str], digits: int, style: str) -> Sheet:
    # One numbering: the audit's footnotes first, then the rows' own notes as they come.
    numbers = {f"audit: {finding['text']}": finding["number"] for finding in table["audit"]}
    marks = []
    for row in table["rows"]:
        audited = [finding["number"] for finding in table["audit"] if row["name"] in finding["rows"]]
        marks.append(audited + [numbers.setdefault(note, len(numbers) + 1) for note in row["notes"]])
    footnotes = [(number, note) for note, number in numbers.items()]
    title = f"{table['experiment']} under {table['recipe']}"
    columns = {name: COLUMNS[name] for name in names}
    return Sheet(title, table["rows"], columns, digits, marks, footnotes, _explanations(table, names, style))


def _explanations(table: dict[str, Any], names: Sequence[str], style: str) -> list[str]:
    """What the numbers are, what they allow, and what to mind."""
    rows = table["rows"]
    lines = []
    if "top1" in names and any(row["ci95"] for row in rows):
        in_columns = "Top-1: mean over seeds, SD: standard deviation over seeds."
        in_a_cell = "Top-1: mean ± standard deviation over seeds [95% t interval of the mean]."
        lines.append(in_columns if style == "latex" else in_a_cell)
    if {"difference", "p"} & {*names} and any(row["delta"] and row["delta"]["ci95"] for row in rows):
        lines.append(
            "Difference to the baseline: mean over common seeds [95% paired t interval]; p of the paired t test, "
            "corrected by Holm over the rows. It asks whether the rows would differ if trained again."
        )
    if "bootstrap" in names and (method := next((r["bootstrap"]["method"] for r in rows if r["bootstrap"]), None)):
        lines.append(f"Bootstrap: 95% interval of the mean, {method}.")
    if "images" in names and any(row["images"] for row in rows):
        lines.append(
            "p (images): exact sign-flip test over images (McNemar's for one seed), corrected by Holm over the rows. "
            "It asks whether these trained models differ on such images, not whether the rows would if trained again."
        )
    if "difference" in names or "p" in names:
        lines += [table["resolution"]["text"]] if table["resolution"] else []
    lines += [table["power"]["text"]] if "power" in table else []
    lines += table["agreement"]["text"] if table["agreement"] and "paper" in names else []
    audited = {finding["number"] for finding in table["audit"]}
    told = tuple(f"audit [{number}]" for number in audited)  # as footnotes
    return lines + [f"Warning: {warning}" for warning in table["warnings"] if not warning.startswith(told)]


def _cells(sheet: Sheet, transposed: bool) -> tuple[list[str], list[list[str]]]:
    """Headings and lines; transposed, the rows are the columns and their labels the headings."""
    headings, lines, at = sheet.headings, sheet.lines, sheet.labels
    if not transposed:
        return headings, lines
    rest = [[heading, *(line[i] for line in lines)] for i, heading in enumerate(headings) if i != at]
    return [headings[at], *(line[at] for line in lines)], rest


# ---------------------------------------------------------------------------------------------------------------------
# For people


def _markdown(sheet: Sheet, transposed: bool) -> str:
    headings, lines = _cells(sheet, transposed)
    name, _, recipe = sheet.title.partition(" under ")
    text = [f"**{name}** under `{recipe}`", ""]
    text += [_markdown_line(headings), "|" + " --- |" * len(headings), *map(_markdown_line, lines)]
    text += [line for note in sheet.notes for line in ("", note)]  # a paragraph each
    return "\n".join(text) + "\n"


def _markdown_line(cells: list[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _text(sheet: Sheet, transposed: bool, width: int | None) -> str:
    headings, lines = _cells(sheet, transposed)
    columns = list(sheet.columns.values())
    if transposed:
        columns = [COLUMNS["row"], *(COLUMNS["n"] for _ in sheet.rows)]
        # Labels may be folded, numbers may not, however wide that is.
        needed = sum(max(len(line[i]) for line in lines) + 3 for i in range(len(headings))) if lines else 0
        width = max(width or text_width(), needed)
    grouped = not transposed and next(iter(sheet.columns)) == "group"
    drawn = []
    for i, line in enumerate(lines):
        first = "" if grouped and i and lines[i - 1][0] == line[0] else line[0]
        drawn.append(([first, *line[1:]], grouped and i + 1 < len(lines) and lines[i + 1][0] != line[0]))
    return draw(sheet.title, headings, columns, drawn, sheet.notes, width)


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

    drawn = Table(box=box.SIMPLE_HEAD, title=Text(title), title_justify="left")
    for heading, column in zip(headings, columns, strict=True):
        justify = "left" if column.left else "right"
        drawn.add_column(Text(heading), justify=justify, overflow="fold", no_wrap=column.whole)  # type: ignore[arg-type]
    for cells, ends in lines:
        drawn.add_row(*map(Text, cells), end_section=ends)
    stream = io.StringIO()
    console = Console(file=stream, width=width or text_width(), color_system=None, highlight=False)
    console.print(drawn)
    for note in notes:
        console.print(Text(note), width=min(console.width, 120))  # a sentence is not read across a wide table
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "`": r"\textasciigrave{}", "*": r"\textasteriskcentered{}", '"': "''", "\n": " ",
    "->": r"$\rightarrow$", "--": "-{}-", "±": r"$\pm$",
    "[": "{[}", "]": "{]}",  # at the start of a line LaTeX takes them for the options of \\
}  # fmt: skip
_LATEX_SPECIAL = re.compile("|".join(map(re.escape, sorted(_LATEX, key=len, reverse=True))))


_INTERVAL = re.compile(r"\[[-+0-9., ]+\]")  # set as mathematics, for its minus signs


def escape_latex(text: str) -> str:
    """Text as LaTeX prints it. Letters that pdflatex lacks need another engine (lualatex)."""
    return _LATEX_SPECIAL.sub(lambda found: _LATEX[found[0]], text)


def _latex(sheet: Sheet, transposed: bool) -> str:
    """A `table` with booktabs rules, numbers aligned by siunitx, and footnotes by threeparttable."""
    groups = None if transposed else sheet.groups()
    if transposed:
        headings, lines = _cells(sheet, transposed)
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
    return "\n".join(
        [
            r"% Packages: \usepackage{booktabs,siunitx,threeparttable}",
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


def _latex_cells(sheet: Sheet, parts: Sequence[tuple[str, Part]]) -> tuple[list[list[str]], list[str]]:
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


def _html(sheet: Sheet, transposed: bool) -> str:
    """A fragment: one `table` and its notes, with every string escaped. A row names its runs in `data-runs`."""
    headings, lines = _cells(sheet, transposed)
    text = ['<div class="ablate">', "<table>", f"<caption>{html.escape(sheet.title)}</caption>"]
    text += ["<thead><tr>" + "".join(f'<th scope="col">{html.escape(h)}</th>' for h in headings) + "</tr></thead>"]
    text.append("<tbody>")
    for i, line in enumerate(lines):
        ids = [] if transposed else [run["run_id"] for run in sheet.rows[i].get("runs", ())]
        runs = f' data-runs="{" ".join(ids)}"' if ids else ""
        label = 0 if transposed else sheet.labels
        cells = [
            f'<th scope="row">{html.escape(cell)}</th>' if k == label else f"<td>{html.escape(cell)}</td>"
            for k, cell in enumerate(line)
        ]
        text.append(f"<tr{runs}>{''.join(cells)}</tr>")
    text += ["</tbody>", "</table>"]
    text += [f"<p>{html.escape(note)}</p>" for note in sheet.notes]
    return "\n".join([*text, "</div>", ""])


# ---------------------------------------------------------------------------------------------------------------------
# For programs

_CSV_ROW = ("name", "label", "group", "params", "frozen_params", "macs", "n", "mean", "std")
_CSV_REST = (
    "ci95_lo", "ci95_hi", "delta_mean", "delta_ci95_lo", "delta_ci95_hi", "delta_p", "delta_method", "paper_top1",
    "status", "notes", "run_ids", "bootstrap_lo", "bootstrap_hi", "delta_bootstrap_lo", "delta_bootstrap_hi",
    "images_p", "images_method", "audit",
)  # fmt: skip


def _csv(table: dict[str, Any]) -> str:
    stream = io.StringIO()
    columns = ["experiment", "recipe", *_CSV_ROW, *_CSV_REST]
    writer = csv.DictWriter(stream, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for row in table["rows"]:
        delta, images, bootstrap = row["delta"] or {}, row["images"] or {}, row["bootstrap"] or {}
        line = {
            "experiment": table["experiment"],
            "recipe": table["recipe"],
            "delta_mean": delta.get("mean"),
            "delta_p": delta.get("p"),
            "delta_method": delta.get("method"),
            "paper_top1": row["paper"].get("top1"),
            "notes": "; ".join(row["notes"]),
            "run_ids": " ".join(run["run_id"] for run in row["runs"] if run["status"] == "ok"),
            "images_p": images.get("p"),
            "images_method": images.get("method"),
            "audit": "; ".join(f["text"] for f in table["audit"] if row["name"] in f["rows"]),
        }
        for name, pair in {
            "ci95": row["ci95"],
            "delta_ci95": delta.get("ci95"),
            "bootstrap": bootstrap.get("ci95"),
            "delta_bootstrap": bootstrap.get("delta_ci95"),
        }.items():
            line[f"{name}_lo"], line[f"{name}_hi"] = pair or (None, None)
        writer.writerow({**row, **line})
    return stream.getvalue()
