"""Whether a script of the mock fits the teams whose agents it speaks for: roles and tools."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from muster.errors import Problem, nearest
from muster.providers.mock_script import MockReply
from muster.teams.definition import Agent
from muster.teams.manifests import Bundle
from muster.teams.mock_script import RoleRule, Script
from muster.tools.definitions import McpServer, PythonTool, WebhookTool

__all__ = ("problems_of_script", "unknown_name")

_OTHERS_ASKED = ("judge", "router")


def problems_of_script(script: Script, bundle: Bundle, *, live_tools: bool) -> Iterator[Problem]:
    """What the script speaks of that is not there.

    Args:
        live_tools: tools that the script has no results for are really called.
    """
    by_role = _agents_by_role(bundle)
    every = _Callable([agent for agents in by_role.values() for agent in agents], bundle)
    for name, place in script.tools.items():
        if name not in every.names | every.webhooks and every.server_of(name) is None:
            known = [*every.names, *every.webhooks, *(f"{name}__…" for name in every.servers)]
            yield place.problem(unknown_name("tool", name, known), of_key=True)
    for reply in script.replies:
        roles = reply.rule.roles if isinstance(reply.rule, RoleRule) else ()
        for number, role in enumerate(roles):
            if role not in by_role and role not in _OTHERS_ASKED:
                message = unknown_name("role", role, [*by_role, *_OTHERS_ASKED])
                place = reply.place.at("role")
                yield (place.at(number) if len(roles) > 1 else place).problem(message)
        for number, call in enumerate(_calls_of(reply.rule)):
            problem = every.problem(call, script.tools, live=live_tools)
            if problem is not None:
                yield reply.place.at("tool_calls", number, "tool").problem(problem)


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """That the team has no such thing, and which it has."""
    names = sorted(set(known))
    near = nearest(name, names)
    told = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(names) or 'none'}"
    return f'the team has no {what} "{name}" ({told})'


class _Callable:
    """The names of the tools that agents have, as far as they are known without asking."""

    def __init__(self, agents: Iterable[Agent], bundle: Bundle) -> None:
        self.names: set[str] = set()
        self.servers: set[str] = set()
        self.webhooks: set[str] = set()
        for agent in agents:
            self.names |= set(agent.builtin_tools)
            for source in agent.tools:
                if isinstance(source, McpServer):
                    self.servers.add(source.name)
                elif isinstance(source, WebhookTool):
                    self.webhooks.add(source.name)
                elif isinstance(source, PythonTool):
                    self.names.add(source.name or source.path.rpartition(":")[2].split(".")[-1])
        for team in bundle.teams.values():
            if any(role.can_delegate for role in team.roles.values()):
                self.names.add("delegate")

    def server_of(self, name: str) -> str | None:
        """The MCP server whose tool this would be."""
        server, found, _ = name.partition("__")
        return server if found and server in self.servers else None

    def problem(self, name: str, scripted: Iterable[str], *, live: bool) -> str | None:
        """Why a reply cannot call the tool."""
        if name in scripted or name in self.names:
            return None
        server = self.server_of(name)
        if server is None and name not in self.webhooks:
            return unknown_name("tool", name, [*self.names, *self.webhooks, *scripted])
        if live:
            return None
        what = f'MCP server "{server}" is not started' if server else "webhooks are not called"
        return f'tool "{name}": {what} in tests; give its result under "tools", or use --live-tools'


def _calls_of(reply: MockReply) -> list[str]:
    return [call.tool for call in reply.tool_calls]


def _agents_by_role(bundle: Bundle) -> dict[str, list[Agent]]:
    """Whom a reply can be for: roles, and agents that are chosen by what they can do."""
    found: dict[str, list[Agent]] = {}
    for team in bundle.teams.values():
        for role in team.roles.values():
            found.setdefault(role.name, []).extend([role.agent] if role.agent else [])
        for registry in (team.registry, team.routing.registry if team.routing else None):
            for agent in registry.agents if registry else ():
                found.setdefault(agent.name, []).append(agent)
    return found
