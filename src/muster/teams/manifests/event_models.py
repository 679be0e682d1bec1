"""The fields of what sets teams off, and of who is told what came of it."""

# ruff: noqa: N815, RUF012 - the names are those of the files; pydantic copies defaults

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from muster.teams.manifests.fields import (
    Count,
    Headers,
    KeyRef,
    Positive,
    SecretRef,
    Spec,
    Text,
    ValueFrom,
    Whole,
    one_of,
)

__all__ = ("ChannelSpec", "EventSpec", "NotifySpec")


# --- notices ------------------------------------------------------------------------------------

NoticeType: TypeAlias = Literal[
    "TeamSucceeded",
    "TeamFailed",
    "TeamTimedOut",
    "BudgetExceeded",
    "DailyLimitReached",
    "AgentDegraded",
]


class SlackSpec(Spec):
    """Slack's incoming webhook: exactly one way to its URL."""

    webhookUrlSecretRef: KeyRef | None = None
    """The Secret with the URL."""
    webhookURLFrom: ValueFrom | None = None
    """Where the URL stands."""
    url: Text | None = None
    """The URL itself."""

    @model_validator(mode="after")
    def _one(self) -> SlackSpec:
        one_of(self, "webhookUrlSecretRef", "webhookURLFrom", "url")
        return self


class WebhookSpec(Spec):
    """Any endpoint that takes a POST: exactly one way to its URL."""

    urlFrom: ValueFrom | None = None
    """Where the URL stands."""
    url: Text | None = None
    """The URL itself."""
    headers: Headers = {}
    """Headers of every request, in either form."""

    @model_validator(mode="after")
    def _one(self) -> WebhookSpec:
        one_of(self, "urlFrom", "url")
        return self


class ChannelSpec(Spec):
    """One way out; its fields may stand beside `type`, or in a block of that name."""

    type: Literal["slack", "webhook"]
    """What is at the other end."""
    slack: SlackSpec | None = None
    """Slack's fields."""
    webhook: WebhookSpec | None = None
    """A webhook's fields."""
    webhookURLFrom: ValueFrom | None = None
    """Where Slack's URL stands."""
    urlFrom: ValueFrom | None = None
    """Where the webhook's URL stands."""
    url: Text | None = None
    """The URL itself."""
    headers: Headers = {}
    """Headers of a webhook."""
    allowHosts: list[Text] = []
    """Hosts that may be reached though they are not public: names, addresses, networks."""

    @model_validator(mode="after")
    def _one(self) -> ChannelSpec:
        names = ("slack", "webhook", "webhookURLFrom", "urlFrom", "url")
        one_of(self, *names)
        wrong = {"slack": ("webhook", "urlFrom"), "webhook": ("slack", "webhookURLFrom")}
        for name in wrong[self.type]:
            if getattr(self, name) is not None:
                raise ValueError(f'{name} does not go with type "{self.type}"')
        if self.headers and self.type == "slack":
            raise ValueError('headers does not go with type "slack"')
        return self


class NoticeSpec(Spec):
    """What is told about."""

    type: NoticeType
    """What happened."""
    template: str | None = None
    """The text of the message: a template."""


class RateLimiting(Spec):
    """How often the same team may tell of the same thing."""

    windowSeconds: Whole = 300
    """The time that is looked at; 0 is no limit."""
    maxPerWindow: Count = 1
    """Messages in it."""


class NotifySpec(Spec):
    """Who is told what, in either of two forms."""

    channels: list[ChannelSpec] = []
    """The ways out."""
    on: list[NoticeType] | None = None
    """What is told about (default: everything)."""
    template: str | None = None
    """The text of every message: a template."""
    rateLimitSeconds: Whole | None = None
    """Least time between two messages of a team about the same thing (default 300; 0: none)."""
    channel: ChannelSpec | None = None
    """The only way out, in the other form."""
    events: list[NoticeSpec] | None = None
    """What is told about, each with its text, in the other form."""
    rateLimiting: RateLimiting | None = None
    """How often, in the other form."""

    @model_validator(mode="after")
    def _one_form(self) -> NotifySpec:
        if bool(self.channels) == (self.channel is not None):
            raise ValueError("give one of channels, channel")
        one_of(self, "on", "events", optional=True)
        one_of(self, "rateLimitSeconds", "rateLimiting", optional=True)
        return self


