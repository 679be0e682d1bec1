"""`muster check provider`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from muster.testing.rules import RULES

SPY = """
import os
import socket

import muster


@muster.register("spy")
def create(target):
    def answer(question: str):
        try:
            socket.create_connection(("10.255.255.1", 9), timeout=2)
            went = "connected"
        except OSError as error:
            went = str(error)
        try:
            socket.getaddrinfo("example.com", 80)
        except OSError as error:
            went += "; " + str(error)
        return question + f"; {went}; {target.config['token']}; {os.environ['SPY_API_KEY']}"
    return answer
"""


def check(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "muster", "check", "provider", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **env},
        check=False,
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "targets.yaml").write_text(
        """
targets:
  - {name: paid, provider: openai, model: gpt-4o, api_key: "${{ OPENAI_API_KEY }}"}
  - name: service
    provider: http
    url: https://agent.example.com/v1/chat
    headers: {Authorization: "Bearer ${{ AGENT_KEY }}"}
    body: {q: "{{ question }}"}
    response: {text: result.reply}
  - {name: odd, provider: http, url: "http://a.example", response: {text: "join('', parts)"}}
  - {name: spying, provider: spy, token: "${{ SPY_API_KEY }}"}
  - {name: cat, provider: cli, command: "cat {PROMPT_FILE}"}
  - name: telling
    provider: cli
    command: >-
      echo $OPENAI_BASE_URL $ANTHROPIC_BASE_URL $OPENAI_API_KEY $SPY_API_KEY $MUSTER_CHECK_URL
      $(ls -A $HOME | wc -l) files at home
  - {name: nobody, provider: cli, command: "exit 3"}
"""
    )
    (tmp_path / ".muster" / "providers").mkdir(parents=True)
    (tmp_path / ".muster" / "providers" / "spy.py").write_text(SPY)
    return tmp_path


def test_a_target_that_keeps_all_rules(project: Path) -> None:
    ended = check(project, "paid", "--json")
    report = json.loads(ended.stdout)
    assert ended.returncode == 0
    assert "base_url is replaced by the environment's" in ended.stderr
    assert (report["format"], report["provider"], report["way"]) == (
        "muster.check/1",
        "paid",
        "itself",
    )
    assert (report["passed"], report["failed"], report["not_applicable"]) == (len(RULES), 0, 0)
    assert report["seconds"] < 20
    assert [row["id"] for row in report["rules"]] == [rule.id for rule in RULES]


CHILD = """
import json, sys, urllib.request

for line in sys.stdin:
    asked = json.loads(line)
    if asked["method"] == "initialize":
        settings = asked["params"]["settings"]
        result = {"protocol_version": 1, "max_in_flight": 1}
    elif asked["method"] == "invoke":
        body = json.dumps({"q": asked["params"]["question"]}).encode()
        call = urllib.request.Request(settings["base_url"], body)
        with urllib.request.urlopen(call) as answer:
            result = {"text": json.load(answer)["text"] + settings["token"]}
    else:
        result = {}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""


def test_a_child_that_is_told_where_its_service_is(project: Path) -> None:
    (project / "child.py").write_text(CHILD)
    (project / "targets.yaml").write_text(f"""
targets:
  - name: child
    provider: stdio
    command: [{sys.executable}, child.py]
    settings: {{base_url: "https://agent.example.com/v1/ask", token: "${{{{ AGENT_TOKEN }}}}"}}
""")
    ended = check(project, "child", "--rule", "question-arrives")
    assert "settings.base_url is replaced by the environment's, on this machine" in ended.stderr
    assert "ok    question-arrives" in ended.stdout


def test_a_key_among_settings_is_the_environments(project: Path) -> None:
    code = """
import json

import muster
from muster.providers.transport import HttpClient
from pydantic import BaseModel, SecretStr


class Settings(BaseModel):
    endpoint: str = "https://agent.example.com"
    key: SecretStr | None = None
    read_timeout_seconds: float = 600.0


@muster.register("leaky")
class Leaky:
    Settings = Settings

    def __init__(self, target):
        self.settings = Settings.model_validate(target.config)
        self.client = HttpClient(read_timeout=self.settings.read_timeout_seconds)

    async def invoke(self, request):
        key = self.settings.key.get_secret_value()
        body = json.dumps({"q": request.question}).encode()
        headers = {"Authorization": f"Bearer {key}"}
        url = self.settings.endpoint
        reply = await self.client.send("POST", url, headers=headers, body=body)
        if reply.status != 200:
            raise muster.ProviderUnavailable(f"with the key {key}: {reply.status}")
        return json.loads(reply.body)["text"]

    async def aclose(self):
        await self.client.aclose()
"""
    (project / ".muster" / "providers" / "leaky.py").write_text(code)
    ended = check(project, "leaky", "--rule", "secrets-stay-hidden", "--rule", "service-stalls")
    assert "FAIL  secrets-stay-hidden" in ended.stdout
    assert "ok    service-stalls" in ended.stdout


