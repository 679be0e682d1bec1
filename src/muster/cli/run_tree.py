"""A run on a terminal: its steps as a tree that is drawn anew as they go on."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from muster.config.secrets import Masker
from muster.plain import one_line
from muster.reports.team_run import approval_text, preview
from muster.reports.terminal import format_money, format_tokens, tokens_text
from muster.teams.definition import Team
from muster.teams.watching import RunEvent

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ("TreeView",)

_PER_SECOND = 8
_TAIL = 160
_KEPT = 4000
"""Of a text that comes in pieces: more than is shown, for a secret may come in pieces too."""
_NOTES = 3

_MARKS = {
    "pending": ("·", "bright_black"),
    "running": ("▸", "cyan"),
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
    "skipped": ("–", "yellow"),
    "waiting": ("?", "magenta"),
    "stopped": ("✗", "yellow"),
}
_TOLD = {"tool_call": "tool", "tool_result": "tool", "delegated": "asks", "routed": "asks"}
_WORKING = ("running", "waiting")


class _Seen:
    """What the tree shows of a step."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.status = "pending"
        self.began: float | None = None
        self.took = 0.0
        self.tokens = 0
        self.untold = 0
        self.cost: float | None = None
        self.tools = 0
        self.speaker: tuple[int, int | None] | None = None
        self.tail = ""
        self.notes: list[str] = []

    def hear(self, event: RunEvent) -> None:
        """One more piece of the answer; of several answers at a time, that which came last."""
        speaker = (event.iteration, event.item)
        if speaker != self.speaker:
            self.speaker, self.tail = speaker, ""
        self.tail = (self.tail + event.text)[-_KEPT:]

    @property
    def account(self) -> str:
        """What it has used, as far as that is known."""
        if self.status in ("pending", "skipped"):
            return ""
        over = self.status in ("done", "failed")
        parts = [tokens_text(format_tokens(self.tokens), self.untold)] if over else []
        if over and self.cost is not None:
            parts.append(format_money(self.cost))
        if self.tools:
            parts.append(f"{self.tools} {'tool call' if self.tools == 1 else 'tool calls'}")
        began = self.began
        seconds = self.took if over or began is None else time.monotonic() - began
        return "  ".join([*parts, f"{seconds:.1f}s"])


