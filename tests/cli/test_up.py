"""`muster up` as a process: its lines, its signals, and that a kill loses and repeats nothing."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import threading
import urllib.error
import urllib.request
from typing import Any

import pytest
from muster_project import Project, wait_until

TOKEN = "a-token-of-the-test-that-is-long"

TEAM = """\
apiVersion: muster.dev/v1alpha1
kind: Team
metadata: {name: t}
spec:
  input: {say: hello}
  roles:
    - {name: first, model: mock, systemPrompt: Say it.}
    - {name: second, model: mock, systemPrompt: Say it.}
  pipeline:
    - {role: first, inputs: {prompt: "{{ .input.say }}"}}
    - {role: second, dependsOn: [first], inputs: {prompt: "then {{ .input.say }}"}}
---
apiVersion: v1
kind: Secret
metadata: {name: hook-webhook-token}
stringData: {token: a-token-of-the-test-that-is-long}
---
apiVersion: muster.dev/v1alpha1
kind: Event
metadata: {name: hook}
spec:
  source: {type: webhook}
  targets: [{team: t, input: {say: "{{ .trigger.body.say }}"}}]
"""
CRON = """\
---
apiVersion: muster.dev/v1alpha1
kind: Event
metadata: {name: tick}
spec:
  source: {type: cron, cron: "@every 1s"}
  missedRuns: all
  targets: [{team: t, input: {say: "{{ .trigger.scheduledAt }}"}}]
"""
THEN = """\
---
apiVersion: muster.dev/v1alpha1
kind: Team
metadata: {name: u}
spec:
  roles: [{name: say, model: mock, systemPrompt: Say it.}]
  pipeline: [{role: say, inputs: {prompt: "{{ .input.of }}"}}]
---
apiVersion: muster.dev/v1alpha1
kind: Event
metadata: {name: then}
spec:
  source: {type: team-output, teamOutput: {name: t}}
  targets: [{team: u, input: {of: "{{ .trigger.run }}"}}]
"""
SCRIPT = """\
replies:
  - {role: second, contains: slow, delay: 60, text: late}
  - {role: second, text: done}
  - {role: first, text: begun}
