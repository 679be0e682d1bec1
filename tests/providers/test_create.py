"""From targets to providers: every kind of object that can answer, and what it may not do."""

from __future__ import annotations

import asyncio
import functools
import threading
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from muster.errors import MusterError, UsageError
from muster.importing import CodeError
from muster.provider import (
    BadProviderOutput,
    Message,
    Provider,
    ProviderError,
    ProviderFailed,
    ProviderRequest,
    ProviderResponse,
    ProviderTimeout,
    RateLimited,
    TokenUsage,
)
from muster.providers import providers
from muster.providers.chat import ChatReply, ChatTurn
from muster.providers.create import as_provider, create_provider
from muster.registry import Registry, UnknownName
from muster.target import ProviderFactory, ResolvedTarget


def ask(question: str = "2+2?", **more: object) -> ProviderRequest:
    return ProviderRequest(question=question, **more)  # type: ignore[arg-type]


def registry_of(**factories: ProviderFactory) -> Registry[ProviderFactory]:
    registry: Registry[ProviderFactory] = Registry("provider")
    for name, factory in factories.items():
        registry.register(name, factory)
    return registry


# --- the table ----------------------------------------------------------------------------------


def test_every_built_in_can_be_imported() -> None:
    for entry in providers.entries():
        if entry.source == "built-in":
            assert callable(providers.get(entry.name)), entry


@pytest.mark.parametrize("alias", ["azure-openai", "google", "google-gemini"])
def test_agentv_names_are_aliases(alias: str) -> None:
    assert providers.is_builtin(alias)


def test_unknown_provider_names_the_nearest() -> None:
    with pytest.raises(
        UnknownName, match='unknown provider "opnai" — did you register it'
    ) as error:
        create_provider(ResolvedTarget(name="t", provider="opnai"))
    assert "near: openai" in str(error.value)
    assert "known: anthropic, " in str(error.value)


# --- what a factory may return ------------------------------------------------------------------


async def sync_function(request: ProviderRequest) -> str:
    return request.question.upper()


class Loud:
    """A provider as a user writes it."""

    id = "loud:one"
    closed = False

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        return ProviderResponse(request.question.upper(), token_usage={"input": 1, "output": 2})

    async def aclose(self) -> None:
        self.closed = True


class SyncLoud:
    def invoke(self, request: ProviderRequest) -> str:
        assert threading.current_thread() is not threading.main_thread()
        return request.question.upper()


class CallableLoud:
    async def __call__(self, request: ProviderRequest) -> str:
        return request.question.upper()


class Chat:
    async def complete(self, turn: ChatTurn) -> ChatReply:
        return ChatReply(message=Message("assistant", turn.messages[-1].text.upper()))


def by_text(question: str) -> str:
    return question.upper()


def by_name(prompt) -> str:  # type: ignore[no-untyped-def]
    return str(prompt.upper())


def by_request(req) -> str:  # type: ignore[no-untyped-def]
    return str(req.question.upper())


def with_default(question: str, shout: bool = True) -> str:
    return question.upper() if shout else question


def any_arguments(*args: ProviderRequest, **kwargs: object) -> str:
    return args[0].question.upper()


def returns_coroutine(request: ProviderRequest) -> object:
    return sync_function(request)


@pytest.mark.parametrize(
    "obj",
    [
        Loud(),
        SyncLoud(),
        CallableLoud(),
        Chat(),
        sync_function,
        by_text,
        by_name,
        by_request,
        with_default,
        any_arguments,
        returns_coroutine,
        functools.partial(with_default, shout=True),
        lambda request: request.question.upper(),
        Loud().invoke,
    ],
    ids=lambda obj: getattr(obj, "__name__", type(obj).__name__),
)
async def test_anything_that_answers_is_a_provider(obj: object) -> None:
    made = create_provider(ResolvedTarget(name="t", provider="x"), registry_of(x=lambda t: obj))
    assert isinstance(made, Provider)
    response = await made.invoke(ask("hello"))
    assert response.text == "HELLO"


async def test_aclose_reaches_what_was_wrapped() -> None:
    loud = Loud()
    provider = as_provider(loud)
    await provider.aclose()  # type: ignore[attr-defined]
    assert loud.closed


def test_own_providers_are_taken_as_they_are() -> None:
    echo = create_provider(ResolvedTarget(name="e", provider="echo"))
    assert as_provider(echo) is echo


