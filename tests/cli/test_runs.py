"""`muster runs` and `muster approve`, on journals as runs leave them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from muster_project import Project, wait_until

from muster.provider import TokenUsage
from muster.store.journal import Journal
from muster.store.records import CallRecord, RunRecord, StepRecord

WORKER = """
import signal
import sys
from pathlib import Path
from muster.store.journal import Journal
from muster.store.records import RunRecord, StepRecord

path, shares, manners = Path(sys.argv[1]), sys.argv[2] == "shares", sys.argv[3]
journal = Journal.open(path)

def end(*_):
    if manners == "polite":
        journal.update_run("t-worker", status="cancelled", reason="Cancelled")
    sys.exit(0)

if manners == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    signal.signal(signal.SIGTERM, end)
journal.begin_run(RunRecord(id="t-worker", team="t", shares_process=shares))
journal.begin_step(StepRecord(run_id="t-worker", name="a"))
print(flush=True)
while True:
    line = sys.stdin.readline()
    if not line or journal.cancel_requested("t-worker") and shares:
        end()
"""


@pytest.fixture
def journal(project: Project) -> Iterator[Journal]:
    with Journal.open(project.root / ".muster" / "runs.db") as opened:
        yield opened


@pytest.fixture
def workers() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for worker in started:
        worker.kill()
        worker.communicate()


def started(
    workers: list[subprocess.Popen[str]], project: Project, *how: str
) -> subprocess.Popen[str]:
    """A process that works on the run t-worker."""
    path = str(project.root / ".muster" / "runs.db")
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, path, *how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    workers.append(worker)
    assert worker.stdout is not None
    worker.stdout.readline()
    return worker


def a_run(journal: Journal, run_id: str = "shop-abc123", **fields: Any) -> None:
    """Two steps, one of them tried twice with a tool; it failed."""
    journal.begin_run(
        RunRecord(
            id=run_id,
            team="shop",
            file="team.yaml",
            input={"topic": "hats"},
            started_at="2026-01-01T10:00:00.000Z",
        )
    )
    row = journal.begin_step(
        StepRecord(run_id=run_id, name="research", agent="ada", prompt="topic: hats\n")
    )
    journal.end_step(
        row,
        status="succeeded",
        output="Hats are\nworn.",
        model="m-1",
        token_usage=TokenUsage(18, 3),
        cost_usd=0.01,
    )
    for attempt, kind in enumerate(("rate_limited", "timeout")):
        row = journal.begin_step(
            StepRecord(run_id=run_id, name="write", agent="bob", attempt=attempt)
        )
        call = journal.begin_call(row, CallRecord(kind="tool", name="search", arguments={"q": 1}))
        journal.end_call(call, status="ok", result="found", duration_ms=12.0)
        journal.end_step(row, status="failed", error=f"no {attempt}", error_kind=kind)
    journal.event(run_id, "routed", {"to": "ada", "score": 0.5})
    journal.event(run_id, "chunk", {"end": 5}, row_id=row)
    journal.update_run(
        run_id,
        **{
            "status": "failed",
            "reason": "StepFailed",
            "error": 'step "write": no 1',
            "ended_at": "2026-01-01T10:00:02.100Z",
            "token_usage": TokenUsage(18, 3),
            "cost_usd": 0.01,
            **fields,
        },
    )


def good_run(journal: Journal, run_id: str, output: str) -> None:
    a_run(journal, run_id, status="succeeded", reason="Succeeded", error=None, output=output)


# --- list and show ------------------------------------------------------------------------------


def test_no_runs_yet(project: Project) -> None:
    for arguments, out in ((("list",), "no runs yet\n"), (("list", "--json"), "[]\n")):
        ended = project.run("runs", *arguments)
        assert (ended.code, ended.out, ended.err) == (0, out, "")
    ended = project.run("runs", "show", "latest")
    path = project.root / ".muster" / "runs.db"
    assert (ended.code, ended.err) == (2, f"error: no runs yet: there is no journal {path}\n")
    assert not path.exists()


def test_list(project: Project, journal: Journal) -> None:
    a_run(journal)
    good_run(journal, "shop-def456", "fine")
    journal.begin_run(RunRecord(id="other-1", team="other", status="cancelled"))
    ended = project.run("runs", "list", "--team", "shop", env={"TZ": "UTC"})
    assert ended.code == 0
    assert [re.split(r"\s{2,}", line) for line in ended.out.splitlines()] == [
        ["id", "team", "status", "started", "duration", "steps", "tokens", "cost"],
        ended.out.splitlines()[1].split(),
        ["shop-def456", "shop", "succeeded", "2026-01-01 10:00:00", "2.1 s", "2", "21", "$0.01"],
        ["shop-abc123", "shop", "failed", "2026-01-01 10:00:00", "2.1 s", "2", "21", "$0.01"],
    ]
    ended = project.run("runs", "list", "--limit", "1", "--status", "failed", "--json")
    (row,) = ended.json()
    assert (row["id"], row["steps"], row["cost_usd"]) == ("shop-abc123", 2, 0.01)
    assert row["token_usage"] == {"input": 18, "output": 3}
    ended = project.run("runs", "list", "--limit", "1")
    assert ended.out.splitlines()[2].startswith("other-1")
    assert ended.err == "\nthe latest 1; --limit shows more\n"
    ended = project.run("runs", "list", "--team", "zz", "--status", "failed")
    assert (ended.code, ended.out) == (0, "no runs of zz (failed)\n")


def test_show_is_a_tree(project: Project, journal: Journal) -> None:
    a_run(journal)
    ended = project.run("runs", "show", "shop", env={"TZ": "UTC"})
    assert ended.code == 0
    assert (
        re.sub(r"\b0\.\d s", "TIME", ended.out)
        == """\
