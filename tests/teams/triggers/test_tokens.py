"""Tokens that are made up, durations in Go's form, and what a server remembers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from muster.errors import MusterError
from muster.teams.triggers.durations import parse_duration, shown_duration
from muster.teams.triggers.state import EventState, Fire, PlannedRun
from muster.teams.triggers.tokens import kept_token


def test_a_token_stays_and_is_kept_out_of_git(tmp_path: Path) -> None:
    token, path = kept_token(tmp_path, "a/../b")
    assert kept_token(tmp_path, "a/../b") == (token, path)
    assert kept_token(tmp_path, "other")[0] != token
    assert path.parent == tmp_path / ".muster" / "tokens"
    assert (path.parent / ".gitignore").read_text() == "*\n"
    assert sorted(each.name for each in path.parent.iterdir()) == [
        ".gitignore",
        "a%2F..%2Fb",
        "other",
    ]


def test_a_token_that_others_may_read_or_that_is_none(tmp_path: Path) -> None:
    _, path = kept_token(tmp_path, "x")
    path.chmod(0o644)
    with pytest.raises(MusterError, match="others may read this token; chmod 600, or delete it"):
        kept_token(tmp_path, "x")
    path.chmod(0o600)
    path.write_text("\n")
    with pytest.raises(MusterError, match="not a token; delete it, and a new one is made"):
        kept_token(tmp_path, "x")


@pytest.mark.parametrize(
    ("text", "seconds", "shown"),
    [
        ("30s", 30, "30s"),
        ("1m", 60, "1m0s"),
        ("1h30m", 5400, "1h30m0s"),
        ("1.5h", 5400, "1h30m0s"),
        ("250ms", 0.25, "250ms"),
        ("1m1.5s", 61.5, "1m1.5s"),
    ],
)
def test_durations(text: str, seconds: float, shown: str) -> None:
    assert parse_duration(text) == seconds
    assert shown_duration(seconds) == shown


@pytest.mark.parametrize("text", ["", "5", "s", "1x", "-1s", "0s", "1s 2s", "9" * 30 + "h", "١s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=text.replace("\\", "") or "not a duration"):
        parse_duration(text)


NOW = datetime(2026, 5, 1, tzinfo=UTC)


def test_old_fires_are_forgotten_unless_a_run_is_left(tmp_path: Path) -> None:
    state = EventState(tmp_path / "events.db", "team.yaml")
    fire = Fire("hook", "started", "2026-05-01T00:00:00Z")
    for key in ("a", "b"):
        state.record(fire, key, [PlannedRun(f"t-{key}", "hook", 0, "t", {"say": key})])
    state.ended("t-a")
    state.forget_old(NOW + timedelta(days=29))
    assert state.fire_of("hook", "a") is not None
    state.forget_old(NOW + timedelta(days=31))
    assert state.fire_of("hook", "a") is None
    assert state.fire_of("hook", "b") is not None
    assert [(run.run_id, run.inputs) for run in state.unfinished()] == [("t-b", {"say": "b"})]
    other = EventState(tmp_path / "events.db", "other.yaml")
    assert other.fire_of("hook", "b") is None
    assert other.unfinished() == []
    for each in (state, other):
        each.close()
    assert (tmp_path / "events.db").stat().st_mode & 0o077 == 0
