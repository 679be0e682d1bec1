"""Progress of a run: a live line on a terminal, plain lines elsewhere. Always on stderr."""

from __future__ import annotations

import sys
import time
from collections import Counter
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from muster.evals.results import EXECUTION_ERROR, OK, CaseResult
from muster.evals.summary import reason_of
from muster.reports.terminal import format_money, format_tokens

__all__ = ("Progress",)

_LIVE_PER_SECOND = 4
_PLAIN_EVERY = 5.0
_PLAIN_AT_MOST_EVERY = 1.0
_BAR_WIDTH = 40


class Progress(AbstractContextManager["Progress"]):
    """Told of each result; shows count, rate, cost, tokens and errors by kind.

    `style` is `live`, `plain` or `quiet`; `verbose` adds a line for each result.
    """

    def __init__(self, total: int, already: int, *, style: str, verbose: bool = False) -> None:
        self.total = total
        self.style = style
        self.verbose = verbose
        self._count = already
        self._already = already
        self._passed = 0
        self._failed = 0
        self._tokens = 0
        self._cost: float | None = None
        self._errors: Counter[str] = Counter()
        self._started = time.monotonic()
        self._shown_at = self._started
        self._tenths = already * 10 // total if total else 0
        self._live: Any = None

    def __enter__(self) -> Progress:
        if self.style == "live":
            self._live = _live_display(self)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def on_result(self, result: CaseResult) -> None:
        """Count one more result, and show it when it is time."""
        self._count += 1
        if result.execution_status == OK:
            self._passed += 1
        elif result.execution_status == EXECUTION_ERROR:
            self._errors[result.error_kind or "unknown"] += 1
        else:
            self._failed += 1
        usage = result.token_usage
        if usage:
            self._tokens += usage.get("input", 0) + usage.get("output", 0)
        if result.cost_usd is not None:
            self._cost = (self._cost or 0.0) + result.cost_usd
        if self.verbose and self.style != "quiet":
            self._print(_line_of(result))
        self._show()

    def _show(self) -> None:
        """A plain line for each tenth of the run, but neither too often nor too seldom."""
        if self.style != "plain":
            return
        now = time.monotonic()
        since = now - self._shown_at
        tenths = self._count * 10 // self.total if self.total else 0
        if tenths > self._tenths or since >= _PLAIN_EVERY:
            self._tenths = tenths
            if since >= _PLAIN_AT_MOST_EVERY or self._count >= self.total:
                self._shown_at = now
                self._print(self.status())

    def status(self) -> str:
        """One line: how far, how well, how fast, how dear."""
        return "  ".join([self.count, *self.details()])

    @property
    def count(self) -> str:
        """`30/100`."""
        return f"{self._count}/{self.total}"

    def details(self) -> list[str]:
        """How it goes, in few words each."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        rate = (self._count - self._already) / seconds
        parts = [f"{self._passed} passed", f"{self._failed} failed"]
        if self._errors:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self._errors.most_common(3))
            parts.append(f"{self._errors.total()} errors ({kinds})")
        parts.append(f"{rate:.0f}/s" if rate >= 10 else f"{rate:.1f}/s")
        if self._tokens:
            parts.append(f"{format_tokens(self._tokens)} tokens")
        if self._cost is not None:
            parts.append(format_money(self._cost))
        left = self.total - self._count
        if left > 0 and rate > 0 and left / rate >= 1:
            parts.append(f"{_clock(left / rate)} left")
        return parts

    def _print(self, line: str) -> None:
        if self._live is not None:
            self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    @property
    def fraction(self) -> float:
        """How much is done, in [0, 1]."""
        return self._count / self.total if self.total else 1.0


def _live_display(progress: Progress) -> Any:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    started = time.monotonic()

    def render() -> Text:
        done = round(progress.fraction * _BAR_WIDTH)
        return Text.assemble(
            ("━" * done, "green"),
            ("━" * (_BAR_WIDTH - done), "bright_black"),
            f"  {progress.count}  {_clock(time.monotonic() - started)}\n",
            "  ".join(progress.details()),
        )

    return Live(
        get_renderable=render,
        console=Console(stderr=True),
        refresh_per_second=_LIVE_PER_SECOND,
        transient=True,
    )


def _line_of(result: CaseResult) -> str:
    mark = {"ok": "pass", EXECUTION_ERROR: "ERROR"}.get(result.execution_status, "fail")
    score = "" if result.score is None else f"  {result.score:.2f}"
    took = "" if result.duration_ms is None else f"  {result.duration_ms:.0f} ms"
    why = "" if result.execution_status == OK else f"  {reason_of(result)[:200]}"
    repeat = f" #{result.repeat}" if result.repeat else ""
    return f"{mark}  {result.test_id}{repeat}  {result.target}{score}{took}{why}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
