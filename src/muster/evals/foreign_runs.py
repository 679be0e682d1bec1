"""Runs that others have written: AgentV's index, in versions 4 and 5, and promptfoo's results."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from muster.errors import UsageError
from muster.evals.results import EXECUTION_ERROR, OK, QUALITY_FAILURE
from muster.evals.scored import Scored, ScoredRun, lines_of

__all__ = ("agentv_run", "promptfoo_run")

_STATUSES = (OK, QUALITY_FAILURE, EXECUTION_ERROR)

AGENTV_THRESHOLD = 0.8
"""Where a row of AgentV tells no status."""


# --- AgentV ---------------------------------------------------------------------------------------


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
            run.started_at = _text(row.get("start_time") or row.get("timestamp"))
    return run


def _agentv_rows(row: dict[str, Any]) -> Iterator[Scored]:
    """One result, or one for each sample of version 5."""
    samples = row.get("samples")
    if not isinstance(samples, list) or not samples:
        yield _agentv_result(row, row, _whole(row.get("sample_index")) or 0)
        return
    several = len(samples) > 1
    for place, sample in enumerate(samples):
        if isinstance(sample, dict):
            at = _whole(sample.get("sample_index"))
            # What a row tells of money and time is of all its samples.
            shared = {"cost_usd": None, "duration_ms": None} if several else {}
            yield _agentv_result({**row, **shared}, sample, place if at is None else at)


def _agentv_result(row: dict[str, Any], sample: dict[str, Any], repeat: int) -> Scored:
    score = _number(sample.get("score"))
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
        eval_path=_text(row.get("eval_path")),
        cluster=None if cluster is None else str(cluster),
        cost_usd=_number(sample.get("cost_usd", row.get("cost_usd"))),
        duration_ms=_number(sample.get("duration_ms", row.get("duration_ms"))),
        error_kind=_text(row.get("failure_reason_code")),
    )


# --- promptfoo ------------------------------------------------------------------------------------

_FAILED_TO_RUN = 2
"""promptfoo's `failureReason`: 0 none, 1 an assertion, 2 an error."""


def promptfoo_run(path: Path, data: Any) -> ScoredRun:
    """What `promptfoo eval --output FILE.json` wrote, versions 2 and 3.

    Tests are named as Muster names those of a promptfoo configuration: by `vars.id`, their
    description, or their number. One test that is there several times is one with repeats.

    Raises:
        UsageError: it is something else.
    """
    rows = _promptfoo_rows(data)
    if rows is None:
        raise UsageError(
            f"{path}: not the results of a run: neither a baseline nor what "
            "`promptfoo eval --output` writes"
        )
    head = data["results"] if isinstance(data["results"], dict) else {}
    run = ScoredRun(name=path.stem, path=path, kind="promptfoo", results=[])
    run.started_at = _text(head.get("timestamp"))
    config = data.get("config")
    suite = str(config.get("description") or "promptfoo") if isinstance(config, dict) else path.stem
    several = len({_label(row.get("prompt")) for row in rows}) > 1
    names = _Names()
    counted: dict[tuple[str, str | None, str], int] = {}
    for row in rows:
        test_id = names.of(row)
        prompt = _label(row.get("prompt")) if several else None
        target = _provider(row.get("provider"))
        key = (test_id, prompt, target)
        repeat = counted.get(key, 0)
        counted[key] = repeat + 1
        run.results.append(_promptfoo_result(row, suite, key, repeat))
    return run


def _promptfoo_rows(data: Any) -> list[dict[str, Any]] | None:
    """The results, wherever the version has them."""
    found = data.get("results") if isinstance(data, dict) else None
    if isinstance(found, dict):
        found = found.get("results")
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        return None
    return found if all("success" in row or "score" in row for row in found) else None


def _promptfoo_result(
    row: dict[str, Any], suite: str, key: tuple[str, str | None, str], repeat: int
) -> Scored:
    test_id, prompt, target = key
    score, passed = _number(row.get("score")), row.get("success") is True
    reason = row.get("failureReason")
    broken = reason == _FAILED_TO_RUN
    if reason is None:  # version 2: an error that no assertion has told of
        broken = bool(row.get("error")) and not row.get("gradingResult")
    broken = broken or score is None
    test = row.get("testCase")
    metadata = test.get("metadata") if isinstance(test, dict) else None
    cluster = metadata.get("cluster") if isinstance(metadata, dict) else None
    return Scored(
        test_id=test_id,
        suite=suite,
        target=target,
        execution_status=EXECUTION_ERROR if broken else OK if passed else QUALITY_FAILURE,
        score=None if broken else score,
        repeat=repeat,
        prompt=prompt,
        cluster=None if cluster is None else str(cluster),
        cost_usd=_number(row.get("cost")),
        duration_ms=_number(row.get("latencyMs")),
    )


class _Names:
    """The ids of promptfoo's tests, which have none."""

    def __init__(self) -> None:
        self._ids: dict[bytes, str] = {}
        self._taken: set[str] = set()

    def of(self, row: dict[str, Any]) -> str:
        """The same for the same variables and description."""
        test = row.get("testCase")
        test = test if isinstance(test, dict) else {}
        variables = row.get("vars") or test.get("vars") or {}
        variables = variables if isinstance(variables, dict) else {}
        description = test.get("description") or row.get("description")
        known = msgspec.json.encode([variables, description, test.get("assert")], order="sorted")
        if known not in self._ids:
            number = len(self._ids) + 1
            name = variables.get("id") or description
            text = str(name).strip() if isinstance(name, str | int) else ""
            text = text or f"test-{number}"
            if text in self._taken:
                text = f"{text} ({number})"
            self._taken.add(text)
            self._ids[known] = text
        return self._ids[known]


def _label(prompt: Any) -> str:
    if isinstance(prompt, dict):
        return str(prompt.get("label") or prompt.get("raw") or "")
    return str(prompt or "")


def _provider(provider: Any) -> str:
    if isinstance(provider, dict):
        return str(provider.get("label") or provider.get("id") or "provider")
    return str(provider or "provider")


# --- values that may be anything ------------------------------------------------------------------


def _number(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
