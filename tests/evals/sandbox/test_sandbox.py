"""Code that wants out of its sandbox. Every attempt is bounded by the sandbox's own limits, which
are small here, so that one that succeeded could still do no harm."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from children import all_gone
from muster.evals.sandbox.cell import Limits, NoSandbox, Task, Verdict, run_shut_in

MB = 1 << 20


def _refusal() -> str | None:
    try:
        asyncio.run(run_shut_in(Task(code="", tests=[])))
    except NoSandbox as error:
        return str(error)
    return None


_WHY = _refusal()
pytestmark = pytest.mark.skipif(_WHY is not None, reason=f"no sandbox here: {_WHY}")


async def run(code: str, *tests: str, **limits: int | float) -> Verdict:
    bounds = {"seconds": 5, "memory": 256 * MB, "processes": 8, **limits}
    task = Task(code=textwrap.dedent(code), tests=tests, limits=Limits(**bounds))
    return await run_shut_in(task)


async def printed(code: str, **limits: int | float) -> list[str]:
    """What code printed that came to its end."""
    verdict = await run(code, **limits)
    assert verdict.ended, (verdict.why, verdict.failures)
    return verdict.printed.splitlines()


async def test_a_program_and_its_tests():
    verdict = await run("def f(x): return x + 1", "assert f(1) == 2", "assert f(1) == 3, 'no'")
    assert verdict.ended
    assert verdict.passed == {0}
    assert verdict.failures == [("test 2", "test.py:1: AssertionError: no")]


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("def f(:", ("compile", "answer.py:1: SyntaxError: invalid syntax")),
        ("x = 1\n1 / 0", ("code", "answer.py:2: ZeroDivisionError: division by zero")),
        ("import sys; sys.exit(0)", ("code", "answer.py:1: SystemExit: 0")),
    ],
)
async def test_what_fails_is_told_with_its_line(code, failure):
    verdict = await run(code)
    assert (verdict.ended, verdict.failures) == (False, [failure])


async def test_a_program_that_ends_itself_has_not_passed():
    verdict = await run("import os; os._exit(0)", "assert True")
    assert not verdict.ended
    assert verdict.why == "it ended itself with exit code 0 before the tests were over"


async def test_a_fork_that_goes_on_alone_does_not_pass_for_the_program():
    verdict = await run("import os\nif os.fork(): os._exit(3)", "assert True")
    assert not verdict.ended


async def test_a_test_that_is_no_python_is_told_apart():
    verdict = await run("x = 1", "assert (")
    assert verdict.broken == "test.py:1: SyntaxError: '(' was never closed"


async def test_code_cannot_say_that_a_test_is_broken_or_the_sandbox_missing():
    verdict = await run("""
        import os
        os.write(3, b'{"refused": "x"}\\n{"broken": "y"}\\n')
        os._exit(0)
        """)
    assert (verdict.ended, verdict.broken) == (False, None)


async def test_a_fork_bomb_is_bounded_and_ends_with_its_sandbox():
    began = time.monotonic()
    verdict = await run(
        """
        import os, time
        while True:
            try:
                os.fork()
            except OSError:
                time.sleep(0.01)
        """,
        seconds=1,
    )
    assert verdict.why == "it took more than 1 s"
    assert time.monotonic() - began < 6


async def test_processes_are_counted():
    said = await printed(
        """
        import os, time
        n = 0
        try:
            while n < 100:
                if os.fork() == 0:
                    time.sleep(30)
                    os._exit(0)
                n += 1
        except OSError as error:
            print(n, type(error).__name__)
        """,
        processes=5,
    )
    assert said == ["4 BlockingIOError"]


async def test_what_it_has_started_ends_with_it():
    marker = f"muster-test-{os.getpid()}-{time.monotonic_ns()}"
    code = f"""
        import os, subprocess
        if os.fork() == 0:
            os.setsid()
            os.execv("/bin/sh", ["/bin/sh", "-c", "sleep 30; : {marker}"])
        """
    await printed(code)
    alive = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if marker in (entry / "cmdline").read_text():
                    alive.append(int(entry.name))
            except OSError:
                continue
    assert await all_gone(alive)


async def test_ten_gigabytes_are_not_given():
    verdict = await run("x = bytearray(10 << 30)")
    assert verdict.failures == [("code", "answer.py:1: MemoryError")]


async def test_memory_of_all_processes_is_counted_together():
    verdict = await run("""
        import os, time
        for _ in range(6):
            if os.fork() == 0:
                x = bytearray(100 << 20)
                time.sleep(30)
        time.sleep(30)
        """)
    assert verdict.why == "it took more than 256 MB of memory"


@pytest.mark.parametrize("attempt", ["libc.shmget(0, 4096, 0o1600)", "libc.memfd_create(b'x', 0)"])
async def test_memory_that_no_limit_counts_is_not_given(attempt):
    said = await printed(f"""
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        print({attempt}, ctypes.get_errno())
        """)
    assert said == ["-1 1"]


async def test_nothing_outside_can_be_written(tmp_path):
    target = tmp_path / "target"
    target.write_text("as it was")
    target.chmod(0o666)
    tmp_path.chmod(0o777)
    places = [str(target), "/x", "/etc/x", "/usr/x", "/dev/x", "/../x", sys.base_prefix + "/x"]
    said = await printed(f"""
        for place in {places!r}:
            try:
                open(place, "w").write("changed")
                print("wrote", place)
            except OSError:
                pass
        open("mine", "w").write("x")
        open("/tmp/mine too", "w").write("x")
        """)
    assert said == []
    assert target.read_text() == "as it was"


async def test_nothing_private_can_be_read(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    secret.chmod(0o644)
    places = [str(secret), "/etc/passwd", "/proc/1/environ", "/proc/self/environ", __file__]
    said = await printed(f"""
        import os
        print([place for place in {places!r} if os.path.exists(place)], sorted(os.environ))
        """)
    assert said == ["[] ['HOME', 'LANG', 'PATH', 'TMPDIR']"]


async def test_the_folder_is_bounded():
    said = await printed(
        """
        import os
        try:
            with open("large", "wb", buffering=0) as file:
                file.write(bytes(4 << 20))
                file.write(b"x")
        except OSError as error:
            print(error.strerror)
        os.remove("large")
        n = 0
        try:
            for i in range(100):
                with open(f"f{i}", "wb") as file:
                    file.write(bytes(1 << 20))
                n += 1
        except OSError as error:
            print(n, error.strerror)
        """,
        disk=8 * MB,
        file_size=4 * MB,
    )
    assert said == ["File too large", "8 No space left on device"]


async def test_no_socket_reaches_anybody():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        said = await printed(f"""
            import socket
            for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, 40):
                try:
                    socket.socket(family, socket.SOCK_RAW if family == 16 else socket.SOCK_STREAM)
                    print("a socket", family)
                except OSError as error:
                    print(error.strerror)
            try:
                socket.create_connection(("127.0.0.1", {port}), 2)
                print("connected")
            except OSError as error:
                print(error.strerror)
            """)
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert said == ["Permission denied"] * 5


async def test_signals_reach_nobody_else():
    """`kill(-1)` is first sent where it was seen that there are but two processes to be seen."""
    said = await printed("""
        import os, signal
        print(os.getpid() < 10, os.getppid())
        assert os.getpid() < 10 and os.getppid() == 1
        for target in (-1, 1):
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.kill(target, number)
                except OSError:
                    pass
        print("alive")
        """)
    assert said == ["True 1", "alive"]


async def test_it_has_no_rights_and_gets_none():
    said = await printed("""
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        calls = {
            "unshare": lambda: libc.unshare(0x10000000),
            "clone": lambda: libc.syscall(56, 0x10000011, 0, 0, 0, 0),
            "mount": lambda: libc.mount(b"none", b"/sandbox", b"tmpfs", 0, None),
            "ptrace": lambda: libc.ptrace(16, 1, 0, 0),
            "setuid": lambda: libc.setuid(0),
            "chroot": lambda: libc.chroot(b"/sandbox"),
        }
        if os.uname().machine != "x86_64":
            del calls["clone"]
        print([name for name, call in calls.items() if call() != -1], os.getuid() != 0)
        """)
    assert said == ["[] True"]


async def test_time_is_bounded_asleep_and_at_work():
    for code in ("while True: pass", "import time; time.sleep(60)"):
        verdict = await run(code, seconds=1)
        assert verdict.why == "it took more than 1 s"
        assert verdict.seconds < 3


async def test_what_it_prints_is_bounded():
    verdict = await run("while True: print('x' * 100_000)", seconds=1)
    assert verdict.why == "it took more than 1 s"
    assert len(verdict.printed) <= 4096


async def test_a_cancelled_call_ends_the_code():
    task = asyncio.create_task(run("import time; time.sleep(60)", seconds=60))
    await asyncio.sleep(0.3)
    children = _children()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert children
    assert await all_gone(children)


def _children() -> list[int]:
    """Of this process, and theirs."""
    found, look = [], [os.getpid()]
    while look:
        pid = look.pop()
        try:
            text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        except OSError:
            continue
        more = [int(child) for child in text.split()]
        found += more
        look += more
    return found


@pytest.fixture
def open_folder():
    """One that everybody may look into; pytest's own are for this user alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_it_needs_no_root(open_folder):
    """The same walls for an ordinary user, in a user namespace."""
    python = Path("/usr/bin/python3")
    if not python.exists():
        pytest.skip("no Python that an ordinary user can read")
    from muster.evals.sandbox import cell

    for path in Path(cell.__file__).parent.glob("*.py"):
        (open_folder / path.name).write_text(path.read_text())
    code = """
import os, socket
print(os.getuid())
n = 0
try:
    while n < 50:
        if os.fork() == 0:
            import time
            time.sleep(30)
        n += 1
except OSError:
    print(n)
try:
    socket.socket()
except OSError as error:
    print(error.strerror)
"""
    limits = {
        "seconds": 5, "cpu": 5, "memory": 256 * MB, "disk": MB, "file_size": MB,
        "processes": 4, "files": 32,
    }  # fmt: skip
    task = {
        "code": code, "tests": [], "prompt": None, "entry_point": None, "packages": [],
        "mark": "whole", "limits": limits,
    }  # fmt: skip
    import json

    done = subprocess.run(
        [python, "-I", "-S", open_folder / "guard.py"],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        timeout=30,
        user=54_321,
        group=54_321,
        extra_groups=[],
        cwd="/",
        check=True,
    )
    answer = json.loads(done.stdout)
    if "user" in str(answer.get("refused")) or "unshare" in str(answer.get("refused")):
        pytest.skip(answer["refused"])
    assert answer["printed"].splitlines() == ["1000", "3", "Permission denied"]
    assert {"mark": "whole"} in answer["lines"]
