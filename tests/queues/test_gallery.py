"""The contract can fail: each wrong queue breaks its rules."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from muster.queues.base import TaskQueue
from muster.queues.memory import MemoryQueue
from muster.testing.outcome import Outcome
from muster.testing.queue_bench import QueueRule, check_queue
from muster.testing.queue_contract import queue_contract
from muster.testing.queue_rules import QUEUE_RULES

sys.path[:0] = [str(Path(__file__).parent)]

from wrong_queues import GALLERY  # noqa: E402

RULES = {rule.id: rule for rule in QUEUE_RULES}
PAIRS = [(wrong, RULES[id]) for wrong, ids in GALLERY.items() for id in sorted(ids)]


def tried(pair: tuple[type[MemoryQueue], QueueRule]) -> Outcome:
    wrong, rule = pair
    return check_queue(
        rule, lambda folder: wrong(), small=lambda folder: wrong(depth=3), shared=False
    )


@pytest.fixture(scope="module")
def outcomes() -> dict[tuple[str, str], Outcome]:
    with ThreadPoolExecutor(8) as pool:  # they wait more than they work
        found = pool.map(tried, PAIRS)
        return {(w.__name__, r.id): o for (w, r), o in zip(PAIRS, found, strict=True)}


@pytest.mark.parametrize(("wrong", "rule"), [(wrong.__name__, rule.id) for wrong, rule in PAIRS])
def test_a_mistake_is_found(
    outcomes: dict[tuple[str, str], Outcome], wrong: str, rule: str
) -> None:
    outcome = outcomes[wrong, rule]
    assert outcome.status == "failed"
    assert len(outcome.text) > 10


def test_every_rule_but_those_of_shared_queues_can_fail() -> None:
    tested = set().union(*GALLERY.values())
    assert set(RULES) - tested == {
        "text-is-kept",
        "waiting-has-an-end",
        "tasks-are-listed-and-counted",
        "a-closed-queue-keeps-its-tasks",
    }


def test_what_an_author_reads() -> None:
    test = queue_contract(lambda folder: MemoryQueue(), shared=False, rules=["takers-are-woken"])
    (rule,) = (mark.args[1][0] for mark in test.pytestmark)  # type: ignore[attr-defined]
    wrong = next(queue for queue in GALLERY if queue.__name__ == "StarvesTakers")
    starving = queue_contract(lambda folder: wrong(), shared=False)
    with pytest.raises(pytest.fail.Exception) as failed:
        starving(rule)
    said = str(failed.value)
    assert said.startswith("Who waits for a task gets it as soon as it is there\n\n4 tasks were")
    assert "\nmend: Let `submit` wake those who wait in `take`" in said
    test(rule)


def test_a_queue_that_raises_what_it_should_not() -> None:
    def broken(folder: Path) -> TaskQueue:
        raise KeyError("url")

    outcome = check_queue(QUEUE_RULES[0], broken, small=None, shared=True)
    assert outcome.status == "failed"
    assert "KeyError" in outcome.text


def test_an_asynchronous_factory() -> None:
    async def opened(folder: Path) -> TaskQueue:
        await asyncio.sleep(0)
        return MemoryQueue()

    assert check_queue(QUEUE_RULES[0], opened, small=None, shared=False).status == "passed"


def test_the_manual_says_how_many_rules_there_are() -> None:
    root = Path(__file__).parents[2]
    for page in ("docs/queues.md", "CHANGELOG.md"):
        assert f" {len(QUEUE_RULES)} rules" in (root / page).read_text(), page
