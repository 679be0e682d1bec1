from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judge_parts import Scripted, judge_with
from muster.config.document import Document
from muster.errors import ConfigError
from muster.evals.case import Case
from muster.evals.graders.base import BoundGrader, GradeContext, GraderFactory
from muster.evals.graders.load import bind_graders
from muster.evals.scoring import Graded, grade_all
from muster.provider import ProviderResponse
from muster.registry import Registry

Entry = dict[str, Any]
YES = {"type": "contains", "value": "a"}
NO = {"type": "contains", "value": "zz"}
BROKEN = {"type": "cost", "budget": 1}


def give(value: Any, **fields: Any) -> Entry:
    return {"type": "give", "value": value} | fields


def _give(spec: Any) -> Any:
    value = spec.config["value"]

    async def later(context: GradeContext) -> Any:
        await asyncio.sleep(0)
        return value

    return later if spec.config.get("later") else lambda context: value


def _seen(spec: Any) -> Any:
    SEEN.append(spec.config)
    return lambda context: True


SEEN: list[Any] = []
_MODULES = {"assert-set": "composite:AssertSet", "composite": "composite:Composite"} | {
    "contains": "text:Contains", "cost": "metrics:Cost",
}  # fmt: skip
KNOWN: Registry[GraderFactory] = Registry(
    "grader",
    builtins={name: f"muster.evals.graders.{where}" for name, where in _MODULES.items()},
    group="none",
)
KNOWN.register("give", _give)
KNOWN.register("seen", _seen)


def ask(
    *entries: Entry, threshold: float = 0.8, folder: Path | None = None, **options: Any
) -> Graded:
    here = folder or Path.cwd()
    bound: tuple[BoundGrader, ...] = bind_graders(
        list(entries),
        document=Document({"assertions": list(entries)}, None),
        location=("assertions",),
        base_dir=here,
        project_root=here,
        registry=KNOWN,
        **options,
    )
    context = GradeContext(
        output="a b c",
        case=Case(id="c", suite="s", input=()),
        response=ProviderResponse("a b c"),
        threshold=threshold,
    )
    found: Graded | Awaitable[Graded] = grade_all(bound, context, threshold)
    if isinstance(found, Graded):
        return found

    async def awaited() -> Graded:
        return await found

    return asyncio.run(awaited())


def a_set(*members: Entry | str, **fields: Any) -> Entry:
    return {"type": "assert-set", "assert": list(members)} | fields


def composite(aggregator: Any, *members: Entry, **fields: Any) -> Entry:
    return {"type": "composite", "aggregator": aggregator, "assertions": list(members)} | fields


# --- the mean -------------------------------------------------------------------------------------


def test_the_score_is_the_weighted_mean_of_the_members() -> None:
    found = ask(a_set(YES, NO | {"weight": 3}, give(0.5)))
    assert found.score == 0.3
    row = found.rows[0]
    assert (row.verdict, row.counted) == ("fail", None)
    assert [(inner.name, inner.score, inner.weight) for inner in row.scores] == [
        ("contains-a", 1.0, 1.0),
        ("contains-zz", 0.0, 3.0),
        ("give", 0.5, 1.0),
    ]
    assert [assertion.text for assertion in row.assertions] == [
        '[contains-a] Output contains "a"',
        '[contains-zz] Output does not contain "zz"',
    ]
    assert [inner["name"] for inner in row.to_dict()["scores"]] == [
        "contains-a",
        "contains-zz",
        "give",
    ]


def test_members_without_a_name_are_kept() -> None:
    found = ask(composite({"type": "weighted_average"}, NO, NO, YES))
    assert found.score == 1 / 3
    assert len(found.rows[0].scores) == 3


def test_weights_of_the_aggregator_go_over_those_of_the_members() -> None:
    weights = {"type": "weighted_average", "weights": {"one": 3, "two": 0}}
    one, two = give(0.5, name="one", weight=9), give(0.0, name="two")
    assert ask(composite(weights, one, two, give(1.0))).score == 0.625


