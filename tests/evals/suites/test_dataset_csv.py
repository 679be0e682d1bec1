"""CSV data sets: variables, magic columns, places."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import ConfigError, Problem
from muster.evals.suites.dataset import RowSource, rows_of


def source(folder: Path, text: str | bytes, name: str = "a.csv") -> RowSource:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return rows_of(name, base_dir=folder, project_root=folder)


def rows_in(folder: Path, text: str, name: str = "a.csv") -> list[dict[str, Any]]:
    return [row.data for row in source(folder, text, name)]


def problems_of(folder: Path, text: str | bytes) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        list(source(folder, text))
    return caught.value.problems


def test_columns_are_variables(tmp_path: Path) -> None:
    text = 'question,"the answer"\n"2, or ""two""?",4\n\n"more\nlines",\n'
    rows = source(tmp_path, text)
    for _ in range(2):
        assert [(row.line, row.data) for row in rows] == [
            (2, {"vars": {"question": '2, or "two"?', "the answer": "4"}, "assert": []}),
            (4, {"vars": {"question": "more\nlines", "the answer": ""}, "assert": []}),
        ]
    assert rows.paths == (tmp_path / "a.csv",)
    assert rows.warnings == ()


def test_magic_columns(tmp_path: Path) -> None:
    header = (
        "q,__expected1,__expected2,__id,__description,__prefix,__suffix,__metric,__threshold,"
        "__metadata:topic,__metadata:tags[]"
    )
    row = 'x,contains: 4,"is-json",t1,About x,"Say: ", now,accuracy,0.5,maths,"a, b\\,c"'
    assert rows_in(tmp_path, f"{header}\n{row}\n") == [
        {
            "id": "t1",
            "description": "About x",
            "vars": {"q": "x"},
            "assert": [
                {"type": "contains", "value": "4", "metric": "accuracy"},
                {"type": "is-json", "metric": "accuracy"},
            ],
            "threshold": 0.5,
            "metadata": {"topic": "maths", "tags": ["a", "b,c"]},
            "options": {"prefix": "Say: ", "suffix": " now"},
        }
    ]


def test_blank_magic_cells_say_nothing(tmp_path: Path) -> None:
    header = (
        "q,__expected,__description,__threshold,__metadata:k,__prefix,__config:__expected:weight"
    )
    assert rows_in(tmp_path, f"{header}\nx, ,,,,,\n") == [{"vars": {"q": "x"}, "assert": []}]


def test_config_columns(tmp_path: Path) -> None:
    header = (
        "__expected1,__expected2,__expected3,__config:__expected2:threshold,"
        "__config:__expected:threshold,__config:__expected3:weight"
    )
    (test,) = rows_in(tmp_path, f"{header}\nsimilar: a,cost(1),contains: b,0.25,0.75,2\n")
    assert test["assert"] == [
        {"type": "similar", "value": "a", "threshold": 0.75},
        {"type": "cost", "budget": 0.25},
        {"type": "contains", "value": "b", "min_score": 0.75, "weight": 2.0},
    ]


def test_tabs(tmp_path: Path) -> None:
    tests = rows_in(tmp_path, "q\t__expected\na, b\tc\n", "a.tsv")
    assert tests == [{"vars": {"q": "a, b"}, "assert": [{"type": "equals", "value": "c"}]}]


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    tests = rows_in(tmp_path, "\ufeffq,a\r\n1,2\r\n")
    assert tests == [{"vars": {"q": "1", "a": "2"}, "assert": []}]


def test_packed(tmp_path: Path) -> None:
    (row,) = source(tmp_path, gzip.compress(b"q,__expected\n1,2\n"), "a.csv.gz")
    assert row.data == {"vars": {"q": "1"}, "assert": [{"type": "equals", "value": "2"}]}


def test_cell_that_is_larger_than_the_modules_limit(tmp_path: Path) -> None:
    big = "x" * 300_000
    assert rows_in(tmp_path, f"q\n{big}\n")[0]["vars"]["q"] == big


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8")), min_size=2, max_size=2)))
def test_any_cells_come_back(
    tmp_path_factory: pytest.TempPathFactory, records: list[list[str]]
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *records])
    raw = text.getvalue().encode()
    rows = list(source(folder, raw))
    assert [[*row.data["vars"].values()] for row in rows] == records
    for row in rows:
        problem = row.document.problem(("vars", "b"), "x")
        assert problem.line is not None
        assert problem.column is not None
        line = raw.split(b"\n")[problem.line - 1].decode()
        assert line[problem.column - 1] == '"'


def test_place_of_a_cell(tmp_path: Path) -> None:
    text = 'q,__expected1,__expected2,__threshold\n"a\n""b",,"contains: x",0.5\n'
    (row,) = source(tmp_path, text)
    path = tmp_path / "a.csv"
    where = row.document.problem
    assert where(("assert", 0, "value"), "x") == Problem("x", path, 3, 7, "__expected2")
    assert where(("vars", "q"), "x") == Problem("x", path, 2, 1, "q")
    assert where(("threshold",), "x") == Problem("x", path, 3, 21, "__threshold")
    assert where(("input",), "x") == Problem("x", path, 2, 1, "input")
    assert row.document.mark(("assert", 0)).column == 7


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "column", "message"),
    [
        ("q,q", 3, 'two columns are called "q"'),
        ("q,,a", 3, "column 2 has no name"),
        ("q,__expeced", 3, "unknown magic column (near: __expected; known: __id"),
        ("q,__metadata", 3, "say which key, for example __metadata:category"),
        ("q,__providerOutput", 3, "use a target of provider: replay"),
        ("q,__config:__expected:colour", 3, "expected __config:__expected<number>:<setting>"),
        ("q,__config:__expected7:weight", 3, 'sets up the column "__expected7", which is not'),
    ],
)
def test_bad_header(tmp_path: Path, header: str, column: int, message: str) -> None:
    (problem,) = problems_of(tmp_path, f"{header}\n1,2\n")
    assert (problem.line, problem.column) == (1, column)
    assert message in problem.message


def test_empty_file(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, "\n\n")
    assert problem.message == "is empty; the first line must name the columns"


@pytest.mark.parametrize("row", ["1", "1,2,3"])
def test_ragged_record(tmp_path: Path, row: str) -> None:
    (problem,) = problems_of(tmp_path, f"a,b\n1,2\n{row}\n")
    found = row.count(",") + 1
    assert problem.message == f"found {found} cells where the header has 2"
    assert (problem.line, problem.column) == (3, 1)


def test_all_that_is_wrong_in_a_record_is_told(tmp_path: Path) -> None:
    text = "__expected1,__expected2,__threshold\ncontians: x,latency(),high\n"
    first, second, third = problems_of(tmp_path, text)
    assert (first.column, first.field) == (1, "__expected1")
    assert 'did you mean "contains"?' in first.message
    assert (second.column, second.field) == (13, "__expected2")
    assert third.message == 'expected a number, found "high"'


def test_other_records_are_read_when_told_of_problems(tmp_path: Path) -> None:
    problems: list[Problem] = []
    rows = list(source(tmp_path, "a,b\n1\n1,2\n1,2,3\n3,4\n").read(problems.append))
    assert [row.line for row in rows] == [3, 5]
    assert [problem.line for problem in problems] == [2, 4]


def test_quotation_mark_that_is_never_closed(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, 'a,b\n1,2\n1,"2\n3,4\n')
    assert problem.line == 3
    assert "is never closed" in problem.message


def test_text_after_a_quotation_mark(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, 'a,b\n"1" x,2\n')
    assert problem.line == 2
    assert "not valid CSV" in problem.message


def test_cell_that_is_not_utf8(tmp_path: Path) -> None:
    assert problems_of(tmp_path, b"a,b\n1,\xe4\n") == (
        Problem("not UTF-8 text", tmp_path / "a.csv", 2, 3),
    )


def test_name_with_one_underscore_too_few(tmp_path: Path) -> None:
    (warning,) = source(tmp_path, "q,_expected\n1,2\n").warnings
    assert warning.endswith('column "_expected" is a variable; did you mean "__expected"?')
