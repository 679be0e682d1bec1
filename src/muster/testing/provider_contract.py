"""The conformance suite as tests: one test item for each rule.

In a test file:

    from muster.testing.provider_contract import provider_contract

    test_shout = provider_contract(lambda environment: Shout(environment.url, environment.key))

Or for a target of the project, without a file:

    pytest -p muster.testing.provider_contract --muster-target NAME

It is no entry point of pytest's: who does not name it does not import it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import cache
from pathlib import Path

import pytest

from muster.testing.contract import end_test
from muster.testing.dialects import Dialect, Shape
from muster.testing.outcome import Rule
from muster.testing.rules import RULES
from muster.testing.running import Checks, learned, rules_named
from muster.testing.subject import Factory, Reflects, Subject, Way

__all__ = ("provider_contract",)


def provider_contract(
    factory: Factory,
    *,
    name: str = "provider",
    way: Way | None = None,
    reflects: Collection[Reflects] = (),
    price_as: str | None = None,
    shape: Shape | None = None,
    dialect: Dialect | None = None,
    rules: Collection[str] = (),
) -> Callable[[Rule], None]:
    """A test function, once for each rule; give it a name that begins with `test_`.

    Args:
        factory: makes what is to be tested, pointed at `environment.url` and, if it takes a key,
            given `environment.key`: a provider, a chat model or a function. It is called anew for
            each rule.
        name: what messages call it.
        way: who calls the environment: `itself`, or something `behind` the provider, whose failures
            then need not keep their types. Without it, a provider that calls it at all is taken to
            do so itself.
        reflects: for a provider that calls nobody, what its answer repeats of the request.
        price_as: who sells its models, as price lists name it.
        shape: where it looks for the values of a plain JSON answer.
        dialect: what its service speaks, if that is neither OpenAI's, Anthropic's nor plain JSON.
        rules: the ids of the rules to check; all of them, if empty.
    """
    subject = Subject(
        name=name,
        factory=factory,
        way=way,
        reflects=frozenset(reflects),
        price_as=price_as,
        shape=shape or Shape(),
        dialect=dialect,
    )
    chosen = rules_named(rules)
    checks = cache(lambda: Checks(learned(subject), chosen))

    @pytest.mark.parametrize("rule", chosen, ids=[rule.id for rule in chosen])
    def test_rule(rule: Rule) -> None:
        end_test(rule, checks().result(rule).outcome)

    return test_rule


# --- `pytest -p muster.testing.provider_contract --muster-target NAME` ---------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that names targets."""
    group = parser.getgroup("muster")
    group.addoption(
        "--muster-target",
        action="append",
        default=[],
        metavar="NAME",
        help="Check a target of targets.yaml, or a provider, against the rules of `muster check`.",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add one item for each rule and target."""
    for name in config.getoption("--muster-target"):
        target = _Target.from_parent(session, name=name, nodeid=f"target:{name}", target=name)
        items.extend(target.collect())


class _Target(pytest.Collector):
    """A target, whose items are the rules."""

    def __init__(self, *, target: str, **more: object) -> None:
        super().__init__(**more)  # type: ignore[arg-type]
        from muster.testing.pointing import target_named

        self.pointed = target_named(target, Path.cwd())
        self.checks = cache(lambda: Checks(learned(self.pointed.subject), RULES))

    def collect(self) -> Iterator[pytest.Item]:
        for rule in RULES:
            yield _Item.from_parent(self, name=rule.id, rule=rule, target=self)


class _Item(pytest.Item):
    """One rule."""

    def __init__(self, *, rule: Rule, target: _Target, **more: object) -> None:
        super().__init__(**more)  # type: ignore[arg-type]
        self.rule = rule
        self.target = target

    def runtest(self) -> None:
        end_test(self.rule, self.target.checks().result(self.rule).outcome)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return Path.cwd(), None, self.nodeid
