"""`team`: a whole team of agents is the provider, so that it is measured like any other.

    - name: newsroom
      provider: team
      file: teams/newsroom.yaml

Every request is a run of its own in the journal. Agents, their tools and their targets are opened
once, whatever the number of requests.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from muster.capabilities import Capabilities
from muster.errors import MusterError, UsageError, nearest
from muster.evals.budget import MoneyBudget
from muster.provider import (
    BadRequest,
    BudgetExceeded,
    LimitExceeded,
    ProviderError,
    ProviderFailed,
    ProviderRequest,
    ProviderResponse,
    ProviderTimeout,
)
from muster.providers.prompt import render_prompt
from muster.providers.settings import ProviderSettings, located
from muster.store.journal import Journal, journal_path
from muster.store.records import CANCELLED, SUCCEEDED, RunRecord
from muster.target import ResolvedTarget
from muster.teams.budget import TokenBudget
from muster.teams.context import Earlier, RunContext
from muster.teams.definition import Team
from muster.teams.engine import RunOutcome
from muster.teams.inputs import check_inputs
from muster.teams.launch import carry_out, mark_ended, run_context
from muster.teams.nested import first_input
from muster.teams.preparing import LaunchOptions, assemble, stored_options
from muster.teams.records import begin_run
from muster.teams.standing import Standing
from muster.teams.transcript import is_of_team, transcript

if TYPE_CHECKING:
    from muster.teams.mock_script import Script

__all__ = ("TeamProvider",)

_log = logging.getLogger(__name__)

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

_inside: ContextVar[tuple[tuple[Path, str], ...]] = ContextVar("muster_teams_inside", default=())
"""The teams that are being opened or run around here: file and name."""


class TeamSettings(ProviderSettings):
    """Settings of `provider: team`. Paths start at the targets file."""

    file: str
    """The manifest, or a folder of them."""
    team: str | None = None
    """Which of its teams; default: the first that is no other team's role."""
    input: str | None = None
    """The input that gets the question; default: the first that is required, else the first that
    is declared, else `prompt`."""
    inputs: dict[str, Any] = Field(default_factory=dict)
    """Further inputs, the same for every question."""
    values: str | None = None
    """A folder with ConfigMaps and Secrets that the manifest refers to."""
    provider_for_all: str | None = None
    """A provider that answers for every agent."""
    target_for_all: str | None = None
    """A target that answers for every agent."""
    script: str | None = None
    """What the mock says, by role, attempt and content; then the mock answers for every agent."""
    lenient_templates: bool = False
    """Print `<no value>` for what is missing, as ark does, instead of failing."""
    no_mcp: bool = False
    """Leave all MCP servers out."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens that the run of one question may use."""
    budget_usd: Positive | None = None
    """Money that the run of one question may cost."""


