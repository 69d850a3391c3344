"""What the README tells people to type works as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap

import pytest
from conftest import REPOSITORY

from docs.build import MADE

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
USING, HOUSE, EXTENDING = (
    (REPOSITORY / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("using", "house", "extending")
)
TEST_COMMAND = "pip install -e '.[test]' && pytest"
MAIN_COMMAND = "pip install -e . && ablate run pooling_size"


def after(words: str, page: str) -> str:
    """The first indented block after some words of a page, without its indent."""
    found = re.search(r"\n\n((?: {4,}.*\n|\n)+)", page[page.index(words) :])
    assert found is not None
    return textwrap.dedent(found[1]).strip("\n")


def test_the_two_commands_stand_in_the_readme_and_ci_calls_them():
    ci = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    assert f"    {MAIN_COMMAND}\n" in README and f"    {TEST_COMMAND}\n" in README
    quiet = [command.replace("pip install", "pip install --quiet") for command in (MAIN_COMMAND, TEST_COMMAND)]
    first, second = (ci.index(f"\n{command}\n") for command in quiet)
    assert first < second, "in the README's order: the second has to pass beside what the first leaves"


def test_the_readme_can_be_read_in_one_go():
    assert len(README.splitlines()) <= 160


def test_links_lead_somewhere():
    results = (REPOSITORY / "results" / "README.md", *(REPOSITORY / "results" / "studies").glob("*.md"))
    for page in (REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md"), *results):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists() or target in MADE, f"{page.name}: {target}"


@pytest.mark.parametrize("command", re.findall(r"^\| `ablate (.+?)` \|", README + USING, flags=re.MULTILINE))
def test_commands_of_the_table_are_accepted(command, ablate, tmp_path):
    words = shlex.split(command)
    if any(word.strip(".").isupper() for word in words):  # RUN and DIR stand for what a reader has
        assert ablate(words[0], "--help").code == 0
        return
    extra = {
        "run": ["--dry-run"],
        "tune": ["--dry-run"],
        "cost": ["--no-speed"],
        "table": ["--results", str(tmp_path)],
    }.get(words[0], [])
    if words[0] == "show":
        words[1] = "pooling_size"  # counting the whole of table 5 is test_paper's
    done = ablate(*words, *extra)
    if done.code == 1 and words[0] in ("plot", "report"):
        assert done.err.startswith("nothing to "), "here are no records"
        return
    assert done.code == 0


def test_overrides_of_the_text_are_accepted(ablate):
    (command,) = re.findall(r"`ablate (run pooling_size train\S+ \S+)`", USING)
    assert ablate(*shlex.split(command), "--dry-run").code == 0


def test_every_file_of_the_map_is_there():
    package = REPOSITORY / "metaformer_ablate"
    named = set(re.findall(r"^      (\w+(?:/|\.py))\s", HOUSE, flags=re.MULTILINE))
    there = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert named == there | {path.name for path in package.glob("*.py") if not path.name.startswith("__")}


@pytest.mark.slow
def test_adding_a_mixer_and_an_experiment_as_told(tmp_path):
    shutil.copytree(REPOSITORY / "metaformer_ablate", tmp_path / "metaformer_ablate")
    shutil.copytree(REPOSITORY / "experiments", tmp_path / "experiments")
    mixers = tmp_path / "metaformer_ablate" / "models" / "mixers.py"
    mixer, line = (
        after(words, EXTENDING) for words in ("## A mixer in a file of your own", "## A mixer for everybody")
    )
    mixers.write_text(mixers.read_text() + "\n\n" + mixer[mixer.index("class ") :] + "\n")
    parts = tmp_path / "metaformer_ablate" / "models" / "components.py"
    parts.write_text(
        parts.read_text().replace(
            "MIXERS: dict[str, Component] = {", "MIXERS: dict[str, Component] = {\n    " + line + "\n"
        )
    )
    (tmp_path / "experiments" / "rolling.yaml").write_text(after("## An experiment", EXTENDING).split("\n\n")[0])
    command = [sys.executable, "-c", "from metaformer_ablate.cli.main import main; main()"]
    tiny = ["train.epochs=1", "model.depths=[1,1,1,1]", "model.dims=[4,4,8,8]", "data.image_size=8"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for words in (["list"], ["show", "rolling"], ["run", "rolling", *tiny]):
        done = subprocess.run([*command, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "roll" in done.stdout


def test_the_page_on_ones_own_model_works_as_it_stands(ablate, tmp_path):
    page = (REPOSITORY / "docs" / "own_model.md").read_text(encoding="utf-8")
    for name, text in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", page, flags=re.DOTALL):
        (tmp_path / name).write_text(text)
    (command,) = re.findall(r"^ablate (init .*)$", page, flags=re.MULTILINE)
    assert ablate(*shlex.split(command)).code == 0
    rows = re.search(r"^    baseline: gated\n(?:    .*\n)+", page, flags=re.MULTILINE)[0]
    (tmp_path / "experiments" / "my_study.yaml").write_text("title: Mine\n" + re.sub("^    ", "", rows, flags=re.M))
    done = ablate("show", "my_study")
    assert done.code == 0 and "Gate -> none" in done.out, done.err
