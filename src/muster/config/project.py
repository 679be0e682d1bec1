"""The project a suite belongs to: its root, its `.muster` folders, and the files it may read.

A project reaches from the suite's folder up to the nearest folder with `.git`. Without one, it
reaches up to the highest folder that holds `.muster`, `.agentv`, `targets.yaml` or
`providers.yaml`, but not above the user's home; failing that, it is the suite's folder alone. The
walk never enters a folder like `/tmp`, where anybody may leave a `.muster` for others to run.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec

from muster.errors import MusterError

__all__ = ("OutsideProject", "Project", "find_project", "resolve_inside")

_MARKERS = (".muster", ".agentv", "targets.yaml", "targets.yml", "providers.yaml")


class OutsideProject(MusterError):
    """A file that is named lies outside the project."""


class Project(msgspec.Struct, frozen=True):
    """Where a suite stands. `folders` are the suite's own folder first, the root last."""

    folders: tuple[Path, ...]

    @property
    def start(self) -> Path:
        """The suite's folder."""
        return self.folders[0]

    @property
    def root(self) -> Path:
        """The project's outermost folder."""
        return self.folders[-1]

    @property
    def results_dir(self) -> Path:
        """Where runs are kept: `.muster/results` in the root."""
        return self.root / ".muster" / "results"

    @property
    def provider_folders(self) -> list[Path]:
        """The `.muster/providers` folders there are, nearest first."""
        return self.find_all(".muster/providers")

    @property
    def grader_folders(self) -> list[Path]:
        """The `.muster/graders` folders there are, nearest first."""
        return self.find_all(".muster/graders")

    def find_all(self, relative: str) -> list[Path]:
        """What is called `relative` in any of the folders, nearest first."""
        return [path for folder in self.folders if (path := folder / relative).exists()]


def find_project(start: Path) -> Project:
    """The project that `start`, a suite or its folder, belongs to."""
    folder = start.resolve()
    if folder.is_file():
        folder = folder.parent
    chain = [folder]
    for level in folder.parents:
        if _anybody_writes(level):
            break
        chain.append(level)
    for number, level in enumerate(chain):
        if (level / ".git").exists():
            return Project(tuple(chain[: number + 1]))
    return Project(tuple(chain[: _highest_marked(chain) + 1]))


def _highest_marked(chain: list[Path]) -> int:
    home = Path(os.path.expanduser("~")).resolve()
    highest = 0
    for number, level in enumerate(chain[1:], 1):
        if level.parent == level:
            break
        # ~/.agentv is AgentV's own state, not a project's folder.
        names = [name for name in _MARKERS if not (level == home and name == ".agentv")]
        if any((level / name).exists() for name in names):
            highest = number
        if level == home:
            break
    return highest


def _anybody_writes(folder: Path) -> bool:
    """True for folders like `/tmp`: world-writable, with the sticky bit."""
    shared = stat.S_ISVTX | stat.S_IWOTH
    return folder.stat().st_mode & shared == shared


def resolve_inside(base: Path, relative: str | Path, root: Path) -> Path:
    """The absolute path of `relative`, seen from the folder `base`; it need not exist.

    Symbolic links are followed, so a link cannot lead out of `root` either.

    Raises:
        OutsideProject: it is not in `root`.
    """
    try:
        path = (base / relative).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise OutsideProject(f'"{relative}" is not a usable path: {error}') from None
    if not path.is_relative_to(root.resolve()):
        raise OutsideProject(f'"{relative}" is outside the project, {root}')
    return path
