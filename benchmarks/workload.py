"""The cases, targets and suites that the whole-process benchmarks run, and the check of results."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ("check_results", "write_project")

AGENT = """\
import asyncio


async def instant(request):
    return request.question


async def sleeping(request):
    await asyncio.sleep(0.05)
    return request.question
"""

TARGETS = """\
targets:
  - name: instant
    provider: function
    function: agent:instant
  - name: sleeping
    provider: function
    function: agent:sleeping
  - name: copy
    provider: cli
    command: cp {PROMPT_FILE} {OUTPUT_FILE}
"""

SUITE = """\
name: benchmark
tests: cases.jsonl
assertions:
  - {type: contains, value: question}
"""


def write_project(folder: Path, cases: int) -> None:
    """A project with `cases` cases, one grader each; `cases.jsonl` serves all contenders."""
    (folder / "agent.py").write_text(AGENT)
    (folder / "targets.yaml").write_text(TARGETS)
    (folder / "suite.eval.yaml").write_text(SUITE)
    with (folder / "cases.jsonl").open("w") as file:
        for number in range(cases):
            row = {"id": f"case-{number}", "input": f"question {number}"}
            file.write(json.dumps(row) + "\n")


def check_results(path: Path, cases: int) -> None:
    """Every case is there once, and right. Raises `SystemExit` when not."""
    seen = set()
    with path.open() as lines:
        for line in lines:
            row = json.loads(line)
            number = row["test_id"].removeprefix("case-")
            if row["score"] != 1.0 or row["output"].strip() != f"question {number}":
                raise SystemExit(f"{path}: a wrong result: {line}")
            seen.add(number)
    if len(seen) != cases:
        raise SystemExit(f"{path}: {len(seen)} results, not {cases}")
