"""Every team of `examples/teams/` passes its tests, and runs offline by the real command."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from test_examples import commands_of, run_in

TEAMS = Path(__file__).parents[1] / "examples" / "teams"
NAMES = sorted(path.name for path in TEAMS.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def teams(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, in which runs may leave their journal."""
    folder = tmp_path_factory.mktemp("examples") / "teams"
    shutil.copytree(TEAMS, folder, ignore=shutil.ignore_patterns("__pycache__", ".muster"))
    return folder


def test_there_are_teams_and_the_readme_lists_them() -> None:
    assert len(NAMES) >= 8
    readme = (TEAMS / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[`([\w-]+)`\]", readme, re.MULTILINE) != []
    assert sorted(re.findall(r"^\| \[`([\w-]+)`\]", readme, re.MULTILINE)) == NAMES


def test_all_tests_of_all_teams_pass(teams: Path) -> None:
    told = json.loads(run_in(teams, "muster test --json"))
    assert told["failed"] == 0
    files = {row["file"] for row in told["tests"]}
    assert files == {f"{name}/team.yaml" for name in NAMES}
    assert len(told["tests"]) >= 2 * len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_team_runs_with_the_mock(teams: Path, name: str) -> None:
    ran = f"muster run {name}/team.yaml --mock --yes --output json"
    told = json.loads(run_in(teams, ran))
    assert (told["status"], told["reason"]) == ("Succeeded", "Succeeded")
    assert {step["status"] for step in told["steps"]} <= {"Succeeded", "Skipped"}
    assert run_in(teams, f"muster validate {name}/team.yaml").endswith("Validation passed.\n")


def test_the_commands_of_the_readme(teams: Path) -> None:
    commands = commands_of((TEAMS / "README.md").read_text(encoding="utf-8"))
    assert len(commands) == 4
    for command, output in commands:
        said = run_in(teams, command)
        expected = ".*".join(re.escape(part) for part in output.split("…\n"))
        assert re.fullmatch(expected, said, re.DOTALL) or not output, said


def test_a_test_that_does_not_hold_fails(teams: Path, tmp_path: Path) -> None:
    """The tests look: with another answer, theirs are not met."""
    folder = tmp_path / "pipeline"
    shutil.copytree(teams / "pipeline", folder)
    script = folder / "team.test.yaml"
    script.write_text(script.read_text().replace('# On hats"}\n', '# On socks"}\n', 1))
    ended = subprocess.run(
        [sys.executable, "-m", "muster", "test", str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert 'output: expected "# On hats", found "# On socks"' in ended.stdout
