"""Going on with a run that was stopped: the same suites, targets and options, what is missing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from muster.errors import UsageError
from muster.evals.budget import sum_known
from muster.evals.plan import EvalOptions, Plan
from muster.evals.results import (
    EXECUTION_ERROR,
    CaseResult,
    read_results,
    read_run,
    resume_results,
)
from muster.evals.runner import Earlier
from muster.evals.selection import Selection
from muster.evals.summary import RunTotals

__all__ = ("resumed_options", "take_over")

_FIXED = ("targets", "selection", "limit", "repeat", "threshold", "judge", "stop_when")
"""What says which results the run is of."""


def resumed_options(folder: Path, asked: EvalOptions) -> tuple[EvalOptions, Path | None]:
    """The options to go on with, and the folder they are seen from (`None`: this one).

    What `asked` leaves open is as the run was started with. Which results the run is of cannot be
    changed; workers, bounds, budget and retries can.

    Raises:
        UsageError: `folder` has no run, or `asked` is about other results.
    """
    stored, cwd = _options_of(folder)
    for name in _FIXED:
        value = getattr(asked, name)
        if _is_said(value) and value != getattr(stored, name):
            raise UsageError(
                f"{folder}: the run was started with another --{_OPTION.get(name, name)}; a run is "
                "gone on with as it was started. Start a new one instead."
            )
    changes = {
        name: value
        for name in EvalOptions.__struct_fields__
        if name not in ("output", "paths") and _is_said(value := getattr(asked, name))
    }
    options = replace(stored, **changes, output=None)
    if not asked.paths:
        return options, cwd
    return replace(options, paths=asked.paths), None


def _is_said(value: object) -> bool:
    """Whether an option was given: 0 is a number that one may ask for, other empty values mean
    that nothing was said."""
    return bool(value) or (isinstance(value, int | float) and not isinstance(value, bool))


_OPTION = {"targets": "target", "selection": "tag, --test-id or --filter"}


def take_over(folder: Path, plan: Plan, totals: RunTotals, record: dict[str, Any]) -> Earlier:
    """Count what an earlier part of the run has brought; errors are tried again.

    `record` is that of the run as it goes on, and gets what must be kept of the earlier one.

    Raises:
        UsageError: the suites or targets are not those of the run.
    """
    before = read_run(folder)
    _check_same(before, plan, folder)
    _check_settings(before, record, folder)
    needed = {(job.eval_path or job.suite.name): job.suite.dependencies for job in plan.jobs}
    watched = {job.suite_key for job in plan.jobs if job.stop_when is not None}
    answers_cost = record.get("graded_from") is None
    earlier = Earlier(spent_usd=dict(before.get("spent_on_retried_usd") or {}))

    def keep(result: CaseResult) -> bool:
        if result.execution_status != EXECUTION_ERROR:
            return True
        _add_cost(earlier, result, answers_cost)
        return False

    kept = resume_results(folder, keep)
    record["started_at"] = before.get("started_at")
    record["resumed_at"] = [
        *(before.get("resumed_at") or ()),
        datetime.now(UTC).isoformat(timespec="seconds"),
    ]
    record["spent_on_retried_usd"] = dict(earlier.spent_usd)
    for result in kept:
        earlier.done.add(result.key)
        if result.suite_key in watched:
            earlier.scores[result.key] = (result.score, result.passed)
        totals.add(result)
        _add_cost(earlier, result, answers_cost)
        if result.test_id in needed.get(result.suite_key, ()):
            ended = earlier.outcomes.setdefault((result.suite_key, result.target), {})
            ended[result.test_id, result.prompt, result.repeat] = result.execution_status
    return earlier


def _add_cost(earlier: Earlier, result: CaseResult, answers_cost: bool) -> None:
    cost = sum_known(result.cost_usd if answers_cost else None, result.judge_cost_usd)
    if cost is not None:
        spent = earlier.spent_usd.get(result.suite_key, 0.0)
        earlier.spent_usd[result.suite_key] = spent + cost


def _check_same(before: Mapping[str, Any], plan: Plan, folder: Path) -> None:
    hashes = {
        suite.get("eval_path") or suite["name"]: suite["content_hash"]
        for suite in before.get("suites", ())
    }
    now = {plan.eval_path(suite) or suite.name: suite for suite in plan.suites}
    _check_names(folder, "suite", hashes, now)
    _check_names(folder, "target", [t["name"] for t in before.get("targets", ())], plan.targets)
    for name, suite in now.items():
        if hashes[name] != suite.content_hash:
            raise UsageError(
                f'{folder}: suite "{suite.name}" is not what it was when the run began; '
                "results of both would be mixed. Start a new run instead."
            )


_WHERE = frozenset(("api_base", "api_key", "base_url", "endpoint", "headers", "url"))
"""Settings that say where and by which key a target is asked, not who answers."""


def _check_settings(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Raises `UsageError` where a target that has results is not what it was."""
    earlier = {entry["name"]: entry for entry in before.get("targets", ())}
    changed = {
        entry["name"]: names
        for entry in now["targets"]
        if (names := _changed(earlier[entry["name"]], entry))
    }
    if not changed:
        return
    for result in read_results(folder):
        if result.target in changed and result.execution_status != EXECUTION_ERROR:
            raise UsageError(
                f'{folder}: target "{result.target}" is not what it was when the run began '
                f"({', '.join(changed[result.target])}); results of both would be mixed. Start a "
                "new run instead."
            )


def _changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The settings that differ, of those that make a difference to the answers."""
    names = ["provider"] if then.get("provider") != now.get("provider") else []
    one = then.get("config") or {}
    two = msgspec.json.decode(msgspec.json.encode(now.get("config") or {}, enc_hook=str))
    return names + [
        name
        for name in dict.fromkeys([*one, *two])
        if name not in _WHERE and one.get(name) != two.get(name)
    ]


def _check_names(folder: Path, noun: str, before: Collection[str], now: Collection[str]) -> None:
    gone = [name for name in before if name not in now]
    new = [name for name in now if name not in before]
    if gone:
        raise UsageError(f'{folder}: the run is also of {noun} "{gone[0]}", not asked for now')
    if new:
        raise UsageError(f'{folder}: the run is not of {noun} "{new[0]}"; start a new one for it')


def _options_of(folder: Path) -> tuple[EvalOptions, Path]:
    """The options that the run in `folder` was started with, and the folder it was started in."""
    record = read_run(folder)
    if record.get("graded_from"):
        raise UsageError(
            f"{folder}: these are answers of another run, graded again; go on with "
            f"`muster grade {record['graded_from'].get('folder')} --output {folder} --resume`"
        )
    stored = dict(record.get("options", {}))
    try:
        selection = {name: tuple(values) for name, values in stored.pop("selection").items()}
        for name in ("targets_file", "output", "cache_path"):
            stored[name] = Path(stored[name]) if stored.get(name) else None
        for name in ("paths", "targets"):
            stored[name] = tuple(stored.get(name, ()))
        return EvalOptions(**stored, selection=Selection(**selection)), Path(record["cwd"])
    except (TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{folder}: its run.json is of another version: {error}") from None
