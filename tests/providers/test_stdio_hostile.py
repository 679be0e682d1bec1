"""Children of `provider: stdio` that do not keep to the protocol: one clear message each, and the
rest goes on."""

from __future__ import annotations

import asyncio
import json
import logging
import resource

import pytest

from children import all_gone, is_alive, pids_in
from muster.provider import (
    BadProviderOutput,
    ProviderError,
    ProviderFailed,
    ProviderRequest,
    ProviderUnavailable,
    Tool,
)
from muster.providers import process, stdio_calls, stdio_child, stdio_process
from stdio_children import Children


@pytest.fixture
async def child(tmp_path):
    """Makes providers; at the end all their children must be gone."""
    children = Children(tmp_path)
    yield children
    for provider in children.made:
        await provider.aclose()
    assert not asyncio.all_tasks() - {asyncio.current_task()}


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.WARNING)

    def told() -> list[str]:
        return [record.getMessage() for record in caplog.records]

    return told


def ask(text: str = "hello", **fields) -> ProviderRequest:
    return ProviderRequest(question=text, **fields)


async def failure(provider, text: str = "hello", **fields) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await provider.invoke(ask(text, **fields))
    return caught.value


# --- at the start ---------------------------------------------------------------------------------


async def test_a_banner_first(child, warnings):
    provider = child(
        """
        write(b"Welcome to Agent 2.0!\\n\\n{'debug': True}\\n")
        write(b'{"level": "info", "msg": "ready"}\\n')
        serve(echo)
        """
    )
    assert (await provider.invoke(ask())).text == "hello"
    assert warnings() == [
        f'target "agent": the child wrote a line to standard output that is no message: {line} '
        "(what is not a message belongs on standard error)"
        for line in (
            "Welcome to Agent 2.0!",
            "{'debug': True}",
            '{"level": "info", "msg": "ready"}',
        )
    ]


async def test_so_much_chatter_is_told_ten_times(child, warnings):
    provider = child(
        """
        write(b"".join(b"line %d\\n" % n for n in range(5000)))
        serve(echo)
        """
    )
    assert (await provider.invoke(ask())).text == "hello"
    assert len(warnings()) == 10
    assert warnings()[-1].endswith("; more of it is not told")


@pytest.mark.parametrize(
    ("script", "kind", "text"),
    [
        (
            "print('no model', file=sys.stderr); sys.exit(3)",
            ProviderUnavailable,
            "the child ended with exit code 3 before it answered `initialize`",
        ),
        (
            "os.kill(os.getpid(), signal.SIGSEGV)",
            ProviderUnavailable,
            "the child ended with signal SIGSEGV before it answered `initialize`",
        ),
        (
            "print('usage: agent [--stdio]'); sys.exit(0)",
            ProviderUnavailable,
            "the child ended with exit code 0 before it answered `initialize`",
        ),
        (
            "time.sleep(30)",
            ProviderUnavailable,
            "the child did not answer `initialize` within 0.3 s",
        ),
        (
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(30)",
            ProviderUnavailable,
            "the child did not answer `initialize` within 0.3 s",
        ),
        (
            "say(id=read()['id'], result={'protocol_version': 2, 'capabilities': 'all'})\nread()",
            ProviderFailed,
            "the child speaks version 2 of the protocol, Muster speaks 1",
        ),
        (
            "say(id=read()['id'], result={})\nread()",
            BadProviderOutput,
            "the child sent what cannot be read as the answer to `initialize`: Object missing "
            "required field `protocol_version`",
        ),
        (
            "hello(read(), max_in_flight=0)\nread()",
            BadProviderOutput,
            "Expected `int` >= 1 - at `$.max_in_flight`",
        ),
        (
            "say(id=read()['id'], error={'code': -32000, 'message': 'no licence'})\nread()",
            ProviderFailed,
            "the child refuses `initialize`: no licence",
        ),
        (
            "os.close(1)\ntime.sleep(30)",
            BadProviderOutput,
            "the child closed its standard output",
        ),
    ],
    ids=[
        *("exits", "crashes", "usage", "silent", "silent and deaf", "version"),
        *("no version", "wrong field", "refuses", "closes"),
    ],
)
async def test_a_child_that_does_not_start(child, monkeypatch, script, kind, text):
    monkeypatch.setattr(stdio_process, "GRACE_SECONDS", 0.2)
    slow = 0.3 if "0.3 s" in text else 10
    provider = child(script, start_timeout_seconds=slow)
    errors = await asyncio.gather(*(failure(provider) for _ in range(3)))
    for error in (*errors, await failure(provider)):
        assert type(error) is kind
        assert text in error.message
        assert not error.retryable, "it would fail again"
        assert ("stderr: no model" in error.message) == ("no model" in script)


