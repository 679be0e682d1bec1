from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.provider import (
    AuthenticationFailed,
    BadRequest,
    BudgetExceeded,
    Limits,
    ProviderRequest,
    ProviderResponse,
    ProviderUnavailable,
    QuotaExhausted,
    RateLimited,
    TokenUsage,
)
from muster.target import RetryPolicy
from muster.wrappers import Retry
from muster.wrappers.retry import LONGEST_WAIT, backoff_ceiling

ASK = ProviderRequest(question="?")


class Naps:
    """Stands in for `asyncio.sleep`; remembers."""

    def __init__(self):
        self.taken = []

    async def __call__(self, seconds):
        self.taken.append(seconds)


def retry(provider, naps=None, draw=1.0, **policy):
    return Retry(provider, RetryPolicy(**policy), sleep=naps or Naps(), random=lambda: draw)


async def test_the_first_answer_passes_untouched(scripted):
    answer = ProviderResponse("yes")
    provider = scripted(answer)
    assert await retry(provider).invoke(ASK) is answer
    assert provider.requests == [ASK]


async def test_tries_again_and_counts(scripted):
    provider = scripted(ProviderUnavailable("down"), RateLimited("slow"), "yes")
    naps = Naps()
    response = await retry(provider, naps).invoke(ProviderRequest(question="?", attempt=5))
    assert response.text == "yes"
    assert response.attempts == 3
    assert [request.attempt for request in provider.requests] == [5, 6, 7]
    assert naps.taken == [1.0, 2.0]


async def test_gives_up_with_the_last_error_and_the_account_of_all(scripted):
    provider = scripted(
        ProviderUnavailable("one", token_usage=TokenUsage(3, 1), cost_usd=0.1),
        RateLimited("two"),
        ProviderUnavailable("three", token_usage=TokenUsage(2, 2, cached=1), cost_usd=0.2),
    )
    with pytest.raises(ProviderUnavailable, match=r"^three$") as caught:
        await retry(provider).invoke(ASK)
    assert caught.value.attempts == 3
    assert caught.value.token_usage == TokenUsage(5, 3, cached=1)
    assert caught.value.cost_usd == pytest.approx(0.3)


async def test_what_failed_tries_spent_is_on_the_answer(scripted):
    failed = ProviderUnavailable("cut", token_usage=TokenUsage(10, 5), cost_usd=0.01)
    good = ProviderResponse("yes", token_usage=TokenUsage(20, 7), cost_usd=0.02, model="m")
    response = await retry(scripted(failed, good)).invoke(ASK)
    assert response.token_usage == TokenUsage(30, 12)
    assert response.cost_usd == pytest.approx(0.03)
    assert response.model == "m"


async def test_an_error_raised_many_times_is_not_changed(scripted):
    error = ProviderUnavailable("down", token_usage=TokenUsage(1, 1))
    provider = retry(scripted(error))
    for _ in range(2):
        with pytest.raises(ProviderUnavailable) as caught:
            await provider.invoke(ASK)
        assert caught.value.token_usage == TokenUsage(3, 3)
    assert error.attempts == 1
    assert error.token_usage == TokenUsage(1, 1)


@pytest.mark.parametrize(
    "error",
    [BadRequest("no"), AuthenticationFailed("no"), QuotaExhausted("no"), BudgetExceeded("no")],
)
async def test_errors_that_no_retry_can_help(scripted, error):
    provider = scripted(error, "yes")
    with pytest.raises(type(error)) as caught:
        await retry(provider).invoke(ASK)
    assert caught.value is error
    assert len(provider.requests) == 1


async def test_an_error_may_say_that_a_retry_helps_or_not(scripted):
    assert (await retry(scripted(BadRequest("", retryable=True), "yes")).invoke(ASK)).text == "yes"
    with pytest.raises(RateLimited):
        await retry(scripted(RateLimited("", retryable=False), "yes")).invoke(ASK)


