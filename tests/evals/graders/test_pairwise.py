"""Two answers judged in both orders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from judge_parts import Scripted, judge_with
from muster.errors import ConfigError
from muster.provider import ProviderRequest

ENTRY = {"type": "llm-pairwise", "against": "expected_output"}


def prefers(word: str) -> Scripted:
    """Chooses the answer with the word in it, wherever it stands."""

    def say(request: ProviderRequest) -> dict[str, str]:
        first, second = request.question.split("[[ ## answer B ## ]]")
        found = ("A" if word in first else "") + ("B" if word in second else "")
        return {"reason": "the word", "winner": found if len(found) == 1 else "tie"}

    return Scripted(say)


@pytest.mark.parametrize(
    ("judge", "score", "drawn_to", "consistent"),
    [
        (prefers("mine"), 1.0, None, True),
        (prefers("theirs"), 0.0, None, True),
        (prefers("nothing"), 0.5, None, True),
        (Scripted({"winner": "A"}), 0.5, "first", False),
        (Scripted({"winner": "B"}), 0.5, "second", False),
        (Scripted({"winner": "A"}, {"winner": "tie"}), 0.5, "first", False),
    ],
)
def test_only_who_wins_in_both_orders_wins(
    judge: Scripted, score: float, drawn_to: str | None, consistent: bool
) -> None:
    graded, asked = judge_with(ENTRY, judge, output="mine", expected="theirs")
    assert graded.error is None
    row = graded.rows[0]
    assert row.score == score
    assert asked.calls == 2
    assert row.details is not None
    (duel,) = row.details["duels"]
    assert (duel["drawn_to"], duel["consistent"]) == (drawn_to, consistent)


def test_the_expected_output_is_not_told_as_such() -> None:
    judge = prefers("mine")
    judge_with(ENTRY, judge, output="mine", expected="theirs")
    forward, backward = (request.question for request in judge.requests)
    assert "reference_answer" not in forward
    assert forward.index("mine") < forward.index("theirs")
    assert backward.index("theirs") < backward.index("mine")
    assert "Which answer serves the person better" in forward


@pytest.mark.parametrize("said", ["C", {"winner": "C"}, {"winner": None}, {"winner": ["A"]}])
def test_no_winner_is_an_error(said: Any) -> None:
    graded, asked = judge_with(ENTRY, Scripted(said), expected="x")
    assert "no verdict" in str(graded.error)
    assert asked.calls == 3


def recorded(folder: Path, *rows: dict[str, Any]) -> None:
    folder.mkdir()
    lines = []
    for row in rows:
        whole = {
            "test_id": "c", "suite": "s", "target": "old", "target_used": "old", "repeat": 0,
            "execution_status": "ok", "score": 1.0, "threshold": 0.8, "scores": [], "input": "?",
            "output": "theirs", "messages": [], "error": None, "provider": "mock", "attempts": 1,
            "token_usage": None, "cost_usd": None, "duration_ms": None, "started_at": None,
        }  # fmt: skip
        lines.append(json.dumps(whole | row) + "\n")
    (folder / "results.jsonl").write_text("".join(lines))


def test_against_a_recorded_run(tmp_path: Path) -> None:
    recorded(tmp_path / "run", {}, {"test_id": "d", "output": "other"})
    entry = {"type": "llm-pairwise", "against": "run"}
    graded, _ = judge_with(entry, prefers("mine"), output="mine", folder=tmp_path)
    assert graded.rows[0].score == 1.0
    graded, _ = judge_with(entry, prefers("mine"), output="mine", folder=tmp_path, id="e")
    assert 'has no answer to the test "e"' in str(graded.error)


def test_of_a_run_it_is_the_same_suites_and_repeats_answer(tmp_path: Path) -> None:
    other = {"suite": "other", "output": "mine too"}
    recorded(tmp_path / "run", other, {"output": "mine too"}, {"repeat": 1}, {"test_id": "d"})
    entry = {"type": "llm-pairwise", "against": "run"}
    scores = []
    for repeat in (0, 1, 2):
        graded, _ = judge_with(
            entry, prefers("mine"), output="mine", folder=tmp_path, which_repeat=repeat
        )
        scores.append(graded.rows[0].score)
    assert scores == [0.5, 1.0, 0.5]


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"against": "nowhere"}, "no results.jsonl there; expected expected_output or the folder"),
        ({"against": "new"}, "let both answer; then `muster judge pairs RUN`"),
        ({"against": "../run"}, "outside the project"),
        ({"against": "run"}, "the run has several targets (old, new); name one as against_target"),
        ({"against": "run", "against_target": "x"}, 'no target "x" (it has old, new)'),
        ({"against": "expected_output", "against_target": "x"}, "is no target's"),
        ({}, '"against" is required'),
    ],
)
def test_mistakes(tmp_path: Path, entry: dict[str, Any], told: str) -> None:
    recorded(tmp_path / "run", {}, {"target": "new"})
    with pytest.raises(ConfigError) as caught:
        judge_with({"type": "llm-pairwise", **entry}, Scripted("x"), folder=tmp_path)
    assert told in str(caught.value)
