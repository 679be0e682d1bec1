"""A journal in a folder of its own, and the helpers beside the tests importable."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from muster.store.journal import Journal

sys.path[:0] = [str(Path(__file__).parent.parent)]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path / ".muster" / "runs.db") as opened:
        yield opened
