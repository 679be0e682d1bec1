"""Templates that are none: what is said, and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.config.document import Document, Place, parse_yaml
from muster.errors import ConfigError
from muster.teams.template import Template, TemplateError


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('{{ uper "x" }}', '1:4: function "uper" not defined; did you mean "upper"?'),
        (
            "a\nb {{ input.topic }}",
            '2:6: function "input" not defined; data begins with a dot: .inp',
        ),
        (
            "{{ steps.a | upper }}",
            '1:4: function "steps" not defined; data begins with a dot: .steps.a',
        ),
        ("{{ if .a }}x", "1:4: {{ if }} is never closed with end"),
        ("{{ end }}", "1:4: unexpected {{ end }}: no block is open"),
        ("{{ if 1 }}{{ else }}{{ else }}{{ end }}", "1:24: a second else"),
        ("{{ if }}{{ end }}", "1:7: missing value for if"),
        ("{{ }}", "1:4: missing value for command"),
        ("{{ .a", "1:1: this action is never closed with }}"),
        ("{{ .a {{ .b }}", "1:1: unexpected '{'; the action before it is not closed with }}"),
        ('{{ "a }}', '1:4: text in "…" is not closed on its line'),
        ("{{ `a }}", "1:4: text in `…` is never closed"),
        ("{{/* a }}", "1:1: this comment is never closed with */}}"),
        ("{{ 'ab' }}", "1:4: 'ab' is not one character; text is written in \"…\""),
        ('{{ "\\q" }}', "1:4: \\q is not an escape that Go knows"),
        ("{{ 1x }}", "1:4: 1x is not a number"),
        ("{{ 99999999999999999999 }}", "1:4: 99999999999999999999 does not fit into 64 bits"),
        ("{{ 1 + 2 }}", "1:6: unexpected U+002B '+' in an action"),
        ("{{ $x }}", "1:4: undefined variable $x"),
        ("{{ $topic := 1 }}{{ $topc }}", "1:21: undefined variable $topc; did you mean $topic?"),
        ("{{ .a 1 }}", "1:4: .a is not a function, so it takes no arguments"),
        ("{{ 1 | .a }}", "1:8: a value cannot be piped into what is not a function"),
        ("{{ nil }}", "1:4: nil is not a command"),
        ("{{ (1 }}", "1:4: this parenthesis is never closed"),
        ('{{ print"x" }}', "1:9: bad character U+0022 '\"'"),
        ("{{ print(1) }}", "1:9: a space is missing before ("),
        ("{{ upper }}", "1:4: upper takes 1 argument; it is given 0"),
        ("{{ 1 | replace 2 }}", "1:8: replace takes 3 arguments; it is given 2"),
        ("{{ slice 1 2 3 4 5 }}", "1:4: slice takes 1 to 4 arguments; it is given 5"),
        ("{{ break }}", "1:4: {{break}} outside {{range}}"),
        ('{{ template "a" }}', "1:4: template 'a' is not defined"),
        (
            '{{ define "header" }}{{ end }}{{ template "heder" }}',
            "1:34: template 'heder' is not defined; did you mean 'header'?",
        ),
        ("{{ template a }}", '1:13: template takes a name in quotes: "name"'),
        ('{{ if 1 }}{{ define "a" }}{{ end }}{{ end }}', "1:14: define stands only at the top"),
        (
            '{{ define "a" }}1{{ end }}{{ define "a" }}2{{ end }}',
            "1:30: template 'a' is defined twice",
        ),
        ("{{ first.x }}", "1:4: fields of a function's result need parentheses: (first …).x"),
        ("{{ ($x := 1) }}", "1:5: undefined variable $x"),
        ("{{ $a-b }}", "1:6: bad character U+002D '-'"),
    ],
)
def test_parse_error(source: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Template.compile(source)
    assert str(error.value).startswith(f"line {message}")


FILE = """\
steps:
  literal: |
    Hello

      {{ .steps.none.output }}
  indented: |2-
      {{ uper }}
  folded: >-
    Hello
    there {{ .input.zz }}
  plain: Hello
    there {{ .input.zz }}
  single: 'it''s
    {{ .input.zz }}'
  double: "a\\n\\"b\\" {{ printf \\"%d\\" .input.zz }}"
  anchored: &x !!str "xx {{ .input.zz }}"
  flow: {k: [1, "{{ .input.zz }}"]}
  alias: *x
"""


@pytest.mark.parametrize(
    ("location", "line", "text"),
    [
        (("literal",), 5, ".steps.none.output }}"),
        (("indented",), 7, "uper }}"),
        (("folded",), 10, ".input.zz }}"),
        (("plain",), 12, ".input.zz }}"),
        (("single",), 14, ".input.zz }}'"),
        (("double",), 15, '.input.zz }}"'),
        (("anchored",), 16, '.input.zz }}"'),
        (("flow", "k", 1), 17, '.input.zz }}"]}'),
        (("alias",), 16, '.input.zz }}"'),
    ],
)
def test_the_place_in_the_file(
    tmp_path: Path, location: tuple[str | int, ...], line: int, text: str
) -> None:
    path = tmp_path / "team.yaml"
    path.write_text(FILE, encoding="utf-8")
    document = parse_yaml(FILE, path)
    problem = _problem(document, ("steps", *location))
    found = str(problem).split(": ")[0].split(":")
    assert found[:2] == [str(path), str(line)]
    assert FILE.split("\n")[line - 1][int(found[2]) - 1 :] == text


def test_a_document_in_the_middle_of_a_file(tmp_path: Path) -> None:
    second = "b: |\n  x\n  {{ .input.zz }}\n"
    path = tmp_path / "team.yaml"
    path.write_text("a: 1\n---\n" + second, encoding="utf-8")
    problem = _problem(parse_yaml(second, path, line_offset=2), ("b",))
    assert str(problem).startswith(f"{path}:5:6: b: .input.zz: .input has no")


@pytest.mark.parametrize("contents", ["steps: other\n", None])
def test_the_scalars_place_when_the_file_does_not_say(tmp_path: Path, contents: str | None) -> None:
    path = tmp_path / "team.yaml"
    if contents is not None:
        path.write_text(contents, encoding="utf-8")
    problem = _problem(parse_yaml(FILE, path), ("steps", "literal"))
    assert str(problem) == (
        f"{path}:2:12: steps.literal: line 3, column 6 of the template: "
        '.steps.none.output: .steps has no "none"; it is empty'
    )


def _problem(document: Document, location: tuple[str | int, ...]) -> ConfigError | TemplateError:
    source = document.data
    for step in location:
        source = source[step]
    with pytest.raises((ConfigError, TemplateError)) as error:
        Template.compile(source, place=Place(document, location)).render({"input": {}, "steps": {}})
    return error.value
