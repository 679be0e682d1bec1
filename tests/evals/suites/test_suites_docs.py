"""The manual's page about suites: its files run, and its tables name the fields there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from muster.evals.suites.load import load_suite
from muster.evals.suites.models import SUITE_SYNONYMS, TEST_SYNONYMS, SuiteFile, TestEntry

PAGE = (Path(__file__).parents[3] / "docs" / "suites.md").read_text()
FILE = re.compile(r"^```yaml\n# file: (?P<name>\S+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "cases"),
    [
        ("demo/eval.yaml", ["capital", "greeting"]),
        ("prompts.eval.yaml", ["hello prompt-1", "hello polite", "bye polite"]),
        ("scenarios.eval.yaml", ["distance-1", "distance-2"]),
        ("conversation.eval.yaml", ["memory"]),
    ],
)
def test_files_of_the_page(tmp_path: Path, name: str, cases: list[str]) -> None:
    files = {found["name"]: found["text"] for found in FILE.finditer(PAGE)}
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(files[name])
    suite = load_suite(path, env={}, project_root=tmp_path)
    assert [f"{case.id} {case.prompt or ''}".strip() for case in suite.cases()] == cases
    assert suite.warnings == ()


@pytest.mark.parametrize(
    ("title", "known"),
    [
        ("## A test", {*TestEntry.model_fields, *TEST_SYNONYMS}),
        ("## A suite", {*SuiteFile.model_fields, *SUITE_SYNONYMS, "$schema"}),
    ],
)
def test_tables_name_fields_that_are_there(title: str, known: set[str]) -> None:
    section = PAGE[PAGE.index(f"\n{title}\n") :].split("\n## ")[1]
    named = {
        name
        for row in re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)
        for name in re.findall(r"`([$\w]+)`", row)
    }
    assert len(named) > 15
    assert named <= known
