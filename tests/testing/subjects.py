"""The built-in providers as subjects of the conformance suite, and the report on them.

python tests/testing/subjects.py > docs/providers/conformance.md
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from muster.provider import Provider
from muster.providers import providers
from muster.providers.create import create_provider
from muster.target import ResolvedTarget, Secret
from muster.testing.environment import Environment
from muster.testing.report import as_markdown, as_text, rules_as_markdown
from muster.testing.rules import RULES
from muster.testing.running import check_provider
from muster.testing.subject import Subject

HERE = Path(__file__).parent
MODEL = "gpt-4o-mini"
USAGE = {"input": 9, "output": 3, "cached": 4}
SLOW = (
    "cancelled-within-1-s",
    "cancelled-leaks-nothing",
    "timeouts-are-typed",
    "limit-seconds",
)
"""Rules for which the mock takes its time."""


def made(provider: str, config: dict[str, Any], base: Path = HERE, **fields: Any) -> Provider:
    fields.setdefault("env", {"PATH": "/usr/bin:/bin"})
    target = ResolvedTarget(
        name=provider, provider=provider, config=config, base_dir=base, **fields
    )
    return create_provider(target, providers)


def of_model(provider: str, path: str, **more: Any) -> Callable[[Environment], Provider]:
    def make(environment: Environment) -> Provider:
        config = {
            "base_url": environment.url + path,
            "api_key": Secret(environment.key),
            "model": MODEL,
            **more,
        }
        if environment.read_timeout is not None:
            config["read_timeout_seconds"] = environment.read_timeout
        return made(provider, config)

    return make


def of_http(*, streamed: bool) -> Callable[[Environment], Provider]:
    def make(environment: Environment) -> Provider:
        config: dict[str, Any] = {
            "url": f"{environment.url}/answer",
            "headers": {"Authorization": Secret(f"Bearer {environment.key}")},
            "body": {
                "messages": "{{ messages }}",
                "max_tokens": "{{ max_output_tokens }}",
                "model": MODEL,
            },
        }
        if streamed:
            config |= {"stream": "sse", "response": {"done": "[DONE]"}}
        if environment.read_timeout is not None:
            config["read_timeout_seconds"] = environment.read_timeout
        return made("http", config)

    return make


def cli(environment: Environment) -> Provider:
    command = [sys.executable, "-S", "-E", str(HERE / "relay_command.py"), "{PROMPT_FILE}"]
    config = {"command": command, "env": {"ENVIRONMENT_URL": environment.url}}
    return made("cli", config)


def stdio(environment: Environment) -> Provider:
    command = [sys.executable, "-S", "-E", str(HERE / "relay_child.py")]
    config = {"command": command, "env": {"ENVIRONMENT_URL": environment.url}}
    return made("stdio", config)


def agent(folder: Path) -> Callable[[Environment], Provider]:
    program = folder / "agent"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E {HERE / "relay_agent.py"} "$@"\n')
    program.chmod(0o755)

    def make(environment: Environment) -> Provider:
        config = {"executable": str(program), "env": {"ENVIRONMENT_URL": environment.url}}
        return made("claude", config)

    return make


def function(environment: Environment) -> Provider:
    port = environment.url.rpartition(":")[2]
    return made("function", {"function": f"relay:at_{port}"})


def mock(environment: Environment) -> Provider:
    def calls(*named: tuple[str, int]) -> list[dict[str, Any]]:
        return [
            {"tool": name, "id": f"call_{number}", "input": {"a": a, "b": a}}
            for number, (name, a) in enumerate(named)
        ]

    one = [{"tool": "add", "id": "call_1", "input": {"a": 2, "b": 3}}]
    several = calls(("add", 0), ("multiply", 1), ("add", 2))
    missing = [{"tool": "subtract", "id": "call_1", "input": {}}]
    replies = [
        {"case": "tool-calls-round-trip", "tool_calls": one},
        {"case": "parallel-tool-calls-in-order", "tool_calls": several},
        {"case": "failing-tool-is-told", "tool_calls": one},
        {"case": "unknown-tool-is-told", "tool_calls": missing},
        *({"case": rule, "text": "late", "delay": 30} for rule in SLOW),
        {"case": "usage-monotonic", "text": "counted", "usage": USAGE},
    ]
    default = {"chunks": ["one, ", "two\n", " three"]}
    return made("mock", {"replies": replies, "default": default})


def echo(environment: Environment) -> Provider:
    return made("echo", {})


def replay(folder: Path) -> Callable[[Environment], Provider]:
    path = folder / "recorded.jsonl"
    ids = ("first-question", *(rule.id for rule in RULES))
    usage = {"input": 5, "output": 2}
    rows = [{"id": id, "output": "recorded", "token_usage": usage} for id in ids]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return lambda environment: made("replay", {"file": str(path)})


TEAM = """
apiVersion: muster.dev/v1alpha1
kind: Team
metadata: {name: answering}
spec:
  inputs: [{name: question}]
  roles:
    - {name: one, model: a-model, systemPrompt: Answer.}
  pipeline:
    - {role: one, inputs: {task: "{{ .input.question }}"}}
