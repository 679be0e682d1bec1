"""Judges outside of a run: their targets opened, what they cost added up, errors kept apart."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from muster.config.environment import load_environment
from muster.config.project import find_project
from muster.config.secrets import Masker, environment_secrets, secret_values
from muster.config.targets import load_catalog
from muster.errors import UsageError
from muster.evals.graders.base import GraderError
from muster.evals.judge_meter import JudgeMeter, NotAsked
from muster.evals.judging import CaseJudges, Judges, describe_judge
from muster.provider import TokenUsage
from muster.providers import providers
from muster.targets import TargetPool

__all__ = ("Desk",)

T = TypeVar("T")
R = TypeVar("R")


class Desk:
    """Where judges are asked about many things."""

    def __init__(
        self,
        start: Path,
        *,
        targets_file: Path | None = None,
        safe: bool = False,
        workers: int = 8,
        budget_usd: float | None = None,
        max_calls: int | None = None,
    ) -> None:
        """The targets are those of the project around the folder `start`. `budget_usd` and
        `max_calls` bound what judges take, all together.

        Raises:
            MusterError: the targets cannot be read.
        """
        self.project = find_project(start)
        self._env = env = load_environment(start)
        catalog = load_catalog(start, explicit=targets_file, env=env, safe=safe)
        registry = providers.for_project(self.project.provider_folders, safe=safe)
        self._pool = TargetPool(catalog, registry)
        self._workers = workers
        self.meter = JudgeMeter(budget_usd, max_calls)
        self._asked: list[CaseJudges] = []

    def check(self, names: Sequence[str | None], default: str | None) -> None:
        """Raise `MusterError` unless all judges are there; `None` is the `default`."""
        for name in names:
            if (judge := name or default) is None:
                raise UsageError(describe_judge())
            self._pool.open(judge)

    async def each(
        self,
        items: Sequence[T],
        ask: Callable[[T, CaseJudges], Awaitable[R]],
        default: str | None,
        seen: Callable[[T, R | GraderError], None] | None = None,
    ) -> list[R | GraderError]:
        """What `ask` makes of each item, or why there is nothing, in the items' order. `seen` is
        told each as it comes."""
        judges = Judges(
            lambda name: self.meter.around(self._pool.open(name).provider),
            default,
            lambda name: self._pool.open(name).capabilities,
        )
        gate = asyncio.Semaphore(self._workers)

        async def one(item: T) -> R | GraderError:
            async with gate:
                asked = judges.for_case(None)
                self._asked.append(asked)
                try:
                    return await ask(item, asked)
                except NotAsked as error:
                    return error
                except GraderError as error:
                    return GraderError(self._masked(str(error)))

        async def told(item: T) -> R | GraderError:
            found = await one(item)
            if seen is not None:
                seen(item, found)
            return found

        return list(await asyncio.gather(*(told(item) for item in items)))

    def _masked(self, text: str) -> str:
        """`text` without the secrets of the environment and of the judges."""
        secrets = environment_secrets(self._env)
        for target in self._pool.resolved:
            secrets |= secret_values(target.config)
        return Masker(secrets).mask(text)

    @property
    def asked(self) -> int:
        """How many things were asked about."""
        return len(self._asked)

    def spent(self, since: int = 0) -> dict[str, Any]:
        """What judges took, from the `since`-th thing that they were asked about."""
        usage: TokenUsage | None = None
        counted = self._asked[since:]
        for asked in counted:
            if asked.token_usage is not None:
                usage = asked.token_usage + usage
        costs = [asked.cost_usd for asked in counted if asked.cost_usd is not None]
        return {
            "judge_calls": sum(asked.calls for asked in counted),
            "judge_token_usage": usage.to_dict() if usage is not None else None,
            "judge_cost_usd": math.fsum(costs) if costs else None,
        }

    async def aclose(self) -> None:
        """Close every judge that was opened."""
        await self._pool.aclose()
