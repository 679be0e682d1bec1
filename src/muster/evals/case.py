"""The normal form of a suite: one `Case` a test, whatever dialect it was written in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from muster.provider import Message

if TYPE_CHECKING:
    from muster.evals.graders.base import BoundGrader

__all__ = ("DEFAULT_THRESHOLD", "Case", "Suite", "Turn")

DEFAULT_THRESHOLD = 0.8

_EMPTY: Mapping[str, Any] = MappingProxyType({})


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of a multi-turn case: what the user says, and what judges the reply."""

    input: tuple[Message, ...]
    expected_output: tuple[Message, ...] = ()
    graders: tuple[BoundGrader, ...] = ()


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One test, ready to run: variables filled in, suite-level parts merged, graders built."""

    id: str
    suite: str
    input: tuple[Message, ...]
    """All messages, oldest first: the suite's, then the test's. System messages may lead."""
    input_files: tuple[Path, ...] = ()
    """Absolute paths; attached to the last user message (file blocks of that message included).
    Images stay in the messages, as `ImagePart`s."""
    expected_output: tuple[Message, ...] = ()
    criteria: str | None = None
    graders: tuple[BoundGrader, ...] = ()
    """The test's own, then the suite's."""
    judge_target: str | None = None
    """The target that judges, where an assertion names none: the test's, else the suite's."""
    judge_prompt: str | None = None
    """The template of what judges are asked, where an assertion has none."""
    threshold: float = DEFAULT_THRESHOLD
    repeat: int = 1
    timeout_seconds: float | None = None
    targets: tuple[str, ...] | None = None
    """The only targets that this case is for; `None`: all of the run's."""
    prompt: str | None = None
    """The label of the prompt it was rendered from, when the suite has several."""
    vars: Mapping[str, Any] = msgspec.field(default_factory=lambda: _EMPTY)
    metadata: Mapping[str, Any] = msgspec.field(default_factory=lambda: _EMPTY)
    tags: tuple[str, ...] = ()
    cluster: str | None = None
    """What it shares with other cases, so that they are not independent: a text, a source."""
    category: str | None = None
    conversation_id: str | None = None
    depends_on: tuple[str, ...] = ()
    on_dependency_failure: str = "skip"
    """`skip`, `fail` or `run`."""
    turns: tuple[Turn, ...] = ()
    """Not empty: a conversation; `input` is what comes before the first turn."""
    aggregation: str = "mean"
    """`mean`, `min` or `max` over the turns' scores and the conversation's."""
    on_turn_failure: str = "continue"
    window_size: int | None = None
    response_schema: Mapping[str, Any] | None = None
    line: int | None = None
    """Where the test stands in its file."""

    @property
    def reference_answer(self) -> str | None:
        """The text of the last expected message; `None` without one."""
        return self.expected_output[-1].text if self.expected_output else None


class Suite(msgspec.Struct, kw_only=True):
    """A file of tests, checked: every case of it can be run."""

    name: str
    path: Path | None
    """The file; `None` for cases made in memory."""
    base_dir: Path
    """Where relative paths of the suite start, and where targets are looked for."""
    cases: Callable[[], Iterator[Case]]
    """A fresh pass over the cases. A suite of 100,000 is not held in memory."""
    count: int
    """Cases in one pass, prompt variants counted."""
    repeats: int
    """The sum of the cases' `repeat`: results of one pass on one target."""
    content_hash: str
    """SHA-256 over the suite file and every data set it reads."""
    targets: tuple[str, ...] = ()
    """Targets that the suite names; empty: it names none."""
    case_targets: tuple[str, ...] = ()
    """Targets that some case names as its own (`Case.targets`)."""
    has_turns: bool = False
    """Some case is a conversation."""
    description: str | None = None
    category: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = msgspec.field(default_factory=dict)
    threshold: float | None = None
    max_concurrency: int | None = None
    budget_usd: float | None = None
    fail_on_error: bool = False
    skipped: tuple[str, ...] = ()
    """With `--skip-invalid`: one line for each test left out, naming it and why."""
    warnings: tuple[str, ...] = ()
    cache: bool = False
    """Answers that are there already are not asked for again."""
    stop_when: Mapping[str, Any] | None = None
    """When enough is known; see `stopping`."""
    has_clusters: bool = False
    """Some case names a cluster."""
    dependencies: frozenset[str] = frozenset()
    """Ids that some case depends on: the runner must remember how they ended."""
    judges: frozenset[str | None] = frozenset()
    """Targets that graders ask; `None`: the one that the run says."""
    inline_targets: Mapping[str, Mapping[str, Any]] = msgspec.field(default_factory=dict)
    """Targets that the suite itself defines (v5 `providers` entries with a spec), as raw
    `targets.yaml` entries by name."""
