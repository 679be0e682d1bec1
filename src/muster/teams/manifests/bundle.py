"""What a load gives: everything that the manifests define, checked and resolved."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from muster.errors import UsageError, nearest
from muster.teams.definition import (
    Agent,
    Budget,
    Event,
    Memory,
    Notify,
    Registry,
    RunRequest,
    Team,
)
from muster.teams.manifests.reading import Manifests

__all__ = ("Bundle", "UnknownTeam")


class UnknownTeam(UsageError):
    """A team was named that is not there."""


@dataclass(kw_only=True)
class Bundle:
    """Teams, agents and what stands around them, by name, in the order of the files."""

    path: Path
    files: tuple[Path, ...] = ()
    warnings: list[str] = field(default_factory=list)
    teams: dict[str, Team] = field(default_factory=dict)
    """Flows are teams too."""
    agents: dict[str, Agent] = field(default_factory=dict)
    """Those that are documents of their own."""
    memories: dict[str, Memory] = field(default_factory=dict)
    notifies: dict[str, Notify] = field(default_factory=dict)
    events: dict[str, Event] = field(default_factory=dict)
    budgets: dict[str, Budget] = field(default_factory=dict)
    registries: dict[str, Registry] = field(default_factory=dict)
    runs: dict[str, RunRequest] = field(default_factory=dict)
    manifests: Manifests = field(default_factory=Manifests, repr=False)
    """The documents themselves, with what only a cluster uses."""
    secrets: frozenset[str] = frozenset()
    """Values that must be kept out of everything that is written."""

    def pick_run(self) -> RunRequest | None:
        """The ArkRun, if there is one. Of several, the first, with a warning."""
        if len(self.runs) > 1:
            self.warnings.append(
                f"{len(self.runs)} ArkRuns found [{' '.join(self.runs)}] — running "
                f'"{next(iter(self.runs))}" (use --team <name> to run a team without them)'
            )
        return next(iter(self.runs.values()), None)

    def pick_team(self, name: str | None = None) -> Team:
        """The team called `name`; without a name the only one that is no other team's role. Of
        several, the first, with a warning.

        Raises:
            UsageError: there is no such team, or none at all.
        """
        word = "flow" if self.teams and all(t.is_flow for t in self.teams.values()) else "team"
        if name is not None and name in self.teams:
            return self.teams[name]
        if not self.teams:
            told = "".join(f"\n  {warning}" for warning in self.warnings)
            raise UsageError(f"no ArkTeam or ArkFlow found in {self.path}{told}")
        if name is not None:
            near = nearest(name, self.teams)
            hint = f' (did you mean "{near[0]}"?)' if near else ""
            available = " ".join(self.teams)
            raise UnknownTeam(f'{word} "{name}" not found; available: [{available}]{hint}')
        nested = {
            role.team.name
            for team in self.teams.values()
            for role in team.roles.values()
            if role.team is not None
        }
        names = [team for team in self.teams if team not in nested]
        if len(names) > 1:
            self.warnings.append(
                f'{len(names)} {word}s found [{" ".join(names)}] — running "{names[0]}" '
                f"(use --{word} <name> to pick)"
            )
        return self.teams[names[0]]
