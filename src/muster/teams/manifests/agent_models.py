"""The fields of agents, which roles of teams have too."""

# ruff: noqa: N815, RUF012 - the names are those of the files; pydantic copies defaults

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from muster.teams.manifests.fields import (
    Count,
    EnvFromSource,
    Headers,
    KeyRef,
    NameRef,
    NameRefOrText,
    NotNegative,
    Positive,
    Quantity,
    SchemaText,
    SecretRef,
    Spec,
    Text,
    Whole,
    one_of,
)

__all__ = ("CLUSTER_ONLY", "AgentFields", "AgentSpec", "McpServerSpec", "ToolSpec")


class FileRef(Spec):
    """A file beside the manifest."""

    path: Text
    """Relative to the manifest, inside the project."""


class PromptRef(Spec):
    """Where a system prompt stands: exactly one of them."""

    configMapKeyRef: KeyRef | None = None
    """In a ConfigMap."""
    secretKeyRef: KeyRef | None = None
    """In a Secret."""
    fileRef: FileRef | None = None
    """In a file."""

    @model_validator(mode="after")
    def _one(self) -> PromptRef:
        one_of(self, "configMapKeyRef", "secretKeyRef", "fileRef")
        return self


class McpAuth(Spec):
    """How the client shows who it is."""

    type: Literal["bearer"] = "bearer"
    """Only `bearer`."""
    tokenSecretRef: SecretRef
    """The Secret, and its key (`token` if none is given)."""


class McpServerSpec(Spec):
    """An MCP server, by its URL or by the command that starts it."""

    name: Text
    """Its tools are called `<name>__<tool>`."""
    url: Text | None = None
    """Where it listens; `{{ .input.x }}` is filled in for each run."""
    command: (
        Annotated[
            Annotated[Text, Tag("text")]
            | Annotated[Annotated[list[Text], Field(min_length=1)], Tag("list")],
            Discriminator(lambda value: "list" if isinstance(value, list) else "text"),
        ]
        | None
    ) = None
    """The program that serves on its standard input and output."""
    args: list[str] = []
    """The program's arguments."""
    env: Headers = {}
    """Variables for the program: a map, or a list as in a Pod."""
    cwd: Text | None = None
    """The program's folder, relative to the manifest."""
    transport: Literal["stdio", "streamable-http", "sse", "simple-http"] | None = None
    """Found out if it is not given."""
    headers: Headers = {}
    """Headers of every request: `[{name, value | valueFrom}]`, or a map of texts and
    `{secretKeyRef}`."""
    auth: McpAuth | None = None
    """A bearer token from a Secret."""
    allow: list[Text] | None = None
    """Only these tools, by the server's names for them; `*` stands for anything."""
    timeoutSeconds: Positive = 60
    """Bound on one call."""
    startupTimeoutSeconds: Positive = 30
    """Bound on connecting and listing its tools."""
    maxBytes: Count = 1_000_000
    """Bound on an answer."""
    guidance: str | None = None
    """What the agents should know about it; goes into their system prompts."""
    arkAgentRef: NameRef | None = None
    """An agent served by the gateway of a cluster; left out elsewhere."""
    capabilityRef: dict[str, Any] | None = None
    """A capability served by the gateway of a cluster; left out elsewhere."""

    @model_validator(mode="after")
    def _consistent(self) -> McpServerSpec:
        one_of(self, "url", "command", "arkAgentRef", "capabilityRef")
        wrong = ["args", "env", "cwd"] if self.command is None else ["headers", "auth"]
        if beside := [name for name in wrong if getattr(self, name)]:
            other = "command" if self.command is None else "url"
            raise ValueError(f"{', '.join(beside)} belongs to a server with a {other}")
        if self.transport is not None and (self.transport == "stdio") != (self.command is not None):
            raise ValueError(
                f'transport "{self.transport}" does not go with a '
                f"{'url' if self.command is None else 'command'}"
            )
        return self


class ToolSpec(Spec):
    """A tool: an HTTP endpoint, or a Python function."""

    name: Text
    """What the model calls it."""
    description: str = ""
    """What the model is told about it."""
    url: Text | None = None
    """The endpoint; `{{ .input.x }}` is filled in for each run."""
    method: Literal["GET", "POST", "PUT", "PATCH"] = "POST"
    """With GET, the arguments become query parameters."""
    inputSchema: SchemaText | None = None
    """The arguments' JSON Schema: JSON text, or the schema itself."""
    headers: Headers = {}
    """Headers of every request, in either form."""
    timeoutSeconds: Positive | None = None
    """Bound on one call (default 30; none for a Python function)."""
    maxBytes: Count = 1_000_000
    """Bound on an answer."""
    allowHosts: list[Text] = []
    """Hosts that may be asked though they are on this machine or in a private network."""
    python: Text | None = None
    """A function, `package.module:function`, found beside the manifest too."""

    @model_validator(mode="after")
    def _one(self) -> ToolSpec:
        one_of(self, "url", "python")
        return self


class PythonToolSpec(Spec):
    """A Python function as a tool; its arguments' schema comes from its type hints."""

    path: Text
    """`package.module:function`, found beside the manifest too."""
    name: Text | None = None
    """What the model calls it (default: the function's name)."""
    description: str | None = None
    """What the model is told about it (default: the function's docstring)."""
    timeoutSeconds: Positive | None = None
    """Bound on one call."""
    maxBytes: Count = 1_000_000
    """Bound on an answer."""


_PythonTool: TypeAlias = Annotated[
    Annotated[Text, Tag("text")] | Annotated[PythonToolSpec, Tag("tool")],
    Discriminator(lambda value: "text" if isinstance(value, str) else "tool"),
]


