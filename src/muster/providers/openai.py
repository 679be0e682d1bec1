"""OpenAI and everything that speaks its protocol: `provider: openai`, `azure`, `groq`, `ollama`, ….

The services and their particulars are data, in `presets.py`. Two wire formats serve them all:
`openai_chat.py` (default) and `openai_responses.py` (`api_format: responses`).
"""

from __future__ import annotations

from muster.providers.chat import ChatReply, ChatTurn
from muster.providers.openai_chat import ChatCompletions
from muster.providers.openai_responses import Responses
from muster.providers.openai_settings import OpenAISettings, resolve
from muster.providers.transport import HttpClient
from muster.providers.wire import JsonApi
from muster.target import ResolvedTarget

__all__ = ("OpenAIProvider",)


class OpenAIProvider:
    """A chat model behind an OpenAI-compatible API; one connection pool for all its calls."""

    Settings = OpenAISettings

    def __init__(self, target: ResolvedTarget) -> None:
        """Raises `UsageError` when no model or base URL is known."""
        self.endpoint = resolve(target)
        settings = self.endpoint.settings
        self._client = HttpClient(
            connect_timeout=settings.connect_timeout_seconds,
            read_timeout=settings.read_timeout_seconds,
        )
        self._wire: ChatCompletions | Responses | None = None

    async def complete(self, turn: ChatTurn) -> ChatReply:
        """Answer one turn.

        Raises:
            AuthenticationFailed: there is no key, or it is refused.
            ProviderError: the call failed otherwise.
        """
        wire = self._wire or self._connect()
        return await wire.complete(turn)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _connect(self) -> ChatCompletions | Responses:
        """The wire format, with the key: a missing key fails calls, not the reading of targets."""
        endpoint = self.endpoint
        key = endpoint.key()
        kind = Responses if endpoint.settings.api_format == "responses" else ChatCompletions
        secrets = [value.get_secret_value() for value in endpoint.settings.headers.values()]
        api = JsonApi(
            self._client,
            endpoint.url(kind.path),
            endpoint.headers(key),
            who=endpoint.target.name,
            secrets=[*([key] if key else []), *secrets],
        )
        self._wire = kind(api, endpoint)
        return self._wire
