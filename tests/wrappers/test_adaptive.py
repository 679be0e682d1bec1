from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.provider import ProviderRequest, ProviderResponse, RateLimited
from muster.wrappers import AdaptiveLimit

ASK = ProviderRequest(question="?")


class Server:
    """Answers in a second; refuses what is above its capacity, in a tenth of one."""

    def __init__(self, capacity, retry_after=None):
        self.capacity = capacity
        self.retry_after = retry_after
        self.running = self.refused = self.answered = 0
        self.arrivals = []

    async def invoke(self, request):
        self.arrivals.append(asyncio.get_running_loop().time())
        if self.running >= self.capacity:
            self.refused += 1
            await asyncio.sleep(0.1)
            raise RateLimited("slow down", retry_after=self.retry_after)
        self.running += 1
        try:
            await asyncio.sleep(1)
        finally:
            self.running -= 1
        self.answered += 1
        return ProviderResponse("yes")


async def persist(wrapped):
    while True:
        try:
            return await wrapped.invoke(ASK)
        except RateLimited:
            await asyncio.sleep(0.5)


def test_a_burst_of_rate_limits_halves_the_limit_once(virtual):
    async def main():
        wrapped = AdaptiveLimit(Server(0), 32)
        await asyncio.gather(*(wrapped.invoke(ASK) for _ in range(32)), return_exceptions=True)
        assert wrapped.limit == 16
        await asyncio.gather(*(wrapped.invoke(ASK) for _ in range(16)), return_exceptions=True)
        assert wrapped.limit == 8

    virtual(main())


def test_it_halves_what_was_under_way_if_that_is_less(virtual):
    async def main():
        wrapped = AdaptiveLimit(Server(0), 64)
        await asyncio.gather(*(wrapped.invoke(ASK) for _ in range(6)), return_exceptions=True)
        assert wrapped.limit == 3

    virtual(main())


def test_it_never_falls_below_one_nor_grows_above_the_maximum(virtual):
    async def main():
        server = Server(0)
        wrapped = AdaptiveLimit(server, 4)
        for _ in range(10):
            with pytest.raises(RateLimited):
                await wrapped.invoke(ASK)
        assert wrapped.limit == 1
        server.capacity = 1000
        await asyncio.gather(*(persist(wrapped) for _ in range(200)))
        assert wrapped.limit == 4

    virtual(main())


def test_it_grows_by_about_one_a_round(virtual):
    async def main():
        server = Server(1000)
        wrapped = AdaptiveLimit(server, 50)
        wrapped.limit = 4.0
        calls = [asyncio.create_task(wrapped.invoke(ASK)) for _ in range(500)]
        limits = []
        for _ in range(5):
            await asyncio.sleep(1.0001)
            limits.append(wrapped.limit)
        for call in calls:
            call.cancel()
        steps = [after - before for before, after in pairwise([4.0, *limits])]
        assert all(0.7 <= step <= 1 for step in steps)

    virtual(main())


def test_it_does_not_grow_while_it_is_not_reached(virtual):
    async def main():
        wrapped = AdaptiveLimit(Server(1000), 50)
        wrapped.limit = 4.0
        for _ in range(30):
            await wrapped.invoke(ASK)
        assert wrapped.limit == 4.0

    virtual(main())


def test_it_finds_the_servers_capacity(virtual):
    async def main():
        server = Server(5)
        wrapped = AdaptiveLimit(server, 64)
        await asyncio.gather(*(persist(wrapped) for _ in range(300)))
        assert server.answered == 300
        return server.refused, asyncio.get_running_loop().time()

    refused, seconds = virtual(main())
    assert refused < 150  # without a limit it is tens of thousands
    assert seconds < 120  # 60 s is the least


def test_retry_after_holds_back_all_calls_of_the_target(virtual):
    async def main():
        server = Server(0, retry_after=30)
        wrapped = AdaptiveLimit(server, 8)
        with pytest.raises(RateLimited):
            await wrapped.invoke(ASK)
        server.capacity = 8
        await asyncio.gather(*(wrapped.invoke(ASK) for _ in range(3)))
        return server.arrivals

    arrivals = virtual(main())
    assert arrivals[0] == 0
    assert min(arrivals[1:]) == pytest.approx(30.1)


def test_a_longer_retry_after_takes_over(virtual):
    async def main():
        loop = asyncio.get_running_loop()
        server = Server(0, retry_after=10)

        async def first(request):
            await asyncio.sleep(5)
            raise RateLimited("", retry_after=20)

        class Both:
            calls = 0

            async def invoke(self, request):
                self.calls += 1
                return await (first if self.calls == 1 else server.invoke)(request)

        wrapped = AdaptiveLimit(Both(), 4)
        early = asyncio.gather(wrapped.invoke(ASK), wrapped.invoke(ASK), return_exceptions=True)
        await asyncio.sleep(1)
        server.capacity = 9
        await wrapped.invoke(ASK)
        assert loop.time() == pytest.approx(26)  # 5 + 20, and the call's second
        await early

    virtual(main())


def test_a_retry_after_without_end_blocks_nobody(virtual):
    async def main():
        server = Server(0, retry_after=86_400)
        wrapped = AdaptiveLimit(server, 8)
        for _ in range(3):
            with pytest.raises(RateLimited):
                await wrapped.invoke(ASK)
        return asyncio.get_running_loop().time()

    assert virtual(main()) == pytest.approx(0.3)


@settings(max_examples=30, deadline=None)
@given(
    capacity=st.integers(1, 20),
    maximum=st.integers(1, 40),
    calls=st.integers(1, 120),
    retry_after=st.none() | st.floats(0, 5),
    cancelled=st.sets(st.integers(0, 119), max_size=30),
    when=st.floats(0, 4),
)
def test_every_call_ends_and_every_place_comes_back(
    virtual, *, capacity, maximum, calls, retry_after, cancelled, when
):
    async def main():
        server = Server(capacity, retry_after)
        wrapped = AdaptiveLimit(server, maximum)
        tasks = [asyncio.create_task(persist(wrapped)) for _ in range(calls)]
        await asyncio.sleep(when)
        for number in cancelled & set(range(calls)):
            tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() or task.result().text == "yes" for task in tasks)
        assert wrapped._places.running == 0
        assert 1 <= wrapped.limit <= maximum

    virtual(main())
