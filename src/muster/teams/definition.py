"""The normal form of agents and teams, whatever kind of manifest they were written in.

Everything is checked and resolved: references are filled in, templates compiled, schemas valid,
names known. The engine reads nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from muster.config.document import Place
from muster.memory.definition import Memory
from muster.teams.template import Template
from muster.tools.definitions import McpServer, PythonTool, ToolSource, WebhookTool

__all__ = (
    "Agent",
    "AgentLimits",
    "Approval",
    "Artifact",
    "Budget",
    "Capability",
    "Event",
    "EventTarget",
    "ForEach",
    "InputField",
    "Lookup",
    "Loop",
    "McpServer",
    "Memory",
    "Notice",
    "Notify",
    "NotifyChannel",
    "PythonTool",
    "Registry",
    "Role",
    "Routing",
    "RunRequest",
    "Signature",
    "Step",
    "StepRetry",
    "Team",
    "ToolSource",
    "Validation",
    "WebhookTool",
)

_EMPTY: Mapping[str, Any] = MappingProxyType({})


# --- what agents are made of --------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLimits:
    """Bounds on one agent; `None` is no bound."""

    max_tokens_per_call: int | None = 8000
    max_turns: int | None = 50
    timeout_seconds: float | None = 120.0
    """Of one task."""
    max_concurrent_tasks: int = 5
    max_daily_tokens: int | None = None
    """Rolling 24 hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """What an agent says it can do; the registry finds it by `id` and `tags`."""

    id: str
    description: str = ""
    tags: tuple[str, ...] = ()
    input_schema: Mapping[str, Any] | None = None
    output_schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A provider with a system prompt, tools and limits."""

    name: str
    model: str | None = None
    provider: str | None = None
    """A provider's registered name; `None`: by `--provider`, `AGENT_PROVIDER`, or the model."""
    target: str | None = None
    """A target of `targets.yaml` that answers for it; then `model` and `provider` are not asked."""
    system_prompt: str = ""
    """With the fragments of its settings; without guidance of tools and the envelope's rule."""
    tools: tuple[ToolSource, ...] = ()
    builtin_tools: tuple[str, ...] = ()
    limits: AgentLimits = AgentLimits()
    temperature: float | None = None
    output_format: str | None = None
    memory: Memory | None = None
    capabilities: tuple[Capability, ...] = ()
    notify: str | None = None
    env: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    """Variables for its provider, over the process's own (`envFrom`); secrets are `Secret`s."""
    place: Place | None = field(default=None, repr=False, compare=False)


