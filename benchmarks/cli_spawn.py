"""What the `cli` provider costs beside the program that it runs.

    python benchmarks/cli_spawn.py [--runs N] [--workers N] [--rounds N]

One run is: write a prompt file, run `cp PROMPT OUTPUT`, read the output, write a line of results.
Each contender is a process of its own, start-up and imports included; rounds alternate, the median
counts. `bare` is a loop over `os.posix_spawn` and `os.wait` that keeps as many children going.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
from pathlib import Path

from measure import PYTHON, Contender, command_line, folder, measure, rows_of, tell

COMMAND = "cp {PROMPT_FILE} {OUTPUT_FILE}"
SETTINGS = {
    "text": {"command": COMMAND},
    "list": {"command": COMMAND.split()},
    "folder": {"command": COMMAND, "cwd": "/"},
    "shell": {"command": f"{COMMAND};"},
}


def bare(runs: int, workers: int, place: Path) -> None:
    """The loop that everything is compared with."""
    program = "/bin/cp"
    live: dict[int, tuple[int, str, str]] = {}
    number = 0
    with open(place / "results.jsonl", "w", encoding="utf-8") as results:
        while number < runs or live:
            while number < runs and len(live) < workers:
                prompt, output = f"{place}/{number}.prompt", f"{place}/{number}.output"
                with open(prompt, "w", encoding="utf-8") as file:
                    file.write(f"question {number}")
                pid = os.posix_spawn(program, [program, prompt, output], os.environ)
                live[pid] = (number, prompt, output)
                number += 1
            pid, status = os.wait()
            case, prompt, output = live.pop(pid)
            with open(output, encoding="utf-8") as file:
                text = file.read()
            assert (status, text) == (0, f"question {case}")
            os.unlink(prompt)
            os.unlink(output)
            results.write(json.dumps({"id": case, "output": text}) + "\n")


async def provider(settings: dict[str, object], runs: int, workers: int, place: Path) -> None:
    """The same through `CliProvider.invoke`."""
    from muster.provider import ProviderRequest
    from muster.providers.cli import CliProvider
    from muster.target import ResolvedTarget

    target = ResolvedTarget(name="cp", provider="cli", config=settings, base_dir=Path.cwd())
    copy = CliProvider(target)
    numbers = iter(range(runs))
    with open(place / "results.jsonl", "w", encoding="utf-8") as results:

        async def work() -> None:
            for case in numbers:
                question = f"question {case}"
                response = await copy.invoke(ProviderRequest(question=question))
                assert response.text == question
                results.write(json.dumps({"id": case, "output": response.text}) + "\n")

        await asyncio.gather(*(work() for _ in range(workers)))


def run(contender: str, runs: int, workers: int) -> None:
    """One contender, in this process."""
    with tempfile.TemporaryDirectory() as place:
        if contender == "bare":
            bare(runs, workers, Path(place))
        else:
            asyncio.run(provider(SETTINGS[contender], runs, workers, Path(place)))


def main() -> None:
    """Measure all contenders, or be one of them."""
    parser = command_line(__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--contender", choices=["bare", *SETTINGS], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        run(options.contender, options.runs, options.workers)
        return
    size = ["--runs", str(options.runs), "--workers", str(options.workers)]
    contenders = [
        Contender(name, [PYTHON, __file__, "--contender", name, *size])
        for name in ("bare", *SETTINGS)
    ]
    with folder() as cwd:
        found = measure(contenders, rounds=options.rounds or 5, cwd=cwd)
    what = f"provider alone, {options.runs:,} × cp, {options.workers} at a time"
    tell(rows_of(what, found), options)


if __name__ == "__main__":
    main()
