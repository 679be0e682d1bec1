"""`stop_when`: fewer calls, and no more errors than without it."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval_parts import Asked, grader, make_case, make_suite
from muster.errors import ConfigError, UsageError
from muster.evals.case import Case, Suite
from muster.evals.evaluation import Evaluation, run
from muster.evals.graders.base import GradeContext
from muster.evals.plan import EvalOptions
from muster.evals.planning import prepare
from muster.evals.results import read_results, read_run
from muster.evals.stopping import Stopping, StopWhen, shuffled, stop_when_of
from muster.evals.suites.load import load_suite
from muster.provider import ProviderRequest


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- the rule, without a run ----------------------------------------------------------------------


def watched(rule: StopWhen, columns: dict[str, list[float]]) -> Stopping:
    """Feed scores, target by target and case by case, until the rule says stop."""
    count = len(next(iter(columns.values())))
    stopping = Stopping(rule, "s", "hash", dict.fromkeys(columns, (count, 1)))
    for place in range(count):
        for name, scores in columns.items():
            if not stopping.stopped(name):
                stopping.add(name, place, 1, scores[place], passed=scores[place] >= 0.8)
    return stopping


@pytest.mark.parametrize("mean", [0.3, 0.8])
def test_a_width_saves_calls_and_keeps_its_promise(mean: float) -> None:
    """The interval that a stopped suite tells holds the truth in 95 of 100 runs at least."""
    rng = np.random.default_rng(1)
    rounds, n = 80, 2000
    missed, used = 0, []
    for _ in range(rounds):
        scores = (rng.random(n) < mean).astype(float).tolist()
        stopping = watched(StopWhen(ci_width=0.12), {"t": scores})
        (report,) = stopping.reports({"t": n}, {})
        assert report.stopped
        assert report.interval is not None
        low, high = report.interval
        assert high - low <= 0.12
        missed += not low <= mean <= high
        used.append(report.cases)
    assert missed / rounds <= 0.05
    assert max(used) < n / 2


def test_two_targets_that_are_alike_are_rarely_told_apart() -> None:
    """A test that is made again after every case, at 5 %, finds a difference in a third of the
    runs where there is none; the rule in one of twenty."""
    rng = np.random.default_rng(2)
    rounds, n = 250, 300
    wrong = peeking = 0
    for _ in range(rounds):
        a, b = ((rng.random(n) < 0.6).astype(float) for _ in range(2))
        stopping = watched(StopWhen(compare=("a", "b")), {"a": a.tolist(), "b": b.tolist()})
        wrong += stopping.stopped("a")
        differences = a - b
        sums, squares = np.cumsum(differences), np.cumsum(differences**2)
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.abs(sums) / np.sqrt(squares)
        peeking += bool((z[10:] > 1.96).any())
    assert wrong / rounds <= 0.05
    assert peeking / rounds > 0.2


def test_two_targets_that_differ_are_told_apart_early() -> None:
    rng = np.random.default_rng(3)
    used = []
    for _ in range(40):
        a, b = ((rng.random(1500) < chance).astype(float).tolist() for chance in (0.75, 0.5))
        stopping = watched(StopWhen(compare=("a", "b")), {"a": a, "b": b})
        (report,) = stopping.reports({"a": 1500, "b": 1500}, {"a": 0, "b": 0})
        assert report.stopped
        assert report.mean_score is not None
        assert report.mean_score > 0
        assert report.p_value is not None
        assert report.p_value <= 0.05
        used.append(report.cases)
    assert np.mean(used) < 400


def test_cases_are_looked_at_in_their_order_whenever_they_end() -> None:
    """A target that fails fast and succeeds slowly is not taken for one that always fails."""
    rng = random.Random(4)
    scores = [float(rng.random() < 0.5) for _ in range(400)]
    plain = watched(StopWhen(ci_width=0.2), {"t": scores})
    late = Stopping(StopWhen(ci_width=0.2), "s", "hash", {"t": (400, 1)})
    for start in range(0, 400, 50):
        for place in sorted(range(start, start + 50), key=lambda at: scores[at]):
            if not late.stopped("t"):
                late.add("t", place, 1, scores[place], passed=False)
    (wanted,) = plain.reports({"t": 400}, {})
    (found,) = late.reports({"t": 400}, {})
    assert found.stopped
    assert found.cases >= wanted.cases
    assert found.mean_score == pytest.approx(np.mean(scores[: found.cases]))


def test_repeats_are_one_observation_and_errors_none() -> None:
    stopping = Stopping(StopWhen(ci_width=0.5), "s", "hash", {"t": (3, 1)})
    stopping.add("t", 0, 2, 1.0, passed=True)
    stopping.add("t", 1, 2, None, passed=False)
    stopping.add("t", 1, 2, None, passed=False)
    stopping.add("t", 0, 2, 0.0, passed=False)
    stopping.add("t", 2, 2, None, passed=False)
    stopping.add("t", 2, 2, 1.0, passed=True)
    (report,) = stopping.reports({"t": 6}, {"t": 6})
    assert (report.cases, report.mean_score) == (2, 0.75)


# --- the order ------------------------------------------------------------------------------------


def test_the_order_is_a_permutation_that_a_seed_gives() -> None:
    many = [make_case(str(number)) for number in range(6000)]
    passes = 0

    def cases() -> Iterator[Case]:
        nonlocal passes
        passes += 1
        return iter(many)

    order = [case.id for _, case in shuffled(cases, 5000, 3)]
    assert sorted(map(int, order)) == list(range(5000))  # the first 5,000, as with --limit
    assert passes == 2
    assert [place for place, _ in shuffled(cases, 5000, 3)] == list(range(5000))
    assert order == [case.id for _, case in shuffled(cases, 5000, 3)]
    assert order != [case.id for _, case in shuffled(cases, 5000, 4)]
    # Places say nothing of where a case stood.
    assert abs(np.corrcoef(np.arange(5000), np.array(order, dtype=int))[0, 1]) < 0.05


# --- runs -----------------------------------------------------------------------------------------


def scored(chances: dict[str, float], count: int) -> Suite:
    """A suite on which each target is right with its chance, by the case's number."""

    def grade(context: GradeContext) -> float:
        assert context.target is not None
        rng = random.Random(f"{context.target} {context.case.id}")
        return float(rng.random() < chances[context.target])

    made = [make_case(f"c{n}", graders=(grader(grade),)) for n in range(count)]
    return make_suite(*made)


