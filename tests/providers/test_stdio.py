"""`provider: stdio`: what goes to a child, what comes back, and how children live and end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from children import all_gone, is_alive, pids_in
from muster.capabilities import Capabilities
from muster.errors import MusterError
from muster.provider import (
    AuthenticationFailed,
    BadProviderOutput,
    BadRequest,
    BudgetExceeded,
    ImagePart,
    LimitExceeded,
    Limits,
    Message,
    ProviderError,
    ProviderFailed,
    ProviderRequest,
    ProviderUnavailable,
    RateLimited,
    TextPart,
    TokenUsage,
    Tool,
    ToolCall,
)
from muster.providers import process, providers, stdio_child, stdio_pool
from muster.providers.stdio import StdioProvider
from muster.providers.stdio_messages import ERRORS
from muster.target import ResolvedTarget, Secret
from stdio_children import Children


@pytest.fixture
async def child(tmp_path):
    """Makes providers; at the end all their children must be gone."""
    children = Children(tmp_path)
    yield children
    for provider in children.made:
        await provider.aclose()
    assert not asyncio.all_tasks() - {asyncio.current_task()}


def ask(text: str = "hello", **fields) -> ProviderRequest:
    return ProviderRequest(question=text, **fields)


REFLECT = """
def answer(message):
    if message.get("method") == "invoke":
        text(message, json.dumps(message["params"]))
