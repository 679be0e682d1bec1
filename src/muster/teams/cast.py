"""The agents of a run, each made ready when it is first asked: its provider, its tools."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muster.config.targets import TargetCatalog
from muster.embeddings import Embedder
from muster.errors import ConfigError, MusterError, Problem, UsageError
from muster.provider import Provider, ProviderRequest, Tool
from muster.targets import OpenTarget, TargetPool
from muster.teams.definition import Agent, McpServer, PythonTool, ToolSource
from muster.teams.remembering import Memories
from muster.teams.template import Template
from muster.tools.base import Toolbox, open_toolbox
from muster.tools.mcp import McpServers
from muster.tools.webhook import Webhooks
from muster.wrappers.places import Places

if TYPE_CHECKING:
    from muster.teams.suite_gate import SuiteGate

__all__ = ("Cast", "CastOptions", "Member", "kind_of_model")

AUTO = "auto"

_PREFIXES = (
    ("claude", "anthropic"),
    ("gpt-", "openai"),
    ("chatgpt-", "openai"),
    ("o1", "openai"),
    ("o3", "openai"),
    ("o4", "openai"),
    ("gemini", "gemini"),
    ("mock", "mock"),
)


def kind_of_model(model: str | None, env: Mapping[str, str]) -> str:
    """The provider that has a model of this name.

    Raises:
        UsageError: the name tells nothing, and no OpenAI-compatible server is set up.
    """
    name = (model or "").lower()
    for prefix, kind in _PREFIXES:
        if name.startswith(prefix):
            return kind
    if env.get("OPENAI_BASE_URL") or env.get("OPENAI_API_KEY"):
        return "openai"
    raise UsageError(
        f'which provider has the model "{model or ""}"? Say --provider NAME, AGENT_PROVIDER or '
        "`provider:` on the agent; or set OPENAI_BASE_URL for an OpenAI-compatible server"
    )


_WITH_TOOLS = ProviderRequest(question="", tools=(Tool("any"),))


@dataclass(frozen=True, slots=True, kw_only=True)
class CastOptions:
    """What the command line says of all agents."""

    provider: str = AUTO
    target: str | None = None
    """A target that answers for every agent."""
    mock: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the mock, when it answers: a script."""
    no_mcp: bool = False


@dataclass(slots=True)
class Member:
    """An agent that can be asked."""

    agent: Agent
    provider: Provider
    kind: str
    target: str
    toolbox: Toolbox
    room: Places
    """As many tasks at a time as the agent takes."""
    takes_schema: bool = True
    """False: the provider knows no schemas, and has the one in the prompt to go by."""


