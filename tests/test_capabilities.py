"""What a target can do: what providers declare, what entries override, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import muster
import muster.providers
from manual import ROOT
from muster.capabilities import Capabilities, capabilities_of
from muster.config.targets import load_catalog
from muster.errors import ConfigError, UsageError
from muster.provider import (
    BadRequest,
    FilePart,
    ImagePart,
    Message,
    ProviderRequest,
    TextPart,
    Tool,
)
from muster.registry import Registry
from muster.targets import TargetPool
from muster.wrappers.capability import refusal

Open = Callable[..., TargetPool]
IMAGE = ImagePart("data:image/png;base64,AA==")


@pytest.fixture
def pool(tmp_path: Path) -> Open:
    def open_pool(targets: str, registry: Registry[Any] = muster.providers.providers) -> TargetPool:
        (tmp_path / "targets.yaml").write_text(targets)
        return TargetPool(load_catalog(tmp_path, env={}), registry)

    return open_pool


def without(name: str) -> str:
    return f"targets:\n  - {{name: t, provider: mock, capabilities: {{{name}: false}}}}\n"


ASKED = [
    ("tools", {"tools": (Tool("a"), Tool("b"))}, "has 2 tools: offer it none"),
    ("history", {"messages": (Message("user", "x"),)}, "has 1 earlier message: ask it"),
    ("files", {"input_files": (Path("a.txt"),)}, r"has 1 file \(a.txt\): put what they hold"),
    ("files", {"messages": (Message("user", (FilePart(Path("b.md")),)),)}, r"1 file \(b.md\)"),
    ("images", {"images": (IMAGE,)}, "has 1 image: leave them out"),
    ("images", {"input_files": (Path("a.PNG"),)}, r"has 1 image \(a.PNG\)"),
    ("images", {"messages": (Message("user", (TextPart("x"), IMAGE)),)}, "has 1 image"),
    ("structured_output", {"response_schema": {"type": "object"}}, "has a response_schema"),
]


@pytest.mark.parametrize(("name", "asked", "told"), ASKED)
async def test_what_is_not_there_is_refused(
    pool: Open, name: str, asked: dict[str, Any], told: str
) -> None:
    opened = pool(without(name))
    request = ProviderRequest(question="?", **asked)
    with pytest.raises(BadRequest, match=told) as caught:
        await opened.open("t").provider.invoke(request)
    assert str(caught.value).startswith(f'target "t" does not support {name}, ')
    assert str(caught.value).endswith(f"say `capabilities: {{{name}: true}}` in its entry")
    assert opened.open("t").refusal(request) == str(caught.value)
    plain = await opened.open("t").provider.invoke(ProviderRequest(question="?"))
    assert plain.text == "mock response"
    await opened.aclose()


@pytest.mark.parametrize(("name", "asked", "told"), ASKED)
async def test_what_is_not_known_is_tried(
    pool: Open, name: str, asked: dict[str, Any], told: str
) -> None:
    opened = pool("targets:\n  - {name: t, provider: mock}\n")
    answer = await opened.open("t").provider.invoke(ProviderRequest(question="?", **asked))
    assert answer.text in ("mock response", "{}")
    await opened.aclose()


def test_an_image_file_is_for_who_sees_images() -> None:
    request = ProviderRequest(question="?", input_files=(Path("a.png"),))
    assert refusal(Capabilities(files=False, images=True), request, "t") is None
    assert "does not support files" in str(refusal(Capabilities(files=False), request, "t"))
    assert "does not support images" in str(refusal(Capabilities(images=False), request, "t"))


def test_what_cannot_fit_is_refused_and_what_may_fit_is_tried() -> None:
    five = Capabilities(max_context_tokens=5)
    request = ProviderRequest(
        question="four  five\nsix",
        system_prompt="one",
        messages=(muster.Message("user", "two"), muster.Message("assistant", "three")),
    )
    why = refusal(five, request, "t")
    assert why is not None
    assert 'target "t" takes 5 tokens (max_context_tokens), and the request has 6 words' in why
    assert refusal(Capabilities(max_context_tokens=6), request, "t") is None
    # Nobody knows what a long word, or a text without blanks, is in tokens.
    assert refusal(five, ProviderRequest(question="x" * 1000), "t") is None
    assert refusal(five, ProviderRequest(question=" " * 1000), "t") is None


async def test_a_target_that_declares_a_context_alone_is_guarded(pool: Open) -> None:
    opened = pool(
        "targets:\n  - {name: t, provider: mock, capabilities: {max_context_tokens: 2}}\n"
    )
    with pytest.raises(BadRequest, match="takes 2 tokens"):
        await opened.open("t").provider.invoke(ProviderRequest(question="one two three"))
    assert (await opened.open("t").provider.invoke(ProviderRequest(question="one two"))).text
    await opened.aclose()


async def test_a_refusal_is_not_tried_again_but_another_may_step_in(pool: Open) -> None:
    opened = pool("""
