"""Where a data set of image files lies, and which files are whose: folders, tar shards, Hugging Face. No torch."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from metaformer_ablate.data.datasets import DATASETS
from metaformer_ablate.data.listings import FolderListing
from metaformer_ablate.data.rules import HIDDEN, NO_SPLIT, LeftOut, is_hidden, natural, readable, require_regular
from metaformer_ablate.errors import RequestError

SPLITS = {"train": ("train",), "evaluation": ("val", "validation")}
# What else a folder of classes to evaluate on is called; beside a `val` it is no part of the data set.
ALSO_EVALUATION = ("valid", "test")


# The name of a shard tells its split: train-0001.tar, imagenet1k-validation-00.tar.
_SHARD = {split: re.compile(rf"(?<![a-z])({'|'.join(names)})(?![a-z])") for split, names in SPLITS.items()}


LAYOUTS = {
    "folder": "{train,val}/CLASS/*.jpg",
    "classes": "CLASS/*.jpg, of which every fifth image of each class is evaluated on",
    "tar": "*train*.tar and *val*.tar, or {train,val}/*.tar",
    "hf": "*train*.parquet and *val*.parquet, also in data/",
}


@dataclass(frozen=True)
class DatasetLocation:
    """A data set that was found: `kind` is one of `LAYOUTS`. `parts` are of each split the folder or the files."""

    root: Path
    kind: str
    parts: dict[str, tuple[Path, ...]]
    left_out: LeftOut = field(default_factory=LeftOut)

    def fingerprint(self) -> str:
        """First 16 hex digits of a SHA-256 over the relative names and sizes of all images; of shards and parquet
        files over theirs. It does not see bytes: not what was overwritten in place, nor what kept its size."""
        lines = [self.kind]
        with readable(self.root):
            for split, paths in self.parts.items():
                if self.kind in ("folder", "classes"):
                    lines.append(f"{split}:{FolderListing.of(paths[0]).digest}")
                else:
                    lines += [f"{split}:{path.relative_to(self.root)}:{path.stat().st_size}" for path in paths]
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def find_location(folder: Path, name: str, reader: str = "auto") -> DatasetLocation | None:
    """What lies in `folder/name`, or else in `folder` itself; None where nothing does.

    A set called `folder` is what the folder itself holds: it alone may be without splits.
    Raises RequestError where a split is missing, where a file is not a regular one, where files of a split lie in two
    folders, or where more than one layout is there and `reader` names none.
    """
    with readable(folder):
        below = folder / (DATASETS[name].folder or name)
        root = below if name != "folder" and below.is_dir() else folder
        if not root.is_dir():
            return None
        found = _find_place(root, name, reader)
        if found is None and name == "folder" and reader in ("auto", "folder") and _holds_folders(root):
            return DatasetLocation(root, "classes", dict.fromkeys(SPLITS, (root,)))
        return found


def _find_place(root: Path, name: str, reader: str) -> DatasetLocation | None:
    left_out = {kind: LeftOut() for kind in LAYOUTS}
    found: dict[str, dict[str, tuple[Path, ...]]] = {
        "folder": _folders(root, left_out["folder"]),
        "tar": _files(root, "tar", ("", *SPLITS["train"], *SPLITS["evaluation"]), left_out["tar"]),
        "hf": _files(root, "parquet", ("", "data", *SPLITS["train"], *SPLITS["evaluation"]), left_out["hf"]),
    }
    kinds = [kind for kind, parts in found.items() if parts and reader in ("auto", kind)]
    if not kinds:
        return None
    if len(kinds) > 1:
        raise RequestError(
            f"{root}: holds {name} in more than one form ({', '.join(kinds)}); allowed: one, or data.reader="
            f"{' or data.reader='.join(kinds)}"
        )
    kind = kinds[0]
    if lacking := [split for split in SPLITS if split not in found[kind]]:
        names = " or ".join(SPLITS[lacking[0]])
        raise RequestError(f"{root}: {name} has no {lacking[0]} split ({names}); allowed: {LAYOUTS[kind]}")
    if kind != "folder":
        for paths in found[kind].values():
            if len(folders := sorted({str(path.parent) for path in paths})) > 1:
                raise RequestError(
                    f"{root}: {paths[0].name}, ... lie in {folders[0]} and in {folders[1]}; allowed: the files of a "
                    "split in one folder"
                )
            for path in paths:
                require_regular(path)
    return DatasetLocation(root, kind, {split: found[kind][split] for split in SPLITS}, left_out[kind])


def _folders(root: Path, left_out: LeftOut) -> dict[str, tuple[Path, ...]]:
    """The folder of each split that holds folders."""
    found: dict[str, tuple[Path, ...]] = {}
    for split, names in SPLITS.items():
        there = [root / name for name in names if (root / name).is_dir() and _holds_folders(root / name)]
        if len(there) > 1:
            raise RequestError(f"{root}: holds {there[0].name} and {there[1].name}; allowed: one of them")
        if there:
            found[split] = (there[0],)
    others = [root / name for name in ALSO_EVALUATION if (root / name).is_dir() and _holds_folders(root / name)]
    if "evaluation" not in found and "train" in found:
        if len(others) > 1:
            raise RequestError(f"{root}: holds {others[0].name} and {others[1].name}; allowed: one of them, or a val")
        if others:
            found["evaluation"] = (others.pop(),)
    for path in others if found else ():
        left_out.add(NO_SPLIT, f"{path.name}/")
    return found


def _holds_folders(path: Path) -> bool:
    with os.scandir(path) as entries:
        return any(not is_hidden(entry.name) and entry.is_dir() for entry in entries)


def _files(root: Path, ending: str, inside: tuple[str, ...], left_out: LeftOut) -> dict[str, tuple[Path, ...]]:
    """Files with an ending whose own name, or else whose folder's, tells the split; sorted."""
    found: dict[str, list[Path]] = {}
    for sub in inside:
        for path in (root / sub).glob(f"*.{ending}"):
            of = [split for split, pattern in _SHARD.items() if pattern.search(path.stem.lower())]
            of = of or [split for split, names in SPLITS.items() if sub in names]
            if is_hidden(path.name):
                left_out.add(HIDDEN, path.name)
            elif len(of) != 1:
                left_out.add(NO_SPLIT, path.name)
            elif not path.is_dir():
                found.setdefault(of[0], []).append(path)
    return {
        split: tuple(sorted(paths, key=lambda p: natural(str(p.relative_to(root))))) for split, paths in found.items()
    }