serve(answer)
"""


# --- what goes in, what comes out -----------------------------------------------------------------


async def test_a_question_and_an_answer(child):
    provider = child()
    for text in ("hello", "", "Größe: “x”\nZweite Zeile\u2028", "x" * 1_000_000):
        response = await provider.invoke(ask(text))
        assert response.text == text
    assert response.token_usage is None
    assert response.cost_usd is None
    assert response.duration_ms > 0


async def test_every_field_of_a_request_is_sent(child, tmp_path):
    def listen(text: str) -> None:
        pass

    async def tool(name, arguments):
        return ""

    call = ToolCall("t", {"a": 1}, id="c1")
    request = ask(
        "?",
        system_prompt="s",
        guidelines="g",
        messages=(
            Message("user", (TextPart("a"), ImagePart("http://x/y.png"))),
            Message("assistant", "b", tool_calls=(call,)),
        ),
        input_files=(tmp_path / "a.txt",),
        images=(ImagePart("data:image/png;base64,AA", "image/png"), ImagePart("b.png")),
        eval_case_id="case",
        attempt=2,
        cwd=Path("work"),
        tools=(Tool("t", "d", {"type": "object"}),),
        call_tool=tool,
        on_chunk=listen,
        limits=Limits(max_output_tokens=5, max_turns=None, max_total_tokens=9),
        response_schema={"type": "object"},
        metadata={"k": Secret("v")},
    )
    sent = json.loads((await child(REFLECT).invoke(request)).text)
    assert sent == {
        "question": "?",
        "system_prompt": "s",
        "guidelines": "g",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a"},
                    {"type": "image", "source": "http://x/y.png"},
                ],
            },
            {
                "role": "assistant",
                "content": "b",
                "tool_calls": [{"tool": "t", "input": {"a": 1}, "id": "c1"}],
            },
        ],
        "input_files": [str(tmp_path / "a.txt")],
        "images": [
            {"source": "data:image/png;base64,AA", "media_type": "image/png"},
            {"source": str(tmp_path / "work" / "b.png")},
        ],
        "eval_case_id": "case",
        "attempt": 2,
        "cwd": str(tmp_path / "work"),
        "tools": [{"name": "t", "description": "d", "parameters": {"type": "object"}}],
        "call_tool": True,
        "on_chunk": True,
        "limits": {"max_output_tokens": 5, "max_total_tokens": 9},
        "response_schema": {"type": "object"},
        "metadata": {"k": "v"},
    }
    assert json.loads((await child(REFLECT).invoke(ask())).text) == {
        "question": "hello",
        "limits": {"max_turns": 50},
    }


async def test_every_field_of_an_answer_is_read(child):
    response = await child(
        """
        def answer(message):
            say(id=message["id"], result={
                "output": [
                    {"role": "assistant", "content": "", "tool_calls": [{"tool": "t"}]},
                    {"role": "tool", "content": "r"},
                    {"role": "assistant", "content": "done"},
                ],
                "token_usage": {"input": 10, "output": 5, "cached": 4, "reasoning": 2},
                "cost_usd": 0.25, "duration_ms": 12, "finish_reason": "stop", "model": "m",
                "raw": {"a": [1]},
            })
        serve(answer)
        """
    ).invoke(ask())
    assert [message.role for message in response.output] == ["assistant", "tool", "assistant"]
    assert response.text == "done"
    assert response.tool_calls == (ToolCall("t"),)
    assert response.token_usage == TokenUsage(10, 5, cached=4, reasoning=2)
    assert (response.cost_usd, response.duration_ms) == (0.25, 12)
    assert (response.finish_reason, response.model, response.raw) == ("stop", "m", {"a": [1]})


async def test_the_child_is_told_who_asks_and_the_settings(child):
    provider = child(
        """
        first = read()
        hello(first)
        serve(lambda message: text(message, json.dumps(first["params"])))
        """,
        settings={"model": "m", "nested": {"key": Secret("s3cret-key")}},
    )
    told = json.loads((await provider.invoke(ask())).text.replace("**********", "s3cret-key"))
    assert told["client"]["name"] == "muster"
    assert told["protocol_version"] == 1
    assert told["target"] == "agent"
    assert told["settings"] == {"model": "m", "nested": {"key": "s3cret-key"}}


async def test_a_request_that_is_no_json(child):
    provider = child()
    with pytest.raises(BadRequest, match=r"cannot be written as JSON.*surrogates"):
        await provider.invoke(ask("\ud800"))
    with pytest.raises(BadRequest, match="object has no form in JSON"):
        await provider.invoke(ask(messages=(Message("user", object()),)))


async def test_fifty_at_a_time_do_not_mix(child):
    provider = child(
        """
        import threading
        def answer(message):
            delay = int(question(message)) % 7 / 1000
            threading.Timer(delay, text, (message, question(message))).start()
        serve(answer)
        """
    )
    responses = await asyncio.gather(*(provider.invoke(ask(str(n))) for n in range(50)))
    assert [response.text for response in responses] == [str(n) for n in range(50)]


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(ERRORS))
async def test_each_kind_of_error(child, kind):
    provider = child(
        f"""
        def answer(message):
            data = {{"kind": {kind!r}, "retry_after": 2.5, "status": 418,
                    "token_usage": {{"input": 1, "output": 2}}, "cost_usd": 0.5}}
            say(id=message["id"], error={{"code": -32000, "message": "no", "data": data}})
        serve(answer)
        """
    )
    with pytest.raises(ERRORS[kind], match=r"the child reports: no \(") as caught:
        await provider.invoke(ask())
    error = caught.value
    assert type(error) is ERRORS[kind]
    assert error.retryable == ERRORS[kind].retries_help
    assert (error.retry_after, error.status, error.cost_usd) == (2.5, 418, 0.5)
    assert error.token_usage == TokenUsage(1, 2)


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        ({"code": -32000, "message": "m"}, ProviderFailed, False),
        ({"code": -32602, "message": "m"}, BadRequest, False),
        ({"code": -32603, "message": "m", "data": None}, ProviderFailed, False),
        ({"code": 1, "message": "m", "data": {"retryable": True}}, ProviderFailed, True),
        (
            {"code": 1, "message": "m", "data": {"kind": "rate_limited", "retryable": False}},
            RateLimited,
            False,
        ),
        ({"code": 1, "message": "m", "data": {"kind": "tired"}}, ProviderFailed, False),
    ],
)
async def test_errors_with_less(child, error, kind, retryable):
    provider = child(f"serve(lambda message: say(id=message['id'], error={error!r}))")
    with pytest.raises(ProviderError, match="the child reports: m") as caught:
        await provider.invoke(ask())
    assert type(caught.value) is kind
    assert caught.value.retryable is retryable
    assert ('kind "tired" is not known' in str(caught.value)) == ("tired" in str(error))


async def test_secrets_and_stderr(child):
    provider = child(
        """
        def answer(message):
            if question(message) == "raw":
                say(id=message["id"], result={"text": "ok", "raw": {"key": [os.environ["KEY"]]}})
                return
            print("trouble with", os.environ["KEY"], file=sys.stderr, flush=True)
            say(id=message["id"], error={"code": 1, "message": "bad key " + os.environ["KEY"]})
        serve(answer)
        """,
        env={"KEY": Secret("sk-very-secret")},
    )
    with pytest.raises(ProviderFailed) as caught:
        await provider.invoke(ask())
    text = caught.value.message
    assert "bad key **********" in text
    assert "trouble with **********" in text
    assert (await provider.invoke(ask("raw"))).raw == {"key": ["**********"]}


# --- streaming and tools --------------------------------------------------------------------------

STREAM = """
def answer(message):
    if message.get("method") == "invoke":
        for piece in ("one", " two", " three"):
            params = {"invoke_id": message["id"], "text": piece}
            say(method="chunk", params=params)
        text(message, "one two three")
