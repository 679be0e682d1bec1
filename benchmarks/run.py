"""Run all benchmarks, and print one table.

    python benchmarks/run.py [--only NAME] [--rounds N] [--peers [DIR]]

`--peers` first installs other tools (braintrust and pydantic-evals from PyPI, promptfoo from npm
where there is one; for `clients`, seven clients of models' APIs) into a folder that is removed at
the end, and runs the same workloads through them in the same rounds. It needs the network; nothing
else here does. With DIR they are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from measure import PYTHON, Row, folder, show
from peers.install import install, install_clients

HERE = Path(__file__).parent
BENCHMARKS = (
    "startup",
    "whole_run",
    "cli_run",
    "cli_spawn",
    "large_suite",
    "compare",
    "openai_client",
    "clients",
    "stdio",
    "graders",
    "serve",
    "teams",
    "task_queue",
)
SECONDS = 1800
"""For one benchmark; its processes are bounded by themselves."""


def run(name: str, options: list[str]) -> list[Row]:
    """The rows of one benchmark, a process of its own."""
    print(f"{name} …", file=sys.stderr)
    argv = [PYTHON, str(HERE / f"{name}.py"), "--json", *options]
    done = subprocess.run(argv, stdout=subprocess.PIPE, timeout=SECONDS, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{name} ended with {done.returncode}")
    return [Row(**row) for row in json.loads(done.stdout)]


def main() -> int:
    """Run what is asked for; 1 when a target is missed."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=BENCHMARKS, action="append", metavar="NAME")
    parser.add_argument("--rounds", type=int, help="counted rounds; the default is each one's own")
    parser.add_argument(
        "--peers",
        nargs="?",
        const="",
        metavar="DIR",
        help="other tools too; DIR: where they are kept between runs",
    )
    options = parser.parse_args()
    common = [] if options.rounds is None else ["--rounds", str(options.rounds)]
    told: list[str] = []
    with ExitStack() as stack:
        if options.peers is not None:
            place = Path(options.peers) if options.peers else stack.enter_context(folder())
            asked = set(options.only or BENCHMARKS)
            told = install(place.resolve()) if asked - {"clients"} else []
            told += install_clients(place.resolve()) if "clients" in asked else []
            common += ["--peers", str(place.resolve())]
        rows = [row for name in options.only or BENCHMARKS for row in run(name, common)]
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.platform()}")
    for line in told:
        print(line)
    show(rows)
    return int(any(row.met is False for row in rows))


if __name__ == "__main__":
    sys.exit(main())
