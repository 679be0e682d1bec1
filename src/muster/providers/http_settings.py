"""What may be said of an `http` target, and what its templates may name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from muster.provider import ProviderRequest
from muster.providers.paths import JmesPath
from muster.providers.prompt import message_text, question_text, render_prompt
from muster.providers.settings import ProviderSettings
from muster.providers.template import check_template, names_in

__all__ = ("VALUES", "HttpAnswer", "HttpSettings", "HttpUsage", "ValueOf")

ValueOf: TypeAlias = Callable[[ProviderRequest], Any]


def _messages(request: ProviderRequest) -> list[dict[str, str]]:
    """The whole conversation as chat APIs take it, the system prompt first."""
    system = "\n\n".join(text for text in (request.system_prompt, request.guidelines) if text)
    found = [{"role": "system", "content": system}] if system else []
    found += _history(request)
    found.append({"role": "user", "content": question_text(request, "inline")})
    return found


def _history(request: ProviderRequest) -> list[dict[str, str]]:
    return [
        {"role": message.role, "content": message_text(message, request, "inline")}
        for message in request.messages
    ]


VALUES: dict[str, ValueOf] = {
    "attempt": lambda request: request.attempt,
    "case_id": lambda request: request.eval_case_id,
    "files": lambda request: [str(path) for path in request.input_files],
    "guidelines": lambda request: request.guidelines,
    "history": _history,
    "max_output_tokens": lambda request: request.limits.max_output_tokens,
    "messages": _messages,
    "metadata": lambda request: dict(request.metadata),
    "prompt": lambda request: render_prompt(request, files="inline"),
    "question": lambda request: request.question,
    "response_schema": lambda request: (
        None if request.response_schema is None else dict(request.response_schema)
    ),
    "system_prompt": lambda request: request.system_prompt,
    "tools": lambda request: [
        {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
        for tool in request.tools
    ],
}
"""The names that templates may use, and where each comes from; besides them, `model`."""


def _checked(value: Any) -> Any:
    check_template(value, (*VALUES, "model"))
    return value


Text = Annotated[str, AfterValidator(_checked)]
Json = Annotated[Any, AfterValidator(_checked)]


class HttpUsage(ProviderSettings):
    """Where the answer holds its counts of tokens."""

    input: JmesPath | None = None
    output: JmesPath | None = None
    cached: JmesPath | None = None
    """Part of the input."""
    reasoning: JmesPath | None = None
    """Part of the output."""


class HttpAnswer(ProviderSettings):
    """Where the answer's JSON holds what; JMESPath expressions."""

    format: Literal["auto", "json", "text"] = "auto"
    """`text`: the body is the answer as it stands; `json`: it must be JSON; `auto`: either."""
    text: JmesPath | None = None
    """The text; unset: the first of the usual places."""
    messages: JmesPath | None = None
    """A list of messages, `{role, content, tool_calls}`, instead of `text`."""
    usage: HttpUsage | None = None
    """Counts of tokens; unset: the usual places."""
    cost: JmesPath | None = None
    """US dollars; unset: `cost_usd`."""
    model: JmesPath | None = None
    """The model that answered; unset: `model`."""
    error: JmesPath | None = None
    """What is there (and not empty) is an error, whatever the status; unset: `error`."""
    finish_reason: JmesPath | None = None
    """Why the answer ended. In a stream, one that ends without it is broken."""
    delta: JmesPath | None = None
    """In the events of a stream: the next piece of text."""
    done: str | None = None
    """The data, or the name, of the event that ends a stream; one that ends without it is
    broken."""


class HttpSettings(ProviderSettings):
    """Settings of `provider: http`. Texts are templates, `{{ question }}` and so on."""

    url: Text
    """Where to; what is filled in is percent-encoded."""
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    headers: dict[str, Text] = Field(default_factory=dict)
    """HTTP headers; `Content-Type` follows from the body."""
    query: dict[str, Json] = Field(default_factory=dict)
    """Parameters that are added to the URL; those without a value are left out."""
    body: Json = None
    """JSON with templates in it, or a text; unset: `{"prompt": "{{ prompt }}"}`, and nothing for
    GET and DELETE."""
    model: str | None = None
    """The name that templates see as `model`."""
    response: HttpAnswer = HttpAnswer()
    """Where in the answer the text, the tokens and the cost are."""
    stream: Literal["sse"] | None = None
    """`sse`: the answer comes as server-sent events."""
    connect_timeout_seconds: float = Field(default=10.0, gt=0)
    """Time to get a connection."""
    read_timeout_seconds: float = Field(default=600.0, gt=0)
    """Time without a single byte from the server before the call is given up."""
    max_body_bytes: int = Field(default=64 * 2**20, gt=0)
    """An answer that is larger is an error."""

    @model_validator(mode="after")
    def _makes_sense(self) -> HttpSettings:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"`url` must begin with http:// or https://, not {self.url[:20]!r}")
        if self.stream is None and (self.response.delta or self.response.done):
            raise ValueError("`response.delta` and `response.done` are for `stream: sse`")
        if self.model is None and "model" in self.names:
            raise ValueError("a template uses `model`, but the target has none")
        return self

    @property
    def names(self) -> set[str]:
        """The names that the templates use."""
        return names_in([self.url, self.headers, self.query, self.body])
