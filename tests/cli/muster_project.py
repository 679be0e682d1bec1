"""A project in a folder of its own, and the real `muster` command run in it.

Every process that a project's command starts inherits a mark in its environment, so that
"nothing is left running" can be looked up in the process table after each run.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent
from typing import Any

from raw_server import RawServer

__all__ = ("Ended", "Project", "marked", "serving", "wait_until")

MARK = "MUSTER_TEST_MARK"

_OF_THE_USER = re.compile(
    r"(_API_KEY|_TOKEN|_MODEL|_BASE_URL)$|^(AGENT_|MUSTER_|AGENTV_)|^(COLUMNS|LINES|NO_COLOR|FORCE_COLOR)$"
)
"""Variables that would make a run depend on who starts the tests."""


@dataclass(frozen=True)
class Ended:
    """A command that is through."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def text(self) -> str:
        return self.out + self.err

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Project:
    """Files under `root`, and the command run there."""

    root: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = text if isinstance(text, bytes) else dedent(text).lstrip("\n").encode()
        path.write_bytes(data)
        return path

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not _OF_THE_USER.search(name)}
        # `python3` of command targets must be there even if no virtual environment is active.
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        return {**kept, "PATH": path, MARK: self.mark, **(env or {})}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "muster", *arguments]

    def start(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        **options: Any,
    ) -> subprocess.Popen[str]:
        """The command, running; ended with the test if it is not over by then."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        process: subprocess.Popen[str] = subprocess.Popen(
            self.command(*arguments),
            cwd=cwd or self.root,
            env=self.environment(env),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            **options,
        )
        self.started.append(process)
        return process

    def finish(self, process: subprocess.Popen[str], timeout: float = 30) -> Ended:
        """Wait for the command; it may leave neither a traceback nor a process."""
        began = time.monotonic()
        out, err = process.communicate(timeout=timeout)
        ended = Ended(process.returncode, out or "", err or "", time.monotonic() - began)
        assert "Traceback" not in ended.text, ended.text
        assert "defect of Muster" not in ended.text, ended.text
        assert self.left_running() == []
        return ended

    def run(self, *arguments: str, **options: Any) -> Ended:
        return self.finish(self.start(*arguments, **options))

    def eval(self, *arguments: str, **options: Any) -> Ended:
        """`muster eval` into the folder `run`, unless the arguments say where."""
        chosen = {"--output", "-o", "--resume", "--dry-run"} & set(arguments)
        output = [] if chosen else ["--output", "run"]
        return self.run("eval", *arguments, *output, **options)

    def rows(self, folder: str = "run") -> list[dict[str, Any]]:
        """The results on disk, in the order they came."""
        text = (self.root / folder / "results.jsonl").read_text()
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def by_id(self, folder: str = "run") -> dict[str, dict[str, Any]]:
        """The results of a run in which each case has one."""
        rows = self.rows(folder)
        found = {row["test_id"]: row for row in rows}
        assert len(found) == len(rows)
        return found

    def statuses(self, folder: str = "run") -> dict[str, str]:
        return {name: row["execution_status"] for name, row in self.by_id(folder).items()}

    def record(self, folder: str = "run") -> dict[str, Any]:
        data: dict[str, Any] = json.loads((self.root / folder / "run.json").read_text())
        return data

    def left_running(self, seconds: float = 2.0) -> list[int]:
        """Processes of this project that are still there; a killed one may take a moment."""
        end = time.monotonic() + seconds
        while (found := marked(self.mark)) and time.monotonic() < end:
            time.sleep(0.01)
        return found


def marked(mark: str) -> list[int]:
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                environment = (folder / "environ").read_bytes()
            except OSError:
                continue
            if wanted in environment:
                found.append(int(folder.name))
    return found


def wait_until(holds: Callable[[], Any], seconds: float = 10.0) -> Any:
    """The first true value of `holds()`; what other processes do has no event to await."""
    end = time.monotonic() + seconds
    while not (value := holds()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)
    return value


@contextmanager
def serving(answer: Any) -> Iterator[RawServer]:
    """A `RawServer` on a thread of its own, for commands that are run from a plain test."""
    server = RawServer(answer)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(10)
    try:
        yield server
    finally:
        closing = server.__aexit__(None, None, None)
        asyncio.run_coroutine_threadsafe(closing, loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
