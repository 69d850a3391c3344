"""A wheel, installed elsewhere, runs from any folder with the experiments and recipes it carries."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY


@pytest.mark.slow
def test_a_wheel_runs_from_any_folder(tmp_path):
    pip = [sys.executable, "-m", "pip", "--quiet"]
    # From a copy: building in the checkout would leave files there.
    source = tmp_path / "source"
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listing, cwd=REPOSITORY, capture_output=True, text=True).stdout.split()
    for file in files:
        if (REPOSITORY / file).is_file():
            (source / file).parent.mkdir(parents=True, exist_ok=True)
            (source / file).write_bytes((REPOSITORY / file).read_bytes())
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def python(code: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert python("import metaformer_ablate as m; print(m.__file__)").startswith(str(site))
    listed = python("from metaformer_ablate.cli.main import main; main()", "list")
    for folder in ("", "recipes"):
        for path in (REPOSITORY / "experiments" / folder).glob("*.yaml"):
            assert str(site / "metaformer_ablate" / "experiments" / folder / path.name) in listed
    tiny = ("train.epochs=1", "model.depths=[1,1,1,1]", "model.dims=[4,4,8,8]", "data.image_size=8")
    table = python("from metaformer_ablate.cli.main import main; main()", "run", "pooling_size", *tiny)
    assert "pooling_size under digits" in table
    assert len(list((elsewhere / "results" / "runs").glob("*/record.json"))) == 4
    python(
        "from metaformer_ablate.cli.main import main; main()", "report"
    )  # its style and script are files of the package
    assert "pooling_size" in (elsewhere / "report.html").read_text(encoding="utf-8")


def test_every_folder_of_the_package_is_in_the_wheel() -> None:
    """setup.cfg lists packages one by one; a folder that is left out is missing in a wheel alone."""
    listed = configparser.ConfigParser()
    listed.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    packages = {name for name in listed["options"]["packages"].split() if ".experiments" not in name}
    there = (path.parent for path in (REPOSITORY / "metaformer_ablate").rglob("__init__.py"))
    assert packages == {".".join(folder.relative_to(REPOSITORY).parts) for folder in there}
