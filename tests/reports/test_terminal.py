from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eval_parts import make_result
from muster.evals.results import CaseResult
from muster.evals.runner import Outcome
from muster.evals.summary import RunTotals
from muster.reports.terminal import format_money, format_table, format_tokens, render_summary


def shown(
    *results: CaseResult,
    targets: tuple[str, ...] = ("t",),
    planned: int | None = None,
    status: str = "complete",
    folder: Path | None = None,
) -> str:
    totals = RunTotals(targets, repeated=False)
    for result in results:
        totals.add(result)
    planned = totals.count if planned is None else planned
    return render_summary(Outcome(totals, status), folder=folder, planned=planned)


def failed(name: str, score: float, **fields: Any) -> CaseResult:
    text = {"text": "Output contains x", "passed": False}
    scores = [{"name": "g", "verdict": "fail", "assertions": [text]}]
    fields = {"scores": scores} | fields
    return make_result(name, execution_status="quality_failure", score=score, **fields)


def broken(name: str, kind: str = "timeout", error: str = "too late", **fields: Any) -> CaseResult:
    fields |= {"error": error, "error_kind": kind, "target_used": None}
    return make_result(name, execution_status="execution_error", score=None, **fields)


def test_the_whole_summary() -> None:
    results = [
        make_result("a", token_usage={"input": 9000, "output": 3345}, cost_usd=0.01, duration_ms=1),
        make_result("b", cost_usd=0.0225, duration_ms=3.0),
        failed("c", 0.25, repeat=2),
        broken("d"),
        make_result("a", target="second", duration_ms=12_000, target_used="third"),
        broken("b", "rate_limited", "slow\ndown", target="second"),
        broken("c", "rate_limited", target="second"),
    ]
    text = shown(*results, targets=("t", "second"), planned=9, status="timed_out", folder=Path("r"))
    assert text == (
        """\
target  results   mean   95 % interval     pass rate    95 % interval  errors  tokens      cost     p50     p95
──────  ───────  ─────  ──────────────  ────────────  ───────────────  ──────  ──────  ────────  ──────  ──────
t             4  0.750  [0.000, 1.000]   66.7% (2/3)   [20.8%, 93.9%]       1   12.3k  $0.0325+  2.0 ms  2.9 ms
second        3  1.000  [0.207, 1.000]  100.0% (1/1)  [20.7%, 100.0%]       2       –         –  12.0 s  12.0 s

errors by kind
  t: 1 × timeout
  second: 2 × rate_limited

worth a look
  d · t · ERROR
      too late
  b · second · ERROR
      slow down
  c · t · repeat 2 · 0.25
      Output contains x

note: answers of second that came from a fallback target: 1

not run: 2 of 9 results (the time for the run was up)

results: r"""  # noqa: E501
    )


def test_a_run_where_all_is_well() -> None:
    text = shown(make_result("a", cost_usd=0.0, duration_ms=250.4), make_result("b", cost_usd=0.0))
    assert text == (
        """\
target  results   mean     pass rate    95 % interval  errors  tokens  cost     p50     p95
──────  ───────  ─────  ────────────  ───────────────  ──────  ──────  ────  ──────  ──────
t             2  1.000  100.0% (2/2)  [34.2%, 100.0%]       0       –    $0  250 ms  250 ms"""
    )


def test_a_target_without_results() -> None:
    lines = shown(planned=3, status="interrupted").split("\n")
    assert lines[2].split() == ["t", "0", "–", "–", "–", "0", "–", "–", "–", "–"]
    assert lines[-1] == "not run: 3 of 3 results (interrupted)"


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ("complete", "the run ended early"),
        ("interrupted", "interrupted"),
        ("timed_out", "the time for the run was up"),
        ("budget_exceeded", "the budget is spent"),
        ("failed", "stopped at the first error"),
    ],
)
def test_why_results_are_missing(status: str, why: str) -> None:
    text = shown(make_result("a"), planned=2, status=status)
    assert text.endswith(f"\n\nnot run: 1 of 2 results ({why})")
    assert "not run" not in shown(make_result("a"), status=status)


def test_several_suites_have_a_table_of_their_own() -> None:
    results = [
        make_result("a", eval_path="evals/one.yaml"),
        failed("b", 0.5, eval_path="evals/one.yaml", scores=[]),
        broken("c", eval_path="two.yaml"),
    ]
    parts = shown(*results).split("\n\n")
    assert parts[1] == (
        """\
suite           target  results   mean  passed  errors
──────────────  ──────  ───────  ─────  ──────  ──────
evals/one.yaml  t             2  0.750     1/2       0
two.yaml        t             1      –     0/0       1"""
    )
    assert not any(part.startswith("suite") for part in shown(*results[:2]).split("\n\n"))


def test_long_reasons_are_cut() -> None:
    line = shown(broken("a", error="x" * 500)).split("\n")[-1]
    assert line == " " * 6 + "x" * 299 + "…"
    exact = shown(broken("a", error="x" * 300)).split("\n")[-1]
    assert exact == " " * 6 + "x" * 300


def test_errors_by_kind_are_the_most_common_first() -> None:
    results = [broken("a", "timeout"), broken("b", "bad_output"), broken("c", "bad_output")]
    assert "errors by kind\n  t: 2 × bad_output\n  t: 1 × timeout\n\n" in shown(*results)


@pytest.mark.parametrize(
    ("money", "text"),
    [
        (None, "–"),
        (0, "$0"),
        (0.0, "$0"),
        (0.000012345, "$0.00001234"),
        (0.0001, "$0.0001"),
        (0.012345, "$0.01235"),
        (0.5, "$0.5"),
        (0.99996, "$1.00"),
        (1, "$1.00"),
        (12.345, "$12.35"),
        (1234567.891, "$1,234,567.89"),
    ],
)
def test_money(money: float | None, text: str) -> None:
    assert format_money(money) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (950, "950"),
        (9_999, "9999"),
        (10_000, "10.0k"),
        (12_345, "12.3k"),
        (999_949, "999.9k"),
        (999_950, "1.00M"),
        (1_000_000, "1.00M"),
        (4_560_000, "4.56M"),
        (123_456_789, "123.46M"),
    ],
)
def test_tokens(count: int, text: str) -> None:
    assert format_tokens(count) == text


@pytest.mark.parametrize(
    ("latency", "text"),
    [
        (0.04, "0.0 ms"),
        (9.94, "9.9 ms"),
        (9.96, "10 ms"),
        (10, "10 ms"),
        (9_999.4, "9999 ms"),
        (9_999.6, "10.0 s"),
        (10_000, "10.0 s"),
        (754_321, "754.3 s"),
    ],
)
def test_latencies(latency: float, text: str) -> None:
    assert shown(make_result("a", duration_ms=latency)).endswith(f"  {text}  {text}")


def test_tables_are_aligned() -> None:
    rows = [["a", "1", "x"], ["long", "10", ""]]
    assert format_table(["n", "count", "y"], rows, right_from=1) == (
        "n     count  y\n────  ─────  ─\na         1  x\nlong     10"
    )
    assert format_table(["n", "count", "y"], rows) == (
        "n     count  y\n────  ─────  ─\na     1      x\nlong  10"
    )
    assert format_table(["only"], []) == "only\n────"
