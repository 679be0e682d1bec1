"""The tool loop, with a scripted chat model: what it is shown, what comes of its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from muster.provider import (
    BadRequest,
    BudgetExceeded,
    FilePart,
    ImagePart,
    LimitExceeded,
    Limits,
    Message,
    ProviderFailed,
    ProviderRequest,
    ProviderTimeout,
    RateLimited,
    TextPart,
    TokenUsage,
    Tool,
    ToolCall,
)
from muster.providers.chat import ChatModel, ChatProvider, ChatReply, ChatTurn

Scripted = ChatReply | BaseException | Callable[[ChatTurn], Any]


@dataclass
class Script:
    """A chat model that answers what it was told to, and remembers what it was shown."""

    replies: list[Scripted]
    turns: list[ChatTurn] = field(default_factory=list)
    closed: bool = False

    async def complete(self, turn: ChatTurn) -> ChatReply:
        self.turns.append(turn)
        reply = self.replies[min(len(self.turns), len(self.replies)) - 1]
        if isinstance(reply, BaseException):
            raise reply
        if callable(reply):
            reply = await reply(turn)
        assert isinstance(reply, ChatReply)
        return reply

    async def aclose(self) -> None:
        self.closed = True


def says(text: str = "done", **more: Any) -> ChatReply:
    more.setdefault("finish_reason", "stop")
    return ChatReply(message=Message("assistant", text), **more)


def asks(*calls: ToolCall, **more: Any) -> ChatReply:
    more.setdefault("finish_reason", "tool_calls")
    return ChatReply(message=Message("assistant", "", tool_calls=calls), **more)


async def run(script: Script, **request: Any):
    request.setdefault("question", "q")
    return await ChatProvider(script).invoke(ProviderRequest(**request))


TOOLS = (Tool("add"), Tool("fail"), Tool("slow"))


async def call_tool(name: str, arguments: Any) -> str:
    match name:
        case "add":
            return str(arguments["a"] + arguments["b"])
        case "slow":
            await asyncio.sleep(arguments.get("seconds", 0))
            return f"slow {arguments.get('n')}"
    raise ValueError("no luck")


ADD = ToolCall("add", {"a": 1, "b": 2}, id="c1")


def test_a_script_is_a_chat_model() -> None:
    assert isinstance(Script([]), ChatModel)


async def test_one_turn() -> None:
    usage = TokenUsage(3, 4, cached=1)
    script = Script([says("hi", token_usage=usage, cost_usd=0.5, model="m", raw={"r": 1})])
    response = await run(
        script,
        question="hello",
        system_prompt="Be kind.",
        guidelines="Be short.",
        messages=(Message("user", "before"), Message("assistant", "yes?")),
        limits=Limits(max_output_tokens=9),
        response_schema={"type": "object"},
        tools=TOOLS,
    )
    assert response.text == "hi"
    assert (response.token_usage, response.cost_usd) == (usage, 0.5)
    assert (response.finish_reason, response.model, response.raw) == ("stop", "m", {"r": 1})
    assert response.duration_ms is not None
    (turn,) = script.turns
    assert turn.system_prompt == "Be kind.\n\nBe short."
    shown = [(m.role, m.content) for m in turn.messages]
    assert shown == [("user", "before"), ("assistant", "yes?"), ("user", "hello")]
    assert (turn.max_output_tokens, turn.response_schema) == (9, {"type": "object"})
    assert turn.tools == TOOLS


async def test_tool_round_trip() -> None:
    script = Script(
        [
            asks(ADD, token_usage=TokenUsage(10, 2, reasoning=1), cost_usd=0.25),
            says("3", token_usage=TokenUsage(20, 1, cached=8), cost_usd=0.5),
        ]
    )
    response = await run(script, tools=TOOLS, call_tool=call_tool)
    assert [m.role for m in response.output] == ["assistant", "tool", "assistant"]
    assert response.text == "3"
    assert response.token_usage == TokenUsage(30, 3, cached=8, reasoning=1)
    assert response.cost_usd == 0.75
    assert response.output[0].token_usage == TokenUsage(10, 2, reasoning=1)
    (call,) = response.tool_calls
    assert (call.tool, call.input, call.output, call.status) == ("add", ADD.input, "3", "ok")
    assert call.duration_ms is not None
    # The assistant's message comes before the result that answers it.
    seen = script.turns[1].messages
    assert [m.role for m in seen] == ["user", "assistant", "tool"]
    assert (seen[2].content, seen[2].tool_call_id, seen[2].name) == ("3", "c1", "add")


async def test_calls_of_one_turn_run_together_and_answer_in_order() -> None:
    running = 0
    together = asyncio.Event()

    async def meet(name: str, arguments: Any) -> str:
        nonlocal running
        running += 1
        if running == 3:
            together.set()
        await asyncio.wait_for(together.wait(), 5)
        await asyncio.sleep(0.01 * (3 - arguments["n"]))  # the last one is ready first
        return f"result {arguments['n']}"

    calls = [ToolCall("slow", {"n": n}, id=f"c{n}") for n in range(3)]
    script = Script([asks(*calls), says()])
    response = await run(script, tools=TOOLS, call_tool=meet)
    assert [call.output for call in response.tool_calls] == ["result 0", "result 1", "result 2"]
    seen = script.turns[1].messages[-3:]
    assert [(m.content, m.tool_call_id) for m in seen] == [
        (f"result {n}", f"c{n}") for n in range(3)
    ]


@pytest.mark.parametrize(
    ("call", "output", "status"),
    [
        (ToolCall("fail", {}, id="c"), "error: no luck", "error"),
        (
            ToolCall("ad", {}, id="c"),
            'error: unknown tool "ad" (near: add; known: add, fail, slow)',
            "error",
        ),
        (
            ToolCall("add", '{"a": 1', id="c"),
            'error: the arguments of add are not a JSON object: {"a": 1',
            "error",
        ),
        (
            ToolCall("add", [1, 2], id="c"),
            "error: the arguments of add are not a JSON object: [1, 2]",
            "error",
        ),
        (ToolCall("add", {"a": 1}, id="c"), "error: 'b'", "error"),
    ],
)
async def test_a_failing_call_is_told_to_the_model(
    call: ToolCall, output: str, status: str
) -> None:
    script = Script([asks(call), says("sorry")])
    response = await run(script, tools=TOOLS, call_tool=call_tool)
    assert response.text == "sorry"
    assert [(c.output, c.status) for c in response.tool_calls] == [(output, status)]
    assert script.turns[1].messages[-1].content == output


@pytest.mark.parametrize(
    ("failure", "output", "status"),
    [
        (TimeoutError(), "error: the tool took too long", "timeout"),
        (asyncio.CancelledError(), "error: the tool was cancelled", "cancelled"),
        (RuntimeError(), "error: RuntimeError", "error"),
    ],
)
@pytest.mark.parametrize("count", [1, 2])
async def test_tools_that_end_otherwise(
    failure: BaseException, output: str, status: str, count: int
) -> None:
    async def broken(name: str, arguments: Any) -> str:
        raise failure

    calls = [ToolCall("add", {}, id=f"c{n}") for n in range(count)]
    response = await run(Script([asks(*calls), says()]), tools=TOOLS, call_tool=broken)
    assert {(c.output, c.status) for c in response.tool_calls} == {(output, status)}


async def test_a_tools_result_that_is_no_text_becomes_json() -> None:
    async def number(name: str, arguments: Any) -> Any:
        return {"n": 1}

    response = await run(Script([asks(ADD), says()]), tools=TOOLS, call_tool=number)
    assert response.tool_calls[0].output == '{"n": 1}'


async def test_calls_without_ids_get_some() -> None:
    same = ToolCall("add", {"a": 1, "b": 1}, id="same")
    none = ToolCall("add", {"a": 2, "b": 2})
    script = Script([asks(none), asks(same, same), says()])
    response = await run(script, tools=TOOLS, call_tool=call_tool)
    ids = [call.id for call in response.tool_calls]
    assert len(set(ids)) == 3
    assert None not in ids
    answered = [m.tool_call_id for m in script.turns[2].messages if m.role == "tool"]
    assert answered == ids


async def test_nobody_to_call_tools() -> None:
    response = await run(Script([asks(ADD)]), tools=TOOLS)
    assert response.finish_reason == "tool_calls"
    assert response.tool_calls == (ADD,)


@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_calls_that_may_be_halves_are_not_made(reason: str) -> None:
    script = Script([asks(ADD, finish_reason=reason)])
    response = await run(script, tools=TOOLS, call_tool=call_tool)
    assert response.finish_reason == reason
    assert response.tool_calls[0].status is None


async def test_chunks_of_all_turns_arrive() -> None:
    async def streamed(turn: ChatTurn) -> ChatReply:
        assert turn.on_chunk is not None
        turn.on_chunk("a")
        turn.on_chunk("b")
        return asks(ADD) if len(turn.messages) == 1 else says("ab")

    chunks: list[str] = []
    await run(Script([streamed]), tools=TOOLS, call_tool=call_tool, on_chunk=chunks.append)
    assert chunks == ["a", "b", "a", "b"]


@pytest.mark.parametrize(
    ("first", "second"),
    [(None, None), (TokenUsage(1, 1), None), (None, TokenUsage(1, 1))],
)
async def test_half_a_sum_is_no_sum(first: TokenUsage | None, second: TokenUsage | None) -> None:
    costs = [0.5 if usage else None for usage in (first, second)]
    replies = [asks(ADD, token_usage=first, cost_usd=costs[0])]
    replies.append(says(token_usage=second, cost_usd=costs[1]))
    response = await run(Script(list(replies)), tools=TOOLS, call_tool=call_tool)
    assert (response.token_usage, response.cost_usd) == (None, None)
    said = [m.token_usage for m in response.output if m.role == "assistant"]
    assert said == [first, second]


async def test_what_a_model_wants_back_it_gets_back() -> None:
    script = Script([asks(ADD, carry="signed"), asks(ADD), says()])
    await run(script, messages=(Message("user", "x"),), tools=TOOLS, call_tool=call_tool)
    assert script.turns[0].carried == {2: "signed"}  # the same mapping for all turns
    assert script.turns[2].messages[2].tool_calls[0].id == "c1"


# --- limits -------------------------------------------------------------------------------------


async def test_max_turns() -> None:
    script = Script([asks(ADD, token_usage=TokenUsage(5, 5), cost_usd=0.1)])
    with pytest.raises(LimitExceeded, match="before turn 4: max_turns is 3") as caught:
        await run(script, tools=TOOLS, call_tool=call_tool, limits=Limits(max_turns=3))
    assert len(script.turns) == 3
    assert caught.value.token_usage == TokenUsage(15, 15)
    assert caught.value.cost_usd == pytest.approx(0.3)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (Limits(max_total_tokens=20), "20 tokens are used and max_total_tokens is 20"),
        (Limits(max_cost_usd=0.2), r"\$0.2000 are spent and max_cost_usd is 0.2"),
    ],
)
async def test_budgets_stop_the_next_turn(limits: Limits, text: str) -> None:
    script = Script([asks(ADD, token_usage=TokenUsage(5, 5), cost_usd=0.1)])
    with pytest.raises(BudgetExceeded, match=text) as caught:
        await run(script, tools=TOOLS, call_tool=call_tool, limits=limits)
    assert len(script.turns) == 2
    assert caught.value.token_usage == TokenUsage(10, 10)


@pytest.mark.parametrize(
    "limits", [Limits(max_total_tokens=0), Limits(max_cost_usd=0), Limits(max_turns=0)]
)
async def test_a_spent_budget_allows_no_call(limits: Limits) -> None:
    script = Script([says()])
    with pytest.raises(LimitExceeded):
        await run(script, limits=limits)
    assert script.turns == []


async def test_max_seconds_interrupts_a_hung_call() -> None:
    async def hang(turn: ChatTurn) -> ChatReply:
        assert turn.seconds_left is not None
        assert 0 < turn.seconds_left <= 0.2
        await asyncio.sleep(60)
        return says()

    script = Script([asks(ADD, token_usage=TokenUsage(1, 2)), hang])
    with pytest.raises(LimitExceeded, match=r"turn 2: .* max_seconds \(0.2 s\)") as caught:
        await run(script, tools=TOOLS, call_tool=call_tool, limits=Limits(max_seconds=0.2))
    assert caught.value.token_usage == TokenUsage(1, 2)


async def test_max_seconds_interrupts_hung_tools() -> None:
    ended = []

    async def hang(name: str, arguments: Any) -> str:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(name)
        return ""

    calls = [ToolCall("slow", {}, id="1"), ToolCall("slow", {}, id="2")]
    with pytest.raises(LimitExceeded):
        await run(
            Script([asks(*calls)]), tools=TOOLS, call_tool=hang, limits=Limits(max_seconds=0.1)
        )
    assert ended == ["slow", "slow"]


async def test_max_seconds_is_checked_before_a_turn() -> None:
    async def blocking(name: str, arguments: Any) -> str:
        import time

        time.sleep(0.06)
        return "late"

    script = Script([asks(ADD), says()])
    with pytest.raises(LimitExceeded):
        await run(script, tools=TOOLS, call_tool=blocking, limits=Limits(max_seconds=0.05))
    assert len(script.turns) == 1


async def test_cancelling_ends_the_tools() -> None:
    ended: list[str] = []
    started = asyncio.Event()

    async def hang(name: str, arguments: Any) -> str:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(name)
        return ""

    calls = [ToolCall("slow", {}, id="1"), ToolCall("slow", {}, id="2")]
    task = asyncio.create_task(run(Script([asks(*calls)]), tools=TOOLS, call_tool=hang))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["slow", "slow"]


# --- errors -------------------------------------------------------------------------------------


async def test_errors_carry_what_was_spent() -> None:
    failure = RateLimited("later", retry_after=3, token_usage=TokenUsage(0, 1))
    script = Script([asks(ADD, token_usage=TokenUsage(5, 5), cost_usd=0.5), failure])
    with pytest.raises(RateLimited) as caught:
        await run(script, tools=TOOLS, call_tool=call_tool)
    assert caught.value.token_usage == TokenUsage(5, 6)
    assert caught.value.cost_usd == 0.5
    assert caught.value.retry_after == 3


@pytest.mark.parametrize(
    ("failure", "kind", "retryable"),
    [
        (ValueError("bug"), ProviderFailed, False),
        (ConnectionResetError("gone"), ProviderFailed, True),
        (TimeoutError("slow"), ProviderTimeout, True),
    ],
)
async def test_nothing_else_leaks(
    failure: Exception, kind: type[Exception], retryable: bool
) -> None:
    with pytest.raises(kind) as caught:
        await run(Script([failure]))
    assert type(caught.value) is kind
    assert caught.value.retryable is retryable  # type: ignore[attr-defined]
    assert str(failure) in str(caught.value)


async def test_a_model_that_is_not_async_is_told_so() -> None:
    class Plain:
        def complete(self, turn: ChatTurn) -> ChatReply:
            return says()

    with pytest.raises(ProviderFailed) as caught:
        await ChatProvider(Plain()).invoke(ProviderRequest(question="hi"))  # type: ignore[arg-type]
    assert "Plain.complete() is not async: it answered with ChatReply. Write `async def" in str(
        caught.value
    )


async def test_closing() -> None:
    script = Script([])
    await ChatProvider(script).aclose()
    assert script.closed

    class Bare:
        async def complete(self, turn: ChatTurn) -> ChatReply:
            return says()

    await ChatProvider(Bare()).aclose()


# --- what the model is shown --------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n"


async def test_files_are_written_into_the_prompt(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.txt").write_text("text of b\n")
    (tmp_path / 'c".txt').write_text("text of c")
    (tmp_path / "d.png").write_bytes(PNG)
    script = Script([says()])
    await run(
        script,
        question="What is it?",
        cwd=tmp_path,
        input_files=(tmp_path / "a" / "b.txt", Path('c".txt'), tmp_path / "d.png"),
    )
    content = script.turns[0].messages[0].content
    assert content == (
        TextPart(
            '<file path="a/b.txt">\ntext of b\n</file>\n\n'
            '<file path="c&quot;.txt">\ntext of c\n</file>'
        ),
        ImagePart("data:image/png;base64,iVBORw0KGgo=", "image/png"),
        TextPart("What is it?"),
    )


async def test_files_without_images_make_a_string(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("A")
    script = Script([says()])
    await run(script, question="Q", input_files=(path,))
    assert script.turns[0].messages[0].content == '<file path="a.txt">\nA\n</file>\n\nQ'


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("none.txt", None, "No such file"),
        ("a.bin", b"\xff\x00", "neither text"),
        ("a.png", None, "No such file"),
    ],
)
async def test_files_that_cannot_be_shown(
    tmp_path: Path, name: str, data: bytes | None, said: str
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(BadRequest, match=said) as caught:
        await run(Script([says()]), input_files=(tmp_path / name,))
    assert name in str(caught.value)


async def test_parts_of_earlier_messages(tmp_path: Path) -> None:
    (tmp_path / "f.txt").write_text("F\n")
    history = (
        Message("user", (TextPart("one"), "two", {"type": "text", "value": "three"})),
        Message("user", [FilePart(Path("f.txt")), ImagePart("https://example.com/i.png")]),
        Message("assistant", {"answer": 1}),
        Message("user", None),
    )
    script = Script([says()])
    await run(script, messages=history, cwd=tmp_path)
    assert [m.content for m in script.turns[0].messages] == [
        "one\n\ntwo\n\nthree",
        (TextPart('<file path="f.txt">\nF\n</file>'), ImagePart("https://example.com/i.png")),
        '{"answer": 1}',
        "",
        "q",
    ]
    with pytest.raises(BadRequest, match="part that no chat model can read"):
        await run(script, messages=(Message("user", [{"type": "video"}]),))


async def test_earlier_calls_are_all_answered() -> None:
    history = (
        Message("assistant", "", tool_calls=(ToolCall("a", {}, id="1"), ToolCall("b", {}, id="2"))),
        Message("tool", "one", tool_call_id="1"),
        Message("assistant", "", tool_calls=(ToolCall("c", {}, output={"x": 1}),)),
        Message("tool", "stray", name="d"),
        Message("assistant", "fine"),
    )
    script = Script([says()])
    await run(script, messages=history)
    shown = script.turns[0].messages
    calls = {call.id for m in shown for call in m.tool_calls}
    results = {m.tool_call_id: m.content for m in shown if m.role == "tool"}
    assert set(results) == calls
    assert sorted(map(str, results.values())) == [
        "error: the call was not answered",
        "one",
        '{"x": 1}',
    ]
    assert "[result of the tool d]\nstray" in [m.content for m in shown]
