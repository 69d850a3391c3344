"""A class of the user's own out of a file, named by the digest of its source."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from metaformer_ablate.errors import ModelRefused, RequestError, nearest, one_line
from metaformer_ablate.system.files import read_regular


def read_source(path: Path, where: str) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise RequestError(f"{where}: {path} cannot be read: {error.strerror}") from None


def source_digest(source: bytes, class_name: str) -> str:
    return hashlib.sha256(source + b"\n" + class_name.encode()).hexdigest()[:12]


def load_class(target: str, digest: str) -> Any:
    """The class of `file.py:Class`, once it is said that its file is run.

    Raises RequestError where the file is not that of the digest, cannot be run or lacks the class.
    """
    file, _, class_name = target.rpartition(":")
    name = f"metaformer_ablate_own_{digest}"
    if name not in sys.modules:
        source = read_source(Path(file), target)
        if source_digest(source, class_name) != digest:
            raise RequestError(f"{file} was changed since the run was planned; plan it again")
        module = ModuleType(name)
        module.__file__ = file
        sys.modules[name] = module
        tell_of_code(file)
        try:
            exec(compile(source, file, "exec"), module.__dict__)
        except (Exception, SystemExit) as error:  # sys.exit there would end this command, with any code
            del sys.modules[name]
            raise RequestError(f"{file} cannot be loaded: {described(error, [file])}") from None
    from torch import nn

    found = getattr(sys.modules[name], class_name, None)
    if not isinstance(found, type):
        classes = [key for key, value in vars(sys.modules[name]).items() if isinstance(value, type)]
        raise RequestError(f"{file} has no class {class_name!r}{nearest(class_name, classes)}")
    if not issubclass(found, nn.Module):  # it would run, and its weights would never be trained
        raise RequestError(f"{file}: {class_name} is no torch module; allowed: class {class_name}(torch.nn.Module)")
    return found


def load_function(target: str, digest: str, name: str) -> Any:
    """A function out of the file of `file.py:Class`. ModelRefused without one, else as `load_class`."""
    here = vars(sys.modules[load_class(target, digest).__module__])
    if not callable(found := here.get(name)):
        functions = [key for key, value in here.items() if callable(value) and not isinstance(value, type)]
        raise ModelRefused(f"{target.rpartition(':')[0]} has no function {name!r}{nearest(name, functions)}")
    return found


def described(error: BaseException, files: Iterable[str]) -> str:
    """`TypeError: what it says (my_mixers.py, line 12)`: in one line, with the last line of `files` that led to it."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
    wanted, lines = set(files), []
    trace = error.__traceback__
    while trace is not None:
        if (file := trace.tb_frame.f_code.co_filename) in wanted:
            lines.append(f" ({file}, line {trace.tb_lineno})")
        trace = trace.tb_next
    return text + (lines[-1] if lines else "")


def tell_of_code(file: str) -> None:
    """Says once, on standard error, that code of the user's own is run; workers leave that to the command."""
    if multiprocessing.parent_process() is None:
        _tell(os.path.abspath(file))


@cache
def _tell(path: str) -> None:
    print(one_line(f"running code of {path}, which parts.yaml names"), file=sys.stderr, flush=True)
