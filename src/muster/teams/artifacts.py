"""Files that steps leave: a folder of its own for each, looked at when the step is done."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from muster.errors import MusterError
from muster.teams.definition import Step, Team
from muster.tools.artifacts import current

if TYPE_CHECKING:
    from muster.teams.context import RunContext, Unit

__all__ = ("artifacts_of", "collect", "missing", "wanted", "workplace")


def artifacts_of(team: Team, root: Path) -> Path:
    """Where the runs of the team leave their artifacts, each in a folder with its id."""
    path = (team.artifact_store or {}).get("path")
    return Path(path) if path else root / ".muster" / "artifacts"


@contextmanager
def workplace(context: RunContext, step: Step, unit: Unit) -> Iterator[Path | None]:
    """A fresh folder for the step's artifacts, where its Python tools find it too; `None` when
    it declares none.

    Raises:
        MusterError: it cannot be made.
    """
    if not step.artifacts:
        yield None
        return
    folder = _folder(context, unit)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise MusterError(f"{folder}: cannot be made: {error.strerror}") from error
    token = current.set(folder)
    try:
        yield folder
    finally:
        current.reset(token)


def collect(context: RunContext, step: Step, unit: Unit) -> dict[str, str]:
    """The step's artifacts by name: absolute paths, of those that are there."""
    if not step.artifacts:
        return {}
    folder = _folder(context, unit)
    return {
        artifact.name: str(folder / artifact.name)
        for artifact in step.artifacts
        if _is_file(folder / artifact.name)
    }


def missing(step: Step, found: dict[str, str]) -> str | None:
    """What the step should have left and has not; `None` when all is there."""
    names = [artifact.name for artifact in step.artifacts if artifact.name not in found]
    if not names:
        return None
    told = ", ".join(f'"{name}"' for name in names)
    return f"left no {told} in its folder for artifacts ($AGENT_ARTIFACT_DIR)"


def wanted(step: Step) -> str:
    """What the agent is told of the files that it must leave; nothing if there are none."""
    folder = current.get()
    if folder is None or not step.artifacts:
        return ""
    lines = [
        f"- {artifact.name}: {artifact.description}"
        if artifact.description
        else f"- {artifact.name}"
        for artifact in step.artifacts
    ]
    return f"\nLeave these files in the folder {folder}:\n" + "\n".join(lines) + "\n"


def _folder(context: RunContext, unit: Unit) -> Path:
    """`<run>/<step>`; further rounds of a loop, and items, have their own: `<step>@1`,
    `<step>[3]`. The step's name cannot lead elsewhere."""
    step, iteration, item = unit
    name = quote(step, safe=" ")
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    name += f"@{iteration}" if iteration else ""
    name += f"[{item}]" if item is not None else ""
    return context.folder.absolute() / name


def _is_file(path: Path) -> bool:
    """A file by itself: a link could show what lies elsewhere."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
