"""A manifest's events, served inside the test, with real HTTP on loopback.

    async with Up(tmp_path, HOOK) as up:
        status, body = await up.post("hook", {"topic": "bees"})

The teams `t` and `u` have one agent. It is asked `{{ .input.say }}`: `hold` waits until the test
opens `up.gate`, `fail` fails, all else is answered in capitals.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from muster.provider import ProviderFailed, ProviderRequest, ProviderResponse
from muster.providers import providers
from muster.store.journal import Journal, journal_path
from muster.store.records import RunRecord
from muster.teams.preparing import LaunchOptions
from muster.teams.triggers.clock import Clock
from muster.teams.triggers.served import UpOptions, read_events
from muster.teams.triggers.server import serve

__all__ = ("SECRET", "TOKEN", "Up", "event", "manifest")

TOKEN = "a-token-of-the-test-that-is-long"

TEAM = """
apiVersion: muster.dev/v1alpha1
kind: Team
metadata: {name: %s}
spec:
  input: {say: hello}
%s  roles: [{name: say, model: gated-1, provider: gated, systemPrompt: Say it.}]
  pipeline: [{role: say, inputs: {prompt: "{{ .input.say }}"}}]
---
"""
SECRET = f"""
apiVersion: v1
kind: Secret
metadata: {{name: hook-webhook-token}}
stringData: {{token: {TOKEN}}}
"""


def event(name: str, source: str, targets: str = "{team: t}", more: str = "") -> str:
    """The document of an event."""
    return (
        f"---\napiVersion: muster.dev/v1alpha1\nkind: Event\nmetadata: {{name: {name}}}\n"
        f"spec:\n  source: {source}\n  targets: [{targets}]\n  {more}\n"
    )


def manifest(*documents: str, more: str = "") -> str:
    """Two teams, the token of `hook`, and these documents; `more` are fields of the teams."""
    return TEAM % ("t", more) + TEAM % ("u", more) + SECRET + "".join(documents)


class Gated:
    """Answers, fails, or waits to be let go on."""

    gate: asyncio.Event
    asked: list[str]

    def __init__(self, target: Any) -> None:
        pass

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        said = request.question.removeprefix("prompt:").strip()
        Gated.asked.append(said)
        if said.startswith("hold"):
            await Gated.gate.wait()
        if said.startswith("fail"):
            raise ProviderFailed("it was told to fail", retryable=False)
        return ProviderResponse(said.upper())


class Up:
    """The server of a manifest, and requests to it."""

    def __init__(
        self, folder: Path, text: str | None, *, clock: Clock | None = None, **options: Any
    ) -> None:
        self.folder = folder
        (folder / ".muster").mkdir(exist_ok=True)
        self.file = folder / "team.yaml"
        if text is not None:
            self.file.write_text(text)
        self.options = UpOptions(
            launch=LaunchOptions(file=self.file), port=0, as_json=True, **options
        )
        self.lines: list[dict[str, Any]] = []
        self._waiters: set[asyncio.Event] = set()
        self._clock = clock
        self.stop, self.hurry = asyncio.Event(), asyncio.Event()
        self.gate = asyncio.Event()
        self.url = ""
        self.interrupted: int | None = None

    async def __aenter__(self) -> Self:
        Gated.gate, Gated.asked = self.gate, []
        providers.register("gated", Gated, override=True)
        served = read_events(self.options)
        self._task = asyncio.ensure_future(
            serve(served, self._write, stop=self.stop, hurry=self.hurry, clock=self._clock)
        )
        for name in served.events:
            await self.line("serving", event=name)
        listening = [line["text"] for line in self.lines if line["outcome"] == "listening"]
        self.url = listening[0] if listening else ""
        self.session = aiohttp.ClientSession()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.end()
        await self.session.close()

    async def done(self) -> int:
        """The end that it comes to by itself."""
        return await self._task

    async def end(self, *, at_once: bool = False) -> int:
        """Stop it; how many runs were interrupted."""
        if self.interrupted is None:
            self.stop.set()
            if at_once:
                self.hurry.set()
            else:
                self.gate.set()
            self.interrupted = await asyncio.wait_for(self._task, 20)
        return self.interrupted

    def _write(self, text: str) -> None:
        self.lines.append(json.loads(text))
        for waiter in list(self._waiters):
            waiter.set()

    async def line(self, outcome: str, count: int = 1, **wanted: Any) -> dict[str, Any]:
        """The `count`th line with this outcome, when it has come."""
        waiter = asyncio.Event()
        self._waiters.add(waiter)
        try:
            async with asyncio.timeout(10):
                while len(found := self.found(outcome, **wanted)) < count:
                    if self._task.done():
                        self._task.result()
                    waiter.clear()
                    ended = asyncio.ensure_future(waiter.wait())
                    await asyncio.wait((ended, self._task), return_when="FIRST_COMPLETED")
                    ended.cancel()
        finally:
            self._waiters.discard(waiter)
        return found[count - 1]

    def found(self, outcome: str, **wanted: Any) -> list[dict[str, Any]]:
        """The lines with this outcome."""
        return [
            line
            for line in self.lines
            if line["outcome"] == outcome
            and all(line.get(name) == value for name, value in wanted.items())
        ]

    async def post(
        self,
        name: str,
        body: Any = None,
        *,
        query: str = "",
        token: str | None = TOKEN,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        path: str | None = None,
        method: str = "POST",
    ) -> tuple[int, dict[str, Any]]:
        """Fire the event `name`: the status, and the answer's JSON."""
        sent = {"Content-Type": "application/json", **(headers or {})}
        if token is not None and "Authorization" not in sent:
            sent["Authorization"] = f"Bearer {token}"
        if data is None and body is not None:
            data = json.dumps(body).encode()
        url = self.url + (path or f"/triggers/default/{name}/fire{query}")
        async with self.session.request(method, url, data=data, headers=sent) as answer:
            return answer.status, await answer.json()

    def journal(self) -> Journal:
        return Journal.open(journal_path(self.folder))

    def runs(self) -> list[RunRecord]:
        """All runs, the earliest first."""
        with self.journal() as journal:
            return journal.runs()[::-1]

    @property
    def asked(self) -> list[str]:
        """What the agent was asked."""
        return Gated.asked