@pytest.mark.parametrize(
    ("made", "found"),
    [(None, "NoneType"), (42, "int"), ("hi", "str"), (Loud, "Loud")],
)
def test_a_factory_that_makes_no_provider(made: object, found: str) -> None:
    with pytest.raises(CodeError, match=f'"t": the factory of provider "x" returned {found}'):
        create_provider(ResolvedTarget(name="t", provider="x"), registry_of(x=lambda t: made))


def test_as_provider_refuses_what_cannot_answer() -> None:
    with pytest.raises(UsageError, match="int is no provider"):
        as_provider(42)
    with pytest.raises(UsageError, match="Loud is a class"):
        as_provider(Loud)


@pytest.mark.parametrize(
    ("function", "takes"),
    [(lambda: "x", "takes nothing"), (lambda a, b: "x", "takes a, b")],
)
def test_a_function_with_the_wrong_parameters(function: object, takes: str) -> None:
    with pytest.raises(UsageError, match=f"{takes}; a provider function takes one argument"):
        as_provider(function, name="f")


# --- dotted paths -------------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[str, Path]:
    name = f"agent_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(
        "class Provider:\n"
        "    def __init__(self, target):\n"
        "        self.greeting = target.config['greeting']\n"
        "    async def invoke(self, request):\n"
        "        return self.greeting + ' ' + request.question\n"
        "async def answer(request):\n"
        "    return 'no factory'\n"
        "def broken(target):\n"
        "    return {}['url']\n"
    )
    return name, tmp_path


async def test_a_dotted_path_is_found_beside_the_targets_file(module: tuple[str, Path]) -> None:
    name, folder = module
    target = ResolvedTarget(
        name="t", provider=f"{name}:Provider", config={"greeting": "hi"}, base_dir=folder
    )
    assert (await create_provider(target).invoke(ask("you"))).text == "hi you"


def test_safe_refuses_a_dotted_path(module: tuple[str, Path]) -> None:
    name, folder = module
    target = ResolvedTarget(name="t", provider=f"{name}:Provider", base_dir=folder, safe=True)
    with pytest.raises(MusterError, match="--safe refuses the target"):
        create_provider(target)


def test_a_function_in_the_place_of_a_factory(module: tuple[str, Path]) -> None:
    name, folder = module
    target = ResolvedTarget(name="t", provider=f"{name}:answer", base_dir=folder)
    with pytest.raises(CodeError, match="is no factory: write `provider: function`"):
        create_provider(target)


def test_a_factory_that_fails_names_its_line(module: tuple[str, Path]) -> None:
    name, folder = module
    target = ResolvedTarget(name="t", provider=f"{name}:broken", base_dir=folder)
    with pytest.raises(CodeError, match=rf"{name}\.py:9: KeyError: 'url'"):
        create_provider(target)


def test_wrong_settings_pass_as_pydantic_says_them() -> None:
    with pytest.raises(ValidationError) as error:
        create_provider(ResolvedTarget(name="t", provider="mock", config={"respnse": "x"}))
    assert error.value.errors()[0]["loc"] == ("respnse",)


# --- what users' code does wrong ----------------------------------------------------------------


class Breaks:
    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        raise ValueError("no such thing")


def breaks(request: ProviderRequest) -> str:
    raise ValueError("no such thing")


def exits(request: ProviderRequest) -> str:
    raise SystemExit("no such thing")


def stops(request: ProviderRequest) -> str:
    raise StopIteration("no such thing")


async def breaks_in_a_library(request: ProviderRequest) -> str:
    import json

    return str(json.loads("no such thing"))


@pytest.mark.parametrize("obj", [Breaks(), breaks, exits, stops, breaks_in_a_library])
async def test_what_code_raises_is_a_provider_failure_with_its_line(obj: object) -> None:
    with pytest.raises(ProviderFailed) as failure:
        await as_provider(obj, name="mine").invoke(ask())
    message = str(failure.value)
    assert message.startswith(f"mine: {__file__}:"), message
    assert not failure.value.retryable
    cause = failure.value.__cause__
    assert type(cause).__name__ in message
    assert str(cause) in message


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (RateLimited("slow down", retry_after=3), RateLimited),
        (ConnectionResetError("gone"), ProviderFailed),
        (TimeoutError("late"), ProviderTimeout),
    ],
)
async def test_what_passes_by_itself_may_be_retried(
    raised: Exception, expected: type[ProviderError]
) -> None:
    async def fails(request: ProviderRequest) -> str:
        raise raised

    with pytest.raises(expected) as failure:
        await as_provider(fails).invoke(ask())
    assert failure.value.retryable


