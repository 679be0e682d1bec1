"""`muster compare` of two runs of 100,000 cases, with 10,000 draws: time and memory.

Scores are graded, so that no two differences are alike: what is fast for zeros and ones does not
help. Costs and latencies are resampled as well.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from measure import MUSTER, Contender, Row, command_line, folder, measure, rows_of, tell

CASES = 100_000
AT_MOST_SECONDS = 5.0
AT_MOST_MB = 500.0


def write_run(path: Path, seed: int, better: float) -> None:
    """A run's `results.jsonl`, each line as `muster eval` writes it, about 1 kB."""
    rng = random.Random(seed)
    path.mkdir()
    with (path / "results.jsonl").open("w", encoding="utf-8") as out:
        for number in range(CASES):
            score = min(max(rng.gauss(0.7 + better, 0.2), 0.0), 1.0)
            answer = f"The answer to question {number} is {rng.random():.6f}. " * 6
            row = {
                "test_id": f"case-{number:06}",
                "suite": "large",
                "target": "model",
                "target_used": "model",
                "repeat": 0,
                "execution_status": "ok" if score >= 0.8 else "quality_failure",
                "score": score,
                "threshold": 0.8,
                "scores": [
                    {
                        "name": "graded",
                        "type": "script",
                        "score": score,
                        "weight": 1.0,
                        "verdict": "pass" if score >= 0.8 else "fail",
                        "assertions": [{"text": "as good as the reference", "passed": True}],
                    }
                ],
                "input": f"Question {number}?",
                "output": answer,
                "messages": [{"role": "assistant", "content": answer}],
                "error": None,
                "provider": "openai",
                "attempts": 1,
                "token_usage": {"input": 120, "output": 60},
                "cost_usd": rng.expovariate(1000),
                "duration_ms": rng.lognormvariate(6, 0.8),
                "started_at": "2026-11-21T10:59:30.061+00:00",
                "eval_path": "large.eval.yaml",
            }
            out.write(json.dumps(row) + "\n")


def main() -> None:
    """Write both runs, compare them a few times."""
    options = command_line(__doc__).parse_args()
    with folder() as where:
        write_run(where / "new", 1, 0.002)
        write_run(where / "old", 2, 0.0)
        argv = [MUSTER, "compare", str(where / "new"), str(where / "old"), "--draws", "10000"]
        contenders = [Contender("muster", argv)]
        found = measure(contenders, rounds=options.rounds or 3, cwd=where)
    what = f"compare, 2 x {CASES:,} cases, 10,000 draws"
    rows = rows_of(what, found, bare=None, at_most=AT_MOST_SECONDS)
    peak = max(found["muster"].peak_mb)
    target = f"≤ {AT_MOST_MB:g} MB"
    rows.append(Row(f"{what}: memory", "muster", peak, "MB", None, target, peak <= AT_MOST_MB))
    tell(rows, options)


if __name__ == "__main__":
    main()
