"""`muster eval` of a command that is one `cp`, beside Python's bare `posix_spawn` loop.

    python benchmarks/cli_run.py [--rounds N] [--cases 200 5000]

Whole processes, 4 workers; start-up, one grader a case and results on disk are included.
`cli_spawn.py` measures the provider alone.
"""

from __future__ import annotations

from pathlib import Path

from measure import Row, command_line, folder, measure, rows_of, tell
from peers.install import whole_run_peers
from whole_run import bare, muster
from workload import write_project

WORKERS = 4


def compare(cases: int, rounds: int, peers: Path | None) -> list[Row]:
    """One number of cases, all contenders."""
    with folder() as cwd:
        write_project(cwd, cases)
        contenders = [bare("copy", cases, WORKERS), muster("copy", cases, WORKERS)]
        if cases <= 1000:
            contenders += whole_run_peers(peers, "copy", WORKERS, cwd)
        found = measure(contenders, rounds=rounds, cwd=cwd)
    what = f"{cases:,} × cp, {WORKERS} at a time"
    if cases <= 1000:
        return rows_of(what, found, at_most=0.40)
    return rows_of(what, found, times_bare=1.3)


def main() -> None:
    """Measure both numbers of cases."""
    parser = command_line(__doc__)
    parser.add_argument("--cases", type=int, nargs="+", default=[200, 5000])
    options = parser.parse_args()
    rows: list[Row] = []
    for cases in options.cases:
        rows += compare(cases, options.rounds or (9 if cases <= 1000 else 5), options.peers)
    tell(rows, options)


if __name__ == "__main__":
    main()
