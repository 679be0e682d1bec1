"""The fixture `project`, and the helpers beside the tests importable."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from muster_project import Project, marked  # noqa: E402


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    root = tmp_path / "project"
    (root / ".muster").mkdir(parents=True)
    made = Project(root)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
            process.communicate()
    for pid in marked(made.mark):
        os.kill(pid, signal.SIGKILL)