def test_weight_zero_counts_nothing_but_a_required_member_of_it_gates() -> None:
    assert ask(a_set(YES, NO | {"weight": 0})).score == 1
    assert ask(a_set(YES, NO | {"weight": 0, "required": True})).score == 0
    warnings: list[str] = []
    assert ask(a_set(YES | {"weight": 0}), warnings=warnings).score == 0
    assert "no member has a weight, so that the set cannot pass" in warnings[0]


# --- the verdict ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "score", "verdict", "counted"),
    [
        (a_set(YES, NO, threshold=0.5), 0.5, "pass", 1.0),
        (a_set(YES, NO, threshold=0.6), 0.5, "fail", 0.0),
        (a_set(YES, give(0.8), threshold=0.95), 0.9, "fail", 0.0),
        (a_set(YES, YES, threshold=1), 1.0, "pass", None),
        (a_set(NO, threshold=0), 0.0, "pass", 1.0),
        (a_set(YES, NO, threshold=0.5, negate=True), 0.5, "fail", 0.0),
        # Without a threshold, the score counts; all members with a weight must pass.
        (a_set(YES, give(0.9)), 0.95, "pass", None),
        (a_set(*[YES] * 9, NO), 0.9, "fail", None),
        (a_set(YES, NO | {"weight": 0}), 1.0, "pass", None),
        (a_set(YES, give(0.6, min_score=0.6)), 0.8, "pass", None),
        (a_set(give(0.6, min_score=0.6)), 0.6, "pass", None),
        (a_set(*[YES] * 9, NO, min_score=0.9), 0.9, "pass", None),
        # A composite passes by its score.
        (composite("weighted_average", *[YES] * 9, NO), 0.9, "pass", None),
        (composite("weighted_average", YES, NO, min_score=0.5), 0.5, "pass", None),
        (composite("weighted_average", YES, NO, threshold=0.5), 0.5, "pass", 1.0),
        ({"type": "composite", "assertions": [YES, NO]}, 0.5, "fail", None),
        # The share of those that pass.
        (composite({"type": "threshold", "threshold": 0.5}, YES, NO), 0.5, "pass", 1.0),
        (composite({"type": "threshold", "threshold": 0.6}, YES, NO), 0.5, "fail", 0.0),
        (composite({"type": "threshold", "threshold": 0.5}, give(0.7), YES), 0.5, "pass", 1.0),
        (
            composite({"type": "threshold", "threshold": 0.75}, YES | {"weight": 3}, NO),
            0.75,
            "pass",
            1.0,
        ),
        (composite("all", YES, give(0.8)), 1.0, "pass", None),
        (composite("all", YES, give(0.7)), 0.0, "fail", None),
        (composite({"type": "all"}, YES, NO | {"weight": 0}), 1.0, "pass", None),
        (composite("all", YES | {"weight": 0}), 0.0, "fail", None),
        (composite("any", NO, YES), 1.0, "pass", None),
        (composite("any", NO, NO, YES | {"weight": 0}), 0.0, "fail", None),
    ],
)  # fmt: skip
def test_verdicts_and_what_counts(
    entry: Entry, score: float, verdict: str, counted: float | None
) -> None:
    found = ask(entry)
    row = found.rows[0]
    assert found.error is None
    assert (row.score, row.verdict, row.counted) == (score, verdict, counted)
    assert found.score == (score if counted is None else counted)
    assert ("counted" in row.to_dict()) == (counted is not None)


def test_a_set_that_passes_does_not_fail_the_test() -> None:
    """In AgentV it reports that it passes, and the test fails all the same."""
    assert ask(a_set(YES, NO, threshold=0.5), YES).score == 1.0
    assert ask(a_set(YES, NO, threshold=0.5, required=True)).score == 1.0
    assert ask(a_set(YES, NO, threshold=0.6, required=True), YES).score == 0.0


# --- at every level -------------------------------------------------------------------------------


