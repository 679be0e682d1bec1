"""The engine's scores beside AgentV's, for the same suites.

`agentv` is what AgentV gives: the weighted mean of the scores, 0 when a required grader is below
its bar, a threshold of 0.8, and what each of its graders counts. Where `differs` says why, the
score there is a defect of AgentV's; docs/from-agentv.md lists each of these. Where the variable
MUSTER_AGENTV names the command of a version 4, it is run.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from eval_parts import make_item
from muster.config.document import Document
from muster.evals.case import Case
from muster.evals.execution import execute
from muster.evals.graders import graders
from muster.evals.graders.load import bind_graders
from muster.evals.judging import Judges
from muster.evals.results import CaseResult
from muster.provider import Message, ProviderRequest, ProviderResponse, ToolCall

ERROR = "execution_error"


class Row(NamedTuple):
    name: str
    graders: list[Any]
    agentv: float
    """The test's score."""
    output: str = "The capital of France is Paris."
    calls: tuple[Any, ...] = ()
    expected: Any = None
    judge: Any = None
    ours: float | str | None = None
    """Where it differs: the score, or `execution_error`."""
    differs: str | None = None
    """A part of the row of docs/from-agentv.md that says so."""


def yes(**more: Any) -> dict[str, Any]:
    return {"type": "contains", "value": "Paris"} | more


def no(**more: Any) -> dict[str, Any]:
    return {"type": "contains", "value": "Rome"} | more


def trajectory(mode: str, *expected: Any, **more: Any) -> dict[str, Any]:
    return {"type": "tool-trajectory", "mode": mode, "expected": list(expected)} | more


def field(path: str, match: str = "exact", **more: Any) -> dict[str, Any]:
    return {"path": path, "match": match} | more


def accuracy(*fields: Any, **more: Any) -> dict[str, Any]:
    return {"type": "field-accuracy", "fields": list(fields)} | more


def rubric(count: int, **more: Any) -> dict[str, Any]:
    return {"type": "rubrics", "criteria": criteria(count)} | more


def checks(*held: bool, ids: tuple[str, ...] | None = None) -> dict[str, Any]:
    names = ids or tuple(f"rubric-{number}" for number in range(1, len(held) + 1))
    return {
        "checks": [
            {"id": name, "satisfied": one, "reasoning": "so"}
            for name, one in zip(names, held, strict=True)
        ],
        "overall_reasoning": "so",
    }


def criteria(count: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {"id": f"rubric-{number}", "outcome": f"Holds {number}."} | more
        for number in range(1, count + 1)
    ]


DATA = {"total": 100, "when": "2025-06-05", "name": "Ada"}
OWN_PASS = "a set that passes by its own threshold"
UNNAMED = "members of a `composite` without a name"
NESTED = "`negate` and `required` of a composite's members"

