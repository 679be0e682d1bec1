"""A proxy from its settings to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from muster.errors import UsageError
from muster.providers.transport import HttpClient
from muster.proxy.answers import UNLIMITED
from muster.proxy.cassette import CassetteWriter
from muster.proxy.chaos import Chaos
from muster.proxy.plan import load_plan
from muster.proxy.relay import Relay, Upstream
from muster.proxy.scrub import Scrubber
from muster.proxy.shelf import Shelf, UsedUp
from muster.proxy.tally import Tally
from muster.serving.http import HttpServer, HttpSettings

__all__ = ("ProxySettings", "RunningProxy", "base_url_of", "proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """What a proxy stands before, and what it does with what passes."""

    to: str | None = None
    """The server's base URL; `None`: only recorded answers."""
    port: int = 0
    record: Path | None = None
    replay: Path | None = None
    record_missing: bool = False
    timing: bool = False
    used_up: UsedUp = "error"
    chaos: Path | None = None
    seed: int | None = None
    max_body: int = 32 * 2**20
    allow_hosts: tuple[str, ...] = ()
    max_connections: int = 1000
    max_requests: int = 256
    secrets: Iterable[str] = ()
    """Values that a cassette must not hold, beside the keys in requests."""


@dataclass(slots=True)
class RunningProxy:
    """A proxy that answers."""

    base_url: str
    """What clients are given in place of the server's."""
    tally: Tally
    relay: Relay
    server: HttpServer

    async def stop(self, grace: float, hurry: asyncio.Event | None = None) -> int:
        """No new requests; how many of those under way were cut off."""
        self.relay.stopping = True
        return await self.server.stop(grace, hurry)


def base_url_of(text: str) -> str:
    """A base URL as it is used: without a slash at the end.

    Raises:
        UsageError: it is none.
    """
    try:
        parts = urlsplit(text)
        named = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        named = False
    if not named or any(mark.isspace() for mark in text):
        raise UsageError(f"--to: expected a base URL such as https://host/v1, found {text!r}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise UsageError("--to: a base URL has no password, query or fragment: clients send these")
    return text.rstrip("/")


@asynccontextmanager
async def proxy(
    settings: ProxySettings,
    *,
    tell: Callable[[str], None],
    emit: Callable[[dict[str, Any]], None] = lambda event: None,
) -> AsyncGenerator[RunningProxy]:
    """Run a proxy on loopback. Whoever leaves the block early cuts off what is under way.

    Raises:
        MusterError: a file or a setting is wrong, or nobody can listen there.
    """
    _check(settings)
    async with AsyncExitStack() as stack:
        relay = Relay(
            scrubber=Scrubber(settings.secrets),
            tally=Tally(emit),
            tell=tell,
            timing=settings.timing,
            max_body=settings.max_body,
        )
        if settings.chaos is not None:
            relay.chaos = Chaos(load_plan(settings.chaos), settings.seed)
        if settings.replay is not None:
            _open_shelf(relay, settings, stack)
        if settings.to is not None:
            client = HttpClient(max_body_bytes=UNLIMITED)
            stack.push_async_callback(client.aclose)
            relay.upstream = Upstream(base_url_of(settings.to), client)
        record = settings.replay if settings.record_missing else settings.record
        if record is not None:
            relay.writer = CassetteWriter(record)
            stack.callback(relay.writer.close)
            if relay.writer.torn:
                tell(f"{record}: the torn last line of an earlier recording was cut off")
        server = HttpServer(
            relay.answer,
            HttpSettings(
                port=settings.port,
                token=None,
                allow_hosts=settings.allow_hosts,
                max_connections=settings.max_connections,
                max_requests=settings.max_requests,
                max_body=settings.max_body,
            ),
            tell=tell,
        )
        port = await server.start()
        running = RunningProxy(f"http://127.0.0.1:{port}{_path(relay)}", relay.tally, relay, server)
        stack.push_async_callback(running.stop, 0)
        yield running


def _open_shelf(relay: Relay, settings: ProxySettings, stack: AsyncExitStack) -> None:
    assert settings.replay is not None
    if settings.record_missing and not settings.replay.exists():
        CassetteWriter(settings.replay).close()
    relay.shelf = Shelf(settings.replay, used_up=settings.used_up)
    stack.callback(relay.shelf.close)


def _path(relay: Relay) -> str:
    if relay.upstream is not None:
        return relay.upstream.path
    assert relay.shelf is not None
    return urlsplit(relay.shelf.to).path.rstrip("/")


def _check(settings: ProxySettings) -> None:
    if settings.record is not None and settings.to is None:
        raise UsageError("--record needs --to URL: without a server there is nothing to record")
    if settings.to is None and settings.replay is None:
        raise UsageError("a proxy needs --to URL, or --replay FILE to answer without a server")
    if settings.record is not None and settings.replay is not None:
        raise UsageError(
            "--record and --replay do not go together; "
            "--replay FILE --record-missing adds to FILE what is not in it"
        )
    if settings.record_missing and (settings.replay is None or settings.to is None):
        raise UsageError("--record-missing needs --replay FILE and --to URL")
    if settings.replay is not None and settings.to is not None and not settings.record_missing:
        raise UsageError(
            "--replay asks no server: leave out --to, or add --record-missing to ask for what "
            "is not recorded"
        )
    for given, name in (
        (settings.timing, "--replay-timing"),
        (settings.used_up != "error", "--used-up"),
    ):
        if given and settings.replay is None:
            raise UsageError(f"{name} needs --replay FILE")
    if settings.seed is not None and settings.chaos is None:
        raise UsageError("--seed needs --chaos PLAN")
