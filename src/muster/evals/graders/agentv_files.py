"""AgentV's assertions of one's own: a type that is the name of a file in `.agentv/assertions` or
`.agentv/graders` is a program that judges, as `script` runs it."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from muster.evals.graders.base import Grade, GraderFactory, GraderSpec

__all__ = ("program_called",)

FOLDERS = (".agentv/assertions", ".agentv/graders")

_INTERPRETERS = {
    ".py": (sys.executable,),
    ".js": ("bun", "node"),
    ".mjs": ("bun", "node"),
    ".cjs": ("bun", "node"),
    ".ts": ("bun", "tsx"),
    ".mts": ("bun", "tsx"),
    ".sh": ("sh",),
}
"""What runs a file, by its suffix: the first that is there."""

_OF_SCRIPTS = ("provider", "target", "cwd", "timeout_seconds", "protocol")


def program_called(kind: str, start: Path, root: Path) -> GraderFactory | None:
    """What runs the file called `kind`, from the folder `start` up to `root`; `None` if there is
    none."""
    path = _file_called(kind, start.resolve(), root.resolve())
    if path is None:
        return None

    def make(spec: GraderSpec) -> Grade:
        from muster.evals.graders.script import Script

        config = dict(spec.config)
        given = {key: config.pop(key) for key in _OF_SCRIPTS if key in config}
        inner = config.pop("config", {})
        spec.reads(path)
        return Script(
            replace(
                spec,
                config={"command": _command(path), "config": {**config, **inner}, **given},
            )
        )

    return make


def _file_called(kind: str, start: Path, root: Path) -> Path | None:
    if "/" in kind or kind.startswith("."):
        return None
    for folder in (start, *start.parents):
        for name in FOLDERS:
            for suffix in _INTERPRETERS:
                path = folder / name / f"{kind}{suffix}"
                if path.is_file():
                    return path
        if folder == root:
            break
    return None


def _command(path: Path) -> list[str]:
    """The command that runs it.

    Raises:
        ValueError: nothing is there that could.
    """
    names = _INTERPRETERS[path.suffix]
    for name in names:
        if shutil.which(name) is not None:
            return [name, *(["run"] if name == "bun" else []), str(path)]
    raise ValueError(f"{path} needs {' or '.join(names)}, and there is none on PATH")
