"""From the targets of a project to running providers, each with its wrappers around it.

    pool = TargetPool(catalog, providers.for_project(folders))
    target = pool.open("fast")
    try:
        response = await target.provider.invoke(request)
    finally:
        await pool.aclose()

The wrappers' order is told in `muster.wrappers`. One that would have nothing to do is left out.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel

from muster.capabilities import UNKNOWN, Capabilities, capabilities_of
from muster.config.environment import load_environment
from muster.config.project import find_project
from muster.config.targets import TargetCatalog, load_catalog
from muster.embeddings import Embedder
from muster.errors import MusterError, UsageError
from muster.importing import CodeError, describe_failure
from muster.provider import Provider, ProviderFailed, ProviderRequest, ProviderResponse
from muster.providers import providers
from muster.providers.agents import AGENT_ALIASES, AGENTS
from muster.providers.create import create_provider
from muster.registry import Registry
from muster.target import ProviderFactory, ResolvedTarget
from muster.wrappers.adaptive import AdaptiveLimit
from muster.wrappers.base import close_provider
from muster.wrappers.capability import CapabilityCheck, refusal
from muster.wrappers.embedding import WrappedEmbedder, embedder_within
from muster.wrappers.fallback import Fallback
from muster.wrappers.limit import ConcurrencyLimit
from muster.wrappers.rate import RateLimit
from muster.wrappers.retry import DEFAULT_MAX_RETRIES, Retry, longest_wait_of
from muster.wrappers.timeout import Timeout

__all__ = (
    "CloseError",
    "Layers",
    "OpenTarget",
    "Overrides",
    "Target",
    "TargetPool",
    "open_target",
    "settings_for",
    "wrap",
)

ADAPTIVE_MAXIMUM = 64
"""Where an adaptive limit begins when the target says nothing of `workers`."""

CLOSE_SECONDS = 10.0
"""How long a provider may take to close."""

_AGENTS = frozenset({*AGENTS, *AGENT_ALIASES})

_LOCAL = _AGENTS | frozenset({"cli", "echo", "function", "replay", "team"})
"""Built-in providers that ask no service: what fails there fails again, so that they are only
retried when the target says so. (The agents of a team have retries of their own.)"""

_OWN_TIMEOUT = _AGENTS | frozenset({"cli", "team"})
"""Built-in providers that bound their time themselves."""


class CloseError(MusterError):
    """Providers did not close as they should; everything else was closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What the command line says in place of the targets' own fields; `None`: nothing."""

    workers: int | None = None
    max_retries: int | None = None
    timeout: float | None = None
    """Seconds for one attempt."""

    def apply(self, target: ResolvedTarget) -> ResolvedTarget:
        """`target` with what is overridden."""
        if self.workers is not None:
            target = replace(target, workers=self.workers)
        if self.max_retries is not None:
            target = replace(target, retry=replace(target.retry, max_retries=self.max_retries))
        if self.timeout is not None:
            target = replace(target, timeout_seconds=self.timeout)
        return target


@dataclass(frozen=True, slots=True)
class OpenTarget:
    """A target that can be asked."""

    name: str
    resolved: ResolvedTarget
    """Overrides included."""
    provider: Provider
    workers: int | None
    """Requests under way at once; `None`: the target does not say."""
    capabilities: Capabilities = UNKNOWN
    """What the target can do: as its entry says, else as its provider does. Of a target with
    fallbacks, its own."""

    def refusal(self, request: ProviderRequest) -> str | None:
        """Why the target cannot be asked `request`, as far as that is known before the call;
        `None` if it can, or if another may step in."""
        if self.resolved.fallback_targets or not self.capabilities.refuses:
            return None
        return refusal(self.capabilities, request, self.name)


class Layers(Protocol):
    """What watches the calls of a pool's targets, from two places within their wrappers."""

    def each_try(self, provider: Provider, target: ResolvedTarget, /) -> Provider:
        """`provider`, innermost: each call of it is one try."""
        ...

    def whole(
        self,
        provider: Provider,
        target: ResolvedTarget,
        capabilities: Capabilities,
        /,
        *,
        builtin: bool,
    ) -> Provider:
        """`provider`, outermost: each call of it is one question. `builtin`: its kind is ours, not
        what somebody has put in its place."""
        ...


