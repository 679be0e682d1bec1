"""Every folder of `examples/` does, offline, what its README says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

TESTED_ELSEWHERE = {
    "demo": "test_demo.py",
    "http-agent": "test_http_agent_example.py",
    "judge": "test_judge_example.py",
    "stdio": "test_stdio_example.py",
    "teams": "test_examples_teams.py",
}

PASSED = {
    "conversation": [{"reservations": (2, 3)}],
    "datasets": [{"adds": (2, 7), "careful": (6, 7)}, {"careful": (1, 1)}],
    "python-api": [{"right": (50, 50), "without_subtraction": (32, 50)}],
}
"""For each command of the README: targets, and how many of their results are `ok`."""


def run_in(folder: Path, command: str) -> str:
    # `python3` and `muster` of the commands are those of the tests.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    ended = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, f"$ {command}\n{ended.stdout}{ended.stderr}"
    return ended.stdout


def commands_of(readme: str) -> list[tuple[str, str]]:
    """Each command of the `sh` and `console` blocks, with its output if it is told."""
    found = re.findall(r"^```(sh|console)\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    told = []
    for kind, text in found:
        if kind == "sh":
            told += [(line, "") for line in text.splitlines()]
        else:
            parts = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
            told += [(part.partition("\n")[0], part.partition("\n")[2]) for part in parts]
    return told


def runs_of(folder: Path) -> list[dict[str, tuple[int, int]]]:
    """Of each run in the folder, oldest first: its targets with passes and results."""
    found = []
    for run in sorted((folder / ".muster" / "results").iterdir(), key=lambda r: r.stat().st_mtime):
        rows = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
        assert not [row for row in rows if row["execution_status"] == "execution_error"]
        results = Counter(row["target"] for row in rows)
        passed = Counter(row["target"] for row in rows if row["execution_status"] == "ok")
        found.append({target: (passed[target], count) for target, count in results.items()})
    return found


def test_every_example_is_tested() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert folders == {*TESTED_ELSEWHERE, *PASSED}
    for name, test in TESTED_ELSEWHERE.items():
        assert f'"{name}"' in (Path(__file__).parent / test).read_text()


@pytest.mark.parametrize("name", sorted(PASSED))
def test_example(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns("__pycache__"))
    readme = (folder / "README.md").read_text(encoding="utf-8")
    commands = commands_of(readme)
    assert len(commands) == len(PASSED[name])
    for command, output in commands:
        said = run_in(folder, command)
        if output:
            assert said == output
    assert runs_of(folder) == PASSED[name]


def test_the_commands_of_the_demo_are_good() -> None:
    """The demo itself is run by its own test; its README's other commands are tried here."""
    readme = (EXAMPLES / "demo" / "README.md").read_text(encoding="utf-8")
    assert "muster eval suite.eval.yaml --no-gate" in [line for line, _ in commands_of(readme)]
    for command in re.findall(r"`(muster [^`]+)`", readme):
        dry = command.replace("muster eval", "muster eval --dry-run")
        assert run_in(EXAMPLES / "demo", dry)
