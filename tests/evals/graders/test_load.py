from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from muster.config.document import Document
from muster.errors import ConfigError
from muster.evals.graders import graders
from muster.evals.graders.base import BoundGrader, GradeContext, GraderSpec
from muster.evals.graders.load import bind_graders
from muster.evals.graders.templates import TemplateFiles
from muster.evals.scoring import ScoreRow
from muster.registry import Registry

Bind = Callable[..., tuple[BoundGrader, ...]]


def problems(bind: Bind, entries: Any, **options: Any) -> list[str]:
    with pytest.raises(ConfigError) as error:
        bind(entries, **options)
    return [str(problem) for problem in error.value.problems]


# --- fields --------------------------------------------------------------------------------------


def test_common_fields(bind: Bind) -> None:
    (plain, full) = bind(
        """
        assertions:
          - type: contains
            value: a
          - {type: equals, value: b, metric: exact, weight: 0, required: true, min_score: 0.5,
             negate: true}
        """
    )
    assert (plain.name, plain.type, plain.weight) == ("contains-a", "contains", 1.0)
    assert (plain.required, plain.min_score, plain.negate) == (False, None, False)
    assert (full.name, full.type, full.weight) == ("exact", "equals", 0)
    assert (full.required, full.min_score, full.negate) == (True, 0.5, True)


def test_no_list_is_no_graders(bind: Bind) -> None:
    assert bind(None) == ()
    assert bind([]) == ()


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ({"type": "contains", "value": "Paris"}, "contains-Paris"),
        ({"type": "icontains", "value": "x" * 100}, f"icontains-{'x' * 59}…"),
        ({"type": "contains-any", "value": ["a", "b"]}, "contains-any-2"),
        ({"type": "icontains-all", "value": ["a"]}, "icontains-all-1"),
        ({"type": "starts-with", "value": "a"}, "starts-with-a"),
        ({"type": "ends-with", "value": "a"}, "ends-with-a"),
        ({"type": "equals", "value": 5}, "equals-5"),
        ({"type": "regex", "value": "y" * 50}, f"regex-{'y' * 30}"),
        ({"type": "is-json"}, "is-json"),
        ({"type": "numeric", "value": 5}, "numeric"),
        ({"type": "not-contains", "value": "a"}, "not-contains-a"),
    ],
)
def test_automatic_names(bind: Bind, entry: dict[str, Any], name: str) -> None:
    assert bind([entry])[0].name == name


@pytest.mark.parametrize("kind", ["starts_with", "token_usage", "is_json", "icontains_any"])
def test_snake_case_types(bind: Bind, kind: str) -> None:
    settings = {"starts_with": {"value": "a"}, "icontains_any": {"value": ["a"]}}
    extra: dict[str, Any] = settings.get(kind, {"max_total": 5} if kind == "token_usage" else {})
    assert bind([{"type": kind, **extra}])[0].type == kind.replace("_", "-")


def test_not_in_front_of_a_type_negates(judged: Callable[..., ScoreRow], bind: Bind) -> None:
    row = judged({"type": "not_contains", "value": "a"}, "bcd")
    assert (row.type, row.score, row.verdict) == ("contains", 1.0, "pass")
    assert row.assertions[0].evidence == "[Negated]"
    (found,) = problems(bind, [{"type": "not-contains", "value": "a", "negate": True}])
    assert '"not-contains" and negate: true cancel out' in found


def test_a_number_for_required_is_read_with_a_warning(bind: Bind, tmp_path: Path) -> None:
    warnings: list[str] = []
    text = "assertions:\n  - {type: contains, value: a, required: 0.6}\n"
    (grader,) = bind(text, warnings=warnings)
    assert (grader.required, grader.min_score) == (True, 0.6)
    place = f"{tmp_path}/suite.yaml:2:42: assertions[0].required"
    assert warnings == [
        f"{place}: a number is an old form; write required: true and min_score: 0.6"
    ]


# --- what is wrong -------------------------------------------------------------------------------


