"""Options that several commands have: name, type and help of each are said here, once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = (
    "ABOVE_ZERO",
    "FILE",
    "FOLDER",
    "budget_option",
    "cache_options",
    "ending_options",
    "guard_options",
    "json_option",
    "keeping_options",
    "lenient_option",
    "safe_option",
    "target_option",
    "targets_option",
    "team_option",
    "threshold_option",
    "timeout_option",
    "together",
    "values_option",
    "workers_option",
)

C = TypeVar("C", bound=Callable[..., Any])

Option = Callable[[C], C]

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
ABOVE_ZERO = click.FloatRange(min=0, min_open=True)


def together(*options: Callable[[Any], Any]) -> Callable[[C], C]:
    """Several options as one decorator, in the order in which `--help` shows them."""

    def decorate(command: C) -> C:
        decorated: Any = command
        for option in reversed(options):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


targets_option = click.option(
    "--targets",
    "targets_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The targets file, instead of the one found by walking up.",
)

values_option = click.option(
    "--values",
    type=FOLDER,
    metavar="DIR",
    help="ConfigMaps and Secrets that the manifests refer to.",
)

safe_option = click.option(
    "--safe",
    is_flag=True,
    help="For files one did not write: no commands and no Python that they name.",
)

lenient_option = click.option(
    "--lenient-templates",
    "lenient",
    is_flag=True,
    help="Print <no value> for what is missing, as ark does, instead of failing.",
)


workers_option = click.option(
    "-w", "--workers", type=click.IntRange(min=1), help="Calls at a time, each target."
)

threshold_option = click.option(
    "--threshold", type=click.FloatRange(0, 1), help="The score from which a case is ok."
)


def team_option(more: str = "") -> Callable[[C], C]:
    """`--team`, and ark's name for it."""
    return click.option(
        "--team", "--flow", "team", metavar="NAME", help=f"Which of the file's teams{more}."
    )


def target_option(help: str, *, multiple: bool = False) -> Callable[[C], C]:
    """`--target`: one as `target`, or `multiple` as `targets`."""
    name = "targets" if multiple else "target"
    return click.option("-t", "--target", name, multiple=multiple, metavar="NAME", help=help)


def json_option(help: str = "Print JSON.") -> Callable[[C], C]:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help=help)


def timeout_option(bounded: str, default: float | None = None) -> Callable[[C], C]:
    """`--timeout`, the bound on what is `bounded`."""
    return click.option(
        "--timeout",
        type=ABOVE_ZERO,
        default=default,
        show_default=default is not None,
        metavar="SECONDS",
        help=f"Bound on {bounded}.",
    )


def budget_option(help: str) -> Callable[[C], C]:
    """`--budget-usd`."""
    return click.option("--budget-usd", type=ABOVE_ZERO, metavar="USD", help=help)


keeping_options = together(
    click.option(
        "-o",
        "--output",
        type=FOLDER,
        metavar="DIR",
        help="Where the run is kept. Default: .muster/results/TIME-SUITE.",
    ),
    click.option(
        "--judge",
        metavar="TARGET",
        help="Who judges where neither the suite nor the target names a judge_target.",
    ),
    click.option(
        "--record", is_flag=True, help="Keep every exchange with a provider in the run's folder."
    ),
    click.option(
        "--report",
        "reports",
        multiple=True,
        metavar="FORMAT=FILE",
        help="Write a report at the end: html, junit, markdown, csv or parquet.",
    ),
)
"""Where a run goes, and what is kept of it."""

cache_options = together(
    click.option(
        "--cache/--no-cache",
        default=None,
        help="Do not ask again for answers that are there, whatever the suites say.",
    ),
    click.option(
        "--cache-path",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="Where answers are cached. Default: .muster/cache of the project.",
    ),
    click.option(
        "--cache-size",
        "cache_mb",
        type=ABOVE_ZERO,
        metavar="MB",
        help="What the cache may hold; what was used least recently goes first. Default: 1000.",
    ),
)

ending_options = together(
    json_option("Print the summary as JSON."),
    click.option("-q", "--quiet", is_flag=True, help="No progress."),
    click.option("-v", "--verbose", is_flag=True, help="A line for each result."),
    click.option(
        "--allow-errors",
        type=click.IntRange(min=0),
        default=0,
        metavar="N",
        help="Up to N execution errors do not fail the run.",
    ),
    click.option("--no-gate", is_flag=True, help="Failing cases do not fail the command."),
)
"""What is shown of a run, and what fails it."""

guard_options = together(
    click.option(
        "--allow-host",
        "allow_hosts",
        multiple=True,
        metavar="NAME",
        help="A name under which HTTP requests may come, beside localhost.",
    ),
    click.option(
        "--max-connections",
        type=click.IntRange(min=1),
        default=1000,
        show_default=True,
        help="HTTP connections; beyond them the longest idle one is closed.",
    ),
    click.option(
        "--max-requests",
        type=click.IntRange(min=1),
        default=256,
        show_default=True,
        help="HTTP requests under way at a time.",
    ),
)
"""Bounds of the HTTP server, in its own words: its refusals name these options."""
