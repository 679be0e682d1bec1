"""The HTTP of notices: one POST, and a second one when the first was in vain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from muster.teams.definition import NotifyChannel
from muster.tools.network_guard import AddressRefused, Guard

if TYPE_CHECKING:
    import aiohttp

__all__ = ("SendFailed", "Sender")

SECONDS = 10.0
"""For one attempt."""

PAUSE = 0.5
"""Before the second attempt."""

_PORTS = {"http": 80, "https": 443}


class SendFailed(Exception):
    """It could not be sent; the text holds nothing of the URL but its host."""

    def __init__(self, text: str, *, try_again: bool = False) -> None:
        super().__init__(text)
        self.try_again = try_again


class Sender:
    """Sends; its connections stay in the open network, or with hosts that a channel allows."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[str, ...], tuple[Guard, aiohttp.ClientSession]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        sessions, self._sessions = self._sessions, {}
        for _, session in sessions.values():
            await session.close()

    async def send(self, channel: NotifyChannel, body: Mapping[str, Any]) -> None:
        """POST the body as JSON. Raises `SendFailed`."""
        try:
            await self._once(channel, body)
        except SendFailed as error:
            if not error.try_again:
                raise
            await asyncio.sleep(PAUSE)
            await self._once(channel, body)

    async def _once(self, channel: NotifyChannel, body: Mapping[str, Any]) -> None:
        import aiohttp

        guard, session = self._session(channel.allow_hosts)
        host = _checked(guard, channel.url)
        headers = {"Content-Type": "application/json", **channel.headers}
        data = json.dumps(dict(body), ensure_ascii=False).encode("utf-8", "replace")
        try:
            async with (
                asyncio.timeout(SECONDS),
                session.post(
                    channel.url, data=data, headers=headers, allow_redirects=False
                ) as response,
            ):
                status = response.status
        except TimeoutError:
            raise SendFailed(f"{host}: no answer within {SECONDS:g} s", try_again=True) from None
        except aiohttp.ClientConnectorError as error:
            cause = error.os_error
            refused = isinstance(cause, AddressRefused)
            text = str(cause) if refused else f"{host}: cannot be reached ({cause.strerror})"
            raise SendFailed(text, try_again=not refused) from None
        except (aiohttp.ClientError, OSError) as error:
            raise SendFailed(f"{host}: {type(error).__name__}", try_again=True) from None
        except ValueError:
            raise SendFailed(f"{host}: the URL or a header cannot be sent") from None
        if not 200 <= status < 300:
            again = status >= 500 or status == 429
            raise SendFailed(f"{host}: answered {status}", try_again=again)

    def _session(self, allow: tuple[str, ...]) -> tuple[Guard, aiohttp.ClientSession]:
        if allow not in self._sessions:
            import aiohttp

            guard = Guard(allow)
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(resolver=guard.resolver()),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
            self._sessions[allow] = guard, session
        return self._sessions[allow]


def _checked(guard: Guard, url: str) -> str:
    """The URL's host. Raises `SendFailed`: it may not be asked."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise SendFailed("the channel's URL is none") from None
    if parts.scheme not in _PORTS or not host:
        raise SendFailed("the channel's URL is not an http or https URL")
    try:
        guard.check(host, port or _PORTS[parts.scheme])
    except AddressRefused as error:
        raise SendFailed(str(error)) from None
    return host
