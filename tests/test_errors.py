from __future__ import annotations

from pathlib import Path

import pytest

from muster.errors import ConfigError, MusterError, Problem, UsageError, field_path, nearest


@pytest.mark.parametrize(
    ("location", "text"),
    [
        ((), ""),
        (("name",), "name"),
        (("tests", 3, "assertions", 0), "tests[3].assertions[0]"),
        ((0, "a"), "[0].a"),
    ],
)
def test_field_path(location, text):
    assert field_path(location) == text


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("is wrong"), "is wrong"),
        (Problem("is wrong", Path("a.yaml")), "a.yaml: is wrong"),
        (Problem("is wrong", Path("a.yaml"), 3), "a.yaml:3: is wrong"),
        (Problem("is wrong", Path("a.yaml"), 3, 7, "x[0]"), "a.yaml:3:7: x[0]: is wrong"),
        (Problem("is wrong", line=3, column=7), "line 3:7: is wrong"),
        (Problem("is wrong", field="x"), "x: is wrong"),
    ],
)
def test_a_problem_as_it_is_told(problem, text):
    assert str(problem) == text


def test_a_config_error_tells_all_problems():
    error = ConfigError([Problem("one", line=1), Problem("two", line=2)])
    assert str(error) == "line 1: one\nline 2: two"
    assert [problem.line for problem in error.problems] == [1, 2]
    assert ConfigError(Problem("only")).problems == (Problem("only"),)


@pytest.mark.parametrize("error", [UsageError("x"), ConfigError(Problem("x")), MusterError("x")])
def test_a_users_mistake_ends_with_exit_code_2(error):
    assert isinstance(error, MusterError)
    assert error.exit_code == 2


def test_nearest():
    known = ["contains", "contains-any", "icontains", "regex"]
    assert nearest("contain", known) == ["contains"]
    assert nearest("Contains_Any", known) == ["contains-any"]
    assert nearest("contains", known, count=2) == ["contains", "icontains"]
    assert nearest("zebra", known) == []
    assert nearest("x", []) == []
