"""`muster compare`, `trend`, `baseline` and `power`, as they are typed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from muster_project import Project

from muster.evals.schemas import schema_of


def suite(project: Project, cases: int = 60) -> None:
    """Two targets: `strong` is right on all but one in ten, `weak` on every other."""
    rows = [{"id": f"c{n}", "input": f"say {n}"} for n in range(cases)]
    project.write("cases.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    project.write(
        "answers.py",
        """
        def strong(question):
            return str(not question.endswith("9"))


        def weak(question):
            return str(int(question.split()[1]) % 2 == 0)
        """,
    )
    project.write(
        "yes.eval.yaml",
        """
        name: yes
        tests: file://cases.jsonl
        assertions: [{type: equals, value: "True"}]
        """,
    )
    project.write(
        "targets.yaml",
        """
        targets:
          - {name: strong, provider: function, function: "answers:strong"}
          - {name: weak, provider: function, function: "answers:weak"}
        """,
    )


def measured(project: Project, name: str, *options: str) -> None:
    ended = project.run("eval", "yes.eval.yaml", "-q", "--no-gate", "--output", name, *options)
    assert ended.code == 0, ended.text


def rows_of(project: Project, name: str, scores: dict[str, float | None], **fields: Any) -> Path:
    """A run as its file alone."""
    rows = [
        {
            "test_id": key,
            "suite": "s",
            "target": "t",
            "execution_status": "execution_error"
            if score is None
            else "ok"
            if score >= 0.8
            else "quality_failure",
            "score": score,
            **fields,
        }
        for key, score in scores.items()
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    return project.write(f"{name}/results.jsonl", text.encode())


def test_targets_of_one_run(project: Project) -> None:
    suite(project)
    measured(project, "run", "--target", "strong", "--target", "weak")
    ended = project.run("compare", "run", "--targets", "strong", "weak", "--most", "1")
    assert ended.code == 0
    assert "strong against weak: 60 cases" in ended.out
    # Of 60: weak fails on 30; strong on 6 of these.
    assert "24 wins, 0 losses, 36 ties" in ended.out
    assert "McNemar, exact: 24 passed for a alone, 0 for b alone, p = 1.2e-07" in ended.out
    assert "better: the interval of the difference lies above 0" in ended.out
    sure = project.run("compare", "run", "strong", "weak", "--confidence", "0.999").out
    assert (sure.count("99.9 % interval"), "95 %" in sure) == (3, False)
    data = project.run("compare", "run", "--targets", "weak", "strong", "--json").json()
    (found,) = data["comparisons"]
    assert (found["wins"], found["losses"], found["verdict"]) == (0, 24, "worse")
    assert found["difference"]["value"] == pytest.approx(-0.4)
    assert found["gain"]["value"] == pytest.approx(-0.4 / 0.1)
    assert data["comparisons"][0]["duration_ms"]["cases"] == 60
    assert (data["schema_version"], data["gate"]) == (1, None)
    Draft202012Validator(schema_of("comparison")).validate(data)
    worse = project.run("compare", "run", "--targets", "weak", "strong", "--fail-if", "worse")
    assert worse.code == 1
    assert "gate failed (--fail-if worse, margin 0, 0.95 intervals)" in worse.out
    arguments = ("compare", "run", "--targets", "weak", "strong", "--fail-if", "worse")
    assert project.run(*arguments, "--margin", "0.6").code == 0
    assert project.run("compare", "run", "-t", "weak", "-t", "nobody").code == 2
    # A name that is no run is a target: of the run that is named, or of the latest.
    assert "24 wins, 0 losses" in project.run("compare", "run", "strong", "weak").out
    assert 'no run "strong"' in project.run("compare", "strong", "weak").err
    assert project.run("eval", "yes.eval.yaml", "-q", "--no-gate", "-t", "weak").code == 0
    ended = project.run("compare", "weak", "strong")
    assert ended.code == 2
    assert 'no run "strong": it is no folder or file' in ended.err
    assert "no target of" in ended.err


def test_a_loss_that_is_noise_passes_and_says_so(project: Project) -> None:
    rng = random.Random(1)
    rows_of(project, "new", {str(n): float(rng.random() < 0.70) for n in range(80)})
    rows_of(project, "old", {str(n): float(rng.random() < 0.72) for n in range(80)})
    ended = project.run("compare", "new", "old", "--fail-if", "worse")
    assert ended.code == 0
    assert "inconclusive: it may be worse, which is not shown" in ended.out
    assert project.run("compare", "new", "old", "--fail-if", "possibly-worse").code == 1


def test_runs_that_share_no_case_say_so(project: Project) -> None:
    rows_of(project, "new", {"a": 1.0})
    rows_of(project, "old", {"b": 1.0})
    ended = project.run("compare", "new", "old")
    assert ended.code == 2
    assert "new and old share no case, so there is nothing to compare" in ended.err
    assert ended.out == ""


def test_a_torn_line_and_errors_are_told_of(project: Project) -> None:
    path = rows_of(project, "new", {"a": 1.0, "b": None, "c": 0.5, "d": 0.1, "e": 1.0})
    rows_of(project, "old", {"a": 0.0, "b": 1.0, "c": 0.5, "d": 0.1, "e": 1.0, "f": 1.0})
    path.write_bytes(path.read_bytes()[:-9])
    ended = project.run("compare", "new", "old")
    assert ended.code == 0
    assert "results.jsonl: 1 line that cannot be read, and not counted (line 5)" in ended.out
    assert "2 only in old: e, f" in ended.out
    assert "1 execution error in new: b" in ended.out
    assert "new against old: 3 cases" in ended.out
    path.write_bytes(b"{torn\n")
    broken = project.run("compare", "new", "old")
    assert (broken.code, "results.jsonl:1: not a result" in broken.err) == (2, True)


def test_one_case_says_what_it_can(project: Project) -> None:
    rows_of(project, "new", {"a": 1.0})
    rows_of(project, "old", {"a": 0.0})
    ended = project.run("compare", "new", "old", "--fail-if", "worse")
    assert ended.code == 0
    assert "nothing can be said: one case" in ended.out
    assert "+1.0000" in ended.out
    assert project.run("compare", "new", "old", "--fail-if", "possibly-worse").code == 1
    power = project.run("power", "new", "--difference", "0.1")
    assert (power.code, "one case has no spread" in power.err) == (2, True)
    trend = project.run("trend", "old", "new")
    assert trend.code == 0
    assert "slope +1.0000 a run" in trend.out
    assert "left out" not in trend.out


def test_several_runs_are_adjusted_for_their_number(project: Project) -> None:
    rows_of(project, "new", {str(n): 1.0 for n in range(9)})
    for name, lost in (("old", 8), ("older", 5)):
        rows_of(project, name, {str(n): float(n >= lost) for n in range(9)})
    data = project.run("compare", "new", "old", "older", "--json").json()
    first, second = data["comparisons"]
    assert first["permutation_p"] == pytest.approx(2 / 2**8)
    assert first["p_holm"] == pytest.approx(2 * 2 / 2**8)
    assert second["p_holm"] == pytest.approx(2 / 2**5)


def test_a_baseline_is_set_checked_and_outlives_its_run(project: Project) -> None:
    good = {str(n): float(n % 5 > 0) for n in range(100)}
    rows_of(project, ".muster/results/20260101-s", good)
    for name in ("20260101-s", "20260102-s"):
        project.write(f".muster/results/{name}/run.json", '{"status": "complete"}')
    rows_of(project, ".muster/results/20260102-s", good | {str(n): 0.0 for n in range(30)})
    assert "no baselines yet" in project.run("baseline", "list").out
    missing = project.run("baseline", "check")
    assert (missing.code, 'no baseline "main"' in missing.err) == (2, True)
    kept = project.run("baseline", "set", "20260101")
    assert kept.code == 0
    assert "main is 20260101-s: 100 results" in kept.out
    assert json.loads((project.root / ".muster/baselines/main.json").read_text())["name"] == "main"
    (project.root / ".muster/results/20260101-s/results.jsonl").unlink()
    ended = project.run("baseline", "check")
    assert ended.code == 1
    assert "0 wins, 24 losses, 76 ties" in ended.out
    assert project.run("baseline", "check", "--margin", "0.4").code == 0
    (row,) = project.run("baseline", "list", "--json").json()
    assert (row["name"], row["run_id"], row["results"]) == ("main", "20260101-s", 100)


def test_the_trend_of_the_last_runs(project: Project) -> None:
    rng = random.Random(2)
    for at, chance in enumerate((0.9, 0.75, 0.6, 0.45)):
        name = f".muster/results/2026010{at}-s"
        rows_of(project, name, {str(n): float(rng.random() < chance) for n in range(120)})
        project.write(f"{name}/run.json", '{"status": "complete"}')
    ended = project.run("trend", "--suite", "s", "--last", "3")
    assert ended.code == 0
    assert "20260100-s" not in ended.out
    assert "degrading" in ended.out
    assert "s on t: 120 cases that have a score in every run" in ended.out
    assert project.run("trend", "--fail-if", "degrading").code == 1
    data = project.run("trend", "--json").json()
    Draft202012Validator(schema_of("trend")).validate(data)
    (found,) = data["trends"]
    assert found["direction"] == "degrading"
    assert len(found["points"]) == 4
    assert found["slope"]["low"] < -0.1 < found["slope"]["high"]
    nothing = project.run("trend", "--suite", "other")
    assert (nothing.code, "needs two runs" in nothing.err) == (2, True)


def test_power_of_a_run_with_repeats(project: Project) -> None:
    suite(project)
    measured(project, "run", "--target", "strong", "--target", "weak", "--repeat", "2")
    data = project.run("power", "run", "--difference", "0.1", "--target", "strong", "--json").json()
    Draft202012Validator(schema_of("power")).validate(data)
    assert (data["cases"], data["repeats"], data["within"], data["paired"]) == (60, 2, 0, False)
    # Two targets that fail one in ten, each by itself: a variance of 2 x 0.09 x 60/59.
    assert data["variance"] == pytest.approx(2 * 0.09 * 60 / 59)
    assert [row["power"] for row in data["rows"]] == [0.8, 0.9]
    pair = project.run("power", "run", "-d", "0.1", "--targets", "strong", "weak")
    assert pair.code == 0
    assert "strong and weak: 60 cases, 2 repeats" in pair.out
    assert "none do" not in project.run("power", "run", "-d", "0.9", "-t", "weak").out
    assert project.run("power", "run", "-d", "0.1").code == 0


def test_repeats_and_stopping_are_in_the_summary(project: Project) -> None:
    suite(project, 400)
    ended = project.run(
        "eval", "yes.eval.yaml", "-q", "--no-gate", "-t", "weak", "--repeat", "3", "--limit", "20"
    )
    assert "repeats of weak: pass@3 50.0% [" in ended.out
    assert "20 cases; 0% of the variance is between repeats" in ended.out
    arguments = ("eval", "yes.eval.yaml", "-q", "--no-gate", "-t", "strong", "--output", "early")
    ended = project.run(*arguments, "--stop-when", "ci-width=0.2")
    assert ended.code == 0
    assert "stopped early: yes.eval.yaml on strong after" in ended.out
    (report,) = json.loads((project.root / "early/run.json").read_text())["stopping"]
    assert report["results_saved"] > 100
    assert project.run("eval", "--resume", "early", "-q", "--no-gate").code == 0
    wrong = project.run("eval", "yes.eval.yaml", "--stop-when", "width=0.2")
    assert (wrong.code, "expected ci-width=0.04" in wrong.err) == (2, True)