class TargetPool:
    """The providers of a run: one for each target, made when it is opened, closed with the pool.

    A fallback target is made when it is first asked; it is the same provider that opening it by
    its own name gives, without its own fallbacks: the list of the target that was asked counts.
    """

    def __init__(
        self,
        catalog: TargetCatalog,
        registry: Registry[ProviderFactory] = providers,
        overrides: Overrides | None = None,
        layers: Layers | None = None,
    ) -> None:
        catalog.settings_for = partial(settings_for, registry)
        catalog.is_provider = registry.__contains__
        self._catalog = catalog
        self._registry = registry
        self._overrides = overrides or Overrides()
        self._layers = layers
        self._targets: dict[str, ResolvedTarget] = {}
        self._open: dict[str, OpenTarget] = {}
        self._providers: dict[str, Provider] = {}
        self._bare: dict[str, Provider] = {}
        self._embedders: dict[str, Embedder] = {}

    @property
    def resolved(self) -> tuple[ResolvedTarget, ...]:
        """The targets that were opened, and those that may step in for them."""
        return tuple(self._targets.values())

    def open(self, name: str) -> OpenTarget:
        """The target called `name`, ready to be asked; the same one each time.

        Raises:
            UsageError: there is no such target.
            ConfigError: its entry, or that of one of its fallback targets, is wrong.
            MusterError: its provider cannot be made.
        """
        known = self._open.get(name)
        if known is not None:
            return known
        target = self._resolve(name)
        provider = self._provider(name)
        others = [other for other in dict.fromkeys(target.fallback_targets) if other != name]
        if others:
            for other in others:
                self._resolve(other)  # its mistakes are told now, not amid the run
            chain = [(name, provider), *((other, _OnDemand(self, other)) for other in others)]
            provider = Fallback(chain)
        capabilities = self._capabilities(name)
        if self._layers is not None:
            builtin = self._registry.is_builtin(target.provider)
            provider = self._layers.whole(provider, target, capabilities, builtin=builtin)
        opened = self._open[name] = OpenTarget(name, target, provider, target.workers, capabilities)
        return opened

    def priced_capabilities(self, name: str) -> Capabilities:
        """What the target called `name` can do, with its model's context and prices as the price
        list has them. Raises as `open`."""
        known = self.open(name).capabilities
        bare = self._bare[name]
        model, seller = getattr(getattr(bare, "model", bare), "priced_as", (None, None))
        if model is None or seller is None:
            return known
        from muster.pricing import facts_of

        facts = facts_of(model, provider=seller)
        return known if facts is None else known.over(Capabilities(**asdict(facts)))

    def bare(self, name: str) -> Provider:
        """The provider of the target called `name` within its wrappers. Raises as `open`."""
        self.open(name)
        return self._bare[name]

    def embedder(self, name: str) -> Embedder:
        """What makes vectors of texts by the target called `name`, with retries and limits of its
        own. It is closed with the pool. Raises as `open`.

        Raises:
            UsageError: the target makes none.
        """
        known = self._embedders.get(name)
        if known is not None:
            return known
        opened = self.open(name)
        target, inner = opened.resolved, embedder_within(self._bare[name])
        if inner is None or opened.capabilities.embeddings is False:
            raise UsageError(
                f'target "{name}" (provider {target.provider}) makes no vectors of texts: use one '
                "whose provider has embeddings (`muster providers describe NAME` tells), such as "
                "openai with an embedding model"
            )
        local = target.provider in _LOCAL and self._registry.is_builtin(target.provider)

        def wrapped(provider: Provider) -> Provider:
            return wrap(self._watched(provider, target), target, retries=not local)

        known = WrappedEmbedder(inner, name, wrapped)
        self._embedders[name] = known
        return known

    def add_environment(self, name: str, variables: Mapping[str, str]) -> None:
        """Give the target called `name` variables over those around it; before it is opened."""
        target = self._resolve(name)
        around = os.environ if target.env is None else target.env
        self._targets[name] = replace(target, env={**around, **variables})

    async def aclose(self) -> None:
        """Close every provider, each once, in at most `CLOSE_SECONDS`.

        Raises:
            CloseError: some failed to close; the others are closed all the same.
        """
        closing = self._providers
        self._providers, self._open, self._bare, self._embedders = {}, {}, {}, {}
        failures = await asyncio.gather(
            *(_close(name, provider) for name, provider in closing.items())
        )
        told = [failure for failure in failures if failure is not None]
        if told:
            raise CloseError("\n".join(told))

    def _resolve(self, name: str) -> ResolvedTarget:
        known = self._targets.get(name)
        if known is None:
            known = self._overrides.apply(self._catalog.resolve(name))
            self._targets[name] = known
        return known

    def _provider(self, name: str) -> Provider:
        """The wrapped provider of the target, without fallbacks."""
        known = self._providers.get(name)
        if known is None:
            target = self._resolve(name)
            with self._catalog.locating(target):
                bare = create_provider(target, self._registry)
            local = target.provider in _LOCAL and self._registry.is_builtin(target.provider)
            own_timeout = local and target.provider in _OWN_TIMEOUT
            self._bare[name] = bare
            capabilities = self._capabilities(name)
            priced = _priced(self._watched(bare, target), target.capabilities, capabilities)
            known = wrap(priced, target, retries=not local, timeout=not own_timeout)
            if capabilities.refuses:
                known = CapabilityCheck(known, capabilities, name)
            self._providers[name] = known
        return known

    def _watched(self, provider: Provider, target: ResolvedTarget) -> Provider:
        return provider if self._layers is None else self._layers.each_try(provider, target)

    def _capabilities(self, name: str) -> Capabilities:
        """What the entry says, over what its provider declares."""
        target = self._targets[name]
        with self._catalog.locating(target):
            try:
                declared = capabilities_of(self._bare[name])
            except ValueError as error:
                raise CodeError(f'target "{name}": provider "{target.provider}": {error}') from None
        return target.capabilities.over(declared)


