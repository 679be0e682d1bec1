from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from eval_parts import make_result
from muster.evals.reasons import reason_of
from muster.evals.results import CaseResult
from muster.evals.stats import percentile, wilson_interval
from muster.evals.summary import Failure, RunTotals
from muster.evals.target_totals import TargetTotals

ERROR, LOW = "execution_error", "quality_failure"


def failed(name: str, score: float = 0.5, **fields: Any) -> CaseResult:
    return make_result(name, execution_status=LOW, score=score, **fields)


def broken(name: str, kind: str | None = "timeout", **fields: Any) -> CaseResult:
    fields = {"error": f"{name} broke", "target_used": None} | fields
    return make_result(name, execution_status=ERROR, score=None, error_kind=kind, **fields)


def totals_of(*results: CaseResult, repeated: bool = False) -> RunTotals:
    totals = RunTotals(dict.fromkeys(result.target for result in results), repeated=repeated)
    for result in results:
        totals.add(result)
    return totals


# --- sums -----------------------------------------------------------------------------------------

usages = st.fixed_dictionaries(
    {"input": st.integers(0, 99), "output": st.integers(0, 99)},
    optional={"cached": st.integers(0, 9), "reasoning": st.integers(0, 9)},
)


@st.composite
def drawn(draw: st.DrawFn) -> CaseResult:
    status = draw(st.sampled_from(["ok", LOW, ERROR]))
    target = draw(st.sampled_from("xyz"))
    answered = status != ERROR
    return make_result(
        draw(st.sampled_from("abcd")),
        suite=draw(st.sampled_from("ST")),
        target=target,
        target_used=draw(st.sampled_from([target, "other"])) if answered else None,
        execution_status=status,
        score=draw(st.floats(0, 1)) if answered else None,
        error_kind=None if answered else draw(st.sampled_from(["timeout", "bad_output", None])),
        token_usage=draw(st.none() | usages),
        cost_usd=draw(st.none() | st.floats(0, 5)),
        duration_ms=draw(st.none() | st.floats(0, 1e5)),
        judge_calls=draw(st.integers(0, 2)),
        judge_token_usage=draw(st.none() | usages),
        judge_cost_usd=draw(st.none() | st.floats(0, 5)),
    )


