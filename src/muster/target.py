"""A target resolved: a name, the provider it uses, and the settings that its factory gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from muster.capabilities import UNKNOWN, Capabilities

__all__ = ("ProviderFactory", "RateLimits", "ResolvedTarget", "RetryPolicy", "Secret")


class Secret(str):
    """Text that must not be shown: it formats as itself into a header, but its `repr` is masked.

    Whatever is written out goes through `muster.config.secrets.Masker` as well, which knows the
    value.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('**********')"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and how patiently a failed call is tried again. Delays in seconds."""

    max_retries: int | None = None
    """`None`: 2 for providers that ask a service, 0 for those that run on this machine."""
    initial_delay: float = 1.0
    max_delay: float = 30.0
    backoff_factor: float = 2.0
    status_codes: frozenset[int] | None = None
    """HTTP statuses worth a retry; `None` leaves it to the error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """What a target may be asked for; `None` is no limit."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    adaptive: bool = False
    """Shrink the concurrency on rate limits and grow it again after successes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedTarget:
    """What a provider factory gets: an entry of `targets.yaml` with its variables filled in."""

    name: str
    provider: str
    config: Mapping[str, Any] = field(default_factory=dict)
    """The provider's own settings, snake_case as written; secrets are `Secret` strings."""
    judge_target: str | None = None
    workers: int | None = None
    timeout_seconds: float | None = None
    """Bound on one attempt, enforced by a wrapper."""
    retry: RetryPolicy = RetryPolicy()
    rate_limits: RateLimits = RateLimits()
    fallback_targets: tuple[str, ...] = ()
    cacheable: bool | None = None
    """Whether its answers may be cached; `None`: if its provider is a service that is asked."""
    capabilities: Capabilities = UNKNOWN
    """What the target's entry says of it, over what its provider declares."""
    base_dir: Path = field(default_factory=Path.cwd)
    """The folder of the file that defines the target; its relative paths start here."""
    targets_file: Path | None = field(default=None, compare=False)
    """The file of the targets among which it was looked up; `None`: there is none."""
    env: Mapping[str, str] | None = None
    """The environment after `.env` files; `None`: the process's own."""
    safe: bool = False
    """True for a configuration that its user did not write: no command, no project code."""

    @property
    def kind(self) -> str:
        """The provider's name, under the word that other harnesses use."""
        return self.provider


ProviderFactory: TypeAlias = Callable[[ResolvedTarget], Any]
"""Takes a target; returns a provider, a chat model, or a plain function."""
