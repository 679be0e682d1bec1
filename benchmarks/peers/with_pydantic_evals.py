"""The workload through pydantic-evals, writing nothing.

python with_pydantic_evals.py instant|sleeping|copy CASES.jsonl WORKERS
"""

from __future__ import annotations

import asyncio
import sys

from pydantic_evals import Case, Dataset
from pydantic_evals.evaluators import Contains
from work import TASKS, read_cases


async def main(task: str, path: str, workers: str) -> None:
    """Run it, and see that every case was judged."""
    cases = [Case(name=case["id"], inputs=case["input"]) for case in read_cases(path)]
    dataset = Dataset(name="benchmark", cases=cases, evaluators=[Contains("question")])
    report = await dataset.evaluate(TASKS[task], max_concurrency=int(workers), progress=False)
    assert len(report.cases) == len(cases)
    assert not report.failures
    assert all(all(a.value for a in case.assertions.values()) for case in report.cases)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
