"""From a target to its provider: look the factory up, call it, make sure of what it made."""

from __future__ import annotations

import inspect
from typing import Any, cast

from muster.errors import MusterError, UsageError
from muster.importing import CodeError, describe_failure
from muster.provider import Provider
from muster.providers import providers
from muster.providers.threads import DEFAULT_THREADS
from muster.registry import Registry
from muster.target import ProviderFactory, ResolvedTarget

__all__ = ("as_provider", "create_provider")


def create_provider(
    target: ResolvedTarget, registry: Registry[ProviderFactory] = providers
) -> Provider:
    """The provider that `target` describes; dotted paths look beside its file first.

    Raises:
        UnknownName: nothing is registered under the provider's name.
        CodeError: the factory fails, or makes nothing that can answer.
        MusterError: what the factory itself says about the target.
        pydantic.ValidationError: the target's settings are wrong; unchanged, so that the caller
            can add file and line.
    """
    if target.safe and ":" in target.provider:
        raise MusterError(
            f'--safe refuses the target "{target.name}": provider "{target.provider}" is code'
        )
    factory = registry.get(target.provider, search=target.base_dir)
    try:
        made = factory(target)
    except MusterError:
        raise
    except Exception as error:
        if _is_validation_error(error):
            raise
        raise CodeError(
            f'target "{target.name}": its provider "{target.provider}" cannot be made: '
            f"{describe_failure(error)}"
        ) from error
    if not _can_answer(made):
        if inspect.iscoroutine(made):
            made.close()
        raise CodeError(_no_provider(target, made))
    return as_provider(made, name=target.name, threads=target.workers or DEFAULT_THREADS)


def as_provider(obj: Any, *, name: str | None = None, threads: int = DEFAULT_THREADS) -> Provider:
    """`obj` as a provider: one of Muster's own as it is; any other object with `invoke`, a chat
    model (`complete`), or a function, sync or async, generator or not, wrapped so that only
    `ProviderError`s leave it.

    `name` begins its errors' messages; `threads` bounds the threads of synchronous ones.

    Raises:
        UsageError: it can be none of these.
    """
    name = name or getattr(obj, "__name__", None) or type(obj).__name__
    if isinstance(obj, type):
        raise UsageError(
            f"{name} is a class, not a provider: give an instance of it, or register it as a "
            "factory"
        )
    if callable(getattr(obj, "invoke", None)):
        if type(obj).__module__.partition(".")[0] == "muster":
            return cast(Provider, obj)
        from muster.providers.callables import provider_of_object

        return provider_of_object(obj, name=name, threads=threads)
    if callable(getattr(obj, "complete", None)):
        from muster.providers.chat import ChatProvider

        return ChatProvider(obj)
    if callable(obj):
        from muster.providers.callables import provider_of_callable

        return provider_of_callable(obj, name=name, threads=threads)
    raise UsageError(
        f"{name}: {type(obj).__name__} is no provider; expected an object with invoke(request), "
        "a chat model with complete(turn), or a function of the request"
    )


def _can_answer(made: object) -> bool:
    return not isinstance(made, type) and (
        callable(made) or hasattr(made, "invoke") or hasattr(made, "complete")
    )


def _no_provider(target: ResolvedTarget, made: object) -> str:
    found = made.__name__ if isinstance(made, type) else type(made).__name__
    text = (
        f'target "{target.name}": the factory of provider "{target.provider}" returned {found}; '
        "expected an object with invoke(request), a chat model with complete(turn), or a function"
    )
    if isinstance(made, str | dict | list) or inspect.iscoroutine(made):
        text += (
            ". A function that answers requests itself is no factory: write `provider: function` "
            "with `function: package.module:name`"
        )
    return text


def _is_validation_error(error: Exception) -> bool:
    from pydantic import ValidationError

    return isinstance(error, ValidationError)