def test_required_negate_and_weight_hold_within() -> None:
    assert ask(a_set(YES, NO | {"required": True})).score == 0
    row = ask(a_set(YES, NO | {"required": True})).rows[0]
    assert row.assertions[0].text == "required, and not passed: contains-zz"
    assert ask(a_set(YES, NO | {"required": True, "negate": True})).score == 1
    assert ask(a_set(YES, {"type": "not-contains", "value": "zz"})).score == 1
    assert ask(a_set(give(0.5, required=True, min_score=0.5), YES)).score == 0.75
    assert ask(a_set(give(0.5, required=True, min_score=0.6), YES)).score == 0
    assert ask(composite("any", YES, NO | {"required": True})).score == 0
    gated = composite({"type": "threshold", "threshold": 0.1}, YES, NO | {"required": True})
    assert ask(gated).rows[0].verdict == "fail"


def test_sets_within_sets() -> None:
    inner = a_set(YES, NO, name="inner", threshold=0.5, weight=3)
    found = ask(a_set(inner, composite("any", NO, name="none"), name="outer"))
    assert found.score == 0.75
    outer = found.rows[0]
    assert [row.name for row in outer.scores] == ["inner", "none"]
    assert [row.score for row in outer.scores[0].scores] == [1.0, 0.0]
    assert outer.assertions[1].text == '[inner] [contains-zz] Output does not contain "zz"'
    gate = a_set(a_set(YES, NO | {"required": True}, required=True), *[YES] * 9)
    assert ask(gate).score == 0
    assert ask(a_set(a_set(NO, negate=True), negate=True)).score == 0


def test_deep_sets_are_refused() -> None:
    entry = YES
    for _ in range(10):
        entry = a_set(entry)
    assert ask(entry).score == 1
    with pytest.raises(ConfigError, match="deeper than 10 in one another"):
        ask(a_set(entry))


TREES = st.recursive(
    st.builds(
        lambda score, weight, negate: give(score, weight=weight, negate=negate),
        st.floats(0, 1),
        st.floats(0.01, 10),
        st.booleans(),
    ),
    lambda inner: st.builds(
        lambda members, weight, negate: a_set(*members, weight=weight, negate=negate),
        st.lists(inner, min_size=1, max_size=4),
        st.floats(0.01, 10),
        st.booleans(),
    ),
    max_leaves=12,
)


def by_hand(entry: Entry) -> float:
    if entry["type"] == "give":
        score = entry["value"]
    else:
        members = entry["assert"]
        total = sum(member["weight"] for member in members)
        score = sum(member["weight"] * by_hand(member) for member in members) / total
    return 1 - score if entry["negate"] else score


