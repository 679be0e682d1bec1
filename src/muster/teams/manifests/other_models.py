"""The fields of what stands around agents and teams: settings, memory, money, runs."""

# ruff: noqa: N815, RUF012 - the names are those of the files; pydantic copies defaults

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from muster.teams.manifests.fields import (
    Count,
    NameRef,
    Positive,
    SecretRef,
    Spec,
    Text,
    Whole,
)

__all__ = (
    "BudgetSpec",
    "MemorySpec",
    "RegistrySpec",
    "RunSpec",
    "ServiceSpec",
    "SettingsSpec",
)


# --- settings and memory ------------------------------------------------------------------------

_TEMPERATURE = re.compile(r"(0(\.[0-9]+)?|1(\.0+)?)\Z")


def _temperature(value: str | int | float) -> str | int | float:
    if not _TEMPERATURE.match(str(value)):
        raise ValueError(f'expected a temperature from 0 to 1, such as "0.7", found "{value}"')
    return value


class PromptFragments(Spec):
    """The oldest form of `fragments`."""

    persona: str | None = None
    """Stands before the system prompt."""
    outputRules: str | None = None
    """Stands after it."""


class Fragment(Spec):
    """A piece of system prompt."""

    name: Text
    """For people."""
    position: Literal["prepend", "append"] = "prepend"
    """Before or after the agent's own prompt."""
    text: Text
    """The piece."""


class SettingsSpec(Spec):
    """What several agents share."""

    temperature: Annotated[str | int | float, AfterValidator(_temperature)] | None = None
    """From 0 to 1, as text or number."""
    outputFormat: Text | None = None
    """`structured-json`, `markdown`, `plain`."""
    memoryBackend: Literal["in-context", "vector-store", "redis", "sqlite"] = "in-context"
    """Read; an agent's memory is what its `memoryRef` names."""
    promptFragments: PromptFragments | None = None
    """The oldest form of `fragments`."""
    fragments: list[Fragment] = []
    """Pieces of system prompt, in order."""
    security: dict[str, Any] | None = None
    """Read, for a cluster."""


class RedisMemory(Spec):
    """Entries in Redis."""

    secretRef: SecretRef | None = None
    """The Secret with the URL, under `REDIS_URL`."""
    url: Text | None = None
    """The URL itself."""
    ttlSeconds: Whole = 3600
    """How long an entry lives; 0 is for ever."""
    maxEntries: Whole = 0
    """The oldest goes when there are more; 0 is no limit."""


class VectorMemory(Spec):
    """Entries found by likeness."""

    provider: Text
    """`qdrant`, `pinecone`, `weaviate`, `sqlite`, or a registered name."""
    endpoint: Text | None = None
    """Where it listens; not for `sqlite`."""
    collection: Text = "agent-memories"
    """The collection's name."""
    secretRef: SecretRef | None = None
    """The Secret with the key, under `VECTOR_STORE_API_KEY`."""
    ttlSeconds: Whole | None = None
    """How long an entry lives; 0 is for ever."""
    path: Text | None = None
    """The file of `sqlite`, relative to the manifest."""
    embed: Text | None = None
    """What makes vectors of texts: a target with embeddings by its name, or a function,
    `package.module:function`; a run needs it."""


class SqliteMemory(Spec):
    """Entries in a file on this machine."""

    path: Text | None = None
    """The file, relative to the manifest (default: in the project's `.muster`)."""
    ttlSeconds: Whole = 0
    """How long an entry lives; 0 is for ever."""
    maxEntries: Whole = 0
    """The oldest goes when there are more; 0 is no limit."""


