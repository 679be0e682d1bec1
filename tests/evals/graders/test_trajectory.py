from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge_parts import Scripted, judge_with
from muster.errors import ConfigError
from muster.evals.case import Case
from muster.evals.graders.base import BoundGrader, GradeContext, GraderSpec
from muster.evals.graders.tool_use import ToolSequence
from muster.evals.graders.trace import MISSING, contains, look_up, matches_name, same
from muster.evals.graders.trajectory import ToolTrajectory
from muster.evals.scoring import Graded, ScoreRow, grade_all
from muster.provider import Message, ProviderResponse, ToolCall

Call = str | tuple[str, Any] | ToolCall


def answer(*calls: Call, text: str = "done", **fields: Any) -> ProviderResponse:
    """An answer after these calls, each of a message of its own."""
    made = [
        call
        if isinstance(call, ToolCall)
        else ToolCall(*([call] if isinstance(call, str) else call))
        for call in calls
    ]
    messages = [Message("assistant", "", tool_calls=(call,)) for call in made]
    return ProviderResponse((*messages, Message("assistant", text)), finish_reason="stop", **fields)


def context(response: ProviderResponse) -> GradeContext:
    case = Case(id="c", suite="s", input=(Message("user", "?"),))
    return GradeContext(output=response.text, case=case, response=response)


@pytest.fixture
def ask(bind: Callable[..., tuple[BoundGrader, ...]]) -> Callable[..., ScoreRow]:
    def ask(entry: dict[str, Any], response: ProviderResponse) -> ScoreRow:
        found = grade_all(bind([entry]), context(response))
        assert isinstance(found, Graded)
        assert found.error is None
        return found.rows[0]

    return ask


Ask = Callable[..., ScoreRow]


def trajectory(mode: str, *expected: Any, **fields: Any) -> dict[str, Any]:
    if expected:
        fields["expected"] = list(expected)
    return {"type": "tool-trajectory", "mode": mode} | fields


def timed(tool: str, took: float | None) -> ToolCall:
    return ToolCall(tool, duration_ms=took)


# --- tool-trajectory ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "calls", "score"),
    [
        (trajectory("any_order", minimums={"a": 2, "b": 1}), ["a", "b", "a"], 1.0),
        (trajectory("any_order", minimums={"a": 2, "b": 1}), ["a", "b"], 0.5),
        (trajectory("any_order", minimums={"a": 1}), [], 0.0),
        (trajectory("in_order", "a", "b"), ["x", "a", "y", "b", "z"], 1.0),
        (trajectory("in_order", "a", "b"), ["b", "a"], 0.5),
        (trajectory("in_order", "a", "b", "c"), ["a", "c"], 1 / 3),
        (trajectory("in_order", "a", "a"), ["a"], 0.5),
        (trajectory("exact", "a", "b"), ["a", "b"], 1.0),
        (trajectory("exact", "a", "b"), ["b", "a"], 0.0),
        (trajectory("exact", "a", "b"), ["a"], 0.5),
        (trajectory("exact", "a", "b"), ["a", "b", "rm_rf"], 2 / 3),
        (trajectory("exact", expected=[]), [], 1.0),
        (trajectory("exact", expected=[]), ["a"], 0.0),
        (trajectory("superset", "a", "b"), ["b", "c", "a"], 1.0),
        (trajectory("superset", "a", "a"), ["a"], 0.5),
        (trajectory("subset", "a", "b"), ["b", "a", "b"], 1.0),
        (trajectory("subset", "a", "b"), ["a", "c"], 0.5),
        (trajectory("subset", "a"), [], 1.0),
        (trajectory("subset", expected=[]), [], 1.0),
        (trajectory("subset", expected=[]), ["a"], 0.0),
    ],
)
def test_modes(ask: Ask, entry: dict[str, Any], calls: list[str], score: float) -> None:
    assert ask(entry, answer(*calls)).score == score


