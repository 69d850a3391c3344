"""A class of the user's own, loaded from the very source that its digest is of."""

from __future__ import annotations

import ast
import multiprocessing
import os
import sys
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from typing import Any

from metaformer_ablate.errors import ModelRefused, RequestError, nearest, one_line
from metaformer_ablate.models.class_source import OwnSource, find_source, split_target


def load_class(target: str, digest: str, named_by: str) -> Any:
    """The class of `file.py:Class` or `package.module:Class`, once it is said that its code is run.

    Modules of the user's are loaded under names of their own, each from what was read for the digest: two versions do
    not meet, and no module of the same name is taken for one of them. `named_by` is what names the class.

    Raises RequestError where the source is not that of the digest, cannot be run or lacks the class.
    """
    place, class_name = split_target(target)
    source = find_source(place, target)
    if source.digest(class_name) != digest:
        raise RequestError(f"{shown_path(source.path)} was changed since the run was planned; plan it again")
    module = _installed(source, digest, named_by) if source.installed else _own(source, digest, named_by)
    from torch import nn

    file, found = shown_path(source.path), getattr(module, class_name, None)
    if not isinstance(found, type):
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise RequestError(f"{file} has no class {class_name!r}{nearest(class_name, classes)}")
    if not issubclass(found, nn.Module):  # it would run, and its weights would never be trained
        raise RequestError(f"{file}: {class_name} is no torch module; allowed: class {class_name}(torch.nn.Module)")
    return found


def _own(source: OwnSource, digest: str, named_by: str) -> Any:
    """The module of the class, imported with its neighbours as `metaformer_ablate_own_DIGEST.NAME`."""
    package = f"metaformer_ablate_own_{digest}"
    name = f"{package}.{source.main}"
    if name not in sys.modules:
        tell_of_code(source.path, named_by)
        finder = _OwnModules(package, source)
        sys.meta_path.insert(0, finder)  # it stays: an import may stand in a function
        _import(name, source, lambda: sys.meta_path.remove(finder), package)
    return sys.modules[name]


def _installed(source: OwnSource, digest: str, named_by: str) -> Any:
    if source.main not in sys.modules:
        tell_of_code(source.path, named_by)
        _import(source.main, source, lambda: None, source.main)
    module = sys.modules[source.main]
    if vars(module).setdefault("__ablate_digest__", digest) != digest:
        raise RequestError(f"{source.main} was changed since this process loaded it; start the command again")
    return module


def _import(name: str, source: OwnSource, undo: Any, package: str) -> None:
    try:
        import_module(name)
    except (Exception, SystemExit) as error:  # sys.exit there would end this command, with any code
        undo()
        for loaded in [key for key in sys.modules if key == package or key.startswith(f"{package}.")]:
            del sys.modules[loaded]
        said = described(error, files_of(source)).replace(f"{package}.", "")
        if isinstance(error, ModuleNotFoundError) and not source.installed:
            said += f"; its own modules are those of {shown_path(str(source.root))}, by import statements"
        raise RequestError(f"{shown_path(source.path)} cannot be loaded: {said}") from None


class _OwnModules(MetaPathFinder, SourceLoader):
    """Finds and loads the modules of one source below a package. Nothing is read from the disk, nor kept there."""

    def __init__(self, package: str, source: OwnSource):
        self.package = package
        self.modules = {f"{package}.{name}": module for name, module in source.modules.items()}
        self.tops = {name.partition(".")[0] for name in source.modules}
        names = [name.split(".") for name in self.modules]
        self.folders = {".".join(parts[:i]) for parts in names for i in range(1, len(parts))} - self.modules.keys()

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname in self.folders:
            return ModuleSpec(fullname, None, is_package=True)
        if (module := self.modules.get(fullname)) is None:
            return None
        within: list[str] | None = [] if module.package else None
        return spec_from_file_location(fullname, module.path, loader=self, submodule_search_locations=within)

    def get_filename(self, fullname: str) -> str:
        return self.modules[fullname].path

    def get_data(self, path: Any) -> bytes:
        for module in self.modules.values():
            if module.path == path:
                return module.source
        raise OSError(f"{path} is not among the modules that were read")

    def source_to_code(self, data: Any, path: Any, *, _optimize: int = -1) -> Any:  # type: ignore[override]
        tree = _Renamed(self.package, self.tops).visit(ast.parse(data, path))
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True, optimize=_optimize)


class _Renamed(ast.NodeTransformer):
    """Import statements of the user's own modules as ones of a package's; the names that they bind stay."""

    def __init__(self, package: str, tops: set[str]):
        self.package, self.tops = package, tops

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.ImportFrom:
        if node.level == 0 and node.module and node.module.partition(".")[0] in self.tops:
            node.module = f"{self.package}.{node.module}"
        return node

    def visit_Import(self, node: ast.Import) -> list[ast.stmt]:
        found: list[ast.stmt] = []
        for alias in node.names:
            top, dot, _ = alias.name.partition(".")
            names = [ast.alias(alias.name, alias.asname)]
            if top in self.tops:
                names = [ast.alias(f"{self.package}.{alias.name}", alias.asname or top)]
                # `import a.b` loads a.b and binds a.
                names += [ast.alias(f"{self.package}.{top}", top)] if dot and not alias.asname else []
            found += [ast.copy_location(ast.Import([each]), node) for each in names]
        return found


def files_of(source: OwnSource) -> list[str]:
    """The paths of a source's files."""
    return [module.path for module in source.modules.values()]


def shown_path(path: str) -> str:
    """A path as an error shows it: from the folder one stands in where it is below that."""
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative


def load_function(target: str, digest: str, name: str) -> Any:
    """A function out of the file of `file.py:Class`. ModelRefused without one, else as `load_class`."""
    here = vars(sys.modules[load_class(target, digest, "parts.yaml").__module__])
    if not callable(found := here.get(name)):
        functions = [key for key, value in here.items() if callable(value) and not isinstance(value, type)]
        raise ModelRefused(f"{target.rpartition(':')[0]} has no function {name!r}{nearest(name, functions)}")
    return found


def described(error: BaseException, files: Iterable[str]) -> str:
    """`TypeError: what it says (my_mixers.py, line 12)`: in one line, with the last line of `files` that led to it."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    wanted, lines = set(map(os.path.abspath, files)), []
    trace = error.__traceback__
    while trace is not None:
        if (file := os.path.abspath(trace.tb_frame.f_code.co_filename)) in wanted:
            lines.append(f" ({shown_path(file)}, line {trace.tb_lineno})")
        trace = trace.tb_next
    return text + (lines[-1] if lines else "")


def tell_of_code(file: str, named_by: str) -> None:
    """Says once, on standard error, that code of the user's own is run; workers leave that to the command."""
    if multiprocessing.parent_process() is None:
        _tell(os.path.abspath(file), named_by)


@cache
def _tell(path: str, named_by: str) -> None:
    print(one_line(f"running code of {path}, which {named_by} names"), file=sys.stderr, flush=True)
