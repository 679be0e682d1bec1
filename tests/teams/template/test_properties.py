"""What holds for all templates, and the paths that a template names."""

from __future__ import annotations

import contextlib
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.errors import ConfigError
from muster.teams.template import Template, TemplateError

from .data import DATA, render

_WORDS = """
    {{ }} {{- -}} .a .steps .input.topic $x $ := = | ( ) , "s" `r` 'c' 1 -2.5 0x1F nil true if else
    end range with define template block break print index eq and x /* */ len printf "%d" list dict
    text é \\ " . - {
"""
_PIECES = st.sampled_from([*_WORDS.split(), " ", "\n"])


@given(st.text().filter(lambda text: "{{" not in text))
def test_text_renders_to_itself(text: str) -> None:
    assert render(text) == text


@settings(max_examples=300)
@given(st.one_of(st.text(), st.lists(_PIECES, max_size=25).map("".join)))
def test_any_source_compiles_or_is_a_config_error(source: str) -> None:
    try:
        template = Template.compile(source)
    except ConfigError:
        return
    assert isinstance(template.references, frozenset)
    for lenient in (False, True):
        with contextlib.suppress(TemplateError):
            assert isinstance(template.render(DATA, lenient=lenient), str)


@given(
    st.integers(-(2**62), 2**62),
    st.sampled_from(["d", "5d", "-8d|", "08d", "+d", " d", "x", "X", "#x", "o", "c"]),
)
def test_printf_of_integers_is_pythons(number: int, verb: str) -> None:
    if verb == "c":
        number = number % 0xD800
    assert render(f'{{{{ printf "%{verb}" (int .n) }}}}', {"n": number}) == f"%{verb}" % number


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["f", ".2f", "9.3f", "-12.1f|", "012.4f", "+.1f", "e", ".3e", "E", ".4g"]),
)
def test_printf_of_floats_is_pythons(number: float, verb: str) -> None:
    assert render(f'{{{{ printf "%{verb}" .n }}}}', {"n": number}) == f"%{verb}" % number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_shown_float_reads_back_the_same(number: float) -> None:
    shown = render("{{ .n }}", {"n": number})
    assert float(shown) == number
    assert math.copysign(1, float(shown)) == math.copysign(1, number)
    assert ("e" in shown) == (number != 0 and not 1e-4 <= abs(number) < 999999.9999999999)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(_JSON)
def test_json_there_and_back(value: object) -> None:
    template = Template.compile("{{ fromJson (toJson .v) }}")
    assert template.evaluate({"v": value}) == value


@given(st.text(), st.text())
def test_quoted_text_is_a_literal_of_the_language(first: str, second: str) -> None:
    literal = render('{{ printf "%q" .t }}', {"t": first + second})
    assert render(f"{{{{ {literal} }}}}") == first + second


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("no action", set()),
        ("{{ .steps.a.output }}{{ .input.x | upper }}", {"steps.a.output", "input.x"}),
        ('{{ index .steps "a-b" "output" }}', {"steps.a-b.output"}),
        ('{{ (index .steps "a-b").data.x }}', {"steps.a-b.data.x"}),
        ('{{ index .steps "a" .input.i "x" }}', {"steps.a", "input.i"}),
        ("{{ index .steps $.input.n }}", {"steps", "input.n"}),
        (
            "{{ with .steps.a }}{{ .output }}{{ $.input.x }}{{ else }}{{ .input.y }}{{ end }}",
            {"steps.a", "steps.a.output", "input.x", "input.y"},
        ),
        (
            "{{ range $i, $f := .steps.a.data.l }}{{ .x }}{{ $f.y }}{{ $.input.y }}{{ end }}",
            {"steps.a.data.l", "input.y"},
        ),
        ("{{ $x := .steps.a }}{{ $x.output }}", {"steps.a", "steps.a.output"}),
        (
            '{{ define "q" }}{{ .output }}{{ $.data }}{{ end }}{{ template "q" .steps.b }}',
            {"steps.b", "steps.b.output", "steps.b.data"},
        ),
        ('{{ block "q" . }}{{ .input.x }}{{ end }}', {"input.x"}),
        ('{{ define "r" }}{{ .a }}{{ template "r" . }}{{ end }}{{ template "r" . }}', {"a"}),
        (
            "{{ if and .steps.a.output (gt (len .steps.b.output) 3) }}{{ end }}",
            {"steps.a.output", "steps.b.output"},
        ),
    ],
)
def test_references(source: str, expected: set[str]) -> None:
    found = Template.compile(source).references
    assert {".".join(path) for path in found} == expected
