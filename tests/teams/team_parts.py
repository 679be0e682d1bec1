"""Teams written in a few lines and really run: the manifest is read, the journal written.

    run = team(tmp_path, STEPS, replies=[...]); assert run.status("a") == "succeeded"

The agents are answered for by `Scripted`, a provider of the test's own making: a function from
request to reply.
"""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muster.provider import ProviderRequest, ProviderResponse, TokenUsage
from muster.providers import providers
from muster.store.journal import Journal, journal_path
from muster.store.records import StepRecord
from muster.teams.engine import RunOutcome
from muster.teams.launch import Launched, launch
from muster.teams.preparing import LaunchOptions, prepare
from muster.teams.state import StepState
from muster.teams.watching import RunEvent
from virtual_loop import virtual

__all__ = ("Ran", "Said", "Script", "run", "run_async", "says", "write_team")

AGENT = """
apiVersion: muster.dev/v1alpha1
kind: Agent
metadata: {name: %s}
spec: {target: scripted, systemPrompt: Be good.}
---
"""

TARGETS = """
targets:
  - {name: scripted, provider: scripted, max_retries: 0}
"""
LONGEST = 3600.0
"""In virtual seconds."""

Said = str | ProviderResponse | Awaitable[str | ProviderResponse]
Script = Callable[[ProviderRequest], Said]


def says(text: str, tokens: int = 10, **more: Any) -> ProviderResponse:
    """An answer that took so many tokens."""
    return ProviderResponse(text, token_usage=TokenUsage(tokens, 0), **more)


class Scripted:
    """Answers as the function says that the running test has set."""

    script: Script
    asked: list[ProviderRequest]

    def __init__(self, target: Any) -> None:
        pass

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        Scripted.asked.append(request)
        said = Scripted.script(request)
        if not isinstance(said, str | ProviderResponse):
            said = await said
        return says(said) if isinstance(said, str) else said


@dataclass
class Ran:
    """A run that is through."""

    launched: Launched
    asked: list[ProviderRequest]
    events: list[RunEvent]
    folder: Path

    @property
    def outcome(self) -> RunOutcome:
        return self.launched.outcome

    @property
    def end(self) -> tuple[str, str, str | None]:
        """Status, reason, error."""
        outcome = self.outcome
        return outcome.status, outcome.reason, outcome.error

    @property
    def output(self) -> str:
        return self.outcome.output

    @property
    def id(self) -> str:
        return self.launched.run.id

    @property
    def roles(self) -> list[str | None]:
        """Who was asked, in order."""
        return [request.eval_case_id for request in self.asked]

    @property
    def prompts(self) -> list[str]:
        return [request.question for request in self.asked]

    @property
    def statuses(self) -> dict[str, str]:
        return {step.name: step.status for step in self.outcome.steps}

    def step(self, name: str) -> StepState:
        return next(step for step in self.outcome.steps if step.name == name)

    def kinds(self, *wanted: str) -> list[tuple[str, str | None]]:
        return [(event.kind, event.step) for event in self.events if event.kind in wanted]

    def journal(self) -> Journal:
        return Journal.open(journal_path(self.folder))

    def rows(self, run_id: str | None = None) -> list[StepRecord]:
        with self.journal() as journal:
            return journal.steps(run_id or self.id)


def write_team(
    folder: Path, spec: str, *, kind: str = "Team", agents: str = "a", more: str = ""
) -> Path:
    """The manifest of a team `t` with this `spec`, and plain agents."""
    head = "".join(AGENT % name for name in agents.split())
    body = textwrap.indent(textwrap.dedent(spec).strip("\n"), "  ")
    text = f"{head}apiVersion: muster.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: t}}\nspec:\n"
    (folder / ".muster").mkdir(exist_ok=True)
    (folder / ".muster" / "targets.yaml").write_text(TARGETS)
    file = folder / "team.yaml"
    extra = "\n---\n" + textwrap.dedent(more).strip() if more else ""
    file.write_text(text + body + extra + "\n")
    return file


async def run_async(
    file: Path,
    script: Script = lambda request: "ok",
    *,
    inputs: Mapping[str, Any] | None = None,
    resume: str | None = None,
    ask_approval: Any = None,
    stop: asyncio.Event | None = None,
    on_event: Callable[[RunEvent], None] | None = None,
    **options: Any,
) -> Ran:
    """Run the team in `file`, the agents answering by `script`."""
    Scripted.script, Scripted.asked = script, []
    providers.register("scripted", Scripted, override=True)
    events: list[RunEvent] = []

    def watch(event: RunEvent) -> None:
        events.append(event)
        if on_event is not None:
            on_event(event)

    prepared = prepare(LaunchOptions(file=file, inputs=inputs or {}, **options))
    launched = await launch(
        prepared, on_event=watch, ask_approval=ask_approval, resume=resume, stop=stop
    )
    return Ran(launched, Scripted.asked, events, file.parent)


def run(file: Path, script: Script = lambda request: "ok", **more: Any) -> Ran:
    """The same in virtual time: what waits, waits not."""
    return virtual(asyncio.wait_for(run_async(file, script, **more), LONGEST))
