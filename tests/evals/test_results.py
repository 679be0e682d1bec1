from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eval_parts import make_result
from muster.config.secrets import MASK, Masker
from muster.errors import MusterError, UsageError
from muster.evals.results import (
    CaseResult,
    ResultsWriter,
    read_results,
    read_run,
    resume_results,
    run_lock,
    write_run,
)

same_folder = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write(folder: Path, *results: CaseResult, masker: Masker | None = None) -> list[CaseResult]:
    writer = ResultsWriter(folder, masker)
    try:
        return [writer.write(result) for result in results]
    finally:
        writer.close()


def lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "results.jsonl").read_text()
    assert text.endswith("\n") or not text
    return [json.loads(line) for line in text.splitlines()]


# --- there and back -------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
mappings = st.dictionaries(texts, json_values, max_size=3)
results_drawn = st.builds(
    make_result,
    test_id=texts,
    suite=texts,
    target_used=st.none() | texts,
    repeat=st.integers(0, 99),
    score=st.none() | st.floats(0, 1),
    scores=st.lists(mappings, max_size=2),
    input=json_values,
    output=st.none() | texts,
    messages=st.lists(mappings, max_size=2),
    error=st.none() | texts,
    token_usage=st.none() | st.just({"input": 1, "output": 2}),
    cost_usd=st.none() | st.floats(0, 10),
    turns=st.none() | st.lists(mappings, max_size=2),
    prompt=st.none() | texts,
    tags=st.lists(texts, max_size=2),
    metadata=mappings,
)


@same_folder
@given(st.lists(results_drawn, max_size=4))
def test_what_is_written_is_read(tmp_path: Path, results: list[CaseResult]) -> None:
    (tmp_path / "results.jsonl").unlink(missing_ok=True)
    assert write(tmp_path, *results) == results
    assert list(read_results(tmp_path)) == results
    assert (tmp_path / "results.jsonl").read_bytes().count(b"\n") == len(results)


def test_fields_that_matter_are_in_every_line_the_others_where_they_say_something(
    tmp_path: Path,
) -> None:
    write(tmp_path, make_result(), make_result(tags=["x"], prompt="p"))
    plain, more = lines(tmp_path)
    assert set(plain) == {
        *("test_id", "suite", "target", "target_used", "repeat", "execution_status", "score"),
        *("threshold", "scores", "input", "output", "messages", "error", "provider", "attempts"),
        *("token_usage", "cost_usd", "duration_ms", "started_at"),
    }
    assert set(more) - set(plain) == {"tags", "prompt"}


def test_values_that_json_does_not_know_are_written_as_text(tmp_path: Path) -> None:
    write(tmp_path, make_result(metadata={"file": Path("/a/b")}, input=[complex(1, 2)]))
    (row,) = lines(tmp_path)
    assert (row["metadata"], row["input"]) == ({"file": "/a/b"}, ["(1+2j)"])


def test_keys() -> None:
    result = make_result("a", prompt="p", repeat=2)
    assert result.key == ("s", "a", "p", "t", 2)
    result.eval_path = "x/y.yaml"
    assert result.key == ("x/y.yaml", "a", "p", "t", 2)


def test_writers_append(tmp_path: Path) -> None:
    write(tmp_path, make_result("a"))
    write(tmp_path, make_result("b"))
    assert [row["test_id"] for row in lines(tmp_path)] == ["a", "b"]


def test_a_result_is_on_disk_when_write_returns(tmp_path: Path) -> None:
    writer = ResultsWriter(tmp_path)
    writer.write(make_result("a"))
    assert [result.test_id for result in read_results(tmp_path)] == ["a"]
    writer.close()


# --- secrets --------------------------------------------------------------------------------------

SPOKEN = {
    "scores": [{"name": "g", "assertions": [{"text": "has SECRET", "passed": True}]}],
    "input": [{"role": "user", "content": "SECRET"}],
    "output": "a SECRET b",
    "expected_output": "SECRET",
    "criteria": "SECRET",
    "messages": [{"role": "assistant", "content": ["SECRET", {"SECRET": "x"}]}],
    "turns": [{"input": "SECRET"}],
    "error": "no SECRET!",
    "metadata": {"SECRET": {"deep": ["SECRET"]}},
}
NAMES = {"test_id": "SECRET", "suite": "SECRET", "target": "SECRET", "prompt": "SECRET"}


