"""The fields of teams and flows: roles, steps, and what a run may use up."""

# ruff: noqa: N815, RUF012 - the names are those of the files; pydantic copies defaults

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from muster.teams.manifests.agent_models import CLUSTER_ONLY, AgentFields, Autoscaling, complete
from muster.teams.manifests.fields import (
    Count,
    Name,
    NameRef,
    Positive,
    SchemaText,
    Spec,
    Text,
    Whole,
    one_of,
)

__all__ = ("FlowSpec", "MemberSpec", "RoleSpec", "StepSpec", "TeamSpec")


# --- steps --------------------------------------------------------------------------------------


class LoopSpec(Spec):
    """Run the step again while a condition holds."""

    condition: Text
    """A template, looked at after each time."""
    maxIterations: Annotated[int, Field(ge=1, le=100)] | None = None
    """Further times after the first (default 10)."""
    maxExecutions: Annotated[int, Field(ge=1, le=101)] | None = None
    """Times in all, in place of `maxIterations`."""

    @model_validator(mode="after")
    def _one(self) -> LoopSpec:
        one_of(self, "maxIterations", "maxExecutions", optional=True)
        return self


class ValidateSpec(Spec):
    """What the step's answer must be like; every check that is given must hold."""

    rejectPatterns: list[Text] = []
    """Patterns that must not be found; looked at first."""
    contains: Text | None = None
    """A pattern that must be found."""
    schema_: SchemaText | None = Field(None, alias="schema")
    """A JSON Schema that the JSON in the answer must satisfy."""
    semantic: Text | None = None
    """A criterion that a judge decides on."""
    judge: Text | None = None
    """The role or target that judges (default: the step's own agent)."""
    suite: Text | None = None
    """A suite whose graders judge, relative to the manifest."""
    onFailure: Literal["fail", "retry"] = "fail"
    """What happens when a check fails."""
    maxRetries: Annotated[int, Field(ge=0, le=100)] = 2
    """Further attempts with `retry`."""


class ForEachSpec(Spec):
    """Run the step once for each item of a list."""

    items: Text
    """A template that gives the list."""
    as_: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")] = Field("item", alias="as")
    """What the item is called in the step's templates."""
    maxParallel: Count = 10
    """Items at the same time."""
    onFailure: Literal["fail", "continue"] = "fail"
    """Whether one failed item fails the step."""


class ApprovalSpec(Spec):
    """A person must agree."""

    message: Text
    """What the person reads: a template."""
    timeoutSeconds: Positive | None = None
    """How long to wait."""
    onTimeout: Literal["reject", "approve"] = "reject"
    """What follows when nobody answered."""


class RetrySpec(Spec):
    """Further attempts after a failure that a retry can help."""

    maxRetries: Whole = 0
    """Attempts after the first."""
    initialDelaySeconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1
    """Delay before the first of them."""
    maxDelaySeconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30
    """The longest delay."""
    backoffFactor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2
    """What the delay grows by each time."""


class LookupSpec(Spec):
    """Choose the agent when the step starts, by what it can do."""

    capability: Text
    """The capability's id."""
    tags: list[Text] = []
    """Tags that the capability must all have."""
    strategy: Literal["round-robin", "least-busy", "random", "lexical"] = "round-robin"
    """How one of several is chosen."""
    fallback: Text | None = None
    """The agent when none matches."""


class ArtifactSpec(Spec):
    """A file that the step leaves in `$AGENT_ARTIFACT_DIR`."""

    name: Text
    """The file's name."""
    description: str = ""
    """What the agent is told about it."""
    contentType: str | None = None
    """The file's media type."""


_Artifact: TypeAlias = Annotated[
    Annotated[Text, Tag("text")] | Annotated[ArtifactSpec, Tag("full")],
    Discriminator(lambda value: "text" if isinstance(value, str) else "full"),
]
_ForEach: TypeAlias = Annotated[
    Annotated[Text, Tag("text")] | Annotated[ForEachSpec, Tag("full")],
    Discriminator(lambda value: "text" if isinstance(value, str) else "full"),
]
_Approval: TypeAlias = Annotated[
    Annotated[Text, Tag("text")] | Annotated[ApprovalSpec, Tag("full")],
    Discriminator(lambda value: "text" if isinstance(value, str) else "full"),
]
_Retry: TypeAlias = Annotated[
    Annotated[Whole, Tag("count")] | Annotated[RetrySpec, Tag("full")],
    Discriminator(lambda value: "full" if isinstance(value, dict) else "count"),
]


