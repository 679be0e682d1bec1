"""`muster validate`: check suites, targets and manifests without asking anybody."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import click

from muster.cli.options import safe_option, targets_option, values_option
from muster.cli.test_files import is_script, scripts_in
from muster.cli.validate_teams import Checked, check_manifests, check_tests, manifests_at
from muster.config.environment import load_environment
from muster.config.project import find_project
from muster.config.targets import load_catalog
from muster.errors import MusterError, UsageError
from muster.evals.plan import EvalOptions
from muster.evals.planning import prepare
from muster.evals.suites.packaged import suites_named
from muster.providers import providers
from muster.targets import TargetPool

__all__ = ("validate",)

_TARGET_FILES = ("targets.yaml", "targets.yml", "providers.yaml", "providers.yml")


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@targets_option
@values_option
@click.option(
    "--check-providers",
    is_flag=True,
    help="Make the provider of every agent: is there one that has its model, or its target?",
)
@safe_option
@click.option(
    "--max-warnings",
    type=click.IntRange(min=0),
    metavar="N",
    help="More than N warnings are a failure.",
)
def validate(
    *,
    paths: tuple[str, ...],
    targets_file: Path | None,
    values: Path | None,
    check_providers: bool,
    safe: bool,
    max_warnings: int | None,
) -> int:
    """Check suites, their targets, targets files, manifests of teams, and the teams' tests;
    nobody is asked anything.

    A PATH is a suite, a targets file, a manifest, tests of a team (*.test.yaml), or a folder with
    any of them in it, at any depth; the manifests of a folder belong together, those of folders
    in it do not. Without one, this folder, and its targets file. Exit code 2 when anything is
    wrong.
    """
    here = Path.cwd()
    files = [Path(path) for path in paths if Path(path).name in _TARGET_FILES]
    manifests = _manifests([Path(path) for path in paths or (".",)])
    scripts = _scripts([Path(path) for path in paths or (".",)])
    others = [*files, *manifests, *scripts]
    suites = [path for path in paths if Path(path).is_dir() or Path(path) not in others]
    if not paths:
        files = [path] if (path := _own_targets(here, targets_file)) is not None else []
        suites = ["."]
    told = _Told()
    with_others = {*manifests.values(), *scripts.values()}
    optional = [path for path in suites if not paths or Path(path) in with_others]
    for named in _suite_files(suites, optional, here, told.problems):
        _check_suite(named, targets_file, safe, told)
    for path in files:
        _check_targets_file(path, safe, told)
    for path in scripts:
        checked = check_tests(path, values=values, safe=safe)
        told.take(checked)
        told.problems += checked.problems
    titled = len(manifests) > 1 or bool(told.good) or any(k != v for k, v in manifests.items())
    for path in manifests:
        checked = check_manifests(path, values=values, safe=safe, providers=check_providers)
        if titled:
            click.echo(f"{path}:")
        told.take(checked)
        told.bad += not checked.good
        told.said |= checked.problems.keys()
    for text in dict.fromkeys(told.problems):
        if text not in told.said:
            click.echo(text, err=True)
    if not (told.good or told.bad or told.problems):
        raise UsageError(
            "nothing to check: no suite (*.eval.yaml), no manifest, no tests (*.test.yaml) and no "
            "targets.yaml here"
        )
    if told.problems or told.bad:
        return 2
    return 2 if max_warnings is not None and len(told.warnings) > max_warnings else 0


@dataclass(slots=True)
class _Told:
    """What was found so far."""

    good: int = 0
    bad: int = 0
    """Manifests whose problems were told as lines of their own."""
    problems: list[str] = field(default_factory=list)
    said: set[str] = field(default_factory=set)
    """Those problems, which tests of such a team have too."""
    warnings: dict[str, None] = field(default_factory=dict)

    def take(self, checked: Checked) -> None:
        """Say what was found in a file, and count it if it is good."""
        _warn(checked.warnings, self.warnings)
        for line in checked.lines:
            click.echo(line)
        self.good += checked.good


def _manifests(paths: list[Path]) -> dict[Path, Path]:
    """The manifests that are named, and the folders of them, each with what it was found by."""
    return {found: path for path in paths for found in manifests_at(path)}


def _scripts(paths: list[Path]) -> dict[Path, Path]:
    """The tests of teams that are named or stand in a folder, each with what it was found by."""
    found: dict[Path, Path] = {}
    for path in paths:
        scripts = scripts_in(path) if path.is_dir() else [path] if is_script(path) else []
        found |= dict.fromkeys(scripts, path)
    return found


def _check_suite(named: str, targets_file: Path | None, safe: bool, told: _Told) -> None:
    options = EvalOptions(paths=(named,), targets_file=targets_file, safe=safe)
    try:
        plan = prepare(options)
    except MusterError as error:
        told.problems.append(str(error))
        return
    told.good += 1
    _warn(plan.warnings, told.warnings)
    count = sum(suite.count for suite in plan.suites)
    cases = "case" if count == 1 else "cases"
    click.echo(f"ok  {named}: {count} {cases} on {', '.join(plan.targets)}")


def _check_targets_file(path: Path, safe: bool, told: _Told) -> None:
    try:
        names, lines = _check_targets(path, safe=safe)
    except MusterError as error:
        told.problems.append(str(error))
        return
    told.good += 1
    _warn(lines, told.warnings)
    click.echo(f"ok  {path}: targets {', '.join(names)}")


def _suite_files(
    patterns: list[str], optional: list[str], here: Path, problems: list[str]
) -> list[str]:
    """The suites that are named, by their paths, or as packages offer them. Those of `patterns`
    that are `optional` may name none."""
    required = [path for path in patterns if path not in optional]
    refused = [path for path in patterns if path.startswith("!")]
    found: set[str] = set()

    def add(arguments: list[str]) -> None:
        found.update(suite.label or str(suite.path) for suite in suites_named(arguments, here))

    if len(required) > len(refused):
        try:
            add(required)
        except MusterError as error:
            problems.append(str(error))
    for path in optional:
        with suppress(MusterError):
            add([path, *refused])
    return sorted(found, key=Path)


def _own_targets(here: Path, explicit: Path | None) -> Path | None:
    if explicit is not None:
        return explicit
    path = load_catalog(here, env=load_environment(here)).path
    return Path(path) if path is not None else None


def _check_targets(path: Path, *, safe: bool) -> tuple[list[str], list[str]]:
    """The names in a targets file and its warnings, every target having been made once."""
    start = path.resolve().parent
    env = load_environment(start)
    catalog = load_catalog(start, explicit=path, env=env, safe=safe)
    registry = providers.for_project(find_project(start).provider_folders, safe=safe)
    pool = TargetPool(catalog, registry)
    problems = []
    for name in catalog.names:
        try:
            pool.open(name)
        except MusterError as error:
            problems.append(str(error))
    if problems:
        raise MusterError("\n".join(problems))
    return list(catalog.names), [*catalog.warnings, *registry.failures]


def _warn(lines: list[str], told: dict[str, None]) -> None:
    """Tell each warning once: several suites may share the targets file that it is about."""
    for line in lines:
        if line not in told:
            told[line] = None
            click.echo(f"warning: {line}", err=True)
