"""From what a test writes as its input or expected output to messages, with its files found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from muster.config.document import Place
from muster.errors import ConfigError, nearest
from muster.provider import FilePart, ImagePart, Message, Part, TextPart

__all__ = ("FileFinder", "take_files", "to_messages")

ROLES = ("system", "user", "assistant", "tool")
_BLOCKS: dict[str, tuple[str, ...]] = {
    "text": ("value", "text"),
    "file": ("value", "path"),
    "image": ("value", "source", "url", "image_url"),
}
"""Kinds of content blocks, and the names under which each may hold its value."""

_URLS = ("data:", "http://", "https://")


class FileFinder:
    """Finds files that tests name: beside the file the test stands in, then from the suite's
    folder up to the project's root."""

    def __init__(self, base_dir: Path, root: Path | None) -> None:
        """`root` is the folder that no file may be outside of; `None` allows all."""
        self._root = root.resolve() if root is not None else None
        self._folders = [base_dir]
        if self._root is not None and base_dir.resolve().is_relative_to(self._root):
            for folder in base_dir.resolve().parents:
                if not folder.is_relative_to(self._root):
                    break
                self._folders.append(folder)
        self._known: dict[tuple[Path | None, str], Path] = {}

    def find(self, name: str, place: Place) -> Path:
        """The absolute path of the file `name`, which is named at `place`.

        Raises:
            ConfigError: it is not there, or outside the project.
        """
        beside = place.document.path.parent if place.document.path is not None else None
        key = (beside, name)
        path = self._known.get(key)
        if path is None:
            path = self._known[key] = self._search(name, beside, place)
        return path

    def check(self, path: Path, place: Place) -> Path:
        """The file at `path`, links followed. Raises `ConfigError` if that is outside."""
        path = path.resolve()
        if self._root is not None and not path.is_relative_to(self._root):
            text = f'"{path.name}" is outside the project ({self._root})'
            raise ConfigError(place.problem(text))
        return path

    def _search(self, name: str, beside: Path | None, place: Place) -> Path:
        relative = name.removeprefix("file://")
        folders = self._folders
        if beside is not None and beside not in folders:
            folders = [beside, *folders]
        outside = None
        for folder in folders:
            path = (folder / relative).resolve() if "\0" not in relative else folder
            if not path.is_file():
                continue
            if self._root is None or path.is_relative_to(self._root):
                return path
            outside = path
        if outside is not None:
            text = f'"{name}" is outside the project ({self._root})'
            raise ConfigError(place.problem(text))
        if any((folder / relative).is_dir() for folder in folders):
            raise ConfigError(place.problem(f'"{name}" is a folder; name the files in it'))
        around = (self._folders[0] / relative).parent
        entries = [entry.name for entry in around.iterdir()] if around.is_dir() else []
        near = nearest(Path(relative).name, entries)
        hint = f'did you mean "{near[0]}"?' if near else f"looked in {_listed(folders)}"
        raise ConfigError(place.problem(f'no such file "{name}" ({hint})'))


def _listed(folders: list[Path]) -> str:
    if len(folders) < 3:
        return " and ".join(map(str, folders))
    return f"{folders[0]} and up to {folders[-1]}"


def to_messages(
    value: Any, place: Place, files: FileFinder, *, role: str = "user"
) -> tuple[Message, ...]:
    """`value`, which stands at `place`, as messages: text and data become one message of `role`;
    a mapping with `role` and `content`, or a list of such, is taken as it is.

    Raises:
        ConfigError: a message or a block of its content is not of the right form.
    """
    if isinstance(value, str):
        return (Message(role, value),)
    if isinstance(value, Mapping):
        if "role" in value and "content" in value:
            return (_message(value, place, files),)
        return (Message(role, value),)
    if isinstance(value, list):
        if value and all(isinstance(item, Mapping) and "role" in item for item in value):
            return tuple(_message(item, place.at(at), files) for at, item in enumerate(value))
        if value and all(map(_is_block if role == "user" else _is_known_block, value)):
            return (Message(role, _blocks(value, place, files)),)
        if role == "user":
            raise ConfigError(place.problem(_unreadable(value)))
        return (Message(role, value),)
    if role == "user" and (value is None or isinstance(value, bool)):
        raise ConfigError(place.problem("expected text or messages"))
    # Numbers are common answers, and sometimes questions: `expected_output: 42`.
    return (Message(role, str(value) if not isinstance(value, bool) else str(value).lower()),)


