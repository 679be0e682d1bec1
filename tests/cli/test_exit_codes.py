"""How the process ends tells what happened, and the folder tells it again."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import time

import pytest
from muster_project import Ended, Project, wait_until

TARGETS = """
targets:
  - name: default
    provider: mock
    workers: 1
    replies:
      - contains: paid
        text: Paris
        cost_usd: 0.01
      - contains: slow
        text: Paris
        delay: 60
      - contains: broken
        error: {kind: bad_request, message: no such model}
      - contains: wrong
        text: London
      - contains: half
        text: Paris, London
    default: Paris
"""


def write_suite(project: Project, *inputs: str, name: str = "a", more: str = "") -> None:
    project.write(".muster/targets.yaml", TARGETS)
    rows = "".join(
        f"  - {{id: {text.partition(' ')[0]}-{n}, input: {text}}}\n"
        for n, text in enumerate(inputs)
    )
    graders = "[{type: contains, value: Paris}, {type: not-contains, value: London}]"
    project.write(f"{name}.eval.yaml", f"assertions: {graders}\n{more}tests:\n{rows}")


def ended_as(project: Project, ended: Ended, code: int, status: str, not_run: int) -> None:
    assert ended.code == code, ended.text
    record = project.record()
    assert record["status"] == status
    assert record["not_run"] == not_run
    assert record["ended_at"] is not None
    assert record["totals"]["results"] == len(project.rows()) == record["planned"] - not_run
    told = f"to complete it: muster eval --resume {project.root / 'run'}"
    assert (told.replace(f"{project.root}/", "") in ended.err) == (not_run > 0)


@pytest.mark.parametrize(
    ("inputs", "options", "code"),
    [
        (("good", "good"), (), 0),
        (("good", "wrong"), ("--no-gate",), 0),
        (("good", "broken"), ("--no-gate",), 1),
        (("good", "broken"), ("--allow-errors", "1"), 0),
        (("wrong", "broken"), ("--allow-errors", "1"), 1),
        (("wrong", "broken"), ("--allow-errors", "1", "--no-gate"), 0),
        (("half",), (), 1),
        (("half",), ("--threshold", "0.5"), 0),
        (("good", "half"), ("--threshold", "0.51"), 1),
    ],
)
def test_the_gate(
    project: Project, inputs: tuple[str, ...], options: tuple[str, ...], code: int
) -> None:
    write_suite(project, *inputs)
    ended_as(project, project.eval("a.eval.yaml", *options), code, "complete", 0)


def test_fail_on_error_stops_at_the_first(project: Project) -> None:
    write_suite(project, "good", "broken", "good", "good")
    ended = project.eval("a.eval.yaml", "--fail-on-error")
    ended_as(project, ended, 1, "failed", 2)
    assert project.statuses() == {"good-0": "ok", "broken-1": "execution_error"}
    assert "not run: 2 of 4 results (stopped at the first error)" in ended.out


def test_fail_on_error_of_the_suite_does_not_stop_others(project: Project) -> None:
    write_suite(project, "broken", "good", name="a", more="fail_on_error: true\n")
    write_suite(project, "good", name="b")
    ended = project.eval("a.eval.yaml", "b.eval.yaml")
    assert ended.code == 1
    assert [row["execution_status"] for row in project.rows()] == ["execution_error", "ok"]


def test_timeout_of_the_run(project: Project) -> None:
    write_suite(project, "good", "slow", "good")
    ended = project.eval("a.eval.yaml", "--timeout", "0.6")
    ended_as(project, ended, 3, "timed_out", 2)
    assert "not run: 2 of 3 results (the time for the run was up)" in ended.out


def test_budget_of_the_run(project: Project) -> None:
    write_suite(project, *["paid"] * 5)
    ended = project.eval("a.eval.yaml", "--budget-usd", "0.025")
    ended_as(project, ended, 4, "budget_exceeded", 2)
    assert project.record()["totals"]["cost_usd"] == pytest.approx(0.03)
    assert "not run: 2 of 5 results (the budget is spent)" in ended.out


def test_budget_of_a_suite_holds_for_that_suite(project: Project) -> None:
    write_suite(project, *["paid"] * 4, name="a", more="budget_usd: 0.015\n")
    write_suite(project, *["paid"] * 3, name="b")
    ended = project.eval("a.eval.yaml", "b.eval.yaml")
    ended_as(project, ended, 4, "budget_exceeded", 2)
    assert [row["suite"] for row in project.rows()] == ["a"] * 2 + ["b"] * 3


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130, id="SIGINT"),
        pytest.param(signal.SIGTERM, 143, id="SIGTERM"),
        pytest.param(signal.SIGHUP, 129, id="SIGHUP"),
    ],
)
def test_interrupted(project: Project, number: int, code: int) -> None:
    """Calls under way are ended, commands with their children too; what was done stays."""
    write_suite(project, "good", "hang", "good")
    project.write(
        ".muster/targets.yaml",
        """
        targets:
          - name: default
            provider: cli
            workers: 1
            command: |
              case {PROMPT} in hang) touch hanging; sleep 300 & sleep 300 ;; esac
              echo Paris
        """,
    )
    process = project.start("eval", "a.eval.yaml", "--output", "run")
    wait_until((project.root / ".muster" / "hanging").exists)
    process.send_signal(number)
    ended = project.finish(process)
    ended_as(project, ended, code, "interrupted", 2)
    assert "interrupted: ending the calls under way" in ended.err
    assert project.statuses() == {"good-0": "ok"}
    assert "not run: 2 of 3 results (interrupted)" in ended.out


def test_a_second_ctrl_c_ends_at_once(project: Project) -> None:
    """Also a command that does not care for TERM, and would be waited for."""
    write_suite(project, "good")
    project.write(
        ".muster/targets.yaml",
        """
        targets:
          - name: default
            provider: cli
            command: trap '' TERM; echo {PROMPT} > hanging; sleep 300; sleep 300
        """,
    )
    process = project.start("eval", "a.eval.yaml", "--output", "run")
    wait_until((project.root / ".muster" / "hanging").exists)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert "interrupted" in process.stderr.readline()
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    ended = project.finish(process)
    assert ended.code == 130
    assert time.monotonic() - began < 1.8
    assert project.rows() == []


def test_ctrl_c_before_the_first_call(project: Project) -> None:
    """While suites are read, which a generator of tests makes long."""
    write_suite(project, "good")
    project.write("make.py", "import time\nopen('reading', 'w').close()\ntime.sleep(60)\n")
    project.write("slow.eval.yaml", "tests: make.py:cases\n")
    process = project.start("eval", "slow.eval.yaml")
    wait_until((project.root / "reading").exists)
    process.send_signal(signal.SIGINT)
    ended = project.finish(process, timeout=10)
    assert ended.code == 130


def test_a_reader_that_goes_away_is_no_crash(project: Project) -> None:
    write_suite(project, "good")
    process = project.start("eval", "a.eval.yaml", "--json", "-q", "-o", "run", bufsize=0)
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    ended = project.finish(process)
    assert ended.code in (0, 1)
    assert project.statuses() == {"good-0": "ok"}


def test_without_a_standard_output(project: Project) -> None:
    write_suite(project, "good")
    command = " ".join(project.command("eval", "a.eval.yaml", "-o", "run"))
    process = subprocess.Popen(
        ["sh", "-c", f"{command} >&-"],
        cwd=project.root,
        env=project.environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    project.started.append(process)
    assert project.finish(process).code == 0
    assert project.statuses() == {"good-0": "ok"}


@pytest.mark.parametrize(
    ("size", "name"),
    [(8000, "results.jsonl"), (300, "run.json")],
)
def test_a_disk_that_is_full_is_told(project: Project, size: int, name: str) -> None:
    write_suite(project, *["good"] * 40)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    ended = project.eval("a.eval.yaml", preexec_fn=limit)
    assert ended.code in (1, 2)
    assert f"error: run/{name}" in ended.err
    assert "File too large" in ended.err
    if name == "results.jsonl":
        lines = (project.root / "run" / name).read_bytes().splitlines()
        assert json.loads(lines[-2])["execution_status"] == "ok"
