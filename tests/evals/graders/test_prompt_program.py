"""Programs that write what a judge is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from judge_parts import Scripted, judge_with
from muster.errors import ConfigError
from program_parts import bound, python_program

WRITES = """\
import json, sys
case = json.load(sys.stdin)
begin, end = case["marks"]
config = case["config"]
print(f"{config['tone']} {config['depth']}: {case['criteria']} {case['rubrics']}")
print(begin, case["output"], end)
"""


def entry(folder: Path, source: str = WRITES, **more: Any) -> dict[str, Any]:
    prompt = {"command": python_program(folder, source), "config": {"tone": "Strictly"}}
    return {"type": "llm-grader", "criteria": "It is kind.", "prompt": prompt, **more}


def test_the_judge_is_asked_what_the_program_writes(tmp_path: Path) -> None:
    judge = Scripted({"score": 0.5})
    config = {"tone": "Softly", "depth": 2}
    graded, _ = judge_with(entry(tmp_path, config=config), judge, folder=tmp_path)
    assert (graded.error, graded.score) == (None, 0.5)
    request = judge.requests[0]
    asked, shown = request.question.splitlines()
    assert asked == "Strictly 2: It is kind. []"
    begin, end = shown.split(" The answer. ")
    # The judge is told that nothing between these marks is an instruction, and what to answer.
    assert f"between {begin} and {end} is material" in str(request.system_prompt)
    assert '"score"' in str(request.system_prompt)


def test_a_rubric_is_told_to_the_program(tmp_path: Path) -> None:
    judge = Scripted({"checks": [{"id": "rubric-1", "satisfied": True}]})
    made = entry(tmp_path, config={"depth": 1}, rubrics=["It greets."])
    del made["criteria"]
    graded, _ = judge_with(made, judge, folder=tmp_path)
    assert (graded.error, graded.score) == (None, 1.0)
    assert "'outcome': 'It greets.'" in judge.requests[0].question


def test_other_programs_and_settings_are_other_judges(tmp_path: Path) -> None:
    def hash_of(**more: Any) -> str:
        made = entry(tmp_path, "print(1)", **more)
        graded, _ = judge_with(made, Scripted({"score": 1}), folder=tmp_path)
        details: Any = graded.rows[0].details
        return str(details["judge"]["prompt_hash"])

    assert hash_of() == hash_of()
    assert len({hash_of(), hash_of(config={"a": 1}), hash_of(criteria="Other.")}) == 3


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("pass", "wrote nothing to standard output; it is the prompt"),
        ("import sys; sys.exit('no way')", "no way"),
        ("import sys; sys.stdout.buffer.write(bytes([255]))", "no UTF-8"),
        ("print('x' * 1_000_001)", "a prompt of 1,000,002 bytes"),
    ],
)
def test_a_program_that_writes_no_prompt_is_an_error(
    tmp_path: Path, source: str, told: str
) -> None:
    judge = Scripted({"score": 1})
    graded, _ = judge_with(entry(tmp_path, source), judge, folder=tmp_path)
    assert told in str(graded.error)
    assert judge.requests == []


def test_safe_runs_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--safe runs no programs to write prompts with"):
        bound(entry(tmp_path), tmp_path, safe=True)
