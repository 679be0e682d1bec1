"""A judge that is wrong in known ways is found to be so."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest

from eval_parts import make_result
from muster.cli.main import main
from muster.errors import ConfigError, MusterError, UsageError
from muster.evals.evaluation import run
from muster.evals.judge_check import JudgeOptions, check_judge
from muster.evals.judge_desk import Desk
from muster.evals.judge_examples import read_examples
from muster.evals.judge_records import JudgeId, JudgeTotals, find_record
from muster.evals.plan import EvalOptions
from muster.evals.planning import prepare

TARGETS = """\
targets:
  - name: judge
    provider: mock
    model: m-1
    replies:
      - regex: 'SAYS-PASS'
        json: {score: 0.9, reason: marked}
        usage: {input: 7, output: 3}
        cost_usd: 0.5
      - {regex: 'SAYS-PROSE', text: I would rather not.}
    default: '{"score": 0.1}'
  - name: long-winded
    provider: mock
    replies: [{regex: '(word ){20}', json: {score: 1}}]
    default: '{"score": 0}'
  - name: first
    provider: mock
    response: '{"winner": "A", "reason": "it came first"}'
  - name: fair
    provider: mock
    replies:
      - {regex: 'answer A ## ..\\n<data-\\d+>\\ngood', json: {winner: A}}
    default: '{"winner": "B"}'
  - {name: default, provider: echo, judge_target: judge}
