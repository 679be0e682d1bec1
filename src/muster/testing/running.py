"""Checks a provider against the rules, several at once, each on a thread and a loop of its own.

A provider that blocks, hangs or breaks its event loop harms one rule, not the others.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future, wait
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from muster.errors import MusterError, UsageError
from muster.importing import describe_failure
from muster.provider import BadProviderOutput, ProviderError, ProviderRequest
from muster.testing.contract import rules_with
from muster.testing.environment import Environment
from muster.testing.outcome import Outcome, Result, Rule
from muster.testing.rules import RULES
from muster.testing.subject import Subject, Way
from muster.testing.trial import OTHER_LOOP, Trial, shown, word

__all__ = ("AT_ONCE", "Checks", "Run", "check_provider", "learned", "rules_named")

AT_ONCE = 4
LONGEST = 40.0
"""Seconds for one rule; what takes longer hangs."""
FIRST_QUESTION = "first-question"
"""The `eval_case_id` of the question that finds out who calls the environment."""
FIRST_QUESTION_SECONDS = 20.0
STOP_SECONDS = 3.0
BLOCKS = "does-not-block"
SECOND_LOOP = "second-event-loop"

T = TypeVar("T")

_alone = threading.Lock()
_running: set[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = set()


@dataclass(frozen=True, slots=True)
class Run:
    """All results for one provider, in the order of the rules."""

    subject: Subject
    results: tuple[Result, ...]
    seconds: float

    @property
    def failed(self) -> tuple[Result, ...]:
        """The rules that it breaks."""
        return tuple(result for result in self.results if result.outcome.status == "failed")

    def count(self, status: str) -> int:
        """How many rules ended so."""
        return sum(result.outcome.status == status for result in self.results)


def rules_named(names: Iterable[str]) -> tuple[Rule, ...]:
    """The provider's rules with these ids, all of them without any. Raises `UsageError`."""
    return rules_with(names, RULES, "muster check provider --list names them")


def check_provider(
    subject: Subject,
    rules: Sequence[Rule] = RULES,
    *,
    on_result: Callable[[Result], None] | None = None,
) -> Run:
    """Check one provider; `on_result` is called on other threads, as results come.

    Raises:
        MusterError: it cannot be made, or cannot answer a first question.
    """
    begun = time.perf_counter()
    try:
        subject = learned(subject)
        checks = Checks(subject, rules, on_result=on_result)
        for rule in rules:
            if rule.alone:
                checks.result(rule)
        _all_at_once(checks.result, [rule for rule in rules if not rule.alone])
    except KeyboardInterrupt:
        _stop_all()
        raise
    ordered = tuple(checks.result(rule) for rule in rules)
    return Run(subject, ordered, time.perf_counter() - begun)


def learned(subject: Subject) -> Subject:
    """The subject with what a first question finds out: who calls the environment, unless it says
    so itself, and whether its answer repeats the question.

    Raises:
        MusterError: the provider cannot be made, or cannot answer.
    """
    with Environment(shape=subject.shape, dialect=subject.dialect) as environment:
        marker = word()
        found: Way = "behind" if subject.relays else "itself"
        request = ProviderRequest(question=f"Are you ready, {marker}?", eval_case_id=FIRST_QUESTION)

        async def ask() -> str:
            async with Trial(FIRST_QUESTION, subject, environment) as trial:
                async with asyncio.timeout(FIRST_QUESTION_SECONDS):
                    return (await trial.provider.invoke(request)).text

        try:
            text = _first_answer(subject, ask)
            if not environment.calls:
                found = "never"
        except UsageError as error:
            if environment.trouble is not None:
                raise UsageError(f"{subject.name}: {_dialect_fails(environment)}") from error
            if not OTHER_LOOP.search(str(error)):
                raise
            text = ""  # it belongs to one event loop, and not to this one: a rule's business
    way = subject.way or found
    if way == "never" and marker in text:
        return replace(subject, way=way, reflects=subject.reflects | {"question"})
    return replace(subject, way=way)


def _dialect_fails(environment: Environment) -> str:
    assert environment.trouble is not None
    return f"the dialect cannot read a call, or answer it: {describe_failure(environment.trouble)}"


def _first_answer(subject: Subject, ask: Callable[[], Coroutine[Any, Any, str]]) -> str:
    try:
        return _on_thread(ask, FIRST_QUESTION_SECONDS + 5)
    except MusterError:
        raise
    except (TimeoutError, _Hanging):
        raise UsageError(
            f"{subject.name} does not answer a first question: nothing came within "
            f"{FIRST_QUESTION_SECONDS:g} s"
        ) from None
    except ProviderError as error:
        own = isinstance(error, BadProviderOutput) and subject.dialect is None
        hint = "; if its service speaks a language of its own, name a `--dialect`" if own else ""
        raise UsageError(
            f"{subject.name} does not answer a first question: {shown(error)}{hint}"
        ) from error
    except Exception as error:
        raise UsageError(f"{subject.name} cannot be checked: {describe_failure(error)}") from error


