"""Events that are served: the clock, other runs' ends, one run at a time, stop and restart."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from up_parts import Gated, Up, event, manifest

from muster.errors import ConfigError, UsageError
from muster.store import database
from muster.store.journal import journal_path
from muster.store.records import RunRecord
from muster.teams.preparing import LaunchOptions
from muster.teams.triggers.clock import Clock
from muster.teams.triggers.served import UpOptions, read_events
from muster.teams.triggers.state import Fire, PlannedRun, open_state

HOOK = event("hook", "{type: webhook}", '{team: t, input: {say: "{{ .trigger.body.say }}"}}')


class FakeClock(Clock):
    """Stands still; a sleeper is woken when the test moves it on."""

    def __init__(self, now: str) -> None:
        self.time = datetime.fromisoformat(now).replace(tzinfo=UTC)
        self._moved = asyncio.Condition()

    def now(self) -> datetime:
        return self.time

    async def sleep(self, seconds: float) -> None:
        until = self.time + timedelta(seconds=seconds)
        async with self._moved:
            await self._moved.wait_for(lambda: self.time >= until)

    async def move(self, **by: float) -> None:
        async with self._moved:
            self.time += timedelta(**by)
            self._moved.notify_all()


def cron(name: str, expression: str, more: str = "") -> str:
    say = '{team: t, input: {say: "{{ .trigger.scheduledAt }}"}}'
    return event(name, f'{{type: cron, cron: "{expression}"}}', say, more)


def said(runs: list[RunRecord]) -> list[str]:
    return [run.input["say"] for run in runs]


# --- the clock ----------------------------------------------------------------------------------


async def test_cron_fires_on_time_and_not_when_it_is_new(tmp_path: Path) -> None:
    clock = FakeClock("2026-05-01 08:59:40")
    async with Up(tmp_path, manifest(cron("hourly", "0 * * * *")), clock=clock) as up:
        (line,) = up.found("serving")
        assert line["text"] == 'cron "0 * * * *", next fire at 2026-05-01T09:00:00Z'
        await clock.move(seconds=19)
        assert up.found("started") == []
        await clock.move(seconds=2)
        await up.line("succeeded", event="hourly")
        await clock.move(minutes=60)
        await up.line("succeeded", 2, event="hourly")
    assert said(up.runs()) == ["2026-05-01T09:00:00Z", "2026-05-01T10:00:00Z"]
    assert {run.trigger for run in up.runs()} == {"cron:hourly"}


async def test_a_clock_that_breaks_ends_the_server(tmp_path: Path) -> None:
    class Broken(FakeClock):
        async def sleep(self, seconds: float) -> None:
            raise ZeroDivisionError("a defect")

    text = manifest(cron("hourly", "0 * * * *"), HOOK)
    async with Up(tmp_path, text, clock=Broken("2026-05-01 08:00")) as up:
        with pytest.raises(ZeroDivisionError, match="a defect"):
            await asyncio.wait_for(up.done(), 10)
        assert up.lines[-1]["outcome"] == "stopped"
        up.interrupted = 0


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("once", ["13:00"]),
        ("skip", []),
        ("all", ["11:00", "12:00", "13:00"]),
        ("all\n  startingDeadlineSeconds: 7200", ["12:00", "13:00"]),
    ],
)
async def test_what_was_missed(tmp_path: Path, policy: str, expected: list[str]) -> None:
    text = manifest(cron("hourly", "0 * * * *", f"missedRuns: {policy}"))
    clock = FakeClock("2026-05-01 09:59:50")
    async with Up(tmp_path, text, clock=clock) as up:
        await clock.move(seconds=20)
        await up.line("succeeded")
    async with Up(tmp_path, None, clock=FakeClock("2026-05-01 13:30")) as up:
        if len(expected) < 3:
            await up.line("missed", event="hourly")
        if expected:
            await up.line("succeeded", len(expected))
    async with Up(tmp_path, None, clock=FakeClock("2026-05-01 13:40")) as up:
        await asyncio.sleep(0)
        assert up.found("started") == []
    assert [text[11:16] for text in said(up.runs())] == ["10:00", *expected]


async def test_nothing_is_made_up_for_when_it_was_off_or_is_another(tmp_path: Path) -> None:
    async with Up(tmp_path, manifest(cron("x", "0 * * * *")), clock=FakeClock("2026-05-01 01:10")):
        pass
    changed = manifest(cron("x", "5 * * * *"))
    async with Up(tmp_path, changed, clock=FakeClock("2026-05-01 03:30")) as up:
        assert up.found("serving")[0]["text"].endswith("next fire at 2026-05-01T04:05:00Z")
    off = manifest(cron("x", "5 * * * *", "suspended: true"))
    async with Up(tmp_path, off, clock=FakeClock("2026-05-01 03:40")) as up:
        assert up.found("serving")[0]["text"] == "cron, suspended"
    async with Up(tmp_path, changed, clock=FakeClock("2026-05-01 08:30")) as up:
        assert up.found("serving")[0]["text"].endswith("next fire at 2026-05-01T09:05:00Z")
    assert up.runs() == []


async def test_forbid_records_the_slot_that_it_skips(tmp_path: Path) -> None:
    hold = event(
        "slow",
        '{type: cron, cron: "* * * * *"}',
        "{team: t, input: {say: hold}}",
        "concurrencyPolicy: Forbid",
    )
    clock = FakeClock("2026-05-01 08:59:50")
    async with Up(tmp_path, manifest(hold), clock=clock) as up:
        await clock.move(seconds=10)
        started = await up.line("started")
        await clock.move(seconds=60)
        skipped = await up.line("skipped")
        assert skipped["text"] == (
            f"concurrencyPolicy is Forbid, and {started['run']} is under way"
        )
        up.gate.set()
        await up.line("succeeded")
        await clock.move(seconds=60)
        await up.line("started", 2)
    assert len(up.runs()) == 2


def test_a_bad_expression_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "team.yaml").write_text(manifest(cron("x", "0 25 * * *")))
    with pytest.raises(ConfigError) as caught:
        read_events(UpOptions(launch=LaunchOptions(file=tmp_path / "team.yaml", provider="mock")))
    assert str(caught.value).endswith(
        'spec.source.cron: invalid cron expression "0 25 * * *": '
        "hour: expected a number from 0 to 23, found 25"
    )
    assert str(caught.value).startswith(f"{tmp_path / 'team.yaml'}:")


def test_a_file_without_events(tmp_path: Path) -> None:
    (tmp_path / "team.yaml").write_text(manifest())
    with pytest.raises(UsageError, match="there is no ArkEvent in it to serve"):
        read_events(UpOptions(launch=LaunchOptions(file=tmp_path / "team.yaml")))


# --- one at a time ------------------------------------------------------------------------------


async def test_allow_and_the_bound_on_all_runs(tmp_path: Path) -> None:
    async with Up(tmp_path, manifest(HOOK), max_runs=2) as up:
        for _ in range(2):
            assert (await up.post("hook", {"say": "hold"}))[0] == 202
        status, told = await up.post("hook", {"say": "hold"})
        assert (status, told["error"]) == (409, "2 runs are under way, of 2 at most")
        up.gate.set()
        await up.line("succeeded", 2)
    assert [run.status for run in up.runs()] == ["succeeded", "succeeded"]


async def test_replace(tmp_path: Path) -> None:
    async with Up(tmp_path, manifest(HOOK + "  concurrencyPolicy: Replace\n")) as up:
        _, first = await up.post("hook", {"say": "hold 1"})
        waiting = asyncio.ensure_future(up.post("hook", {"say": "hold 2"}, query="?mode=sync"))
        await up.line("cancelled", run=first["runs"][0])
        await up.line("started", 2)
        _, third = await up.post("hook", {"say": "say 3"})
        status, told = await waiting
        assert (status, told["reason"]) == (500, "Cancelled")
        assert told["error"] == "replaced by a newer fire of hook"
        await up.line("succeeded", run=third["runs"][0])
    assert [run.status for run in up.runs()] == ["cancelled", "cancelled", "succeeded"]


async def test_cancelled_from_outside(tmp_path: Path) -> None:
    async with Up(tmp_path, manifest(HOOK)) as up:
        _, told = await up.post("hook", {"say": "hold"})
        with up.journal() as journal:
            journal.request_cancel(told["runs"][0])
        await up.line("cancelled", run=told["runs"][0])
        assert (await up.post("hook", {"say": "x"}))[0] == 202


OUTER = """---
apiVersion: muster.dev/v1alpha1
kind: Team
metadata: {name: outer}
spec:
  input: {say: hello}
  roles: [{name: inner, arkTeam: t}]
  pipeline: [{role: inner, inputs: {say: "{{ .input.say }}"}}]
