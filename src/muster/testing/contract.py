"""What the contracts of providers and of queues share: rules by their ids, and a test's end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from muster.errors import UsageError, nearest
from muster.testing.outcome import Outcome

__all__ = ("ContractRule", "end_test", "rules_with")


class ContractRule(Protocol):
    """A rule, as far as a person is told of it."""

    @property
    def id(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def why(self) -> str: ...
    @property
    def mend(self) -> str: ...


R = TypeVar("R", bound=ContractRule)


def rules_with(ids: Iterable[str], rules: Sequence[R], otherwise: str) -> tuple[R, ...]:
    """The rules with these ids, all of them without any.

    Raises:
        UsageError: there is no such rule; it names the nearest, else says `otherwise`.
    """
    wanted = list(ids)
    known = {rule.id: rule for rule in rules}
    for name in wanted:
        if name not in known:
            near = nearest(name, known)
            hint = f"near: {near[0]}" if near else otherwise
            raise UsageError(f'no rule "{name}" ({hint})')
    return tuple(rule for rule in rules if not wanted or rule.id in wanted)


def end_test(rule: ContractRule, outcome: Outcome) -> None:
    """Let the test end as the check did."""
    import pytest

    if outcome.status == "not applicable":
        pytest.skip(outcome.text)
    if outcome.status == "failed":
        pytest.fail(
            f"{rule.title}\n\n{outcome.text}\n\nwhy: {rule.why}\nmend: {rule.mend}", pytrace=False
        )
