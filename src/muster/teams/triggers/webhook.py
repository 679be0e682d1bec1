"""The webhooks' HTTP: `POST /triggers/{namespace}/{name}/fire`.

Who asks for an event that is not there, is no webhook, or is not theirs gets one and the same
answer, so that names cannot be tried out. The body is read before anything is known about the
event, for the same reason.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from muster.errors import MusterError
from muster.store.records import CANCELLED, SUCCEEDED
from muster.teams.definition import Event
from muster.teams.triggers import state as states
from muster.teams.triggers.dispatch import Cause, Dispatcher, Stopping
from muster.teams.triggers.durations import parse_duration, shown_duration
from muster.teams.triggers.log import EventLog
from muster.teams.triggers.signatures import header_of, is_signed, same_secret, signed_at
from muster.teams.triggers.state import Fire

__all__ = ("MAX_BODY", "WebhookServer")

MAX_BODY = 1024 * 1024
READ_SECONDS = 30.0
SYNC_SECONDS = 60.0
MOST_SYNC_SECONDS = 300.0
MAX_KEY = 255


class _Answer(Exception):
    """An answer that is not the usual one."""

    def __init__(self, status: int, error: str, log: str | None = None, **headers: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.log = log or error
        self.headers = headers


@dataclass(frozen=True, slots=True)
class _Mode:
    sync: bool = False
    timeout: float = SYNC_SECONDS


class WebhookServer:
    """Answers for the webhook events of a server. Start it, and close it."""

    def __init__(
        self,
        events: Mapping[str, Event],
        tokens: Mapping[str, str],
        dispatcher: Dispatcher,
        log: EventLog,
        *,
        host: str,
        allow_hosts: Iterable[str] = (),
    ) -> None:
        self._events = events
        self._tokens = tokens
        self._dispatcher = dispatcher
        self._log = log
        self._host = host
        self._hosts = {"localhost", host.lower(), *(name.lower() for name in allow_hosts)}
        self._nobodys = secrets.token_hex(32)
        self._runner: web.ServerRunner | None = None

    async def start(self, port: int) -> int:
        """Listen; the port, which the system chooses for 0. Raises `MusterError`."""
        server = web.Server(self._handle, access_log=None, auto_decompress=False)
        runner = web.ServerRunner(server, shutdown_timeout=2.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, port).start()
        except OSError as error:
            await runner.cleanup()
            raise MusterError(
                f"cannot listen on {self._host}:{port}: {error.strerror or error}"
            ) from None
        self._runner = runner
        return int(runner.addresses[0][1])

    def use(self, events: Mapping[str, Event], tokens: Mapping[str, str]) -> None:
        """Answer for these from now on."""
        self._events = events
        self._tokens = tokens

    async def stop_listening(self) -> None:
        """No new connections; answers under way go on."""
        if self._runner is not None:
            for site in list(self._runner.sites):
                await site.stop()

    async def close(self) -> None:
        """Close what is still open."""
        if self._runner is not None:
            await self._runner.cleanup()

    # --- one request ---

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        name: str | None = None
        try:
            self._check_host(request)
            name = _event_name(request)
            return await self._fire(request, name)
        except _Answer as answer:
            known = name if name in self._events else None
            self._log.line("refused", event=known, text=f"{answer.status} {answer.log}")
            return _json(answer.status, {"error": answer.error}, answer.headers)
        except Stopping as error:
            return _json(503, {"error": str(error)}, {"Retry-After": "10"})
        except MusterError as error:
            self._log.line("error", event=name, text=str(error))
            return _json(500, {"error": "fire failed: the server's log says why"})

    def _check_host(self, request: web.BaseRequest) -> None:
        """A page in a browser must not reach us under a name that its owner points here."""
        given = request.headers.get("Host", "")
        host = given.rpartition("]")[0].lstrip("[") if given.startswith("[") else ""
        host = (host or given.partition(":")[0]).lower().rstrip(".")
        if host in self._hosts:
            return
        try:
            ip_address(host)
        except ValueError:
            raise _Answer(403, "host not allowed", f'host "{given[:80]}" not allowed') from None

    async def _fire(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        body = await _read(request)
        event = self._authorized(request, name, body)
        if event.suspended:
            raise _Answer(503, "trigger is suspended")
        data = _parsed(request, body)
        mode = _mode(request)
        if mode.sync and len(event.targets) != 1:
            raise _Answer(
                400,
                f"sync mode requires exactly one target team; {name} has {len(event.targets)}",
            )
        key = _key(request, event, body)
        cause = Cause(
            data={"body": data},
            key=key,
            may_come_again=True,
            body_hash=_digest(body),
            text="webhook",
        )
        began = time.monotonic()
        fire = await self._dispatcher.fire(event, cause)
        if fire.is_repeat and fire.body_hash != cause.body_hash:
            raise _Answer(422, f"{event.idempotency_header} was used before with another body")
        if fire.status != states.STARTED:
            return _not_fired(fire)
        if mode.sync:
            return await self._synchronous(fire, mode.timeout, began)
        told = {
            "fired": True,
            "firedAt": fire.fired_at,
            "trigger": event.name,
            "targets": len(event.targets),
            "runs": list(fire.runs),
        }
        return _json(202, told)

    def _authorized(self, request: web.BaseRequest, name: str, body: bytes) -> Event:
        event = self._events.get(name)
        if event is not None and event.signature is not None:
            given = request.headers.get(header_of(event.signature), "")
            if is_signed(event.signature, given, body, time.time()):
                return event
            raise _Answer(401, "unauthorized", f"{header_of(event.signature)} is not good")
        good = same_secret(
            _token(request, event), self._tokens[name] if event is not None else self._nobodys
        )
        if event is None:
            told = f"there is no webhook event {name[:80]!r}"
            raise _Answer(401, "unauthorized", told)
        if not good:
            raise _Answer(401, "unauthorized", "the token is missing or wrong")
        return event

    async def _synchronous(self, fire: Fire, timeout: float, began: float) -> web.StreamResponse:
        (run_id,) = fire.runs
        run = await self._dispatcher.outcome(run_id, timeout)
        took = round((time.monotonic() - began) * 1000)
        told: dict[str, Any] = {"run": run_id, "durationMs": took}
        if run is None:
            waited = shown_duration(timeout)
            error = f"timed out after {waited} waiting for flow to complete"
            return _json(504, {"error": error, **told})
        if run.status == SUCCEEDED:
            return _json(200, {"status": "succeeded", "output": run.output or "", **told})
        error = run.error or ("cancelled" if run.status == CANCELLED else "flow failed")
        return _json(500, {"status": "failed", "error": error, "reason": run.reason, **told})


# --- reading a request --------------------------------------------------------------------------


def _event_name(request: web.BaseRequest) -> str:
    parts = request.rel_url.raw_path.split("/")
    if len(parts) != 5 or parts[1] != "triggers" or parts[4] != "fire" or not all(parts[1:]):
        raise _Answer(404, "not found", f"no such path: {request.rel_url.raw_path[:200]}")
    if request.method != "POST":
        raise _Answer(405, "method not allowed", Allow="POST")
    return unquote(parts[3])


async def _read(request: web.BaseRequest) -> bytes:
    parts: list[bytes] = []
    size = 0
    if (request.content_length or 0) > MAX_BODY:
        raise _Answer(413, f"the body is larger than {MAX_BODY} bytes", Connection="close")
    try:
        async with asyncio.timeout(READ_SECONDS):
            async for chunk in request.content.iter_any():
                parts.append(chunk)
                size += len(chunk)
                if size > MAX_BODY:
                    raise _Answer(
                        413, f"the body is larger than {MAX_BODY} bytes", Connection="close"
                    )
    except TimeoutError:
        raise _Answer(
            408, f"the body did not come within {READ_SECONDS:g} s", Connection="close"
        ) from None
    return b"".join(parts)


def _token(request: web.BaseRequest, event: Event | None) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    if event is not None and event.query_token:
        return request.query.get("token", "")
    return ""


def _parsed(request: web.BaseRequest, body: bytes) -> dict[str, Any]:
    """The body's JSON object; `{}` if there is no body."""
    if not body:
        return {}
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise _Answer(415, "a compressed body is not taken")
    kind = request.content_type
    if kind != "application/json" and not kind.endswith("+json"):
        raise _Answer(415, f"expected Content-Type application/json, found {kind[:80]}")
    try:
        data = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _Answer(400, f"the body is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise _Answer(400, f"expected a JSON object, found a {type(data).__name__}")
    return data


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _mode(request: web.BaseRequest) -> _Mode:
    mode = request.query.get("mode", "async")
    if mode == "async":
        return _Mode()
    if mode != "sync":
        raise _Answer(400, f'mode: expected sync or async, found "{mode[:40]}"')
    if "timeout" not in request.query:
        return _Mode(sync=True)
    try:
        seconds = parse_duration(request.query["timeout"][:40])
    except ValueError as error:
        raise _Answer(400, f"timeout: {error}") from None
    return _Mode(sync=True, timeout=min(seconds, MOST_SYNC_SECONDS))


def _key(request: web.BaseRequest, event: Event, body: bytes) -> str | None:
    given = request.headers.get(event.idempotency_header, "").strip()
    if len(given) > MAX_KEY:
        raise _Answer(400, f"{event.idempotency_header} is longer than {MAX_KEY} characters")
    if given:
        return f"key:{given}"
    signature = event.signature
    if signature is not None and signature.scheme == "stripe":
        # The sender signs the time as well, and never the same twice: that would be a replay.
        return f"signed:{signed_at(request.headers[header_of(signature)])}:{_digest(body)}"
    return None


# --- answers ------------------------------------------------------------------------------------


def _not_fired(fire: Fire) -> web.Response:
    told = {"fired": False, "trigger": fire.event, "error": fire.reason or ""}
    if fire.status == states.SKIPPED:
        return _json(409, told)
    return _json(422, told | {"error": f"fire failed: {fire.reason}"})


def _json(
    status: int, told: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> web.Response:
    text = json.dumps(told, ensure_ascii=False)
    given = {"Server": "muster", "Cache-Control": "no-store", **(headers or {})}
    return web.Response(status=status, text=text, content_type="application/json", headers=given)
