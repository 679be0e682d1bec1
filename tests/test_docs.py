"""The manual is true: every example in it runs, every link leads somewhere.

A page is a small project. Its fenced blocks are taken in order, in one folder:

- a block that names its file (`# file: NAME` as its first line, or `<!-- file: NAME -->` above) is
  written there; targets files are loaded and every target made, suites are run or checked;
- `sh` and `console` blocks are run; in a `console` block the lines after a command are its output.
  `# exit N` after a command is its exit code, else 0; `…` in an output stands for anything.
  `<!-- dry run -->` above makes `muster eval` a `--dry-run`: what it names is not on this machine;
  `<!-- checkout -->` says that the commands are about this checkout;
- `python` blocks are run; `json` and `jsonl` blocks are parsed;
- a `text` block is nobody's output: it is compared by a test of its own, listed in `TEXTS`;
- pages that need more than the development tools are run by tests of their own.

A block of any other kind, or one that nothing here can check, fails the test.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from manual import FENCE, PAGES, ROOT, SHELL, Project, blocks_of, name_of
from muster.provider import ProviderRequest
from muster.providers.prompt import render_prompt

SUITES_RUN_ELSEWHERE = {
    "docs/suites.md": "tests/evals/suites/test_suites_docs.py",
    "docs/datasets.md": "tests/evals/suites/test_dataset_docs.py",
    "docs/from-promptfoo.md": "tests/evals/suites/test_dataset_docs.py",
}
"""Pages whose suites another test loads and runs."""

COMMANDS_RUN_ELSEWHERE = {"examples": "tests/test_examples.py"}
"""Folders whose commands are run by a test of their own."""

PAGES_RUN_ELSEWHERE = {"docs/providers/adapters.md": "tests/adapters/test_adapters_docs.py"}
"""Pages whose examples need libraries that are not among the development tools."""

TEXTS = {
    ("docs/datasets.md", "cases/"): "test_tree_of_cases",
    ("docs/providers/cli.md", "@[System]:"): "test_prompt_of_a_command",
}
"""`text` blocks by page and first word, each with the test that compares it."""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_is_of_a_kind_that_is_checked(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r"^```", text, re.MULTILINE)) == 2 * len(blocks_of(page))
    outside = FENCE.sub("", text)
    indented = re.findall(r"\n\n((?: {4}|\t)(?! *[-*\d]).*)", outside)
    assert not indented, f"an indented block is checked by nothing: {indented}"
    for block in blocks_of(page):
        known = {"yaml", "json", "jsonl", "csv", "python", "sh", "console", "text"}
        assert block.kind in known, f"{block.place}: nothing checks a block of {block.kind!r}"
        if block.kind == "text":
            key = (block.page, block.text.split()[0])
            assert TEXTS.get(key) in globals(), f"{block.place}: no test compares this text"
        if block.kind in ("yaml", "csv"):
            assert block.file, f"{block.place}: {block.kind} without the name of its file"


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if blocks_of(p) and name_of(p) not in PAGES_RUN_ELSEWHERE],
    ids=name_of,
)
def test_examples_of_a_page(page: Path, tmp_path: Path) -> None:
    name = name_of(page)
    project = Project(tmp_path)
    blocks = blocks_of(page)
    for block in blocks:
        if block.file is not None:
            project.write(block.file, block.text)
    elsewhere = _elsewhere(name)
    ran = False
    for block in blocks:
        if block.kind in ("sh", "console") and not elsewhere:
            project.run_block(block)
            ran = True
        elif block.file is not None:
            project.check_file(block)
        elif block.kind == "python":
            project.run_python(block)
            ran = True
        elif block.kind == "json":
            json.loads(block.text)
        elif block.kind == "jsonl":
            assert all(isinstance(json.loads(line), dict) for line in block.text.splitlines())
    if name not in SUITES_RUN_ELSEWHERE:
        project.run_remaining_suites(" ".join(b.text for b in blocks if b.kind in SHELL))
    assert ran or elsewhere or any(block.file or block.kind == "json" for block in blocks)


def _elsewhere(page: str) -> bool:
    return any(page == key or page.startswith(f"{key}/") for key in COMMANDS_RUN_ELSEWHERE)


def test_what_is_tested_elsewhere_is() -> None:
    for page, test in (SUITES_RUN_ELSEWHERE | PAGES_RUN_ELSEWHERE).items():
        assert Path(page).name in (ROOT / test).read_text()
    for test in COMMANDS_RUN_ELSEWHERE.values():
        assert "README" in (ROOT / test).read_text()


# --- texts that are no command's output ---------------------------------------------------------


def _text(page: str, first: str) -> str:
    for block in blocks_of(ROOT / page):
        if block.kind == "text" and block.text.startswith(first):
            return block.text
    raise AssertionError(f"{page}: no text begins with {first}")


def test_tree_of_cases() -> None:
    """The folder that the page draws is made of the page's own files."""
    first, *lines = _text("docs/datasets.md", "cases/").split()
    drawn = {first + line for line in lines}
    files = {block.file for block in blocks_of(ROOT / "docs" / "datasets.md")}
    assert drawn == {
        "cases/refund/case.yaml",
        "cases/greeting/case.yaml",
        "cases/greeting/letter.txt",
    }
    assert "cases/greeting/case.yaml" in files


def test_prompt_of_a_command() -> None:
    text = _text("docs/providers/cli.md", "@[System]:")
    request = ProviderRequest(
        question="What is the capital of France?",
        system_prompt="Answer in one word.",
        input_files=(Path("/project/map.png"),),
    )
    assert render_prompt(request) == text.strip()


# --- links --------------------------------------------------------------------------------------


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    outside = FENCE.sub("", page.read_text(encoding="utf-8"))
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", outside, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number, base = 0, anchor
        while anchor in found:
            number += 1
            anchor = f"{base}-{number}"
        found.add(anchor)
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    outside = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", outside):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name_of(page)}: {link} is not there"
        if anchor:
            assert anchor in anchors_of(target), f"{name_of(page)}: {link} has no such heading"


def test_the_index_links_every_page() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {
        (index.parent / link.partition("#")[0]).resolve()
        for link in re.findall(r"\]\(([^)\s]+)\)", index.read_text())
    }
    pages = {page for page in (ROOT / "docs").rglob("*.md") if page != index}
    assert pages <= linked, sorted(str(page) for page in pages - linked)
