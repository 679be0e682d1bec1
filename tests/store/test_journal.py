"""What is written into the journal is there, and is told again as it was."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from muster.config.secrets import MASK, Masker
from muster.errors import MusterError, UsageError
from muster.provider import TokenUsage
from muster.store.journal import Journal, journal_path
from muster.store.records import (
    NO_DATA,
    CallRecord,
    RunRecord,
    StepRecord,
    new_run_id,
)

FAR = timedelta(days=1)


def begun(journal: Journal, run_id: str = "shop-aaaaaa", **fields: Any) -> RunRecord:
    run = RunRecord(id=run_id, team="shop", **fields)
    journal.begin_run(run)
    return run


def died(journal: Journal, run_id: str) -> None:
    """As after `kill -9`: the run goes on in a process that is no more."""
    journal._db.write(
        "UPDATE runs SET pid = 1, process = ? WHERE id = ?",
        (os.uname().nodename + "|another boot|1", run_id),
    )


# --- runs ---------------------------------------------------------------------------------------


def test_ids_are_the_team_and_six_letters() -> None:
    ids = {new_run_id("shop") for _ in range(50)}
    assert len(ids) == 50
    assert all(re.fullmatch("shop-[a-z0-9]{6}", each) for each in ids)


def test_a_run_is_told_as_it_was_begun_and_changed(journal: Journal) -> None:
    run = begun(
        journal,
        file="team.yaml",
        definition_hash="abc",
        input={"topic": "ärger", "n": [1, None, 2.5]},
        options={"max_tokens": 10},
        trigger="cron",
        shares_process=True,
    )
    known = journal.run(run.id)
    assert known == replace(run, pid=os.getpid(), process=known.process)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", known.started_at)
    journal.update_run(
        run.id,
        status="succeeded",
        reason="Succeeded",
        output="done",
        ended_at="2026-01-01T00:00:00.000Z",
        token_usage=TokenUsage(3, 4, cached=1),
        cost_usd=0.25,
    )
    assert journal.run(run.id) == replace(
        known,
        status="succeeded",
        reason="Succeeded",
        output="done",
        ended_at="2026-01-01T00:00:00.000Z",
        token_usage=TokenUsage(3, 4, cached=1),
        cost_usd=0.25,
    )


def test_a_field_that_is_none_is_the_callers_mistake(journal: Journal) -> None:
    begun(journal)
    with pytest.raises(TypeError, match="no fields of a run: statsu"):
        journal.update_run("shop-aaaaaa", statsu="failed")


def test_runs_are_found_by_prefix_and_latest(journal: Journal) -> None:
    begun(journal, "shop-aaaaaa")
    begun(journal, "shop-ab0000")
    begun(journal, "role-zzzzzz", parent="shop-ab0000")
    assert journal.run("latest").id == "shop-ab0000"
    assert journal.run("shop-aa").id == "shop-aaaaaa"
    assert journal.run("role").id == "role-zzzzzz"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("shop-a", '"shop-a" begins the ids of several runs: shop-ab0000, shop-aaaaaa'),
        ("shop-aaaaab", 'no run "shop-aaaaab" (near: shop-aaaaaa'),
        ("%", 'no run "%" (the latest is shop-ab0000)'),
        ("", 'no run "" (the latest is shop-ab0000)'),
    ],
)
def test_a_run_that_is_not_there_names_those_near(journal: Journal, asked: str, told: str) -> None:
    begun(journal, "shop-aaaaaa")
    begun(journal, "shop-ab0000")
    with pytest.raises(UsageError) as caught:
        journal.run(asked)
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize("asked", ["latest", "x"])
def test_an_empty_journal_says_so(journal: Journal, asked: str) -> None:
    with pytest.raises(UsageError, match=re.escape(str(journal.path))):
        journal.run(asked)


def test_runs_are_listed_latest_first(journal: Journal) -> None:
    for number in range(4):
        begun(journal, f"shop-{number}", status="failed" if number % 2 else "succeeded")
    journal.begin_run(RunRecord(id="other-0", team="other", parent="shop-0"))
    assert [run.id for run in journal.runs(limit=2)] == ["other-0", "shop-3"]
    assert [run.id for run in journal.runs(team="shop", status="failed")] == ["shop-3", "shop-1"]
    assert [run.id for run in journal.runs(children=False, limit=1)] == ["shop-3"]


def test_delete_takes_everything_along(journal: Journal) -> None:
    begun(journal, "shop-0", status="succeeded")
    begun(journal, "role-0", status="succeeded", parent="shop-0")
    begun(journal, "shop-1", status="succeeded")
    for run_id in ("shop-0", "role-0", "shop-1"):
        row = journal.begin_step(StepRecord(run_id=run_id, name="a"))
        journal.begin_call(row, CallRecord(kind="tool", name="t"))
        journal.event(run_id, "note", {})
        journal.ask_approval(run_id, "a", "?")
    journal.delete("shop-0")
    assert [run.id for run in journal.runs()] == ["shop-1"]
    for table in ("steps", "calls", "events", "approvals"):
        assert journal._db.query(f"SELECT count(*) FROM {table}") == [(1,)]


def test_a_run_that_goes_on_is_not_deleted(journal: Journal) -> None:
    begun(journal)
    with pytest.raises(UsageError, match="is running; first: muster runs cancel shop-aaaaaa"):
        journal.delete("shop-aaaaaa")
    assert journal.run("latest").id == "shop-aaaaaa"


# --- steps, calls, events -----------------------------------------------------------------------


def test_a_step_is_told_as_it_went(journal: Journal) -> None:
    begun(journal)
    row = journal.begin_step(
        StepRecord(run_id="shop-aaaaaa", name="a", agent="writer", item=2, attempt=1, prompt="hi")
    )
    (step,) = journal.steps("shop-aaaaaa")
    assert (step.id, step.status, step.data, step.ended_at) == (row, "running", NO_DATA, None)
    assert step.prompt_hash == hashlib.sha256(b"hi").hexdigest()
    journal.end_step(
        row,
        status="succeeded",
        output='{"a": null}',
        data={"a": None},
        token_usage=TokenUsage(5, 6, reasoning=2),
        cost_usd=0.5,
        model="m-1",
        target="t",
    )
    (ended,) = journal.steps("shop-aaaaaa")
    assert ended == replace(
        step,
        status="succeeded",
        output='{"a": null}',
        data={"a": None},
        ended_at=ended.ended_at,
        token_usage=TokenUsage(5, 6, reasoning=2),
        cost_usd=0.5,
        model="m-1",
        target="t",
    )
    assert ended.ended_at is not None
    assert ended.ended_at >= ended.started_at


@pytest.mark.parametrize("data", [None, NO_DATA, 0, "text", [1, {"b": 2**70}], {"x": "☃"}])
def test_data_of_a_step(journal: Journal, data: Any) -> None:
    begun(journal)
    row = journal.begin_step(StepRecord(run_id="shop-aaaaaa", name="a"))
    journal.end_step(row, status="succeeded", data=data)
    (step,) = journal.steps("shop-aaaaaa")
    assert step.data == data
    assert ("data" in step.to_dict()) == (data is not NO_DATA)


def test_calls_and_events(journal: Journal) -> None:
    begun(journal)
    rows = [journal.begin_step(StepRecord(run_id="shop-aaaaaa", name=n)) for n in "ab"]
    call = journal.begin_call(rows[0], CallRecord(kind="tool", name="search", arguments={"q": 1}))
    other = journal.begin_call(rows[1], CallRecord(kind="delegate", name="helper"))
    assert [c.status for c in journal.calls("shop-aaaaaa")] == ["running", "running"]
    journal.end_call(call, status="ok", result="found", duration_ms=1.5)
    (known,) = journal.calls(rows[0])
    assert (known.id, known.step_id, known.kind, known.name) == (call, rows[0], "tool", "search")
    assert (known.arguments, known.result, known.status) == ({"q": 1}, "found", "ok")
    assert known.duration_ms == 1.5
    assert [c.id for c in journal.calls("shop-aaaaaa")] == [call, other]
    journal.event("shop-aaaaaa", "routed", {"to": "a"})
    journal.event("shop-aaaaaa", "chunk", {"end": 3}, row_id=rows[0])
    told = [(e.kind, e.data, e.step_id) for e in journal.events("shop-aaaaaa")]
    assert told == [("routed", {"to": "a"}, None), ("chunk", {"end": 3}, rows[0])]
    assert [e.kind for e in journal.events("shop-aaaaaa", "chunk")] == ["chunk"]
    assert [e.kind for e in journal.view("shop-aaaaaa", chunks=False).events] == ["routed"]


def test_halves_of_characters_are_no_obstacle(journal: Journal) -> None:
    begun(journal, input={"a": "x\ud83d"})
    row = journal.begin_step(StepRecord(run_id="shop-aaaaaa", name="a", prompt="p\udc00\0q"))
    journal.end_step(row, status="succeeded", output="\ud83d", data=["\ud83d"])
    (step,) = journal.steps("shop-aaaaaa")
    assert journal.run("latest").input == {"a": "x\ufffd"}
    assert (step.prompt, step.output, step.data) == ("p\ufffd\0q", "\ufffd", ["\ufffd"])


# --- secrets ------------------------------------------------------------------------------------


def test_secrets_are_in_no_byte_of_the_file(tmp_path: Path) -> None:
    key = "sk-9fGh2/Kq+7w"
    path = tmp_path / "runs.db"
    with Journal.open(path, masker=Masker([key])) as journal:
        begun(journal, input={"key": key, "n": 1})
        row = journal.begin_step(StepRecord(run_id="shop-aaaaaa", name="a", prompt=f"use {key}"))
        call = journal.begin_call(row, CallRecord(kind="tool", name="t", arguments=[{"k": key}]))
        journal.end_call(call, status="ok", result=f"got {key}", duration_ms=1)
        journal.end_step(row, status="failed", output=key, data={"a": key}, error=key, message=key)
        journal.event("shop-aaaaaa", "warning", {"text": key})
        journal.ask_approval("shop-aaaaaa", "b", f"may I use {key}?")
        journal.decide("shop-aaaaaa", "b", approved=True, by="ada", comment=f"{key} is fine")
        journal.update_run("shop-aaaaaa", status="failed", error=f"bad {key}", output=key)
        view = journal.view("shop-aaaaaa")
    assert view.run.input == {"key": MASK, "n": 1}
    assert (view.run.error, view.steps[0].prompt) == (f"bad {MASK}", f"use {MASK}")
    assert view.steps[0].prompt_hash == hashlib.sha256(f"use {key}".encode()).hexdigest()
    assert view.calls[0].arguments == [{"k": MASK}]
    assert view.approvals[0].comment == f"{MASK} is fine"
    files = list(tmp_path.iterdir())
    assert files
    assert not [file for file in files if key.encode() in file.read_bytes()]


def test_names_stay_where_a_secret_is_an_ordinary_word(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "runs.db", masker=Masker(["shop", "writer"])) as journal:
        begun(journal)
        journal.begin_step(
            StepRecord(run_id="shop-aaaaaa", name="writer", agent="writer", prompt="a writer")
        )
        (step,) = journal.steps("shop-aaaaaa")
    assert (step.name, step.agent, step.prompt) == ("writer", "writer", f"a {MASK}")


def test_the_file_is_the_users_own(journal: Journal) -> None:
    begun(journal)
    files = list(journal.path.parent.iterdir())
    assert {file.name for file in files} >= {"runs.db", "runs.db-wal"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_the_journal_is_the_projects(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "teams").mkdir()
    team = tmp_path / "teams" / "a.yaml"
    team.write_text("")
    assert journal_path(team) == tmp_path / ".muster" / "runs.db"


# --- sums ---------------------------------------------------------------------------------------


def spent(journal: Journal, run_id: str, agent: str, tokens: int, cost: float) -> None:
    row = journal.begin_step(StepRecord(run_id=run_id, name=f"by-{agent}", agent=agent))
    usage = TokenUsage(tokens, 1, cached=1)
    journal.end_step(row, status="succeeded", token_usage=usage, cost_usd=cost)


def test_what_was_spent_since_a_moment(journal: Journal) -> None:
    begun(journal, "shop-0")
    journal.begin_run(RunRecord(id="inner-0", team="inner", parent="shop-0"))
    journal.spend(11, 0.5, agent="ada", teams=("shop",))
    journal.spend(41, None, agent="bob", teams=("shop", "inner"))
    journal.spend(3, 0.25, agent="ada", teams=("behind",), asked_by=("shop",))
    begin = datetime.now(UTC) - FAR
    found = journal.spending(begin)
    assert [(each.agent, each.tokens, each.cost_usd) for each in found] == [
        ("ada", 11, 0.5),
        ("bob", 41, 0.0),
        ("ada", 3, 0.25),
    ]

    def counted(*teams: str) -> list[int]:
        return [each.tokens for each in found if each.counts_for(teams or None)]

    assert counted() == [11, 41]
    assert counted("shop") == [11, 41]
    assert counted("inner") == [41]
    assert counted("behind") == [3]
    assert counted("behind", "shop") == [11, 41]
    assert journal.spending(begin, after=found[1].id) == found[2:]
    assert journal.spending(datetime.now(UTC) + FAR) == []
    assert journal.teams_around("inner-0") == ("shop", "inner")
    assert journal.teams_around("nobody") == ()


def test_what_was_spent_outlives_its_run(journal: Journal) -> None:
    begun(journal, "shop-0")
    journal.spend(11, 0.5, agent="ada", teams=("shop",))
    journal.update_run("shop-0", status="succeeded")
    journal.delete("shop-0")
    assert [each.tokens for each in journal.spending(datetime.now(UTC) - FAR)] == [11]


def test_what_was_spent_is_forgotten_when_no_budget_counts_it(journal: Journal) -> None:
    for tokens in (1, 2, 3):
        journal.spend(tokens, None, agent="ada", teams=("shop",))
    old = (datetime.now(UTC) - timedelta(days=63)).isoformat().replace("+00:00", "Z")
    journal._db.write("UPDATE spending SET at = ? WHERE tokens < 3", (old,))
    begun(journal)
    since = datetime.now(UTC) - timedelta(days=90)
    assert [each.tokens for each in journal.spending(since)] == [3]


def test_totals_of_a_run_that_goes_on(journal: Journal) -> None:
    begun(journal, "shop-0")
    begun(journal, "shop-1")
    spent(journal, "shop-0", "ada", 10, 0.5)
    spent(journal, "shop-0", "ada", 20, 0.25)
    totals = journal.totals(["shop-0", "shop-1"])
    assert (totals["shop-0"].steps, totals["shop-0"].cost_usd) == (1, 0.75)
    assert totals["shop-0"].token_usage == TokenUsage(30, 2, cached=2)
    assert (totals["shop-1"].steps, totals["shop-1"].token_usage) == (0, None)
    assert totals["shop-1"].cost_usd is None


def test_totals_hold_the_teams_within_and_nothing_twice(journal: Journal) -> None:
    begun(journal, "outer")
    begun(journal, "role", parent="outer")
    begun(journal, "deeper", parent="role")
    begun(journal, "target", parent="outer")  # its usage is the step's that asked it
    journal.event("target", "asked", {})
    for run_id, tokens in (("outer", 1), ("role", 10), ("deeper", 100), ("target", 1000)):
        row = journal.begin_step(StepRecord(run_id=run_id, name=f"step of {run_id}"))
        usage = TokenUsage(tokens, 0)
        journal.end_step(row, status="succeeded", token_usage=usage, cost_usd=tokens / 4)
    totals = journal.totals(["outer"])["outer"]
    assert (totals.steps, totals.token_usage, totals.cost_usd) == (1, TokenUsage(111, 0), 27.75)
    assert totals.left_out() == {}
    row = journal.begin_step(StepRecord(run_id="role", name="untold", target="t"))
    journal.end_step(row, status="succeeded", output="yes")
    row = journal.begin_step(StepRecord(run_id="role", name="unpriced", target="t"))
    journal.end_step(row, status="succeeded", output="yes", token_usage=TokenUsage(1, 1))
    totals = journal.totals(["outer"])["outer"]
    assert totals.token_usage == TokenUsage(112, 1)
    assert totals.left_out() == {"calls_without_usage": 1, "calls_without_cost": 2}


# --- approvals ----------------------------------------------------------------------------------


def test_a_question_and_its_answer(journal: Journal) -> None:
    begun(journal)
    asked = journal.ask_approval("shop-aaaaaa", "ship", "Ship it?")
    assert journal.approval("shop-aaaaaa", "ship") == asked
    assert (asked.status, asked.approved) == ("waiting", False)
    decided = journal.decide("shop-aaaaaa", "ship", approved=True, by="ada", comment="fine")
    assert (decided.status, decided.approved) == ("approved", True)
    assert (decided.by, decided.comment, decided.message) == ("ada", "fine", "Ship it?")
    assert journal.approval("shop-aaaaaa", "ship") == decided
    with pytest.raises(UsageError, match='"ship" of run shop-aaaaaa is approved already, by ada'):
        journal.decide("shop-aaaaaa", "ship", approved=False, by="bob")


def test_nothing_waits(journal: Journal) -> None:
    begun(journal)
    with pytest.raises(UsageError, match=r"does not wait for an approval \(nothing waits\)"):
        journal.decide("shop-aaaaaa", "ship", approved=True, by="ada")
    journal.ask_approval("shop-aaaaaa", "sign", "?")
    with pytest.raises(UsageError, match=r"\(waiting: sign\)"):
        journal.decide("shop-aaaaaa", "ship", approved=True, by="ada")


def test_an_answer_stands_unless_it_is_asked_again(journal: Journal) -> None:
    begun(journal)
    for item, approved in ((0, True), (1, False)):
        journal.ask_approval("shop-aaaaaa", "ship", "first", item=item)
        journal.decide("shop-aaaaaa", "ship", approved=approved, by="ada", item=item)
    again = [journal.ask_approval("shop-aaaaaa", "ship", "second", item=i) for i in (0, 1, 2)]
    assert [each.status for each in again] == ["approved", "rejected", "waiting"]
    assert again[0].message == "first"
    asked = journal.ask_approval("shop-aaaaaa", "ship", "third", item=1, again=True)
    assert (asked.status, asked.message, asked.by) == ("waiting", "third", None)
    assert len(journal.approvals("shop-aaaaaa")) == 3


# --- processes that die -------------------------------------------------------------------------


def test_a_run_whose_process_has_died_is_interrupted(journal: Journal) -> None:
    begun(journal)
    row = journal.begin_step(StepRecord(run_id="shop-aaaaaa", name="a"))
    done = journal.begin_step(StepRecord(run_id="shop-aaaaaa", name="b"))
    journal.end_step(done, status="succeeded")
    journal.begin_call(row, CallRecord(kind="tool", name="t"))
    assert journal.settle("shop-aaaaaa").status == "running"
    died(journal, "shop-aaaaaa")
    run = journal.settle("shop-aaaaaa")
    assert (run.status, run.reason) == ("interrupted", "Interrupted")
    assert run.error == "its process ended without a word"
    assert run.ended_at is not None
    view = journal.view("shop-aaaaaa")
    assert [step.status for step in view.steps] == ["failed", "succeeded"]
    assert view.steps[0].error_kind == "interrupted"
    assert view.calls[0].status == "unknown"
    assert journal.settle("shop-aaaaaa") == run


def test_what_cannot_be_noted_of_a_dead_run_is_told(journal: Journal) -> None:
    begun(journal)
    journal._db.write("PRAGMA query_only = ON")
    assert journal.settled("latest").status == "running"
    journal._db.write("PRAGMA query_only = OFF")
    died(journal, "shop-aaaaaa")
    journal._db.write("PRAGMA query_only = ON")
    with pytest.raises(MusterError, match="cannot be written"):
        journal.settle("latest")
    run = journal.settled("latest")
    assert (run.id, run.status, run.error) == (
        "shop-aaaaaa",
        "interrupted",
        "its process ended without a word",
    )
    assert journal.run("latest").status == "running"
    with pytest.raises(UsageError, match="no run"):
        journal.settled("nobody")


def test_a_run_of_another_machine_is_let_be(journal: Journal) -> None:
    begun(journal)
    journal._db.write("UPDATE runs SET process = 'elsewhere|boot|1'")
    assert journal.settle("latest").status == "running"
    with pytest.raises(UsageError, match="on another machine, elsewhere; if that is gone: muster"):
        journal.claim("latest", os.getpid() + 1)


def test_claim_takes_over_what_has_ended(journal: Journal) -> None:
    begun(journal)
    journal.begin_step(StepRecord(run_id="shop-aaaaaa", name="a"))
    journal.ask_approval("shop-aaaaaa", "ship", "?")
    journal.request_cancel("shop-aaaaaa")
    died(journal, "shop-aaaaaa")
    assert journal.settle("latest").status == "cancelled"
    run = journal.claim("shop-aaaaaa", os.getpid())
    assert (run.status, run.reason, run.error, run.ended_at) == ("running", None, None, None)
    assert run.pid == os.getpid()
    assert not journal.cancel_requested("shop-aaaaaa")
    assert [step.status for step in journal.steps("shop-aaaaaa")] == ["failed"]
    assert [each.status for each in journal.approvals("shop-aaaaaa")] == ["waiting"]
    assert journal.settle("latest") == run


def test_claim_leaves_a_run_that_goes_on_alone(journal: Journal) -> None:
    begun(journal)
    with pytest.raises(
        UsageError, match=f"is running in process {os.getpid()}; `muster runs watch"
    ):
        journal.claim("shop-aaaaaa", os.getpid() + 1)
