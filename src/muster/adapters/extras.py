"""The libraries that adapters need, and objects of the user's own that hold them."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from muster.errors import UsageError
from muster.importing import CodeError, describe_failure, load_object
from muster.providers.settings import refuse_if_safe
from muster.target import ResolvedTarget

__all__ = ("load", "load_own")


def load(module: str, *, extra: str, target: ResolvedTarget) -> Any:
    """The module.

    Raises:
        UsageError: it is not installed; the message tells how to get it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or module.partition(".")[0] != error.name.partition(".")[0]:
            raise
        raise UsageError(
            f'target "{target.name}": provider {target.provider} needs {error.name}: '
            f"pip install 'muster-ai[{extra}]'"
        ) from None


def load_own(spec: str, setting: str, *, target: ResolvedTarget) -> Any:
    """The object at a dotted path, or what the function there makes, which takes no argument and
    is called for each provider; modules beside the targets file are found first.

    Raises:
        MusterError: `--safe` is on, there is no such object, or the function fails.
    """
    refuse_if_safe(target, f'{setting} "{spec}" would be run')
    found = load_object(spec, search=target.base_dir)
    if not inspect.isfunction(found) or inspect.signature(found).parameters:
        return found
    try:
        return found()
    except Exception as error:
        raise CodeError(f'"{spec}" makes no {setting}: {describe_failure(error)}') from error
