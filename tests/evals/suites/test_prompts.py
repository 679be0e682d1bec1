"""Prompt templates: their forms, and what they render to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from muster.config.document import Document, Place
from muster.errors import ConfigError
from muster.evals.suites.messages import FileFinder
from muster.evals.suites.prompts import Prompt, read_prompts, select_prompts


def read(folder: Path, value: Any) -> tuple[Prompt, ...]:
    place = Place(Document({"prompts": value}, folder / "suite.yaml"), ("prompts",))
    return read_prompts(value, place, FileFinder(folder, folder))


def render(folder: Path, value: Any, **variables: Any) -> Any:
    (prompt,) = read(folder, value)
    return prompt.render(variables, lambda name: None)


def fails(folder: Path, value: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("Say {{ word }}.", "Say hi."),
        ("{{ vars.word }}", "hi"),
        ("{{ n }}", "3"),
        ("{{ none }}|{{ yes }}|{{ items }}", '|true|["a", "b"]'),
        ("{{ word | upper }}", "HI"),
        ("{% for item in items %}- {{ item }}\n{% endfor %}", "- a\n- b\n"),
        ("{% if yes %}on{% else %}off{% endif %} {{ vars.items | length }}", "on 2"),
        ("{{ items | dump }}", '["a", "b"]'),
        ("{{ '<' }}{{ word }}", "<hi"),
        ("${{ secrets.X }}", "${{ secrets.X }}"),
        ("${{ secrets.X }}{{ word | upper }}", "${{ secrets.X }}HI"),
        ("line\n", "line\n"),
        ("{% if gone.deep %}yes{% else %}no{% endif %}", "no"),
    ],
)
def test_rendering(tmp_path: Path, template: str, expected: str) -> None:
    variables = {"word": "hi", "n": 3, "none": None, "yes": True, "items": ["a", "b"]}
    assert render(tmp_path, template, **variables) == expected


def test_unknown_variables_are_told_of_and_stay(tmp_path: Path) -> None:
    (plain,) = read(tmp_path, "{{ gone }}!")
    (jinja,) = read(tmp_path, "{{ gone }}{% if other %}x{% endif %}!")
    told: list[str] = []
    assert plain.render({}, told.append) == "{{ gone }}!"
    assert jinja.render({}, told.append) == "{{ gone }}!"
    assert told == ["gone", "gone"]


def test_forms_and_labels(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.md").write_text("A {{ x }}\n\n---\n\nstill A\n")
    (tmp_path / "p" / "b.txt").write_text("one\n---\ntwo\n")
    (tmp_path / "c.json").write_text('[{"role": "user", "content": "C {{ x }}"}]')
    (tmp_path / "d.yaml").write_text("- {role: user, content: D}\n")
    found = read(
        tmp_path,
        [
            "inline {{ x }}",
            "file://p/a.md",
            "p/b.txt",
            {"path": "c.json", "label": "chat"},
            {"id": "file://d.yaml"},
            {"id": "own", "raw": "R", "prefix": "<", "suffix": ">"},
            [{"role": "system", "content": "S"}, {"role": "user", "content": "{{ x }}"}],
        ],
    )
    rendered = {prompt.label: prompt.render({"x": 1}, lambda name: None) for prompt in found}
    assert rendered == {
        "prompt-1": "inline 1",
        "p/a.md": "A 1\n\n---\n\nstill A",
        "p/b.txt#1": "one",
        "p/b.txt#2": "two",
        "chat": [{"role": "user", "content": "C 1"}],
        "d.yaml": [{"role": "user", "content": "D"}],
        "own": "<R>",
        "prompt-7": [{"role": "system", "content": "S"}, {"role": "user", "content": "1"}],
    }


def test_a_single_chat_and_globs(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "S"}, {"role": "user", "content": "{{ x }}"}]
    assert render(tmp_path, chat, x="q")[1] == {"role": "user", "content": "q"}
    for name in ("b.md", "a.md"):
        (tmp_path / name).write_text(name)
    assert [prompt.label for prompt in read(tmp_path, "file://*.md")] == ["a.md", "b.md"]


def test_text_that_is_a_chat_in_json(tmp_path: Path) -> None:
    template = '[{"role": "user", "content": {{ x | dump }}}]'
    assert render(tmp_path, template, x='say "hi"') == [{"role": "user", "content": 'say "hi"'}]


def test_selecting(tmp_path: Path) -> None:
    place = Place(Document({}))
    prompts = read(tmp_path, [{"label": name, "raw": name} for name in ("a:1", "a:2", "b")])
    assert [p.label for p in select_prompts(prompts, ["a:*"], place)] == ["a:1", "a:2"]
    assert [p.label for p in select_prompts(prompts, ["b", "a:1"], place)] == ["a:1", "b"]
    with pytest.raises(ConfigError, match='no prompt is called "c"'):
        select_prompts(prompts, ["c"], place)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "prompts: is empty"),
        ([3], "expected a template"),
        ([{"label": "x"}], "needs `raw`"),
        ([{"raw": "x", "lable": "y"}], 'unknown field "lable" (did you mean "label"?)'),
        ([{"raw": "x", "function": "f"}], '"function" of a prompt is not supported'),
        ("file://gone.md", 'no such file "gone.md"'),
        ("file://*.gone", "no file matches"),
        ("{% if %}", "not a valid template"),
        ([{"raw": "a", "label": "x"}, {"raw": "b", "label": "x"}], 'two prompts are called "x"'),
        ("file://code.py", 'cannot read a prompt from "code.py"'),
    ],
)
def test_mistakes(tmp_path: Path, value: Any, message: str) -> None:
    (tmp_path / "code.py").write_text("")
    assert message in fails(tmp_path, value)


def test_a_template_in_a_file_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "p.md").write_text("one\n{% if %}\n")
    assert fails(tmp_path, "file://p.md").startswith(f"{tmp_path}/p.md:2: not a valid template")


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}{% if 1 %}{% endif %}",
        "{% for x in range(999999999) %}{% endfor %}",
        "{{ 1 / 0 }}",
        "{{ items.append(1) }}{% if 1 %}{% endif %}",
    ],
)
def test_templates_are_kept_in_their_sandbox(tmp_path: Path, template: str) -> None:
    (prompt,) = read(tmp_path, template)
    with pytest.raises(ConfigError, match="the template fails"):
        prompt.render({"items": [1]}, lambda name: None)


def test_jinja_is_loaded_only_when_a_template_needs_it() -> None:
    code = """
import sys
from pathlib import Path
from muster.evals.suites.load import suite_from_cases
settings = {"prompts": "Say {{ x }}", "assertions": [{"type": "contains", "value": "x"}]}
list(suite_from_cases("s", [{"vars": {"x": 1}}], settings=settings).cases())
print([name for name in ("jinja2", "aiohttp", "jsonschema", "regex", "rich", "jmespath",
                         "genai_prices", "subprocess") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