def take_files(messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], tuple[Path, ...]]:
    """The messages without the files of the last user message, and those files."""
    for at in range(len(messages) - 1, -1, -1):
        message = messages[at]
        if message.role != "user":
            continue
        content = message.content
        if not isinstance(content, tuple):
            return messages, ()
        paths = tuple(part.path for part in content if isinstance(part, FilePart))
        if not paths:
            return messages, ()
        rest: object = tuple(part for part in content if not isinstance(part, FilePart))
        if all(isinstance(part, TextPart) for part in content if not isinstance(part, FilePart)):
            rest = message.text
        return (
            *messages[:at],
            Message("user", rest, name=message.name),
            *messages[at + 1 :],
        ), paths
    return messages, ()


def _unreadable(value: list[Any]) -> str:
    if not value:
        return "is empty; expected text or messages"
    return "expected text, messages ({role, content}) or blocks ({type, value})"


def _message(value: Mapping[str, Any], place: Place, files: FileFinder) -> Message:
    role = value["role"]
    if role not in ROLES:
        near = nearest(str(role), ROLES)
        hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(ROLES)}"
        raise ConfigError(place.at("role").problem(f'unknown role "{role}" ({hint})'))
    unknown = value.keys() - _MESSAGE_FIELDS
    if unknown:
        name = min(unknown)
        near = nearest(name, _MESSAGE_FIELDS)
        hint = f'did you mean "{near[0]}"?' if near else "a message is {role, content}"
        text = f'unknown field "{name}" ({hint})'
        raise ConfigError(place.at(name).problem(text, of_key=True))
    content = value.get("content")
    if isinstance(content, list) and content and all(map(_is_block, content)):
        content = _blocks(content, place.at("content"), files)
    elif content is None:
        content = ""
    if len(value) == 2:
        return Message(role, content)
    try:
        return Message.from_mapping({**value, "content": content})
    except ValueError as error:
        raise ConfigError(place.problem(str(error))) from None


_MESSAGE_FIELDS = frozenset(
    {"role", "content", "name", "tool_calls", "toolCalls", "tool_call_id", "toolCallId"}
    | {"metadata", "start_time", "end_time", "duration_ms", "token_usage"}
    | {"startTime", "endTime", "durationMs", "tokenUsage"}
)


def _is_block(item: Any) -> bool:
    return isinstance(item, Mapping) and isinstance(item.get("type"), str)


def _is_known_block(item: Any) -> bool:
    """Stricter, for expected outputs: any list of mappings may be the data that is expected."""
    return (
        _is_block(item)
        and item["type"] in _BLOCKS
        and any(isinstance(item.get(name), str) for name in _BLOCKS[item["type"]])
    )


def _blocks(items: list[Any], place: Place, files: FileFinder) -> tuple[Part, ...]:
    return tuple(_block(item, place.at(at), files) for at, item in enumerate(items))


def _block(item: Mapping[str, Any], place: Place, files: FileFinder) -> Part:
    kind = item["type"]
    if kind == "image_url":  # as OpenAI's API writes it
        kind = "image"
    if kind not in _BLOCKS:
        near = nearest(kind, _BLOCKS)
        hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(_BLOCKS)}"
        raise ConfigError(place.at("type").problem(f'unknown block "{kind}" ({hint})'))
    name = next((name for name in _BLOCKS[kind] if name in item), None)
    value = item[name] if name is not None else None
    if isinstance(value, Mapping) and isinstance(value.get("url"), str):
        value = value["url"]
    if name is None or not isinstance(value, str):
        raise ConfigError(place.problem(f"a {kind} block needs `value`, as text"))
    media_type = item.get("media_type")
    if media_type is not None and not isinstance(media_type, str):
        raise ConfigError(place.at("media_type").problem("expected text, such as image/png"))
    if kind == "text":
        return TextPart(value)
    if kind == "file":
        return FilePart(files.find(value, place.at(name)), media_type)
    source = value if value.startswith(_URLS) else str(files.find(value, place.at(name)))
    return ImagePart(source, media_type)
