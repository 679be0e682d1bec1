"""Baselines: a run's scores, kept in the project beside its code, for later runs to be held to."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from muster.config.project import find_project
from muster.errors import MusterError, UsageError
from muster.evals.scored import BASELINE_FORMAT, ScoredRun, read_scored

__all__ = ("DEFAULT_NAME", "baselines_folder", "find_baseline", "list_baselines", "set_baseline")

DEFAULT_NAME = "main"

SCHEMA_VERSION = 1


def baselines_folder(here: Path) -> Path:
    """`.muster/baselines` in the project's root."""
    return find_project(here).root / ".muster" / "baselines"


def set_baseline(run: ScoredRun, name: str, here: Path) -> Path:
    """Keep `run` as the baseline `name`, replacing what had that name; the file.

    All that comparisons need is in it: it can be committed, and the run's folder deleted.

    Raises:
        UsageError: the name would be no file's.
        MusterError: it cannot be written.
    """
    path = _path(name, here)
    record = {
        "format": BASELINE_FORMAT,
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "run_id": run.name,
        "set_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "started_at": run.started_at,
        "suites": run.suites,
        "notes": run.notes,
        "early": run.early,
        "judges": run.judges,
    }
    head = msgspec.json.encode(record)[:-1]
    # A result a line: a baseline that is committed has diffs that can be read.
    rows = b",\n".join(msgspec.json.encode(result) for result in run.results)
    draft = path.with_suffix(".json.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(head + b',"results":[\n' + rows + b"\n]}\n")
        draft.replace(path)
    except OSError as error:
        raise MusterError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def find_baseline(name: str, here: Path) -> ScoredRun:
    """The baseline `name`.

    Raises:
        UsageError: there is none, or it cannot be read.
    """
    path = _path(name, here)
    if not path.exists():
        known = ", ".join(path.stem for path in _files(here))
        raise UsageError(
            f'no baseline "{name}" in {path.parent}'
            + (f" (there are {known})" if known else "; set one: muster baseline set RUN")
        )
    return read_scored(path)


def list_baselines(here: Path) -> list[dict[str, Any]]:
    """What there is: name, run, when it was set, targets, number of results."""
    found = []
    for path in _files(here):
        run = read_scored(path)
        data = msgspec.json.decode(path.read_bytes())
        found.append(
            {
                "name": path.stem,
                "run_id": run.name,
                "set_at": data.get("set_at"),
                "targets": run.targets,
                "results": len(run.results),
            }
        )
    return found


def _files(here: Path) -> list[Path]:
    return sorted(baselines_folder(here).glob("*.json"))


def _path(name: str, here: Path) -> Path:
    if not re.fullmatch(r"[\w][\w.-]{0,99}", name):
        raise UsageError(f'"{name}" cannot be the name of a baseline: letters, digits, . _ - only')
    return baselines_folder(here) / f"{name}.json"
