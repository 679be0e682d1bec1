"""What an answer cost, by the price that its target declares."""

from __future__ import annotations

from dataclasses import replace

from muster.provider import Provider, ProviderError, ProviderRequest, ProviderResponse, TokenUsage
from muster.wrappers.base import Wrapper

__all__ = ("DeclaredPrice",)


class DeclaredPrice(Wrapper):
    """Puts a cost to what tells its tokens and no cost; with `always`, to all that tells tokens.

    Around each try, so that failed ones that took tokens cost something too. Cached tokens are
    part of the input, and cost as much.
    """

    __slots__ = ("_always", "_input", "_output")

    def __init__(
        self,
        provider: Provider,
        input_per_million: float,
        output_per_million: float,
        *,
        always: bool = False,
    ) -> None:
        super().__init__(provider)
        self._always = always
        self._input = input_per_million / 1e6
        self._output = output_per_million / 1e6

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """Answer, with the cost."""
        try:
            response = await self.provider.invoke(request)
        except ProviderError as error:
            error.cost_usd = self._cost(error.token_usage, error.cost_usd)
            raise
        cost = self._cost(response.token_usage, response.cost_usd)
        return response if cost == response.cost_usd else replace(response, cost_usd=cost)

    def _cost(self, usage: TokenUsage | None, told: float | None) -> float | None:
        if usage is None or not (told is None or self._always):
            return told
        return usage.input * self._input + usage.output * self._output
