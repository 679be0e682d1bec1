"""A run of a team from the manifest's file to its record: prepared, carried out, gone on with."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muster.config.environment import load_environment
from muster.config.project import Project, find_project
from muster.config.secrets import MASK, Masker, environment_secrets, secret_values
from muster.config.targets import load_catalog
from muster.errors import ConfigError, MusterError, RunBroken, UsageError
from muster.evals.budget import MoneyBudget
from muster.providers import providers
from muster.store.journal import Journal, journal_path
from muster.store.records import CANCELLED, FAILED, INTERRUPTED, RunRecord
from muster.store.waiting import wait_for_cancel
from muster.targets import Overrides, TargetPool
from muster.tasks import look_at, stop_tasks
from muster.teams.artifacts import artifacts_of
from muster.teams.budget import TokenBudget
from muster.teams.cast import Cast, CastOptions
from muster.teams.context import AskApproval, Earlier, RunContext
from muster.teams.definition import Agent, RunRequest, Team
from muster.teams.engine import RunOutcome, TeamRun
from muster.teams.inputs import check_inputs
from muster.teams.manifests import Bundle, load_manifests
from muster.teams.records import (
    begin_run,
    end_run,
    forget_old_runs,
    mark_ended,
)
from muster.teams.routing import candidates, router_of
from muster.teams.standing import Standing
from muster.teams.watching import OnEvent

if TYPE_CHECKING:
    from muster.teams.mock_script import Script

__all__ = (
    "LaunchOptions",
    "Launched",
    "Prepared",
    "assemble",
    "carry_out",
    "launch",
    "mark_ended",
    "prepare",
    "resumed",
    "run_context",
    "stored_options",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOptions:
    """What is asked for; `None` leaves it to the manifest."""

    file: Path
    team: str | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    provider: str = "auto"
    agent_provider: str | None = None
    """What `AGENT_PROVIDER` said when the run began; the environment of now goes over it."""
    target: str | None = None
    targets_file: Path | None = None
    values: Path | None = None
    mock: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the mock: those of a script that was checked."""
    no_mcp: bool = False
    lenient: bool = False
    max_tokens: int | None = None
    budget_usd: float | None = None
    timeout: float | None = None
    safe: bool = False


@dataclass(slots=True)
class Prepared:
    """Checked and ready: nobody was asked anything yet."""

    options: LaunchOptions
    bundle: Bundle
    team: Team
    inputs: dict[str, Any]
    project: Project
    env: Mapping[str, str]
    pool: TargetPool
    cast: Cast
    warnings: list[str]

    def masker(self) -> Masker:
        """Knows the secrets of the environment, the targets and the manifests."""
        return Masker(self.secrets())

    def secrets(self) -> set[str]:
        """What must be kept out of everything that is written."""
        secrets = environment_secrets(self.env) | self.bundle.secrets
        for target in self.pool.resolved:
            secrets |= secret_values(target.config)
        return secrets


@dataclass(slots=True)
class Launched:
    """A run that has ended."""

    run: RunRecord
    outcome: RunOutcome


def prepare(options: LaunchOptions, *, script: Script | None = None) -> Prepared:
    """Read and check the manifest, the targets and the inputs. With a `script` the mock answers
    for every agent, and says what the script has for it.

    Raises:
        MusterError: what is wrong with them; nobody was asked anything.
    """
    prepared = assemble(options, script=script, as_run=True)
    prepared.inputs = check_inputs(prepared.team, {**prepared.inputs, **options.inputs})
    return prepared


def _folder_of(file: Path) -> Path:
    """Where a manifest stands: a file, a folder of them, or the standard input."""
    if str(file) == "-":
        return Path.cwd()
    path = file.resolve()
    return path if path.is_dir() else path.parent