@given(TREES)
def test_a_tree_of_sets_is_a_tree_of_means(tree: Entry) -> None:
    assert ask(tree).score == pytest.approx(by_hand(tree), abs=1e-9)


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.integers(0, 6))
def test_all_any_and_threshold_agree(passes: list[bool], wanted: int) -> None:
    members = [YES if passed else NO for passed in passes]
    assert ask(composite("all", *members)).score == float(all(passes))
    assert ask(composite("any", *members)).score == float(any(passes))
    wanted = min(wanted, len(passes))
    share = composite({"type": "threshold", "threshold": wanted / len(passes)}, *members)
    assert ask(share).rows[0].verdict == ("pass" if sum(passes) >= wanted else "fail")


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("aggregator", ["weighted_average", "all", "any"])
def test_a_member_that_errors_makes_the_set_an_error_and_nothing_is_lost(aggregator: str) -> None:
    found = ask(composite(aggregator, YES, BROKEN | {"weight": 0}, name="both"))
    assert found.error is not None
    assert found.error.startswith('grader "both": grader "cost": the cost of this answer is not')
    row = found.rows[0]
    assert row.verdict == "skip"
    assert [inner.verdict for inner in row.scores] == ["pass", "skip"]
    assert row.to_dict()["scores"][0]["score"] == 1.0


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (a_set(), "assert: expected at least 1 item"),
        ({"type": "assert-set"}, '"assertions" is required'),
        (a_set({"type": "contian", "value": 1}), 'unknown grader "contian"'),
        (a_set({"type": "contains"}), '"value" is required'),
        (a_set(YES, treshold=1), 'no field "treshold" (did you mean "threshold"?)'),
        (a_set(YES, threshold=2), "threshold"),
        (a_set(YES, threshold=0.5, min_score=0.5), "keep one"),
        (composite("al", YES), "aggregator"),
        (composite({"type": "all", "threshold": 1}, YES), "threshold"),
        (composite("all", YES, threshold=0.5), "says itself when the set passes"),
        (composite({"type": "threshold"}, YES), "threshold"),
        (
            composite({"type": "weighted_average", "weights": {"contains-b": 1}}, YES),
            'no member is called "contains-b" (did you mean "contains-a"?)',
        ),
        (
            composite({"type": "weighted_average", "weights": {"contains-a": 1}}, YES, YES),
            'several members are called "contains-a"',
        ),
        (composite({"type": "python", "function": "nowhere"}, YES), "function"),
        (composite({"type": "python", "function": "nowhere:at_all"}, YES), 'no module "nowhere"'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_before_the_run(entry: Entry, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        ask(entry)
    assert message in str(raised.value)


def test_places_within_a_set(bind: Callable[..., Any]) -> None:
    text = """\
assertions:
  - type: assert-set
    assert:
      - {type: contains, value: a}
      - type: composite
        aggregator: any
        assertions:
          - {type: contains, vlue: b}
"""
    with pytest.raises(ConfigError) as raised:
        bind(text)
    assert 'suite.yaml:8:30: assertions[0].assert[1].assertions[0].vlue: "contains" has' in str(
        raised.value
    )


# --- variables, config, texts ---------------------------------------------------------------------


def test_variables_are_filled_in_once() -> None:
    filled: list[object] = []

    def substitute(value: object) -> object:
        filled.append(value)
        return "{{ y }}" if value == "{{ x }}" else value

    ask(a_set({"type": "contains", "value": "{{ x }}"}), substitute=substitute)
    assert filled == ["{{ x }}"]


def test_members_inherit_the_config_of_their_set() -> None:
    SEEN.clear()
    own = {"type": "seen", "config": {"b": 3}}
    ask(a_set({"type": "seen"}, own, YES, config={"a": 1, "b": 2}))
    assert SEEN == [{"config": {"a": 1, "b": 2}}, {"config": {"a": 1, "b": 3}}]


def test_texts_are_a_rubric_of_the_set() -> None:
    checks = [
        {"id": "rubric-1", "satisfied": True, "reasoning": "so"},
        {"id": "rubric-2", "satisfied": False, "reasoning": "no"},
    ]
    judge = Scripted({"checks": checks})
    found, asked = judge_with(a_set("Is kind.", "Is short.", YES), judge, output="a")
    assert asked.calls == 1
    assert [(row.name, row.weight, row.score) for row in found.rows[0].scores] == [
        ("rubrics", 2.0, 0.5),
        ("contains-a", 1.0, 1.0),
    ]
    assert found.score == pytest.approx(2 / 3)


def test_judges_of_members_are_known_before_the_run(bind: Callable[..., Any]) -> None:
    inner = a_set({"type": "llm-grader", "criteria": "Good.", "judge_target": "other"}, "Kind.")
    (bound,) = bind([composite({"type": "llm", "judge_target": "third"}, inner)])
    assert set(bound.judges) == {"other", None, "third"}


# --- members side by side -------------------------------------------------------------------------


def test_members_that_wait_wait_side_by_side() -> None:
    found = ask(a_set(give(1.0, later=True), a_set(give(0.5, later=True), YES)), YES)
    assert found.score == 0.9375


# --- code -----------------------------------------------------------------------------------------


def test_a_python_function_aggregates(tmp_path: Path) -> None:
    (tmp_path / "joins.py").write_text(
        "def least(results):\n"
        "    return min(row['score'] for row in results.values())\n"
        "async def named(results):\n"
        "    return {'score': 0.25, 'pass': True, 'reason': ' '.join(results)}\n"
        "def broken(results):\n"
        "    return results['nobody']\n"
    )

    def joined(name: str, *members: Entry, **fields: Any) -> Graded:
        aggregator = {"type": "python", "function": f"joins:{name}"}
        return ask(composite(aggregator, *members, **fields), folder=tmp_path)

    assert joined("least", YES, give(0.4)).score == 0.4
    assert joined("least", YES, give(0.4), threshold=0.4).score == 1.0
    found = joined("named", YES, YES)
    assert (found.score, found.rows[0].score, found.rows[0].verdict) == (1.0, 0.25, "pass")
    assert found.rows[0].assertions[0].text == "contains-a contains-a-2"
    assert joined("named", YES, NO | {"required": True}).score == 0
    broken = joined("broken", YES)
    assert broken.error is not None
    assert "KeyError: 'nobody'" in broken.error
    assert [row.score for row in broken.rows[0].scores] == [1.0]
    entry = composite({"type": "python", "function": "joins:least"}, YES)
    with pytest.raises(ConfigError, match="--safe runs no code"):
        ask(entry, folder=tmp_path, safe=True)


# --- a model --------------------------------------------------------------------------------------


def test_a_model_aggregates() -> None:
    judge = Scripted({"score": 0.75, "reason": "mostly", "assertions": []})
    prompt = "Weigh these: {{ EVALUATOR_RESULTS_JSON }}"
    entry = composite({"type": "llm-grader", "prompt": prompt}, YES, NO)
    found, asked = judge_with(entry, judge, output="a")
    assert found.score == 0.75
    assert asked.calls == 1
    row = found.rows[0]
    assert row.assertions[0].text == "mostly"
    assert row.details is not None
    assert row.details["judge"]["target"] == "judge"
    question = judge.requests[0].question
    shown = question[question.index("{") : question.rindex("}") + 1]
    assert [row["score"] for row in json.loads(shown).values()] == [1.0, 0.0]


def test_a_model_that_gives_no_verdict_is_an_error() -> None:
    entry = composite({"type": "llm", "max_attempts": 1}, YES)
    found, _ = judge_with(entry, Scripted("good"), output="a")
    assert found.error is not None
    assert "is no verdict" in found.error
    assert [row.score for row in found.rows[0].scores] == [1.0]
    with pytest.raises(ConfigError, match="would not see the answer"):
        judge_with(composite({"type": "llm", "prompt": "{{ criteria }}"}, YES), Scripted("x"))


# --- a program ------------------------------------------------------------------------------------

LEAST = """\
import json, sys
results = json.load(sys.stdin)["results"]
score = min(row["score"] for row in results.values())
print(json.dumps({"score": score, "verdict": "pass", "assertions": [
    {"text": " ".join(results), "passed": True}]}))
"""


def test_a_program_aggregates(tmp_path: Path) -> None:
    (tmp_path / "least.py").write_text(LEAST)
    for aggregator in (
        {"type": "code-grader", "path": "least.py"},
        {"type": "script", "command": [sys.executable, "least.py"]},
        {"type": "code", "command": f"{sys.executable} least.py"},
    ):
        found = ask(composite(aggregator, YES, give(0.25), YES), folder=tmp_path)
        assert found.error is None
        row = found.rows[0]
        assert (row.score, row.verdict, row.value) == (0.25, "pass", 1.0)
        assert row.assertions[0].text == "contains-a give contains-a-2"
        assert len(row.scores) == 3


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("exit 3", "3"),
        ("echo", "wrote nothing"),
        (["no-such-program-at-all"], "not found"),
        ("echo '{\"score\": 11}'", "11"),
    ],
)
def test_a_program_that_breaks_is_an_error(
    tmp_path: Path, command: str | list[str], message: str
) -> None:
    found = ask(composite({"type": "script", "command": command}, YES), folder=tmp_path)
    assert found.error is not None
    assert message in found.error
    assert [row.score for row in found.rows[0].scores] == [1.0]