run      shop-abc123
team     shop (team.yaml)
status   failed (StepFailed)
error    step "write": no 1
started  2026-01-01 10:00:00, took 2.1 s
input    {"topic": "hats"}
tokens   21 (18 in, 3 out)
cost     $0.01

steps
├─ research  succeeded  TIME  21 tokens  $0.01  ada (m-1)  → Hats are worn.
└─ write  failed
   ├─ attempt 0  failed  TIME  bob  rate_limited: no 0
   │  └─ tool search {"q": 1}  ok  12 ms  → found
   └─ attempt 1  failed  TIME  bob  timeout: no 1
      └─ tool search {"q": 1}  ok  12 ms  → found

events
  routed: to=ada, score=0.5
"""
    )


def test_show_as_json_has_everything(project: Project, journal: Journal) -> None:
    a_run(journal)
    data = project.run("runs", "show", "latest", "--json").json()
    assert (data["id"], data["reason"], data["schema_version"]) == ("shop-abc123", "StepFailed", 1)
    assert [step["status"] for step in data["steps"]] == ["succeeded", "failed", "failed"]
    assert data["steps"][0]["prompt"] == "topic: hats\n"
    assert data["steps"][2]["calls"][0]["result"] == "found"
    assert data["steps"][2]["events"][0]["data"] == {"end": 5}


def test_what_agents_say_does_not_drive_the_terminal(project: Project, journal: Journal) -> None:
    a_run(journal, output="\x1b[2Jline\n  two", error="\x1b]0;x\x07")
    ended = project.run("runs", "show", "latest")
    assert ended.out.endswith("output\n\\x1b[2Jline\n  two\n")
    assert "\x1b" not in ended.text


def test_delegated_work_stands_below_who_delegated(project: Project, journal: Journal) -> None:
    journal.begin_run(RunRecord(id="t-1", team="t"))
    boss = journal.begin_step(StepRecord(run_id="t-1", name="boss"))
    for item in range(2):
        row = journal.begin_step(
            StepRecord(run_id="t-1", name="helper", parent=boss, item=item, prompt="p")
        )
        journal.end_step(row, status="succeeded", output=f"o{item}", token_usage=TokenUsage(1, 1))
    ended = project.run("runs", "show", "t-1")
    tree = re.sub(r"\d\.\d s", "TIME", ended.out[ended.out.index("steps") :])
    assert (
        tree
        == """\
steps
└─ boss  running  TIME
   └─ helper  succeeded  4 tokens
      ├─ item 0  succeeded  TIME  2 tokens  → o0
      └─ item 1  succeeded  TIME  2 tokens  → o1
