"""A template's source as tokens.

What stands between `{{` and `}}` is an action; the white space beside `{{-` and `-}}` is cut from
the text around it here already, so the parser never sees trim markers or comments.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from muster.teams.template.errors import Failure

__all__ = ("Token", "tokenize")

_SPACES = " \t\r\n"

_TOKEN = re.compile(
    r"""
      (?P<space>[ \t\r\n]+)
    | (?P<string>"(?:\\.|[^"\\\n])*")
    | (?P<raw>`[^`]*`)
    | (?P<char>'(?:\\.|[^'\\\n])+')
    | (?P<number>[+-]?(?:
          0[xX](?:[0-9a-fA-F_]|\.|[pP][+-]?)*
        | (?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9_]*)?
        )[0-9A-Za-z_]*)
    | (?P<field>\.[^\W\d]\w*)
    | (?P<variable>\$\w*)
    | (?P<word>[^\W\d]\w*)
    | (?P<declare>:=)
    | (?P<assign>=)
    | (?P<pipe>\|)
    | (?P<open>\()
    | (?P<close>\))
    | (?P<comma>,)
    | (?P<dot>\.)
    """,
    re.VERBOSE,
)

_PATH_WITH_DASH = re.compile(r"\$?\w*(?:\.\w[\w-]*)+")
"""What was meant by `.steps.my-step.output`."""


class Token(NamedTuple):
    """`kind` is a group's name of `_TOKEN`, or `text`, `left`, `right`, `end`."""

    kind: str
    text: str
    start: int
    spaced: bool = False
    """White space stands before it."""

    @property
    def end(self) -> int:
        """The offset after it."""
        return self.start + len(self.text)


def tokenize(source: str) -> list[Token]:
    """All tokens of `source`. Raises `Failure`."""
    tokens: list[Token] = []
    position, trim = 0, False
    while (left := source.find("{{", position)) >= 0:
        inside = left + 2
        trims_before = source.startswith("-", inside) and source[inside + 1 : inside + 2] in {
            *_SPACES
        }
        _add_text(tokens, source, position, left, trims=(trim, trims_before))
        inside += 2 if trims_before else 0
        if source.startswith("/*", inside):
            position, trim = _comment(source, left, inside)
        else:
            tokens.append(Token("left", "{{", left))
            position, trim = _action(tokens, source, left, inside)
    _add_text(tokens, source, position, len(source), trims=(trim, False))
    tokens.append(Token("end", "", len(source)))
    return tokens


def _add_text(
    tokens: list[Token], source: str, start: int, end: int, *, trims: tuple[bool, bool]
) -> None:
    """Adds what stands between two actions, without the white space that they cut off."""
    text = source[start:end]
    if trims[1]:
        text = text.rstrip(_SPACES)
    if trims[0]:
        start += len(text) - len(text := text.lstrip(_SPACES))
    if text:
        tokens.append(Token("text", text, start))


def _comment(source: str, left: int, inside: int) -> tuple[int, bool]:
    """Where the text goes on after the comment, and whether its white space is cut."""
    close = source.find("*/", inside + 2)
    if close < 0:
        raise Failure("this comment is never closed with */}}", left)
    after = close + 2
    if source.startswith("}}", after):
        return after + 2, False
    if source[after : after + 1] in {*_SPACES} and source.startswith("-}}", after + 1):
        return after + 4, True
    raise Failure("a comment must end with */}} and fill its braces alone", close)


def _action(tokens: list[Token], source: str, left: int, position: int) -> tuple[int, bool]:
    """Adds the action's tokens; where the text goes on, and whether its white space is cut."""
    spaced = False
    match_token = _TOKEN.match
    while True:
        if source.startswith("}}", position):
            tokens.append(Token("right", "}}", position, spaced))
            return position + 2, False
        if spaced and source.startswith("-}}", position):
            tokens.append(Token("right", "-}}", position, spaced))
            return position + 3, True
        match = match_token(source, position)
        if match is None:
            raise _no_token(source, left, position)
        kind = match.lastgroup or ""
        position = match.end()
        if kind == "space":
            spaced = True
            continue
        token = Token(kind, match.group(), match.start(), spaced)
        if kind in {"field", "variable", "word"}:
            _check_terminated(source, token)
        tokens.append(token)
        spaced = False


def _no_token(source: str, left: int, position: int) -> Failure:
    """Why nothing can begin at `position`."""
    found = source[position : position + 1]
    if not found:
        return Failure("this action is never closed with }}", left)
    if found == '"':
        return Failure('text in "…" is not closed on its line', position)
    if found == "`":
        return Failure("text in `…` is never closed", position)
    if found == "'":
        return Failure('a character constant is not closed; text is written in "…"', position)
    if found == "{":
        return Failure(f"unexpected {found!r}; the action before it is not closed with }}}}", left)
    return Failure(f"unexpected {_named(found)} in an action", position)


def _check_terminated(source: str, token: Token) -> None:
    """A name ends before white space or punctuation, never before any other character."""
    following = source[token.end : token.end + 1]
    if not following or following in " \t\r\n.,|:)(=" or source.startswith("}}", token.end):
        return
    message = f"bad character {_named(following)}"
    if following == "-" and token.kind in {"field", "variable"}:
        message += _dash_hint(source, token)
    raise Failure(message, token.end)


def _dash_hint(source: str, token: Token) -> str:
    """How to reach a name with a dash, which Go's dotted paths cannot hold."""
    start = token.start
    while start > 0 and (source[start - 1] in ".$_-" or source[start - 1].isalnum()):
        start -= 1
    match = _PATH_WITH_DASH.match(source, start)
    names = match.group().split(".") if match else []
    dashed = next((at for at, name in enumerate(names) if "-" in name), 0)
    if match is None or dashed == 0:
        return ""
    base = ".".join(names[:dashed]) or "."
    quoted = " ".join(f'"{name}"' for name in names[dashed:])
    return f"; a name with a dash is reached by index: index {base} {quoted}"


def _named(character: str) -> str:
    shown = f" {character!r}" if character.isprintable() else ""
    return f"U+{ord(character):04X}{shown}"