def test_what_is_broken_is_told_with_evidence_and_the_way_out(project: Path) -> None:
    rules = (
        "--rule",
        "question-arrives",
        "--rule",
        "system-prompt-arrives",
        "--rule",
        "limit-turns",
    )
    ended = check(project, "service", *rules)
    assert ended.returncode == 1
    assert "ok    question-arrives" in ended.stdout
    assert "FAIL  system-prompt-arrives  the system prompt did not arrive" in ended.stdout
    assert "–     limit-turns  it offers no tools to the service" in ended.stdout
    assert "  mend: Send `request.system_prompt` and `request.guidelines`" in ended.stdout
    assert "service: 1 passed, 1 failed, 1 not applicable in " in ended.stdout


def test_markdown(project: Path) -> None:
    ended = check(
        project, "cat", "--markdown", "--rule", "empty-prompt", "--rule", "server-error-500"
    )
    assert ended.returncode == 1
    assert ended.stdout.startswith(
        "## cat\n\n0 passed, 1 failed, 1 not applicable; it calls no service.\n"
    )
    assert "| it calls no service | `server-error-500` |" in ended.stdout


def test_settings_of_the_command_line(project: Path) -> None:
    rules = ("--rule", "question-arrives", "--json")
    ended = check(project, "http", "--set", "url={url}/ask", *rules)
    assert (ended.returncode, json.loads(ended.stdout)["passed"]) == (0, 1)
    ended = check(project, "service", "--set", "body.q=constant", *rules)
    assert (ended.returncode, json.loads(ended.stdout)["failed"]) == (1, 1)


def test_no_key_and_no_connection_leaves(project: Path) -> None:
    said = answer_of(project, "spying")
    assert said == (
        "?; muster check lets nothing out: 10.255.255.1 was not looked up; muster check lets "
        "nothing out: example.com was not looked up; KEY; key-of-the-environment"
    )


def test_a_command_finds_neither_keys_nor_a_login(project: Path) -> None:
    said = answer_of(project, "telling")
    assert said == "URL/v1 URL KEY KEY URL 0 files at home"


def answer_of(project: Path, target: str) -> str:
    """What a target says that is pointed at an environment: its key and URL by their names."""
    script = project / "ask.py"
    script.write_text(
        """
from pathlib import Path
from muster.testing.environment import Environment
from muster.testing.pointing import target_named
from muster.provider import ProviderRequest
import asyncio
with Environment() as environment:
    pointed = target_named({target!r}, Path.cwd())
    provider = pointed.subject.factory(environment)
    answer = asyncio.run(provider.invoke(ProviderRequest(question="?"))).text
    print(answer.replace(environment.key, "KEY").replace(environment.url, "URL"), end="")
""".replace("{target!r}", repr(target))
    )
    env = {**os.environ, "SPY_API_KEY": "sk-the-real-one-0123456789", "OPENAI_API_KEY": "sk-real"}
    command = [sys.executable, str(script)]
    return subprocess.run(
        command, cwd=project, capture_output=True, text=True, env=env, check=True, timeout=60
    ).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "say which target or provider is to be checked"),
        (("paid", "--rule", "stream-end-early"), 'no rule "stream-end-early" (near: stream-ends'),
        (("piad",), 'target "piad" not found'),
        (("ecko",), 'unknown provider "ecko" — did you register it? (near: echo; '),
        (("paid", "--set", "x"), "--set x: expected KEY=VALUE"),
        (("paid", "--json", "--markdown"), "choose one"),
        (("paid", "--set", "temprature=1"), "temprature"),
        (("odd",), "response.text cannot be checked"),
        (("nobody",), "nobody does not answer a first question: ProviderFailed"),
    ],
)
def test_mistakes(project: Path, arguments: tuple[str, ...], message: str) -> None:
    ended = check(project, *arguments)
    assert message in ended.stderr
    assert ended.returncode == 2


def test_the_list_of_rules(project: Path) -> None:
    ended = check(project, "--list", "--json")
    assert [row["id"] for row in json.loads(ended.stdout)] == [rule.id for rule in RULES]
