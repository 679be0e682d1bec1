"""What was spent, turn by turn: what budgets over days and months count.

It stands beside the runs, for these may be deleted, and what was spent is spent all the same.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from msgspec import Struct

__all__ = ("KEPT_DAYS", "Spending", "path_of", "teams_of")

KEPT_DAYS = 62
"""Nothing counts for longer than a month."""


class Spending(Struct, frozen=True, kw_only=True):
    """What one turn of an agent has used."""

    id: int
    at: str
    agent: str | None
    teams: tuple[str, ...]
    """The team, behind those that it is a role of."""
    asked_by: tuple[str, ...]
    """The teams of the run with the agent that this team answered for. What that agent has used is
    told there, too."""
    tokens: int
    cost_usd: float

    @property
    def moment(self) -> datetime:
        """When it was."""
        return datetime.fromisoformat(self.at)

    def counts_for(self, teams: Collection[str] | None) -> bool:
        """Whether it is a part of what these teams have spent, `None` for all, and not of a turn
        that counts for them by itself."""
        if teams is None:
            return not self.asked_by
        return any(name in teams for name in self.teams) and not any(
            name in teams for name in self.asked_by
        )


def path_of(teams: Collection[str]) -> str:
    """The names as one text."""
    return "\n".join(teams)


def teams_of(path: str) -> tuple[str, ...]:
    """The names in a `path_of`."""
    return tuple(path.split("\n")) if path else ()