"""
    )


@pytest.mark.parametrize("command", ["show", "watch", "cancel", "delete", "export"])
def test_a_run_that_is_not_there(project: Project, journal: Journal, command: str) -> None:
    a_run(journal)
    ended = project.run("runs", command, "shop-abc124")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == 'error: no run "shop-abc124" (near: shop-abc123)\n'


def test_a_journal_that_is_none(project: Project) -> None:
    project.write(".muster/runs.db", "x" * 200)
    ended = project.run("runs", "list")
    assert ended.code == 2
    assert ended.err.endswith("not a journal of runs; move it away, and a new one is begun\n")


def test_another_journal(project: Project, tmp_path: Path) -> None:
    with Journal.open(tmp_path / "other.db") as other:
        a_run(other)
    ended = project.run("runs", "show", "latest", "--journal", str(tmp_path / "other.db"))
    assert ended.out.startswith("run      shop-abc123\n")


# --- watch --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        ("succeeded", "Succeeded", 0),
        ("failed", "StepFailed", 1),
        ("failed", "TimedOut", 3),
        ("failed", "BudgetExceeded", 4),
        ("cancelled", "Cancelled", 130),
    ],
)
def test_watch_ends_as_the_run_did(
    project: Project, journal: Journal, status: str, reason: str, code: int
) -> None:
    a_run(journal, status=status, reason=reason, output="done")
    ended = project.run("runs", "watch", "latest")
    assert ended.code == code
    assert (
        re.sub(r"\b0\.\ds", "TIME", ended.out)
        == f"""\
  routed: to=ada, score=0.5
  research             [running]
  research             [done]    21 tokens  TIME
    └─ Hats are worn.
  write                [running]
  write                [failed]  no 0
  write (attempt 1)    [running]
  write (attempt 1)    [failed]  no 1

Team {status.capitalize()} in 2.1s — step "write": no 1 — total: 21 tokens