class Target:
    """A target by itself, opened for a program; `async with` closes it."""

    def __init__(self, opened: OpenTarget, pool: TargetPool) -> None:
        self._opened = opened
        self._pool = pool

    @property
    def name(self) -> str:
        """As `targets.yaml` has it."""
        return self._opened.name

    @property
    def capabilities(self) -> Capabilities:
        """What it can do, as far as that is known."""
        return self._opened.capabilities

    @property
    def one_turn(self) -> bool:
        """A single turn can be asked of it: without `call_tool`, what its model wants to call comes
        back uncalled. So it is with chat models, not with agents."""
        from muster.providers.chat import ChatProvider

        return isinstance(self._pool.bare(self.name), ChatProvider)

    async def invoke(self, request: ProviderRequest | str, /) -> ProviderResponse:
        """The answer to a request, or to a question; retries, limits and fallbacks as the target
        says.

        Raises:
            ProviderError: it cannot answer.
        """
        if isinstance(request, str):
            request = ProviderRequest(question=request)
        return await self._opened.provider.invoke(request)

    async def aclose(self) -> None:
        """Close its connections and processes.

        Raises:
            CloseError: something did not close as it should.
        """
        await self._pool.aclose()

    async def __aenter__(self) -> Target:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<Target {self.name}: {self._opened.resolved.provider}>"


