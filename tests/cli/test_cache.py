"""`muster eval --cache`: what is asked again, what is told."""

from __future__ import annotations

import pytest
from muster_project import Project

TARGETS = """
targets:
  - name: counted
    provider: cli
    cacheable: true
    command: >-
      echo x >> asked; printf '%s' '{"text": "It is 42.",
      "token_usage": {"input": 9, "output": 4}, "cost_usd": 0.25}'
  - {name: plain, provider: mock, response: It is 42.}
"""

SUITE = """
name: sums
target: counted
tests:
  - id: one
    input: What is 17 + 25?
    assert: [{type: contains, value: "42"}, {type: cost, max_usd: 0.25}]
  - {id: two, input: And 21 + 21?, assert: [{type: contains, value: "42"}]}
"""


@pytest.fixture
def sums(project: Project) -> Project:
    project.write("targets.yaml", TARGETS)
    project.write("sums.eval.yaml", SUITE)
    return project


def asked(project: Project) -> int:
    path = project.root / "asked"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_a_second_run_asks_nobody_and_scores_the_same(sums: Project) -> None:
    first = sums.eval("sums.eval.yaml", "--cache", "-o", "first")
    assert first.code == 0, first.text
    assert "cache:" not in first.out
    assert asked(sums) == 2
    second = sums.eval("sums.eval.yaml", "--cache", "-o", "second")
    assert second.code == 0, second.text
    assert asked(sums) == 2
    assert "cache: 2 answers for counted were there; saved 26 tokens, $0.5\n" in second.out
    for before, after in zip(
        *(sums.by_id(run).values() for run in ("first", "second")), strict=True
    ):
        assert after["scores"][0]["score"] == before["scores"][0]["score"] == 1.0
        assert after["output"] == before["output"]
        assert (after["cost_usd"], after["token_usage"]) == (0.0, {"input": 0, "output": 0})
        assert after["attempts"] == 0
        assert after["cached"] is True
        assert "cached" not in before
        assert after["saved"] == {
            "hits": 1, "token_usage": {"input": 9, "output": 4}, "cost_usd": 0.25,
        }  # fmt: skip
        assert after["duration_ms"] == pytest.approx(before["duration_ms"], abs=50)
    totals = sums.record("second")["totals"]["targets"][0]
    assert totals["cost_usd"] == 0.0
    assert totals["saved"] == {
        "hits": 2, "token_usage": {"input": 18, "output": 8}, "cost_usd": 0.5,
    }  # fmt: skip
    assert sums.record("first")["totals"]["targets"][0]["saved"] is None


def test_repeats_are_not_made_identical_by_it(sums: Project) -> None:
    ended = sums.eval("sums.eval.yaml", "--cache", "--repeat", "3", "--test-id", "one")
    assert ended.code == 0, ended.text
    assert asked(sums) == 3


def test_a_suite_says_so_and_no_cache_wins(sums: Project) -> None:
    sums.write(
        "sums.eval.yaml",
        SUITE.replace("target: counted", "execution: {target: counted, cache: true}"),
    )
    for run, arguments, calls in (("a", [], 2), ("b", [], 2), ("c", ["--no-cache"], 4)):
        ended = sums.eval("sums.eval.yaml", "-o", run, *arguments)
        assert ended.code == 0, ended.text
        assert asked(sums) == calls


def test_what_cannot_be_seen_through_is_not_cached_and_said_so(sums: Project) -> None:
    for run in ("a", "b"):
        ended = sums.eval(
            "sums.eval.yaml", "--cache", "--target", "plain", "--test-id", "two", "-o", run
        )
        assert ended.code == 0, ended.text
        assert 'target "plain" is not cached: answers of provider mock' in ended.err
    assert "cached" not in sums.by_id("b")["two"]


def test_another_command_is_asked(sums: Project) -> None:
    sums.eval("sums.eval.yaml", "--cache", "-o", "a")
    sums.write("targets.yaml", TARGETS.replace("42.", "43."))
    ended = sums.eval("sums.eval.yaml", "--cache", "-o", "b", "--no-gate")
    assert asked(sums) == 4
    assert {row["output"] for row in sums.rows("b")} == {"It is 43."}, ended.text


def test_a_hit_costs_no_budget_and_is_recorded(sums: Project) -> None:
    sums.eval("sums.eval.yaml", "--cache", "-o", "a")
    ended = sums.eval(
        "sums.eval.yaml", "--cache", "--record", "--budget-usd", "0.1", "-o", "b", "-w", "1"
    )
    assert ended.code == 0, ended.text
    text = (sums.root / "b" / "records.jsonl").read_text()
    assert text.count('"cached":true') == 2
    again = sums.run("grade", "b", "-o", "c")
    assert again.code == 0, again.text
    assert sums.by_id("c")["one"]["cost_usd"] == 0.25


def test_a_broken_cache_is_a_warning(sums: Project) -> None:
    sums.write("broken.sqlite", b"no database at all" * 100)
    ended = sums.eval("sums.eval.yaml", "--cache", "--cache-path", "broken.sqlite")
    assert ended.code == 0, ended.text
    assert "the cache is not used" in ended.err
    assert asked(sums) == 2


def test_votes_of_a_judge_are_cached_each_by_itself(sums: Project) -> None:
    sums.write(
        "targets.yaml",
        TARGETS
        + """
  - name: judge
    provider: mock
    cacheable: true
    default:
      json: {reason: fine, score: 1, checks: [{id: rubric-1, satisfied: true, reasoning: it is}]}
      usage: {input: 5, output: 1}
      cost_usd: 0.5
""",
    )
    sums.write(
        "sums.eval.yaml",
        """
        name: sums
        target: counted
        tests:
          - id: one
            input: What is 17 + 25?
            assert: [{type: llm-rubric, criteria: It is right., repeat: 2}]
        """,
    )
    for run in ("a", "b"):
        ended = sums.eval("sums.eval.yaml", "--cache", "--judge", "judge", "-o", run)
        assert ended.code == 0, ended.text
    (before,), (after,) = sums.rows("a"), sums.rows("b")
    assert (before["judge_calls"], before["judge_cost_usd"]) == (2, 1.0)
    assert "saved" not in before
    assert (after["judge_calls"], after["judge_cost_usd"]) == (2, 0.0)
    assert after["saved"]["judge_hits"] == 2
    assert after["saved"]["judge_cost_usd"] == 1.0
    assert after["score"] == before["score"]