targets:
  - name: blind
    provider: mock
    capabilities: {images: false}
    fallback_targets: [sees]
    max_retries: 5
  - {name: sees, provider: mock, response: a cat}
""")
    request = ProviderRequest(question="?", images=(IMAGE,))
    answer = await opened.open("blind").provider.invoke(request)
    assert (answer.text, answer.target_used, answer.attempts) == ("a cat", "sees", 2)
    assert opened.open("blind").refusal(request) is None
    await opened.aclose()


def test_the_entry_goes_before_the_provider(pool: Open) -> None:
    opened = pool("""
targets:
  - name: t
    provider: cli
    command: echo {PROMPT}
    capabilities: {tools: true, images: false, max_context_tokens: 1000}
""")
    found = opened.open("t").capabilities
    assert (found.tools, found.images, found.structured_output) == (True, False, False)
    assert found.max_context_tokens == 1000


class Declares:
    """A provider of a project's own."""

    capabilities: Any = None

    def __init__(self, target: Any) -> None:
        self.capabilities = target.config["declares"]

    async def invoke(self, request: ProviderRequest) -> str:
        return "fine"


async def test_a_project_s_own_provider_may_declare(pool: Open) -> None:
    registry = muster.providers.providers.for_project([])
    registry._project["own"] = (Declares, "here")
    opened = pool(
        "targets:\n"
        "  - {name: good, provider: own, declares: {images: false}}\n"
        "  - {name: slip, provider: own, declares: {imagse: false}}\n"
        "  - {name: odd, provider: own, declares: [images]}\n",
        registry,
    )
    assert opened.open("good").capabilities == Capabilities(images=False)
    with pytest.raises(BadRequest, match='target "good" does not support images'):
        await opened.open("good").provider.invoke(ProviderRequest(question="?", images=(IMAGE,)))
    with pytest.raises(ConfigError, match=r'"imagse" \(did you mean "images"\?\)'):
        opened.open("slip")
    with pytest.raises(ConfigError, match="must be Capabilities or a mapping, not list"):
        opened.open("odd")
    await opened.aclose()


def test_a_function_and_a_chat_model_may_declare(tmp_path: Path, pool: Open) -> None:
    (tmp_path / "declaring_function.py").write_text(
        "from muster.capabilities import Capabilities\n"
        "def answer(question: str) -> str:\n    return question\n"
        "answer.capabilities = Capabilities(history=False)\n"
    )
    opened = pool(
        "targets:\n  - {name: f, provider: function, function: declaring_function:answer}\n"
    )
    assert opened.open("f").capabilities == Capabilities(history=False)


