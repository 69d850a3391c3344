"""The figures of the report: SVG in the page, once for a wide screen and once for a phone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.etree import ElementTree

from markupsafe import Markup

from metaformer_ablate.analysis.figures.kinds import KINDS, caption, draw, figure_data
from metaformer_ablate.analysis.figures.look import Look
from metaformer_ablate.analysis.tables.types import Table
from metaformer_ablate.drawing.canvas import to_bytes

# At 96 pixels per inch: the whole width of the page, half of it, and a phone.
WHOLE, HALF, PHONE = Look(width=12.5, font=10.5), Look(width=6.1, font=9.5), Look(width=3.75, font=9)
LOOKS = {"rows": WHOLE, "curves": WHOLE, "cost": HALF, "paper": HALF, "seeds": WHOLE}


@dataclass(frozen=True)
class Shown:
    """A figure: what it is, its two drawings with their captions."""

    label: str
    caption: str
    phone_caption: str  # a phone's drawing may have fewer panels
    wide: Markup
    narrow: Markup
    full: bool  # as wide as the page


def table_figures(table: Table, here: str, most: int) -> list[Shown]:
    """At most so many figures of a table: those that say something about its rows."""
    rows = [row for row in table.rows if row.n]
    says = {
        "rows": bool(rows),
        "curves": any(run.status == "ok" for row in rows for run in row.runs),
        "cost": sum(row.macs is not None for row in rows) >= 3,
        "paper": sum(row.printed is not None for row in rows) >= 3,
        "seeds": any(row.n > 1 for row in rows),
    }
    return [_shown(kind, table, here) for kind in [kind for kind in KINDS if says[kind]][:most]]


def _shown(kind: str, table: Table, here: str) -> Shown:
    data, look = figure_data(kind, table), LOOKS[kind]
    label = f"{KINDS[kind].describe(table.metric)}: {table.title}"
    wide, narrow = (
        inline_svg(to_bytes(draw(data, of), "svg"), f"{here}.{kind}.{name}", label)
        for of, name in ((look, ""), (PHONE, "phone."))
    )
    return Shown(label, caption(data, look), caption(data, PHONE), wide, narrow, look is WHOLE)


def inline_svg(svg: bytes, prefix: str, label: str) -> Markup:
    """An SVG file as an element of a page: its ids made the page's own, its greys those of the page's theme.

    Comments, metadata and style sheets are left out; a style sheet would hold for the whole page.
    """
    numbers: dict[str, int] = {}

    def local(name: str) -> str:
        # By their order: some of matplotlib's ids are hashes of coordinates with every digit.
        return f"{prefix}{numbers.setdefault(name, len(numbers))}"

    def value_of(name: str, value: str) -> str:
        if name == "id":
            return local(value)
        if name == "href":
            return "#" + local(value.removeprefix("#"))
        value = re.sub(r"url\(#([^)]+)\)", lambda found: f"url(#{local(found[1])})", value)
        value = _LONG.sub(lambda found: repr(round(float(found[0]), 4) + 0.0), value)
        return _GREY.sub(_of_theme, value) if name in ("style", "fill", "stroke") else value

    def clean(node: ElementTree.Element) -> None:
        node.tag = node.tag.rpartition("}")[2]
        plain = {key.rpartition("}")[2]: value for key, value in node.attrib.items()}
        node.attrib = {name: value_of(name, value) for name, value in plain.items()}
        node.text, node.tail = (node.text or "").strip(), ""
        for child in list(node):
            if child.tag.rpartition("}")[2] in ("metadata", "style", "script"):
                node.remove(child)
            else:
                clean(child)

    root = ElementTree.fromstring(svg)
    for name in ("width", "height"):  # the page says how large
        root.attrib.pop(name, None)
    clean(root)
    theme = "fill: var(--ink); stroke-linejoin: round; stroke-linecap: butt"
    root.attrib |= {"role": "img", "style": theme, "aria-label": label}
    return Markup(ElementTree.tostring(root, encoding="unicode", short_empty_elements=False))


# matplotlib's layout differs in the twelfth digit from call to call, which now and then shows in the sixth decimal.
_LONG = re.compile(r"-?\d+\.\d{5,}")


# A grey, from black to white, as six hex digits.
_GREY = re.compile(r"#([0-9a-fA-F]{2})\1\1\b")


def _of_theme(grey: re.Match[str]) -> str:
    ink = round(100 * (255 - int(grey[1], 16)) / 255)
    return f"color-mix(in srgb, var(--ink) {ink}%, var(--paper))"