"""


class Server:
    """`muster up team.yaml --json`, and its lines as they come."""

    def __init__(self, project: Project, *options: str) -> None:
        self.process = project.start(
            "up", "team.yaml", "--script", "script.yaml", "--port", "0", "--json", *options
        )
        self.project = project
        self.lines: list[dict[str, Any]] = []
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()
        self.url = self.line("listening")["text"]
        self.line("serving", "hook")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def found(self, outcome: str, event: str | None = None) -> list[dict[str, Any]]:
        return [
            line
            for line in list(self.lines)
            if line["outcome"] == outcome and event in (None, line["event"])
        ]

    def line(self, outcome: str, event: str | None = None, count: int = 1) -> dict[str, Any]:
        def has_come() -> bool:
            alive = self.process.poll() is None
            if len(self.found(outcome, event)) < count and not alive:
                assert self.process.stderr is not None
                raise AssertionError(self.process.stderr.read())
            return len(self.found(outcome, event)) >= count

        wait_until(has_come, 20)
        return self.found(outcome, event)[count - 1]

    def post(self, say: str, query: str = "", key: str | None = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        headers |= {"Idempotency-Key": key} if key is not None else {}
        request = urllib.request.Request(
            f"{self.url}/triggers/default/hook/fire{query}",
            data=json.dumps({"say": say}).encode(),
            headers=headers,
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def end(self, *signals: int) -> int:
        for number in signals or (signal.SIGTERM,):
            self.process.send_signal(number)
        code = self.process.wait(20)
        self.thread.join(10)
        assert self.process.stderr is not None
        assert self.process.stderr.read() == ""
        assert self.project.left_running() == []
        return code

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)
        self.thread.join(10)


@pytest.fixture
def served(project: Project) -> Project:
    project.write("script.yaml", SCRIPT)
    project.write("team.yaml", TEAM)
    return project


def rows(project: Project, query: str) -> list[Any]:
    with sqlite3.connect(project.root / ".muster" / "runs.db") as journal:
        return journal.execute(query).fetchall()


def beside(project: Project, *arguments: str) -> tuple[int, str]:
    """A command that ends while the server goes on."""
    done = subprocess.run(
        project.command(*arguments),
        check=False,
        cwd=project.root,
        env=project.environment(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.returncode, done.stdout


def test_lines_and_a_graceful_stop(served: Project) -> None:
    server = Server(served)
    status, told = server.post("x", "?mode=sync")
    assert (status, told["output"]) == (200, "done")
    assert server.end(signal.SIGINT) == 0
    outcomes = [(line["event"], line["run"], line["outcome"]) for line in server.lines]
    assert outcomes == [
        (None, None, "listening"),
        ("hook", None, "serving"),
        ("hook", told["run"], "started"),
        ("hook", told["run"], "succeeded"),
        (None, None, "stopping"),
        (None, None, "stopped"),
    ]
    assert all(line["at"].endswith("Z") for line in server.lines)
    assert TOKEN not in str(server.lines)
    for name in ("runs.db", "events.db"):
        assert (served.root / ".muster" / name).stat().st_mode & 0o077 == 0


def test_plain_lines(served: Project) -> None:
    process = served.start("up", "team.yaml", "--mock", "--port", "0")
    assert process.stdout is not None
    first, second = process.stdout.readline().split(), process.stdout.readline().split()
    assert first[1:4] == ["-", "-", "listening:"]
    assert second[1:6] == [
        "hook",
        "-",
        "serving:",
        "POST",
        f"{first[4]}/triggers/default/hook/fire",
    ]
    process.send_signal(signal.SIGTERM)
    ended = served.finish(process)
    assert (ended.code, ended.err) == (0, "")


def test_two_signals_interrupt_and_the_run_can_be_gone_on_with(served: Project) -> None:
    served.write("script.yaml", SCRIPT.replace("delay: 60", "delay: 1.5"))
    server = Server(served, "--grace", "60")
    _, told = server.post("slow")
    (run,) = told["runs"]
    wait_until(lambda: rows(served, "SELECT 1 FROM steps WHERE name = 'second'"))
    server.process.send_signal(signal.SIGTERM)
    server.line("stopping")
    assert server.end(signal.SIGTERM) == 143
    assert server.line("interrupted")["run"] == run
    resumed = served.run("run", "--resume", run, "--output", "json")
    assert resumed.code == 0, resumed.text
    assert (resumed.json()["run"], resumed.json()["output"]) == (run, "late")
    asked = "SELECT name, count(*) FROM steps WHERE status = 'succeeded' GROUP BY name"
    assert rows(served, asked) == [("first", 1), ("second", 1)]


def test_cancel_ends_the_run_and_not_the_server(served: Project) -> None:
    server = Server(served)
    _, told = server.post("slow")
    (run,) = told["runs"]
    ended = beside(served, "runs", "cancel", run)
    assert ended == (0, f"{run}: cancelled\n")
    assert server.line("cancelled")["run"] == run
    assert server.post("x", "?mode=sync")[0] == 200
    assert server.end() == 0


def test_killed_in_the_middle_nothing_is_lost_and_nothing_done_twice(served: Project) -> None:
    server = Server(served)
    first = server.post("slow", key="order-1")
    (run,) = first[1]["runs"]
    wait_until(lambda: rows(served, "SELECT 1 FROM steps WHERE name = 'second'"))
    server.kill()
    assert rows(served, "SELECT status FROM runs") == [("running",)]
    served.write("script.yaml", SCRIPT.replace("delay: 60, ", ""))
    again = Server(served)
    assert again.line("resumed")["run"] == run
    assert again.line("succeeded")["run"] == run
    assert again.post("slow", key="order-1") == first
    assert again.end() == 0
    assert rows(served, "SELECT id, status, output FROM runs") == [(run, "succeeded", "late")]
    asked = "SELECT name, count(*) FROM steps WHERE status = 'succeeded' GROUP BY name"
    assert rows(served, asked) == [("first", 1), ("second", 1)]


def test_cron_and_what_follows_it_across_kills(served: Project) -> None:
    """Three servers, two of them killed: each second once, each of its ends once."""
    served.write("team.yaml", TEAM + CRON + THEN)
    for _ in range(2):
        server = Server(served)
        server.line("succeeded", "then")
        server.kill()
    server = Server(served)
    server.line("succeeded", "then")
    assert server.end() == 0
    runs = rows(served, "SELECT input, status FROM runs WHERE team = 't' ORDER BY number")
    slots = [json.loads(given)["say"] for given, _ in runs]
    assert len(slots) >= 3
    assert slots == sorted(set(slots))
    assert {status for _, status in runs} == {"succeeded"}
    # What ended last may be waited for by the next server.
    ended = [name for (name,) in rows(served, "SELECT id FROM runs WHERE team = 't'")]
    followed = rows(served, "SELECT input FROM runs WHERE team = 'u'")
    names = [json.loads(given)["of"] for (given,) in followed]
    assert len(names) == len(set(names))
    assert set(names) <= set(ended)
    assert len(names) >= len(ended) - 1


def test_a_run_of_another_process_sets_it_off(served: Project) -> None:
    served.write("team.yaml", TEAM + THEN)
    server = Server(served)
    code, out = beside(
        served, "run", "team.yaml", "--team", "t", "--script", "script.yaml", "--output", "json"
    )
    assert code == 0
    server.line("succeeded", "then")
    assert server.end() == 0
    ((given,),) = rows(served, "SELECT input FROM runs WHERE team = 'u'")
    assert json.loads(given)["of"] == json.loads(out)["run"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (TEAM.replace("type: webhook", "type: webbook"), "team.yaml:"),
        (TEAM.split("---", maxsplit=1)[0], "error: team.yaml: there is no ArkEvent in it to serve"),
    ],
)
def test_bad_files(served: Project, text: str, told: str) -> None:
    served.write("team.yaml", text)
    ended = served.run("up", "team.yaml", "--mock")
    assert ended.code == 2
    assert told in ended.err
    assert not (served.root / ".muster" / "events.db").exists()


def test_a_reader_that_goes_away(served: Project) -> None:
    """The events are served on when nobody reads the lines any more."""
    read, write = os.pipe()
    process = served.start(
        "up", "team.yaml", "--script", "script.yaml", "--port", "0", "--json", stdout=write
    )
    os.close(write)
    with os.fdopen(read) as lines:
        url = json.loads(lines.readline())["text"]
        lines.readline()
    server = Server.__new__(Server)
    server.url = url
    assert server.post("x", "?mode=sync")[0] == 200
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


def test_the_standard_input_is_refused(served: Project) -> None:
    ended = served.run("up", "-", "--mock")
    assert ended.code == 2
    assert "events are served from a file" in ended.err


def test_a_script_that_speaks_for_nobody(served: Project) -> None:
    served.write("script.yaml", "replies: [{role: secnd, text: x}]")
    ended = served.run("up", "team.yaml", "--script", "script.yaml", "--port", "0")
    assert ended.code == 2
    assert ended.err == (
        'error: script.yaml:1:18: replies[0].role: the team has no role "secnd" '
        '(did you mean "second"?)\n'
    )


def test_a_changed_file_is_served_and_runs_keep_what_they_began_with(served: Project) -> None:
    """Each run has the definition of its time: its prompts, and the hash in the journal."""
    served.write("script.yaml", SCRIPT.replace("delay: 60", "delay: 1.5"))
    server = Server(served)
    _, told = server.post("slow")
    (old,) = told["runs"]
    wait_until(lambda: rows(served, "SELECT 1 FROM steps WHERE name = 'second'"))
    served.write("team.yaml", TEAM.replace("then {{", "and then {{") + CRON)
    server.line("reloaded")
    server.line("serving", "tick")
    status, answer = server.post("x", "?mode=sync")
    assert (status, answer["output"]) == (200, "done")
    server.line("succeeded", "tick")
    assert server.line("succeeded", "hook", 2)
    assert server.end() == 0
    prompts = rows(served, "SELECT run_id, prompt FROM steps WHERE name = 'second' ORDER BY id")
    asked = dict(prompts)
    assert "and then" not in asked[old]
    assert "and then x" in asked[answer["run"]]
    hashes = dict(rows(served, "SELECT id, definition_hash FROM runs WHERE parent IS NULL"))
    first, second = (
        hashlib.sha256(text.encode()).hexdigest()
        for text in (TEAM, TEAM.replace("then {{", "and then {{") + CRON)
    )
    assert (hashes[old], hashes[answer["run"]]) == (first, second)


def test_a_bad_change_is_told_and_served_past(served: Project) -> None:
    server = Server(served)
    served.write("team.yaml", TEAM.replace("role: second", "role: secnd"))
    told = server.line("not reloaded")["text"]
    assert told.startswith("as before: team.yaml:11:")
    assert '"secnd"' in told
    status, answer = server.post("x", "?mode=sync")
    assert (status, answer["output"]) == (200, "done")
    served.write("team.yaml", TEAM.replace("name: hook}", "name: hooked}"))
    server.line("serving", "hooked")
    assert server.post("x")[0] == 401
    assert server.end() == 0
    ((stored,),) = rows(served, "SELECT definition_hash FROM runs")
    assert stored == hashlib.sha256(TEAM.encode()).hexdigest()
