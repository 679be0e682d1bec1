import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from children import all_gone, is_alive, pids_in
from muster.providers import process
from muster.providers.process import STDERR_TAIL_BYTES, Completed, run_process

ENV = dict(os.environb)


async def run(*argv: str, max_stdout: int = 1 << 20, **options) -> Completed:
    return await run_process(list(argv), env=ENV, max_stdout=max_stdout, **options)


async def sh(script: str, **options) -> Completed:
    return await run("sh", "-c", script, **options)


@pytest.fixture(params=["pidfd", "thread"])
def watcher(request, monkeypatch):
    if request.param == "thread":
        monkeypatch.setattr(process, "open_pidfd", lambda pid: -1)
    return request.param


@pytest.fixture(params=["posix_spawn", "Popen"])
def cwd(request, tmp_path):
    """Each of the two ways to start a child."""
    return None if request.param == "posix_spawn" else tmp_path


async def test_output_and_exit_code(watcher, cwd):
    done = await sh("echo out; echo err >&2; exit 3", cwd=cwd)
    assert done == Completed(3, b"out\n", b"err\n")


async def test_a_signal_is_a_negative_exit_code(watcher):
    assert (await sh("kill -SEGV $$")).exit_code == -11


async def test_working_folder(tmp_path):
    assert (await run("pwd", cwd=tmp_path)).stdout.decode().strip() == str(tmp_path)


async def test_pwd_is_the_working_folder(tmp_path):
    """A shell would mend it by itself; there are programs that take it for true."""
    script = "import os; print(os.environ.get('PWD'))"
    for env, told in ((ENV | {b"PWD": b"/elsewhere"}, tmp_path), ({b"PATH": ENV[b"PATH"]}, None)):
        argv = [sys.executable, "-c", script]
        done = await run_process(argv, env=env, cwd=tmp_path, max_stdout=1000)
        assert done.stdout.decode().strip() == str(told)


async def test_standard_input_is_empty(cwd):
    assert await run("cat", cwd=cwd) == Completed(0, b"", b"")


async def test_signals_that_python_ignores_are_the_childs_own_again(cwd):
    done = await sh("(yes; echo $? >&2) | head -n 1", cwd=cwd)
    assert (done.stdout, done.stderr) == (b"y\n", b"141\n"), "yes was not ended by SIGPIPE"


async def test_the_environment_is_the_given_one_and_its_path_is_searched(tmp_path):
    program = tmp_path / "here-only"
    program.write_text('#!/bin/sh\necho "$GREETING ${HOME-none}"\n')
    program.chmod(0o755)
    env = {b"PATH": os.fsencode(tmp_path), b"GREETING": b"hello"}
    done = await run_process(["here-only"], env=env, max_stdout=100)
    assert done.stdout == b"hello none\n"


async def test_what_cannot_be_started(cwd):
    with pytest.raises(FileNotFoundError):
        await run("no-such-command-here", cwd=cwd)
    with pytest.raises(FileNotFoundError):
        await run("pwd", cwd=Path("/no/such/folder"))
    with pytest.raises(ValueError, match="null"):
        await run("echo", "a\0b", cwd=cwd)


async def test_no_descriptor_is_left_open(watcher, cwd):
    def count() -> int:
        return len(os.listdir("/dev/fd"))

    await sh("true", cwd=cwd)
    before = count()
    await asyncio.gather(*(sh("echo x; echo y >&2", cwd=cwd) for _ in range(10)))
    with pytest.raises(FileNotFoundError):
        await run("no-such-command-here", cwd=cwd)
    await sh("sleep 30", timeout=0.05, cwd=cwd)
    assert count() == before


async def test_the_tail_of_stderr_is_kept():
    done = await run(sys.executable, "-c", "import os; os.write(2, b'x' * 300_000 + b'end')")
    assert len(done.stderr) == STDERR_TAIL_BYTES
    assert done.stderr.endswith(b"xend")


async def test_more_output_than_a_pipe_holds():
    done = await sh("head -c 900000 /dev/zero")
    assert (done.exit_code, len(done.stdout), done.stopped) == (0, 900_000, None)


