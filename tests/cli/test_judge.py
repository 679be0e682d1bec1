"""Judges by the command line, one of them a model server that others wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest
from muster_project import Project

from llmock import journal, llmock

USAGE = {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25}


def says(word: str, content: Any) -> dict[str, Any]:
    text = content if isinstance(content, str) else json.dumps(content)
    return {"match": {"userMessage": word}, "response": {"content": text, "usage": USAGE}}


FIXTURES = [
    says("JUDGE-ELEVEN", {"score": 11}),
    says("JUDGE-LIST", "[1]"),
    says("JUDGE-HALF", '{"score": 0.'),
    says("JUDGE-PROSE", "A fine answer."),
    # Wrong in known ways: whatever claims to be right is right, and the first of two is better.
    says("CLAIM-RIGHT", {"reason": "it says so", "assertions": [], "score": 1}),
    says("answer A", {"reason": "first", "winner": "A"}),
    says("answer", {"reason": "no claim", "assertions": [], "score": 0}),
]
TARGETS = """
targets:
  - {name: default, provider: echo, judge_target: judge}
  - {name: other, provider: mock, response: CLAIM-RIGHT other}
  - name: judge
    provider: openai
    base_url: URL/v1
    model: gpt-4o-mini
    api_key: ${{ JUDGE_KEY }}
"""
KEY = {"JUDGE_KEY": "key-of-the-test"}
SUITE = """
name: judged
tests:
  - {id: good, input: CLAIM-RIGHT, assertions: [{type: llm-grader, criteria: It is right.}]}
  - {id: poor, input: hm, assertions: [{type: llm-grader, criteria: It is right.}]}
  - {id: eleven, input: JUDGE-ELEVEN, criteria: It is right.}
  - {id: list, input: JUDGE-LIST, criteria: It is right.}
  - {id: half, input: JUDGE-HALF, criteria: It is right.}
  - {id: prose, input: JUDGE-PROSE, criteria: It is right.}
"""


@pytest.mark.node
def test_a_judge_behind_a_server(project: Project) -> None:
    with llmock(FIXTURES) as url:
        project.write("targets.yaml", TARGETS.replace("URL", url))
        project.write("judged.eval.yaml", SUITE)
        rows = [("CLAIM-RIGHT", "pass", 6), ("plain", "pass", 2), ("CLAIM-RIGHT", "fail", 3)]
        rows += [("plain", "fail", 9)]
        lines = [
            json.dumps({"input": "q", "output": f"{word} {n}", "label": label})
            for word, label, count in rows
            for n in range(count)
        ]
        lines += [json.dumps({"input": "q", "a": f"x{n}", "b": f"y{n}"}) for n in range(5)]
        project.write("labels.jsonl", "\n".join(lines))

        checked = project.run(
            "judge", "check", "labels.jsonl", "--judge", "judge", "--criteria", "It is right.",
            "--json", env=KEY,
        )  # fmt: skip
        assert checked.code == 0, checked.text
        answers, pairs = checked.json()["records"]
        # Of 20: 15 agree; passes 8 and 9 of 20 make 0.51 by chance.
        assert answers["kappa"]["value"] == pytest.approx((0.75 - 0.51) / 0.49)
        assert answers["model"] == "gpt-4o-mini"
        assert answers["judge_token_usage"] == {"input": 400, "output": 100}
        assert answers["judge_cost_usd"] > 0
        assert pairs["position_bias"]["net"]["value"] == 1.0

        ended = project.eval("judged.eval.yaml", "--output", "run", env=KEY)
        assert ended.code == 1
        assert journal(url)[0]["body"]["response_format"]["type"] == "json_schema"
    found = project.by_id()
    assert {name: row["score"] for name, row in found.items()} == {
        "good": 1.0, "poor": 0.0, "eleven": None, "list": None, "half": None, "prose": None,
    }  # fmt: skip
    for name, why in {
        "eleven": '"score" is 11, which is not from 0 to 1',
        "list": "it is a list, not a JSON object",
        "half": "its JSON is cut short",
        "prose": "it is prose without a JSON object",
    }.items():
        assert why in found[name]["error"]
        assert found[name]["error_kind"] == "grader_error"
        assert found[name]["judge_calls"] == 3
        assert found[name]["judge_token_usage"] == {"input": 60, "output": 15}
    assert found["good"]["cost_usd"] is None or found["good"]["cost_usd"] == 0
    assert found["good"]["judge_cost_usd"] > 0
    assert "judging default: 14 calls, 350 tokens, $" in ended.out
    assert "judge judge (gpt-4o-mini) in llm-grader: agreement 75.0% [53.1%, 88.8%]" in ended.out
    (known,) = project.record()["judges"]
    assert known["check"]["judged"] == 20
    assert "key-of-the-test" not in (project.root / "run/run.json").read_text()


MOCKS = """
targets:
  - {name: one, provider: mock, response: the better answer}
  - {name: two, provider: mock, response: an answer}
  - name: judge
    provider: mock
    replies: [{regex: 'answer A ## ..\\n<data-\\d+>\\nthe better', json: {winner: A}}]
    default: '{"winner": "B"}'
  - {name: first, provider: mock, response: '{"winner": "A"}'}
  - {name: mute, provider: mock, response: ''}