def assemble(
    options: LaunchOptions,
    *,
    script: Script | None = None,
    env: Mapping[str, str] | None = None,
    as_run: bool = False,
) -> Prepared:
    """The same but for the inputs, of which each of many runs has its own. `env` is the
    environment, if it is not that of the manifest's folder.

    Args:
        as_run: where no team is named, an ArkRun of the manifest says which, and its inputs.

    Raises:
        MusterError: as `prepare`.
    """
    start = _folder_of(options.file)
    project = find_project(start)
    env = load_environment(start) if env is None else env
    if options.agent_provider is not None:  # of a run that is gone on with
        env = {"AGENT_PROVIDER": options.agent_provider, **env}
    options = replace(options, agent_provider=env.get("AGENT_PROVIDER"))
    bundle = load_manifests(
        options.file,
        values=options.values,
        env=env,
        safe=options.safe,
        lenient_templates=options.lenient,
    )
    if script is not None:
        options = replace(options, provider="mock", mock=script.settings)
        _check_script(script, bundle)
    request = bundle.pick_run() if as_run and options.team is None else None
    team = bundle.pick_team(options.team if request is None else request.team)
    team = _bounded(team, options, request)
    inputs = dict(request.inputs) if request is not None else {}
    catalog = load_catalog(start, explicit=options.targets_file, env=env, safe=options.safe)
    registry = providers.for_project(project.provider_folders, safe=options.safe)
    pool = TargetPool(catalog, registry, Overrides())
    cast = Cast(
        pool,
        catalog,
        env,
        CastOptions(
            provider=options.provider,
            target=options.target,
            mock=options.mock,
            no_mcp=options.no_mcp,
        ),
    )
    cast.check([*_agents_of(team), *_judges_of(team, cast, safe=options.safe)])
    warnings = [*bundle.warnings, *catalog.warnings, *registry.failures]
    return Prepared(options, bundle, team, inputs, project, env, pool, cast, warnings)


def _check_script(script: Script, bundle: Bundle) -> None:
    from muster.teams.script_checks import problems_of_script

    if problems := list(problems_of_script(script, bundle, live_tools=True)):
        raise ConfigError(problems)


def _bounded(team: Team, options: LaunchOptions, request: RunRequest | None) -> Team:
    """The team with the bounds of the command line, and of an ArkRun; the tightest one counts."""
    if request is not None:
        team = replace(
            team,
            max_tokens=_least(team.max_tokens, request.max_tokens),
            timeout_seconds=_least(team.timeout_seconds, request.timeout_seconds),
        )
    return replace(
        team,
        max_tokens=_least(team.max_tokens, options.max_tokens),
        max_cost_usd=_least(team.max_cost_usd, options.budget_usd),
        timeout_seconds=_least(team.timeout_seconds, options.timeout),
    )


def _least(left: Any, right: Any) -> Any:
    return right if left is None else left if right is None else min(left, right)


def _agents_of(team: Team) -> list[Agent]:
    """All that may be asked, each once: those of nested teams, the judges and the router too."""
    found: dict[int, Agent] = {}

    def add(agent: Agent | None) -> None:
        if agent is not None:
            found[id(agent)] = agent

    for role in team.roles.values():
        add(role.agent)
        for agent in _agents_of(role.team) if role.team is not None else ():
            add(agent)
    routing = team.routing
    if routing is not None:
        if routing.strategy == "llm":
            add(router_of(routing))
        for agent in routing.registry.agents:
            if agent.capabilities or agent.name == routing.fallback:
                add(agent)
    for step in team.steps:
        for agent in candidates(step, team.registry):
            add(agent)
        judge = step.validation.judge if step.validation is not None else None
        if judge is not None and judge not in team.roles:
            add(Agent(name=judge, target=judge))
    return list(found.values())


