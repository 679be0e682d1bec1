"""`muster new`: the beginning of a provider, grader, queue, tool, suite or team, with tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli.scaffold import (
    Names,
    Scaffold,
    package_of,
    project_files,
    simple_files,
    suite_package,
    targets_entry,
    write_files,
)
from muster.config.project import find_project
from muster.errors import UsageError

if TYPE_CHECKING:
    from muster.registry import Registry

__all__ = ("new",)


class _Kinds(click.Group):
    """Tells of what cannot be made why."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            known = ", ".join(self.commands)
            ctx.fail(f'no scaffold of a "{args[0]}"; there are: {known}')
        return super().resolve_command(ctx, args)


@click.group(cls=_Kinds)
def new() -> None:
    """Make the beginning of something of your own, with tests that pass at once."""


def _options(package: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The arguments that every kind has."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        force = click.option("--force", is_flag=True, help="Replace files that are there already.")
        folder = click.option(
            "--folder",
            type=click.Path(path_type=Path, file_okay=False),
            default=".",
            help="The project to make it in; this folder by default.",
        )
        function = force(folder(function))
        if package:
            text = "Make a package of its own, to be installed; else a file of the project."
            function = click.option("--package", "as_package", is_flag=True, help=text)(function)
        return click.argument("name")(function)

    return decorate


_SHAPES = {
    "plain": "a class that answers requests",
    "chat": "a model that answers one turn, with the tool loop",
    "http": "a service behind HTTP",
}


@new.command("provider")
@_options(package=True)
@click.option(
    "--shape",
    type=click.Choice(list(_SHAPES)),
    default="plain",
    help="; ".join(f"{name}: {text}" for name, text in _SHAPES.items()) + ".",
)
def new_provider(name: str, as_package: bool, folder: Path, force: bool, shape: str) -> None:
    """Make a provider called NAME."""
    from muster.providers import providers

    names = Names.checked(name, "provider")
    scaffold = Scaffold("provider", shape, ".muster/providers", "providers")
    _check_free(providers, names, folder, find_project(folder).provider_folders, force)
    if as_package:
        _make_package(scaffold, names, folder, force)
        return
    entry, advice = targets_entry(find_project(folder).folders, names)
    files = {**project_files(scaffold, names, folder), **entry}
    # The one asks the service, which is not there yet; the other brings a service of its own.
    check = f"muster check provider {name}" if shape == "http" else f"muster targets check {name}"
    then = [f"pytest {_tests(names)}"]
    if shape == "http" or entry:
        then.append(check)
    _make(folder, files, force, then=then, advice=advice)


@new.command("grader")
@_options(package=True)
def new_grader(name: str, as_package: bool, folder: Path, force: bool) -> None:
    """Make a grader called NAME."""
    from muster.evals.graders import graders

    names = Names.checked(name, "grader")
    scaffold = Scaffold("grader", "grader", ".muster/graders", "graders")
    _check_free(graders, names, folder, find_project(folder).grader_folders, force)
    if as_package:
        _make_package(scaffold, names, folder, force)
        return
    advice = f"In the assertions of a suite, add\n\n  - type: {name}"
    files = project_files(scaffold, names, folder)
    _make(folder, files, force, then=[f"pytest {_tests(names)}"], advice=advice)


@new.command("queue")
@_options(package=True)
def new_queue(name: str, as_package: bool, folder: Path, force: bool) -> None:
    """Make a queue of tasks, for URLs that begin with NAME:."""
    from muster.queues import queues

    names = Names.checked(name, "queue")
    scaffold = Scaffold("queue", "queue", ".muster/queues", "queues")
    _check_free(queues, names, folder, find_project(folder).find_all(".muster/queues"), force)
    if as_package:
        _make_package(scaffold, names, folder, force)
        return
    files = project_files(scaffold, names, folder)
    then = [f"pytest {_tests(names)}", f'muster tasks submit --queue {name}:tasks "Hello"']
    _make(folder, files, force, then=then)


@new.command("tool")
@_options(package=True)
def new_tool(name: str, as_package: bool, folder: Path, force: bool) -> None:
    """Make a tool for agents: a Python function called NAME."""
    names = Names.checked(name, "tool")
    scaffold = Scaffold("tool", "tool", ".", None, object="sample_name")
    names.no_keyword()
    if as_package:
        _make_package(scaffold, names, folder, force)
        return
    names.importable(folder)
    path = f"{names.module}:{names.module}"
    advice = f'For a role of a team whose manifest stands there, add\n\n  pythonTools: ["{path}"]'
    files = project_files(scaffold, names, folder)
    _make(folder, files, force, then=[f"pytest {_tests(names)}"], advice=advice)


@new.command("suite")
@_options(package=True)
def new_suite(name: str, as_package: bool, folder: Path, force: bool) -> None:
    """Make a suite called NAME, which measures a target."""
    names = Names.checked(name, "suite")
    if as_package:
        then = ["pip install -e '.[test]'", "pytest", f"muster eval {name}"]
        _make(folder, suite_package(names), force, then=then, enter=names.distribution)
        return
    files = simple_files("suite", {"evals/sample-name.eval.yaml": "suite.eval.yaml"}, names)
    _make(folder, files, force, then=[f"muster eval {next(iter(files))}"])


@new.command("team")
@_options(package=True)
def new_team(name: str, as_package: bool, folder: Path, force: bool) -> None:
    """Make a team of two agents called NAME, with tests of it."""
    names = Names.checked(name, "team")
    templates = ("team.yaml", "team.test.yaml")
    if as_package:
        from muster.providers import providers

        _check_free(providers, Names.checked(name, "provider"), folder, [], force)
        data = {template: template for template in templates}
        scaffold = Scaffold("team", "team", "", "providers", object="create", data=data)
        _make_package(scaffold, names, folder, force)
        return
    places = {f"teams/sample-name/{template}": template for template in templates}
    files = simple_files("team", places, names)
    place = f"teams/{name}"
    then = [f"muster test {place}", f"muster run {place}/team.yaml --mock"]
    _make(folder, files, force, then=then)


def _check_free(
    registry: Registry[Any], names: Names, folder: Path, files: list[Path], force: bool
) -> None:
    """Raise `UsageError` when something else has the name."""
    if registry.is_builtin(names.name):
        raise UsageError(f'"{names.name}" is a built-in {names.kind}; another name is needed')
    if force:
        return
    found = [e for e in registry.for_project(files).entries() if e.name == names.name]
    if found:
        where = found[0].location
        raise UsageError(
            f'there is a {names.kind} "{names.name}" already: {where}; nothing was written '
            "(--force does)"
        )


def _make_package(scaffold: Scaffold, names: Names, folder: Path, force: bool) -> None:
    then = ["pip install -e '.[test]'", "pytest"]
    if scaffold.group == "providers":
        then.append("muster providers")
    _make(folder, package_of(scaffold, names), force, then=then, enter=names.distribution)


def _make(
    folder: Path,
    files: dict[str, str],
    force: bool,
    *,
    then: list[str],
    advice: str | None = None,
    enter: str | None = None,
) -> None:
    """Write the files; say what was made, what to edit and what to run next."""
    for place in write_files(folder, files, force=force):
        click.echo(f"wrote {place}")
    click.echo("\nWhat to change is marked EDIT.")
    if advice is not None:
        click.echo(advice.rstrip("\n"))
    inside = folder / enter if enter else folder
    steps = [] if inside.resolve() == Path.cwd() else [f"cd {inside}"]
    click.echo(f"\nNow: {' && '.join([*steps, *then])}")


def _tests(names: Names) -> str:
    return f"tests/test_{names.module}_{names.kind}.py"
