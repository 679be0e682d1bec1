"""Targets that judge: which one is asked, and what it costs, apart from the target measured.

The judge of a grader is the target that its entry names, else its test's or suite's, else the
`judge_target` of the target that answered, else that of `--judge`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from muster.capabilities import UNKNOWN, Capabilities, capabilities_of
from muster.embeddings import Embedded, Embedder
from muster.errors import MusterError
from muster.evals.graders.base import GraderError
from muster.provider import Provider, ProviderError, ProviderRequest, ProviderResponse, TokenUsage

__all__ = ("CaseJudges", "Judges", "Saved", "describe_judge")


@dataclass
class Saved:
    """What answers from the response cache would have taken."""

    hits: int = 0
    token_usage: TokenUsage | None = None
    cost_usd: float | None = None

    def add(self, response: ProviderResponse) -> None:
        """One more."""
        self.hits += 1
        if response.token_usage is not None:
            self.token_usage = response.token_usage + self.token_usage
        if response.cost_usd is not None:
            self.cost_usd = (self.cost_usd or 0.0) + response.cost_usd


class Judges:
    """The targets that may be asked to judge in a run; each is opened once."""

    def __init__(
        self,
        open_target: Callable[[str], Provider],
        default: str | None,
        capabilities: Callable[[str], Capabilities] | None = None,
        embedder: Callable[[str], Embedder] | None = None,
    ) -> None:
        """`default` judges where neither assertion, test nor suite names a target;
        `capabilities` says what a target can do, and `embedder` gives what makes its vectors."""
        self._open = open_target
        self._default = default
        self._capabilities = capabilities
        self._embedder = embedder

    def for_case(self, judge_target: str | None) -> CaseJudges:
        """Those for one case; `judge_target` is what its test or suite names."""
        return CaseJudges(
            self._open, judge_target or self._default, self._capabilities, self._embedder
        )


class CaseJudges:
    """Asks judges about one case, and counts what they took."""

    def __init__(
        self,
        open_target: Callable[[str], Provider],
        default: str | None,
        capabilities: Callable[[str], Capabilities] | None = None,
        embedder: Callable[[str], Embedder] | None = None,
    ) -> None:
        self._open = open_target
        self._default = default
        self._capabilities = capabilities
        self._embedder = embedder
        self.calls = 0
        self.token_usage: TokenUsage | None = None
        self.cost_usd: float | None = None
        self.saved = Saved()

    def name(self, asked: str | None = None) -> str:
        """The target that judges, if the assertion names `asked`.

        Raises:
            GraderError: there is none.
        """
        name = asked or self._default
        if name is None:
            raise GraderError(describe_judge())
        return name

    def provider(self, asked: str | None = None) -> Provider:
        """The judge itself; what it costs must be told with `count`."""
        return self._open(self.name(asked))

    def capabilities(self, asked: str | None = None) -> Capabilities:
        """What the judge can do, as far as it is known."""
        name = self.name(asked)
        known = UNKNOWN if self._capabilities is None else self._capabilities(name)
        return capabilities_of(self._open(name)) if known is UNKNOWN else known

    async def ask(self, request: ProviderRequest, asked: str | None = None) -> ProviderResponse:
        """The judge's answer.

        Raises:
            GraderError: it could not be asked: no verdict is not a score.
        """
        name = self.name(asked)
        try:
            response = await self._open(name).invoke(request)
        except ProviderError as error:
            self.count(error)
            raise GraderError(f'judge "{name}": {error}') from error
        self.count(response)
        return response

    async def embed(self, texts: Sequence[str], asked: str | None = None) -> Embedded:
        """The vectors of the texts, by the target `asked`, or the one that judges.

        Raises:
            GraderError: it makes none, or could not be asked.
        """
        name = self.name(asked)
        if self._embedder is None:
            raise GraderError("there is nothing that makes vectors of texts")
        try:
            made = await self._embedder(name).embed(texts)
        except ProviderError as error:
            self.count(error)
            raise GraderError(f'target "{name}": {error}') from error
        except MusterError as error:
            raise GraderError(str(error)) from error
        self.count(made)
        return made

    def count(self, spent: ProviderResponse | ProviderError | Embedded) -> None:
        """Add what one call took."""
        self.calls += 1
        if isinstance(spent, ProviderResponse) and spent.cached:
            self.saved.add(spent)
            self.token_usage = TokenUsage() + self.token_usage
            self.cost_usd = self.cost_usd or 0.0
            return
        if spent.token_usage is not None:
            self.token_usage = spent.token_usage + self.token_usage
        if spent.cost_usd is not None:
            self.cost_usd = (self.cost_usd or 0.0) + spent.cost_usd


def describe_judge() -> str:
    """What to do when there is no judge."""
    return (
        "no target judges: name one as judge_target in the assertion, the test, the suite or the "
        "target, or with --judge"
    )
