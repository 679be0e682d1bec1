"""What the journal holds, as plain records: runs, steps, calls, events, approvals."""

from __future__ import annotations

import secrets
import string
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from msgspec import Struct, field

from muster.provider import TokenUsage

__all__ = (
    "APPROVED",
    "CANCELLED",
    "CHUNK",
    "ENDED",
    "FAILED",
    "INTERRUPTED",
    "NO_DATA",
    "PENDING",
    "REJECTED",
    "RUNNING",
    "RUN_STATUSES",
    "SKIPPED",
    "SUCCEEDED",
    "UNKNOWN",
    "WAITING",
    "ApprovalRecord",
    "CallRecord",
    "EventRecord",
    "RunRecord",
    "RunTotals",
    "RunView",
    "StepRecord",
    "new_run_id",
    "now",
    "plain",
    "timestamp",
)

PENDING = "pending"
RUNNING = "running"
SUCCEEDED = "succeeded"
FAILED = "failed"
CANCELLED = "cancelled"
INTERRUPTED = "interrupted"
SKIPPED = "skipped"
WAITING = "waiting"
APPROVED = "approved"
REJECTED = "rejected"
UNKNOWN = "unknown"
"""Of a call: its process ended before it was known what came of it."""

CHUNK = "chunk"
"""The kind of event that says where a piece of streamed text ended."""

RUN_STATUSES = (PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED, INTERRUPTED)
ENDED = frozenset({SUCCEEDED, FAILED, CANCELLED, INTERRUPTED})
"""Of a run: nothing works on it any more. An interrupted one may go on with `--resume`."""


class _NoData:
    """`NO_DATA`: there is no JSON, which is not JSON's `null`."""

    def __repr__(self) -> str:
        return "NO_DATA"


NO_DATA: Any = _NoData()
"""In `StepRecord.data`: the answer held no JSON. (`None` is JSON's `null`.)"""

_ALPHABET = string.ascii_lowercase + string.digits


def new_run_id(team: str) -> str:
    """`<team>-<6 random letters and digits>`."""
    return f"{team}-{''.join(secrets.choice(_ALPHABET) for _ in range(6))}"


def timestamp(moment: datetime) -> str:
    """UTC in ISO form, to the millisecond: `2026-05-04T10:20:30.123Z`. Such texts sort by time."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def now() -> str:
    """The time as `timestamp` writes it."""
    seconds, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
    return f"{_to_the_second(seconds)}.{milliseconds:03}Z"


@lru_cache(maxsize=2)  # most rows are written within one second
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:-6]


class RunRecord(Struct, frozen=True, kw_only=True):
    """One execution of a team."""

    id: str
    """`new_run_id(team)`."""
    team: str
    file: str = ""
    definition_hash: str = ""
    input: Any = field(default_factory=dict)
    """JSON."""
    options: Any = field(default_factory=dict)
    """JSON: what it was started with, for `--resume`."""
    status: str = RUNNING
    """`pending`, `running`, `succeeded`, `failed`, `cancelled` or `interrupted`."""
    reason: str | None = None
    """`Succeeded`, `StepFailed`, `TimedOut`, `BudgetExceeded`, `Cancelled`, …"""
    error: str | None = None
    output: str | None = None
    started_at: str = field(default_factory=now)
    ended_at: str | None = None
    token_usage: TokenUsage | None = None
    """Of the whole run, once it has ended; before that, see `Journal.totals`."""
    cost_usd: float | None = None
    parent: str | None = None
    """The run in which this one is a role."""
    trigger: str | None = None
    """What started it, when no person did: `cron`, `webhook:orders`, …"""
    pid: int | None = None
    process: str | None = None
    """Which process `pid` was, beyond its number; the journal fills it in."""
    shares_process: bool = False
    """Its process does other work too, as a server does: to cancel the run, it is asked through
    the journal (`wait_for_cancel`) and gets no signal."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data; what is unset is left out."""
        return plain(self, without=("process", "shares_process"))


