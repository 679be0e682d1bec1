"""`muster test`: teams with the mock in the place of every agent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from muster_project import Project

TEAM = """
    apiVersion: muster.dev/v1alpha1
    kind: Team
    metadata: {name: blog}
    spec:
      inputs: [{name: topic, required: true}]
      roles:
        - {name: research, target: nobody-there, systemPrompt: You find facts.}
        - {name: write, model: gpt-4o-mini, systemPrompt: You write.}
      pipeline:
        - {role: research, inputs: {prompt: "{{ .input.topic }}"}}
        - role: write
          dependsOn: [research]
          retry: {maxRetries: 2, initialDelaySeconds: 0.001}
          inputs: {prompt: "{{ .steps.research.output }}"}
"""

SCRIPT = """
    replies:
      - {role: research, contains: bees, text: Bees dance.}
      - {role: write, contains: dance, text: A post.}
    tests:
      - name: writes
        input: {topic: bees}
        expect: {output: A post.}
      - name: tries again
        input: {topic: bees}
        replies: [{role: write, attempt: [0, 1], error: rate_limited}]
        expect: {steps: {write: {attempts: 3}}}
      - name: hopes in vain
        input: {topic: hats}
        expect: {output: A post., steps: {write: {tools: [search]}}}
"""


@pytest.fixture
def blog(project: Project) -> Project:
    # Providers are never made: the mock answers for a target that could not.
    targets = "targets: [{name: nobody-there, provider: http, url: 'http://127.0.0.1:9'}]\n"
    project.write("targets.yaml", targets)
    project.write("team.yaml", TEAM)
    project.write("team.test.yaml", SCRIPT)
    return project


def test_what_passes_and_what_fails(blog: Project) -> None:
    ended = blog.run("test", "team.yaml")
    assert ended.code == 1
    assert ended.out.splitlines() == [
        "pass  team.yaml: writes",
        "pass  team.yaml: tries again",
        "FAIL  team.yaml: hopes in vain",
        '      output: expected "A post.", found "mock response"',
        "      steps.write.tools: expected [search], found []",
        "2 passed, 1 failed",
    ]
    assert ended.err == ""


def test_nothing_is_left_in_the_project(blog: Project) -> None:
    before = sorted(blog.root.rglob("*"))
    assert blog.run("test", "-k", "WRITES").code == 0
    assert sorted(blog.root.rglob("*")) == before


def test_only_some_and_as_json(blog: Project) -> None:
    ended = blog.run("test", "team.test.yaml", "-k", "vain", "--json")
    assert ended.code == 1
    told = ended.json()
    assert (told["passed"], told["failed"]) == (0, 1)
    (row,) = told["tests"]
    assert row["differences"][1] == {
        "what": "steps.write.tools",
        "expected": "[search]",
        "found": "[]",
    }
    assert row["run"]["steps"][0]["output"] == "mock response"
    assert (row["file"], row["name"], row["passed"]) == ("team.yaml", "hopes in vain", False)
    assert blog.run("test", "-k", "nothing like it").code == 2


def test_folders_and_scripts_that_lie_elsewhere(blog: Project) -> None:
    blog.write("deep/er/flow.yml", TEAM)
    blog.write("deep/er/flow.test.yml", "tests: [{name: below, input: {topic: bees}}]")
    blog.write("node_modules/x/other.test.yaml", "not: looked at")
    ended = blog.run("test", "deep", "team.yaml", "-k", "e")
    assert ended.out.splitlines()[0] == "pass  deep/er/flow.yml: below"
    assert ended.out.splitlines()[-1] == "3 passed, 1 failed"
    blog.write("aside.yaml", "tests: [{name: aside, input: {topic: bees}}]")
    ended = blog.run("test", "team.yaml", "--script", "aside.yaml")
    assert ended.out == "pass  team.yaml: aside\n1 passed, 0 failed\n"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (
            "replies: [{role: wrte, text: x}]\ntests: [{name: a, input: {topic: x}}]",
            '1:18: replies[0].role: the team has no role "wrte" (did you mean "write"?)',
        ),
        (
            "tests: [{name: a, input: {topic: x}, expect: {steps: {wrte: {}}}}]",
            '1:55: tests[0].expect.steps.wrte: the team has no step "wrte"',
        ),
        (
            "tests: [{name: a, input: {topc: x}}]",
            'tests[0].input: team "blog": unknown input "topc" (did you mean "topic"?)',
        ),
        ("tests: [{name: a}]", 'input "topic" is required'),
        (
            "tests: [{name: a, team: blg, input: {topic: x}}]",
            'tests[0].team: team "blg" not found; available: [blog] (did you mean "blog"?)',
        ),
        (
            "replies: [{tool_calls: [{tool: search}]}]\ntests: [{name: a, input: {topic: x}}]",
            'replies[0].tool_calls[0].tool: the team has no tool "search" (known: none)',
        ),
        (
            "tools: {search: x}\ntests: [{name: a, input: {topic: x}}]",
            '1:9: tools.search: the team has no tool "search"',
        ),
        (
            "tests: [{name: a, input: {topic: x}, approvals: {write: true}}]",
            'tests[0].approvals.write: the team has no step that asks "write"',
        ),
        ("tests: [{name: a, inputs: {}}]", 'unknown field "inputs" (did you mean "input"?)'),
    ],
)
def test_scripts_that_do_not_fit(blog: Project, script: str, told: str) -> None:
    blog.write("team.test.yaml", script)
    ended = blog.run("test", "team.yaml")
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err


def test_all_mistakes_are_told_before_any_test_is_run(blog: Project) -> None:
    blog.write("b.yaml", TEAM.replace("dependsOn: [research]", "dependsOn: [reserch]"))
    blog.write("b.test.yaml", "tests: [{name: b, input: {topic: x}}]")
    blog.write("c.yaml", TEAM)
    blog.write("c.test.yaml", "tets: []")
    ended = blog.run("test")
    assert (ended.code, ended.out) == (2, "")
    assert 'step "write" depends on unknown step "reserch"' in ended.err
    assert 'unknown field "tets" (did you mean "tests"?)' in ended.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("alone.yaml",), "there are no tests beside it (alone.test.yaml)"),
        (("nowhere.yaml",), "nowhere.yaml: there is no such file"),
        (("empty",), "empty: no tests here (*.test.yaml)"),
        (("orphan.test.yaml",), "the team that these tests are of is not there: orphan.yaml"),
    ],
)
def test_files_that_are_not_there(blog: Project, arguments: tuple[str, ...], told: str) -> None:
    blog.write("alone.yaml", TEAM)
    blog.write("orphan.test.yaml", "tests: []")
    (blog.root / "empty").mkdir()
    ended = blog.run("test", *arguments)
    assert ended.code == 2
    assert told in ended.err


# --- tools --------------------------------------------------------------------------------------

TOOLS = """
    apiVersion: muster.dev/v1alpha1
    kind: Team
    metadata: {name: desk}
    spec:
      input: {task: x}
      roles:
        - name: clerk
          model: gpt-4o-mini
          systemPrompt: You work.
          pythonTools: ["counting:count"]
          tools: [{name: search, url: "http://127.0.0.1:9/search"}]
          mcpServers: [{name: files, command: [python3, started.py]}]
      pipeline:
        - {role: clerk, inputs: {prompt: "{{ .input.task }}"}}
