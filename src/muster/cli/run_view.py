"""What is seen of a run while it goes on: a tree on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol

from muster.config.secrets import Masker
from muster.evals.summary import one_line
from muster.reports.team_run import approval_text, event_lines, preview
from muster.teams.definition import Team
from muster.teams.watching import RunEvent

__all__ = ("View", "open_view")

_PER_SECOND = 8
_TAIL = 160
_KEPT = 4000
"""Of a text that comes in pieces: more than is shown, for a secret may come in pieces too."""


class View(Protocol):
    """Shows events; a context manager."""

    def on_event(self, event: RunEvent) -> None:
        """One more thing has happened."""
        ...

    def paused(self) -> AbstractContextManager[None]:
        """Leave the terminal to somebody else."""
        ...

    def __enter__(self) -> Any: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...


def open_view(team: Team, masker: Masker, *, watch: bool) -> View:
    """The view for this terminal. Secrets are not shown."""
    if watch and sys.stdout.isatty():
        return _LiveView(team, masker)
    return _PlainView(masker, watch=watch)


class _PlainView:
    """Lines in the order in which things happen; warnings in any case. Who reads them may go away:
    the run is not ended by that."""

    def __init__(self, masker: Masker, *, watch: bool) -> None:
        self._masker = masker
        self._watch = watch
        self._is_read = True

    def on_event(self, event: RunEvent) -> None:
        if (event.kind == "warning" or self._watch) and self._is_read:
            out = sys.__stdout__ if self._watch else sys.stderr
            shown = replace(event, text=self._masker.mask(event.text))
            try:
                for line in event_lines(shown):
                    print(line, file=out, flush=True)
            except OSError:
                self._is_read = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        yield

    def __enter__(self) -> _PlainView:
        return self

    def __exit__(self, *_: object) -> None:
        return


class _Seen:
    """What the tree shows of a step."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.status = "pending"
        self.began: float | None = None
        self.took = 0.0
        self.tokens = 0
        self.tail = ""
        self.notes: list[str] = []


_MARKS = {
    "pending": ("·", "bright_black"),
    "running": ("▸", "cyan"),
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
    "skipped": ("–", "yellow"),
    "waiting": ("?", "magenta"),
}


class _LiveView:
    """The steps in their order, with the end of what they are saying."""

    def __init__(self, team: Team, masker: Masker) -> None:
        self._masker = masker
        names = [step.name for step in team.steps] or [team.entry or "route"]
        self._steps = {name: _Seen(name) for name in names}
        self._live: Any = None

    def on_event(self, event: RunEvent) -> None:
        if event.step is None:
            return
        seen = self._steps.setdefault(event.step, _Seen(event.step))
        if event.kind == "step_started":
            seen.status, seen.began = "running", time.monotonic()
        elif event.kind == "chunk":
            seen.tail = (seen.tail + event.text)[-_KEPT:]
        elif event.kind in ("step_done", "step_failed", "step_skipped"):
            seen.status = event.kind.removeprefix("step_")
            seen.tail = preview(self._masker.mask(event.text))
            seen.tokens = event.data.get("tokens", 0)
            seen.took = event.data.get("seconds", 0.0)
        elif event.kind == "approval":
            seen.status, seen.tail = "waiting", approval_text(event)
        else:
            told = self._masker.mask(one_line(event.text))[:100]
            seen.notes = [*seen.notes[-2:], f"{event.kind}: {told}"]

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._live.stop()
        try:
            yield
        finally:
            self._live.start()

    def __enter__(self) -> _LiveView:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(
            get_renderable=self._render,
            console=Console(file=sys.__stdout__),
            refresh_per_second=_PER_SECOND,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def _render(self) -> Any:
        from rich.text import Text

        text = Text()
        for seen in self._steps.values():
            mark, style = _MARKS[seen.status]
            text.append(f"{mark} {seen.name:<20}", style=style)
            text.append(_account(seen), style="bright_black")
            if seen.tail:
                tail = one_line(self._masker.mask(seen.tail))[-_TAIL:]
                text.append(f"\n    {tail}", style="default")
            for note in seen.notes if seen.status == "running" else ():
                text.append(f"\n    {note}", style="bright_black")
            text.append("\n")
        return text


def _account(seen: _Seen) -> str:
    if seen.status == "running" and seen.began is not None:
        return f"  {time.monotonic() - seen.began:.1f}s"
    if seen.status in ("done", "failed"):
        return f"  {seen.tokens} tokens  {seen.took:.1f}s"
    return ""