class TeamProvider:
    """Runs the team for each request."""

    Settings = TeamSettings
    capabilities = Capabilities(
        streaming=False, tools=False, history=True, images=False, structured_output=False,
        embeddings=False, batch=False,
    )  # fmt: skip
    """Its agents have tools of their own; files are told to it by their paths."""

    def __init__(self, target: ResolvedTarget) -> None:
        """Reads and checks the manifests. Raises `MusterError` for what is wrong with them, and
        `pydantic.ValidationError` for wrong settings."""
        settings = TeamSettings.model_validate(dict(target.config))
        self._options = _options(target, settings)
        with _opening(self._options):
            script = _script(target, settings)
            self._prepared = assemble(self._options, script=script, env=target.env)
        try:
            self._key = (self._options.file, self._prepared.team.name)
            self._input = _input_of(self._prepared.team, settings.input)
            self._fixed = _fixed_inputs(self._prepared.team, settings.inputs)
        except MusterError as error:
            raise UsageError(f'target "{target.name}": {error}') from None
        self._known = _known_inputs(self._prepared.team) | {self._input}
        self._masker = self._prepared.masker()
        for warning in self._prepared.warnings:
            _log.warning('target "%s": %s', target.name, warning)
        self._journal: Journal | None = None
        self._standing: Standing | None = None

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """Run the team on the question; a `ProviderError` says how it failed."""
        inputs = self._inputs(request)
        try:
            journal = self._open_journal()
            run = self._begin(journal, request, inputs)
        except MusterError as error:
            raise ProviderFailed(str(error)) from error
        inside = _inside.set((*_inside.get(), self._key))
        try:
            outcome = await self._run(journal, run, request, inputs)
            response = self._response(journal, run, outcome)
        except MusterError as error:
            raise ProviderFailed(self._masked(str(error))) from error
        except asyncio.CancelledError:
            mark_ended(journal, run.id, CANCELLED, "Cancelled", "who asked gave up")
            raise
        finally:
            _inside.reset(inside)
        if request.on_chunk is not None and response.text:
            request.on_chunk(response.text)
        return response

    async def aclose(self) -> None:
        """Let go of the agents, their tools and the journal."""
        try:
            await self._prepared.cast.aclose()
        finally:
            journal, self._journal = self._journal, None
            if journal is not None:
                journal.close()

    # --- what the team is asked ---

    def _inputs(self, request: ProviderRequest) -> dict[str, Any]:
        """The inputs of the run: what the question says, over those of the target."""
        if request.images:
            raise BadRequest("a team takes text: it cannot be shown images")
        earlier = tuple(message for message in request.messages if not is_of_team(message))
        request = replace(request, messages=earlier)
        prompt = render_prompt(request, files="reference")
        given: Mapping[str, Any] = {self._input: prompt}
        if prompt == request.question and (found := self._as_inputs(prompt)) is not None:
            given = found
        try:
            return check_inputs(self._prepared.team, {**self._fixed, **given})
        except UsageError as error:
            raise BadRequest(str(error)) from error

    def _as_inputs(self, question: str) -> dict[str, Any] | None:
        """The question as inputs, when it is a JSON object of inputs that the team has."""
        if not question.lstrip().startswith("{"):
            return None
        try:
            value = json.loads(question)
        except ValueError:
            return None
        return value if value and self._known.issuperset(value) else None

    # --- the run ---

    def _open_journal(self) -> Journal:
        if self._journal is None or self._journal.has_lost:  # runs that go on in that one fail
            path = journal_path(self._prepared.project.root)
            self._journal = Journal.open(path, masker=self._masker)
            self._standing = Standing(self._journal)
        return self._journal

    def _begin(
        self, journal: Journal, request: ProviderRequest, inputs: Mapping[str, Any]
    ) -> RunRecord:
        """A run of its own; asked by an agent of another team, that team's run is its parent."""
        parent = request.metadata.get("run")
        run = begin_run(
            journal,
            self._prepared.team,
            inputs,
            options=stored_options(self._prepared.options),
            parent=parent,
            trigger="eval" if "suite" in request.metadata else None,
            shares_process=True,
        )
        asked = {"case": request.eval_case_id, "attempt": request.attempt, **request.metadata}
        journal.event(run.id, "asked", asked)
        return run

    async def _run(
        self,
        journal: Journal,
        run: RunRecord,
        request: ProviderRequest,
        inputs: Mapping[str, Any],
    ) -> RunOutcome:
        team, limits = self._prepared.team, request.limits
        context: RunContext = run_context(self._prepared, journal, run, Earlier(), self._standing)
        if run.parent is not None:
            context.asked_by = journal.teams_around(run.parent)
        if limits.max_total_tokens is not None:
            asked = TokenBudget(limits.max_total_tokens, "request")
            context.token_budgets = (*context.token_budgets, asked)
        if limits.max_cost_usd is not None:
            purse = MoneyBudget(limits.max_cost_usd)
            context.money_budgets = (*context.money_budgets, purse)
        if limits.max_seconds is not None:
            seconds = min(team.timeout_seconds or limits.max_seconds, limits.max_seconds)
            team = replace(team, timeout_seconds=seconds)
        return await carry_out(team, inputs, context)

    def _response(self, journal: Journal, run: RunRecord, outcome: RunOutcome) -> ProviderResponse:
        """The team's answer, behind what its steps said; or the error that it ended with."""
        if outcome.status != SUCCEEDED:
            raise self._error(run, outcome)
        return ProviderResponse(
            transcript(journal, run.id, outcome, self._masked),
            # A part of it would be taken for the whole.
            token_usage=None if outcome.untold else outcome.token_usage,
            cost_usd=outcome.cost_usd,
            duration_ms=outcome.seconds * 1000,
            raw={"run": run.id, "team": run.team},
            finish_reason="stop",
        )

    def _error(self, run: RunRecord, outcome: RunOutcome) -> ProviderError:
        text = self._masked(f"{outcome.error} (run {run.id})")
        kind: type[ProviderError] = ProviderFailed
        if outcome.reason == "BudgetExceeded":
            kind = BudgetExceeded
        elif outcome.reason == "TimedOut":
            kind = ProviderTimeout
        elif outcome.reason == "StepFailed" and _limit_reached(outcome):
            kind = LimitExceeded
        return kind(
            text,
            retryable=False,
            token_usage=outcome.token_usage,
            cost_usd=outcome.cost_usd,
        )

    def _masked(self, text: str) -> str:
        return self._masker.mask(text) if self._masker else text