def _judges_of(team: Team, cast: Cast, *, safe: bool) -> list[Agent]:
    """The targets that judge for the suites which are gates; the suites are read.

    Raises:
        ConfigError: there are mistakes in one of them.
    """
    found: list[Agent] = []
    for role in team.roles.values():
        found += _judges_of(role.team, cast, safe=safe) if role.team is not None else ()
    for step in team.steps:
        if step.validation is not None and step.validation.suite is not None:
            named = cast.gate(step.validation.suite, safe=safe).judges
            found += [cast.agent_of_target(name) for name in named if name not in team.roles]
    return found


async def launch(
    prepared: Prepared,
    *,
    on_event: OnEvent | None = None,
    ask_approval: AskApproval | None = None,
    resume: str | None = None,
    stop: asyncio.Event | None = None,
    trigger: str | None = None,
) -> Launched:
    """Run the team; everything is in the journal before the next thing begins.

    Args:
        resume: the run to go on with.
        stop: set before this task is cancelled, it makes the cancellation an ordinary end.

    Raises:
        asyncio.CancelledError: cancelled without `stop`; the run can be resumed all the same.
        MusterError: the journal cannot be used, or the run cannot be gone on with.
        RunBroken: so it became after it had begun.
    """
    journal = Journal.open(journal_path(prepared.project.root), masker=prepared.masker())
    try:
        run = _begin(prepared, journal, resume, trigger)
        earlier = Earlier.of(journal, run.id) if resume is not None else Earlier()
        context = run_context(prepared, journal, run, earlier)
        context.on_event, context.ask_approval = on_event, ask_approval
        for line in prepared.warnings:
            context.emit("warning", text=line)
        context.emit("run_started", data={"run": run.id, "team": prepared.team.name})
        try:
            outcome = await carry_out(prepared.team, prepared.inputs, context, stop)
        except MusterError as error:
            raise RunBroken(f"run {run.id}: {error}") from error
        context.emit("run_done", text=outcome.reason)
        ended = journal.run(run.id)
        if prepared.bundle.notifies:
            await _announced(prepared, journal, ended, context, stop)
        return Launched(ended, outcome)
    finally:
        journal.close()
        await prepared.cast.aclose()


async def _announced(
    prepared: Prepared,
    journal: Journal,
    run: RunRecord,
    context: RunContext,
    stop: asyncio.Event | None,
) -> None:
    """Tell who wants to be told. The run has ended: an interruption changes nothing about it."""
    from muster.teams.notify import announce

    def tell(outcome: str, text: str) -> None:
        if outcome != "notified":
            context.emit("warning", text=f"{outcome}: {text}")

    try:
        await announce(prepared, journal, run, tell)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if stop is None or not stop.is_set() or task is None:
            raise
        task.uncancel()


def _begin(
    prepared: Prepared, journal: Journal, resume: str | None, trigger: str | None
) -> RunRecord:
    if resume is None:
        stored = stored_options(prepared.options)
        return begin_run(journal, prepared.team, prepared.inputs, options=stored, trigger=trigger)
    run = journal.run(resume)
    if run.definition_hash != prepared.team.definition_hash:
        what = run.file or "the standard input"
        raise UsageError(
            f"run {run.id}: {what} is not what it was when the run began; start a new one"
        )
    return journal.claim(run.id, os.getpid())


def run_context(
    prepared: Prepared,
    journal: Journal,
    run: RunRecord,
    earlier: Earlier,
    standing: Standing | None = None,
) -> RunContext:
    """What the parts of the run share; its budgets are the team's. Runs that go on at the same time
    have the same `standing`."""
    team = prepared.team
    standing = standing or Standing(journal)
    tokens: tuple[TokenBudget, ...] = ()
    if team.max_tokens is not None:
        tokens = (TokenBudget(team.max_tokens, "run", earlier.tokens),)
    money: tuple[MoneyBudget, ...] = ()
    if team.max_cost_usd is not None:
        money = (MoneyBudget(team.max_cost_usd, earlier.cost_usd),)
    daily = {} if team.max_daily_tokens is None else {team.name: team.max_daily_tokens}
    return RunContext(
        run_id=run.id,
        journal=journal,
        cast=prepared.cast,
        folder=artifacts_of(team, prepared.project.root) / run.id,
        team=team.name,
        inputs=run.input,
        token_budgets=tokens,
        money_budgets=money,
        standing=standing,
        standing_money=tuple(standing.money_of(team.budgets)),
        daily_limits=daily,
        teams=(team.name,),
        lenient=prepared.options.lenient,
        earlier=earlier,
    )


