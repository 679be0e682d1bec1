"""A run's folder: `results.jsonl`, one line a case, target and repeat; and `run.json`.

Each line is on disk before the next case's result is looked at; a killed process loses at most
the line it was writing, which the reader drops and `--resume` runs again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from muster.config.secrets import Masker
from muster.errors import MusterError, UsageError

__all__ = (
    "EXECUTION_ERROR",
    "OK",
    "QUALITY_FAILURE",
    "CaseResult",
    "ResultKey",
    "ResultsWriter",
    "each_text",
    "masked_texts",
    "read_results",
    "read_run",
    "resume_results",
    "run_lock",
    "whole_text",
    "without_secrets",
    "write_run",
)

OK = "ok"
QUALITY_FAILURE = "quality_failure"
EXECUTION_ERROR = "execution_error"

RESULTS_FILE = "results.jsonl"
RUN_FILE = "run.json"
SCHEMA_VERSION = 1

ResultKey: TypeAlias = tuple[str, str, str | None, str, int]
"""What happens exactly once in a run: (suite file or name, test id, prompt, target, repeat)."""


class CaseResult(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One line of `results.jsonl`. Durations in milliseconds, money in US dollars.

    The fields without a default are in every line, the others where they say something.
    """

    test_id: str
    suite: str
    target: str
    target_used: str | None
    """The target that answered: another one when a fallback stepped in; `null` if none did."""
    repeat: int
    """0-based."""
    execution_status: str
    """`ok`, `quality_failure` or `execution_error`."""
    score: float | None
    """In [0, 1]; `null` when the case could not be run or judged."""
    threshold: float
    """The score from which the case is `ok`."""
    scores: list[dict[str, Any]]
    """Each grader's `name`, `type`, `score`, `weight`, `verdict`, `assertions`."""
    input: Any
    """The question, or the list of messages where there are several."""
    output: str | None
    """The text of the last assistant message."""
    messages: list[dict[str, Any]]
    """All that the provider answered, tool calls and tool results included."""
    error: str | None
    provider: str | None
    """The kind of provider that the target is of."""
    attempts: int
    """Calls made, retries and fallbacks included; 0 when none was."""
    token_usage: dict[str, int] | None
    cost_usd: float | None
    duration_ms: float | None
    started_at: str | None
    error_kind: str | None = None
    """E.g. `rate_limited`, `timeout`, `grader_error`; see the manual."""
    failure_stage: str | None = None
    """`agent`, `evaluator` or `setup`."""
    model: str | None = None
    finish_reason: str | None = None
    cached: bool = False
    """Nobody was asked: the answer came from the response cache."""
    saved: dict[str, Any] | None = None
    """What the cache saved: `hits` and `judge_hits`, and their `token_usage`, `cost_usd`,
    `judge_token_usage`, `judge_cost_usd`; none of it is in the sums."""
    judge_calls: int = 0
    """Questions to judges; what they took is not in `token_usage` and `cost_usd`."""
    judge_token_usage: dict[str, int] | None = None
    judge_cost_usd: float | None = None
    expected_output: str | None = None
    criteria: str | None = None
    turns: list[dict[str, Any]] | None = None
    """For a conversation: each turn's `input`, `output`, `score` and `scores`."""
    prompt: str | None = None
    eval_path: str | None = None
    category: str | None = None
    cluster: str | None = None
    """What the case shares with others, which are not independent of it."""
    conversation_id: str | None = None
    tags: list[str] = msgspec.field(default_factory=list)
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """True when the score reached the threshold."""
        return self.execution_status == OK

    @property
    def key(self) -> ResultKey:
        """What identifies the result within its run."""
        return (self.suite_key, self.test_id, self.prompt, self.target, self.repeat)

    @property
    def suite_key(self) -> str:
        """What tells its suite from the others of the run."""
        return self.eval_path or self.suite

    def to_dict(self) -> dict[str, Any]:
        """The line as plain data; what is unset is left out."""
        data: dict[str, Any] = msgspec.to_builtins(self, enc_hook=str)
        return data


_encoder = msgspec.json.Encoder(enc_hook=str)
_decoder = msgspec.json.Decoder(CaseResult)


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Within it, this process is the only one that writes the run in `folder`.

    Raises:
        UsageError: another process writes it, or it is no folder.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be opened: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"{folder}: another process is writing this run") from None
        yield
    finally:
        os.close(descriptor)