# --- from the settings --------------------------------------------------------------------------


def _options(target: ResolvedTarget, settings: TeamSettings) -> LaunchOptions:
    return LaunchOptions(
        file=located(target, settings.file, "file"),
        team=settings.team,
        provider=settings.provider_for_all or "auto",
        target=settings.target_for_all,
        targets_file=target.targets_file,
        values=located(target, settings.values, "values") if settings.values else None,
        no_mcp=settings.no_mcp,
        lenient=settings.lenient_templates,
        max_tokens=settings.max_tokens,
        budget_usd=settings.budget_usd,
        timeout=target.timeout_seconds,
        safe=target.safe,
    )


def _script(target: ResolvedTarget, settings: TeamSettings) -> Script | None:
    if settings.script is None:
        return None
    from muster.teams.mock_script import read_script

    return read_script(located(target, settings.script, "script"))


@contextmanager
def _opening(options: LaunchOptions) -> Iterator[None]:
    """Refuses a team that is reached through the targets of its own agents."""
    around = _inside.get()
    for number, (file, name) in enumerate(around):
        if file == options.file and options.team in (None, name):
            names = [name for _, name in around[number:]]
            raise UsageError(
                "a team cannot be the target of an agent of its own: "
                + " → ".join((*names, names[0]))
            )
    token = _inside.set((*around, (options.file, options.team or options.file.stem)))
    try:
        yield
    finally:
        _inside.reset(token)


def _input_of(team: Team, name: str | None) -> str:
    if name is None:
        return first_input(team)
    known = [field.name for field in team.inputs]
    if known and name not in known and name not in team.defaults:
        near = nearest(name, known)
        hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(known)}"
        raise UsageError(f'input: team "{team.name}" has no input "{name}" ({hint})')
    return name


def _fixed_inputs(team: Team, given: Mapping[str, Any]) -> dict[str, Any]:
    for name in given:
        _input_of(team, name)
    return dict(given)


def _known_inputs(team: Team) -> set[str]:
    """The inputs that the team declares, has defaults for, or speaks of."""
    known = {field.name for field in team.inputs} | set(team.defaults)
    for step in team.steps:
        templates = [*step.inputs.values(), step.condition, team.output]
        if step.for_each is not None:
            templates.append(step.for_each.items)
        for template in templates:
            for path in template.references if template is not None else ():
                inside = path[1:] if path[:1] == ("pipeline",) else path
                if inside[:1] == ("input",):
                    known.update(inside[1:2])
    return known


def _limit_reached(outcome: RunOutcome) -> bool:
    failed = (step for step in outcome.steps if step.name == outcome.failed_step)
    return any(step.error_kind == LimitExceeded.kind for step in failed)
