"""Precision, recall and F1 over a run, against numbers reckoned otherwise."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest

from muster.evals.classification import ClassTotals
from muster.evals.evaluation import run
from muster.evals.plan import EvalOptions
from muster.evals.planning import prepare
from muster.evals.stats import wilson_interval
from muster.reports.terminal import render_summary


def row(name: str = "g", **classes: dict[str, float]) -> dict[str, Any]:
    return {"name": name, "details": {"confusion": classes}}


def said(expected: str, found: str | None) -> dict[str, Any]:
    """What the grader `label` says of one answer."""
    if expected == found:
        return row(**{expected: {"tp": 1}})
    classes = {expected: {"fn": 1.0}}
    return row(**classes, **({found: {"fp": 1.0}} if found else {}))


def totals_of(pairs: list[tuple[str, str | None]], clusters: list[str] | None = None) -> Any:
    totals = ClassTotals()
    for number, (expected, found) in enumerate(pairs):
        totals.add([said(expected, found)], clusters[number] if clusters else None)
    (only,) = totals.to_list()
    return only


def test_the_numbers_of_a_small_table() -> None:
    pairs = (
        [("a", "a")] * 6 + [("a", "b")] * 2 + [("b", "b")] * 3 + [("b", "a")] + [("b", None)] * 2
    )
    found = totals_of(pairs)
    a, b = found["classes"]["a"], found["classes"]["b"]
    assert [a[kind] for kind in ("tp", "fp", "fn", "tn")] == [6, 1, 2, 0]
    assert [b[kind] for kind in ("tp", "fp", "fn", "tn")] == [3, 2, 3, 0]
    assert a["precision"]["value"] == pytest.approx(6 / 7)
    assert a["recall"]["value"] == pytest.approx(6 / 8)
    assert a["recall"]["interval"] == pytest.approx(wilson_interval(6, 8))
    assert a["f1"]["value"] == pytest.approx(12 / 15)
    assert b["f1"]["value"] == pytest.approx(6 / 11)
    assert found["macro_f1"] == pytest.approx((12 / 15 + 6 / 11) / 2)
    micro = found["micro"]
    assert (micro["tp"], micro["fp"], micro["fn"]) == (9, 3, 5)
    assert micro["precision"]["value"] == pytest.approx(9 / 12)
    assert micro["recall"]["value"] == pytest.approx(9 / 14)
    assert micro["f1"]["value"] == pytest.approx(18 / 26)


def test_the_interval_of_f1_keeps_its_promise() -> None:
    """Of many data sets whose true F1 is known, 95 % of the intervals hold it."""
    draw = random.Random(7)
    hits = 0
    for _ in range(400):
        pairs: list[tuple[str, str | None]] = []
        for _ in range(60):
            expected = "a" if draw.random() < 0.4 else "b"
            right = draw.random() < 0.75
            pairs.append((expected, expected if right else ("b" if expected == "a" else "a")))
        low, high = totals_of(pairs)["classes"]["a"]["f1"]["interval"]
        # tp 0.4 * 0.75, fp 0.6 * 0.25, fn 0.4 * 0.25
        hits += low <= 0.6 / (0.6 + 0.15 + 0.1) <= high
    assert 0.93 <= hits / 400 <= 0.99


def test_repeats_of_one_case_are_one_unit() -> None:
    """Ten times the same cases tell no more than once."""
    pairs = [("a", "a")] * 6 + [("a", "b")] * 3 + [("b", "a")] * 2 + [("b", "b")] * 5
    ids = [str(number) for number in range(len(pairs))]
    once = totals_of(pairs, ids)["micro"]["f1"]
    often = totals_of(pairs * 10, ids * 10)["micro"]["f1"]
    assert often["value"] == pytest.approx(once["value"])
    assert often["interval"][1] - often["interval"][0] == pytest.approx(
        once["interval"][1] - once["interval"][0], rel=0.1
    )


def test_a_class_that_was_never_there_has_no_numbers() -> None:
    totals = ClassTotals()
    totals.add([row(a={"tn": 1, "fp": 0}, b={"tp": 1})], None)
    (found,) = totals.to_list()
    assert found["classes"]["a"]["precision"] is None
    assert found["classes"]["a"]["f1"] is None
    assert found["macro_f1"] == 1.0


def test_members_of_sets_and_metrics_of_programs_count() -> None:
    totals = ClassTotals()
    inner = {"name": "s", "details": {"metrics": {"x": {"tp": 1, "tn": 0, "fp": 1, "fn": 1}}}}
    totals.add([{"name": "set", "scores": [inner]}], None)
    totals.add([{"name": "other", "details": {"metrics": {"tokens": 5}}}], None)
    (found,) = totals.to_list()
    assert (found["grader"], found["micro"]["f1"]["value"]) == ("s", 0.5)


@pytest.mark.parametrize("bad", [{"tp": -1}, {"tp": True}, {"tp": "1"}, {"tp": float("nan")}, {}])
def test_what_is_no_count_is_left_alone(bad: dict[str, Any]) -> None:
    totals = ClassTotals()
    totals.add([row(a=bad)], None)
    assert totals.to_list() == []


def test_a_run_tells_them(tmp_path: Path) -> None:
    (tmp_path / "targets.yaml").write_text(
        "targets:\n  - name: default\n    provider: mock\n    replies:\n"
        "      - {contains: one, text: 'Spam.'}\n    default: I say not spam\n"
    )
    suite = tmp_path / "s.eval.yaml"
    suite.write_text(
        "assertions: [{type: label, labels: [spam, not spam]}]\n"
        "tests:\n"
        "  - {id: 1, input: one, expected_output: SPAM}\n"
        "  - {id: 2, input: two, expected_output: spam}\n"
        "  - {id: 3, input: three, expected_output: not spam}\n"
    )
    plan = prepare(EvalOptions(paths=(str(suite),), output=tmp_path / "out"), cwd=tmp_path)
    done = asyncio.run(run(plan))
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    (found,) = record["totals"]["targets"][0]["classification"]
    assert found["classes"]["spam"]["recall"]["value"] == 0.5
    assert found["classes"]["not spam"]["precision"]["value"] == 0.5
    assert found["micro"]["f1"]["value"] == pytest.approx(2 / 3)
    text = render_summary(done.outcome, folder=None, planned=3)
    assert "label on default, 3 cases: precision 0.667" in text
    assert "  not spam: precision 0.500" in text
