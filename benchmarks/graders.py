"""What a grader's program costs a case: one that stays, beside the same one started for each case.

    python benchmarks/graders.py [--cases 3000] [--rounds 3]

Both are the `script` grader with Python that looks for a word, eight cases at a time: `jsonl` with
`--cases` cases, and a process a case with a fiftieth of them. The third row is a case of
`code-exec`, sandbox included, where one can be had. Rates are medians, measured in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measure import Row, command_line, folder, tell

from muster.evals.case import Case
from muster.evals.graders.base import Grade, GradeContext, GraderError, GraderSpec
from muster.evals.graders.code_exec import CodeExec
from muster.evals.graders.script import Script
from muster.evals.scope import RunScope
from muster.provider import Message, ProviderResponse

VERDICT = "{'score': 1.0 if 'answer' in told['output'] else 0.0}"
PROGRAMS = {
    "jsonl": f"""
import json, sys
for line in sys.stdin:
    told = json.loads(line)
    print(json.dumps({{"id": told["id"], **{VERDICT}}}), flush=True)
""",
    "json": f"""
import json, sys
told = json.load(sys.stdin)
print(json.dumps({VERDICT}))
""",
}
AT_ONCE = 8
TIMES = 20


def spec(kind: str, config: Mapping[str, Any], place: Path) -> GraderSpec:
    return GraderSpec(type=kind, config=config, base_dir=place)


async def rate(grade: Grade, cases: int, output: str) -> float:
    """Cases a second, the processes' start and end in it."""
    scope = RunScope()
    numbers = iter(range(cases))
    case = Case(id="c", suite="s", input=(Message("user", "Why?"),))

    async def work() -> None:
        for _ in numbers:
            context = GradeContext(
                output=output, case=case, response=ProviderResponse(output), scope=scope
            )
            assert (await grade(context)).score == 1

    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    await scope.aclose()
    return cases / (time.perf_counter() - begun)


async def measured(place: Path, cases: int, rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for protocol, source in PROGRAMS.items():
            (place / f"by_{protocol}.py").write_text(source, encoding="utf-8")
            config = {"command": [sys.executable, f"by_{protocol}.py"], "protocol": protocol}
            count = cases if protocol == "jsonl" else max(AT_ONCE, cases // 50)
            grade = Script(spec("script", config, place))
            found.setdefault(protocol, []).append(await rate(grade, count, "The answer."))
        grade = CodeExec(spec("code-exec", {"test": "assert f(1) == 2"}, place))
        try:
            count = max(AT_ONCE, cases // 50)
            figure = await rate(grade, count, "def f(x): return x + 1")
        except GraderError as error:
            print(f"code-exec: {error}", file=sys.stderr)
        else:
            found.setdefault("code-exec", []).append(figure)
    return found


def main() -> None:
    """Measure in turns, and print."""
    parser: argparse.ArgumentParser = command_line(__doc__)
    parser.add_argument("--cases", type=int, default=3000)
    options = parser.parse_args()
    with folder() as place:
        found = asyncio.run(measured(place, options.cases, options.rounds or 3))
    rates = {name: statistics.median(figures) for name, figures in found.items()}
    base = rates["json"]
    rows = [
        Row(
            "cases a second",
            {"json": "a process a case"}.get(name, name),
            value,
            "/s",
            value / base,
            f"≥ {TIMES} ×" if name == "jsonl" else "",
            value >= TIMES * base if name == "jsonl" else None,
        )
        for name, value in rates.items()
    ]
    tell(rows, options)


if __name__ == "__main__":
    main()
