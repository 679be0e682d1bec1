"""What watches the calls of a run: the recorder, the response cache, the tracer.

They are chosen before targets are opened, since they stand within the targets' wrappers, and start
when the run does: before that, nothing is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from muster.capabilities import Capabilities
from muster.config.project import Project
from muster.config.secrets import Masker
from muster.evals.recording import Recorder
from muster.evals.results import CaseResult
from muster.exchange import OCCASION, plain_response
from muster.provider import Provider, ProviderRequest, ProviderResponse
from muster.providers.presets import ALIASES, PRESETS
from muster.target import ResolvedTarget
from muster.wrappers.base import Wrapper
from muster.wrappers.cache import Cached
from muster.wrappers.record import Record, record_row
from muster.wrappers.trace import Traced, TracedTry

if TYPE_CHECKING:
    from muster.evals.tracing import Tracer
    from muster.store.responses import ResponseCache

__all__ = ("Instruments", "as_judge", "cache_file")

CACHE_FILE = "responses.sqlite"

_SEEN_THROUGH = frozenset({"anthropic", "http", *PRESETS, *ALIASES})
"""Providers whose answers depend on their settings and the request alone, as far as anybody can
say: services that are asked."""


_MODELS = frozenset({"anthropic", "litellm", "mock", *PRESETS, *ALIASES})
"""Providers of which each call is one of a chat model."""


class Instruments:
    """What a run puts around its targets; without any, the providers stay as they are."""

    def __init__(self, *, recorder: Recorder | None = None, tracer: Tracer | None = None) -> None:
        self.recorder = recorder
        self.tracer = tracer
        self.cache: ResponseCache | None = None
        """Made when the first suite wants it."""
        self._uncached: dict[str, str] = {}

    @property
    def watching(self) -> bool:
        """Whether anything must know who asks."""
        return any(kept is not None for kept in (self.recorder, self.cache, self.tracer))

    def layers(self, *, caching: bool) -> _Layers | None:
        """What stands within the wrappers of a suite's targets; `None`: nothing."""
        if self.recorder is None and self.tracer is None and not caching:
            return None
        return _Layers(self, caching)

    def is_cacheable(self, target: ResolvedTarget, builtin: bool) -> bool:
        """Whether the cache may keep the target's answers; if not, it is remembered."""
        if target.cacheable is not None:
            return target.cacheable
        if builtin and target.provider in _SEEN_THROUGH:
            return True
        self._uncached[target.name] = target.provider
        return False

    def not_cached(self) -> list[str]:
        """A line for each target that the cache leaves alone though nobody has said so."""
        return [
            f'target "{name}" is not cached: answers of provider {kind} may depend on what the '
            "cache cannot see; if they do not, say `cacheable: true` in its entry"
            for name, kind in self._uncached.items()
        ]

    def start(self, folder: Path, masker: Masker) -> None:
        """The run in `folder` begins. Raises `MusterError` when something cannot be written."""
        if self.recorder is not None:
            self.recorder.open(folder, masker)
        if self.cache is not None:
            self.cache.open()
        if self.tracer is not None:
            self.tracer.start(folder.name, masker)

    def check(self) -> None:
        """Raise `MusterError` when something could not be written."""
        if self.recorder is not None:
            self.recorder.check()

    def result(self, result: CaseResult) -> None:
        """A case has ended, and its result is on disk."""
        if self.tracer is not None:
            self.tracer.result(result)

    def close(self) -> list[str]:
        """The run has ended; what went wrong that does not spoil its results."""
        trouble = []
        if self.tracer is not None and (lost := self.tracer.close()):
            trouble.append(lost)
        if self.cache is not None:
            self.cache.close()
            trouble += [self.cache.trouble] if self.cache.trouble else []
        if self.recorder is not None:
            self.recorder.close()
        return trouble


@dataclass(frozen=True, slots=True)
class _Layers:
    instruments: Instruments
    caching: bool

    def each_try(self, provider: Provider, target: ResolvedTarget) -> Provider:
        """`provider`, innermost: each call of it is one try."""
        recorder = self.instruments.recorder
        if recorder is not None:
            provider = Record(provider, target.name, target.provider, recorder.note)
        tracer = self.instruments.tracer
        if tracer is not None and target.provider in _MODELS:
            provider = TracedTry(
                provider, target, lambda: tracer.run, tracer.emit, content=tracer.content
            )
        return provider

    def whole(
        self,
        provider: Provider,
        target: ResolvedTarget,
        capabilities: Capabilities,
        *,
        builtin: bool,
    ) -> Provider:
        """`provider`, with its retries and fallbacks: each call of it is one question."""
        cache = self.instruments.cache
        if self.caching and cache is not None and self.instruments.is_cacheable(target, builtin):
            provider = Cached(provider, target, capabilities, cache, self._on_hit(target))
        tracer = self.instruments.tracer
        if tracer is not None:
            provider = Traced(
                provider, target, lambda: tracer.run, tracer.emit, content=tracer.content
            )
        return provider

    def _on_hit(
        self, target: ResolvedTarget
    ) -> Callable[[ProviderRequest, ProviderResponse, float], None] | None:
        recorder = self.instruments.recorder
        if recorder is None:
            return None

        def on_hit(request: ProviderRequest, response: ProviderResponse, took_ms: float) -> None:
            row = record_row(target.name, target.provider, request)
            row |= {"duration_ms": round(took_ms, 3), "cached": True}
            recorder.note(row | {"response": plain_response(response)})

        return on_hit


def cache_file(asked: Path | None, project: Project) -> Path:
    """Where answers are cached: a file, or a file in a folder that is there."""
    if asked is None:
        return project.root / ".muster" / "cache" / CACHE_FILE
    return asked / CACHE_FILE if asked.is_dir() else asked


class _Judge(Wrapper):
    """A target that is asked by graders."""

    __slots__ = ()

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        occasion = OCCASION.get()
        if occasion is None or occasion.judging:
            return await self.provider.invoke(request)
        token = OCCASION.set(replace(occasion, judging=True))
        try:
            return await self.provider.invoke(request)
        finally:
            OCCASION.reset(token)


def as_judge(open_target: Callable[[str], Provider]) -> Callable[[str], Provider]:
    """`open_target`, for graders: what they ask is told apart from what is measured."""
    opened: dict[str, Provider] = {}

    def open_judge(name: str) -> Provider:
        judge = opened.get(name)
        if judge is None:
            judge = opened[name] = _Judge(open_target(name))
        return judge

    return open_judge
