"""`model.class`: from where a file of settings says it is to its digest, and from a record's digest back to a file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from metaformer_ablate.errors import RequestError, nearest
from metaformer_ablate.models.class_arguments import GIVEN, Constructor, class_names, of_source
from metaformer_ablate.models.class_source import OwnSource, find_source, split_target
from metaformer_ablate.models.comparators.timm_arguments import problem_of_timm
from metaformer_ablate.models.spec import ModelSpec
from metaformer_ablate.spec.merge import Merged, invalid
from metaformer_ablate.system.files import read_regular


def with_class(model: ModelSpec, merged: Merged) -> ModelSpec:
    """A model whose class is named by the digest of its source, with the place where that is.

    Raises RequestError where the class is not there, and where it or timm's model cannot be built with `model.args` as
    far as can be told beforehand.
    """
    if model.timm is not None and model.args and (problem := problem_of_timm(model.timm, model.args)) is not None:
        raise RequestError(f"{merged.where(problem[0])}{problem[1]}")
    if (target := model.own_class) is None:
        return model
    if "@" in target.rpartition(":")[2]:
        raise invalid("model.class", target, "allowed: FILE.py:Class or package.module:Class", merged)
    at = merged.where("model.class")
    source, name = _source_of(target, f"{at}model.class")
    constructor = of_source(source, name)
    if constructor is not None and (problem := constructor.problem(name, model.args or {})) is not None:
        raise RequestError(f"{merged.where(problem[0]) or at}{problem[1]}")
    found = {"own_class": f"{name}@{source.digest(name)}", "class_place": f"{source.place}:{name}"}
    return model.model_copy(update=found)


def _source_of(target: str, where: str) -> tuple[OwnSource, str]:
    """The source of a class, and its name. Raises RequestError, which begins with `where`, where it is not there."""
    try:
        place, name = split_target(target)
    except ValueError as error:
        raise RequestError(f"{where} is {target!r}; {error}") from None
    source = find_source(place, where)
    names = class_names(source)
    if names is not None and name not in names:
        raise RequestError(f"{where}: {place} has no class {name!r}{nearest(name, names)}")
    return source, name


def constructor_of(target: str) -> Constructor:
    """What the class of `ablate init --model` takes. Raises RequestError where its source does not tell, or where it
    takes no num_classes."""
    source, name = _source_of(target, "--model")
    constructor = of_source(source, name)
    if constructor is None:
        raise RequestError(
            f"--model: the file of {target} does not say what it takes; allowed: a class with an __init__ of its own"
        )
    if (problem := constructor.problem(name, [each for each in constructor.names if each not in GIVEN])) is not None:
        raise RequestError(f"--model: {problem[1].removeprefix('model.class: ')}")
    return constructor


def located(model: ModelSpec, run_id: str, given: Sequence[str] = ()) -> ModelSpec:
    """The model of a record with the place of its class: one that is given, or that an experiment or recipe here names.

    Code is run where the user names it, so a record does not say where it is. Raises RequestError where none is of the
    record's digest.
    """
    if (wanted := model.own_class) is None:
        return model
    name = wanted.partition("@")[0]
    others = []
    for target in (*given, *_named_here(name)):
        try:
            place, class_name = split_target(target)
            source = find_source(place, "--class")
        except ValueError as error:  # RequestError too
            if target in given:
                raise RequestError(f"--class is {target!r}; {error}") from None
            continue
        found = f"{class_name}@{source.digest(class_name)}"
        if found == wanted:
            return model.model_copy(update={"class_place": f"{source.place}:{class_name}"})
        others.append(f"{target} is {found}")
    nothing = "no experiment here names a class of that digest" + (f" ({', '.join(others)})" if others else "")
    raise RequestError(f"the model of run {run_id} is {wanted}, and {nothing}; allowed: --class FILE.py:{name}")


def _named_here(class_name: str) -> Iterator[str]:
    """Whatever files of settings in this folder name as a class of that name."""
    folders = (Path("experiments"), Path("experiments/recipes"), Path())
    for path in (path for folder in folders for path in sorted(folder.glob("*.yaml"))):
        try:
            text = read_regular(path, 2**20).decode(errors="replace")
        except (OSError, ValueError):
            continue
        yield from dict.fromkeys(re.findall(rf"[^\s'\"{{}}\[\],]+:{class_name}\b", text))
