"""What ark's own templates give, and what Go's do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from muster.errors import ConfigError
from muster.teams.template import Template, TemplateError

from .data import DATA, render

GO = Path(__file__).parent / "go"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ .pipeline.input.topic }}", "T"),
        ("{{ .input.topic }}", "T"),
        ('{{ index .steps "my-step" "output" }}', "dashed"),
        ("{{ .steps.a.data.n }}", "3"),
        ("{{ .steps.a.data.f }}", "0.5"),
        ("{{ .steps.a.data.b }}", "true"),
        ("{{ .steps.a.data.big }}", "1.2345678901e+10"),
        ("{{ .steps.a.data.arr }}", "[a b]"),
        ("{{ .steps.a.data.o }}", "map[k:1]"),
        ("{{ gt .steps.a.data.n 2.0 }}", "true"),
        ("{{ gt (len .steps.a.output) 0 }}", "true"),
        ('{{ eq .steps.a.data.s "x" }}', "true"),
        ("{{ eq .steps.a.data.nul nil }}", "true"),
        ("{{ index .steps.a.data.arr 0 }}", "a"),
        ("{{ range $i,$x := .steps.a.data.arr }}{{ $i }}{{ $x }};{{ end }}", "0a;1b;"),
        ("{{ slice .steps.a.output 0 2 }}", "OU"),
        ('{{ html "<b>" }}', "&lt;b&gt;"),
        ("{{ if .steps.sk.data }}y{{else}}n{{end}}", "n"),
    ],
)
@pytest.mark.parametrize("lenient", [False, True])
def test_arks_vectors(source: str, expected: str, lenient: bool) -> None:
    assert render(source, lenient=lenient) == expected


@pytest.mark.parametrize(
    ("source", "leniently", "strictly"),
    [
        (
            "{{ .pipeline.input.nope }}",
            "",
            '.pipeline.input.nope: .pipeline.input has no "nope"; it has: topic',
        ),
        (
            "{{ .nope }}",
            "<no value>",
            '.nope: the data has no "nope"; it has: input, pipeline, steps',
        ),
        (
            "{{ .steps.sk.data }}",
            "<no value>",
            '.steps.sk.data: .steps.sk has no "data"; it has: output',
        ),
        (
            "{{ .steps.a.outputt }}",
            "<no value>",
            '.steps.a.outputt: .steps.a has no "outputt"; did you mean "output"?',
        ),
        (
            "{{ .steps.a.data.nul }}",
            "<no value>",
            '.steps.a.data.nul is null; default "…" .steps.a.data.nul gives it a text',
        ),
    ],
)
def test_what_is_not_there_is_an_error_unless_lenient(
    source: str, leniently: str, strictly: str
) -> None:
    assert render(source, lenient=True) == leniently
    with pytest.raises(TemplateError) as error:
        render(source)
    assert str(error.value) == f"line 1:4: {strictly}"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ .steps.none.output }}", '.steps has no "none"; it has: a, my-step, sk'),
        ("{{ .steps.sk.data.x }}", '.steps.sk has no "data"; it has: output'),
        ("{{ .steps.a.data.nul.x }}", '.steps.a.data.nul is null, so it has no "x"'),
        ("{{ .steps.a.data.missing.deep }}", '.steps.a.data has no "missing"'),
        ("{{ .steps.a.output.x }}", '.steps.a.output is text, so it has no "x"'),
    ],
)
@pytest.mark.parametrize("lenient", [False, True])
def test_deeper_paths_are_errors_either_way(source: str, message: str, lenient: bool) -> None:
    with pytest.raises(TemplateError) as error:
        render(source, lenient=lenient)
    assert message in str(error.value)


def test_a_name_with_a_dash_is_told_the_way_out() -> None:
    with pytest.raises(ConfigError) as error:
        Template.compile("{{ .steps.my-step.output }}")
    assert str(error.value) == (
        "line 1:13: bad character U+002D '-'; a name with a dash is reached by index: "
        'index .steps "my-step" "output"'
    )


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("source", ["{{ gt .steps.a.data.n 2 }}", "{{ eq 2 .steps.a.data.n }}"])
def test_a_number_of_json_and_an_int(source: str, lenient: bool) -> None:
    with pytest.raises(TemplateError, match=r"incompatible types.*; .* write 2\.0, or int before"):
        render(source, lenient=lenient)
    assert render("{{ gt (int .steps.a.data.n) 2 }} {{ eq 3.0 .steps.a.data.n }}") == "true true"


_RECORDED = json.loads((GO / "vectors.json").read_text(encoding="utf-8"))


def _ours(source: str) -> str | None:
    try:
        return Template.compile(source).render(_RECORDED["data"], lenient=True)
    except (ConfigError, TemplateError):
        return None


def test_gos_vectors() -> None:
    """What text/template gives for these templates, null where it fails."""
    wrong = {
        source: {"go": expected, "here": found}
        for source, expected in _RECORDED["vectors"].items()
        if (found := _ours(source)) != expected
    }
    assert wrong == {}
    assert len(_RECORDED["vectors"]) > 1000


@pytest.mark.skipif(shutil.which("go") is None, reason="there is no Go toolchain here")
def test_gos_vectors_are_what_go_gives(tmp_path: Path) -> None:
    lines = [
        json.dumps({"template": source, "data": _RECORDED["data"]}) + "\n"
        for source in _RECORDED["vectors"]
    ]
    environment = {
        **os.environ,
        "GO111MODULE": "off",
        "GOCACHE": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
    }
    ran = subprocess.run(
        ["go", "run", str(GO / "main.go")],
        input="".join(lines),
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=True,
    )
    found = [json.loads(line).get("output") for line in ran.stdout.splitlines()]
    assert found == list(_RECORDED["vectors"].values())


def test_the_data_stay_as_they_are() -> None:
    before = json.dumps(DATA)
    render('{{ $x := .input }}{{ range .steps.a.data.arr }}{{ end }}{{ merge $x (dict "a" 1) }}')
    assert json.dumps(DATA) == before
