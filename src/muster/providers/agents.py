"""Coding agents as data: how each command line is called, and where in its JSON things are.

A target says `provider: claude`; `muster.providers.agent` starts all of them through `cli`. What
`docs/providers/coding-agents.md` says of each, whether it was tried with the real program or with
recorded output only, belongs to these rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ("AGENTS", "AGENT_ALIASES", "AgentPreset")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPreset:
    """How one agent is started and read."""

    executable: str
    arguments: tuple[str, ...]
    """Before those of the target; the prompt is not among them."""
    last: tuple[str, ...] = ()
    """The last arguments. Without `{PROMPT}` among them, the prompt is standard input; no prompt
    may be taken for an option, whatever it begins with."""
    response: Mapping[str, Any]
    """As in `provider: cli`."""
    model: tuple[str, ...] = ("--model", "MODEL")
    allow: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The arguments for what the agent may do without being asked: `read`, `edit`, `all`; what is
    not here cannot be said on its command line."""
    default_allow: str | None = "read"
    variables: tuple[str, ...] = ()
    """What it needs of the environment; in a container, these are passed on by name."""


_CLAUDE_ENDED = "[?type=='result'] | [-1]"
_CLAUDE_INPUT = "[input_tokens, cache_read_input_tokens, cache_creation_input_tokens]"

_CODEX_ITEM = "type=='item.completed' && item.type=="
_CODEX_STATUS = "status: item.status=='completed' && 'ok' || 'error'"
_CODEX_USAGE = "[?type=='turn.completed'] | [-1].usage"

_STEPS = "[?type=='step_finish'].part"
_STEPPED = "([?type=='step_finish'] | [0])"

_PI_SAID = "[?type=='message_end' && message.role=='assistant'].message"
_PI_TEXT = "join('', message.content[?type=='text'].text)"
_PI_OUTPUT = "join('', content[?type=='text'].text)"