class Checks:
    """The results for one `learned` subject, each rule checked once, when it is asked for.

    A rule that fails because another one is broken does not apply.
    """

    def __init__(
        self,
        subject: Subject,
        rules: Iterable[Rule],
        *,
        on_result: Callable[[Result], None] | None = None,
    ) -> None:
        self._subject = subject
        self._rules = {rule.id: rule for rule in rules}
        self._on_result = on_result
        self._results: dict[str, Future[Result]] = {}
        self._lock = threading.Lock()

    def result(self, rule: Rule) -> Result:
        """How the rule ended; threads that ask for one that is under way wait for it."""
        with self._lock:
            found = self._results.get(rule.id)
            mine = found is None
            if found is None:
                found = self._results[rule.id] = Future()
        if mine:
            try:
                result = self._result(rule)
                if self._on_result is not None:
                    self._on_result(result)
                found.set_result(result)
            except BaseException as error:  # who waits must not wait for ever
                found.set_exception(error)
        return found.result()

    def _result(self, rule: Rule) -> Result:
        begun = time.perf_counter()
        outcome = self._outcome(rule)
        return Result(rule, outcome, time.perf_counter() - begun)

    def _outcome(self, rule: Rule) -> Outcome:
        if BLOCKS in rule.after and self._is_broken(BLOCKS):
            return _untold(BLOCKS)  # it would hang, and tell no more
        # Rules that measure the process wait for each other.
        with _alone if rule.alone else nullcontext():
            outcome = _checked(rule, self._subject)
        if outcome.status != "failed":
            return outcome
        cause = next(filter(self._is_broken, rule.after), None)
        if cause is None and rule.id != SECOND_LOOP and self._of_loop(outcome):
            cause = SECOND_LOOP
        return outcome if cause is None else _untold(cause)

    def _of_loop(self, outcome: Outcome) -> bool:
        """It failed because the provider belongs to another event loop, that of another rule."""
        told = OTHER_LOOP.search(outcome.text) or "no answer within" in outcome.text
        return bool(told) and self._is_broken(SECOND_LOOP, OTHER_LOOP)

    def _is_broken(self, name: str, evidence: re.Pattern[str] | None = None) -> bool:
        rule = self._rules.get(name)
        if rule is None:
            return False
        outcome = self.result(rule).outcome
        fits = evidence is None or evidence.search(outcome.text) is not None
        return outcome.status == "failed" and fits


def _untold(cause: str) -> Outcome:
    return Outcome("not applicable", f"it cannot be told while {cause} is broken")


def _checked(rule: Rule, subject: Subject) -> Outcome:
    with Environment(shape=subject.shape, dialect=subject.dialect) as environment:

        async def check() -> Outcome:
            async with Trial(rule.id, subject, environment) as trial:
                return await rule.check(trial)

        try:
            outcome = _on_thread(check, LONGEST)
            if environment.trouble is not None:
                return Outcome("failed", _dialect_fails(environment))
            return outcome
        except _Hanging:
            return Outcome("failed", f"the check did not end within {LONGEST:g} s: a call hangs")
        except Exception as error:
            return Outcome("failed", f"raised {describe_failure(error)}")


def _all_at_once(work: Callable[[Rule], object], rules: list[Rule]) -> None:
    """Do it for each rule, a few at a time, on threads that can be left behind."""
    waiting = deque(rules)

    def run() -> None:
        with suppress(IndexError, asyncio.CancelledError):
            while True:
                work(waiting.popleft())

    threads = [threading.Thread(target=run, daemon=True) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            thread.join()
    finally:
        waiting.clear()  # interrupted: what has not begun does not begin


def _on_thread(work: Callable[[], Coroutine[Any, Any, T]], seconds: float) -> T:
    """Run `work` in an event loop of its own, on a thread that can be left behind.

    Raises:
        _Hanging: it takes longer.
    """
    done: Future[T] = Future()

    async def watched() -> T:
        task = asyncio.current_task()
        assert task is not None
        running = (asyncio.get_running_loop(), task)
        _running.add(running)
        try:
            return await work()
        finally:
            _running.discard(running)

    def run() -> None:
        try:
            done.set_result(asyncio.run(watched()))
        except BaseException as error:  # handed over, whatever it is
            done.set_exception(error)

    threading.Thread(target=run, name="muster-rule", daemon=True).start()
    if not wait((done,), seconds).done:
        raise _Hanging
    return done.result()


def _stop_all() -> None:
    """Cancel the checks under way, and give them a little time to end what they have started."""
    for loop, task in list(_running):
        loop.call_soon_threadsafe(task.cancel)
    end = time.monotonic() + STOP_SECONDS
    while _running and time.monotonic() < end:
        time.sleep(0.02)


class _Hanging(Exception):
    """It takes too long; the thread is left behind."""
