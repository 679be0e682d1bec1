"""The workload through Braintrust's `EvalAsync`, sending and writing nothing.

python with_braintrust.py instant|sleeping|copy CASES.jsonl WORKERS
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from braintrust import EvalAsync
from work import TASKS, read_cases


def contains(input: str, output: str, expected: Any = None) -> float:
    """The one grader."""
    return float("question" in output)


async def main(task: str, path: str, workers: str) -> None:
    """Run it, and see that every case was judged."""
    cases = [{"input": case["input"]} for case in read_cases(path)]
    result = await EvalAsync(
        "benchmark",
        data=cases,
        task=TASKS[task],
        scores=[contains],
        max_concurrency=int(workers),
        no_send_logs=True,
    )
    assert len(result.results) == len(cases)
    assert all(row.error is None and row.scores["contains"] == 1.0 for row in result.results)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
