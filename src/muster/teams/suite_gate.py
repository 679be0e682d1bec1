"""A suite's graders as the gate of a step: `validate.suite`."""

from __future__ import annotations

import inspect
from pathlib import Path

from msgspec.structs import replace

from muster.evals.graders.base import GradeContext
from muster.evals.scoring import Graded, grade_all
from muster.evals.suites.load import load_suite
from muster.provider import Message, ProviderResponse

__all__ = ("grade_output",)


async def grade_output(suite: Path, prompt: str, output: str) -> str | None:
    """Why the graders of the suite's first case refuse `output`; `None` when they let it pass.

    The suite's graders apply to every case of it, so that its first case has them; the case's
    input is replaced by the step's prompt.
    """
    case = next(load_suite(suite).cases())
    case = replace(case, input=(Message("user", prompt),))
    response = ProviderResponse(output)
    graded = grade_all(
        case.graders, GradeContext(output=output, case=case, response=response), case.threshold
    )
    if not isinstance(graded, Graded):
        assert inspect.isawaitable(graded)
        graded = await graded
    if graded.error is not None:
        return graded.error
    if graded.score >= case.threshold:
        return None
    failed = [row.name for row in graded.rows if row.verdict == "fail"]
    return f"score {graded.score:.2f} is below {case.threshold:g} ({', '.join(failed)})"
