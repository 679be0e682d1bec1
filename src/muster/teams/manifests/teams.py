"""Teams and flows of manifests in the normal form: roles, graph, delegation, routing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from muster.config.document import Place
from muster.errors import ConfigError, UsageError
from muster.teams.definition import Agent, Budget, InputField, Registry, Role, Routing, Step, Team
from muster.teams.graph import cycle_text, delegation, dependencies, find_cycle
from muster.teams.inputs import check_inputs
from muster.teams.manifests.agent_models import McpServerSpec, ToolSpec
from muster.teams.manifests.context import Context
from muster.teams.manifests.findings import hint
from muster.teams.manifests.reading import Manifest
from muster.teams.manifests.steps import role_of, step_of
from muster.teams.manifests.team_models import FlowSpec, RoleSpec, StepSpec, TeamSpec
from muster.teams.manifests.template_checks import check_templates
from muster.teams.own_tools import tools_twice
from muster.teams.template import Template

__all__ = ("TeamMaker", "role_agent_name")

DEFAULT_DEPTH = 5

Mode = Literal["pipeline", "dynamic", "mixed", "routed"]


def role_agent_name(team: str, role: str) -> str:
    """What the agent of an inline role is called."""
    return f"{team}-{role}"


class TeamMaker:
    """Makes one team; `agents` and `registries` are all there are, `budgets` those that it has to
    keep to, `team` gives a nested one."""

    def __init__(
        self,
        context: Context,
        manifest: Manifest[Any],
        agents: Mapping[str, Agent],
        registries: Mapping[str, Registry],
        team: Callable[[str], Team | None],
        *,
        budgets: Iterable[Budget] = (),
    ) -> None:
        self.context = context
        self.findings = context.findings
        self.manifest = manifest
        self.name = manifest.name
        self.place = manifest.place
        self.agents = agents
        self.registries = registries
        self.budgets = tuple(budgets)
        self.team = team
        self.roles: dict[str, Role] = {}
        self.role_places: dict[str, Place] = {}

    def make(self) -> Team:
        """The team; what is wrong with it goes into the findings."""
        spec = self.manifest.spec
        flow = isinstance(spec, FlowSpec)
        team = self._make_flow(spec) if flow else self._make_team(spec)
        self._check_graph(team)
        urls = [] if isinstance(spec, FlowSpec) else self._urls(spec)
        check_templates(team, self.place, urls, self.findings)
        return team

    def _make_flow(self, spec: FlowSpec) -> Team:
        steps = self._steps(spec.steps, self.place.at("steps"))
        return Team(
            mode="pipeline",
            steps=steps,
            defaults={key: _as_text(value) for key, value in spec.input.items()},
            notify=self._notify(spec),
            is_flow=True,
            **self._common(spec),
        )

    def _make_team(self, spec: TeamSpec) -> Team:
        self._add_roles(spec)
        steps = self._steps(spec.pipeline or [], self.place.at("pipeline"))
        mode, entry = self._mode(spec)
        routing = self._routing(spec)
        registry = routing.registry if routing is not None else None
        if registry is None and any(step.lookup is not None for step in steps):
            registry = self._any_registry()
            self._check_lookups(steps, registry)
        depth = spec.maxDepth or (registry.max_depth if registry is not None else DEFAULT_DEPTH)
        team = Team(
            mode=mode,
            steps=steps,
            entry=entry,
            inputs=self._inputs(spec),
            defaults=dict(spec.input),
            max_daily_tokens=spec.limits.maxDailyTokens or None,
            max_depth=depth,
            routing=routing,
            registry=registry,
            artifact_store=self._artifact_store(spec),
            notify=self._notify(spec),
            keep_succeeded=spec.successfulRunsHistoryLimit,
            keep_failed=spec.failedRunsHistoryLimit,
            **self._common(spec),
        )
        self._check_delegation(spec, team)
        return team

    def _common(self, spec: TeamSpec | FlowSpec) -> dict[str, Any]:
        output = self.place.at("output")
        return {
            "name": self.name,
            "roles": self.roles,
            "output": self.findings.template(spec.output, output) if spec.output else None,
            "timeout_seconds": spec.timeoutSeconds,
            "max_tokens": spec.maxTokens,
            "max_cost_usd": spec.budgetUsd,
            "budgets": self.budgets,
            "labels": self.manifest.labels,
            "path": self.manifest.path,
            "definition_hash": self.context.manifests.hash,
            "place": self.place,
        }

    def _artifact_store(self, spec: TeamSpec) -> dict[str, Any] | None:
        """`{type: local}` and perhaps the absolute `path`: no other store is there."""
        given = spec.artifactStore
        if given is None:
            return None
        place = self.place.at("artifactStore")
        kind = given.get("type", "local")
        if kind != "local":
            self.findings.add(
                place.at("type"),
                f'artifacts are kept on this machine only: expected local, found "{kind}"',
            )
            return None
        local = given.get("local") or {}
        path = local.get("path") if isinstance(local, dict) else None
        for name in {*given} - {"type", "local"}:
            self.findings.add(place.at(name), f'unknown field "{name}" (known: type, local)')
        if path is None:
            return {"type": "local"}
        found = self.context.path(str(path), self.manifest.folder, place.at("local", "path"))
        return {"type": "local", "path": str(found)}

    def _notify(self, spec: TeamSpec | FlowSpec) -> str | None:
        ref = spec.notifyRef
        if ref is None:
            return None
        place = self.place.at("notifyRef", "name")
        self.context.known("ArkNotify", ref.name, place, "ArkNotify")
        return ref.name

    # --- roles ----------------------------------------------------------------------------------

    def _add_roles(self, spec: TeamSpec) -> None:
        for number, item in enumerate(spec.roles):
            place = self.place.at("roles", number)
            self._add(self._role(item, place), place.at("name"))
        for number, member in enumerate(spec.members):
            place = self.place.at("members", number)
            agent = self._agent(member.arkAgent, place.at("arkAgent"), f'role "{member.role}"')
            delegates = tuple(member.delegates)
            made = Role(name=member.role, agent=agent, can_delegate=delegates)
            self._add(made, place.at("role"))

    def _add(self, role: Role, place: Place) -> None:
        if role.name in self.roles:
            self.findings.add(place, f'there are two roles called "{role.name}"')
            return
        self.roles[role.name] = role
        self.role_places[role.name] = place

    def _role(self, spec: RoleSpec, place: Place) -> Role:
        delegates = tuple(spec.canDelegate)
        if spec.arkTeam is not None:
            at = place.at("arkTeam")
            team = self.team(spec.arkTeam)
            if team is None:
                known = [
                    *self.context.manifests.of("ArkTeam"),
                    *self.context.manifests.of("ArkFlow"),
                ]
                if spec.arkTeam not in known:
                    message = f'role "{spec.name}" references unknown ArkTeam "{spec.arkTeam}"'
                    self.findings.add(at, message + hint(spec.arkTeam, known))
            return Role(name=spec.name, team=team)
        if spec.arkAgent is not None:
            agent = self._agent(spec.arkAgent, place.at("arkAgent"), f'role "{spec.name}"')
        else:
            agent = self.agents.get(role_agent_name(self.name, spec.name))
        return Role(name=spec.name, agent=agent, can_delegate=delegates)

    def _agent(self, name: str, place: Place, who: str) -> Agent | None:
        agent = self.agents.get(name)
        if agent is None and not self.context.manifests.is_written(name, "ArkAgent"):
            standing = self.context.manifests.of("ArkAgent")
            message = f'{who} references unknown ArkAgent "{name}"{hint(name, standing)}'
            self.findings.add(place, message)
        return agent

    def _urls(self, spec: TeamSpec) -> Iterator[tuple[Template, Place]]:
        """The URLs of inline roles' tools that are templates; those that cannot be compiled have
        been told of with the agent."""
        for number, role in enumerate(spec.roles):
            place = self.place.at("roles", number)
            for kind, tools in _with_urls(role):
                for index, tool in enumerate(tools):
                    if tool.url is not None and "{{" in tool.url and "${{" not in tool.url:
                        with suppress(ConfigError):
                            yield Template.compile(tool.url), place.at(kind, index, "url")

    # --- steps ----------------------------------------------------------------------------------

    def _steps(self, specs: list[StepSpec], place: Place) -> tuple[Step, ...]:
        declared = set(self.roles)
        steps: dict[str, Step] = {}
        for number, spec in enumerate(specs):
            at = place.at(number)
            self._add_role_of(spec, at, declared)
            step = step_of(spec, at, declared, self.manifest.folder, self.context)
            if step.name in steps:
                where = at.at("name" if spec.name is not None else "role")
                way = "" if spec.name is not None else '; give one of them a "name"'
                self.findings.add(where, f'there are two steps called "{step.name}"{way}')
                continue
            steps[step.name] = step
        for step in steps.values():
            self._check_dependencies(step, steps)
        return tuple(steps.values())

    def _add_role_of(self, spec: StepSpec, place: Place, declared: set[str]) -> None:
        """A step may name an agent where others name a role; or a role that must be there."""
        name = role_of(spec)
        if name is None:
            return
        if spec.role is not None:
            if name not in declared and spec.registryLookup is None:
                known = hint(name, declared) or f" (known: {', '.join(declared) or 'none'})"
                step = spec.name or name
                message = f'step "{step}" references unknown role "{name}"{known}'
                self.findings.add(place.at("role"), message)
            return
        where = place.at("arkAgent" if spec.arkAgent is not None else "arkonisDeployment")
        agent = self._agent(name, where, f'step "{spec.name}"')
        if name in declared:
            if agent is not None and self.roles[name].agent is not agent:
                self.findings.add(where, f'"{name}" is an agent and a role; say which with "role"')
        else:
            self.roles.setdefault(name, Role(name=name, agent=agent))

    def _check_dependencies(self, step: Step, steps: Mapping[str, Step]) -> None:
        assert step.place is not None
        for name in step.depends_on:
            if name not in steps:
                message = f'step "{step.name}" depends on unknown step "{name}"{hint(name, steps)}'
                self.findings.add(_item(step.place.at("dependsOn"), name), message)

    def _check_graph(self, team: Team) -> None:
        edge = find_cycle(dependencies(team))
        if edge is None:
            return
        step = next(step for step in team.steps if step.name == edge[0])
        assert step.place is not None
        self.findings.add(_item(step.place.at("dependsOn"), edge[1]), cycle_text("step", edge))

    # --- delegation and routing -----------------------------------------------------------------

    def _mode(self, spec: TeamSpec) -> tuple[Mode, str | None]:
        if spec.routing is not None:
            return "routed", None
        entries = [member.role for member in spec.members if member.entry]
        if len(entries) > 1:
            self.findings.add(self.place.at("members"), f"several entries: {', '.join(entries)}")
        entry = spec.entry or (entries[0] if entries else None)
        if entry is not None and entry not in self.roles:
            near = hint(entry, self.roles) or f" (known: {', '.join(self.roles) or 'none'})"
            self.findings.add(self.place.at("entry"), f'entry: unknown role "{entry}"{near}')
        delegates = any(role.can_delegate for role in self.roles.values())
        if spec.pipeline is not None:
            return ("mixed" if entry is not None or delegates else "pipeline"), entry
        if entry is None and len(self.roles) == 1:
            entry = next(iter(self.roles))
        if entry is None:
            message = 'a team without a pipeline needs an "entry": the role that gets the tasks'
            self.findings.add(self.place, message)
        return "dynamic", entry

    def _check_delegation(self, spec: TeamSpec, team: Team) -> None:
        for number, role in enumerate(spec.roles):
            place = self.place.at("roles", number, "canDelegate")
            self._check_delegates(role.name, role.canDelegate, place)
        for number, member in enumerate(spec.members):
            place = self.place.at("members", number, "delegates")
            self._check_delegates(member.role, member.delegates, place)
        for made in team.roles.values():
            for name in tools_twice(made):
                message = f'role "{made.name}": "{name}" is a tool of its agent and one of the team'
                self.findings.add(self.role_places[made.name], message)
        if (edge := find_cycle(delegation(team))) is not None:
            key = "canDelegate" if spec.roles else "delegates"
            place = Place(self.place.document, self.role_places[edge[0]].location[:-1]).at(key)
            self.findings.add(_item(place, edge[1]), cycle_text("role", edge))

    def _check_delegates(self, role: str, names: list[str], place: Place) -> None:
        for number, name in enumerate(names):
            if name not in self.roles:
                near = hint(name, self.roles) or f" (known: {', '.join(self.roles)})"
                message = f'role "{role}" delegates to unknown role "{name}"{near}'
                self.findings.add(place.at(number), message)

    def _routing(self, spec: TeamSpec) -> Routing | None:
        given = spec.routing
        if given is None:
            return None
        place = self.place.at("routing")
        at = place.at("registryRef", "name")
        self.context.known("ArkRegistry", given.registryRef.name, at, "ArkRegistry")
        registry = self.registries.get(given.registryRef.name) or self._any_registry()
        self._check_fallback(given.fallback, registry, place.at("fallback"))
        if given.fallback is None and not any(agent.capabilities for agent in registry.agents):
            self.findings.add(place, "no agent has a capability, and there is no fallback")
        return Routing(
            registry=registry,
            strategy=given.strategy,
            model=given.model,
            target=given.target,
            fallback=given.fallback,
        )

    def _any_registry(self) -> Registry:
        """The only one, or the first; without any, all agents."""
        if self.registries:
            return next(iter(self.registries.values()))
        return Registry(name="all-agents", agents=tuple(self.agents.values()))

    def _check_fallback(self, name: str | None, registry: Registry, place: Place) -> None:
        names = [agent.name for agent in registry.agents]
        if name is None or self.context.manifests.is_written(name, "ArkAgent"):
            return
        if name not in names:
            near = hint(name, names) or f" (known: {', '.join(names) or 'none'})"
            self.findings.add(place, f'fallback: unknown ArkAgent "{name}"{near}')

    def _check_lookups(self, steps: tuple[Step, ...], registry: Registry) -> None:
        capabilities = [item for agent in registry.agents for item in agent.capabilities]
        for step in steps:
            lookup = step.lookup
            if lookup is None or step.place is None:
                continue
            place = step.place.at("registryLookup")
            self._check_fallback(lookup.fallback, registry, place.at("fallback"))
            wanted = set(lookup.tags)
            same = [item for item in capabilities if item.id == lookup.capability]
            if lookup.fallback is None and not any(wanted <= set(item.tags) for item in same):
                tags = f" with the tags {', '.join(lookup.tags)}" if same else ""
                near = "" if same else hint(lookup.capability, {item.id for item in capabilities})
                message = f'no agent has the capability "{lookup.capability}"{tags}{near}'
                self.findings.add(place.at("tags" if same else "capability"), message)

    # --- inputs ---------------------------------------------------------------------------------

    def _inputs(self, spec: TeamSpec) -> tuple[InputField, ...]:
        found: dict[str, InputField] = {}
        for number, item in enumerate(spec.inputs):
            if item.name in found:
                at = self.place.at("inputs", number, "name")
                self.findings.add(at, f'there are two inputs called "{item.name}"')
                continue
            found[item.name] = InputField(
                name=item.name,
                type=item.type,
                description=item.description,
                required=item.required,
                default=_as_text(item.default) if item.type == "string" else item.default,
            )
            default = self.place.at("inputs", number, "default")
            self._check_input(found[item.name], item.default, default)
        for name, value in spec.input.items():
            if name in found:
                self._check_input(found[name], value, self.place.at("input", name))
        return tuple(found.values())

    def _check_input(self, item: InputField, value: Any, place: Place) -> None:
        """That a value of an input is of the type that is declared."""
        if value is None:
            return
        alone = Team(name=self.name, mode="pipeline", inputs=(item,))
        try:
            check_inputs(alone, {item.name: value})
        except UsageError as error:
            self.findings.add(place, str(error))


def _with_urls(role: RoleSpec) -> list[tuple[str, Sequence[ToolSpec | McpServerSpec]]]:
    return [("tools", role.tools), ("mcpServers", role.mcpServers)]


def _item(place: Place, value: str) -> Place:
    """The item of the list at `place` that is `value`; `place` itself, if it stands under a name
    that was written wrong."""
    found: Any = place.document.data
    try:
        for step in place.location:
            found = found[step]
        return place.at(found.index(value))
    except (LookupError, ValueError):
        return place


def _as_text(value: Any) -> Any:
    """A scalar as text, as YAML has it; other values as they are."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value
