"""Data sets by file, glob and folder."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.errors import ConfigError, Problem
from muster.evals.suites.dataset import RowSource, rows_of


def source(folder: Path, ref: str, **options: bool) -> RowSource:
    return rows_of(ref, base_dir=folder, project_root=folder, **options)


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def problem_of(folder: Path, ref: str) -> Problem:
    with pytest.raises(ConfigError) as caught:
        list(source(folder, ref))
    (problem,) = caught.value.problems
    return problem


# --- JSONL ----------------------------------------------------------------------------------------


def test_jsonl_gives_the_same_rows_on_every_pass(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"id": "one"}\n\n  \r\n{"id": "two"}')
    rows = source(tmp_path, "file://a.jsonl")
    for _ in range(2):
        assert [(row.data["id"], row.line) for row in rows] == [("one", 1), ("two", 4)]
    assert rows.paths == (path,)
    assert rows.warnings == ()


def test_jsonl_places_are_found_on_demand(tmp_path: Path) -> None:
    text = '{"id": "a"}\n{"id": "\\ud83d\\ude00", "url": "a\\/b", "assert": [{"type": "no"}]}\n'
    path = write(tmp_path / "a.jsonl", text)
    row = list(source(tmp_path, "a.jsonl"))[1]
    problem = row.document.problem((*row.location, "assert", 0, "type"), "unknown")
    column = text.splitlines()[1].index('"no"') + 1
    assert problem == Problem("unknown", path, 2, column, "assert[0].type")


def test_jsonl_place_that_is_not_there_is_the_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '\n{"id": "a"}\n')
    (row,) = source(tmp_path, "a.jsonl")
    assert row.document.problem(("vars",), "x") == Problem("x", path, 2, 1, "vars")


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        ('{"é": x}', 7, "not valid JSON: invalid character"),
        ('{"id": "a"', 11, "not valid JSON: the line ends too early"),
        ('{"id": 1,}', 10, "not valid JSON: trailing comma in object"),
        ("[1]", 1, "expected an object (a test), found a list"),
        ('"text"', 1, "expected an object (a test), found text"),
    ],
)
def test_jsonl_bad_line(tmp_path: Path, line: str, column: int, message: str) -> None:
    path = write(tmp_path / "a.jsonl", f'{{"id": "good"}}\n{line}\n')
    assert problem_of(tmp_path, "a.jsonl") == Problem(message, path, 2, column)


def test_jsonl_that_is_nested_too_deeply(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", '{"a":' + "[" * 100_000)
    assert problem_of(tmp_path, "a.jsonl").message == "not valid JSON: nested too deeply"


def test_jsonl_line_that_is_not_utf8(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'{"id": "a"}\n{"id": "\xff"}\n')
    assert problem_of(tmp_path, "a.jsonl") == Problem("not UTF-8 text", path, 2, 9)


def test_jsonl_goes_on_after_a_bad_line_when_told_to(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", '{"id": 1}\n{\n{"id": 2}\n[]\n{"id": 3}\n')
    problems: list[Problem] = []
    rows = list(source(tmp_path, "a.jsonl").read(problems.append))
    assert [row.data["id"] for row in rows] == [1, 2, 3]
    assert [problem.line for problem in problems] == [2, 4]


def test_jsonl_with_a_byte_order_mark_and_packed(tmp_path: Path) -> None:
    text = b'\xef\xbb\xbf{"id": "a"}\n{"id": "b"}\n'
    write(tmp_path / "a.jsonl", text)
    write(tmp_path / "a.jsonl.gz", gzip.compress(text))
    for ref in ("a.jsonl", "a.jsonl.gz"):
        assert [row.data["id"] for row in source(tmp_path, ref)] == ["a", "b"]


@pytest.mark.parametrize(
    "packed", [b"not gzip", gzip.compress(b'{"id": "a"}\n' * 1000, mtime=0)[:-20]]
)
def test_packed_file_that_is_broken(tmp_path: Path, packed: bytes) -> None:
    path = write(tmp_path / "a.jsonl.gz", packed)
    problem = problem_of(tmp_path, "a.jsonl.gz")
    assert problem.path == path
    assert "cannot be read" in problem.message


def test_jsonl_is_streamed(tmp_path: Path) -> None:
    line = json.dumps({"id": "x", "input": "y" * 1000}) + "\n"
    write(tmp_path / "a.jsonl", line * 20_000)
    tracemalloc.start()
    count = sum(1 for _ in source(tmp_path, "a.jsonl"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 1_000_000


@given(st.dictionaries(st.text(max_size=8), st.text() | st.integers(-(2**53), 2**53), max_size=4))
def test_any_object_comes_back(tmp_path_factory: pytest.TempPathFactory, data: dict) -> None:
    folder = tmp_path_factory.mktemp("rows")
    write(folder / "a.jsonl", json.dumps(data) + "\n")
    (row,) = source(folder, "a.jsonl")
    assert row.data == data
    for key in data:
        problem = row.document.problem((key,), "x")
        assert (problem.line, problem.field) == (1, key or None)


# --- lists in YAML and JSON -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "location", "line"),
    [
        ("a.yaml", "# x\n- id: one\n- id: two\n", (1,), 3),
        ("a.yml", "name: x\ntests:\n  - id: one\n  - id: two\n", ("tests", 1), 4),
        ("a.json", '[{"id": "one"},\n {"id": "two"}]', (1,), 2),
        ("a.json", '{"tests": [\n{"id": "one"},\n {"id": "two"}]}', ("tests", 1), 3),
    ],
)
def test_list_file(
    tmp_path: Path, name: str, text: str, location: tuple[str | int, ...], line: int
) -> None:
    path = write(tmp_path / name, text)
    rows = source(tmp_path, name)
    one, two = rows
    assert [one.data, two.data] == [{"id": "one"}, {"id": "two"}]
    assert two.location == location
    problem = two.document.problem((*two.location, "id"), "x")
    assert (problem.path, problem.line) == (path, line)
    assert list(rows) == [one, two]


def test_list_file_that_also_says_other_things_warns(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "name: x\nassertions: []\ntests: []\n")
    (warning,) = source(tmp_path, "a.yaml").warnings
    assert warning.endswith("a.yaml: only its `tests` are read, not assertions")


def test_list_file_with_an_item_that_is_no_test(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "- id: one\n- two\n- id: three\n")
    message = "expected a mapping (a test), found text"
    assert problem_of(tmp_path, "a.yaml") == Problem(message, path, 2, 3, "[1]")
    problems: list[Problem] = []
    assert len(list(source(tmp_path, "a.yaml").read(problems.append))) == 2
    assert len(problems) == 1


@pytest.mark.parametrize(
    ("name", "text", "line", "message"),
    [
        ("a.yaml", "- id: one\n  id: two\n", 2, 'duplicate key "id"'),
        ("a.yaml", "tests: nothing\n", 1, "expected a list of tests, found text"),
        ("a.yaml", "\n", 1, "expected a list of tests, found nothing"),
        ("a.json", '[\n{"id": 1, "id": 2}]', 2, 'duplicate key "id"'),
        ("a.json", '[\n{"id": 1,}]', 2, "not valid JSON"),
        ("a.json", "[" * 200_000, None, "nested too deeply"),
    ],
)
def test_list_file_that_is_wrong(
    tmp_path: Path, name: str, text: str, line: int | None, message: str
) -> None:
    path = write(tmp_path / name, text)
    problem = problem_of(tmp_path, name)
    assert (problem.path, problem.line) == (path, line)
    assert message in problem.message


# --- globs and folders ----------------------------------------------------------------------------


def test_glob_reads_files_in_order(tmp_path: Path) -> None:
    write(tmp_path / "cases/b.yaml", "id: b\nvars: {x: 1}\n")
    write(tmp_path / "cases/a.yaml", "- id: a1\n- id: a2\n")
    write(tmp_path / "cases/sub/c.yaml", "tests: [{id: c}]\n")
    assert [row.data["id"] for row in source(tmp_path, "cases/*.yaml")] == ["a1", "a2", "b"]
    deep = source(tmp_path, "file://cases/**/*.yaml")
    assert [row.data["id"] for row in deep] == ["a1", "a2", "b", "c"]
    assert [path.name for path in deep.paths] == ["a.yaml", "b.yaml", "c.yaml"]


def test_name_with_brackets_is_a_file_before_it_is_a_pattern(tmp_path: Path) -> None:
    write(tmp_path / "a[1].jsonl", '{"id": "x"}\n')
    assert len(list(source(tmp_path, "a[1].jsonl"))) == 1


def test_glob_without_a_match(tmp_path: Path) -> None:
    assert problem_of(tmp_path, "*.yaml") == Problem("no file matches", tmp_path / "*.yaml")


def test_folder_of_cases(tmp_path: Path) -> None:
    write(tmp_path / "cases/b/case.yaml", "input: hi\n")
    write(tmp_path / "cases/a/case.yml", "id: own\ninput: hi\n")
    write(tmp_path / "cases/notes/x.txt", "")
    write(tmp_path / "cases/.hidden/x.txt", "")
    rows = source(tmp_path, "./cases/")
    assert [row.data["id"] for row in rows] == ["own", "b"]
    (warning,) = rows.warnings
    assert "notes: holds no case.yaml" in warning
    assert len(rows.paths) == 2
    problem = list(rows)[1].document.problem(("input",), "x")
    assert problem.path == tmp_path / "cases/b/case.yaml"
    assert (problem.line, problem.column) == (1, 8)


def test_folder_with_a_broken_case(tmp_path: Path) -> None:
    write(tmp_path / "cases/a/case.yaml", "input: [\n")
    write(tmp_path / "cases/b/case.yaml", "input: hi\n")
    assert problem_of(tmp_path, "cases").path == tmp_path / "cases/a/case.yaml"
    problems: list[Problem] = []
    rows = list(source(tmp_path, "cases").read(problems.append))
    assert [row.data["id"] for row in rows] == ["b"]
    assert len(problems) == 1


def test_folder_without_cases(tmp_path: Path) -> None:
    write(tmp_path / "cases/x.yaml", "[]")
    assert "holds no test" in problem_of(tmp_path, "cases").message


# --- what is not there, and what is refused -------------------------------------------------------


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "cases.jsonl", "")
    message = 'no such file (did you mean "cases.jsonl"?)'
    assert problem_of(tmp_path, "file://case.jsonl") == Problem(message, tmp_path / "case.jsonl")
    assert "there is no folder" in problem_of(tmp_path, "data/case.jsonl").message


def test_file_outside_the_project(tmp_path: Path) -> None:
    write(tmp_path / "secret.jsonl", '{"id": "x"}\n')
    project = tmp_path / "project"
    project.mkdir()
    (project / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    for ref in ("../secret.jsonl", str(tmp_path / "secret.jsonl"), "link.jsonl", "../*.jsonl"):
        assert "is outside the project" in problem_of(project, ref).message
        assert len(list(source(project, ref, allow_outside=True))) == 1


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("huggingface://datasets/x", 'cannot read tests from "huggingface://"'),
        ("tests.js", "write the generator in Python"),
        ("tests.ts:make", "write the generator in Python"),
        ("a.xlsx", "is a spreadsheet; save it as CSV"),
        ("a.toml", "cannot read tests from this kind of file"),
        ("a.json.gz", "cannot read tests from this kind of file"),
    ],
)
def test_unknown_kind(tmp_path: Path, ref: str, message: str) -> None:
    for name in ("a.xlsx", "a.toml", "a.json.gz"):
        write(tmp_path / name, "")
    assert message in problem_of(tmp_path, ref).message
