"""Tables as HTML."""

from __future__ import annotations

from metaformer_ablate.analysis.escapes import escape_html
from metaformer_ablate.analysis.tables.sheet import Sheet, sheet_cells


def render_html(sheet: Sheet, transposed: bool) -> str:
    """A fragment: one `table` and its notes, with every string escaped. A row names its runs in `data-runs`."""
    headings, lines = sheet_cells(sheet, transposed)
    text = ['<div class="ablate">', "<table>", f"<caption>{escape_html(sheet.title)}</caption>"]
    text += ["<thead><tr>" + "".join(f'<th scope="col">{escape_html(h)}</th>' for h in headings) + "</tr></thead>"]
    text.append("<tbody>")
    for i, line in enumerate(lines):
        ids = sheet.run_ids[i] if sheet.run_ids and not transposed else ()
        runs = f' data-runs="{" ".join(ids)}"' if ids else ""
        label = 0 if transposed else sheet.labels
        cells = [
            f'<th scope="row">{escape_html(cell)}</th>' if k == label else f"<td>{escape_html(cell)}</td>"
            for k, cell in enumerate(line)
        ]
        text.append(f"<tr{runs}>{''.join(cells)}</tr>")
    text += ["</tbody>", "</table>"]
    text += [f"<p>{escape_html(note)}</p>" for note in sheet.notes]
    return "\n".join([*text, "</div>", ""])
