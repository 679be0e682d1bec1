"""Lets a grader's program ask the judge: a server on loopback, one for a run.

A program gets its URL and a token that is good for one case and a number of calls; what the calls
cost is the judge's. No key of the judge leaves this process.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from pydantic import Field

from muster.config.validation import FileModel
from muster.evals.graders.base import GradeContext, GraderError
from muster.provider import ProviderRequest

if TYPE_CHECKING:
    from aiohttp import web

    from muster.serving.http import HttpServer

__all__ = ("ProxyAccess", "ProxySettings", "proxy_access")

MAX_CALLS = 50
_MAX_BODY = 4 << 20
_MAX_BATCH = 100


class ProxySettings(FileModel):
    """Whom a program may ask, and how often."""

    name: Annotated[str, Field(min_length=1)] | None = None
    """The target that is asked; by default the one that judges the case."""
    max_calls: Annotated[int, Field(ge=1, le=10_000)] = MAX_CALLS
    """For one case."""


class ProxyAccess(msgspec.Struct, frozen=True):
    """What a program needs to ask."""

    url: str
    token: str

    def variables(self) -> dict[str, str]:
        """As environment variables, under the names that AgentV's kits read too."""
        return {
            f"{prefix}_{name}": value
            for prefix in (
                "MUSTER_PROVIDER_PROXY",
                "AGENTV_PROVIDER_PROXY",
                "AGENTV_TARGET_PROXY",
            )
            for name, value in (("URL", self.url), ("TOKEN", self.token))
        }


@asynccontextmanager
async def proxy_access(
    settings: ProxySettings, context: GradeContext
) -> AsyncIterator[ProxyAccess]:
    """Access for one case; it ends with this block.

    Raises:
        GraderError: there is no judge.
    """
    if context.judges is None:
        raise GraderError("there is nobody to ask")
    if context.scope is not None:
        proxy, ours = context.scope.keep((JudgeProxy,), JudgeProxy), False
    else:
        proxy, ours = JudgeProxy(), True
    try:
        async with proxy.admitted(settings, context) as access:
            yield access
    finally:
        if ours:
            await proxy.aclose()


class _Client(msgspec.Struct):
    """A program at work on one case."""

    settings: ProxySettings
    context: GradeContext
    calls: int = 0

    @property
    def target(self) -> str:
        assert self.context.judges is not None
        return self.context.judges.name(self.settings.name)


class JudgeProxy:
    """The server. Close it with `aclose`."""

    def __init__(self) -> None:
        self._clients: dict[str, _Client] = {}
        self._starting: asyncio.Task[tuple[HttpServer, str]] | None = None

    async def aclose(self) -> None:
        """Stop it; nobody should ask any more."""
        if self._starting is not None:
            server, _ = await self._starting
            await server.stop(0)

    @asynccontextmanager
    async def admitted(
        self, settings: ProxySettings, context: GradeContext
    ) -> AsyncIterator[ProxyAccess]:
        """Let one program ask about one case."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
        _, url = await asyncio.shield(self._starting)
        client = _Client(settings, context)
        assert context.judges is not None
        context.judges.name(settings.name)  # raises when there is none
        token = secrets.token_urlsafe(32)
        self._clients[token] = client
        try:
            yield ProxyAccess(url, token)
        finally:
            del self._clients[token]

    async def _start(self) -> tuple[HttpServer, str]:
        from muster.serving.http import HttpServer, HttpSettings

        settings = HttpSettings(token=None, max_body=_MAX_BODY, max_connections=256)
        server = HttpServer(self._answer, settings, tell=lambda _: None)
        port = await server.start()
        return server, f"http://127.0.0.1:{port}"

    async def _answer(self, server: HttpServer, request: web.BaseRequest) -> web.StreamResponse:
        from muster.serving.answers import json_response
        from muster.serving.refusal import Refusal

        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        client = self._clients.get(token.strip()) if scheme.lower() == "bearer" else None
        if client is None:
            raise Refusal(
                401,
                "expected the header `Authorization: Bearer TOKEN` with the token of a case that "
                "is being graded",
                kind="authentication_error",
                code="invalid_api_key",
                close=True,
            )
        route = (request.method, request.path.rstrip("/"))
        if route == ("GET", "/info"):
            answer: Any = _info(client)
        elif route == ("POST", "/invoke"):
            answer = await self._invoke(client, _decoded(await server.read(request)))
        elif route == ("POST", "/invokeBatch"):
            answer = await self._batch(client, _decoded(await server.read(request)))
        else:
            raise Refusal(
                404,
                f"nothing is at {request.method} {request.path[:80]}; there are GET /info, "
                "POST /invoke and POST /invokeBatch",
                code="not_found",
            )
        return json_response(msgspec.json.encode(answer, enc_hook=str))

    async def _batch(self, client: _Client, body: dict[str, Any]) -> dict[str, Any]:
        from muster.serving.refusal import Refusal

        wanted = body.get("requests")
        if not isinstance(wanted, list) or not all(isinstance(one, dict) for one in wanted):
            raise Refusal(400, "requests is a list of objects", param="requests")
        if len(wanted) > _MAX_BATCH:
            raise Refusal(400, f"up to {_MAX_BATCH} requests at a time", param="requests")
        left = client.settings.max_calls - client.calls
        if len(wanted) > left:
            raise _used_up(client)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._told(client, one)) for one in wanted]
        return {"responses": [task.result() for task in tasks]}

    async def _told(self, client: _Client, body: dict[str, Any]) -> dict[str, Any]:
        """As `_invoke`; one that is refused does not lose the others."""
        from muster.serving.refusal import Refusal

        try:
            return await self._invoke(client, body)
        except Refusal as refusal:
            return refusal.error

    async def _invoke(self, client: _Client, body: dict[str, Any]) -> dict[str, Any]:
        from muster.serving.refusal import Refusal

        question = body.get("question")
        if not isinstance(question, str) or not question:
            raise Refusal(400, "question is a text that is not empty", param="question")
        system = body.get("systemPrompt", body.get("system_prompt"))
        if system is not None and not isinstance(system, str):
            raise Refusal(400, "systemPrompt is a text", param="systemPrompt")
        target = body.get("target")
        if target not in (None, client.target):
            text = f'only "{client.target}" may be asked here'
            raise Refusal(403, text, param="target", code="target_not_allowed")
        if client.calls >= client.settings.max_calls:
            raise _used_up(client)
        client.calls += 1
        context = client.context
        assert context.judges is not None
        request = ProviderRequest(
            question=question, system_prompt=system, eval_case_id=context.case.id
        )
        try:
            response = await context.judges.ask(request, client.settings.name)
        except GraderError as error:
            raise Refusal(502, str(error), kind="server_error", code="target_failed") from None
        output = [message.to_dict() for message in response.output]
        usage = response.token_usage
        return {
            "output": output,
            "outputMessages": output,
            "rawText": response.text,
            "tokenUsage": None if usage is None else usage.to_dict(),
            "costUsd": response.cost_usd,
        }


def _used_up(client: _Client) -> Exception:
    from muster.serving.refusal import Refusal

    text = f"max_calls: {client.settings.max_calls} calls for one case are used up"
    return Refusal(429, text, code="max_calls_exceeded", headers={"x-should-retry": "false"})


def _info(client: _Client) -> dict[str, Any]:
    return {
        "targetName": client.target,
        "availableTargets": [client.target],
        "maxCalls": client.settings.max_calls,
        "callCount": client.calls,
    }


def _decoded(data: bytes) -> dict[str, Any]:
    from muster.serving.refusal import Refusal

    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refusal(400, f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Refusal(400, "the body is a JSON object")
    return value