"""


async def test_to_cancel_a_team_in_a_team_does_not_end_the_server(tmp_path: Path) -> None:
    """A run whose process is a server's is asked through the journal: so are its teams' runs."""
    hook = event(
        "hook", "{type: webhook}", '{team: outer, input: {say: "{{ .trigger.body.say }}"}}'
    )
    async with Up(tmp_path, manifest(OUTER, hook)) as up:
        status, told = await up.post("hook", {"say": "bees"}, query="?mode=sync")
        assert (status, told["output"]) == (200, "BEES")
    assert [(run.team, run.shares_process) for run in up.runs()] == [("outer", True), ("t", True)]


# --- the ends of other runs ---------------------------------------------------------------------


def after(name: str, team: str, target: str, phase: str = "Succeeded", more: str = "") -> str:
    source = f"{{type: team-output, teamOutput: {{name: {team}, onPhase: '{phase}'}}}}"
    return event(name, source, target, more)


OUTPUT = (
    '{team: u, input: {say: "{{ .trigger.run }} {{ .trigger.phase }} {{ .trigger.output }}'
    '{{ .trigger.error }}"}}'
)


def ended(up: Up, name: str, status: str, **more: object) -> None:
    """A run of another process that has ended just now."""
    fields = {"team": "t", "status": status, "output": "OUT", "ended_at": _now(), **more}
    with up.journal() as journal:
        journal.begin_run(RunRecord(id=name, **fields))  # type: ignore[arg-type]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def test_each_end_fires_once_whoever_ran_it(tmp_path: Path) -> None:
    text = manifest(HOOK, after("then", "t", OUTPUT))
    ended(Up(tmp_path, text), "t-other0", "succeeded")  # before there was the event
    async with Up(tmp_path, text) as up:
        _, told = await up.post("hook", {"say": "bees"})
        await up.line("succeeded", event="then")
        ended(up, "t-other1", "succeeded")
        await up.line("succeeded", 2, event="then")
    ended(up, "t-other2", "succeeded")
    async with Up(tmp_path, None) as up:
        await up.line("succeeded", event="then")
    async with Up(tmp_path, None) as up:
        ended(up, "t-other3", "succeeded")
        await up.line("succeeded", event="then")
    runs = [run for run in up.runs() if run.team == "u"]
    assert said(runs) == [
        f"{told['runs'][0]} Succeeded BEES",
        "t-other1 Succeeded OUT",
        "t-other2 Succeeded OUT",
        "t-other3 Succeeded OUT",
    ]
    assert {run.trigger for run in runs} == {"team-output:then"}


async def test_phases(tmp_path: Path) -> None:
    text = manifest(
        after("good", "t", "{team: u, input: {say: good}}"),
        after("bad", "t", "{team: u, input: {say: bad}}", "Failed"),
        after("any", "t", OUTPUT, "*"),
    )
    async with Up(tmp_path, text) as up:
        ended(up, "t-1", "cancelled")
        ended(up, "t-2", "interrupted")
        ended(up, "t-3", "succeeded", parent="x-1")
        ended(up, "t-4", "succeeded", trigger="eval")
        ended(up, "t-5", "running", ended_at=None)
        ended(up, "u-6", "succeeded", team="u")
        ended(up, "t-7", "failed", output=None, error="why")
        await up.line("succeeded", event="any")
        await up.line("succeeded", event="bad")
        ended(up, "t-8", "succeeded")
        await up.line("succeeded", 2, event="any")
        await up.line("succeeded", event="good")
        assert len(up.found("started")) == 4
    started = [run for run in up.runs() if (run.trigger or "").startswith("team-output")]
    assert sorted(said(started)) == ["bad", "good", "t-7 Failed why", "t-8 Succeeded OUT"]


async def test_a_run_that_is_retried_ends_twice(tmp_path: Path) -> None:
    async with Up(tmp_path, manifest(after("any", "t", OUTPUT, "*"))) as up:
        ended(up, "t-1", "failed", output="", error="why")
        await up.line("succeeded", event="any")
        await asyncio.sleep(0.002)
        with up.journal() as journal:
            journal.update_run("t-1", status="succeeded", output="now", error="", ended_at=_now())
        await up.line("succeeded", 2, event="any")
    runs = [run for run in up.runs() if run.team == "u"]
    assert said(runs) == ["t-1 Failed why", "t-1 Succeeded now"]


async def test_events_that_set_each_other_off_come_to_an_end(tmp_path: Path) -> None:
    text = manifest(
        HOOK,
        after("ping", "t", "{team: u, input: {say: ping}}"),
        after("pong", "u", "{team: t, input: {say: pong}}"),
    )
    async with Up(tmp_path, text) as up:
        await up.post("hook", {"say": "go"})
        line = await up.line("skipped")
        assert line["event"] == "ping"
        assert line["text"] == "10 events have set each other off in a row; here the chain ends"
    assert said(up.runs()) == ["go", *["ping", "pong"] * 5]


async def test_an_input_that_cannot_be_made_is_told_once(tmp_path: Path) -> None:
    text = manifest(HOOK, after("then", "t", "{team: u, input: {say: '{{ .trigger.nothing }}'}}"))
    async with Up(tmp_path, text) as up:
        await up.post("hook", {"say": "a"})
        line = await up.line("failed", event="then")
        assert ".trigger.nothing" in line["text"]
        ended(up, "t-other1", "failed")
        await up.post("hook", {"say": "b"}, query="?mode=sync")
        await up.line("failed", 2, event="then")
        assert len(up.found("failed")) == 2


# --- stop and start -----------------------------------------------------------------------------


async def test_a_stop_gives_time(tmp_path: Path) -> None:
    async with Up(tmp_path, manifest(HOOK), grace=30.0) as up:
        waiting = asyncio.ensure_future(up.post("hook", {"say": "hold"}, query="?mode=sync"))
        run = (await up.line("started"))["run"]
        up.stop.set()
        line = await up.line("stopping")
        assert line["text"] == f"{run} under way"
        up.gate.set()
        status, told = await waiting
        assert (status, told["output"]) == (200, "HOLD")
        assert await up.end() == 0
    assert [line["outcome"] for line in up.lines[-2:]] == ["succeeded", "stopped"]


async def test_what_was_interrupted_goes_on(tmp_path: Path) -> None:
    key = {"Idempotency-Key": "k"}
    async with Up(tmp_path, manifest(HOOK), grace=0.05) as up:
        query = "?mode=sync"
        waiting = asyncio.ensure_future(up.post("hook", {"say": "hold"}, query=query, headers=key))
        run = (await up.line("started"))["run"]
        up.stop.set()
        status, told = await waiting
        assert (status, told["error"]) == (
            503,
            f"the server is being stopped; run {run} goes on when it starts again",
        )
        assert await up.end() == 1
    assert [(each.id, each.status) for each in up.runs()] == [(run, "interrupted")]
    async with Up(tmp_path, None) as up:
        await up.line("resumed", run=run)
        up.gate.set()
        answer = await up.post("hook", {"say": "hold"}, query=query, headers=key)
        assert (answer[0], answer[1]["run"], answer[1]["output"]) == (200, run, "HOLD")
    assert [(each.id, each.status) for each in up.runs()] == [(run, "succeeded")]
    async with Up(tmp_path, None) as up:
        assert up.found("resumed") == []


async def test_a_journal_that_cannot_be_written_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.01)
    async with Up(tmp_path, manifest(HOOK)) as up:
        await up.post("hook", {"say": "hold on"})
        async with asyncio.timeout(10):
            while Gated.asked != ["hold on"]:
                await asyncio.sleep(0)
        other = sqlite3.connect(journal_path(tmp_path), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        up.gate.set()
        lost = await up.line("error")
        assert "its end is not written: " in lost["text"]
        other.execute("ROLLBACK")
        other.close()
        status, body = await up.post("hook", {"say": "bees"}, query="?mode=sync")
        assert (status, body["output"]) == (200, "BEES")
        assert {run.id: run.status for run in up.runs()} == {
            lost["run"]: "interrupted",
            body["run"]: "succeeded",
        }
    async with Up(tmp_path, None) as up:
        up.gate.set()
        await up.line("succeeded", run=lost["run"])


async def test_what_is_not_gone_on_with(tmp_path: Path) -> None:
    text = manifest(HOOK)
    async with Up(tmp_path, text) as up:
        for _ in range(2):
            await up.post("hook", {"say": "hold"})
        assert await up.end(at_once=True) == 2
    first, second = up.runs()
    with up.journal() as journal:
        journal.update_run(first.id, status="cancelled")
    up.file.write_text(text + "# changed\n")
    async with Up(tmp_path, None) as up:
        (line,) = up.found("not resumed")
        assert line["run"] == second.id
        assert line["text"] == "the manifest is not what it was when the run began"
    async with Up(tmp_path, None) as up:
        assert up.found("not resumed") == []


async def test_a_server_that_died_before_the_run_began(tmp_path: Path) -> None:
    """The fire is written first; whoever comes next begins what was to begin, under its name."""
    async with Up(tmp_path, manifest(HOOK)) as up:
        pass
    state = open_state(up.file, tmp_path)
    planned = PlannedRun("t-plan01", "hook", 0, "t", {"say": "planned"})
    state.record(Fire("hook", "started", _now()), None, [planned])
    state.close()
    for _ in range(2):
        async with Up(tmp_path, None) as up:
            await asyncio.sleep(0)
    assert [(run.id, run.output) for run in up.runs()] == [("t-plan01", "PLANNED")]


async def test_a_run_that_kills_its_server_is_not_gone_on_with_for_ever(tmp_path: Path) -> None:
    async with Up(tmp_path, manifest(HOOK)) as up:
        _, told = await up.post("hook", {"say": "hold"})
        await up.end(at_once=True)
    for _ in range(3):
        async with Up(tmp_path, None) as up:
            await up.line("resumed")
            await up.end(at_once=True)
    async with Up(tmp_path, None) as up:
        (line,) = up.found("not resumed")
    assert line["run"] == told["runs"][0]
    assert line["text"] == "the server was ended 3 times while it was under way"


async def test_one_server_for_a_manifest(tmp_path: Path) -> None:
    async with Up(tmp_path, manifest(HOOK)):
        # Locks are a process's own: from inside this one, the second gets it, so look from another.
        import subprocess
        import sys

        done = subprocess.run(
            [sys.executable, "-m", "muster", "up", "team.yaml", "--mock", "--port", "0"],
            check=False,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert done.returncode == 2
    assert done.stderr == "error: team.yaml: another `muster up` serves it already\n"


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    async with Up(tmp_path, manifest(HOOK)) as up:
        port = int(up.url.rpartition(":")[2])
        other = tmp_path / "other"
        other.mkdir()
        second = Up(other, manifest(HOOK))
        second.options = UpOptions(launch=second.options.launch, port=port)
        with pytest.raises(Exception, match=f"cannot listen on 127.0.0.1:{port}"):
            await second.__aenter__()