async def test_a_child_that_fails_to_start_only_later_may_be_retried(child, tmp_path):
    provider = child(
        """
        if os.path.exists("broken"):
            sys.exit(3)
        serve(lambda message: os._exit(0) if question(message) == "die" else echo(message))
        """
    )
    assert (await provider.invoke(ask())).text == "hello"
    (tmp_path / "broken").touch()
    await failure(provider, "die")
    error = await failure(provider)
    assert "exit code 3 before it answered `initialize`" in error.message
    assert error.retryable
    (tmp_path / "broken").unlink()
    assert (await provider.invoke(ask())).text == "hello"


# --- answers --------------------------------------------------------------------------------------


async def test_answers_out_of_order(child):
    provider = child(
        """
        waiting = []
        def answer(message):
            waiting.append(message)
            if len(waiting) == 10:
                for one in reversed(waiting):
                    text(one, question(one))
        serve(answer)
        """
    )
    responses = await asyncio.gather(*(provider.invoke(ask(str(n))) for n in range(10)))
    assert [response.text for response in responses] == [str(n) for n in range(10)]


async def test_an_answer_given_twice(child, warnings):
    provider = child(
        """
        def answer(message):
            text(message, "first")
            text(message, "second")
        serve(answer)
        """
    )
    assert [(await provider.invoke(ask())).text for _ in range(2)] == ["first", "first"]
    assert warnings()[0] == (
        'target "agent": the child answered the call 2 twice; the second answer is ignored'
    )


async def test_answers_to_nobody(child, warnings):
    provider = child(
        """
        def answer(message):
            say(id=99, result={"text": "?"})
            say(id="x", result={"text": "?"})
            text(message, "right")
        serve(answer)
        """
    )
    assert (await provider.invoke(ask())).text == "right"
    assert warnings() == [
        'target "agent": the child answered a call that was never made (id 99); it is ignored',
        "target \"agent\": the child answered a call that was never made (id 'x'); it is ignored",
    ]


