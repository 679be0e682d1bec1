"""Judges that say what a test wants, and graders asked with them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from muster.capabilities import Capabilities
from muster.config.document import Document
from muster.evals.case import Case
from muster.evals.graders import graders
from muster.evals.graders.base import GradeContext
from muster.evals.graders.load import bind_graders
from muster.evals.judging import CaseJudges, Judges
from muster.evals.scoring import Graded, grade_all
from muster.provider import Message, ProviderRequest, ProviderResponse, TokenUsage

__all__ = ("Scripted", "judge_with")


class Scripted:
    """Says one after the other, the last again and again; or what a function of the request gives.
    Mappings and lists are said as JSON."""

    def __init__(self, *says: Any, structured: bool = False, finish: str = "stop") -> None:
        self.says = list(says)
        self.capabilities = Capabilities(structured_output=structured)
        self.requests: list[ProviderRequest] = []
        self.finish = finish

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        self.requests.append(request)
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if callable(said):
            said = said(request)
        if isinstance(said, Exception):
            raise said
        return ProviderResponse(
            said if isinstance(said, str) else json.dumps(said),
            token_usage=TokenUsage(10, 2),
            cost_usd=0.25,
            finish_reason=self.finish,
            model="model-of-the-judge",
        )


def judge_with(
    entry: dict[str, Any],
    *judges: Scripted | dict[str, Scripted],
    output: str = "The answer.",
    expected: str | None = None,
    folder: Path | None = None,
    embedder: Any = None,
    which_repeat: int = 0,
    **case: Any,
) -> tuple[Graded, CaseJudges]:
    """What the grader says of `output`, and what its judges took. One judge is the case's; a
    mapping names several."""
    known = judges[0] if isinstance(judges[0], dict) else {"judge": judges[0]}
    here = folder or Path.cwd()
    bound = bind_graders(
        [entry],
        document=Document({"assertions": [entry]}, None),
        location=("assertions",),
        base_dir=here,
        project_root=here,
        registry=graders,
    )
    fields: dict[str, Any] = {"id": "c", "suite": "s", "input": (Message("user", "Why?"),)} | case
    judges_of = Judges(lambda name: known[name], "judge", None, lambda name: embedder)
    asked = judges_of.for_case(None)
    messages = () if expected is None else (Message("assistant", expected),)
    context = GradeContext(
        output=output,
        case=Case(**fields),
        response=ProviderResponse(output),
        expected_output=messages,
        judges=asked,
        repeat=which_repeat,
        threshold=0.8,
    )
    found: Graded | Awaitable[Graded] = grade_all(bound, context, 0.8)
    if isinstance(found, Graded):
        return found, asked
    return asyncio.run(_awaited(found)), asked


async def _awaited(found: Awaitable[Graded]) -> Graded:
    return await found
