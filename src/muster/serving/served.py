"""The targets that are served, and what may be said of their failures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from muster.capabilities import Capabilities
from muster.config.secrets import Masker, environment_secrets, secret_values
from muster.errors import MusterError, nearest
from muster.provider import Provider, ProviderError
from muster.providers.chat import ChatProvider
from muster.target import ResolvedTarget
from muster.targets import TargetPool
from muster.wrappers.base import Wrapper
from muster.wrappers.fallback import Fallback

__all__ = ("Served", "ServedTargets", "tool_names")

MAX_MESSAGE = 2000
"""Characters of a failure's message that a client gets."""


@dataclass(frozen=True, slots=True)
class Served:
    """A target that is served."""

    name: str
    provider: Provider
    one_turn: bool
    """It is a chat model, so that a single turn can be asked of it: what it wants to call comes
    back uncalled. (Its fallback targets, if there are any, are chat models too.)"""
    capabilities: Capabilities


class ServedTargets:
    """Targets by name, opened from `pool`, which stays its owner's to close."""

    def __init__(
        self,
        pool: TargetPool,
        names: Iterable[str],
        *,
        env: Mapping[str, str],
        secrets: Iterable[str] = (),
    ) -> None:
        """Opens every target.

        Raises:
            MusterError: one cannot be made.
        """
        self._served = {name: _served(pool, name) for name in dict.fromkeys(names)}
        found = environment_secrets(env).union(secrets)
        for target in pool.resolved:
            found |= secret_values(target.config)
        self._masker = Masker(found)

    def __iter__(self) -> Iterator[Served]:
        return iter(self._served.values())

    @property
    def names(self) -> tuple[str, ...]:
        """In the order in which they were given."""
        return tuple(self._served)

    def find(self, name: str) -> Served | None:
        """The target called `name`, if it is served."""
        return self._served.get(name)

    def unknown(self, name: str) -> str:
        """What to say of a name that is not served."""
        near = nearest(name[:100], self._served)
        hint = f"near: {near[0]}; " if near else ""
        return f'no target "{name[:100]}" is served ({hint}served: {", ".join(self._served)})'

    def said(self, error: ProviderError) -> str:
        """The error's message, without secrets, of a length that fits an answer."""
        text = self.shown(error.message)
        return text if text.strip() else error.kind

    def shown(self, text: str) -> str:
        """`text` without secrets, cut to a length that fits an answer."""
        text = self._masker.mask(text)
        return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


def tool_names(names: Iterable[str]) -> dict[str, str]:
    """`ask_<target>` for each target, in the characters that tools' names may have.

    Raises:
        MusterError: two targets would get one name.
    """
    found: dict[str, str] = {}
    for name in names:
        tool = "ask_" + re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:60]
        if tool in found:
            raise MusterError(
                f'the targets "{found[tool]}" and "{name}" would both be the tool {tool}: '
                "serve them apart"
            )
        found[tool] = name
    return found


def _served(pool: TargetPool, name: str) -> Served:
    opened = pool.open(name)
    bare = _inside(opened.provider)
    one_turn = isinstance(bare, ChatProvider) and _fall_back_on_chat(pool, opened.resolved)
    return Served(name, opened.provider, one_turn, opened.capabilities)


def _inside(provider: Provider) -> Provider:
    """The provider within its wrappers; of a target with fallbacks, its own."""
    while True:
        if isinstance(provider, Wrapper):
            provider = provider.provider
        elif isinstance(provider, Fallback):
            provider = provider.targets[0][1]
        else:
            return provider


def _fall_back_on_chat(pool: TargetPool, target: ResolvedTarget) -> bool:
    for other in target.fallback_targets:
        try:
            provider = pool.open(other).provider
        except MusterError:
            return False  # told when it is asked to step in
        if not isinstance(_inside(provider), ChatProvider):
            return False
    return True
