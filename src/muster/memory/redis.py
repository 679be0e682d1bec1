"""Memory on a Redis or Valkey server.

Key layout: one stream per agent, `muster:memory:<agent>`, each entry with the one field `text`.
The entries' ids are the server's own time, which tells what is too old; the stream is trimmed with
every entry, and the whole key expires when nothing is added for the time to live.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from muster.errors import MusterError
from muster.memory.base import MemoryFailed

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ("RedisMemory",)

PREFIX = "muster:memory:"
TIMEOUT_SECONDS = 10.0


class RedisMemory:
    """The newest texts of each agent, in streams; see `MemoryStore`."""

    def __init__(
        self, url: str, *, ttl_seconds: float | None = None, max_entries: int | None = None
    ) -> None:
        """Raises MusterError when the package is missing or the URL is none."""
        if importlib.util.find_spec("redis") is None:
            raise MusterError(
                'memory with backend "redis" needs the package redis: '
                'pip install "muster-ai[redis]"'
            )
        from redis.asyncio import Redis

        try:
            self._redis: Redis = Redis.from_url(
                url,
                decode_responses=True,
                socket_timeout=TIMEOUT_SECONDS,
                socket_connect_timeout=TIMEOUT_SECONDS,
            )
        except ValueError as error:
            raise MusterError(f"the URL of the Redis server is none: {error}") from None
        self._ttl = ttl_seconds or None
        self._max = max_entries or None

    async def recall(self, agent: str, query: str, limit: int) -> list[str]:
        """See `MemoryStore`: the newest, oldest first."""
        if limit <= 0:
            return []
        try:
            since = await self._since()
            entries: Any = await self._redis.xrevrange(
                PREFIX + agent, max="+", min=since or "-", count=limit
            )
        except _errors() as error:
            raise MemoryFailed(f"Redis: {error}") from error
        return [fields["text"] for _, fields in reversed(entries)]

    async def remember(self, agent: str, text: str) -> None:
        """See `MemoryStore`."""
        key = PREFIX + agent
        try:
            since = await self._since()
            async with self._redis.pipeline(transaction=True) as batch:
                whole = text.encode("utf-8", "replace").decode()
                batch.xadd(key, {"text": whole}, maxlen=self._max, approximate=False)
                if since is not None and self._ttl is not None:
                    batch.xtrim(key, minid=since, approximate=False)
                    batch.pexpire(key, int(self._ttl * 1000) + 1)
                await batch.execute()
        except _errors() as error:
            raise MemoryFailed(f"Redis: {error}") from error

    async def aclose(self) -> None:
        """See `MemoryStore`."""
        await self._redis.aclose()

    async def _since(self) -> str | None:
        """The id of the oldest entry that still counts, by the server's clock."""
        if self._ttl is None:
            return None
        seconds, micros = await self._redis.time()
        return str(max(int(seconds * 1000 + micros / 1000 - self._ttl * 1000), 0))


def _errors() -> tuple[type[Exception], ...]:
    from redis.exceptions import RedisError

    return (RedisError, OSError)
