"""A run of a team, made ready from the manifest's file: nothing is asked yet."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muster.config.environment import load_environment
from muster.config.project import Project, find_project
from muster.config.secrets import MASK, Masker, environment_secrets, secret_values
from muster.config.targets import load_catalog
from muster.errors import ConfigError, UsageError
from muster.providers import providers
from muster.store.records import RunRecord
from muster.targets import Overrides, TargetPool
from muster.teams.cast import Cast, CastOptions
from muster.teams.definition import Agent, RunRequest, Team
from muster.teams.inputs import check_inputs
from muster.teams.manifests import Bundle, load_manifests
from muster.teams.routing import candidates, router_of

if TYPE_CHECKING:
    from muster.teams.mock_script import Script

__all__ = ("LaunchOptions", "Prepared", "assemble", "prepare", "resumed", "stored_options")


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