AGENTS: dict[str, AgentPreset] = {
    "claude": AgentPreset(
        executable="claude",
        arguments=("-p", "--output-format", "stream-json", "--verbose"),
        allow={
            "read": (),
            "edit": ("--permission-mode", "acceptEdits"),
            "all": ("--dangerously-skip-permissions",),
        },
        variables=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"),
        response={
            "format": "jsonl",
            "events": {
                "text": "type=='assistant' && !parent_tool_use_id && "
                "join('', message.content[?type=='text'].text)",
                "calls": "type=='assistant' && !parent_tool_use_id && "
                "message.content[?type=='tool_use'].{id: id, tool: name, input: input}",
                "results": "type=='user' && !parent_tool_use_id && "
                "message.content[?type=='tool_result']"
                ".{id: tool_use_id, output: content, status: is_error && 'error' || 'ok'}",
            },
            "text": f"{_CLAUDE_ENDED}.result",
            "error": "[?type=='result' && (is_error || subtype!='success')] | [-1]"
            ".[result, subtype] | [?@] | [0]",
            "done": _CLAUDE_ENDED,
            "session": f"{_CLAUDE_ENDED}.session_id",
            "cost": f"{_CLAUDE_ENDED}.total_cost_usd",
            "usage": {
                "input": f"{_CLAUDE_ENDED}.usage | @ && sum({_CLAUDE_INPUT}[?@])",
                "output": f"{_CLAUDE_ENDED}.usage.output_tokens",
                "cached": f"{_CLAUDE_ENDED}.usage.cache_read_input_tokens",
            },
            "model": "[?type=='system' && subtype=='init'] | [0].model",
            "finish_reason": f"{_CLAUDE_ENDED}.stop_reason",
        },
    ),
    "codex": AgentPreset(
        executable="codex",
        arguments=("exec", "--json", "--skip-git-repo-check"),
        last=("-",),
        allow={
            "read": ("-s", "read-only"),
            "edit": ("-s", "workspace-write"),
            "all": ("--dangerously-bypass-approvals-and-sandbox",),
        },
        variables=("OPENAI_API_KEY", "CODEX_API_KEY", "CODEX_HOME"),
        response={
            "format": "jsonl",
            "events": {
                "text": f"{_CODEX_ITEM}'agent_message' && item.text",
                "calls": f"({_CODEX_ITEM}'command_execution' && [{{id: item.id, "
                "tool: 'shell', input: {command: item.command}, output: item.aggregated_output, "
                "status: item.exit_code==`0` && 'ok' || 'error'}])"
                f" || ({_CODEX_ITEM}'file_change' && [{{id: item.id, tool: 'file_change', "
                f"input: {{changes: item.changes}}, {_CODEX_STATUS}}}])"
                f" || ({_CODEX_ITEM}'mcp_tool_call' && [{{id: item.id, tool: item.tool, "
                "input: {server: item.server, arguments: item.arguments}, "
                f"output: item.result || item.error, {_CODEX_STATUS}}}])"
                f" || ({_CODEX_ITEM}'web_search' && [{{id: item.id, tool: 'web_search', "
                "input: {query: item.query}, status: 'ok'}])",
            },
            "text": "[?type=='item.completed'].item | [?type=='agent_message'].text | [-1]",
            "error": "[?type=='turn.failed'].error.message | [0]",
            "done": "[?type=='turn.completed'] | [0]",
            "session": "[?type=='thread.started'] | [0].thread_id",
            "usage": {
                "input": f"{_CODEX_USAGE}.input_tokens",
                "output": f"{_CODEX_USAGE}.output_tokens",
                "cached": f"{_CODEX_USAGE}.cached_input_tokens",
                "reasoning": f"{_CODEX_USAGE}.reasoning_output_tokens",
            },
        },
    ),
    "gemini-cli": AgentPreset(
        executable="gemini",
        # It works in no folder that is not trusted.
        arguments=("--output-format", "stream-json", "--skip-trust"),
        last=("--prompt={PROMPT}",),  # of its standard input it cuts off what is above 8 MiB
        allow={
            "read": ("--approval-mode", "default"),
            "edit": ("--approval-mode", "auto_edit"),
            "all": ("--approval-mode", "yolo"),
        },
        variables=(
            *("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL"),
            *("GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION", "GOOGLE_GENAI_USE_VERTEXAI"),
        ),
        response={
            "format": "jsonl",
            "events": {
                "text": "type=='message' && role=='assistant' && content",
                "pieces": True,
                "calls": "type=='tool_use' && [{id: tool_id, tool: tool_name, input: parameters}]",
                "results": "type=='tool_result' && [{id: tool_id, output: output || error.message, "
                "status: status=='success' && 'ok' || 'error'}]",
            },
            "error": "[?type=='result' && status=='error'] | [0] | @ && "
            "(error.message || 'it ended with an error')",
            "done": "[?type=='result'] | [0]",
            "session": "[?type=='init'] | [0].session_id",
            "model": "[?type=='init'] | [0].model",
            "usage": {
                "input": "[?type=='result'] | [0].stats.input_tokens",
                "output": "[?type=='result'] | [0].stats.output_tokens",
                "cached": "[?type=='result'] | [0].stats.cached",
                "total": "[?type=='result'] | [0].stats.total_tokens",
            },
        },
    ),
    "opencode": AgentPreset(
        executable="opencode",
        # With a title it does not ask a model for one, in a call that it does not tell of. An
        # argument with spaces would reach the model in quotes.
        arguments=("run", "--format", "json", "--title", "muster"),
        allow={"all": ("--auto",)},
        default_allow=None,  # its opencode.json says
        variables=("ANTHROPIC_API_KEY", "OPENAI_API_KEY"),
        response={
            "format": "jsonl",
            "events": {
                "text": "type=='text' && part.text",
                "calls": "type=='tool_use' && [{id: part.callID, tool: part.tool, "
                "input: part.state.input, output: part.state.output || part.state.error, "
                "status: part.state.status=='completed' && 'ok' || 'error'}]",
            },
            "error": "[?type=='error'].error | [0].[data.message, name] | [?@] | [0]",
            "done": f"{_STEPS} | [-1].reason | @ && @!='tool-calls'",
            "session": "[?sessionID] | [0].sessionID",
            "cost": f"{_STEPPED} && sum({_STEPS}.cost)",
            "finish_reason": f"{_STEPS} | [-1].reason",
            "usage": {
                "input": f"{_STEPPED} && "
                f"sum({_STEPS}.tokens.[input, cache.read, cache.write][] | [?@])",
                "output": f"{_STEPPED} && sum({_STEPS}.tokens.[output, reasoning][] | [?@])",
                "cached": f"{_STEPPED} && sum({_STEPS}.tokens.cache.read)",
                "reasoning": f"{_STEPPED} && sum({_STEPS}.tokens.reasoning)",
            },
        },
    ),
    "pi": AgentPreset(
        executable="pi",
        arguments=("-p", "--mode", "json", "--no-session"),
        allow={
            "read": ("--tools", "read,grep,find,ls"),
            "edit": ("--tools", "read,grep,find,ls,edit,write"),
            "all": (),
        },
        variables=("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY"),
        response={
            "format": "jsonl",
            "events": {
                "text": f"type=='message_end' && message.role=='assistant' && {_PI_TEXT}",
                "calls": "type=='message_end' && message.role=='assistant' && "
                "message.content[?type=='toolCall'].{id: id, tool: name, input: arguments}",
                "results": "type=='turn_end' && toolResults[].{id: toolCallId, "
                f"output: {_PI_OUTPUT}, status: isError && 'error' || 'ok'}}",
            },
            "error": f"{_PI_SAID} | [-1] | (stopReason=='error' || stopReason=='aborted') && "
            "(errorMessage || stopReason)",
            "done": "[?type=='agent_end'] | [0]",
            "session": "[?type=='session'] | [0].id",
            "model": f"{_PI_SAID} | [-1].model",
            "finish_reason": f"{_PI_SAID} | [-1].stopReason",
            "cost": f"({_PI_SAID} | [0]) && sum({_PI_SAID}.usage.cost.total)",
            "usage": {
                "input": f"({_PI_SAID} | [0]) && "
                f"sum({_PI_SAID}.usage.[input, cacheRead, cacheWrite][] | [?@])",
                "output": f"({_PI_SAID} | [0]) && sum({_PI_SAID}.usage.output)",
                "cached": f"({_PI_SAID} | [0]) && sum({_PI_SAID}.usage.cacheRead)",
            },
        },
    ),
    "copilot": AgentPreset(
        executable="copilot",
        arguments=("--output-format", "json", "--no-ask-user"),
        allow={
            "read": (),
            "edit": ("--allow-tool=write",),
            "all": ("--allow-all-tools",),
        },
        variables=(
            *("COPILOT_GITHUB_TOKEN", "GH_TOKEN", "GITHUB_TOKEN", "COPILOT_MODEL"),
            *("COPILOT_PROVIDER_BASE_URL", "COPILOT_PROVIDER_API_KEY", "COPILOT_PROVIDER_TYPE"),
        ),
        response={
            "format": "jsonl",
            "events": {
                "text": "type=='assistant.message' && data.content",
                "calls": "type=='assistant.message' && "
                "data.toolRequests[].{id: toolCallId, tool: name, input: arguments}",
                "results": "type=='tool.execution_complete' && [{id: data.toolCallId, "
                "output: data.result.content || data.error.message, "
                "status: data.success && 'ok' || 'error'}]",
            },
            "error": "([?type=='result' && exitCode!=`0`] | [0]) && "
            "([?type=='session.error'] | [-1].data.message || 'its session failed')",
            "done": "[?type=='result'] | [0]",
            "session": "[?type=='result'] | [0].sessionId",
            "model": "[?type=='assistant.message'] | [-1].data.model",
        },
    ),
}

AGENT_ALIASES: dict[str, str] = {
    "claude-cli": "claude",
    "claude-code": "claude",
    "codex-cli": "codex",
    "copilot-cli": "copilot",
    "pi-cli": "pi",
    "pi-coding-agent": "pi",
}