def test_all_problems_are_told_at_once_with_their_places(bind: Bind, tmp_path: Path) -> None:
    found = problems(
        bind,
        """assertions:
  - type: contains
    value: a
    weigth: 2
  - type: containz
    value: a
  - type: contains
  - {type: regex, value: "(a"}
  - {type: equals, value: a, weight: -1, min_score: 0, required: 2, negate: 1, name: ""}
""",
    )
    file = tmp_path / "suite.yaml"
    assert found == [
        f'{file}:4:5: assertions[0].weigth: "contains" has no field "weigth" '
        '(did you mean "weight"?)',
        f'{file}:5:11: assertions[1].type: unknown grader "containz" — did you register it? '
        f"(near: contains; known: {', '.join(entry.name for entry in graders.entries())})",
        f'{file}:7:5: assertions[2].value: "value" is required',
        f"{file}:8:26: assertions[3].value: /(a/ does not compile: missing ) (at its end)",
        f'{file}:9:86: assertions[4].name: expected a name, found ""',
        f"{file}:9:38: assertions[4].weight: expected a finite number from 0 up, found -1",
        f"{file}:9:53: assertions[4].min_score: expected a number above 0, up to 1, found 0",
        f"{file}:9:77: assertions[4].negate: expected true or false, found 1",
        f"{file}:9:66: assertions[4].required: expected true or false, found 2",
    ]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"value": "a"}, '"type" is required'),
        ({"type": 5}, "expected the name of a grader, found 5"),
        (5, "expected a mapping with type, or a criterion as text, found 5"),
        (" ", "an empty text is no criterion; say what must hold of the answer"),
        ({"type": "model_graded_closedqa"}, '"model_graded_closedqa" is not supported'),
        ({"type": "not-moderation", "value": "x"}, '"not-moderation" is not supported'),
        ({"type": "trajectory:tools-used"}, '"trajectory:tools-used" is not supported'),
        ({"type": "agent_judge"}, '"agent_judge" is not supported'),
        ({"type": "not-containz", "value": "a"}, "near: contains"),
        ({"type": "no_such.module:Grader"}, 'no module "no_such.module"'),
        ({"type": "contains", "value": ""}, "is empty, and would judge every answer the same"),
        ({"type": "contains", "value": ["a"]}, "expected string, found a list"),
        ({"type": "contains-any", "value": []}, "is empty"),
        ({"type": "contains-all", "value": ["a", ""]}, "is empty"),
        ({"type": "regex", "value": "a", "flags": "iq"}, 'unknown flag "q"'),
        ({"type": "latency"}, '"threshold" is required'),
        ({"type": "latency", "max_ms": 0}, "expected greater than 0, found 0"),
        ({"type": "cost", "budget": -1}, "expected greater than or equal to 0, found -1"),
        ({"type": "token-usage"}, "needs at least one of max_total, max_input, max_output"),
        ({"type": "token-usage", "max_totl": 1}, 'did you mean "max_total"?'),
        ({"type": "numeric", "value": "many"}, '"many" has no number'),
        ({"type": "numeric", "value": "3,5"}, "write the decimals after a point"),
        ({"type": "numeric", "value": float("nan")}, "nan is not a finite number"),
        ({"type": "numeric", "value": "1/0"}, "1/0 is not a finite number"),
        ({"type": "numeric", "value": True}, "expected a number, or text that holds one"),
        ({"type": "numeric", "value": 1, "tolerance": -1}, '"-1" is neither a number from 0 up'),
        ({"type": "numeric", "value": 1, "tolerance": "some"}, '"some" is neither'),
        ({"type": "numeric", "value": 1, "extract": "("}, "/(/ does not compile"),
        ({"type": "numeric", "value": "x 5", "extract": "A: (.*)"}, "has no number where"),
    ],
)
def test_messages(bind: Bind, entry: Any, message: str) -> None:
    (found,) = problems(bind, [entry])
    assert message in found


def test_a_list_is_expected(bind: Bind) -> None:
    (found,) = problems(bind, {"type": "contains"})
    assert "expected a list of assertions, found a mapping" in found


# --- variables -----------------------------------------------------------------------------------


