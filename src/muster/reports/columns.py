"""A result as one flat row: the columns of CSV and Parquet, which have the same names."""

from __future__ import annotations

from typing import Any

import msgspec

from muster.evals.reasons import reason_of
from muster.evals.results import EXECUTION_ERROR, CaseResult
from muster.reports.overview import Overview, input_text
from muster.reports.run_files import ReportRun
from muster.reports.tallies import named_scores

__all__ = ("COLUMNS", "flat_row", "grader_columns")

COLUMNS: dict[str, str] = {
    "run": "text",
    "suite": "text",
    "eval_path": "text",
    "test_id": "text",
    "prompt": "text",
    "target": "text",
    "target_used": "text",
    "repeat": "whole",
    "execution_status": "text",
    "score": "number",
    "threshold": "number",
    "reason": "text",
    "error_kind": "text",
    "failure_stage": "text",
    "error": "text",
    "provider": "text",
    "model": "text",
    "finish_reason": "text",
    "attempts": "whole",
    "cached": "flag",
    "duration_ms": "number",
    "cost_usd": "number",
    "tokens_input": "whole",
    "tokens_output": "whole",
    "tokens_cached": "whole",
    "tokens_reasoning": "whole",
    "judge_calls": "whole",
    "judge_cost_usd": "number",
    "started_at": "text",
    "category": "text",
    "cluster": "text",
    "conversation_id": "text",
    "tags": "json",
    "metadata": "json",
    "input": "text",
    "output": "text",
    "expected_output": "text",
    "criteria": "text",
    "scores": "json",
}
"""Each column and its kind: `text`, `whole`, `number`, `flag`, or `json` (text that holds JSON)."""

_SAME = [
    name
    for name in COLUMNS
    if name in CaseResult.__struct_fields__ and COLUMNS[name] != "json" and name != "input"
]


def grader_columns(overview: Overview) -> dict[str, str]:
    """A column a grader, by the grader's name: `score:exact` for `exact`."""
    names = dict.fromkeys(name for view in overview.targets.values() for name in view.graders)
    return {name: f"score:{name}" for name in names}


def flat_row(
    overview: Overview, run: ReportRun, result: CaseResult, graders: dict[str, str]
) -> dict[str, Any]:
    """The values by column; what is not known is `None`. A grader that could not judge has no
    score."""
    usage = result.token_usage or {}
    row: dict[str, Any] = {"run": run.name}
    for name in _SAME:
        row[name] = getattr(result, name)
    row["reason"] = None if result.passed else reason_of(result)
    for name in ("input", "output", "cached", "reasoning"):
        row[f"tokens_{name}"] = usage.get(name)
    row["input"] = input_text(result.input)
    row["tags"] = _json(result.tags)
    row["metadata"] = _json(result.metadata)
    row["scores"] = _json(result.scores)
    for name, score in named_scores(result, overview.grouped):
        column = graders.get(name)
        if column is not None and score.get("verdict") != "skip":
            value = score.get("score")
            row[column] = float(value) if isinstance(value, int | float) else None
    if result.execution_status == EXECUTION_ERROR:
        row["score"] = None
    return row


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
