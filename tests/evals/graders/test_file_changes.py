from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from muster.errors import ConfigError
from muster.evals.case import Case
from muster.evals.graders.base import BoundGrader, GradeContext
from muster.evals.graders.file_changes import matches_path
from muster.evals.scoring import Graded, grade_all
from muster.provider import Message, ProviderResponse

DIFF = """\
diff --git a/src/a.py b/src/a.py
index 1..2 100644
--- a/src/a.py
+++ b/src/a.py
@@ -1,2 +1,3 @@
 import os
-print("old")
+print("new")
++++ b/not/a/header
diff --git a/docs/new.md b/docs/new.md
new file mode 100644
--- /dev/null
+++ b/docs/new.md
@@ -0,0 +1 @@
+hello
"""
FILES = [
    {"path": "src/a.py", "status": "modified"},
    {"path": "docs/new.md", "status": "added"},
    {"path": "old.txt", "status": "deleted"},
]
WORKSPACE = {"diff": DIFF, "files": FILES, "truncated": False}


@pytest.fixture
def ask(bind: Callable[..., tuple[BoundGrader, ...]]) -> Callable[..., Graded]:
    def ask(checks: dict[str, Any], workspace: Any = WORKSPACE, raw: bool = False) -> Graded:
        metadata = None if raw or workspace is None else {"workspace": workspace}
        response = ProviderResponse(
            Message("assistant", "done", metadata=metadata),
            raw={"workspace": workspace} if raw else None,
        )
        context = GradeContext(
            output="done", case=Case(id="c", suite="s", input=()), response=response
        )
        found = grade_all(bind([{"type": "file-changes"} | checks]), context)
        assert isinstance(found, Graded)
        return found

    return ask


Ask = Callable[..., Graded]


@pytest.mark.parametrize(
    ("checks", "score"),
    [
        ({"changed": "src/*.py"}, 1.0),
        ({"changed": ["src/**", "nothing"]}, 0.5),
        ({"added": "**/*.md", "modified": "src/a.py", "deleted": "old.txt"}, 1.0),
        ({"added": "src/a.py"}, 0.0),
        ({"only": ["src/", "docs/", "*.txt"]}, 1.0),
        ({"only": "src/**"}, 0.0),
        ({"untouched": ["tests/**", "docs/*"]}, 0.5),
        ({"max_files": 3, "min_files": 3}, 1.0),
        ({"max_files": 2}, 0.0),
        ({"max_lines": 4}, 1.0),
        ({"max_lines": 3}, 0.0),
        ({"adds": ['print("new")', "hello"], "adds_none_of": "old"}, 1.0),
        ({"adds": "+++ b/docs"}, 0.0),
        # Of what looks like a header within a hunk, the first sign is the diff's.
        ({"adds": "+++ b/not/a/header"}, 1.0),
        ({"adds": "++++ b/not/a/header"}, 0.0),
        ({"adds_none_of": ["print", "eval("]}, 0.5),
    ],
)
def test_checks(ask: Ask, checks: dict[str, Any], score: float) -> None:
    for raw in (False, True):
        found = ask(checks, raw=raw)
        assert (found.error, found.score) == (None, score)


def test_nothing_changed_is_known(ask: Ask) -> None:
    empty = {"diff": "", "files": [], "truncated": False}
    assert ask({"max_files": 0, "max_lines": 0, "untouched": "**"}, empty).score == 1
    assert ask({"changed": "**"}, empty).score == 0


@pytest.mark.parametrize(
    ("workspace", "checks", "message"),
    [
        (None, {"max_files": 1}, "the target has no `workspace`"),
        ({"diff": ""}, {"max_files": 1}, "the target has no `workspace`"),
        (WORKSPACE | {"note": "a: denied"}, {"max_files": 9}, "could be compared: a: denied"),
        (WORKSPACE | {"truncated": True}, {"adds": "far"}, "the diff is cut short"),
        (WORKSPACE | {"truncated": True}, {"adds_none_of": "far"}, "the diff is cut short"),
        (WORKSPACE | {"truncated": True}, {"max_lines": 9}, "the diff is cut short"),
        (WORKSPACE | {"diff": None}, {"adds": "x"}, "the diff is not known"),
        (WORKSPACE | {"diff": ""}, {"max_lines": 0}, "the diff is not known"),
    ],
)
def test_what_is_not_known_is_an_error(
    ask: Ask, workspace: Any, checks: dict[str, Any], message: str
) -> None:
    found = ask(checks, workspace)
    assert found.error is not None
    assert message in found.error


def test_what_is_known_of_a_cut_diff_counts(ask: Ask) -> None:
    cut = WORKSPACE | {"truncated": True}
    assert ask({"adds": "hello", "max_lines": 3, "adds_none_of": "new"}, cut).score == 1 / 3


def test_settings_that_are_wrong(ask: Ask) -> None:
    for checks, message in (
        ({}, "needs at least one check"),
        ({"changed": []}, "changed"),
        ({"chnged": "a"}, 'did you mean "changed"'),
        ({"max_files": -1}, "max_files"),
    ):
        with pytest.raises(ConfigError) as raised:
            ask(checks)
        assert message in str(raised.value)


@pytest.mark.parametrize(
    ("path", "glob", "fits"),
    [
        ("a/b/c.py", "**/*.py", True),
        ("c.py", "**/*.py", True),
        ("a/b/c.py", "a/**/c.py", True),
        ("a/c.py", "a/**/c.py", True),
        ("a/b/c.py", "a/*.py", False),
        ("a/b/c.py", "a/", True),
        ("ab/c.py", "a/", False),
        ("a/b", "./a/?", True),
        ("a+b(c).py", "a+b(c).py", True),
        ("a\nb", "a*", True),
        ("A.py", "a.py", False),
    ],
)
def test_globs(path: str, glob: str, fits: bool) -> None:
    assert matches_path(path, glob) is fits
