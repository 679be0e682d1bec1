"""The settings of OpenAI and of everything that speaks its protocol, resolved against a preset."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit

from pydantic import AliasChoices, Field

from muster.errors import UsageError
from muster.providers.endpoint import ModelSettings, base_url_of, key_of, model_of
from muster.providers.presets import Preset, preset_for
from muster.target import ResolvedTarget

__all__ = ("OpenAIEndpoint", "OpenAISettings", "resolve")

OFFICIAL_HOST = "api.openai.com"
AZURE_DATED_VERSION = "2024-10-21"
"""For URLs of Azure deployments, which cannot do without a dated version."""


class OpenAISettings(ModelSettings):
    """What a target of the OpenAI family can say."""

    api_format: Literal["chat", "responses"] = "chat"
    """Chat Completions, which every compatible server has, or the Responses API."""
    reasoning_effort: str | None = None
    """`minimal`, `low`, `medium`, `high`, as the model knows it."""
    dimensions: int | None = Field(None, gt=0)
    """Numbers of each vector, for embedding models that let one choose."""
    seed: int | None = None
    """For repeatable sampling, as far as the server keeps to it."""
    organization: str | None = None
    """The `OpenAI-Organization` header."""
    project: str | None = None
    """The `OpenAI-Project` header."""
    resource: str | None = None
    """Azure: the resource's name, in place of `endpoint`."""
    api_version: str | None = Field(None, validation_alias=AliasChoices("api_version", "version"))
    """Azure: `v1` (default), or a dated version such as `2024-10-21`."""


@dataclass(frozen=True, slots=True)
class OpenAIEndpoint:
    """Where to call and how, except for the key."""

    name: str
    """The preset's name."""
    preset: Preset
    settings: OpenAISettings
    target: ResolvedTarget
    base_url: str
    model: str

    def url(self, path: str) -> str:
        """The URL of a call, e.g. `chat/completions`."""
        version = self.settings.api_version
        if "/deployments/" in self.base_url:
            version = version or AZURE_DATED_VERSION
        if self.name != "azure" or version in (None, "v1"):
            return f"{self.base_url}/{path}"
        base = self.base_url.removesuffix("/openai/v1")
        if "/deployments/" not in base and path in ("chat/completions", "embeddings"):
            base = f"{base}/openai/deployments/{self.model}"
        elif "/deployments/" not in base:
            base = f"{base}/openai"
        return f"{base}/{path}?{urlencode({'api-version': version})}"

    @property
    def max_tokens_field(self) -> str:
        """OpenAI itself has renamed the field; the servers that follow it have not."""
        official = urlsplit(self.base_url).hostname == OFFICIAL_HOST
        return "max_completion_tokens" if official else self.preset.max_tokens_field

    def key(self) -> str | None:
        """The key. Raises as `endpoint.key_of`."""
        return key_of(
            self.settings,
            self.target,
            self.preset.key_variables,
            base_url=self.base_url,
            home=self.preset.base_url,
            required=self.preset.key_required,
        )

    def headers(self, key: str | None) -> dict[str, str]:
        """The headers of every call."""
        settings, header = self.settings, self.preset.auth_header
        headers = {}
        if key:
            headers[header] = f"Bearer {key}" if header == "Authorization" else key
        if settings.organization:
            headers["OpenAI-Organization"] = settings.organization
        if settings.project:
            headers["OpenAI-Project"] = settings.project
        return headers | {name: v.get_secret_value() for name, v in settings.headers.items()}

    def sampling(self) -> dict[str, Any]:
        """The fields of a request that both API formats share and that never change."""
        settings = self.settings
        fields = {
            "model": self.model,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
        }
        return {name: value for name, value in fields.items() if value is not None}


def resolve(target: ResolvedTarget) -> OpenAIEndpoint:
    """A target's settings, completed by the environment and by its preset.

    Raises:
        UsageError: no model or no base URL is known.
        ValidationError: a setting is wrong (pydantic's).
    """
    settings = OpenAISettings.model_validate(dict(target.config))
    name, preset = preset_for(target.provider)
    settings = _from_environment(settings, target) if name == "openai" else settings
    if settings.resource is not None and name != "azure":
        raise UsageError(f'target "{target.name}": `resource` is for the azure provider only')
    if name == "azure" and settings.resource is not None and settings.base_url is None:
        base_url = f"https://{settings.resource}.openai.azure.com"
    else:
        base_url = base_url_of(settings, target, preset.base_url_variables, preset.base_url)
    return OpenAIEndpoint(
        name=name,
        preset=preset,
        settings=settings,
        target=target,
        base_url=_complete(base_url, name),
        model=model_of(settings, target, preset.model_variables, preset.default_model),
    )


def _from_environment(settings: OpenAISettings, target: ResolvedTarget) -> OpenAISettings:
    env = os.environ if target.env is None else target.env
    found = {"organization": env.get("OPENAI_ORG_ID"), "project": env.get("OPENAI_PROJECT_ID")}
    update = {k: v for k, v in found.items() if v and getattr(settings, k) is None}
    # Another service has no use for them, and should not learn them.
    return settings.model_copy(update=update) if settings.base_url is None else settings


def _complete(base_url: str, name: str) -> str:
    """The base URL as the calls need it: people paste hosts, and whole URLs of calls."""
    for ending in ("/chat/completions", "/responses", "/embeddings"):
        base_url = base_url.removesuffix(ending)
    path = urlsplit(base_url).path
    if name == "azure":
        if path.endswith("/openai"):
            return f"{base_url}/v1"
        return base_url if "/openai/" in path else f"{base_url}/openai/v1"
    return base_url if path.strip("/") else f"{base_url.rstrip('/')}/v1"