def evaluate(
    suite: Suite, given: dict[str, Any], resume: Path | None = None, **options: Any
) -> Evaluation:
    asked = EvalOptions(targets=tuple(given), **options)
    plan = prepare(asked, suites=[suite], given=given, environ={})
    return asyncio.run(run(plan, resume=resume))


def test_a_run_stops_saves_calls_and_says_so(tmp_path: Path) -> None:
    asked = {name: Asked() for name in ("good", "even")}
    suite = scored({"good": 0.95, "even": 0.5}, 1500)
    folder = tmp_path / "run"
    ended = evaluate(suite, asked, output=folder, stop_when={"ci_width": 0.12})
    assert ended.outcome.status == "complete"
    record = read_run(folder)
    good, even = record["stopping"]
    assert (good["targets"], even["targets"]) == (["good"], ["even"])
    for report, name in ((good, "good"), (even, "even")):
        calls = len(asked[name].requests)
        assert report["stopped"]
        assert report["results_saved"] == 1500 - calls
        assert report["cases"] <= calls <= report["cases"] + 64
    assert len(asked["good"].requests) < len(asked["even"].requests) < 1500
    assert record["not_run"] == 0
    assert ended.expected == len(list(read_results(folder)))
    # What the totals tell of a stopped target holds whenever one stops.
    totals = {row["target"]: row for row in record["totals"]["targets"]}
    assert totals["even"]["mean_score_interval"][0] == pytest.approx(even["interval"][0], abs=0.02)
    asked_first = [request.eval_case_id for request in asked["good"].requests[:40]]
    assert asked_first == [request.eval_case_id for request in asked["even"].requests[:40]]
    assert asked_first != [f"c{n}" for n in range(40)]


def test_a_fast_target_waits_for_the_one_it_is_compared_with(tmp_path: Path) -> None:
    async def slowly(request: ProviderRequest) -> str:
        await asyncio.sleep(0.0005)
        return "x"

    asked = {"fast": Asked(), "slow": Asked(slowly)}
    suite = scored({"fast": 0.9, "slow": 0.4}, 2000)
    rule = {"compare": ["fast", "slow"]}
    ended = evaluate(suite, asked, output=tmp_path / "run", stop_when=rule, workers=4)
    (report,) = ended.record["stopping"]
    assert report["stopped"]
    calls = {name: len(provider.requests) for name, provider in asked.items()}
    assert calls["fast"] <= report["cases"] + 70
    assert report["results_saved"] == 4000 - sum(calls.values())


def test_a_rule_that_never_comes_true_runs_everything(tmp_path: Path) -> None:
    suite = scored({"t": 0.5}, 60)
    ended = evaluate(suite, {"t": Asked()}, output=tmp_path / "run", stop_when={"ci_width": 0.01})
    (report,) = ended.record["stopping"]
    assert (report["stopped"], report["cases"], report["results_saved"]) == (False, 60, 0)
    assert ended.outcome.totals.count == 60