"""


def team(folder: Path) -> Callable[[Environment], Provider]:
    (folder / "team.yaml").write_text(TEAM)

    def make(environment: Environment) -> Provider:
        targets = folder / f"targets-{environment.url.rpartition(':')[2]}.yaml"
        agent = {
            "name": "agent",
            "provider": "openai",
            "base_url": f"{environment.url}/v1",
            "api_key": "${{ AGENT_API_KEY }}",
            "model": MODEL,
            "max_retries": 0,
        }
        targets.write_text(json.dumps({"targets": [agent]}))
        config = {"file": "team.yaml", "target_for_all": "agent"}
        key = {"AGENT_API_KEY": environment.key}
        return made("team", config, folder, targets_file=targets, env=key)

    return make


def subjects(folder: Path) -> list[Subject]:
    """Every built-in provider; what they need is written into `folder`."""
    return [
        Subject(name="openai (chat)", factory=of_model("openai", "/v1"), price_as="openai"),
        Subject(
            name="openai (responses)",
            factory=of_model("openai", "/v1", api_format="responses"),
            price_as="openai",
        ),
        Subject(name="anthropic", factory=of_model("anthropic", ""), price_as="anthropic"),
        Subject(name="http", factory=of_http(streamed=False)),
        Subject(name="http (sse)", factory=of_http(streamed=True)),
        Subject(name="cli", factory=cli, way="behind"),
        Subject(name="stdio", factory=stdio, way="behind"),
        Subject(name="coding agents (claude)", factory=agent(folder), way="behind"),
        Subject(name="function", factory=function, way="behind"),
        Subject(name="team", factory=team(folder), way="behind"),
        Subject(name="mock", factory=mock),
        Subject(name="echo", factory=echo),
        Subject(name="replay", factory=replay(folder)),
    ]


INTRODUCTION = """<!-- Made by `python tests/testing/subjects.py`; the tests compare it. -->
# The built-in providers by the rules

[`muster check provider`](checking.md) on Muster's own providers. `cli`, `stdio`, the coding
agents, `function` and `team` have something behind them that asks the environment (a command, a
child, a function, an agent with a model), so that their failures need not keep their types; `mock`,
`echo` and `replay` ask nobody. Where a rule does not apply, the reason is told.

"""


def head() -> str:
    """The page before the providers: what it is, and the rules."""
    return f"{INTRODUCTION}## The rules\n\n{rules_as_markdown(RULES)}\n"


def page() -> str:
    """The whole page of the manual."""
    with tempfile.TemporaryDirectory() as folder:
        sections = [as_markdown(check_provider(subject)) for subject in subjects(Path(folder))]
    return head() + "\n".join(sections)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        print(page(), end="")
    else:
        with tempfile.TemporaryDirectory() as folder:
            for subject in subjects(Path(folder)):
                if sys.argv[1] in subject.name:
                    print(as_text(check_provider(subject)))