serve(answer)
"""


async def test_chunks(child):
    heard: list[str] = []
    provider = child(STREAM)
    response = await provider.invoke(ask(on_chunk=heard.append))
    assert heard == ["one", " two", " three"]
    assert response.text == "one two three"
    assert (await provider.invoke(ask())).text == "one two three", "unasked chunks do no harm"


async def test_an_answer_without_chunks_is_one_chunk(child):
    heard: list[str] = []
    await child().invoke(ask("all", on_chunk=heard.append))
    assert heard == ["all"]


@pytest.mark.parametrize("script", [STREAM, "serve(echo)"])
async def test_a_listener_that_fails(child, script):
    def listen(text: str) -> None:
        raise ValueError("deaf")

    provider = child(script)
    with pytest.raises(ProviderFailed, match=r"on_chunk: .*ValueError: deaf"):
        await provider.invoke(ask(on_chunk=listen))
    assert (await provider.invoke(ask())).text


TOOLS = """
waiting = {}
def answer(message):
    method = message.get("method")
    if method == "invoke":
        names = question(message).split()
        waiting.update({f"{message['id']}/{n}": message for n in range(len(names))})
        waiting[message["id"]] = [None] * len(names)
        for n, name in enumerate(names):
            say(id=f"{message['id']}/{n}", method="tool_call",
                params={"invoke_id": message["id"], "name": name, "arguments": {"n": n}})
    elif message.get("id") in waiting:
        invoke = waiting.pop(message["id"])
        results = waiting[invoke["id"]]
        results[int(message["id"].split("/")[1])] = message.get("result") or message["error"]
        if None not in results:
            text(invoke, json.dumps(results))
serve(answer)
"""
NAMES = tuple(map(Tool, ("one", "two", "fails", "late", "broke", "quits")))


async def run_tool(name, arguments):
    if name == "one":
        await asyncio.sleep(0.02)
    if name == "fails":
        raise ValueError("it rains")
    if name == "late":
        raise TimeoutError
    if name == "broke":
        raise BudgetExceeded("no money")
    if name == "quits":
        raise asyncio.CancelledError
    return f"{name} {arguments['n']}"


async def test_tools_run_at_the_same_time_and_failures_are_text(child):
    provider = child(TOOLS)
    request = ask("one two fails late quits oen", tools=NAMES, call_tool=run_tool)
    response = await provider.invoke(request)
    assert json.loads(response.text) == [
        {"output": "one 0", "is_error": False},
        {"output": "two 1", "is_error": False},
        {"output": "error: it rains", "is_error": True},
        {"output": "error: the tool took too long", "is_error": True},
        {"output": "error: the tool was cancelled", "is_error": True},
        {
            "output": 'error: unknown tool "oen" (near: one; '
            "known: one, two, fails, late, broke, quits)",
            "is_error": True,
        },
    ]
    assert [(call.tool, call.status) for call in response.tool_calls] == [
        ("one", "ok"),
        ("two", "ok"),
        ("fails", "error"),
        ("late", "timeout"),
        ("quits", "cancelled"),
        ("oen", "error"),
    ]
    nobody = json.loads((await provider.invoke(ask("one", tools=NAMES))).text)
    assert nobody == [{"output": "error: this request has no tools", "is_error": True}]


async def test_a_budget_that_a_tool_uses_up_ends_the_call(child):
    provider = child(TOOLS)
    with pytest.raises(BudgetExceeded, match="no money"):
        await provider.invoke(ask("broke", tools=NAMES, call_tool=run_tool))
    assert (await provider.invoke(ask("two", tools=NAMES, call_tool=run_tool))).text


async def test_a_tool_runs_among_the_callers_variables(child):
    import contextvars

    who = contextvars.ContextVar("who", default="nobody")

    async def tool(name, arguments):
        return who.get()

    provider = child(TOOLS)
    await provider.ready()

    async def as_user(name: str) -> str:
        who.set(name)
        return (await provider.invoke(ask("one", tools=NAMES, call_tool=tool))).text

    texts = await asyncio.gather(as_user("ada"), as_user("bob"))
    assert ["ada" in texts[0], "bob" in texts[1]] == [True, True]


async def test_a_cancelled_call_ends_its_tools(child):
    begun, ended = asyncio.Event(), asyncio.Event()

    async def tool(name, arguments):
        begun.set()
        try:
            await asyncio.sleep(30)
        finally:
            ended.set()

    provider = child(TOOLS)
    call = asyncio.create_task(provider.invoke(ask("one", tools=NAMES, call_tool=tool)))
    await begun.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert ended.is_set()


# --- cancellation ---------------------------------------------------------------------------------

LOGS = """
def answer(message):
    with open("log", "a") as file:
        print(message.get("method"), message["params"].get("invoke_id"), file=file, flush=True)
    if message.get("method") == "cancel":
        say(id=message["params"]["invoke_id"], result={"text": "too late"})
    elif question(message) != "wait":
        text(message, question(message))
