"""Runs Python code shut in, and tells how that went.

On Linux (x86-64 and ARM64), as root or as anybody who may make user namespaces, the code has its
own process, file system, network and IPC namespaces, no rights, a filter of system calls, and
limits on time, memory, files and processes. Elsewhere nothing is run.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from muster.providers.process import readable_file, run_process

__all__ = ("Limits", "NoSandbox", "Task", "Verdict", "run_shut_in")

_GUARD = Path(__file__).with_name("guard.py")
_MAX_ANSWER = 8_000_000
_SPARE_SECONDS = 10.0
"""What starting and ending may take beyond the code's own time."""

_MB = 1 << 20


class NoSandbox(Exception):
    """Code cannot be shut in here, so it was not run."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the code may take."""

    seconds: float = 10.0
    """Of time, and of processor time for each of its processes."""
    memory: int = 512 * _MB
    """Of each of its processes, and of all together."""
    disk: int = 64 * _MB
    file_size: int = 16 * _MB
    processes: int = 16
    """Threads are counted too."""
    files: int = 64
    """Open ones."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A program, and the tests that it must pass."""

    code: str
    tests: Sequence[str]
    prompt: str | None = None
    """What the code may be the continuation of."""
    entry_point: str | None = None
    """The function that is tested: a test's `check` is called with it."""
    packages: Sequence[str] = ()
    """Folders of modules that it may import beside the standard library."""
    limits: Limits = Limits()


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """How it went."""

    ended: bool
    """The program and all tests came to their end."""
    passed: frozenset[int]
    """Numbers of the tests that did not fail."""
    failures: Sequence[tuple[str, str]]
    """What failed (`compile`, `code`, `test 1`, …), and why."""
    why: str | None
    """Why it did not come to its end, if not by a failure."""
    broken: str | None
    """A test is no Python."""
    printed: str
    """The end of what it printed."""
    seconds: float


async def run_shut_in(task: Task) -> Verdict:
    """Run the task.

    Raises:
        NoSandbox: it was not run.
    """
    mark = secrets.token_hex(16)
    limits = task.limits
    spec = {
        "code": task.code,
        "tests": list(task.tests),
        "prompt": task.prompt,
        "entry_point": task.entry_point,
        "packages": list(task.packages),
        "mark": mark,
        "limits": {**msgspec.to_builtins(limits), "cpu": max(1, int(limits.seconds + 1))},
    }
    argv = [sys.executable, "-I", "-S", str(_GUARD)]
    env = {b"PATH": os.environb.get(b"PATH", b""), b"LC_ALL": b"C.UTF-8"}
    with readable_file(msgspec.json.encode(spec)) as stdin:
        try:
            done = await run_process(
                argv,
                env=env,
                timeout=limits.seconds + _SPARE_SECONDS,
                max_stdout=_MAX_ANSWER,
                stdin=stdin,
            )
        except OSError as error:
            raise NoSandbox(f"{sys.executable}: {error.strerror}") from None
    try:
        answer = msgspec.json.decode(done.stdout, type=dict[str, Any])
    except msgspec.DecodeError:
        said = done.stderr.decode("utf-8", "replace").strip()[-500:]
        raise NoSandbox(said or f"the guard ended with {done.exit_code}") from None
    return _verdict(answer, mark, limits)


def _verdict(answer: dict[str, Any], mark: str, limits: Limits) -> Verdict:
    lines = [line for line in answer.get("lines", ()) if isinstance(line, dict)]
    # What is said once the code runs may be its own.
    before = lines[0] if lines else {}
    refused = answer.get("refused") or before.get("refused")
    if refused is not None:
        raise NoSandbox(str(refused))
    ended = any(line.get("mark") == mark for line in lines)
    failures = [
        (str(line["failed"]), str(line.get("reason", ""))) for line in lines if "failed" in line
    ]
    numbers = [line["passed"] for line in lines if "passed" in line]
    return Verdict(
        ended=ended and answer["stopped"] is None,
        passed=frozenset(number for number in numbers if isinstance(number, int)),
        failures=failures,
        why=None if ended and answer["stopped"] is None else _why(answer, limits),
        broken=str(before["broken"]) if "broken" in before else None,
        printed=answer["printed"],
        seconds=answer["seconds"],
    )


def _why(answer: dict[str, Any], limits: Limits) -> str:
    stopped, code = answer["stopped"], answer["exit_code"]
    if stopped == "memory":
        return f"it took more than {limits.memory // _MB} MB of memory"
    if stopped == "told":
        return "it wrote where only the sandbox writes"
    if stopped == "time" or code == -signal.SIGXCPU:
        return f"it took more than {limits.seconds:g} s"
    if code is not None and code < 0:
        try:
            return f"it was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"it was ended by signal {-code}"
    return f"it ended itself with exit code {code} before the tests were over"
