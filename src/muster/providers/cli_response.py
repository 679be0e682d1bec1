"""Where the answer lies in JSON that a command writes in a form of its own, as coding agents do."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, model_validator

from muster.provider import BadProviderOutput, Message, TokenUsage
from muster.providers.answers import is_amount
from muster.providers.cli_events import CliEvents, EventReader
from muster.providers.cli_output import Answer
from muster.providers.paths import JmesPath, PathError, Search, compile_path
from muster.providers.settings import ProviderSettings

__all__ = ("CliResponse", "ResponseReader")


class CliUsage(ProviderSettings):
    """Where the counts of tokens are."""

    input: JmesPath | None = None
    output: JmesPath | None = None
    cached: JmesPath | None = None
    """Part of `input`."""
    reasoning: JmesPath | None = None
    """Part of `output`."""
    total: JmesPath | None = None
    """All of them, where `output` leaves out what was thought: what is neither `input` nor
    `output` is reasoning then, and is added to `output`."""


class CliResponse(ProviderSettings):
    """Where things are in the JSON that the command writes, as JMESPath."""

    format: Literal["json", "jsonl"] = "json"
    """One JSON value; or one a line, which are searched as a list."""
    text: JmesPath | None = None
    """The answer; with `events`, it may be left to the last message of those."""
    events: CliEvents | None = None
    """Of JSON lines: where the messages and tool calls are."""
    done: JmesPath | None = None
    """What must be there, and not null, false or empty: else the answer was cut off."""
    session: JmesPath | None = None
    """The id of the agent's session."""
    usage: CliUsage = Field(default_factory=CliUsage)
    cost: JmesPath | None = None
    """US dollars."""
    error: JmesPath | None = None
    """What is not null, false or empty there is why the call has failed."""
    model: JmesPath | None = None
    finish_reason: JmesPath | None = None

    @model_validator(mode="after")
    def _has_an_answer(self) -> CliResponse:
        if self.text is None and self.events is None:
            raise ValueError("`response` needs `text`, or `events`")
        if self.events is not None and self.format != "jsonl":
            raise ValueError("`response.events` is for `format: jsonl`")
        return self


class ResponseReader:
    """Reads what a command wrote as the settings say. What is not where it should be is an error
    of the call: half an answer must not pass for one."""

    def __init__(self, settings: CliResponse) -> None:
        self._lines = settings.format == "jsonl"
        self._text = None if settings.text is None else compile_path(settings.text)
        self._events = None if settings.events is None else EventReader(settings.events)
        self._paths: dict[str, Search] = {
            name: compile_path(path)
            for name in ("cost", "error", "model", "finish_reason", "done", "session")
            if (path := getattr(settings, name)) is not None
        }
        self._counts: dict[str, Search] = {
            name: compile_path(path)
            for name in ("input", "output", "cached", "reasoning", "total")
            if (path := getattr(settings.usage, name)) is not None
        }

    def read(self, data: bytes, what: str) -> Answer:
        """The answer; `what` names its source in messages.

        Raises:
            BadProviderOutput: it is not JSON, or the answer is not where it should be.
        """
        value = self._decoded(data, what)
        try:
            return self._answer(value)
        except (PathError, ValueError) as error:
            raise BadProviderOutput(f"{what}: {error}") from error

    def _decoded(self, data: bytes, what: str) -> Any:
        try:
            text = data.decode("utf-8-sig")
            if not self._lines:
                return json.loads(text)
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        except (ValueError, RecursionError) as error:
            shape = "JSON lines" if self._lines else "JSON"
            raise BadProviderOutput(f"{what} is not {shape}: {error}") from error

    def _answer(self, value: Any) -> Answer:
        found = {name: path(value) for name, path in self._paths.items()}
        answer = Answer(json=value if isinstance(value, dict) else None)
        if error := found.get("error"):
            answer.error = error if isinstance(error, str) else json.dumps(error)
        elif "done" in found and not found["done"]:
            raise ValueError("nothing where `response.done` points to: the answer was cut off")
        else:
            answer.output = self._messages(value)
        session = found.get("session")
        answer.session = session if isinstance(session, str) else None
        answer.token_usage = self._usage(value)
        answer.cost_usd = found.get("cost")
        if answer.cost_usd is not None and not is_amount(answer.cost_usd):
            raise ValueError(f"the cost is no number from 0 up: {answer.cost_usd!r:.60}")
        answer.model = _text_or_none(found.get("model"))
        answer.finish_reason = _text_or_none(found.get("finish_reason"))
        return answer

    def _messages(self, value: Any) -> tuple[Message, ...]:
        """The messages; the answer is the last of them."""
        messages = self._events.read(value) if self._events is not None else ()
        if self._text is None:
            if not any(message.text for message in messages):
                raise ValueError("there is no text in its events")
            return messages
        text = self._text(value)
        if not isinstance(text, str):
            kind = type(text).__name__
            raise ValueError(f"no text where `response.text` points to ({kind})")
        if messages and messages[-1].text == text and not messages[-1].tool_calls:
            return messages
        return (*messages, Message("assistant", text))

    def _usage(self, value: Any) -> TokenUsage | None:
        counts = {name: path(value) for name, path in self._counts.items()}
        if counts.get("input") is None or counts.get("output") is None:
            return None
        total = counts.pop("total", None)
        usage = TokenUsage.from_mapping(counts)
        thought = total - usage.total if isinstance(total, int) else 0
        if thought <= 0:
            return usage
        return replace(usage, output=usage.output + thought, reasoning=thought)


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None
