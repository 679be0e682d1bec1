"""`stdio`: a child process that stays, in any language, and answers one request after the other.

    - name: agent
      provider: stdio
      command: python agent.py
      settings: {model: small}

The child is started when it is needed, and speaks JSON-RPC over its standard input and output:
`docs/providers/stdio-protocol.md`. Settings and failures are in `docs/providers/stdio.md`.
"""

from __future__ import annotations

import asyncio
import os
import time

from muster import __version__
from muster.capabilities import Capabilities
from muster.provider import (
    BadProviderOutput,
    BadRequest,
    LimitExceeded,
    Message,
    ProviderRequest,
    ProviderResponse,
)
from muster.providers import stdio_messages as wire
from muster.providers.cli_command import Command
from muster.providers.settings import located, refuse_if_safe, secrets_in
from muster.providers.stdio_calls import Call, ChildSpec
from muster.providers.stdio_child import Child
from muster.providers.stdio_pool import ChildPool
from muster.providers.stdio_settings import StdioSettings
from muster.providers.stdio_tools import heard
from muster.target import ResolvedTarget
from muster.tasks import stop_tasks

__all__ = ("StdioProvider",)

_MASK = "**********"
_SHOWN_COMMAND = 160

_UNKNOWN = Capabilities()


class StdioProvider:
    """Asks children of one command. Loop-safe: each event loop has children of its own."""

    Settings = StdioSettings

    def __init__(self, target: ResolvedTarget) -> None:
        """Raises `MusterError` with `--safe`, and `pydantic.ValidationError` for wrong settings."""
        refuse_if_safe(target, "it runs a command")
        settings = StdioSettings.model_validate(target.config)
        command = Command(settings.command, allowed=())
        self._secrets = tuple(secret for secret in secrets_in(target.config) if secret)
        shown = self._masked(command.text)
        if len(shown) > _SHOWN_COMMAND:
            shown = f"{shown[: _SHOWN_COMMAND - 1]}…"
        limit = settings.memory_limit_mb
        text = isinstance(settings.command, str)
        self._settings = settings
        self._base_dir = target.base_dir.resolve()
        self._spec = ChildSpec(
            target=target.name,
            shown=shown,
            argv=command.argv({}, []),
            shell_argv=command.shell_argv({}, []) if text else None,
            env=settings.environment(os.environ if target.env is None else target.env),
            cwd=located(target, settings.cwd or ".", "cwd"),
            initialize=wire.encode(
                wire.Initialize(
                    wire.PROTOCOL_VERSION,
                    wire.Client("muster", __version__),
                    target.name,
                    settings.settings,
                )
            ),
            masked=self._masked,
            max_line_bytes=settings.max_line_bytes,
            ping_seconds=settings.ping_seconds,
            memory_limit=None if limit is None else int(limit * 1e6),
        )
        self._name = target.name
        self._declared = target.capabilities
        self._capabilities = _UNKNOWN
        self._pools: dict[asyncio.AbstractEventLoop, ChildPool] = {}

    @property
    def capabilities(self) -> Capabilities:
        """What the child has said it can do; nothing is known before the first was started."""
        return self._capabilities

    async def ready(self) -> Capabilities:
        """Start a child, if there is none, and hear what it can do. Raises `ProviderError`."""
        child = await self._pool().take()
        child.release()
        return self._capabilities

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """Ask a child; a `ProviderError` says how it failed."""
        seconds = request.limits.max_seconds
        if seconds is None:
            return await self._invoke(request)
        try:
            async with asyncio.timeout(seconds):
                return await self._invoke(request)
        except TimeoutError:
            raise LimitExceeded(
                f"stopped: it took longer than max_seconds ({seconds:g} s) allows"
            ) from None

    async def aclose(self) -> None:
        """End the children: those of this loop are asked to, those of loops that are closed are
        killed."""
        here = asyncio.get_running_loop()
        pool = self._pools.pop(here, None)
        self._forget_closed_loops()
        if pool is not None:
            await pool.aclose()

    async def _invoke(self, request: ProviderRequest) -> ProviderResponse:
        started = time.perf_counter()
        params = self._params(request)
        child = await self._pool().take()
        try:
            self._check(request)
        except BadRequest:
            child.release()
            raise
        call = child.invoke(request, params)
        try:
            message = await call.answer
        finally:
            if not call.answer.done() or call.answer.cancelled():
                child.cancel(call)
            if call.tasks:
                await stop_tasks(call.tasks)
        return self._response(child, call, message, started)

    def _params(self, request: ProviderRequest) -> bytes:
        try:
            return wire.encode(wire.invoke_params(request, self._base_dir))
        except (NotImplementedError, TypeError, ValueError) as error:
            raise BadRequest(f"the request cannot be written as JSON: {error}") from error

    def _check(self, request: ProviderRequest) -> None:
        """Refuse what the child would pass over in silence, by its own word or that of the
        target's entry, which goes before it."""
        known = self._declared.over(self._capabilities)
        for name, what, asked in (
            ("tools", "tools", request.tools),
            ("history", "earlier messages", request.messages),
            ("files", "files", request.input_files),
            ("images", "images", request.images),
        ):
            if asked and getattr(known, name) is False:
                raise BadRequest(
                    f"the request has {what}, and the child says that it takes none; if it does, "
                    f'say `capabilities: {{{name}: true}}` in the entry of target "{self._name}"'
                )

    def _response(
        self, child: Child, call: Call, message: wire.Incoming, started: float
    ) -> ProviderResponse:
        if message.error:
            raise child.error_of(message.error)
        answer = child.answer_of(message.result)
        took = answer.duration_ms
        if took is None:
            took = (time.perf_counter() - started) * 1000
        try:
            response = ProviderResponse(
                _messages(answer, call),
                token_usage=wire.usage_of(answer.token_usage),
                cost_usd=answer.cost_usd,
                duration_ms=took,
                raw=answer.raw if answer.raw is None else self._masked_raw(answer.raw),
                finish_reason=answer.finish_reason,
                model=answer.model,
            )
        except ValueError as error:
            said = child.told(f"answered with messages that are wrong: {error}")
            raise BadProviderOutput(said, retryable=False) from error
        if not any(message.role == "assistant" for message in response.output):
            said = child.told("answered with no message of the assistant")
            raise BadProviderOutput(said, retryable=False)
        if call.request.on_chunk is not None and not call.streamed and response.text:
            heard(call.request, response.text)
        return response

    # --- children ---

    def _pool(self) -> ChildPool:
        loop = asyncio.get_running_loop()
        pool = self._pools.get(loop)
        if pool is None:
            self._forget_closed_loops()
            settings = self._settings
            pool = self._pools[loop] = ChildPool(
                loop,
                self._spec,
                size=settings.pool_size,
                idle_seconds=settings.idle_seconds,
                start_seconds=settings.start_timeout_seconds,
                on_started=self._started,
            )
        return pool

    def _forget_closed_loops(self) -> None:
        for loop, pool in list(self._pools.items()):
            if loop.is_closed():
                del self._pools[loop]
                pool.kill()

    def _started(self, about: wire.Initialized) -> None:
        self._capabilities = about.capabilities

    # --- secrets ---

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, _MASK)
        return text

    def _masked_raw(self, value: object) -> object:
        if not self._secrets:
            return value
        if isinstance(value, str):
            return self._masked(value)
        if isinstance(value, dict):
            return {self._masked(key): self._masked_raw(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._masked_raw(item) for item in value]
        return value


def _messages(answer: wire.Answer, call: Call) -> tuple[Message, ...]:
    """The answer's messages. With `text` alone, the tools that were called stand before it."""
    if answer.output is not None:
        return tuple(Message.from_mapping(row) for row in answer.output)
    assert answer.text is not None
    made = tuple(one for one in call.made if one is not None)
    last = Message("assistant", answer.text)
    return (Message("assistant", "", tool_calls=made), last) if made else (last,)