def test_wrong_declarations() -> None:
    assert capabilities_of(object()) == Capabilities()
    for value, told in (
        ({"tools": "yes"}, "tools: expected true or false, or nothing, found 'yes'"),
        ({"tools": 1}, "tools: expected true or false"),
        ({"max_context_tokens": -1}, "expected a number from 0 up"),
        ({"max_context_tokens": True}, "expected a number from 0 up"),
        ({"sees": True}, "known: streaming, tools"),
    ):
        with pytest.raises(ValueError, match=told):
            Capabilities.from_mapping(value)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        (
            "{imagse: true}",
            r'targets\.yaml:2:\d+: .*unknown field "imagse" \(did you mean "images"',
        ),
        ('{images: "no"}', 'expected true or false, found "no"'),
        ("{max_context_tokens: 0}", "max_context_tokens"),
        ("[images]", "capabilities"),
    ],
)
def test_wrong_entries(pool: Open, written: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        pool(f"targets:\n  - {{name: t, provider: mock, capabilities: {written}}}\n").open("t")


def test_what_an_http_service_is_told_decides(pool: Open) -> None:
    opened = pool("""
targets:
  - {name: plain, provider: http, url: "http://127.0.0.1:9/"}
  - name: whole
    provider: http
    url: http://127.0.0.1:9/
    body: {m: "{{ messages }}", t: "{{ tools }}", s: "{{ response_schema }}"}
  - {name: bare, provider: http, url: "http://127.0.0.1:9/", body: {q: "{{ question }}"}}
""")
    names = ("history", "files", "tools", "structured_output", "images")

    def told(name: str) -> list[bool | None]:
        found = opened.open(name).capabilities
        return [getattr(found, each) for each in names]

    assert told("plain") == [True, True, False, False, False]
    assert told("whole") == [True, True, True, True, False]
    assert told("bare") == [False, False, False, False, False]


def test_prices_and_context_come_from_the_price_list(pool: Open) -> None:
    opened = pool("""
targets:
  - {name: known, provider: openai, model: gpt-4o-mini, api_key: x}
  - {name: unknown, provider: openai, model: no-such-model, api_key: x}
  - name: own
    provider: openai
    model: gpt-4o-mini
    api_key: x
    capabilities: {input_usd_per_million: 9}
  - {name: free, provider: ollama, model: llama3}
""")

    def told(name: str) -> tuple[Any, ...]:
        found = opened.priced_capabilities(name)
        return (
            found.max_context_tokens,
            found.input_usd_per_million,
            found.output_usd_per_million,
        )

    assert told("known") == (128_000, 0.15, 0.6)
    assert told("unknown") == (None, None, None)
    assert told("own") == (128_000, 9, 0.6)
    assert told("free") == (None, None, None)


SAID = {"yes": True, "no": False, "tried": None, "by path": None}
KINDS = {
    "`openai`, `azure`, `gemini`": ("openai", "azure", "gemini"),
    "`anthropic`": ("anthropic",),
    "`cli`, coding agents": ("cli", "claude", "codex", "gemini-cli", "opencode", "pi", "copilot"),
    "`mock`": ("mock",),
    "`echo`, `replay`": ("echo", "replay"),
    "`team`": ("team",),
}
COLUMNS = ("tools", "history", "files", "images", "structured_output", "embeddings")


@pytest.mark.parametrize("row", KINDS)
def test_the_manual_s_table(row: str) -> None:
    page = (ROOT / "docs" / "capabilities.md").read_text(encoding="utf-8")
    line = next(line for line in page.splitlines() if line.startswith(f"| {row} |"))
    told = [SAID[cell.strip()] for cell in line.strip("| ").split("|")[1:]]
    for kind in KINDS[row]:
        factory: Any = muster.providers.providers.get(kind)
        by_kind = getattr(factory, "capabilities_as", None)
        found = by_kind(kind) if by_kind else capabilities_of(factory)
        assert [getattr(found, name) for name in COLUMNS] == told, kind


# --- on the command line ----------------------------------------------------------------------


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "muster", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_describe_a_provider_and_a_target(tmp_path: Path) -> None:
    (tmp_path / "targets.yaml").write_text("""
targets:
  - name: fast
    provider: openai
    model: gpt-4o-mini
    api_key: sk-secret-1234
    capabilities: {images: false}
""")
    told = json.loads(run(tmp_path, "providers", "describe", "fast", "--json").stdout)
    assert told["target"] == "fast"
    assert told["provider"] == "openai"
    assert told["from"] == "built-in"
    assert told["capabilities"]["images"] is False
    assert told["capabilities"]["max_context_tokens"] == 128_000
    assert told["declared_by_target"] == ["images"]
    assert told["config"] == {"model": "gpt-4o-mini", "api_key": "**********"}
    settings = {row["name"]: row for row in told["settings"]}
    assert settings["api_format"] == {
        "name": "api_format",
        "type": '"chat" or "responses"',
        "default": "chat",
        "description": "Chat Completions, which every compatible server has, or the Responses API.",
    }
    shown = run(tmp_path, "providers", "describe", "cli")
    assert shown.returncode == 0
    assert "tools                   no\n" in shown.stdout
    words = [line.split() for line in shown.stdout.splitlines()]
    assert ["command", "text", "or", "list", "of", "text", "required"] in [w[:7] for w in words]
    alias = run(tmp_path, "providers", "describe", "claude-code").stdout
    assert alias.startswith("provider  claude (by its other name, claude-code)\n")
    wrong = run(tmp_path, "providers", "describe", "nope")
    assert wrong.returncode == 2
    assert 'target "nope" not found' in wrong.stderr


def test_describe_a_child(tmp_path: Path) -> None:
    """It says what it can do when it has started; the target's own word goes before that."""
    (tmp_path / "child.py").write_text(
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    id, can = json.loads(line)['id'], {'tools': True, 'images': False, 'files': False}\n"
        "    said = {'protocol_version': 1, 'capabilities': can}\n"
        "    print(json.dumps({'jsonrpc': '2.0', 'id': id, 'result': said}), flush=True)\n"
    )
    (tmp_path / "targets.yaml").write_text(
        "targets:\n"
        f"  - {{name: kid, provider: stdio, command: [{sys.executable}, child.py],\n"
        "     capabilities: {files: true}}\n"
        "  - {name: gone, provider: stdio, command: [no-such-child]}\n"
    )
    told = json.loads(run(tmp_path, "providers", "describe", "kid", "--json").stdout)
    known = {name: value for name, value in told["capabilities"].items() if value is not None}
    assert known == {"tools": True, "images": False, "files": True}
    shown = run(tmp_path, "providers", "describe", "gone")
    assert shown.returncode == 0
    assert "What it says itself is not known: command not found" in shown.stdout


def test_describe_a_project_s_own_provider(tmp_path: Path) -> None:
    (tmp_path / ".muster" / "providers").mkdir(parents=True)
    (tmp_path / ".muster" / "providers" / "own.py").write_text('''
import muster
from muster.capabilities import Capabilities


@muster.register("own")
class Own:
    """Mine."""

    capabilities = Capabilities(tools=True)

    def __init__(self, target):
        pass

    async def invoke(self, request):
        return "?"
''')
    told = json.loads(run(tmp_path, "providers", "describe", "own", "--json").stdout)
    assert (told["from"], told["about"], told["settings"]) == ("project", "Mine.", None)
    assert told["capabilities"]["tools"] is True
    assert told["where"].endswith("own.py")


def test_a_suite_is_refused_before_it_runs(tmp_path: Path) -> None:
    (tmp_path / "targets.yaml").write_text(without("history") + "    \n")
    (tmp_path / "talk.eval.yaml").write_text("""
targets: [t]
tests:
  - id: single
    input: hi
    assertions: [{type: contains, value: mock}]
  - id: double
    turns: [{input: hi}, {input: again}]
    assertions: [{type: contains, value: mock}]
""")
    for command in ("validate", "eval"):
        ended = run(tmp_path, command, "talk.eval.yaml")
        assert ended.returncode == 2, ended.stdout
        assert 'talk.eval.yaml: case "double": target "t" does not support history' in ended.stderr
    assert not (tmp_path / ".muster" / "results").exists()


def test_a_provider_given_in_python_is_held_to_what_it_declares() -> None:
    class Blind:
        capabilities = Capabilities(images=False)

        async def invoke(self, request: ProviderRequest) -> str:
            return "a cat"

    def case(content: Any) -> dict[str, Any]:
        return {"input": content, "assertions": [{"type": "contains", "value": "cat"}]}

    blind = Blind()
    assert muster.evaluate([case("What is a cat?")], blind).passed is True
    image = {"type": "image", "value": "data:image/png;base64,AA=="}
    with pytest.raises(UsageError, match="does not support images"):
        muster.evaluate([case([{"role": "user", "content": [image]}])], blind)


def test_an_agent_with_tools_on_a_command_is_refused_before_it_runs(tmp_path: Path) -> None:
    (tmp_path / "targets.yaml").write_text(
        "targets:\n  - {name: coder, provider: cli, command: echo {PROMPT}}\n".replace(
            "echo {PROMPT}", '"echo {PROMPT}"'
        )
    )
    (tmp_path / "tools_of_mine.py").write_text(
        "def add(a: int, b: int) -> int:\n    'Add.'\n    return a + b\n"
    )
    team = """
apiVersion: muster.dev/v1alpha1
kind: Team
metadata: {name: coders}
spec:
  roles:
    - name: write
      target: coder
      TOOLS
  pipeline:
    - {role: write, inputs: {prompt: hi}}
"""
    tools = 'tools: [{name: add, python: "tools_of_mine:add"}]'
    (tmp_path / "team.yaml").write_text(team.replace("TOOLS", tools))
    ended = run(tmp_path, "run", "team.yaml")
    assert ended.returncode == 2, (ended.stdout, ended.stderr)
    told = 'the agent "coders-write" has tools, and its target "coder" (provider cli)'
    assert told in ended.stderr
    (tmp_path / "team.yaml").write_text(team.replace("TOOLS", ""))
    assert run(tmp_path, "run", "team.yaml").returncode == 0