async def test_endless_output_is_cut_off():
    done = await run("yes", max_stdout=1000)
    assert (done.stdout, done.stopped) == (b"y\n" * 500, "stdout")


async def test_a_gigabyte_is_cut_off_at_once():
    started = time.monotonic()
    done = await sh("head -c 1000000000 /dev/zero", max_stdout=1 << 20)
    assert done.stopped == "stdout"
    assert len(done.stdout) == 1 << 20
    assert time.monotonic() - started < 5


async def test_a_little_too_much_output_of_a_short_command():
    assert (await sh("head -c 1001 /dev/zero", max_stdout=1000)).stopped == "stdout"
    assert (await sh("head -c 1000 /dev/zero", max_stdout=1000)).stopped is None


async def test_timeout_ends_the_whole_group(watcher, cwd, tmp_path):
    pids = tmp_path / "pids"
    script = f"(sleep 60 & echo $! $$ >>{pids}; sleep 61) & echo $! >>{pids}; wait"
    done = await sh(script, timeout=0.5, cwd=cwd)
    assert done.stopped == "timeout"
    assert done.exit_code == -15
    assert await all_gone(await pids_in(pids, 3))


async def test_what_ignores_term_is_killed(monkeypatch, tmp_path):
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.2)
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 60 & echo $! $$ >{pids}; while :; do sleep 0.1; done"
    done = await sh(script, timeout=0.3)
    assert (done.stopped, done.exit_code) == ("timeout", -9)
    assert await all_gone(await pids_in(pids, 2))


async def test_a_grandchild_gets_time_to_clean_up(tmp_path):
    # The shell dies of TERM at once; what it started still holds the pipe, and is waited for.
    done_file = tmp_path / "cleaned"
    child = f"trap 'sleep 0.2; echo cleaned >{done_file}; exit' TERM; while :; do sleep 0.05; done"
    await sh(f'sh -c "{child}" & wait', timeout=0.3)
    assert done_file.read_text() == "cleaned\n"


async def test_background_children_do_not_outlive_a_normal_exit(watcher, tmp_path):
    pids = tmp_path / "pids"
    started = time.monotonic()
    done = await sh(f"sleep 60 & echo $! >{pids}; echo answer")
    assert (done.exit_code, done.stdout, done.stopped) == (0, b"answer\n", None)
    assert time.monotonic() - started < 5, "it waited for the pipe that the grandchild holds"
    assert await all_gone(await pids_in(pids, 1))


async def test_a_child_that_left_the_group_does_not_hang_us():
    started = time.monotonic()
    done = await run(
        sys.executable,
        "-c",
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid(); time.sleep(6); os._exit(0)\n"
        "print('answer', flush=True); os._exit(0)",
    )
    assert done.stdout == b"answer\n"
    assert time.monotonic() - started < 5


async def test_cancellation_leaves_nothing(watcher, tmp_path):
    pids = tmp_path / "pids"
    task = asyncio.create_task(sh(f"sleep 60 & echo $! $$ >{pids}; wait"))
    found = await pids_in(pids, 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await all_gone(found)


async def test_a_second_cancellation_kills_at_once(tmp_path):
    pids = tmp_path / "pids"
    task = asyncio.create_task(sh(f"trap '' TERM; echo $$ >{pids}; while :; do sleep 0.1; done"))
    (pid,) = await pids_in(pids, 1)
    started = time.monotonic()
    task.cancel()
    await asyncio.sleep(0.05)
    assert is_alive(pid)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await all_gone([pid])
    assert time.monotonic() - started < 1.5


def test_a_loop_that_ends_with_a_child_running(tmp_path):
    pids = tmp_path / "pids"

    async def leave() -> list[int]:
        left = asyncio.create_task(sh(f"sleep 60 & echo $! $$ >{pids}; wait"))
        found = await pids_in(pids, 2)
        assert not left.done()
        return found

    found = asyncio.run(leave())
    assert asyncio.run(all_gone(found))


async def test_many_at_once(watcher):
    done = await asyncio.gather(*(sh(f"echo {n}; exit {n}") for n in range(40)))
    assert [(one.exit_code, one.stdout) for one in done] == [
        (n, f"{n}\n".encode()) for n in range(40)
    ]
