"""Cases, suites, providers and results made in a line, for the tests of `muster.evals`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from muster.evals.case import Case, Suite, Turn
from muster.evals.execution import Item
from muster.evals.graders.base import BoundGrader, GradeContext
from muster.evals.results import CaseResult
from muster.evals.runner import Job, Outcome, RunLimits, run_jobs
from muster.evals.summary import RunTotals
from muster.provider import Message, ProviderRequest, ProviderResponse
from virtual_loop import virtual

__all__ = (
    "Asked",
    "Run",
    "as_job",
    "cases",
    "grader",
    "make_case",
    "make_item",
    "make_result",
    "make_suite",
    "make_turn",
    "now",
    "takes",
    "user",
)


def user(text: str) -> Message:
    return Message("user", text)


def now() -> float:
    """The time on the running loop's clock."""
    return asyncio.get_running_loop().time()


def grader(verdict: Any = 1.0, name: str = "g", **options: Any) -> BoundGrader:
    """Gives `verdict`; raises it if it is an exception; calls it with the context if it can be."""

    def grade(context: GradeContext) -> Any:
        if isinstance(verdict, Exception):
            raise verdict
        return verdict(context) if callable(verdict) else verdict

    return BoundGrader(name=name, type="test", grade=grade, **options)


def make_case(name: str = "c", **fields: Any) -> Case:
    """Asks its own id, and passes whatever the answer is."""
    fields = {"suite": "s", "input": (user(name),), "graders": (grader(),)} | fields
    return Case(id=name, **fields)


def make_turn(text: str, *graders: BoundGrader, **fields: Any) -> Turn:
    return Turn(input=(user(text),), graders=graders, **fields)


def make_suite(*cases: Case, **fields: Any) -> Suite:
    named = frozenset(name for case in cases for name in case.depends_on)
    given = {
        "name": "s",
        "path": None,
        "base_dir": Path(),
        "cases": lambda: iter(cases),
        "count": len(cases),
        "repeats": sum(case.repeat for case in cases),
        "content_hash": "0",
        "has_turns": any(case.turns for case in cases),
        "dependencies": named,
    }
    return Suite(**(given | fields))


def make_item(case: Case, **fields: Any) -> Item:
    given: dict[str, Any] = {
        "case": case,
        "target": "t",
        "repeat": 0,
        "eval_path": None,
        "provider": "test",
        "threshold": case.threshold,
        "timeout": case.timeout_seconds,
        "cwd": None,
    }
    return Item(**(given | fields))


def make_result(test_id: str = "c", **fields: Any) -> CaseResult:
    """One that passed, with nothing else known of it."""
    given: dict[str, Any] = {
        "suite": "s",
        "target": "t",
        "target_used": "t",
        "repeat": 0,
        "execution_status": "ok",
        "score": 1.0,
        "threshold": 0.8,
        "scores": [],
        "input": "?",
        "output": "!",
        "messages": [],
        "error": None,
        "provider": "test",
        "attempts": 1,
        "token_usage": None,
        "cost_usd": None,
        "duration_ms": None,
        "started_at": None,
    }
    return CaseResult(test_id=test_id, **(given | fields))


class Asked:
    """A provider that notes the questions, and answers with what `reply(request)` returns or
    raises: the question itself, unless something else is said."""

    def __init__(self, reply: Callable[[ProviderRequest], Any] | None = None) -> None:
        self.reply = reply or (lambda request: request.question)
        self.requests: list[ProviderRequest] = []
        self.under_way = self.most = 0

    @property
    def questions(self) -> list[str]:
        return [request.question for request in self.requests]

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        self.requests.append(request)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            answer = self.reply(request)
            if isinstance(answer, Awaitable):
                answer = await answer
        finally:
            self.under_way -= 1
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, ProviderResponse) else ProviderResponse(answer)


def as_job(suite: Suite, provider: Any, target: str = "t", **fields: Any) -> Job:
    given: dict[str, Any] = {
        "provider_kind": "test",
        "workers": 2,
        "selected": lambda case: True,
    }
    return Job(suite=suite, target=target, provider=provider, **(given | fields))


class Run:
    """Runs jobs in virtual time, and keeps what came of it."""

    def __init__(self, jobs: Sequence[Job], **limits: Any) -> None:
        self.jobs = jobs
        self.limits = RunLimits(**limits)
        self.totals = RunTotals(dict.fromkeys(job.target for job in jobs), repeated=False)
        self.results: list[CaseResult] = []
        self.seconds = 0.0
        self.left_running = 0

    def write(self, result: CaseResult) -> CaseResult:
        self.results.append(result)
        return result

    @property
    def ids(self) -> list[str]:
        return [result.test_id for result in self.results]

    async def begin(self, **options: Any) -> Outcome:
        options = {"totals": self.totals, "limits": self.limits} | options
        try:
            return await run_jobs(self.jobs, options.pop("write", self.write), **options)
        finally:
            self.seconds = round(now(), 6)
            self.left_running = len(asyncio.all_tasks()) - 1

    def __call__(self, **options: Any) -> Outcome:
        return virtual(self.begin(**options))


def cases(*names: str, **fields: Any) -> list[Case]:
    return [make_case(name, **fields) for name in names]


def takes(seconds: float) -> Asked:
    async def reply(request: ProviderRequest) -> str:
        await asyncio.sleep(seconds)
        return request.question

    return Asked(reply)
