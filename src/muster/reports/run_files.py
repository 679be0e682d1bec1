"""The folders of runs as reports read them: a result at a time, each once, and what is broken is
counted and told instead of stopping the reader."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import msgspec

from muster.config.secrets import Masker
from muster.errors import UsageError
from muster.evals.results import (
    EXECUTION_ERROR,
    OK,
    QUALITY_FAILURE,
    RESULTS_FILE,
    RUN_FILE,
    CaseResult,
    masked_texts,
    read_run,
    without_secrets,
)
from muster.evals.scored import unreadable_note
from muster.reports.tallies import is_named_by_value

__all__ = ("NAMES_APART", "Group", "ReportRun", "name_targets", "open_runs")

Group: TypeAlias = tuple[str, str]
"""A suite's key and a target."""

NAMES_APART = 12
"""Graders of one type that are told apart by what they look for."""

_STATUSES = (OK, QUALITY_FAILURE, EXECUTION_ERROR)

_decoder = msgspec.json.Decoder(CaseResult)


class ReportRun:
    """One run. It is read once to see what is there; of each result, only its place is kept."""

    def __init__(self, folder: Path, masker: Masker) -> None:
        """Look through the folder.

        Raises:
            UsageError: it is not the folder of a run, or cannot be read.
        """
        self.folder = folder
        self._masker = masker
        self.notes: list[str] = []
        """What a reader of the numbers must know."""
        self.record: dict[str, Any] = self._read_record()
        self.name = str(self.record.get("run_id") or folder.resolve().name)
        self.groups: dict[Group, array[int]] = {}
        """By suite and target: where the results begin, in the order they came."""
        self.count = 0
        self.unreadable = 0
        self.duplicates = 0
        self.has_repeats = False
        self.grader_names: dict[str, set[str]] = {}
        """By type: names of graders that say what each looks for, one more than are told apart."""
        self.labels: dict[str, str] = {}
        """By target: what it is called in a report, where runs may share targets."""
        try:
            self._file: BinaryIO = (folder / RESULTS_FILE).open("rb")
        except OSError as error:
            raise UsageError(_no_results(folder, error)) from None
        try:
            self._look_through()
        except OSError as error:
            raise UsageError(f"{folder / RESULTS_FILE}: cannot be read: {error.strerror}") from None
        self._tell()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    @property
    def targets(self) -> list[str]:
        """In the order of the record, then of their first result."""
        named = [str(row.get("name")) for row in self.recorded("targets")]
        there = [target for _, target in self.groups]
        return list(dict.fromkeys([name for name in named if name in there] + there))

    @property
    def planned(self) -> int | None:
        """Results that a full run has."""
        planned = self.record.get("planned")
        return planned if isinstance(planned, int) else None

    @property
    def saved(self) -> int:
        """Results that were not needed, for enough was known before."""
        return sum(int(row.get("results_saved") or 0) for row in self.recorded("stopping"))

    @property
    def missing(self) -> int:
        """Planned results that are not there."""
        return 0 if self.planned is None else max(self.planned - self.count - self.saved, 0)

    def recorded(self, name: str) -> list[dict[str, Any]]:
        """A list of the record, such as `suites`; what anybody has made of it by hand is left
        out."""
        rows = self.record.get(name)
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

    def rows(self) -> Iterator[CaseResult]:
        """All results, in the order they came."""
        return self._at(sorted(place for places in self.groups.values() for place in places))

    def rows_of(self, group: Group) -> Iterator[CaseResult]:
        """Those of one suite on one target."""
        return self._at(self.groups[group])

    def _at(self, places: Iterable[int]) -> Iterator[CaseResult]:
        for place in places:
            self._file.seek(place)
            line = self._file.readline()
            result = _decoded(line)
            assert result is not None  # the file is only ever appended to, or replaced
            _bring_in_range(result)
            if self._masker and self._masker.found_in(line):
                result = without_secrets(result, self._masker)
            yield result

    def _read_record(self) -> dict[str, Any]:
        if not (self.folder / RUN_FILE).exists():
            if (self.folder / RESULTS_FILE).exists():
                self.notes.append(
                    f"{self.folder}: there is no {RUN_FILE}, so what ran is not known"
                )
            return {}
        record: dict[str, Any] = masked_texts(read_run(self.folder), self._masker)
        return record

    def _look_through(self) -> None:
        seen: dict[bytes, tuple[Group, int, int, bool]] = {}
        broken: list[int] = []
        place = 0
        clamped = 0
        for number, line in enumerate(self._file, 1):
            begins, place = place, place + len(line)
            if line.isspace():
                continue
            result = _decoded(line)
            if result is None:
                broken.append(number)
                continue
            clamped += _bring_in_range(result)
            self._keep(result, begins, seen)
        self.unreadable = len(broken)
        self.count = len(seen)
        del seen
        if broken:
            self.notes.append(unreadable_note(self.folder / RESULTS_FILE, broken))
        if clamped:
            self.notes.append(
                f"{self.name}: scores outside of 0 to 1, taken as the nearest that is: {clamped}"
            )

    def _keep(
        self, result: CaseResult, place: int, seen: dict[bytes, tuple[Group, int, int, bool]]
    ) -> None:
        """Each result once: the first that has a score. A run that was killed may hold some
        twice."""
        group = (result.suite_key, result.target)
        judged = result.score is not None
        key = hashlib.blake2b(repr(result.key).encode(), digest_size=16).digest()
        known = seen.get(key)
        places = self.groups.setdefault(group, array("Q"))
        for row in result.scores:
            if is_named_by_value(row):
                names = self.grader_names.setdefault(str(row["type"]), set())
                if len(names) <= NAMES_APART:
                    names.add(str(row["name"]))
        if known is None:
            seen[key] = (group, len(places), place, judged)
            places.append(place)
            self.has_repeats = self.has_repeats or result.repeat > 0
            return
        self.duplicates += 1
        if judged and not known[3]:
            places[known[1]] = place
            seen[key] = (group, known[1], place, True)

    def _tell(self) -> None:
        if self.duplicates:
            self.notes.append(
                f"{self.name}: results that are there twice, and counted once: {self.duplicates}"
            )
        status = self.record.get("status")
        if self.record and status != "complete":
            self.notes.append(f"{self.name}: the run is {_STATES.get(str(status), str(status))}")
        if self.missing:
            self.notes.append(
                f"{self.name}: {self.missing} of {self.planned} planned results are missing"
            )
        for suite in self.recorded("suites"):
            if skipped := suite.get("skipped"):
                self.notes.append(
                    f"{self.name}: tests of {suite.get('name')} that were left out as not valid: "
                    f"{len(skipped)}"
                )


