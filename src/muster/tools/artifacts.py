"""Where a Python tool puts the files that its step must leave: `muster.artifact_dir()`."""

from __future__ import annotations

from contextvars import ContextVar
from pathlib import Path

from muster.errors import UsageError

__all__ = ("ARTIFACT_DIR", "artifact_dir", "current")

ARTIFACT_DIR = "artifact_dir"
"""The key of a request's metadata that says the same to its provider."""

current: ContextVar[Path | None] = ContextVar("muster_artifact_dir", default=None)
"""The folder of the step that is asked here."""


def artifact_dir() -> Path:
    """The folder for the artifacts of the step that called this tool.

    Raises:
        UsageError: no step is at work here, or it declares no artifacts.
    """
    folder = current.get()
    if folder is None:
        raise UsageError("there is no folder for artifacts here: the step declares none")
    return folder
