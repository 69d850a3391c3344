"""Whether a checkpoint of another program holds averaged weights beside those that were trained. Loads no torch."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

# Under these names timm's train.py and the scripts of DeiT and ConvNeXt keep the weights that they evaluate.
AVERAGED = ("state_dict_ema", "model_ema")

_LARGEST = 2**26  # bytes of a pickle, which has the names and no tensors


def averaged_in(path: str | Path) -> str | None:
    """The name under which a checkpoint holds averaged weights, or None.

    Read from the words of its pickle, of which nothing is executed. A word before a plain value names no weights: the
    arguments that timm's train.py also saves have a `model_ema`.
    """
    try:
        words = set(_words(Path(path)))
    except (OSError, ValueError, zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError):
        return None  # whoever loads it says what is wrong
    return next((name for name in AVERAGED if name in words), None)


def _words(path: Path) -> Iterator[str]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.endswith("/data.pkl") and member.file_size <= _LARGEST:
                    with archive.open(member) as pickle:
                        yield from _texts(pickle)
    elif path.suffix != ".safetensors":
        with path.open("rb") as file:
            for _ in range(4):  # torch's older format: three pickles of its own before the one with the names
                yield from _texts(file)


# A pickle remembers a text by the first and gives it again by the second.
_PUT, _GET = ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"), ("GET", "BINGET", "LONG_BINGET")


def _texts(pickle: IO[bytes]) -> Iterator[str]:
    """The words of a pickle that no plain value follows: true, false, nothing, a number or another word."""
    remembered: dict[int | None, str | None] = {}
    word: str | None = None
    for operation, argument, _ in pickletools.genops(pickle):
        if operation.name in _PUT:
            remembered[len(remembered) if argument is None else argument] = word
            continue
        value = remembered.get(argument) if operation.name in _GET else argument
        literal = isinstance(value, (str, int, float)) and operation.name != "GLOBAL"
        if word is not None and not literal and operation.name not in ("NEWTRUE", "NEWFALSE", "NONE"):
            yield word
        word = value if literal and isinstance(value, str) else None
