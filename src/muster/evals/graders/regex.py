"""The `regex` grader, and patterns as users write them: JavaScript's spellings or Python's.

Patterns run in the `regex` module, not in `re`: it bounds the time of a search (a pattern like
`(a|aa)+$` would otherwise hang a run) and knows what JavaScript knows, such as `\\p{Lu}` and
look-behind of any width. It costs 20 ms to import, so it is imported when a pattern is built.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from muster.config.validation import FileModel
from muster.evals.graders.base import (
    Assertion,
    GradeContext,
    GraderError,
    GraderSpec,
    Score,
    SettingError,
)
from muster.evals.graders.text import clip

if TYPE_CHECKING:
    import regex as engine

__all__ = (
    "Regex",
    "compile_pattern",
    "extracted",
    "extraction_pattern",
    "timed_out",
)

TIMEOUT_SECONDS = 1.0
"""How long one search may take."""

_FLAGS = "imsxugydv"
"""JavaScript's flags and Python's `x`. `g`, `d`, `u` and `v` change nothing here: one match is
enough, and text is always Unicode."""

_SPELLINGS = re.compile(
    r"""
      (?P<reference>\\k<(?P<name>\w+)>)            # \k<name>
    | \\u\{(?P<code>[0-9a-fA-F]{1,6})\}            # \u{1F600}
    | (?P<escape>\\[pPN]\{[^}]*\}|\\.)           # taken as it is, \p{Lu} too
    | (?P<quantifier>\{[0-9]*,?[0-9]*\}(?<!\{\})(?<!\{,\}))
    | (?P<brace>\{)                                # literal, not a fuzzy match
    | (?P<anything>\[\^\](?=[*+?{)]|\Z))           # [^]* : any character, line breaks too
    | (?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])          # a set is taken as it is
    """,
    re.VERBOSE | re.DOTALL,
)


def _respell(found: re.Match[str]) -> str:
    if found["reference"]:
        return f"(?P={found['name']})"
    if found["code"]:
        return f"\\U{int(found['code'], 16):08x}"
    if found["brace"]:
        return r"\{"
    if found["anything"]:
        return r"[\s\S]"
    return found[0]


def compile_pattern(pattern: str, flags: str = "") -> engine.Pattern[str]:
    """`pattern` compiled, with the flag letters of JavaScript (and `x`).

    Read as Python's `re` reads it, Unicode throughout, with JavaScript's spellings understood:
    `(?<name>…)`, `\\k<name>`, `\\/`, `\\u{…}`, `\\p{…}`, `[^]`.

    Raises:
        ValueError: the pattern does not compile (with the place), or a flag is unknown.
    """
    import regex as engine

    bits = engine.VERSION0
    for letter in flags:
        if letter not in _FLAGS:
            raise ValueError(f'unknown flag "{letter}" (known: {", ".join(_FLAGS)})')
        if letter in "imsx":
            bits |= getattr(engine, letter.upper())
    python = _SPELLINGS.sub(_respell, pattern)
    try:
        return engine.compile(python, bits)
    except engine.error as error:
        place = _place_in(pattern, getattr(error, "pos", None))
        message = getattr(error, "msg", error)
        raise ValueError(f"/{clip(pattern)}/ does not compile: {message}{place}") from None
    except (OverflowError, RecursionError) as error:
        raise ValueError(f"/{clip(pattern)}/ does not compile: {error}") from None


def _place_in(pattern: str, position: int | None) -> str:
    """Where in what the user wrote the compiler stopped in the respelled pattern; 1-based."""
    if position is None:
        return ""
    for length in range(len(pattern) + 1):
        if len(_SPELLINGS.sub(_respell, pattern[:length])) >= position:
            return " (at its end)" if length == len(pattern) else f" (at character {length + 1})"
    return ""


def last_match(pattern: engine.Pattern[str], text: str) -> engine.Match[str] | None:
    """The last match of `pattern` in `text`.

    Raises:
        GraderError: the search took too long.
    """
    try:
        matches = list(pattern.finditer(text, timeout=TIMEOUT_SECONDS))
    except TimeoutError:
        raise timed_out(pattern.pattern) from None
    return matches[-1] if matches else None


def extraction_pattern(extract: str | None) -> engine.Pattern[str] | None:
    """The setting `extract`, compiled.

    Raises:
        SettingError: it is no pattern.
    """
    if extract is None:
        return None
    try:
        return compile_pattern(extract)
    except ValueError as error:
        raise SettingError("extract", str(error)) from None


def extracted(pattern: engine.Pattern[str], text: str) -> str | None:
    """What the last match of `pattern` holds, or its group 1 if it has groups; `None` without a
    match."""
    found = last_match(pattern, text)
    if found is None:
        return None
    return found[1] or "" if pattern.groups else found[0]


def timed_out(pattern: str) -> GraderError:
    """The error of a search that was stopped."""
    return GraderError(
        f"/{clip(pattern)}/ was stopped after {TIMEOUT_SECONDS:g} s on this output; a repeat "
        "inside a repeat, or next to one that matches the same, makes patterns slow"
    )


class _Settings(FileModel):
    value: str
    """The pattern; it may match anywhere in the answer."""
    flags: str = ""
    """`i` letter case aside, `m` `^` and `$` at each line, `s` `.` matches line breaks, `x` white
    space and comments, `y` only at the start; `g`, `u`, `d` and `v` are accepted."""


class Regex:
    """The answer matches the pattern `value`."""

    Settings = _Settings
    __slots__ = ("_at_start", "_label", "_pattern")

    def __init__(self, spec: GraderSpec) -> None:
        settings = _Settings.model_validate(spec.config)
        unknown = next((letter for letter in settings.flags if letter not in _FLAGS), None)
        try:
            self._pattern = compile_pattern(settings.value, settings.flags)
        except ValueError as error:
            raise SettingError("flags" if unknown else "value", str(error)) from None
        self._at_start = "y" in settings.flags
        self._label = f"/{clip(settings.value)}/{settings.flags}"

    def __call__(self, context: GradeContext) -> Score:
        search = self._pattern.match if self._at_start else self._pattern.search
        try:
            found = search(context.output, timeout=TIMEOUT_SECONDS)
        except TimeoutError:
            raise timed_out(self._pattern.pattern) from None
        if found is None:
            text = f"Output does not match pattern {self._label}"
            return Score(0.0, (Assertion(text, False),))
        evidence = f'matched "{clip(found[0])}"'
        text = f"Output matches pattern {self._label}"
        return Score(1.0, (Assertion(text, True, evidence),))
