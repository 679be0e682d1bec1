from __future__ import annotations

import asyncio

import pytest

from muster.provider import ProviderRequest, ProviderResponse, ProviderUnavailable
from muster.wrappers import AdaptiveLimit, ConcurrencyLimit, RateLimit

ASK = ProviderRequest(question="?")


class Gauge:
    """Counts the calls under way; each lasts as many seconds as its question says."""

    def __init__(self):
        self.running = self.most = self.total = 0
        self.order = []

    async def invoke(self, request):
        self.running += 1
        self.total += 1
        self.most = max(self.most, self.running)
        self.order.append(request.eval_case_id)
        try:
            await asyncio.sleep(float(request.question))
        finally:
            self.running -= 1
        return ProviderResponse("done")


def ask(seconds, number=0):
    return ProviderRequest(question=str(seconds), eval_case_id=str(number))


@pytest.fixture(params=[ConcurrencyLimit, AdaptiveLimit])
def limit(request):
    return request.param


def test_lets_no_more_in_than_allowed_and_in_order(limit, virtual):
    gauge = Gauge()

    async def main():
        wrapped = limit(gauge, 3)
        await asyncio.gather(*(wrapped.invoke(ask(1, n)) for n in range(10)))
        return asyncio.get_running_loop().time()

    assert virtual(main()) == pytest.approx(4)
    assert gauge.most == 3
    assert gauge.order == [str(n) for n in range(10)]


def test_a_failure_gives_its_place_back(limit, virtual, scripted):
    async def main():
        wrapped = limit(scripted(ProviderUnavailable("down")), 1)
        for _ in range(3):
            with pytest.raises(ProviderUnavailable):
                await asyncio.wait_for(wrapped.invoke(ASK), 1)

    virtual(main())


@pytest.mark.parametrize("seed", range(20))
def test_no_place_is_lost_when_calls_are_cancelled(limit, virtual, seed):
    """Calls cancelled while they run, while they wait, and in the moment they are let in."""
    import random

    draw = random.Random(seed)
    gauge = Gauge()

    async def main():
        wrapped = limit(gauge, 3)
        tasks = [
            asyncio.create_task(wrapped.invoke(ask(draw.choice([0, 1, 2]), n))) for n in range(60)
        ]
        for _ in range(15):
            await asyncio.sleep(draw.choice([0, 0, 1]))
            for task in draw.sample(tasks, 4):
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert gauge.running == 0
        gauge.most = 0
        await asyncio.gather(*(wrapped.invoke(ask(1)) for _ in range(9)))

    virtual(main())
    assert gauge.most == 3


async def test_aclose_reaches_the_provider(limit, scripted):
    provider = scripted("yes")
    await limit(provider, 1).aclose()
    assert provider.closed == 1


class Delegating:
    """Asks `target` again, from a tool, as often as its question says; then answers."""

    def __init__(self):
        self.target = None
        self.running = self.most = 0

    async def turn(self):
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(1)
        self.running -= 1

    async def invoke(self, request):
        depth = int(request.question)
        await self.turn()
        if depth:
            below = await asyncio.gather(*(request.call_tool("ask", {}) for _ in range(2)))
            await self.turn()
            return ProviderResponse(f"({' '.join(below)})")
        return ProviderResponse(".")

    async def ask(self, depth):
        async def call_tool(name, arguments):
            return (await self.ask(depth - 1)).text

        request = ProviderRequest(question=str(depth), call_tool=call_tool)
        return await self.target.invoke(request)


@pytest.mark.parametrize("tasks", [1, 4])
@pytest.mark.parametrize("rate", [None, 60])
def test_a_place_is_free_while_tools_run(limit, virtual, rate, tasks):
    """Depth 3, one place: each waits for two others that need the same place."""
    provider = Delegating()

    async def main():
        wrapped = limit(provider, 1)
        if rate is not None:
            clock = asyncio.get_running_loop().time
            wrapped = RateLimit(wrapped, rate, clock=clock)
        provider.target = wrapped
        return await asyncio.gather(*(provider.ask(3) for _ in range(tasks)))

    answers = virtual(asyncio.wait_for(main(), 1000))
    assert {answer.text for answer in answers} == {"(((. .) (. .)) ((. .) (. .)))"}
    assert provider.most == 1


def test_who_was_inside_goes_before_who_was_not(virtual):
    order = []

    class Provider:
        async def invoke(self, request):
            order.append(f"{request.question} begins")
            if request.call_tool is not None:
                await request.call_tool("wait", {})
            await asyncio.sleep(1)
            order.append(f"{request.question} ends")
            return ProviderResponse("")

    async def main():
        wrapped = ConcurrencyLimit(Provider(), 1)

        async def wait(name, arguments):
            await asyncio.sleep(0.5)
            return ""

        first = asyncio.create_task(
            wrapped.invoke(ProviderRequest(question="a", call_tool=wait)),
        )
        await asyncio.sleep(0.1)
        others = [wrapped.invoke(ProviderRequest(question=name)) for name in "bc"]
        await asyncio.gather(first, *others)

    virtual(main())
    assert order == ["a begins", "b begins", "b ends", "a ends", "c begins", "c ends"]


@pytest.mark.parametrize("seed", range(10))
def test_no_place_is_lost_when_tools_fail_or_are_cancelled(limit, virtual, seed):
    import random

    draw = random.Random(seed)

    class Provider:
        async def invoke(self, request):
            for _ in range(2):
                calls = [request.call_tool("t", {}) for _ in range(3)]
                await asyncio.gather(*calls, return_exceptions=draw.random() < 0.8)
            await asyncio.sleep(draw.choice([0, 1]))
            return ProviderResponse("")

    async def tool(name, arguments):
        await asyncio.sleep(draw.choice([0, 0, 1, 2]))
        if draw.random() < 0.2:
            raise ValueError
        if draw.random() < 0.1:
            raise asyncio.CancelledError
        return ""

    gauge = Gauge()

    async def main():
        wrapped = limit(Provider(), 2)
        request = ProviderRequest(question="?", call_tool=tool)
        tasks = [asyncio.create_task(wrapped.invoke(request)) for _ in range(20)]
        for task in draw.sample(tasks, 8):
            await asyncio.sleep(draw.choice([0, 0, 1]))
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.sleep(10)  # tools that nobody waits for any more
        assert wrapped._places.running == 0
        wrapped.provider = gauge
        await asyncio.gather(*(wrapped.invoke(ask(1)) for _ in range(6)))

    virtual(main())
    assert gauge.most == 2
