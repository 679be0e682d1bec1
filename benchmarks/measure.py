"""What all benchmarks share: run whole processes in turns, and show the medians.

A contender is a command. Rounds alternate: every contender runs once a round, so that what else
the machine does meets them alike. The time of a process is from before its start until it has been
waited for, its CPU and its peak memory are what the kernel says of it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

__all__ = (
    "MUSTER",
    "PYTHON",
    "Contender",
    "Figures",
    "Row",
    "command_line",
    "folder",
    "measure",
    "rows_of",
    "show",
    "tell",
)

PYTHON = sys.executable
MUSTER = str(Path(sys.executable).with_name("muster"))

ROUND_SECONDS = 300
"""A process that takes longer is ended, and the benchmark with it."""


@dataclass(slots=True)
class Figures:
    """What the rounds of one contender came to."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Seconds of a whole process."""
        return statistics.median(self.seconds)


@dataclass(frozen=True, slots=True)
class Contender:
    """A command to be timed; `check` raises when it did not do its work."""

    name: str
    argv: Sequence[str]
    check: Callable[[Path], None] | None = None
    """Called after each round with the folder that stood for `{out}` in `argv`."""
    rounds: int | None = None
    """Fewer than the others', for one that takes long."""
    extra_env: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    what: str
    contender: str
    value: float
    unit: str
    ratio: float | None = None
    """To the bare program of the same run."""
    target: str = ""
    met: bool | None = None
    cpu: float | None = None
    """CPU seconds of the process and its children: on a busy machine they tell more."""


def environment() -> dict[str, str]:
    """That of a user: byte code is kept, output is buffered, nothing is switched to debug."""
    env = dict(os.environ)
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONDEVMODE"):
        env.pop(name, None)
    return env


def measure(contenders: Sequence[Contender], *, rounds: int, cwd: Path) -> dict[str, Figures]:
    """Run all contenders in turns; one round before them warms caches and is not counted."""
    found = {contender.name: Figures() for contender in contenders}
    for number in range(rounds + 1):
        for contender in contenders:
            if number > (contender.rounds or rounds):
                continue
            out = Path(tempfile.mkdtemp(prefix="out-", dir=cwd))
            figures = Figures() if number == 0 else found[contender.name]
            _run(contender, figures, out, cwd)
            if contender.check is not None:
                contender.check(out)
            shutil.rmtree(out)
    return found


def _run(contender: Contender, figures: Figures, out: Path, cwd: Path) -> None:
    """Start it, wait for it, note what it took."""
    argv = [part.replace("{out}", str(out)) for part in contender.argv]
    env = environment() | dict(contender.extra_env)
    log = out.with_name(out.name + ".log")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    here = Path.cwd()
    os.chdir(cwd)
    try:
        start = time.perf_counter()
        pid = os.posix_spawnp(argv[0], argv, env, file_actions=actions)
    finally:
        os.chdir(here)
    # Set before the process is waited for: a hung contender must not hang the benchmark.
    with _killed_after(pid, ROUND_SECONDS):
        _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - start
    if code := os.waitstatus_to_exitcode(status):
        said = log.read_text(errors="replace")[-2000:]
        raise SystemExit(f"{contender.name} ended with {code}: {' '.join(argv)}\n{said}")
    log.unlink()
    figures.seconds.append(seconds)
    figures.cpu.append(usage.ru_utime + usage.ru_stime)
    # On Linux a child's peak is at least its parent's at the fork; this program stays small.
    figures.peak_mb.append(usage.ru_maxrss / 1024)


@contextmanager
def _killed_after(pid: int, seconds: float) -> Iterator[None]:
    import signal

    def kill(*_: object) -> None:
        os.kill(pid, signal.SIGKILL)

    before = signal.signal(signal.SIGALRM, kill)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def folder() -> Iterator[Path]:
    """A folder for a benchmark's files, outside any project."""
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as path:
        yield Path(path)


def rows_of(
    what: str,
    found: dict[str, Figures],
    *,
    bare: str | None = "bare",
    at_most: float | None = None,
    times_bare: float | None = None,
    contender: str = "muster",
    unit: str = "s",
) -> list[Row]:
    """A row for each contender; `contender` is the one that the target is set for."""
    scale = 1000.0 if unit == "ms" else 1.0
    base = found[bare].median if bare is not None else None
    rows = []
    for name, figures in found.items():
        if not figures.seconds:
            continue
        value = figures.median * scale
        ratio = figures.median / base if base is not None else None
        target, met = "", None
        if name == contender and at_most is not None:
            target, met = f"≤ {at_most:g} {unit}", value <= at_most
        elif name == contender and times_bare is not None and ratio is not None:
            target, met = f"≤ {times_bare:g} × bare", ratio <= times_bare
        cpu = statistics.median(figures.cpu)
        rows.append(Row(what, name, value, unit, ratio, target, met, cpu))
    return rows


def command_line(doc: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    assert doc is not None
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--rounds", type=int, help="counted rounds; the default is the benchmark's")
    parser.add_argument("--json", action="store_true", help="rows as JSON, for run.py")
    parser.add_argument(
        "--peers", type=Path, metavar="DIR", help="where run.py has installed the peers"
    )
    return parser


def tell(rows: Sequence[Row], options: argparse.Namespace) -> None:
    """Print what a benchmark found."""
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        show(rows)


def show(rows: Sequence[Row]) -> None:
    """One table, ratios first."""
    width = max(len(row.what) for row in rows)
    names = max(len(row.contender) for row in rows)
    print(f"{'':{width}}  {'':{names}}{'× bare':>8}{'median':>14}{'CPU':>10}  target")
    last = ""
    for row in rows:
        ratio = f"{row.ratio:.2f}" if row.ratio is not None else ""
        value = f"{_number(row.value)} {row.unit}"
        cpu = f"{_number(row.cpu)} s" if row.cpu is not None else ""
        verdict = "" if row.met is None else "met" if row.met else "MISSED"
        shown = "" if row.what == last else row.what
        line = f"{shown:{width}}  {row.contender:{names}}{ratio:>8}{value:>14}{cpu:>10}"
        line += f"  {row.target:16}{verdict}"
        print(line.rstrip())
        last = row.what


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"