def test_variables_are_filled_in_before_the_grader_is_built(bind: Bind) -> None:
    def substitute(value: object) -> object:
        assert isinstance(value, str)
        return 18 if value == "{{ n }}" else value.replace("{{ n }}", "18")

    found = bind(
        [
            {"type": "contains", "value": "is {{ n }}", "name": "has {{ n }}"},
            {"type": "contains-all", "value": ["{{ n }}", "b"]},
            {"type": "numeric", "value": "{{ n }}"},
            {"type": "is-json", "schema": {"const": "{{ n }}"}},
        ],
        substitute=substitute,
    )
    assert [grader.name for grader in found] == ["has 18", "contains-all-2", "numeric", "is-json"]
    (missing,) = problems(
        bind, [{"type": "numeric", "value": "{{ x }}"}], substitute=lambda _: "none"
    )
    assert '"none" has no number' in missing


# --- templates -----------------------------------------------------------------------------------


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_template_by_name_the_nearest_wins(bind: Bind, tmp_path: Path) -> None:
    write(tmp_path / ".muster/templates/polite.yaml", "assertions: [{type: contains, value: far}]")
    write(tmp_path / ".agentv/templates/old.yml", "assert: [{type: contains, value: old}]")
    inner = tmp_path / "evals"
    write(inner / ".muster/templates/polite.yaml", "assertions: [{type: contains, value: near}]")
    entries = [{"type": "equals", "value": "x"}, {"include": "polite"}, {"include": "old"}]
    names = [grader.name for grader in bind(entries, base_dir=inner)]
    assert names == ["equals-x", "contains-near", "contains-old"]
    assert bind([{"include": "polite"}])[0].name == "contains-far"


def test_a_template_by_path_and_paths_within_it(bind: Bind, tmp_path: Path) -> None:
    write(
        tmp_path / "shared/outer.yaml",
        "assertions: [{include: ./inner.yaml}, {type: is-json, schema: s.json}]",
    )
    write(tmp_path / "shared/inner.yaml", "assertions: [{type: contains, value: a}]")
    write(tmp_path / "shared/s.json", "{}")
    files = TemplateFiles()
    found = bind([{"include": "shared/outer.yaml"}], templates=files)
    assert [grader.name for grader in found] == ["contains-a", "is-json"]
    assert [path.name for path in files.paths] == ["outer.yaml", "inner.yaml"]
    (tmp_path / "shared/outer.yaml").unlink()
    (tmp_path / "shared/outer.yaml").write_text("no longer read")
    assert len(bind([{"include": "shared/outer.yaml"}], templates=files)) == 2


def test_a_cycle_of_templates_names_the_test_and_the_way(bind: Bind, tmp_path: Path) -> None:
    write(tmp_path / ".muster/templates/a.yaml", "assertions: [{include: b}]")
    write(tmp_path / ".muster/templates/b.yaml", "assertions: [{include: a}]")
    document = Document({"tests": [{"id": "t1", "assertions": [{"include": "a"}]}]}, None)
    with pytest.raises(ConfigError, match="Assertion template cycle detected in 't1': a -> b -> a"):
        bind_graders(
            document.data["tests"][0]["assertions"],
            document=document,
            location=("tests", 0, "assertions"),
            base_dir=tmp_path,
            project_root=tmp_path,
            registry=graders,
        )


def test_templates_nest_three_deep_and_no_deeper(bind: Bind, tmp_path: Path) -> None:
    folder = tmp_path / ".muster/templates"
    write(folder / "a.yaml", "assertions: [{include: b}]")
    write(folder / "b.yaml", "assertions: [{include: c}]")
    write(folder / "c.yaml", "assertions: [{type: contains, value: deep}]")
    assert bind([{"include": "a"}])[0].name == "contains-deep"
    write(folder / "c.yaml", "assertions: [{include: d}]")
    write(folder / "d.yaml", "assertions: []")
    (found,) = problems(bind, [{"include": "a"}])
    assert "templates include one another deeper than 3: a -> b -> c -> d" in found


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("polit", 'no template "polit" in .muster/templates'),
        ("polit", 'did you mean "polite"?'),
        ("./nope.yaml", 'no such file "./nope.yaml"'),
        ("../outside.yaml", "is outside the project"),
        ("link.yaml", "is outside the project"),
        ("list.yaml", "a template is a mapping with `assertions`, a list"),
        ("keys.yaml", 'unknown field "asserts"'),
        ("text.yaml", "assertions: expected a list of assertions"),
        ("wrong.yaml", 'wrong.yaml:2:14: assertions[0].value: "value" is required'),
        (5, "expected the name or path of a template, found 5"),
    ],
)
def test_templates_that_are_wrong(bind: Bind, tmp_path: Path, name: Any, message: str) -> None:
    write(tmp_path / ".muster/templates/polite.yaml", "assertions: []")
    write(tmp_path / "list.yaml", "[]")
    write(tmp_path / "keys.yaml", "assertions: []\nasserts: []")
    write(tmp_path / "text.yaml", "assertions: text")
    write(tmp_path / "wrong.yaml", "\nassertions: [{type: contains}]")
    write(tmp_path.parent / "outside.yaml", "assertions: []")
    (tmp_path / "link.yaml").symlink_to(tmp_path.parent / "outside.yaml")
    (found,) = problems(bind, [{"include": name}])
    assert message in found


