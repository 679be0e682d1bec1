"""Tests of teams: each runs a team with the mock, in a journal of its own that is thrown away."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from muster.config.document import Place
from muster.config.project import Project
from muster.errors import ConfigError, Problem, UsageError
from muster.memory.base import MemoryStore
from muster.memory.definition import Memory
from muster.provider import Tool
from muster.store.journal import Journal, journal_path
from muster.store.records import RunRecord
from muster.teams.cast import Cast, Member
from muster.teams.definition import Agent, Team
from muster.teams.engine import ENTRY_STEP, RunOutcome
from muster.teams.expectations import Difference, asked_in, differences
from muster.teams.inputs import check_inputs
from muster.teams.launch import launch
from muster.teams.manifests.bundle import UnknownTeam
from muster.teams.mock_script import Script, TestCase, ToolResult
from muster.teams.preparing import LaunchOptions, Prepared, assemble
from muster.teams.remembering import Memories
from muster.teams.script_checks import problems_of_script, unknown_name
from muster.tools.base import BoundTool, Toolbox, ToolFailed
from muster.tools.definitions import McpServer, WebhookTool

__all__ = ("TestResult", "prepare_test", "run_test")


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
    try:
        prepared = assemble(chosen)
    except UnknownTeam as error:
        if test.entry.team is None:
            raise
        raise ConfigError(test.place.at("team").problem(str(error))) from None
    problems = [
        *problems_of_script(script, prepared.bundle, live_tools=live_tools),
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


# --- whether the test fits the team ---------------------------------------------------------------


def _problems_of_test(test: TestCase, team: Team) -> Iterator[Problem]:
    steps = {step.name: step for step in team.steps}
    names = list(steps) or [team.entry or ENTRY_STEP]
    expected = test.place.at("expect", "steps")
    for name in test.entry.expect.steps:
        if name not in names:
            yield expected.at(name).problem(unknown_name("step", name, names), of_key=True)
    asking = [step.name for step in team.steps if step.approval is not None]
    for name, answer in test.entry.approvals.items():
        place = test.place.at("approvals", name)
        if name not in asking:
            yield place.problem(unknown_name("step that asks", name, asking), of_key=True)
            continue
        approval = steps[name].approval
        if answer == "nobody" and approval is not None and approval.timeout_seconds is None:
            yield _endless(place, name)


def _endless(place: Place, step: str) -> Problem:
    return place.problem(f'step "{step}" has no timeoutSeconds; without an answer it never ends')