# --- events -------------------------------------------------------------------------------------


class OutputSource(Spec):
    """A finished run of a team."""

    name: Text
    """The team."""
    onPhase: Literal["Succeeded", "Failed", "*"] = "Succeeded"
    """How it must have ended."""


class Signature(Spec):
    """How a sender signs what it sends."""

    scheme: Literal["github", "stripe"]
    """Whose way of signing it is."""
    secretRef: KeyRef
    """The Secret with the signing key."""
    toleranceSeconds: Positive = 300
    """How old a `stripe` signature may be."""


class WebhookSource(Spec):
    """How callers show who they are."""

    tokenSecretRef: SecretRef | None = None
    """The Secret with the token, under `token` (default: `<event>-webhook-token`)."""
    signature: Signature | None = None
    """Signed bodies, in place of the token."""
    queryToken: bool = False
    """True: the token may also stand in the address, as `?token=`."""
    idempotencyHeader: Text = "Idempotency-Key"
    """A header whose value fires once only."""


class EventSource(Spec):
    """What sets it off."""

    type: Literal["cron", "webhook", "team-output", "pipeline-output"]
    """`pipeline-output` is the oldest name of `team-output`."""
    cron: Text | None = None
    """Five fields, in UTC; `@daily`, `@every 1h` and `TZ=` before them are understood."""
    teamOutput: OutputSource | None = None
    """The team whose end is waited for."""
    pipelineOutput: OutputSource | None = None
    """The oldest name of `teamOutput`."""
    webhook: WebhookSource | None = None
    """How callers show who they are."""

    @model_validator(mode="after")
    def _complete(self) -> EventSource:
        one_of(self, "teamOutput", "pipelineOutput", optional=True)
        output = self.teamOutput or self.pipelineOutput
        if self.type == "cron" and self.cron is None:
            raise ValueError("spec.source.cron is required for cron type")
        if self.type.endswith("-output") and output is None:
            raise ValueError(f"spec.source.teamOutput is required for {self.type} type")
        for name, given, types in (
            ("cron", self.cron, ("cron",)),
            ("teamOutput", output, ("team-output", "pipeline-output")),
            ("webhook", self.webhook, ("webhook",)),
        ):
            if given is not None and self.type not in types:
                raise ValueError(f'{name} does not go with type "{self.type}"')
        return self


class EventTargetSpec(Spec):
    """A team that is started."""

    team: Text | None = None
    """The team."""
    pipeline: Text | None = None
    """The oldest name of `team`."""
    input: dict[str, str] = {}
    """Its inputs: templates that see `.trigger`."""

    @model_validator(mode="after")
    def _one(self) -> EventTargetSpec:
        one_of(self, "team", "pipeline")
        return self


def _targets(targets: list[EventTargetSpec]) -> list[EventTargetSpec]:
    if not targets:
        raise ValueError("there are no targets")
    return targets


class EventSpec(Spec):
    """What sets off which teams."""

    source: EventSource
    """What sets it off."""
    targets: Annotated[
        list[EventTargetSpec],
        AfterValidator(_targets),
        Field(json_schema_extra={"minItems": 1}),
    ]
    """The teams that are started, all of them."""
    concurrencyPolicy: Literal["Allow", "Forbid", "Replace"] = "Allow"
    """What happens while an earlier run is under way."""
    missedRuns: Literal["once", "skip", "all"] = "once"
    """What is made up for of the times that a cron event slept through."""
    startingDeadlineSeconds: Positive = 86_400
    """How long ago a time may be that is made up for."""
    suspended: bool = False
    """True: nothing is set off."""
