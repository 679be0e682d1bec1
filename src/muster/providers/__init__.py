"""The kinds of provider, and the table that holds them all by name.

    from muster.providers import providers
    from muster.providers.create import as_provider, create_provider

Nothing of a kind is imported before a target uses it.
"""

from __future__ import annotations

from muster.providers.agents import AGENT_ALIASES, AGENTS
from muster.providers.presets import ALIASES, PRESETS
from muster.registry import Registry
from muster.target import ProviderFactory

__all__ = ("providers",)

_OPENAI = "muster.providers.openai:OpenAIProvider"

providers: Registry[ProviderFactory] = Registry(
    "provider",
    builtins={
        **dict.fromkeys(PRESETS, _OPENAI),
        **dict.fromkeys(AGENTS, "muster.providers.agent:AgentProvider"),
        "anthropic": "muster.providers.anthropic:AnthropicProvider",
        "cli": "muster.providers.cli:CliProvider",
        "http": "muster.providers.http:HttpProvider",
        "function": "muster.providers.function:FunctionProvider",
        "mock": "muster.providers.mock:MockProvider",
        "echo": "muster.providers.echo:EchoProvider",
        "replay": "muster.providers.replay:ReplayProvider",
        "stdio": "muster.providers.stdio:StdioProvider",
        "team": "muster.teams.provider:TeamProvider",
        "litellm": "muster.adapters.litellm:LiteLLMProvider",
        "pydantic-ai": "muster.adapters.pydantic_ai:pydantic_ai_provider",
        "openai-agents": "muster.adapters.openai_agents:OpenAIAgentsProvider",
        "langchain": "muster.adapters.langchain:langchain_provider",
        "llm": "muster.adapters.llm:LLMProvider",
        "inspect": "muster.adapters.inspect_model:InspectProvider",
        "promptfoo": "muster.adapters.promptfoo:PromptfooProvider",
    },
    aliases={**ALIASES, **AGENT_ALIASES},
)
"""Every provider by name; `muster.register` adds to it."""
