"""Data sets made by Python functions."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest

from muster.errors import ConfigError, MusterError
from muster.evals.suites.dataset import RowSource, rows_of


def source(folder: Path, code: str, ref: str = "gen.py:make", *, safe: bool = False) -> RowSource:
    (folder / "gen.py").write_text(code)
    return rows_of(ref, base_dir=folder, project_root=folder, safe=safe)


@pytest.mark.parametrize(
    "code",
    [
        "def make():\n    for n in range(3):\n        yield {'id': f't{n}'}\n",
        "def make():\n    return [{'id': f't{n}'} for n in range(3)]\n",
        "async def make():\n    return [{'id': f't{n}'} for n in range(3)]\n",
        "async def make():\n    for n in range(3):\n        yield {'id': f't{n}'}\n",
        "async def rows():\n    for n in range(3):\n        yield {'id': f't{n}'}\n"
        "async def make():\n    return rows()\n",
        "class Maker:\n    def __call__(self):\n"
        "        return ({'id': f't{n}'} for n in range(3))\n"
        "make = Maker()\n",
    ],
)
def test_kinds_of_functions(tmp_path: Path, code: str) -> None:
    rows = source(tmp_path, code)
    assert [row.data["id"] for row in rows] == ["t0", "t1", "t2"]


def test_runs_once_and_repeats_exactly(tmp_path: Path) -> None:
    code = (
        "import random\ncalls = []\n"
        "def make():\n    calls.append(1)\n"
        "    yield {'id': str(random.random()), 'n': len(calls)}\n"
    )
    rows = source(tmp_path, code)
    first, second = list(rows), list(rows)
    assert [row.data for row in first] == [row.data for row in second]
    assert first[0].data["n"] == 1
    script, spool = rows.paths
    assert script == tmp_path / "gen.py"
    assert spool.is_file()
    del rows, first, second
    gc.collect()
    assert not spool.exists()


def test_default_function_and_the_folders_modules(tmp_path: Path) -> None:
    (tmp_path / "questions_of_mine.py").write_text("ALL = ['a', 'b']\n")
    code = (
        "from questions_of_mine import ALL\n"
        "def generate_tests():\n    return ({'id': q, 'tags': (1, 2)} for q in ALL)\n"
    )
    rows = [row.data for row in source(tmp_path, code, "file://gen.py")]
    assert rows == [{"id": "a", "tags": [1, 2]}, {"id": "b", "tags": [1, 2]}]


def test_works_while_a_loop_runs(tmp_path: Path) -> None:
    code = "import asyncio\nasync def make():\n    await asyncio.sleep(0)\n    yield {'id': 'a'}\n"

    async def inside() -> list[str]:
        return [row.data["id"] for row in source(tmp_path, code)]

    assert asyncio.run(inside()) == ["a"]


def test_place_of_a_row(tmp_path: Path) -> None:
    (row,) = source(tmp_path, "\n\ndef make():\n    yield {'vars': {'x': 1}}\n")
    problem = row.document.problem(("vars", "x"), "is wrong")
    assert str(problem) == f"{tmp_path}/gen.py:3:1: make()[0].vars.x: is wrong"


def test_safe_mode_refuses(tmp_path: Path) -> None:
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\ndef make(): return []\n"
    for ref in ("gen.py:make", "gen.py", "*.py"):
        with pytest.raises(MusterError, match=r"--safe refuses the data set .*gen\.py"):
            source(tmp_path, code, ref, safe=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def make():\n    yield {'a': 1}\n    raise OSError('no')\n", "gen.py:3: OSError: no"),
        ("async def make():\n    return 1 / 0\n", "gen.py:2: ZeroDivisionError"),
        ("import nothing_called_this\n", "gen.py:1: ModuleNotFoundError"),
        ("def make(:\n", "gen.py:1: SyntaxError"),
        ("def mak():\n    return []\n", 'there is no function "make" (near: mak)'),
        ("make = 3\n", 'there is no function "make" (functions: none)'),
    ],
)
def test_code_that_fails(tmp_path: Path, code: str, message: str) -> None:
    with pytest.raises(MusterError) as caught:
        source(tmp_path, code)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("None", "make(): must give the tests one by one (a list or an iterator), not None"),
        ("{'id': 1}", "not a value of type dict"),
        ("[{}, 3]", "make()[1]: expected a dict (a test), found a value of type int"),
        ("[{'x': object()}]", "make()[0]: cannot be written as JSON"),
    ],
)
def test_results_that_are_no_tests(tmp_path: Path, result: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        source(tmp_path, f"def make():\n    return {result}\n")
    assert message in str(caught.value)
    assert f"{tmp_path}/gen.py:1:1" in str(caught.value)
