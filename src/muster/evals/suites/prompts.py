"""A suite's `prompts`: templates that every test is put into.

A template is text or a list of messages, written in the suite or in a file. Plain placeholders
(`{{ name }}`) are filled in as anywhere else; one that uses more (filters, `{% if %}`) is rendered
by Jinja in its sandbox, which is only loaded then.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from muster.config.document import Place, parse_yaml, read_text
from muster.errors import ConfigError, Problem, nearest
from muster.evals.suites.messages import FileFinder
from muster.evals.suites.variables import as_text, fill_vars, is_plain_template

__all__ = ("Prompt", "read_prompts", "select_prompts")

Unknown = Callable[[str], None]
Render = Callable[[Mapping[str, Any], Unknown], Any]

_TEXT_FILES = (".txt", ".md", ".j2", ".jinja", ".jinja2", ".prompt")
_DATA_FILES = (".json", ".yaml", ".yml")
_FILE = re.compile(r"[^\s{}]+(?:" + "|".join(map(re.escape, (*_TEXT_FILES, *_DATA_FILES))) + r")\Z")
_NOT_DONE = ("command", "function", "function_file", "config", "transform")
_KNOWN = ("id", "label", "raw", "path", "prefix", "suffix")


class Prompt(msgspec.Struct, frozen=True):
    """A template; `render(vars, unknown)` gives text or a list of raw messages."""

    label: str
    render: Render
    place: Place
    id: str | None = None
    file: Path | None = None


def read_prompts(value: Any, place: Place, files: FileFinder) -> tuple[Prompt, ...]:
    """The templates of `prompts: value`.

    Raises:
        ConfigError: one is not of a known form, its file is missing, its syntax is wrong, or two
            have the same label.
    """
    reader = _Reader(files)
    if isinstance(value, list) and not _is_chat(value):
        if not value:
            raise ConfigError(place.problem("is empty; write a prompt, or leave it out"))
        found = [
            prompt
            for at, item in enumerate(value)
            for prompt in reader.entry(item, place.at(at), at + 1)
        ]
    else:
        found = list(reader.entry(value, place, 1))
    labels: dict[str, Prompt] = {}
    for prompt in found:
        if prompt.label in labels:
            text = f'two prompts are called "{prompt.label}"; give them a `label`'
            raise ConfigError(prompt.place.problem(text))
        labels[prompt.label] = prompt
    return tuple(found)


def select_prompts(
    prompts: Sequence[Prompt], wanted: Sequence[str], place: Place
) -> tuple[Prompt, ...]:
    """Those that `wanted` names by label or id; `name*` takes all that begin so.

    Raises:
        ConfigError: a name fits none.
    """
    chosen: dict[str, None] = {}
    for name in wanted:
        fitting = [
            prompt.label
            for prompt in prompts
            if name in (prompt.label, prompt.id)
            or (name.endswith("*") and prompt.label.startswith(name[:-1]))
        ]
        if not fitting:
            labels = [prompt.label for prompt in prompts]
            near = nearest(name, labels)
            hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(labels)}"
            raise ConfigError(place.problem(f'no prompt is called "{name}" ({hint})'))
        chosen |= dict.fromkeys(fitting)
    return tuple(prompt for prompt in prompts if prompt.label in chosen)


def _is_chat(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, dict) and "role" in item for item in value)
    )


class _Reader:
    def __init__(self, files: FileFinder) -> None:
        self.files = files

    def entry(self, item: Any, place: Place, number: int) -> Iterator[Prompt]:
        if isinstance(item, str):
            yield from self._text(item, place, number)
        elif isinstance(item, dict):
            yield from self._mapping(item, place, number)
        elif _is_chat(item):
            yield Prompt(f"prompt-{number}", _renderer(item, place), place)
        else:
            text = "expected a template: text, a file, messages, or {label, raw}"
            raise ConfigError(place.problem(text))

    def _text(self, text: str, place: Place, number: int) -> Iterator[Prompt]:
        name = text.strip().removeprefix("file://")
        if text.strip().startswith("file://") or _FILE.match(name):
            yield from self._files(name, place)
        else:
            yield Prompt(f"prompt-{number}", _renderer(text, place), place)

    def _mapping(self, item: dict[str, Any], place: Place, number: int) -> Iterator[Prompt]:
        for name, value in item.items():
            if name in _NOT_DONE:
                if value in (None, {}, ""):
                    continue
                text = f'"{name}" of a prompt is not supported; write a template'
                raise ConfigError(place.at(name).problem(text, of_key=True))
            if name not in _KNOWN:
                near = nearest(name, _KNOWN)
                hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(_KNOWN)}"
                text = f'unknown field "{name}" ({hint})'
                raise ConfigError(place.at(name).problem(text, of_key=True))
        key = next((name for name in ("raw", "path", "id") if item.get(name)), None)
        if key is None:
            raise ConfigError(place.problem("a prompt needs `raw` (a template) or `path`"))
        body = item[key]
        if key == "path" and isinstance(body, str):
            found = list(self._files(body.removeprefix("file://"), place.at(key)))
        else:
            found = list(self.entry(body, place.at(key), number))
        label, own_id = item.get("label"), item.get("id")
        for prompt in found:
            name = label or (own_id if key != "id" else None) or prompt.label
            if label and len(found) > 1:
                name = f"{label} ({prompt.label})"
            render = _wrapped(prompt.render, item.get("prefix"), item.get("suffix"))
            yield replace(
                prompt,
                label=str(name),
                render=render,
                place=place.at(key),
                id=str(own_id) if own_id is not None else None,
            )

    def _files(self, name: str, place: Place) -> Iterator[Prompt]:
        folder = place.document.path.parent if place.document.path is not None else Path.cwd()
        names = [name]
        if glob.has_magic(name):
            pattern = os.path.join(glob.escape(str(folder)), name)
            names = [os.path.relpath(path, folder) for path in sorted(glob.glob(pattern))]
            if not names:
                raise ConfigError(place.problem(f'no file matches "{name}"'))
        for each in names:
            path = self.files.find(each, place)
            bodies = _read_file(path, place)
            for number, body in enumerate(bodies, 1):
                label = each if len(bodies) == 1 else f"{each}#{number}"
                at = Place(parse_yaml("", path)) if isinstance(body, str) else place
                yield Prompt(label, _renderer(body, at), place, file=path)


def _read_file(path: Path, place: Place) -> list[Any]:
    suffix = path.suffix.lower()
    if suffix not in (*_TEXT_FILES, *_DATA_FILES):
        known = ", ".join((*_TEXT_FILES, *_DATA_FILES))
        text = f'cannot read a prompt from "{path.name}" (known: {known})'
        raise ConfigError(place.problem(text))
    text = read_text(path)
    if suffix in _DATA_FILES:
        data = parse_yaml(text, path).data if suffix != ".json" else _json_or_none(text)
        if _is_chat(data):
            return [data]
    if suffix == ".txt":
        parts = re.split(r"^---[ \t]*$", text, flags=re.MULTILINE)
        return [part.strip() for part in parts if part.strip()] or [""]
    return [text.strip()]


def _json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None  # a template of JSON, not JSON


def _wrapped(render: Render, prefix: Any, suffix: Any) -> Render:
    if not prefix and not suffix:
        return render

    def wrapped(variables: Mapping[str, Any], unknown: Unknown) -> Any:
        body = render(variables, unknown)
        return f"{prefix or ''}{body}{suffix or ''}" if isinstance(body, str) else body

    return wrapped


# --- rendering ------------------------------------------------------------------------------------


def _renderer(body: Any, place: Place) -> Render:
    if isinstance(body, str):
        render = _text_renderer(body, place)

        def render_text(variables: Mapping[str, Any], unknown: Unknown) -> Any:
            text = as_text(render(variables, unknown))
            return _chat_in(text) or text

        return render_text
    parts = [
        {
            key: _text_renderer(value, place.at(at, key)) if isinstance(value, str) else value
            for key, value in message.items()
        }
        for at, message in enumerate(body)
    ]

    def render_chat(variables: Mapping[str, Any], unknown: Unknown) -> Any:
        return [
            {
                key: as_text(value(variables, unknown))
                if callable(value)
                else fill_vars(value, variables, unknown)
                for key, value in part.items()
            }
            for part in parts
        ]

    return render_chat


def _chat_in(text: str) -> Any:
    """Text that is a JSON list of messages, as promptfoo's users write chats."""
    if not text.lstrip().startswith("["):
        return None
    found = _json_or_none(text)
    return found if _is_chat(found) else None


def _text_renderer(text: str, place: Place) -> Render:
    if is_plain_template(text):
        return lambda variables, unknown: fill_vars(text, variables, unknown)
    return _jinja_renderer(text, place)


def _jinja_renderer(text: str, place: Place) -> Render:
    from jinja2 import TemplateError, TemplateSyntaxError

    from muster.evals.suites.prompt_jinja import compile_template

    try:
        render = compile_template(text)
    except TemplateSyntaxError as error:
        path = place.document.path
        message = f"not a valid template: {error.message}"
        if place.location or path is None:
            raise ConfigError(place.problem(f"{message} (line {error.lineno} of it)")) from None
        raise ConfigError(Problem(message, path, error.lineno)) from None

    def checked(variables: Mapping[str, Any], unknown: Unknown) -> str:
        try:
            return render(variables, unknown)
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise ConfigError(place.problem(f"the template fails: {error}")) from None

    return checked
