"""Where a run comes from: versions, machine, and the commit of the project."""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path
from typing import Any

from muster import __version__

__all__ = ("git_commit", "versions")


def versions() -> dict[str, Any]:
    """What the results may depend on."""
    return {
        "muster": __version__,
        "python": platform.python_version(),
        "platform": f"{sys.platform}-{platform.machine()}",
    }


def git_commit(start: Path) -> str | None:
    """The commit that the checkout around `start` is at; `None` outside one, or before its first.

    Read from `.git` itself (gitrepository-layout(5)): starting `git` costs more than a small run.
    """
    for folder in (start, *start.parents):
        marker = folder / ".git"
        if marker.exists():
            try:
                return _head(_git_dir(marker))
            except (OSError, ValueError):
                return None
    return None


def _git_dir(marker: Path) -> Path:
    if marker.is_dir():
        return marker
    text = marker.read_text().strip()  # a worktree or submodule: `gitdir: PATH`
    return (marker.parent / text.removeprefix("gitdir:").strip()).resolve()


def _head(git_dir: Path) -> str | None:
    head = (git_dir / "HEAD").read_text().strip()
    if not head.startswith("ref:"):
        return _commit(head)
    name = head.removeprefix("ref:").strip()
    common = git_dir
    if (git_dir / "commondir").exists():
        common = (git_dir / (git_dir / "commondir").read_text().strip()).resolve()
    for place in (git_dir, common):
        if (place / name).exists():
            return _commit((place / name).read_text().strip())
    packed = common / "packed-refs"
    if packed.exists():
        for line in packed.read_text().splitlines():
            commit, _, reference = line.partition(" ")
            if reference == name:
                return _commit(commit)
    return None


def _commit(text: str) -> str | None:
    return text if re.fullmatch(r"[0-9a-f]{40,64}", text) else None