async def test_an_id_that_has_become_text(child):
    provider = child("serve(lambda m: say(id=str(m['id']), result={'text': 'x'}))")
    error = await failure(provider)
    assert type(error) is BadProviderOutput
    assert 'answered with the id "2", a text, and not 2' in error.message


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b'{"jsonrpc":"2.0","id":%d,"result":{"text":"a\xff"}}', "it is not UTF-8 (byte 0xff)"),
        (b'{"jsonrpc":"2.0","id":%d,"result":{"text":5}}', "Expected `str | null`, got `int`"),
        (b'{"jsonrpc":"2.0","id":%d,"result":{"text":"a","usage":1}}', "unknown field `usage`"),
        (b'{"jsonrpc":"2.0","id":%d,"result":"a"}', "Expected `object`, got `str`"),
        (b'{"jsonrpc":"2.0","id":%d,"result":{}}', "answered with neither of `text` and `output`"),
        (
            b'{"jsonrpc":"2.0","id":%d,"result":{"text":"a","output":[]}}',
            "answered with both of `text` and `output`",
        ),
        (b'{"jsonrpc":"2.0","id":%d,"result":{"output":[]}}', "no message of the assistant"),
        (b'{"jsonrpc":"2.0","id":%d,"result":{"output":[{}]}}', "a message needs `role`"),
        (
            b'{"jsonrpc":"2.0","id":%d,"result":{"text":"a","token_usage":{"input":1}}}',
            "missing required field `output`",
        ),
        (
            b'{"jsonrpc":"2.0","id":%d,"result":{"text":"a","cost_usd":-1}}',
            "Expected `float` >= 0",
        ),
        (b'{"jsonrpc":"2.0","id":%d,"error":"no"}', "with an error that cannot be read"),
        (b'{"jsonrpc":"2.0","id":%d,"result":{"text":"a}', "it ends in the middle"),
        (b'{"jsonrpc":"2.0","result":{"text":nil},"id":%d}', "JSON is malformed"),
        (
            b'{"jsonrpc":"2.0","id":%d,"result":{"text":"a","raw":' + b"[" * 5000 + b"]" * 5000,
            "nested too deeply",
        ),
    ],
)
async def test_answers_that_cannot_be_read_fail_their_call_alone(child, line, text):
    provider = child(
        f"""
        line = {line!r}
        other = None
        def answer(message):
            global other
            if question(message) == "other":
                other = message
                return
            write(line % message["id"] + b"\\n")
            text(other, "good")
        serve(answer)
        """
    )
    await provider.ready()
    other = asyncio.create_task(provider.invoke(ask("other")))
    await asyncio.sleep(0)
    error = await failure(provider)
    assert type(error) is BadProviderOutput
    assert text in error.message
    assert (await other).text == "good"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b'{"jsonrpc":"2.0","method":"chunk","params":{"invoke_id":%d}}', "field `text`"),
        (b'{"jsonrpc":"2.0","method":"chunk","params":{"invoke_id":%d,"text":1}}', "got `int`"),
        (b'{"jsonrpc":"2.0","method":"tool_call","params":{"invoke_id":%d,"name":"a"}}', "an id"),
        (b'{"jsonrpc":"2.0","id":"a","method":"tool_call","params":{"invoke_id":%d}}', "`name`"),
    ],
)
async def test_wrong_notifications_fail_their_call(child, line, text):
    provider = child(
        f"""
        line = {line!r}
        def answer(message):
            if message.get("method") == "invoke":
                if question(message) == "bad":
                    write(line % message["id"] + b"\\n")
                else:
                    text(message, "good")
        serve(answer)
        """
    )
    error = await failure(provider, "bad", on_chunk=lambda text: None)
    assert type(error) is BadProviderOutput
    assert text in error.message
    assert (await provider.invoke(ask())).text == "good"


@pytest.mark.parametrize(
    "line",
    [
        b'{"jsonrpc":"2.0","method":"chunk","params":{"invoke_id":99,"text":"lost"}}',
        b'{"jsonrpc":"2.0","method":"chunk","params":null}',
        b'{"jsonrpc":"2.0","method":"chunk"}',
        b'{"jsonrpc":"2.0","id":null,"method":"hum"}',
        b"[]",
        b"null",
        b"\xff\xfe",
        b"\x00",
    ],
)
async def test_strange_lines_do_no_harm(child, line):
    provider = child(
        f"""
        def answer(message):
            write({line!r} + b"\\r\\n")
            text(message, "good")
        serve(answer)
        """
    )
    assert (await provider.invoke(ask(on_chunk=lambda text: None))).text == "good"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b'{"jsonrpc":"2.0","id":2.5,"result":{}}', "sent a message that cannot be read"),
        (b'{"jsonrpc":"2.0","res', "sent a message that cannot be read"),
        (
            b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"eh?"}}',
            "could not read what it was sent: eh?",
        ),
    ],
)
async def test_a_child_that_cannot_be_relied_on_is_replaced(child, tmp_path, line, text):
    provider = child(
        f"""
        with open("pids", "a") as file:
            print(os.getpid(), file=file, flush=True)
        def answer(message):
            if question(message) == "bad":
                write({line!r} + b"\\n")
            elif question(message) == "good":
                text(message, "good")
        serve(answer)
        """
    )
    await provider.ready()
    other = asyncio.create_task(failure(provider, "wait"))
    await asyncio.sleep(0)
    for error in (await failure(provider, "bad"), await other):
        assert type(error) is BadProviderOutput
        assert text in error.message
        assert error.retryable
    assert (await provider.invoke(ask("good"))).text == "good"
    first, _ = await pids_in(tmp_path / "pids", 2)
    assert await all_gone([first])


