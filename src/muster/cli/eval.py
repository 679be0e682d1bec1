"""`muster eval`: measure targets on suites."""

from __future__ import annotations

import asyncio
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click
from msgspec.structs import replace

from muster.cli.options import (
    ABOVE_ZERO,
    budget_option,
    cache_options,
    ending_options,
    keeping_options,
    safe_option,
    target_option,
    targets_option,
    threshold_option,
    timeout_option,
    workers_option,
)
from muster.cli.progress import Progress
from muster.cli.report import files_asked, report_on_run
from muster.cli.signals import cancel_on_signals
from muster.errors import UsageError
from muster.evals.evaluation import Evaluation, run
from muster.evals.plan import EvalOptions, Plan
from muster.evals.planning import prepare
from muster.evals.results import RUN_FILE
from muster.evals.resume import resumed_options
from muster.evals.selection import Selection
from muster.evals.stopping import stop_when_of
from muster.evals.summary import RunTotals
from muster.reports.terminal import format_table, render_summary

__all__ = ("cache_word", "eval_command", "exit_code", "show_evaluation", "watched")

_LATEST = "latest"

_EXIT_CODES = {"timed_out": 3, "budget_exceeded": 4}


@click.command("eval")
@click.argument("paths", nargs=-1, metavar="PATH...")
@target_option(
    "Target to measure; may be given several times. Default: what the suite names.", multiple=True
)
@targets_option
@workers_option
@click.option("--tag", "tags", multiple=True, help="Only cases with this tag (all of them).")
@click.option("--exclude-tag", "exclude_tags", multiple=True, help="No cases with this tag.")
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="EXPR",
    help="key=glob on metadata and vars, or a regular expression on the id.",
)
@click.option(
    "--test-id", "test_ids", multiple=True, metavar="GLOB", help="Only these ids (any of them)."
)
@click.option("--limit", type=click.IntRange(min=1), help="The first N cases of each suite.")
@click.option("--repeat", type=click.IntRange(min=1), help="Run each case N times.")
@click.option(
    "--stop-when",
    multiple=True,
    metavar="RULE",
    help="End when enough is known: ci-width=0.04, or compare=A,B; also confidence=0.99, seed=1; "
    "or never. Cases run in random order.",
)
@threshold_option
@budget_option("Begin no call when this much is spent.")
@timeout_option("the whole run; what is not done can be resumed")
@click.option(
    "--case-timeout",
    "--agent-timeout",
    "case_timeout",
    type=ABOVE_ZERO,
    metavar="SECONDS",
    help="Bound on each case.",
)
@click.option(
    "--max-retries",
    type=click.IntRange(min=0),
    help="Further tries of a call that a retry can help.",
)
@click.option(
    "--resume",
    is_flag=False,
    flag_value=_LATEST,
    metavar="[DIR]",
    help="Complete an earlier run: this folder, or the latest. Errors are tried again.",
)
@keeping_options
@cache_options
@click.option(
    "--otel",
    is_flag=False,
    flag_value="",
    metavar="[WHERE]",
    help="OpenTelemetry spans to a file, a collector (http://…), or, without a value, to the "
    "collector that OTEL_EXPORTER_OTLP_ENDPOINT names.",
)
@click.option(
    "--otel-content", is_flag=True, help="With --otel: also prompts, answers and arguments."
)
@click.option("--dry-run", is_flag=True, help="Show what would run, and how many calls it is.")
@safe_option
@click.option(
    "--skip-invalid",
    is_flag=True,
    help="Leave out tests that are not valid, and name them in the summary.",
)
@click.option(
    "--allow-outside", is_flag=True, help="Let suites and targets read files outside the project."
)
@click.option("--fail-on-error", is_flag=True, help="Stop at the first execution error.")
@ending_options
def eval_command(**given: Any) -> int:
    """Measure targets on suites of cases.

    PATH is a suite (YAML, JSONL, CSV, JSON), a folder of suites (*.eval.yaml), a glob, or
    !PATTERN to leave files out.

    \b
    muster eval suite.eval.yaml
    muster eval evals/ --target gpt --target claude --repeat 3
    muster eval --resume

    Exit codes: 0 good; 1 a case failed or had an error; 2 bad usage or files; 3 timed out;
    4 budget exceeded; 130 interrupted.
    """
    options = _options(given)
    given["reports"] = files_asked(given["reports"])
    folder, options, cwd = _resume(given["resume"], options)
    if not options.paths:
        raise UsageError("which suite? Give a file, a folder or a glob: muster eval suite.yaml")
    with redirect_stdout(sys.stderr):  # what users' code prints is no part of our answer
        plan = prepare(options, cwd=cwd)  # outside of the loop, where Ctrl-C is heard at once
    for line in plan.warnings:
        click.echo(f"warning: {line}", err=True)
    if given["dry_run"]:
        click.echo(_describe(plan, given["as_json"]))
    return asyncio.run(_carry_out(given, plan, folder))


def _options(given: dict[str, Any]) -> EvalOptions:
    names = ("paths", "targets", "targets_file", "workers", "limit", "repeat", "threshold",
             "budget_usd", "timeout", "case_timeout", "max_retries", "judge", "record",
             "cache_path", "cache_mb", "otel", "otel_content", "output", "safe", "skip_invalid",
             "allow_outside", "fail_on_error")  # fmt: skip
    stop_when = stop_when_of(given["stop_when"])
    selection = Selection(given["tags"], given["exclude_tags"], given["test_ids"], given["filters"])
    return EvalOptions(
        **{name: given[name] for name in names},
        cache=cache_word(given["cache"]),
        selection=selection,
        stop_when=stop_when,
    )


