"""`cli`: a command is the provider; it is told the question and answers in a file or on stdout.

    - name: agent
      provider: cli
      command: python agent.py --prompt-file {PROMPT_FILE} --output {OUTPUT_FILE}
      timeout_seconds: 60

The contract (placeholders, output format, failures) is written down in `docs/providers/cli.md`.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shlex
import stat
import sys
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from muster.capabilities import Capabilities
from muster.provider import (
    BadProviderOutput,
    BadRequest,
    LimitExceeded,
    ProviderError,
    ProviderFailed,
    ProviderRequest,
    ProviderResponse,
    ProviderTimeout,
)
from muster.providers.cli_command import Command
from muster.providers.cli_folders import Folders
from muster.providers.cli_health import HealthCheck
from muster.providers.cli_output import Answer, read_answer
from muster.providers.cli_response import ResponseReader
from muster.providers.cli_settings import CliSettings
from muster.providers.container import Container
from muster.providers.exits import CANNOT_RUN, ending
from muster.providers.process import Completed, readable_file, run_process
from muster.providers.prompt import render_prompt
from muster.providers.settings import located, refuse_if_safe, secrets_in
from muster.providers.workspace import Workspaces
from muster.target import ResolvedTarget

__all__ = ("CliProvider",)

_log = logging.getLogger(__name__)

_IN_FILES = {"PROMPT_FILE", "OUTPUT_FILE"}
_PROMPTS = {"PROMPT", "PROMPT_FILE"}
_MASK = "**********"
_SHOWN_COMMAND = 160
_SHOWN_OUTPUT = 2000


class CliProvider:
    """Runs a command for each request. Loop-safe: it keeps nothing between calls but the answer
    of the healthcheck."""

    Settings = CliSettings
    capabilities = Capabilities(
        streaming=False, tools=False, history=True, structured_output=False, embeddings=False,
        batch=False,
    )  # fmt: skip
    """Files and images are told to it by their paths: what it makes of them is its own affair."""

    def __init__(self, target: ResolvedTarget) -> None:
        """Raises `MusterError` with `--safe`, and `pydantic.ValidationError` for wrong settings."""
        refuse_if_safe(target, "it runs a command")
        settings = CliSettings.model_validate(target.config)
        self._settings = settings
        self._read = read_answer
        if settings.response is not None:
            self._read = ResponseReader(settings.response).read
        self._target = target.name
        self._timeout = target.timeout_seconds
        self._command = Command(settings.command, settings.files_format)
        self._secrets = tuple(secrets_in(target.config))
        text = self._masked(self._command.text)
        self._shown = text if len(text) <= _SHOWN_COMMAND else f"{text[: _SHOWN_COMMAND - 1]}…"
        self._base_dir = target.base_dir.resolve()
        self._cwd = located(target, settings.cwd or ".", "cwd")
        self._env = settings.environment(os.environ if target.env is None else target.env)
        self._folders = Folders()
        self._workspaces: Workspaces | None = None
        if settings.workspace is not None:
            self._workspaces = Workspaces(settings.workspace, self._base_dir)
        self._container: Container | None = None
        if settings.docker is not None:
            named = settings.env if isinstance(settings.env, list) else list(settings.env)
            self._container = Container(settings.docker, self._base_dir, named)
        self._warned: set[str] = set()
        self._health: HealthCheck | None = None
        if settings.healthcheck is not None:
            where = settings.healthcheck.cwd
            cwd = self._cwd if where is None else located(target, where, "healthcheck.cwd")
            self._health = HealthCheck(
                settings.healthcheck, target.name, self._env, cwd, self._masked
            )
        seen = settings.prompt_on_stdin or self._command.uses & {"EVAL_ID", "FILES", *_PROMPTS}
        if not seen:
            _log.warning(
                'target "%s": the command uses neither {PROMPT} nor {PROMPT_FILE}, so it never '
                "sees the question: %s",
                target.name,
                self._shown,
            )

    async def invoke(self, request: ProviderRequest) -> ProviderResponse:
        """Run the command for `request`; a `ProviderError` says how it failed."""
        if self._health is not None:
            await self._health.ensure()
        if self._workspaces is None:
            return await self._asked(request)
        async with self._workspaces.of(request) as place:
            response = await self._asked(replace(request, cwd=place.path))
        return with_found(response, {"workspace": place.found})

    async def aclose(self) -> None:
        """Remove the workspaces that are left; nothing else is kept open between calls."""
        if self._workspaces is not None:
            await self._workspaces.aclose()

    async def _asked(self, request: ProviderRequest) -> ProviderResponse:
        folder = None
        try:
            if self._command.uses & _IN_FILES:
                folder = self._folders.take()
            response = await self._answer(request, folder)
        except ProviderError as error:
            if folder is not None and self._settings.keep_temp_files:
                error.message += f"\nfiles kept in {folder}"
                error.args = (error.message,)
            raise
        finally:
            if folder is not None:
                self._folders.give_back(folder, keep=self._settings.keep_temp_files)
        if request.on_chunk is not None and response.text:
            request.on_chunk(response.text)
        return response

    async def _answer(self, request: ProviderRequest, folder: str | None) -> ProviderResponse:
        started = time.perf_counter()
        done = await self._run(request, folder)
        duration_ms = (time.perf_counter() - started) * 1000
        if self._settings.verbose:
            self._say(f"{ending(done.exit_code)} after {duration_ms:.0f} ms{self._tail(done)}")
        if done.exit_code != 0 and done.stopped is None and self._settings.response is not None:
            self._check_report(done)
        self._check_ending(done, request)
        data, source = self._output(done, folder)
        answer = self._read(data, source)
        self._check_error(answer)
        response = ProviderResponse(
            answer.output,
            token_usage=answer.token_usage,
            cost_usd=answer.cost_usd,
            duration_ms=duration_ms if answer.duration_ms is None else answer.duration_ms,
            raw=self._raw(done, answer, source, folder),
            finish_reason=answer.finish_reason,
            model=answer.model,
        )
        if answer.session is None:
            return response
        return with_found(response, {"session_id": answer.session})

    # --- running ---

    async def _run(self, request: ProviderRequest, folder: str | None) -> Completed:
        values = self._values(request, folder)
        files = [str(path.absolute()) for path in request.input_files]
        argv = self._command.argv(values, files)
        if self._container is not None:
            return await self._contained(argv, request, folder)
        try:
            return await self._start(argv, request)
        except OSError as error:
            if error.errno != errno.ENOEXEC or isinstance(self._settings.command, list):
                raise self._not_started(error, argv, request) from error
        argv = self._command.shell_argv(values, files)  # a script without `#!` is for the shell
        try:
            return await self._start(argv, request)
        except OSError as error:
            raise self._not_started(error, argv, request) from error

    async def _contained(
        self, argv: list[str], request: ProviderRequest, folder: str | None
    ) -> Completed:
        """Run `argv` in a container of its own, which is over when this is."""
        container = self._container
        assert container is not None
        cwd = self._working_folder(request).absolute()
        files = [str(path.absolute()) for path in request.input_files]
        for path in (str(cwd), folder or "", *files):
            if ":" in path:
                raise BadRequest(f"{path}: what has a colon in its name cannot be mounted")
        name = f"muster-{os.urandom(8).hex()}"
        stdin = self._settings.prompt_on_stdin
        argv = container.argv(name, argv, cwd, folder, files, stdin=stdin)
        try:
            done = await self._start(argv, request)
        except OSError as error:
            raise self._not_started(error, argv, request) from error
        except asyncio.CancelledError:
            await asyncio.shield(self._end_container(name))
            raise
        if done.stopped is not None:
            await self._end_container(name)
        return done

    async def _end_container(self, name: str) -> None:
        assert self._container is not None
        with suppress(OSError):
            await run_process(
                self._container.removal(name), env=self._env, timeout=10.0, max_stdout=1 << 16
            )

    async def _start(self, argv: list[str], request: ProviderRequest) -> Completed:
        if self._settings.verbose:
            self._say(f"$ {shlex.join(argv)}")
        prompt: AbstractContextManager[int | None] = nullcontext()
        if self._settings.prompt_on_stdin:
            prompt = readable_file(_encoded(render_prompt(request, files="reference")))
        try:
            with prompt as stdin:
                return await run_process(
                    argv,
                    env=self._environment(request),
                    cwd=self._working_folder(request),
                    timeout=self._seconds(request),
                    max_stdout=self._settings.max_output_bytes,
                    stdin=stdin,
                )
        except ValueError as error:
            raise BadRequest(
                f"the question cannot stand on a command line: {error}; {{PROMPT_FILE}} takes "
                f"everything ({self._shown})"
            ) from error

    def _values(self, request: ProviderRequest, folder: str | None) -> dict[str, str]:
        """What stands for the placeholders; the prompt file is written if it is one of them."""
        uses = self._command.uses
        values: dict[str, str] = {}
        if "PROMPT" in uses:
            values["PROMPT"] = render_prompt(request, files="reference")
        if "PROMPT_FILE" in uses:
            prompt = values.get("PROMPT") or render_prompt(request, files="reference")
            values["PROMPT_FILE"] = f"{folder}/prompt.txt"
            _write(values["PROMPT_FILE"], prompt)
        if "OUTPUT_FILE" in uses:
            values["OUTPUT_FILE"] = f"{folder}/output.json"
        if "EVAL_ID" in uses:
            values["EVAL_ID"] = request.eval_case_id or ""
        if "ATTEMPT" in uses:
            values["ATTEMPT"] = str(request.attempt)
        return values

    def _environment(self, request: ProviderRequest) -> dict[bytes, bytes]:
        folder = request.metadata.get("artifact_dir")
        if folder is None:
            return self._env
        return {**self._env, b"AGENT_ARTIFACT_DIR": os.fsencode(folder)}

    def _working_folder(self, request: ProviderRequest) -> Path:
        return self._cwd if request.cwd is None else self._base_dir / request.cwd

    def _seconds(self, request: ProviderRequest) -> float | None:
        given = [s for s in (self._timeout, request.limits.max_seconds) if s is not None]
        return min(given, default=None)

    def _not_started(
        self, error: OSError, argv: list[str], request: ProviderRequest
    ) -> ProviderError:
        cwd = self._working_folder(request)
        if error.errno == errno.E2BIG:
            return BadRequest(
                f"the question is too long for a command line; use {{PROMPT_FILE}} instead of "
                f"{{PROMPT}} ({self._shown})"
            )
        if not cwd.is_dir():
            reason = f"the working folder {cwd} is not there"
        elif isinstance(error, FileNotFoundError):
            reason = f'command not found: "{argv[0]}"'
        elif isinstance(error, PermissionError):
            reason = f'"{argv[0]}" may not be executed'
        else:
            reason = f"the command cannot be started: {error.strerror or error}"
        return ProviderFailed(self._masked(f"{reason} ({self._shown})"))

    # --- what came of it ---

    def _check_report(self, done: Completed) -> None:
        """Raise what a command that has failed says itself of why, and of what it has spent."""
        try:
            answer = self._read(done.stdout, "standard output")
        except BadProviderOutput:
            return
        self._check_error(answer, f"; {ending(done.exit_code)}")

    def _check_error(self, answer: Answer, more: str = "") -> None:
        if answer.error is not None:
            raise ProviderFailed(
                self._masked(f"the command reports: {answer.error} ({self._shown}{more})"),
                retryable=True,
                token_usage=answer.token_usage,
                cost_usd=answer.cost_usd,
            )

    def _check_ending(self, done: Completed, request: ProviderRequest) -> None:
        settings = self._settings
        if done.stopped == "timeout":
            seconds = self._seconds(request)
            text = f"timed out after {seconds:g} s: {self._shown}{self._tail(done)}"
            if seconds != self._timeout:
                raise LimitExceeded(text)
            raise ProviderTimeout(text, retryable=False)
        if done.stopped == "stdout":
            raise BadProviderOutput(
                f"the command was ended: it wrote more than max_output_bytes "
                f"({settings.max_output_bytes:,}) to standard output ({self._shown})",
                retryable=False,
            )
        if done.exit_code != 0:
            raise ProviderFailed(
                f"{ending(done.exit_code)} from the command: {self._shown}{self._tail(done)}",
                retryable=done.exit_code not in CANNOT_RUN,
            )

    def _output(self, done: Completed, folder: str | None) -> tuple[bytes, str]:
        """What it wrote, and where. An empty output file is an empty answer; a command that wrote
        nothing anywhere has not answered."""
        in_file = "OUTPUT_FILE" in self._command.uses
        if in_file:
            data = self._read_output_file(f"{folder}/output.json")
            if data is not None:
                return data, "the output file"
        if not done.stdout.strip():
            where = "neither the output file nor standard output" if in_file else "standard output"
            wrote = f"wrote {where}" if in_file else f"wrote nothing to {where}"
            raise BadProviderOutput(f"the command {wrote} ({self._shown}){self._tail(done)}")
        return done.stdout, "standard output"

    def _read_output_file(self, path: str) -> bytes | None:
        """Its content; `None` if it was never written. Its size is looked at first."""
        limit = self._settings.max_output_bytes
        try:
            # A FIFO in its place must not hang us.
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BadProviderOutput(
                f"the output file cannot be read: {error.strerror} ({self._shown})",
                retryable=False,
            ) from error
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise BadProviderOutput(
                    f"the command made something else than a file of {{OUTPUT_FILE}} "
                    f"({self._shown})",
                    retryable=False,
                )
            if status.st_size > limit:
                raise BadProviderOutput(
                    f"the output file holds {status.st_size:,} bytes, more than max_output_bytes "
                    f"({limit:,}) ({self._shown})",
                    retryable=False,
                )
            return os.read(fd, status.st_size)
        finally:
            os.close(fd)

    def _raw(
        self, done: Completed, answer: Answer, source: str, folder: str | None
    ) -> dict[str, Any]:
        raw: dict[str, Any] = {"source": source}
        if (
            source == "standard output"
            and folder is not None
            and "OUTPUT_FILE" in self._command.uses
        ):
            raw["note"] = "the command never wrote {OUTPUT_FILE}"
        if done.stderr:
            raw["stderr"] = self._masked(done.stderr.decode("utf-8", "replace"))
        if answer.json is not None:
            raw["response"] = answer.json
        if answer.session is not None:
            raw["session_id"] = answer.session
        if folder is not None and self._settings.keep_temp_files:
            raw["files"] = folder
        if answer.warnings:
            raw["warnings"] = answer.warnings
            for warning in set(answer.warnings) - self._warned:
                self._warned.add(warning)
                _log.warning('target "%s": %s', self._target, warning)
        return raw

    # --- words ---

    def _tail(self, done: Completed) -> str:
        """The end of what it said on standard error, else of what it wrote."""
        for name, data in (("stderr", done.stderr), ("stdout", done.stdout)):
            text = data[-_SHOWN_OUTPUT:].decode("utf-8", "replace").strip()
            if text:
                end = f" ends:\n{text}" if "\n" in text else f": {text}"
                return self._masked(f"; {name}{end}")
        return ""

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            if secret:
                text = text.replace(str(secret), _MASK)
        return text

    def _say(self, text: str) -> None:
        print(f"[{self._target}] {self._masked(text)}", file=sys.stderr, flush=True)


def with_found(response: ProviderResponse, found: Mapping[str, Any]) -> ProviderResponse:
    """The response with `found` in its `raw`, and in the metadata of its last message, which
    results keep."""
    raw = response.raw if isinstance(response.raw, dict) else {}
    output = response.output
    if output:
        metadata = {**(output[-1].metadata or {}), **found}
        output = (*output[:-1], replace(output[-1], metadata=metadata))
    return replace(response, output=output, raw={**raw, **found})


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise BadRequest(f"the question is not valid Unicode: {error}") from error


def _write(path: str, text: str) -> None:
    rest = memoryview(_encoded(text))
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            while rest:
                rest = rest[os.write(fd, rest) :]
        finally:
            os.close(fd)
    except OSError as error:
        raise ProviderFailed(f"the prompt file cannot be written: {error}") from error