def strings_in(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.items() for text in strings_in(list(item))]
    if isinstance(value, list):
        return [text for item in value for text in strings_in(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize(
    "secret", ["sk-12345678", 'with "quotes"', "back\\slash\n", "true", "1000", "ünïcode", "a+b/c="]
)
def test_secrets_are_masked_in_texts_and_names_stay(tmp_path: Path, secret: str) -> None:
    def having(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("SECRET", secret)
        if isinstance(value, dict):
            return {having(key): having(item) for key, item in value.items()}
        return [having(item) for item in value] if isinstance(value, list) else value

    numbers = {"cost_usd": 1000.0, "duration_ms": 1000.0, "token_usage": {"input": 1000}}
    fields = having(SPOKEN) | having(NAMES) | numbers
    (shown,) = write(tmp_path, make_result(**fields), masker=Masker([secret]))
    (row,) = lines(tmp_path)
    for name in SPOKEN:
        found = strings_in(row[name])
        assert any(MASK in text for text in found)
        assert not any(secret.strip() in text for text in found)
    assert {name: row[name] for name in NAMES} == dict.fromkeys(NAMES, secret)
    assert {name: row[name] for name in numbers} == numbers
    assert row["scores"][0]["assertions"][0]["passed"] is True
    # What is shown is what was written.
    assert [shown] == list(read_results(tmp_path))


@same_folder
@given(results_drawn, st.lists(texts.filter(lambda text: len(text.strip()) > 3), max_size=3))
def test_whatever_the_secret_the_line_can_be_read(
    tmp_path: Path, result: CaseResult, secrets: list[str]
) -> None:
    (tmp_path / "results.jsonl").unlink(missing_ok=True)
    (shown,) = write(tmp_path, result, masker=Masker(secrets))
    assert list(read_results(tmp_path)) == [shown]
    assert shown.key == result.key
    assert Masker(secrets).mask(shown.output or "") == (shown.output or "")


def test_a_result_without_secrets_is_given_back_as_it_is(tmp_path: Path) -> None:
    result = make_result(output="nothing")
    assert write(tmp_path, result, masker=Masker(["hidden-one"]))[0] is result
    assert write(tmp_path, result, masker=Masker([]))[0] is result


# --- broken files ---------------------------------------------------------------------------------


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, make_result("a"), make_result("b"))
    path = tmp_path / "results.jsonl"
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole), 5):
        path.write_bytes(whole[:end])
        assert [result.test_id for result in read_results(tmp_path)] == ["a"]


@pytest.mark.parametrize("broken", [b"{", b"", b"[]", b'{"test_id": "x"}', b"\xff\xfe", b"null"])
def test_a_broken_line_in_the_middle_is_named(tmp_path: Path, broken: bytes) -> None:
    write(tmp_path, make_result("a"), make_result("b"))
    path = tmp_path / "results.jsonl"
    a, b = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([a, broken, b, b""]))
    found = read_results(tmp_path)
    assert next(found).test_id == "a"
    with pytest.raises(MusterError) as caught:
        next(found)
    assert str(caught.value).startswith(f"{path}:2: not a result: ")


