"""What a record says of the code that made it, where there is a checkout and where there is none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

CODE = "import json; from metaformer_ablate.system.provenance import git_state; print(json.dumps(git_state()))"


def told(home: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(home), **environment}
    return subprocess.run([sys.executable, "-c", CODE], cwd=home, env=env, capture_output=True, text=True, timeout=300)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package without its checkout."""
    shutil.copytree(REPOSITORY / "metaformer_ablate", tmp_path / "metaformer_ablate")
    return tmp_path


def test_a_commit_that_is_given_is_marked_as_not_seen(copy: Path) -> None:
    assert json.loads(told(copy).stdout) == {"commit": None, "dirty": None}
    given = json.loads(told(copy, ABLATE_COMMIT="0123456789abcdef").stdout)
    assert given == {"commit": "0123456789abcdef", "dirty": None, "given": True}
    wrong = told(copy, ABLATE_COMMIT="main")
    assert "ABLATE_COMMIT is 'main'; allowed: the 7 to 64 hex digits of a commit" in wrong.stderr


def test_a_checkout_is_believed_before_what_is_given() -> None:
    head = subprocess.run(["git", "-C", str(REPOSITORY), "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    found = json.loads(told(REPOSITORY, ABLATE_COMMIT="0" * 40).stdout)
    assert found["commit"] == head.strip() and "given" not in found
