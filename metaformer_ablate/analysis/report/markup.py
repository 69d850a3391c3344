"""HTML that is escaped by construction: what is not HTML already becomes text."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Sequence
from xml.etree import ElementTree

from metaformer_ablate.settings.layers import digest

_VOID = ("meta",)


# What HTML cannot hold, control characters and halves of surrogate pairs; and what turns the order of letters around.
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(tag: str, *children: object, **attributes: object) -> Html:
    """An element with its children and attributes escaped, those that are Html apart. `class_` is class, `data_v` is
    data-v; an attribute that is True stands alone, one that is None or False is left out."""
    inside = "".join(map(escape, children))
    names = ((name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items())
    shown = "".join(
        f" {name}" if value is True else f' {name}="{escape(value)}"'
        for name, value in names
        if value is not None and value is not False
    )
    return Html(f"<{tag}{shown}>" if tag in _VOID else f"<{tag}{shown}>{inside}</{tag}>")


def escape(value: object) -> Html:
    """A value as text of an element or of a quoted attribute. What HTML cannot hold becomes U+FFFD."""
    return value if isinstance(value, Html) else Html(html.escape(_NOT_TEXT.sub("\ufffd", str(value))))


def island(name: str, value: object) -> Html:
    """A block of JSON for the script. No string in it can end the block."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return element("script", Html(text), type="application/json", id=name)


def anchor(*parts: str) -> str:
    """An id for names that may hold any character; the same names have the same id in every report."""
    plain = all(re.fullmatch(r"[A-Za-z][\w-]*", part, re.ASCII) for part in parts)
    return ".".join(parts) if plain else f"x.{digest(parts)[:12]}"


def link(target: str, *children: object, **attributes: object) -> Html:
    return element("a", *children, href=f"#{target}", **attributes)


def items(entries: Iterable[object], **attributes: object) -> Html:
    return element("ul", *(element("li", entry) for entry in entries), **attributes)


def grid(label: str, headings: Sequence[str], rows: Iterable[Html], class_: str = "sortable", left: int = 1) -> Html:
    """A table in a box of its own that scrolls on a narrow screen. The first `left` columns are text."""
    head = (element("th", name, scope="col", class_="text" if i < left else None) for i, name in enumerate(headings))
    table = element("table", element("thead", element("tr", *head)), element("tbody", *rows), class_=class_ or None)
    return element("div", table, class_="scroll", role="region", aria_label=label, tabindex=0)


def cell(value: float | None, *children: object, **attributes: object) -> Html:
    """A cell that sorts by a number, said beside the text where the text is not the number; without one it is last."""
    number = "" if value is None else f"{value:.12g}"
    same = number and len(children) == 1 and number == str(children[0]).replace(",", "")
    return element("td", *children, data_v=None if same else number, **attributes)


def text_cell(*children: object) -> Html:
    return element("td", *children, class_="text")


def inline_svg(svg: bytes, prefix: str, label: str) -> Html:
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

    def walk(node: ElementTree.Element, **more: str) -> Html:
        attributes = {key.rpartition("}")[2]: value for key, value in node.attrib.items()}
        attributes = {name: value_of(name, value) for name, value in attributes.items()} | more
        kept = (child for child in node if child.tag.rpartition("}")[2] not in ("metadata", "style", "script"))
        return element(node.tag.rpartition("}")[2], (node.text or "").strip(), *map(walk, kept), **attributes)

    root = ElementTree.fromstring(svg)
    for name in ("width", "height"):  # the page says how large
        root.attrib.pop(name, None)
    theme = "fill: var(--ink); stroke-linejoin: round; stroke-linecap: butt"
    return walk(root, role="img", style=theme, **{"aria-label": label})


# matplotlib's layout differs in the twelfth digit from call to call, which now and then shows in the sixth decimal.
_LONG = re.compile(r"-?\d+\.\d{5,}")


# A grey, from black to white, as six hex digits.
_GREY = re.compile(r"#([0-9a-fA-F]{2})\1\1\b")


def _of_theme(grey: re.Match[str]) -> str:
    ink = round(100 * (255 - int(grey[1], 16)) / 255)
    return f"color-mix(in srgb, var(--ink) {ink}%, var(--paper))"
