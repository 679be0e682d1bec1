"""Each adapter keeps the rules, save those that its library breaks; these it does break."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import pytest
from adapter_subjects import KINDS, TURNS

from muster.testing.rules import RULES
from muster.testing.running import check_provider

PAGE = Path(__file__).parents[2] / "docs" / "providers" / "adapters.md"
NEVER_TRIED = {"rate-limited-with-retry-after", "cancelled-leaks-nothing"}
"""Of those that are broken: checking the one takes as long as the library waits, the other depends
on the garbage collector."""


def needed(name: str) -> None:
    module = KINDS[name][0]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed: make test-adapters")


@pytest.mark.filterwarnings(
    "ignore:.*never awaited", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("name", KINDS)
def test_it_keeps_the_rules(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed(name)
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    _, subject, broken = KINDS[name]
    skipped = NEVER_TRIED & broken.keys()
    rules = [rule for rule in RULES if rule.id not in skipped]
    run = check_provider(subject(), rules)
    found = {result.rule.id: result.outcome.text for result in run.failed}
    assert found.keys() == broken.keys() - skipped, found
    assert run.count("passed") >= 30


@pytest.mark.parametrize(
    "name", ["pydantic-ai, an agent", "openai-agents", "langchain, a chat model"]
)
def test_failures_of_agents_keep_their_types(name: str) -> None:
    needed(name)
    subject = replace(KINDS[name][1](), way="itself")
    run = check_provider(subject, [rule for rule in RULES if rule.id in TURNS])
    assert {result.rule.id: result.outcome.text for result in run.failed} == {}


def test_the_manual_tells_what_is_broken() -> None:
    page = PAGE.read_text(encoding="utf-8")
    table = page[page.index("## What the libraries") :]
    rows = re.findall(r"^\| (.+?) \| `([\w-]+)` \| (.+?) \|$", table, re.MULTILINE)
    told = {(kind.replace("`", ""), rule): why for kind, rule, why in rows}
    assert told == {
        (kind, rule): why for kind, (_, _, broken) in KINDS.items() for rule, why in broken.items()
    }
