"""How far the calls are those expected; every score counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from muster.evals.scoring import ScoreRow
from muster.provider import Message, ToolCall

Judged = Callable[..., ScoreRow]

CALLS = (
    ToolCall("search", {"q": "tokyo", "n": 5}),
    ToolCall("search", {"q": "weather"}),
    ToolCall("delete", {}),
)


def grade(judged: Judged, expected: Any, calls: tuple[ToolCall, ...] = CALLS, **more: Any) -> Any:
    output = (Message("assistant", "", tool_calls=calls), Message("assistant", "done"))
    entry = {"type": "tool-call-f1", "expected": expected, **more}
    return judged(entry, output)


@pytest.mark.parametrize(
    ("expected", "score"),
    [
        (["search", "fetch"], 0.5),  # search right, delete too many, fetch missing
        ("search, delete", 1.0),
        (["search"], 2 / 3),
        (["fetch"], 0.0),
        # One by one: two searches are right, delete is too many.
        (["search", "search"], 2 * 2 / (2 * 2 + 1)),
        ([{"tool": "search", "args": {"q": "tokyo"}}], 2 / (2 + 2)),
        ([{"tool": "search", "args": {"q": "tokyo"}, "args_match": "exact"}], 0.0),
        # Whichever call the first entry could have, the second must have the one left to it.
        (["search", {"tool": "search", "args": {"q": "tokyo"}}, "delete"], 1.0),
    ],
)
def test_scores(judged: Judged, expected: Any, score: float) -> None:
    assert grade(judged, expected).score == pytest.approx(score)


def test_what_is_told(judged: Judged) -> None:
    details = grade(judged, ["search", "fetch"]).details
    assert (details["precision"], details["recall"], details["f1"]) == (0.5, 0.5, 0.5)
    assert details["confusion"] == {
        "search": {"tp": 1, "fp": 0, "fn": 0},
        "fetch": {"tp": 0, "fp": 0, "fn": 1},
        "delete": {"tp": 0, "fp": 1, "fn": 0},
    }


def test_a_threshold_makes_a_verdict(judged: Judged) -> None:
    row = grade(judged, ["search", "fetch"], threshold=0.5)
    assert (row.score, row.verdict, row.value) == (0.5, "pass", 1.0)
