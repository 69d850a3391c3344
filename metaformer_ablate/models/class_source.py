"""The source of a class of the user's own: its file, and all that this imports from its own folder or package.

Found with `ast`: nothing is run and no torch is loaded. The digest is over the content, so an edited neighbour is
another model; where the files lie is not in it. What is imported in another way than by import statements is not seen,
and cannot be loaded either (class_file.py).
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from metaformer_ablate.errors import RequestError, shown
from metaformer_ablate.system.files import read_regular

# What a name of a class looks like: a file or a module, and the class in it.
TARGET = re.compile(r"(.+\.py|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")

# Never taken for neighbours: this package, in a checkout of which a class may stand, and what it and nets are made of.
# A torch.py or random.py that lies in the folder is not executed in their place. A fixed list: it decides on digests.
_NO_NEIGHBOURS = sys.stdlib_module_names | {
    *(__name__.partition(".")[0], "numpy", "pandas", "PIL", "pydantic", "pytorch_lightning", "lightning", "scipy"),
    *("sklearn", "timm", "torch", "torchmetrics", "torchvision", "wandb", "yaml"),
}


@dataclass(frozen=True)
class OwnModule:
    """One file: its absolute path, its content, and whether it is the `__init__.py` of a package."""

    path: str
    source: bytes
    package: bool = False


@dataclass(frozen=True)
class OwnSource:
    """The modules that a class is made of, by their dotted names from `root` on; `main` is the one that has the class.

    `installed` modules are imported by Python as any other; the rest is loaded from what was read here.
    """

    root: Path
    main: str
    modules: dict[str, OwnModule]
    installed: bool = False

    @property
    def place(self) -> str:
        """What `find_source` finds it by from any folder."""
        if self.installed:
            return self.main
        return f"{self.root}//{Path(self.modules[self.main].path).relative_to(self.root)}"

    @property
    def path(self) -> str:
        return self.modules[self.main].path

    def digest(self, class_name: str) -> str:
        """12 hex digits of the SHA-256 of the class's file, its name, and the neighbours that hold anything."""
        found = hashlib.sha256(self.modules[self.main].source + b"\n" + class_name.encode())
        for name, module in sorted(self.modules.items()):
            if name != self.main and module.source.strip():
                found.update(f"\n{name} {hashlib.sha256(module.source).hexdigest()}".encode())
        return found.hexdigest()[:12]


def split_target(target: str) -> tuple[str, str]:
    """(`my_net.py` or `package.module`, class). Raises ValueError for anything else."""
    if (found := TARGET.fullmatch(target)) is None:
        raise ValueError("allowed: FILE.py:Class or package.module:Class")
    return found[1], found[2]


def find_source(place: str, where: str) -> OwnSource:
    """The source at a file or in a module by name: one in the folder one stands in, else an installed one.

    In `ROOT//PATH.py` imports begin at ROOT; else at the outermost folder that is a package, or at the file's own.
    `where` begins an error. Raises RequestError where a file cannot be read or a module is not found.
    """
    if not place.endswith(".py"):
        return _find_module(place, where)
    path = Path(os.path.abspath(place))
    root = Path(os.path.abspath(place.rpartition("//")[0])) if "//" in place.removeprefix("//") else _package_root(path)
    try:
        source = read_regular(path)
    except OSError as error:
        raise RequestError(f"{where}: {place} cannot be read: {error.strerror}") from None
    package = path.name == "__init__.py" and path.parent != root
    name = ".".join((path.parent if package else path.with_suffix("")).relative_to(root).parts)
    return _closure(root, name, OwnModule(str(path), source, package), False)


def _package_root(path: Path) -> Path:
    folder = path.parent
    while (folder / "__init__.py").is_file() and folder != folder.parent:
        folder = folder.parent
    return folder


def _find_module(name: str, where: str) -> OwnSource:
    here = Path.cwd()
    top = name.partition(".")[0]
    if top not in _NO_NEIGHBOURS and (module := _located(name, (here,))) is not None:
        return _closure(here, name, module, False)
    try:
        spec = find_spec(top)  # runs nothing: it is no part of a package
    except (ImportError, ValueError):
        spec = None
    homes = [] if spec is None else [Path(folder).parent for folder in spec.submodule_search_locations or ()]
    if spec is not None and not homes and spec.origin and spec.has_location:
        homes = [Path(spec.origin).parent]
    for root in homes:
        if (module := _located(name, (root,))) is not None:
            return _closure(root, name, module, True)
    raise RequestError(
        f"{where}: no module {shown(name)} in {here} nor among those installed; allowed: a module, or a file FILE.py"
    )


def _located(name: str, roots: tuple[Path, ...]) -> OwnModule | None:
    """A module by its dotted name below one of the roots; None where it is none of theirs."""
    for root in roots:
        base = root.joinpath(*name.split("."))
        for path, package in ((base / "__init__.py", True), (base.with_name(f"{base.name}.py"), False)):
            try:
                return OwnModule(str(path), read_regular(path), package)
            except OSError:
                continue
    return None


def _closure(root: Path, main: str, module: OwnModule, installed: bool) -> OwnSource:
    """A module, what it imports below `root` or beside its file, and what that imports; of an installed one its own
    package alone."""
    roots = (root,) if installed else tuple(dict.fromkeys((root, Path(module.path).parent)))
    modules, left = {main: module}, [main]
    while left:
        name = left.pop()
        for wanted in (*_parents(name), *_imported(name, modules[name])):
            top = wanted.partition(".")[0]
            mine = top == main.partition(".")[0] if installed else top not in _NO_NEIGHBOURS
            if wanted not in modules and mine and (found := _located(wanted, roots)) is not None:
                modules[wanted] = found
                left.append(wanted)
    return OwnSource(root, main, modules, installed)


def _parents(name: str) -> Iterator[str]:
    """a.b.c: a, a.b."""
    parts = name.split(".")
    return (".".join(parts[:i]) for i in range(1, len(parts)))


def _imported(name: str, module: OwnModule) -> Iterator[str]:
    """Dotted names that a module may import, with all packages on the way; what is no module is among them."""
    package = name.split(".") if module.package else name.split(".")[:-1]
    for level, imported, names in import_statements(module.source):
        base = package[: len(package) - level + 1] if level else []
        whole = ".".join([*base, *([imported] if imported else [])])
        for found in (whole, *(f"{whole}.{each}" if whole else each for each in names)):
            if found:
                yield from _parents(found)
                yield found


@lru_cache(maxsize=4096)
def import_statements(source: bytes) -> tuple[tuple[int, str, tuple[str, ...]], ...]:
    """(dots before it, module, names out of it) of each import anywhere in a source; none of one that is no Python."""
    tree = parsed(source)
    found: list[tuple[int, str, tuple[str, ...]]] = []
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Import):
            found += [(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module or "", tuple(a.name for a in node.names if a.name != "*")))
    return tuple(found)


@lru_cache(maxsize=256)
def parsed(source: bytes) -> ast.Module | None:
    """The syntax tree of a source, to be read only; None of one that is no Python, which loading it says better."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
