"""The suite can fail: each wrong provider breaks its rule, and no other."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gallery import GALLERY
from gallery.answers import CountsForItsWholeLife
from gallery.base import right

from muster.provider import ProviderRequest, ProviderResponse
from muster.testing.rules import RULES
from muster.testing.running import check_provider, rules_named
from muster.testing.subject import Subject


@pytest.mark.parametrize("name", GALLERY)
def test_a_wrong_provider_breaks_its_rule_and_no_other(name: str) -> None:
    wrong = GALLERY[name]
    run = check_provider(Subject(name=name, factory=wrong, price_as="openai"))
    assert {result.rule.id: result.outcome.text for result in run.failed}.keys() == {wrong.breaks}
    untold = f"it cannot be told while {wrong.breaks} is broken"
    reasons = [r.outcome.text for r in run.results if r.outcome.status == "not applicable"]
    assert reasons == [untold] * wrong.hides
    assert run.count("passed") == len(RULES) - 1 - wrong.hides


def test_every_rule_is_broken_by_one() -> None:
    assert {wrong.breaks for wrong in GALLERY.values()} == {rule.id for rule in RULES}


def test_the_one_inside_is_right() -> None:
    run = check_provider(Subject(name="right", factory=right, price_as="openai"))
    assert run.count("passed") == len(RULES)


class _WithoutStreams(CountsForItsWholeLife):
    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        return await super().invoke(replace(request, on_chunk=None))


def test_counts_that_grow_from_call_to_call_are_found_without_a_stream() -> None:
    subject = Subject(name="growing", factory=_WithoutStreams)
    (result,) = check_provider(subject, rules_named(["usage-monotonic"])).failed
    assert "of a second call, the service counted 100 + 20 tokens" in result.outcome.text