def _resume(
    asked: str | None, options: EvalOptions
) -> tuple[Path | None, EvalOptions, Path | None]:
    """The folder to complete, and the options: without paths, those it was started with."""
    if asked is None:
        return None, options, None
    if asked != _LATEST and not (Path(asked) / RUN_FILE).exists() and Path(asked).is_file():
        # `--resume suite.yaml`: the word after an optional value was meant as a path.
        options = replace(options, paths=(asked, *options.paths))
        asked = _LATEST
    if asked == _LATEST:
        folder = options.output if options.output is not None else _latest_run()
    else:
        folder = Path(asked)
        if options.output not in (None, folder):
            raise UsageError(f"--resume {folder} goes on in that folder; leave --output out")
    return folder, *resumed_options(folder, options)


def _latest_run() -> Path:
    from muster.config.project import find_project

    results = find_project(Path.cwd()).results_dir
    runs = sorted(path.parent for path in results.glob(f"*/{RUN_FILE}"))
    if not runs:
        raise UsageError(f"no run to resume in {results}")
    return runs[-1]


async def _carry_out(given: dict[str, Any], plan: Plan, folder: Path | None) -> int:
    try:
        return 0 if given["dry_run"] else await _run_plan(given, plan, folder)
    finally:
        await plan.aclose()


async def _run_plan(given: dict[str, Any], plan: Plan, folder: Path | None) -> int:
    evaluation, received = await watched(given, plan, resume=folder)
    show_evaluation(given, plan, evaluation, f"muster eval --resume {evaluation.folder}")
    report_on_run(evaluation.folder, given["reports"])
    return exit_code(given, evaluation, received)


async def watched(given: dict[str, Any], plan: Plan, **how: Any) -> tuple[Evaluation, list[int]]:
    """Run the plan, as `run` does with `how`, its progress shown; and the signals that ended it."""
    style = "quiet" if given["quiet"] else "live" if sys.stderr.isatty() else "plain"
    shown: list[Progress] = []

    def observe(total: int, totals: RunTotals) -> Progress:
        if totals.count and style != "quiet":
            click.echo(f"resuming: {totals.count} of {total} results are there", err=True)
        progress = Progress(total, totals, style=style, verbose=given["verbose"])
        progress.__enter__()
        shown.append(progress)
        return progress

    stop = asyncio.Event()
    task = asyncio.ensure_future(run(plan, observe=observe, stop=stop, **how))
    received = cancel_on_signals(task, stop)
    with redirect_stdout(sys.stderr):
        try:
            return await task, received
        finally:
            for progress in shown:
                progress.__exit__(None, None, None)


def cache_word(asked: bool | None) -> str | None:
    """What `--cache` and `--no-cache` say, as the options of a run have it."""
    return None if asked is None else "on" if asked else "off"


def show_evaluation(
    given: dict[str, Any], plan: Plan, evaluation: Evaluation, completed_by: str
) -> None:
    """Print what came of a run, and on stderr what one should know beside it; `completed_by` is
    the command that goes on with it."""
    outcome = evaluation.outcome
    if given["as_json"]:
        click.echo(_json({**evaluation.record, "folder": str(evaluation.folder)}))
    else:
        folder = evaluation.folder
        click.echo(render_summary(outcome, folder=folder, planned=evaluation.planned))
    for line in plan.skipped:
        click.echo(f"left out: {line}", err=True)
    unpriced = sum(target.without_cost for target in outcome.totals.targets.values())
    if unpriced and plan.has_budget and not evaluation.record.get("graded_from"):
        click.echo(
            f"warning: answers whose cost is not known, and the budget does not count: {unpriced}",
            err=True,
        )
    for line in evaluation.trouble:
        click.echo(f"warning: {line}", err=True)
    if outcome.totals.count < evaluation.expected:
        click.echo(f"to complete it: {completed_by}", err=True)


def exit_code(given: dict[str, Any], evaluation: Evaluation, received: list[int]) -> int:
    """How the process ends; `received` are the signals that ended it."""
    outcome = evaluation.outcome
    if received:
        return 128 + received[0]
    if outcome.status in _EXIT_CODES:
        return _EXIT_CODES[outcome.status]
    totals = outcome.totals
    too_many = totals.errors > given["allow_errors"]
    if outcome.status != "complete" or too_many or totals.count != evaluation.expected:
        return 1
    return 1 if totals.quality_failures and not given["no_gate"] else 0


def _describe(plan: Plan, as_json: bool) -> str:
    """What would run: a line for each suite and target."""
    rows = [
        {
            "suite": job.eval_path or job.suite.name,
            "target": job.target.name,
            "provider": job.target.resolved.provider,
            "cases": job.cases,
            "results": job.results,
            "calls": job.calls,
        }
        for job in plan.jobs
    ]
    total = sum(job.calls for job in plan.jobs)
    if as_json:
        return _json({"jobs": rows, "calls": total, "skipped": plan.skipped})
    table = format_table(
        list(rows[0]), [[str(value) for value in row.values()] for row in rows], right_from=3
    )
    left_out = [f"left out: {line}" for line in plan.skipped]
    others = "retries and judges" if any(job.judges for job in plan.jobs) else "retries"
    return "\n".join([table, "", f"{total} calls, {others} not counted; none was made", *left_out])


def _json(data: dict[str, Any]) -> str:
    import msgspec

    return msgspec.json.format(msgspec.json.encode(data, enc_hook=str), indent=2).decode()
