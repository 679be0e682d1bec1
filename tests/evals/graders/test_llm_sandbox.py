"""Templates of prompts: what they may do, and what would run on or get out."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.evals.graders.llm_sandbox import (
    MAX_LENGTH,
    PromptError,
    compile_prompt,
    mark_for,
    marked,
)

UNTRUSTED = frozenset(("output", "tool_calls"))


def filled(source: str, **values: object) -> str:
    return compile_prompt(source, UNTRUSTED).render(values, "7")


def test_loops_conditions_and_filters() -> None:
    source = (
        "{% for x in xs %}{% if x > 1 %}{{ x }}{{ ',' if not loop.last }}{% endif %}{% endfor %}"
    )
    assert filled(source, xs=[1, 2, 3]) == "2,3"
    assert filled("{{ a | upper }} {{ b | tojson }} {{ c ~ 1 }}", a="x", b={"k": "é"}, c="z") == (
        'X {"k": "é"} z1'
    )


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("{{ output }}", "{}"),
        ("{{ output | upper }}", "{}"),
        ("{{ 'a' ~ output }}", "a{}"),
        ("{% set x = output %}{{ x }}", "{}"),
        ("{% for c in output %}{{ c }}{% endfor %}", None),
        ("{% for call in tool_calls %}{{ call.tool }}{% endfor %}", None),
        ("{% with y = output[:1] %}{{ y }}{% endwith %}", None),
    ],
)
def test_whatever_uses_the_answer_is_marked(source: str, shown: str | None) -> None:
    found = filled(source, output="EVIL", tool_calls=[{"tool": "EVIL"}])
    inside = re.sub(r"<data-7>\n.*?\n</data-7>", "", found, flags=re.DOTALL)
    assert inside == ""
    if shown is not None:
        assert found == marked(shown.format("EVIL"), "7")


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
        "{% for a in output %}{% for b in output %}{% endfor %}{% endfor %}",
        "{% for a in output %}{% set y = output | sort %}{% endfor %}",
        "{{ 'x' * 10 ** 9 }}",
        "{{ output * 10 }}",
        "{{ 9 ** 999999 }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ 'a'.center(999999999) }}",
        "{% set x = output %}" + "{% set x = x ~ x %}" * 40 + "{{ x }}",
        "{% set x = output %}" + "{% set x = x + x %}" * 40 + "{{ x }}",
        "{{ output | replace('x', output) }}",
        "{{ output | join(output) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% include 'x' %}",
        "{% set x %}a{% endset %}",
        "{{ ''.__class__.__mro__ }}",
        "{{ output.__init__.__globals__ }}",
        "{{ cycler }}",
        "{{ missing }}",
        "{{ output.nothing }}",
        "{{ 1 / 0 }}",
        "{% if",
        "{{ " + "(" * 5000 + ")" * 5000 + " }}",
    ],
)
def test_what_is_refused_is_refused_soon(source: str) -> None:
    began = time.perf_counter()
    with pytest.raises(PromptError):
        filled(source, output="x" * 20_000)
    assert time.perf_counter() - began < 5


def test_a_prompt_has_a_bound() -> None:
    with pytest.raises(PromptError, match="more than 2,000,000 characters"):
        filled("{{ a }}{{ a }}", a="x" * (MAX_LENGTH - 10))


@given(st.lists(st.text(alphabet="0123456789<>/data-\n", max_size=60), max_size=5))
def test_a_mark_is_in_none_of_the_texts(texts: list[str]) -> None:
    mark = mark_for(texts)
    assert re.fullmatch(r"\d{20}", mark)
    assert all(mark not in text for text in texts)
    assert mark == mark_for(texts)


def test_a_text_that_knows_its_mark_gets_another() -> None:
    first = mark_for(["a"])
    assert mark_for([f"a{first}"]) not in f"a{first}"


def test_a_long_diff_is_shortened_and_says_so() -> None:
    from muster.evals.graders.llm_prompt import _shortened

    assert _shortened(None) is None
    assert _shortened("+ a\n") == "+ a\n"
    told = _shortened("x" * 41_234)
    assert told == "x" * 40_000 + "\n[1,234 more characters are left out]"
