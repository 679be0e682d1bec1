"""`muster test`: unit tests of teams, with the mock in the place of every agent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from muster.cli.options import (
    FILE,
    json_option,
    lenient_option,
    safe_option,
    team_option,
    timeout_option,
    values_option,
)
from muster.cli.test_files import scripts_and_teams
from muster.errors import MusterError, UsageError
from muster.reports.team_run import outcome_json
from muster.teams.mock_script import Script, TestCase, read_script
from muster.teams.preparing import LaunchOptions, Prepared
from muster.teams.testing import TestResult, prepare_test, run_test

__all__ = ("test_command",)


@click.command("test")
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path(path_type=Path))
@click.option(
    "--script", type=FILE, metavar="FILE", help="The tests, instead of those beside the team."
)
@click.option("-k", "names", metavar="TEXT", help="Only tests with this text in their name.")
@team_option(", where a test does not say")
@values_option
@timeout_option("each test", default=60.0)
@click.option(
    "--live-tools",
    "--mcp",
    "live_tools",
    is_flag=True,
    help="Start MCP servers and call webhooks that the script has no results for.",
)
@lenient_option
@safe_option
@json_option()
def test_command(paths: tuple[Path, ...], **given: Any) -> int:
    """Run the tests of teams: every agent is played by the mock, nobody else is asked.

    PATH is a team's file, its script, or a folder, whose scripts (*.test.yaml, at any depth)
    are run; without one, this folder. The script of team.yaml is team.test.yaml, beside it.

    Exit codes: 0 all passed; 1 a test failed; 2 bad usage or files.
    """
    tests = _prepared(paths or (Path(),), given)
    if not tests:
        text = f' with "{given["names"]}" in their name' if given["names"] else ""
        raise UsageError(f"there are no tests{text}")
    for line in dict.fromkeys(line for test in tests for line in test.prepared.warnings):
        click.echo(f"warning: {line}", err=True)
    rows: list[dict[str, Any]] = []
    failed = 0
    for test, result in _run(tests):
        failed += not result.passed
        if given["as_json"]:
            rows.append(_row(test, result))
        else:
            _tell(test, result)
    if given["as_json"]:
        told = {"passed": len(tests) - failed, "failed": failed, "tests": rows}
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        click.echo(f"{len(tests) - failed} passed, {failed} failed")
    return 1 if failed else 0


@dataclass(slots=True)
class _Test:
    """A test that can be run."""

    file: Path
    case: TestCase
    prepared: Prepared


def _prepared(paths: tuple[Path, ...], given: dict[str, Any]) -> list[_Test]:
    """All tests that are asked for. What is wrong with any file is told before one is run."""
    tests: list[_Test] = []
    problems: dict[str, None] = {}
    for file, script_path in scripts_and_teams(paths, given["script"]):
        try:
            script = read_script(script_path)
        except MusterError as error:
            problems[str(error)] = None
            continue
        for case in _chosen(script, given["names"]):
            options = LaunchOptions(
                file=file,
                team=given["team"],
                values=given["values"],
                timeout=given["timeout"],
                lenient=given["lenient"],
                safe=given["safe"],
            )
            try:
                prepared = prepare_test(script, case, options, live_tools=given["live_tools"])
            except MusterError as error:
                problems |= dict.fromkeys(str(error).splitlines())
            else:
                tests.append(_Test(file, case, prepared))
    if problems:
        raise MusterError("\n".join(problems))
    return tests


def _chosen(script: Script, text: str | None) -> list[TestCase]:
    wanted = (text or "").lower()
    return [test for test in script.tests if wanted in test.name.lower()]


def _run(tests: list[_Test]) -> Iterator[tuple[_Test, TestResult]]:
    with asyncio.Runner() as runner:
        for test in tests:
            yield test, runner.run(run_test(test.prepared, test.case))


def _tell(test: _Test, result: TestResult) -> None:
    click.echo(f"{'pass' if result.passed else 'FAIL'}  {test.file}: {test.case.name}")
    for difference in result.differences:
        click.echo(f"      {difference}")


def _row(test: _Test, result: TestResult) -> dict[str, Any]:
    run = outcome_json(result.run, result.outcome)
    del run["run"]  # its journal is gone
    return {
        "file": str(test.file),
        "name": test.case.name,
        "passed": result.passed,
        "differences": [
            {"what": item.what, "expected": item.expected, "found": item.found}
            for item in result.differences
        ],
        "run": run,
    }
