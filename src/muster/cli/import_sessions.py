"""`muster import`: sessions of coding agents as tests and recorded answers."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import msgspec

from muster.config.secrets import Masker, environment_secrets
from muster.errors import MusterError, UsageError
from muster.evals.results import each_text, masked_texts, whole_text
from muster.evals.sessions.base import Session, answer_rows, case_rows
from muster.evals.sessions.claude import read_claude
from muster.evals.sessions.codex import read_codex
from muster.evals.sessions.copilot import read_copilot

__all__ = ("import_command",)

_READERS = {"claude": read_claude, "codex": read_codex, "copilot": read_copilot}


@click.command("import")
@click.argument("agent", type=click.Choice(list(_READERS)))
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE...",
    type=click.Path(path_type=Path, dir_okay=False),
)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="NAME",
    type=click.Path(path_type=Path),
    help="Write NAME.cases.jsonl and NAME.answers.jsonl.",
)
def import_command(agent: str, files: tuple[Path, ...], output: Path) -> None:
    """Make tests and recorded answers of session logs of a coding agent.

    Each prompt becomes a test; what the agent did about it, with its tool calls, tokens and times,
    is what a target with provider: replay answers.

    \b
    muster import claude ~/.claude/projects/PROJECT/SESSION.jsonl -o bugs
    muster import codex ~/.codex/sessions/2026/01/31/rollout-*.jsonl -o bugs
    muster import copilot ~/.copilot/session-state/SESSION/events.jsonl -o bugs
    """
    sessions = [_READERS[agent](path) for path in files]
    cases = [row for session in sessions for row in case_rows(session)]
    answers = [row for session in sessions for row in answer_rows(session)]
    if not cases:
        raise UsageError(f"{files[0]}: no prompt was answered")
    _check_ids(cases)
    masker = Masker(environment_secrets(os.environ))
    for rows, kind in ((cases, "cases"), (answers, "answers")):
        path = output.with_name(f"{output.name}.{kind}.jsonl")
        _write(path, rows, masker)
        click.echo(path)
    click.echo(_summary(sessions, len(cases)), err=True)


def _check_ids(cases: Iterable[dict[str, Any]]) -> None:
    seen: set[str] = set()
    for case in cases:
        if case["id"] in seen:
            raise UsageError(f'two tests would be called "{case["id"]}": a session is given twice')
        seen.add(case["id"])


def _write(path: Path, rows: Iterable[dict[str, Any]], masker: Masker) -> None:
    try:
        # What was said to an agent may be private: others of this machine need not read it.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            for row in rows:
                clean = each_text(row, whole_text)
                file.write(msgspec.json.encode(masked_texts(clean, masker)) + b"\n")
    except OSError as error:
        raise MusterError(f"{path}: cannot be written: {error.strerror}") from error


def _summary(sessions: list[Session], cases: int) -> str:
    calls = sum(
        len(message.get("tool_calls", ()))
        for session in sessions
        for exchange in session.exchanges
        for message in exchange.messages
    )
    asked = sum(len(session.exchanges) for session in sessions)
    left = f"; {asked - cases} prompts without an answer left out" if asked > cases else ""
    return f"{len(sessions)} sessions, {cases} tests, {calls} tool calls{left}"
