from __future__ import annotations

import asyncio
import gzip
import json
import os
from pathlib import Path

import pytest

from muster.errors import ConfigError
from muster.evals.graders.code_exec import code_in
from muster.evals.sandbox import cell
from program_parts import ask, bound

CHECKOUT = Path(__file__).parents[3]
NAME = "HumanEval.jsonl.gz"
DATA = Path(os.environ.get("MUSTER_HUMANEVAL") or CHECKOUT.parent / "shared/data/humaneval" / NAME)

ADD = {
    "type": "code-exec",
    "entry_point": "add",
    "prompt": 'def add(a, b):\n    """The sum."""\n',
    "test": "def check(f):\n    assert f(1, 2) == 3\n    assert f(0, 0) == 0\n",
}


def _refusal() -> str | None:
    try:
        asyncio.run(cell.run_shut_in(cell.Task(code="", tests=[])))
    except cell.NoSandbox as error:
        return str(error)
    return None


_WHY = _refusal()
in_sandbox = pytest.mark.skipif(_WHY is not None, reason=f"no sandbox here: {_WHY}")


@in_sandbox
@pytest.mark.parametrize(
    "answer",
    [
        "    return a + b\n",
        "return a + b",
        "    c = a + b\n    return c",
        "c = a + b\n    return c",  # an answer whose ends were trimmed
        "Here you are:\n\n```python\ndef add(a, b):\n    return a + b\n```\nThat is all.",
        "```\ndef add(a, b):\n    return a + b",
        "```py\nadd = lambda a, b: a + b\n```",
        "```python\ndef add(a, b):\n    return a + b\n```\nTry it:\n```python\nadd(1, 2)\n```",
    ],
)
async def test_right_answers_in_all_the_ways_they_are_written(answer, tmp_path):
    graded = await ask(ADD, tmp_path, answer)
    assert (graded.error, graded.score) == (None, 1.0)
    assert graded.rows[0].details["passed"] == graded.rows[0].details["tests"] == 1


@in_sandbox
@pytest.mark.parametrize(
    ("answer", "text", "why"),
    [
        ("    return a - b\n", "test 1 passes", "test.py:2: AssertionError"),
        ("    return (a +\n", "the answer is Python", "answer.py:3: SyntaxError: '(' was never"),
        ("", "the answer holds no code", None),
        (
            "    import os; os._exit(0)",
            "the program and its tests come to their end",
            "it ended itself with exit code 0 before the tests were over",
        ),
    ],
)
async def test_wrong_answers_score_0_and_say_why(answer, text, why, tmp_path):
    graded = await ask(ADD, tmp_path, answer)
    assert (graded.error, graded.score) == (None, 0.0)
    [assertion] = graded.rows[0].assertions
    assert assertion.text == text
    assert (assertion.evidence or "").startswith(why or "")
    assert not assertion.passed


@in_sandbox
async def test_without_the_function_it_fails(tmp_path):
    entry = {"type": "code-exec", "entry_point": "add", "test": "assert add(1, 2) == 3"}
    graded = await ask(entry, tmp_path, "def sum(a, b): return a + b")
    assert graded.score == 0
    assert graded.rows[0].assertions[0].evidence == 'it defines no function "add"'


@in_sandbox
async def test_several_tests_are_told_apart_and_all_must_pass(tmp_path):
    entry = {"type": "code-exec", "test": ["assert x == 1", "assert x == 2", "assert x > 0"]}
    graded = await ask(entry, tmp_path, "x = 1")
    assert graded.score == 0
    assert [a.text for a in graded.rows[0].assertions] == ["test 2 passes"]
    assert graded.rows[0].details["passed"] == 2


@in_sandbox
async def test_a_test_that_is_no_python_is_an_error(tmp_path):
    graded = await ask({"type": "code-exec", "test": "assert ("}, tmp_path, "x = 1")
    assert "a test is not Python: test.py:1: SyntaxError" in graded.error


async def test_without_a_sandbox_nothing_is_run(tmp_path, monkeypatch):
    guard = tmp_path / "guard.py"
    guard.write_text('print(\'{"refused": "unshare: not permitted"}\')')
    monkeypatch.setattr(cell, "_GUARD", guard)
    graded = await ask(ADD, tmp_path, "    return a + b")
    assert graded.error == (
        'grader "code-exec": no sandbox here, so the code was not run: unshare: not permitted'
    )


@in_sandbox
async def test_packages_can_be_read_and_imported(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "helper.py").write_text("VALUE = 7")
    entry = {"type": "code-exec", "test": "assert x == 7", "packages": ["lib"]}
    graded = await ask(entry, tmp_path, "import helper\nx = helper.VALUE")
    assert (graded.error, graded.score) == (None, 1.0)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"packages": ["nowhere"]}, "is no folder"),
        ({"entry_point": "a b"}, "entry_point"),
        ({"memory_mb": 1}, "memory_mb"),
        ({"test": []}, "test"),
    ],
)
def test_wrong_settings_are_told(more, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        bound({**ADD, **more}, tmp_path)


def test_code_is_found_in_fences():
    assert code_in("no fence") == "no fence"
    assert code_in("```\na\n```\n```python\nb\n```\n```sh\nc\n```") == "b\n"
    assert code_in("~~~~python\n```\nx\n```\n~~~~") == "```\nx\n```\n"
    two = "```python\ndef f(): 1\n```\n```python\nf()\n```"
    assert code_in(two) == "f()\n"
    assert code_in(two, "f") == "def f(): 1\n"


@in_sandbox
@pytest.mark.skipif(not DATA.exists(), reason=f"no data at {DATA}")
async def test_humaneval(tmp_path):
    """Each canonical solution passes; with its last line cut off, none does."""
    with gzip.open(DATA) as file:
        rows = [json.loads(line) for line in file]
    places = asyncio.Semaphore(2)

    async def score(row, answer):
        entry = {"type": "code-exec", **{k: row[k] for k in ("test", "entry_point", "prompt")}}
        async with places:
            graded = await ask(entry, tmp_path, answer)
        assert graded.error is None
        return graded.score

    def cut(solution):
        return "\n".join(solution.rstrip().split("\n")[:-1])

    whole = await asyncio.gather(*(score(row, row["canonical_solution"]) for row in rows))
    assert (len(whole), sum(whole)) == (164, 164)
    short = await asyncio.gather(*(score(row, cut(row["canonical_solution"])) for row in rows))
    assert sum(short) == 0