def test_exact_fails_on_an_extra_call_whatever_is_right_before_it(ask: Ask) -> None:
    tools = [f"tool-{number}" for number in range(20)]
    row = ask(trajectory("exact", *tools), answer(*tools, "rm_rf"))
    assert row.score == 20 / 21
    assert (row.verdict, row.value) == ("fail", 0.0)
    assert row.assertions[-1].text == "Expected 20 calls, found 21"
    assert row.assertions[-1].evidence == "beyond them: rm_rf"


ARGS = {"q": "x", "deep": {"n": 1, "m": [1, 2]}}


@pytest.mark.parametrize(
    ("match", "made", "fits"),
    [
        (None, ARGS, True),
        (None, ARGS | {"more": 1}, False),
        ("exact", {"q": "x"}, False),
        ("ignore", {}, True),
        ("superset", ARGS | {"more": 1}, True),
        ("superset", {"q": "x", "deep": {"n": 1, "m": [1, 2], "k": 1}}, False),
        ("partial", {"q": "x", "deep": {"n": 1, "m": [1, 2], "k": 1}, "more": 1}, True),
        ("partial", {"q": "x", "deep": {"n": 1, "m": [1]}}, False),
        ("subset", {"q": "x"}, True),
        ("subset", {}, True),
        ("subset", {"q": "x", "more": 1}, False),
        (["q"], {"q": "x", "deep": 5}, True),
        (["deep.n", "deep.m[1]"], {"deep": {"n": 1, "m": [0, 2]}}, True),
        (["deep.n"], {"deep": {"n": True}}, False),
        (["not.expected"], {}, True),
        (["q"], {}, False),
        ("exact", '{"q": "x", "deep": {"n": 1.0, "m": [1, 2]}}', True),
        ("exact", "no json", False),
        ("exact", None, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("own", [False, True])
def test_arguments(ask: Ask, match: Any, made: Any, fits: bool, own: bool) -> None:
    item = {"tool": "a", "args": ARGS}
    fields = {} if match is None else {"args_match": match}
    entry = trajectory("in_order", item | fields if own else item, **({} if own else fields))
    if own:
        entry["args_match"] = "ignore" if match != "ignore" else "exact"
        if match is None:
            del entry["args_match"]
    assert ask(entry, answer(("a", made))).score == float(fits)


def test_arguments_that_are_not_compared(ask: Ask) -> None:
    for item in ({"tool": "a", "args": "any"}, {"tool": "a"}, "a"):
        assert ask(trajectory("in_order", item), answer(("a", {"k": 1}))).score == 1


def test_a_call_with_other_arguments_is_used_up_in_order(ask: Ask) -> None:
    entry = trajectory("in_order", {"tool": "a", "args": {"n": 1}}, "a")
    assert ask(entry, answer(("a", {"n": 2}), ("a", {"n": 1}))).score == 0.5


@pytest.mark.parametrize(
    ("took", "score", "untimed"),
    [(50.0, 1.0, None), (150.0, 2 / 3, None), (None, 1.0, {"without_duration": ["a"]})],
)
@pytest.mark.parametrize("mode", ["in_order", "exact"])
def test_the_time_of_a_call_is_a_check_of_its_own(
    ask: Ask, mode: str, took: float | None, score: float, untimed: Any
) -> None:
    entry = trajectory(mode, {"tool": "a", "max_duration_ms": 100}, "b")
    row = ask(entry, answer(timed("a", took), "b"))
    assert row.score == score
    assert row.details == untimed


def test_the_time_of_a_call_that_is_missing_is_a_check_that_fails(ask: Ask) -> None:
    entry = trajectory("exact", {"tool": "a", "max_duration_ms": 100}, "b")
    assert ask(entry, answer("x", "b")).score == 1 / 3


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"type": "tool-trajectory"}, '"mode" is required'),
        (trajectory("any_order"), "any_order has minimums"),
        (trajectory("any_order", minimums={}), "any_order has minimums"),
        (trajectory("exact", minimums={"a": 1}), "exact has expected"),
        (trajectory("in_order", expected=[]), "would hold of every answer"),
        (trajectory("in_order", {"tool": "a", "arg": {}}), 'did you mean "args"'),
        (trajectory("in_order", "a", args_match="some"), "args_match"),
        (trajectory("sideways", "a"), "mode"),
    ],
)
def test_settings_that_are_wrong(
    bind: Callable[..., Any], entry: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        bind([entry])
    assert message in str(raised.value)


def test_nothing_known_of_calls_is_an_error(bind: Callable[..., Any]) -> None:
    kinds = [
        trajectory("subset", "a"),
        {"type": "not-trajectory:tool-used", "value": "rm"},
        {"type": "skill-trigger", "skill": "a", "should_trigger": False},
        {"type": "step-count", "value": {"max": 9}},
        {"type": "execution-metrics", "max_tool_calls": 3},
    ]
    for entry in kinds:
        found = grade_all(bind([entry]), context(ProviderResponse("text")))
        assert isinstance(found, Graded)
        assert found.error is not None
        assert "whether it called tools is not known" in found.error
        known = ProviderResponse("text", token_usage={"input": 1, "output": 1})
        assert grade_all(bind([entry]), context(known)).score == 1.0  # type: ignore[union-attr]


NAMES = st.lists(st.sampled_from("abc"), max_size=6)


@given(NAMES, NAMES.filter(bool))
def test_modes_agree_with_one_another(made: list[str], wanted: list[str]) -> None:
    def score(mode: str) -> float:
        config = {"mode": mode, "expected": wanted}
        grade = ToolTrajectory(GraderSpec(type="tool-trajectory", config=config))
        return grade(context(answer(*made))).score

    assert (score("exact") == 1.0) == (made == wanted)
    if made == wanted:
        assert score("in_order") == score("superset") == score("subset") == 1.0
    assert score("superset") >= score("in_order")
    assert (score("subset") == 1.0) == (set(made) <= set(wanted))
    left = iter(made)
    assert (score("in_order") == 1.0) == all(name in left for name in wanted)
    sequence = ToolSequence(GraderSpec(type="tool-sequence", config={"value": wanted}))
    assert sequence(context(answer(*made))).score == float(score("in_order") == 1.0)


# --- single facts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "calls", "plain", "negated"),
    [
        ("search", ["search"], 1, 0),
        ("SEARCH", ["search"], 1, 0),
        ("sea*", ["search"], 1, 0),
        ("sea", ["search"], 0, 1),
        ("a", [], 0, 1),
        (["a", "b"], ["a", "b"], 1, 0),
        (["a", "b"], ["a"], 0, 0),
        (["a", "b"], ["c"], 0, 1),
        ({"name": "a"}, ["a"], 1, 0),
        ({"name": "a", "min": 2}, ["a"], 0, 1),
        ({"pattern": "a?", "min": 2, "max": 3}, ["a1", "a2"], 1, 0),
        ({"name": "a", "max": 1}, ["a", "a"], 0, 1),
        ({"name": "a", "min": 0, "max": 0}, ["b"], 1, 0),
        ("a[1]", ["a[1]"], 1, 0),
        ("a.c", ["abc"], 0, 1),
    ],
)
def test_tool_used(ask: Ask, value: Any, calls: list[str], plain: int, negated: int) -> None:
    for kind in ("tool-used", "trajectory:tool-used", "trajectory:tool_used"):
        assert ask({"type": kind, "value": value}, answer(*calls)).score == plain
    row = ask({"type": "not-trajectory:tool-used", "value": value}, answer(*calls))
    assert (row.score, row.verdict) == (negated, "pass" if negated else "fail")
    assert all(one.passed for one in row.assertions) == bool(negated)
    row = ask({"type": "tool-used", "value": value, "negate": True}, answer(*calls))
    assert row.score == negated