_STATES = {
    "running": "under way, or was killed (`muster eval --resume` completes it)",
    "interrupted": "interrupted (`muster eval --resume` completes it)",
    "timed_out": "incomplete: its time was up",
    "budget_exceeded": "incomplete: its budget was spent",
    "failed": "incomplete: it stopped at its first error",
}


def _decoded(line: bytes) -> CaseResult | None:
    """The result in a line; `None` if it holds none that can be counted."""
    try:
        result = _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not _are_scores(result.scores):
        return None
    if not all(_are_scores(turn.get("scores", [])) for turn in result.turns or ()):
        return None
    if result.execution_status == EXECUTION_ERROR:
        result.score = None
        return result
    return result if result.execution_status in _STATUSES and result.score is not None else None


def _are_scores(rows: Any) -> bool:
    """Whether these are rows of graders, with those within them, as every reader takes them."""
    return isinstance(rows, list) and all(
        isinstance(row, dict)
        and _are_mappings(row.get("assertions", []))
        and ("scores" not in row or _are_scores(row["scores"]))
        for row in rows
    )


def _are_mappings(rows: Any) -> bool:
    return isinstance(rows, list) and all(isinstance(row, dict) for row in rows)


def _bring_in_range(result: CaseResult) -> bool:
    """Make the score one from 0 to 1; whether it was none."""
    if result.score is None or 0.0 <= result.score <= 1.0:
        return False
    result.score = 0.0 if result.score < 0 else 1.0
    return True


def _no_results(folder: Path, error: OSError) -> str:
    if (folder / "index.jsonl").exists() or (folder / ".internal").is_dir() or folder.is_file():
        return (
            f"{folder}: not the folder of a run of Muster; reports are made of these alone "
            "(`muster compare` reads those of others)"
        )
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"{folder}: no {RESULTS_FILE} there; is it the folder of a run?"
    return f"{folder / RESULTS_FILE}: cannot be read: {error.strerror}"


def open_runs(folders: Sequence[Path], masker: Masker) -> list[ReportRun]:
    """The runs in these folders, their targets named so that each is told from the others.

    Raises:
        UsageError: one is no run, or is given twice.
    """
    known: set[str] = set()
    for folder in folders:
        path = os.path.realpath(folder)
        if path in known:
            raise UsageError(f"{folder} is given twice")
        known.add(path)
    runs = [ReportRun(folder, masker) for folder in folders]
    name_targets(runs)
    return runs


def name_targets(runs: Sequence[ReportRun]) -> None:
    """Give runs and targets names of their own: a target of several runs is told with its run."""
    names = [run.name for run in runs]
    for run in runs:
        if names.count(run.name) > 1:
            run.name = str(run.folder)
    targets = [target for run in runs for target in run.targets]
    for run in runs:
        run.labels = {
            target: target if targets.count(target) == 1 else f"{target} ({run.name})"
            for target in run.targets
        }