class ResultsWriter:
    """Appends results to a run's folder, which is to be held by `run_lock`."""

    def __init__(self, folder: Path, masker: Masker | None = None) -> None:
        self.path = folder / RESULTS_FILE
        self._masker = masker or None
        with _telling(self.path):
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, result: CaseResult) -> CaseResult:
        """Put one line on disk; the result as it is there, which is what may be shown.

        Raises:
            MusterError: the disk does not take it.
        """
        line, result = _encoded(result)
        if self._masker is not None and self._masker.found_in(line):
            line, result = _encoded(without_secrets(result, self._masker))
        self._append(line + b"\n")
        return result

    def _append(self, line: bytes) -> None:
        with _telling(self.path):
            written = os.write(self._fd, line)
            while written < len(line):
                line = line[written:]
                written = os.write(self._fd, line)

    def close(self) -> None:
        """Flush to the disk itself and let go of the folder."""
        with suppress(OSError):
            os.fsync(self._fd)
        os.close(self._fd)


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    """A disk that does not take what is written is a `MusterError`."""
    try:
        yield
    except OSError as error:
        raise MusterError(f"{path}: cannot be written: {error.strerror}") from error


_SPOKEN = (
    "scores",
    "input",
    "output",
    "expected_output",
    "criteria",
    "messages",
    "turns",
    "error",
    "metadata",
)
"""Where a secret may come to stand. Names and ids stay as they are: they say which result it is."""


def without_secrets(result: CaseResult, masker: Masker) -> CaseResult:
    """The result with secrets masked wherever somebody may have said them."""
    plain = result.to_dict()
    spoken = {name: plain[name] for name in _SPOKEN if name in plain}
    return msgspec.structs.replace(result, **masked_texts(spoken, masker))


def masked_texts(data: Any, masker: Masker) -> Any:
    """Plain data with secrets masked in every text."""
    return each_text(data, masker.mask)


def _encoded(result: CaseResult) -> tuple[bytes, CaseResult]:
    """The line, and the result that it says."""
    try:
        return _encoder.encode(result), result
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can name and UTF-8 cannot
        whole = msgspec.convert(each_text(result.to_dict(), whole_text), CaseResult)
        return _encoder.encode(whole), whole


def whole_text(text: str) -> str:
    """`text` with halves of surrogate pairs replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def each_text(value: Any, change: Callable[[str], str]) -> Any:
    """Plain data with every text in it changed, keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {each_text(key, change): each_text(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [each_text(item, change) for item in value]
    return value


def read_results(folder: Path) -> Iterator[CaseResult]:
    """The results of a run, in the order they came; a torn last line is left out.

    Raises:
        MusterError: there are no results, or a line in the middle is broken.
    """
    path = folder / RESULTS_FILE
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    return
                try:
                    yield _decoder.decode(line)
                except msgspec.MsgspecError as error:
                    raise MusterError(f"{path}:{number}: not a result: {error}") from error
    except FileNotFoundError:
        raise UsageError(f"{folder}: no {RESULTS_FILE} there; is it the folder of a run?") from None


def resume_results(folder: Path, keep: Callable[[CaseResult], bool]) -> Iterator[CaseResult]:
    """Yield the results that stay, after dropping torn lines, repeats, and those not to `keep`.

    The file is rewritten beside itself and renamed, so that a kill in between loses nothing. The
    results are yielded only after that.
    """
    path = folder / RESULTS_FILE
    seen: set[ResultKey] = set()
    draft = path.with_suffix(".jsonl.tmp")
    with _telling(path):
        with draft.open("wb") as out:
            for result in read_results(folder):
                if keep(result) and result.key not in seen:
                    seen.add(result.key)
                    out.write(_encoder.encode(result) + b"\n")
            out.flush()
            os.fsync(out.fileno())
        draft.replace(path)
    return read_results(folder)


def write_run(folder: Path, record: dict[str, Any]) -> None:
    """Replace `run.json` in one step. Raises `MusterError` when it cannot be written."""
    draft = folder / (RUN_FILE + ".tmp")
    with _telling(folder / RUN_FILE):
        draft.write_bytes(msgspec.json.format(_encoder.encode(record), indent=2) + b"\n")
        draft.replace(folder / RUN_FILE)


def read_run(folder: Path) -> dict[str, Any]:
    """The record of a run. Raises `UsageError` when the folder has none."""
    path = folder / RUN_FILE
    try:
        data = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{folder}: no {RUN_FILE} there; is it the folder of a run?") from None
    except msgspec.MsgspecError as error:
        raise UsageError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(data, dict):
        raise UsageError(f"{path}: not the record of a run")
    return data
