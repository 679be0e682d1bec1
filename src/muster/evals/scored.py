"""Runs read back for their scores: Muster's own, baselines, AgentV's, promptfoo's.

Only what comparisons need is decoded, so that a run of 100,000 results is read in a second. An
execution error has no score, whatever the file says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from muster.config.project import find_project
from muster.errors import UsageError
from muster.evals.results import EXECUTION_ERROR, OK, RESULTS_FILE, RUN_FILE

__all__ = ("Scored", "ScoredRun", "find_run", "project_runs", "read_scored", "unreadable_note")

LATEST = "latest"

BASELINE_FORMAT = "muster-baseline"

_LINES_NAMED = 5


class Scored(msgspec.Struct, omit_defaults=True, gc=False, kw_only=True):
    """One result, as far as comparisons look at it; the names are those of `results.jsonl`."""

    test_id: str
    suite: str
    target: str
    execution_status: str
    score: float | None
    repeat: int = 0
    prompt: str | None = None
    eval_path: str | None = None
    cluster: str | None = None
    cost_usd: float | None = None
    duration_ms: float | None = None
    error_kind: str | None = None
    threshold: float | None = None
    """The score from which it passes, where that is known."""

    @property
    def suite_key(self) -> str:
        """What tells its suite from the others of the run."""
        return self.eval_path or self.suite

    @property
    def judged(self) -> bool:
        """It has a score."""
        return self.score is not None and self.execution_status != EXECUTION_ERROR

    @property
    def passed(self) -> bool:
        """It reached its threshold."""
        return self.execution_status == OK


class ScoredRun(msgspec.Struct, kw_only=True):
    """A run's results, and what a reader of numbers must know of how they came about."""

    name: str
    path: Path
    kind: str
    """`muster`, `baseline`, `agentv` or `promptfoo`."""
    results: list[Scored]
    notes: list[str] = msgspec.field(default_factory=list)
    started_at: str | None = None
    suites: dict[str, str] = msgspec.field(default_factory=dict)
    """By suite key: the hash of the suite's files."""
    early: dict[str, str] = msgspec.field(default_factory=dict)
    """By target: what must be known of it, for it stopped early."""
    judges: dict[str, dict[str, list[str]]] = msgspec.field(default_factory=dict)
    """By target and grader: who judged, with the hash of what was asked."""

    @property
    def targets(self) -> list[str]:
        """In the order of their first result."""
        return list(dict.fromkeys(result.target for result in self.results))

    def of(self, target: str) -> Iterator[Scored]:
        """The results of one target."""
        return (result for result in self.results if result.target == target)


# --- finding --------------------------------------------------------------------------------------


def find_run(text: str, here: Path) -> Path:
    """The run that `text` names: a folder, a file, a run id, the beginning of one, or `latest`.

    Raises:
        UsageError: there is no such run, or several begin so.
    """
    path = here / text
    if path.exists():
        return path
    folder = find_project(here).results_dir
    known = project_runs(here)
    if text == LATEST:
        if not known:
            raise UsageError(f"no run in {folder}")
        return known[-1]
    found = [run for run in known if run.name == text] or [
        run for run in known if run.name.startswith(text)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(run.name for run in found[:5])
        raise UsageError(f'"{text}" is the beginning of several runs: {names}')
    raise UsageError(f'no run "{text}": it is no folder or file, and no run in {folder}')


def project_runs(here: Path) -> list[Path]:
    """The folders of the project's runs, the earliest first."""
    runs = find_project(here).results_dir.glob(f"*/{RUN_FILE}")
    return [path.parent for path in sorted(runs)]


# --- reading --------------------------------------------------------------------------------------


def read_scored(path: Path) -> ScoredRun:
    """The run at `path`, a folder or a file, whoever wrote it.

    Raises:
        UsageError: it is no run that can be read, or has no results.
    """
    try:
        run = _read(path)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    if not run.results:
        raise UsageError(f"{path}: holds no results")
    return _deduplicated(run)


def _read(path: Path) -> ScoredRun:
    from muster.evals import foreign_runs

    if path.is_dir():
        if (path / RESULTS_FILE).exists():
            return _muster_run(path)
        for index in (path / ".internal" / "index.jsonl", path / "index.jsonl"):
            if index.exists():
                return foreign_runs.agentv_run(path, index)
        raise UsageError(
            f"{path}: not the folder of a run; expected {RESULTS_FILE}, or AgentV's index.jsonl"
        )
    if path.name in (RESULTS_FILE, RUN_FILE):
        return _muster_run(path.parent)
    if path.name == "index.jsonl":
        inner = path.parent.name == ".internal"
        return foreign_runs.agentv_run(path.parent.parent if inner else path.parent, path)
    if path.suffix == ".json":
        data = _json(path)
        if isinstance(data, dict) and data.get("format") == BASELINE_FORMAT:
            return _baseline(path, data)
        from muster.evals.promptfoo_runs import promptfoo_run

        return promptfoo_run(path, data)
    raise UsageError(
        f"{path}: not a run; expected a run's folder, a baseline, AgentV's index.jsonl, or "
        "promptfoo's results as JSON"
    )


def _json(path: Path) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes())
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid JSON: {error}") from None


def lines_of(path: Path, decode: Callable[[bytes], Any], notes: list[str]) -> Iterator[Any]:
    """Each line of a JSONL file decoded; lines that cannot be read are left out, and told of.

    Raises:
        UsageError: no line can be read.
    """
    broken: list[int] = []
    first: Exception | None = None
    some = False
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.isspace():
                continue
            try:
                decoded = decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                first = first or error
                broken.append(number)
                continue
            some = True
            yield decoded
    if broken and not some:
        raise UsageError(f"{path}:{broken[0]}: not a result: {first}")
    if broken:
        notes.append(unreadable_note(path, broken))


