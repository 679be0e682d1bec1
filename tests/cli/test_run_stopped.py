"""Runs that are stopped, gone on with, watched, and asked for an answer."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import time

import pytest
from muster_project import Ended, Project, wait_until

from muster.store.journal import Journal
from muster.store.records import RunRecord

TEAM = """
apiVersion: muster.dev/v1alpha1
kind: Agent
metadata: {name: w}
spec:
  provider: counting
  model: m
  systemPrompt: Help.
  tools: [{name: mark, python: "marks:mark"}]
---
apiVersion: muster.dev/v1alpha1
kind: Flow
metadata: {name: t}
spec:
  steps:
  - {name: one, arkAgent: w, inputs: {prompt: one}}
  - {name: two, arkAgent: w, dependsOn: [one], inputs: {prompt: "two {{ .steps.one.output }}"}}
  - {name: three, arkAgent: w, dependsOn: [two], inputs: {prompt: three}}
"""

PROVIDER = """
    import asyncio, os
    import muster
    from muster.provider import BadRequest, ProviderResponse, TokenUsage

    @muster.register("counting")
    class Counting:
        '''Writes down what it is asked; hangs or fails at "two" while a file says so.'''

        def __init__(self, target):
            pass

        async def invoke(self, request):
            name = request.question.split()[1]
            with open("asked.txt", "a") as file:
                file.write(name + "\\n")
            if name == "two":
                await request.call_tool("mark", {"text": "tool"})
                if os.path.exists("bad"):
                    raise BadRequest("no such model")
                while os.path.exists("hang"):
                    open("hanging", "w").close()
                    try:
                        await asyncio.sleep(60)
                    except asyncio.CancelledError:
                        if not os.path.exists("deaf"):
                            raise
            if request.on_chunk is not None:
                request.on_chunk("did ")
                request.on_chunk(name)
            return ProviderResponse("did " + name, token_usage=TokenUsage(100, 0))
"""

TOOL = """
    def mark(text: str) -> str:
        '''Leave a mark.'''
        with open("marks.txt", "a") as file:
            file.write(text + "\\n")
        return "marked"
