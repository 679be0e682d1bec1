"""From what is named on the command line to suite files."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from muster.errors import UsageError, nearest
from muster.evals.suites.files import SuiteFileKind

__all__ = ("SUITE_PATTERNS", "find_suites", "is_there")

SUITE_PATTERNS = (
    "*.eval.yaml",
    "*.eval.yml",
    "eval.yaml",
    "eval.yml",
    "promptfooconfig.yaml",
    "promptfooconfig.yml",
)
"""Names of the files in a folder, at any depth, that are suites."""

_PRUNED = frozenset(
    (".git", ".hg", ".svn", "node_modules", ".venv", "venv", "__pycache__", "site-packages")
)
_GENERATOR = re.compile(r"(?P<file>.+\.py):\w[\w.]*\Z")
_READABLE = re.compile(r"\.(ya?ml|json|(jsonl|ndjson|csv|tsv)(\.gz)?)\Z", re.IGNORECASE)
_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")


def find_suites(arguments: Sequence[str | Path], cwd: Path | None = None) -> list[Path]:
    """The suites that `arguments` name, sorted by path, each once.

    An argument is a file, `file.py:function`, a folder (its `SUITE_PATTERNS` at any depth) or a
    glob (`**`, `{a,b}`); `!…` takes away what it matches, wherever it stands.

    Raises:
        UsageError: an argument matches nothing, or nothing is left.
    """
    here = cwd or Path.cwd()
    wanted = [str(argument) for argument in arguments if not str(argument).startswith("!")]
    refused = [str(argument)[1:] for argument in arguments if str(argument).startswith("!")]
    if not wanted:
        raise UsageError("no suite is named; give a file, a folder or a glob")
    found = {path for argument in wanted for path in _named(argument, here)}
    for argument in refused:
        excluded = {path.resolve() for path in _matches(argument, here)}
        found = {
            path for path in found if excluded.isdisjoint((path.resolve(), *path.resolve().parents))
        }
    if not found:
        raise UsageError(f"no suite is left after {', '.join('!' + text for text in refused)}")
    return sorted(found)


def is_there(argument: str, here: Path) -> bool:
    """Whether `argument` is a file or a folder, seen from `here`, or a pattern."""
    generator = _GENERATOR.fullmatch(argument)
    return (
        argument.startswith("!")
        or (here / (generator["file"] if generator else argument)).exists()
        or glob.has_magic(argument)
        or _BRACES.search(argument) is not None
    )


def _named(argument: str, here: Path) -> set[Path]:
    path = here / argument
    generator = _GENERATOR.fullmatch(argument)
    if path.is_dir():
        found = set(_in_folder(path))
        if not found:
            raise UsageError(
                f"no suite in {path}: no {', '.join(SUITE_PATTERNS[:4])} at any depth; "
                "name other files by their path or a glob"
            )
        return found
    if path.is_file() or (generator is not None and (here / generator["file"]).is_file()):
        return {_tidy(path)}
    if glob.has_magic(argument) or _BRACES.search(argument):
        files = {file for file in _matches(argument, here) if _READABLE.search(file.name)}
        if not files:
            raise UsageError(f"no suite matches {argument}; a suite is {SuiteFileKind}")
        return files
    raise UsageError(_not_there(generator["file"] if generator else argument, here))


def _matches(pattern: str, here: Path) -> Iterator[Path]:
    if (here / pattern).exists():
        yield _tidy(here / pattern)
        return
    for text in _expanded(pattern):
        full = os.path.join(glob.escape(str(here)), text)
        for name in glob.iglob(full, recursive=True, include_hidden=True):
            path = Path(name)
            if _PRUNED.isdisjoint(path.relative_to(here).parts if _below(path, here) else ()):
                yield _tidy(path)


def _below(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder)


def _tidy(path: Path) -> Path:
    return Path(os.path.normpath(path))


def _expanded(pattern: str) -> Iterator[str]:
    """`a/{b,c}` as `a/b` and `a/c`."""
    braces = _BRACES.search(pattern)
    if braces is None:
        yield pattern
        return
    for choice in braces[1].split(","):
        yield from _expanded(pattern[: braces.start()] + choice + pattern[braces.end() :])


def _in_folder(folder: Path) -> Iterator[Path]:
    """The suites below `folder`; links are followed, but no folder is visited twice."""
    seen: set[str] = set()
    for base, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(base)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if name not in _PRUNED)
        for name in files:
            if any(fnmatchcase(name, pattern) for pattern in SUITE_PATTERNS):
                yield _tidy(Path(base, name))


def _not_there(argument: str, here: Path) -> str:
    path = here / argument
    near: list[str] = []
    if path.parent.is_dir():
        near = nearest(path.name, [entry.name for entry in path.parent.iterdir()])
    hint = f'; did you mean "{Path(argument).with_name(near[0])}"?' if near else ""
    return f"no such file or folder: {argument}{hint}"
