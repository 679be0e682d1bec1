"""Folders of runs made of results, for the tests of reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from eval_parts import make_result
from muster.config.secrets import Masker
from muster.evals.results import CaseResult
from muster.reports.overview import Overview
from muster.reports.run_files import open_runs
from muster.reports.write import write_report

__all__ = ("failed", "folder_of", "lines_of", "overview_of", "scored", "text_of", "unanswered")


def scored(name: str, score: float, **fields: Any) -> CaseResult:
    """A result with one grader's score; `ok` from 0.8 on."""
    good = score >= 0.8
    row = {
        "name": "exact",
        "type": "equals",
        "score": score,
        "weight": 1.0,
        "verdict": "pass" if good else "fail",
        "assertions": [{"text": "Output equals x", "passed": good}],
    }
    status = "ok" if good else "quality_failure"
    given = {"execution_status": status, "score": score, "scores": [row]}
    return make_result(name, **(given | fields))


def failed(name: str, **fields: Any) -> CaseResult:
    return scored(name, 0.0, **fields)


def unanswered(name: str, kind: str = "timeout", **fields: Any) -> CaseResult:
    given = {
        "execution_status": "execution_error",
        "score": None,
        "output": None,
        "target_used": None,
        "error": "too late",
        "error_kind": kind,
    }
    return make_result(name, **(given | fields))


def lines_of(*results: CaseResult) -> str:
    return "".join(json.dumps(result.to_dict()) + "\n" for result in results)


def folder_of(folder: Path, *results: CaseResult, **record: Any) -> Path:
    """The folder of a run that is complete, unless `record` says otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.jsonl").write_text(lines_of(*results), encoding="utf-8")
    whole = {"run_id": folder.name, "status": "complete", "planned": len(results)}
    (folder / "run.json").write_text(json.dumps(whole | record), encoding="utf-8")
    return folder


def overview_of(*folders: Path, secrets: tuple[str, ...] = ()) -> Overview:
    return Overview(open_runs(folders, Masker(secrets)))


def text_of(overview: Overview, form: str, folder: Path) -> str:
    """A report as it is written to a file."""
    path = folder / f"report.{form}"
    write_report(overview, form, str(path))
    with path.open(encoding="utf-8", newline="") as file:
        return file.read()
