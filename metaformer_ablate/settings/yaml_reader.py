"""YAML 1.2, read safely, with the line of every key at hand when an error has to name it.

PyYAML reads YAML 1.1: `1e-3` is a string there, `no` is False, `010` is 8, and of a repeated key the last one
wins silently. An ablation cannot afford any of these. So ruamel.yaml splits the text into events, and the values are
made here, by YAML's core schema and nothing else: no tags of programs, no `1_000`, and a bounded number of values,
which no alias can multiply.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, MappingEndEvent, ScalarEvent, SequenceEndEvent, SequenceStartEvent

from metaformer_ablate.errors import RequestError, shown, visible
from metaformer_ablate.system.files import read_regular

MOST_VALUES = 20_000  # of a document, each counted as often as an alias repeats it


DEEPEST = 64  # mappings and lists within each other


def parse(text: str, source: str) -> Any:
    """The value of a YAML document. `source` is what an error calls it: a path, or a word of the command line."""
    return _read(text, source)[0]


def _read(text: str, source: str) -> tuple[Any, dict[tuple[str, ...], int]]:
    """The value of a document, and the line of each key by the keys that lead to it."""
    document = _Document(text, source)
    try:
        return document.read(), document.lines
    except RequestError:
        raise
    except MarkedYAMLError as error:
        document.refuse(error.problem_mark or error.context_mark, str(error.problem or error.context))
    except YAMLError as error:
        document.refuse(None, str(error))
    except Exception as error:  # some damaged text ends ruamel.yaml with an error of Python's
        document.refuse(None, f"it cannot be read ({type(error).__name__})")


_TAG = "tag:yaml.org,2002:"


_CORE = (  # YAML 1.2.2, section 10.3.2
    ("null", re.compile(r"null|Null|NULL|~|", re.ASCII)),
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE", re.ASCII)),
    ("int", re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)),
    ("float", re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)),
    ("float", re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", re.ASCII)),
)


class _Document:
    """Values from the events of one document."""

    def __init__(self, text: str, source: str):
        self.source = source
        self.events = YAML(typ="safe", pure=True).parse(text)
        self.lines: dict[tuple[str, ...], int] = {}
        self.anchors: dict[
            str, tuple[Any, int] | None
        ] = {}  # value and how many values it holds; None while it is read
        self.count = 0

    def refuse(self, mark: Any, problem: str) -> NoReturn:
        """Raises RequestError with the line of a mark."""
        line = f":{mark.line + 1}" if mark is not None else ""
        raise RequestError(f"{self.source}{line}: not valid YAML: {' '.join(problem.split(chr(10))[0].split())}")

    def read(self) -> Any:
        next(self.events)  # of the stream
        if not hasattr(start := next(self.events), "explicit"):
            return None  # the stream's end
        if getattr(start, "version", None) not in (None, (1, 2)):
            self.refuse(start.start_mark, "the directive %YAML asks for another version; allowed: 1.2")
        value = self.value(next(self.events), ())
        next(self.events)  # the document's end
        if hasattr(after := next(self.events), "explicit"):
            self.refuse(after.start_mark, "a second document begins here; allowed: one")
        return value

    def value(self, event: Any, path: tuple[str, ...]) -> Any:
        """The value that begins with an event. `path` is of the keys that lead to it."""
        if isinstance(event, AliasEvent):
            return self.repeated(event)
        begun = self.count
        self.counted(event, 1)
        if len(path) > DEEPEST:
            self.refuse(event.start_mark, "nested too deeply")
        if (anchor := event.anchor) is not None:
            if anchor in self.anchors:
                self.refuse(event.start_mark, f"the anchor {anchor!r} is there twice")
            self.anchors[anchor] = None
        value: Any
        if isinstance(event, ScalarEvent):
            value = self.scalar(event)
        else:
            of_list = isinstance(event, SequenceStartEvent)
            self.check_tag(event, "seq" if of_list else "map")
            value = self.list(path) if of_list else self.mapping(path)
        if anchor is not None:
            self.anchors[anchor] = (value, self.count - begun)
        return value

    def repeated(self, event: Any) -> Any:
        if event.anchor not in self.anchors:
            self.refuse(event.start_mark, f"the alias {event.anchor!r} stands for nothing")
        if (found := self.anchors[event.anchor]) is None:
            self.refuse(event.start_mark, f"the alias {event.anchor!r} stands in what it stands for")
        self.counted(event, found[1])
        return found[0]

    def counted(self, event: Any, values: int) -> None:
        self.count += values
        if self.count > MOST_VALUES:
            self.refuse(event.start_mark, f"more than {MOST_VALUES} values, those of aliases counted each time")

    def list(self, path: tuple[str, ...]) -> list[Any]:
        values: list[Any] = []
        while not isinstance(event := next(self.events), SequenceEndEvent):
            values.append(self.value(event, (*path, str(len(values)))))
        return values

    def mapping(self, path: tuple[str, ...]) -> dict[Any, Any]:
        values: dict[Any, Any] = {}
        while not isinstance(event := next(self.events), MappingEndEvent):
            if not isinstance(event, (ScalarEvent, AliasEvent)):
                self.refuse(event.start_mark, "a key is a list or a mapping; allowed: a word")
            key = self.value(event, path)
            if isinstance(key, (dict, list)):
                self.refuse(event.start_mark, "a key is a list or a mapping; allowed: a word")
            line = event.start_mark.line + 1
            if key in values:
                raise RequestError(f'{self.source}:{line}: found duplicate key "{key}"; a key may stand only once')
            here = (*path, str(key))
            self.lines[here] = line
            values[key] = self.value(next(self.events), here)
        return values

    def check_tag(self, event: Any, *allowed: str) -> str | None:
        """The name of an event's tag, one of those allowed; None without one."""
        if event.tag is None or str(event.tag) == "!":
            return None
        if (tag := str(event.tag).removeprefix(_TAG)) not in allowed:
            self.refuse(event.start_mark, f"the tag {visible(tag)!r} is not allowed here")
        return tag

    def scalar(self, event: Any) -> Any:
        tag = self.check_tag(event, "str", "null", "bool", "int", "float")
        if tag is None and (event.style is not None or event.tag is not None):
            tag = "str"  # quoted, or `! text`
        kinds = [name for name, pattern in _CORE if pattern.fullmatch(event.value)]
        if tag is None:
            tag = kinds[0] if kinds else "str"
        elif tag not in (*kinds, "str") and not (tag == "float" and "int" in kinds):
            self.refuse(event.start_mark, f"{shown(event.value)} is not of the type !!{tag}")
        if tag == "str":
            return self.text(event)
        if tag == "int":
            return self.integer(event)
        if tag == "float":
            return float(event.value.lower().replace(".inf", "inf").replace(".nan", "nan"))
        return event.value.lower() == "true" if tag == "bool" else None

    def integer(self, event: Any) -> int:
        text = event.value
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        number = int(text, base) if len(text) <= 40 else 2**63
        if abs(number) >= 2**63:
            self.refuse(event.start_mark, f"the number {shown(text)} of {len(text)} digits is too large")
        return number

    def text(self, event: Any) -> str:
        try:  # JSON writes what lies outside of 16 bits as a pair of surrogates
            text = event.value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self.refuse(event.start_mark, "a string holds half a surrogate pair, which is no character")
        if "\0" in text:
            self.refuse(event.start_mark, "a string holds the character NUL")
        return text


class YamlFile:
    """A file that holds one mapping. `data` is its content; `where(*keys)` is `path:line` of a key in it."""

    def __init__(self, path: Path, shown_as: str | None = None):
        self.path = path
        self.shown_as = shown_as or str(path)
        try:
            text = read_regular(path).decode()
        except UnicodeDecodeError as error:
            raise RequestError(f"{self.shown_as}: not UTF-8 text (byte {error.start})") from None
        except OSError as error:
            raise RequestError(f"{self.shown_as}: cannot be read: {error.strerror}") from None
        data, self._lines = _read(text, self.shown_as)
        if data is None:
            raise RequestError(f"{self.shown_as}: the file is empty; it must hold a mapping of keys to values")
        if not isinstance(data, dict):
            raise RequestError(f"{self.shown_as}: must hold a mapping of keys to values, found {kind(data)}")
        self.data: dict[Any, Any] = data

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
