from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval_parts import make_case, make_item
from muster.evals.execution import Item
from muster.evals.schedule import Schedule
from virtual_loop import virtual

OK, ERROR = "ok", "execution_error"


def items(edges: Mapping[str, Iterable[str]], repeats: int = 1) -> list[Item]:
    cases = [make_case(name, depends_on=tuple(on)) for name, on in edges.items()]
    return [make_item(case, repeat=n) for case in cases for n in range(repeats)]


def schedule_of(given: list[Item], **options: Any) -> Schedule:
    """All that are depended on and are among the items are planned."""
    named = frozenset(name for item in given for name in item.case.depends_on)
    counts = Counter(item.case.id for item in given)
    options.setdefault("planned", {name: counts[name] for name in named if name in counts})
    return Schedule(iter(given), named, options["planned"], options.get("outcomes"))


def order(schedule: Schedule, workers: int = 1, failing: Iterable[str] = ()) -> list[str]:
    """The ids as `workers` take them, each taking a second."""
    taken: list[str] = []

    async def work() -> None:
        while True:
            item = schedule.take()
            if item is None:
                if await schedule.wait():
                    continue
                return
            taken.append(item.case.id)
            await asyncio.sleep(1)
            schedule.done(item, ERROR if item.case.id in failing else OK)

    async def main() -> None:
        await asyncio.gather(*(work() for _ in range(workers)))

    virtual(main())
    return taken


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ({"a": [], "b": [], "c": []}, "a b c"),
        ({"b": ["a"], "a": [], "c": []}, "a b c|a c b"),
        ({"c": ["b"], "b": ["a"], "a": []}, "a b c"),
        ({"d": ["b", "c"], "b": ["a"], "c": ["a"], "a": []}, "a b c d"),
    ],
    ids=["none", "one", "chain", "diamond"],
)
def test_dependencies_come_first(edges: dict[str, list[str]], expected: str, workers: int) -> None:
    assert " ".join(order(schedule_of(items(edges)), workers)) in expected.split("|")


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    """Dependencies in any direction: with cycles, and on what is not there."""
    names = [f"n{number}" for number in range(draw(st.integers(1, 7)))]
    some = st.lists(st.sampled_from([*names, "gone"]), max_size=3, unique=True)
    return {name: draw(some) for name in names}


@settings(max_examples=100, deadline=None)
@given(graphs(), st.integers(1, 4), st.integers(1, 2))
def test_every_item_comes_exactly_once_whatever_the_graph(
    edges: dict[str, list[str]], workers: int, repeats: int
) -> None:
    taken = order(schedule_of(items(edges, repeats)), workers)
    assert sorted(taken) == sorted([*edges] * repeats)


@settings(max_examples=100, deadline=None)
@given(graphs(), st.permutations(range(7)), st.integers(1, 4))
def test_without_cycles_nothing_comes_before_what_it_depends_on(
    edges: dict[str, list[str]], shuffled: list[int], workers: int
) -> None:
    rank = {name: number for number, name in enumerate(edges)}
    acyclic = {name: [on for on in edges[name] if rank.get(on, 9) < rank[name]] for name in edges}
    names = sorted(acyclic, key=lambda name: shuffled[rank[name]])
    schedule = schedule_of(items({name: acyclic[name] for name in names}))
    ended: list[str] = []

    async def work() -> None:
        while True:
            item = schedule.take()
            if item is None:
                if await schedule.wait():
                    continue
                return
            assert set(item.case.depends_on) <= set(ended)
            await asyncio.sleep(1 + rank[item.case.id])
            ended.append(item.case.id)
            schedule.done(item, OK)

    async def main() -> None:
        await asyncio.gather(*(work() for _ in range(workers)))

    virtual(main())
    assert sorted(ended) == sorted(names)


