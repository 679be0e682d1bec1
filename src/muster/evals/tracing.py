"""Spans of a run, to a file or to a collector, in OTLP's JSON form.

A case is a trace: its first span tells how it was scored, with an event for each grader; the calls
made for it are below. To a collector (OTLP over HTTP) spans go in batches from a thread of their
own; a collector that does not answer loses spans, never results.

The form: https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import os
import queue
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec

from muster import __version__
from muster.config.secrets import Masker
from muster.errors import MusterError, UsageError
from muster.evals.results import EXECUTION_ERROR, CaseResult, each_text, masked_texts, whole_text
from muster.wrappers.trace import Span, case_ids

__all__ = ("Tracer",)

BATCH = 256
WAITING = 20_000
"""Spans that wait to be sent; more are lost."""
SECONDS = 10.0
"""For one batch; and, at the end of the run, for those that wait."""
_BEGINS = b'{"resourceSpans"'
DEFAULT_ENDPOINT = "http://localhost:4318"


class _Sink(Protocol):
    def put(self, span: dict[str, Any]) -> None: ...

    def close(self) -> str | None:
        """Nothing more comes; what went wrong."""
        ...


class Tracer:
    """Makes OTLP of spans, and sends them where `where` says: a file's name, a collector's address,
    or empty for the address that the environment names."""

    def __init__(self, where: str, *, content: bool, env: Mapping[str, str] = os.environ) -> None:
        """Raises `UsageError` when `where` is no place for spans."""
        self.content = content
        self.run = ""
        self._masker: Masker | None = None
        self._env = env
        self._where = where
        self._url = None if _is_file(where) else _traces_url(where, env)
        if self._url is None:
            _check_file(Path(where))
        self._sink: _Sink | None = None

    def start(self, run: str, masker: Masker) -> None:
        """The run begins. Raises `MusterError` when the file cannot be written."""
        self.run = run
        self._masker = masker or None
        about = {"resource": {"attributes": _pairs(_resource(self._env, run))}}
        if self._url is None:
            self._sink = _FileSink(Path(self._where), about)
        else:
            self._sink = _HttpSink(self._url, _headers(self._env), about)

    def emit(self, span: Span) -> None:
        """A span has ended."""
        if self._sink is not None:
            row = _plain(span)
            if self._masker is not None:
                row = masked_texts(row, self._masker)
            self._sink.put(row)

    def result(self, result: CaseResult) -> None:
        """A case has ended: its first span."""
        case = (result.test_id, result.prompt, result.target, result.repeat)
        trace_id, span_id = case_ids(self.run, result.suite_key, case)
        end = time.time_ns()
        known = {
            "muster.suite": result.suite,
            "muster.test_id": result.test_id,
            "muster.prompt": result.prompt,
            "muster.target": result.target,
            "muster.repeat": result.repeat,
            "muster.status": result.execution_status,
            "muster.score": result.score,
            "error.type": result.error_kind,
        }
        span = Span(
            name=f"eval {result.suite}",
            trace_id=trace_id,
            span_id=span_id,
            parent_id=None,
            start=_nanoseconds(result.started_at, end),
            end=end,
            attributes={name: value for name, value in known.items() if value is not None},
            failed=result.execution_status == EXECUTION_ERROR,
        )
        span.events = [(end, "gen_ai.evaluation.result", self._score(row)) for row in result.scores]
        self.emit(span)

    def _score(self, row: Mapping[str, Any]) -> dict[str, Any]:
        known = {
            "gen_ai.evaluation.name": row.get("name"),
            "gen_ai.evaluation.score.value": row.get("score"),
            "gen_ai.evaluation.score.label": row.get("verdict"),
        }
        if self.content:
            said = [str(entry.get("text")) for entry in row.get("assertions") or ()]
            known["gen_ai.evaluation.explanation"] = "; ".join(said) or None
        return {name: value for name, value in known.items() if value is not None}

    def close(self) -> str | None:
        """The run has ended; what went wrong, if anything did."""
        sink, self._sink = self._sink, None
        return None if sink is None else sink.close()


class _FileSink:
    """A line for each span, each a whole export request."""

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self._path = path
        self._about = about
        self._failure: str | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise MusterError(f"{path}: cannot be written: {error.strerror}") from error

    def put(self, span: dict[str, Any]) -> None:
        line = _request(self._about, [span]) + b"\n"
        try:
            while line:
                line = line[os.write(self._fd, line) :]
        except OSError as error:
            self._failure = f"{self._path}: spans were lost: {error.strerror}"

    def close(self) -> str | None:
        os.close(self._fd)
        return self._failure


class _HttpSink:
    """Sends batches from a thread, so that no case waits for a collector."""

    def __init__(self, url: str, headers: Mapping[str, str], about: dict[str, Any]) -> None:
        self._url = url
        self._headers = headers
        self._about = about
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(WAITING)
        self._lost = 0
        self._why: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="muster-spans", daemon=True)
        self._thread.start()

    def put(self, span: dict[str, Any]) -> None:
        try:
            self._queue.put_nowait(span)
        except queue.Full:
            self._lost += 1
            self._why = self._why or "the collector is too slow"

    def close(self) -> str | None:
        self._stop.set()
        with suppress(queue.Full):  # the thread looks at the event as well
            self._queue.put(None, timeout=1)
        self._thread.join(SECONDS)
        if self._thread.is_alive():
            self._lost += self._queue.qsize()
            self._why = self._why or "the collector did not answer in time"
        if not self._lost:
            return None
        return f"{_shown(self._url)}: {self._lost} spans were lost: {self._why}"

    def _work(self) -> None:
        while True:
            batch, ended = self._batch()
            if batch:
                self._send(batch)
            if ended or (self._stop.is_set() and self._queue.empty()):
                return

    def _batch(self) -> tuple[list[dict[str, Any]], bool]:
        batch: list[dict[str, Any]] = []
        try:
            span = self._queue.get(timeout=0.5)
            while span is not None:
                batch.append(span)
                if len(batch) == BATCH:
                    return batch, False
                span = self._queue.get_nowait()
        except queue.Empty:
            return batch, False
        return batch, True

    def _send(self, batch: list[dict[str, Any]]) -> None:
        request = urllib.request.Request(  # noqa: S310 - http and https alone, see _traces_url
            self._url,
            _request(self._about, batch),
            {**self._headers, "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
                answer.read()
        except urllib.error.HTTPError as error:
            self._lost += len(batch)
            self._why = f"the collector answered {error.code}"
            error.close()
        except (OSError, ValueError) as error:
            self._lost += len(batch)
            reason = getattr(error, "reason", error)
            self._why = f"the collector cannot be reached ({reason})"


def _is_file(where: str) -> bool:
    return bool(where) and not where.startswith(("http://", "https://"))


def _check_file(path: Path) -> None:
    """Raise `UsageError` for a file with anything but spans: nothing is appended to a suite."""
    try:
        with path.open("rb") as file:
            begins = file.read(len(_BEGINS))
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"--otel: {path}: {error.strerror}") from None
    if begins and begins != _BEGINS:
        raise UsageError(
            f"--otel: {path} is there and holds no spans; name another file, or write --otel= for "
            "the collector that the environment names"
        )


def _traces_url(where: str, env: Mapping[str, str]) -> str:
    """Where traces go, as the specification of the exporter has it."""
    url = env.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") if not where else None
    if not url:
        base = where or env.get("OTEL_EXPORTER_OTLP_ENDPOINT") or DEFAULT_ENDPOINT
        url = f"{base.rstrip('/')}/v1/traces"
        if where and urllib.parse.urlsplit(where).path.endswith("/v1/traces"):
            url = where
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"--otel: {_shown(url)} is no address of a collector (http or https)")
    return url


def _shown(url: str) -> str:
    """The address without what may be secret in it."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _headers(env: Mapping[str, str]) -> dict[str, str]:
    written = env.get("OTEL_EXPORTER_OTLP_TRACES_HEADERS") or env.get("OTEL_EXPORTER_OTLP_HEADERS")
    return _list_of_pairs(written or "")


