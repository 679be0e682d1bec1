"""OpenAI and everything that speaks its protocol: `provider: openai`, `azure`, `groq`, `ollama`, ….

The services and their particulars are data, in `presets.py`. Two wire formats serve them all:
`openai_chat.py` (default) and `openai_responses.py` (`api_format: responses`).
"""

from __future__ import annotations

from collections.abc import Sequence

from muster.capabilities import Capabilities
from muster.embeddings import Embedded
from muster.providers.chat import ChatReply, ChatTurn
from muster.providers.openai_chat import ChatCompletions
from muster.providers.openai_embeddings import Embeddings
from muster.providers.openai_responses import Responses
from muster.providers.openai_settings import OpenAISettings, resolve
from muster.providers.presets import Preset, preset_for
from muster.providers.transport import HttpClient
from muster.providers.wire import JsonApi
from muster.target import ResolvedTarget

__all__ = ("OpenAIProvider",)


class OpenAIProvider:
    """A chat model behind an OpenAI-compatible API; one connection pool for all its calls."""

    Settings = OpenAISettings
    takes_documents = True

    def __init__(self, target: ResolvedTarget) -> None:
        """Raises `UsageError` when no model or base URL is known."""
        self.endpoint = resolve(target)
        settings = self.endpoint.settings
        self.max_file_bytes = settings.max_file_bytes
        self.capabilities = _capabilities(self.endpoint.preset)
        self.priced_as = (self.endpoint.model, self.endpoint.preset.price_as)
        self._client = HttpClient(
            connect_timeout=settings.connect_timeout_seconds,
            read_timeout=settings.read_timeout_seconds,
        )
        self._wire: ChatCompletions | Responses | None = None
        self._embeddings: Embeddings | None = None

    @staticmethod
    def capabilities_as(kind: str) -> Capabilities:
        """What the service of that name can do, whatever the target."""
        return _capabilities(preset_for(kind)[1])

    async def complete(self, turn: ChatTurn) -> ChatReply:
        """Answer one turn.

        Raises:
            AuthenticationFailed: there is no key, or it is refused.
            ProviderError: the call failed otherwise.
        """
        wire = self._wire or self._connect()
        return await wire.complete(turn)

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """Vectors of texts, by a model that makes them. Raises a `ProviderError`."""
        if self._embeddings is None:
            self._embeddings = Embeddings(self._api(Embeddings.path), self.endpoint)
        return await self._embeddings.embed(texts)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _connect(self) -> ChatCompletions | Responses:
        """The wire format, with the key: a missing key fails calls, not the reading of targets."""
        endpoint = self.endpoint
        kind = Responses if endpoint.settings.api_format == "responses" else ChatCompletions
        self._wire = kind(self._api(kind.path), endpoint)
        return self._wire

    def _api(self, path: str) -> JsonApi:
        endpoint = self.endpoint
        key = endpoint.key()
        secrets = [value.get_secret_value() for value in endpoint.settings.headers.values()]
        return JsonApi(
            self._client,
            endpoint.url(path),
            endpoint.headers(key),
            who=endpoint.target.name,
            secrets=[*([key] if key else []), *secrets],
        )


def _capabilities(preset: Preset) -> Capabilities:
    return Capabilities(
        streaming=True,
        tools=True,
        history=True,
        files=preset.sees,
        images=preset.sees,
        structured_output=preset.structured,
        embeddings=preset.embeds,
        batch=False,
    )