def test_a_run_that_is_gone_on_with_stops_where_it_would_have(tmp_path: Path) -> None:
    suite, rule = scored({"t": 0.7}, 1200), {"ci_width": 0.15}
    whole = evaluate(suite, {"t": Asked()}, output=tmp_path / "whole", stop_when=rule, workers=1)
    (wanted,) = whole.record["stopping"]

    def until(stop: int) -> Asked:
        async def reply(request: ProviderRequest) -> str:
            if len(asked.requests) > stop:
                task.cancel()
            await asyncio.sleep(0)
            return "x"

        asked = Asked(reply)
        return asked

    task: Any = None
    folder = tmp_path / "run"

    async def interrupted() -> None:
        nonlocal task
        options = EvalOptions(targets=("t",), output=folder, stop_when=rule, workers=1)
        plan = prepare(options, suites=[suite], given={"t": until(50)}, environ={})
        task = asyncio.ensure_future(run(plan))
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(interrupted())
    before = len(list(read_results(folder)))
    assert before == 50
    asked = Asked()
    ended = evaluate(suite, {"t": asked}, resume=folder, stop_when=rule, workers=1)
    (found,) = ended.record["stopping"]
    assert found == wanted
    assert before + len(asked.requests) == wanted["cases"]
    again = Asked()
    evaluate(suite, {"t": again}, resume=folder, stop_when=rule, workers=1)
    assert again.requests == []


# --- what is asked for ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("ci-wdth=0.1",), "did you mean ci-width=…?"),
        (("0.1",), "expected ci-width=0.04"),
        (("ci-width=2",), "a width lies between 0 and 1, 2 does not"),
        (("ci-width=wide",), "Expected `float"),
        (("compare=a",), "Expected `array` of length 2"),
        (("compare=a,a",), "two different targets"),
        (("compare=a,b", "ci-width=0.1"), "one of ci_width and compare"),
        (("confidence=0.9",), "one of ci_width and compare"),
        (("ci-width=0.1", "confidence=0.2"), "a confidence lies between"),
    ],
)
def test_rules_that_cannot_be(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError) as told:
        stop_when_of(words)
    assert message in str(told.value)


def test_rules_of_the_command_line() -> None:
    assert stop_when_of(()) is None
    assert stop_when_of(("never",)) == {}
    assert stop_when_of(("compare=a,b", "seed=3")) == {"compare": ["a", "b"], "seed": "3"}


@pytest.mark.parametrize(
    ("fields", "rule", "message"),
    [
        ({"cluster": "text 1"}, {"ci_width": 0.1}, "cases that share a cluster"),
        ({"depends_on": ("c0",)}, {"ci_width": 0.1}, "cases that depend on others"),
        ({}, {"compare": ["t", "u"]}, 'compares "u", but the run asks t'),
    ],
)
def test_suites_that_cannot_be_stopped(
    fields: dict[str, Any], rule: dict[str, Any], message: str
) -> None:
    made = [make_case("c0"), make_case("c1", **fields)]
    suite = make_suite(*made, has_clusters="cluster" in fields)
    with pytest.raises(UsageError, match=message):
        prepare(EvalOptions(targets=("t",), stop_when=rule), suites=[suite], given={"t": Asked()})


def test_what_a_suite_says(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"id": f"a{n}", "input": "q"}) + "\n" for n in range(2))
    )
    (tmp_path / "demo.eval.yaml").write_text(
        """
stop_when: {ci_width: 0.1, confidence: 0.9}
cluster_by: file
assertions: [{type: contains, value: x}]
tests:
  - file://a.jsonl
  - {id: b, input: q}
  - {id: c, input: q, cluster: one text}
  - {id: d, input: q, metadata: {cluster: 7}}
"""
    )
    suite = load_suite(tmp_path / "demo.eval.yaml")
    assert suite.stop_when == {"ci_width": 0.1, "confidence": 0.9}
    assert suite.has_clusters
    assert {case.id: case.cluster for case in suite.cases()} == {
        "a0": "a.jsonl",
        "a1": "a.jsonl",
        "b": None,
        "c": "one text",
        "d": "7",
    }
    text = (tmp_path / "demo.eval.yaml").read_text()
    (tmp_path / "demo.eval.yaml").write_text(text.replace("ci_width", "compare: [a, b], ci_width"))
    with pytest.raises(ConfigError, match=r"demo.eval.yaml:2:.*expected one of ci_width"):
        load_suite(tmp_path / "demo.eval.yaml")
    (tmp_path / "demo.eval.yaml").write_text(
        text.replace("cluster_by: file", "cluster_by: passage").replace("7}", "7, passage: p}")
    )
    (tmp_path / "a.jsonl").write_text('{"id": "a0", "input": "q", "metadata": {"passage": 5}}\n')
    suite = load_suite(tmp_path / "demo.eval.yaml")
    found = {case.id: case.cluster for case in suite.cases()}
    assert found == {"a0": "5", "b": None, "c": "one text", "d": "7"}
