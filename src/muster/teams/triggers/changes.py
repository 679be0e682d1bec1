"""Whether files have changed. Not every system tells it, so they are glanced at."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

__all__ = ("Stamp", "stamp_of")

Stamp = frozenset[tuple[str, int, int, int]]
"""Name, inode, size and time of each file; the same as long as nothing has changed."""

_SUFFIXES = (".yaml", ".yml", ".json")


def stamp_of(paths: Iterable[Path], tree: Path | None = None) -> Stamp:
    """The files as they are now; of a folder, the manifests in it, and of the folder `tree`
    all that is below it."""
    found = set()
    for path in (*paths, *([] if tree is None else [tree])):
        for file in _files(path) if path != tree else path.rglob("*"):
            try:
                seen = file.stat()
            except OSError:
                continue  # gone: that is a change, too
            found.add((str(file), seen.st_ino, seen.st_size, seen.st_mtime_ns))
    return frozenset(found)


def _files(path: Path) -> list[Path]:
    try:
        if path.is_dir():
            return [file for file in path.iterdir() if file.suffix in _SUFFIXES]
    except OSError:
        return []
    return [path]
