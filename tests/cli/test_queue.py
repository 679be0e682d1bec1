"""`muster worker` and `muster tasks` as processes: what is printed, signals, and a kill."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest
from muster_project import Project, wait_until

TARGETS = """
targets:
  - {name: echo, provider: echo}
  - name: flaky
    provider: mock
    max_retries: 0
    replies:
      - {contains: busy, error: rate_limited}
      - {contains: wrong, error: bad_request}
    default: fine
  - {name: noted, provider: function, function: "noting:answer"}
  - {name: gated, provider: function, function: "noting:gated"}
  - {name: duo, provider: team, file: team.yaml, provider_for_all: mock}
"""

NOTING = """
import asyncio, os
from pathlib import Path

HERE = Path(__file__).parent

async def answer(request):
    with (HERE / f"asked-{os.getpid()}.txt").open("a") as notes:
        notes.write(request.question + "\\n")
    await asyncio.sleep(0.05)
    return "answer to " + request.question

async def gated(request):
    with (HERE / f"asked-{os.getpid()}.txt").open("a") as notes:
        notes.write(request.question + "\\n")
    while not (HERE / "gate").exists():
        await asyncio.sleep(0.01)
    return "through the gate"
"""

TEAM = """
apiVersion: muster.dev/v1alpha1
kind: Team
metadata: {name: duo}
spec:
  input: {prompt: ""}
  roles:
    - {name: write, model: mock, systemPrompt: Write.}
  pipeline:
    - {role: write, inputs: {prompt: "{{ .input.prompt }}"}}
