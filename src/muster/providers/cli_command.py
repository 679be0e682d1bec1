"""A command with placeholders, compiled once when its target is loaded.

    {PROMPT} {PROMPT_FILE} {OUTPUT_FILE} {FILES} {EVAL_ID} {ATTEMPT}

`{{` and `}}` around something stand for one brace each. All other braces (`${HOME}`, `{a,b}`, `{}`,
`{print $1}`) are the command's own.

A command given as text is run by `/bin/sh -c`. What comes from a case never becomes part of the
script: it is assigned, quoted, to a shell variable in front of it, and the placeholder becomes
`"$variable"`. So no prompt can be executed, wherever the placeholder stands. Text that the shell
would do nothing with but start one program (`cp {PROMPT_FILE} {OUTPUT_FILE}`) is started without
it, as `make` does: that saves a third of the time of a short command.
"""

from __future__ import annotations

import os.path
import re
import shlex
from collections.abc import Mapping, Sequence

from muster.errors import nearest

__all__ = ("PLACEHOLDERS", "Command", "check_files_format")

PLACEHOLDERS = ("PROMPT", "PROMPT_FILE", "OUTPUT_FILE", "FILES", "EVAL_ID", "ATTEMPT")

_FROM_CASE = frozenset({"PROMPT", "FILES", "EVAL_ID"})
"""Text that the suite's author wrote, or a model; the others are made by us."""

_TOKEN = re.compile(r"\{\{|\}\}|\$?\{(?P<name>[A-Z][A-Z0-9_]*)\}")
_WORDS_ONLY = re.compile(r"[A-Za-z0-9_@%+=:,./ \t-]*\Z")
_SHELL_WORDS = (
    ". : [ alias bg bind break builtin case cd command continue coproc declare do done echo elif "
    "else esac eval exec exit export false fc fg fi for function getopts hash help history if in "
    "jobs kill let local login logout printf pwd read readonly return select set shift shopt "
    "source suspend test then time times trap true type typeset ulimit umask unalias unset until "
    "wait while"
)
_SHELL_OWN = frozenset(_SHELL_WORDS.split())
"""Reserved words and built-ins of the usual shells: these need one."""


class Command:
    """A command template; `uses` are the names of the placeholders in it.

    Raises (when made):
        ValueError: it is empty, names an unknown placeholder, or quotes one a second time.
    """

    def __init__(
        self,
        command: str | Sequence[str],
        files_format: str = "{path}",
        allowed: Sequence[str] = PLACEHOLDERS,
    ) -> None:
        if not command or not (command if isinstance(command, str) else command[0]).strip():
            raise ValueError("the command is empty")
        self._files_format = files_format
        self._script: list[str] | None = None
        self._words: list[list[str]] | None
        if isinstance(command, str):
            self.text = command.strip()
            self._script = _split(self.text, allowed)
            _refuse_in_quotes(self._script)
            self._words = _plain_words(self._script)
        else:
            self.text = shlex.join(command)
            self._words = [_split(word, allowed) for word in command]
        self.uses = frozenset(
            name for pieces in self._words or [self._script or []] for name in pieces[1::2]
        )

    @property
    def needs_shell(self) -> bool:
        """True when `argv` starts `/bin/sh`."""
        return self._words is None

    def argv(self, values: Mapping[str, str], files: Sequence[str]) -> list[str]:
        """The arguments to start it with. `values` holds all of `uses` but FILES."""
        if self._words is None:
            return self.shell_argv(values, files)
        argv: list[str] = []
        for word in self._words:
            if word == ["", "FILES", ""]:
                argv += (part for path in files for part in self._file_words(path))
            elif len(word) == 1:
                argv.append(word[0])
            else:
                argv.append(_filled(word, {**values, "FILES": " ".join(files)}))
        return argv

    def shell_argv(self, values: Mapping[str, str], files: Sequence[str]) -> list[str]:
        """The same by way of `/bin/sh`; only for a command given as text."""
        assert self._script is not None
        variables: dict[str, str] = {}
        shown: dict[str, str] = {}
        for name, value in values.items():
            if name in _FROM_CASE:
                variables[f"_muster_{name.lower()}"] = value
                shown[name] = f'"$_muster_{name.lower()}"'
            else:
                shown[name] = shlex.quote(value)
        if "FILES" in self.uses:
            for number, path in enumerate(files, 1):
                variables[f"_muster_path_{number}"] = path
                variables[f"_muster_name_{number}"] = os.path.basename(path)
            shown["FILES"] = " ".join(
                _formatted(
                    self._files_format, f'"$_muster_path_{number}"', f'"$_muster_name_{number}"'
                )
                for number in range(1, len(files) + 1)
            )
        assigned = "".join(f"{name}={shlex.quote(value)}; " for name, value in variables.items())
        return ["/bin/sh", "-c", assigned + _filled(self._script, shown)]

    def _file_words(self, path: str) -> list[str]:
        name = os.path.basename(path)
        return [_formatted(word, path, name) for word in self._files_format.split()]


