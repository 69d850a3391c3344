"""YAML files that commands write about a study, to be committed with its records: what was planned and chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from metaformer_ablate.errors import RequestError
from metaformer_ablate.settings.typed_files import first_problem
from metaformer_ablate.settings.yaml_reader import YamlFile
from metaformer_ablate.settings.yaml_writer import dump


class StudyFile(BaseModel):
    """What such a file has to hold, and nothing else."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)

    def tree(self) -> dict[str, Any]:
        """Plain values, in the order of the file."""
        return self.model_dump()


F = TypeVar("F", bound=StudyFile)


def read_study_file(path: Path, shape: type[F]) -> F | None:
    """The file at a path, None where there is none. Raises RequestError for one that does not fit its shape."""
    if not path.exists():
        return None
    found = YamlFile(path).data
    try:
        return shape.model_validate(found)
    except ValidationError as error:
        raise RequestError(f"{path}: {first_problem(error)}; it is written by `ablate`, not by hand") from None


def write_study_file(path: Path, file: StudyFile, comment: str) -> None:
    """Writes a file whole, or not at all. Raises RequestError where it cannot be written."""
    text = "".join(f"# {line}\n" for line in comment.splitlines()) + dump(file.tree())
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise RequestError(f"{path}: cannot be written: {error.strerror}") from None
