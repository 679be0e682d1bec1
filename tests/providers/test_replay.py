"""Recorded answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from muster.errors import ConfigError, UsageError
from muster.provider import (
    BadProviderOutput,
    Message,
    Provider,
    ProviderFailed,
    ProviderRequest,
    ProviderResponse,
    TokenUsage,
)
from muster.providers.create import create_provider
from muster.target import ResolvedTarget


def write(path: Path, *rows: Any) -> Path:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def replay(folder: Path, *, safe: bool = False, **config: Any) -> Provider:
    return create_provider(
        ResolvedTarget(name="old", provider="replay", config=config, base_dir=folder, safe=safe)
    )


async def ask(provider: Provider, question: str = "?", **more: Any) -> ProviderResponse:
    return await provider.invoke(ProviderRequest(question=question, **more))


# --- files --------------------------------------------------------------------------------------


async def test_rows_by_id_with_their_accounting(tmp_path: Path) -> None:
    write(
        tmp_path / "rows.jsonl",
        {"id": "a", "output": "first", "token_usage": {"input": 3, "output": 1}, "cost_usd": 0},
        "",
        {"id": "b", "text": "second", "duration_ms": 12.5, "model": "m-1"},
        {"test_id": 7, "answer": {"value": 4}},
        {"id": "d", "output": [{"role": "assistant", "content": "fourth"}]},
        {"id": "e", "output": 42},
    )
    provider = replay(tmp_path, file="rows.jsonl")
    first = await ask(provider, eval_case_id="a")
    assert (first.text, first.token_usage, first.cost_usd) == ("first", TokenUsage(3, 1), 0)
    second = await ask(provider, eval_case_id="b")
    assert (second.text, second.duration_ms, second.model) == ("second", 12.5, "m-1")
    assert second.token_usage is None
    assert [(await ask(provider, eval_case_id=i)).text for i in ("7", "d", "e")] == [
        '{"value": 4}',
        "fourth",
        "42",
    ]
    await provider.aclose()  # type: ignore[attr-defined]


COUNTS = {"input": 1}


async def test_rows_by_question_and_paths_of_ones_own(tmp_path: Path) -> None:
    long = "Why " * 50
    write(
        tmp_path / "rows.jsonl",
        {
            "q": {"text": f"{long}\n"},
            "6b-model": {"said": "because"},
            "price": 2,
            "n": {"input": 1},
        },
        {"q": {"text": "ünï"}, "6b-model": {"said": "ja"}},
    )
    provider = replay(
        tmp_path,
        file="rows.jsonl",
        match="input",
        key="q.text",
        output='"6b-model".said',
        usage="n",
        cost="price",
    )
    response = await ask(provider, long)
    assert (response.text, response.cost_usd) == ("because", 2)
    assert response.token_usage == TokenUsage(1, 0)
    assert (await ask(provider, "ünï")).text == "ja"


async def test_streams_when_somebody_listens(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", {"id": "a", "output": "first"})
    heard: list[str] = []
    await ask(replay(tmp_path, file="rows.jsonl"), eval_case_id="a", on_chunk=heard.append)
    assert heard == ["first"]


async def test_rows_with_one_key_are_the_repeats(tmp_path: Path) -> None:
    write(
        tmp_path / "rows.jsonl",
        {"id": "a", "output": "0"},
        {"id": "b", "output": "always"},
        {"id": "a", "output": "1"},
        {"id": "a", "output": "2"},
    )
    provider = replay(tmp_path, file="rows.jsonl")
    for repeat in ("0", "1", "2"):
        response = await ask(provider, eval_case_id="a", metadata={"repeat": repeat})
        assert response.text == repeat
        other = await ask(provider, eval_case_id="b", metadata={"repeat": repeat})
        assert other.text == "always"
    assert (await ask(provider, eval_case_id="a")).text == "0"
    with pytest.raises(ProviderFailed, match=r'3 rows for id "a" .* none for repeat 3'):
        await ask(provider, eval_case_id="a", metadata={"repeat": "3"})


async def test_a_case_without_a_row(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"id": "a", "output": "x"}, {"id": "b", "output": "x"})
    provider = replay(tmp_path, file="rows.jsonl")
    with pytest.raises(ProviderFailed) as failure:
        await ask(provider, eval_case_id="c")
    assert str(failure.value) == (
        f'old: no row for id "c" in {path} (by `id || test_id || case_id`; 2 rows, e.g. "a")'
    )
    assert not failure.value.retryable
    with pytest.raises(ProviderFailed, match="no case id"):
        await ask(provider)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "a", "out": "x"}, "rows.jsonl:1: no `output .. text"),
        ({"id": "a", "output": "x", "token_usage": {"input": "many"}}, "whole number"),
        ({"id": "a", "output": "x", "token_usage": 5}, "no mapping of counts"),
        ({"id": "a", "output": "x", "cost_usd": "much"}, "the cost is no number"),
    ],
)
async def test_a_row_without_a_usable_answer(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    write(tmp_path / "rows.jsonl", row)
    with pytest.raises(BadProviderOutput, match=message) as failure:
        await ask(replay(tmp_path, file="rows.jsonl"), eval_case_id="a")
    assert not failure.value.retryable


async def test_a_recorded_error_is_raised_again(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", {"id": "a", "error": "HTTP 500"})
    with pytest.raises(ProviderFailed, match=":1: the recording is of an error: HTTP 500"):
        await ask(replay(tmp_path, file="rows.jsonl"), eval_case_id="a")


def test_every_bad_line_is_named(tmp_path: Path) -> None:
    write(
        tmp_path / "rows.jsonl",
        {"id": "a", "output": "x"},
        '{"id": "b", ',
        "[1]",
        {"name": "c"},
        {"id": ["d"]},
    )
    with pytest.raises(ConfigError) as error:
        replay(tmp_path, file="rows.jsonl")
    found = [(problem.line, problem.message) for problem in error.value.problems]
    assert [line for line, _ in found] == [2, 3, 4, 5]
    assert found[0][1].startswith("not valid JSON: ")
    assert found[1][1] == "not a JSON object"
    assert found[2][1].startswith("no `id || test_id || case_id` in this row")


async def test_a_torn_last_line_of_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"id": "a", "output": "x"}\n{"id": "b", "out')
    with pytest.raises(ConfigError, match=r"rows\.jsonl:2: not valid JSON"):
        replay(tmp_path, file="rows.jsonl")


async def test_a_file_without_a_last_line_break_and_with_a_bom(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(
        '{"id": "a", "output": "x"}\r\n{"id": "b", "output": "y"}', encoding="utf-8-sig"
    )
    provider = replay(tmp_path, file="rows.jsonl")
    assert [(await ask(provider, eval_case_id=i)).text for i in "ab"] == ["x", "y"]


async def test_a_file_that_changes_meanwhile(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"id": "a", "output": "x"})
    provider = replay(tmp_path, file="rows.jsonl")
    path.write_text("")
    with pytest.raises(ProviderFailed, match="cannot be read any more"):
        await ask(provider, eval_case_id="a")


def test_only_places_are_kept_in_memory(tmp_path: Path) -> None:
    import tracemalloc

    with (tmp_path / "rows.jsonl").open("w") as file:
        for number in range(5_000):
            file.write(json.dumps({"question": f"{number} " * 100, "output": "x" * 2_000}) + "\n")
    tracemalloc.start()
    try:
        provider = replay(tmp_path, file="rows.jsonl", match="input")
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert provider is not None
    assert held < 2_500_000  # 12 MB of rows


# --- runs ---------------------------------------------------------------------------------------


def result(test_id: str, **more: Any) -> dict[str, Any]:
    return {
        "test_id": test_id,
        "suite": "math",
        "target": "good",
        "execution_status": "ok",
        "score": 1.0,
        "threshold": 0.8,
        "input": "2+2?",
        **more,
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    write(
        tmp_path / "run" / "results.jsonl",
        result("a", output="4", token_usage={"input": 5, "output": 1}, cost_usd=0.1, model="m"),
        result("a", target="bad", output="5"),
        result("a", output="four", repeat=1, duration_ms=30),
        result("a", suite="words", output="a word"),
        result("b", execution_status="execution_error", score=None, error="HTTP 503"),
        result("p", prompt="short", input="Short: x", output="s"),
        result("p", prompt="long", input="Long: x", output="l"),
        result(
            "tools",
            output="sunny",
            messages=[
                {"role": "assistant", "content": "", "tool_calls": [{"tool": "w", "input": {}}]},
                {"role": "assistant", "content": "sunny"},
            ],
        ),
        result(
            "talk",
            output="3",
            cost_usd=0.3,
            turns=[
                {"input": "one?", "output": "1"},
                {"input": "again?", "output": "2"},
                {"input": "again?", "output": "3"},
            ],
        ),
    )
    with (tmp_path / "run" / "results.jsonl").open("a") as file:
        file.write('{"test_id": "c", "suite": "ma')
    return tmp_path


async def test_a_run_is_replayed(run: Path) -> None:
    provider = replay(run, run="run", target="good")
    first = await ask(provider, "2+2?", eval_case_id="a", metadata={"suite": "math", "repeat": "0"})
    assert (first.text, first.token_usage, first.cost_usd) == ("4", TokenUsage(5, 1), 0.1)
    assert first.model == "m"
    second = await ask(
        provider, "2+2?", eval_case_id="a", metadata={"suite": "math", "repeat": "1"}
    )
    assert (second.text, second.duration_ms) == ("four", 30)
    other = await ask(provider, eval_case_id="a", metadata={"suite": "words", "repeat": "4"})
    assert other.text == "a word"
    with pytest.raises(ProviderFailed, match="none for repeat 2"):
        await ask(provider, "2+2?", eval_case_id="a", metadata={"suite": "math", "repeat": "2"})


async def test_prompts_of_one_case_are_told_apart_by_their_question(run: Path) -> None:
    provider = replay(run, run="run/results.jsonl", target="good")
    assert (await ask(provider, "Long: x", eval_case_id="p")).text == "l"
    assert (await ask(provider, "Short: x", eval_case_id="p")).text == "s"


async def test_messages_of_a_run_come_with_their_tool_calls(run: Path) -> None:
    response = await ask(replay(run, run="run", target="good"), eval_case_id="tools")
    assert (response.text, response.tool_calls[0].tool) == ("sunny", "w")


async def test_a_conversation_is_replayed_turn_by_turn(run: Path) -> None:
    provider = replay(run, run="run", target="good")
    history: tuple[Message, ...] = ()
    answers = []
    for question in ("one?", "again?", "again?"):
        response = await ask(provider, question, eval_case_id="talk", messages=history)
        answers.append((response.text, response.cost_usd))
        history = (*history, Message("user", question), *response.output)
    assert answers == [("1", None), ("2", None), ("3", 0.3)]
    with pytest.raises(BadProviderOutput, match="none of the recorded turns asks"):
        await ask(provider, "other?", eval_case_id="talk")


async def test_an_error_of_a_run_stays_an_error(run: Path) -> None:
    with pytest.raises(ProviderFailed, match="the recording is of an error: HTTP 503"):
        await ask(replay(run, run="run", target="good"), eval_case_id="b")


async def test_a_run_by_its_input(run: Path) -> None:
    provider = replay(run, run="run", target="bad", match="input")
    assert (await ask(provider, "2+2?")).text == "5"


def test_the_target_of_a_run_must_be_known(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"several targets \(bad, good\); say which"):
        replay(run, run="run")
    with pytest.raises(ConfigError, match=r'no row of a target "god" \(found: bad, good\)'):
        replay(run, run="run", target="god")


# --- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "one of `file` and `run` is required"),
        ({"file": "a", "run": "b"}, "one of `file` and `run` is required"),
        ({"file": "a", "target": "t"}, "a `file` has none"),
        ({"file": "a", "match": "name"}, "'id' or 'input'"),
        ({"file": "a", "output": "a..b"}, "'a..b' is not a JMESPath expression at character 3"),
        ({"file": "a", "output": "6b.text"}, "is quoted"),
    ],
)
def test_settings_that_are_wrong(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        replay(tmp_path, **config)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.jsonl: no such file"):
        replay(tmp_path, file="absent.jsonl")


def test_safe_keeps_to_the_folder_of_the_targets_file(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", {"id": "a", "output": "x"})
    inside = tmp_path / "project"
    inside.mkdir()
    (inside / "link.jsonl").symlink_to(tmp_path / "rows.jsonl")
    for path in ("../rows.jsonl", str(tmp_path / "rows.jsonl"), "link.jsonl"):
        with pytest.raises(UsageError, match=r"--safe refuses .* lies outside"):
            replay(inside, file=path, safe=True)
    assert replay(tmp_path, file="rows.jsonl", safe=True)
