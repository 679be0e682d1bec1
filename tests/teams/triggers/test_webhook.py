"""Webhooks by real HTTP: each status, who may fire, and that the same thing fires once."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import stat
import time
from pathlib import Path

import pytest
from up_parts import TOKEN, Up, event, manifest

HOOK = event("hook", "{type: webhook}", '{team: t, input: {say: "{{ .trigger.body.say }}"}}')
PLAIN = manifest(HOOK)


async def test_async_and_sync(tmp_path: Path) -> None:
    async with Up(tmp_path, PLAIN) as up:
        status, told = await up.post("hook", {"say": "one"})
        (run_id,) = told.pop("runs")
        fired_at = told.pop("firedAt")
        assert (status, told) == (202, {"fired": True, "trigger": "hook", "targets": 1})
        assert run_id.startswith("t-")
        assert fired_at.endswith("Z")
        await up.line("succeeded", run=run_id)
        status, told = await up.post("hook", {"say": "two"}, query="?mode=sync&timeout=30s")
        assert told.pop("durationMs") < 10_000
        second = told.pop("run")
        assert (status, told) == (200, {"status": "succeeded", "output": "TWO"})
        status, told = await up.post("hook", {"say": "fail"}, query="?mode=sync")
        assert (status, told["status"], told["reason"]) == (500, "failed", "StepFailed")
        assert told["error"] == 'step "say": it was told to fail'
    runs = up.runs()
    assert [run.id for run in runs[:2]] == [run_id, second]
    assert [(run.trigger, run.shares_process, run.input) for run in runs[:2]] == [
        ("webhook:hook", True, {"say": "one"}),
        ("webhook:hook", True, {"say": "two"}),
    ]


async def test_what_the_inputs_see(tmp_path: Path) -> None:
    source = (
        "{{ .trigger.name }} {{ .trigger.firedAt }} {{ .trigger.body.a.b }}{{ .trigger.output }}"
    )
    hook = event("hook", "{type: webhook}", '{team: t, input: {say: "%s"}}' % source)  # noqa: UP031
    async with Up(tmp_path, manifest(hook)) as up:
        _, told = await up.post("hook", {"a": {"b": 5}})
        await up.line("succeeded")
    assert up.runs()[0].input == {"say": f"hook {told['firedAt']} 5"}


async def test_a_template_that_fails_starts_nothing(tmp_path: Path) -> None:
    two = "{team: u}, {team: t, input: {say: '{{ .trigger.body.say }}'}}"
    async with Up(tmp_path, manifest(event("hook", "{type: webhook}", two))) as up:
        status, told = await up.post("hook", {"sya": 1})
        assert (status, told["fired"], told["trigger"]) == (422, False, "hook")
        assert told["error"].startswith("fire failed: ")
        assert told["error"].endswith('.trigger.body has no "say"; did you mean "sya"?')
        (line,) = up.found("failed", event="hook")
        assert line["text"] == told["error"].removeprefix("fire failed: ")
        assert up.runs() == []
        assert (await up.post("hook", {"say": "x"}))[1]["targets"] == 2


@pytest.mark.parametrize(
    ("options", "status", "error"),
    [
        ({"path": "/triggers/hook/fire"}, 404, "not found"),
        ({"path": "/"}, 404, "not found"),
        ({"path": "/triggers//hook/fire"}, 404, "not found"),
        ({"method": "GET"}, 405, "method not allowed"),
        ({"method": "GET", "path": "/triggers/default/nobody/fire"}, 405, "method not allowed"),
        ({"token": None}, 401, "unauthorized"),
        ({"token": "wrong"}, 401, "unauthorized"),
        ({"token": "wröng"}, 401, "unauthorized"),
        ({"headers": {"Authorization": f"Basic {TOKEN}"}}, 401, "unauthorized"),
        ({"token": None, "query": f"?token={TOKEN}"}, 401, "unauthorized"),
        (
            {"headers": {"Content-Type": "text/plain"}},
            415,
            "expected Content-Type application/json",
        ),
        ({"headers": {"Content-Encoding": "gzip"}}, 415, "a compressed body is not taken"),
        ({"data": b"{"}, 400, "the body is not JSON: "),
        ({"data": b'{"a": NaN}'}, 400, "the body is not JSON: NaN is no number"),
        ({"data": b"\xff"}, 400, "the body is not JSON: "),
        ({"data": b"[" * 100_000}, 400, "the body is not JSON: "),
        ({"data": b"[1]"}, 400, "expected a JSON object, found a list"),
        ({"data": b'"' + b"x" * (1024 * 1024) + b'"'}, 413, "the body is larger than 1048576"),
        ({"query": "?mode=later"}, 400, 'mode: expected sync or async, found "later"'),
        ({"query": "?mode=sync&timeout=soon"}, 400, 'timeout: "soon" is not a duration'),
        ({"query": "?mode=sync&timeout=-1s"}, 400, 'timeout: "-1s" is not a duration'),
        ({"headers": {"Host": "evil.example"}}, 403, "host not allowed"),
        ({"headers": {"Host": "127.0.0.1.evil.example"}}, 403, "host not allowed"),
        ({"headers": {"Idempotency-Key": "k" * 256}}, 400, "Idempotency-Key is longer than 255"),
    ],
)
async def test_what_is_refused(
    tmp_path: Path, options: dict[str, str], status: int, error: str
) -> None:
    async with Up(tmp_path, PLAIN) as up:
        found, told = await up.post("hook", {"say": "x"}, **options)
        assert (found, set(told)) == (status, {"error"})
        assert told["error"].startswith(error)
        (line,) = up.found("refused")
        assert line["text"].startswith(f"{status} ")
        assert TOKEN not in str(up.lines)
    assert up.runs() == []


async def test_a_body_of_unknown_length_is_bounded_too(tmp_path: Path) -> None:
    async def chunks():  # type: ignore[no-untyped-def]
        for _ in range(20):
            yield b" " * 65_536

    async with Up(tmp_path, PLAIN) as up:
        url = f"{up.url}/triggers/default/hook/fire"
        async with up.session.post(url, data=chunks()) as answer:
            assert answer.status == 413


async def test_names_cannot_be_tried_out(tmp_path: Path) -> None:
    """Whoever has no key gets the same, whatever there is."""
    others = (
        event("clock", '{type: cron, cron: "@yearly"}'),
        event("off", "{type: webhook, webhook: {tokenSecretRef: {name: hook-webhook-token}}}")
        + "  suspended: true\n",
        event(
            "signed",
            "{type: webhook, webhook: {signature: {scheme: github, secretRef: "
            "{name: hook-webhook-token, key: token}}}}",
        ),
    )
    async with Up(tmp_path, manifest(HOOK, *others)) as up:
        answers = [
            await up.post(name, {}, token=token)
            for name in ("hook", "clock", "off", "signed", "nobody", "%0a%1b[31m")
            for token in ("wrong", None)
        ]
        assert answers == [(401, {"error": "unauthorized"})] * 12
        assert (await up.post("clock", {}))[0] == 401
        assert await up.post("off", {}) == (503, {"error": "trigger is suspended"})
        assert {line["event"] for line in up.found("refused")} == {None, "hook", "off", "signed"}
    assert up.runs() == []


async def test_a_token_that_is_made_up_and_kept(tmp_path: Path) -> None:
    text = manifest(event("free", "{type: webhook, webhook: {queryToken: true}}"))
    async with Up(tmp_path, text) as up:
        (line,) = up.found("token", event="free")
        path = Path(line["text"].removeprefix("in "))
        assert path == tmp_path / ".muster" / "tokens" / "free"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        token = path.read_text().strip()
        assert len(bytes.fromhex(token)) == 32
        assert token not in str(up.lines)
        assert (await up.post("free", token=token))[0] == 202
        assert (await up.post("free", token=None, query=f"?token={token}"))[0] == 202
        assert (await up.post("free", token=None, query="?token=x"))[0] == 401
    async with Up(tmp_path, text) as up:
        assert (await up.post("free", token=token))[0] == 202


# --- signatures ---------------------------------------------------------------------------------

SIGNED = """{type: webhook, webhook: {signature: {scheme: %s, toleranceSeconds: 60,
    secretRef: {name: hook-webhook-token, key: token}}}}"""


def signature(text: bytes, key: str = TOKEN) -> str:
    return hmac.new(key.encode(), text, hashlib.sha256).hexdigest()


async def test_signed_as_github_does(tmp_path: Path) -> None:
    body = b'{"say": "x"}'
    text = manifest(event("hook", SIGNED % "github"))
    async with Up(tmp_path, text) as up:
        for given, expected in (
            (f"sha256={signature(body)}", 202),
            (f"sha256={signature(body, 'another key')}", 401),
            (signature(body), 401),
            (f"sha256={signature(body + b' ')}", 401),
            ("sha256=é", 401),
            ("", 401),
        ):
            headers = {"X-Hub-Signature-256": given}
            status, _ = await up.post("hook", data=body, headers=headers, token=None)
            assert status == expected, given
        assert (await up.post("hook", data=body))[0] == 401  # a token does not replace it
    assert len(up.runs()) == 1


async def test_signed_as_stripe_does(tmp_path: Path) -> None:
    body, now = b'{"say": "x"}', int(time.time())

    def header(at: int = now, signed: bytes = body, key: str = TOKEN, more: str = "") -> str:
        return f"t={at},{more}v1={signature(b'%d.%s' % (at, signed), key)}"

    async with Up(tmp_path, manifest(event("hook", SIGNED % "stripe"))) as up:
        for given, expected in (
            (header(), 202),
            (header(now - 50, more="v1=00,"), 202),
            (header(now - 70), 401),
            (header(now + 70), 401),
            (header(key="another"), 401),
            (header(signed=b"{}"), 401),
            (header(more=f"t={now - 1},"), 401),
            (f"v1={signature(body)}", 401),
            (f"t=x,v1={signature(b'x.' + body)}", 401),
            ("", 401),
        ):
            status, _ = await up.post(
                "hook", data=body, headers={"Stripe-Signature": given}, token=None
            )
            assert status == expected, given
        # What was signed once fires once, whatever is written around it.
        _, first = await up.post(
            "hook", data=body, headers={"Stripe-Signature": header()}, token=None
        )
        status, again = await up.post(
            "hook", data=body, headers={"Stripe-Signature": header() + ",v0=1"}, token=None
        )
        assert (status, again) == (202, first)
    assert len(up.runs()) == 2


# --- the same thing twice -----------------------------------------------------------------------


async def test_the_same_key_fires_once(tmp_path: Path) -> None:
    key = {"Idempotency-Key": "order-17"}
    async with Up(tmp_path, PLAIN) as up:
        answers = await asyncio.gather(
            *(up.post("hook", {"say": "x"}, headers=key) for _ in range(5))
        )
        assert answers == [answers[0]] * 5
        assert answers[0][0] == 202
        other = await up.post("hook", {"say": "y"}, headers=key)
        assert other == (422, {"error": "Idempotency-Key was used before with another body"})
        sync = await up.post("hook", {"say": "x"}, headers=key, query="?mode=sync")
        assert (sync[0], sync[1]["output"], sync[1]["run"]) == (200, "X", answers[0][1]["runs"][0])
    async with Up(tmp_path, PLAIN) as up:
        assert await up.post("hook", {"say": "x"}, headers=key) == answers[0]
        assert (await up.post("hook", {"say": "x"}, headers={"Idempotency-Key": "18"}))[0] == 202
    assert len(up.runs()) == 2


async def test_a_key_that_started_nothing_may_try_again(tmp_path: Path) -> None:
    text = manifest(HOOK + "  concurrencyPolicy: Forbid\n")
    key = {"Idempotency-Key": "k"}
    async with Up(tmp_path, text) as up:
        _, first = await up.post("hook", {"say": "hold"})
        status, told = await up.post("hook", {"say": "x"}, headers=key)
        busy = f"concurrencyPolicy is Forbid, and {first['runs'][0]} is under way"
        assert (status, told) == (409, {"fired": False, "trigger": "hook", "error": busy})
        (line,) = up.found("skipped", event="hook")
        assert line["text"] == busy
        up.gate.set()
        await up.line("succeeded")
        assert (await up.post("hook", {"say": "x"}, headers=key))[0] == 202
    assert len(up.runs()) == 2


async def test_a_header_of_ones_own_choice(tmp_path: Path) -> None:
    hook = event("hook", "{type: webhook, webhook: {idempotencyHeader: X-GitHub-Delivery}}")
    async with Up(tmp_path, manifest(hook)) as up:
        headers = {"X-GitHub-Delivery": "1"}
        first = await up.post("hook", {}, headers=headers)
        assert await up.post("hook", {}, headers=headers) == first
    assert len(up.runs()) == 1


# --- waiting ------------------------------------------------------------------------------------


async def test_sync_takes_one_target_and_says_so_first(tmp_path: Path) -> None:
    text = manifest(event("hook", "{type: webhook}", "{team: t}, {team: u}"))
    async with Up(tmp_path, text) as up:
        answer = await up.post("hook", query="?mode=sync")
        told = "sync mode requires exactly one target team; hook has 2"
        assert answer == (400, {"error": told})
        assert up.runs() == []
        _, told_async = await up.post("hook")
        assert (told_async["targets"], len(told_async["runs"])) == (2, 2)
    assert sorted(run.team for run in up.runs()) == ["t", "u"]


async def test_time_out(tmp_path: Path) -> None:
    async with Up(tmp_path, PLAIN) as up:
        status, told = await up.post("hook", {"say": "hold"}, query="?mode=sync&timeout=100ms")
        assert (status, told["error"]) == (
            504,
            "timed out after 100ms waiting for flow to complete",
        )
        assert 90 <= told["durationMs"] < 5000
        assert up.runs()[0].status == "running"
        up.gate.set()
        await up.line("succeeded", run=told["run"])


async def test_other_names_of_the_host(tmp_path: Path) -> None:
    async with Up(tmp_path, PLAIN, allow_hosts=("tunnel.example",)) as up:
        for host in ("localhost:1", "tunnel.example", "TUNNEL.example:443", "[::1]:80", "10.0.0.9"):
            assert (await up.post("hook", {"say": "x"}, headers={"Host": host}))[0] == 202, host


async def test_a_request_without_a_host(tmp_path: Path) -> None:
    async with Up(tmp_path, PLAIN) as up:
        port = int(up.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /triggers/default/hook/fire HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
    assert head.split()[1] == b"403"
    assert json.loads(body) == {"error": "host not allowed"}
