"""A check that is asked to end leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from muster.testing.holdings import _children


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_commands_under_way_are_ended(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "targets.yaml").write_text(
        "targets: [{name: slow, provider: cli, command: 'echo $$ > started; sleep 600 #{PROMPT}'}]"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "muster", "check", "provider", "slow"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        started = tmp_path / "started"
        end = time.monotonic() + 20
        while not (started.exists() and started.read_text().strip()):
            assert time.monotonic() < end, "the command was not started"
            time.sleep(0.02)
        below = _children(process.pid)
        process.send_signal(number)
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.wait()
    assert below
    assert [pid for pid in below if runs(pid)] == []


def runs(pid: int) -> bool:
    """Whether it is still there, and not as a zombie that nobody has reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
