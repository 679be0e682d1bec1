"""What all wrappers share: they stand around one provider, and close it when they are closed."""

from __future__ import annotations

from muster.provider import Provider

__all__ = ("Wrapper", "close_provider")


class Wrapper:
    """A provider around another; `provider` is the one inside."""

    __slots__ = ("provider",)

    def __init__(self, provider: Provider) -> None:
        self.provider = provider

    async def aclose(self) -> None:
        """Close the provider inside."""
        await close_provider(self.provider)


async def close_provider(provider: Provider) -> None:
    """Await the provider's `aclose()`, which is optional."""
    aclose = getattr(provider, "aclose", None)
    if aclose is not None:
        await aclose()