class StepRecord(Struct, frozen=True, kw_only=True):
    """One attempt at one step: a row for each step, iteration, item and attempt.

    Usage and cost are this attempt's own, so that sums over rows count nothing twice.
    """

    run_id: str
    name: str
    agent: str | None = None
    iteration: int = 0
    item: int | None = None
    attempt: int = 0
    status: str = RUNNING
    """`running`, `waiting`, `succeeded`, `failed` or `skipped`."""
    prompt: str | None = None
    prompt_hash: str | None = None
    """SHA-256 of the prompt before secrets are masked; the journal fills it in."""
    output: str | None = None
    data: Any = NO_DATA
    """JSON; `NO_DATA` when the answer held none."""
    error: str | None = None
    error_kind: str | None = None
    message: str | None = None
    """What a person should know: why it was skipped, who approved."""
    started_at: str = field(default_factory=now)
    ended_at: str | None = None
    token_usage: TokenUsage | None = None
    cost_usd: float | None = None
    model: str | None = None
    target: str | None = None
    parent: int | None = None
    """The row in which another agent delegated this."""
    id: int = 0
    """The row; the journal gives it."""

    @property
    def answered(self) -> bool:
        """Somebody was asked, and answered."""
        return self.status == SUCCEEDED and self.target is not None

    @property
    def without_usage(self) -> bool:
        """Somebody answered, and did not tell what it took."""
        return self.answered and self.token_usage is None

    def to_dict(self) -> dict[str, Any]:
        """Plain data; what is unset is left out."""
        return plain(self, without=("run_id",))


class CallRecord(Struct, frozen=True, kw_only=True):
    """A tool call or a delegation."""

    kind: str
    """`tool` or `delegate`."""
    name: str
    arguments: Any = field(default_factory=dict)
    result: str | None = None
    status: str = RUNNING
    """`running`, then `ok`, `error`, `timeout`, `cancelled` or `unknown`."""
    arguments_hash: str | None = None
    """SHA-256 of the arguments before secrets are masked; the journal fills it in."""
    started_at: str = field(default_factory=now)
    duration_ms: float | None = None
    step_id: int = 0
    """The step's row; the journal gives it."""
    id: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data; what is unset is left out."""
        return plain(self, without=("arguments_hash",))


class EventRecord(Struct, frozen=True, kw_only=True):
    """Something that happened: a routing decision, a verdict, a warning, a boundary of chunks."""

    run_id: str
    kind: str
    data: Any = field(default_factory=dict)
    at: str = field(default_factory=now)
    step_id: int | None = None
    id: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain data; what is unset is left out."""
        return plain(self, without=("run_id",))


class ApprovalRecord(Struct, frozen=True, kw_only=True):
    """A question to a person, and the answer."""

    run_id: str
    step: str
    item: int | None = None
    message: str = ""
    status: str = WAITING
    """`waiting`, `approved` or `rejected`."""
    asked_at: str = field(default_factory=now)
    deadline: str | None = None
    decided_at: str | None = None
    by: str | None = None
    comment: str | None = None

    @property
    def approved(self) -> bool:
        """Whether somebody has agreed."""
        return self.status == APPROVED

    def to_dict(self) -> dict[str, Any]:
        """Plain data; what is unset is left out."""
        return plain(self, without=("run_id",))


class RunTotals(Struct, frozen=True, kw_only=True):
    """Sums over the steps of a run."""

    steps: int = 0
    """Different steps that have begun."""
    token_usage: TokenUsage | None = None
    cost_usd: float | None = None
    without_usage: int = 0
    """Answers that did not tell what they took, and are not in the sum of tokens."""
    without_cost: int = 0
    """Answers whose cost is not known, and not in the sum of money."""

    def left_out(self) -> dict[str, int]:
        """For JSON: how many answers are not in the sums; empty if all are."""
        counts = {
            "calls_without_usage": self.without_usage,
            "calls_without_cost": self.without_cost,
        }
        return {name: count for name, count in counts.items() if count}


class RunView(Struct, frozen=True, kw_only=True):
    """All that the journal knows of a run, as of one moment."""

    run: RunRecord
    totals: RunTotals
    steps: tuple[StepRecord, ...]
    calls: tuple[CallRecord, ...]
    events: tuple[EventRecord, ...]
    approvals: tuple[ApprovalRecord, ...]

    @property
    def token_usage(self) -> TokenUsage | None:
        """The run's own count; while it goes on, that of its steps."""
        return self.run.token_usage or self.totals.token_usage

    @property
    def cost_usd(self) -> float | None:
        """As `token_usage`."""
        return self.totals.cost_usd if self.run.cost_usd is None else self.run.cost_usd


def plain(record: Any, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """A record as a mapping for JSON; what is unset is left out."""
    row: dict[str, Any] = {}
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if name in without or value is NO_DATA or (value is None and name != "data"):
            continue
        row[name] = value.to_dict() if isinstance(value, TokenUsage) else value
    return row
