from __future__ import annotations

import asyncio

import pytest

from muster.provider import ProviderRequest, ProviderResponse, ProviderUnavailable
from muster.wrappers import AdaptiveLimit, ConcurrencyLimit

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
