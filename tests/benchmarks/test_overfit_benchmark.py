"""The benchmark that learns frames by heart runs, and evaluates what it trains on."""

from __future__ import annotations

from pathlib import Path

import pytest
from mask_folders import write_folder

from benchmarks import overfit


@pytest.mark.slow
def test_it_gives_a_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABLATE_DATA", str(write_folder(tmp_path)))
    (line,) = overfit.camvid(epochs=1)
    assert (line["epoch"], line["steps"]) == (1, 4) and 0 <= line["miou"] <= 100  # type: ignore[operator]


def test_without_data_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ABLATE_DATA", str(tmp_path))
    assert list(overfit.camvid()) == []