def check_files_format(text: str) -> None:
    """Raise `ValueError` unless `text` shows a file, outside of quotes."""
    pieces = re.split(r"\{(path|basename)\}", text)
    if len(pieces) == 1:
        raise ValueError("it needs {path} or {basename}")
    _refuse_in_quotes(pieces, frozenset({"path", "basename"}))


def _split(text: str, allowed: Sequence[str]) -> list[str]:
    """Literal, name, literal, name, …, literal; escaped braces undone."""
    tokens = list(_TOKEN.finditer(text))
    escapes = _paired_braces(tokens)
    pieces = [""]
    end = 0
    for number, token in enumerate(tokens):
        pieces[-1] += text[end : token.start()]
        end = token.end()
        name = token["name"]
        if number in escapes:
            pieces[-1] += token[0][0]
        elif name is None or (token[0][0] == "$" and name not in PLACEHOLDERS):
            pieces[-1] += token[0]
        else:
            _check_name(name, token[0], allowed)
            pieces += [name, ""]
    pieces[-1] += text[end:]
    return pieces


def _paired_braces(tokens: Sequence[re.Match[str]]) -> set[int]:
    """Which of the tokens are a `{{` with its `}}`; one alone (`{if(x){y}}`) is no escape."""
    opened: list[int] = []
    paired: set[int] = set()
    for number, token in enumerate(tokens):
        if token[0] == "{{":
            opened.append(number)
        elif token[0] == "}}" and opened:
            paired |= {opened.pop(), number}
    return paired


def _check_name(name: str, written: str, allowed: Sequence[str]) -> None:
    if written[0] == "$":
        raise ValueError(
            f"{written} is a variable of the shell; write {{{name}}} for the placeholder, "
            f"${name} for the variable"
        )
    if name in allowed:
        return
    literal = f"for literal braces write {{{{{name}}}}}"
    if name in PLACEHOLDERS:
        raise ValueError(f"{written} has no value here: there is no case yet; {literal}")
    near = nearest(name, PLACEHOLDERS)
    hint = f"did you mean {{{near[0]}}}? " if near else ""
    known = ", ".join(f"{{{known}}}" for known in allowed)
    raise ValueError(f"unknown placeholder {written} ({hint}known: {known}); {literal}")


def _plain_words(script: Sequence[str]) -> list[list[str]] | None:
    """The words of a script that only starts one program, each as `_split` gives them; `None` if
    there is anything for a shell to do."""
    if "FILES" in script[1::2] or not all(map(_WORDS_ONLY.match, script[::2])):
        return None
    words: list[list[str]] = []
    between = True
    for number, piece in enumerate(script):
        if number % 2:
            if between:
                words.append([""])
            words[-1] += [piece, ""]
            between = False
            continue
        for part in re.split(r"([ \t]+)", piece):
            if part.isspace():
                between = True
            elif part and between:
                words.append([part])
                between = False
            elif part:
                words[-1][-1] += part
    program = words[0] if words else []
    if len(program) > 1 or any("=" in word or word in _SHELL_OWN for word in program):
        return None
    return words


def _refuse_in_quotes(script: Sequence[str], names: frozenset[str] = _FROM_CASE) -> None:
    """Quotes around a placeholder would end the quotes that it brings along."""
    quotes = _Quotes()
    for number, piece in enumerate(script):
        if number % 2 == 0:
            quotes.read(piece)
        elif piece in names and quotes.inside:
            raise ValueError(
                f"{{{piece}}} stands inside {quotes.inside}…{quotes.inside}: it is quoted by "
                "itself, so take it out of the quotes ({PROMPT_FILE} and {OUTPUT_FILE} may stand "
                "anywhere)"
            )


class _Quotes:
    """Where in a shell's quotes the text read so far ends."""

    def __init__(self) -> None:
        self._open = [""]
        self._last = " "

    @property
    def inside(self) -> str:
        """The quote that is open, or nothing."""
        return self._open[-1] if self._open[-1] in ("'", '"') else ""

    def read(self, text: str) -> None:
        for character in text:
            self._step(character)
            escaped = self._last == "\\" and self._open[-1] != "'"
            self._last = "x" if escaped else character

    def _step(self, character: str) -> None:
        top = self._open[-1]
        if top == "#":
            if character == "\n":
                self._open.pop()
        elif top == "'":
            if character == "'":
                self._open.pop()
        elif self._last == "\\":
            pass
        elif top == '"':
            if character == '"':
                self._open.pop()
            elif character == "(" and self._last == "$":
                self._open.append("(")
        elif character in "'\"(":
            self._open.append(character)
        elif character == ")" and top == "(":
            self._open.pop()
        elif character == "#" and self._last.isspace():
            self._open.append("#")


def _filled(pieces: Sequence[str], values: Mapping[str, str]) -> str:
    return "".join(values[piece] if number % 2 else piece for number, piece in enumerate(pieces))


def _formatted(text: str, path: str, basename: str) -> str:
    return re.sub(
        r"\{(path|basename)\}", lambda match: path if match[1] == "path" else basename, text
    )
