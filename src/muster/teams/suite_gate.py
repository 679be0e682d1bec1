"""A suite's graders as the gate of a step: `validate.suite`."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from msgspec.structs import replace

from muster.evals.graders.base import GradeContext
from muster.evals.judging import Judges
from muster.evals.scoring import Graded, grade_all
from muster.evals.suites.load import load_suite
from muster.provider import BudgetExceeded, Message, ProviderRequest, ProviderResponse
from muster.teams.cast import Cast
from muster.teams.definition import Agent

__all__ = ("STEPS_OWN", "AskAgent", "SuiteGate")

STEPS_OWN = "the judge of the step"
"""Who judges for graders that name nobody."""

AskAgent = Callable[[Agent, ProviderRequest], Awaitable[ProviderResponse]]


class SuiteGate:
    """The graders of the suite's first case. Those of the suite apply to every case of it, so that
    the first one has them; its input is replaced by the step's prompt."""

    def __init__(self, path: Path, *, env: Mapping[str, str] | None = None, safe: bool = False):
        """Raises `MusterError` when the suite cannot be read, or has mistakes."""
        suite = load_suite(path, env=env, safe=safe)
        self._case = next(iter(suite.cases()))
        self.judges = sorted({name for name in suite.judges if name is not None})
        """The targets that are named as judges."""

    async def refusal(
        self, prompt: str, output: str, *, cast: Cast, judge: Callable[[str], Agent], ask: AskAgent
    ) -> str | None:
        """Why the graders refuse `output`; `None` when they let it pass.

        Args:
            judge: the agent that judges for a name, or for `STEPS_OWN`.
            ask: asks it, on the step's account.

        Raises:
            BudgetExceeded: a judge could not be asked any more.
        """
        asked = (Message("user", prompt),)
        case = replace(self._case, input=asked)
        spent: list[BudgetExceeded] = []
        judges = Judges(
            lambda name: _Judge(judge(name), ask, spent),
            STEPS_OWN,
            lambda name: cast.target_of(judge(name)).capabilities,
            lambda name: cast.embedder_of(judge(name)),
        )
        context = GradeContext(
            output=output,
            case=case,
            response=ProviderResponse(output),
            expected_output=case.expected_output,
            asked=asked,
            judges=judges.for_case(case.judge_target),
            threshold=case.threshold,
        )
        graded = grade_all(case.graders, context, case.threshold)
        if not isinstance(graded, Graded):
            assert inspect.isawaitable(graded)
            graded = await graded
        if spent:
            raise spent[0]
        if graded.error is not None:
            return graded.error
        if graded.score >= case.threshold:
            return None
        failed = [row.name for row in graded.rows if row.verdict == "fail"]
        return f"score {graded.score:.2f} is below {case.threshold:g} ({', '.join(failed)})"


class _Judge:
    """An agent as graders want it: a provider."""

    def __init__(self, agent: Agent, ask: AskAgent, spent: list[BudgetExceeded]) -> None:
        self._agent = agent
        self._ask = ask
        self._spent = spent

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        try:
            return await self._ask(self._agent, request)
        except BudgetExceeded as error:
            self._spent.append(error)
            raise
