"""Variables in values: whole and within texts, defaults, coercion, and what is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.config.document import Location
from muster.config.interpolation import (
    fill,
    fill_text,
    is_whole_variable,
    odd_variable,
    variables_in,
)

ENV = {"HOST": "example.com", "EMPTY": "", "N": "42", "F": "-0.5", "YES": "true", "ZERO": "007"}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("${{ HOST }}", "example.com"),
        ("${{HOST}}", "example.com"),
        ("${{ env.HOST }}", "example.com"),
        ("{{ env.HOST }}", "example.com"),
        ("{{env.HOST}}", "example.com"),
        ("https://${{ HOST }}/v{{ env.N }}", "https://example.com/v42"),
        ("${{ NONE:-local host }}", "local host"),
        ("${{ EMPTY:-x }}", "x"),
        ("${{ HOST:-x }}", "example.com"),
        ("a${{ NONE:- }}b", "ab"),
        ("{{ env.NONE:-x }}", "x"),
        ("${{ EMPTY }}", ""),
        ("{{ name }} ${HOST} $HOST {{ vars.env }}", "{{ name }} ${HOST} $HOST {{ vars.env }}"),
        ("${{ MY-HOST }}", "${{ MY-HOST }}"),
        ("no braces", "no braces"),
    ],
)
def test_texts(text: str, filled: str) -> None:
    missing: list[str] = []
    assert fill_text(text, ENV, missing.append) == filled
    assert missing == []


def test_the_missing_are_named_with_their_places() -> None:
    missing: list[tuple[str, Location]] = []
    value = {"a": ["x", {"b": "<${{ NONE }}>"}], "c": "{{ env.NADA }}"}
    filled = fill(value, ENV, lambda name, at: missing.append((name, at)))
    assert filled == {"a": ["x", {"b": "<>"}], "c": ""}
    assert missing == [("NONE", ("a", 1, "b")), ("NADA", ("c",))]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${{ N }}", 42),
        (" {{ env.F }} ".strip(), -0.5),
        ("${{ YES }}", True),
        ("${{ NO:-false }}", False),
        ("${{ ZERO }}", "007"),
        ("n=${{ N }}", "n=42"),
        ("42", "42"),
    ],
)
def test_whole_values_are_coerced_when_told(text: str, value: object) -> None:
    filled = fill([text], ENV, lambda *_: pytest.fail("missing"), coerce=True)
    assert filled == [value]
    assert type(filled[0]) is type(value)


def test_without_coercion_all_stays_text() -> None:
    assert fill("${{ N }}", ENV, lambda *_: None) == "42"


def test_what_has_no_variables_is_the_same_object() -> None:
    value = {"a": ["x", 1, None, {"b": True}]}
    assert fill(value, ENV, lambda *_: None) is value


def test_values_are_not_looked_at_again() -> None:
    env = {"A": "${{ B }}", "B": "secret"}
    assert fill_text("${{ A }}", env, lambda name: None) == "${{ B }}"


@given(st.text())
def test_any_value_passes_unchanged(value: str) -> None:
    if value:
        assert fill_text("<${{ V }}>", {"V": value}, lambda name: None) == f"<{value}>"


@given(st.text("${}env.AB:- \n"))
def test_any_text_can_be_read(text: str) -> None:
    missing: list[str] = []
    fill_text(text, {}, missing.append)
    assert set(missing) <= set(variables_in(text))


def test_what_a_text_mentions() -> None:
    assert variables_in("${{ A }} {{ env.B }} ${{ C:-x }} {{ d }}") == ["A", "B", "C"]
    assert is_whole_variable(" ${{ A:-b c }} ")
    assert not is_whole_variable("${{ A }}${{ B }}")
    assert odd_variable("${{ MY-KEY }}") == "${{ MY-KEY }}"
    assert odd_variable("x ${{ OPEN") == "${{ OPEN"
    assert odd_variable("${{ A }} {{ b }}") is None
