"""The part of `muster validate` that checks manifests of agents and teams, and their tests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from muster.cli.test_files import hidden, team_of
from muster.config.document import parse_documents, read_text
from muster.config.environment import load_environment
from muster.errors import ConfigError, MusterError, Problem
from muster.teams.definition import Agent
from muster.teams.graph import failure_lines, validate_lines
from muster.teams.manifests import Bundle, load_manifests

__all__ = ("Checked", "check_manifests", "check_tests", "manifests_at")

_SUFFIXES = (".yaml", ".yml", ".json")
_OURS = re.compile(
    r"""^[\s\-"']*apiVersion["']?\s*:\s*["']?(?:arkonis|muster)\.dev/""", re.MULTILINE
)


@dataclass(slots=True)
class Checked:
    """What is to be said of a file or a folder."""

    good: bool
    lines: list[str]
    problems: dict[str, None] = field(default_factory=dict)
    """What is wrong, in order; the lines of manifests have it behind its title."""
    warnings: list[str] = field(default_factory=list)


def manifests_at(path: Path) -> list[Path]:
    """What `muster run` could take: `path` itself, if it is a manifest, or a folder with one in it;
    and each folder below it that holds manifests of teams.

    A manifest has a document with `apiVersion` and `kind`. A file that cannot be parsed is one if a
    line begins with `apiVersion:`. Below a folder there may be manifests of anything, of which only
    those of agents and teams are meant.
    """
    if not path.is_dir():
        found = path.suffix in _SUFFIXES and path.is_file() and _is_manifest(path)
        return [path] if found else []
    here = any(_is_manifest(file) for file in sorted(_files(path)))
    return [
        *([path] if here else ()),
        *(folder for folder in _folders_below(path) if any(map(_is_ours, _files(folder)))),
    ]


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if file.suffix in _SUFFIXES and file.is_file()]


def _folders_below(folder: Path) -> list[Path]:
    found = {file.parent for end in _SUFFIXES for file in folder.rglob(f"*{end}")}
    return sorted(each for each in found - {folder} if not hidden(each / "_", folder))


def _is_ours(file: Path) -> bool:
    try:
        return _OURS.search(read_text(file)) is not None and _is_manifest(file)
    except ConfigError:
        return False


def _is_manifest(file: Path) -> bool:
    try:
        text = read_text(file)
    except ConfigError:
        return False
    if "apiVersion" not in text:
        return False
    try:
        documents = parse_documents(text, file)
    except ConfigError:
        return any(line.startswith("apiVersion:") for line in text.splitlines())
    return any(
        isinstance(document.data, dict) and {"apiVersion", "kind"} <= document.data.keys()
        for document in documents
    )


def check_manifests(path: Path, *, values: Path | None, safe: bool, providers: bool) -> Checked:
    """Check the manifests at `path`: all that is known without asking anybody.

    Args:
        providers: make the provider of every agent, too.
    """
    from muster.teams.cast import problems_of_tools

    env = load_environment(path.resolve())
    try:
        bundle = load_manifests(path, values=values, env=env, safe=safe)
        problems = [] if safe else list(problems_of_tools(_agents_of(bundle)))
        problems += _problems_of_gates(bundle, env, safe=safe)
        if not problems and providers:
            problems += _problems_of_providers(path, bundle, values=values, safe=safe)
        if problems:
            raise ConfigError(problems)
    except ConfigError as error:
        return Checked(False, failure_lines(error), dict.fromkeys(map(str, error.problems)))
    return Checked(True, validate_lines(bundle), warnings=bundle.warnings)


def check_tests(path: Path, *, values: Path | None, safe: bool) -> Checked:
    """Check the tests in the script at `path` against their team; none is run."""
    from muster.teams.mock_script import read_script
    from muster.teams.preparing import LaunchOptions
    from muster.teams.testing import prepare_test

    problems: dict[str, None] = {}
    warnings: dict[str, None] = {}
    try:
        options = LaunchOptions(file=team_of(path), values=values, safe=safe)
        script = read_script(path)
    except MusterError as error:
        return Checked(False, [], dict.fromkeys(str(error).splitlines()))
    for case in script.tests:
        try:
            prepared = prepare_test(script, case, options, live_tools=True)
        except MusterError as error:
            problems |= dict.fromkeys(str(error).splitlines())
        else:
            warnings |= dict.fromkeys(prepared.warnings)
    if problems:
        return Checked(False, [], problems)
    count = "1 test" if len(script.tests) == 1 else f"{len(script.tests)} tests"
    return Checked(True, [f"ok  {path}: {count} of {options.file}"], warnings=list(warnings))


def _agents_of(bundle: Bundle) -> list[Agent]:
    """Each once: those that stand for themselves, and those of roles."""
    found = {id(agent): agent for agent in bundle.agents.values()}
    for team in bundle.teams.values():
        for role in team.roles.values():
            if role.agent is not None:
                found[id(role.agent)] = role.agent
    return list(found.values())


def _problems_of_gates(bundle: Bundle, env: Mapping[str, str], *, safe: bool) -> list[Problem]:
    """What is wrong in the suites that are gates of steps."""
    from muster.teams.suite_gate import SuiteGate

    steps = [step for team in bundle.teams.values() for step in team.steps]
    paths = {step.validation.suite for step in steps if step.validation is not None}
    problems: list[Problem] = []
    for path in sorted(path for path in paths if path is not None):
        try:
            SuiteGate(path, env=env, safe=safe)
        except ConfigError as error:
            problems += error.problems
        except MusterError as error:
            problems.append(Problem(str(error), path))
    return problems


def _problems_of_providers(
    path: Path, bundle: Bundle, *, values: Path | None, safe: bool
) -> list[Problem]:
    from muster.teams.preparing import LaunchOptions, assemble

    problems: dict[str, Problem] = {}
    for team in bundle.teams.values():
        try:
            assemble(LaunchOptions(file=path, team=team.name, values=values, safe=safe))
        except ConfigError as error:
            problems |= {str(problem): problem for problem in error.problems}
        except MusterError as error:
            problems[str(error)] = Problem(str(error), path)
    return list(problems.values())