def test_include_stands_alone(bind: Bind) -> None:
    (found,) = problems(bind, [{"include": "a", "weight": 2}])
    assert "include stands alone, not beside weight" in found


# --- graders of the project ----------------------------------------------------------------------


def project_registry(folder: Path, code: str) -> Registry[Any]:
    write(folder / "own.py", code)
    return graders.for_project([folder])


def test_a_grader_of_the_project(bind: Bind, tmp_path: Path) -> None:
    registry = project_registry(
        tmp_path / ".muster/graders",
        "from muster.evals.graders import graders\n"
        "@graders.register('word_count')\n"
        "def word_count(spec):\n"
        "    most = spec.config['max']\n"
        "    def grade(context):\n"
        "        count = len(context.output.split())\n"
        "        return {'score': count <= most, 'reason': f'{count} words'}\n"
        "    return grade\n",
    )
    for kind, negate in (("word_count", False), ("not-word_count", True)):
        (grader,) = bind([{"type": kind, "max": 2, "weight": 3}], registry=registry)
        assert (grader.weight, grader.negate) == (3, negate)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise KeyError('max')", 'grader "own" cannot be built: '),
        ("raise ValueError('max must be set')", "max must be set"),
        ("return 5", 'the factory of grader "own" returned 5; it takes the settings and returns'),
    ],
)
def test_a_factory_of_the_project_that_fails(
    bind: Bind, tmp_path: Path, body: str, message: str
) -> None:
    registry = project_registry(
        tmp_path / ".muster/graders",
        "from muster.evals.graders import graders\n"
        f"@graders.register('own')\ndef own(spec):\n    {body}\n",
    )
    (found,) = problems(bind, [{"type": "own"}], registry=registry)
    assert message in found


def test_a_grader_by_dotted_path(bind: Bind, tmp_path: Path) -> None:
    (tmp_path / "dotted_graders.py").write_text("def never(spec):\n    return lambda context: 0\n")
    (grader,) = bind([{"type": "dotted_graders:never"}])
    assert grader.name == "dotted_graders:never"
    safe = graders.for_project([], safe=True)
    (found,) = problems(bind, [{"type": "dotted_graders:never"}], registry=safe, safe=True)
    assert "--safe refuses" in found
    (found,) = problems(bind, [{"type": "own"}], registry=safe, safe=True)
    assert found.endswith("; --safe loads no graders but the built-in ones")


def test_factories_get_the_folders(bind: Bind, tmp_path: Path) -> None:
    seen: list[GraderSpec] = []

    def own(spec: GraderSpec) -> Callable[[GradeContext], bool]:
        seen.append(spec)
        return lambda context: True

    registry: Registry[Any] = Registry("grader", group="graders")
    registry.register("own", own)
    bind([{"type": "own", "k": [1]}], registry=registry, base_dir=tmp_path / "a", safe=True)
    assert [replace(spec, binding=None) for spec in seen] == [
        GraderSpec(
            type="own",
            config={"k": [1]},
            base_dir=tmp_path / "a",
            project_root=tmp_path,
            safe=True,
        )
    ]


def test_slow_modules_are_imported_only_when_they_are_needed() -> None:
    code = """
import sys
from pathlib import Path
from muster.config.document import Document
from muster.evals.graders import graders
from muster.evals.graders.load import bind_graders
here = Path()
bind_graders(
    [{"type": "contains", "value": "a"}, {"type": "numeric"}, {"type": "is-json"}],
    document=Document(None), location=(), base_dir=here, project_root=here, registry=graders,
)
print(sorted({"regex", "jsonschema", "jinja2", "aiohttp"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
