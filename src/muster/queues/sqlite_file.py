"""The file of an SQLite queue: its schema, its statements, its rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from muster.provider import TokenUsage
from muster.queues.base import Task, TaskResult, TaskState
from muster.store.database import Database

# `due_at`: when a waiting task may be taken; when the lease of a running one ends; null at the end.
_FIRST = """
CREATE TABLE tasks (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  prompt TEXT NOT NULL, meta TEXT NOT NULL,
  status TEXT NOT NULL,
  attempts INTEGER NOT NULL, max_attempts INTEGER NOT NULL,
  submitted_at REAL NOT NULL, due_at REAL,
  lease TEXT, worker TEXT,
  output TEXT, error TEXT, token_usage TEXT, cost_usd REAL,
  ended_at REAL, ended_number INTEGER
);
CREATE INDEX tasks_due ON tasks (due_at, number) WHERE due_at IS NOT NULL;
CREATE INDEX tasks_ended ON tasks (ended_number) WHERE ended_number IS NOT NULL;
CREATE INDEX tasks_by_status ON tasks (status, ended_at);
CREATE TABLE totals (open INTEGER NOT NULL, ends INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0);
CREATE TRIGGER task_in AFTER INSERT ON tasks BEGIN UPDATE totals SET open = open + 1; END;
CREATE TRIGGER task_ends AFTER UPDATE OF status ON tasks WHEN new.due_at IS NULL AND old.due_at IS NOT NULL BEGIN UPDATE totals SET open = open - 1, ends = ends + 1; UPDATE tasks SET ended_number = (SELECT ends FROM totals) WHERE number = new.number; END;
CREATE TRIGGER task_again AFTER UPDATE OF status ON tasks WHEN new.due_at IS NOT NULL AND old.due_at IS NULL BEGIN UPDATE totals SET open = open + 1; END;
"""  # noqa: E501 - a line that ends in a semicolon ends a statement

SUBMIT = """
INSERT INTO tasks (id, prompt, meta, status, attempts, max_attempts, submitted_at, due_at)
SELECT ?, ?, ?, 'waiting', 0, ?, ?, ? WHERE (SELECT open FROM totals) < ?
ON CONFLICT (id) DO NOTHING
"""
FIRST_DUE = """
SELECT due_at, attempts, max_attempts FROM tasks WHERE due_at IS NOT NULL
ORDER BY due_at, number LIMIT 1
"""
TAKE = """
UPDATE tasks SET status = 'running', lease = ?, worker = ?, attempts = attempts + 1, due_at = ?
WHERE number = (SELECT number FROM tasks WHERE due_at <= ? AND attempts < max_attempts
                ORDER BY due_at, number LIMIT 1)
RETURNING id, prompt, lease, attempts - 1, max_attempts, meta, submitted_at, token_usage, cost_usd
"""
BURY = """
UPDATE tasks SET status = 'dead', lease = NULL, due_at = NULL, error = ?, ended_at = ?
WHERE number = (SELECT number FROM tasks WHERE due_at <= ? ORDER BY due_at, number LIMIT 1)
  AND attempts = ? AND attempts >= max_attempts
RETURNING id
"""
END = """
UPDATE tasks SET status = ?, lease = NULL, due_at = NULL, output = ?, error = ?,
  token_usage = ?, cost_usd = ?, ended_at = ?
WHERE id = ? AND lease = ?
"""
AGAIN = """
UPDATE tasks SET status = 'waiting', lease = NULL, due_at = ?, error = ?,
  token_usage = ?, cost_usd = ?
WHERE id = ? AND lease = ?
"""
RELEASE = """
UPDATE tasks SET status = 'waiting', lease = NULL, due_at = ?, attempts = attempts - 1
WHERE id = ? AND lease = ?
"""
EXTEND = "UPDATE tasks SET due_at = ? WHERE id = ? AND lease = ?"
CANCEL = """
UPDATE tasks SET status = 'cancelled', lease = NULL, due_at = NULL, error = ?, ended_at = ?
WHERE id = ? AND due_at IS NOT NULL
"""
REQUEUE = """
UPDATE tasks SET status = 'waiting', attempts = 0, due_at = ?, ended_at = NULL, ended_number = NULL
WHERE id = ? AND status = 'dead'
"""
FORGET = "DELETE FROM tasks WHERE status IN ('done', 'cancelled') AND ended_at < ?"
STATE = """
SELECT id, prompt, status, meta, attempts, max_attempts, submitted_at, due_at, worker,
  output, error, token_usage, cost_usd, ended_at FROM tasks
"""
RESULT = """
SELECT status, output, error, attempts, token_usage, cost_usd, ended_at FROM tasks WHERE id = ?
"""


class QueueFile(Database):
    """The file, which nobody else can read."""

    migrations: ClassVar[tuple[str, ...]] = (_FIRST,)
    application_id: ClassVar[int] = 0x4D737471  # "Mstq"
    holds: ClassVar[str] = "queue of tasks"


def clean_text(text: str) -> str:
    """`text` as it can be kept: half a surrogate pair, which some models write, cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def usage_text(usage: TokenUsage | None) -> str | None:
    """As it is kept."""
    return None if usage is None else json.dumps(usage.to_dict())


def _usage(text: str | None) -> TokenUsage | None:
    return None if text is None else TokenUsage.from_mapping(json.loads(text))


def task_of(row: Sequence[Any]) -> Task:
    """What `TAKE` returns."""
    id, prompt, lease, attempt, max_attempts, meta, submitted_at, usage, cost = row
    return Task(
        id=id,
        prompt=prompt,
        lease=lease,
        attempt=attempt,
        max_attempts=max_attempts,
        meta=json.loads(meta) if meta else {},
        submitted_at=submitted_at,
        token_usage=_usage(usage),
        cost_usd=cost,
    )


def result_of(id: str, row: Sequence[Any]) -> TaskResult:
    """What `RESULT` returns, of a task that has ended."""
    status, output, error, attempts, usage, cost, ended_at = row
    return TaskResult(
        id=id,
        status=status,
        output=output,
        error=error,
        attempts=attempts,
        token_usage=_usage(usage),
        cost_usd=cost,
        ended_at=ended_at,
    )


def state_of(row: Sequence[Any]) -> TaskState:
    """What `STATE` returns."""
    id, prompt, status, meta, attempts, max_attempts, submitted_at, due_at, worker, *end = row
    output, error, usage, cost, ended_at = end
    ended = ended_at is not None
    return TaskState(
        id=id,
        prompt=prompt,
        status=status,
        meta=json.loads(meta) if meta else {},
        attempts=attempts,
        max_attempts=max_attempts,
        submitted_at=submitted_at,
        due_at=due_at,
        worker=worker,
        error=None if ended else error,
        result=result_of(id, (status, output, error, attempts, usage, cost, ended_at))
        if ended
        else None,
    )
