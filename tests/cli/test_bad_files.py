"""Mistakes in files: one message with its place, exit code 2, and nothing is asked or left."""

from __future__ import annotations

import pytest
from muster_project import Project

ECHO = """
targets:
  - name: default
    provider: echo
"""

GOOD = """
target: default
tests:
  - {id: good, input: x, assertions: [{type: contains, value: x}]}
"""


@pytest.mark.parametrize(
    ("suite", "expected"),
    [
        (
            "name: [a\ntests: []\n",
            "bad.eval.yaml:2:6: not valid YAML: did not find expected ',' or ']'",
        ),
        (
            "tests:\n\t- id: a\n",
            "bad.eval.yaml:2:1: not valid YAML: a tab is used to indent",
        ),
        (
            "tests:\n  - id: a\n    input: q\n    id: b\n",
            'bad.eval.yaml:4:5: duplicate key "id"',
        ),
        (
            "assertions: [{type: is-json}]\ntests:\n  - {id: a, input: q}\n  - {id: a, input: r}\n",
            'bad.eval.yaml:4:10: tests[1].id: two tests have the id "a"; the first is at ',
        ),
        (
            "tests:\n  - id: a\n    input: q\n    assertions:\n"
            "      - {type: contians, value: x}\n",
            'bad.eval.yaml:5:16: tests[0].assertions[0].type: unknown grader "contians" '
            "— did you register it? (near: contains;",
        ),
        (
            "tests: file://gone.jsonl\n",
            "bad.eval.yaml:1:8: tests: gone.jsonl: no such file",
        ),
        (
            "tests:\n  - id: a\n    input: q\n    assertions:\n"
            "      - {type: regex, value: '(open'}\n",
            "bad.eval.yaml:5:30: tests[0].assertions[0].value: ",
        ),
        (
            "assertions: [{type: is-json}]\ntests:\n  - {id: a, input: q, input_files: [../x]}\n",
            'bad.eval.yaml:3:37: tests[0].input_files[0]: "../x" is outside the project',
        ),
        (
            "treshold: 1\ntests:\n  - {id: a, input: q, assertions: [{type: is-json}]}\n",
            'bad.eval.yaml:1:1: treshold: unknown field "treshold" (did you mean "threshold"?)',
        ),
    ],
    ids=[
        "syntax",
        "tab",
        "duplicate-key",
        "duplicate-id",
        "unknown-assertion",
        "missing-dataset",
        "bad-regex",
        "outside-project",
        "unknown-key",
    ],
)
def test_suite(project: Project, suite: str, expected: str) -> None:
    """A good suite beside the bad one does not run either: a green run has every test in it."""
    project.write(".muster/targets.yaml", ECHO)
    project.write("good.eval.yaml", GOOD)
    project.write("bad.eval.yaml", suite)
    (project.root.parent / "x").write_text("not for the project")
    ended = project.eval("good.eval.yaml", "bad.eval.yaml")
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("error: ")
    assert ended.err.replace(f"{project.root}/", "").startswith(f"error: {expected}")
    assert len(ended.err.splitlines()) == 1
    assert not (project.root / "run").exists()


def test_all_mistakes_of_a_suite_are_told_at_once(project: Project) -> None:
    project.write(".muster/targets.yaml", ECHO)
    project.write("bad.eval.yaml", "tests:\n  - {id: a, input: q}\n  - {id: b, imput: q}\n")
    ended = project.eval("bad.eval.yaml")
    assert ended.code == 2
    lines = ended.err.replace(f"{project.root}/", "").splitlines()
    assert lines[0].startswith("error: bad.eval.yaml:2:5: tests[0]: a: has nothing that judges")
    assert lines[1].startswith('bad.eval.yaml:3:13: tests[1].imput: unknown field "imput"')


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (
            "targets:\n  - {name: default, use_target: b}\n  - {name: b, use_target: default}\n",
            ".muster/targets.yaml:3:27: targets[1].use_target: Circular use_target reference "
            "detected: default -> b -> default",
        ),
        (
            "targets:\n  - {name: default, use_target: fats}\n  - {name: fast, provider: echo}\n",
            '.muster/targets.yaml:2:33: targets[0].use_target: target "fats" not found in ',
        ),
        (
            "targets:\n  - name: default\n    provider: cli\n    comand: cat\n",
            '.muster/targets.yaml:4:5: targets[0].comand: unknown field "comand" for provider '
            '"cli" (did you mean "command"?)',
        ),
        (
            "targets:\n  - name: default\n    provider: openai\n    model: m\n"
            "    api_key: ${{ SHOP_KEY }}\n",
            '.muster/targets.yaml:5:14: targets[0].api_key: target "default" needs the environment '
            "variable SHOP_KEY, which is not set",
        ),
        (
            "targets:\n  - name: default\n    provider: myprovidr\n",
            '.muster/targets.yaml:3:15: targets[0].provider: unknown provider "myprovidr" '
            "— did you register it? (near: myprovider; known: anthropic, ",
        ),
        (
            "targets:\n  - name: default\n    provider: replay\n    file: ../answers.jsonl\n",
            ".muster/targets.yaml:2:5: targets[0]: answers.jsonl: no such file",
        ),
        (
            "targets:\n  - name: default\n    provider: function\n    function: agents:answr\n",
            ".muster/targets.yaml:2:5: targets[0]: ",
        ),
        (
            "targets:\n  - {name: default, provider: echo}\n  - {name: default, provider: mock}\n",
            ".muster/targets.yaml:3:5: targets[1]: a second target is called ",
        ),
    ],
    ids=[
        "cyclic-use_target",
        "missing-use_target",
        "unknown-key",
        "unset-variable",
        "unknown-provider",
        "missing-recording",
        "missing-function",
        "duplicate-name",
    ],
)
def test_targets(project: Project, targets: str, expected: str) -> None:
    project.write(".muster/targets.yaml", targets)
    project.write(
        ".muster/providers/own.py",
        "import muster\nmuster.register('myprovider', lambda target: lambda text: text)\n",
    )
    project.write("agents.py", "def answer(question):\n    return question\n")
    project.write("good.eval.yaml", GOOD)
    ended = project.eval("good.eval.yaml")
    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.replace(f"{project.root}/", "").startswith(f"error: {expected}")
    assert not (project.root / "run").exists()


