"""The environment of a run: the process's own variables, and those of `.env` files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from muster.config.document import read_text
from muster.config.project import find_project

__all__ = ("load_environment", "user_name")


def load_environment(start: Path, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables for a suite in the folder `start`; `base` is the process's environment.

    `.env` files are read from `start` up to the project's root: a nearer file wins over one
    further up, and `base` wins over all. Values are taken as written: nothing in them is
    expanded or run. `MUSTER_PROJECT_ROOT` and `AGENTV_REPO_ROOT` name the project's root, unless
    they are set. `os.environ` is not changed.

    Raises:
        ConfigError: a `.env` file cannot be read, or is not UTF-8.
    """
    project = find_project(start)
    found = dict.fromkeys(("MUSTER_PROJECT_ROOT", "AGENTV_REPO_ROOT"), str(project.root))
    for folder in reversed(project.folders):
        path = folder / ".env"
        if path.is_file():  # a virtual environment may be called .env too
            found |= _read_env_file(path)
    return found | dict(os.environ if base is None else base)


def _read_env_file(path: Path) -> dict[str, str]:
    import io
    import logging

    from dotenv.parser import parse_stream

    found = {}
    for line in parse_stream(io.StringIO(read_text(path))):
        if line.error:
            logging.getLogger(__name__).warning(
                "%s:%d: not of the form NAME=value; the line is left out",
                path,
                line.original.line,
            )
        elif line.key is not None and line.value is not None:
            found[line.key] = line.value
    return found


def user_name() -> str:
    """Whom this process belongs to."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return f"uid {os.getuid()}"