class Cast:
    """Opens agents by their definition; the same one gives the same member. Close it."""

    def __init__(
        self, pool: TargetPool, catalog: TargetCatalog, env: Mapping[str, str], options: CastOptions
    ) -> None:
        self._pool = pool
        self._catalog = catalog
        self._env = env
        self._options = options
        self._servers = McpServers()
        self._webhooks = Webhooks()
        self._members: dict[tuple[str, int, str], asyncio.Task[Member]] = {}
        self._stack = AsyncExitStack()
        self.memories = Memories(catalog.project.root / ".muster", pool.embedder)
        """Those that are kept beyond a run."""
        self.warnings: list[str] = []
        self._judges: dict[str, Agent] = {}
        self._gates: dict[Path, SuiteGate] = {}

    def gate(self, suite: Path, *, safe: bool = False) -> SuiteGate:
        """The graders of a suite, read once. Raises `MusterError` when they cannot be had."""
        from muster.teams.suite_gate import SuiteGate

        if suite not in self._gates:
            self._gates[suite] = SuiteGate(suite, env=self._env, safe=safe)
        return self._gates[suite]

    def agent_of_target(self, name: str) -> Agent:
        """A target that judges, as an agent; the same one each time."""
        return self._judges.setdefault(name, Agent(name=name, target=name))

    def target_of(self, agent: Agent) -> OpenTarget:
        """Who answers for the agent. Raises `MusterError` when it cannot be made."""
        return self._pool.open(self._target_name(agent))

    def embedder_of(self, agent: Agent) -> Embedder:
        """What makes vectors for the agent. Raises `MusterError` when it makes none."""
        return self._pool.embedder(self._target_name(agent))

    async def member(self, agent: Agent, inputs: Mapping[str, Any]) -> Member:
        """The agent, made ready at the first call; calls at the same time share that.

        Raises:
            MusterError: its provider cannot be made, or its tools clash.
        """
        depends = any(_is_template(source) for source in agent.tools)
        key = (agent.name, id(agent), json.dumps(inputs, default=str) if depends else "")
        task = self._members.get(key)
        if task is None:
            task = self._members[key] = asyncio.ensure_future(self._open(agent, inputs))
            task.add_done_callback(_look_at)
        return await asyncio.shield(task)

    def take_warnings(self) -> list[str]:
        """What went wrong with tools since this was last asked; each is told once."""
        told, self.warnings = self.warnings, []
        return told

    async def aclose(self) -> None:
        """Let go of tools, servers and providers."""
        # Those that are ready may have been made in an event loop that is gone.
        opening = [task for task in self._members.values() if not task.done()]
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._pool.aclose)
            stack.push_async_callback(self.memories.aclose)
            stack.push_async_callback(self._servers.aclose)
            stack.push_async_callback(self._webhooks.aclose)
            stack.push_async_callback(self._stack.aclose)

    def check(self, agents: Sequence[Agent]) -> None:
        """Make every agent's provider, memory and Python tools, so that their mistakes are told
        before anything is asked."""
        if problems := list(problems_of_tools(agents)):
            raise ConfigError(problems)
        for agent in agents:
            target = self.target_of(agent)
            if self._sources(agent) and target.refusal(_WITH_TOOLS) is not None:
                raise UsageError(
                    f'the agent "{agent.name}" has tools, and its target "{target.name}" '
                    f"(provider {target.resolved.provider}) does not call the tools of a request: "
                    "leave the tools out, or use a target that does; a command has tools of its own"
                )
            if agent.memory is not None:
                self.memories.of(agent, agent.memory)

    async def _open(self, agent: Agent, inputs: Mapping[str, Any]) -> Member:
        name = self._target_name(agent)
        target = self._pool.open(name)
        sources = [_filled(source, inputs) for source in self._sources(agent)]
        toolbox = await open_toolbox(sources, servers=self._servers, webhooks=self._webhooks)
        self._stack.push_async_callback(toolbox.aclose)
        self.warnings.extend(toolbox.warnings)
        return Member(
            agent,
            target.provider,
            target.resolved.provider,
            name,
            toolbox,
            Places(agent.limits.max_concurrent_tasks),
            target.capabilities.structured_output is not False,
        )

    def _sources(self, agent: Agent) -> list[ToolSource]:
        """Where the agent's tools come from in this run."""
        refused = McpServer if self._options.no_mcp else ()
        return [source for source in agent.tools if not isinstance(source, refused)]

    def _target_name(self, agent: Agent) -> str:
        """The target that answers for the agent; one is made of its model if it names none."""
        options = self._options
        if options.target is not None:
            return options.target
        forced = options.provider if options.provider != AUTO else None
        if agent.target is not None and forced is None:
            return agent.target
        kind = forced or agent.provider or self._env.get("AGENT_PROVIDER")
        kind = kind or kind_of_model(agent.model, self._env)
        name = f"{agent.name} ({kind})"
        entry = {"name": name, "provider": kind, **self._settings(agent, kind)}
        path = agent.place.document.path if agent.place is not None else None
        base_dir = path.parent if path is not None else self._catalog.project.start
        self._catalog.add_inline(name, entry, base_dir)
        if agent.env:
            self._pool.add_environment(name, agent.env)
        return name

    def _settings(self, agent: Agent, kind: str) -> dict[str, Any]:
        """The agent's own settings that the provider knows; a model it must have."""
        if kind == "mock":
            return {"estimate_usage": True, **self._options.mock}
        wanted = {"model": agent.model, "temperature": agent.temperature}
        model = self._catalog.settings_for(kind)
        known = set(model.model_fields) if model is not None else set(wanted)
        return {key: value for key, value in wanted.items() if value is not None and key in known}


def problems_of_tools(agents: Iterable[Agent]) -> Iterator[Problem]:
    """The Python tools that cannot be had."""
    for agent in agents:
        for source in agent.tools:
            if isinstance(source, PythonTool):
                from muster.tools.python import bind_python

                try:
                    bind_python(source)
                except MusterError as error:
                    told = f"agent {agent.name}: {error}"
                    yield agent.place.problem(told) if agent.place is not None else Problem(told)


def _is_template(source: ToolSource) -> bool:
    return "{{" in (getattr(source, "url", None) or "")


def _filled(source: ToolSource, inputs: Mapping[str, Any]) -> ToolSource:
    """The source with the run's inputs in its address, if it asks for them."""
    if not _is_template(source) or isinstance(source, PythonTool):
        return source
    data = {"input": dict(inputs), "pipeline": {"input": dict(inputs)}}
    return replace(source, url=Template.compile(source.url or "").render(data))


def _look_at(task: asyncio.Task[Member]) -> None:
    """An error is told to those who ask for the member; to asyncio it is seen."""
    if not task.cancelled():
        task.exception()