"""
PAIRED = """
targets: [one, two]
tests:
  - {id: a, input: q1, assertions: [{type: contains, value: answer}]}
  - {id: b, input: q2, assertions: [{type: contains, value: answer}]}
"""


def test_two_targets_compared_by_a_judge(project: Project) -> None:
    project.write("targets.yaml", MOCKS)
    project.write("s.eval.yaml", PAIRED)
    assert project.eval("s.eval.yaml", "--output", "run").code == 0
    ended = project.run("judge", "pairs", "run", "--judge", "judge", "--json", "-o", "pairs.jsonl")
    assert ended.code == 0, ended.text
    report = ended.json()
    assert (report["a_wins"], report["b_wins"], report["ties"]) == (2, 0, 0)
    assert report["net_preference"]["value"] == 1.0
    assert report["consistent"]["value"] == 1.0
    assert report["judge_calls"] == 4
    rows = [json.loads(line) for line in (project.root / "pairs.jsonl").read_text().splitlines()]
    assert [(row["test_id"], row["winner"]) for row in rows] == [("a", "a"), ("b", "a")]

    biased = project.run("judge", "pairs", "run", "--judge", "first")
    assert "0, 0, 2" in biased.out
    assert "first 2, second 0" in biased.out
    assert "not measured with this prompt" in biased.out

    mute = project.run("judge", "pairs", "run", "--judge", "mute")
    assert mute.code == 1
    assert "it is empty" in mute.out


def test_what_cannot_be_compared(project: Project) -> None:
    project.write("targets.yaml", MOCKS)
    project.write("s.eval.yaml", PAIRED)
    project.write("o.eval.yaml", PAIRED.replace("id: a", "id: x").replace("id: b", "id: y"))
    assert project.eval("s.eval.yaml", "--output", "run", "-t", "one").code == 0
    assert project.eval("o.eval.yaml", "--output", "other", "-t", "two").code == 0
    for arguments, told in {
        ("run",): "run has 1 targets (one); say which two",
        ("run", "run"): "both sides are the same target of the same run",
        ("run", "other"): "share no case; there is nothing to compare",
        ("run", "other", "-t", "one"): 'other has no target "one" (it has two)',
        ("run", "other", "run"): "one run or two, not more",
        ("nowhere", "run"): "no results.jsonl there",
    }.items():
        ended = project.run("judge", "pairs", *arguments, "--judge", "judge")
        assert ended.code == 2
        assert told in ended.err
    ended = project.run("judge", "pairs", "run", "other", "--judge", "jugde")
    assert (ended.code, '"jugde"' in ended.err) == (2, True)


def test_the_report_of_a_check(project: Project) -> None:
    project.write(
        "targets.yaml",
        """
targets:
  - name: judge
    provider: mock
    replies: [{regex: 'good', json: {score: 1}}]
    default: '{"score": 0}'
""",
    )
    project.write(
        "labels.yaml",
        """
judge_target: judge
criteria: It is right.
examples:
  - {input: q, output: good, label: pass}
  - {input: q, output: poor, label: fail}
  - {input: q, output: good too, label: fail}
""",
    )
    ended = project.run("judge", "check", "labels.yaml", "--no-store")
    assert ended.code == 0
    assert "judge judge on 3 of 3 answers" in ended.out
    assert "agreement            66.7% [20.8%, 93.9%]" in ended.out
    assert not (project.root / ".muster/judges").exists()
    ended = project.run("judge", "check", "labels.yaml")
    assert "kept: " in ended.out
    assert len(list((project.root / ".muster/judges").glob("judge-*.json"))) == 1