"""


@pytest.fixture
def team(project: Project) -> Project:
    project.write("team.yaml", TEAM)
    project.write(".muster/providers/counting.py", PROVIDER)
    project.write("marks.py", TOOL)
    return project


def lines(project: Project, name: str) -> list[str]:
    path = project.root / name
    return path.read_text().split() if path.exists() else []


def only_run(project: Project) -> RunRecord:
    with Journal.open(project.root / ".muster" / "runs.db") as journal:
        (run,) = journal.runs()
    return run


def hanging(project: Project, *options: str) -> subprocess.Popen[str]:
    """The command, in the middle of the second step."""
    (project.root / "hang").touch()
    process = project.start("run", "team.yaml", *options)
    wait_until((project.root / "hanging").exists)
    return process


def go_on(project: Project, *arguments: str) -> Ended:
    (project.root / "hang").unlink(missing_ok=True)
    return project.run(*arguments)


def beside(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command that ends while another one goes on."""
    return subprocess.run(
        project.command(*arguments),
        cwd=project.root,
        env=project.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_ctrl_c_is_an_ordinary_end(team: Project) -> None:
    process = hanging(team, "--watch")
    process.send_signal(signal.SIGINT)
    ended = team.finish(process)
    assert ended.code == 130
    assert "interrupted: ending the calls under way" in ended.err
    assert "Flow Interrupted in" in ended.out
    assert "total: 100 tokens" in ended.out
    run = only_run(team)
    assert (run.status, run.reason) == ("interrupted", "Interrupted")
    assert run.token_usage is not None
    assert run.token_usage.total == 100
    assert f"muster run --resume {run.id}" in ended.out
    then = go_on(team, "run", "--resume", "latest")
    assert then.code == 0, then.text
    assert "total: 300 tokens" in then.out
    assert lines(team, "asked.txt") == ["one", "two", "two", "three"]
    assert lines(team, "marks.txt") == ["tool"]


def test_a_second_ctrl_c_ends_at_once(team: Project) -> None:
    (team.root / "deaf").touch()
    process = hanging(team)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert "interrupted" in process.stderr.readline()
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    ended = team.finish(process)
    assert ended.code == 130
    assert time.monotonic() - began < 2
    assert only_run(team).status == "interrupted"


def test_a_run_that_was_killed_goes_on(team: Project) -> None:
    process = hanging(team, "--max-tokens", "1000")
    process.kill()
    process.communicate()
    then = go_on(team, "run", "--resume", "latest", "--output", "json")
    assert then.code == 0, then.text
    assert then.json()["total_tokens"] == 300
    assert lines(team, "asked.txt") == ["one", "two", "two", "three"]
    assert lines(team, "marks.txt") == ["tool"]
    again = team.run("run", "--resume", "latest")
    assert again.code == 2
    assert "has succeeded; there is nothing left to do" in again.err


def test_a_run_goes_on_with_the_provider_that_it_began_with(team: Project) -> None:
    team.write("team.yaml", TEAM.replace("  provider: counting\n", ""))
    (team.root / "bad").touch()
    env = {"AGENT_PROVIDER": "counting"}
    assert team.run("run", "team.yaml", env=env).code == 1
    (team.root / "bad").unlink()
    then = team.run("run", "--resume", "latest")
    assert then.code == 0, then.text
    assert lines(team, "asked.txt") == ["one", "two", "two", "three"]


def test_a_run_that_goes_on_is_not_taken_over(team: Project) -> None:
    process = hanging(team)
    ended = beside(team, "run", "--resume", "latest")
    assert ended.returncode == 2
    assert f"is running in process {process.pid}" in ended.stderr
    process.send_signal(signal.SIGTERM)
    assert team.finish(process).code == 143


def test_retry_does_only_what_failed(team: Project) -> None:
    (team.root / "bad").touch()
    first = team.run("run", "team.yaml")
    assert first.code == 1
    (team.root / "bad").unlink()
    run = only_run(team)
    then = team.run("retry", run.id, "--watch")
    assert then.code == 0, then.text
    assert lines(team, "asked.txt") == ["one", "two", "two", "three"]
    assert only_run(team).status == "succeeded"


def test_a_changed_file_is_refused(team: Project) -> None:
    (team.root / "bad").touch()
    assert team.run("run", "team.yaml").code == 1
    team.write("team.yaml", TEAM.replace("prompt: three", "prompt: four"))
    ended = team.run("run", "--resume", "latest")
    assert ended.code == 2
    assert "is not what it was when the run began" in ended.err
    assert only_run(team).status == "failed"


def test_a_run_that_is_cancelled(team: Project) -> None:
    process = hanging(team)
    cancelled = beside(team, "runs", "cancel", "latest")
    assert cancelled.returncode == 0
    ended = team.finish(process)
    assert ended.code == 143
    assert "error:  cancelled by `muster runs cancel`" in ended.out
    assert only_run(team).status == "cancelled"


# --- on a terminal ------------------------------------------------------------------------------


class Terminal:
    """A command that sits on a terminal of its own."""

    def __init__(self, project: Project, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        env = {"COLUMNS": "100", "LINES": "40", "TERM": "xterm"}
        self.process = subprocess.Popen(
            project.command(*arguments),
            cwd=project.root,
            env=project.environment(env),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        project.started.append(self.process)  # type: ignore[arg-type]
        os.close(slave)
        self.seen = ""

    def read(self, until: str | None = None, seconds: float = 15) -> str:
        """What is shown until `until` stands there, or until the end."""
        end = time.monotonic() + seconds
        while until is None or until not in self.seen:
            assert time.monotonic() < end, self.seen
            if not select.select([self.master], [], [], 0.2)[0]:
                continue
            try:
                data = os.read(self.master, 65536)
            except OSError:  # nobody holds the other end any more
                break
            if not data:
                break
            self.seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode(errors="replace"))
        return self.seen

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def end(self) -> int:
        self.read()
        os.close(self.master)
        return self.process.wait(10)


def test_a_live_tree(team: Project) -> None:
    (team.root / "hang").touch()
    terminal = Terminal(team, "run", "team.yaml", "--watch")
    terminal.read("▸ two")
    assert "✓ one" in terminal.seen
    assert "100 tokens" in terminal.seen
    assert "did one" in terminal.seen
    assert "· three" in terminal.seen
    (team.root / "hang").unlink()
    os.kill(terminal.process.pid, signal.SIGINT)
    assert terminal.end() == 130
    assert "✗ two" in terminal.seen or "▸ two" in terminal.seen
    assert "Flow Interrupted" in terminal.seen
    assert team.left_running() == []


TALL = """
apiVersion: muster.dev/v1alpha1
kind: Agent
metadata: {name: w}
spec:
  provider: mock
  model: gpt-4o-mini
  systemPrompt: Help.
  mcpServers: [{name: dead, command: [/no/such/program]}]
---
apiVersion: muster.dev/v1alpha1
kind: Flow
metadata: {name: t}
spec:
  steps:
"""


def test_a_tree_that_is_higher_than_the_terminal(project: Project) -> None:
    """What is running is seen; warnings stay above it; at the end the whole tree is there."""
    steps = [
        f"  - {{name: s{number}, arkAgent: w, inputs: {{prompt: s{number}}}"
        + (f", dependsOn: [s{number - 1}]}}" if number else "}")
        for number in range(60)
    ]
    project.write("team.yaml", TALL + "\n".join(steps) + "\n")
    project.write(
        "script.yaml",
        """
        replies:
        - {contains: s50, delay: 60, text: late}
        - {text: well, usage: {input: 9, output: 1}, cost_usd: 0.25}
        """,
    )
    terminal = Terminal(project, "run", "team.yaml", "--watch", "--script", "script.yaml")
    terminal.read("▸ s50")
    assert re.search(r"… \d+ more above", terminal.seen)
    assert 'warning: MCP server "dead": cannot start' in terminal.seen
    terminal.seen = ""
    os.kill(terminal.process.pid, signal.SIGINT)
    assert terminal.end() == 130
    whole = terminal.seen[terminal.seen.rindex("✓ s0 ") :]
    assert re.search(r"✓ s49 +10 tokens  \$0\.25  0\.\ds", whole)
    assert "✗ s50" in whole
    assert "50 of 60 steps  500 tokens  $12.50" in whole


ASKS = """
apiVersion: muster.dev/v1alpha1
kind: Agent
metadata: {name: w}
spec: {model: mock, systemPrompt: x}
---
apiVersion: muster.dev/v1alpha1
kind: Flow
metadata: {name: t}
spec:
  steps:
  - {name: gate, approval: {message: "Shall we?"}}
  - {name: z, arkAgent: w, dependsOn: [gate], inputs: {prompt: "{{ .steps.gate.output }}"}}
"""


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1)])
def test_an_approval_on_the_terminal(project: Project, answer: str, code: int) -> None:
    project.write("team.yaml", ASKS)
    terminal = Terminal(project, "run", "team.yaml", "--watch")
    terminal.read("approve? [y/N]")
    assert "gate asks: Shall we?" in terminal.seen
    terminal.type(answer)
    assert terminal.end() == code
    assert ("reason: Rejected" in terminal.seen) == (code == 1)