class StepSpec(Spec):
    """A node of the graph."""

    name: Name | None = None
    """What other steps call it (default: its role)."""
    role: Text | None = None
    """The role that does it."""
    arkAgent: Text | None = None
    """The agent that does it, without a role."""
    arkonisDeployment: Text | None = None
    """The oldest name of `arkAgent`."""
    inputs: dict[str, str] = {}
    """Templates; usually one, `prompt`."""
    dependsOn: list[Text] = []
    """Steps that must be done before."""
    if_: Text | None = Field(None, alias="if")
    """A template; the step is skipped when it is false."""
    loop: LoopSpec | None = None
    """Run the step again while a condition holds."""
    forEach: _ForEach | None = None
    """Run the step once for each item: `{items, as, maxParallel, onFailure}`, or the items."""
    maxParallel: Count | None = None
    """As `forEach.maxParallel`, beside the short form."""
    approval: _Approval | None = None
    """A person must agree: `{message, timeoutSeconds, onTimeout}`, or the message."""
    outputSchema: SchemaText | None = None
    """A JSON Schema that the answer must satisfy."""
    validation: ValidateSpec | None = Field(None, alias="validate")
    """What else the answer must be like."""
    registryLookup: LookupSpec | None = None
    """Choose the agent when the step starts."""
    retry: _Retry | None = None
    """Further attempts: `{maxRetries, …}`, or their number."""
    timeoutSeconds: Positive | None = None
    """Bound on the step, all its attempts together."""
    maxTokens: Count | None = None
    """Tokens that the step may use."""
    budgetUsd: Positive | None = None
    """Money that the step may cost."""
    artifacts: list[_Artifact] = []
    """Files that it leaves: `{name, description}`, or names."""

    @model_validator(mode="after")
    def _consistent(self) -> StepSpec:
        one_of(self, "arkAgent", "arkonisDeployment", optional=True)
        agent = self.arkAgent or self.arkonisDeployment
        if self.approval is not None:
            beside = [
                name
                for name in ("role", "arkAgent", "arkonisDeployment", "registryLookup", "forEach")
                if getattr(self, name) is not None
            ]
            if beside:
                raise ValueError(f"an approval asks a person; it takes no {', '.join(beside)}")
            if self.name is None:
                raise ValueError('an approval needs a "name"')
        elif self.role is not None and agent is not None:
            raise ValueError("give only one of role, arkAgent")
        elif agent is not None and self.name is None:
            raise ValueError('"name" is required beside arkAgent')
        elif self.role is None and agent is None:
            if self.registryLookup is None:
                raise ValueError('"role" is required (or arkAgent, registryLookup, approval)')
            if self.name is None:
                raise ValueError('a step with only a registryLookup needs a "name"')
        if self.maxParallel is not None and not isinstance(self.forEach, str):
            raise ValueError("maxParallel stands beside the short form of forEach only")
        return self


def _some(steps: list[StepSpec]) -> list[StepSpec]:
    if not steps:
        raise ValueError("there are no steps")
    return steps


_Steps: TypeAlias = Annotated[
    list[StepSpec], AfterValidator(_some), Field(json_schema_extra={"minItems": 1})
]


# --- teams --------------------------------------------------------------------------------------


class RoleSpec(AgentFields):
    """A member of a team: an agent of its own, a reference to one, or a whole team."""

    name: Name
    """What steps and delegates call it."""
    arkAgent: Text | None = None
    """An agent by its name, in place of the agent's fields."""
    arkTeam: Text | None = None
    """A team by its name, in place of the agent's fields."""
    canDelegate: list[Text] = []
    """Roles that it may hand tasks to."""

    @model_validator(mode="after")
    def _one_form(self) -> RoleSpec:
        one_of(self, "arkAgent", "arkTeam", optional=True)
        named = "arkAgent" if self.arkAgent else "arkTeam" if self.arkTeam else None
        if named is None:
            complete(self)
            return self
        own = set(AgentFields.model_fields) - CLUSTER_ONLY
        if beside := [
            name for name in AgentFields.model_fields if name in self.model_fields_set & own
        ]:
            raise ValueError(f"{', '.join(beside)} cannot stand beside {named}")
        if self.arkTeam and self.canDelegate:
            raise ValueError("a team as a role does not delegate")
        return self