class MemorySpec(Spec):
    """What an agent remembers between tasks."""

    backend: Literal["in-context", "sqlite", "redis", "vector-store"]
    """Where it is kept."""
    redis: RedisMemory | None = None
    """For `redis`."""
    vectorStore: VectorMemory | None = None
    """For `vector-store`."""
    sqlite: SqliteMemory | None = None
    """For `sqlite`."""

    @model_validator(mode="after")
    def _complete(self) -> MemorySpec:
        if self.backend == "redis":
            if self.redis is None:
                raise ValueError('spec.redis is required when backend is "redis"')
            if self.redis.secretRef is None and self.redis.url is None:
                raise ValueError("spec.redis.secretRef.name is required")
        if self.backend == "vector-store":
            if self.vectorStore is None:
                raise ValueError('spec.vectorStore is required when backend is "vector-store"')
            if self.vectorStore.endpoint is None and self.vectorStore.provider != "sqlite":
                raise ValueError("spec.vectorStore.endpoint is required")
        return self


# --- registries, money, runs, services ----------------------------------------------------------


class RegistryPolicy(Spec):
    """What is allowed to those who look agents up."""

    maxDepth: Count = 5
    """How often a task may be handed on."""
    allowCrossTeam: bool = False
    """Read, for a cluster."""


class RegistrySpec(Spec):
    """The agents that can be looked up by what they can do."""

    scope: Literal["namespace-scoped", "cluster-scoped"] = "namespace-scoped"
    """Read, for a cluster."""
    policy: RegistryPolicy = Field(default_factory=RegistryPolicy)
    """What is allowed."""


class BudgetSelector(Spec):
    """Whose spending counts; nothing given: everybody's."""

    team: Text | None = None
    """The team."""
    namespace: Text | None = None
    """The namespace, in a cluster."""
    matchLabels: dict[str, str] = {}
    """Labels of the teams."""


class BudgetSpec(Spec):
    """Money that may be spent in a period."""

    selector: BudgetSelector = Field(default_factory=BudgetSelector)
    """Whose spending counts."""
    period: Literal["daily", "weekly", "monthly"] = "monthly"
    """When it begins anew."""
    limit: Annotated[
        Annotated[Positive, Tag("number")]
        | Annotated[Annotated[str, Field(pattern=r"^\d+(\.\d+)?$")], Tag("text")],
        Discriminator(lambda value: "text" if isinstance(value, str) else "number"),
    ]
    """How much, as a number or as text."""
    currency: Literal["USD"] = "USD"
    """Only USD."""
    warnAtPercent: Annotated[int, Field(ge=1, le=100)] = 80
    """From when on there are warnings."""


class RunSpec(Spec):
    """A run of a team; what a cluster copied into it of the team is read and not used."""

    teamRef: NameRef
    """The team."""
    input: dict[str, Any] = {}
    """Its inputs."""
    teamGeneration: int | None = None
    """Read, not used."""
    pipeline: Any = None
    """Read, not used."""
    roles: Any = None
    """Read, not used."""
    limits: Any = None
    """Read, not used."""
    inputs: Any = None
    """Read, not used."""
    output: str | None = None
    """Read, not used."""
    timeoutSeconds: Positive | None = None
    """Bound on it; the team's own counts too."""
    maxTokens: Count | None = None
    """Tokens that it may use; the team's own bound counts too."""


class ServiceSelector(Spec):
    """Whose service it is."""

    arkAgent: Text
    """The agent."""


class ServiceRouting(Spec):
    """How requests are spread."""

    strategy: Literal["round-robin", "least-busy", "random", "weighted"] = "round-robin"
    """Read, not used."""


class ServicePort(Spec):
    """A port."""

    protocol: Literal["A2A", "HTTP"]
    """What is spoken there."""
    port: Annotated[int, Field(ge=1, le=65535)]
    """Its number."""


class ServiceSpec(Spec):
    """An address for an agent in a cluster; read, checked, and left out with a warning."""

    selector: ServiceSelector
    """Whose service it is."""
    routing: ServiceRouting = Field(default_factory=ServiceRouting)
    """How requests are spread."""
    ports: list[ServicePort] = []
    """The ports."""
