"""`webhook`: a service judges. It is sent the output and the context as JSON, and answers with a
verdict as programs do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import msgspec
from pydantic import AliasChoices, Field, StringConstraints

from muster.config.secrets import Masker, secret_values
from muster.config.validation import FileModel
from muster.evals.graders.base import GradeContext, GraderError, GraderSpec, Score
from muster.evals.graders.programs import case_context, decoded, encoded, read_verdict
from muster.evals.graders.thresholds import bar_of, held_to, own_bar
from muster.tools.base import ToolFailed
from muster.tools.definitions import WebhookTool
from muster.tools.webhook import Webhooks

__all__ = ("Webhook",)

MAX_BYTES = 1_000_000


class _Settings(FileModel):
    url: Annotated[str, StringConstraints(pattern=r"^https?://\S+$")] = Field(
        validation_alias=AliasChoices("url", "value")
    )
    headers: Mapping[str, str] = Field(default_factory=dict)
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    max_bytes: Annotated[int, Field(ge=2, le=100_000_000)] = MAX_BYTES
    """Of the answer."""
    allow_hosts: list[str] = Field(default_factory=list)
    """Private and loopback addresses that may be asked: names, addresses or networks."""
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """The score from which it passes; what counts is then the verdict: 1 or 0."""
    config: Mapping[str, Any] = Field(default_factory=dict)
    """For the service, as `context.config`."""


class Webhook:
    """Asks an HTTP endpoint."""

    Settings: ClassVar[type[FileModel]] = _Settings

    def __init__(self, spec: GraderSpec) -> None:
        settings = _Settings.model_validate(spec.config)
        if spec.safe:
            raise ValueError("--safe sends nothing to the services of a suite")
        self._threshold = own_bar(settings.threshold, spec)
        self._bar = spec.min_score if self._threshold is None else self._threshold
        self._config = settings.config
        self._masker = Masker(secret_values(settings.headers))
        self._source = WebhookTool(
            name="webhook",
            url=settings.url,
            headers=settings.headers,
            timeout_seconds=settings.timeout_seconds,
            max_bytes=settings.max_bytes,
            allow_hosts=tuple(settings.allow_hosts),
        )

    async def __call__(self, context: GradeContext) -> Score:
        told = {"output": context.output, "context": case_context(context, self._config)}
        # What has no form in JSON (a date of a test's variables) is told as text.
        plain: dict[str, Any] = msgspec.json.decode(encoded(told))
        if context.scope is not None:
            text = await self._ask(context.scope.keep((Webhooks,), Webhooks), plain)
        else:
            webhooks = Webhooks()
            try:
                text = await self._ask(webhooks, plain)
            finally:
                await webhooks.aclose()
        answer = decoded(text.encode("utf-8", "replace"), self._source.url)
        return held_to(read_verdict(answer, bar_of(self._bar, context)), self._threshold)

    async def _ask(self, webhooks: Webhooks, told: Mapping[str, Any]) -> str:
        try:
            return await webhooks.bind(self._source).call(told)
        except ToolFailed as error:
            said = str(error).removeprefix('webhook tool "webhook": ')
            said = said.replace("allowHosts", "allow_hosts")
            raise GraderError(self._masker.mask(f"{self._source.url}: {said}")) from None
