"""One child: its start, its end, and when it is time for that.

What is said between the two is in `stdio_calls`.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Protocol

import msgspec

from muster.provider import ProviderError, ProviderFailed, ProviderUnavailable
from muster.providers import stdio_messages as wire
from muster.providers.exits import ending
from muster.providers.stdio_calls import ChildSpec, Conversation, line_text
from muster.providers.stdio_memory import resident_bytes

__all__ = ("Child", "Owner")

CANCEL_SECONDS = 5.0
"""How long a child that takes few calls at once may hold the place of a cancelled one."""

FAREWELL_SECONDS = 2.0
"""Between `shutdown` and TERM."""

MEMORY_SECONDS = 0.2
"""Between two looks at a child's memory."""


class Owner(Protocol):
    """Whoever has the children."""

    def child_has_room(self) -> None:
        """A child can take another call."""
        ...

    def child_is_gone(self, child: Child) -> None:
        """It takes no calls any more, and has failed those that it had."""
        ...

    def end_later(self, work: Coroutine[Any, Any, None]) -> None:
        """Have `work`, which ends a child, done."""
        ...


class Child(Conversation):
    """A child, from its start to its end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, spec: ChildSpec, owner: Owner) -> None:
        super().__init__(loop, spec)
        self.about: wire.Initialized | None = None
        self.retired = False
        """It takes no calls any more."""
        self._owner = owner
        self._leaving = False
        self._pinged = False
        self._timers: list[asyncio.TimerHandle] = []

    # --- its life ---

    def begin(self) -> None:
        """Start the process.

        Raises:
            OSError: it cannot be started.
        """
        spec = self.spec
        try:
            self.start(spec.argv, spec.env, spec.cwd)
        except OSError as error:
            if error.errno != errno.ENOEXEC or spec.shell_argv is None:
                raise
            self.start(spec.shell_argv, spec.env, spec.cwd)
        if spec.memory_limit is not None:
            self._watch_memory(spec.memory_limit)

    async def initialize(self) -> wire.Initialized:
        """Introduce ourselves, and hear who the child is.

        Raises:
            ProviderError: it ends, or says what makes no sense.
        """
        answer = await self.ask("initialize", self.spec.initialize)
        if answer.error:
            raise self.error_in(answer.error, "refuses `initialize`")
        # The version first: another one may look different in the rest.
        version = self.read(_Version, answer.result, "the answer to `initialize`").protocol_version
        if version != wire.PROTOCOL_VERSION:
            raise ProviderFailed(
                self.told(
                    f"speaks version {version} of the protocol, Muster speaks "
                    f"{wire.PROTOCOL_VERSION}"
                )
            )
        about = self.read(wire.Initialized, answer.result, "the answer to `initialize`")
        self.about = about
        if self.spec.ping_seconds is not None:
            self._later(self.spec.ping_seconds, self._look_alive)
        return about

    async def shut_down(self) -> None:
        """Ask it to end, and see to it that it does."""
        self.retired = self._leaving = True
        self.fail_all("was ended")
        if self.about is not None and self._reason is None:
            self.tell("shutdown")
        await self.stop(FAREWELL_SECONDS if self._reason is None else 0.0)

    def retire(self) -> None:
        """Take no more calls, and end when those under way are done."""
        if not self.retired:
            self.retired = True
            self._owner.child_is_gone(self)
        if not self.load and not self._leaving:
            self._leaving = True
            self._owner.end_later(self.shut_down())

    @property
    def has_room(self) -> bool:
        """Whether it takes another call now."""
        if self.retired or self.about is None:
            return False
        bound = self.about.max_in_flight
        return bound is None or self.load + len(self._cancelled) < bound

    def on_over(self) -> None:
        if not self.retired:
            self._owner.child_has_room()
        elif not self.has_failed:
            self.retire()

    def on_cancelled(self, number: int) -> None:
        if self.about is not None and self.about.max_in_flight is not None:
            self._later(CANCEL_SECONDS, partial(self._look_cancelled, number))

    def on_given_up(self) -> None:
        if not self.retired:
            self.retired = True
            self._owner.child_is_gone(self)

    def on_unreliable(self) -> None:
        self._owner.end_later(self.stop(0.0))

    def _look_cancelled(self, number: int) -> None:
        if number in self._cancelled and not self.retired:
            self.retire()

    def on_exit(self) -> None:
        for timer in self._timers:
            timer.cancel()
        if self._reason is None:
            reason = f"ended with {ending(self.exit_code)}"
            kind: type[ProviderError] = ProviderFailed
            if self.about is None:
                kind = ProviderUnavailable
                reason += " before it answered `initialize`"
            if self.half_line:
                reason += f", in the middle of a line: {line_text(self.half_line)}"
            if not self.retired or self._calls or self._asked:
                self.give_up(kind, reason)
        self._reason = self._reason or "is gone"

    # --- what is looked at from time to time ---

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        now = self.loop.time()
        self._timers = [
            timer for timer in self._timers if not timer.cancelled() and timer.when() > now
        ]
        self._timers.append(self.loop.call_later(seconds, work))

    def _watch_memory(self, limit: int) -> None:
        if self._reason is not None:
            return
        used = resident_bytes(self.pid)
        if used > limit:
            reason = (
                f"was ended: it held {used / 1e6:,.0f} MB, more than memory_limit_mb "
                f"({limit / 1e6:,.0f})"
            )
            self.give_up(ProviderFailed, reason)
            self._owner.end_later(self._kill_now())
            return
        self._later(MEMORY_SECONDS, partial(self._watch_memory, limit))

    async def _kill_now(self) -> None:
        self.kill()

    def _look_alive(self) -> None:
        """Called each `ping_seconds`: has it said anything since?"""
        seconds = self.spec.ping_seconds
        assert seconds is not None
        if self._reason is not None:
            return
        if self._pinged and self.silent:
            self._break(f"did not answer `ping` within {seconds:g} s")
            return
        self._pinged = self.silent and bool(self._calls)
        if self._pinged:
            self.tell("ping")
        self.silent = True
        self._later(seconds, self._look_alive)


class _Version(msgspec.Struct):
    protocol_version: int