"""


async def test_cancellation_is_told_and_a_late_answer_is_ignored(child, tmp_path, caplog):
    provider = child(LOGS + "serve(answer)")
    await provider.ready()
    call = asyncio.create_task(provider.invoke(ask("wait")))
    await asyncio.sleep(0)  # sent with the next turn of the loop
    await asyncio.sleep(0.01)
    started = asyncio.get_running_loop().time()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert asyncio.get_running_loop().time() - started < 0.1
    assert (await provider.invoke(ask("next"))).text == "next"
    assert (tmp_path / "log").read_text() == "invoke None\ncancel 2\ninvoke None\n"
    assert caplog.records == []


async def test_max_seconds(child):
    provider = child(LOGS + "serve(answer)")
    await provider.ready()
    with pytest.raises(LimitExceeded, match=r"longer than max_seconds \(0.05 s\)"):
        await provider.invoke(ask("wait", limits=Limits(max_seconds=0.05)))


async def test_a_child_for_one_call_at_a_time(child):
    provider = child(
        """
        import select
        def answer(message):
            waiting = select.select([sys.stdin], [], [], 0.01)[0]
            text(message, "alone" if not waiting else "not alone")
        serve(answer, max_in_flight=1)
        """
    )
    responses = await asyncio.gather(*(provider.invoke(ask()) for _ in range(5)))
    assert [response.text for response in responses] == ["alone"] * 5


async def test_a_busy_child_that_does_not_hear_cancel_is_replaced(child, tmp_path, monkeypatch):
    monkeypatch.setattr(stdio_child, "CANCEL_SECONDS", 0.05)
    monkeypatch.setattr(stdio_child, "FAREWELL_SECONDS", 0.05)
    provider = child(
        """
        with open("pids", "a") as file:
            print(os.getpid(), file=file, flush=True)
        def answer(message):
            if message.get("method") == "invoke":
                time.sleep(30 if question(message) == "wait" else 0)
                text(message, question(message))
        serve(answer, max_in_flight=1)
        """
    )
    await provider.ready()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await provider.invoke(ask("wait"))
    assert (await provider.invoke(ask("next"))).text == "next"
    first, _ = await pids_in(tmp_path / "pids", 2)
    assert await all_gone([first])


# --- how children live ----------------------------------------------------------------------------

PID = """
with open("pids", "a") as file:
    print(os.getpid(), file=file, flush=True)
def pid(message):
    if message.get("method") == "invoke":
        if question(message) == "crash":
            os._exit(3)
        if question(message) == "wait":
            return
        text(message, str(os.getpid()))
