"""What is seen of a run while it goes on: a tree on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, Protocol

from msgspec.structs import replace

from muster.config.secrets import Masker
from muster.reports.team_run import event_lines
from muster.teams.definition import Team
from muster.teams.watching import RunEvent

__all__ = ("View", "open_view")


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
        from muster.cli.run_tree import TreeView

        return TreeView(team, masker)
    return _PlainView(masker, watch=watch)


class _PlainView:
    """Lines in the order in which things happen. Warnings in any case; and where nobody is at the
    terminal to be asked, how a step that waits for a person is answered. Who reads them may go
    away: the run is not ended by that."""

    def __init__(self, masker: Masker, *, watch: bool) -> None:
        self._masker = masker
        self._watch = watch
        self._is_read = True
        asked = sys.stdin is not None and sys.stdin.isatty()
        self._always = ("warning",) if asked else ("warning", "approval")

    def on_event(self, event: RunEvent) -> None:
        if (event.kind in self._always or self._watch) and self._is_read:
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
