"""Options of the commands that launch teams, and what they come to: `LaunchOptions`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from muster.cli.options import (
    FILE,
    budget_option,
    lenient_option,
    safe_option,
    target_option,
    targets_option,
    timeout_option,
    together,
    values_option,
)
from muster.errors import UsageError
from muster.teams.json_output import strict_json
from muster.teams.mock_script import Script, read_script
from muster.teams.preparing import LaunchOptions

__all__ = (
    "BOUNDS",
    "bounds",
    "chosen_script",
    "launch_options",
    "read_inputs",
    "with_bounds",
    "with_launch_options",
)

C = TypeVar("C", bound=Callable[..., Any])

AUTO = "auto"

BOUNDS = ("max_tokens", "budget_usd", "timeout")


def with_bounds(run: str) -> Callable[[C], C]:
    """The bounds on `run`; the manifest's count too, the tighter one holds."""
    return together(
        click.option(
            "--max-tokens",
            type=click.IntRange(min=1),
            metavar="N",
            help=f"Tokens that {run} may use.",
        ),
        budget_option(f"Money that {run} may cost."),
        timeout_option(run),
    )


def with_launch_options(run: str) -> Callable[[C], C]:
    """All options that say how teams are launched; `run` is what the bounds are on."""
    return together(
        click.option(
            "--provider",
            default=AUTO,
            show_default=True,
            metavar="NAME",
            help="Who answers for every agent; auto: what each says, AGENT_PROVIDER, or its "
            "model's.",
        ),
        click.option("--mock", is_flag=True, help="The same as --provider mock."),
        click.option(
            "--script",
            type=FILE,
            metavar="FILE",
            help="What the mock says: replies by role, attempt and content. Implies --mock.",
        ),
        target_option("A target that answers for every agent."),
        targets_option,
        values_option,
        with_bounds(run),
        click.option("--no-mcp", is_flag=True, help="Leave all MCP servers out."),
        lenient_option,
        safe_option,
    )


def chosen_script(given: Mapping[str, Any]) -> Script | None:
    """What the mock says. Raises `ConfigError` for what is wrong with it by itself."""
    return read_script(given["script"]) if given["script"] is not None else None


def launch_options(given: Mapping[str, Any]) -> LaunchOptions:
    """The options as they were given, those that a command does not have left as they are.

    Raises:
        UsageError: two of them say different things.
    """
    given = {"team": None, "inputs": (), **given}
    return LaunchOptions(
        file=given["file"],
        team=given["team"],
        inputs=read_inputs(given["inputs"]),
        provider=_provider(given),
        target=given["target"],
        targets_file=given["targets_file"],
        values=given["values"],
        no_mcp=given["no_mcp"],
        lenient=given["lenient"],
        safe=given["safe"],
        **bounds(given),
    )


def bounds(given: Mapping[str, Any]) -> dict[str, Any]:
    """The bounds that were given, as fields of `LaunchOptions`."""
    return {name: given[name] for name in BOUNDS if given[name] is not None}


def _provider(given: Mapping[str, Any]) -> str:
    """Who answers for every agent; only one can."""
    chosen: dict[str, str] = {}
    if given["provider"] != AUTO:
        chosen[f"--provider {given['provider']}"] = given["provider"]
    if given["mock"]:
        chosen["--mock"] = "mock"
    if given["script"] is not None:
        chosen["--script"] = "mock"
    if given["target"] is not None:
        chosen[f"--target {given['target']}"] = ""
    if len(set(chosen.values())) > 1:
        raise UsageError(f"{' and '.join(chosen)}: only one can answer for every agent")
    return next(filter(None, chosen.values()), AUTO)


def read_inputs(given: Iterable[str]) -> dict[str, Any]:
    """`--input` in its three forms, the later over the earlier.

    Raises:
        UsageError: one is none of them, or cannot be read.
    """
    merged: dict[str, Any] = {}
    for text in given:
        if text.startswith("@"):
            merged |= _object(_text_of(text), text)
        elif text.lstrip().startswith(("{", "[")):
            merged |= _object(text, text)
        else:
            name, equals, value = text.partition("=")
            if not equals or not name.strip():
                raise UsageError(f'--input "{_short(text)}": expected JSON, KEY=VALUE or @FILE')
            merged[name.strip()] = value
    return merged


def _text_of(given: str) -> str:
    if given == "@":
        raise UsageError("--input @: the name of a file is missing")
    try:
        return Path(given[1:]).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"--input {given}: not UTF-8 text") from None
    except (OSError, ValueError) as error:
        told = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"--input {given}: {told}") from None


_KINDS = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}


def _object(source: str, given: str) -> dict[str, Any]:
    try:
        value = strict_json(source)
    except ValueError as error:
        raise UsageError(f"--input {_short(given)}: not JSON: {error}") from None
    if not isinstance(value, dict):
        found = _KINDS.get(type(value), "a number")
        raise UsageError(f"--input {_short(given)}: expected a JSON object, found {found}")
    return value


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else f"{line[:79]}…"