@pytest.mark.parametrize(
    ("value", "calls", "score"),
    [
        (["a", "b"], ["a", "x", "b"], 1),
        (["a", "b"], ["b", "a"], 0),
        (["a", {"pattern": "b*"}], ["a", "b2"], 1),
        ({"mode": "exact", "steps": ["a", "b"]}, ["a", "b"], 1),
        ({"mode": "exact", "steps": ["a", "b"]}, ["a", "b", "c"], 0),
        ({"mode": "exact", "steps": ["a"]}, [], 0),
        ({"steps": ["a", {"name": "a"}]}, ["a"], 0),
    ],
)
def test_tool_sequence(ask: Ask, value: Any, calls: list[str], score: int) -> None:
    assert ask({"type": "trajectory:tool-sequence", "value": value}, answer(*calls)).score == score
    turned = ask({"type": "not-trajectory:tool-sequence", "value": value}, answer(*calls))
    assert turned.score == 1 - score


@pytest.mark.parametrize(
    ("value", "score"),
    [
        ({"args": {"q": "x"}}, 1),
        ({"arguments": {"o": {"k": 1}}}, 1),
        ({"args": {"q": "y"}}, 0),
        ({"args": {"q": "x"}, "mode": "exact"}, 0),
        ({"args": {"q": "x", "o": {"k": 1, "j": 2}}, "mode": "exact", "defaults": {"n": 10}}, 1),
        ({"args": {"q": "x", "n": 3}, "mode": "exact", "ignore": ["o", "n*"]}, 1),
        ({"args": {"q": "x"}, "mode": "exact", "ignore": "?", "defaults": {"n": 10}}, 1),
    ],
)
def test_tool_args_match(ask: Ask, value: dict[str, Any], score: int) -> None:
    made = {"q": "x", "o": {"k": 1, "j": 2}, "n": 10}
    response = answer(("search", {"q": "z"}), ("search", made), "other")
    entry = {"type": "trajectory:tool-args-match", "value": {"name": "search"} | value}
    assert ask(entry, response).score == score


