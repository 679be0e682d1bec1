"""100,000 instant JSONL cases: time a case, peak memory, and reading results amid the run.

    python benchmarks/large_suite.py [--rounds N] [--cases 100000]

The CPU of a case is compared with that among a tenth of the cases, less what a suite of ten takes,
so that start-up does not hide a time that grows faster than the cases.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

from measure import MUSTER, Row, command_line, environment, folder, measure, rows_of, tell
from whole_run import bare, muster
from workload import write_project

PEAK_MB = 200
GROWTH = 1.3
"""How much dearer a case may be among ten times as many. 1 is linear; the rest is for noise, and
for the second reading of a suite that is too large to be kept."""
WORKERS = 8


def rounds_of(cases: int, rounds: int) -> tuple[list[Row], float, float]:
    """The rows of one size, the median CPU seconds of the run and its highest peak."""
    with folder() as cwd:
        write_project(cwd, cases)
        contenders = [bare("instant", cases, WORKERS), muster("instant", cases, WORKERS)]
        found = measure(contenders, rounds=rounds, cwd=cwd)
    ours = found["muster"]
    rows = rows_of(f"{cases:,} instant cases", found)
    return rows, statistics.median(ours.cpu), max(ours.peak_mb)


def read_amid(cases: int) -> tuple[int, int]:
    """Results that another process can read amid the run, and those that are there at its end."""
    with folder() as cwd:
        write_project(cwd, cases)
        argv = muster("instant", cases, WORKERS).argv
        argv = [part.replace("{out}", str(cwd)) for part in argv]
        os.chdir(cwd)
        null = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
        pid = os.posix_spawn(MUSTER, argv, environment(), file_actions=null)
        amid, results = 0, cwd / "run/results.jsonl"
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if not amid:
                amid = _readable(results, at_least=cases // 10)
            time.sleep(0.01)
        os.chdir("/")
        return amid, _readable(results)


def _readable(path: Path, at_least: int = 0) -> int:
    """How many results `muster`'s own reader gives; 0 while there are fewer than asked for."""
    if not path.exists() or path.stat().st_size < at_least * 200:
        return 0
    from muster.evals.results import read_results

    return sum(1 for _ in read_results(path.parent))


def main() -> None:
    """Measure both sizes, then read amid a run."""
    parser = command_line(__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    options = parser.parse_args()
    cases, rounds = options.cases, options.rounds or 3
    _, start, _ = rounds_of(10, rounds)
    few_rows, few, _ = rounds_of(cases // 10, rounds * 2)
    many_rows, many, peak = rounds_of(cases, rounds)
    growth = ((many - start) / cases) / ((few - start) / (cases // 10))
    amid, after = read_amid(cases)
    what, unit = f"{cases:,} instant cases", f"× at {cases // 10:,}"
    rows = [
        *few_rows,
        *many_rows,
        Row(what, "CPU of a case", growth, unit, None, f"≤ {GROWTH}", growth <= GROWTH),
        Row(what, "peak memory", peak, "MB", None, f"≤ {PEAK_MB} MB", peak <= PEAK_MB),
        Row(what, "read amid it", amid, "lines", None, "> 0, < all", 0 < amid < after == cases),
    ]
    tell(rows, options)


if __name__ == "__main__":
    main()