ROWS = [
    # The score of a test.
    Row("one passes", [yes()], 1.0),
    Row("one fails", [no()], 0.0),
    Row("the mean", [yes(), no()], 0.5),
    Row("weights", [yes(weight=3), no()], 0.75),
    Row("weight 0", [yes(), no(weight=0)], 1.0),
    Row("all weights 0", [yes(weight=0)], 0.0),
    Row("four of five", [yes()] * 4 + [no()], 0.8),
    Row("required, and passed", [yes(required=True), no()], 0.5),
    Row("required, and failed", [yes(weight=99), no(required=True)], 0.0),
    Row("required as a number", [yes(), rubric(2, required=0.5)], 0.75, judge=checks(True, False)),
    Row("required as a number, and failed", [yes(), rubric(2, required=0.6)], 0.0,
        judge=checks(True, False)),
    Row("min_score alone gates nothing", [yes(), no(min_score=0.9)], 0.5),
    Row("negate", [no(negate=True), yes(negate=True)], 0.5),
    Row("snake_case", [{"type": "starts_with", "value": "The"}], 1.0),
    # Text.
    Row("contains-any", [{"type": "contains-any", "value": ["Rome", "Paris"]}], 1.0),
    Row("contains-all", [{"type": "contains-all", "value": ["Rome", "Paris"]}], 0.0),
    Row("icontains", [{"type": "icontains", "value": "PARIS"}], 1.0),
    Row("icontains-all", [{"type": "icontains-all", "value": ["PARIS", "france"]}], 1.0),
    Row("starts-with trims", [{"type": "starts-with", "value": " The "}], 1.0, output="  The end"),
    Row("ends-with trims", [{"type": "ends-with", "value": "end"}], 1.0, output="The end \n"),
    Row("equals trims", [{"type": "equals", "value": "x"}], 1.0, output=" x\n"),
    Row("regex", [{"type": "regex", "value": "^the", "flags": "i"}], 1.0),
    Row("regex with flags inside", [{"type": "regex", "value": "(?i)^the"}], 0.0, ours=1.0,
        differs="`(?i)`"),
    Row("is-json", [{"type": "is-json"}], 1.0, output='{"a": 1}'),
    Row("is-json in a fence", [{"type": "is-json"}], 0.0, output='```json\n{"a": 1}\n```'),
    # Rubrics.
    Row("texts are a rubric that weighs as they are many", ["A.", "B.", "C.", yes()], 0.75,
        judge=checks(True, True, False)),
    Row("a checklist", [{"type": "rubrics", "criteria": [
        {"id": "a", "outcome": "A.", "weight": 3, "required": False},
        {"id": "b", "outcome": "B.", "required": False}]}], 0.75,
        judge=checks(True, False, ids=("a", "b"))),
    Row("score ranges", [{"type": "rubrics", "criteria": [{"id": "a", "outcome": "A.",
        "score_ranges": {0: "bad", 5: "fair", 8: "good"}}]}], 0.6,
        judge={"checks": [{"id": "a", "score": 6, "reasoning": "so"}]}),
    Row("a required criterion fails", [{"type": "rubrics",
        "criteria": criteria(10, required=True)}], 0.9, judge=checks(*[True] * 9, False), ours=0.0,
        differs="`required` of a criterion"),
    Row("free form", [{"type": "llm-grader", "criteria": "Good."}], 0.7,
        judge={"score": 0.7, "assertions": []}),
    Row("the judge leaves a criterion out", [{"type": "rubrics", "criteria": criteria(2)}], 1.0,
        judge=checks(True), ours=ERROR, differs="criteria that the judge leaves out"),
    # Sets.
    Row("assert-set", [{"type": "assert-set", "assert": [yes(), no()]}, yes()], 0.75),
    Row("assert-set with weights", [{"type": "assert-set", "weight": 3,
        "assert": [yes(weight=4), no()]}, no()], 0.6),
    Row("assert-set with a threshold that it reaches", [{"type": "assert-set", "threshold": 0.5,
        "assert": [yes(), no()]}], 0.5, ours=1.0, differs=OWN_PASS),
    Row("composite", [{"type": "composite", "aggregator": {"type": "weighted_average",
        "weights": {"a": 3}}, "assertions": [yes(name="a"), no(name="b")]}], 0.75),
    Row("composite by threshold", [{"type": "composite", "aggregator": {"type": "threshold",
        "threshold": 0.5}, "assertions": [yes(name="a"), no(name="b")]}], 0.5, ours=1.0,
        differs=OWN_PASS),
    Row("composite by threshold, all pass", [{"type": "composite", "aggregator": {
        "type": "threshold", "threshold": 1}, "assertions": [yes(name="a"), yes(name="b")]}], 1.0),
    Row("composite with a member that has no name", [{"type": "composite", "required": True,
        "aggregator": {"type": "weighted_average"}, "assertions": [no()]}, yes()], 1.0, ours=0.0,
        differs=UNNAMED),
    Row("composite with a negated member", [{"type": "composite", "aggregator": "weighted_average",
        "assertions": [no(name="a", negate=True)]}], 0.0, ours=1.0, differs=NESTED),
    Row("composite with a required member", [{"type": "composite", "aggregator":
        "weighted_average", "assertions": [yes(name="a"), no(name="b", required=True)]}], 0.5,
        ours=0.0, differs=NESTED),
    # Tools.
    Row("any_order", [{"type": "tool-trajectory", "mode": "any_order",
        "minimums": {"a": 2, "b": 1}}], 0.5, calls=("a", "b")),
    Row("in_order", [trajectory("in_order", {"tool": "a"}, {"tool": "b"})], 1.0,
        calls=("a", "c", "b")),
    Row("in_order stops where a tool is missing", [trajectory("in_order", {"tool": "a"},
        {"tool": "x"}, {"tool": "b"})], 1 / 3, calls=("a", "b")),
    Row("in_order uses up a call with other arguments", [trajectory("in_order",
        {"tool": "a", "args": {"n": 1}}, {"tool": "a"})], 0.5,
        calls=(("a", {"n": 2}), ("a", {"n": 1}))),
    Row("arguments are exact", [trajectory("in_order", {"tool": "a", "args": {"n": 1}})], 0.0,
        calls=(("a", {"n": 1, "m": 2}),)),
    Row("arguments are a superset", [trajectory("in_order", {"tool": "a", "args": {"n": 1}},
        args_match="superset")], 1.0, calls=(("a", {"n": 1, "m": 2}),)),
    Row("arguments by path", [trajectory("in_order", {"tool": "a", "args": {"o": {"n": 1}}},
        args_match=["o.n"])], 1.0, calls=(("a", {"o": {"n": 1, "m": 2}}),)),
    Row("the time of a call", [trajectory("in_order", {"tool": "a", "max_duration_ms": 10},
        {"tool": "b"})], 2 / 3, calls=(ToolCall("a", duration_ms=20), "b")),
    Row("the time of a call that is not known", [trajectory("in_order", {"tool": "a",
        "max_duration_ms": 10}, {"tool": "b"})], 1.0, calls=("a", "b")),
    Row("exact, and one is missing", [trajectory("exact", {"tool": "a"}, {"tool": "b"})], 0.5,
        calls=("a",)),
    Row("exact, and one is too many", [trajectory("exact", {"tool": "a"}, {"tool": "b"})], 1.0,
        calls=("a", "b", "rm_rf"), ours=2 / 3, differs="`exact` with a call too many"),
    Row("superset", [trajectory("superset", {"tool": "a"}, {"tool": "a"})], 0.5, calls=("a", "b")),
    Row("subset", [trajectory("subset", {"tool": "a"})], 0.5, calls=("a", "b")),
    Row("skill-trigger", [{"type": "skill-trigger", "skill": "csv"}], 1.0,
        calls=(("Skill", {"skill": "x:csv"}),)),
    Row("tool-used", [{"type": "trajectory:tool-used", "value": ["a", "b*"]}], 1.0,
        calls=("A", "b2")),
    Row("not-tool-used of two", [{"type": "not-trajectory:tool-used", "value": ["a", "b"]}], 0.0,
        calls=("a",)),
    Row("tool-sequence", [{"type": "trajectory:tool-sequence", "value": {"mode": "exact",
        "steps": ["a", "b"]}}], 0.0, calls=("a", "b", "c")),
    Row("tool-args-match", [{"type": "trajectory:tool-args-match", "value": {"name": "a",
        "args": {"o": {"n": 1}}}}], 1.0, calls=(("a", {"o": {"n": 1, "m": 2}}),)),
    Row("step-count", [{"type": "trajectory:step-count", "value": {"type": "tool", "max": 1}}], 0.0,
        calls=("a", "b")),
    # Metrics.
    Row("execution-metrics", [{"type": "execution-metrics", "max_tool_calls": 1,
        "target_exploration_ratio": 0.5}], 0.5, calls=("Read", "Edit")),
    Row("cost that is not known", [{"type": "cost", "budget": 1}], 0.0, ours=ERROR,
        differs="what is not known"),
    Row("tokens that are not known", [{"type": "execution-metrics", "max_tokens": 1}], 0.0,
        ours=ERROR, differs="what is not known"),
    # Fields.
    Row("field-accuracy", [accuracy(field("total", "numeric_tolerance", tolerance=0.05,
        relative=True, weight=3), field("name"))], 0.75, output='```json\n{"total": 104}\n```',
        expected=DATA),
    Row("field-accuracy, all or nothing", [accuracy(field("total"), field("name"),
        aggregation="all_or_nothing")], 0.0, output='{"total": 100}', expected=DATA),
    Row("a field that may be missing", [accuracy(field("total"), field("name", required=False))],
        1.0, output='{"total": 100}', expected=DATA),
    Row("a date whose format is named", [accuracy(field("when", "date", formats=["DD/MM/YYYY"]))],
        0.0, output='{"when": "05/06/2025"}', expected=DATA, ours=1.0,
        differs="`formats` of dates"),
    Row("no expected output", [accuracy(field("a"))], 0.0, output='{"a": 1}', ours=ERROR,
        differs="without anything expected"),
    # What breaks.
    Row("a program that crashes", [{"type": "code-grader", "command": ["sh", "-c", "exit 3"]},
        yes()], 0.5, ours=ERROR, differs="a grader that crashes"),
]  # fmt: skip