async def test_other_exceptions_pass(scripted):
    provider = scripted(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await retry(provider).invoke(ASK)
    assert len(provider.requests) == 1


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (BadRequest("", status=418), 3),  # listed
        (RateLimited("", status=429), 1),  # not listed
        (ProviderUnavailable("no status"), 3),  # not of HTTP: the error says
        (QuotaExhausted("", status=503), 1),  # never
        (ProviderUnavailable("cut short", status=200), 3),  # no HTTP error
    ],
)
async def test_status_codes_decide_for_http_errors(scripted, error, tries):
    provider = scripted(error)
    with pytest.raises(type(error)):
        await retry(provider, status_codes=frozenset({418, 503})).invoke(ASK)
    assert len(provider.requests) == tries


async def test_retry_after_is_waited_for_in_full(scripted):
    naps = Naps()
    await retry(scripted(RateLimited("", retry_after=7), "yes"), naps, draw=0.0).invoke(ASK)
    await retry(scripted(RateLimited("", retry_after=7), "yes"), naps, draw=0.5).invoke(ASK)
    assert naps.taken == [7.0, 7.5]


async def test_a_retry_after_that_is_too_long_ends_it(scripted):
    naps = Naps()
    provider = scripted(RateLimited("come back tomorrow", retry_after=86_400), "yes")
    with pytest.raises(RateLimited, match=r"tomorrow \(not tried again: .*86400 s.*120 s\)"):
        await retry(provider, naps).invoke(ASK)
    assert len(provider.requests) == 1
    assert naps.taken == []


async def test_a_patient_policy_waits_longer(scripted):
    naps = Naps()
    provider = scripted(RateLimited("", retry_after=LONGEST_WAIT + 1), "yes")
    await retry(provider, naps, draw=0.0, max_delay=600.0).invoke(ASK)
    assert naps.taken == [LONGEST_WAIT + 1]


async def test_no_retries_means_none(scripted):
    provider = scripted(RateLimited(""), "yes")
    with pytest.raises(RateLimited):
        await retry(provider, max_retries=0).invoke(ASK)


async def test_cancelled_while_it_waits(scripted):
    provider = scripted(RateLimited("", retry_after=60), "yes")
    task = asyncio.create_task(Retry(provider, RetryPolicy()).invoke(ASK))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(provider.requests) == 1


async def test_aclose_reaches_the_provider(scripted):
    provider = scripted("yes")
    await retry(provider).aclose()
    assert provider.closed == 1


# --- what cannot be taken back ------------------------------------------------------------------


async def test_not_tried_again_after_text_was_streamed(scripted):
    async def breaks(request):
        request.on_chunk("half an ")
        raise ProviderUnavailable("reset")

    provider, seen = scripted(breaks, "yes"), []
    with pytest.raises(ProviderUnavailable):
        await retry(provider).invoke(ProviderRequest(question="?", on_chunk=seen.append))
    assert seen == ["half an "]
    assert len(provider.requests) == 1


async def test_tried_again_when_nothing_was_streamed_yet(scripted):
    async def streams(request):
        request.on_chunk("all of it")
        return "all of it"

    seen = []
    provider = scripted(ProviderUnavailable("refused"), streams)
    response = await retry(provider).invoke(ProviderRequest(question="?", on_chunk=seen.append))
    assert response.attempts == 2
    assert seen == ["all of it"]


async def test_a_tool_is_not_called_twice_for_the_same_thing(scripted):
    calls = []

    async def call_tool(name, arguments):
        calls.append((name, dict(arguments)))
        return f"{name} {len(calls)}"

    async def breaks(request):
        assert await request.call_tool("mail", {"to": "ann", "cc": "x"}) == "mail 1"
        assert await request.call_tool("count", {}) == "count 2"
        assert await request.call_tool("count", {}) == "count 3"
        raise ProviderUnavailable("reset")

    async def completes(request):
        assert await request.call_tool("count", {}) == "count 2"
        assert await request.call_tool("mail", {"cc": "x", "to": "ann"}) == "mail 1"
        assert await request.call_tool("mail", {"to": "bob"}) == "mail 4"
        assert await request.call_tool("mail", {"to": "bob"}) == "mail 5"
        return "done"

    provider = scripted(breaks, completes)
    response = await retry(provider).invoke(ProviderRequest(question="?", call_tool=call_tool))
    assert response.text == "done"
    assert len(calls) == 5


