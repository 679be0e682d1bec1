"""`load_manifests`: from files to the normal form, with all problems told at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from muster.config.project import find_project
from muster.teams.definition import Agent, Budget, Registry, Team
from muster.teams.graph import cycle_text, find_cycle, topological_order
from muster.teams.manifests.agents import AgentMaker
from muster.teams.manifests.bundle import Bundle
from muster.teams.manifests.context import Context
from muster.teams.manifests.findings import Findings
from muster.teams.manifests.others import budget_of, event_of, notify_of, run_of
from muster.teams.manifests.reading import Manifest, read_manifests
from muster.teams.manifests.team_models import TeamSpec
from muster.teams.manifests.teams import TeamMaker, role_agent_name
from muster.teams.manifests.values import Values

__all__ = ("load_manifests",)


def load_manifests(
    path: Path,
    *,
    values: Path | None = None,
    env: Mapping[str, str],
    safe: bool = False,
    lenient_templates: bool = False,
    reads: set[Path] | None = None,
) -> Bundle:
    """What the manifests at `path` define: a file, a folder, or `-` for the standard input.

    `values` is a folder with ConfigMaps and Secrets that the manifests refer to. `env` fills in
    `${{ NAME }}` in URLs, headers, commands and the like. With `safe`, commands and Python tools
    are problems. With `lenient_templates`, a template that asks for what is not there is a warning
    only. `reads` gets the files that the manifests name: prompts, and suites that are gates.

    Raises:
        ConfigError: with everything that is wrong.
    """
    findings = Findings(env, lenient=lenient_templates)
    if reads is not None:
        findings.reads = reads
    manifests = read_manifests(path, findings)
    start = Path.cwd() if str(path) == "-" else path.resolve()
    sources = Values.load(manifests, values, findings)
    context = Context(manifests, sources, findings, find_project(start).root, safe)
    loader = _Loader(context)
    bundle = loader.bundle(path)
    findings.stop()
    bundle.warnings = findings.warnings
    bundle.secrets = frozenset(findings.secrets)
    return bundle


class _Loader:
    def __init__(self, context: Context) -> None:
        self.context = context
        self.manifests = context.manifests
        self.maker = AgentMaker(context)
        self.team_documents: dict[str, Manifest[Any]] = {}
        self.teams: dict[str, Team | None] = {}
        self.agents: dict[str, Agent] = {}
        self.inline: dict[str, Agent] = {}
        self.registries: dict[str, Registry] = {}
        self.budgets: dict[str, Budget] = {}

    def bundle(self, path: Path) -> Bundle:
        self._gather_teams()
        self._make_agents()
        self._make_registries()
        context, of, documents = self.context, self.manifests.of, self.team_documents.values()
        self.budgets = {n: budget_of(m, documents, context) for n, m in of("ArkBudget").items()}
        for name in topological_order(self._nesting()):
            self._team(name)
        for manifest in of("ArkService").values():
            message = f'ArkService "{manifest.name}" is left out: on one machine nothing needs it'
            context.findings.warn(manifest.place, message)
        teams = {name: team for name in self.team_documents if (team := self.teams[name])}
        return Bundle(
            path=path,
            files=tuple(self.manifests.files),
            teams=teams,
            agents=self.agents,
            memories={n: self.maker.memory(m) for n, m in of("ArkMemory").items()},
            notifies={n: notify_of(m, context) for n, m in of("ArkNotify").items()},
            events={n: event_of(m, teams, context) for n, m in of("ArkEvent").items()},
            budgets=self.budgets,
            registries=self.registries,
            runs={n: run_of(m, teams, context) for n, m in of("ArkRun").items()},
            manifests=self.manifests,
        )

    def _gather_teams(self) -> None:
        """Teams and flows share their names: either can be picked, started, or made a role."""
        both = [*self.manifests.of("ArkTeam").values(), *self.manifests.of("ArkFlow").values()]
        for manifest in sorted(both, key=self._position):
            if manifest.name in self.team_documents:
                message = f'there are a team and a flow called "{manifest.name}"'
                self.context.findings.add(manifest.name_place, message)
            self.team_documents.setdefault(manifest.name, manifest)

    def _position(self, manifest: Manifest[Any]) -> tuple[int, int]:
        document = manifest.place.document
        mark = manifest.place.problem("").line or 0
        files = self.manifests.files
        return files.index(document.path) if document.path in files else 0, mark

    def _make_agents(self) -> None:
        for name, manifest in self.manifests.of("ArkAgent").items():
            self.agents[name] = self.maker.make(
                name, manifest.spec, manifest.place, manifest.folder
            )
        for manifest in self.manifests.of("ArkTeam").values():
            for number, role in enumerate(manifest.spec.roles):
                if role.arkAgent is None and role.arkTeam is None:
                    name = role_agent_name(manifest.name, role.name)
                    place = manifest.place.at("roles", number)
                    made = self.maker.make(name, role, place, manifest.folder)
                    self.inline.setdefault(name, made)
                    if name in self.agents:
                        message = f'the role\'s agent is called "{name}", as an ArkAgent is'
                        self.context.findings.add(place.at("name"), message)

    def _make_registries(self) -> None:
        everybody = tuple((self.agents | self.inline).values())
        for name, manifest in self.manifests.of("ArkRegistry").items():
            self.registries[name] = Registry(
                name=name, agents=everybody, max_depth=manifest.spec.policy.maxDepth
            )

    # --- teams within teams ---------------------------------------------------------------------

    def _nesting(self) -> dict[str, list[str]]:
        """Of each team, those that are roles of it, without what would make a cycle."""
        graph = {
            name: [role.arkTeam for role in manifest.spec.roles if role.arkTeam is not None]
            if isinstance(manifest.spec, TeamSpec)
            else []
            for name, manifest in self.team_documents.items()
        }
        while (edge := find_cycle(graph)) is not None:
            manifest = self.team_documents[edge[0]]
            number = next(
                n for n, role in enumerate(manifest.spec.roles) if role.arkTeam == edge[1]
            )
            place = manifest.place.at("roles", number, "arkTeam")
            self.context.findings.add(place, cycle_text("team", edge))
            self.teams[edge[1]] = None
            graph[edge[0]] = [name for name in graph[edge[0]] if name != edge[1]]
        return graph

    def _team(self, name: str) -> Team | None:
        """The team, made once, its roles' teams before it; `None`: there is none, or it is part
        of itself."""
        if name not in self.teams and name in self.team_documents:
            manifest = self.team_documents[name]
            agents = self.agents | self.inline
            budgets = [each for each in self.budgets.values() if _applies(each, name)]
            maker = TeamMaker(
                self.context, manifest, agents, self.registries, self._team, budgets=budgets
            )
            self.teams[name] = maker.make()
        return self.teams.get(name)


def _applies(budget: Budget, team: str) -> bool:
    return budget.teams is None or team in budget.teams
