"""What programs that grade are told about an answer, and how what they say is read.

Both of AgentV's shapes are understood: `{score, assertions: [{text, passed, evidence}]}` and
`{pass, score, reason, checks: [{text, pass, score, reason, evidence}]}`. What is neither is an
error of the test: a program that broke has not judged.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import msgspec

from muster.evals.case import DEFAULT_THRESHOLD
from muster.evals.graders.base import Assertion, GradeContext, GraderError, Score
from muster.provider import Message
from muster.providers.process import Completed, readable_file, run_process

__all__ = (
    "MAX_OUTPUT",
    "case_context",
    "environment",
    "program_name",
    "read_object",
    "read_verdict",
    "run_program",
    "succeeded",
    "told_case",
)

MAX_OUTPUT = 10_000_000
"""Bytes that a program may answer."""

_LARGE_OUTPUT = 50_000
"""From so many bytes on, an answer is handed over as a file."""

_TAIL = 2000


# --- what they are told ---------------------------------------------------------------------------


@contextmanager
def told_case(context: GradeContext, config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The case and its answer, as programs get them; a large answer is a file meanwhile."""
    case, response = context.case, context.response
    messages = list(response.output)
    told: dict[str, Any] = {
        "test_id": case.id,
        "target": context.target,
        "criteria": case.criteria,
        "input": [message.to_dict() for message in context.asked or case.input],
        "input_files": [str(path) for path in case.input_files],
        "expected_output": [message.to_dict() for message in context.expected_output],
        "output": context.output,
        "output_path": None,
        "messages": [message.to_dict() for message in messages],
        "vars": dict(case.vars),
        "metadata": dict(case.metadata),
        "trace": {"messages": [message.to_dict() for message in messages]},
        "trace_summary": _summary(messages),
        "token_usage": None if response.token_usage is None else response.token_usage.to_dict(),
        "cost_usd": response.cost_usd,
        "duration_ms": context.duration_ms,
        "start_time": next((m.start_time for m in messages if m.start_time), None),
        "end_time": next((m.end_time for m in reversed(messages) if m.end_time), None),
        "file_changes": context.file_changes,
        "workspace_path": _workspace_path(context),
        "config": dict(config),
    }
    with ExitStack() as stack:
        if len(context.output.encode("utf-8", "replace")) > _LARGE_OUTPUT:
            file = stack.enter_context(
                NamedTemporaryFile("w", encoding="utf-8", errors="replace", suffix=".json")
            )
            json.dump(context.output, file)
            file.flush()
            told |= {"output": None, "output_path": file.name}
        yield told


def case_context(context: GradeContext, config: Mapping[str, Any]) -> dict[str, Any]:
    """The `context` of promptfoo's assertions: the test's variables, and the case as told above."""
    with told_case(context, config) as told:
        told.pop("output_path")
    prompt = context.asked or context.case.input
    return {
        **told,
        "output": context.output,
        "prompt": prompt[-1].text if prompt else "",
        "test": {
            "id": context.case.id,
            "vars": told["vars"],
            "metadata": told["metadata"],
            "criteria": told["criteria"],
        },
    }


def _summary(messages: Sequence[Message]) -> dict[str, Any]:
    calls = [call for message in messages for call in message.tool_calls]
    durations: dict[str, list[float]] = {}
    for call in calls:
        if call.duration_ms is not None:
            durations.setdefault(call.tool, []).append(call.duration_ms)
    return {
        "event_count": len(calls),
        "tool_calls": dict(Counter(call.tool for call in calls)),
        "error_count": sum(call.status in ("error", "failed") for call in calls),
        "tool_durations": durations,
        "llm_call_count": sum(message.role == "assistant" for message in messages),
    }


def _workspace_path(context: GradeContext) -> str | None:
    found = (context.workspace or {}).get("path")
    return found if isinstance(found, str) else None


def environment(told: Mapping[str, Any], more: Mapping[str, str]) -> dict[bytes, bytes]:
    """The program's environment: that of Muster, where the target worked, and `more`."""
    added = dict(more)
    if (path := told.get("workspace_path")) is not None:
        added |= {"MUSTER_WORKSPACE_PATH": path, "AGENTV_WORKSPACE_PATH": path}
    return {
        **os.environb,
        **{os.fsencode(key): os.fsencode(value) for key, value in added.items()},
    }


# --- running them ---------------------------------------------------------------------------------


async def run_program(
    argv: Sequence[str],
    told: object,
    *,
    env: Mapping[bytes, bytes],
    cwd: Path,
    timeout: float,
) -> Completed:
    """Run a program that reads `told` as JSON.

    Raises:
        GraderError: it cannot be started, took too long or wrote too much.
    """
    with readable_file(encoded(told)) as stdin:
        try:
            done = await run_process(
                list(argv),
                env=env,
                cwd=cwd,
                timeout=timeout,
                max_stdout=MAX_OUTPUT,
                stdin=stdin,
            )
        except (OSError, ValueError) as error:
            raise GraderError(cannot_start(argv, cwd, error)) from None
    if done.stopped == "timeout":
        raise GraderError(f"{program_name(argv)} took more than {timeout:g} s{tail(done.stderr)}")
    if done.stopped == "stdout":
        text = (
            f"{program_name(argv)} wrote more than {MAX_OUTPUT // 1_000_000} MB to standard output"
        )
        raise GraderError(f"{text}{tail(done.stderr)}")
    return done


