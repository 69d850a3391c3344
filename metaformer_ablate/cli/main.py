"""The `ablate` command: parse, call, print. Imports no torch until a command needs it.

Exit codes: 0 everything asked for is there (a diverged run is a result), 1 a run failed or is left over, 2 the request
was wrong, 130 interrupted, 128 + n on signal n.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from metaformer_ablate.cli.completion import answer_shell
from metaformer_ablate.errors import RequestError, one_line
from metaformer_ablate.system.console import for_stderr, log_to_stderr
from metaformer_ablate.version import __version__


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point: runs a command and exits with a code of the contract, without a traceback for bad input."""
    _open_streams()
    log_to_stderr()
    try:
        if (answered := answer_shell(ablate)) is not None:
            sys.exit(answered)
        code = _run(list(sys.argv[1:] if arguments is None else arguments)) or 0
        sys.stdout.flush()
    except BrokenPipeError:  # `ablate table | head`: the reader has what it wanted
        code = _drop_output(0)
    except OSError as error:  # what nobody expected of the machine, a full disk behind standard output among it
        place = "standard output or a file" if error.filename is None else str(error.filename)
        code = _drop_output(_fail(f"{place}: {error.strerror or error}", 1))
    sys.exit(code)


def _open_streams() -> None:
    """Has the standard streams take whatever is written: closed ones go nowhere, what an encoding lacks is escaped."""
    for number in range(3):  # before a file of ours gets a number that is free, and with it what is printed
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drop_output(code: int) -> int:
    """Lets what standard output still holds go, at which Python would fail once more as it ends."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _run(arguments: list[str]) -> int | None:
    from metaformer_ablate.records.record import StoreError
    from metaformer_ablate.system.signals import Interrupted, isolate_children

    isolate_children()
    try:
        # Not `ablate.main`: of a reader that left (`ablate table | head`) that makes a failure, code 1.
        with ablate.make_context("ablate", arguments) as context:
            return ablate.invoke(context)
    except click.exceptions.Exit as stop:  # --help and --version
        return stop.exit_code
    except RequestError as error:
        return _fail(str(error), 2)
    except StoreError as error:
        return _fail(f"{error}; what was finished before is kept", 1)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else error.format_message(), err=True)
        return 2
    except click.ClickException as error:
        return _fail(_one_sentence(error), 2)
    except (KeyboardInterrupt, click.Abort):
        return _end("interrupted", 130)
    except Interrupted as stop:
        return _end(f"stopped by {stop}\n{stop.advice}".rstrip(), 128 + stop.number)


def _fail(message: str, code: int) -> int:
    return _end(" ".join(f"error: {message}".split("\n")), code)


def _end(message: str, code: int) -> int:
    """The last lines of a command, and its exit code."""
    try:
        for line in message.split("\n"):
            print(for_stderr(one_line(line)), file=sys.stderr, flush=True)
    except OSError:
        pass  # the exit code still tells
    return code


def _one_sentence(error: click.ClickException) -> str:
    from metaformer_ablate.errors import unknown

    context = getattr(error, "ctx", None)
    if isinstance(error, click.NoSuchOption) and context is not None:
        names = sorted(option for p in context.command.params for option in p.opts if option.startswith("--"))
        return f"{context.command_path}: {unknown('option', error.option_name, names)}"
    text = " ".join(error.format_message().split()).rstrip(".")
    return f"{context.command_path}: {text}" if context is not None else text


# What people are at -> command -> the module of this room that holds it. Only what is called is loaded.
GROUPS = {
    "Design": {
        "init": "init",
        "list": "catalogue",
        "show": "plan",
        "explain": "explain",
        "cost": "plan",
        "register": "register",
    },
    "Train": {"run": "train", "tune": "tune", "status": "status", "reproduce": "results"},
    "Analyse": {"table": "tables", "plot": "figures", "compare": "tables", "errors": "errors"},
    "Share": {"report": "report", "export": "export", "rm": "results", "merge": "results"},
    "Cluster": {"sweep": "wandb", "trial": "wandb", "sync-wandb": "wandb"},
}
COMMANDS = {name: module for group in GROUPS.values() for name, module in group.items()}
HELP_OPTIONS = ["-h", "--help"]


class _Commands(click.Group):
    """Loads a command when it is called; names all of them when one is unknown."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = import_module(f"metaformer_ablate.cli.{COMMANDS[name]}")
        command: click.Command = getattr(module, f"{name.replace('-', '_')}_command")
        # A command keeps the help option of its first context: without this, one made apart from
        # `ablate` (a page of docs, a test) would take `-h` from all later ones.
        command.context_settings.setdefault("help_option_names", HELP_OPTIONS)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by what people are at, none of their lines cut."""
        for title, names in GROUPS.items():
            with formatter.section(title):
                found = {name: self.get_command(ctx, name) for name in names}
                formatter.write_dl([(name, one.get_short_help_str(200)) for name, one in found.items() if one])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        from metaformer_ablate.errors import unknown

        if args and args[0] not in COMMANDS and not ctx.resilient_parsing:
            raise RequestError(unknown("command", args[0], COMMANDS))
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": HELP_OPTIONS, "max_content_width": 100},
    epilog="`ablate COMMAND --help` has examples of each command.",
)
@click.version_option(__version__, prog_name="ablate")
def ablate() -> None:
    """Ablations of MetaFormer: which part of the model matters?"""