"""

CALLS = """
    replies:
      - role: clerk
        turn: 1
        tool_calls:
          - {tool: count, input: {text: a b}}
          - {tool: search, input: {q: x}}
          - {tool: files__read, input: {path: p}}
      - {role: clerk, turn: 2, text: done}
    tools:
      search: {error: no such page}
      files__read: {json: [1, 2]}
    expect:
      output: done
      steps: {clerk: {tools: [count, search, files__read]}}
"""


@pytest.fixture
def desk(project: Project) -> Project:
    project.write("desk.yaml", TOOLS)
    project.write("desk.test.yaml", CALLS)
    project.write("started.py", "open('started', 'w').close()\n")
    project.write(
        "counting.py",
        """
        from pathlib import Path

        def count(text: str) -> int:
            print("counting")
            Path(__file__).with_name("counted").write_text(text)
            return len(text.split())
        """,
    )
    return project


def test_tools_with_results_are_not_called(desk: Project) -> None:
    ended = desk.run("test", "--json")
    assert ended.code == 0, ended.text
    assert ended.json()["tests"][0]["name"] == "desk"
    assert (desk.root / "counted").read_text() == "a b"
    assert not (desk.root / "started").exists()
    assert "counting" in ended.err


def test_a_scripted_result_stands_in_for_a_python_tool(desk: Project) -> None:
    desk.write("desk.test.yaml", CALLS.replace("tools:\n      search", "tools:\n      count: two\n"
                                               "      search"))  # fmt: skip
    ended = desk.run("test")
    assert ended.code == 0, ended.text
    assert not (desk.root / "counted").exists()


def test_tools_outside_need_a_result(desk: Project) -> None:
    script = CALLS.replace("search: {error: no such page}", "count: 2 words").replace(
        "files__read: {json: [1, 2]}", ""
    )
    desk.write("desk.test.yaml", script)
    ended = desk.run("test")
    assert ended.code == 2
    assert 'tool "search": webhooks are not called in tests' in ended.err
    assert 'tool "files__read": MCP server "files" is not started in tests' in ended.err
    assert not (desk.root / "started").exists()


def test_live_tools_are_used(desk: Project) -> None:
    script = CALLS.replace("files__read: {json: [1, 2]}", "")
    desk.write("desk.test.yaml", script)
    ended = desk.run("test", "--live-tools")
    # The server dies at once, so there is no such tool: it was called all the same, the model is
    # told, and goes on.
    assert (ended.code, ended.out) == (0, "pass  desk.yaml: desk\n1 passed, 0 failed\n")
    assert (desk.root / "started").exists()


# --- the world outside ----------------------------------------------------------------------------


@pytest.fixture
def heard() -> Iterator[tuple[str, list[bytes]]]:
    """A server on loopback, and what it was sent."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", bodies
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_test_notifies_nobody_and_remembers_nothing(
    project: Project, heard: tuple[str, list[bytes]]
) -> None:
    url, bodies = heard
    project.write(
        "team.yaml",
        f"""
        apiVersion: muster.dev/v1alpha1
        kind: Notify
        metadata: {{name: ops}}
        spec:
          rateLimitSeconds: 0
          channels: [{{type: webhook, url: "{url}", allowHosts: [127.0.0.1]}}]
        ---
        apiVersion: muster.dev/v1alpha1
        kind: Memory
        metadata: {{name: notes}}
        spec: {{backend: sqlite, sqlite: {{path: notes.db}}}}
        ---
        apiVersion: muster.dev/v1alpha1
        kind: Agent
        metadata: {{name: clerk}}
        spec: {{model: m, systemPrompt: x, memoryRef: {{name: notes}}}}
        ---
        apiVersion: muster.dev/v1alpha1
        kind: Team
        metadata: {{name: t}}
        spec:
          notifyRef: {{name: ops}}
          roles: [{{name: a, arkAgent: clerk}}]
          pipeline: [{{role: a, inputs: {{prompt: x}}}}]
        """,
    )
    project.write("team.test.yaml", "expect: {output: mock response}")
    before = sorted(project.root.rglob("*"))
    assert project.run("test").out == "pass  team.yaml: team\n1 passed, 0 failed\n"
    assert bodies == []
    assert sorted(project.root.rglob("*")) == before
    assert project.run("run", "team.yaml", "--mock").code == 0
    assert len(bodies) == 1
    assert (project.root / "notes.db").exists()


