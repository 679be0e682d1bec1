"""Where a provider under test is put: it records what is asked of it, and fails as it is told.

    with Environment() as environment:
        environment.script = lambda call: Reply("Paris")
        provider = MyProvider(base_url=f"{environment.url}/v1", key=environment.key)

It is a real server on loopback which speaks OpenAI's Chat Completions (`/v1/chat/completions`),
Responses (`/v1/responses`), Anthropic's Messages (`/v1/messages`), and, at any other path, plain
JSON: `{"text", "token_usage": {"input", "output"}, "model", "finish_reason"}`.
"""

from __future__ import annotations

import secrets
from types import TracebackType

from muster.testing.dialects import Dialect, Shape, dialect_of
from muster.testing.script import Answer, Call, Reply, Script
from muster.testing.server import Server

__all__ = ("Environment",)


class Environment:
    """One server, with one script, for one rule."""

    def __init__(
        self,
        *,
        shape: Shape | None = None,
        dialect: Dialect | None = None,
        read_timeout: float | None = None,
    ) -> None:
        """`shape` is where plain answers hold their values; `dialect` is spoken at every path."""
        self.key = f"sk-environment-{secrets.token_hex(12)}"
        """For the provider to call with; it must show up nowhere else."""
        self.read_timeout = read_timeout
        """Seconds without a byte after which the provider should give up, when it can be told; or
        `None`, for its own default."""
        self.script: Script = lambda call: Reply("ready")
        plain = shape or Shape()
        self._server = Server(self._answer, lambda path: dialect or dialect_of(path, plain))
        self.url = f"http://127.0.0.1:{self._server.port}"
        """`http://127.0.0.1:PORT`, without a path."""

    def __enter__(self) -> Environment:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def calls(self) -> list[Call]:
        """What was asked so far, oldest first."""
        return self._server.calls

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return self._server.connections

    @property
    def sent(self) -> int:
        """Bytes of endless answers that were taken."""
        return self._server.sent

    @property
    def trouble(self) -> Exception | None:
        """The first failure of the dialect to read a call, or to write an answer."""
        return self._server.trouble

    def refuse(self) -> None:
        """From now on nobody can connect."""
        self._server.refuse()

    def close(self) -> None:
        """Close the server and its connections."""
        self._server.close()

    def _answer(self, call: Call) -> Answer:
        return self.script(call)