def _called(call: Any) -> ToolCall:
    if isinstance(call, ToolCall):
        return call
    return ToolCall(*((call,) if isinstance(call, str) else call))


def run(row: Row, folder: Path) -> CaseResult:
    made = [
        call
        if isinstance(call, ToolCall)
        else ToolCall(*((call,) if isinstance(call, str) else call))
        for call in row.calls
    ]

    class Target:
        async def invoke(self, request: ProviderRequest) -> ProviderResponse:
            called = Message("assistant", "", tool_calls=tuple(made))
            return ProviderResponse((called, Message("assistant", row.output)))

    class Judge:
        async def invoke(self, request: ProviderRequest) -> ProviderResponse:
            return ProviderResponse(json.dumps(row.judge))

    bound = bind_graders(
        row.graders,
        document=Document({"assertions": row.graders}, None),
        location=("assertions",),
        base_dir=folder,
        project_root=folder,
        registry=graders,
    )
    expected = () if row.expected is None else (Message("assistant", row.expected),)
    case = Case(
        id="c", suite="s", input=(Message("user", "?"),), expected_output=expected, graders=bound
    )
    judges = Judges(lambda name: Judge(), "judge")
    return asyncio.run(execute(make_item(case, judges=judges), Target()))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_score_is_that_of_agentv(row: Row, tmp_path: Path) -> None:
    result = run(row, tmp_path)
    if row.differs is None:
        assert (result.error, result.score) == (None, pytest.approx(row.agentv, abs=1e-12))
        status = "ok" if row.agentv >= 0.8 else "quality_failure"
        assert result.execution_status == status
    elif row.ours == ERROR:
        assert (result.execution_status, result.score) == (ERROR, None)
    else:
        assert (result.error, result.score) == (None, pytest.approx(row.ours, abs=1e-12))
        assert row.ours != row.agentv


