"""The book for provider authors is whole: every field, every error, every point of the two guides
that it answers."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields

import pytest

import muster
from manual import FENCE, ROOT, blocks_of, first_column, section_of
from muster.provider import ProviderError

INTERFACE = (
    muster.ProviderRequest,
    muster.ProviderResponse,
    muster.Message,
    muster.ToolCall,
    muster.TokenUsage,
    muster.Limits,
    muster.ResolvedTarget,
)
CHAT = (muster.ChatTurn, muster.ChatReply)


def rows(section: str) -> dict[str, str]:
    """The last cell of each row, by each name in the first."""
    found = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        for name in re.findall(r"`(\w+)`", cells[0]) if line.startswith("| `") else ():
            found[name] = cells[-1].strip()
    return found


@pytest.mark.parametrize("kind", [*INTERFACE, *CHAT], ids=lambda kind: kind.__name__)
def test_every_field_is_told(kind: type) -> None:
    page = "providers/chat-models.md" if kind in CHAT else "providers/interface.md"
    told = first_column(section_of(page, kind.__name__))
    assert told == [name for name in told if name.isidentifier()]
    assert sorted(told) == sorted(field.name for field in fields(kind))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [*INTERFACE, *CHAT], ids=lambda kind: kind.__name__)
def test_what_is_required(kind: type) -> None:
    page = "providers/chat-models.md" if kind in CHAT else "providers/interface.md"
    told = rows(section_of(page, kind.__name__))
    needed = {
        name
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.default is parameter.empty
    }
    assert {name for name, without in told.items() if without == "required"} == needed


def test_the_parts_and_tools_are_told() -> None:
    message, call = (section_of("providers/interface.md", name) for name in ("Message", "ToolCall"))
    for kind, told in (
        (muster.TextPart, message),
        (muster.FilePart, message),
        (muster.ImagePart, message),
        (muster.Tool, call),
    ):
        for name in (kind.__name__, *(field.name for field in fields(kind))):
            assert f"`{name}`" in told, name


def test_every_error_is_told() -> None:
    family = {
        name
        for name, value in vars(muster.provider).items()
        if isinstance(value, type) and issubclass(value, ProviderError)
    }
    told = first_column(section_of("providers/errors.md", "Errors and retries"))
    assert set(told) == family
    attributes = set(vars(ProviderError("…"))) - {"args"}
    assert set(first_column(section_of("providers/interface.md", "How it fails"))) == attributes


def test_the_index_leads_to_every_chapter() -> None:
    index = section_of("providers/index.md", "The book")
    for name in (
        *("interface", "chat-models", "streaming", "usage", "errors", "cancellation", "sharing"),
        *("testing", "checking", "packaging", "from-ark", "from-agentv"),
    ):
        assert f"({name}.md)" in index


# --- the two guides -------------------------------------------------------------------------------

ARK = {
    "The interface": (
        *("RunTask", "ctx", "cfg.SystemPrompt", "task.Prompt", "tools []mcp.Tool", "callTool"),
        *("chunkFn", "queue.TokenUsage", "with retries if appropriate", "run the tool-use loop"),
        "return the text, the token usage, any error",
    ),
    "Step 1: Create your provider package": (
        *("1. Build your request", "2. Call your API", "3. Handle tool calls in a loop"),
        *("4. Return output, token counts, error", "providers.Register", "init()"),
    ),
    "Step 2: Register the provider": ("blank import", "main.go", "external provider"),
    "Step 3: Activate it in agent pods": ("AGENT_PROVIDER", "agentExtraEnv", "one agent's pods"),
    "Step 4: Test locally": (
        "AGENT_PROVIDER=myprovider",
        "team.yaml --watch",
        "did you register it\nwith providers.Register?",
    ),
    "TokenUsage": ("return zeros", "budget does not trigger", "cost tracking shows 0"),
    "Tool-use loop pattern": (
        *("callYourAPI", "HasToolCalls", "resp.Text()", "resp.ToolCalls()", "error: %s"),
        "messages = append",
    ),
    "See also": ("auto-detection", "Custom Task Queue Backends", "Environment Variables"),
}
"""The headings of ark's guide, each with what it says that must be answered."""

AGENTV = {
    "Provider Interface": ("id", "kind", "targetName", "invoke"),
    "ProviderRequest": (
        *("question: string", "systemPrompt: string?", "guidelines: string?"),
        *("inputFiles: string[]?", "evalCaseId: string?", "attempt: number?"),
        *("signal: AbortSignal?", "cwd: string?"),
    ),
    "ProviderResponse": (
        *("output: Message[]?", "tokenUsage: { input, output, cached? }?", "costUsd: number?"),
        *("durationMs: number?", "raw: unknown?", "role: string", "content: unknown?"),
        "toolCalls: ToolCall[]?",
    ),
    "Registering a Custom Provider": (
        *("createBuiltinProviderRegistry()", "`kind`", "ProviderFactoryFn", "ResolvedTarget"),
        "type ProviderFactoryFn = (target: ResolvedTarget) => Provider",
    ),
    "Example: Wrapping an HTTP API": (
        *(
            "class HttpAgentProvider",
            "http-agent:{target_name}",
            "/chat",
            "Bearer",
            "prompt_tokens",
        ),
        *(
            "completion_tokens",
            "http://localhost:8080",
            "my_http_agent",
            "judge_target: azure_base",
        ),
    ),
    "CLI Providers vs Native Providers": (
        *("Configuration", "Communication", "Best for", "Setup", "Debugging", "Token usage"),
    ),
    "When to use CLI providers": (
        *("existing script or binary", "another language", "no Python code"),
        "python agent.py --prompt-file {PROMPT_FILE} --output {OUTPUT_FILE}",
    ),
    "When to use native providers": (
        *("HTTP API or SDK directly", "error handling or retry logic", "token usage and cost"),
        "connection pools, auth tokens",
    ),
}
"""The headings of AgentV's guide, likewise."""


@pytest.mark.parametrize(
    ("page", "heading", "points"),
    [("from-ark", heading, points) for heading, points in ARK.items()]
    + [("from-agentv", heading, points) for heading, points in AGENTV.items()],
)
def test_every_point_of_a_guide_is_answered(
    page: str, heading: str, points: tuple[str, ...]
) -> None:
    text = (ROOT / "docs" / "providers" / f"{page}.md").read_text(encoding="utf-8")
    found = re.search(rf"^##+ {re.escape(heading)}\n(.*?)(?=^##+ [A-Z]|\Z)", text, re.M | re.S)
    assert found, f"{page}.md has no section {heading}"
    assert [point for point in points if point not in found[1]] == []


@pytest.mark.parametrize(("page", "guide"), [("from-ark", ARK), ("from-agentv", AGENTV)])
def test_headings_come_in_the_guides_order(page: str, guide: dict[str, tuple[str, ...]]) -> None:
    text = (ROOT / "docs" / "providers" / f"{page}.md").read_text(encoding="utf-8")
    assert re.findall(r"^##+ (.*)$", FENCE.sub("", text), re.MULTILINE) == list(guide)


@pytest.mark.parametrize("page", ["from-ark", "from-agentv"])
def test_the_examples_of_the_guides_are_run_against_a_server(page: str) -> None:
    """The blocks themselves are run by `test_docs`; here: they ask over HTTP, on loopback."""
    blocks = blocks_of(ROOT / "docs" / "providers" / f"{page}.md")
    served = [block for block in blocks if "ThreadingHTTPServer" in block.text]
    assert [block.kind for block in served] == ["python"]
    asked = "".join(block.text for block in blocks if block.kind == "console")
    assert f"python {served[0].file} muster " in asked
