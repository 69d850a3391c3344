"""The rooms of the package: imports go down the layers, never up, never sideways, and no two files import each other.

Read from the source with `ast`: imports inside functions and under TYPE_CHECKING count as any other.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from conftest import REPOSITORY

PACKAGE = REPOSITORY / "metaformer_ablate"

# From the bottom up; rooms of one layer do not import each other.
LAYERS = (
    ("errors", "version"),
    ("statistics", "system"),
    ("drawing", "settings"),
    ("models", "data"),
    ("training",),
    ("tasks",),
    ("spec",),
    ("records", "cost"),
    ("tracking", "trained"),
    ("runs", "analysis"),
    ("sweep",),
    ("api",),
    ("metaformer_ablate",),  # the package itself: what people import of it
    ("cli",),
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(text: str) -> set[str]:
    """The modules of the package that a source imports, wherever it does."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == PACKAGE.name:
                found.add(name if name in FILES else name.rpartition(".")[0])
    return found


EDGES = {name: imports(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def room(module: str) -> str | None:
    """The room of a module; None for __main__, above all rooms."""
    parts = module.split(".")
    return None if parts[1:] == ["__main__"] else parts[min(1, len(parts) - 1)]


def not_downward(importer: str, imported: str) -> bool:
    here, there = room(importer), room(imported)
    if here is None or there is None or here == there:
        return False
    return LEVEL[here] <= LEVEL[there]


def test_every_room_has_its_layer() -> None:
    assert {room(name) for name in FILES} - {None} <= set(LEVEL)


def test_imports_go_down_the_layers() -> None:
    wrong = [f"{one} imports {other}" for one, found in EDGES.items() for other in found if not_downward(one, other)]
    assert not wrong


def test_what_is_of_classes_stands_in_its_task_alone() -> None:
    """A metric's name anywhere else is a place that a further task would have to change."""
    files = [path for suffix in ("py", "js", "css", "html") for path in sorted(PACKAGE.rglob(f"*.{suffix}"))]
    named = {path.relative_to(PACKAGE) for path in files if "top1" in path.read_text(encoding="utf-8")}
    assert named and not [path for path in named if path.parts[:2] != ("tasks", "classification")]


def cycles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other (Tarjan's strongly connected components of more than one)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in edges.get(name, ()):
            if other not in order:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], order[other])
        if low[name] == order[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(group)

    for name in edges:
        if name not in order:
            visit(name)
    return found


def test_no_two_files_import_each_other() -> None:
    assert not cycles(EDGES)


@pytest.mark.parametrize(
    ("importer", "imported", "wrong"),
    [
        ("metaformer_ablate.models.build", "metaformer_ablate.spec.run_spec", True),  # up
        ("metaformer_ablate.models.build", "metaformer_ablate.data.datasets", True),  # sideways
        ("metaformer_ablate.spec.resolve", "metaformer_ablate.models.spec", False),  # down
        ("metaformer_ablate.models.build", "metaformer_ablate.models.spec", False),  # the same room
        ("metaformer_ablate.analysis.report.page", "metaformer_ablate", True),  # up, to the package
        ("metaformer_ablate.cli.main", "metaformer_ablate", False),
    ],
)
def test_the_test_can_tell(importer: str, imported: str, wrong: bool) -> None:
    assert not_downward(importer, imported) == wrong
    source = f"def late():\n    from {imported} import x\nif TYPE_CHECKING:\n    import metaformer_ablate.errors\n"
    assert imports(source) == {imported, "metaformer_ablate.errors"}
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
