"""Where a model API is and how it is paid: settings, then the environment, then the preset."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr

from muster.errors import MusterError, UsageError
from muster.provider import AuthenticationFailed
from muster.providers.attachments import MAX_FILE_BYTES
from muster.providers.settings import ProviderSettings
from muster.target import ResolvedTarget

__all__ = ("ModelSettings", "base_url_of", "is_loopback", "key_of", "model_of")


class ModelSettings(ProviderSettings):
    """What the targets of all model APIs can say."""

    base_url: str | None = Field(None, validation_alias=AliasChoices("base_url", "endpoint"))
    """Where the API is, e.g. `https://api.example.com/v1`."""
    api_key: SecretStr | None = None
    """The key; better `${{ VARIABLE }}` than the key itself."""
    model: str | None = Field(None, validation_alias=AliasChoices("model", "deployment", "variant"))
    """The model, by the API's own name for it."""
    temperature: float | None = Field(None, ge=0)
    """Sampling temperature; unset: the API's default."""
    top_p: float | None = Field(None, ge=0, le=1)
    """Nucleus sampling; unset: the API's default."""
    max_output_tokens: int | None = Field(None, gt=0)
    """Tokens that one call may answer with; a smaller limit of the request wins."""
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    """More HTTP headers."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """More fields of the request's JSON, put in last."""
    max_file_bytes: int = Field(MAX_FILE_BYTES, gt=0)
    """The largest file or image of a request that is sent."""
    connect_timeout_seconds: float = Field(10.0, gt=0)
    """Time to get a connection."""
    read_timeout_seconds: float = Field(600.0, gt=0)
    """Time without a single byte from the server before the call is given up."""

    def bounded(self, limit: int | None) -> int | None:
        """The smaller of the request's bound on output tokens and this target's."""
        known = [bound for bound in (limit, self.max_output_tokens) if bound is not None]
        return min(known, default=None)


def base_url_of(
    settings: ModelSettings,
    target: ResolvedTarget,
    variables: tuple[str, ...],
    default: str | None,
) -> str:
    """The base URL, without a slash at its end.

    Raises:
        UsageError: none is known, or it is not an http(s) URL.
    """
    url = settings.base_url or _from_environment(target, variables) or default
    if url is None:
        raise UsageError(
            f'target "{target.name}": no base_url (set it, or {" or ".join(variables)})'
        )
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f'target "{target.name}": base_url: expected http(s)://host[:port]/path, '
            f'found "{parts.scheme}{":" if parts.scheme else ""}{parts.path}"'
        )
    return url.rstrip("/")


def model_of(
    settings: ModelSettings,
    target: ResolvedTarget,
    variables: tuple[str, ...],
    default: str | None = None,
) -> str:
    """The model's name.

    Raises:
        UsageError: none is known.
    """
    model = settings.model or _from_environment(target, variables) or default
    if model is None:
        raise UsageError(
            f'target "{target.name}": no model (set `model`, or {" or ".join(variables)})'
        )
    return model


def key_of(
    settings: ModelSettings,
    target: ResolvedTarget,
    variables: tuple[str, ...],
    *,
    base_url: str,
    home: str | None,
    required: bool = True,
) -> str | None:
    """The key; servers on this machine, and those that need none, may go without.

    `home` is the service's own URL. A file that its user did not write may not send a key of the
    environment anywhere else.

    Raises:
        AuthenticationFailed: there is none and one is needed; the message names the variable.
        MusterError: `--safe` forbids to send it to `base_url`.
    """
    if settings.api_key is not None and settings.api_key.get_secret_value():
        return settings.api_key.get_secret_value()
    found = _from_environment(target, variables)
    elsewhere = settings.base_url is not None and _host(base_url) != _host(home or "")
    if found is not None and target.safe and elsewhere and not is_loopback(base_url):
        raise MusterError(
            f'--safe refuses the target "{target.name}": its base_url would get the key '
            f"{variables[0]} of the environment; give the target an `api_key` of its own"
        )
    if found is None and required and not is_loopback(base_url):
        raise AuthenticationFailed(
            f"{variables[0]} is not set; required for the {target.provider} provider "
            f'(or set `api_key` of the target "{target.name}")'
        )
    return found


def is_loopback(url: str) -> bool:
    """True when `url` is on this machine, as far as its host's name tells."""
    host = _host(url)
    return host in ("localhost", "::1") or host.startswith("127.") or host.endswith(".localhost")


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").lower()


def _from_environment(target: ResolvedTarget, variables: Iterable[str]) -> str | None:
    """The value of the first of `variables` that is set to something."""
    env: Mapping[str, str] = os.environ if target.env is None else target.env
    for name in variables:
        if env.get(name):
            return env[name]
    return None
