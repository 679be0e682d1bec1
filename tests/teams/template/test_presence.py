"""A missing last name is empty where one asks for it, and an error where one uses it."""

from __future__ import annotations

import pytest

from muster.teams.template import Template, TemplateError

from .data import DATA, render


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ if .steps.sk.data }}y{{ else }}n{{ end }}", "n"),
        ("{{ if .steps.a.data }}y{{ else }}n{{ end }}", "y"),
        ('{{ default "d" .input.y }}', "d"),
        ('{{ .input.y | default "d" }}', "d"),
        ('{{ .input.topic | default "d" }}', "T"),
        ('{{ default "d" .steps.a.data.nul }}', "d"),
        ("{{ with .input.y }}y{{ else }}n{{ end }}", "n"),
        ("{{ with .input.y }}y{{ else with .input.topic }}{{ . }}{{ end }}", "T"),
        ("{{ not .input.y }}", "true"),
        ('{{ or .input.y "z" }}', "z"),
        ("{{ if and .input.topic .input.y }}y{{ else }}n{{ end }}", "n"),
        ('{{ coalesce .input.y "c" }}', "c"),
        ("{{ empty .input.y }}", "true"),
        ("{{ ternary 1 2 .input.y }}", "2"),
        ("{{ eq .input.y nil }} {{ ne .input.topic nil }}", "true true"),
        ('{{ if index .input "y" }}y{{ else }}n{{ end }}', "n"),
        ('{{ hasKey .input "y" }}{{ get .input "y" }}', "false"),
        ("{{ $x := .input.y }}{{ if $x }}y{{ else }}n{{ end }}", "n"),
        ("{{ range default list .input.y }}y{{ else }}n{{ end }}", "n"),
    ],
)
def test_presence(source: str, expected: str) -> None:
    assert render(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "{{ .input.y }}",
        "{{ upper .input.y }}",
        '{{ .input.y | printf "%v" }}',
        '{{ eq .input.y "a" }}',
        "{{ gt .input.y 1.0 }}",
        "{{ range .input.y }}{{ end }}",
        "{{ $x := .input.y }}{{ $x }}",
        "{{ and true .input.y }}",
        "{{ or false .input.y }}",
        "{{ toJson .input.y }}",
        "{{ .input.y.z }}",
        "{{ $x := .input.y }}{{ $x.z }}",
        '{{ define "t" }}{{ . }}{{ end }}{{ template "t" .input.y }}',
        "{{ index .input.y 0 }}",
    ],
)
def test_use_names_the_path(source: str) -> None:
    with pytest.raises(TemplateError, match=r'\.input has no "y"; it has: topic'):
        render(source)


def test_index_names_its_keys() -> None:
    with pytest.raises(TemplateError) as error:
        render('{{ index .steps "none" "output" }}')
    assert 'index .steps "none" "output": .steps has no "none"' in str(error.value)
    with pytest.raises(TemplateError) as error:
        render('{{ index .steps "a" "none" }}')
    assert 'index .steps "a" has no "none"; it has: data, output' in str(error.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ index .steps.a.data.arr 2 }}", "index: the index is 2, but there are 2 items"),
        ("{{ slice .steps.a.output 1 9 }}", "slice: the bound is 9, but there are 3 characters"),
        ("{{ index .steps.a.data.nul 0 }}", "index: null has no index"),
        ("{{ index .steps.a.data.arr 0.5 }}", "the index must be a whole number, not 0.5"),
        ("{{ .steps.a.data.arr.x }}", 'is a list, so it has no "x"; items are reached by index'),
        ("{{ range .steps.a.output }}{{ end }}", ".steps.a.output is text; splitList or fromJson"),
        ('{{ eq 1 "a" }}', 'incompatible types for comparison: a number (1) and text ("a")'),
        ("{{ eq true 1 }}", "incompatible types for comparison: a boolean (true) and a number (1)"),
        ("{{ eq .steps.a.data.o .steps.a.data.o }}", "a mapping cannot be compared"),
        ("{{ lt true false }}", "a boolean has no order"),
        ("{{ upper .steps.a.data.n }}", "upper: the text must be text, not a number; write toStr"),
        ("{{ len .steps.a.data.n }}", "len: a number has no length"),
        ("{{ call .steps.a.output }}", "call: text is not a function"),
    ],
)
def test_other_mistakes(source: str, message: str) -> None:
    with pytest.raises(TemplateError) as error:
        render(source)
    assert message in str(error.value)


class Secret:
    password = "hunter2"

    def __getitem__(self, key: str) -> str:
        raise KeyError(key)


@pytest.mark.parametrize(
    "source",
    [
        "{{ .secret.password }}",
        "{{ .secret.__class__ }}",
        "{{ .secret }}",
        '{{ printf "%v" .secret }}',
        "{{ toJson .secret }}",
        "{{ list .secret }}",
        '{{ index .secret "password" }}',
        "{{ .text.__class__ }}",
        "{{ .text.upper }}",
        "{{ .items.append }}",
        "{{ .keys }}",
    ],
)
def test_python_objects_stay_closed(source: str) -> None:
    data = {"secret": Secret(), "text": "t", "items": []}
    with pytest.raises(TemplateError) as error:
        render(source, data)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ .steps.a.data.arr }}", ["a", "b"]),
        ("  {{ .steps.a.data.n }}\n", 3),
        ("{{ .steps.a.data.nul }}", None),
        ("{{ .steps.a.data.b }}", True),
        ("{{ list 1 2.5 }}", [1, 2.5]),
        ("{{ len .steps.a.output }}", 3),
        ("{{ gt .steps.a.data.n 2.0 }}", True),
        ('{{ fromJson `{"a": [1]}` }}', {"a": [1]}),
        ("n={{ .steps.a.data.n }}", "n=3"),
        ("{{ $x := 1 }}{{ $x }}", "1"),
        ("{{ if true }}yes{{ end }}", "yes"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_the_value_of_one_action(source: str, expected: object) -> None:
    value = Template.compile(source).evaluate(DATA)
    assert value == expected
    assert type(value) is type(expected)


def test_evaluate_fails_as_render_does() -> None:
    template = Template.compile("{{ .input.y }}")
    with pytest.raises(TemplateError, match=r'\.input has no "y"'):
        template.evaluate(DATA)
    assert template.evaluate(DATA, lenient=True) is None


def test_a_value_must_be_one_of_json() -> None:
    with pytest.raises(TemplateError, match=r"line 1:1: [+]Inf is no number of JSON"):
        Template.compile("{{ fromJson `[1e999]` }}").evaluate(DATA)
