"""The file: others' files, damaged and newer ones, processes at the same time, `kill -9`."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from muster.errors import MusterError
from muster.store import database
from muster.store.database import SCHEMA_VERSION, Database
from muster.store.journal import Journal
from muster.store.records import RunRecord, StepRecord

WRITER = """
import sys
from pathlib import Path
from muster.store.journal import Journal
from muster.store.records import CallRecord, RunRecord, StepRecord

journal = Journal.open(Path(sys.argv[1]))
journal.begin_run(RunRecord(id=sys.argv[2], team="t"))
for number in range(int(sys.argv[3])):
    row = journal.begin_step(StepRecord(run_id=sys.argv[2], name=f"s{number}", prompt="p" * 2000))
    call = journal.begin_call(row, CallRecord(kind="tool", name="t"))
    journal.end_call(call, status="ok", result="r", duration_ms=1)
    journal.end_step(row, status="succeeded", output=str(number))
    print(number, flush=True)
"""


def test_a_killed_process_leaves_all_it_has_written(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), "t-aaaaaa", "1000000"],
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) == 300:
                break
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().splitlines()
    last = int(rest[-1]) if rest else 300
    with Journal.open(path) as journal:
        assert journal._db.query("PRAGMA integrity_check") == [("ok",)]
        steps = journal.steps("t-aaaaaa")
        written = [step for step in steps if step.status == "succeeded"]
        assert [step.output for step in written][: last + 1] == [str(n) for n in range(last + 1)]
        assert len(written) in (last + 1, last + 2)
        assert len(steps) - len(written) in (0, 1)
        assert journal.settle("t-aaaaaa").status == "interrupted"


def test_processes_write_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), f"t-{number}", "60"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for child in children:
        _, told = child.communicate(timeout=60)
        assert (child.returncode, told) == (0, "")
    with Journal.open(path) as journal:
        assert {run.id for run in journal.runs()} == {f"t-{number}" for number in range(4)}
        for number in range(4):
            outputs = [step.output for step in journal.steps(f"t-{number}")]
            assert outputs == [str(n) for n in range(60)]


# --- files that are no journal ------------------------------------------------------------------


def refused(path: Path) -> str:
    with pytest.raises(MusterError) as caught:
        Journal.open(path)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_text_is_no_journal(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    path.write_text("hello, " * 500)
    assert refused(path) == (f"{path}: not a journal of runs; move it away, and a new one is begun")
    assert path.read_text().startswith("hello")


def test_another_programs_database_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE cookies (a)")
    other.close()
    before = path.read_bytes()
    assert refused(path) == (
        f"{path}: a database, but not a journal of runs; move it away, and a new journal is begun"
    )
    assert path.read_bytes() == before


def test_a_newer_muster_s_journal(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with Journal.open(path) as journal:
        journal._db.write(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    assert refused(path) == (
        f"{path}: written by a newer Muster (schema {SCHEMA_VERSION + 1}; this one knows "
        f"{SCHEMA_VERSION}); update Muster, or move the file away"
    )


def test_a_damaged_journal(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with Journal.open(path) as journal:
        journal.begin_run(RunRecord(id="t-aaaaaa", team="t"))
        for _ in range(50):
            journal.begin_step(StepRecord(run_id="t-aaaaaa", name="s", prompt="p" * 3000))
    data = bytearray(path.read_bytes())
    data[8192:] = b"\x55" * (len(data) - 8192)
    path.write_bytes(data)
    with pytest.raises(MusterError) as caught, Journal.open(path) as journal:
        journal.steps("t-aaaaaa")
    assert str(caught.value).startswith(f"{path}: the journal is damaged; save what")


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "runs.db").mkdir()
    assert refused(tmp_path / "runs.db").endswith("runs.db: cannot be opened: Is a directory")


def test_a_journal_held_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    path = tmp_path / "runs.db"
    with Journal.open(path) as journal:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(MusterError, match=r"another process has held it for 0\.05 s"):
            journal.begin_run(RunRecord(id="t-aaaaaa", team="t"))
        other.execute("ROLLBACK")
        other.close()
        journal.begin_run(RunRecord(id="t-aaaaaa", team="t"))


def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "runs.db") as journal:
        run = RunRecord(id="t-aaaaaa", team="t")

        def fail() -> None:
            with journal._db.transaction():
                journal.begin_run(run)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert journal.runs() == []
        journal.begin_run(run)
        assert len(journal.runs()) == 1


# --- versions -----------------------------------------------------------------------------------


def test_an_older_file_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with Journal.open(path) as journal:
        journal.begin_run(RunRecord(id="t-aaaaaa", team="t"))
    opened = Database(path)
    steps = (*database.MIGRATIONS, "ALTER TABLE runs ADD COLUMN extra TEXT DEFAULT 'new'")
    opened._migrate(steps)
    assert opened.query("SELECT id, extra FROM runs") == [("t-aaaaaa", "new")]
    assert opened._number("user_version") == SCHEMA_VERSION + 1
    opened._migrate(steps)
    opened.close()


def test_what_runs_of_an_older_file_have_spent_counts(tmp_path: Path) -> None:
    class Older(Database):
        migrations = database.MIGRATIONS[:2]

    path = tmp_path / "runs.db"
    older = Older(path)
    for run, parent in (
        ("shop", None),
        ("kitchen", "shop"),
        ("cook", "kitchen"),
        ("spice", "cook"),
    ):
        older.write(
            "INSERT INTO runs (id, team, file, definition_hash, input, options, status, "
            "started_at, shares_process, parent) "
            "VALUES (?, ?, '', '', '{}', '{}', 'succeeded', '', 0, ?)",
            (run, f"team {run}", parent),
        )
        older.write(
            "INSERT INTO steps (run_id, name, agent, iteration, attempt, status, started_at, "
            "ended_at, input_tokens, output_tokens, cost_usd) "
            "VALUES (?, 's', 'ada', 0, 0, 'succeeded', '', '2026-11-21T10:00:00.000Z', 5, 2, 0.5)",
            (run,),
        )
    # An agent of the kitchen's is a target with a team behind it.
    older.write("INSERT INTO events (run_id, kind, data, at) VALUES ('cook', 'asked', '{}', '')")
    older.close()
    with Journal.open(path) as journal:
        spent = journal.spending(datetime(2026, 11, 21, tzinfo=UTC))
    assert {(each.agent, each.tokens, each.cost_usd) for each in spent} == {("ada", 7, 0.5)}
    assert [(each.teams, each.asked_by) for each in spent] == [
        (("team shop",), ()),
        (("team shop", "team kitchen"), ()),
        (("team cook",), ("team shop", "team kitchen")),
        (("team cook", "team spice"), ("team shop", "team kitchen")),
    ]


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    opened = Database(tmp_path / "runs.db")
    broken = (*database.MIGRATIONS, "ALTER TABLE runs ADD COLUMN extra TEXT;\nNOT SQL;\n")
    with pytest.raises(MusterError, match="syntax error"):
        opened._migrate(broken)
    assert opened._number("user_version") == SCHEMA_VERSION
    assert "extra" not in {row[1] for row in opened.query("PRAGMA table_info(runs)")}
    opened.close()