class MemberSpec(Spec):
    """The oldest form of a role."""

    role: Name
    """The role's name."""
    arkAgent: Text
    """The agent."""
    entry: bool = False
    """True: it receives the tasks."""
    delegates: list[Text] = []
    """Roles that it may hand tasks to."""


class InputSpec(Spec):
    """An input that the team declares."""

    name: Text
    """Its name, `{{ .input.name }}`."""
    type: Literal["string", "number", "integer", "boolean", "array", "object"] = "string"
    """What it must be."""
    description: str = ""
    """For people."""
    required: bool = False
    """True: a run without it is refused."""
    default: Any = None
    """What it is when the run does not say."""


class RoutingSpec(Spec):
    """One call chooses the agent for the whole task."""

    registryRef: NameRef
    """The registry with the agents."""
    model: Text | None = None
    """The model of the router."""
    target: Text | None = None
    """A target of `targets.yaml` that routes."""
    strategy: Literal["llm", "lexical"] = "llm"
    """`lexical` compares words and calls nobody."""
    fallback: Text | None = None
    """The agent when none matches."""

    @model_validator(mode="after")
    def _who(self) -> RoutingSpec:
        one_of(self, "model", "target", optional=self.strategy == "lexical")
        return self


class TeamLimits(Spec):
    """Bounds on a team over all its runs."""

    maxDailyTokens: Whole | None = None
    """Tokens in any 24 hours; 0 is no limit."""


class _RunFields(Spec):
    input: dict[str, Any] = {}
    """Values of inputs where the run gives none."""
    output: str | None = None
    """A template of the result (default: the last step's output)."""
    timeoutSeconds: Positive | None = None
    """Bound on a run."""
    maxTokens: Count | None = None
    """Tokens that a run may use."""
    budgetUsd: Positive | None = None
    """Money that a run may cost."""


class TeamSpec(_RunFields):
    """Agents wired by a pipeline, by delegation, or by routing."""

    roles: list[RoleSpec] = []
    """The members."""
    members: list[MemberSpec] = []
    """The oldest form of `roles`."""
    entry: Text | None = None
    """The role that receives the tasks."""
    pipeline: _Steps | None = None
    """The steps."""
    routing: RoutingSpec | None = None
    """One call chooses the agent; then there are neither roles nor steps."""
    inputs: list[InputSpec] = []
    """The inputs it declares."""
    maxDepth: Count | None = None
    """How often a task may be handed on (default 5)."""
    limits: TeamLimits = Field(default_factory=TeamLimits)
    """Bounds over all runs."""
    notifyRef: NameRef | None = None
    """Who is told about runs (ArkNotify)."""
    autoscaling: Autoscaling | None = None
    """How a cluster fits the number of pods to the work."""
    successfulRunsHistoryLimit: Whole | None = None
    """Good runs that are kept, with 0 the last until the next one ends."""
    failedRunsHistoryLimit: Whole | None = None
    """Failed runs that are kept."""
    artifactStore: dict[str, Any] | None = None
    """Where artifacts are kept: `{type: local}`, perhaps with `local: {path}`."""

    @model_validator(mode="after")
    def _one_mode(self) -> TeamSpec:
        one = [name for name in ("roles", "members") if getattr(self, name)]
        if len(one) == 2:
            raise ValueError("give only one of roles, members")
        if self.routing is not None:
            beside = [n for n in ("roles", "members", "entry", "pipeline") if getattr(self, n)]
            if beside:
                raise ValueError(f"a routed team takes no {', '.join(beside)}")
        elif not one and self.pipeline is None:
            raise ValueError("give one of pipeline, roles (with an entry), routing")
        return self


class FlowSpec(_RunFields):
    """The oldest form of a team with a pipeline."""

    steps: _Steps
    """The steps."""
    notifyRef: NameRef | None = None
    """Who is told about runs (ArkNotify)."""
