"""What reaches a real terminal: lines as wide as it is, a bar while a sweep trains, an end that says how to go on."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import pytest
from committed_study import RESULTS
from conftest import TINY_WORDS, Result, Terminal, command

from metaformer_ablate.cli.main import main

OF_STUDY = f"--recipe cifar10_small --results {RESULTS}"
RUN = sorted(path.name for path in (RESULTS / "runs").iterdir())[0]
COMMANDS = {
    "table": f"table table5 {OF_STUDY}",
    "runs": f"table table5 {OF_STUDY} --runs",
    "compare": f"compare cifar10_small paper table5 --results {RESULTS}",
    "explain": "explain table5 ppaa --recipe imagenet",
    "explain-all": "explain table5 ppaa --all --recipe imagenet",
    "show": f"show table5 {OF_STUDY}",
    "cost": "cost poolformer_s12 --no-speed",
    "status": f"status table5 {OF_STUDY} --seeds 7",
    "errors": f"errors {RUN} --results {RESULTS} --out errors",
    "init": "init an_idea_with_a_name_that_is_long",
}


def in_terminal(words: str, width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a command prints on a terminal of a width."""
    monkeypatch.setenv("COLUMNS", str(width))
    with redirect_stdout(Terminal()) as out, pytest.raises(SystemExit) as stop:
        main(words.split())
    assert not stop.value.code
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", COMMANDS)
def test_no_line_is_wider_than_the_terminal(
    name: str, width: int, monkeypatch: pytest.MonkeyPatch, undrawn: None, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    text = in_terminal(COMMANDS[name], width, monkeypatch)
    wide = [line for line in text.splitlines() if len(line) > width]
    assert not wide, wide
    assert "\\n" not in text, "a heading that is folded has lines"


def test_notes_are_shortened_in_a_terminal_and_whole_on_request(
    monkeypatch: pytest.MonkeyPatch, ablate: Callable[..., Result]
) -> None:
    words = f"table pooling_size {OF_STUDY}"
    short, whole = (in_terminal(f"{words}{more}", 80, monkeypatch) for more in ("", " --notes"))
    piped = ablate(*words.split()).out
    question = "The test asks whether the rows would differ if trained again."
    assert question not in flat(short) and question in flat(whole) and question in flat(piped)
    assert "`ablate table --notes` shows them whole" in flat(short) and "--notes" not in whole
    assert len(short) < len(whole)


def test_show_names_some_of_many_rows_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    words = f"show table5 {OF_STUDY}"
    short, whole = (flat(in_terminal(f"{words}{more}", 80, monkeypatch)) for more in ("", " --notes"))
    covered = "a window of 3 covers the whole map in stage 4 (2 x 2)"
    assert f"baseline, depthwise_conv, layer_norm and 6 more rows: {covered}" in short
    assert f"relu, silu, no_residual, no_channel_mlp: {covered}" in whole


def flat(text: str) -> str:
    return " ".join(text.split())


def test_an_error_is_folded_between_words(ablate: Callable[..., Result]) -> None:
    done = ablate("table", "tabel5", terminal=True, env={"COLUMNS": "80"})
    assert done.code == 2
    lines = done.err.splitlines()
    assert len(lines) > 1 and max(map(len, lines)) <= 80
    assert flat(done.err) == flat(ablate("table", "tabel5").err)


@contextmanager
def on_terminal(*words: object, width: int, cwd: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`ablate WORDS` with a terminal of its own; the process and the other end of the terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    left_out = ("COLUMNS", "LINES", "ABLATE_WORKERS")
    env = {name: value for name, value in os.environ.items() if name not in left_out} | {"TERM": "xterm"}
    process = subprocess.Popen(
        command(*words), cwd=cwd, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(terminal: int, pattern: str, seconds: float = 200) -> str:
    """What the terminal shows until a pattern is there or its process has closed it, without what steers it."""
    text, until = b"", time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            more = os.read(terminal, 65536)
        except OSError:  # closed
            more = b""
        text += more
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.decode(errors="replace"))
        if not more or re.search(pattern, plain):
            return plain
    raise AssertionError(plain)


@pytest.mark.slow
def test_a_sweep_on_a_terminal_and_ctrl_c(tmp_path: Path) -> None:
    words = ["run", "pooling_size", *TINY_WORDS[1:], "train.epochs=400", "--workers", "2"]
    with on_terminal(*words, width=80, cwd=tmp_path) as (process, terminal):
        seen = read_until(terminal, "starts, loading PyTorch")
        assert "time left not known yet" in seen and "0 of 4 runs, 0:00:0" in seen
        assert not re.search(r"about|days", seen)
        seen += read_until(terminal, r"about \d+ (s|min) left")
        os.killpg(process.pid, signal.SIGINT)
        seen += read_until(terminal, "are left\r\n")
        assert process.wait(60) == 130
    shown = [line for line in re.split(r"[\r\n]+", seen) if line.strip()]
    assert max(map(len, shown)) <= 80
    assert "error:" not in seen and "Traceback" not in seen
    assert shown[-2:] == ["stopped by SIGINT", "the same command goes on with the 4 that are left"]
    assert any("stopping: the runs under way save their place" in line for line in shown)
