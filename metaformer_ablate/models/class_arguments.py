"""What the constructor of a model's class takes: read from its source without torch, or from the class itself."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from metaformer_ablate.errors import nearest
from metaformer_ablate.models.class_source import OwnSource, parsed

# What a net is told by this package; `model.args` says the rest.
GIVEN = ("num_classes", "in_chans")


@dataclass(frozen=True)
class Argument:
    """One argument of a constructor, its default and annotation as the source has them."""

    name: str
    default: str | None = None  # None: it has none
    annotation: str | None = None


@dataclass(frozen=True)
class Constructor:
    """The arguments that a class takes by name. `whole` is false where it takes more that cannot be told (**kwargs)."""

    arguments: tuple[Argument, ...]
    whole: bool = True

    @property
    def names(self) -> list[str]:
        return [argument.name for argument in self.arguments]

    def problem(self, class_name: str, args: Iterable[str]) -> tuple[str, str] | None:
        """(setting, sentence) of the first thing that keeps the class from being built with `model.args` of these
        names; None where nothing does."""
        own = [name for name in self.names if name not in GIVEN]
        for path, name in ((f"model.args.{name}", name) for name in args):
            if name in GIVEN:
                return path, f"{path} follows from the data; leave it out"
            if name not in own and self.whole:
                allowed = ", ".join(own) or "none"
                return path, f"{path}: unknown argument of {class_name}{nearest(name, own)}; allowed: {allowed}"
        if self.whole and "num_classes" not in self.names:
            return "model.class", (
                f"model.class: {class_name} takes no num_classes (it takes: {', '.join(self.names) or 'nothing'}); "
                f"expected: {class_name}(**model.args, num_classes=N, in_chans=C), of images [B, C, H, W] to [B, N]"
            )
        for lacking in (a.name for a in self.arguments if a.default is None and a.name not in (*GIVEN, *args)):
            path = f"model.args.{lacking}"
            return path, f"{path} is not set, and {class_name} has no default for it"
        return None


def of_class(found: Any) -> Constructor:
    """The constructor of a class: its own arguments, and those of its bases as far as it hands on **kwargs."""
    from torch import nn

    arguments: dict[str, Argument] = {}
    for base in found.__mro__:
        if base is nn.Module or base is object:
            break
        if "__init__" not in vars(base):
            continue
        try:
            parameters = list(inspect.signature(base.__init__).parameters.values())[1:]
        except (TypeError, ValueError):
            return Constructor(tuple(arguments.values()), whole=False)
        for each in parameters:
            if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY):
                default = None if each.default is each.empty else repr(each.default)
                arguments.setdefault(each.name, Argument(each.name, default))
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            break
    return Constructor(tuple(arguments.values()))


def of_source(source: OwnSource, class_name: str) -> Constructor | None:
    """The constructor of a class as its source has it, bases in the user's own files followed; None where it cannot be
    told without running the code."""
    arguments: dict[str, Argument] = {}
    module, name = source.main, class_name
    for _ in range(32):  # bases may go in a circle
        if (place := _find_class(source, module, name)) is None:
            return Constructor(tuple(arguments.values()), whole=False) if arguments else None
        module, found = place
        if found.decorator_list:  # a dataclass gets its __init__ from one
            break
        init = next((f for f in found.body if isinstance(f, ast.FunctionDef) and f.name == "__init__"), None)
        if init is not None:
            for argument in _arguments(init.args):
                arguments.setdefault(argument.name, argument)
            if init.args.kwarg is None:
                return Constructor(tuple(arguments.values()))
        if not found.bases or _is_torch_module(found.bases[0]):
            return Constructor(tuple(arguments.values()))
        if len(found.bases) > 1 or not isinstance(base := found.bases[0], ast.Name):
            break
        name = base.id
    return Constructor(tuple(arguments.values()), whole=False) if arguments else None


def class_names(source: OwnSource) -> list[str] | None:
    """The classes that the file of a source has by name; None where one may come into it in another way."""
    tree = parsed(source.modules[source.main].source)
    if tree is None or any(isinstance(n, ast.ImportFrom) and n.names[0].name == "*" for n in ast.walk(tree)):
        return None
    names = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    names += [a.asname or a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names]
    names += [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    return names


def _is_torch_module(base: ast.expr) -> bool:
    return ast.unparse(base) in ("nn.Module", "torch.nn.Module", "Module")


def _arguments(of: ast.arguments) -> list[Argument]:
    """Those that can be given by name, `self` left out."""
    by_place = [*of.posonlyargs, *of.args]
    defaults: list[ast.expr | None] = [None] * (len(by_place) - len(of.defaults)) + list(of.defaults)
    pairs = list(zip(by_place, defaults, strict=True))[max(1, len(of.posonlyargs)) :]
    pairs += list(zip(of.kwonlyargs, of.kw_defaults, strict=True))
    return [
        Argument(
            arg.arg,
            None if default is None else ast.unparse(default),
            None if arg.annotation is None else ast.unparse(arg.annotation),
        )
        for arg, default in pairs
    ]


def _find_class(source: OwnSource, module: str, name: str) -> tuple[str, ast.ClassDef] | None:
    """(module, definition) of a class that stands in a module of the source or is imported into it from another."""
    for _ in range(32):
        if module not in source.modules or (tree := parsed(source.modules[module].source)) is None:
            return None
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return module, node
        for node in tree.body:
            names = {a.asname or a.name: a.name for a in node.names} if isinstance(node, ast.ImportFrom) else {}
            if isinstance(node, ast.ImportFrom) and name in names:
                package = module.split(".") if source.modules[module].package else module.split(".")[:-1]
                base = package[: len(package) - node.level + 1] if node.level else []
                module, name = ".".join([*base, *([node.module] if node.module else [])]), names[name]
                break
        else:
            return None
    return None


def as_given(found: Constructor, args: Mapping[str, Any], **of_data: int) -> dict[str, Any]:
    """What the class is built with: `model.args`, and of what follows from the data that which it takes.

    A copy: a constructor may change what it is given, and the arguments are part of the run's id.
    """
    taken = {name: value for name, value in of_data.items() if name in found.names or not found.whole}
    return {**deepcopy(dict(args)), **taken}
