"""What is in the journal's file at the moment when something is asked, called, or told."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from team_parts import Said, run, run_async, write_team

from muster.errors import MusterError
from muster.provider import ProviderRequest
from muster.store import database
from muster.teams.watching import RunEvent

Rows = list[tuple[str, int | None, str]]

ONE_AT_A_TIME = """
roles:
  - {name: w, target: scripted, systemPrompt: Work., limits: {maxConcurrentTasks: 1}}
pipeline:
"""


def on_disk(folder: Path) -> Rows:
    """Steps, items and their statuses, as another process reads them."""
    with sqlite3.connect(folder / ".muster" / "runs.db") as other:
        rows = other.execute("SELECT name, item, status FROM steps ORDER BY id").fetchall()
    other.close()
    return rows


def seen_when_asked(folder: Path, spec: str) -> list[Rows]:
    """What stands on disk each time the agent is asked."""
    seen: list[Rows] = []

    def answer(request: ProviderRequest) -> Said:
        seen.append(on_disk(folder))
        return "PASS"

    ran = run(write_team(folder, spec), answer)
    assert ran.end == ("succeeded", "Succeeded", None)
    return seen


def test_a_step_stands_there_before_it_is_asked(tmp_path: Path) -> None:
    spec = "{name: a, role: w}", "{name: b, role: w, dependsOn: [a]}"
    steps = "".join(f"  - {each}\n" for each in spec)
    assert seen_when_asked(tmp_path, ONE_AT_A_TIME + steps) == [
        [("a", None, "running")],
        [("a", None, "succeeded"), ("b", None, "running")],
    ]


def test_what_waits_for_its_agent_has_not_begun(tmp_path: Path) -> None:
    steps = "".join(f"  - {{name: {name}, role: w}}\n" for name in "abc")
    seen = seen_when_asked(tmp_path, ONE_AT_A_TIME + steps)
    assert [[name for name, _, _ in rows] for rows in seen] == [["a"], ["a", "b"], ["a", "b", "c"]]
    assert [rows[-1][2] for rows in seen] == ["running"] * 3


def test_items_stand_there_before_they_are_asked(tmp_path: Path) -> None:
    spec = "  - {name: s, role: w, forEach: {items: '[1, 2, 3]', maxParallel: 3}}\n"
    seen = seen_when_asked(tmp_path, ONE_AT_A_TIME + spec)
    assert [[item for _, item, _ in rows] for rows in seen] == [[0], [0, 1], [0, 1, 2]]


def test_the_place_is_free_when_the_agent_judges_its_own_answer(tmp_path: Path) -> None:
    spec = "  - {name: s, role: w, validate: {semantic: is it good?}}\n"
    seen = seen_when_asked(tmp_path, ONE_AT_A_TIME + spec)
    assert seen == [[("s", None, "running")]] * 2


def test_a_step_that_is_told_to_be_done_is_done_for_good(tmp_path: Path) -> None:
    told: list[Rows] = []

    def hear(event: RunEvent) -> None:
        if event.kind in ("step_done", "step_skipped", "step_failed"):
            told.append(on_disk(tmp_path))

    def answer(request: ProviderRequest) -> Said:
        if request.metadata["step"] == "c":
            raise ZeroDivisionError
        return "ok"

    spec = """
    roles:
      - {name: w, target: scripted, systemPrompt: Work.}
    pipeline:
      - {name: a, role: w}
      - {name: b, role: w, dependsOn: [a], if: 'false'}
      - {name: c, role: w, dependsOn: [b]}
    """
    ran = run(write_team(tmp_path, spec), answer, on_event=hear)
    assert ran.outcome.failed_step == "c"
    assert told == [
        [("a", None, "succeeded")],
        [("a", None, "succeeded"), ("b", None, "skipped")],
        [("a", None, "succeeded"), ("b", None, "skipped"), ("c", None, "failed")],
    ]


async def test_a_run_whose_journal_cannot_be_written_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.01)
    file = write_team(
        tmp_path,
        """
        roles:
          - {name: w, target: scripted, systemPrompt: Work.}
        pipeline:
          - {name: a, role: w}
          - {name: b, role: w, dependsOn: [a]}
        """,
    )
    other = sqlite3.connect(tmp_path / ".muster" / "runs.db", isolation_level=None)
    asked: list[str] = []

    def answer(request: ProviderRequest) -> Said:
        asked.append(request.metadata["step"])
        other.execute("BEGIN IMMEDIATE")  # and never an end
        return "ok"

    with pytest.raises(MusterError, match=r"runs\.db: another process has held it for 0\.01 s"):
        await run_async(file, answer)
    other.close()
    assert asked == ["a"]
    assert on_disk(tmp_path) == [("a", None, "running")]