async def carry_out(
    team: Team, inputs: Mapping[str, Any], context: RunContext, stop: asyncio.Event | None = None
) -> RunOutcome:
    """Run the team to its end, and write down how it ended.

    Raises:
        asyncio.CancelledError: cancelled without `stop`; that is not written down.
    """
    try:
        outcome = await _watched(team, inputs, context, stop)
    except Exception as error:
        with suppress(MusterError):  # the journal itself may be what failed
            mark_ended(context.journal, context.run_id, FAILED, "Error", str(error))
        raise
    status = {"Cancelled": CANCELLED, "Interrupted": INTERRUPTED}.get(outcome.reason)
    if status is None:
        end_run(context.journal, context.run_id, outcome)
        forget_old_runs(context.journal, team, but=context.run_id)
    else:
        mark_ended(context.journal, context.run_id, status, outcome.reason, outcome.error)
    return outcome


_CANCELLED = ("Cancelled", "cancelled by `muster runs cancel`")


async def _watched(
    team: Team, inputs: Mapping[str, Any], context: RunContext, stop: asyncio.Event | None
) -> RunOutcome:
    """Run the team until it ends, is cancelled from elsewhere, or is interrupted here."""
    run = TeamRun(team, inputs, context)
    running = asyncio.ensure_future(run.run())
    cancel = asyncio.ensure_future(wait_for_cancel(context.journal, context.run_id))
    cancel.add_done_callback(look_at)
    try:
        await asyncio.wait((running, cancel), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            return running.result()
        cancel.result()  # nobody's wish, where the journal cannot be read any more
        await stop_tasks((running,))
        return run.cut_off(*_CANCELLED)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if stop is None or not stop.is_set() or task is None:
            raise
        task.uncancel()
        try:
            await stop_tasks((running,))
        except asyncio.CancelledError:  # asked a second time: the tasks were ended at once
            task.uncancel()
        wanted = context.journal.cancel_requested(context.run_id)
        return run.cut_off(*(_CANCELLED if wanted else ("Interrupted", "interrupted")))
    finally:
        await stop_tasks((running, cancel))


def stored_options(options: LaunchOptions) -> dict[str, Any]:
    """The options as JSON, for `--resume`."""
    return {
        name: _stored_path(value) if isinstance(value, Path) else value
        for name, value in asdict(options).items()
        if name != "inputs"
    }


def _stored_path(path: Path) -> str:
    return "-" if str(path) == "-" else str(path.resolve())


def resumed(run: RunRecord, inputs: Mapping[str, Any]) -> LaunchOptions:
    """The options that a run was started with; `inputs` are those given again.

    Raises:
        UsageError: the journal does not have them.
    """
    stored = dict(run.options)
    if stored.get("file") == "-" and sys.stdin is not None and sys.stdin.isatty():
        raise UsageError(
            f"run {run.id}: its manifest came from the standard input: give it there again"
        )
    known = {**run.input, **inputs}
    hidden = [name for name, value in known.items() if MASK in json.dumps(value, default=str)]
    if hidden:
        raise UsageError(
            f"run {run.id}: the journal keeps no secrets, and there is one in the input "
            f'"{hidden[0]}": give it again with --input {hidden[0]}=…'
        )
    try:
        for name in ("file", "targets_file", "values"):
            stored[name] = Path(stored[name]) if stored.get(name) else None
        return LaunchOptions(**stored, inputs=known)
    except TypeError as error:
        raise UsageError(f"run {run.id}: written by another version: {error}") from None
