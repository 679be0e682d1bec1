"""What a provider can do, as far as it says so.

A provider may have an attribute `capabilities`. What is not there is refused before a call is made;
what is not known is tried.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

__all__ = ("REFUSABLE", "UNKNOWN", "Capabilities", "capabilities_of")

REFUSABLE = ("tools", "history", "files", "images", "structured_output")
"""What a request may ask for that a provider without it could only pass over in silence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Each is `True`, `False`, or `None` when it is not known. Prices in US dollars."""

    streaming: bool | None = None
    """Answers come in pieces, through `on_chunk`."""
    tools: bool | None = None
    """It calls the tools of a request."""
    history: bool | None = None
    """It sees the earlier messages of a request."""
    files: bool | None = None
    """It gets the content of input files, whatever they hold."""
    images: bool | None = None
    """It sees images."""
    structured_output: bool | None = None
    """It is bound by a response schema."""
    embeddings: bool | None = None
    """It has `embed`."""
    batch: bool | None = None
    """It takes many requests as one job that is answered later."""
    max_context_tokens: int | None = None
    """Tokens of input and output that fit into one call."""
    input_usd_per_million: float | None = None
    """What a million tokens of input cost."""
    output_usd_per_million: float | None = None
    """What a million tokens of output cost."""

    @property
    def refuses(self) -> tuple[str, ...]:
        """What it says that it does not have, or not without a bound, of what a request may ask
        for."""
        missing = tuple(name for name in REFUSABLE if getattr(self, name) is False)
        return missing if self.max_context_tokens is None else (*missing, "max_context_tokens")

    def over(self, other: Capabilities) -> Capabilities:
        """These, and where they are not known, those of `other`."""
        if self == UNKNOWN:
            return other
        return Capabilities(
            **{
                name: theirs if (own := getattr(self, name)) is None else own
                for name, theirs in other.to_dict().items()
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """All of them by name, in the order above."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_mapping(cls, value: Mapping[str, Any]) -> Capabilities:
        """Read `{"images": False, …}`.

        Raises:
            ValueError: a name is not known, or a value has the wrong type.
        """
        known = [field.name for field in fields(cls)]
        for name, given in value.items():
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(known)}"
                raise ValueError(f'unknown capability "{name}" ({hint})')
            if not _fits(name, given):
                wanted = "a number from 0 up" if name in _NUMBERS else "true or false"
                raise ValueError(f"{name}: expected {wanted}, or nothing, found {given!r:.60}")
        return cls(**value)


_NUMBERS = frozenset(("max_context_tokens", "input_usd_per_million", "output_usd_per_million"))
UNKNOWN = Capabilities()
"""Of one that declares nothing."""


def _fits(name: str, value: object) -> bool:
    if value is None or name not in _NUMBERS:
        return value is None or isinstance(value, bool)
    kinds = int if name == "max_context_tokens" else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and value >= 0


def capabilities_of(provider: object) -> Capabilities:
    """What `provider` declares, as `Capabilities` or as a mapping; nothing is known of one that
    declares nothing.

    Raises:
        ValueError: what it declares is neither.
    """
    declared = getattr(provider, "capabilities", None)
    if declared is None or isinstance(declared, Capabilities):
        return declared or UNKNOWN
    if isinstance(declared, Mapping):
        return Capabilities.from_mapping(declared)
    raise ValueError(
        f"`capabilities` must be Capabilities or a mapping, not {type(declared).__name__}"
    )