@pytest.mark.parametrize(
    ("value", "score"),
    [
        ({"type": "tool", "min": 2, "max": 2}, 1),
        ({"type": "command", "min": 1, "max": 1}, 1),
        ({"type": "command", "pattern": "git", "min": 1}, 1),
        ({"type": "command", "pattern": "git status*", "min": 1}, 1),
        ({"type": ["tool", "command"], "max": 2}, 0),
        ({"type": "message", "max": 1}, 1),
        ({"type": "search", "min": 1, "max": 1}, 1),
        ({"max": 4, "min": 4}, 1),
        ({"type": "span", "max": 3}, 0),
    ],
)
def test_step_count(ask: Ask, value: dict[str, Any], score: int) -> None:
    shell = ("shell", {"command": ["git", "status", "-s"]})
    response = answer("web_search", shell, "Read", text="said")
    assert ask({"type": "trajectory:step-count", "value": value}, response).score == score


@pytest.mark.parametrize(
    ("calls", "plain", "contained"),
    [
        ([("Skill", {"skill": "csv"})], 1, 1),
        ([("Skill", {"skill": "plugin:csv"})], 0, 1),
        ([("Read", {"file_path": "/x/skills/csv/SKILL.md"})], 1, 1),
        ([("Read", {"file_path": "/x/skills/csv.md"})], 0, 0),
        ([("Skill", {"skill": "other"})], 0, 0),
        ([ToolCall("bash", {}, output="see skills/csv/SKILL.md")], 0, 1),
        ([ToolCall("Skill", {"skill": "csv"}, status="error")], 0, 1),
        ([("Skill", "csv")], 0, 0),
    ],
)
def test_skills(ask: Ask, calls: list[Any], plain: int, contained: int) -> None:
    response = answer(*calls)
    assert ask({"type": "skill-used", "value": "csv"}, response).score == plain
    assert ask({"type": "not-skill-used", "value": ["csv", "x"]}, response).score == 1 - plain
    row = ask({"type": "skill-trigger", "skill": "csv"}, response)
    assert (row.name, row.score) == ("skill-trigger-csv", contained)
    entry = {"type": "skill-trigger", "skill": "csv", "should_trigger": False}
    assert ask(entry, response).score == 1 - contained


