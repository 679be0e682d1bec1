"""The programs that everything is compared with: the same work, the same lines, and nothing else.

    python benchmarks/bare.py instant|sleeping|copy CASES.jsonl WORKERS RESULTS.jsonl

`instant` and `sleeping` are loops over asyncio; `copy` is one over `os.posix_spawn` and `os.wait`.
Each line of results has what a line of Muster's has.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import IO, Any

Call = Callable[[str], Awaitable[str]]


def cases_in(path: str) -> Iterator[dict[str, Any]]:
    """The cases, one at a time."""
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def line_of(case: dict[str, Any], target: str, provider: str, output: str, start: float) -> str:
    """A line of results: the grader is `contains`."""
    passed = "question" in output
    score = {
        "name": "contains-question",
        "type": "contains",
        "score": float(passed),
        "weight": 1.0,
        "verdict": "pass" if passed else "fail",
        "assertions": [{"text": 'Output contains "question"', "passed": passed}],
        "duration_ms": 0.004,
    }
    row = {
        "test_id": case["id"],
        "suite": "benchmark",
        "target": target,
        "execution_status": "ok" if passed else "quality_failure",
        "score": float(passed),
        "threshold": 0.8,
        "scores": [score],
        "input": case["input"],
        "output": output,
        "messages": [{"role": "assistant", "content": output}],
        "provider": provider,
        "duration_ms": round((time.perf_counter() - start) * 1000, 3),
        "started_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "eval_path": "suite.eval.yaml",
        "category": "Uncategorized",
    }
    return json.dumps(row) + "\n"


def loop(name: str, cases: Iterator[dict[str, Any]], workers: int, results: IO[str]) -> None:
    """`workers` coroutines take the cases from one iterator."""
    import asyncio

    async def instant(question: str) -> str:
        return question

    async def sleeping(question: str) -> str:
        await asyncio.sleep(0.05)
        return question

    call: Call = instant if name == "instant" else sleeping

    async def work() -> None:
        for case in cases:
            start = time.perf_counter()
            output = await call(case["input"])
            results.write(line_of(case, name, "function", output, start))

    async def run() -> None:
        await asyncio.gather(*(work() for _ in range(workers)))

    asyncio.run(run())


def copies(cases: Iterator[dict[str, Any]], workers: int, results: IO[str], folder: str) -> None:
    """`workers` children at a time, each one `cp` of a prompt file to an output file."""
    program = "/bin/cp"
    live: dict[int, tuple[dict[str, Any], float, str, str]] = {}
    case = next(cases, None)
    while case is not None or live:
        while case is not None and len(live) < workers:
            prompt, output = f"{folder}/{case['id']}.prompt", f"{folder}/{case['id']}.output"
            start = time.perf_counter()
            with open(prompt, "w", encoding="utf-8") as file:
                file.write(case["input"])
            pid = os.posix_spawn(program, [program, prompt, output], os.environ)
            live[pid] = (case, start, prompt, output)
            case = next(cases, None)
        pid, status = os.wait()
        done, start, prompt, output = live.pop(pid)
        assert status == 0
        with open(output, encoding="utf-8") as file:
            text = file.read()
        os.unlink(prompt)
        os.unlink(output)
        results.write(line_of(done, "copy", "cli", text, start))


def main(name: str, path: str, workers: str, out: str) -> None:
    """Be one of the programs."""
    with open(out, "w", encoding="utf-8") as results:
        if name == "copy":
            copies(cases_in(path), int(workers), results, os.path.dirname(out))
        else:
            loop(name, cases_in(path), int(workers), results)


if __name__ == "__main__":
    main(*sys.argv[1:])
