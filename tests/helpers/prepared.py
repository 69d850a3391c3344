"""Real images where a test finds them."""

from __future__ import annotations

import os

import pytest

PREPARED = os.environ.get("ABLATE_TEST_DATA")  # read before any fixture touches the environment


needs_data = pytest.mark.skipif(
    not PREPARED, reason="ABLATE_TEST_DATA names no folder as ../shared/data/prepare.py makes it"
)
