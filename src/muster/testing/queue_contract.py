"""What every queue must keep, as tests: one test item for each rule.

In a test file:

    from muster.testing.queue_contract import queue_contract

    test_mine = queue_contract(lambda folder: MyQueue(folder / "tasks"))

Or for a queue of the project, without a file; `{folder}` is a new one for each rule:

    pytest -p muster.testing.queue_contract --muster-queue 'mine:{folder}/tasks'

It is no entry point of pytest's: who does not name it does not import it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest

from muster.queues.base import TaskQueue
from muster.queues.opening import open_queue
from muster.testing.contract import end_test, rules_with
from muster.testing.queue_bench import QueueFactory, QueueRule, check_queue
from muster.testing.queue_rules import QUEUE_RULES

__all__ = ("queue_contract",)


def queue_contract(
    factory: QueueFactory,
    *,
    shared: bool = True,
    small: QueueFactory | None = None,
    rules: Collection[str] = (),
) -> Callable[[QueueRule], None]:
    """A test function, once for each rule; give it a name that begins with `test_`.

    Args:
        factory: opens the queue that belongs to a folder, at once or awaited. Each rule has a new
            folder, and opens its queue twice where two processes would.
        shared: False for a queue that only the process sees which has opened it: each opening is
            then another queue.
        small: opens a queue that takes three open tasks; without it the bound is not tested.
        rules: the ids of the rules to check; all of them, if empty.
    """
    chosen = rules_with(rules, QUEUE_RULES, f"known: {', '.join(rule.id for rule in QUEUE_RULES)}")

    @pytest.mark.parametrize("rule", chosen, ids=[rule.id for rule in chosen])
    def test_rule(rule: QueueRule) -> None:
        end_test(rule, check_queue(rule, factory, small=small, shared=shared))

    return test_rule


# --- `pytest -p muster.testing.queue_contract --muster-queue URL` ---------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that names queues."""
    parser.getgroup("muster").addoption(
        "--muster-queue",
        action="append",
        default=[],
        metavar="URL",
        help="Check a queue against the rules; {folder} in the URL is a new folder for each rule.",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add one item for each rule and queue."""
    for url in config.getoption("--muster-queue"):
        scheme = url.partition(":")[0]
        queue = _Queue.from_parent(session, name=scheme, nodeid=f"queue:{scheme}", url=url)
        items.extend(queue.collect())


class _Queue(pytest.Collector):
    """A queue, whose items are the rules."""

    def __init__(self, *, url: str, **more: object) -> None:
        super().__init__(**more)  # type: ignore[arg-type]
        self.url = url
        self.start = Path.cwd()
        self.shared = "{folder}" in url

    def open(self, folder: Path) -> TaskQueue:
        """The queue that belongs to the folder."""
        return open_queue(self.url.replace("{folder}", str(folder)), start=self.start)

    def collect(self) -> Iterator[pytest.Item]:
        for rule in QUEUE_RULES:
            yield _Item.from_parent(self, name=rule.id, rule=rule, queue=self)


class _Item(pytest.Item):
    """One rule."""

    def __init__(self, *, rule: QueueRule, queue: _Queue, **more: object) -> None:
        super().__init__(**more)  # type: ignore[arg-type]
        self.rule = rule
        self.queue = queue

    def runtest(self) -> None:
        queue = self.queue
        end_test(self.rule, check_queue(self.rule, queue.open, small=None, shared=queue.shared))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return Path.cwd(), None, self.nodeid
