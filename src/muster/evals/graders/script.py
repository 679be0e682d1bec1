"""`script` (`code-grader`): a program of any language judges.

It reads the case as JSON and writes its verdict as JSON, once a process or, with
`protocol: jsonl`, line by line in a process that stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AliasChoices, Field, StringConstraints

from muster.config.validation import FileModel
from muster.evals.graders.base import Assertion, GradeContext, GraderError, GraderSpec, Score
from muster.evals.graders.judge_proxy import ProxySettings, proxy_access
from muster.evals.graders.programs import (
    environment,
    read_object,
    read_verdict,
    run_program,
    tail,
    told_case,
)
from muster.evals.graders.script_worker import Workers

__all__ = ("Script",)

DEFAULT_SECONDS = 300.0

_Text = Annotated[str, StringConstraints(pattern=r"\S")]


class _Settings(FileModel):
    command: _Text | Annotated[list[str], Field(min_length=1)] = Field(
        validation_alias=AliasChoices("command", "script")
    )
    """The program and its arguments; a text is run by `/bin/sh -c`."""
    cwd: _Text | None = None
    """The folder it runs in, seen from the suite's; by default the suite's."""
    protocol: Literal["json", "jsonl", "exit"] = "json"
    """`jsonl`: it stays, and answers each line with a line. `exit`: 0 passes, 1 fails."""
    timeout_seconds: Annotated[float, Field(gt=0)] = DEFAULT_SECONDS
    """For one case."""
    provider: bool | ProxySettings = Field(
        False, validation_alias=AliasChoices("provider", "target")
    )
    """Whether it may ask the judge."""
    config: Mapping[str, Any] = Field(default_factory=dict)
    """For the program, as `config`, with the entry's other fields."""


class Script:
    """Runs a program, and reads what it says."""

    Settings: ClassVar[type[FileModel]] = _Settings
    own_templates: ClassVar[tuple[str, ...]] = ("command", "script")
    """Nothing of a test is filled into what a shell will read."""
    takes_more: ClassVar[bool] = True
    """Fields that it does not know are for the program, as part of `config`."""

    def __init__(self, spec: GraderSpec) -> None:
        settings = _Settings.model_validate(spec.config)
        if spec.safe:
            raise ValueError("--safe runs no programs to grade with")
        command = settings.command
        self._argv = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        if not self._argv[0]:
            raise ValueError("the command is empty")
        self._cwd = spec.base_dir / Path(settings.cwd or ".").expanduser()
        self._settings = settings
        self._bar = spec.min_score
        provider = settings.provider
        self._proxy = ProxySettings() if provider is True else provider or None
        if self._proxy is not None:
            spec.asks_judge(self._proxy.name)

    async def __call__(self, context: GradeContext) -> Score:
        async with AsyncExitStack() as stack:
            told = stack.enter_context(told_case(context, self._settings.config))
            variables: dict[str, str] = {}
            if self._proxy is not None:
                access = await stack.enter_async_context(proxy_access(self._proxy, context))
                variables = access.variables()
                if self._settings.protocol == "jsonl":
                    told["provider_proxy"] = {"url": access.url, "token": access.token}
            bar = context.threshold if self._bar is None else self._bar
            if self._settings.protocol == "jsonl":
                workers = self._workers(context, stack)
                return read_verdict(await workers.ask(told, self._settings.timeout_seconds), bar)
            done = await run_program(
                self._argv,
                told,
                env=environment(told, variables),
                cwd=self._cwd,
                timeout=self._settings.timeout_seconds,
            )
        if self._settings.protocol == "exit":
            if done.exit_code not in (0, 1):
                read_object(done, self._argv)  # raises, and says how it ended
            text = done.stdout.decode("utf-8", "replace").strip()[:2000]
            passed = done.exit_code == 0
            return Score(float(passed), (Assertion(f"exit code {done.exit_code}", passed, text),))
        try:
            return read_verdict(read_object(done, self._argv), bar)
        except GraderError as error:
            said = str(error)
            more = tail(done.stderr)
            raise GraderError(said if not more or more in said else said + more) from None

    def _workers(self, context: GradeContext, stack: AsyncExitStack) -> Workers:
        def make() -> Workers:
            return Workers(self._argv, environment({}, {}), self._cwd)

        if context.scope is not None:
            return context.scope.keep((Workers, *self._argv, self._cwd), make)
        workers = make()
        stack.push_async_callback(workers.aclose)
        return workers
