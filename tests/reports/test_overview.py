"""The numbers of a report: those of the run itself, and what reports add."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from eval_parts import make_result
from muster.evals.schemas import schema_of
from muster.evals.shapes import ReportSummary
from muster.evals.stats import clustered_mean, mean_of_sums, wilson_interval
from muster.reports.overview import input_text
from muster.reports.tallies import Tally, bin_of
from report_parts import failed, folder_of, overview_of, scored, unanswered


def test_sums_are_those_of_the_results(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "run",
        scored("a", 1, cost_usd=0.01, duration_ms=10),
        scored("b", 0.5, cost_usd=0.03, duration_ms=30),
        unanswered("c", cost_usd=0.05),
        scored("a", 1, target="u"),
    )
    overview = overview_of(folder)
    view = overview.targets["t"]
    assert (view.totals.count, view.totals.passed, view.totals.failed) == (3, 1, 1)
    assert view.totals.interval == wilson_interval(1, 2)
    cost = view.cost_per_result
    assert cost is not None
    assert cost.value == pytest.approx(0.02)  # of answers, not of the error
    assert overview.totals.cost_usd == pytest.approx(0.09)
    assert overview.targets["u"].cost_per_result is None


def test_an_answer_from_the_cache_costs_what_it_would_have(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path / "run",
        scored("a", 1, cost_usd=0.02),
        scored("b", 1, cost_usd=0.0, cached=True, saved={"hits": 1, "cost_usd": 0.04}),
        scored("c", 1, saved={"judge_hits": 1, "judge_cost_usd": 0.5}),
    )
    told = overview_of(folder).to_dict()["targets"][0]
    assert told["cost_per_result_usd"] == pytest.approx(0.03)
    assert told["cost_usd"] == pytest.approx(0.02)


def test_distribution_has_an_interval_for_each_share(tmp_path: Path) -> None:
    scores = [0.0, 0.05, 0.3, 0.95, 1.0, 1.0, 1.0, 1.0]
    folder = folder_of(tmp_path / "run", *(scored(str(n), s) for n, s in enumerate(scores)))
    bins = overview_of(folder).targets["t"].bins()
    assert [row["count"] for row in bins] == [2, 0, 0, 1, 0, 0, 0, 0, 0, 5]
    assert (bins[9]["from"], bins[9]["to"], bins[9]["share"]) == (0.9, 1.0, 5 / 8)
    assert bins[9]["interval"] == pytest.approx(wilson_interval(5, 8))


def test_distribution_of_repeats_knows_that_they_belong_together(tmp_path: Path) -> None:
    rows = [scored(name, float(name == "a"), repeat=n) for name in "ab" for n in range(10)]
    bins = overview_of(folder_of(tmp_path / "run", *rows)).targets["t"].bins()
    two_cases = mean_of_sums([(10, 0.0), (10, 10.0)], binary=True).interval
    assert bins[0]["interval"] == list(two_cases or ())
    assert bins[0]["interval"][1] - bins[0]["interval"][0] > 0.8  # of twenty cases it were 0.4


def test_bins_are_not_moved_by_rounding() -> None:
    assert [bin_of(score) for score in (0.0, 0.1 + 0.2, 0.7, 0.8999999999999999, 1.0)] == [
        0, 3, 7, 9, 9,
    ]  # fmt: skip


def test_tally_agrees_with_the_clustered_mean() -> None:
    values = [0.1, 0.4, 0.9, 0.3, 0.8]
    names: list[Any] = ["x", "x", "y", "z", "y"]
    tally = Tally(1)
    for value, name in zip(values, names, strict=True):
        tally.add(("s", "cluster", name), (value,))
    assert tally.estimate(0) == clustered_mean(values, names)
    assert Tally(1).estimate(0) is None


def test_graders_are_told_one_by_one(tmp_path: Path) -> None:
    def row(name: str, score: float, verdict: str) -> dict[str, Any]:
        return {"name": name, "type": "x", "score": score, "verdict": verdict, "assertions": []}

    folder = folder_of(
        tmp_path / "run",
        scored("a", 1, scores=[row("x", 1, "pass"), row("x", 0.5, "fail"), row("y", 1, "pass")]),
        scored("b", 1, scores=[row("x", 0, "fail"), row("y", 0, "skip")]),
    )
    graders = overview_of(folder).to_dict()["targets"][0]["graders"]
    told = {g["name"]: (g["count"], g["skipped"], g["mean_score"], g["pass_rate"]) for g in graders}
    assert told == {"x": (2, 0, 0.5, 0.5), "x#2": (1, 0, 0.5, 0.0), "y": (1, 1, 1.0, 1.0)}


@pytest.mark.parametrize(("cases", "names"), [(12, 13), (13, 2)])
def test_graders_that_look_for_another_thing_in_each_case(
    tmp_path: Path, cases: int, names: int
) -> None:
    def rows(n: int) -> list[dict[str, Any]]:
        own = {"name": "short", "type": "contains", "score": 1.0, "verdict": "pass"}
        return [own | {"name": f"contains-{n}", "score": float(n % 2)}, own]

    folder = folder_of(tmp_path / "run", *(scored(str(n), 1, scores=rows(n)) for n in range(cases)))
    graders = overview_of(folder).targets["t"].graders
    assert len(graders) == names
    assert "short" in graders
    if names == 2:
        assert (graders["contains"].tally.n, graders["contains"].tally.total(0)) == (13, 6.0)


def test_worst_are_errors_by_kind_then_lowest_scores(tmp_path: Path) -> None:
    rows = [scored(f"low-{n}", n / 100) for n in range(70, 5, -1)]
    rows += [unanswered("e1"), unanswered("e2"), unanswered("e3", "rate_limited")]
    worst = overview_of(folder_of(tmp_path / "run", *rows, scored("good", 1))).worst
    names = [bad.test_id for bad in worst]
    assert names[:4] == ["e1", "e3", "low-6", "low-7"]
    assert len(names) == 50
    assert names[-1] == "low-53"


def test_of_equal_scores_each_target_is_told_in_turn(tmp_path: Path) -> None:
    rows = [failed(str(n), target=target) for target in "tuv" for n in range(40)]
    worst = overview_of(folder_of(tmp_path / "run", *rows)).worst
    assert [(bad.target, bad.test_id) for bad in worst[:4]] == [
        ("t", "0"), ("u", "0"), ("v", "0"), ("t", "1"),
    ]  # fmt: skip


def sequential(**target: Any) -> dict[str, Any]:
    """What a run that stopped early writes of one target."""
    counted = {"target": "t", "count": 2, "passed": 1, "quality_failures": 1}
    intervals = {"mean_score_interval": [0.1, 0.9], "pass_rate_interval": [0.2, 0.8]}
    rule = {"suite": "s", "targets": ["t"], "results_saved": 8}
    return {
        "planned": 10,
        "stopping": [rule],
        "totals": {"targets": [counted | intervals | target]},
    }


def test_a_run_that_stopped_early_keeps_its_own_intervals(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "run", scored("a", 1), failed("b"), **sequential())
    overview = overview_of(folder)
    told = overview.to_dict()
    assert overview.notes == []
    for row in (told["targets"][0], told["suites"][0]):
        assert row["mean_score_interval"] == [0.1, 0.9]
        assert row["pass_rate_interval"] == [0.2, 0.8]
    (grader,) = told["targets"][0]["graders"]
    assert (grader["mean_score"], grader["mean_score_interval"]) == (0.5, None)
    assert {row["interval"] for row in told["targets"][0]["score_distribution"]} == {None}


def test_a_run_that_stopped_early_and_lost_a_line_has_none(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "run", scored("a", 1), **sequential())
    overview = overview_of(folder)
    assert overview.to_dict()["targets"][0]["pass_rate_interval"] is None
    assert any("no interval would hold" in note for note in overview.notes)


def test_fallbacks_are_counted_also_where_targets_are_renamed(tmp_path: Path) -> None:
    one = folder_of(tmp_path / "one", scored("a", 1), scored("b", 1, target_used="spare"))
    two = folder_of(tmp_path / "two", scored("a", 1))
    targets = overview_of(one, two).targets
    assert {label: view.totals.fallbacks for label, view in targets.items()} == {
        "t (one)": 1,
        "t (two)": 0,
    }


def test_summary_has_the_published_shape(tmp_path: Path) -> None:
    one = folder_of(
        tmp_path / "one",
        scored("a", 1, repeat=0, cost_usd=0.1, token_usage={"input": 1, "output": 2}),
        failed("a", repeat=1),
        unanswered("b"),
        status="interrupted",
        git_commit="abc",
    )
    two = folder_of(tmp_path / "two", scored("a", 1))
    told = json.loads(json.dumps(overview_of(one, two).to_dict()))
    Draft202012Validator(schema_of("report")).validate(told)
    # Nothing is told that the schema does not know.
    assert json.loads(msgspec.json.encode(msgspec.convert(told, ReportSummary))) == told


def test_input_as_text() -> None:
    assert input_text("why?") == "why?"
    said = [{"role": "system", "content": "be brief"}, {"role": "user", "content": [{"n": 1}]}]
    assert input_text(said) == 'system: be brief\n\nuser: {"content":[{"n":1}]}'
    assert input_text({"a": 1}) == '{"a":1}'
    assert make_result("a").input == "?"
