"""The order in which a report shows its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from metaformer_ablate.analysis.report.collect import Section


def arranged(sections: Sequence[Section]) -> list[Section]:
    """Experiments with the most rows first, and after them the parts of others, which need not be read again."""
    marked = [replace(section, part_of=_whole_of(section, sections)) for section in sections]
    by_experiment: dict[str, list[Section]] = {}
    for section in marked:
        by_experiment.setdefault(section.table.experiment, []).append(section)

    def place(found: Sequence[Section]) -> tuple[bool, int, str]:
        most = max(len(section.variants) for section in found)
        parts = all(section.part_of or section.only_baseline for section in found)
        return parts, -most, found[0].table.experiment

    found = sorted(by_experiment.values(), key=place)
    return [section for of_one in found for section in sorted(of_one, key=lambda section: bool(section.part_of))]


def _whole_of(section: Section, sections: Sequence[Section]) -> str | None:
    """The experiment that shows all rows with records of a section and more, or the same with fewer rows missing."""
    if section.only_baseline:
        return None
    mine = set(section.variants.values())
    for other in sections:
        theirs = set(other.variants.values())
        if other.plan.recipe.name == section.plan.recipe.name and not other.only_baseline and mine <= theirs:
            if mine < theirs or (other.missing, other.table.experiment) < (section.missing, section.table.experiment):
                return other.table.experiment
    return None
