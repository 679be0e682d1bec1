"""What is shown while a run goes on, and when it is over."""

from __future__ import annotations

import json
import os
import pty
import re
import struct
import termios
from fcntl import ioctl

import pytest
from muster_project import Ended, Project

TARGETS = """
targets:
  - name: default
    provider: mock
    workers: 2
    max_retries: 0
    replies:
      - {contains: busy, error: rate_limited}
      - {contains: broken, error: {kind: bad_request, message: no such model}}
      - {contains: wrong, text: London, usage: {input: 100, output: 10}, cost_usd: 0.01}
    default: {text: Paris, usage: {input: 100, output: 10}, cost_usd: 0.01, delay: 0.05}
"""


def write_suite(project: Project, *inputs: str) -> None:
    project.write(".muster/targets.yaml", TARGETS)
    rows = "".join(f"  - {{id: {text}-{n}, input: {text}}}\n" for n, text in enumerate(inputs))
    project.write("a.eval.yaml", f"assertions: [{{type: equals, value: Paris}}]\ntests:\n{rows}")


MIXED = ("busy", "busy", "broken", "wrong", *["good"] * 16)


def on_a_terminal(project: Project, *arguments: str) -> tuple[Ended, str]:
    """The command with its stderr on a terminal, and what the terminal got."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = project.start(
        "eval", "a.eval.yaml", "-o", "run", *arguments, stderr=theirs, env={"TERM": "xterm"}
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        seen += part
    os.close(ours)
    return project.finish(process), seen.decode()


def test_live_on_a_terminal(project: Project) -> None:
    write_suite(project, *MIXED)
    ended, seen = on_a_terminal(project)
    assert ended.code == 1
    assert "\x1b[" in seen
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen)
    lines = [line.strip() for line in re.split(r"[\r\n]+", plain)]
    counts = [int(found[1]) for line in lines if (found := re.match(r"━+  (\d+)/20  0:0\d$", line))]
    assert len(counts) >= 2
    assert counts == sorted(counts)
    states = [line for line in lines if re.match(r"\d+ passed  ", line)]
    assert re.fullmatch(
        r"\d+ passed  1 failed  3 errors \(2 rate_limited, 1 bad_request\)  \d+(\.\d)?/s  "
        r"\d+ tokens  \$0\.\d+",
        states[-1],
    )
    # The summary is on stdout, which is no terminal here: no codes in it.
    assert "\x1b" not in ended.out
    assert ended.out.startswith("target ")


def test_quiet_on_a_terminal(project: Project) -> None:
    write_suite(project, "good")
    ended, seen = on_a_terminal(project, "--quiet")
    assert (ended.code, seen) == (0, "")


def test_verbose_on_a_terminal(project: Project) -> None:
    write_suite(project, "good", "wrong")
    ended, seen = on_a_terminal(project, "--verbose")
    assert ended.code == 1
    assert re.search(r"pass  good-0  default  1\.00", seen)
    assert re.search(r"fail  wrong-1  default  0\.00 .* does not equal \"Paris\"", seen)


def test_plain_lines_elsewhere(project: Project) -> None:
    write_suite(project, *MIXED)
    ended = project.eval("a.eval.yaml")
    assert "\x1b" not in ended.text
    assert "\r" not in ended.text
    last = ended.err.splitlines()[-1]
    assert re.fullmatch(
        r"20/20  16 passed  1 failed  3 errors \(2 rate_limited, 1 bad_request\)  "
        r"\d+(\.\d)?/s  1870 tokens  \$0\.17",
        last,
    )


def test_the_summary(project: Project) -> None:
    write_suite(project, *MIXED)
    ended = project.eval("a.eval.yaml")
    lines = ended.out.splitlines()
    row = re.split(r"\s{2,}", lines[2])
    # Wilson's interval of 16 of 17; errors have no score and are not in it.
    assert row[:8] == [
        "default",
        "20",
        "0.941",
        "94.1% (16/17)",
        "[73.0%, 99.0%]",
        "3",
        "1870",
        "$0.17",
    ]
    assert all(re.fullmatch(r"\d+(\.\d)? ms", cell) for cell in row[8:])
    assert re.split(r"\s{2,}", lines[0])[4:8] == ["95 % interval", "errors", "tokens", "cost"]
    text = ended.out
    assert "errors by kind\n  default: 2 × rate_limited\n  default: 1 × bad_request\n" in text
    assert "busy-0 · default · ERROR\n      mock: rate_limited\n" in text
    assert "broken-2 · default · ERROR\n      no such model\n" in text
    assert 'wrong-3 · default · 0.00\n      Output does not equal "Paris"\n' in text
    # One error of a kind is enough to look at.
    assert "busy-1" not in text
    assert lines[-1] == "results: run"


def test_the_interval_knows_of_repeats(project: Project) -> None:
    """Two cases, ten times each: twenty results, but no more than two independent ones."""
    write_suite(project, "good", "wrong")
    ended = project.eval("a.eval.yaml", "--repeat", "10", "--workers", "20")
    (target,) = project.record()["totals"]["targets"]
    assert (target["passed"], target["quality_failures"]) == (10, 10)
    low, high = target["pass_rate_interval"]
    assert low < 0.1
    assert high > 0.9
    assert f"[{low:.1%}, {high:.1%}]" in ended.out


def test_a_cost_that_is_not_whole_is_marked(project: Project) -> None:
    write_suite(project, "good", "free")
    targets = TARGETS.replace("replies:", "replies:\n      - {contains: free, text: Paris}")
    project.write(".muster/targets.yaml", targets)
    ended = project.eval("a.eval.yaml")
    assert "$0.01+" in ended.out
    (target,) = project.record()["totals"]["targets"]
    assert target["results_without_cost"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "[bold red]Paris[/]",
        "50 % [/] {x} \\[",
        pytest.param("Pa\x1b[31mris\x07", id="escape"),
    ],
)
def test_what_a_target_says_is_no_markup(project: Project, text: str) -> None:
    """Neither the display's own markup nor codes that would drive the terminal."""
    write_suite(project, "odd")
    project.write("say.txt", text)
    project.write(
        ".muster/targets.yaml",
        "targets: [{name: default, provider: cli, command: 'cat ../say.txt >&2; exit 3'}]\n",
    )
    ended, seen = on_a_terminal(project, "--verbose")
    assert ended.code == 1
    assert project.rows()[0]["error"].endswith(text)
    if "\x1b" not in text:
        assert text in seen
        assert text in ended.out
    assert "\x1b" not in ended.out
    assert "\x1b[31m" not in seen


def test_ids_drive_no_terminal(project: Project) -> None:
    row = {"id": "a\x1b[2J\u202eb", "input": "x", "assert": [{"type": "equals", "value": "no"}]}
    project.write("odd.jsonl", json.dumps(row))
    project.write("odd.eval.yaml", "{name: odd, target: echo, tests: 'file://odd.jsonl'}")
    ended = project.eval("odd.eval.yaml", "--verbose")
    assert ended.code == 1
    for text in (ended.out, ended.err):
        assert r"a\x1b[2J\u202eb" in text
        assert not {"\x1b", "\u202e"} & set(text)
