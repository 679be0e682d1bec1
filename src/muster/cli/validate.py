"""`muster validate`: check suites and targets without asking any target."""

from __future__ import annotations

from pathlib import Path

import click

from muster.config.environment import load_environment
from muster.config.project import find_project
from muster.config.targets import load_catalog
from muster.errors import MusterError, UsageError
from muster.evals.plan import EvalOptions, prepare
from muster.evals.suites.discovery import find_suites
from muster.providers import providers
from muster.targets import TargetPool

__all__ = ("validate",)

_TARGET_FILES = ("targets.yaml", "targets.yml", "providers.yaml", "providers.yml")


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option(
    "--targets",
    "targets_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The targets file, instead of the one found by walking up.",
)
@click.option("--safe", is_flag=True, help="Run no project code while checking.")
@click.option(
    "--max-warnings",
    type=click.IntRange(min=0),
    metavar="N",
    help="More than N warnings are a failure.",
)
def validate(
    paths: tuple[str, ...], targets_file: Path | None, safe: bool, max_warnings: int | None
) -> int:
    """Check suites, their targets, and targets files; no target is asked anything.

    Without a PATH, all suites below this folder and its targets file. Exit code 2 when anything
    is wrong.
    """
    here = Path.cwd()
    files = [Path(path) for path in paths if Path(path).name in _TARGET_FILES]
    suites = [path for path in paths if Path(path) not in files]
    if not paths:
        files = [path] if (path := _own_targets(here, targets_file)) is not None else []
        suites = ["."]
    good = 0
    warnings: dict[str, None] = {}
    problems: list[str] = []
    for path in _suite_files(suites, here, required=bool(paths), problems=problems):
        options = EvalOptions(paths=(str(path),), targets_file=targets_file, safe=safe)
        try:
            plan = prepare(options)
        except MusterError as error:
            problems.append(str(error))
            continue
        good += 1
        _warn(plan.warnings, warnings)
        count = sum(suite.count for suite in plan.suites)
        click.echo(
            f"ok  {path}: {count} {'case' if count == 1 else 'cases'} on {', '.join(plan.targets)}"
        )
    for path in files:
        try:
            names, lines = _check_targets(path, safe=safe)
        except MusterError as error:
            problems.append(str(error))
            continue
        good += 1
        _warn(lines, warnings)
        click.echo(f"ok  {path}: targets {', '.join(names)}")
    for text in dict.fromkeys(problems):
        click.echo(text, err=True)
    if not good and not problems:
        raise UsageError("nothing to check: no suite (*.eval.yaml) and no targets.yaml here")
    if problems:
        return 2
    return 2 if max_warnings is not None and len(warnings) > max_warnings else 0


def _suite_files(
    patterns: list[str], here: Path, *, required: bool, problems: list[str]
) -> list[Path]:
    if not patterns:
        return []
    try:
        return find_suites(patterns, here)
    except MusterError as error:
        if required:
            problems.append(str(error))
        return []


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
