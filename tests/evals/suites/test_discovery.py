"""From arguments to suite files."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.errors import UsageError
from muster.evals.suites.discovery import find_suites

FILES = (
    "a.eval.yaml",
    "evals/eval.yaml",
    "evals/b.eval.yml",
    "evals/deep/.hidden/c.eval.yaml",
    "evals/targets.yaml",
    "evals/rows.jsonl",
    "evals/odd[1].yaml",
    "shop/promptfooconfig.yaml",
    "node_modules/x/d.eval.yaml",
    ".venv/e.eval.yaml",
    "make.py",
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    return tmp_path


def names(tree: Path, *arguments: str) -> list[str]:
    return [str(path.relative_to(tree)) for path in find_suites(arguments, tree)]


def test_a_folder(tree: Path) -> None:
    everything = [
        "a.eval.yaml",
        "evals/b.eval.yml",
        "evals/deep/.hidden/c.eval.yaml",
        "evals/eval.yaml",
        "shop/promptfooconfig.yaml",
    ]
    assert names(tree, ".") == everything
    assert names(tree, str(tree)) == everything
    assert names(tree, "shop", ".", "shop/../shop") == everything


def test_files_globs_and_generators(tree: Path) -> None:
    assert names(tree, "evals/rows.jsonl", "a.eval.yaml") == ["a.eval.yaml", "evals/rows.jsonl"]
    assert names(tree, "make.py:cases", "make.py") == ["make.py", "make.py:cases"]
    assert names(tree, "evals/odd[1].yaml") == ["evals/odd[1].yaml"]
    assert names(tree, "**/*.eval.yaml") == ["a.eval.yaml", "evals/deep/.hidden/c.eval.yaml"]
    assert names(tree, "evals/*.{yml,jsonl}") == ["evals/b.eval.yml", "evals/rows.jsonl"]


def test_exclusions(tree: Path) -> None:
    assert names(tree, ".", "!evals/**", "!shop") == ["a.eval.yaml"]
    assert names(tree, "!**/*.yml", "evals") == [
        "evals/deep/.hidden/c.eval.yaml",
        "evals/eval.yaml",
    ]


def test_links_are_followed_once(tree: Path) -> None:
    (tree / "evals" / "loop").symlink_to(tree)
    (tree / "other").mkdir()
    (tree / "other" / "linked").symlink_to(tree / "shop")
    assert names(tree, "other") == ["other/linked/promptfooconfig.yaml"]
    assert len(names(tree, ".")) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no suite is named"),
        (["evals/rwos.jsonl"], r'no such file or folder: .*did you mean "evals/rows\.jsonl"'),
        (["gone.py:cases"], "no such file or folder: gone.py"),
        (["*.nothing"], r"no suite matches \*\.nothing; a suite is YAML"),
        (["evals/*", "!evals"], "no suite is left after !evals"),
        (["!evals"], "no suite is named"),
        ([".venv"], "no suite in"),
    ],
)
def test_no_match(tree: Path, arguments: list[str], message: str) -> None:
    (tree / ".venv" / "e.eval.yaml").rename(tree / ".venv" / "e.yaml")
    with pytest.raises(UsageError, match=message):
        find_suites(arguments, tree)