def test_missing_target_names_the_nearest(project: Project) -> None:
    project.write(".muster/targets.yaml", ECHO)
    project.write("good.eval.yaml", GOOD)
    ended = project.eval("good.eval.yaml", "--target", "defualt")
    assert ended.code == 2
    where = project.root / ".muster" / "targets.yaml"
    assert ended.err == (
        f'error: target "defualt" not found in {where} (near: default; available: default)\n'
    )


def test_a_mistake_in_a_target_that_is_not_used_does_not_matter(project: Project) -> None:
    unused = "  - {name: unused, provider: cli, comand: cat}\n"
    project.write(".muster/targets.yaml", ECHO.strip() + "\n" + unused)
    project.write("good.eval.yaml", GOOD)
    assert project.eval("good.eval.yaml").code == 0
    assert project.statuses() == {"good": "ok"}


def test_a_provider_file_that_fails_leaves_the_others(project: Project) -> None:
    project.write(".muster/providers/bad.py", "import muster\n\nmuster.registr('bad')\n")
    project.write(
        ".muster/providers/good.py",
        """
        import muster

        @muster.register("shouter")
        def make(target):
            return lambda question: question.upper()
        """,
    )
    project.write(".muster/targets.yaml", "targets: [{name: default, provider: shouter}]\n")
    project.write(
        "loud.eval.yaml",
        "tests: [{id: a, input: hi, assertions: [{type: equals, value: HI}]}]\n",
    )
    ended = project.eval("loud.eval.yaml")
    assert ended.code == 0
    assert project.statuses() == {"a": "ok"}
    bad = project.root / ".muster" / "providers" / "bad.py"
    (warning,) = [line for line in ended.err.splitlines() if line.startswith("warning: ")]
    assert warning.startswith(f"warning: {bad}:3: AttributeError: ")
    assert "registr" in warning

    project.write(".muster/targets.yaml", "targets: [{name: default, provider: bad}]\n")
    ended = project.eval("loud.eval.yaml", "--output", "second")
    assert ended.code == 2
    assert 'unknown provider "bad" — did you register it?' in ended.err
    assert f"{bad}:3: AttributeError: " in ended.err


def test_skip_invalid_names_what_it_left_out(project: Project) -> None:
    project.write(".muster/targets.yaml", ECHO)
    suite = """
    assertions: [{type: contains, value: x}]
    tests:
      - {id: a, input: x}
      - {id: b, imput: x}
      - {id: a, input: x}
    """
    project.write("mixed.eval.yaml", suite)
    ended = project.eval("mixed.eval.yaml", "--skip-invalid")
    assert ended.code == 0
    assert project.statuses() == {"a": "ok"}
    told = [line for line in ended.err.splitlines() if line.startswith("left out: ")]
    assert [line.replace(f"{project.root}/", "").partition(" (")[0] for line in told] == [
        'left out: mixed.eval.yaml:4:13: tests[1].imput: unknown field "imput"',
        'left out: mixed.eval.yaml:5:10: tests[2].id: two tests have the id "a"; the first is at '
        "mixed.eval.yaml:3:5: tests[0]",
    ]
    (stored,) = project.record()["suites"]
    assert len(stored["skipped"]) == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["evl"], 'no command "evl". Did you mean "eval"?'),
        (["eval", "a.eval.yaml", "--treshold", "1"], "No such option"),
        (["eval", "a.eval.yaml", "--threshold", "3"], "3.0 is not in the range 0<=x<=1"),
        (["eval", "gone.eval.yaml"], "gone.eval.yaml"),
        (["eval"], "which suite?"),
        (["eval", "good.eval.yaml", "--filter", "("], '--filter "(" is not a regular expression'),
        (["eval", "good.eval.yaml", "--test-id", "zzz"], 'no test matches --test-id "zzz"'),
        (["eval", "good.eval.yaml", "--targets", "gone.yaml"], "gone.yaml"),
    ],
)
def test_usage(project: Project, arguments: list[str], expected: str) -> None:
    project.write("good.eval.yaml", GOOD)
    project.write(".muster/targets.yaml", ECHO)
    ended = project.run(*arguments)
    assert ended.code == 2
    assert ended.out == ""
    assert expected in ended.err
    assert not (project.root / ".muster" / "results").exists()


@pytest.mark.parametrize("arguments", [["--help"], ["eval", "--help"], ["--version"], []])
def test_help(project: Project, arguments: list[str]) -> None:
    ended = project.run(*arguments)
    assert ended.code == (0 if arguments else 2)
    assert "muster" in ended.text
    assert ended.text.splitlines()[0].startswith(("Usage: muster", "muster, version "))
