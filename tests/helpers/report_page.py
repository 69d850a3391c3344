"""A results folder that holds everything a report can meet, and a reader of the page made of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from specs import fake_record

from metaformer_ablate.records.store import Store
from metaformer_ablate.spec.plan import plan

VOID = ("meta", "br", "img", "input", "link", "hr")
SCRIPT = "</script><script>window.hacked = 1</script>"
IMAGE = """"><img src=x onerror='window.hacked = 2'>"""
MARKUP = "</style><b>&amp; 'x' \u202e ünï \u2603 \u2028"

HOSTILE = r"""
title: "</script><script>window.hacked = 1</script>"
baseline: base
set: {model.mlp_ratio: 2}
rows:
  base: {label: "\"><img src=x onerror='window.hacked = 2'>", group: "<i>group", set: {}, paper: {top1: 77.2}}
  "<u>": {label: "</style><b>&amp; 'x' \u202e ünï \u2603 \u2028", set: {model.pool_size: 5}, notes: ["<s>a note</s>"]}
"""


def fill(folder: Path) -> Store:
    """Two seeds of pooling_size and of a hostile experiment under digits, one row of it under fashion_mnist, runs that
    diverged and failed, runs with overrides, a damaged record, an experiment and a recipe that do not load."""
    (folder / "experiments" / "recipes").mkdir(parents=True)
    (folder / "experiments" / "hostile.yaml").write_text(HOSTILE, encoding="utf-8")
    (folder / "experiments" / "broken.yaml").write_text("title: Broken\nbaseline: x\n")
    (folder / "experiments" / "recipes" / "torn.yaml").write_text("title: [\n")
    store = Store(folder / "results")
    base = 96.0
    for recipe, rows in (("digits", ("pool3", "pool5", "pool7")), ("fashion_mnist", ("pool3", "pool9"))):
        chosen = plan("pooling_size", recipe)
        for i, row in enumerate(rows):
            for seed in (0, 1):
                top1 = base + 0.5 * ((2 * i) % 3) + 0.25 * seed + 0.1 * i * seed
                if (row, seed) == ("pool7", 1):
                    fake_record(store, chosen.spec(row, seed), status="failed", reason=SCRIPT)
                else:
                    fake_record(store, chosen.spec(row, seed), top1, device=f"<b>{recipe}", git={"commit": "c0ffee"})
        base = 80.0
    hostile = plan(str(folder / "experiments" / "hostile.yaml"))
    fake_record(store, hostile.spec("base", 2), 95.5)
    fake_record(store, hostile.spec("<u>", 0), status="diverged")
    for seed in (0, 1):
        fake_record(store, plan("pooling_size", "digits", ("train.epochs=3",)).spec("pool5", seed), 50.0 + seed)
    damaged = fake_record(store, hostile.spec("base", 7), 12.5)
    (damaged.folder / "history.csv").write_text("changed")
    return store


@dataclass
class Node:
    """An element of a page."""

    tag: str
    attributes: dict[str, str | None]
    children: list[Node | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, *tags: str) -> Iterator[Node]:
        """The elements inside, of any tag or of some, in their order."""
        for child in self.children:
            if isinstance(child, Node):
                if not tags or child.tag in tags:
                    yield child
                yield from child.all(*tags)

    def find(self, name: str) -> Node:
        """The element with an id; there is one."""
        (found,) = (node for node in self.all() if node.attributes.get("id") == name)
        return found

    def rows(self) -> list[list[str]]:
        """The text of the cells of all rows below the headings."""
        return [[c.text for c in row.all("td", "th")] for body in self.all("tbody") for row in body.all("tr")]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Node("", {})]

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert len(dict(attributes)) == len(attributes), (tag, attributes)
        node = Node(tag, dict(attributes))
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def read(page: str) -> Node:
    """A page as a tree. Fails where an element is not closed in order or an attribute is repeated."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    assert len(reader.open) == 1, [node.tag for node in reader.open]
    return reader.open[0]