# --- what teams are made of ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A member of a team: an agent, or a whole team as one."""

    name: str
    agent: Agent | None = None
    team: Team | None = None
    can_delegate: tuple[str, ...] = ()
    """Roles that it may hand tasks to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """Run the step again while `condition` holds, up to `max_iterations` further times."""

    condition: Template
    max_iterations: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What a step's answer must be like; every check that is given must hold."""

    reject_patterns: tuple[str, ...] = ()
    """Looked at first: a match is a sign of injection."""
    contains: str | None = None
    """A pattern that must be found."""
    schema: Mapping[str, Any] | None = None
    semantic: str | None = None
    """Asked of a judge, which answers pass or fail."""
    judge: str | None = None
    """The role or target that is asked; `None`: the step's own agent."""
    suite: Path | None = None
    """A suite whose graders judge the answer."""
    on_failure: Literal["fail", "retry"] = "fail"
    max_retries: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRetry:
    """Further attempts after a failure that a retry can help. Delays in seconds."""

    max_retries: int = 0
    initial_delay: float = 1.0
    max_delay: float = 30.0
    backoff_factor: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ForEach:
    """Run the step once for each item of a list; its output is the list of the outputs."""

    items: Template
    """Renders to a JSON list, or is the path of one: `{{ .steps.plan.data.topics }}`."""
    variable: str = "item"
    """`{{ .item }}` and `{{ .index }}` in the step's inputs."""
    max_parallel: int = 10
    on_failure: Literal["fail", "continue"] = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A person must agree before the step counts as done; the step calls nobody."""

    message: Template
    timeout_seconds: float | None = None
    on_timeout: Literal["reject", "approve"] = "reject"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """Choose the agent when the step starts, by what it can do."""

    capability: str
    tags: tuple[str, ...] = ()
    strategy: Literal["round-robin", "least-busy", "random", "lexical"] = "round-robin"
    fallback: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file that the step leaves in `$AGENT_ARTIFACT_DIR`."""

    name: str
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A node of the graph. Its name is its role's, unless the manifest gives it one."""

    name: str
    role: str | None = None
    """`None`: an approval, or chosen by `lookup`."""
    inputs: Mapping[str, Template] = field(default_factory=lambda: _EMPTY)
    """In the order of the file."""
    depends_on: tuple[str, ...] = ()
    condition: Template | None = None
    loop: Loop | None = None
    for_each: ForEach | None = None
    approval: Approval | None = None
    lookup: Lookup | None = None
    output_schema: Mapping[str, Any] | None = None
    validation: Validation | None = None
    retry: StepRetry = StepRetry()
    timeout_seconds: float | None = None
    max_tokens: int | None = None
    """Budget of tokens for the step, all its calls together."""
    max_cost_usd: float | None = None
    artifacts: tuple[Artifact, ...] = ()
    place: Place | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputField:
    """An input that the team declares."""

    name: str
    type: Literal["string", "number", "integer", "boolean", "array", "object"] = "string"
    description: str = ""
    required: bool = False
    default: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """The agents that can be looked up by capability."""

    name: str
    agents: tuple[Agent, ...] = ()
    max_depth: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """One call chooses the agent for the whole task."""

    registry: Registry
    strategy: Literal["llm", "lexical"] = "llm"
    model: str | None = None
    target: str | None = None
    fallback: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """Agents wired by a pipeline, by delegation, or by routing."""

    name: str
    mode: Literal["pipeline", "dynamic", "mixed", "routed"]
    roles: Mapping[str, Role] = field(default_factory=lambda: _EMPTY)
    steps: tuple[Step, ...] = ()
    """In the order of the file; the graph has no cycles."""
    entry: str | None = None
    inputs: tuple[InputField, ...] = ()
    """Declared ones; when there are none, any input is taken."""
    defaults: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    """`spec.input`: values where the run gives none."""
    output: Template | None = None
    """`None`: the output of the last step (or of the entry role)."""
    timeout_seconds: float | None = None
    max_tokens: int | None = None
    max_cost_usd: float | None = None
    max_daily_tokens: int | None = None
    budgets: tuple[Budget, ...] = ()
    """Those of days, weeks and months that it has to keep to."""
    max_depth: int = 5
    """Of delegation."""
    routing: Routing | None = None
    registry: Registry | None = None
    """Where steps look agents up."""
    artifact_store: Mapping[str, Any] | None = None
    notify: str | None = None
    keep_succeeded: int | None = None
    keep_failed: int | None = None
    is_flow: bool = False
    """Written as an ArkFlow."""
    labels: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    path: Path | None = None
    definition_hash: str = field(default="", repr=False, compare=False)
    """SHA-256 of the manifests that were loaded together, as they were then."""
    place: Place | None = field(default=None, repr=False, compare=False)


# --- what stands around teams -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """An ArkRun as it is written: a team, and its inputs."""

    name: str
    team: str
    inputs: Mapping[str, Any] = field(default_factory=lambda: _EMPTY)
    timeout_seconds: float | None = None
    max_tokens: int | None = None
    place: Place | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventTarget:
    """A team that an event starts."""

    team: str
    inputs: Mapping[str, Template] = field(default_factory=lambda: _EMPTY)
    """They see `.trigger`: `name`, `firedAt`, `body`, `output`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """How the sender of a webhook signs its body."""

    scheme: Literal["github", "stripe"]
    key: str
    tolerance_seconds: float = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What sets off which teams."""

    name: str
    source: Literal["cron", "webhook", "team-output"]
    cron: str | None = None
    """As written, and checked."""
    watched_team: str | None = None
    on_phase: Literal["Succeeded", "Failed", "*"] = "Succeeded"
    token: str | None = None
    """Of a webhook; `None`: made up when the event is first served."""
    signature: Signature | None = None
    query_token: bool = False
    """The token may also be given as `?token=`."""
    idempotency_header: str = "Idempotency-Key"
    targets: tuple[EventTarget, ...] = ()
    concurrency: Literal["Allow", "Forbid", "Replace"] = "Allow"
    missed_runs: Literal["once", "skip", "all"] = "once"
    deadline_seconds: float = 86_400.0
    """What was missed longer ago is not made up for."""
    suspended: bool = False
    place: Place | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyChannel:
    """One way out."""

    type: Literal["slack", "webhook"]
    url: str
    headers: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    allow_hosts: tuple[str, ...] = ()
    """Hosts that may be reached though they are not public."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What is told about; `template` is `None` for the usual text."""

    type: str
    template: Template | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify:
    """Who is told what. Counts are by team and by what is told about."""

    name: str
    channels: tuple[NotifyChannel, ...]
    notices: tuple[Notice, ...]
    window_seconds: float = 300.0
    """0 is no limit."""
    max_per_window: int = 1
    place: Place | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Money that may be spent in a period."""

    name: str
    limit_usd: float
    period: Literal["daily", "weekly", "monthly"] = "monthly"
    teams: frozenset[str] | None = None
    """Whose spending counts; `None`: everybody's."""
    warn_at: float = 0.8
    """Share of the limit."""
    place: Place | None = field(default=None, repr=False, compare=False)