def test_skills_that_the_target_tells(ask: Ask) -> None:
    told = [{"name": "csv"}, {"name": "pdf", "is_error": True}]
    response = ProviderResponse(Message("assistant", "x", metadata={"skill_calls": told}))
    assert ask({"type": "skill-used", "value": "csv"}, response).score == 1
    assert ask({"type": "skill-used", "value": "pdf"}, response).score == 0
    count = {"type": "skill-used", "value": {"pattern": "c*", "max": 1}}
    assert ask(count, response).score == 1


# --- what it took ---------------------------------------------------------------------------------


def test_execution_metrics(ask: Ask) -> None:
    response = answer(
        "Read", "Edit", token_usage={"input": 90, "output": 20}, cost_usd=0.5, duration_ms=300
    )
    limits = {"max_tool_calls": 2, "max_llm_calls": 3, "max_tokens": 100, "max_usd": 0.5}
    row = ask({"type": "execution-metrics", "max_ms": 299} | limits, response)
    assert row.score == 0.6
    assert row.details == {
        "tool_calls": 2,
        "llm_calls": 3,
        "tokens": 110,
        "cost_usd": 0.5,
        "duration_ms": 300,
    }
    assert row.assertions[2].text == "110 tokens, over 100"
    ratio = {"type": "execution-metrics", "target_exploration_ratio": 0.7}
    assert ask(ratio, response).score == 1
    assert ask(ratio | {"exploration_tolerance": 0.1}, response).score == 0
    assert ask(ratio, answer()).score == 0


def test_metrics_that_are_not_known_are_an_error(bind: Callable[..., Any]) -> None:
    for limit, what in (("max_tokens", "token usage"), ("max_cost_usd", "cost"),
                        ("max_duration_ms", "duration")):  # fmt: skip
        entry = {"type": "execution-metrics", limit: 1}
        found = grade_all(bind([entry]), context(answer()))
        assert isinstance(found, Graded)
        assert found.error == f'grader "execution-metrics": the {what} of this answer is not known'
    with pytest.raises(ConfigError, match="needs at least one limit"):
        bind([{"type": "execution-metrics", "exploration_tolerance": 0.1}])


# --- values ---------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON, JSON)
def test_equality_of_values(one: Any, other: Any) -> None:
    import json

    def told(value: Any) -> str:
        return json.dumps(value, sort_keys=True)

    assert same(one, one)
    assert same(one, other) == (told(one) == told(other))
    assert contains(one, one)
    if same(one, other):
        assert contains(one, other)


def test_paths_and_names() -> None:
    value = {"a": [{"b": 1}], "0": 2}
    assert look_up(value, "a[0].b") == 1
    assert look_up(value, "0") == 2
    assert look_up([1, 2], "[1]") == 2
    for path in ("a[1].b", "a.b", "a[0].b.c", "zz"):
        assert look_up(value, path) is MISSING
    assert matches_name("Read", "re?d")
    assert not matches_name("Read\n", "Read")
    assert matches_name("a!b", "a!b")


# --- the goal -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["Books a flight.", {"goal": "Books a flight."}])
def test_a_model_says_whether_the_goal_is_reached(value: Any) -> None:
    judge = Scripted({"score": 1, "reason": "booked", "assertions": []})
    entry = {"type": "trajectory:goal-success", "value": value}
    found, asked = judge_with(entry, judge, output="Booked.")
    assert (found.score, asked.calls) == (1.0, 1)
    question = judge.requests[0].question
    assert "Books a flight." in question
    assert "calls of tools" in question
    turned, _ = judge_with(entry | {"type": "not-trajectory:goal-success"}, judge)
    assert turned.score == 0
