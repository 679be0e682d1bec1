"""A template never hangs and never fills the memory: it is stopped, and says where."""

from __future__ import annotations

import time

import pytest

from muster.errors import ConfigError
from muster.teams.template import Template, TemplateError, runtime

from .data import render

WORK = "does more work than 30,000,000 steps"
HELD_UP = 5.0
"""Seconds, where half of one is usual: this machine may be busy."""

DOUBLED = "{{ $s := list 1 }}{{ range 100 }}{{ $s = list $s $s }}{{ end }}"
CYCLE = '{{ $d := dict }}{{ $_ := set $d "a" $d }}'
CHAIN = "".join(
    f'{{{{ define "{n}" }}}}{{{{ template "{n + 1}" }}}}{{{{ template "{n + 1}" }}}}{{{{ end }}}}'
    for n in range(30)
)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ range 10000000 }}{{ end }}", "loops more than 250,000 times"),
        ("{{ range 9999 }}{{ range 9999 }}{{ end }}{{ end }}", "loops more than 250,000 times"),
        (
            '{{ define "r" }}{{ template "r" . }}{{ end }}{{ template "r" . }}',
            "templates use each other more than 50 levels deep",
        ),
        (CHAIN + '{{ define "30" }}{{ end }}{{ template "0" }}', "loops more than 250,000"),
        (
            "{{ range 250000 }}" + "0123456789abcdef" * 3 + "{{ end }}",
            "the output is longer than 10,000,000 characters",
        ),
        (
            '{{ $s := "a" }}{{ range 99 }}{{ $s = print $s $s }}{{ end }}',
            "the text would be longer than 10,000,000 characters",
        ),
        (
            "{{ $s := list 1 }}{{ range 99 }}{{ $s = concat $s $s }}{{ end }}",
            "the list would be longer than 1,000,000 items",
        ),
        (
            '{{ $s := "" }}{{ range 100000 }}{{ $s = print $s "a" }}{{ end }}',
            WORK,
        ),
        (DOUBLED + "{{ $s }}", WORK),
        (DOUBLED + "{{ toJson $s }}", WORK),
        (CYCLE + "{{ $d }}", "nests more than 200 levels deep"),
        (CYCLE + "{{ toJson $d }}", "nests more than 200 levels deep"),
        (CYCLE + "{{ merge $d $d }}", "nest more than 100 levels deep"),
        ('{{ repeat 1000000000 "abc" }}', "repeat: the text would be longer"),
        ('{{ indent 1000000000 "x" }}', "indent: the text would be longer"),
        ('{{ replace "a" .big .big }}', "replace: the text would be longer"),
        ("{{ join .big (list 1 2 3 4 5 6 7 8 9 10 11 12) }}", "join: the text would be longer"),
        ('{{ splitList "" (print .big .big) }}', "splitList: the list would be longer"),
        ('{{ printf "%1000000000d" 3 }}', "printf: a width or precision above 10,000"),
        ('{{ printf "%.*f" 999999 3.0 }}', "printf: a width or precision above 10,000"),
        ('{{ printf "%999d" (list 1 2) }}', "printf: a width or precision above 100"),
        ("{{ mul 9223372036854775807 2 }}", "mul: the result does not fit into 64 bits"),
        ("{{ .deep }}", "nests more than 200 levels deep"),
    ],
)
def test_stopped(source: str, message: str) -> None:
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    data = {"big": "a" * 1_000_000, "deep": deep}
    started = time.monotonic()
    with pytest.raises(TemplateError, match=message):
        render(source, data)
    assert time.monotonic() - started < HELD_UP


LOOP = "{{ range 1000000 }}%s{{ end }}"


@pytest.mark.parametrize(
    "body",
    [
        "{{ $x := sortAlpha $.texts }}",
        "{{ $x := uniq $.texts }}",
        "{{ $x := has $.nested $.nested }}",
        "{{ $x := toJson $.nested }}",
        "{{ $x := title $.text }}",
        "{{ $x := html $.text }}",
        "{{ $x := js $.text }}",
        "{{ $x := fromJson $.json }}",
        "{{ $x := merge (dict) $.mapping }}",
        "{{ range $.mapping }}{{ break }}{{ end }}",
        "{{ if 0 }}" + "{{ else if eq 1 2 3 4 5 }}" * 1000 + "{{ end }}",
        "{{ $x := print " + "1 " * 1000 + "}}",
        '{{ $x := print 1 2 3 | printf "%v" | upper | lower | quote }}' * 15,
    ],
)
def test_work_is_counted(body: str) -> None:
    """The same template is stopped at the same place whatever the machine is doing."""
    data = {
        "texts": [f"item{number * 7919 % 1000}" for number in range(999)],
        "nested": [[number] * 900 for number in range(100)],
        "text": "<a " * 333,
        "json": "[" + ",".join(["[]"] * 2000) + "]",
        "mapping": {f"key{number}": number for number in range(999)},
    }
    started = time.monotonic()
    with pytest.raises(TemplateError, match=WORK) as first:
        render(LOOP % body, data)
    assert time.monotonic() - started < HELD_UP
    with pytest.raises(TemplateError) as second:
        render(LOOP % body, data)
    assert str(second.value) == str(first.value)


def test_much_that_is_wanted_is_allowed() -> None:
    data = {"rows": [{"name": f"n{n}", "tags": ["a", "b"], "score": n} for n in range(5000)]}
    source = (
        "{{ range .rows }}{{ if gt .score 10.0 }}- {{ .name | upper }}: {{ join `, ` .tags }} "
        "{{ toJson . }}\n{{ end }}{{ end }}"
    )
    assert render(source, data).count("- N") == 4989
    assert len(render("{{ toJson .rows }}{{ .rows }}", data)) > 200_000
    assert len(render("{{ .text | trim | upper }}", {"text": "a" * 5_000_000})) == 5_000_000


def test_a_slow_pattern_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_PATTERN_SECONDS", 0.2)
    source = '{{ regexMatch "(a|aa)+$" (print (repeat 50 "a") "b") }}'
    with pytest.raises(TemplateError, match="regexMatch: the pattern takes too long"):
        render(source)


def test_patterns_that_are_slow_to_prepare_are_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_PATTERN_SECONDS", 0.01)
    source = '{{ range $i, $_ := .x }}{{ $y := regexMatch (printf "a%d(b|c)*" $i) "b" }}{{ end }}'
    with pytest.raises(TemplateError, match="take"):
        render(source, {"x": list(range(10_000))})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ " + "(" * 300 + "1" + ")" * 300 + " }}", "nested more than 40 levels deep"),
        ("{{ if 1 }}" * 300 + "{{ end }}" * 300, "nested more than 40 levels deep"),
        ("{{ 1" + " | print" * 300 + " }}", "a pipeline of more than 40 stages"),
    ],
)
def test_too_deep_to_compile(source: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Template.compile(source)


def test_long_sources_take_time_in_proportion() -> None:
    long = "{{ if .a }}x{{ else if .b }}y{{ end }}{{/* c */}}{{- printf `%d` 1 -}} " * 5000
    started = time.monotonic()
    assert render(long, {"a": 0, "b": 1}) == "y1" * 5000
    many = "{{ if 0 }}" + "{{ else if 0 }}" * 5000 + "{{ else }}z{{ end }}"
    assert render(many) == "z"
    assert time.monotonic() - started < 15


def test_large_values_may_be_looked_into_often() -> None:
    data = {"many": list(range(100_000))}
    source = "{{ range $i, $x := .many }}{{ if ne (index $.many $i) $x }}!{{ end }}{{ end }}done"
    assert render(source, data) == "done"
