"""The suite can fail: each wrong provider breaks its rule, and no other."""

from __future__ import annotations

import pytest
from gallery import GALLERY
from gallery.base import right

from muster.testing.rules import RULES
from muster.testing.running import check_provider
from muster.testing.subject import Subject


@pytest.mark.parametrize("name", GALLERY)
def test_a_wrong_provider_breaks_its_rule_and_no_other(name: str) -> None:
    wrong = GALLERY[name]
    run = check_provider(Subject(name=name, factory=wrong, price_as="openai"))
    assert {result.rule.id: result.outcome.text for result in run.failed}.keys() == {wrong.breaks}
    assert run.count("passed") == len(RULES) - 1


def test_every_rule_is_broken_by_one() -> None:
    assert {wrong.breaks for wrong in GALLERY.values()} == {rule.id for rule in RULES}


def test_the_one_inside_is_right() -> None:
    run = check_provider(Subject(name="right", factory=right, price_as="openai"))
    assert run.count("passed") == len(RULES)