def encoded(told: object) -> bytes:
    """As one line of JSON; what has no form there is told as text."""
    return msgspec.json.encode(told, enc_hook=str)


def cannot_start(argv: Sequence[str], cwd: Path, error: OSError | ValueError) -> str:
    """Why a program did not start."""
    if not cwd.is_dir():
        return f"there is no folder {cwd} to run {program_name(argv)} in"
    if isinstance(error, FileNotFoundError):
        return f"{argv[0]}: not found; is it installed, and on PATH?"
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return f"{argv[0]} cannot be started: {reason}"


def tail(stderr: bytes) -> str:
    """The end of what it complained, to be put behind a sentence."""
    text = stderr.decode("utf-8", "replace").strip()[-_TAIL:]
    return f"; its standard error ends:\n{text}" if text else ""


def program_name(argv: Sequence[str]) -> str:
    shown = argv[2] if argv[:2] == ["/bin/sh", "-c"] else " ".join(argv)
    first = " ".join(shown.split())
    return first if len(first) <= 80 else first[:79] + "…"


def succeeded(done: Completed, argv: Sequence[str]) -> bytes:
    """What it wrote.

    Raises:
        GraderError: it failed.
    """
    if done.exit_code:
        how = f"exit code {done.exit_code}" if done.exit_code > 0 else f"signal {-done.exit_code}"
        raise GraderError(f"{program_name(argv)} ended with {how}{tail(done.stderr)}")
    return done.stdout


def read_object(done: Completed, argv: Sequence[str]) -> dict[str, Any]:
    """What it wrote, which is one JSON object.

    Raises:
        GraderError: it failed, or wrote something else.
    """
    if not succeeded(done, argv).strip():
        raise GraderError(
            f"{program_name(argv)} wrote nothing to standard output; a JSON object is expected"
            + tail(done.stderr)
        )
    return decoded(done.stdout, program_name(argv), done.stderr)


def decoded(data: bytes, name: str, stderr: bytes = b"") -> dict[str, Any]:
    """One JSON object.

    Raises:
        GraderError: it is something else.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        shown = data.decode("utf-8", "replace").strip()
        shown = shown if len(shown) <= 200 else shown[:199] + "…"
        text = f"{name} did not answer with JSON alone ({error}): {shown}"
        raise GraderError(text + tail(stderr)) from None
    if not isinstance(value, dict):
        raise GraderError(
            f"{name} answered with {type(value).__name__}, not with a JSON object{tail(stderr)}"
        )
    return value


# --- what they say --------------------------------------------------------------------------------


def read_verdict(value: Mapping[str, Any], bar: float | None) -> Score:
    """The score in either shape; `bar` is the score from which the grader passes.

    What a program says as `pass` holds, whatever its score is.

    Raises:
        GraderError: there is no verdict in it, or it is malformed.
    """
    assertions, shares = _checks(value)
    verdict = _flag(value, "pass", "passed")
    details = value.get("details")
    if details is not None and not isinstance(details, Mapping):
        raise GraderError(f"details is {_shown(details)}; it is an object")
    given = value.get("score")
    if given is not None:
        score = _share(given, "score")
    elif verdict is not None:
        score = float(verdict)
    elif shares:
        score = sum(shares) / len(shares)
    else:
        raise GraderError(
            "it says no verdict: expected score, pass, checks or assertions, found "
            + (", ".join(map(str, value)) or "an empty object")
        )
    bar = DEFAULT_THRESHOLD if bar is None else bar
    if verdict is False and score >= bar:
        details, score = {**(details or {}), "reported_score": score}, 0.0
    reason = value.get("reason")
    if reason:
        passed = score >= bar if verdict is None else verdict
        assertions = (*assertions, Assertion(str(reason), passed))
    return Score(score, assertions, details, passed=verdict)


def _checks(value: Mapping[str, Any]) -> tuple[tuple[Assertion, ...], list[float]]:
    """`assertions` and `checks`, and the share of each."""
    rows: list[Assertion] = []
    shares: list[float] = []
    for key in ("assertions", "checks"):
        found = value.get(key)
        if found is None:
            continue
        if not isinstance(found, list | tuple):
            raise GraderError(f"{key} is {_shown(found)}; it is a list")
        for row in found:
            if isinstance(row, Assertion):
                rows.append(row)
                shares.append(float(row.passed))
                continue
            if not isinstance(row, Mapping) or not isinstance(row.get("text"), str):
                raise GraderError(f"{key} has {_shown(row)}; expected an object with text and pass")
            passed = _flag(row, "passed", "pass")
            share = None if row.get("score") is None else _share(row["score"], f"{key}: score")
            if passed is None and share is None:
                raise GraderError(f"{key} has {_shown(row)}, which says not whether it passed")
            shares.append(float(bool(passed)) if share is None else share)
            good = shares[-1] >= DEFAULT_THRESHOLD if passed is None else passed
            why = row.get("evidence") or row.get("reason")
            rows.append(Assertion(row["text"], good, None if why is None else str(why)))
    return tuple(rows), shares


def _flag(value: Mapping[str, Any], *names: str) -> bool | None:
    for name in names:
        found = value.get(name)
        if found is not None:
            if not isinstance(found, bool):
                raise GraderError(f"{name} is {_shown(found)}; it is true or false")
            return found
    return None


def _share(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise GraderError(f"{name} is {_shown(value)}; it is a number from 0 to 1")
    return float(value)


def _shown(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else text[:79] + "…"
