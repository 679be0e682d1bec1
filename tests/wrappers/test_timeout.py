from __future__ import annotations

import asyncio

import pytest

from muster.provider import (
    ProviderFailed,
    ProviderRequest,
    ProviderResponse,
    ProviderTimeout,
    RateLimited,
    TokenUsage,
)
from muster.tasks import LAST_SECONDS
from muster.wrappers import Timeout

ASK = ProviderRequest(question="?")


def others():
    return asyncio.all_tasks() - {asyncio.current_task()}


async def test_an_answer_in_time_passes_untouched(scripted):
    answer = ProviderResponse("yes")
    assert await Timeout(scripted(answer), 5).invoke(ASK) is answer
    assert not others()


async def test_an_error_in_time_passes(scripted):
    error = RateLimited("slow")
    with pytest.raises(RateLimited) as caught:
        await Timeout(scripted(error), 5).invoke(ASK)
    assert caught.value is error


def test_the_late_call_is_cancelled_and_awaited(scripted, virtual):
    log = []

    async def slow(request):
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)  # cleaning up takes its time
            log.append("clean")

    async def main():
        loop = asyncio.get_running_loop()
        with pytest.raises(ProviderTimeout, match=r"^no answer within 2\.5 s") as caught:
            await Timeout(scripted(slow), 2.5).invoke(ASK)
        assert caught.value.retryable
        assert log == ["clean"]
        assert loop.time() == pytest.approx(3.5)
        assert not others()

    virtual(main())


def test_cancellation_is_passed_on_and_awaited(scripted, virtual):
    log = []

    async def slow(request):
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)
            log.append("clean")

    async def main():
        task = asyncio.create_task(Timeout(scripted(slow), 50).invoke(ASK))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert log == ["clean"]
        assert not others()

    virtual(main())


async def stubborn(request):
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


def test_one_that_swallows_cancellation_is_ended_by_force(scripted, virtual):
    async def main():
        loop = asyncio.get_running_loop()
        with pytest.raises(ProviderTimeout, match="went on for 5 s after it was cancelled"):
            await Timeout(scripted(stubborn), 10).invoke(ASK)
        assert loop.time() == pytest.approx(15)
        await asyncio.sleep(0.1)
        assert not others()

    virtual(main())  # and the loop can close: nothing is left that it would wait for


def test_a_cancelled_caller_waits_no_longer_than_the_grace(scripted, virtual):
    async def main():
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(Timeout(scripted(stubborn), 60, grace=3).invoke(ASK))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert loop.time() == pytest.approx(4)
        await asyncio.sleep(0.1)
        assert not others()

    virtual(main())


def test_a_caller_that_is_cancelled_twice_hardly_waits(scripted, virtual):
    async def main():
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(Timeout(scripted(stubborn), 60).invoke(ASK))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert loop.time() == pytest.approx(2 + LAST_SECONDS)
        await asyncio.sleep(0.1)
        assert not others()

    virtual(main())


def test_what_a_late_answer_cost_is_told(scripted, virtual):
    async def late(request):
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            return ProviderResponse("too late", token_usage=TokenUsage(4, 2), cost_usd=0.5)

    async def main():
        with pytest.raises(ProviderTimeout) as caught:
            await Timeout(scripted(late), 1).invoke(ASK)
        assert caught.value.token_usage == TokenUsage(4, 2)
        assert caught.value.cost_usd == 0.5

    virtual(main())


async def test_a_provider_that_cancels_itself_does_not_cancel_the_caller(scripted):
    with pytest.raises(ProviderFailed, match="cancelled its own call"):
        await Timeout(scripted(asyncio.CancelledError()), 5).invoke(ASK)


async def test_aclose_reaches_the_provider(scripted):
    provider = scripted("yes")
    await Timeout(provider, 1).aclose()
    assert provider.closed == 1
