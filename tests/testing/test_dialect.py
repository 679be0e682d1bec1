"""A provider whose service speaks a language of its own: lines of JSON, with tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import muster
from muster.cli.main import main
from muster.errors import UsageError
from muster.providers.transport import HttpClient, error_for_payload, error_for_status
from muster.testing import RULES, Asked, Call, Environment, Plain, Reply, Subject, check_provider


class Lines(Plain):
    """Each line of a stream is a JSON object; the last one has `end`."""

    name = "lines"
    stream_type = "application/x-ndjson"

    def read(self, path: str, headers: Any, body: Any) -> Call:
        talk = body["talk"]
        return Call(
            dialect=self.name,
            path=path,
            headers=headers,
            body=body,
            stream=body["stream"],
            text="\n".join(said["text"] for said in talk),
            tools=tuple(body.get("tools", ())),
            tool_results=tuple((s["call"], s["text"]) for s in talk if "call" in s),
        )

    def whole(self, call: Call, reply: Reply) -> dict[str, Any]:
        return {"text": reply.whole, **self._end(reply)}

    def pieces(self, call: Call, reply: Reply) -> list[str]:
        return [json.dumps({"piece": piece}) + "\n" for piece in reply.parts]

    def closing(self, call: Call, reply: Reply) -> list[str]:
        return [json.dumps(self._end(reply)) + "\n"]

    def error_event(self, message: str) -> str:
        return json.dumps(self.error(message, None)) + "\n"

    def empty_events(self, call: Call) -> list[str]:
        return ["{}\n"]

    def _end(self, reply: Reply) -> dict[str, Any]:
        return {"end": True, "calls": [self._call(asked) for asked in reply.asked]}

    def _call(self, asked: Asked) -> dict[str, Any]:
        return {"id": asked.id, "name": asked.tool, "with": dict(asked.input)}


class Model:
    """Speaks it. With `trusting`, a stream that stops is taken for a whole answer."""

    def __init__(self, environment: Environment, *, trusting: bool = False) -> None:
        self.url, self.trusting = environment.url, trusting
        self.client = HttpClient(read_timeout=environment.read_timeout)

    async def complete(self, turn: muster.ChatTurn) -> muster.ChatReply:
        talk: list[dict[str, Any]] = [{"text": turn.system_prompt or ""}]
        for message in turn.messages:
            call = {"call": message.tool_call_id} if message.role == "tool" else {}
            talk.append({"text": message.text, **call})
        asked: dict[str, Any] = {"talk": talk, "stream": turn.on_chunk is not None}
        if turn.tools:
            asked["tools"] = [tool.name for tool in turn.tools]
        body = json.dumps(asked).encode()
        async with self.client.stream("POST", self.url, headers={}, body=body) as answer:
            if answer.status != 200:
                data = await answer.read()
                raise error_for_status(answer.status, answer.headers, data, who="lines")
            try:
                if turn.on_chunk is None:
                    return self._reply(json.loads(await answer.read()))
                return await self._heard(answer, turn.on_chunk)
            except (ValueError, KeyError, TypeError):
                raise muster.BadProviderOutput("lines: no answer in it") from None

    async def _heard(self, answer: Any, on_chunk: Any) -> muster.ChatReply:
        said, rest = "", b""
        async for chunk in answer.chunks():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                row = json.loads(line)
                if "piece" not in row:
                    return self._reply({"text": said, **row})
                said += row["piece"]
                on_chunk(row["piece"])
        if self.trusting:
            return self._reply({"text": said, "end": True, "calls": []})
        raise muster.BadProviderOutput("lines: the stream ended early")

    def _reply(self, row: dict[str, Any]) -> muster.ChatReply:
        if "error" in row:
            raise error_for_payload(row["error"], who="lines")
        calls = tuple(muster.ToolCall(c["name"], c["with"], id=c["id"]) for c in row["calls"])
        assert row["end"] is True
        return muster.ChatReply(message=muster.Message("assistant", row["text"], tool_calls=calls))

    async def aclose(self) -> None:
        await self.client.aclose()


CHOSEN = tuple(
    rule
    for rule in RULES
    if rule.id
    in (
        "system-prompt-arrives",
        "unicode-prompt",
        "chunks-join",
        "parallel-tool-calls-in-order",
        "failing-tool-is-told",
        "stream-ends-early",
        "error-event-in-stream",
        "empty-choices",
        "quota-spent",
    )
)


@pytest.mark.parametrize("trusting", [False, True], ids=["right", "trusting"])
def test_a_language_of_its_own(trusting: bool) -> None:
    subject = Subject(
        name="lines",
        factory=lambda environment: Model(environment, trusting=trusting),
        dialect=Lines(),
    )
    run = check_provider(subject, CHOSEN)
    found = {result.rule.id: result.outcome.status for result in run.results}
    expected = {rule.id: "passed" for rule in CHOSEN}
    assert found == expected | ({"stream-ends-early": "failed"} if trusting else {})


class Broken(Lines):
    """Cannot write what a model asks for."""

    def _call(self, asked: Asked) -> dict[str, Any]:
        return {"name": asked.name}  # type: ignore[attr-defined]


class Unreadable(Lines):
    """Cannot read a call."""

    def read(self, path: str, headers: Any, body: Any) -> Call:
        raise KeyError("told")


def test_a_dialect_that_fails_is_named() -> None:
    subject = Subject(name="lines", factory=Model, dialect=Broken())
    (told,) = check_provider(subject, [r for r in CHOSEN if r.id == "failing-tool-is-told"]).failed
    assert "the dialect cannot read a call, or answer it: " in told.outcome.text
    assert "test_dialect.py:" in told.outcome.text
    assert "AttributeError: 'Asked' object has no attribute 'name'" in told.outcome.text
    with pytest.raises(UsageError, match=r"lines: the dialect cannot read .*KeyError: 'told'"):
        check_provider(Subject(name="lines", factory=Model, dialect=Unreadable()), CHOSEN)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "json:JSONDecoder",
            "json:JSONDecoder: it has no name, stream_type, read, whole",
        ),
        ("muster.testing:Plane", 'module "muster.testing" has no "Plane" (near: Plain)'),
        ("lines.py", '"lines.py" is not of the form package.module:name'),
    ],
)
def test_what_is_no_dialect(
    given: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["check", "provider", "echo", "--dialect", given])
    assert said in capsys.readouterr().err
