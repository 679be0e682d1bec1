"""Coding agents: `provider: claude`, `codex`, `gemini-cli`, `opencode`, `pi`, `copilot`.

    - name: coder
      provider: claude
      allow: edit
      workspace: {template: fixtures/shop}

Each is a row of `agents.py`, run by `cli`: its arguments, and where in its JSON the messages, the
tool calls, the tokens, the money and the session are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field

from muster.errors import UsageError
from muster.provider import ProviderRequest, ProviderResponse
from muster.providers.agents import AGENT_ALIASES, AGENTS, AgentPreset
from muster.providers.cli import CliProvider
from muster.providers.cli_settings import RunSettings
from muster.target import ResolvedTarget

__all__ = ("AgentProvider", "AgentSettings", "command_of")


class AgentSettings(RunSettings):
    """Settings of the coding agents."""

    max_output_bytes: Annotated[int, Field(gt=0)] = 64 * 1024 * 1024
    """The most that it may write."""
    model: str | None = None
    """The model, by the agent's own name for it; unset: the agent's own choice."""
    allow: Literal["read", "edit", "all"] | None = None
    """What it may do without being asked: look only, change files, or everything; default: look
    only, where the agent's command line can say so."""
    executable: str | None = None
    """The program, where it is not on the PATH or has another name."""
    args: list[str] = Field(default_factory=list)
    """More arguments; placeholders may stand in them."""


class AgentProvider:
    """Runs a coding agent for each request."""

    Settings = AgentSettings
    capabilities = CliProvider.capabilities

    def __init__(self, target: ResolvedTarget) -> None:
        """Raises `MusterError` with `--safe`, and `pydantic.ValidationError` or `UsageError` for
        wrong settings."""
        settings = AgentSettings.model_validate(dict(target.config))
        kind = AGENT_ALIASES.get(target.provider, target.provider)
        preset = AGENTS[kind]
        own = set(AgentSettings.model_fields) - set(RunSettings.model_fields)
        config: dict[str, Any] = {
            name: value for name, value in target.config.items() if name not in own
        }
        config["max_output_bytes"] = settings.max_output_bytes
        config["command"] = command_of(kind, settings)
        config["response"] = preset.response
        config["prompt_on_stdin"] = not any("{PROMPT}" in part for part in preset.last)
        if settings.docker is not None:
            named = dict.fromkeys((*preset.variables, *settings.docker.env))
            config["docker"] = {**target.config["docker"], "env": list(named)}
        self._cli = CliProvider(replace(target, config=config))

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """Run the agent; a `ProviderError` says how it failed."""
        return await self._cli.invoke(request)

    async def aclose(self) -> None:
        """Remove the workspaces that are left."""
        await self._cli.aclose()


def command_of(kind: str, settings: AgentSettings) -> list[str]:
    """The arguments that start the agent; `{PROMPT}` where the prompt will stand, if it does.

    Raises:
        UsageError: `allow` is more, or other, than its command line can say.
    """
    preset: AgentPreset = AGENTS[kind]
    argv = [settings.executable or preset.executable, *preset.arguments]
    if settings.model is not None:
        argv += [settings.model if part == "MODEL" else part for part in preset.model]
    allow = settings.allow or preset.default_allow
    if allow is not None and allow not in preset.allow:
        known = ", ".join(preset.allow) or "nothing; its own configuration does"
        raise UsageError(
            f"{kind}: its command line cannot say `allow: {allow}` (it can say: {known})"
        )
    argv += preset.allow[allow] if allow is not None else ()
    return [*argv, *settings.args, *preset.last]