serve(pid)
"""


async def test_one_child_serves_all_calls(child, tmp_path):
    provider = child(PID)
    texts = {(await provider.invoke(ask())).text for _ in range(5)}
    assert (tmp_path / "pids").read_text().split() == list(texts)


async def test_a_pool_grows_as_it_is_needed(child, tmp_path):
    provider = child(PID, pool_size=3)
    for _ in range(3):
        await provider.invoke(ask())
    assert len((tmp_path / "pids").read_text().split()) == 1
    waiting = [asyncio.create_task(provider.invoke(ask("wait"))) for _ in range(6)]
    await pids_in(tmp_path / "pids", 3)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert len((tmp_path / "pids").read_text().split()) == 3


async def test_nothing_is_left_after_closing(child, tmp_path):
    provider = child(PID, pool_size=2)
    pid = int((await provider.invoke(ask())).text)
    waiting = asyncio.create_task(provider.invoke(ask("wait")))
    await asyncio.sleep(0.01)
    await provider.aclose()
    with pytest.raises(ProviderFailed, match="the child was ended"):
        await waiting
    assert not is_alive(pid)
    assert (await provider.invoke(ask())).text != str(pid), "it may be used again"


async def test_an_idle_child_is_ended(child, tmp_path):
    provider = child(PID, idle_seconds=0.05)
    first = int((await provider.invoke(ask())).text)
    assert await all_gone([first])
    assert int((await provider.invoke(ask())).text) != first


async def test_a_crash_fails_what_is_under_way_and_the_next_call_has_a_new_child(child):
    provider = child(PID)
    first = (await provider.invoke(ask())).text
    waiting = asyncio.create_task(provider.invoke(ask("wait")))
    await asyncio.sleep(0)
    with pytest.raises(ProviderFailed, match=r"the child ended with exit code 3 \(") as caught:
        await provider.invoke(ask("crash"))
    assert caught.value.retryable
    with pytest.raises(ProviderFailed, match="exit code 3"):
        await waiting
    second = (await provider.invoke(ask())).text
    assert second != first


async def test_a_place_in_a_child_that_has_just_crashed(child, tmp_path):
    provider = child(PID)
    pid = int((await provider.invoke(ask())).text)
    taken = await provider._pool().take()
    os.kill(pid, signal.SIGKILL)
    await taken.ended
    with pytest.raises(ProviderFailed, match="ended with signal SIGKILL") as caught:
        await taken.invoke(ask(), b"{}").answer
    assert caught.value.retryable


async def test_what_was_answered_before_a_crash_counts(child):
    provider = child(
        """
        def answer(message):
            text(message, "last words")
            os.kill(os.getpid(), signal.SIGKILL)
        serve(answer)
        """
    )
    assert (await provider.invoke(ask())).text == "last words"


async def test_restarts_back_off(child, monkeypatch):
    monkeypatch.setattr(stdio_pool, "FIRST_DELAY", 0.02)
    provider = child(PID)
    loop = asyncio.get_running_loop()
    took = []
    for _ in range(4):
        started = loop.time()
        with pytest.raises(ProviderFailed, match="exit code 3"):
            await provider.invoke(ask("crash"))
        took.append(loop.time() - started)
    for number, delay in enumerate((0.02, 0.04, 0.08), 1):
        assert took[number] > delay, took
    await provider.invoke(ask())
    with pytest.raises(ProviderFailed):
        await provider.invoke(ask("crash"))
    started = loop.time()
    await provider.invoke(ask())
    assert loop.time() - started < took[0] + 0.16, "a child that worked begins anew"


async def test_memory_limit(child, monkeypatch):
    monkeypatch.setattr(stdio_child, "MEMORY_SECONDS", 0.02)
    provider = child(
        """
        def answer(message):
            if question(message) == "eat":
                global kept
                kept = b"x" * 300_000_000
                time.sleep(30)
            text(message, "fine")
        serve(answer)
        """,
        memory_limit_mb=100,
    )
    assert (await provider.invoke(ask())).text == "fine"
    with pytest.raises(
        ProviderFailed, match=r"it held \d+ MB, more than memory_limit_mb \(100\)"
    ) as e:
        await provider.invoke(ask("eat"))
    assert e.value.retryable
    assert (await provider.invoke(ask())).text == "fine"


async def test_memory_of_what_the_child_has_started_counts(child, monkeypatch):
    monkeypatch.setattr(stdio_child, "MEMORY_SECONDS", 0.02)
    provider = child(
        """
        import subprocess
        def answer(message):
            eat = "kept = b'x' * 300_000_000; import time; time.sleep(30)"
            subprocess.run([sys.executable, "-c", eat])
        serve(answer)
        """,
        memory_limit_mb=150,
    )
    with pytest.raises(ProviderFailed, match="memory_limit_mb"):
        await provider.invoke(ask())


async def test_ping(child):
    silent = child(PID, ping_seconds=0.05)
    with pytest.raises(BadProviderOutput, match=r"did not answer `ping` within 0.05 s") as caught:
        await silent.invoke(ask("wait"))
    assert caught.value.retryable
    alive = child(
        """
        import threading
        def answer(message):
            if message.get("method") == "ping":
                say(id=message["id"], result={})
            else:
                threading.Timer(0.3, text, (message, "at last")).start()
        serve(answer)
        """,
        ping_seconds=0.05,
    )
    assert (await alive.invoke(ask())).text == "at last"


async def test_the_child_may_ping_and_ask_what_is_not_there(child):
    provider = child(
        """
        invoke = None
        answers = []
        def answer(message):
            global invoke
            if message.get("method") == "invoke":
                invoke = message
                say(id="p", method="ping")
                say(id=7, method="sing", params={})
                say(method="hum")
                say(id=8, method="tool_call", params={"invoke_id": 99, "name": "a"})
                say(id=9, method="tool_call", params={"invoke_id": "x"})
            else:
                answers.append(message)
                if len(answers) == 4:
                    text(invoke, json.dumps(answers))
        serve(answer)
        """
    )
    pong, sing, no_call, no_params = json.loads((await provider.invoke(ask())).text)
    assert pong == {"jsonrpc": "2.0", "id": "p", "result": {}}
    assert (sing["id"], sing["error"]["code"]) == (7, -32601)
    assert (no_call["id"], no_call["error"]["code"]) == (8, -32602)
    assert (no_params["id"], no_params["error"]["code"]) == (9, -32602)


def test_a_second_event_loop_has_children_of_its_own(tmp_path):
    provider = Children(tmp_path)(PID)

    async def once(close: bool) -> int:
        pid = int((await provider.invoke(ask())).text)
        if close:
            await provider.aclose()
        return pid

    first = asyncio.run(once(False))
    second = asyncio.run(once(True))
    assert first != second
    assert not is_alive(first), "the child of a loop that is closed was killed"
    assert not is_alive(second)


async def test_capabilities(child):
    provider = child("serve(echo, capabilities={'images': False, 'tools': True, 'new': 1})")
    assert provider.capabilities == Capabilities()
    assert await provider.ready() == Capabilities(images=False, tools=True)
    assert provider.capabilities == Capabilities(images=False, tools=True)
    with pytest.raises(BadRequest, match="has images, and the child says that it takes none"):
        await provider.invoke(ask(images=(ImagePart("data:,"),)))
    assert (await provider.invoke(ask())).text == "hello"


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("tools", {"tools": (Tool("t", "", {}),)}),
        ("history", {"messages": (Message("user", "before"),)}),
        ("files", {"input_files": (Path("a.txt"),)}),
        ("images", {"images": (ImagePart("data:,"),)}),
    ],
)
async def test_the_target_s_own_word_goes_before_the_child_s(child, name, fields):
    script = f"serve(echo, capabilities={{{name!r}: False}})"
    with pytest.raises(BadRequest, match="the child says that it takes none"):
        await child(script).invoke(ask(**fields))
    overridden = child(script, capabilities=Capabilities(**{name: True}))
    assert (await overridden.invoke(ask(**fields))).text == "hello"


# --- the command ----------------------------------------------------------------------------------


async def test_command_folder_and_environment(child, tmp_path, monkeypatch):
    monkeypatch.setenv("AROUND", "around")
    (tmp_path / "sub").mkdir()
    script = """
    def answer(message):
        text(message, f"{os.getcwd()} {os.environ.get('AROUND')} {os.environ.get('MADE')}")
    serve(answer)
    """
    everywhere = child(script, cwd="sub", env={"MADE": "yes"})
    assert (await everywhere.invoke(ask())).text == f"{tmp_path}/sub around yes"
    alone = child(script, env=["MADE"], inherit_env=False)
    assert (await alone.invoke(ask())).text == f"{tmp_path} None None"


async def test_a_command_line_of_the_shell(child, tmp_path):
    child()
    line = f"VAR=1; exec {sys.executable} child0.py"
    assert (await child.command(line).invoke(ask())).text == "hello"
    (tmp_path / "bare").write_text(f"exec {sys.executable} child0.py\n")  # no `#!`
    (tmp_path / "bare").chmod(0o755)
    assert (await child.command("./bare").invoke(ask())).text == "hello"


@pytest.mark.parametrize(
    ("command", "more", "text"),
    [
        (["no-such-agent"], {}, 'command not found: "no-such-agent" (no-such-agent)'),
        (["./child.txt"], {}, '"./child.txt" may not be executed (./child.txt)'),
        (["echo"], {"cwd": "nowhere"}, "nowhere is not there (echo)"),
    ],
)
async def test_a_command_that_cannot_be_started(child, tmp_path, command, more, text):
    (tmp_path / "child.txt").write_text("")
    provider = child.command(command, **more)
    for _ in range(2):
        with pytest.raises(ProviderFailed) as caught:
            await provider.invoke(ask())
        assert text in str(caught.value)
        assert not caught.value.retryable


@pytest.mark.parametrize(
    "wrong",
    [
        {"command": ""},
        {"command": "agent {PROMPT}"},
        {"command": "a", "pool_size": 0},
        {"command": "a", "idle_seconds": 0},
        {"command": "a", "max_line_bytes": 10},
        {"command": "a", "pool": 2},
        {},
    ],
)
def test_wrong_settings(wrong):
    with pytest.raises(ValidationError):
        StdioProvider(ResolvedTarget(name="a", provider="stdio", config=wrong))


def test_it_is_built_in_and_refused_if_safe():
    assert providers.is_builtin("stdio")
    assert providers.get("stdio") is StdioProvider
    target = ResolvedTarget(name="a", provider="stdio", config={"command": "a"}, safe=True)
    with pytest.raises(MusterError, match="--safe refuses"):
        StdioProvider(target)


# --- the end of everything ------------------------------------------------------------------------

SUITE = """
tests:
  - {id: a, input: wait, assertions: [{type: equals, value: x}]}
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_a_run_that_is_interrupted_leaves_nothing(child, tmp_path, number):
    child(PID.replace("serve(pid)", "os.system('sleep 60 & echo $! >>pids')\nserve(pid)"))
    (tmp_path / "targets.yaml").write_text(
        f"targets: [{{name: a, provider: stdio, command: [{sys.executable}, child0.py]}}]"
    )
    (tmp_path / "a.eval.yaml").write_text(SUITE)
    run = subprocess.Popen(
        [sys.executable, "-m", "muster", "eval", "a.eval.yaml", "--target", "a"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    pids = await pids_in(tmp_path / "pids", 2)
    run.send_signal(number)
    code = await asyncio.to_thread(run.wait, 20)
    leader, other = pids
    assert await all_gone([leader]), "without its input a child ends"
    if number == signal.SIGKILL:
        os.kill(other, signal.SIGKILL)  # nobody was there to do it
    else:
        assert await all_gone([other])
        assert code == (130 if number == signal.SIGINT else code)
    assert process.GRACE_SECONDS == 2.0


async def test_without_aclose_the_children_are_gone_with_the_process(child, tmp_path):
    child(PID)
    program = f"""
import asyncio
from muster.provider import ProviderRequest
from muster.providers.stdio import StdioProvider
from muster.target import ResolvedTarget
config = {{"command": [{sys.executable!r}, "child0.py"]}}
provider = StdioProvider(ResolvedTarget(name="a", provider="stdio", config=config))
print(asyncio.run(provider.invoke(ProviderRequest(question="x"))).text)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, timeout=30, check=True
    )
    assert await all_gone([int(run.stdout)])


async def test_no_descriptor_is_left_open(child):
    def count() -> int:
        return len(os.listdir("/dev/fd"))

    await child().ready()
    before = count()
    provider = child(PID)
    await provider.invoke(ask())
    with pytest.raises(ProviderFailed):
        await provider.invoke(ask("crash"))
    await provider.invoke(ask())
    await provider.aclose()
    missing = child.command(["no-such-agent"])
    with pytest.raises(ProviderFailed):
        await missing.invoke(ask())
    assert count() == before


@pytest.fixture
def no_pidfd(monkeypatch):
    monkeypatch.setattr("muster.providers.stdio_process.open_pidfd", lambda pid: -1)


async def test_where_there_are_no_pidfds(no_pidfd, child):
    provider = child(PID)
    await provider.invoke(ask())
    with pytest.raises(ProviderFailed, match="exit code 3"):
        await provider.invoke(ask("crash"))
    pid = int((await provider.invoke(ask())).text)
    await provider.aclose()
    assert not is_alive(pid)


def test_errors_are_of_the_family():
    assert AuthenticationFailed in ERRORS.values()
    assert ProviderUnavailable in ERRORS.values()