def total(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return pytest.approx(math.fsum(known)) if known else None


@settings(max_examples=120, deadline=None)
@given(st.lists(drawn(), min_size=1, max_size=25))
def test_sums_are_those_of_the_results(results: list[CaseResult]) -> None:
    totals = totals_of(*results)
    assert totals.count == len(results)
    assert totals.errors == sum(result.execution_status == ERROR for result in results)
    assert totals.quality_failures == sum(result.execution_status == LOW for result in results)
    assert totals.cost_usd == total([result.cost_usd for result in results])
    used = [result.token_usage for result in results if result.token_usage is not None]
    assert totals.tokens == sum(usage["input"] + usage["output"] for usage in used)
    for name, target in totals.targets.items():
        check_target(target, [result for result in results if result.target == name])
    for (suite, name), part in totals.suites.items():
        mine = [r for r in results if (r.suite, r.target) == (suite, name)]
        scores = [result.score for result in mine if result.score is not None]
        assert part.to_dict() == {
            "suite": suite,
            "target": name,
            "count": len(mine),
            "passed": sum(result.passed for result in mine),
            "quality_failures": sum(result.execution_status == LOW for result in mine),
            "execution_errors": sum(result.execution_status == ERROR for result in mine),
            "mean_score": pytest.approx(math.fsum(scores) / len(scores)) if scores else None,
        }
    assert sum(part["count"] for part in totals.to_dict()["suites"]) == len(results)


def summed(usages: list[dict[str, int]]) -> dict[str, int] | None:
    names = ("input", "output", "cached", "reasoning")
    told = {
        name: sum(usage.get(name, 0) for usage in usages)
        for name in names
        if any(name in usage for usage in usages)
    }
    return told or None


def mean_interval(scores: list[float]) -> tuple[float, float]:
    """Student's, within [0, 1]; Wilson's for zeros and ones, and where no spread was seen."""
    n, centre = len(scores), math.fsum(scores) / len(scores)
    error = float(scipy.stats.sem(scores)) if n > 1 else 0.0
    if set(scores) <= {0.0, 1.0} or error < 1e-12:
        return wilson_interval(min(math.fsum(scores), n), n)
    low, high = scipy.stats.t.interval(0.95, n - 1, centre, error)
    return max(float(low), 0.0), min(float(high), 1.0)


def check_target(target: TargetTotals, results: list[CaseResult]) -> None:
    judged = [result for result in results if result.execution_status != ERROR]
    passed = sum(result.passed for result in judged)
    kinds = Counter(r.error_kind or "unknown" for r in results if r.execution_status == ERROR)
    times = [result.duration_ms for result in judged if result.duration_ms is not None]
    usages = [result.token_usage for result in results if result.token_usage is not None]
    n = len(judged)
    assert target.to_dict() == {
        "target": target.target,
        "count": len(results),
        "passed": passed,
        "quality_failures": n - passed,
        "execution_errors": kinds.total(),
        "errors_by_kind": dict(kinds),
        "mean_score": pytest.approx(math.fsum(r.score or 0 for r in judged) / n) if n else None,
        "pass_rate": passed / n if n else None,
        "pass_rate_interval": pytest.approx(wilson_interval(passed, n)) if n else None,
        "mean_score_interval": pytest.approx(mean_interval([r.score or 0.0 for r in judged]))
        if n
        else None,
        "clusters": n,
        "pass_k": [],
        "variance": None,
        "token_usage": summed(usages),
        "cost_usd": total([result.cost_usd for result in results]),
        "results_without_cost": sum(result.cost_usd is None for result in judged),
        "latency_ms": {
            "p50": pytest.approx(percentile(times, 0.5)) if times else None,
            "p95": pytest.approx(percentile(times, 0.95)) if times else None,
        },
        "answered_by_fallback": sum(result.target_used == "other" for result in results),
        "judge_calls": sum(result.judge_calls for result in results),
        "judge_token_usage": summed(
            [r.judge_token_usage for r in results if r.judge_calls and r.judge_token_usage]
        ),
        "saved": None,
        "judge_cost_usd": total([r.judge_cost_usd for r in results if r.judge_calls]),
        "classification": [],
    }


def test_errors_are_no_scores_of_zero() -> None:
    target = totals_of(make_result("a"), failed("b", 0.5), broken("c")).targets["t"]
    assert (target.judged, target.mean_score, target.pass_rate) == (2, 0.75, 0.5)


def test_nothing_is_known_of_a_target_without_answers() -> None:
    target = totals_of(broken("a", duration_ms=5.0)).targets["t"]
    assert (target.mean_score, target.pass_rate, target.interval) == (None, None, None)
    assert (target.latency(0.5), target.usage, target.cost_usd) == (None, None, None)
    assert target.without_cost == 0


def test_money_that_is_known_and_that_is_not() -> None:
    results = [make_result("a", cost_usd=0.25), make_result("b"), broken("c", cost_usd=0.5)]
    target = totals_of(*results, make_result("d", cost_usd=0.0)).targets["t"]
    assert (target.cost_usd, target.without_cost) == (0.75, 1)
    assert totals_of(make_result("a")).cost_usd is None
    assert totals_of(make_result("a", cost_usd=0.0)).cost_usd == 0.0


def test_the_whole_of_to_dict() -> None:
    results = [make_result("a", cost_usd=0.5), failed("b", target="u", eval_path="p.yaml")]
    totals = totals_of(*results)
    row = totals.to_dict()
    assert [target["target"] for target in row.pop("targets")] == ["t", "u"]
    assert [(suite["suite"], suite["target"]) for suite in row.pop("suites")] == [
        ("s", "t"),
        ("p.yaml", "u"),
    ]
    assert row == {
        "results": 2,
        "passed": 1,
        "quality_failures": 1,
        "execution_errors": 0,
        "cost_usd": 0.5,
    }


# --- intervals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("passed", "n", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_wilsons(passed: int, n: int, low: float, high: float) -> None:
    results = [make_result(str(k)) if k < passed else failed(str(k)) for k in range(n)]
    target = totals_of(*results, broken("x"), broken("y")).targets["t"]
    assert target.interval == pytest.approx((low, high), abs=5e-5)


def repeats(*passes: int, of: int) -> tuple[float, float]:
    """The interval of cases that passed so many times each."""
    results = [
        make_result(str(k), repeat=n) if n < passed else failed(str(k), repeat=n)
        for k, passed in enumerate(passes)
        for n in range(of)
    ]
    interval = totals_of(*results, repeated=True).targets["t"].interval
    assert interval is not None
    return interval


def test_repeats_that_always_agree_count_as_one_try() -> None:
    assert repeats(3, 3, 0, 0, of=3) == pytest.approx(cluster_interval([3, 3, 0, 0], 3))
    low, high = repeats(5, 5, 5, 5, of=5)
    assert (low, high) == pytest.approx(wilson_interval(4, 4))
    assert repeats(0, 0, of=9) == pytest.approx(wilson_interval(0, 2))


def cluster_interval(passes: list[int], of: int) -> tuple[float, float]:
    """By the textbook: SE² of the mean over cases, then the size that has it; less of few."""
    means = [passed / of for passed in passes]
    k, p = len(means), sum(means) / len(means)
    size = p * (1 - p) / (scipy.stats.sem(means) ** 2)
    shrunk = size * (scipy.stats.norm.ppf(0.975) / scipy.stats.t.ppf(0.975, k - 1)) ** 2
    size = max(min(shrunk, k * of), min(size, k))
    return wilson_interval(p * size, size)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(2, 6).flatmap(
        lambda of: st.tuples(st.just(of), st.lists(st.integers(0, of), min_size=2, max_size=12))
    )
)
def test_the_interval_of_repeats_is_cluster_robust(drawn: tuple[int, list[int]]) -> None:
    of, passes = drawn
    found = repeats(*passes, of=of)
    if len(set(passes)) > 1:
        assert found == pytest.approx(cluster_interval(passes, of))
    rate = sum(passes) / of / len(passes)
    assert found[0] - 1e-9 <= rate <= found[1] + 1e-9


