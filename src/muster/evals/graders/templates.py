"""Included lists of assertions: `- include: name` or `- include: path/to/file.yaml`."""

from __future__ import annotations

from pathlib import Path

from muster.config.document import Document, read_yaml
from muster.config.project import resolve_inside
from muster.errors import ConfigError, MusterError, nearest

__all__ = ("TemplateFiles",)

_FOLDERS = (".muster/templates", ".agentv/templates")
_SUFFIXES = (".yaml", ".yml")
_LISTS = ("assertions", "assert")
_KEYS = (*_LISTS, "name", "description", "$schema")


class TemplateFiles:
    """The template files of a project, each read once."""

    def __init__(self) -> None:
        self._read: dict[Path, tuple[Document, str]] = {}
        self._others: dict[Path, None] = {}

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that were read."""
        return (*self._read, *self._others)

    def note(self, path: Path) -> None:
        """A grader has read the file."""
        self._others[path] = None

    def find(self, name: str, base_dir: Path, root: Path) -> Path:
        """The file that `name` means for a file in the folder `base_dir`: a path from there, or
        a template in the nearest `.muster/templates` or `.agentv/templates` up to `root`.

        Raises:
            MusterError: there is none, or it is outside `root`.
        """
        name = name.removeprefix("file://")
        if "/" in name or name.endswith(_SUFFIXES):
            path = resolve_inside(base_dir, name, root)
            if not path.is_file():
                raise MusterError(f'no such file "{name}" (looked for {path})')
            return path
        root = root.resolve()
        known: list[str] = []
        folder = base_dir.resolve()
        for level in (folder, *folder.parents):
            if not level.is_relative_to(root):
                break
            for templates in _FOLDERS:
                for suffix in _SUFFIXES:
                    if (level / templates / (name + suffix)).is_file():
                        return resolve_inside(level / templates, name + suffix, root)
                known += [file.stem for file in (level / templates).glob("*.y*ml")]
        near = nearest(name, known)
        hint = f' (did you mean "{near[0]}"?)' if near else ""
        searched = f"{_FOLDERS[0]} of {folder} or of a folder above it"
        raise MusterError(f'no template "{name}" in {searched}{hint}')

    def read(self, path: Path) -> tuple[Document, str]:
        """The file, and the key that its list of assertions stands under.

        Raises:
            ConfigError: it is no mapping with such a list.
        """
        if path not in self._read:
            self._read[path] = _read(path)
        return self._read[path]


def _read(path: Path) -> tuple[Document, str]:
    document = read_yaml(path)
    data = document.data
    key = next((key for key in _LISTS if isinstance(data, dict) and key in data), None)
    if key is None:
        text = "a template is a mapping with `assertions`, a list"
        raise ConfigError(document.problem((), text))
    known = ", ".join(_KEYS)
    problems = [
        document.problem((name,), f'unknown field "{name}" (known: {known})', of_key=True)
        for name in data
        if name not in _KEYS
    ]
    if problems:
        raise ConfigError(problems)
    return document, key
