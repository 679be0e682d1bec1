"""Whom graders ask, and what is counted."""

from pathlib import Path

import pytest

from muster.errors import UsageError
from muster.evals.evaluation import run
from muster.evals.plan import EvalOptions
from muster.evals.planning import prepare
from muster.evals.results import CaseResult, read_results
from muster.provider import (
    Message,
    ProviderFailed,
    ProviderRequest,
    ProviderResponse,
    TokenUsage,
)

TARGETS = """\
targets:
  - {name: asked, provider: echo, judge_target: theirs}
  - {name: other, provider: echo}
"""


class Judge:
    """A judge that says yes, and counts its questions."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked = 0

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        self.asked += 1
        if "break" in request.question:
            raise ProviderFailed("the judge is ill", token_usage=TokenUsage(input=1, output=0))
        return ProviderResponse(
            (Message("assistant", "yes"),),
            token_usage=TokenUsage(input=3, output=1),
            cost_usd=0.5,
        )


GRADER = """\
import muster
from muster.provider import ProviderRequest


@muster.register_grader("asks")
def factory(spec):
    name = spec.config.get("target")
    spec.asks_judge(name)

    async def grade(context):
        answer = await context.judges.ask(ProviderRequest(question=context.output), name)
        return answer.text == "yes"

    return grade
"""


async def run_suite(
    folder: Path, suite: str, judge: str | None = None
) -> tuple[list[CaseResult], dict[str, Judge]]:
    (folder / "targets.yaml").write_text(TARGETS)
    (folder / ".muster/graders").mkdir(parents=True)
    (folder / ".muster/graders/asks.py").write_text(GRADER)
    (folder / "s.eval.yaml").write_text(suite)
    judges = {name: Judge(name) for name in ("mine", "theirs", "last")}
    options = EvalOptions(paths=(str(folder),), judge=judge, output=folder / "out")
    plan = prepare(options, given=judges)
    try:
        await run(plan)
    finally:
        await plan.aclose()
    return list(read_results(folder / "out")), judges


async def test_the_assertion_names_the_judge_before_the_target(tmp_path: Path) -> None:
    suite = """\
targets: [asked]
tests:
  - {id: a, input: hello, assertions: [{type: asks, target: mine}, {type: asks}]}
"""
    results, judges = await run_suite(tmp_path, suite, "last")
    assert {name: judge.asked for name, judge in judges.items()} == {
        "mine": 1,
        "theirs": 1,
        "last": 0,
    }
    (result,) = results
    assert result.execution_status == "ok"
    assert (result.judge_calls, result.judge_cost_usd) == (2, 1.0)
    assert result.judge_token_usage == {"input": 6, "output": 2}
    assert result.cost_usd is None


async def test_the_option_is_for_targets_without_a_judge(tmp_path: Path) -> None:
    suite = "targets: [other]\ntests: [{id: a, input: hi, assertions: [{type: asks}]}]\n"
    _, judges = await run_suite(tmp_path, suite, "last")
    assert judges["last"].asked == 1


async def test_without_a_judge_nothing_is_begun(tmp_path: Path) -> None:
    suite = "targets: [other]\ntests: [{id: a, input: hi, assertions: [{type: asks}]}]\n"
    with pytest.raises(UsageError, match="no target judges: name one as judge_target"):
        await run_suite(tmp_path, suite)


async def test_a_judge_that_is_not_there_is_told_before_the_run(tmp_path: Path) -> None:
    suite = (
        "targets: [other]\ntests: [{id: a, input: hi, assertions: [{type: asks, target: othr}]}]\n"
    )
    with pytest.raises(UsageError, match='"othr"'):
        await run_suite(tmp_path, suite)


async def test_a_judge_that_breaks_is_an_error_and_is_counted(tmp_path: Path) -> None:
    suite = "targets: [asked]\ntests: [{id: a, input: break, assertions: [{type: asks}]}]\n"
    results, _ = await run_suite(tmp_path, suite)
    (result,) = results
    assert (result.execution_status, result.score) == ("execution_error", None)
    assert result.error == 'grader "asks": judge "theirs": the judge is ill'
    assert result.judge_token_usage == {"input": 1, "output": 0}


async def test_a_judge_of_a_turn_sees_what_was_said_before(tmp_path: Path) -> None:
    (tmp_path / "targets.yaml").write_text(TARGETS)
    (tmp_path / "s.eval.yaml").write_text(
        """
targets: [other]
judge_target: mine
tests:
  - id: talk
    turns:
      - {input: first, assertions: [It is kind.]}
      - {input: second, assertions: [{type: llm-grader, criteria: It is short.}]}
"""
    )

    class Seeing(Judge):
        async def invoke(self, request: ProviderRequest) -> ProviderResponse:
            asked.append(request.question)
            checks = '{"checks": [{"id": "rubric-1", "satisfied": true}], "score": 1}'
            return ProviderResponse(checks)

    asked: list[str] = []
    plan = prepare(
        EvalOptions(paths=(str(tmp_path),), output=tmp_path / "out"),
        given={"mine": Seeing("mine")},
    )
    try:
        await run(plan)
    finally:
        await plan.aclose()
    (result,) = read_results(tmp_path / "out")
    assert (result.execution_status, result.judge_calls) == ("ok", 2)
    one, two = asked
    assert "\nfirst\n" in one
    assert "second" not in one
    assert "@[User]:\nfirst\n\n@[Assistant]:\nfirst\n\n@[User]:\nsecond\n" in two


async def test_the_suite_names_the_judge_before_the_target_and_the_test_before_both(
    tmp_path: Path,
) -> None:
    suite = """\
targets: [asked]
judge_target: mine
tests:
  - {id: a, input: hello, assertions: [{type: asks}]}
  - {id: b, input: hello, judge_target: last, assertions: [{type: asks}]}
"""
    _, judges = await run_suite(tmp_path, suite, "theirs")
    assert {name: judge.asked for name, judge in judges.items()} == {
        "mine": 1,
        "theirs": 0,
        "last": 1,
    }
