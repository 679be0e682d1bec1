from __future__ import annotations

import asyncio

import pytest

from muster.provider import (
    AuthenticationFailed,
    BadProviderOutput,
    BadRequest,
    BudgetExceeded,
    LimitExceeded,
    Limits,
    ProviderFailed,
    ProviderRequest,
    ProviderResponse,
    ProviderUnavailable,
    QuotaExhausted,
    TokenUsage,
)
from muster.target import RetryPolicy
from muster.wrappers import Fallback, Retry

ASK = ProviderRequest(question="?")


def chain(*providers):
    return Fallback(list(zip("abc", providers, strict=False)))


async def test_the_first_answers_and_nobody_else_is_asked(scripted):
    answer, second = ProviderResponse("yes"), scripted("no")
    assert await chain(scripted(answer), second).invoke(ASK) is answer
    assert answer.target_used is None
    assert second.requests == []


@pytest.mark.parametrize(
    "error",
    [
        ProviderUnavailable("x"),
        BadRequest("context too long"),
        AuthenticationFailed("x"),
        QuotaExhausted("x"),
        BadProviderOutput("x"),
        ProviderFailed("x"),
    ],
)
async def test_the_next_steps_in_and_is_named(scripted, error):
    response = await chain(scripted(error), scripted("yes")).invoke(ASK)
    assert (response.text, response.target_used) == ("yes", "b")


async def test_asked_in_order(scripted):
    providers = [scripted(ProviderFailed("x")), scripted(ProviderFailed("y")), scripted("yes")]
    response = await chain(*providers).invoke(ASK)
    assert response.target_used == "c"
    assert response.attempts == 3
    assert [len(provider.requests) for provider in providers] == [1, 1, 1]


async def test_what_the_others_spent_is_added(scripted):
    first = Retry(
        scripted(ProviderUnavailable("x", token_usage=TokenUsage(5, 1), cost_usd=0.1)),
        RetryPolicy(max_retries=1, initial_delay=0),
    )
    second = scripted(ProviderResponse("yes", token_usage=TokenUsage(7, 2)))
    response = await chain(first, second).invoke(ASK)
    assert response.token_usage == TokenUsage(17, 4)
    assert response.cost_usd == pytest.approx(0.2)
    assert response.attempts == 3


async def test_nobody_answers(scripted):
    first = ProviderUnavailable("no route", token_usage=TokenUsage(1))
    second = AuthenticationFailed("bad key", status=401, token_usage=TokenUsage(2))
    with pytest.raises(AuthenticationFailed) as caught:
        await chain(scripted(first), scripted(second)).invoke(ASK)
    error = caught.value
    assert str(error) == "no target answered: a: no route; b: bad key"
    assert (error.target, error.status, error.attempts) == ("b", 401, 2)
    assert error.token_usage == TokenUsage(3)
    assert error.__cause__ is second
    assert str(second) == "bad key"


@pytest.mark.parametrize("error", [BudgetExceeded("spent"), LimitExceeded("50 turns")])
async def test_a_limit_of_the_request_holds_for_every_target(scripted, error):
    second = scripted("yes")
    with pytest.raises(type(error), match=f"^{error}$") as caught:
        await chain(scripted(error), second).invoke(ASK)
    assert caught.value.target == "a"
    assert second.requests == []


async def test_a_spent_budget_ends_the_chain(scripted):
    first = scripted(ProviderUnavailable("cut", token_usage=TokenUsage(100)))
    second = scripted("yes")
    request = ProviderRequest(question="?", limits=Limits(max_total_tokens=100))
    with pytest.raises(ProviderUnavailable):
        await chain(first, second).invoke(request)
    assert second.requests == []


async def test_cancellation_is_no_failure(scripted):
    async def hangs(request):
        await asyncio.sleep(60)

    second = scripted("yes")
    task = asyncio.create_task(chain(scripted(hangs), second).invoke(ASK))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert second.requests == []


async def test_nobody_steps_in_after_text_was_streamed(scripted):
    async def breaks(request):
        request.on_chunk("half")
        raise ProviderUnavailable("reset")

    seen, second = [], scripted("yes")
    with pytest.raises(ProviderUnavailable, match=r"^reset$"):
        await chain(scripted(breaks), second).invoke(
            ProviderRequest(question="?", on_chunk=seen.append)
        )
    assert (seen, second.requests) == (["half"], [])


async def test_other_exceptions_pass(scripted):
    with pytest.raises(ZeroDivisionError):
        await chain(scripted(ZeroDivisionError()), scripted("yes")).invoke(ASK)


async def test_a_chain_within_a_chain_names_who_answered(scripted):
    inner = Fallback([("x", scripted(ProviderFailed("x"))), ("y", scripted("yes"))])
    response = await chain(scripted(ProviderFailed("a")), inner).invoke(ASK)
    assert response.target_used == "y"


async def test_aclose_reaches_all(scripted):
    providers = [scripted("yes"), scripted("yes")]
    await chain(*providers).aclose()
    assert [provider.closed for provider in providers] == [1, 1]
