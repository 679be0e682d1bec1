"""What a process holds: tasks, connections, file descriptors, children, temporary files."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from muster.testing.environment import Environment
from muster.testing.trial import until

__all__ = ("Holdings", "private_temporary_folder")

PROC = Path("/proc")


@dataclass(frozen=True)
class Holdings:
    """A picture of them; where the system has no `/proc`, without descriptors and children."""

    tasks: int
    connections: int
    descriptors: dict[str, str]
    children: frozenset[int]
    files: frozenset[str]

    @classmethod
    def now(cls, environment: Environment, folder: Path) -> Holdings:
        """As things are."""
        return cls(
            len(asyncio.all_tasks()),
            environment.connections,
            _descriptors(),
            frozenset(_children(os.getpid())),
            frozenset(str(path.relative_to(folder)) for path in folder.rglob("*")),
        )

    async def left(
        self,
        environment: Environment,
        folder: Path,
        seconds: float,
        *,
        all_connections: bool = False,
    ) -> str:
        """What is held beyond this after `seconds`, in words; empty as soon as it is nothing."""
        allowed = 0 if all_connections else self.connections

        def more() -> list[str]:
            now = Holdings.now(environment, folder)
            found = []
            if now.tasks > self.tasks:
                found.append(f"{now.tasks - self.tasks} tasks{_names_of_tasks()}")
            if now.connections > allowed:
                found.append(f"{now.connections - allowed} open connections")
            if children := now.children - self.children:
                found.append(f"{len(children)} processes ({', '.join(map(_name, children))})")
            if len(now.descriptors) > len(self.descriptors):
                new = [what for fd, what in now.descriptors.items() if fd not in self.descriptors]
                extra = len(now.descriptors) - len(self.descriptors)
                found.append(f"{extra} file descriptors ({', '.join(new[:4])})")
            if files := now.files - self.files:
                found.append(f"{len(files)} temporary files ({', '.join(sorted(files)[:3])})")
            return found

        await until(lambda: not more(), seconds)
        return ", ".join(more())


@contextmanager
def private_temporary_folder() -> Iterator[Path]:
    """A folder of our own for everybody's temporary files, while the block runs."""
    with tempfile.TemporaryDirectory(prefix="muster-check-") as made:
        before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
        tempfile.tempdir = os.environ["TMPDIR"] = made
        try:
            yield Path(made)
        finally:
            tempfile.tempdir = before
            if variable is None:
                os.environ.pop("TMPDIR", None)
            else:
                os.environ["TMPDIR"] = variable


def _descriptors() -> dict[str, str]:
    found = {}
    folder = PROC / "self" / "fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return {}
    for name in names:
        try:
            found[name] = os.readlink(folder / name)
        except OSError:
            continue  # it was the one that `listdir` needed
    return found


def _children(parent: int) -> set[int]:
    """All processes below `parent`; zombies count: nobody has reaped them."""
    parents: dict[int, list[int]] = {}
    try:
        numbers = [name for name in os.listdir(PROC) if name.isdigit()]
    except OSError:
        return set()
    for name in numbers:
        try:
            stat = (PROC / name / "stat").read_text()
        except OSError:
            continue
        parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(name))
    found: set[int] = set()
    waiting = [parent]
    while waiting:
        for child in parents.get(waiting.pop(), ()):
            found.add(child)
            waiting.append(child)
    return found


def _name(process: int) -> str:
    try:
        return (PROC / str(process) / "comm").read_text().strip()
    except OSError:
        return str(process)


def _names_of_tasks() -> str:
    current = asyncio.current_task()
    names = [
        getattr(task.get_coro(), "__qualname__", task.get_name())
        for task in asyncio.all_tasks()
        if task is not current
    ]
    return f" ({', '.join(sorted(names)[:4])})" if names else ""
