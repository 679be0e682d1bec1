"""One rule's view of a provider: a fresh environment, a fresh provider, and ways to ask it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from muster.capabilities import Capabilities, capabilities_of
from muster.importing import describe_failure
from muster.provider import Provider, ProviderError, ProviderRequest, ProviderResponse
from muster.providers.create import as_provider
from muster.tasks import look_at
from muster.testing.environment import Environment
from muster.testing.outcome import Broken, NotApplicable
from muster.testing.script import Call, Reply
from muster.testing.subject import Reflects, Subject, Way

__all__ = ("OTHER_LOOP", "PATIENCE", "Trial", "shown", "until")

PATIENCE = 15.0
"""Seconds for one answer; the environment itself needs milliseconds."""
STEP = 0.004
LONGEST_ERROR = 200
OTHER_LOOP = re.compile(
    r"(bound|attached) to a different (event )?loop|event loop is closed", re.IGNORECASE
)
"""What asyncio and its libraries say of things that belong to another event loop."""

_log = logging.getLogger(__name__)
_numbers = itertools.count(1)


class Trial:
    """What a rule works with. Used as `async with`, it closes the provider at the end."""

    def __init__(self, rule: str, subject: Subject, environment: Environment) -> None:
        self.rule = rule
        """Its id; every request carries it as its `eval_case_id`."""
        self.subject = subject
        self.way: Way = subject.way or "never"
        """Who calls the environment."""
        self.environment = environment
        self._provider: Provider | None = None
        self._made: list[Provider] = []

    async def __aenter__(self) -> Trial:
        return self

    async def __aexit__(self, *_: object) -> None:
        for provider in self._made:
            await close(provider)

    @property
    def provider(self) -> Provider:
        """The provider of this rule, made at the first use."""
        if self._provider is None:
            self._provider = self.make()
        return self._provider

    def make(self, *, closed: bool = True) -> Provider:
        """Another one; with `closed` it is closed when the rule ends."""
        found = as_provider(self.subject.factory(self.environment), name=self.subject.name)
        if closed:
            self._made.append(found)
        return found

    @property
    def served(self) -> bool:
        """The environment is called."""
        return self.way != "never"

    @property
    def calls(self) -> list[Call]:
        """What reached the environment."""
        return self.environment.calls

    @property
    def last(self) -> Call:
        """The last of `calls`."""
        if not self.calls:
            raise Broken("the question did not reach the environment: no call was made")
        return self.calls[-1]

    @property
    def capabilities(self) -> Capabilities:
        """What the provider says of itself."""
        return capabilities_of(self.provider)

    # --- asking ---

    async def ask(
        self, question: str = "Are you ready?", *, provider: Provider | None = None, **fields: Any
    ) -> ProviderResponse:
        """The answer to a question that is in order. No answer breaks the rule."""
        request = ProviderRequest(question=question, **fields)
        try:
            return await self.answer_to(request, provider)
        except ProviderError as error:
            raise Broken(f"refused a question that is in order: {shown(error)}") from None

    async def answer_to(
        self, request: ProviderRequest, provider: Provider | None = None
    ) -> ProviderResponse:
        """The answer, or the `ProviderError`; anything else breaks the rule."""
        asked = provider or self.provider
        request = replace(request, eval_case_id=self.rule)
        task = asyncio.ensure_future(asked.invoke(request))
        task.add_done_callback(look_at)  # it may end when nobody waits for it any more
        try:
            done, _ = await asyncio.wait({task}, timeout=PATIENCE)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            task.cancel()
            await asyncio.wait({task}, timeout=1.0)
            raise Broken(f"no answer within {PATIENCE:g} s")
        try:
            response = task.result()
        except ProviderError:
            raise
        except asyncio.CancelledError:
            raise Broken("the call cancelled itself, unasked") from None
        except Exception as error:
            raise Broken(f"raised {describe_failure(error)}, which is no ProviderError") from error
        if not isinstance(response, ProviderResponse):
            raise Broken(f"answered with {type(response).__name__}, not with a ProviderResponse")
        return response

    async def failure_of(
        self, request: ProviderRequest, provider: Provider | None = None
    ) -> ProviderError:
        """The error that the provider must raise; an answer breaks the rule."""
        try:
            response = await self.answer_to(request, provider)
        except ProviderError as error:
            return error
        raise Broken(f"answered as if nothing were wrong: {quoted(response.text)}")

    async def chunks_of(
        self, question: str = "Are you ready?", **fields: Any
    ) -> tuple[ProviderResponse, list[str]]:
        """The answer to a question that wants a stream, and the pieces that came."""
        chunks: list[str] = []
        response = await self.ask(question, on_chunk=chunks.append, **fields)
        return response, chunks

    # --- when a rule does not apply ---

    def need_calls(self) -> None:
        """The rule is about what a service does."""
        if not self.served:
            raise NotApplicable("it calls no service")

    def need_own_calls(self) -> None:
        """The rule is about the provider's own calls to a service."""
        self.need_calls()
        if self.way == "behind":
            raise NotApplicable("it does not call the service itself")

    async def need_streams(self) -> None:
        """The rule is about streams: does the provider ask for them?"""
        self.need_calls()
        if not await self.streams():
            raise NotApplicable("it asks the service for no stream")

    async def streams(self) -> bool:
        """Whether it asks the service for a stream when somebody listens."""
        if not self.served:
            return False
        before, script = len(self.calls), self.environment.script
        self.environment.script = lambda call: Reply("ready")
        try:
            await self.chunks_of()
        finally:
            self.environment.script = script
        found = any(call.stream for call in self.calls[before:])
        if not found and self.capabilities.streaming and self.way == "itself":
            raise Broken("it declares `streaming`, but asked the service for no stream")
        return found

    def need_reflection(self, what: Reflects) -> None:
        """For a provider that calls nobody: its answer must show what it got."""
        if what not in self.subject.reflects:
            name = what.replace("_", " ")
            raise NotApplicable(f"it calls no service, and its answer does not repeat the {name}")


def word() -> str:
    """A word that stands nowhere else."""
    return f"marker{next(_numbers):04d}x"


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for `condition`, at most so long; whether it came true."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= end:
            return False
        await asyncio.sleep(STEP)
    return True


async def close(provider: object) -> None:
    """Close it if it can be closed; how it does so is another rule's concern."""
    aclose = getattr(provider, "aclose", None)
    if aclose is None:
        return
    try:
        async with asyncio.timeout(PATIENCE):
            await aclose()
    except Exception as error:
        _log.debug("closing failed: %s", error)


def shown(error: BaseException) -> str:
    """An error in one line; what it says of another event loop is not cut off."""
    text = str(error)
    loop = OTHER_LOOP.search(text)
    if loop is not None and loop.end() > LONGEST_ERROR:
        text = f"{text[:110]}… {text[loop.start() :]}"
    return f"{type(error).__name__}: {quoted(text, LONGEST_ERROR)}"


def quoted(text: str, length: int = 80) -> str:
    """The beginning of a text, in one line."""
    text = " ".join(text.split())
    return f'"{text}"' if len(text) <= length else f'"{text[: length - 1]}…"'
