"""`function`: a function of yours, named in `targets.yaml`, is the provider."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from muster.importing import CodeError, load_object
from muster.provider import ProviderRequest, ProviderResponse
from muster.providers.callables import CallableProvider, provider_of_callable
from muster.providers.settings import ProviderSettings, refuse_if_safe
from muster.providers.threads import DEFAULT_THREADS
from muster.target import ResolvedTarget

__all__ = ("FunctionProvider",)


class FunctionSettings(ProviderSettings):
    """Settings of `provider: function`."""

    function: str
    """`package.module:name`; modules beside the targets file are found first."""


class FunctionProvider:
    """Answers with what the function named by `function:` returns."""

    Settings = FunctionSettings
    invoke: Callable[[ProviderRequest], Coroutine[Any, Any, ProviderResponse]]

    def __init__(self, target: ResolvedTarget) -> None:
        settings = self.Settings.model_validate(target.config)
        refuse_if_safe(target, f'function "{settings.function}" would be run')
        function = _load(settings.function, target)
        self._inner: CallableProvider = provider_of_callable(
            function, name=target.name, threads=target.workers or DEFAULT_THREADS
        )
        self.invoke = self._inner.invoke  # nothing in between: calls are counted in microseconds

    @property
    def capabilities(self) -> Any:
        """What the function says of itself."""
        return self._inner.capabilities

    async def aclose(self) -> None:
        """Let the threads of a synchronous function end."""
        await self._inner.aclose()


def _load(spec: str, target: ResolvedTarget) -> Callable[..., Any]:
    base = target.base_dir
    project = str(base.parent)
    if base.name in (".muster", ".agentv") and project not in sys.path:
        # A targets file in the project's own folder speaks of the modules beside that folder too.
        sys.path.append(project)
    function: Callable[..., Any] = load_object(spec, search=base)
    if isinstance(function, type):
        raise CodeError(
            f'target "{target.name}": "{spec}" is a class; `function:` names a function that '
            f"answers requests. A class that makes a provider stands in `provider: {spec}`"
        )
    if not callable(function):
        raise CodeError(
            f'target "{target.name}": "{spec}" is not a function: {type(function).__name__}'
        )
    if _is_factory(function):
        raise CodeError(
            f'target "{target.name}": "{spec}" takes a target, so it is a factory: write '
            f"`provider: {spec}`. `function:` names a function that answers requests"
        )
    return function


def _is_factory(function: Callable[..., Any]) -> bool:
    """True for what is written to take a `ResolvedTarget`."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return False
    if not parameters:
        return False
    first = parameters[0]
    if first.annotation is not first.empty:
        named = getattr(first.annotation, "__name__", first.annotation)
        return str(named).rpartition(".")[2] == "ResolvedTarget"
    return first.name == "target"