def test_an_approval_from_elsewhere_ends_the_question(project: Project) -> None:
    project.write("team.yaml", ASKS)
    terminal = Terminal(project, "run", "team.yaml")
    terminal.read("approve? [y/N]")
    approve = beside(project, "approve", "latest", "gate", "--comment", "fine")
    assert approve.returncode == 0, approve.stderr
    assert terminal.end() == 0


def test_ctrl_c_while_somebody_is_asked(project: Project) -> None:
    project.write("team.yaml", ASKS)
    terminal = Terminal(project, "run", "team.yaml")
    terminal.read("approve? [y/N]")
    os.kill(terminal.process.pid, signal.SIGINT)
    assert terminal.end() == 130
    assert only_run(project).status == "interrupted"
    approved = project.run("approve", "latest", "gate")
    assert approved.code == 0
    assert project.run("run", "--resume", "latest").code == 0


def test_without_a_terminal_it_waits_and_says_how_to_answer(project: Project) -> None:
    project.write("team.yaml", ASKS)
    process = project.start("run", "team.yaml", "--watch")
    assert process.stdout is not None
    line = process.stdout.readline() + process.stdout.readline()
    run = only_run(project)
    assert f"  gate                 [waiting] Shall we?  (muster approve {run.id} gate)\n" in line
    process.send_signal(signal.SIGINT)
    assert project.finish(process).code == 130
    assert project.run("run", "team.yaml", "--yes", "--mock").code == 0


def test_a_run_that_is_not_watched_says_how_to_answer_too(project: Project) -> None:
    project.write("team.yaml", ASKS)
    process = project.start("run", "team.yaml")
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.endswith(f"[waiting] Shall we?  (muster approve {only_run(project).id} gate)\n")
    assert project.run("approve", "latest", "gate").code == 0
    assert project.finish(process).code == 0
