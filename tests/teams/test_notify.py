"""Notices of how runs ended: what is told, to whom, how often, and that no run suffers from it."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from team_parts import Ran, Said, run_async, says, write_team

from manual import ROOT, blocks_of
from muster.provider import (
    AuthenticationFailed,
    ProviderFailed,
    ProviderRequest,
    ProviderUnavailable,
)
from muster.teams import notify, notify_send
from raw_server import RawServer, Request, reply

STEPS = """
input: {topic: bees}
notifyRef: {name: people}
%s
roles: [{name: a, arkAgent: a}]
pipeline: [{role: a, inputs: {p: "{{ .input.topic }}"}}]
"""
SECRETS = """
apiVersion: v1
kind: Secret
metadata: {name: hooks}
stringData: {url: %s, key: a-secret-header-value}
---
"""
CHANNELS = """
apiVersion: muster.dev/v1alpha1
kind: Notify
metadata: {name: people}
spec:
  channels: [%s]
  %s
"""
FROM_SECRET = "{secretKeyRef: {name: hooks, key: %s}}"
SLACK = f"{{type: slack, webhookURLFrom: {FROM_SECRET % 'url'}, allowHosts: [127.0.0.1]}}"
WEBHOOK = (
    f"{{type: webhook, urlFrom: {FROM_SECRET % 'url'}, allowHosts: ['127.0.0.0/8'], "
    f"headers: [{{name: X-Key, valueFrom: {FROM_SECRET % 'key'}}}]}}"
)
OK = reply("ok")
EVENTS_PAGE = ROOT / "docs" / "events.md"


def written(
    folder: Path, server: RawServer, *, channels: str = WEBHOOK, notes: str = "", team: str = ""
) -> Path:
    """A team whose Notify sends to the server."""
    more = SECRETS % f"{server.url}/hook/T0KEN" + CHANNELS % (channels, notes)
    return write_team(folder, STEPS % team, more=more)


def bodies(server: RawServer) -> list[Any]:
    return [json.loads(request.body) for request in server.requests]


def warnings(ran: Ran) -> list[str]:
    return [event.text for event in ran.events if event.kind == "warning"]


def raises(error: Exception) -> Callable[[ProviderRequest], Said]:
    def script(request: ProviderRequest) -> Said:
        raise error

    return script


# --- what is told -------------------------------------------------------------------------------


async def test_a_webhook_is_told(tmp_path: Path) -> None:
    async with RawServer(OK) as server:
        ran = await run_async(written(tmp_path, server), lambda _: says("fine", 12))
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/hook/T0KEN")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["x-key"] == "a-secret-header-value"
    told = request.json()
    (shown,) = (block for block in blocks_of(EVENTS_PAGE) if '"TeamFailed"' in block.text)
    assert list(told) == list(json.loads(shown.text))
    assert told.pop("durationSeconds") < 5
    assert told.pop("startedAt") == ran.launched.run.started_at
    assert told.pop("endedAt") == ran.launched.run.ended_at
    assert told == {
        "event": "TeamSucceeded",
        "team": "t",
        "run": ran.id,
        "status": "succeeded",
        "reason": "Succeeded",
        "message": "succeeded",
        "text": f"TeamSucceeded: team t, run {ran.id}: succeeded",
        "agent": None,
        "trigger": None,
        "totalTokens": 12,
        "costUsd": None,
        "callsWithoutUsage": 0,
        "callsWithoutCost": 1,
    }
    assert warnings(ran) == []


async def test_slack_gets_a_text_that_calls_nobody(tmp_path: Path) -> None:
    async with RawServer(OK) as server:
        file = written(tmp_path, server, channels=SLACK)
        ran = await run_async(file, raises(ProviderFailed("<!channel> & you", retryable=False)))
    text = f'TeamFailed: team t, run {ran.id}: step "a": &lt;!channel&gt; &amp; you'
    assert bodies(server) == [{"text": text}]


async def test_all_channels_at_the_same_time(tmp_path: Path) -> None:
    together = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if len(server.requests) == 2:
            together.set()
        await together.wait()
        writer.write(OK)
        await writer.drain()

    server = RawServer(answer)
    async with server:
        ran = await run_async(written(tmp_path, server, channels=f"{SLACK}, {WEBHOOK}"))
    assert sorted(map(len, bodies(server))) == [1, 16]
    assert warnings(ran) == []


TIMED_OUT = "timeoutSeconds: 0.05"


async def _slow(request: ProviderRequest) -> Any:
    await asyncio.sleep(30)


@pytest.mark.parametrize(
    ("script", "team", "expected"),
    [
        (lambda _: "ok", "", "TeamSucceeded"),
        (raises(ProviderFailed("no", retryable=False)), "", "TeamFailed"),
        (_slow, TIMED_OUT, "TeamTimedOut"),
        (lambda _: "ok", "maxTokens: 1", "BudgetExceeded"),
        (lambda _: "ok", "limits: {maxDailyTokens: 1}", "DailyLimitReached"),
    ],
)
@pytest.mark.parametrize("subscribed", ["all", "failed"])
async def test_what_it_is_called(
    tmp_path: Path, script: Any, team: str, expected: str, subscribed: str
) -> None:
    """Under its own name; to those who only listen to failures, any failure is one."""
    notes = "" if subscribed == "all" else "on: [TeamFailed]"
    async with RawServer(OK) as server:
        await run_async(written(tmp_path, server, notes=notes, team=team), script)
    names = [body["event"] for body in bodies(server)]
    if subscribed == "all":
        assert names == [expected]
    else:
        assert names == ([] if expected == "TeamSucceeded" else ["TeamFailed"])


@pytest.mark.parametrize("error", [ProviderUnavailable("down"), AuthenticationFailed("no key")])
async def test_an_agent_that_is_out_of_order(tmp_path: Path, error: Exception) -> None:
    async with RawServer(OK) as server:
        await run_async(written(tmp_path, server, notes="on: [AgentDegraded]"), raises(error))
    (told,) = bodies(server)
    assert (told["event"], told["agent"]) == ("AgentDegraded", "a")
    assert told["message"] == f"agent a: {error}"


@pytest.mark.parametrize("reason", ["stopped", "cancelled"])
async def test_whoever_stops_a_run_knows_it(tmp_path: Path, reason: str) -> None:
    began, stop = asyncio.Event(), asyncio.Event()

    async def script(request: ProviderRequest) -> Any:
        began.set()
        await asyncio.sleep(30)

    async with RawServer(OK) as server:
        file = written(tmp_path, server)
        task = asyncio.ensure_future(run_async(file, script, stop=stop))
        await began.wait()
        if reason == "stopped":
            stop.set()
            task.cancel()
        else:
            with sqlite3.connect(tmp_path / ".muster" / "runs.db") as journal:
                journal.execute("UPDATE runs SET cancel_requested = 'now'")
        ran = await task
    assert ran.launched.run.status == {"stopped": "interrupted"}.get(reason, reason)
    assert server.requests == []


# --- in which words -----------------------------------------------------------------------------


async def test_the_templates_of_both_forms(tmp_path: Path) -> None:
    other = (
        "{{ .team.name }} {{ .run.name }} {{ .run.status.message }} {{ .run.status.failedStep }} "
        "{{ .run.status.totalTokenUsage.totalTokens }} {{ .run.spec.input.topic }} "
        '{{ printf \\"%d\\" (int .run.status.durationSeconds) }}{{ .run.dashboardUrl }}'
    )
    documented = "{{ .Event }} {{ .TeamName }} {{ .RunName }} {{ .Message }}"
    notes = f'template: "{documented} | {other}"'
    script = raises(ProviderFailed("no", retryable=False))
    async with RawServer(OK) as server:
        ran = await run_async(written(tmp_path, server, notes=notes), script)
    (told,) = bodies(server)
    why = 'step "a": no'
    assert told["text"] == f"TeamFailed t {ran.id} {why} | t {ran.id} {why} a 0 bees 0"
    assert told["message"] == why


async def test_the_other_form(tmp_path: Path) -> None:
    async with RawServer(OK) as server:
        spec = """
          channel:
            type: slack
            allowHosts: [127.0.0.1]
            slack: {webhookUrlSecretRef: {name: hooks, key: url}}
          events:
            - {type: TeamSucceeded, template: "well: {{ .team.name }}"}
            - {type: DailyLimitReached, template: "{{ .agent.name }} has had
                {{ .agent.status.dailyTokensUsed }} of {{ .agent.spec.limits.maxDailyTokens }},
                {{ .agent.status.budgetResetsInMinutes }} min"}
          rateLimiting: {windowSeconds: 300, maxPerWindow: 1}
        """
        head = CHANNELS.partition("spec:")[0] + "spec:\n"
        more = SECRETS % f"{server.url}/x" + head + spec
        file = write_team(tmp_path, STEPS % "", more=more)
        text = file.read_text().replace(
            "systemPrompt: Be good.", "systemPrompt: Be good., limits: {maxDailyTokens: 40}"
        )
        file.write_text(text)
        await run_async(file, lambda _: says("fine", 38))
        await run_async(file)
    assert bodies(server) == [
        {"text": "well: t"},
        {"text": "a has had 38 of 40, 1440 min"},
    ]


async def test_a_template_that_fails_is_replaced_by_the_usual_words(tmp_path: Path) -> None:
    notes = 'template: "{{ .run.nothing }}"'
    async with RawServer(OK) as server:
        ran = await run_async(written(tmp_path, server, notes=notes))
    (told,) = bodies(server)
    assert told["text"] == f"TeamSucceeded: team t, run {ran.id}: succeeded"
    (warning,) = warnings(ran)
    assert warning.startswith("warning: the usual text is sent, for: ")
    assert '.run has no "nothing"' in warning


async def test_secrets_are_masked(tmp_path: Path) -> None:
    script = raises(ProviderFailed("bad: a-secret-header-value", retryable=False))
    async with RawServer(OK) as server:
        ran = await run_async(written(tmp_path, server, channels=f"{SLACK}, {WEBHOOK}"), script)
    assert len(server.requests) == 2
    assert "a-secret-header-value" not in str(bodies(server))
    assert ran.launched.run.error == 'step "a": bad: **********'


# --- how often ----------------------------------------------------------------------------------


async def test_the_limit_is_by_team_and_event_and_outlives_the_process(tmp_path: Path) -> None:
    failing = raises(ProviderFailed("no", retryable=False))
    async with RawServer(OK) as server:
        file = written(tmp_path, server)
        for script in (failing, failing, lambda _: "ok", failing):
            ran = await run_async(file, script)
        assert warnings(ran) == ["not notified: TeamFailed: told within 300 s"]
        assert [body["event"] for body in bodies(server)] == ["TeamFailed", "TeamSucceeded"]
        with sqlite3.connect(tmp_path / ".muster" / "events.db") as state:
            state.execute("UPDATE notices SET at = '2020-01-01T00:00:00.000Z'")
        await run_async(file, failing)
    assert [body["event"] for body in bodies(server)][2:] == ["TeamFailed"]


@pytest.mark.parametrize(
    ("limit", "sent"), [("rateLimitSeconds: 0", 3), ("rateLimitSeconds: 9", 1)]
)
async def test_the_window(tmp_path: Path, limit: str, sent: int) -> None:
    async with RawServer(OK) as server:
        file = written(tmp_path, server, notes=limit)
        for _ in range(3):
            await run_async(file)
    assert len(server.requests) == sent


async def test_what_could_not_be_sent_does_not_count(tmp_path: Path) -> None:
    async with RawServer([reply("no", status=403), OK]) as server:
        file = written(tmp_path, server)
        ran = await run_async(file)
        assert warnings(ran) == ["not notified: TeamSucceeded to webhook: 127.0.0.1: answered 403"]
        assert warnings(await run_async(file)) == []
    assert len(server.requests) == 2


# --- when it goes wrong -------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 429])
async def test_one_more_attempt(
    tmp_path: Path, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify_send, "PAUSE", 0.01)
    bad = reply("no", status=status)
    async with RawServer([bad, OK, bad]) as server:
        file = written(tmp_path, server, notes="rateLimitSeconds: 0")
        assert warnings(await run_async(file)) == []
        assert len(server.requests) == 2
        ran = await run_async(file)
    assert len(server.requests) == 4
    assert ran.launched.run.status == "succeeded"
    told = f"not notified: TeamSucceeded to webhook: 127.0.0.1: answered {status}"
    assert warnings(ran) == [told]


async def test_a_server_that_never_answers_does_not_hold_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notify_send, "PAUSE", 0.01)
    monkeypatch.setattr(notify_send, "SECONDS", 0.1)

    async def never(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with RawServer(never) as server:
        file = written(tmp_path, server)
        began = time.monotonic()
        ran = await run_async(file)
        assert time.monotonic() - began < 5
        assert len(server.requests) == 2
        told = "not notified: TeamSucceeded to webhook: 127.0.0.1: no answer within 0.1 s"
        assert warnings(ran) == [told]
        monkeypatch.setattr(notify_send, "SECONDS", 60.0)
        monkeypatch.setattr(notify, "ALL_SECONDS", 0.1)
        ran = await run_async(file)
        assert warnings(ran) == ["not notified: notices took more than 0.1 s"]
        assert ran.launched.run.status == "succeeded"


async def test_ctrl_c_while_it_is_told(tmp_path: Path) -> None:
    """The run has ended; the interruption changes nothing about it."""
    asked, stop = asyncio.Event(), asyncio.Event()

    async def never(request: Request, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await asyncio.sleep(60)

    async with RawServer(never) as server:
        task = asyncio.ensure_future(run_async(written(tmp_path, server), stop=stop))
        await asked.wait()
        stop.set()
        task.cancel()
        ran = await asyncio.wait_for(task, 5)
    assert ran.launched.run.status == "succeeded"


@pytest.mark.parametrize(
    ("channel", "told"),
    [
        (
            "{type: webhook, url: 'http://127.0.0.1:9/secret'}",
            "127.0.0.1 is not a public address, and not in `allowHosts`",
        ),
        (
            "{type: webhook, url: 'http://localhost:9/secret'}",
            "localhost (127.0.0.1) is not a public address, and not in `allowHosts`",
        ),
        (
            "{type: slack, url: 'ftp://127.0.0.1/secret', allowHosts: [127.0.0.1]}",
            "the channel's URL is not an http or https URL",
        ),
    ],
)
async def test_where_notices_do_not_go(tmp_path: Path, channel: str, told: str) -> None:
    async with RawServer(OK) as server:
        ran = await run_async(written(tmp_path, server, channels=channel))
    (warning,) = warnings(ran)
    assert warning.endswith(told)
    assert "secret" not in warning
    assert ran.launched.run.status == "succeeded"


async def test_redirects_are_not_followed(tmp_path: Path) -> None:
    async with RawServer(reply("", status=307, headers={"Location": "/elsewhere"})) as server:
        ran = await run_async(written(tmp_path, server))
    assert len(server.requests) == 1
    assert warnings(ran)[0].endswith("127.0.0.1: answered 307")


async def test_a_team_without_a_reference_tells_nobody(tmp_path: Path) -> None:
    async with RawServer(OK) as server:
        file = written(tmp_path, server)
        file.write_text(file.read_text().replace("notifyRef: {name: people}", ""))
        await run_async(file)
    assert server.requests == []
    assert not (tmp_path / ".muster" / "events.db").exists()