async def test_half_a_line_and_death(child):
    provider = child(
        """
        def answer(message):
            write(b'{"jsonrpc":"2.0","id":%d,"result":{"te' % message["id"])
            os._exit(1)
        serve(answer)
        """
    )
    error = await failure(provider)
    assert type(error) is ProviderFailed
    assert error.retryable
    assert "ended with exit code 1, in the middle of a line: " in error.message
    assert '"result":{"te' in error.message


# --- too much -------------------------------------------------------------------------------------

LONG = """
def answer(message):
    if question(message) == "other":
        text(message, "good")
        return
    head, tail = {head!r}, {tail!r}
    write(head.replace(b"ID", b"%d" % message["id"]))
    for _ in range({megabytes}):
        write(b"x" * 1_000_000)
    write(tail.replace(b"ID", b"%d" % message["id"]) + b"\\n")
serve(answer)
"""


async def test_a_line_of_200_mb(child):
    head = b'{"jsonrpc":"2.0","id":ID,"result":{"text":"'
    provider = child(LONG.format(head=head, tail=b'"}}', megabytes=200))
    await provider.ready()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error = await failure(provider)
    assert type(error) is BadProviderOutput
    assert "sent a line of more than max_line_bytes (16,777,216)" in error.message
    assert not error.retryable
    assert (await provider.invoke(ask("other"))).text == "good"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 100, "what is too long is not kept"


async def test_a_long_line_whose_id_stands_at_its_end(child):
    tail = b'"},"id":ID}'
    provider = child(
        LONG.format(head=b'{"jsonrpc":"2.0","result":{"text":"', tail=tail, megabytes=1),
        max_line_bytes=10_000,
    )
    assert "max_line_bytes (10,000)" in (await failure(provider)).message
    assert (await provider.invoke(ask("other"))).text == "good"


async def test_a_long_line_of_no_call_ends_the_child(child):
    provider = child(
        LONG.format(head=b'{"jsonrpc":"2.0","result":{"text":"', tail=b'"}}', megabytes=1),
        max_line_bytes=10_000,
    )
    error = await failure(provider)
    assert "and it cannot be told for which call" in error.message
    assert error.retryable
    assert (await provider.invoke(ask("other"))).text == "good"


async def test_a_long_line_that_is_no_message(child, warnings):
    script = LONG.replace("serve(answer)", "").format(head=b"log: ", tail=b"", megabytes=1)
    provider = child(
        script + "serve(lambda message: (answer(message), text(message, 'good')))",
        max_line_bytes=10_000,
    )
    assert (await provider.invoke(ask())).text == "good"
    assert "max_line_bytes (10,000); it is left out: log: xxx" in warnings()[0]


async def test_a_line_without_an_end(child, monkeypatch):
    monkeypatch.setattr(stdio_process, "_MAX_SKIPPED", 3_000_000)
    provider = child(
        """
        def answer(message):
            if question(message) == "other":
                text(message, "good")
            while question(message) != "other":
                write(b"x" * 100_000)
        serve(answer)
        """,
        max_line_bytes=10_000,
    )
    error = await failure(provider)
    assert "the child writes a line without an end" in error.message
    assert (await provider.invoke(ask("other"))).text == "good"


async def test_more_tool_calls_than_anybody_needs(child, monkeypatch):
    monkeypatch.setattr(stdio_calls, "MAX_TOOL_CALLS", 5)
    provider = child(
        """
        answers = []
        invoke = None
        def answer(message):
            global invoke
            if message.get("method") == "invoke":
                invoke = message
                for n in range(8):
                    say(id=n, method="tool_call", params={"invoke_id": message["id"], "name": "t"})
            else:
                answers.append(message["result"]["output"])
                if len(answers) == 8:
                    text(invoke, json.dumps(sorted(answers)))
        serve(answer)
        """
    )

    async def tool(name, arguments):
        await asyncio.sleep(0.02)
        return "ok \ud800"

    response = await provider.invoke(ask(tools=(Tool("t"),), call_tool=tool))
    assert json.loads(response.text) == [
        *["error: more than 5 tools at the same time"] * 3,
        *["ok ?"] * 5,
    ]