class LimitsSpec(Spec):
    """Bounds on one agent."""

    maxTokensPerCall: Count = 8000
    """Tokens that one call may answer with."""
    maxConcurrentTasks: Count = 5
    """Tasks at the same time."""
    timeoutSeconds: Positive = 120
    """Bound on one task."""
    maxDailyTokens: Whole | None = None
    """Tokens in any 24 hours; 0 is no limit."""
    maxTurns: Count = 50
    """Calls of the model in one task."""


class LivenessProbe(Spec):
    """How a cluster finds out whether the agent works."""

    type: Literal["semantic", "ping"]
    """`semantic` asks the model."""
    intervalSeconds: Count = 30
    """Time between two probes."""
    validatorPrompt: str | None = None
    """What the model is asked."""


class Resources(Spec):
    """What a pod needs and may use."""

    requests: dict[str, Quantity] = {}
    """What is reserved."""
    limits: dict[str, Quantity] = {}
    """What is never exceeded."""
    claims: list[dict[str, Any]] = []
    """Resource claims of the pod."""


class CapabilitySpec(Spec):
    """What the agent can be found by."""

    id: Text
    """Its name, matched exactly."""
    description: str = ""
    """Read by the router."""
    tags: list[Text] = []
    """A lookup wants all the tags that it names."""
    inputSchema: SchemaText | None = None
    """What it takes, for readers."""
    outputSchema: SchemaText | None = None
    """What it gives, for readers."""
    exposeMCP: bool = False
    """True: a cluster's gateway offers it as an MCP tool."""


class NetworkPolicy(Spec):
    """What the agent's pods may reach."""

    model_config = ConfigDict(extra="allow")

    mode: Text
    """`strict`: only its MCP servers."""


class ScaleToZero(Spec):
    """Give up idle pods."""

    enabled: bool = False
    """True to do so."""
    afterSeconds: Whole | None = None
    """Idle time before it."""


class Autoscaling(Spec):
    """How a cluster fits the number of pods to the work."""

    enabled: bool = False
    """True to do so."""
    minReplicas: Whole | None = None
    """Never fewer."""
    maxReplicas: Count | None = None
    """Never more."""
    targetPendingTasks: Count | None = None
    """Waiting tasks for each pod before there is another."""
    scaleToZero: ScaleToZero | None = None
    """Give up idle pods."""

    @model_validator(mode="after")
    def _ordered(self) -> Autoscaling:
        low, high = self.minReplicas, self.maxReplicas
        if low is not None and high is not None and low > high:
            raise ValueError(f"minReplicas ({low}) is more than maxReplicas ({high})")
        return self


CLUSTER_ONLY = frozenset({"replicas", "resources", "livenessProbe", "autoscaling", "networkPolicy"})
"""Fields that mean something in a cluster only."""


class AgentFields(Spec):
    """What agents and inline roles have in common."""

    model: Text | None = None
    """Given to the provider as it is; decides on the provider where nothing else does."""
    provider: Text | None = None
    """The provider's name."""
    target: Text | None = None
    """A target of `targets.yaml` that answers in the agent's place."""
    systemPrompt: Text | None = None
    """Who the agent is."""
    systemPromptRef: PromptRef | None = None
    """Where the system prompt stands; wins over `systemPrompt`."""
    tools: list[ToolSpec] = []
    """HTTP endpoints and Python functions that it may call."""
    pythonTools: list[_PythonTool] = []
    """Python functions that it may call: `package.module:function`, or with a name."""
    builtinTools: list[Text] = []
    """Muster's own tools, by name."""
    mcpServers: list[McpServerSpec] = []
    """MCP servers whose tools it may call."""
    limits: LimitsSpec = Field(default_factory=LimitsSpec)
    """Bounds on it."""
    temperature: NotNegative | None = None
    """Wins over the settings'."""
    envFrom: list[EnvFromSource] = []
    """Variables for its provider, such as API keys."""
    configRef: NameRefOrText | None = None
    """The settings (ArkSettings) it works by: a name, or `{name}`."""
    settingsRefs: list[NameRefOrText] = []
    """Several settings, in order."""
    memoryRef: NameRef | None = None
    """Its memory (ArkMemory)."""
    notifyRef: NameRef | None = None
    """Who is told when something is wrong with it (ArkNotify)."""
    capabilities: list[CapabilitySpec] = []
    """What a registry finds it by."""
    replicas: Annotated[int, Field(ge=0, le=50)] = 1
    """Pods in a cluster."""
    resources: Resources | None = None
    """What a pod needs and may use."""
    livenessProbe: LivenessProbe | None = None
    """How a cluster finds out whether it works."""
    autoscaling: Autoscaling | None = None
    """How a cluster fits the number of pods to the work."""
    networkPolicy: NetworkPolicy | None = None
    """What its pods may reach."""


def complete(fields: AgentFields) -> None:
    """Raise `ValueError` if an agent could not be made of `fields`."""
    if fields.target is not None:
        if fields.provider is not None:
            raise ValueError("give only one of target, provider")
        return
    if fields.model is None:
        raise ValueError('"model" is required (or a "target" of targets.yaml)')
    if fields.systemPrompt is None and fields.systemPromptRef is None:
        raise ValueError("at least one of systemPrompt or systemPromptRef must be set")


class AgentSpec(AgentFields):
    """A provider with a system prompt, tools and limits."""

    @model_validator(mode="after")
    def _complete(self) -> AgentSpec:
        complete(self)
        return self
