"""Records of another results folder brought into ours, and those that `ablate rm` moved aside taken back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from metaformer_ablate.errors import RequestError
from metaformer_ablate.records.claims import Claims
from metaformer_ablate.records.compare import compare
from metaformer_ablate.records.integrity import check_record
from metaformer_ablate.records.record import Record
from metaformer_ablate.records.store import Store

_ASIDE = re.compile(r"([0-9a-f]{12})-([1-9][0-9]{0,8})")  # run id and number, as `Store.set_aside` names a folder


@dataclass
class Merged:
    """What came of a merge, as run ids; `left_out` are paths of what is no regular file of a record."""

    brought: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)


def merge(ours: Store, folders: Sequence[Path]) -> Merged:
    """Brings in the records of folders, each a results folder, a folder `aside`, or one run of such a folder.

    A run that is being trained here is left alone: its checkpoints would come to lie beside another run's record.

    Where both have a result, ours stays, unless it failed and theirs did not. What was moved aside from `ours` moves
    back; all else is copied, and links are not followed. Raises RequestError where a folder is none of these.
    """
    done, found = Merged(), [run for folder in folders for run in _runs_in(folder)]  # all, before one is moved
    ours.check_writable()
    held = Claims(ours.path).held()
    for run_id, path in found:
        try:
            if (owner := held.get(run_id)) is not None:
                raise RequestError(f"{path}: the run is being trained here by {owner.host} (pid {owner.pid})")
            _bring(ours, run_id, path, done)
        except RequestError as error:
            done.problems[run_id] = str(error)
    return done


def _runs_in(folder: Path) -> list[tuple[str, Path]]:
    """Run id and folder of each run; of one that was moved aside several times the last."""
    if (runs := folder / "runs").is_dir():
        if runs.is_symlink():
            raise RequestError(f"{runs} is a link, which merge does not follow; name the folder that it leads into")
        return [(run_id, runs / run_id) for run_id in Store(folder).ids()]
    if folder.is_dir() and (match := _ASIDE.fullmatch(folder.name)):
        return [(match[1], folder)]
    found = [(match, path) for path in _entries(folder) if (match := _ASIDE.fullmatch(path.name)) and path.is_dir()]
    if not found:
        raise RequestError(
            f"{folder} is no results folder: it has no folder runs, and no run that `ablate rm` moved aside"
        )
    last = {match[1]: path for match, path in sorted(found, key=lambda each: int(each[0][2]))}
    return sorted(last.items())


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _bring(ours: Store, run_id: str, path: Path, done: Merged) -> None:
    if path.is_symlink():
        raise RequestError(f"{path}: a link, which merge does not follow")
    problem, data = check_record(path, run_id)
    if problem:
        raise RequestError(f"{path}: {problem}; not counted as a result")
    own = path.parent.resolve() == ours.aside.resolve()
    if own and not ours.folder(run_id).exists():  # a run that was interrupted, too
        ours.take_back(path, run_id)
        done.brought.append(run_id)
        return
    if data is None:
        return
    record, mine = Record(path, data), ours.read(run_id)
    if mine is None or (mine.status == "failed" and record.status != "failed"):
        done.left_out += [f"{path / name}" for name in ours.adopt(record)]
        done.brought.append(run_id)
    elif record.status == "failed" or compare(mine, record)["identical"]:
        done.there.append(run_id)
    else:
        done.conflicts.append(run_id)
