"""Where the data lies, what of it is missing, and its fingerprint. Holds no torch, so that `show` can ask."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

from metaformer_ablate.data.datasets import DATASETS
from metaformer_ablate.errors import RequestError
from metaformer_ablate.settings.typed_files import read_json
from metaformer_ablate.system.cache import cache_dir, write_cache


class Location(Protocol):
    """Where a data set lies that is read image by image."""

    def fingerprint(self) -> str:
        """16 hex digits that change when the data does."""
        ...


# A data set's `layout` -> the module that finds it: `find_location(folder, name, reader)`, which gives None where it is
# not there, and `LAYOUTS`, {reader: what has to lie in the folder}.
LAYOUTS = {
    "images": "metaformer_ablate.data.layouts",
    "coco": "metaformer_ablate.data.coco_files",
    "masks": "metaformer_ablate.data.mask_files",
}


TORCHVISION_CLASS = {
    "fashion_mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "imagenette": "Imagenette",
}
# What the class is made with, besides the folder.
TORCHVISION_OPTIONS: dict[str, dict[str, str]] = {"imagenette": {"size": "160px"}}


@dataclass(frozen=True)
class DataFolder:
    """The folder that holds data sets. One that the user named is only read; the default one is downloaded into."""

    path: Path
    given: bool

    @classmethod
    def choose(cls, option: str | None, called: str = "--data") -> DataFolder:
        """What is given, else $ABLATE_DATA, else a folder in the user's cache."""
        named = option or os.environ.get("ABLATE_DATA")
        if not named:
            return cls(cache_dir() / "data", given=False)
        path = Path(named)
        if not os.path.isdir(path):  # says no also of a name that is too long
            raise RequestError(f"{called if option else 'ABLATE_DATA'} is {named!r}, which is not a folder")
        return cls(path, given=True)

    def files(self, name: str) -> list[Path]:
        """The files that a data set consists of, there or not."""
        facts = DATASETS[name]
        if not facts.embedded:
            return [self.path / file for file in facts.files]
        found = importlib.util.find_spec("sklearn")  # finds, does not import: that takes over a second
        home = Path(next(iter(found.submodule_search_locations or []))) if found else Path("sklearn")
        return [home / "datasets" / file for file in facts.embedded]

    def missing(self, name: str) -> list[Path]:
        """What of a data set that can be downloaded is not there."""
        if DATASETS[name].in_folder and name in TORCHVISION_CLASS:
            return [] if self.place(name) else [self.path / (DATASETS[name].folder or name)]
        return [path for path in self.files(name) if not path.is_file()]

    def place(self, name: str, reader: str | None = None) -> Location | None:
        """Where a data set lies that is read image by image. Raises RequestError where that cannot be told."""
        module = import_module(LAYOUTS[DATASETS[name].layout])
        return module.find_location(self.path, name, reader or "auto")

    def require(self, name: str, reader: str | None = None) -> None:
        """Raises RequestError where a data set cannot be trained on from here, as far as that shows without reading."""
        if DATASETS[name].in_folder and name not in TORCHVISION_CLASS:
            if self.place(name, reader) is None:
                known = import_module(LAYOUTS[DATASETS[name].layout]).LAYOUTS
                mine = name == "folder"
                kinds = [key for key in known if reader in (None, "auto", key) and (mine or key != "classes")]
                layouts = "; ".join(f"{key}: {known[key]}" for key in kinds)
                if mine and self.given:
                    raise RequestError(f"{self.path} holds no images that are sorted by class; allowed: {layouts}")
                where = f"{self.path / name} or {self.path}" if self.given else "the default folder"
                inside = "" if mine else f" or in its folder {name}"
                raise RequestError(
                    f"{name} is not in {where}, and it is not downloaded: name its folder with --data; allowed in it"
                    f"{inside}: {layouts}"
                )
            return
        missing = self.missing(name)
        if missing and self.given:
            names = ", ".join(str(path.relative_to(self.path)) for path in missing)
            raise RequestError(
                f"{self.path}: {name} is not there: missing {names}; get it with: {self.how_to_get(name)}"
            )

    def how_to_get(self, name: str) -> str:
        """A command that puts a data set into this folder."""
        options = "".join(f", {key}={value!r}" for key, value in TORCHVISION_OPTIONS.get(name, {}).items())
        call = f"D('{self.path}'{options}, download=True)"
        return f'python -c "from torchvision.datasets import {TORCHVISION_CLASS[name]} as D; {call}"'

    def fingerprint(self, name: str, reader: str | None = None) -> str | None:
        """First 16 hex digits of a SHA-256 over the data set's files; None while they are not all there.

        Hashes are cached_cost by size and time of change, so that asking again costs no reading. Of a data set that is
        read image by image names and sizes are hashed (`DatasetLocation.fingerprint`).
        """
        if DATASETS[name].in_folder:
            try:
                place = self.place(name, reader)
                return None if place is None else place.fingerprint()
            except RequestError:  # training says what is wrong
                return None
        files = self.files(name)
        if not files or self.missing(name):
            return None
        memory = cache_dir() / "fingerprints.json"
        try:
            found = read_json(memory)
            known = {key: value for key, value in found.items() if isinstance(value, str)}
        except (OSError, ValueError, AttributeError):  # not there, or not what this wrote
            known = {}
        parts, learnt = [], False
        for path in files:
            stat = path.stat()
            key = f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
            if key not in known:
                with path.open("rb") as stream:
                    known[key] = hashlib.file_digest(stream, "sha256").hexdigest()
                learnt = True
            parts.append(f"{path.name}:{known[key]}")
        if learnt:
            write_cache(memory, json.dumps(known))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