class TreeView:
    """The steps in their order, those of a nested team below its step, with the end of what they
    are saying. Of a tree that is higher than the terminal, what goes on is shown."""

    def __init__(self, team: Team, masker: Masker) -> None:
        self._masker = masker
        names = [step.name for step in team.steps] or [team.entry or "route"]
        self._steps = {name: _Seen(name) for name in names}
        self._began = time.monotonic()
        self._is_over = False
        self._console: Any = None
        self._live: Any = None

    def on_event(self, event: RunEvent) -> None:
        if event.step is None:
            if event.kind == "warning":
                self._say(f"warning: {self._masker.mask(event.text)}")
            return
        seen = self._steps.get(event.step)
        if seen is None:
            seen = self._insert(event.step)
        if event.kind == "step_started":
            seen.status, seen.began = "running", time.monotonic()
        elif event.kind == "chunk":
            seen.hear(event)
        elif event.kind in ("step_done", "step_failed", "step_skipped"):
            seen.status = event.kind.removeprefix("step_")
            seen.tail = preview(self._masker.mask(event.text))
            seen.tokens = event.data.get("tokens", 0)
            seen.untold = event.data.get("untold", 0)
            seen.cost = event.data.get("cost_usd")
            seen.took = event.data.get("seconds", 0.0)
        elif event.kind == "approval":
            seen.status, seen.tail = "waiting", approval_text(event)
        else:
            self._note(seen, event)

    def _note(self, seen: _Seen, event: RunEvent) -> None:
        told = self._masker.mask(one_line(event.text))[:100]
        if event.kind == "tool_call":
            seen.tools += 1
        elif event.kind == "tool_result":
            told = f"{event.data['name']} → {told}"
        kind = _TOLD.get(event.kind, event.kind)
        seen.notes = [*seen.notes[1 - _NOTES :], f"{kind}: {told}"]
        if event.kind == "warning":
            self._say(f"warning: {event.step}: {self._masker.mask(event.text)}")

    def _insert(self, name: str) -> _Seen:
        """A step of a nested team: below its own."""
        seen = _Seen(name)
        above = name.rpartition("/")[0]
        steps: dict[str, _Seen] = {}
        rows = list(self._steps.items())
        last = max((at for at, (key, _) in enumerate(rows) if _is_within(key, above)), default=-1)
        for at, (key, row) in enumerate(rows):
            steps[key] = row
            if at == last:
                steps[name] = seen
        steps.setdefault(name, seen)
        self._steps = steps  # the tree may be drawn at this moment, in another thread
        return seen

    def _say(self, line: str) -> None:
        """A line above the tree, which stays."""
        if self._console is not None:
            self._console.print(line, markup=False, highlight=False)

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._live.stop()
        try:
            yield
        finally:
            self._live.start()

    def __enter__(self) -> TreeView:
        from rich.console import Console
        from rich.live import Live

        # What others write to this terminal meanwhile goes above the tree, not into it.
        is_same = sys.stderr.isatty()
        self._console = Console(file=sys.__stdout__)
        self._live = Live(
            get_renderable=self._render,
            console=self._console,
            refresh_per_second=_PER_SECOND,
            redirect_stdout=is_same,
            redirect_stderr=is_same,
        )
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over = True
        for seen in self._steps.values():
            if seen.status in _WORKING:
                seen.status = "stopped"
        self._live.stop()

    # --- drawing --------------------------------------------------------------------------------

    def _render(self) -> Text:
        from rich.text import Text

        steps = list(self._steps.values())
        width, height = max(self._console.width, 20), self._console.height
        blocks = [self._lines(seen, width) for seen in steps]
        if not self._is_over:
            blocks = _fitted(steps, blocks, height - 2)
        text = Text("\n").join(line for block in blocks for line in block)
        return text + Text("\n") + self._total(steps)

    def _lines(self, seen: _Seen, width: int) -> list[Text]:
        from rich.text import Text

        mark, style = _MARKS[seen.status]
        depth = "  " * seen.name.count("/")
        name = seen.name.rpartition("/")[2]
        lines = [Text(f"{depth}{mark} {name:<20}", style=style)]
        if seen.account:
            lines[0].append(f"  {seen.account}", style="bright_black")
        said = seen.tail
        if seen.status == "running":
            said = one_line(self._masker.mask(said))[-_TAIL:]
        if said:
            lines.append(Text(f"{depth}    {said}"))
        if seen.status == "running":
            lines += [Text(f"{depth}    {note}", style="bright_black") for note in seen.notes]
        for line in () if self._is_over else lines:  # a line of the tree is a line of the terminal
            _cut(line, width, from_end=seen.status == "running" and line is not lines[0])
        return lines

    def _total(self, steps: list[_Seen]) -> Text:
        from rich.text import Text

        tops = [seen for seen in steps if "/" not in seen.name]
        ended = sum(seen.status in ("done", "failed", "skipped") for seen in tops)
        costs = [seen.cost for seen in tops if seen.cost is not None]
        parts = [f"{ended} of {len(tops)} {'step' if len(tops) == 1 else 'steps'}"]
        tokens = format_tokens(sum(seen.tokens for seen in tops))
        parts.append(tokens_text(tokens, sum(seen.untold for seen in tops)))
        if costs:
            parts.append(format_money(sum(costs)))
        parts.append(f"{time.monotonic() - self._began:.1f}s")
        return Text("  ".join(parts), style="bright_black")


def _is_within(name: str, above: str) -> bool:
    return name == above or name.startswith(f"{above}/")


def _cut(line: Text, width: int, *, from_end: bool) -> None:
    """Keep one line of the terminal: of what is being said, the end."""
    if line.cell_len <= width:
        return
    if not from_end:
        line.truncate(width, overflow="ellipsis")
        return
    indent = len(line.plain) - len(line.plain.lstrip())
    while line.cell_len > width:
        over = max((line.cell_len - width) // 2, 1)
        line.plain = line.plain[:indent] + "…" + line.plain[indent + 1 + over :]


def _fitted(steps: list[_Seen], blocks: list[list[Text]], height: int) -> list[list[Text]]:
    """What there is room for: first, steps that are over keep one line; then those over longest
    and those that come last are only counted."""
    from rich.text import Text

    if sum(map(len, blocks)) <= height:
        return blocks
    blocks = [
        block if seen.status in _WORKING else block[:1]
        for seen, block in zip(steps, blocks, strict=True)
    ]
    at_work = [at for at, seen in enumerate(steps) if seen.status in _WORKING]
    first, last = (at_work[0], at_work[-1] + 1) if at_work else (_pending(steps),) * 2
    start, end, room = 0, len(steps), max(height - 2, 1)
    lines = sum(map(len, blocks))
    while lines > room and (start < first or end > last):
        if end - last >= first - start:
            end -= 1
            lines -= len(blocks[end])
        else:
            lines -= len(blocks[start])
            start += 1
    if lines > room:
        blocks = [block[:1] for block in blocks]
        end = min(end, start + room)
    shown = blocks[start:end]
    dim = "bright_black"
    above = [[Text(f"  … {start} more above", style=dim)]] if start else []
    below = len(steps) - end
    return above + shown + ([[Text(f"  … {below} more below", style=dim)]] if below else [])


def _pending(steps: list[_Seen]) -> int:
    """Where the steps begin that are not over."""
    return next((at for at, seen in enumerate(steps) if seen.status == "pending"), len(steps))
