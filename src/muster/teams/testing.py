"""Tests of teams: each runs a team with the mock, in a journal of its own that is thrown away."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from muster.config.document import Place
from muster.config.project import Project
from muster.errors import ConfigError, Problem, UsageError, nearest
from muster.memory.base import MemoryStore
from muster.memory.definition import Memory
from muster.provider import Tool
from muster.providers.mock_script import MockReply
from muster.store.journal import Journal, journal_path
from muster.store.records import RunRecord
from muster.teams.cast import Cast, Member
from muster.teams.definition import Agent, Team
from muster.teams.engine import ENTRY_STEP, RunOutcome
from muster.teams.expectations import Difference, asked_in, differences
from muster.teams.inputs import check_inputs
from muster.teams.launch import LaunchOptions, Prepared, assemble, launch
from muster.teams.manifests import Bundle
from muster.teams.mock_script import RoleRule, Script, TestCase, ToolResult
from muster.teams.remembering import Memories
from muster.tools.base import BoundTool, Toolbox, ToolFailed
from muster.tools.definitions import McpServer, PythonTool, WebhookTool

__all__ = ("TestResult", "prepare_test", "run_test")

_OTHERS_ASKED = ("judge", "router")


@dataclass(frozen=True, slots=True)
class TestResult:
    """A test that was run."""

    run: RunRecord
    """As the journal had it, which is gone."""
    outcome: RunOutcome
    differences: list[Difference]

    @property
    def passed(self) -> bool:
        """Whether everything is as expected."""
        return not self.differences


def prepare_test(
    script: Script, test: TestCase, options: LaunchOptions, *, live_tools: bool = False
) -> Prepared:
    """Check a test against the team that it is about; nothing is run.

    Args:
        live_tools: start MCP servers and call webhooks that the script has no results for.

    Raises:
        MusterError: the manifest or the script is not as it should be.
    """
    chosen = replace(
        options,
        team=test.entry.team or options.team,
        provider="mock",
        target=None,
        mock={**test.settings, "max_retries": 0},  # what a target retries is not the team's
        no_mcp=not live_tools,
    )
    prepared = assemble(chosen)
    problems = [
        *_problems_of_replies(script, prepared.bundle, live_tools=live_tools),
        *_problems_of_test(test, prepared.team),
    ]
    try:
        prepared.inputs = check_inputs(prepared.team, test.entry.input)
    except UsageError as error:
        problems.append(test.place.at("input").problem(str(error)))
    if problems:
        raise ConfigError(problems)
    prepared.cast = _ScriptedCast(prepared.cast, test.tools, live=live_tools)
    prepared.bundle.notifies.clear()  # nobody wants to hear of tests
    return prepared


async def run_test(prepared: Prepared, test: TestCase) -> TestResult:
    """Run the test; what tools print goes to standard error.

    Raises:
        MusterError: the run could not even begin.
    """
    with tempfile.TemporaryDirectory(prefix="muster-test-") as folder:
        prepared.project = Project((Path(folder),))
        prepared.warnings.clear()
        with redirect_stdout(sys.stderr):
            launched = await launch(prepared, ask_approval=_Approvals(test.entry.approvals))
        with Journal.open(journal_path(Path(folder))) as journal:
            asked = asked_in(journal, launched.run.id)
    found = differences(test.entry.expect, launched.outcome, asked)
    return TestResult(launched.run, launched.outcome, found)


class _Approvals:
    """Answers as the test says; yes, if it says nothing."""

    def __init__(self, decided: Mapping[str, Any]) -> None:
        self._decided = decided

    async def __call__(self, step: str, message: str) -> bool | None:
        answer = self._decided.get(step, True)
        return answer if isinstance(answer, bool) else None


# --- tools --------------------------------------------------------------------------------------


class _ScriptedCast(Cast):
    """Takes the place of another cast: its agents get tools that answer by the script, and
    memories that last no longer than the test."""

    def __init__(self, other: Cast, results: Mapping[str, ToolResult], *, live: bool) -> None:
        self.__dict__.update(other.__dict__)
        self._stack.push_async_callback(other.memories.aclose)
        self.memories = _ShortMemories()
        self._results = results
        self._live = live
        self._scripted: dict[int, Member] = {}

    async def member(self, agent: Agent, inputs: Mapping[str, Any]) -> Member:
        member = await super().member(agent, inputs)
        known = self._scripted.get(id(member))
        if known is None:
            known = replace(member, toolbox=self._toolbox(member))
            self._scripted[id(member)] = known
        return known

    def _toolbox(self, member: Member) -> Toolbox:
        box, sources = member.toolbox, member.agent.tools
        webhooks = {source.name for source in sources if isinstance(source, WebhookTool)}
        servers = [f"{source.name}__" for source in sources if isinstance(source, McpServer)]
        listed = {tool.name: tool for tool in box.tools}
        for name in self._results:
            if name.startswith(tuple(servers)):
                listed.setdefault(name, Tool(name, "", {"type": "object"}))
        bound = []
        for name, tool in listed.items():
            result = self._results.get(name)
            if result is not None:
                bound.append(BoundTool(tool, _Answer(result), "the script"))
            elif self._live or name not in webhooks:
                bound.append(box[name])
        return Toolbox(bound, guidance=box.guidance)


class _ShortMemories(Memories):
    """Memories in the process, whatever their definitions say."""

    def of(self, agent: Agent, definition: Memory) -> MemoryStore:
        return super().of(agent, replace(definition, backend="in-context"))


class _Answer:
    """A tool that says what the script has for it."""

    def __init__(self, result: ToolResult) -> None:
        self._result = result

    async def __call__(self, arguments: Mapping[str, Any]) -> str:
        result = self._result
        if result.error is not None:
            raise ToolFailed(result.error)
        if result.text is not None:
            return result.text
        return json.dumps(result.json_value, ensure_ascii=False)


# --- whether the script fits the team -------------------------------------------------------------


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
            return _unknown("tool", name, [*self.names, *self.webhooks, *scripted])
        if live:
            return None
        what = f'MCP server "{server}" is not started' if server else "webhooks are not called"
        return f'tool "{name}": {what} in tests; give its result under "tools", or use --live-tools'


def _problems_of_replies(script: Script, bundle: Bundle, *, live_tools: bool) -> Iterator[Problem]:
    by_role = _agents_by_role(bundle)
    every = _Callable([agent for agents in by_role.values() for agent in agents], bundle)
    for name, place in script.tools.items():
        if name not in every.names | every.webhooks and every.server_of(name) is None:
            known = [*every.names, *every.webhooks, *(f"{name}__…" for name in every.servers)]
            yield place.problem(_unknown("tool", name, known), of_key=True)
    for reply in script.replies:
        roles = reply.rule.roles if isinstance(reply.rule, RoleRule) else ()
        for role in roles:
            if role not in by_role and role not in _OTHERS_ASKED:
                message = _unknown("role", role, [*by_role, *_OTHERS_ASKED])
                yield reply.place.at("role").problem(message)
        for number, call in enumerate(_calls_of(reply.rule)):
            problem = every.problem(call, script.tools, live=live_tools)
            if problem is not None:
                yield reply.place.at("tool_calls", number, "tool").problem(problem)


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


def _problems_of_test(test: TestCase, team: Team) -> Iterator[Problem]:
    steps = {step.name: step for step in team.steps}
    names = list(steps) or [team.entry or ENTRY_STEP]
    expected = test.place.at("expect", "steps")
    for name in test.entry.expect.steps:
        if name not in names:
            yield expected.at(name).problem(_unknown("step", name, names), of_key=True)
    asking = [step.name for step in team.steps if step.approval is not None]
    for name, answer in test.entry.approvals.items():
        place = test.place.at("approvals", name)
        if name not in asking:
            yield place.problem(_unknown("step that asks", name, asking), of_key=True)
            continue
        approval = steps[name].approval
        if answer == "nobody" and approval is not None and approval.timeout_seconds is None:
            yield _endless(place, name)


def _endless(place: Place, step: str) -> Problem:
    return place.problem(f'step "{step}" has no timeoutSeconds; without an answer it never ends')


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    names = sorted(set(known))
    near = nearest(name, names)
    told = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(names) or 'none'}"
    return f'the team has no {what} "{name}" ({told})'
