"""The question that is asked once before a target's first call: is what it needs there?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from muster.provider import ProviderUnavailable
from muster.providers.cli_command import Command
from muster.providers.cli_settings import HealthCheckSettings
from muster.providers.process import run_process

__all__ = ("HealthCheck",)

_MAX_OUTPUT = 1 << 20


class HealthCheck:
    """Asks once, and remembers the answer; calls that come meanwhile wait for it."""

    def __init__(
        self,
        settings: HealthCheckSettings,
        target: str,
        env: Mapping[bytes, bytes],
        cwd: Path,
        mask: Callable[[str], str],
    ) -> None:
        self._settings = settings
        self._target = target
        self._env = env
        self._cwd = cwd
        self._mask = mask
        self._fault: str | None = None
        self._asked = False
        self._lock = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ensure(self) -> None:
        """Return if it is healthy.

        Raises:
            ProviderUnavailable: it is not; a retry would be told the same.
        """
        if not self._asked:
            async with self._lock_of_this_loop():
                if not self._asked:
                    self._fault = await self._find_fault()
                    self._asked = True
        if self._fault is not None:
            raise ProviderUnavailable(
                self._mask(f'healthcheck of target "{self._target}" failed: {self._fault}'),
                retryable=False,
            )

    def _lock_of_this_loop(self) -> asyncio.Lock:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._lock = loop, asyncio.Lock()
        return self._lock

    async def _find_fault(self) -> str | None:
        if self._settings.url is not None:
            return await _fault_of_url(self._settings.url, self._settings.timeout_seconds)
        assert self._settings.command is not None
        command = Command(self._settings.command, allowed=())
        return await self._fault_of_command(command)

    async def _fault_of_command(self, command: Command) -> str | None:
        timeout = self._settings.timeout_seconds
        try:
            done = await run_process(
                command.argv({}, ()),
                env=self._env,
                cwd=self._cwd,
                timeout=timeout,
                max_stdout=_MAX_OUTPUT,
            )
        except (OSError, ValueError) as error:
            return f"`{command.text}` cannot be started: {error}"
        if done.stopped == "timeout":
            return f"`{command.text}` did not end within {timeout:g} s"
        if done.stopped == "stdout":
            return f"`{command.text}` wrote more than {_MAX_OUTPUT:,} bytes"
        if done.exit_code != 0:
            said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
            return f"`{command.text}` exited with code {done.exit_code}: {said[-1000:]}"
        return None


async def _fault_of_url(url: str, timeout: float) -> str | None:
    import aiohttp

    limit = aiohttp.ClientTimeout(total=timeout)
    try:
        async with aiohttp.ClientSession(timeout=limit) as session, session.get(url) as answer:
            return None if answer.ok else f"{url} answered with status {answer.status}"
    except TimeoutError:
        return f"{url} did not answer within {timeout:g} s"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return f"{url} cannot be reached: {str(error) or type(error).__name__}"
