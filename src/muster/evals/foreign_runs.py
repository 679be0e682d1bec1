"""Runs that AgentV has written, in versions 4 and 5; promptfoo's are in `promptfoo_runs`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from muster.errors import UsageError
from muster.evals.results import EXECUTION_ERROR, OK, QUALITY_FAILURE
from muster.evals.scored import Scored, ScoredRun, lines_of

__all__ = ("agentv_run", "number_of", "text_of", "whole_of")

_STATUSES = (OK, QUALITY_FAILURE, EXECUTION_ERROR)

AGENTV_THRESHOLD = 0.8
"""Where a row of AgentV tells no status."""


def agentv_run(folder: Path, index: Path) -> ScoredRun:
    """A run of AgentV. Its rows score an execution error 0; here it has no score.

    Raises:
        UsageError: a line is no row of such an index.
    """
    run = ScoredRun(name=folder.name or str(folder), path=folder, kind="agentv", results=[])
    decoder = msgspec.json.Decoder()
    for number, row in enumerate(lines_of(index, decoder.decode, run.notes), 1):
        if not isinstance(row, dict) or "test_id" not in row:
            raise UsageError(f"{index}:{number}: not a result of AgentV: it has no test_id")
        run.results.extend(_agentv_rows(row))
        if run.started_at is None:
            run.started_at = text_of(row.get("start_time") or row.get("timestamp"))
    return run


def _agentv_rows(row: dict[str, Any]) -> Iterator[Scored]:
    """One result, or one for each sample of version 5."""
    samples = row.get("samples")
    if not isinstance(samples, list) or not samples:
        yield _agentv_result(row, row, whole_of(row.get("sample_index")) or 0)
        return
    several = len(samples) > 1
    for place, sample in enumerate(samples):
        if isinstance(sample, dict):
            at = whole_of(sample.get("sample_index"))
            # What a row tells of money and time is of all its samples.
            shared = {"cost_usd": None, "duration_ms": None} if several else {}
            yield _agentv_result({**row, **shared}, sample, place if at is None else at)


def _agentv_result(row: dict[str, Any], sample: dict[str, Any], repeat: int) -> Scored:
    score = number_of(sample.get("score"))
    status = sample.get("execution_status", row.get("execution_status"))
    if status not in _STATUSES:
        broken = bool(sample.get("error")) or score is None
        reached = score is not None and score >= AGENTV_THRESHOLD
        status = EXECUTION_ERROR if broken else OK if reached else QUALITY_FAILURE
    metadata = row.get("metadata")
    cluster = metadata.get("cluster") if isinstance(metadata, dict) else None
    return Scored(
        test_id=str(row["test_id"]),
        suite=str(row.get("suite") or ""),
        target=str(row.get("target") or row.get("provider") or "target"),
        execution_status=status,
        score=None if status == EXECUTION_ERROR else score,
        repeat=repeat,
        eval_path=_eval_path(row),
        cluster=None if cluster is None else str(cluster),
        cost_usd=number_of(sample.get("cost_usd", row.get("cost_usd"))),
        duration_ms=number_of(sample.get("duration_ms", row.get("duration_ms"))),
        error_kind=text_of(row.get("failure_reason_code")),
    )


_OWN_FOLDERS = ("artifact_dir", "task_dir", "result_dir", "test_dir")


def _eval_path(row: dict[str, Any]) -> str | None:
    """The suite's file. What a row calls so may be a copy of it that belongs to its test alone."""
    identity = row.get("projection_identity")
    dimensions = identity.get("dimensions") if isinstance(identity, dict) else None
    suite = text_of(dimensions.get("eval_path")) if isinstance(dimensions, dict) else None
    path = text_of(row.get("eval_path"))
    if suite or not path:
        return suite
    folders = (text_of(row.get(name)) for name in _OWN_FOLDERS)
    copied = any(folder and path.startswith(f"{folder.rstrip('/')}/") for folder in folders)
    return None if copied else path


# --- values that may be anything ------------------------------------------------------------------


def number_of(value: Any) -> float | None:
    """A number that is one."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) else None


def whole_of(value: Any) -> int | None:
    """A whole number that is one."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def text_of(value: Any) -> str | None:
    """A text that is one."""
    return value if isinstance(value, str) else None
