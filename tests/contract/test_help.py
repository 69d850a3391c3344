"""The help of the commands: grouped, whole at 80 columns, with examples that are accepted."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

import click
import pytest
from conftest import Result

from metaformer_ablate.cli.main import COMMANDS, GROUPS, ablate

Ablate = Callable[..., Result]


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def the_command(name: str) -> click.Command:
    found = ablate.get_command(click.Context(ablate), name)
    assert found is not None
    return found


def test_the_commands_are_grouped(ablate: Ablate) -> None:
    text = ablate("--help").out
    at = [text.index(f"\n{group}:\n") for group in ("Design", "Train", "Analyse", "Share", "Cluster")]
    assert at == sorted(at) and len(GROUPS) == 5
    for group, names in GROUPS.items():
        section = text[text.index(f"\n{group}:\n") :].split("\n\n")[0]
        assert re.findall(r"^  (\S+)  ", section, re.MULTILINE) == list(names)


def test_what_a_command_does_stands_on_one_whole_line(ablate: Ablate) -> None:
    lines = ablate("--help").out.splitlines()
    for name in COMMANDS:
        (line,) = [line for line in lines if line.startswith(f"  {name} ")]
        assert line.endswith(".") and not line.endswith("..") and len(line) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_no_line_is_cut_or_too_long(name: str, ablate: Ablate) -> None:
    text = ablate(name, "--help").out
    assert max(map(len, text.splitlines())) <= 80
    assert "\n  Examples:\n" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_short_help_does_not_depend_on_what_was_called_before(name: str, ablate: Ablate) -> None:
    """click keeps the help option of a command's first context, here one that `ablate` did not make."""
    command = the_command(name)
    command._help_option = None
    with pytest.raises(click.exceptions.Exit):
        command.make_context(name, ["--help"])
    assert ablate(name, "-h").code == 0


def examples_of(name: str) -> list[str]:
    return re.findall(r"^  (ablate .+)$", the_command(name).epilog or "", re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_accepted(name: str) -> None:
    """Each is a call of its command with options that it has: that much needs no records and no network."""
    found = examples_of(name)
    assert found
    for example in found:
        words = shlex.split(example)
        assert words[:2] == ["ablate", name]
        the_command(name).make_context(name, words[2:])


@pytest.mark.parametrize("example", [*examples_of("list"), *examples_of("explain"), *examples_of("sweep")[:2]])
def test_examples_that_need_nothing_work(example: str, ablate: Ablate) -> None:
    assert ablate(*shlex.split(example)[1:]).code == 0