def _list_of_pairs(text: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in text.split(",") if "=" in part)
    return {name.strip(): urllib.parse.unquote(value.strip()) for name, _, value in pairs}


def _resource(env: Mapping[str, str], run: str) -> dict[str, Any]:
    own = {"service.name": "muster", "service.version": __version__, "muster.run_id": run}
    said = _list_of_pairs(env.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    name = env.get("OTEL_SERVICE_NAME")
    return own | said | ({"service.name": name} if name else {})


def _request(about: dict[str, Any], spans: Sequence[dict[str, Any]]) -> bytes:
    scope = {"scope": {"name": "muster", "version": __version__}, "spans": spans}
    row = {"resourceSpans": [{**about, "scopeSpans": [scope]}]}
    try:
        return msgspec.json.encode(row)
    except UnicodeEncodeError:  # half a surrogate pair
        return msgspec.json.encode(each_text(row, whole_text))


def _plain(span: Span) -> dict[str, Any]:
    row: dict[str, Any] = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": str(span.start),
        "endTimeUnixNano": str(max(span.end, span.start)),
        "attributes": _pairs(span.attributes),
        "status": {"code": 2} if span.failed else {},
    }
    if span.parent_id is not None:
        row["parentSpanId"] = span.parent_id
    if span.events:
        row["events"] = [
            {"timeUnixNano": str(at), "name": name, "attributes": _pairs(attributes)}
            for at, name, attributes in span.events
        ]
    return row


def _pairs(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _value(value)} for name, value in attributes.items()]


def _value(value: object) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list | tuple):
        return {"arrayValue": {"values": [_value(item) for item in value]}}
    return {"stringValue": str(value)}


def _nanoseconds(text: str | None, otherwise: int) -> int:
    try:
        return otherwise if text is None else int(datetime.fromisoformat(text).timestamp() * 1e9)
    except ValueError:
        return otherwise
