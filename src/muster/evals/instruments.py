"""What watches the calls of a run: the recorder, the response cache, the tracer.

They are chosen before targets are opened, since they stand within the targets' wrappers, and start
when the run does: before that, nothing is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from muster.capabilities import Capabilities
from muster.config.secrets import Masker
from muster.evals.recording import Recorder
from muster.exchange import OCCASION
from muster.provider import Provider, ProviderRequest, ProviderResponse
from muster.target import ResolvedTarget
from muster.wrappers.base import Wrapper
from muster.wrappers.record import Record

__all__ = ("Instruments", "as_judge")


class Instruments:
    """The layers that a run puts into its targets; without any, the providers stay as they are."""

    def __init__(self, *, recorder: Recorder | None = None) -> None:
        self.recorder = recorder

    def __bool__(self) -> bool:
        return self.recorder is not None

    def each_try(self, provider: Provider, target: ResolvedTarget) -> Provider:
        """`provider`, innermost: each call of it is one try."""
        if self.recorder is not None:
            provider = Record(provider, target.name, target.provider, self.recorder.note)
        return provider

    def whole(
        self, provider: Provider, target: ResolvedTarget, capabilities: Capabilities
    ) -> Provider:
        """`provider`, with its retries and fallbacks: each call of it is one question."""
        return provider

    def start(self, folder: Path, masker: Masker) -> None:
        """The run in `folder` begins. Raises `MusterError` when something cannot be written."""
        if self.recorder is not None:
            self.recorder.open(folder, masker)

    def check(self) -> None:
        """Raise `MusterError` when something could not be written."""
        if self.recorder is not None:
            self.recorder.check()

    def close(self) -> None:
        """The run has ended."""
        if self.recorder is not None:
            self.recorder.close()


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
