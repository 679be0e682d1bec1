"""`runtime: docker`: what stands before a command so that it runs in a container.

The command's folder, and the folder of its prompt and output files, are mounted where they are
outside, so that all paths hold. There is no network unless the target names one; variables are
passed by name, so that no value stands on a command line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from muster.providers.settings import ProviderSettings

__all__ = ("Container", "DockerSettings")

_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class DockerSettings(ProviderSettings):
    """The container that a command runs in."""

    image: str
    """The image; the command must be in it."""
    engine: str = "docker"
    """The program that starts containers: `docker`, `podman`, or a path."""
    network: str = "none"
    """`none`, or a network that the engine knows; an agent that asks a model needs one."""
    user: str | None = None
    """`uid:gid`; default: who runs Muster, so that what is written can be removed."""
    mounts: tuple[str, ...] = ()
    """More folders, `outside:inside` or `outside:inside:ro`; relative ones start at the targets
    file."""
    env: tuple[str, ...] = ()
    """Names of variables to pass on; their values are the command's own (`env` of the target)."""
    memory: str | None = None
    """The most memory, e.g. `4g`."""
    pids: Annotated[int, Field(gt=0)] | None = 512
    """The most processes."""
    args: tuple[str, ...] = ()
    """More arguments for the engine, before the image."""

    @field_validator("image")
    @classmethod
    def _is_an_image(cls, image: str) -> str:
        if not _IMAGE.match(image):
            raise ValueError(f"{image!r} is not the name of an image")
        return image

    @field_validator("env")
    @classmethod
    def _are_names(cls, env: tuple[str, ...]) -> tuple[str, ...]:
        for name in env:
            if not _VARIABLE.match(name):
                raise ValueError(f"{name!r} is not the name of a variable; values go into `env:`")
        return env

    @field_validator("mounts")
    @classmethod
    def _are_mounts(cls, mounts: tuple[str, ...]) -> tuple[str, ...]:
        for mount in mounts:
            parts = mount.split(":")
            good = len(parts) == 2 or (len(parts) == 3 and parts[2] in ("ro", "rw"))
            if not good or not parts[0] or not parts[1].startswith("/"):
                raise ValueError(f'{mount!r}: expected "outside:/inside" or "outside:/inside:ro"')
        return mounts


class Container:
    """Makes the commands that start, and end, one container a call."""

    def __init__(
        self, settings: DockerSettings, base_dir: Path, variables: Sequence[str] = ()
    ) -> None:
        """`variables`: names to pass on besides those of the settings."""
        self._settings = settings
        names = dict.fromkeys((*variables, *settings.env))
        fixed = [f"--network={settings.network}"]
        fixed.append(f"--user={settings.user or f'{os.getuid()}:{os.getgid()}'}")
        fixed += ["--cap-drop=ALL", "--security-opt=no-new-privileges"]
        if settings.memory is not None:
            fixed.append(f"--memory={settings.memory}")
        if settings.pids is not None:
            fixed.append(f"--pids-limit={settings.pids}")
        for mount in settings.mounts:
            outside, _, inside = mount.partition(":")
            fixed += ["--volume", f"{(base_dir / outside).resolve()}:{inside}"]
        for name in names:
            fixed += ["--env", name]
        self._fixed = fixed

    def argv(
        self,
        name: str,
        argv: Sequence[str],
        cwd: Path,
        folder: str | None,
        files: Sequence[str] = (),
        *,
        stdin: bool = False,
    ) -> list[str]:
        """`argv` in a container called `name`, in `cwd`; `folder` holds the prompt and the output,
        `files` may be read; with `stdin` it is given our standard input."""
        settings = self._settings
        mounted = ["--volume", f"{cwd}:{cwd}"]
        for path in files:
            if not Path(path).is_relative_to(cwd):
                mounted += ["--volume", f"{path}:{path}:ro"]
        if folder is not None:
            mounted += ["--volume", f"{folder}:{folder}"]
        return [
            *(settings.engine, "run", "--rm", "--init", f"--name={name}"),
            *(("--interactive",) if stdin else ()),
            *self._fixed,
            *mounted,
            f"--workdir={cwd}",
            *settings.args,
            settings.image,
            *argv,
        ]

    def removal(self, name: str) -> list[str]:
        """What ends the container called `name`, if it still runs: ending the engine's command
        does not."""
        return [self._settings.engine, "rm", "--force", name]