async def test_a_child_that_does_not_read(child):
    provider = child(
        """
        hello(read())
        first = read()
        time.sleep(0.3)
        text(first, "first")
        serve(lambda message: text(message, str(len(question(message)))))
        """
    )
    await provider.ready()
    calls = [asyncio.create_task(provider.invoke(ask("x" * 500_000))) for _ in range(4)]
    texts = [(await call).text for call in calls]
    assert texts == ["first", "500000", "500000", "500000"]


async def test_a_child_that_has_closed_its_input(child):
    provider = child(
        """
        def answer(message):
            os.close(0)
            time.sleep(30)
        serve(answer)
        """
    )
    first = asyncio.create_task(failure(provider))
    await asyncio.sleep(0.2)
    second = asyncio.create_task(failure(provider))
    for error in (await first, await second):
        assert "the child closed its standard input" in error.message
        assert error.retryable


# --- the end --------------------------------------------------------------------------------------


async def test_a_child_that_ignores_shutdown(child, tmp_path, monkeypatch):
    monkeypatch.setattr(stdio_child, "FAREWELL_SECONDS", 0.1)
    monkeypatch.setattr(stdio_process, "GRACE_SECONDS", 0.1)
    assert process.GRACE_SECONDS == 2.0
    provider = child(
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with open("pids", "a") as file:
            print(os.getpid(), file=file, flush=True)
        hello(read())
        echo(read())
        while True:
            time.sleep(1)
        """
    )
    await provider.invoke(ask())
    (pid,) = await pids_in(tmp_path / "pids", 1)
    started = asyncio.get_running_loop().time()
    await provider.aclose()
    assert not is_alive(pid)
    assert asyncio.get_running_loop().time() - started < 1


@pytest.mark.parametrize("ends", ["shutdown", "crash"])
async def test_a_child_that_forks(child, tmp_path, ends):
    provider = child(
        """
        pids = [os.getpid()]
        for _ in range(2):
            pids.append(os.fork())
            if pids[-1] == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(60)
        with open("pids", "w") as file:
            print(*pids, file=file, flush=True)
        serve(lambda m: os._exit(1) if question(m) == "crash" else echo(m))
        """
    )
    await provider.invoke(ask())
    pids = await pids_in(tmp_path / "pids", 3)
    if ends == "crash":
        assert "exit code 1" in (await failure(provider, "crash")).message
    else:
        await provider.aclose()
    assert await all_gone(pids)


async def test_a_process_that_left_the_group_does_not_hold_us(child):
    provider = child(
        """
        if os.fork() == 0:
            os.setsid()
            time.sleep(5)
            os._exit(0)
        serve(lambda m: os._exit(1) if question(m) == "crash" else echo(m))
        """
    )
    await provider.invoke(ask())
    started = asyncio.get_running_loop().time()
    await failure(provider, "crash")
    assert asyncio.get_running_loop().time() - started < 2


async def test_closing_while_a_child_starts(child, tmp_path):
    provider = child(
        """
        with open("pids", "a") as file:
            print(os.getpid(), file=file, flush=True)
        time.sleep(60)
        """
    )
    call = asyncio.create_task(failure(provider))
    pids = await pids_in(tmp_path / "pids", 1)
    await provider.aclose()
    assert "the provider was closed" in (await call).message
    assert await all_gone(pids)


async def test_a_cancelled_close_kills(child, tmp_path):
    provider = child(
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with open("pids", "a") as file:
            print(os.getpid(), file=file, flush=True)
        hello(read())
        time.sleep(60)
        """
    )
    await provider.ready()
    (pid,) = await pids_in(tmp_path / "pids", 1)
    closing = asyncio.create_task(provider.aclose())
    await asyncio.sleep(0.05)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert not is_alive(pid)
