from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.provider import (
    Message,
    ProviderRequest,
    ProviderResponse,
    ProviderUnavailable,
    TokenUsage,
)
from muster.wrappers import RateLimit
from muster.wrappers.rate import estimate_tokens

ASK = ProviderRequest(question="?")


class Log:
    """Notes when calls begin, answers at once; uses the tokens that the case id says."""

    def __init__(self):
        self.times = []
        self.order = []

    async def invoke(self, request):
        self.times.append(asyncio.get_running_loop().time())
        self.order.append(request.question)
        used = TokenUsage(int(request.eval_case_id)) if request.eval_case_id else None
        return ProviderResponse("yes", token_usage=used)


def limited(provider, requests=None, tokens=None):
    return RateLimit(provider, requests, tokens, clock=asyncio.get_running_loop().time)


def most_in_a_minute(times, amounts):
    """The most that began in any 60 seconds, both ends included."""
    most = 0
    for start in times:
        inside = zip(times, amounts, strict=True)
        most = max(most, sum(n for t, n in inside if start <= t <= start + 60))
    return most


def test_spreads_requests_over_the_minute_in_order(virtual):
    async def main():
        log = Log()
        wrapped = limited(log, requests=30)
        asks = [ProviderRequest(question=str(n)) for n in range(5)]
        await asyncio.gather(*map(wrapped.invoke, asks))
        return log

    log = virtual(main())
    assert log.times == pytest.approx([0, 2, 4, 6, 8])
    assert log.order == ["0", "1", "2", "3", "4"]


@settings(max_examples=60, deadline=None)
@given(
    per_minute=st.floats(0.5, 3000),
    arrivals=st.lists(st.floats(0, 90), min_size=1, max_size=80),
)
def test_no_minute_has_more_requests_than_the_limit_and_the_burst(virtual, per_minute, arrivals):
    async def arrive(wrapped, when):
        await asyncio.sleep(when)
        await wrapped.invoke(ASK)

    async def main():
        log = Log()
        wrapped = limited(log, requests=per_minute)
        await asyncio.gather(*(arrive(wrapped, when) for when in arrivals))
        return log.times, asyncio.get_running_loop().time()

    times, end = virtual(main())
    assert len(times) == len(arrivals)
    burst = max(1, per_minute / 60)
    assert most_in_a_minute(times, [1] * len(times)) <= per_minute + burst + 1e-6
    # … and it does not wait longer than it must
    assert end <= max(arrivals) + len(arrivals) * 60 / per_minute + 1e-6


@settings(max_examples=60, deadline=None)
@given(
    per_minute=st.floats(60, 60_000),
    sizes=st.lists(st.integers(1, 4000), min_size=1, max_size=40),
)
def test_no_minute_has_more_tokens_than_the_limit_and_one_request(virtual, per_minute, sizes):
    """The texts say how much; the usage reported is the same."""

    async def main():
        log = Log()
        wrapped = limited(log, tokens=per_minute)
        asks = [ProviderRequest(question="x" * 4 * n, eval_case_id=str(n)) for n in sizes]
        await asyncio.gather(*map(wrapped.invoke, asks))
        return log.times

    times = virtual(main())
    allowed = per_minute + per_minute / 60 + max(sizes)
    assert most_in_a_minute(times, sizes) <= allowed + 1e-3


def test_real_usage_corrects_the_estimate(virtual):
    async def main():
        log = Log()
        wrapped = limited(log, tokens=600)  # 10 a second
        costly = ProviderRequest(question="x" * 20, eval_case_id="100")  # estimated: 5
        for _ in range(3):
            await wrapped.invoke(costly)
        return log.times

    # 10 in the bucket, 100 used: 5 are there again after 9.5 s; then each call takes 10 s
    assert virtual(main()) == pytest.approx([0, 9.5, 19.5])


def test_usage_below_the_estimate_is_given_back(virtual):
    async def main():
        log = Log()
        wrapped = limited(log, tokens=600)
        cheap = ProviderRequest(question="x" * 4000, eval_case_id="10")  # estimated: 1000
        for _ in range(3):
            await wrapped.invoke(cheap)
        return log.times

    assert virtual(main()) == pytest.approx([0, 1, 2])


def test_unknown_usage_counts_as_estimated(virtual):
    async def main():
        log = Log()
        wrapped = limited(log, tokens=600)
        for _ in range(3):
            await wrapped.invoke(ProviderRequest(question="x" * 80))
        return log.times

    assert virtual(main()) == pytest.approx([0, 2, 4])


def test_what_a_failed_call_used_counts(virtual, scripted):
    async def main():
        failing = scripted(ProviderUnavailable("cut", token_usage=TokenUsage(100)), "yes")
        wrapped = limited(failing, tokens=600)
        with pytest.raises(ProviderUnavailable):
            await wrapped.invoke(ASK)
        await wrapped.invoke(ASK)
        return asyncio.get_running_loop().time()

    assert virtual(main()) == pytest.approx(9.1)


def test_a_cancelled_call_takes_nothing_and_holds_nobody_up(virtual):
    async def main():
        log = Log()
        wrapped = limited(log, requests=6)  # every 10 s
        tasks = [
            asyncio.create_task(wrapped.invoke(ProviderRequest(question=str(n)))) for n in range(5)
        ]
        await asyncio.sleep(1)
        tasks[1].cancel()  # the one that sleeps
        tasks[3].cancel()  # one in the line
        await asyncio.gather(*tasks, return_exceptions=True)
        return log

    log = virtual(main())
    assert log.order == ["0", "2", "4"]
    assert log.times == pytest.approx([0, 10, 20])


def test_nobody_polls(virtual):
    async def main():
        naps = []

        async def sleep(seconds):
            naps.append(seconds)
            await asyncio.sleep(seconds)

        loop = asyncio.get_running_loop()
        wrapped = RateLimit(Log(), 60, clock=loop.time, sleep=sleep)
        await asyncio.gather(*(wrapped.invoke(ASK) for _ in range(50)))
        return naps

    assert virtual(main()) == pytest.approx([1.0] * 49)


def test_the_estimate_is_a_quarter_of_the_bytes():
    assert estimate_tokens(ProviderRequest(question="")) == 1
    assert estimate_tokens(ProviderRequest(question="abcd" * 10)) == 10
    assert estimate_tokens(ProviderRequest(question="äöüß")) == 2
    request = ProviderRequest(
        question="x" * 8,
        system_prompt="x" * 16,
        guidelines="x" * 4,
        messages=(Message("user", "x" * 12), Message("assistant", {"a": 1})),
        input_files=(Path("not-read.txt"),),
    )
    assert estimate_tokens(request) == (8 + 16 + 4 + 12 + len('{"a": 1}')) // 4


async def test_aclose_reaches_the_provider(scripted):
    provider = scripted("yes")
    await RateLimit(provider, 1).aclose()
    assert provider.closed == 1


def test_each_turn_after_tools_is_a_request(virtual):
    async def main():
        times = []

        class Loop:
            async def invoke(self, request):
                for turn in range(3):
                    times.append(asyncio.get_running_loop().time())
                    if turn < 2:
                        await asyncio.gather(*(request.call_tool("t", {}) for _ in range(3)))
                return ProviderResponse("yes")

        async def tool(name, arguments):
            return ""

        await limited(Loop(), requests=6).invoke(ProviderRequest(question="?", call_tool=tool))
        return times

    assert virtual(main()) == pytest.approx([0, 10, 20])