def test_no_results(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        next(read_results(tmp_path))
    assert str(caught.value) == f"{tmp_path}: no results.jsonl there; is it the folder of a run?"


# --- one writer -----------------------------------------------------------------------------------


def test_a_second_writer_is_refused_until_the_first_is_through(tmp_path: Path) -> None:
    with run_lock(tmp_path):
        with pytest.raises(UsageError) as caught, run_lock(tmp_path):
            pass
        assert str(caught.value) == f"{tmp_path}: another process is writing this run"
    with run_lock(tmp_path):
        pass
    with pytest.raises(KeyError), run_lock(tmp_path):
        raise KeyError
    with run_lock(tmp_path):
        pass


def test_what_is_no_folder_cannot_be_held(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, why in [("gone", "No such file or directory"), ("file", "Not a directory")]:
        with (
            pytest.raises(UsageError, match=rf"{name}: cannot be opened: {why}"),
            run_lock(tmp_path / name),
        ):
            pass


# --- a full disk ----------------------------------------------------------------------------------


def full_disk(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "act",
    [
        lambda folder: write(folder, make_result("b")),
        lambda folder: write_run(folder, {"status": "x"}),
        lambda folder: resume_results(folder, lambda result: True),
    ],
    ids=["write", "write_run", "resume_results"],
)
def test_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Path], object]
) -> None:
    write(tmp_path, make_result("a"))
    write_run(tmp_path, {"status": "running"})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(os, "write", full_disk)
    monkeypatch.setattr(os, "fsync", full_disk)
    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(MusterError, match=r"cannot be written: No space left on device$") as caught:
        act(tmp_path)
    monkeypatch.undo()
    assert str(caught.value).startswith(f"{tmp_path}/r")
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_a_disk_that_takes_a_line_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: really(fd, data[:7]))
    results = [make_result("a" * 50), make_result("b")]
    write(tmp_path, *results)
    monkeypatch.undo()
    assert list(read_results(tmp_path)) == results


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").mkdir()
    with pytest.raises(MusterError, match=r"results.jsonl: cannot be written: Is a directory"):
        ResultsWriter(tmp_path)


# --- going on with a run --------------------------------------------------------------------------


def test_each_key_is_kept_once_and_the_first_counts(tmp_path: Path) -> None:
    def result(name: str, output: str, **fields: Any) -> CaseResult:
        return make_result(name, output=output, **fields)

    write(
        tmp_path,
        result("a", "1"),
        result("b", "bad"),
        result("a", "2"),
        result("a", "3", repeat=1),
        result("a", "4", prompt="p"),
        result("a", "5", target="u"),
        result("a", "6", eval_path="e"),
        result("b", "7"),
    )
    path = tmp_path / "results.jsonl"
    path.write_bytes(path.read_bytes() + b'{"test_id": "torn')
    kept = resume_results(tmp_path, lambda result: result.output != "bad")
    assert [result.output for result in kept] == ["1", "3", "4", "5", "6", "7"]
    assert [row["output"] for row in lines(tmp_path)] == ["1", "3", "4", "5", "6", "7"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.jsonl"]


def test_a_kill_while_the_results_are_put_in_order_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, make_result("a"), make_result("b"))
    before = (tmp_path / "results.jsonl").read_bytes()

    def killed(result: CaseResult) -> bool:
        if result.test_id == "b":
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        resume_results(tmp_path, killed)
    assert (tmp_path / "results.jsonl").read_bytes() == before
    kept = resume_results(tmp_path, lambda result: True)  # what was left of it is no hindrance
    assert [result.test_id for result in kept] == ["a", "b"]


def test_a_broken_line_stops_it_and_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text("oh\n")
    with pytest.raises(MusterError, match=r"results\.jsonl:1: not a result: "):
        resume_results(tmp_path, lambda result: True)
    assert path.read_text() == "oh\n"


# --- run.json -------------------------------------------------------------------------------------


def test_the_record_of_a_run(tmp_path: Path) -> None:
    write_run(tmp_path, {"status": "running", "cwd": Path("/a")})
    write_run(tmp_path, {"status": "complete", "cwd": Path("/a"), "n": [1]})
    assert read_run(tmp_path) == {"status": "complete", "cwd": "/a", "n": [1]}
    text = (tmp_path / "run.json").read_text()
    assert text == '{\n  "status": "complete",\n  "cwd": "/a",\n  "n": [\n    1\n  ]\n}\n'
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "{folder}: no run.json there; is it the folder of a run?"),
        ("{", "{folder}/run.json: not valid JSON: "),
        ("[1]", "{folder}/run.json: not the record of a run"),
    ],
)
def test_no_record(tmp_path: Path, text: str | None, why: str) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_run(tmp_path)
    assert str(caught.value).startswith(why.format(folder=tmp_path))


def test_a_secret_in_a_value_that_is_no_text_is_masked_too(tmp_path: Path) -> None:
    writer = ResultsWriter(tmp_path, Masker(["hidden-one"]))
    writer.write(make_result(metadata={"file": Path("/x/hidden-one"), "half": "\ud800"}))
    writer.close()
    (result,) = read_results(tmp_path)
    assert result.metadata == {"file": "/x/**********", "half": "\ufffd"}
