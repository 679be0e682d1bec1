"""The settings of `provider: cli`, as they stand in `targets.yaml`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from muster.providers.cli_command import Command, check_files_format
from muster.providers.cli_response import CliResponse
from muster.providers.container import DockerSettings
from muster.providers.settings import ProviderSettings
from muster.providers.workspace import WorkspaceSettings

__all__ = ("CliSettings", "CommandSettings", "HealthCheckSettings", "RunSettings")


class HealthCheckSettings(ProviderSettings):
    """A URL that must answer with a status below 400, or a command that must exit with 0."""

    url: str | None = None
    command: str | list[str] | None = None
    cwd: str | None = None
    """Where the command runs; default: where the target's command does."""
    timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 10.0

    @field_validator("url")
    @classmethod
    def _http(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError(f'"{url}" does not begin with http:// or https://')
        return url

    @field_validator("command")
    @classmethod
    def _compiles(cls, command: str | list[str] | None) -> str | list[str] | None:
        if command is not None:
            Command(command, allowed=())
        return command

    @model_validator(mode="after")
    def _one_of_them(self) -> HealthCheckSettings:
        if (self.url is None) == (self.command is None):
            raise ValueError("a healthcheck has either url or command")
        return self


class CommandSettings(ProviderSettings):
    """Where a command runs, and with which variables."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    cwd: str | None = None
    """Where it runs, relative to the targets file; default: the folder of the targets file."""
    env: dict[str, str] | list[str] = Field(default_factory=dict)
    """Variables to set, or names of variables to pass on where `inherit_env` is false."""
    inherit_env: bool = True
    """False: the command sees only PATH and what `env` names."""

    @field_validator("env")
    @classmethod
    def _can_be_variables(cls, env: dict[str, str] | list[str]) -> dict[str, str] | list[str]:
        for name in env:
            if not name or "=" in name or "\0" in name:
                raise ValueError(f"{name!r} cannot name a variable")
        return env

    def environment(self, ambient: Mapping[str, str]) -> dict[bytes, bytes]:
        """The command's variables, made from those around us, as the system takes them."""
        named = self.env
        if self.inherit_env:
            found = dict(ambient)
        else:
            kept = ("PATH", *named) if isinstance(named, list) else ("PATH",)
            found = {name: ambient[name] for name in kept if name in ambient}
            found.setdefault("PATH", os.defpath)
        if not isinstance(named, list):
            found |= named
        return {os.fsencode(name): os.fsencode(value) for name, value in found.items()}


class RunSettings(CommandSettings):
    """What commands and coding agents can say in common of how they are run."""

    workspace: WorkspaceSettings | None = None
    """A folder of its own for each call, from a template or a git revision; its diff is part of
    the answer."""
    runtime: Literal["host", "docker"] = "host"
    """`docker`: in a container."""
    docker: DockerSettings | None = None
    """The container of `runtime: docker`."""
    healthcheck: HealthCheckSettings | None = None
    """What must work before the first call."""
    max_output_bytes: Annotated[int, Field(gt=0)] = 10 * 1024 * 1024
    """The most that the output file, and standard output, may hold."""
    keep_temp_files: bool = False
    """Leave prompt and output files where they are; the response's `raw` says where."""
    verbose: bool = False
    """Say on standard error what is run and how it ends."""

    @model_validator(mode="after")
    def _container_is_known(self) -> RunSettings:
        if self.runtime == "docker" and self.docker is None:
            raise ValueError("`runtime: docker` needs `docker:` with an `image`")
        if self.docker is not None and self.runtime != "docker":
            raise ValueError("`docker:` is for `runtime: docker`")
        return self


class CliSettings(RunSettings):
    """Settings of `provider: cli`."""

    command: str | list[str]
    """What to run: text for `/bin/sh -c`, or a list of arguments that no shell sees. Placeholders:
    {PROMPT} {PROMPT_FILE} {OUTPUT_FILE} {FILES} {EVAL_ID} {ATTEMPT}."""
    prompt_on_stdin: bool = False
    """Standard input is the prompt; otherwise it is empty."""
    files_format: str = "{path}"
    """How each file stands in {FILES}; {path} and {basename} are its names."""
    response: CliResponse | None = None
    """Where the answer lies in JSON of the command's own form; default: the form of this manual,
    else plain text."""

    @field_validator("command")
    @classmethod
    def _compiles(cls, command: str | list[str]) -> str | list[str]:
        Command(command)
        return command

    @field_validator("files_format")
    @classmethod
    def _shows_files(cls, files_format: str) -> str:
        check_files_format(files_format)
        return files_format
