"""Where a queue is: `sqlite:work.db?depth=500`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

from muster.errors import UsageError, nearest

__all__ = ("QueueURL",)

_PASSWORD = re.compile(r"(?<=//)[^/@]*@")
_SECRET_OPTION = re.compile(r"(?i)((?:password|token|secret|key)=)[^&]*")


@dataclass(frozen=True, slots=True)
class QueueURL:
    """What a queue's factory gets."""

    scheme: str
    """Which factory: `sqlite`, a name that was registered, or `package.module:Factory`."""
    rest: str = ""
    """What stands between the scheme's colon and the `?`."""
    options: Mapping[str, str] = field(default_factory=dict)
    folder: Path = field(default_factory=Path.cwd)
    """Where relative paths begin."""

    @classmethod
    def parse(cls, text: str, folder: Path | None = None) -> QueueURL:
        """Read a URL.

        Raises:
            UsageError: it has no scheme, or its options are none.
        """
        head, mark, tail = text.partition("?")
        scheme, colon, rest = head.partition(":")
        if "." in scheme and colon:  # a dotted path has a colon of its own
            name, _, rest = rest.partition(":")
            scheme = f"{scheme}:{name}"
        if not scheme or not colon:
            raise UsageError(
                f'"{_shown(text)}" is no queue: expected a URL such as sqlite:PATH; its scheme, '
                "the part before the colon, says which kind"
            )
        try:
            pairs = parse_qsl(tail, keep_blank_values=True, strict_parsing=True) if mark else []
        except ValueError:
            raise UsageError(
                f'queue "{_shown(text)}": expected NAME=VALUE after the "?", joined by "&"'
            ) from None
        return cls(scheme, rest, dict(pairs), folder or Path.cwd())

    def __str__(self) -> str:
        """As it may be shown: without passwords."""
        tail = "&".join(f"{name}={value}" for name, value in self.options.items())
        return _shown(f"{self.scheme}:{self.rest}" + (f"?{tail}" if tail else ""))

    @property
    def path(self) -> Path:
        """`rest` as a path.

        Raises:
            UsageError: there is none.
        """
        if not self.rest:
            raise UsageError(f"queue {self}: expected {self.scheme}:PATH")
        return self.folder / Path(self.rest).expanduser()

    def only(self, *names: str) -> None:
        """Raise `UsageError` when there is an option that is not among `names`."""
        for name in self.options:
            if name not in names:
                near = nearest(name, names)
                hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(names)}"
                raise UsageError(f'queue {self}: unknown option "{name}" ({hint})')

    def number(self, name: str, default: float) -> float:
        """An option that is a number above 0.

        Raises:
            UsageError: it is something else.
        """
        text = self.options.get(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise UsageError(f'queue {self}: {name}: expected a number above 0, found "{text}"')
        return value


def _shown(text: str) -> str:
    return _SECRET_OPTION.sub(r"\1**********", _PASSWORD.sub("**********@", text))