# --- people -------------------------------------------------------------------------------------

ASKS = """
    apiVersion: muster.dev/v1alpha1
    kind: Team
    metadata: {name: asks}
    spec:
      roles: [{name: act, model: gpt-4o-mini, systemPrompt: You act.}]
      pipeline:
        - {name: agree, approval: {message: May it?, timeoutSeconds: 0.1}}
        - {role: act, dependsOn: [agree], inputs: {prompt: go}}
"""


def test_approvals_are_given_by_the_test(project: Project) -> None:
    project.write("asks.yaml", ASKS)
    project.write(
        "asks.test.yaml",
        """
        tests:
          - {name: by default, expect: {output: mock response}}
          - {name: with a no, approvals: {agree: false}, expect: {reason: Rejected}}
          - name: without a word
            approvals: {agree: nobody}
            expect: {reason: Rejected, steps: {act: {status: pending}}}
        """,
    )
    ended = project.run("test")
    assert ended.out.splitlines()[-1] == "3 passed, 0 failed", ended.text
    project.write("asks.yaml", ASKS.replace(", timeoutSeconds: 0.1", ""))
    ended = project.run("test")
    assert ended.code == 2
    assert "without an answer it never ends" in ended.err


def test_time_is_bounded(project: Project) -> None:
    project.write("asks.yaml", ASKS)
    project.write("asks.test.yaml", "delay: 60\n")
    ended = project.run("test", "--timeout", "0.3")
    assert ended.code == 1
    assert "found failed (TimedOut: run exceeded timeout of 0.3s)" in ended.out
    assert ended.seconds < 20


def test_settings_of_the_script_serve_a_run_too(blog: Project) -> None:
    ended = blog.run(
        "run", "team.yaml", "--script", "team.test.yaml", "-i", "topic=bees", "--output", "json"
    )
    assert json.loads(ended.out)["output"] == "A post."
    assert Path(blog.root, ".muster", "runs.db").exists()