"""


def labelled(passes: int, false_fails: int, false_passes: int, fails: int) -> list[dict[str, Any]]:
    """As many examples of each kind, by what the judge will say."""
    kinds = [
        ("pass", "SAYS-PASS", passes),
        ("pass", "says no", false_fails),
        ("fail", "SAYS-PASS", false_passes),
        ("fail", "says no", fails),
    ]
    rows = [
        {"id": f"{label}-{word}-{n}", "input": "q", "output": f"{word} {n}", "label": label}
        for label, word, count in kinds
        for n in range(count)
    ]
    random.Random(0).shuffle(rows)
    return rows


def check(
    folder: Path,
    rows: list[dict[str, Any]],
    judge: str = "judge",
    criteria: str | None = "C",
    **bounds: Any,
) -> list[dict[str, Any]]:
    (folder / "targets.yaml").write_text(TARGETS)
    path = folder / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    desk = Desk(folder, **bounds)

    async def work() -> list[dict[str, Any]]:
        options = JudgeOptions(judge=judge, criteria=criteria)
        try:
            return list((await check_judge(read_examples(path), options, desk)).records)
        finally:
            await desk.aclose()

    return asyncio.run(work())


def test_the_planted_kappa_is_found(tmp_path: Path) -> None:
    (record,) = check(tmp_path, labelled(20, 5, 10, 15))
    assert record["kappa"]["value"] == pytest.approx(0.4)
    low, high = record["kappa"]["interval"]
    assert (low, high) == pytest.approx((0.1511, 0.6489), abs=1e-4)
    assert record["agreement"]["value"] == 0.7
    assert record["agreement"]["interval"] == pytest.approx([0.5625, 0.8090], abs=1e-4)
    assert record["confusion"] == {
        "labelled_pass": {"judged_pass": 20, "judged_fail": 5},
        "labelled_fail": {"judged_pass": 10, "judged_fail": 15},
    }
    assert record["passes_found"]["value"] == 0.8
    assert record["fails_found"]["value"] == 0.6
    assert record["leniency"]["value"] == pytest.approx(0.1)
    assert (record["judged"], record["errors"]) == (50, 0)
    assert record["judge_calls"] == 50
    assert record["judge_token_usage"] == {"input": 210, "output": 90}
    assert record["judge_cost_usd"] == 15.0


def test_what_it_said_of_each_is_written(tmp_path: Path) -> None:
    (tmp_path / "targets.yaml").write_text(TARGETS)
    rows = [*labelled(1, 0, 1, 0), {"id": "e", "input": "q", "output": "SAYS-PROSE", "label": 1}]
    (tmp_path / "l.json").write_text(json.dumps(rows))
    out = tmp_path / "rows.jsonl"
    command = ["judge", "check", str(tmp_path / "l.json"), "--judge", "judge", "--criteria", "C"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--no-store", "--output", str(out)])
    assert ended.value.code == 1  # one had no verdict
    told = {row["id"]: row for row in map(json.loads, out.read_text().splitlines())}
    good, bad, broken = (told[name] for name in ("pass-SAYS-PASS-0", "fail-SAYS-PASS-0", "e"))
    assert (good["label"], good["score"], good["passed"], good["agrees"]) == (1, 0.9, True, True)
    assert (bad["label"], bad["passed"], bad["agrees"], bad["reason"]) == (0, True, False, "marked")
    assert "prose without a JSON object" in broken["error"]


def test_a_judge_without_verdicts_is_an_error_and_no_zero(tmp_path: Path) -> None:
    odd = {"id": "odd", "input": "q", "output": "SAYS-PROSE", "label": "pass"}
    rows = [*labelled(2, 0, 0, 2), odd]
    (record,) = check(tmp_path, rows)
    assert (record["examples"], record["judged"], record["errors"]) == (5, 4, 1)
    assert record["agreement"]["value"] == 1.0
    assert record["error_examples"][0]["id"] == "odd"
    assert "it is prose" in record["error_examples"][0]["error"]
    with pytest.raises(MusterError, match="the judge gave no verdict"):
        check(tmp_path, rows[-1:])


@pytest.mark.parametrize(("bounds", "calls"), [({"max_calls": 3}, 3), ({"budget_usd": 2.0}, 4)])
def test_bounds_are_held_before_each_call(
    tmp_path: Path, bounds: dict[str, Any], calls: int
) -> None:
    """Each call costs $0.5. What was not asked is no error, and a part is not kept."""
    (record,) = check(tmp_path, labelled(10, 0, 0, 0), **bounds)
    assert record["judge_calls"] == record["judged"] == calls
    assert (record["errors"], record["not_asked"]) == (0, 10 - calls)
    assert record["judge_cost_usd"] == calls * 0.5
    assert not (tmp_path / ".muster").exists()


def test_a_pair_half_asked_is_not_asked(tmp_path: Path) -> None:
    rows = [{"id": str(n), "input": "q", "a": "x", "b": "y", "label": "a"} for n in range(3)]
    (record,) = check(tmp_path, rows, judge="first", max_calls=3, workers=1)
    assert (record["judged"], record["errors"], record["not_asked"]) == (1, 0, 2)


def test_the_planted_bias_by_length_is_found(tmp_path: Path) -> None:
    rows = [
        {"input": "q", "output": "word " * (30 if n % 2 else 3), "label": n % 4 < 2}
        for n in range(60)
    ]
    (record,) = check(tmp_path, rows, "long-winded")
    bias = record["length_bias"]
    assert bias["difference"]["value"] == pytest.approx(1.0)
    assert bias["difference"]["interval"][0] > 0.7
    assert record["kappa"]["value"] == pytest.approx(0.0, abs=1e-9)


def test_long_answers_that_are_better_are_no_bias(tmp_path: Path) -> None:
    rows = [
        {"input": "q", "output": "word " * (30 if n % 2 else 3), "label": bool(n % 2)}
        for n in range(60)
    ]
    (record,) = check(tmp_path, rows, "long-winded")
    low, high = record["length_bias"]["difference"]["interval"]
    assert low < 0 < high
    assert record["kappa"]["value"] == 1.0


def pairs(count: int) -> list[dict[str, Any]]:
    rows = []
    for n in range(count):
        good, poor = f"good {n}", f"poor {n}"
        a, b = (good, poor) if n % 2 else (poor, good)
        rows.append({"input": "q", "a": a, "b": b, "label": "a" if n % 2 else "b"})
    return rows


def test_the_planted_bias_by_position_is_found(tmp_path: Path) -> None:
    (record,) = check(tmp_path, pairs(40), "first")
    bias = record["position_bias"]
    assert (bias["drawn_to_first"], bias["drawn_to_second"]) == (40, 0)
    assert bias["net"]["value"] == 1.0
    assert bias["net"]["interval"][0] > 0.8
    assert record["consistent"]["value"] == 0.0
    assert record["confusion"]["labelled_a"]["judged_tie"] == 20


def test_a_judge_that_does_not_look_at_the_order_has_no_such_bias(tmp_path: Path) -> None:
    (record,) = check(tmp_path, pairs(40), "fair")
    assert record["agreement"]["value"] == record["consistent"]["value"] == 1.0
    low, high = record["position_bias"]["net"]["interval"]
    assert low < 0 < high
    assert record["judge_calls"] == 80


def test_scores_are_compared_with_weights(tmp_path: Path) -> None:
    rows = [
        {"input": "q", "output": "SAYS-PASS" if n % 2 else "no", "score": 0.8 if n % 2 else 0.2}
        for n in range(20)
    ]
    (record,) = check(tmp_path, rows)
    assert record["score_error"]["value"] == pytest.approx(0.0, abs=1e-9)
    assert record["mean_absolute_error"] == pytest.approx(0.1)
    # In tenths, all are 1 apart; by chance half would be 1 apart, half 7, 25 squared on average.
    assert record["weighted_kappa"]["value"] == pytest.approx(1 - 1 / 25)


# --- kept, and shown later ------------------------------------------------------------------------


def run_record(folder: Path, criteria: str) -> list[dict[str, Any]]:
    (folder / "s.eval.yaml").write_text(
        "tests: [{id: a, input: SAYS-PASS, assertions: "
        f"[{{type: llm-grader, criteria: {criteria}}}]}}]"
    )
    options = EvalOptions(paths=(str(folder / "s.eval.yaml"),), output=folder / f"run-{criteria}")

    async def work() -> Any:
        plan = prepare(options)
        try:
            return (await run(plan)).record
        finally:
            await plan.aclose()

    found: list[dict[str, Any]] = asyncio.run(work())["judges"]
    return found


def test_what_was_measured_is_shown_beside_later_scores(tmp_path: Path) -> None:
    (record,) = check(tmp_path, labelled(20, 5, 10, 15))
    judge = JudgeId("judge", "m-1", record["prompt_hash"])
    assert find_record(tmp_path, judge) == json.loads(json.dumps(record))
    (known,) = run_record(tmp_path, "C")
    assert known["target"] == "judge"
    assert known["verdicts"] == 1
    assert known["check"]["kappa"]["value"] == pytest.approx(0.4)
    (other,) = run_record(tmp_path, "D")
    assert other["check"] is None


def test_a_broken_record_is_no_record(tmp_path: Path) -> None:
    (record,) = check(tmp_path, labelled(1, 1, 1, 1))
    judge = JudgeId("judge", "m-1", record["prompt_hash"])
    path = tmp_path / ".muster/judges" / judge.file_name
    path.write_text(path.read_text()[:50])
    assert find_record(tmp_path, judge) is None


# --- files of examples ----------------------------------------------------------------------------


def test_all_kinds_of_files_say_the_same(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "input": "q, or\nnot", "output": "x", "label": "pass"},
        {"id": "2", "input": "q", "output": "y", "label": "fail"},
        {"id": "3", "input": "q", "output": "z", "label": "0.25"},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "a.json").write_text(json.dumps(rows))
    (tmp_path / "a.yaml").write_text(json.dumps({"examples": rows, "criteria": "C"}))
    text = 'id,input,output,label\n1,"q, or\nnot",x,pass\n2,q,y,fail\n3,q,z,0.25\n'
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "a.tsv").write_text(
        text.replace('"q, or\nnot"', '"q, or\nnot"').replace(",", "\t").replace("q\t or", "q, or")
    )
    files = [
        read_examples(tmp_path / f"a.{kind}") for kind in ("jsonl", "json", "yaml", "csv", "tsv")
    ]
    assert [one.score for one in files[0].examples] == [1.0, 0.0, 0.25]
    assert all(file.examples == files[0].examples for file in files)
    assert files[2].judge == {"criteria": "C"}


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.yaml", "examples: [{output: x}]", 'a.yaml:1:12: examples[0]: "label" is required'),
        (
            "a.yaml",
            "examples: [{output: x, label: perhaps}]",
            "a.yaml:1:31: examples[0].label: expected pass or fail, or a number from 0 to 1, found",
        ),
        ("a.yaml", "examples: [{label: pass}]", '"output" is required'),
        ("a.yaml", "examples: [{output: x, score: 3}]", "expected a score from 0 to 1, found 3"),
        ("a.yaml", "examples: [{output: x, lable: pass}]", 'unknown field "lable"'),
        ("a.yaml", "examples: [{a: x, label: a}]", "a pair has `a` and `b`"),
        ("a.yaml", "examples: [{a: x, b: y, label: c}]", 'expected a, b or tie, found "c"'),
        ("a.yaml", "examples: []", "holds no example"),
        ("a.yaml", "tests: []", "expected `examples`"),
        (
            "a.jsonl",
            '{"output": "x", "label": "pass"}\n{"output": "x",',
            "a.jsonl:2: not valid JSON",
        ),
        ("a.jsonl", '{"output": "x", "label": 7}', "a.jsonl:1:26: label: expected pass or fail"),
        ("a.csv", "output,label\nx,pass\ny\n", "a.csv:3:1: has not as many columns as the header"),
        ("a.csv", "output,label\nx,pass\ny,maybe\n", "a.csv:3:1: label: expected pass or fail"),
    ],
)
def test_mistakes_in_examples(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_examples(tmp_path / name)
    assert told in str(caught.value)


def test_same_ids(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "- {id: x, output: a, label: pass}\n- {id: x, output: b, label: pass}\n"
    )
    with pytest.raises(ConfigError, match=r'a\.yaml:2:8: .*two examples have the id "x"'):
        read_examples(tmp_path / "a.yaml")


def test_no_judge(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("criteria: C\nexamples: [{output: a, label: pass}]\n")
    desk = Desk(tmp_path)
    with pytest.raises(UsageError, match="no target judges"):
        asyncio.run(check_judge(read_examples(tmp_path / "a.yaml"), JudgeOptions(), desk))


@pytest.mark.parametrize(
    "details",
    [
        {"judge": 5},
        {"judge": {"prompt_hash": "x"}},
        {"judges": [5, {"prompt_hash": "x", "target": "t", "passed": True}], "duels": [5, {}]},
        {"judges": "all", "judge": {"prompt_hash": "x", "target": "t"}, "duels": 3, "scores": 4},
        {"scores": [{"details": {"judge": {"prompt_hash": "x", "target": "t"}}}]},
    ],
)
def test_details_of_other_graders_do_no_harm(details: dict[str, Any]) -> None:
    totals = JudgeTotals()
    row = {"name": "own", "details": details}
    totals.add(make_result(scores=[row], judge_calls=1))
    json.dumps(totals.to_list())


def test_judges_of_a_run_are_added_up() -> None:
    totals = JudgeTotals()
    judge = {"target": "j", "model": "m", "prompt_hash": "h"}
    for passes in ((True, True), (True, False), (False, False), (True, True)):
        votes = [judge | {"passed": passed} for passed in passes]
        row = {"name": "panel", "details": {"judges": votes}}
        totals.add(make_result(scores=[{"name": "set", "scores": [row]}], judge_calls=2))
    (found,) = totals.to_list()
    assert (found["target"], found["verdicts"], found["graders"]) == ("j×2", 4, ["panel"])
    assert found["agreement"]["raw"] == 0.75
    # 5 passes and 3 fails: 15 of 28 pairs differ by chance, and 1 of the 4 that were made.
    assert found["agreement"]["krippendorff_alpha"] == pytest.approx(1 - 0.25 / (15 / 28))
