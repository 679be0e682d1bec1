"""Which cases of a suite a run is about."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

import msgspec

from muster.errors import UsageError
from muster.evals.case import Case, Suite

__all__ = ("Selection",)


class Selection(msgspec.Struct, frozen=True):
    """What the command line asks for; empty selects all."""

    tags: Sequence[str] = ()
    """All of them must be on the case or on its suite."""
    exclude_tags: Sequence[str] = ()
    """None of them may be."""
    test_ids: Sequence[str] = ()
    """Globs; one must match the id."""
    filters: Sequence[str] = ()
    """Each `key=glob` (metadata, vars, category, id) or a regular expression found in the id."""

    def __bool__(self) -> bool:
        return bool(self.tags or self.exclude_tags or self.test_ids or self.filters)

    def describe(self) -> str:
        """The options as they would be typed."""
        named = (
            ("--tag", self.tags),
            ("--exclude-tag", self.exclude_tags),
            ("--test-id", self.test_ids),
            ("--filter", self.filters),
        )
        return " ".join(f'{option} "{value}"' for option, values in named for value in values)

    def predicate(self, suite: Suite) -> Callable[[Case], bool]:
        """A function that says whether a case of `suite` is selected.

        Raises:
            UsageError: a filter is not a valid regular expression.
        """
        if not self:
            return _every
        filters = [_compile(text) for text in self.filters]
        wanted, excluded = set(self.tags), set(self.exclude_tags)
        suite_tags = set(suite.tags)

        def selected(case: Case) -> bool:
            if wanted or excluded:
                tags = suite_tags.union(case.tags)
                if not wanted <= tags or excluded & tags:
                    return False
            if self.test_ids and not any(fnmatchcase(case.id, glob) for glob in self.test_ids):
                return False
            return all(matches(case) for matches in filters)

        return selected


def _every(case: Case) -> bool:
    return True


def _compile(text: str) -> Callable[[Case], bool]:
    key, equals, glob = text.partition("=")
    if equals and re.fullmatch(r"[\w.-]+", key):
        return lambda case: _matches(case, key, glob)
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UsageError(f'--filter "{text}" is not a regular expression: {error}') from None
    return lambda case: pattern.search(case.id) is not None


def _matches(case: Case, key: str, glob: str) -> bool:
    values: list[object] = [source[key] for source in (case.metadata, case.vars) if key in source]
    if key in ("id", "category", "conversation_id"):
        values.append(getattr(case, key))
    flat = [
        _as_written(item)
        for value in values
        for item in (value if isinstance(value, list | tuple) else [value])
        if item is not None
    ]
    return any(fnmatchcase(item, glob) for item in flat)


def _as_written(value: object) -> str:
    """As in YAML and JSON: `true`, not Python's `True`."""
    return str(value).lower() if isinstance(value, bool) else str(value)
