"""The messages and tool calls of an agent, put together from the events that it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import model_validator

from muster.provider import Message, ToolCall
from muster.providers.paths import JmesPath, Search, compile_path
from muster.providers.settings import ProviderSettings

__all__ = ("CliEvents", "EventReader")


class CliEvents(ProviderSettings):
    """What each line of JSON lines says, as JMESPath into that line; nothing there is null, false
    or empty."""

    text: JmesPath | None = None
    """Text that the agent says."""
    pieces: bool = False
    """True: texts that follow one another are pieces of one message."""
    calls: JmesPath | None = None
    """Tool calls: a list of `{id, tool, input}`, with `output` and `status` if they are known."""
    results: JmesPath | None = None
    """What came of earlier calls: a list of `{id, output, status}`."""

    @model_validator(mode="after")
    def _says_something(self) -> CliEvents:
        if self.text is None and self.calls is None:
            raise ValueError("`events` needs `text` or `calls`")
        return self


class EventReader:
    """Reads events as the settings say."""

    def __init__(self, settings: CliEvents) -> None:
        self._pieces = settings.pieces
        self._paths: dict[str, Search] = {
            name: compile_path(path)
            for name in ("text", "calls", "results")
            if (path := getattr(settings, name)) is not None
        }

    def read(self, events: Sequence[Any]) -> tuple[Message, ...]:
        """The assistant's messages, in order, each call with what came of it.

        Raises:
            ValueError: something is not of the form that it should have.
        """
        messages: list[Message] = []
        open_piece = False
        for event in events:
            found = {name: path(event) for name, path in self._paths.items()}
            text = found.get("text") or ""
            if not isinstance(text, str):
                raise ValueError(f"`events.text` found no text ({type(text).__name__})")
            calls = tuple(_call(row) for row in _rows("calls", found.get("calls")))
            if text and open_piece and not calls:
                messages[-1] = replace(messages[-1], content=messages[-1].text + text)
            elif text or calls:
                messages.append(Message("assistant", text, tool_calls=calls))
                open_piece = self._pieces and not calls
            for row in _rows("results", found.get("results")):
                _answer(messages, row)
                open_piece = False
        return tuple(messages)


def _rows(name: str, value: Any) -> list[Mapping[str, Any]]:
    if not value:
        return []
    if not isinstance(value, list) or not all(isinstance(row, Mapping) for row in value):
        raise ValueError(f"`events.{name}` found no list of objects")
    return value


def _call(row: Mapping[str, Any]) -> ToolCall:
    return ToolCall.from_mapping({key: value for key, value in row.items() if value is not None})


def _answer(messages: list[Message], row: Mapping[str, Any]) -> None:
    """Put what came of a call to it; the last one of that id. A result of no call is left out."""
    for place in range(len(messages) - 1, -1, -1):
        message = messages[place]
        for number, call in enumerate(message.tool_calls):
            if call.id is not None and call.id == row.get("id"):
                status = row.get("status")
                done = replace(
                    call,
                    output=row.get("output"),
                    status=status if isinstance(status, str) else "ok",
                )
                calls = (*message.tool_calls[:number], done, *message.tool_calls[number + 1 :])
                messages[place] = replace(message, tool_calls=calls)
                return
