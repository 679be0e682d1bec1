"""The folder that an answer was made in, as a judge may look at it: to list, read and search files.
Nothing in it can be changed, and nothing outside of it be seen."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from muster.evals.graders.llm_sandbox import marked
from muster.provider import Tool
from muster.tools.base import ToolFailed

__all__ = ("WorkspaceFiles",)

MAX_LISTED = 500
MAX_FOUND = 100
MAX_TEXT = 50_000
"""Characters of a file that are shown at once."""

MAX_BYTES = 5_000_000
"""Of a file, beyond which it is neither read nor searched."""

_PATH = {"type": "string", "description": "Seen from the folder; `.` is all of it."}


def _tool(name: str, description: str, *required: str, **properties: Any) -> Tool:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return Tool(name, description, {**schema, "additionalProperties": False})


class WorkspaceFiles:
    """The files below `root`. What they hold is shown between the marks of the judge's rules."""

    tools = (
        _tool("list_files", "The files of a folder and of those below it.", path=_PATH),
        _tool(
            "read_file",
            "The lines of a text file.",
            "path",
            path=_PATH,
            first_line={"type": "integer", "minimum": 1},
        ),
        _tool(
            "search_files",
            "The lines that hold a text, letter case aside.",
            "text",
            text={"type": "string", "minLength": 1},
            path=_PATH,
        ),
    )

    def __init__(self, root: Path, mark: str) -> None:
        self.root = root.resolve()
        self._mark = mark

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """What a tool finds.

        Raises:
            ToolFailed: there is no such tool or file.
        """
        work = {"list_files": self._list, "read_file": self._read, "search_files": self._search}
        if name not in work:
            raise ToolFailed(f"there is no tool {name}; known: {', '.join(work)}")
        try:
            text = await asyncio.to_thread(work[name], arguments)
        except (OSError, ValueError) as error:
            raise ToolFailed(str(error)) from None
        if self._mark in text:
            raise ToolFailed("what is there cannot be shown: it holds the marks of your rules")
        return marked(text, self._mark)

    def _path(self, arguments: Mapping[str, Any]) -> Path:
        name = arguments.get("path", ".")
        if not isinstance(name, str):
            raise ToolFailed("path is a text")
        path = (self.root / name).resolve()
        if not path.is_relative_to(self.root):
            raise ToolFailed(f"{name} is outside of the folder")
        if not path.exists():
            raise ToolFailed(f"there is no {name}")
        return path

    def _files(self, path: Path) -> Iterator[Path]:
        """Regular files below, or the file itself; links are left out, and git's own folder."""
        if path.is_file():
            yield path
            return
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(name for name in folders if name != ".git")
            for name in sorted(names):
                file = Path(folder, name)
                if file.is_file() and not file.is_symlink():
                    yield file

    def _told(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _list(self, arguments: Mapping[str, Any]) -> str:
        lines: list[str] = []
        for file in self._files(self._path(arguments)):
            if len(lines) == MAX_LISTED:
                lines.append("and more")
                break
            lines.append(f"{self._told(file)} ({file.stat().st_size:,} bytes)")
        return "\n".join(lines) or "no files"

    def _read(self, arguments: Mapping[str, Any]) -> str:
        path, first = self._path(arguments), arguments.get("first_line", 1)
        if isinstance(first, bool) or not isinstance(first, int) or first < 1:
            raise ToolFailed("first_line is a number from 1")
        if not path.is_file():
            raise ToolFailed(f"{arguments.get('path')} is no file")
        if path.stat().st_size > MAX_BYTES:
            raise ToolFailed(f"it is larger than {MAX_BYTES:,} bytes")
        shown: list[str] = []
        left = MAX_TEXT
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                if number < first:
                    continue
                if len(line) > left:
                    shown.append(f"{line[:left]}\n[cut short; go on from line {number}]")
                    break
                shown.append(line)
                left -= len(line)
        return "".join(shown) or "nothing"

    def _search(self, arguments: Mapping[str, Any]) -> str:
        wanted = arguments.get("text")
        if not isinstance(wanted, str) or not wanted:
            raise ToolFailed("text is what to look for")
        found: list[str] = []
        for file in self._files(self._path(arguments)):
            if file.stat().st_size > MAX_BYTES:
                continue
            text = file.read_text(encoding="utf-8", errors="replace")
            for number, line in enumerate(text.splitlines(), 1):
                if wanted.casefold() in line.casefold():
                    found.append(f"{self._told(file)}:{number}: {line.strip()[:300]}")
                    if len(found) == MAX_FOUND:
                        return "\n".join([*found, "and more"])
        return "\n".join(found) or "not found"