def test_each_difference_is_in_the_manual() -> None:
    page = Path(__file__).parents[2] / "docs" / "from-agentv.md"
    listed = page.read_text(encoding="utf-8")
    for row in ROWS:
        assert row.differs is None or row.differs in listed, row.name


# --- AgentV itself --------------------------------------------------------------------------------

OF_5 = ("assert-set", "trajectory:", "not-trajectory:")
"""Graders that version 4 does not have."""

ENDS_IT = "a program that crashes"
"""Version 4 may end with it, by a broken pipe."""


def as_suite(row: Row, name: str, folder: Path) -> None:
    """The row as a suite of version 4 with targets of its own."""
    calls = [
        {"tool": call} if isinstance(call, str)
        else {"tool": call[0], "input": call[1]} if isinstance(call, tuple)
        else {"tool": call.tool, "duration_ms": call.duration_ms}
        for call in row.calls
    ]  # fmt: skip
    output: list[dict[str, Any]] = [{"role": "assistant", "content": row.output}]
    if calls:
        output.insert(0, {"role": "assistant", "content": "", "tool_calls": calls})
    answer = folder / f"{name}.json"
    answer.write_text(json.dumps({"output": output}))
    graders_of_4 = [
        given | {"aggregator": {"type": given["aggregator"]}}
        if isinstance(given, dict) and isinstance(given.get("aggregator"), str)
        else given
        for given in row.graders
    ]
    test = {"id": name, "criteria": "Good.", "input": "?", "assertions": graders_of_4}
    if row.expected is not None:
        test["expected_output"] = row.expected
    suite = {"name": name, "execution": {"target": name}, "tests": [test]}
    # JSON is YAML.
    (folder / f"{name}.eval.yaml").write_text(json.dumps(suite))


@pytest.mark.skipif(not os.environ.get("MUSTER_AGENTV"), reason="MUSTER_AGENTV names no command")
def test_agentv_gives_these_scores(tmp_path: Path) -> None:
    rows = {
        f"row-{at}": row
        for at, row in enumerate(ROWS)
        if row.name != ENDS_IT
        and not any(f'"type": "{kind}' in json.dumps(row.graders) for kind in OF_5)
    }
    targets: list[dict[str, Any]] = []
    for name, row in rows.items():
        as_suite(row, name, tmp_path)
        command = f"cp {tmp_path / name}.json {{OUTPUT_FILE}}"
        judge = f"judge-{name}"
        targets.append(
            {"name": name, "provider": "cli", "command": command, "grader_target": judge}
        )
        targets.append({"name": judge, "provider": "mock", "response": json.dumps(row.judge)})
    (tmp_path / "targets.yaml").write_text(json.dumps({"targets": targets}))
    (tmp_path / ".git").mkdir()
    agentv = shutil.which(os.environ["MUSTER_AGENTV"])
    assert agentv is not None
    ran = subprocess.run(
        [agentv, "eval", "*.eval.yaml", "--output", "out"],
        cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, timeout=120,
        check=False,
    )  # fmt: skip
    index = tmp_path / "out" / "index.jsonl"
    assert index.exists(), ran.stderr[-2000:]
    found = {row["test_id"]: row["score"] for row in map(json.loads, index.open())}
    assert found == {name: pytest.approx(row.agentv, abs=1e-12) for name, row in rows.items()}
