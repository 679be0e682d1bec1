from __future__ import annotations

import pytest

from eval_parts import grader, make_case, make_suite
from muster.errors import MusterError
from muster.evals.scope import RunScope


class Kept:
    def __init__(self, name: str, closed: list[str], error: Exception | None = None) -> None:
        self.name, self.closed, self.error = name, closed, error

    async def aclose(self) -> None:
        self.closed.append(self.name)
        if self.error is not None:
            raise self.error


async def test_made_once_and_closed_the_latest_first():
    closed: list[str] = []
    scope = RunScope()
    first = scope.keep(("a",), lambda: Kept("a", closed))
    scope.keep(("b",), lambda: Kept("b", closed))
    assert scope.keep(("a",), lambda: Kept("another", closed)) is first
    await scope.aclose()
    assert closed == ["b", "a"]
    await scope.aclose()
    assert closed == ["b", "a"]


async def test_one_that_fails_keeps_none_of_the_others_open():
    closed: list[str] = []
    scope = RunScope()
    for name in ("a", "b"):
        scope.keep((name,), lambda name=name: Kept(name, closed, ValueError(f"no {name}")))
    with pytest.raises(MusterError, match=r"no b.*no a"):
        await scope.aclose()
    assert closed == ["b", "a"]


async def test_a_run_closes_what_its_graders_keep(tmp_path):
    import muster

    closed: list[str] = []

    def grade(context):
        context.scope.keep(("mine",), lambda: Kept("mine", closed))
        assert closed == []
        return True

    suite = make_suite(*(make_case(f"c{n}", graders=(grader(grade),)) for n in range(3)))
    from muster.evals.evaluation import run
    from muster.evals.plan import EvalOptions
    from muster.evals.planning import prepare

    class Echo:
        async def invoke(self, request):
            return muster.ProviderResponse(request.question)

    plan = prepare(
        EvalOptions(targets=("t",), output=tmp_path / "run"),
        cwd=tmp_path,
        environ={},
        suites=[suite],
        given={"t": Echo()},
    )
    evaluation = await run(plan)
    await plan.aclose()
    assert evaluation.outcome.totals.count == 3
    assert closed == ["mine"]