def open_target(
    name: str,
    *,
    targets_file: str | Path | None = None,
    folder: str | Path | None = None,
    safe: bool = False,
    workers: int | None = None,
    max_retries: int | None = None,
    timeout: float | None = None,
) -> Target:
    """The target called `name`, ready to be asked, as `muster eval` would use it.

        async with muster.open_target("fast") as fast:
            response = await fast.invoke("What is the capital of France?")

    Args:
        targets_file: the file of targets, or a folder to look in; without, the nearest
            `targets.yaml` from `folder` up.
        folder: where to begin; without, the current folder.
        safe: run no command and no code of the project's.
        workers: requests under way at once, in place of the target's own field.
        max_retries: further tries, in place of the target's own field.
        timeout: seconds for one attempt, in place of the target's own field.

    Raises:
        UsageError: there is no such target, or no such file.
        ConfigError: its entry is wrong.
        MusterError: its provider cannot be made.
    """
    start = Path(folder) if folder is not None else Path.cwd()
    explicit = Path(targets_file) if targets_file is not None else None
    env = load_environment(start)
    catalog = load_catalog(start, explicit=explicit, env=env, safe=safe)
    registry = providers.for_project(find_project(start).provider_folders, safe=safe)
    overrides = Overrides(workers=workers, max_retries=max_retries, timeout=timeout)
    pool = TargetPool(catalog, registry, overrides)
    return Target(pool.open(name), pool)


class _OnDemand:
    """A fallback target, made when it is first asked. The pool closes it."""

    __slots__ = ("_name", "_pool", "_provider")

    def __init__(self, pool: TargetPool, name: str) -> None:
        self._pool = pool
        self._name = name
        self._provider: Provider | None = None

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        if self._provider is None:
            try:
                self._provider = self._pool._provider(self._name)
            except MusterError as error:
                raise ProviderFailed(str(error)) from error
        return await self._provider.invoke(request)


def wrap(
    provider: Provider, target: ResolvedTarget, *, retries: bool = True, timeout: bool = True
) -> Provider:
    """`provider` with the wrappers that `target` asks for.

    Args:
        retries: whether failures are tried again when the target does not say.
        timeout: False for a provider that bounds its time itself.
    """
    limits, policy = target.rate_limits, target.retry
    if timeout and target.timeout_seconds is not None:
        provider = Timeout(provider, target.timeout_seconds)
    longest_wait = longest_wait_of(policy)
    if limits.adaptive:
        maximum = target.workers or ADAPTIVE_MAXIMUM
        provider = AdaptiveLimit(provider, maximum, longest_wait=longest_wait)
    elif target.workers is not None:
        provider = ConcurrencyLimit(provider, target.workers)
    if limits.requests_per_minute or limits.tokens_per_minute:
        provider = RateLimit(provider, limits.requests_per_minute, limits.tokens_per_minute)
    by_default = DEFAULT_MAX_RETRIES if retries else 0
    max_retries = by_default if policy.max_retries is None else policy.max_retries
    if max_retries:
        provider = Retry(provider, replace(policy, max_retries=max_retries))
    return provider


def _priced(provider: Provider, entry: Capabilities, all_known: Capabilities) -> Provider:
    """With the price that the entry or the provider declares; the entry's goes before what the
    provider makes of it."""
    for_input, for_output = all_known.input_usd_per_million, all_known.output_usd_per_million
    if for_input is None or for_output is None:
        return provider
    from muster.wrappers.declared_price import DeclaredPrice

    own = None not in (entry.input_usd_per_million, entry.output_usd_per_million)
    return DeclaredPrice(provider, for_input, for_output, always=own)


def settings_for(registry: Registry[ProviderFactory], kind: str) -> type[BaseModel] | None:
    """The model of the settings of `kind`; `None` when it is not known, cannot be imported (which
    is told when the provider is made), or checks its settings itself."""
    if kind not in registry:
        return None
    try:
        settings = getattr(registry.get(kind), "Settings", None)
    except MusterError:
        return None
    if isinstance(settings, type) and issubclass(settings, BaseModel):
        return settings
    return None


async def _close(name: str, provider: Provider) -> str | None:
    """Close it; what went wrong, if anything did."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await close_provider(provider)
    except TimeoutError:
        return f'target "{name}" did not close within {CLOSE_SECONDS:g} s'
    except Exception as error:
        return f'target "{name}" failed to close: {describe_failure(error)}'
    return None
