"""Programs that stay: started when they are needed, asked one line at a time, ended with the run.

Each works on one case at a time, so there are as many as cases are graded at once. An answer names
the case that it is for: a line too many must not become the verdict on the next case.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from muster.evals.graders.base import GraderError
from muster.evals.graders.programs import (
    MAX_OUTPUT,
    cannot_start,
    decoded,
    encoded,
    program_name,
    tail,
)
from muster.providers.stdio_process import LineProcess

__all__ = ("Workers",)

_FAREWELL_SECONDS = 2.0
"""How long a program has to end when its input has."""


class Workers:
    """The processes of one command. Close them with `aclose`."""

    def __init__(self, argv: Sequence[str], env: Mapping[bytes, bytes], cwd: Path) -> None:
        self._argv = list(argv)
        self._name = program_name(argv)
        self._env = env
        self._cwd = cwd
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._number = 0

    async def ask(self, told: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """What one of them says about a case. One that has died after it had answered others is
        replaced, and the case is put to the next.

        Raises:
            GraderError: it cannot be started, dies, takes too long, or does not keep to the
                protocol.
        """
        while True:
            worker = self._take()
            fresh = worker.answered == 0
            self._number += 1
            number = self._number
            try:
                line = encoded({"id": number, **told}) + b"\n"
                data = await worker.ask(line, timeout)
            except _Died as died:
                await self._drop(worker)
                if died.may_try_again and not fresh:
                    continue
                raise GraderError(f"{self._name}: {died}{tail(bytes(worker.stderr))}") from None
            except BaseException:
                await self._drop(worker)
                raise
            try:
                answer = decoded(data, self._name, bytes(worker.stderr))
                if answer.pop("id", None) != number:
                    raise GraderError(
                        f"{self._name}: the answer does not repeat the id {number} of the "
                        "case; each case is answered by one line, and nothing else is written to "
                        "standard output"
                    )
            except GraderError:
                await self._drop(worker)
                raise
            self._idle.append(worker)
            return answer

    async def aclose(self) -> None:
        """End all of them."""
        workers, self._all, self._idle = list(self._all), set(), []
        await asyncio.gather(*(worker.stop(_FAREWELL_SECONDS) for worker in workers))

    def _take(self) -> _Worker:
        while self._idle:
            worker = self._idle.pop()
            if not worker.ended.done():
                return worker
            self._all.discard(worker)
        worker = _Worker(asyncio.get_running_loop(), MAX_OUTPUT)
        try:
            worker.start(self._argv, self._env, self._cwd)
        except (OSError, ValueError) as error:
            raise GraderError(cannot_start(self._argv, self._cwd, error)) from None
        self._all.add(worker)
        return worker

    async def _drop(self, worker: _Worker) -> None:
        self._all.discard(worker)
        worker.kill()


class _Died(Exception):
    """The process cannot be asked any more."""

    def __init__(self, reason: str, *, may_try_again: bool = False) -> None:
        super().__init__(reason)
        self.may_try_again = may_try_again


class _Worker(LineProcess):
    """One process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, max_line_bytes: int) -> None:
        super().__init__(loop, max_line_bytes)
        self.answered = 0
        self._answer: asyncio.Future[bytes] | None = None
        self._broken: _Died | None = None

    async def ask(self, line: bytes, timeout: float) -> bytes:
        """The line that it answers with. Raises `_Died`."""
        if self._broken is not None:
            raise self._broken
        self._answer = self.loop.create_future()
        self.write(line)
        try:
            async with asyncio.timeout(timeout):
                answer = await self._answer
        except TimeoutError:
            raise _Died(f"no answer within {timeout:g} s") from None
        finally:
            self._answer = None
        self.answered += 1
        return answer

    def on_line(self, line: bytes) -> None:
        """An answer, or a line that nobody asked for."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(line)
        elif line.strip():
            shown = line[:100].decode("utf-8", "replace")
            self._fail(_Died(f"it wrote a line that answers no case: {shown}"))

    def on_long_line(self, head: bytes, tail: bytes | None) -> bool:
        """An answer that is too long."""
        self._fail(_Died(f"its answer is longer than {MAX_OUTPUT // 1_000_000} MB"))
        return True

    def on_broken(self, reason: str) -> None:
        """It does not listen, or does not speak, any more."""
        self._fail(_Died(f"it {reason}", may_try_again=True))

    def on_exit(self) -> None:
        """It is gone."""
        code = self.exit_code
        how = f"exit code {code}" if code >= 0 else f"signal {-code}"
        self._fail(_Died(f"it ended with {how} instead of an answer", may_try_again=True))

    def _fail(self, died: _Died) -> None:
        self._broken = self._broken or died
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(died)
