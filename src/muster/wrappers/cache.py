"""Answers that are there already are not asked for again.

The key is made of everything that may change an answer: Muster's version, the kind of provider and
all its settings (of secrets their digests), the variables that it may read, the whole request with
the content of its files, case and repeat, and the how-manieth time the case asks the very same.
What is not told by these, such as what a command reads, cannot be seen; such targets are only
cached when their entry says `cacheable: true`.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any, Protocol

from muster import __version__
from muster.capabilities import Capabilities
from muster.exchange import OCCASION, canonical, plain_request, plain_response, response_of
from muster.provider import Provider, ProviderRequest, ProviderResponse
from muster.target import ResolvedTarget, Secret
from muster.wrappers.base import Wrapper

__all__ = ("Cached", "ResponseStore")

FORM = 1
"""Raised when what is kept, or what the key is made of, changes."""

_FAMILIES = ("AGENT", "ANTHROPIC", "AZURE", "GEMINI", "GOOGLE", "OPENAI")
"""Whose variables model APIs read."""


class ResponseStore(Protocol):
    """Where answers are kept."""

    def get(self, key: bytes, /) -> Mapping[str, Any] | None:
        """What is kept under `key`."""
        ...

    def put(self, key: bytes, plain: Mapping[str, Any], /) -> None:
        """Keep it."""
        ...


class Cached(Wrapper):
    """Answers from `store` what it has answered before.

    Outermost, around retries and fallbacks: a hit waits for no limit. Kept are answers, never
    errors, and only the target's own, not those of a fallback. Not asked of the store, nor kept,
    are requests with tools that somebody calls, for what those do is not seen, and with files that
    cannot be read. `hit` is told of each answer from the store.
    """

    __slots__ = ("_about", "_hit", "_store")

    def __init__(
        self,
        provider: Provider,
        target: ResolvedTarget,
        capabilities: Capabilities,
        store: ResponseStore,
        hit: Callable[[ProviderRequest, ProviderResponse, float], None] | None = None,
    ) -> None:
        super().__init__(provider)
        self._about = _digest_of_target(target, capabilities)
        self._store = store
        self._hit = hit

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """The answer that is there, marked as `cached`, or the provider's."""
        begun = time.perf_counter()
        key = self._key(request)
        if key is None:
            return await self.provider.invoke(request)
        found = self._found(key)
        if found is not None:
            if request.on_chunk is not None and found.text:
                request.on_chunk(found.text)
            if self._hit is not None:
                self._hit(request, found, (time.perf_counter() - begun) * 1000)
            return found
        begun = time.perf_counter()
        response = await self.provider.invoke(request)
        self._keep(key, response, (time.perf_counter() - begun) * 1000)
        return response

    def _key(self, request: ProviderRequest) -> bytes | None:
        if request.call_tool is not None:
            return None
        plain = plain_request(request)
        if None in plain.get("files", {}).values():
            return None
        # An address that is shortened for the reader is not for the key.
        images = [image.source for image in request.images]
        asked = hashlib.sha256(self._about + canonical([plain, images])).digest()
        occasion = OCCASION.get()
        if occasion is None:
            return asked
        about = [occasion.eval_path or occasion.suite, occasion.test_id, occasion.prompt]
        # Two targets of the same settings are asked each: else they would never differ.
        about += [occasion.target, str(occasion.repeat), str(occasion.judging)]
        asked = hashlib.sha256(asked + canonical(about)).digest()
        times = occasion.seen.get(asked, 0)
        occasion.seen[asked] = times + 1
        return hashlib.sha256(asked + str(times).encode()).digest()

    def _found(self, key: bytes) -> ProviderResponse | None:
        plain = self._store.get(key)
        if plain is None:
            return None
        try:
            return replace(response_of(plain), cached=True)
        except (TypeError, ValueError):
            return None

    def _keep(self, key: bytes, response: ProviderResponse, duration_ms: float) -> None:
        if response.target_used is not None:
            return
        plain = plain_response(response)
        raw = response.raw
        if isinstance(raw, Mapping) and "workspace" in raw and "raw" not in plain:
            return  # graders would miss what was done there
        plain.setdefault("duration_ms", round(duration_ms, 3))
        self._store.put(key, plain)


def _digest_of_target(target: ResolvedTarget, capabilities: Capabilities) -> bytes:
    about = {
        "form": FORM,
        "muster": __version__,
        "provider": target.provider,
        "config": _with_digests(target.config),
        "base_dir": str(target.base_dir),
        "timeout": target.timeout_seconds,
        "capabilities": asdict(capabilities),
        "env": _variables(target),
    }
    return hashlib.sha256(canonical(about)).digest()


def _with_digests(value: object) -> object:
    """Settings with each secret's digest in its place."""
    if isinstance(value, Secret):
        return {"sha256": hashlib.sha256(str(value).encode("utf-8", "surrogatepass")).hexdigest()}
    if isinstance(value, Mapping):
        return {str(key): _with_digests(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_digests(item) for item in value]
    return value


def _variables(target: ResolvedTarget) -> dict[str, str]:
    """Digests of the variables that the provider may complete its settings from."""
    env = os.environ if target.env is None else target.env
    own = re.sub(r"\W+", "_", target.provider).upper()
    prefixes = tuple(f"{family}_" for family in (*_FAMILIES, own, own.split("_")[0]) if family)
    return {
        name: hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
        for name, value in env.items()
        if name.startswith(prefixes)
    }