"""


@pytest.fixture
def shop(project: Project) -> Project:
    project.write("targets.yaml", TARGETS)
    project.write("noting.py", NOTING)
    return project


def asked(project: Project, pid: str | int = "*") -> list[str]:
    """The questions that the workers, or one of them, have asked."""
    notes = project.root.glob(f"asked-{pid}.txt")
    return [line for path in notes for line in path.read_text().splitlines()]


def submit(project: Project, *arguments: str) -> list[str]:
    ended = project.run("tasks", "submit", *arguments)
    assert ended.code == 0, ended.text
    return ended.out.split()


# --- nothing is lost, nothing is done twice -------------------------------------------------------


def test_two_workers_and_a_kill(shop: Project) -> None:
    """Every task has one result, though a worker dies in the middle; nothing is asked twice but
    what it had in its hands."""
    count, hands = 200, 4
    lines = "".join(f'{{"id": "t{n}", "prompt": "question {n}"}}\n' for n in range(count))
    shop.write("many.jsonl", lines)
    assert len(submit(shop, "--jsonl", "many.jsonl")) == count
    command = ("worker", "noted", "--until-empty", "--lease", "1", "-c", str(hands))
    first = shop.start(*command, "--name", "first")
    wait_until(lambda: asked(shop), 30)
    second = shop.start(*command, "--name", "second")

    def amid() -> bool:
        firsts, seconds = (len(asked(shop, process.pid)) for process in (first, second))
        return (firsts >= 40 and seconds >= 5) or firsts >= 120

    wait_until(amid, 30)
    os.kill(first.pid, signal.SIGKILL)
    assert first.wait(10) == -signal.SIGKILL
    ended = shop.finish(second, timeout=60)
    assert ended.code == 0, ended.text

    found = shop.run("tasks", "list", "--json", "--limit", "1000").json()
    assert found["counts"] == {
        "waiting": 0,
        "running": 0,
        "done": count,
        "dead": 0,
        "cancelled": 0,
    }
    rows = {row["id"]: row for row in found["tasks"]}
    assert len(rows) == len(found["tasks"]) == count
    for number in range(count):
        assert rows[f"t{number}"]["output"] == f"answer to question {number}"
    assert {row["worker"] for row in rows.values()} == {"first", "second"}
    again = [row for row in rows.values() if row["attempts"] > 1]
    assert len(again) <= hands
    assert sum(row["attempts"] for row in rows.values()) == count + len(again)
    questions = asked(shop)
    assert set(questions) == {f"question {number}" for number in range(count)}
    assert len(questions) - count <= len(again)
    # What the dead one said before it died, and the other one after it.
    said = [line for line in ended.out.splitlines() if line.startswith("done ")]
    assert len(said) == sum(row["worker"] == "second" for row in rows.values())


def test_the_first_signal_drains(shop: Project) -> None:
    one, two = submit(shop, "one", "two")
    worker = shop.start("worker", "gated", "-c", "1")
    wait_until(lambda: asked(shop) == ["one"])
    worker.send_signal(signal.SIGTERM)
    assert worker.stderr is not None
    assert worker.stderr.readline().startswith("ending: what is under way is finished")
    shop.write("gate", "")
    ended = shop.finish(worker)
    assert ended.code == 0
    assert ended.out.startswith(f"done      {one}  ")
    assert ended.err == "1 done, 0 dead\n"
    assert asked(shop) == ["one"]
    (row,) = shop.run("tasks", "show", two, "--json").json()["tasks"]
    assert (row["status"], row["attempts"]) == ("waiting", 0)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_second_signal_gives_back(shop: Project, number: signal.Signals, code: int) -> None:
    (one,) = submit(shop, "one")
    worker = shop.start("worker", "gated")
    wait_until(lambda: asked(shop) == ["one"])
    worker.send_signal(number)
    assert worker.stderr is not None
    worker.stderr.readline()
    worker.send_signal(number)
    ended = shop.finish(worker)
    assert ended.code == code
    assert ended.out.startswith(f"returned  {one}  ")
    assert ended.err == "0 done, 0 dead, 1 given back\n"
    (row,) = shop.run("tasks", "show", one, "--json").json()["tasks"]
    assert (row["status"], row["attempts"]) == ("waiting", 0)


def test_an_idle_worker_is_woken_by_another_process(shop: Project) -> None:
    worker = shop.start("worker", "noted", "--json")
    wait_until((shop.root / ".muster/queue.db").exists)
    out, _ = shop.start("tasks", "submit", "hello").communicate(timeout=30)
    id = out.strip()
    out, _ = shop.start("tasks", "wait", id, "--timeout", "10").communicate(timeout=30)
    assert out == "answer to hello\n"
    worker.send_signal(signal.SIGINT)
    told = shop.finish(worker)
    assert told.code == 0
    row = json.loads(told.out)
    assert row.pop("seconds") > 0.01
    assert row == {"id": id, "attempt": 0, "happened": "done", "text": "answer to hello"}


# --- what fails -----------------------------------------------------------------------------------


def test_dead_letters_and_back(shop: Project) -> None:
    busy, wrong, fine = submit(shop, "busy", "wrong", "fine", "--max-attempts", "2")
    worker = shop.run("worker", "flaky", "--until-empty", "--retry-delay", "0.01")
    assert worker.code == 1
    assert worker.err == "1 done, 2 dead, 1 to be tried again\n"
    dead = shop.run("tasks", "dead", "--json").json()
    rows = {row["id"]: (row["attempts"], row["error"]) for row in dead["tasks"]}
    assert rows == {
        busy: (2, "rate_limited: mock: rate_limited"),
        wrong: (1, "bad_request: mock: bad_request"),
    }
    waited = shop.run("tasks", "wait", fine, wrong)
    assert waited.code == 1
    assert waited.out == "fine\n"
    assert waited.err == f"{wrong}: dead: bad_request: mock: bad_request\n"

    assert shop.run("tasks", "requeue", fine).err == f"{fine}: nothing was changed: it is done\n"
    back = shop.run("tasks", "requeue", "--all")
    assert (back.code, back.out) == (0, f"{busy}: waiting again\n{wrong}: waiting again\n")
    assert shop.run("worker", "echo", "--until-empty", "-q").text == ""
    assert shop.run("tasks", "list", "--status", "done").out.endswith(
        "0 waiting, 0 running, 3 done, 0 dead, 0 cancelled\n"
    )


def test_a_queue_that_breaks_ends_the_worker(shop: Project) -> None:
    submit(shop, "one", "two")
    with sqlite3.connect(shop.root / ".muster/queue.db") as file:
        file.execute(
            "CREATE TRIGGER full AFTER UPDATE ON tasks WHEN new.status = 'done' "
            "BEGIN SELECT raise(ABORT, 'database or disk is full'); END"
        )
    ended = shop.run("worker", "echo")
    assert ended.code == 1
    assert ended.err.endswith("queue.db: cannot be written: no space left on the disk\n")
    noted = shop.run("tasks", "list", "--status", "running").out
    assert "2 running" in noted


def test_whose_lease_has_run_out(shop: Project) -> None:
    (id,) = submit(shop, "one")
    worker = shop.start("worker", "gated", "--lease", "0.3", "--name", "w1")
    wait_until(lambda: asked(shop) == ["one"])
    assert f"{id}  running  1         one     w1\n" in _list_beside(shop)
    worker.kill()
    worker.communicate(timeout=10)
    wait_until(lambda: "w1, whose lease has run out" in _list_beside(shop))


def _list_beside(shop: Project) -> str:
    """What `muster tasks list` prints while a worker is there."""
    return shop.start("tasks", "list").communicate(timeout=30)[0]


def test_cancel_and_a_wait_without_end(shop: Project) -> None:
    one, two = submit(shop, "one", "two")
    assert shop.run("tasks", "cancel", one, "--reason", "a mistake").out == f"{one}: cancelled\n"
    again = shop.run("tasks", "cancel", one)
    assert (again.code, again.err) == (1, f"{one}: nothing was changed: it is cancelled\n")
    waited = shop.run("tasks", "wait", one, two, "--timeout", "0.1")
    assert waited.code == 3
    assert waited.err == (f"{one}: cancelled: a mistake\nthe time is up; still open: {two}\n")
    shown = shop.run("tasks", "show", one).out
    assert shown.startswith(f"id: {one}\nstatus: cancelled\nattempts: 0\n")
    assert shown.endswith("\nprompt:\none\n\nerror:\na mistake\n")


def test_once(shop: Project) -> None:
    submit(shop, "wrong", "fine")
    assert shop.run("worker", "flaky", "--once").code == 1
    assert shop.run("worker", "flaky", "--once").code == 0
    nothing = shop.run("worker", "flaky", "--once")
    assert (nothing.code, nothing.err) == (0, "0 done, 0 dead\n")


def test_a_team_is_a_target(shop: Project) -> None:
    shop.write("team.yaml", TEAM)
    (id,) = submit(shop, "bees")
    assert shop.run("worker", "duo", "--once").code == 0
    assert shop.run("tasks", "wait", id).out == "mock response\n"


# --- putting in -----------------------------------------------------------------------------------


def test_the_ways_to_put_a_prompt_in(shop: Project) -> None:
    shop.write("question.txt", "from a\nfile: é\n")
    shop.write(
        "many.jsonl",
        '{"prompt": "first", "id": "a", "meta": {"k": "v"}, "max_attempts": 7}\n'
        "\n"
        '{"prompt": "later", "delay": 60}\n',
    )
    command = [*shop.command("tasks", "submit", "plain", "@question.txt", "-"), "--json"]
    piped = subprocess.run(
        [*command, "--meta", "a=b", "--jsonl", "many.jsonl"],
        cwd=shop.root,
        env=shop.environment(),
        input="from a pipe",
        text=True,
        capture_output=True,
        timeout=30,
        check=True,
    )
    said = json.loads(piped.stdout)
    assert (said["version"], len(said["ids"])) == (1, 5)
    assert submit(shop, "twice", "--id", "a") == ["a"]
    rows = shop.run("tasks", "list", "--json").json()["tasks"][::-1]
    assert [row["prompt"] for row in rows] == [
        "plain",
        "from a\nfile: é\n",
        "from a pipe",
        "first",
        "later",
    ]
    assert [row["id"] for row in rows] == said["ids"]
    assert (rows[0]["meta"], rows[0]["max_attempts"]) == ({"a": "b"}, 3)
    assert (rows[3]["meta"], rows[3]["max_attempts"]) == ({"a": "b", "k": "v"}, 7)
    assert rows[4]["due_at"] > rows[3]["due_at"]


def test_lines_that_are_wrong_are_told_all_at_once_and_none_is_put_in(shop: Project) -> None:
    lines = [
        b'{"prompt": "good"}',
        b'{"promt": "x"}',
        b'{"prompt": 3}',
        b"[1]",
        b'{"prompt": "a", "meta": {"a": 1}}',
        b'{"prompt": "a", "max_attempts": 0}',
        b"{nonsense",
        b'{"prompt": "\xff"}',
        b'{"prompt": "a", "delay": -1}',
    ]
    shop.write("bad.jsonl", b"\n".join(lines))
    ended = shop.run("tasks", "submit", "--jsonl", "bad.jsonl")
    assert ended.code == 2
    assert [line.partition("bad.jsonl:")[2] for line in ended.err.splitlines()] == [
        '2: unknown field "promt" (did you mean "prompt"?)',
        "3: prompt: expected a text",
        "4: expected an object with `prompt`, found list",
        "5: meta: expected an object of texts",
        "6: max_attempts: expected a whole number from 1",
        "7: not JSON: Expecting property name enclosed in double quotes, at character 2",
        "8: not UTF-8",
        "9: delay: expected seconds, from 0",
    ]
    assert not (shop.root / ".muster/queue.db").exists()


def test_a_full_queue(shop: Project) -> None:
    ended = shop.run("tasks", "submit", "a", "b", "c", "--queue", "sqlite:q.db?depth=2")
    assert ended.code == 1
    assert len(ended.out.split()) == 2
    assert ended.err.startswith("error: the queue is full: 2 tasks are open")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tasks", "submit"), "nothing to submit: expected a PROMPT, @FILE, -, or --jsonl FILE"),
        (("tasks", "submit", " "), "PROMPT: the prompt is empty"),
        (("tasks", "submit", "@none.txt"), "none.txt: No such file or directory"),
        (("tasks", "submit", "a", "b", "--id", "x"), "--id is for one task"),
        (("tasks", "submit", "a", "--meta", "x"), '--meta: expected NAME=VALUE, found "x"'),
        (("tasks", "submit", "a", "--queue", "memory:"), "seen by no other process"),
        (("tasks", "submit", "a", "--queue", "sqlit:x"), 'unknown queue "sqlit"'),
        (("tasks", "list"), "no queue yet: there is no file"),
        (("tasks", "list", "--queue", "sqlite:none.db"), "no queue yet: there is no file"),
        (("tasks", "requeue", "--queue", "sqlite:none.db"), "which? expected ids of dead tasks"),
        (("worker", "ecko"), 'target "ecko" not found'),
        (("worker", "echo", "--once", "--until-empty"), "do not go together"),
        (("worker", "echo", "--queue", "memory:"), "seen by no other process"),
        (("worker", "echo", "--queue", "sqlite:q.db?lease=1"), 'unknown option "lease"'),
        (("worker", "echo", "--queue", "sqlite:targets.yaml"), "not a queue of tasks"),
        (("worker", "noted", "--safe"), "--safe refuses"),
    ],
)
def test_bad_usage(shop: Project, arguments: tuple[str, ...], said: str) -> None:
    ended = shop.run(*arguments)
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert said in ended.err
    assert not (shop.root / ".muster/queue.db").exists()


def test_an_id_that_is_not_there(shop: Project) -> None:
    submit(shop, "a")
    for command in ("show", "wait", "cancel", "requeue"):
        ended = shop.run("tasks", command, "nobody")
        assert ended.code == 2
        assert ended.err == "error: no such task in the queue: nobody\n"


def test_the_queue_of_the_environment(shop: Project) -> None:
    url = "sqlite:other.db"
    ended = shop.run("tasks", "submit", "a", env={"TASK_QUEUE_URL": url})
    assert ended.code == 0
    assert (shop.root / "other.db").exists()
    shop.write(".env", f"TASK_QUEUE_URL={url}\n")
    assert shop.run("worker", "echo", "--until-empty").err == "1 done, 0 dead\n"
    assert not (shop.root / ".muster/queue.db").exists()


def test_secrets_are_not_in_the_file(shop: Project, tmp_path: Path) -> None:
    submit(shop, "my key is sk-geheim-0123456789")
    env = {"OPENAI_API_KEY": "sk-geheim-0123456789"}
    assert shop.run("worker", "echo", "--once", env=env).code == 0
    with sqlite3.connect(shop.root / ".muster/queue.db") as file:
        ((output,),) = file.execute("SELECT output FROM tasks")
    assert "geheim" not in output
    assert "my key is" in output