Output:
done
"""
    )


def test_watch_follows_a_run_that_goes_on(project: Project, journal: Journal) -> None:
    journal.begin_run(RunRecord(id="t-1", team="t"))
    row = journal.begin_step(StepRecord(run_id="t-1", name="a"))
    watching = project.start("runs", "watch", "t-1")
    assert watching.stdout is not None
    assert watching.stdout.readline() == "  a                    [running]\n"
    journal.end_step(row, status="succeeded", output="x")
    assert watching.stdout.readline().startswith("  a                    [done]    0 tokens")
    assert watching.stdout.readline() == "    └─ x\n"
    journal.begin_step(StepRecord(run_id="t-1", name="ship", status="waiting"))
    journal.ask_approval("t-1", "ship", "Ship it?")
    line = watching.stdout.readline()
    assert line.startswith("  ship                 [waiting]")
    assert line.endswith("(muster approve t-1 ship)\n")
    journal.update_run("t-1", status="succeeded", output="the end")
    assert project.finish(watching).out.endswith("Output:\nthe end\n")
    assert watching.returncode == 0


def test_watch_sees_that_the_process_dies(
    project: Project, journal: Journal, workers: list[subprocess.Popen[str]]
) -> None:
    worker = started(workers, project, "alone", "polite")
    watching = project.start("runs", "watch", "latest")
    assert watching.stdout is not None
    assert watching.stdout.readline() == "  a                    [running]\n"
    worker.kill()
    worker.wait()
    ended = project.finish(watching)
    assert ended.code == 130
    assert "Team Interrupted in " in ended.out
    assert "its process ended without a word" in ended.out


# --- cancel and delete --------------------------------------------------------------------------


def test_cancel_stops_the_process(
    project: Project, journal: Journal, workers: list[subprocess.Popen[str]]
) -> None:
    worker = started(workers, project, "alone", "polite")
    ended = project.run("runs", "cancel", "latest")
    assert (ended.code, ended.text) == (0, "t-worker: cancelled\n")
    assert worker.wait(10) == 0
    assert journal.run("latest").status == "cancelled"
    again = project.run("runs", "cancel", "latest")
    assert (again.code, again.out) == (0, "t-worker: has ended already: cancelled\n")


def test_cancel_of_a_process_that_dies_without_a_word(
    project: Project, journal: Journal, workers: list[subprocess.Popen[str]]
) -> None:
    worker = started(workers, project, "alone", "rude")
    cancelling = project.start("runs", "cancel", "latest")
    assert worker.wait(10) == 0
    assert project.finish(cancelling).text == "t-worker: cancelled\n"
    assert journal.run("latest").reason == "Cancelled"
    assert [step.status for step in journal.steps("t-worker")] == ["failed"]


def test_cancel_asks_a_server_through_the_journal(
    project: Project, journal: Journal, workers: list[subprocess.Popen[str]]
) -> None:
    worker = started(workers, project, "shares", "polite")
    cancelling = project.start("runs", "cancel", "latest")
    wait_until(lambda: journal.cancel_requested("t-worker"))
    assert worker.poll() is None  # no signal
    assert worker.stdin is not None
    worker.stdin.write("\n")
    worker.stdin.flush()
    assert project.finish(cancelling).text == "t-worker: cancelled\n"


def test_cancel_does_not_wait_for_ever(
    project: Project, journal: Journal, workers: list[subprocess.Popen[str]]
) -> None:
    worker = started(workers, project, "alone", "deaf")
    ended = project.run("runs", "cancel", "latest", "--wait", "0")
    assert ended.code == 1
    assert ended.err == f"t-worker: asked to stop, but it goes on in process {worker.pid}\n"
    assert worker.poll() is None


def test_a_dead_run_is_interrupted_and_its_number_left_alone(
    project: Project, journal: Journal, workers: list[subprocess.Popen[str]]
) -> None:
    worker = started(workers, project, "alone", "polite")
    journal.update_run("t-worker", output=None)
    known = str(journal.run("t-worker").process)
    host, boot, begun = known.split("|")
    other = f"{host}|{boot}|{int(begun) - 1}"  # an earlier process of the same number
    journal._db.write("UPDATE runs SET process = ?", (other,))
    ended = project.run("runs", "cancel", "latest")
    assert (ended.code, ended.out) == (0, "t-worker: its process is gone: interrupted\n")
    assert worker.poll() is None


def test_a_run_of_another_machine(project: Project, journal: Journal) -> None:
    journal.begin_run(RunRecord(id="t-1", team="t"))
    journal._db.write("UPDATE runs SET process = 'elsewhere|x|1'")
    ended = project.run("runs", "cancel", "t-1", "--wait", "0")
    assert ended.code == 1
    assert ended.err.endswith("on another machine; if that is gone, say --force\n")
    ended = project.run("runs", "cancel", "t-1", "--force")
    assert (ended.code, ended.out) == (0, "t-1: cancelled\n")


def test_delete(project: Project, journal: Journal) -> None:
    a_run(journal)
    journal.begin_run(RunRecord(id="t-1", team="t"))
    ended = project.run("runs", "delete", "t-1")
    assert ended.code == 2
    assert ended.err == "error: run t-1 is running; first: muster runs cancel t-1\n"
    ours = project.write(".muster/artifacts/shop-abc123/write/report.txt", "x")
    others = project.write(".muster/artifacts/t-1/write/report.txt", "x")
    ended = project.run("runs", "delete", "shop-abc123")
    assert (ended.code, ended.out) == (0, "deleted shop-abc123\n")
    assert not ours.parents[1].exists()
    assert others.exists()
    assert [run.id for run in journal.runs()] == ["t-1"]


# --- export -------------------------------------------------------------------------------------


def test_export_as_json(project: Project, journal: Journal) -> None:
    a_run(journal)
    shown = project.run("runs", "export", "latest").json()
    ended = project.run("runs", "export", "latest", "shop-abc", "--json", "out.json")
    assert (ended.code, ended.out, ended.err) == (0, "", "wrote out.json\n")
    assert json.loads((project.root / "out.json").read_text()) == shown
    assert [run["id"] for run in shown["runs"]] == ["shop-abc123"]
    again = project.run("runs", "export", "latest", "--json", "out.json")
    assert (again.code, again.err) == (
        2,
        "error: out.json is there already (--force replaces it)\n",
    )
    assert project.run("runs", "export", "latest", "--json", "out.json", "--force").code == 0


@pytest.mark.parametrize("name", ["suite.yaml", "suite.jsonl"])
def test_runs_as_a_suite_are_measured(project: Project, journal: Journal, name: str) -> None:
    good_run(journal, "shop-1", "Hats {{ answer }}.\n")
    good_run(journal, "shop-2", "Caps.")
    ended = project.run("runs", "export", "shop-1", "shop-2", "--as-suite", name)
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == f"wrote {name}: 2 cases; try: muster eval {name}\n"
    project.write(
        ".muster/targets.yaml",
        "targets: [{name: default, provider: mock, default: 'Hats {{ answer }}.'}]\n",
    )
    assert project.run("eval", name, "--output", "run").code == 1
    rows = project.by_id()
    assert {key: row["execution_status"] for key, row in rows.items()} == {
        "shop-1": "ok",
        "shop-2": "quality_failure",
    }
    assert rows["shop-1"]["input"] == '{"topic": "hats"}'
    assert rows["shop-1"]["expected_output"] == "Hats {{ answer }}.\n"
    assert rows["shop-1"]["metadata"] == {"run": "shop-1", "team": "shop"}


def test_a_step_as_a_suite_is_measured_on_echo(project: Project, journal: Journal) -> None:
    journal.begin_run(RunRecord(id="t-1", team="t", status="failed"))
    row = journal.begin_step(StepRecord(run_id="t-1", name="say", agent="ada", prompt="topic: x\n"))
    journal.end_step(row, status="succeeded", output="topic: x")
    ended = project.run("runs", "export", "t-1", "--as-suite", "s.yaml", "--step", "say")
    assert ended.code == 0
    assert project.eval("s.yaml", "--target", "echo").code == 0
    (case,) = project.rows()
    assert (case["test_id"], case["execution_status"]) == ("t-1/say", "ok")
    assert case["metadata"] == {"run": "t-1", "team": "t", "step": "say", "agent": "ada"}


def test_a_failed_run_is_no_case(project: Project, journal: Journal) -> None:
    a_run(journal)
    ended = project.run("runs", "export", "latest", "--as-suite", "s.yaml")
    assert ended.code == 2
    assert ended.err == (
        "error: run shop-abc123: failed, so that there is nothing to expect of a test; "
        "--step NAME takes an answer of one of its steps\n"
    )
    assert not (project.root / "s.yaml").exists()
    ended = project.run("runs", "export", "latest", "--step", "write")
    assert (ended.code, ended.err) == (2, "error: --step goes with --as-suite\n")


# --- approve ------------------------------------------------------------------------------------


def waits(journal: Journal, *items: int | None, status: str = "running") -> None:
    journal.begin_run(RunRecord(id="t-1", team="t", status=status))
    for item in items:
        journal.ask_approval("t-1", "ship", "Ship it?", item=item)


@pytest.mark.parametrize(("options", "status"), [([], "approved"), (["--reject"], "rejected")])
def test_approve(project: Project, journal: Journal, options: list[str], status: str) -> None:
    waits(journal, None)
    assert (
        "ship: waiting: Ship it? (muster approve t-1 ship)"
        in project.run("runs", "show", "t-1").out
    )
    env = {"LOGNAME": "ada", "SHOP_TOKEN": "sk-9fGh2Kq7w"}
    ended = project.run(
        "approve", "latest", "ship", *options, "--comment", "as sk-9fGh2Kq7w said", env=env
    )
    assert (ended.code, ended.text) == (0, f"t-1: ship {status}\n")
    known = journal.approval("t-1", "ship")
    assert known is not None
    assert (known.status, known.by) == (status, "ada")
    assert known.comment == "as ********** said"
    again = project.run("approve", "t-1", "ship", env=env)
    assert again.code == 2
    assert again.err == f'error: step "ship" of run t-1 is {status} already, by ada\n'


def test_approve_an_item(project: Project, journal: Journal) -> None:
    waits(journal, 0, 1)
    ended = project.run("approve", "t-1", "ship")
    assert (ended.code, ended.err) == (
        2,
        'error: several items of step "ship" wait: say --item, one of 0, 1\n',
    )
    assert project.run("approve", "t-1", "ship", "--item", "1").out == "t-1: ship item 1 approved\n"
    assert project.run("approve", "t-1", "ship").out == "t-1: ship item 0 approved\n"


def test_approve_what_does_not_wait(project: Project, journal: Journal) -> None:
    waits(journal, None, status="failed")
    ended = project.run("approve", "t-1", "ship")
    assert (ended.code, ended.err) == (
        2,
        "error: run t-1 has ended (failed); nothing waits there\n",
    )
    journal.update_run("t-1", status="running")
    ended = project.run("approve", "t-1", "shp")
    assert (ended.code, ended.err) == (
        2,
        'error: step "shp" of run t-1 does not wait for an approval (waiting: ship)\n',
    )


def test_a_run_that_was_killed_can_still_be_answered(
    project: Project, journal: Journal, workers: list[subprocess.Popen[str]]
) -> None:
    worker = started(workers, project, "alone", "polite")
    journal.ask_approval("t-worker", "ship", "?")
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    ended = project.run("approve", "latest", "ship")
    assert (ended.code, ended.out) == (0, "t-worker: ship approved\n")
    assert ended.err == "its process is gone; to go on: muster run --resume t-worker\n"
