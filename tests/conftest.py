"""What the tests share: the `ablate` command in process and in a fresh one, a private cache, and small trained runs."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from metaformer_ablate.cli.main import main
from metaformer_ablate.spec.experiment import forget_files
from metaformer_ablate.system.console import log_to_stderr

log_to_stderr()  # tests that call a room by itself see its messages as a command shows them

REPOSITORY = Path(__file__).resolve().parent.parent

# A run of `digits` that takes half a second: 22 steps of a net of 6,000 parameters. Every row ends well above
# chance, and no two alike.
TINY_WORDS = (
    "train.epochs=1",
    "train.warmup_epochs=0",
    "train.batch_size=64",
    "train.lr=2e-2",
    "model.depths=[1,1,1,1]",
    "model.dims=[8,8,16,16]",
    "data.image_size=8",
)


@dataclass(frozen=True)
class Result:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which has to be one JSON document and nothing else."""
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        """The one sentence of a request that was wrong. Checks what holds for all of them."""
        assert self.code == 2, (self.code, self.err)
        assert self.out == ""
        assert "Traceback" not in self.err
        lines = [line for line in self.err.splitlines() if not line.startswith("running code of ")]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: "), self.err
        return lines[0].removeprefix("error: ")


@dataclass(frozen=True)
class Trained:
    """A results folder that holds every run of `pooling_size` with TINY_WORDS and seeds 0 and 1. Only to be read."""

    results: Path
    words: tuple[str, ...]
    arguments: tuple[str, ...]  # experiment, overrides and --results: what `run`, `show` and `table` take
    run: Result  # of the command that trained it


class Terminal(io.StringIO):
    """A stream that takes itself for a terminal."""

    def isatty(self) -> bool:
        return True


def call(*arguments: object, cwd: Path, env: Mapping[str, str | None] | None = None, terminal: bool = False) -> Result:
    """`ablate ARGUMENTS` in this process. A variable of `env` that is None is unset."""
    forget_files()
    out, err = io.StringIO(), Terminal() if terminal else io.StringIO()
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ))
        for name, value in (env or {}).items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        stack.enter_context(chdir(cwd))
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(err))
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


def command(*arguments: object) -> list[str]:
    """The words that start `ablate ARGUMENTS` in a new process."""
    return [sys.executable, "-c", "from metaformer_ablate.cli.main import main; main()", *map(str, arguments)]


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's cache and folders stay out of it; counts are cached over the session."""
    with mock.patch.dict(os.environ):
        os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ["ABLATE_WORKERS"] = "0"  # in this process, where what it needs is imported already
        for name in ("ABLATE_DATA", "ABLATE_RESULTS"):
            os.environ.pop(name, None)
        yield


@pytest.fixture(autouse=True)
def fresh_files(environment: None) -> Iterator[None]:
    """No test sees the experiments and recipes that another one has read."""
    forget_files()
    yield
    forget_files()


@pytest.fixture
def ablate(tmp_path: Path) -> Callable[..., Result]:
    """ablate("run", "pooling_size", cwd=..., env={...}) in this process; cwd is the test's own folder by default."""

    def run(
        *arguments: object,
        cwd: Path | None = None,
        env: Mapping[str, str | None] | None = None,
        terminal: bool = False,
    ) -> Result:
        return call(*arguments, cwd=cwd or tmp_path, env=env, terminal=terminal)

    return run


@pytest.fixture
def ablate_process(tmp_path: Path) -> Callable[..., Result]:
    """The same in a process of its own, for what a used one cannot tell: imports, streams, exit codes."""

    def run(
        *arguments: object,
        cwd: Path | None = None,
        env: Mapping[str, str | None] | None = None,
        timeout: float = 120,
    ) -> Result:
        changed = {**os.environ, **(env or {})}
        done = subprocess.run(
            command(*arguments),
            cwd=cwd or tmp_path,
            env={name: value for name, value in changed.items() if value is not None},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def tiny_words() -> tuple[str, ...]:
    """Overrides with which a run of `digits` takes about a second."""
    return TINY_WORDS


@pytest.fixture(scope="session")
def trained(environment: None, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The four rows of `pooling_size`, two seeds, trained with TINY_WORDS."""
    folder = tmp_path_factory.mktemp("trained")
    arguments = ("pooling_size", *TINY_WORDS, "--results", str(folder / "results"))
    run = call("run", *arguments, "--seeds", "2", cwd=folder)
    assert run.code == 0, run.err
    return Trained(folder / "results", TINY_WORDS, arguments, run)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of mistakes are made and not drawn, which takes longest: for tests that look at none."""
    monkeypatch.setattr("metaformer_ablate.drawing.pages.to_png", lambda figure: b"")
