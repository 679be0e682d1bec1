"""Runs read back: what is torn, twice there, or another tool's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eval_parts import make_result
from muster.errors import UsageError
from muster.evals.baseline import find_baseline, list_baselines, set_baseline
from muster.evals.results import ResultsWriter, write_run
from muster.evals.scored import Scored, ScoredRun, find_run, read_scored

FOREIGN = Path(__file__).parent / "foreign"


def written(folder: Path, *results: Any, **record: Any) -> Path:
    folder.mkdir(parents=True)
    writer = ResultsWriter(folder)
    for result in results:
        writer.write(result)
    writer.close()
    if record:
        write_run(folder, record)
    return folder


def lines(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def scores(run: ScoredRun) -> dict[Any, Any]:
    return {(r.test_id, r.target, r.repeat): r.score for r in run.results}


# --- Muster's own ---------------------------------------------------------------------------------


def test_a_run_of_ours(tmp_path: Path) -> None:
    folder = written(
        tmp_path / "run",
        make_result("a", score=0.5, cluster="x", eval_path="e", cost_usd=0.1, duration_ms=3.0),
        make_result("b", score=None, execution_status="execution_error", error_kind="timeout"),
        run_id="r1",
        status="interrupted",
        not_run=3,
        planned=5,
        suites=[{"name": "s", "eval_path": "e", "content_hash": "77"}],
    )
    run = read_scored(folder)
    assert (run.name, run.kind, run.suites) == ("r1", "muster", {"e": "77"})
    assert run.notes == ["r1: the run is interrupted; 3 of 5 results were not run"]
    first, second = run.results
    assert (first.suite_key, first.cluster, first.cost_usd, first.duration_ms) == ("e", "x", 0.1, 3)
    assert (first.judged, second.judged, second.score) == (True, False, None)
    assert read_scored(folder / "results.jsonl").results == run.results


def test_a_run_that_stopped_early(tmp_path: Path) -> None:
    width = {"targets": ["a"], "stopped": True, "interval": [0.21, 0.34], "p_value": None}
    pair = {"targets": ["b", "c"], "stopped": True, "interval": None, "p_value": 0.0381}
    went_on = {"targets": ["d"], "stopped": False, "interval": [0.1, 0.9], "p_value": None}
    record = {"run_id": "r", "status": "complete", "stopping": [width, pair, went_on]}
    run = read_scored(written(tmp_path / "run", make_result("x"), **record))
    assert run.notes == []
    assert sorted(run.early) == ["a", "b", "c"]
    assert run.early["a"].startswith("r: a stopped early")
    assert run.early["a"].endswith("Valid whenever one stops: the mean is in [0.2100, 0.3400]")
    assert run.early["c"].endswith("Valid whenever one stops: p = 0.038")
    set_baseline(run, "main", tmp_path)
    assert find_baseline("main", tmp_path).early == run.early


def test_a_torn_last_line_is_left_out_and_told_of(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", make_result("a"), make_result("b"))
    path = folder / "results.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    run = read_scored(folder)
    assert [result.test_id for result in run.results] == ["a"]
    told = "1 line that cannot be read, and not counted (line 2): torn, or no result"
    assert run.notes == [f"{path}: {told}"]
    path.write_bytes(whole.rstrip(b"\n"))  # all there, but for the line's end
    assert len(read_scored(folder).results) == 2


@pytest.mark.parametrize("bad", ["{torn\n", "[]\n", '{"test_id": 5}\n', "\xff\n"])
def test_a_broken_line_is_left_out_unless_all_are(tmp_path: Path, bad: str) -> None:
    folder = written(tmp_path / "run", make_result("a"))
    path = folder / "results.jsonl"
    path.write_bytes(bad.encode("latin-1") * 2 + path.read_bytes())
    run = read_scored(folder)
    assert len(run.results) == 1
    told = "2 lines that cannot be read, and not counted (line 1, 2): torn, or no result"
    assert run.notes == [f"{path}: {told}"]
    path.write_bytes(bad.encode("latin-1"))
    with pytest.raises(UsageError, match=r"results\.jsonl:1: not a result"):
        read_scored(folder)


def test_a_result_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    error = make_result("a", score=None, execution_status="execution_error")
    folder = written(tmp_path / "run", error, make_result("a", score=0.3), make_result("a"))
    run = read_scored(folder)
    assert scores(run) == {("a", "t", 0): 0.3}
    assert run.notes == ["run: results that are there twice, and counted once: 2"]


@pytest.mark.parametrize("name", ["nothing", "run.txt"])
def test_what_is_no_run(tmp_path: Path, name: str) -> None:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "run.txt").write_text("x")
    with pytest.raises(UsageError, match=r"not the folder of a run|not a run; expected"):
        read_scored(tmp_path / name)
    written(tmp_path / "empty")
    with pytest.raises(UsageError, match="holds no results"):
        read_scored(tmp_path / "empty")


@pytest.mark.parametrize("record", [{"suites": 5}, {"suites": [3, {}]}, {"status": 7}])
def test_an_odd_record_does_not_stop_the_reading(tmp_path: Path, record: dict[str, Any]) -> None:
    folder = written(tmp_path / "run", make_result("a"), **record)
    assert len(read_scored(folder).results) == 1


@pytest.mark.parametrize("record", [{}, {"results": [{}]}, {"results": [], "suites": 5}])
def test_a_broken_baseline(tmp_path: Path, record: dict[str, Any]) -> None:
    path = tmp_path / "main.json"
    path.write_text(json.dumps({"format": "muster-baseline", **record}))
    with pytest.raises(UsageError, match=r"main\.json: not a baseline that can be read"):
        read_scored(path)


def test_runs_are_found_by_id_beginning_and_latest(tmp_path: Path) -> None:
    root = tmp_path / "project"
    for name in ("20260101-one", "20260102-two", "20260102-three"):
        written(root / ".muster/results" / name, make_result(), run_id=name, status="complete")
    runs = root / ".muster/results"
    assert find_run("20260101-one", root) == runs / "20260101-one"
    assert find_run("20260101", root) == runs / "20260101-one"
    assert find_run("latest", root) == runs / "20260102-two"
    with pytest.raises(UsageError, match="beginning of several runs: 20260102-three, 20260102-two"):
        find_run("20260102", root)
    with pytest.raises(UsageError, match='no run "1999"'):
        find_run("1999", root)


def test_a_baseline_holds_all_that_is_needed(tmp_path: Path) -> None:
    folder = written(
        tmp_path / "run",
        make_result("a", score=0.25, cost_usd=0.5, cluster="x"),
        make_result("b", score=None, execution_status="execution_error"),
        run_id="r1",
        status="complete",
        suites=[{"name": "s", "content_hash": "77"}],
    )
    run = read_scored(folder)
    path = set_baseline(run, "main", tmp_path)
    assert path == tmp_path / ".muster/baselines/main.json"
    kept = find_baseline("main", tmp_path)
    assert (kept.name, kept.kind, kept.suites) == ("r1", "baseline", {"s": "77"})
    assert kept.results == run.results
    assert [(row["name"], row["results"]) for row in list_baselines(tmp_path)] == [("main", 2)]
    with pytest.raises(UsageError, match=r'no baseline "other".*there are main'):
        find_baseline("other", tmp_path)
    with pytest.raises(UsageError, match="cannot be the name"):
        set_baseline(run, "../main", tmp_path)


# --- AgentV's -------------------------------------------------------------------------------------

ROW = {
    "timestamp": "2026-06-19T10:00:00.000Z",
    "test_id": "greet",
    "suite": "demo",
    "category": "demo",
    "score": 0.5,
    "target": "mock1",
    "cost_usd": 0.01,
    "duration_ms": 12,
    "scores": [],
    "execution_status": "quality_failure",
    "eval_path": "demo.eval.yaml",
}
ERROR = ROW | {
    "test_id": "broken",
    "score": 0,
    "execution_status": "execution_error",
    "failure_reason_code": "provider_error",
}


def test_agentv_4(tmp_path: Path) -> None:
    lines(tmp_path / "run/index.jsonl", ROW, ERROR, ROW | {"test_id": "ok", "score": 1})
    run = read_scored(tmp_path / "run")
    assert (run.kind, run.started_at) == ("agentv", ROW["timestamp"])
    assert run.results[0] == Scored(
        test_id="greet",
        suite="demo",
        target="mock1",
        execution_status="quality_failure",
        score=0.5,
        eval_path="demo.eval.yaml",
        cost_usd=0.01,
        duration_ms=12.0,
    )
    # Its 0 is no score: nothing was judged.
    assert (run.results[1].score, run.results[1].error_kind) == (None, "provider_error")
    assert read_scored(tmp_path / "run/index.jsonl").results == run.results


def test_what_agentv_writes() -> None:
    """Version 4.42.4: what its rows call `eval_path` is a copy of the suite, one for each test."""
    run = read_scored(FOREIGN / "agentv")
    common = {"suite": "small", "target": "t", "eval_path": "s.eval.yaml"}
    answered: dict[str, Any] = {"cost_usd": 0.002, "duration_ms": 12.0, **common}
    good, half, boom = run.results
    assert good == Scored(test_id="good", execution_status="ok", score=1.0, **answered)
    assert half == Scored(
        test_id="half", execution_status="quality_failure", score=0.5, cluster="k", **answered
    )
    assert boom == Scored(
        test_id="boom", execution_status="execution_error", score=None,
        error_kind="provider_error", **common,
    )  # fmt: skip


def test_an_agentv_row_that_tells_its_copy_alone(tmp_path: Path) -> None:
    copied = {"eval_path": "demo/greet/task/EVAL.yaml", "task_dir": "demo/greet/task"}
    lines(tmp_path / "run/index.jsonl", ROW | copied)
    (result,) = read_scored(tmp_path / "run").results
    assert (result.eval_path, result.suite_key) == (None, "demo")


def test_what_promptfoo_writes() -> None:
    """Version 0.121.20."""
    run = read_scored(FOREIGN / "promptfoo.json")
    found = {(r.test_id, r.prompt): r.score for r in run.of("echo")}
    assert found == {
        ("test-1", "prompt-1"): 1.0, ("test-1", "shout"): 1.0,
        ("test-2", "prompt-1"): 0.0, ("test-2", "shout"): 0.0,
        ("odd", "prompt-1"): 0.75, ("odd", "shout"): 0.75,
    }  # fmt: skip
    assert [(r.judged, r.score) for r in run.of("broken")] == [(False, None)] * 6


def test_agentv_5_with_samples(tmp_path: Path) -> None:
    sample = {"score": 1.0, "execution_status": "ok", "sample_index": 0}
    samples = [
        sample,
        {"score": 0.2, "execution_status": "quality_failure", "sample_index": 1},
        {"score": 0, "execution_status": "execution_error", "error": "x", "sample_index": 2},
    ]
    one = ROW | {"test_id": "one", "samples": [sample], "sample_index": 0}
    lines(tmp_path / "run/.internal/index.jsonl", ROW | {"samples": samples}, one)
    run = read_scored(tmp_path / "run")
    assert scores(run) == {
        ("greet", "mock1", 0): 1.0,
        ("greet", "mock1", 1): 0.2,
        ("greet", "mock1", 2): None,
        ("one", "mock1", 0): 1.0,
    }
    # The row's money is that of all samples, and cannot be told apart.
    assert [result.cost_usd for result in run.results] == [None, None, None, 0.01]
    assert read_scored(tmp_path / "run/.internal/index.jsonl").results == run.results


def test_rows_that_are_not_agentvs(tmp_path: Path) -> None:
    lines(tmp_path / "run/index.jsonl", ROW, {"id": "x"})
    with pytest.raises(UsageError, match=r"index\.jsonl:2: not a result of AgentV"):
        read_scored(tmp_path / "run")


# --- promptfoo's ----------------------------------------------------------------------------------


def promptfoo_row(question: str, **fields: Any) -> dict[str, Any]:
    return {
        "provider": {"id": "openai:gpt", "label": "gpt"},
        "prompt": {"raw": "Q: {{q}}", "label": "short"},
        "promptIdx": 0,
        "testIdx": 0,
        "vars": {"q": question},
        "testCase": {"vars": {"q": question}, "assert": [{"type": "equals", "value": "x"}]},
        "success": True,
        "score": 1,
        "latencyMs": 250,
        "cost": 0.002,
        "failureReason": 0,
        "gradingResult": {"pass": True},
    } | fields


def promptfoo_file(path: Path, *rows: dict[str, Any], version: int = 3) -> Path:
    results = {"version": version, "timestamp": "2026-01-15T10:30:00Z", "results": list(rows)}
    path.write_text(json.dumps({"evalId": "e", "results": results, "config": {}}))
    return path


def test_promptfoo_3(tmp_path: Path) -> None:
    failed = {"success": False, "score": 0.25, "failureReason": 1, "error": "Expected x"}
    error = {
        "success": False,
        "score": 0,
        "failureReason": 2,
        "error": "API",
        "gradingResult": None,
    }
    path = promptfoo_file(
        tmp_path / "out.json",
        promptfoo_row("one"),
        promptfoo_row("two", **failed),
        promptfoo_row("three", **error),
        promptfoo_row("four", testCase={"description": "the fourth", "vars": {"q": "four"}}),
    )
    run = read_scored(path)
    assert (run.kind, run.targets) == ("promptfoo", ["gpt"])
    assert scores(run) == {
        ("test-1", "gpt", 0): 1.0,
        ("test-2", "gpt", 0): 0.25,
        ("test-3", "gpt", 0): None,
        ("the fourth", "gpt", 0): 1.0,
    }
    first, second, third, _ = run.results
    assert (first.passed, second.passed, third.judged) == (True, False, False)
    assert (first.cost_usd, first.duration_ms, first.prompt) == (0.002, 250.0, None)


def test_promptfoo_repeats_prompts_and_scores_out_of_range(tmp_path: Path) -> None:
    other = {"prompt": {"raw": "x", "label": "long"}, "score": 3}
    rows = [promptfoo_row("one", testIdx=at) for at in range(2)]
    path = promptfoo_file(tmp_path / "out.json", *rows, promptfoo_row("one", **other))
    run = read_scored(path)
    found = [(r.test_id, r.prompt, r.repeat, r.score) for r in run.results]
    assert found == [
        ("test-1", "short", 0, 1.0),
        ("test-1", "short", 1, 1.0),
        ("test-1", "long", 0, 1.0),
    ]
    assert run.notes == ["out: scores outside of 0 to 1, which are taken as the nearest that is: 1"]


def test_promptfoo_names_tests_by_their_place_not_by_when_they_ended(tmp_path: Path) -> None:
    def row(at: int, word: str, score: float, **case: Any) -> dict[str, Any]:
        made = {"vars": {"w": word}, "assert": [], **case}
        return promptfoo_row("", testIdx=at, vars={"w": word}, testCase=made, score=score)

    # As promptfoo 0.121 writes it with --repeat 2: of a list of values, all of them twice over.
    rows = [row(9, "twin", 0.5), row(4, "b", 0.25, description="spread"), row(0, "slow", 0)]
    rows += [row(2, "b", 0.25, description="spread"), row(1, "slow", 1), row(6, "twin", 0.75)]
    rows += [row(1 + at, "a", 0.125, description="spread") for at in (0, 2)][::-1]
    rows += [row(5, "x", 0.375, description="Row #7"), row(10, "y", 0.625, description="spread")]
    rows += [row(11, "z", 0.875, description="d"), row(12, "q", 1, description="d")]
    path = promptfoo_file(tmp_path / "out.json", *rows)
    data = json.loads(path.read_text())
    data["runtimeOptions"] = {"repeat": 2}
    data["config"]["tests"] = [{"description": "spread", "vars": {"w": ["a", "b"]}}]
    path.write_text(json.dumps(data))
    found = {(r.test_id, r.repeat): r.score for r in read_scored(path).results}
    assert found == {
        ("test-1", 0): 0.0, ("test-1", 1): 1.0,
        ("spread-1", 0): 0.125, ("spread-1", 1): 0.125,
        ("spread-2", 0): 0.25, ("spread-2", 1): 0.25,
        ("test-4", 0): 0.375, ("test-5", 0): 0.5, ("test-5", 1): 0.75,
        ("spread-3", 0): 0.625, ("d", 0): 0.875, ("d (8)", 0): 1.0,
    }  # fmt: skip


def test_promptfoo_names_prompts_by_label_file_or_number(tmp_path: Path) -> None:
    raws = ["One {{q}}", "Two {{q}}", "Three {{q}}", "Four {{q}}", "Three {{q}}"]
    labels = [f"p/a.txt: {raws[0]}", f"p/a.txt: {raws[1]}", raws[2], "mine", raws[4]]
    listed = [
        {"label": label, "raw": raw, "provider": provider}
        for provider in ("gpt", "other")
        for label, raw in zip(labels, raws, strict=True)
    ]
    rows = [
        promptfoo_row("x", promptIdx=at, prompt={"label": labels[at % 5], "raw": "filled in"})
        for at in (7, 0, 1, 3, 4, 2)
    ]
    path = promptfoo_file(tmp_path / "out.json", *rows)
    data = json.loads(path.read_text())
    data["results"]["prompts"] = listed
    data["config"]["prompts"] = ["file://p/*.txt", raws[2], {"label": "mine"}, raws[2]]
    path.write_text(json.dumps(data))
    found = [r.prompt for r in read_scored(path).results]
    assert found == ["prompt-2", "p/a.txt#1", "p/a.txt#2", "mine", "prompt-4", "prompt-2"]


def test_promptfoo_2_tells_errors_otherwise(tmp_path: Path) -> None:
    row = promptfoo_row("one", success=False, score=0, error="API", gradingResult=None)
    del row["failureReason"]
    run = read_scored(promptfoo_file(tmp_path / "out.json", row, version=2))
    assert run.results[0].judged is False


@pytest.mark.parametrize("text", ["{", "[1]", '{"results": 5}', '{"results": {"results": [{}]}}'])
def test_json_that_is_no_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UsageError, match=r"not valid JSON|not the results of a run"):
        read_scored(tmp_path / "x.json")
