"""Every built-in provider keeps every rule, and the manual says so as it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from subjects import head, subjects

from muster.providers import providers
from muster.providers.agents import AGENTS
from muster.providers.presets import PRESETS
from muster.testing.report import as_markdown
from muster.testing.running import check_provider

PAGE = Path(__file__).parents[2] / "docs" / "providers" / "conformance.md"
NAMES = [
    "openai (chat)",
    "openai (responses)",
    "anthropic",
    "http",
    "http (sse)",
    "cli",
    "stdio",
    "coding agents (claude)",
    "function",
    "team",
    "mock",
    "echo",
    "replay",
]


@pytest.mark.parametrize("name", NAMES)
def test_it_keeps_the_rules(name: str, tmp_path: Path) -> None:
    (subject,) = (found for found in subjects(tmp_path) if found.name == name)
    run = check_provider(subject)
    assert {result.rule.id: result.outcome.text for result in run.failed} == {}
    assert as_markdown(run) in PAGE.read_text(encoding="utf-8")


def test_the_page_has_the_rules_and_these_providers() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page.startswith(head())
    assert re.findall(r"^## (.*)$", page.removeprefix(head()), re.MULTILINE) == NAMES


def test_no_built_in_is_missing() -> None:
    kinds = {name.partition(" ")[0] for name in NAMES}
    known = {
        entry.name
        for entry in providers.entries()
        # Adapters need what others have written; they are checked where that is installed.
        if entry.source == "built-in" and not entry.location.startswith("muster.adapters.")
    }
    assert known - set(PRESETS) - set(AGENTS) - kinds == set()
    assert "coding" in kinds