async def test_a_tool_that_failed_is_called_again(scripted):
    outcomes = [RuntimeError("down"), "fine"]

    async def call_tool(name, arguments):
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def asks(request):
        try:
            return await request.call_tool("t", {})
        except RuntimeError:
            raise ProviderUnavailable("tool") from None

    response = await retry(scripted(asks)).invoke(
        ProviderRequest(question="?", call_tool=call_tool)
    )
    assert response.text == "fine"


# --- limits -------------------------------------------------------------------------------------


async def test_limits_hold_for_all_tries_together(scripted):
    failed = ProviderUnavailable("cut", token_usage=TokenUsage(60, 10), cost_usd=0.25)
    provider = scripted(failed, "yes")
    limits = Limits(max_total_tokens=100, max_cost_usd=1.0, max_turns=7)
    await retry(provider).invoke(ProviderRequest(question="?", limits=limits))
    assert provider.requests[1].limits == Limits(
        max_total_tokens=30, max_cost_usd=0.75, max_turns=7
    )


@pytest.mark.parametrize("limits", [Limits(max_total_tokens=70), Limits(max_cost_usd=0.25)])
async def test_not_tried_again_when_the_budget_is_spent(scripted, limits):
    provider = scripted(
        ProviderUnavailable("cut", token_usage=TokenUsage(60, 10), cost_usd=0.25), "yes"
    )
    with pytest.raises(ProviderUnavailable):
        await retry(provider).invoke(ProviderRequest(question="?", limits=limits))
    assert len(provider.requests) == 1


def test_not_tried_again_when_the_time_would_be_up(scripted, virtual):
    provider = scripted(ProviderUnavailable("down"))
    policy = RetryPolicy(max_retries=9, initial_delay=2.0)

    async def main():
        wrapped = Retry(provider, policy, random=lambda: 1.0)
        request = ProviderRequest(question="?", limits=Limits(max_seconds=7.0))
        with pytest.raises(ProviderUnavailable):
            await wrapped.invoke(request)
        return asyncio.get_running_loop().time()

    assert virtual(main()) == 6.0  # 2 + 4; another 8 would be too long
    assert [request.limits.max_seconds for request in provider.requests] == [7.0, 5.0, 1.0]


# --- the pauses ---------------------------------------------------------------------------------

policies = st.builds(
    RetryPolicy,
    max_retries=st.integers(1, 2000),
    initial_delay=st.floats(0, 1e3),
    max_delay=st.floats(0, 1e3),
    backoff_factor=st.floats(1, 1e6),
)


@given(policies, st.integers(0, 2000))
def test_the_ceiling_grows_to_the_longest_delay(policy, retries):
    ceiling = backoff_ceiling(policy, retries)
    assert 0 <= ceiling <= policy.max_delay
    assert ceiling <= backoff_ceiling(policy, retries + 1)
    assert backoff_ceiling(policy, 0) == min(policy.initial_delay, policy.max_delay)


@given(
    policies.filter(lambda policy: policy.max_retries <= 20),
    st.floats(0, 1, exclude_max=True),
    st.none() | st.floats(0, 120),
)
def test_every_pause_is_within_its_bounds(scripted, policy, draw, retry_after):
    naps = Naps()
    provider = Retry(
        scripted(RateLimited("", retry_after=retry_after)),
        policy,
        sleep=naps,
        random=lambda: draw,
    )
    with pytest.raises(RateLimited):
        asyncio.run(provider.invoke(ASK))
    assert len(naps.taken) == policy.max_retries
    least = retry_after or 0.0
    for number, pause in enumerate(naps.taken):
        assert least <= pause <= least + backoff_ceiling(policy, number)
