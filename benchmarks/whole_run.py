"""`muster eval` as a whole process beside the bare asyncio loop that does the same.

    python benchmarks/whole_run.py [--rounds N]

Two workloads on an async function: 10,000 cases that sleep 50 ms each, 500 at a time; and 1,000
that answer at once. Start-up, one grader a case and results on disk are included.
"""

from __future__ import annotations

from pathlib import Path

from measure import MUSTER, PYTHON, Contender, Row, command_line, folder, measure, rows_of, tell
from peers.install import whole_run_peers
from workload import check_results, write_project

BARE = str(Path(__file__).with_name("bare.py"))


def muster(target: str, cases: int, workers: int, name: str = "muster") -> Contender:
    """The command as a user types it."""
    argv = [MUSTER, "eval", "suite.eval.yaml", "--target", target, "--workers", str(workers)]
    return Contender(
        name,
        [*argv, "--quiet", "--output", "{out}/run"],
        lambda out: check_results(out / "run/results.jsonl", cases),
    )


def bare(target: str, cases: int, workers: int) -> Contender:
    """The loop that it is compared with."""
    argv = [PYTHON, BARE, target, "cases.jsonl", str(workers), "{out}/results.jsonl"]
    return Contender("bare", argv, lambda out: check_results(out / "results.jsonl", cases))


def compare(target: str, cases: int, workers: int, rounds: int, peers: Path | None) -> list[Row]:
    """One workload, all contenders."""
    with folder() as cwd:
        write_project(cwd, cases)
        contenders = [bare(target, cases, workers), muster(target, cases, workers)]
        contenders += whole_run_peers(peers, target, workers, cwd)
        found = measure(contenders, rounds=rounds, cwd=cwd)
    if target == "sleeping":
        what = f"{cases:,} cases of 50 ms, {workers} at a time"
        return rows_of(what, found, times_bare=1.4)
    return rows_of(f"{cases:,} instant cases", found, at_most=0.45)


def main() -> None:
    """Measure both workloads."""
    options = command_line(__doc__).parse_args()
    rows = compare("sleeping", 10_000, 500, options.rounds or 7, options.peers)
    rows += compare("instant", 1_000, 8, options.rounds or 11, options.peers)
    tell(rows, options)


if __name__ == "__main__":
    main()