async def test_code_that_cancels_itself_fails_and_is_not_cancelled() -> None:
    async def cancels(request: ProviderRequest) -> str:
        raise asyncio.CancelledError

    with pytest.raises(ProviderFailed, match="CancelledError"):
        await as_provider(cancels).invoke(ask())


async def test_a_real_cancellation_passes() -> None:
    started = asyncio.Event()

    async def waits(request: ProviderRequest) -> str:
        started.set()
        await asyncio.sleep(60)
        return ""

    task = asyncio.create_task(as_provider(waits).invoke(ask()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("answer", [None, 42, 1.5, True, b"bytes", object()])
async def test_a_wrong_return_type_is_named(answer: object) -> None:
    async def returns(request: ProviderRequest) -> object:
        return answer

    with pytest.raises(BadProviderOutput, match="expected text, a ProviderResponse") as failure:
        await as_provider(returns, name="mine").invoke(ask())
    named = "None" if answer is None else type(answer).__name__
    assert f"mine: answered with {named}" in str(failure.value)
    assert not failure.value.retryable


# --- what a function may return -----------------------------------------------------------------


async def answer_of(value: object) -> ProviderResponse:
    async def returns(request: ProviderRequest) -> object:
        return value

    return await as_provider(returns, name="mine").invoke(ask())


async def test_a_mapping_with_text_is_an_answer_with_its_accounting() -> None:
    response = await answer_of(
        {"text": "4", "token_usage": {"input": 3, "output": 1}, "cost_usd": 0.5, "duration_ms": 7}
    )
    assert response.text == "4"
    assert response.token_usage == TokenUsage(3, 1)
    assert (response.cost_usd, response.duration_ms) == (0.5, 7)


async def test_messages_as_objects_and_as_mappings() -> None:
    assert (await answer_of(Message("assistant", "4"))).text == "4"
    assert (await answer_of({"role": "assistant", "content": "4"})).text == "4"
    response = await answer_of([{"role": "assistant", "content": "3"}, Message("assistant", "4")])
    assert [message.text for message in response.output] == ["3", "4"]
    assert (await answer_of({"output": [{"role": "assistant", "content": "4"}]})).text == "4"


async def test_other_json_is_the_content() -> None:
    assert (await answer_of({"answer": 4})).text == '{"answer": 4}'
    assert (await answer_of([1, 2])).text == "[1, 2]"
    assert (await answer_of({"output": {"answer": 4}})).text == '{"answer": 4}'
    assert (await answer_of([])).text == "[]"


async def test_an_error_in_the_answer_is_a_failure_that_was_paid() -> None:
    with pytest.raises(ProviderFailed, match="mine: out of paper") as failure:
        await answer_of({"error": "out of paper", "token_usage": {"input": 3, "output": 0}})
    assert failure.value.token_usage == TokenUsage(3, 0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"text": "4", "token_useage": {}}, 'unknown field "token_useage" .did you mean "token_u'),
        ({"text": "4", "cost_usd": "cheap"}, "`cost_usd` must be a number from 0 up, not 'cheap'"),
        ({"text": "4", "token_usage": {"input": -1}}, "input must be a whole number from 0 up"),
        ({"output": None}, "neither `output` nor `text`"),
        ({"answer": {1, 2}}, "set is not JSON serializable"),
        ([{"role": 4}], "a message needs `role`"),
    ],
)
async def test_a_mapping_that_is_no_answer(value: object, message: str) -> None:
    with pytest.raises(BadProviderOutput, match=message):
        await answer_of(value)


# --- generators ---------------------------------------------------------------------------------


async def async_words(request: ProviderRequest):  # type: ignore[no-untyped-def]
    yield "one "
    yield "two"


def sync_words(request: ProviderRequest):  # type: ignore[no-untyped-def]
    yield "one "
    yield "two"


async def async_with_usage(request: ProviderRequest):  # type: ignore[no-untyped-def]
    yield "one "
    yield "two"
    yield ProviderResponse(token_usage=TokenUsage(1, 2))