def test_repeats_that_vary_within_cases_tell_more_than_one_try_each() -> None:
    width = {}
    for passes in [(4, 4, 0, 0), (3, 3, 1, 1), (2, 2, 2, 3)]:
        low, high = repeats(*passes, of=4)
        width[passes] = high - low
    assert width[4, 4, 0, 0] > width[3, 3, 1, 1] > width[2, 2, 2, 3]


def test_suites_have_cases_of_their_own_and_prompts_share_theirs() -> None:
    good = [make_result(name, repeat=n) for name in "ab" for n in range(2)]

    def interval(**fields: Any) -> tuple[float, float] | None:
        bad = [failed("a", repeat=n, **fields) for n in range(2)]
        return totals_of(*good, *bad, repeated=True).targets["t"].interval

    apart = cluster_interval([2, 2, 0], 2)
    for fields in ({"suite": "other"}, {"eval_path": "e"}):
        assert interval(**fields) == pytest.approx(apart)
    # One question put in two ways is not two questions.
    assert interval(prompt="p") == interval()


# --- failures worth a look ------------------------------------------------------------------------


def test_errors_by_kind_come_first_then_the_lowest_scores() -> None:
    scores = [0.5, 0.1, 0.7, 0.3, 0.2, 0.6, 0.1]
    results = [failed(f"f{n}", score) for n, score in enumerate(scores)]
    results[2:2] = [broken("e1", "timeout"), broken("e2", "timeout"), broken("e3", "bad_output")]
    found = totals_of(make_result("ok"), *results).failures
    assert [(failure.test_id, failure.score) for failure in found] == [
        ("e1", None),
        ("e3", None),
        ("f1", 0.1),
        ("f6", 0.1),
        ("f4", 0.2),
        ("f3", 0.3),
        ("f0", 0.5),
    ]


def test_no_more_than_five_kinds_of_errors() -> None:
    found = totals_of(*(broken(f"e{n}", f"kind{n}") for n in range(7))).failures
    assert [failure.test_id for failure in found] == ["e0", "e1", "e2", "e3", "e4"]


def test_one_error_of_each_kind_and_target() -> None:
    found = totals_of(broken("a"), broken("b", target="u"), broken("c", target="u")).failures
    assert [(failure.test_id, failure.target) for failure in found] == [("a", "t"), ("b", "u")]


def test_all_of_a_failure() -> None:
    result = failed("a", 0.25, repeat=3, scores=[])
    expected = Failure("a", "t", 3, 0.25, "below the threshold")
    assert totals_of(result).failures == [expected]


@given(st.lists(st.floats(0, 0.7), max_size=20))
def test_the_lowest_scores_are_kept_in_order(scores: list[float]) -> None:
    found = RunTotals(["t"], repeated=False)
    for number, score in enumerate(scores):
        found.add(failed(str(number), score))
    assert [failure.score for failure in found.failures] == sorted(scores)[:5]


def row(verdict: str, *texts: str) -> dict[str, Any]:
    found = [{"text": text, "passed": text.startswith("+")} for text in texts]
    return {"name": "g", "verdict": verdict, "assertions": found}


def test_the_reason_of_a_failure() -> None:
    assert reason_of(broken("a", error="two\n  lines\there")) == "two lines here"
    scores = [row("pass", "-x"), row("fail", "+y", "-one\n", "- two"), row("fail", "-three")]
    assert reason_of(failed("a", scores=scores)) == "-one; - two"
    turns = [{"input": "?"}, {"scores": [row("fail", "-in a turn")]}]
    assert reason_of(failed("a", turns=turns)) == "-in a turn"
    assert reason_of(failed("a", scores=[row("fail")])) == "below the threshold"