def unreadable_note(path: Path, broken: Sequence[int]) -> str:
    """What is said of lines of a run's results that cannot be read, by their numbers."""
    named = ", ".join(map(str, broken[:_LINES_NAMED]))
    more = ", …" if len(broken) > _LINES_NAMED else ""
    what = "line that cannot" if len(broken) == 1 else "lines that cannot"
    return (
        f"{path}: {len(broken)} {what} be read, and not counted (line {named}{more}): torn, or no "
        "result"
    )


_decoder = msgspec.json.Decoder(Scored)


def _muster_run(folder: Path) -> ScoredRun:
    run = ScoredRun(name=folder.name or str(folder), path=folder, kind="muster", results=[])
    run.results = list(lines_of(folder / RESULTS_FILE, _decoder.decode, run.notes))
    if (folder / RUN_FILE).exists():
        _add_record(run, _json(folder / RUN_FILE))
    return run


def _add_record(run: ScoredRun, record: Any) -> None:
    if not isinstance(record, dict):
        raise UsageError(f"{run.path / RUN_FILE}: not the record of a run")
    run.name = str(record.get("run_id") or run.name)
    run.started_at = record.get("started_at")
    missing = record.get("not_run")
    if missing or record.get("status") != "complete":
        left = f"; {missing} of {record.get('planned')} results were not run" if missing else ""
        status = record.get("status")
        ended = "is running, or was killed" if status == "running" else f"is {status}"
        run.notes.append(f"{run.name}: the run {ended}{left}")
    run.early = _stopped_early(run.name, record.get("stopping"))
    run.judges = _judges_of(run.targets, record.get("judges"))
    suites = record.get("suites")
    for suite in suites if isinstance(suites, list) else ():
        if isinstance(suite, dict):
            key = suite.get("eval_path") or suite.get("name")
            run.suites[str(key)] = str(suite.get("content_hash"))


def _judges_of(targets: Sequence[str], rows: Any) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = {}
    for row in rows if isinstance(rows, list) else ():
        if not isinstance(row, dict):
            continue
        model = f" ({row['model']})" if row.get("model") else ""
        judge = f"{row.get('target')}{model} {row.get('prompt_hash')}"
        for target in row.get("judged") or targets:
            for grader in row.get("graders") or ():
                found.setdefault(target, {}).setdefault(str(grader), []).append(judge)
    return found


def _stopped_early(name: str, stopping: Any) -> dict[str, str]:
    """What of the run is told surer than it is, when the number of cases is taken for fixed."""
    found: dict[str, str] = {}
    for report in stopping if isinstance(stopping, list) else ():
        if not isinstance(report, dict) or not report.get("stopped"):
            continue
        targets = [str(target) for target in report.get("targets") or ()]
        p, bounds = report.get("p_value"), report.get("interval")
        valid = f"p = {p:.2g}" if isinstance(p, float) else "what the run's own summary says"
        if isinstance(bounds, list) and len(bounds) == 2:
            valid = f"the mean is in [{bounds[0]:.4f}, {bounds[1]:.4f}]"
        note = (
            f"{name}: {' and '.join(targets)} stopped early, when it was enough; intervals and "
            "p-values here take the number of cases for one fixed beforehand, and are too sure. "
            f"Valid whenever one stops: {valid}"
        )
        found |= dict.fromkeys(targets, note)
    return found


def _baseline(path: Path, data: dict[str, Any]) -> ScoredRun:
    try:
        results = msgspec.convert(data["results"], list[Scored])
        notes = msgspec.convert(data.get("notes") or [], list[str])
        suites = msgspec.convert(data.get("suites") or {}, dict[str, str])
        early = msgspec.convert(data.get("early") or {}, dict[str, str])
        judges = msgspec.convert(data.get("judges") or {}, dict[str, dict[str, list[str]]])
    except KeyError:
        raise UsageError(f"{path}: not a baseline that can be read: it has no results") from None
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: not a baseline that can be read: {error}") from None
    return ScoredRun(
        name=str(data.get("run_id")),
        path=path,
        kind="baseline",
        results=results,
        notes=notes,
        started_at=data.get("started_at"),
        suites=suites,
        early=early,
        judges=judges,
    )


def _deduplicated(run: ScoredRun) -> ScoredRun:
    """Each result once: the first that has a score. A run that was killed may hold some twice."""
    kept: dict[tuple[Any, ...], Scored] = {}
    twice = wrong = 0
    for result in run.results:
        wrong += _bring_in_range(result)
        key = (result.suite_key, result.test_id, result.prompt, result.target, result.repeat)
        other = kept.setdefault(key, result)
        if other is not result:
            twice += 1
            if result.judged and not other.judged:
                kept[key] = result
    if twice:
        run.results = list(kept.values())
        run.notes.append(f"{run.name}: results that are there twice, and counted once: {twice}")
    if wrong:
        run.notes.append(
            f"{run.name}: scores outside of 0 to 1, which are taken as the nearest that is: {wrong}"
        )
    return run


def _bring_in_range(result: Scored) -> bool:
    score = result.score
    if score is None or 0 <= score <= 1:
        return False
    result.score = None if math.isnan(score) else min(max(score, 0.0), 1.0)
    return True


def first_words(names: Iterable[str], shown: int = 5) -> str:
    """The first few of many names."""
    known = list(names)
    more = f", … and {len(known) - shown} more" if len(known) > shown else ""
    return ", ".join(known[:shown]) + more
