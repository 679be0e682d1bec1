"""The base of every provider's settings, and the two things most of them need from a target.

A provider class carries its settings' model as the attribute `Settings`; whoever makes it turns
pydantic's `ValidationError` into a message with file, line and field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from muster.described import DescribedModel
from muster.errors import MusterError, UsageError
from muster.target import ResolvedTarget, Secret

__all__ = ("ProviderSettings", "located", "refuse_if_safe", "secrets_in")


class ProviderSettings(DescribedModel):
    """A provider's settings as they stand in `targets.yaml`; unknown ones are errors."""


def secrets_in(value: Any) -> Iterator[str]:
    """Every secret within a target's `config`, which models turn into plain text; of `Bearer x`
    and the like, `x` by itself too."""
    if isinstance(value, Secret):
        yield str(value)
        yield from value.split()[1:2]
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from secrets_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from secrets_in(item)


def refuse_if_safe(target: ResolvedTarget, what: str) -> None:
    """Raise `MusterError` when `target` comes from a configuration that is not trusted."""
    if target.safe:
        raise MusterError(f'--safe refuses the target "{target.name}": {what}')


def located(target: ResolvedTarget, path: str, field: str) -> Path:
    """`path` as an absolute path, relative ones starting at the targets file.

    Raises:
        UsageError: `--safe` is on and the path leads out of the folder of the targets file.
    """
    base = target.base_dir.resolve()
    found = (base / Path(path).expanduser()).resolve()
    if target.safe and not found.is_relative_to(base):
        raise UsageError(
            f'--safe refuses the target "{target.name}": {field}: {path} lies outside {base}'
        )
    return found
