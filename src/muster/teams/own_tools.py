"""The tools that a team gives its agents, by the names that the model knows."""

from __future__ import annotations

from muster.teams.definition import Role
from muster.tools.definitions import McpServer, name_of

__all__ = ("DELEGATE", "SUBMIT_SUBTASK", "tools_twice")

DELEGATE = "delegate"
"""Hands a task to another role, and gives its result."""

SUBMIT_SUBTASK = "submit_subtask"
"""Puts a task into the queue, and gives its id."""


def tools_twice(role: Role) -> list[str]:
    """The names of the agent's own tools that are those of the team's tools for this role."""
    agent = role.agent
    if agent is None:
        return []
    given = {SUBMIT_SUBTASK} & set(agent.builtin_tools)
    if role.can_delegate:
        given.add(DELEGATE)
    own = (name_of(each) for each in agent.tools if not isinstance(each, McpServer))
    return [name for name in own if name in given]
