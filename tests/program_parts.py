"""Graders that run programs, asked as a run asks them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from muster.config.document import Document
from muster.evals.case import Case
from muster.evals.graders import graders
from muster.evals.graders.base import BoundGrader, GradeContext
from muster.evals.graders.load import bind_graders
from muster.evals.judging import CaseJudges, Judges
from muster.evals.scope import RunScope
from muster.evals.scoring import Graded, grade_all
from muster.provider import Message, ProviderResponse

__all__ = ("ask", "bound", "context_of", "python_program")


def python_program(folder: Path, source: str, name: str = "grader.py") -> list[str]:
    """The command that runs `source`."""
    (folder / name).write_text(source)
    return [sys.executable, "-S", name]


def bound(entry: Mapping[str, Any], folder: Path, **options: Any) -> BoundGrader:
    settings: dict[str, Any] = {
        "document": Document({"assertions": [dict(entry)]}, None),
        "location": ("assertions",),
        "base_dir": folder,
        "project_root": folder,
        "registry": graders,
    }
    found = bind_graders([dict(entry)], **(settings | options))
    return found[0]


def context_of(
    output: str = "The answer.",
    *,
    expected: str | None = None,
    judge: Any = None,
    scope: RunScope | None = None,
    response: ProviderResponse | None = None,
    **case: Any,
) -> GradeContext:
    fields: dict[str, Any] = {"id": "c", "suite": "s", "input": (Message("user", "Why?"),)} | case
    judges: CaseJudges | None = None
    if judge is not None:
        judges = Judges(lambda name: judge, "judge").for_case(None)
    return GradeContext(
        output=output,
        case=Case(**fields),
        response=response or ProviderResponse(output),
        expected_output=() if expected is None else (Message("assistant", expected),),
        judges=judges,
        target="t",
        threshold=0.8,
        scope=scope,
    )


async def ask(
    entry: Mapping[str, Any], folder: Path, output: str = "The answer.", **options: Any
) -> Graded:
    """What the grader says of `output`."""
    found = grade_all([bound(entry, folder)], context_of(output, **options))
    return found if isinstance(found, Graded) else await found
