"""Secrets: which settings are one, and how they are kept out of what is written."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

from muster.target import ResolvedTarget, Secret

__all__ = (
    "MASK",
    "Masker",
    "environment_secrets",
    "is_secret_name",
    "is_secret_variable",
    "masked_config",
    "secret_values",
)

MASK = "**********"

MIN_LENGTH = 4
"""Shorter values are not masked in texts: it would tear words apart and hide nothing."""

_MIN_VARIABLE = 8

_NOT_SECRET = frozenset(
    {"dummy", "empty", "fake", "lm-studio", "none", "not-needed", "no-key", "null"}
    | {"ollama", "placeholder", "test", "unused"}
)
"""What people write as the key of a server that wants none; masking it would spoil answers."""

_NAME = re.compile(
    r"(?:^|_)(?:api_?keys?|(?:access|account|private|secret|signing|subscription)_?key"
    r"|auth_?token|access_?token|token|bearer|password|passwd|passphrase|pwd|secret|credentials?"
    r"|authorization|cookie)$"
)
_FOLDERS = frozenset({"PWD", "OLDPWD"})
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NOT_WORD = re.compile(r"[^a-z0-9]+")


def is_secret_name(name: str) -> bool:
    """True for the names of settings and headers that hold secrets: `api_key`, `x-api-key`,
    `githubToken`, `Authorization`; not for `max_output_tokens`."""
    return _NAME.search(_NOT_WORD.sub("_", _HUMP.sub("_", name).lower())) is not None


def is_secret_variable(name: str) -> bool:
    """As `is_secret_name`, for environment variables: `OPENAI_KEY` is one too; the shell's `PWD`,
    which is the working folder, is none."""
    if name in _FOLDERS:
        return False
    return is_secret_name(name) or name.upper().endswith("_KEY")


def secret_values(value: object) -> set[str]:
    """The secrets anywhere in `value`; of `Bearer x` and the like, `x` by itself too."""
    if isinstance(value, Secret):
        return {str(value), *str(value).split()[1:2]}
    if isinstance(value, Mapping):
        return set().union(*map(secret_values, value.values()))
    if isinstance(value, list | tuple):
        return set().union(*map(secret_values, value))
    return set()


def environment_secrets(variables: Mapping[str, str]) -> set[str]:
    """The values of the variables that have a secret's name.

    Short ones are left out: nobody said that they are secrets, and they may be ordinary words.
    """
    return {
        value
        for name, value in variables.items()
        if len(value) >= _MIN_VARIABLE and is_secret_variable(name)
    }


def masked_config(target: ResolvedTarget) -> dict[str, Any]:
    """The target's settings with its secrets masked, as plain data."""
    masker = Masker(secret_values(target.config))

    def masked(value: Any) -> Any:
        if isinstance(value, Secret):
            return MASK
        if isinstance(value, str):
            return masker.mask(value)
        if isinstance(value, Mapping):
            return {key: masked(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [masked(item) for item in value]
        return value

    return {key: masked(item) for key, item in target.config.items()}


class Masker:
    """Replaces secrets in texts, also where they stand escaped in JSON or quoted in a URL.

    Values shorter than four characters and the usual placeholders (`none`, `dummy`, `ollama`, …)
    are left alone.
    """

    __slots__ = ("_bytes", "_pattern", "_texts")

    def __init__(self, values: Iterable[str]) -> None:
        self._texts: list[str] = []
        self.add(values)

    def add(self, values: Iterable[str]) -> None:
        """Replace these from now on, too."""
        forms = {*self._texts, *(form for value in values for form in _forms(str(value)))}
        # The longest first: one secret may be the beginning of another.
        self._texts = sorted(forms, key=lambda form: (-len(form), form))
        self._bytes = [text.encode("utf-8", "surrogatepass") for text in self._texts]
        self._pattern = re.compile("|".join(map(re.escape, self._texts)))

    def __bool__(self) -> bool:
        return bool(self._texts)

    def mask(self, text: str) -> str:
        """`text` without the secrets; the same object if it holds none."""
        for form in self._texts:
            if form in text:
                return self._pattern.sub(MASK, text)
        return text

    def found_in(self, data: bytes) -> bool:
        """Whether UTF-8 text holds one of the secrets."""
        return any(form in data for form in self._bytes)

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """Where in UTF-8 text secrets stand: beginning and end of each, in order."""
        if not self._bytes:
            return []
        pattern = re.compile(b"|".join(map(re.escape, self._bytes)))
        return [found.span() for found in pattern.finditer(data)]

    def mask_bytes(self, data: bytes) -> bytes:
        """As `mask`, for UTF-8 text or any other bytes."""
        parts, start = [], 0
        for begins, ends in self.spans(data):
            parts += [data[start:begins], MASK.encode()]
            start = ends
        return b"".join((*parts, data[start:])) if parts else data


def _forms(value: str) -> set[str]:
    """`value` in all the ways it may stand in an output; none if it is not worth masking."""
    value = value.strip()
    if len(value) < MIN_LENGTH or value.lower() in _NOT_SECRET:
        return set()
    return {
        value,
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        quote(value),
        quote(value, safe=""),
        quote_plus(value),
    }