def test_repeats_and_prompts_are_kept_apart() -> None:
    def of(name: str, prompt: str, repeat: int, *on: str) -> Item:
        return make_item(make_case(name, depends_on=on, prompt=prompt), repeat=repeat)

    kinds = [("p", 0), ("p", 1), ("q", 0)]
    given = [of("a", *kind) for kind in kinds] + [of("b", *kind, "a") for kind in kinds]

    async def main() -> None:
        schedule = schedule_of(given)
        running = [schedule.take() for _ in range(3)]
        assert running == given[:3]
        assert schedule.take() is None
        schedule.done(given[1], ERROR)
        freed = schedule.take()
        assert freed is given[4]
        assert schedule.failed(given[4]) == ["a"]
        assert schedule.take() is None
        schedule.done(given[2], OK)
        assert schedule.take() is given[5]
        assert schedule.failed(given[5]) == []
        schedule.done(given[0], OK)
        assert schedule.take() is given[3]
        assert schedule.failed(given[3]) == []

    virtual(main())


def test_a_dependency_that_is_not_part_of_the_run_holds_nobody_back() -> None:
    given = items({"b": ["gone"], "c": ["gone", "b"]})
    schedule = schedule_of(given)
    assert order(schedule) == ["b", "c"]
    assert schedule.failed(given[0]) == []
    # Nor is it put aside until nothing else is left.
    assert order(schedule_of(items({"b": ["gone"], "a": [], "c": []}))) == ["b", "a", "c"]


def test_a_dependency_that_ended_in_an_earlier_part_of_the_run_is_not_waited_for() -> None:
    given = items({"c": ["a", "b"]})
    before = {("a", None, 0): OK, ("b", None, 0): ERROR}
    schedule = schedule_of(given, planned={"a": 2, "b": 2}, outcomes=before)
    assert schedule.take() is given[0]
    assert schedule.failed(given[0]) == ["b"]


def test_failed_names_only_errors_and_in_the_order_of_the_case() -> None:
    given = items({"a": [], "b": [], "c": [], "d": ["c", "b", "a"]})
    schedule = schedule_of(given)
    for _ in range(3):
        schedule.take()
    for item, status in zip(given, [ERROR, "quality_failure", ERROR], strict=False):
        schedule.done(item, status)
    assert schedule.failed(given[3]) == ["c", "a"]


def test_a_chain_goes_on_after_an_error() -> None:
    edges = {"c": ["b"], "b": ["a"], "a": []}
    assert order(schedule_of(items(edges)), 2, failing=["a", "b"]) == ["a", "b", "c"]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_cycle_does_not_hang(workers: int) -> None:
    edges = {"a": ["c"], "b": ["a"], "c": ["b"], "d": [], "own": ["own"]}
    taken = order(schedule_of(items(edges)), workers)
    assert sorted(taken) == ["a", "b", "c", "d", "own"]
    assert taken[0] == "d"


def test_items_are_not_drawn_ahead() -> None:
    drawn = 0

    def many() -> Iterator[Item]:
        nonlocal drawn
        case = make_case()
        for _ in range(100_000):
            drawn += 1
            yield make_item(case)

    schedule = Schedule(many(), frozenset(), {})
    assert drawn == 0
    for number in range(1, 6):
        assert schedule.take() is not None
        assert drawn == number


def test_an_idle_worker_waits_until_there_is_something_or_all_is_through() -> None:
    given = items({"a": [], "b": ["a"]})

    async def main() -> list[str]:
        log: list[str] = []
        schedule = schedule_of(given)
        first = schedule.take()
        assert first is not None

        async def idle(name: str) -> None:
            while await schedule.wait():
                if (item := schedule.take()) is not None:
                    log.append(f"{name} took {item.case.id}")
                    await asyncio.sleep(1)
                    schedule.done(item, OK)
            log.append(f"{name} ended")

        assert schedule.take() is None
        idlers = [asyncio.create_task(idle(name)) for name in "xy"]
        await asyncio.sleep(5)
        assert log == []
        schedule.done(first, OK)
        await asyncio.gather(*idlers)
        return log

    assert virtual(main()) == ["x took b", "y ended", "x ended"]


def test_the_last_repeat_of_a_dependency_counts_for_further_ones() -> None:
    once, twice = make_case("a"), make_case("b", depends_on=("a",))
    given = [make_item(once), make_item(twice, repeat=0), make_item(twice, repeat=1)]
    schedule = schedule_of(given, planned={"a": 1})
    first = schedule.take()
    assert first is given[0]
    assert schedule.take() is None
    schedule.done(first, ERROR)
    assert [schedule.failed(item) for item in given[1:]] == [["a"], ["a"]]
