"""Commands that misbehave: each is an error of its own case; the others are as they would be."""

from __future__ import annotations

import pytest
from muster_project import Project

AGENT = r"""
case "$1" in
  exit-3) echo "the disk is on fire" >&2; exit 3 ;;
  killed) kill -9 $$ ;;
  bad-json) printf '{"text": "Paris' > "$2" ;;
  bad-utf8) printf 'Paris \303\050' > "$2" ;;
  nothing) : ;;
  says-error) printf '{"error": "no credit left"}' > "$2" ;;
  hang) sleep 300 & (sleep 300 & sleep 300) & echo waiting >&2; wait ;;
  flood-stdout) head -c 1000000000 /dev/zero ;;
  flood-file) truncate -s 1G "$2" ;;
  *) printf Paris > "$2" ;;
esac
"""

TARGETS = """
targets:
  - name: default
    provider: cli
    command: sh ../agent.sh {EVAL_ID} {OUTPUT_FILE}
    workers: 3
"""


def write_suite(project: Project, *ids: str, targets: str = TARGETS) -> None:
    project.write("agent.sh", AGENT)
    project.write(".muster/targets.yaml", targets)
    rows = "".join(f"  - {{id: {name}, input: q}}\n" for name in ids)
    project.write(
        "agent.eval.yaml", f"assertions: [{{type: contains, value: Paris}}]\ntests:\n{rows}"
    )


def test_each_failure_is_an_error_of_its_case(project: Project) -> None:
    bad = ("exit-3", "killed", "bad-utf8", "nothing", "says-error")
    write_suite(project, "good-1", *bad, "good-2", "bad-json")
    ended = project.eval("agent.eval.yaml")
    assert ended.code == 1
    rows = project.by_id()
    assert {name: row["execution_status"] for name, row in rows.items()} == {
        **dict.fromkeys(bad, "execution_error"),
        **dict.fromkeys(("good-1", "good-2", "bad-json"), "ok"),
    }
    # What is not the JSON of an answer is the text of one.
    assert rows["bad-json"]["output"] == '{"text": "Paris'
    assert {name: rows[name]["error_kind"] for name in bad} == {
        "exit-3": "provider_failed",
        "killed": "provider_failed",
        "bad-utf8": "bad_output",
        "nothing": "bad_output",
        "says-error": "provider_failed",
    }
    assert all(rows[name]["score"] is None for name in bad)
    assert all(rows[name].get("attempts", 1) == 1 for name in bad)
    assert "3" in rows["exit-3"]["error"]
    assert "the disk is on fire" in rows["exit-3"]["error"]
    assert "no credit left" in rows["says-error"]["error"]
    (target,) = project.record()["totals"]["targets"]
    assert target["errors_by_kind"] == {"provider_failed": 3, "bad_output": 2}
    assert target["pass_rate"] == 1.0
    assert "the disk is on fire" in ended.out
    assert "default: 3 × provider_failed" in ended.out


def test_a_command_that_hangs_is_ended_with_its_children(project: Project) -> None:
    write_suite(project, "hang", "good-1", targets=TARGETS + "    timeout_seconds: 0.3\n")
    ended = project.eval("agent.eval.yaml")  # which looks that no process is left
    assert ended.code == 1
    rows = project.by_id()
    assert rows["good-1"]["execution_status"] == "ok"
    assert rows["hang"]["error_kind"] == "timeout"
    assert "0.3 s" in rows["hang"]["error"]
    assert rows["hang"]["duration_ms"] < 2000


@pytest.mark.parametrize("how", ["case", "run"])
def test_bounds_of_the_run_end_commands_too(project: Project, how: str) -> None:
    write_suite(project, "good-1", "hang")
    option = {"case": "--case-timeout", "run": "--timeout"}[how]
    ended = project.eval("agent.eval.yaml", option, "0.8")
    assert ended.code == {"case": 1, "run": 3}[how]
    if how == "case":
        assert project.by_id()["hang"]["error"] == "no result within 0.8 s"
    else:
        assert project.statuses() == {"good-1": "ok"}


def test_a_gigabyte_is_bounded(project: Project) -> None:
    write_suite(project, "flood-stdout", "flood-file", "good-1")
    ended = project.eval("agent.eval.yaml")
    assert ended.code == 1
    assert ended.seconds < 10
    rows = project.by_id()
    assert rows.pop("good-1")["execution_status"] == "ok"
    for row in rows.values():
        assert row["error_kind"] == "bad_output"
        assert "10" in row["error"]
        assert row.get("output") is None
    assert (project.root / "run" / "results.jsonl").stat().st_size < 10_000


def test_a_failed_healthcheck_starts_no_command(project: Project) -> None:
    targets = TARGETS + "    healthcheck: {command: 'echo down >&2; exit 1'}\n"
    write_suite(project, "good-1", "good-2", targets=targets.replace("sh ../", "touch ran; sh ../"))
    ended = project.eval("agent.eval.yaml")
    assert ended.code == 1
    kinds = [row["error_kind"] for row in project.rows()]
    assert kinds == ["provider_unavailable"] * 2
    assert not (project.root / ".muster" / "ran").exists()


def test_a_program_that_is_not_there(project: Project) -> None:
    targets = "targets: [{name: default, provider: cli, command: [no-such-agent, '{PROMPT}']}]\n"
    write_suite(project, "good-1", targets=targets)
    ended = project.eval("agent.eval.yaml")
    assert ended.code == 1
    assert "no-such-agent" in project.by_id()["good-1"]["error"]
