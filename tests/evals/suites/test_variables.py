"""`{{ name }}` in texts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.evals.suites.variables import fill_vars, has_braces, is_plain_template

VARIABLES: dict[str, Any] = {
    "a": "x",
    "n": 3,
    "f": 0.5,
    "t": True,
    "none": None,
    "d": {"k": [1, {"z": "deep"}]},
    "with-dash": "dash",
    "dotted.name": "whole",
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{a}} and {{ a }}", "x and x"),
        ("{{ n }}", 3),
        ("  {{ n }} ", 3),
        ("{{ n }}{{ f }}{{ t }}{{ none }}", "30.5true"),
        ("{{ d }}", {"k": [1, {"z": "deep"}]}),
        ("v: {{ d.k.1.z }} {{ d.k }}", 'v: deep [1, {"z": "deep"}]'),
        ("{{ vars.a }}", "x"),
        ("{{ with-dash }}", "dash"),
        ("{{ dotted.name }}", "whole"),
        ("{{ none }}", None),
        ("${{ a }}", "${{ a }}"),
        ("{{ a | upper }}", "{{ a | upper }}"),
        ("{ a } {{}}", "{ a } {{}}"),
    ],
)
def test_filling(text: str, expected: object) -> None:
    told: list[str] = []
    assert fill_vars(text, VARIABLES, told.append) == expected
    assert told == []


@pytest.mark.parametrize("name", ["b", "d.x", "d.k.9", "d.k.x", "a.b", "vars.b", "env.HOME"])
def test_unknown_names_stay(name: str) -> None:
    told: list[str] = []
    for text in (f"{{{{ {name} }}}}", f"in {{{{ {name} }}}} text"):
        assert fill_vars(text, VARIABLES, told.append) == text
    assert told == [name, name]


def test_depth() -> None:
    value = {"{{ a }}": ["{{ a }}", {"x": "{{ n }}"}, 1, None]}
    assert has_braces(value["{{ a }}"])
    assert fill_vars(value, VARIABLES, lambda name: None) == {"{{ a }}": ["x", {"x": 3}, 1, None]}


@pytest.mark.parametrize(
    ("text", "plain"),
    [("{{ a }} {b} ", True), ("{{ a | f }}", False), ("{% if a %}", False), ("{# c #}", False)],
)
def test_plain_templates(text: str, plain: bool) -> None:
    assert is_plain_template(text) is plain


@given(st.text().filter(lambda text: "{{" not in text))
def test_other_text_is_left_alone(text: str) -> None:
    told: list[str] = []
    assert fill_vars(text, VARIABLES, told.append) == text


@given(st.text(), st.text())
def test_values_are_taken_as_they_are(before: str, value: str) -> None:
    before = before.replace("{", "").replace("}", "").replace("$", "")
    filled = fill_vars(f"{before}.{{{{ a }}}}", {"a": value}, lambda name: None)
    assert filled == f"{before}.{value}"
