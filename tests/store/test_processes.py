"""A process is more than its number."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from children import is_alive
from muster.store import processes
from muster.store.processes import identity, state_of, terminate

SLEEP = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]


@pytest.fixture
def child() -> subprocess.Popen[bytes]:
    started = subprocess.Popen(SLEEP, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert started.stdout is not None
    started.stdout.readline()
    with started:
        yield started  # type: ignore[misc]
        started.kill()


def test_a_process_that_lives_and_dies(child: subprocess.Popen[bytes]) -> None:
    known = identity(child.pid)
    assert known is not None
    assert state_of(child.pid, known) == "alive"
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert state_of(child.pid, known) == "dead"  # a zombie
    child.wait()
    assert state_of(child.pid, known) == "dead"
    assert not terminate(child.pid, known)


def test_terminate_ends_the_process_that_was_meant(child: subprocess.Popen[bytes]) -> None:
    known = identity(child.pid)
    assert known is not None
    assert terminate(child.pid, known)
    assert child.wait(10) == -signal.SIGTERM


@pytest.mark.parametrize("pidfd", [True, False])
def test_a_number_used_again_gets_no_signal(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, pidfd: bool
) -> None:
    if not pidfd:
        monkeypatch.delattr(os, "pidfd_open", raising=False)
    host, boot, started = str(identity(child.pid)).split("|")
    earlier = "|".join((host, boot, str(int(started) - 1)))
    assert state_of(child.pid, earlier) == "dead"
    assert not terminate(child.pid, earlier)
    assert is_alive(child.pid)


def test_another_boot_and_another_machine() -> None:
    host, _, started = str(identity(os.getpid())).split("|")
    assert host == socket.gethostname()
    assert state_of(os.getpid(), f"{host}|another|{started}") == "dead"
    assert state_of(os.getpid(), "elsewhere|x|1") == "elsewhere"
    assert state_of(None, None) == "dead"


@pytest.mark.skipif(not Path("/bin/ps").exists(), reason="needs ps")
def test_where_there_is_no_proc(child: subprocess.Popen[bytes]) -> None:
    known = processes._start_by_ps(child.pid)
    assert known is not None
    assert processes._start_by_ps(child.pid) == known
    child.kill()
    child.wait()
    assert processes._start_by_ps(child.pid) is None
