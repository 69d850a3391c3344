"""The documentation: its commands and settings exist, its pages are in the site, its references are whole."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from conftest import REPOSITORY

from docs.build import MADE, broken_links, commands_page, python_page, settings_page, with_links_of_the_site
from metaformer_ablate.cli.main import COMMANDS, ablate
from metaformer_ablate.models.spec import ModelSpec
from metaformer_ablate.spec.known import SHORTHANDS, all_leaves
from metaformer_ablate.spec.reference import settings_reference

PAGES = sorted((REPOSITORY / "docs").glob("*.md"))


def code_of(path: Path) -> Iterator[str]:
    """The code of a page: in backticks, and the lines of its blocks, continued lines joined."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    fenced = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    text_alone = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (line.strip() for block in fenced for line in block.splitlines())
    yield from (line.strip() for line in re.findall(r"^ {4,}(\S.*)$", text_alone, re.MULTILINE))
    yield from re.findall(r"`([^`]+)`", re.sub(r"^ {4,}.*$", "", text_alone, flags=re.MULTILINE))


def commands_of(path: Path) -> list[list[str]]:
    """The calls of `ablate` on a page, each as words after `ablate`."""
    found = []
    for code in code_of(path):
        for part in re.split(r" && | \| |; ", " ".join(code.split())):
            words = part.lstrip("$ ").split()
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # variables of the environment
                words = words[1:]
            if words[:1] == ["ablate"] and len(words) > 1:
                found.append(shlex.split(" ".join(words[1:]), comments=True))
    return found


@pytest.mark.parametrize(
    "path", [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *PAGES], ids=lambda p: p.stem
)
def test_commands_of_a_page_are_accepted(path: Path) -> None:
    """Each is a command that there is, with options that it has. `...` stands for what a reader has."""
    for words in commands_of(path):
        if words[0].startswith("--") or "COMMAND" in words:
            continue
        assert words[0] in COMMANDS, words
        command = ablate.get_command(click.Context(ablate), words[0])
        assert command is not None
        try:
            command.make_context(words[0], [word for word in words[1:] if word != "..."])
        except click.MissingParameter:  # a mention of the command, such as `ablate explain`
            assert len(words) == 1 or words[1] == "...", words
        except click.exceptions.NoArgsIsHelpError:
            pass
        except click.exceptions.Exit:  # --help
            pass


@pytest.mark.parametrize("path", [path for path in PAGES if path.stem != "python"], ids=lambda p: p.stem)
def test_settings_of_a_page_exist(path: Path) -> None:
    follows = {f"model.{field}" for field in ModelSpec.model_fields}  # what a resolved spec has besides
    known = {*all_leaves(), *SHORTHANDS, *follows}
    for code in code_of(path):
        for setting in re.findall(r"(?<![\w./*])((?:model|data|train|task)\.[a-z_]+(?:\.[a-z_]+)?)(?==\S|: |$)", code):
            if setting.endswith(".py") or setting.startswith("model.args."):  # those of a class of one's own
                continue
            assert setting in known or any(name.startswith(f"{setting}.") for name in known), f"{path.name}: {setting}"


def test_every_page_is_in_the_site_once() -> None:
    text = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    nav = re.findall(r"^ +- [^:\n]+: (\S+\.md)$", text, re.MULTILINE)
    assert sorted(nav) == sorted({path.name for path in PAGES} | MADE)
    assert yaml.safe_load(text)["nav"]


def test_the_reference_pages_are_whole() -> None:
    settings, commands = settings_page(), commands_page()
    for line in settings_reference():
        assert f"### `{line.path}`" in settings
    assert "### `train.lr` { #train-lr }\n\nA number above 0: the peak learning rate.\n\nDefault `0.001`" in settings
    for name in COMMANDS:
        assert f"\n### {name}\n\n```text\nUsage: ablate {name} " in commands
    assert "::: metaformer_ablate.load_results\n" in python_page()


def test_links_to_files_beside_the_docs() -> None:
    text = "[a](../CONTRIBUTING.md#set-up) [b](docs/house.md) [c](../results/README.md) [d](faq.md)"
    assert with_links_of_the_site(text) == "[a](contributing.md#set-up) [b](house.md) c [d](faq.md)"


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="top">A</h1><a href="#top">x</a><a href="#gone">x</a><a href="b.html#there">x</a>'
        '<a href="b.html#gone">x</a><img src="c.png"><a href="https://example.org/nowhere">x</a>'
    )
    (tmp_path / "b.html").write_text('<a id="there" href="a.html"></a>')
    assert list(broken_links(tmp_path)) == ["a.html: #gone", "a.html: b.html#gone", "a.html: c.png"]
