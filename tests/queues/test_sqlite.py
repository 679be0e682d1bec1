"""What is SQLite's own: the file, several processes, what is forgotten, what goes wrong."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from muster.errors import MusterError, UsageError
from muster.queues.base import QueueFull, QueueUnavailable
from muster.queues.opening import default_url, open_queue
from muster.queues.sqlite import SqliteQueue
from muster.queues.url import QueueURL
from muster.store.database import Database


async def test_the_file_is_nobody_elses(tmp_path: Path) -> None:
    queue = SqliteQueue(tmp_path / "new" / "queue.db")
    await queue.submit("secret")
    for path in (tmp_path / "new").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    await queue.aclose()


async def test_old_results_are_forgotten_and_dead_letters_are_not(tmp_path: Path) -> None:
    now = 1_000_000.0
    queue = SqliteQueue(tmp_path / "queue.db", keep_days=1, clock=lambda: now)
    for id in ("done", "dead", "open"):
        await queue.submit(id, id=id)
    for ended in ("done", "dead"):
        task = await queue.take(wait=0)
        assert task is not None
        assert task.id == ended
        await (queue.finish if ended == "done" else queue.fail)(task, "x")
    await queue.aclose()
    now += 2 * 86_400
    queue = SqliteQueue(tmp_path / "queue.db", keep_days=1, clock=lambda: now)
    await queue.submit("new", id="new")
    assert {state.id for state in await queue.states()} == {"dead", "open", "new"}
    await queue.aclose()


async def test_another_process_wakes_who_waits(tmp_path: Path) -> None:
    queue = SqliteQueue(tmp_path / "queue.db")
    id = await queue.submit("later", delay=60)
    waiting = asyncio.ensure_future(queue.wait(id, 10))
    taking = asyncio.ensure_future(queue.take(wait=10))
    await asyncio.sleep(0)
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from muster.queues.sqlite import SqliteQueue\n"
        "async def main():\n"
        "    queue = SqliteQueue(Path(sys.argv[1]))\n"
        "    await queue.cancel(sys.argv[2], 'by another')\n"
        "    await queue.submit('from another')\n"
        "    await queue.aclose()\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", code, str(queue.path), id]
    await asyncio.to_thread(subprocess.run, command, check=True, timeout=30)
    result, task = await waiting, await taking
    assert result is not None
    assert (result.status, result.error) == ("cancelled", "by another")
    assert task is not None
    assert task.prompt == "from another"
    await queue.aclose()


async def test_while_another_process_writes_the_loop_goes_on(tmp_path: Path) -> None:
    queue = SqliteQueue(tmp_path / "queue.db")
    other = sqlite3.connect(queue.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    submitting = asyncio.ensure_future(queue.submit("patience"))
    for _ in range(20):  # as often as that it comes back to us
        await asyncio.sleep(0.001)
    assert not submitting.done()
    other.execute("COMMIT")
    id = await asyncio.wait_for(submitting, 5)
    assert (await queue.look([id]))[id].status == "waiting"
    other.close()
    await queue.aclose()


async def test_who_holds_the_file_for_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.queues.sqlite.BUSY_SECONDS", 0.05)
    queue = SqliteQueue(tmp_path / "queue.db")
    other = sqlite3.connect(queue.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(QueueUnavailable, match=r"queue\.db: another process has held it"):
        await queue.submit("never")
    other.execute("COMMIT")
    other.close()
    assert await queue.states() == []
    await queue.aclose()


async def test_half_a_surrogate_pair(tmp_path: Path) -> None:
    queue = SqliteQueue(tmp_path / "queue.db")
    id = await queue.submit("a\ud83db")
    task = await queue.take(wait=0)
    assert task is not None
    assert task.prompt == "a?b"
    await queue.finish(task, "\udc00")
    result = await queue.wait(id)
    assert result is not None
    assert result.output == "?"
    await queue.aclose()


def test_a_file_that_is_something_else(tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text("not a database at all, but long enough to be looked at " * 20)
    with pytest.raises(MusterError, match=r"text\.db: not a queue of tasks; move it away"):
        SqliteQueue(text)
    Database(tmp_path / "runs.db").close()
    with pytest.raises(MusterError, match=r"runs\.db: a database, but not a queue of tasks"):
        SqliteQueue(tmp_path / "runs.db")


# --- URLs -----------------------------------------------------------------------------------------


async def test_a_url_opens_a_queue(tmp_path: Path) -> None:
    queue = open_queue("sqlite:sub/q.db?depth=1&keep_days=2.5", start=tmp_path)
    assert isinstance(queue, SqliteQueue)
    assert (queue.path, queue.depth, queue.keep_days) == (tmp_path / "sub/q.db", 1, 2.5)
    await queue.submit("one")
    with pytest.raises(QueueFull, match="the queue is full: 1 tasks are open"):
        await queue.submit("two")
    await queue.aclose()
    (tmp_path / ".muster").mkdir()
    assert default_url(tmp_path) == f"sqlite:{tmp_path}/.muster/queue.db"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("queue.db", '"queue.db" is no queue: expected a URL such as sqlite:PATH'),
        ("", '"" is no queue'),
        ("sqlite:", "queue sqlite:: expected sqlite:PATH"),
        (
            "sqlite:a?dpeth=3",
            'queue sqlite:a?dpeth=3: unknown option "dpeth" (did you mean "depth"?)',
        ),
        ("sqlite:a?depth=no", 'depth: expected a number above 0, found "no"'),
        ("sqlite:a?depth", 'expected NAME=VALUE after the "?"'),
        ("memory:here", "a queue in memory has no place; expected memory:"),
        (
            "sqlte:a",
            'unknown queue "sqlte" — did you register it? (near: sqlite; known: memory, sqlite)',
        ),
        ("no.such.module:Queue:x", "no.such.module"),
        ("os.path:join:x", "it cannot be made"),
        ("collections:OrderedDict", 'unknown queue "collections"'),
        ("collections.abc:Sized:x", "it cannot be made"),
    ],
)
def test_a_url_that_is_wrong(tmp_path: Path, url: str, said: str) -> None:
    with pytest.raises(MusterError) as raised:
        open_queue(url, start=tmp_path)
    assert said in str(raised.value)
    assert raised.value.exit_code == 2


def test_passwords_are_not_shown() -> None:
    url = QueueURL.parse("mine://me:geheim@host/0?password=geheim&depth=3")
    assert str(url) == "mine://**********@host/0?password=**********&depth=3"
    assert url.rest == "//me:geheim@host/0"
    assert url.options == {"password": "geheim", "depth": "3"}


@pytest.mark.parametrize("id", ["", " a", "a\nb", "x" * 201])
async def test_an_id_that_cannot_be(tmp_path: Path, id: str) -> None:
    queue = open_queue("memory:")
    with pytest.raises(UsageError, match="cannot be the id of a task"):
        await queue.submit("x", id=id)


async def test_a_project_file_registers_a_queue(tmp_path: Path) -> None:
    folder = tmp_path / ".muster" / "queues"
    folder.mkdir(parents=True)
    (folder / "mine.py").write_text(
        "import muster\n"
        "from muster.queues.memory import MemoryQueue\n"
        "@muster.register_queue('mine')\n"
        "def create(url):\n"
        "    return MemoryQueue(depth=int(url.rest))\n"
    )
    (folder / "empty.py").write_text("x = 1\n")
    queue = open_queue("mine:7", start=tmp_path)
    assert getattr(queue, "depth", None) == 7
    with pytest.raises(MusterError) as raised:
        open_queue("mien:7", start=tmp_path)
    assert "(near: mine; known: memory, mine, sqlite)" in str(raised.value)
    assert "registers no queue; it should call muster.register_queue" in str(raised.value)
    with pytest.raises(MusterError, match='unknown queue "mine"'):
        open_queue("mine:7", start=tmp_path, safe=True)