def sync_with_usage(request: ProviderRequest):  # type: ignore[no-untyped-def]
    yield "one "
    yield "two"
    return {"token_usage": {"input": 1, "output": 2}}


@pytest.mark.parametrize("words", [async_words, sync_words, async_with_usage, sync_with_usage])
@pytest.mark.parametrize("listening", [True, False])
async def test_generators_stream(words: object, listening: bool) -> None:
    heard: list[str] = []
    response = await as_provider(words).invoke(ask(on_chunk=heard.append if listening else None))
    assert response.text == "one two"
    assert heard == (["one ", "two"] if listening else [])
    if "usage" in getattr(words, "__name__", ""):
        assert response.token_usage == TokenUsage(1, 2)


async def test_a_generator_that_goes_on_after_its_answer() -> None:
    async def words(request: ProviderRequest):  # type: ignore[no-untyped-def]
        yield ProviderResponse("4")
        yield "5"

    with pytest.raises(BadProviderOutput, match="more after its final answer"):
        await as_provider(words).invoke(ask())


async def test_a_generator_that_yields_numbers() -> None:
    def words(request: ProviderRequest):  # type: ignore[no-untyped-def]
        yield 4

    with pytest.raises(BadProviderOutput, match="yielded 4; expected pieces of text"):
        await as_provider(words).invoke(ask())


async def test_a_cancelled_generator_is_closed() -> None:
    closed = asyncio.Event()
    started = asyncio.Event()

    async def words(request: ProviderRequest):  # type: ignore[no-untyped-def]
        try:
            started.set()
            yield "one"
            await asyncio.sleep(60)
        finally:
            closed.set()

    task = asyncio.create_task(as_provider(words).invoke(ask()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set()


# --- threads ------------------------------------------------------------------------------------


async def test_synchronous_functions_run_side_by_side_within_their_bound() -> None:
    meeting = threading.Barrier(4, timeout=10)
    busy: list[int] = []
    most = 0

    def waits(request: ProviderRequest) -> str:
        nonlocal most
        busy.append(1)
        most = max(most, len(busy))
        meeting.wait()
        busy.pop()
        return request.question

    provider = as_provider(waits, threads=4)
    answers = await asyncio.gather(*(provider.invoke(ask(str(n))) for n in range(12)))
    assert [answer.text for answer in answers] == [str(n) for n in range(12)]
    assert most == 4
    await provider.aclose()  # type: ignore[attr-defined]
    assert (await asyncio.gather(*(provider.invoke(ask("again")) for _ in range(4))))[0].text


async def test_a_hanging_function_does_not_hold_the_loop_or_its_place() -> None:
    release = threading.Event()

    def hangs(question: str) -> str:
        if question == "hang":
            release.wait(30)
        return question

    provider = as_provider(hangs, threads=1)
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await provider.invoke(ask("hang"))
        async with asyncio.timeout(10):
            assert (await provider.invoke(ask("next"))).text == "next"
    finally:
        release.set()


async def test_a_call_that_waits_for_a_thread_can_be_cancelled() -> None:
    release = threading.Event()
    ran: list[str] = []

    def waits(question: str) -> str:
        ran.append(question)
        release.wait(30)
        return question

    provider = as_provider(waits, threads=1)
    first = asyncio.create_task(provider.invoke(ask("first")))
    second = asyncio.create_task(provider.invoke(ask("second")))
    third = asyncio.create_task(provider.invoke(ask("third")))
    while not ran:
        await asyncio.sleep(0.001)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    release.set()
    assert (await first).text == "first"
    assert (await third).text == "third"
    assert ran == ["first", "third"]


async def test_an_abandoned_sync_generator_stops_at_its_next_piece() -> None:
    stopped = threading.Event()
    started = threading.Event()

    def words(request: ProviderRequest):  # type: ignore[no-untyped-def]
        try:
            while True:
                started.set()
                time.sleep(0.001)
                yield "x"
        finally:
            stopped.set()

    task = asyncio.create_task(as_provider(words).invoke(ask()))
    assert await asyncio.to_thread(started.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(stopped.wait, 10)


def test_one_provider_serves_several_event_loops() -> None:
    provider = as_provider(by_text)
    for word in ("one", "two"):
        assert asyncio.run(provider.invoke(ask(word))).text == word.upper()
