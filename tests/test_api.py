from __future__ import annotations

import asyncio
import contextvars
import functools
import importlib.util
import json
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import muster
from eval_parts import Asked, make_case
from muster.errors import ConfigError, MusterError, UsageError
from muster.provider import Message, Provider, ProviderRequest, ProviderResponse
from muster.providers.chat import ChatReply

SUM = {"id": "sum", "input": "1+1", "assertions": [{"type": "equals", "value": "2"}]}
TWO = [SUM, {"id": "product", "input": "2*3", "assertions": [{"type": "equals", "value": "7"}]}]
SUITE = """
assertions: [{type: equals, value: "2"}]
tests: [{id: sum, input: 1+1}]
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AGENT_PROVIDER", raising=False)
    return


def calculate(question: str) -> str:
    return str(eval(question))


def outcome(evaluation: muster.Evaluation) -> dict[str, str]:
    return {result.test_id: result.execution_status for result in evaluation}


# --- what is measured -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["str", "path", "paths", "folder", "glob"])
def test_suites_in_files(tmp_path: Path, form: str) -> None:
    (tmp_path / "a.eval.yaml").write_text(SUITE)
    (tmp_path / "b.eval.yaml").write_text(SUITE)
    suite: Any = {
        "str": "a.eval.yaml",
        "path": tmp_path / "a.eval.yaml",
        "paths": ["a.eval.yaml", tmp_path / "b.eval.yaml"],
        "folder": tmp_path,
        "glob": "*.eval.yaml",
    }[form]
    evaluation = muster.evaluate(suite, calculate)
    found = [(result.suite, result.test_id, result.score) for result in evaluation]
    expected = [("a", "sum", 1.0), ("b", "sum", 1.0)]
    assert sorted(found) == (expected[:1] if form in ("str", "path") else expected)


def test_cases_in_memory_as_mappings_and_as_cases() -> None:
    own = make_case("own", input=(Message("user", "3*3"),), suite="elsewhere")
    evaluation = muster.evaluate([*TWO, own], calculate)
    assert outcome(evaluation) == {"sum": "ok", "product": "quality_failure", "own": "ok"}
    assert {result.test_id: result.output for result in evaluation}["own"] == "9"


def test_cases_from_a_generator() -> None:
    def some() -> Iterator[dict[str, Any]]:
        for number in range(3):
            yield {"id": f"n{number}", "input": f"{number}+0", "expected_output": str(number)}

    evaluation = muster.evaluate(some(), calculate, assertions=[{"type": "numeric"}])
    assert outcome(evaluation) == {"n0": "ok", "n1": "ok", "n2": "ok"}


def test_assertions_for_every_case_come_after_its_own() -> None:
    evaluation = muster.evaluate([SUM], calculate, assertions=[{"type": "contains", "value": "x"}])
    (result,) = evaluation
    assert [row["type"] for row in result.scores] == ["equals", "contains"]
    assert result.score == 0.5


# --- by what --------------------------------------------------------------------------------------


async def calculate_async(request: ProviderRequest) -> ProviderResponse:
    await asyncio.sleep(0)
    return ProviderResponse(calculate(request.question), cost_usd=0.25)


class Calculator:
    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        return ProviderResponse(calculate(request.question))


class SyncCalculator:
    def invoke(self, request: ProviderRequest) -> str:
        return calculate(request.question)


class Model:
    async def complete(self, turn: Any) -> ChatReply:
        answer = calculate(turn.messages[-1].text)
        return ChatReply(message=Message("assistant", answer), finish_reason="stop")


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (calculate, "calculate"),
        (calculate_async, "calculate_async"),
        (lambda question: str(len(question) - 1), "<lambda>"),
        (functools.partial(calculate), "partial"),
        (Calculator(), "Calculator"),
        (SyncCalculator(), "SyncCalculator"),
        (Model(), "Model"),
    ],
    ids=["sync", "async", "lambda", "partial", "provider", "sync object", "chat model"],
)
def test_functions_and_objects(target: Any, name: str) -> None:
    evaluation = muster.evaluate([SUM], target)
    (result,) = evaluation
    assert (result.execution_status, result.output, result.target) == ("ok", "2", name)
    assert evaluation.passed


def test_an_object_may_name_itself() -> None:
    named = Calculator()
    named.target_name = "the best"  # type: ignore[attr-defined]
    assert muster.evaluate([SUM], named).summary["targets"][0]["target"] == "the best"


def test_several_targets_each_with_a_name_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "targets.yaml").write_text("targets: [{name: file, provider: mock, response: '2'}]")
    evaluation = muster.evaluate([SUM], [Calculator(), Calculator(), "file", calculate, "echo"])
    assert {result.target: result.output for result in evaluation} == {
        "Calculator": "2",
        "Calculator-2": "2",
        "file": "2",
        "calculate": "2",
        "echo": "1+1",
    }


def test_what_the_suite_names_and_what_the_project_has_by_default(tmp_path: Path) -> None:
    (tmp_path / "targets.yaml").write_text(
        "targets: [{name: default, provider: mock, response: '2'}, {name: b, provider: echo}]"
    )
    (tmp_path / "a.eval.yaml").write_text(SUITE)
    assert [result.target for result in muster.evaluate("a.eval.yaml")] == ["default"]
    (tmp_path / "a.eval.yaml").write_text("targets: [b]" + SUITE)
    assert [result.target for result in muster.evaluate("a.eval.yaml")] == ["b"]
    (tmp_path / "more.yaml").write_text("targets: [{name: b, provider: mock, response: '3'}]")
    evaluation = muster.evaluate("a.eval.yaml", targets_file="more.yaml")
    assert [result.output for result in evaluation] == ["3"]


def test_threads_end_with_the_evaluation_and_objects_are_their_givers() -> None:
    class Closing(SyncCalculator):
        closed = 0

        async def aclose(self) -> None:
            self.closed += 1

    def slow(question: str) -> str:
        barrier.wait(5)
        return calculate(question)

    barrier, before = threading.Barrier(2), threading.active_count()
    closing = Closing()
    cases = [{**SUM, "id": str(number)} for number in range(2)]
    assert muster.evaluate(cases, [slow]).passed
    assert muster.evaluate(cases[:1], closing).passed
    assert closing.closed == 0
    for thread in threading.enumerate():
        if thread.name == "slow":
            thread.join(5)
            assert not thread.is_alive()
    assert threading.active_count() <= before + 1  # that of `closing`, which was not closed


# --- what comes of it -----------------------------------------------------------------------------


def test_the_evaluation(tmp_path: Path) -> None:
    evaluation = muster.evaluate(TWO, calculate_async, output="run", repeat=2)
    assert evaluation.folder == Path("run")
    assert (tmp_path / "run" / "run.json").exists()
    assert (evaluation.status, evaluation.passed, len(evaluation)) == ("complete", False, 4)
    summary = evaluation.summary
    assert (summary["results"], summary["passed"], summary["quality_failures"]) == (4, 2, 2)
    assert (summary["cost_usd"], summary["targets"][0]["mean_score"]) == (1.0, 0.5)
    assert repr(evaluation) == "<Evaluation complete: calculate_async 2/4; run>"
    first, again = list(evaluation), list(evaluation)
    assert first == again
    assert sorted((result.test_id, result.repeat) for result in first) == [
        *[("product", 0), ("product", 1), ("sum", 0), ("sum", 1)]
    ]


def test_results_are_told_as_they_come() -> None:
    told: list[str] = []

    def tell(result: muster.CaseResult) -> None:
        told.append(f"{result.test_id} {result.score}")

    muster.evaluate(TWO, calculate_async, on_result=tell, workers=1)
    assert told == ["sum 1.0", "product 0.0"]


def test_what_on_result_raises_ends_the_run() -> None:
    def tell(result: muster.CaseResult) -> None:
        raise KeyError(result.test_id)

    with pytest.raises(KeyError, match="sum"):
        muster.evaluate(TWO, calculate_async, on_result=tell, workers=1)


@pytest.mark.parametrize(
    ("options", "status", "results"),
    [
        ({"budget_usd": 0.2}, "budget_exceeded", 1),
        ({"limit": 1}, "complete", 1),
        ({"threshold": 0.0}, "complete", 2),
    ],
)
def test_options(options: dict[str, Any], status: str, results: int) -> None:
    evaluation = muster.evaluate(TWO, calculate_async, workers=1, **options)
    assert (evaluation.status, len(evaluation)) == (status, results)
    assert evaluation.passed == (status == "complete")


@pytest.mark.parametrize(
    ("options", "status", "kind"),
    [({"timeout": 0.05}, "timed_out", None), ({"case_timeout": 0.01}, "complete", "timeout")],
)
def test_time(options: dict[str, Any], status: str, kind: str | None) -> None:
    async def never(question: str) -> str:
        await asyncio.sleep(60)
        return question

    evaluation = muster.evaluate([SUM], never, **options)
    assert evaluation.status == status
    assert not evaluation.passed
    assert [result.error_kind for result in evaluation] == ([kind] if kind else [])


def test_exchanges_are_recorded_cached_and_traced(tmp_path: Path) -> None:
    target = '{name: t, provider: mock, response: "2", cacheable: %s}'
    (tmp_path / "targets.yaml").write_text(f"targets: [{target % 'true'}]")
    kept: dict[str, Any] = {"cache": True, "cache_path": "answers", "otel": "spans.jsonl"}
    for number in range(2):
        found = muster.evaluate([SUM], "t", record=True, output=f"run-{number}", **kept)
        assert (found.folder / "records.jsonl").read_text().count("\n") == 1
        assert [result.cached for result in found] == [bool(number)]
        assert found.warnings == []
    assert (tmp_path / "answers").is_file()
    assert "1+1" not in (tmp_path / "spans.jsonl").read_text()
    muster.evaluate([SUM], "t", otel="told.jsonl", otel_content=True)
    assert "1+1" in (tmp_path / "told.jsonl").read_text()
    (tmp_path / "targets.yaml").write_text(f"targets: [{target % 'null'}]")
    (told,) = muster.evaluate([SUM], "t", cache=True).warnings
    assert told.startswith('target "t" is not cached')


def test_an_error_is_not_passed() -> None:
    def crashes(question: str) -> str:
        raise LookupError("oh")

    evaluation = muster.evaluate([SUM], crashes)
    assert not evaluation.passed
    assert evaluation.summary["targets"][0]["errors_by_kind"] == {"provider_failed": 1}


def test_to_pandas_makes_a_frame_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = types.ModuleType("pandas")
    pandas.DataFrame = list  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    evaluation = muster.evaluate(TWO, calculate_async)
    assert evaluation.to_pandas() == [result.to_dict() for result in evaluation]


@pytest.mark.skipif(importlib.util.find_spec("pandas") is None, reason="pandas is not installed")
def test_to_pandas() -> None:
    frame = muster.evaluate(TWO, calculate_async).to_pandas()
    assert sorted(zip(frame["test_id"], frame["score"], strict=True)) == [
        ("product", 0.0),
        ("sum", 1.0),
    ]


def test_to_pandas_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError) as caught:
        muster.evaluate([SUM], calculate_async).to_pandas()
    assert str(caught.value) == "to_pandas() needs pandas: pip install 'muster-ai[pandas]'"


# --- within a loop --------------------------------------------------------------------------------


async def test_aevaluate() -> None:
    evaluation = await muster.aevaluate(TWO, calculate_async, limit=1)
    assert outcome(evaluation) == {"sum": "ok"}


user = contextvars.ContextVar("user", default="nobody")


async def test_evaluate_within_a_running_loop_sees_the_callers_context() -> None:
    user.set("me")

    async def who(question: str) -> str:
        return user.get()

    evaluation = muster.evaluate([{**SUM, "assertions": [{"type": "equals", "value": "me"}]}], who)
    assert evaluation.passed


async def test_a_cancelled_evaluation_leaves_nothing_running() -> None:
    provider = Asked()
    begun = asyncio.Event()

    async def reply(request: ProviderRequest) -> str:
        begun.set()
        await asyncio.sleep(60)
        return ""

    provider.reply = reply
    task = asyncio.create_task(muster.aevaluate([SUM], provider))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert provider.under_way == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


# --- graders and judges that are functions --------------------------------------------------------


def test_functions_judge_and_are_judged_by() -> None:
    def exact(context: muster.GradeContext) -> bool:
        return context.output == "2"

    async def half(context: muster.GradeContext) -> float:
        return 0.5

    def verdict(question: str) -> str:
        return '{"reason": "r", "score": 0.25}'

    weighty = {"type": "not-python", "value": exact, "name": "inexact", "weight": 2}
    inner = {"type": "assert-set", "name": "set", "assert": [exact, half]}
    case = {**SUM, "assertions": [inner, {"type": "llm-rubric", "value": "It is right."}]}
    evaluation = muster.evaluate([case], calculate, assertions=[half, weighty], judge=verdict)
    (result,) = evaluation
    assert {row["name"]: row["score"] for row in result.scores} == {
        "set": 0.75,
        "llm-rubric": 0.25,
        "half": 0.5,
        "inexact": 0.0,
    }
    assert result.judge_calls == 1
    assert result.scores[1]["details"]["judge"]["target"] == "verdict"


def test_what_a_suite_is_does_not_hang_on_where_its_functions_lie() -> None:
    def hashed() -> Any:
        def grade(context: muster.GradeContext) -> bool:
            return True

        evaluation = muster.evaluate(
            [{**SUM, "assertions": [grade]}], calculate, assertions=[grade]
        )
        return json.loads((evaluation.folder / "run.json").read_text())["suites"][0]["content_hash"]

    assert hashed() == hashed()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"assertions": [lambda one, two, three: 1]}, "but takes (one, two, three)"),
        ({"assertions": [7]}, "expected a mapping with type, or a criterion as text, found 7"),
        ({"judge": 7}, "int is no provider"),
        ({"stop_when": "ci-width=0.1"}, "expected a mapping, such as {'ci_width': 0.04}"),
    ],
)
def test_options_without_sense(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(MusterError) as caught:
        muster.evaluate([SUM], calculate, **options)
    assert says in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# --- mistakes -------------------------------------------------------------------------------------

GOOD, BARE = [SUM], [{"id": "a", "input": "x"}]


@pytest.mark.parametrize(
    ("suite", "target", "error", "says"),
    [
        ("gone.yaml", calculate, UsageError, "no such file or folder: gone.yaml"),
        ([], calculate, ConfigError, "holds no test"),
        (BARE, calculate, ConfigError, "has nothing that judges the answer"),
        ([SUM, SUM], calculate, ConfigError, "sum"),
        ([{"id": "a", "inptu": "x"}], calculate, ConfigError, "inptu"),
        (GOOD, "nobody", UsageError, 'target "nobody" not found'),
        (GOOD, (), UsageError, "no target is named"),
        (GOOD, Calculator, UsageError, "Calculator is a class, not a provider"),
        (GOOD, 7, UsageError, "int is no provider"),
        (GOOD, lambda: "x", UsageError, "takes nothing; a provider function takes one argument"),
        (GOOD, [calculate, "nobody"], UsageError, 'target "nobody" not found'),
    ],
)
def test_mistakes_are_told_before_anything_is_called(
    tmp_path: Path, suite: Any, target: Any, error: type[MusterError], says: str
) -> None:
    with pytest.raises(error) as caught:
        muster.evaluate(suite, target)
    assert says in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_a_run_is_not_written_over() -> None:
    provider = Asked()
    muster.evaluate([SUM], provider, output="run")
    with pytest.raises(UsageError, match="run holds a run already"):
        muster.evaluate([SUM], provider, output="run")
    assert len(provider.requests) == 1
    assert isinstance(provider, Provider)
