"""YAML 1.2, read safely, with the line of every key at hand when an error has to name it.

PyYAML reads YAML 1.1: `1e-3` is a string there, `no` is False, `010` is 8, and of a repeated key the last one
wins silently. An ablation cannot afford any of these, so this is ruamel.yaml's safe, pure loader.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from metaformer_ablate.errors import RequestError


def _first_line(text: object) -> str:
    return " ".join(str(text or "").split("\n")[0].split())


def parse(text: str, source: str) -> Any:
    """The value of a YAML document. `source` is what an error calls it: a path, or a word of the command line."""
    try:
        value = YAML(typ="safe", pure=True).load(text)
        json.dumps(value, default=str, skipkeys=True)  # refuses what holds itself by an alias
        return value
    except DuplicateKeyError as error:
        key = _first_line(error.problem).split("with value")[0].strip()
        raise RequestError(f"{source}:{error.problem_mark.line + 1}: {key}; a key may stand only once") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark is not None else ""
        raise RequestError(f"{source}{line}: not valid YAML: {_first_line(error.problem or error.context)}") from None
    except (YAMLError, ValueError) as error:
        raise RequestError(f"{source}: not valid YAML: {_first_line(error)}") from None
    except RecursionError:
        raise RequestError(f"{source}: not valid YAML: nested too deeply") from None


class YamlFile:
    """A file that holds one mapping. `data` is its content; `where(*keys)` is `path:line` of a key in it."""

    def __init__(self, path: Path, shown_as: str | None = None):
        self.path = path
        self.shown_as = shown_as or str(path)
        try:
            self.text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RequestError(f"{self.shown_as}: not UTF-8 text (byte {error.start})") from None
        except OSError as error:
            raise RequestError(f"{self.shown_as}: cannot be read: {error.strerror}") from None
        data = parse(self.text, self.shown_as)
        if data is None:
            raise RequestError(f"{self.shown_as}: the file is empty; it must hold a mapping of keys to values")
        if not isinstance(data, dict):
            raise RequestError(f"{self.shown_as}: must hold a mapping of keys to values, found {kind(data)}")
        self.data: dict[Any, Any] = data

    @cached_property
    def _lines(self) -> dict[tuple[str, ...], int]:
        lines: dict[tuple[str, ...], int] = {}

        def walk(node: Any, path: tuple[str, ...]) -> None:
            if node.id == "mapping":
                for key, value in node.value:
                    here = (*path, str(key.value))
                    lines[here] = key.start_mark.line + 1
                    walk(value, here)

        # Only errors ask for lines, so the second parse is paid by them alone.
        walk(YAML(typ="safe", pure=True).compose(self.text), ())
        return lines

    def where(self, *keys: str) -> str:
        """`path:line` of the deepest of the nested keys that is in the file."""
        for depth in range(len(keys), 0, -1):
            if (line := self._lines.get(keys[:depth])) is not None:
                return f"{self.shown_as}:{line}"
        return self.shown_as


def kind(value: Any) -> str:
    """What a reader of YAML calls the type of a value."""
    names = {dict: "a mapping", list: "a list", str: "a string", bool: "a boolean", type(None): "nothing"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else type(value).__name__)
