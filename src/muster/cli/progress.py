"""Progress of a run: a live line on a terminal, plain lines elsewhere. Always on stderr."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from muster.evals.reasons import reason_of
from muster.evals.results import EXECUTION_ERROR, OK, CaseResult
from muster.evals.summary import RunTotals
from muster.plain import one_line
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

    def __init__(self, total: int, totals: RunTotals, *, style: str, verbose: bool = False) -> None:
        self.total = total
        self.totals = totals
        self.style = style
        self.verbose = verbose
        self._already = totals.count
        self._started = time.monotonic()
        self._shown_at = self._started
        self._tenths = self._tenths_done()
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
        """One more result, which is in the totals; show it when it is time."""
        if self.verbose and self.style != "quiet":
            self._print(_line_of(result))
        if self.style == "plain":
            self._print_now_and_then()

    def _print_now_and_then(self) -> None:
        """A line for each tenth of the run, but neither too often nor too seldom."""
        now = time.monotonic()
        since = now - self._shown_at
        tenths = self._tenths_done()
        if tenths > self._tenths or since >= _PLAIN_EVERY:
            self._tenths = tenths
            if since >= _PLAIN_AT_MOST_EVERY or self.totals.count >= self.total:
                self._shown_at = now
                self._print(self.status())

    def _tenths_done(self) -> int:
        return self.totals.count * 10 // self.total if self.total else 0

    def status(self) -> str:
        """One line: how far, how well, how fast, how dear."""
        return "  ".join([self.count, *self.details()])

    @property
    def count(self) -> str:
        """`30/100`."""
        return f"{self.totals.count}/{self.total}"

    def details(self) -> list[str]:
        """How it goes, in few words each."""
        totals = self.totals
        seconds = max(time.monotonic() - self._started, 1e-9)
        rate = (totals.count - self._already) / seconds
        parts = [f"{totals.passed} passed", f"{totals.quality_failures} failed"]
        errors = totals.errors_by_kind
        if errors:
            kinds = ", ".join(f"{count} {kind}" for kind, count in errors.most_common(3))
            parts.append(f"{errors.total()} errors ({kinds})")
        parts.append(f"{rate:.0f}/s" if rate >= 10 else f"{rate:.1f}/s")
        if totals.tokens:
            parts.append(f"{format_tokens(totals.tokens)} tokens")
        if totals.cost_usd is not None:
            parts.append(format_money(totals.cost_usd))
        left = self.total - totals.count
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
        return self.totals.count / self.total if self.total else 1.0


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
    return f"{mark}  {one_line(result.test_id)}{repeat}  {result.target}{score}{took}{why}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
