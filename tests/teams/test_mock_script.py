"""Scripts of the mock: what is read, and what is refused with its place."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from muster.errors import ConfigError
from muster.providers.mock_script import MockSettings
from muster.teams.mock_script import Expectation, read_script


def written(folder: Path, text: str) -> Path:
    path = folder / "team.test.yaml"
    path.write_text(dedent(text))
    return path


def test_settings_are_those_of_a_mock(tmp_path: Path) -> None:
    script = read_script(
        written(
            tmp_path,
            """
            replies:
              - {role: a, attempt: 0, error: rate_limited}
              - {role: [a, b], json: {x: null}}
              - {case: c, chunks: [x, y], times: 2}
              - {turn: 1, tool_calls: [{tool: t, input: {n: 1}}]}
            default: else
            delay: 0.5
            """,
        )
    )
    assert script.settings == {
        "replies": [
            {"case": "a", "attempt": 0, "error": {"kind": "rate_limited"}},
            {"case": ["a", "b"], "json": {"x": None}},
            {"case": "c", "chunks": ["x", "y"], "times": 2},
            {"turn": 1, "tool_calls": [{"tool": "t", "input": {"n": 1}}]},
        ],
        "default": {"text": "else"},
        "delay": 0.5,
    }
    settings = MockSettings.model_validate(dict(script.settings))
    assert [rule.answer for rule in settings.replies] == ["", '{"x": null}', "xy", ""]


def test_a_script_without_tests_is_one(tmp_path: Path) -> None:
    script = read_script(written(tmp_path, "expect: {output: hello}\n"))
    (test,) = script.tests
    assert (test.name, test.entry.input) == ("team", {})
    assert test.entry.expect.output is not None
    assert test.entry.expect.output.equals == "hello"
    empty = read_script(written(tmp_path, ""))
    assert [test.name for test in empty.tests] == ["team"]


def test_a_tests_own_replies_and_tools_go_first(tmp_path: Path) -> None:
    script = read_script(
        written(
            tmp_path,
            """
            replies: [{text: shared}]
            default: shared default
            delay: 1
            tools: {a: shared, b: shared}
            tests:
              - {name: plain}
              - name: own
                replies: [{text: own}]
                default: own default
                tools: {b: own}
            """,
        )
    )
    plain, own = script.tests
    assert [reply["text"] for reply in plain.settings["replies"]] == ["shared"]
    assert [reply["text"] for reply in own.settings["replies"]] == ["own", "shared"]
    assert own.settings["default"] == {"text": "own default"}
    assert own.settings["delay"] == 1
    assert {name: result.text for name, result in own.tools.items()} == {"a": "shared", "b": "own"}


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ({}, "succeeded"),
        ({"reason": "Succeeded"}, "succeeded"),
        ({"reason": "TimedOut"}, "failed"),
        ({"error": "x"}, "failed"),
        ({"status": "succeeded", "error": "x"}, "succeeded"),
    ],
)
def test_status_that_is_not_said(text: dict[str, str], status: str) -> None:
    assert Expectation.model_validate(text).wanted_status == status


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("replies: [{rle: a, text: x}]", '1:12: replies[0].rle: unknown field "rle"'),
        ("replies: [{role: a}]", "a reply needs `text`, `json`, `chunks`, `tool_calls` or `error`"),
        ("replies: [{role: a, error: rate_limit}]", 'did you mean "rate_limited"?'),
        ("tests: [{input: {}}]", '1:9: tests[0].name: "name" is required'),
        (
            "tests:\n- name: a\n- name: a",
            '3:9: tests[1].name: there are two tests called "a"',
        ),
        ("tests: [{name: a}]\nexpect: {}", "`expect` stands within each of the `tests`"),
        ("expect: {output: {match: x}}", 'unknown field "match" (did you mean "matches"?)'),
        ("expect: {output: {matches: '('}}", "1:28: expect.output.matches: not a regular expr"),
        ("expect: {output: {schema: {type: thing}}}", "1:27: expect.output.schema: not a JSON Sch"),
        ("expect: {reason: Broken}", "expect.reason"),
        ("expect: {steps: {a: {attempts: many}}}", "1:32: expect.steps.a.attempts"),
        ("tools: {t: {text: a, error: b}}", "exactly one of `text`, `json` and `error`"),
        ("tools: {t: {}}", "exactly one of `text`, `json` and `error`"),
        ("- a", "mapping"),
    ],
)
def test_mistakes_are_told_with_their_place(tmp_path: Path, text: str, told: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_script(path)
    assert told in str(caught.value)
    assert str(caught.value).startswith(f"{path}:")
