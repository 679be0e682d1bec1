"""`prompt: {command}`: a program writes what the judge is asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, Field, StringConstraints

from muster.config.validation import FileModel
from muster.evals.graders.base import GradeContext, GraderError, GraderSpec, SettingError
from muster.evals.graders.llm_prompt import JudgePrompt
from muster.evals.graders.programs import (
    environment,
    program_name,
    run_program,
    succeeded,
    told_case,
)
from muster.evals.graders.rubric import Criterion

__all__ = ("PromptCommand", "PromptProgram")

MAX_PROMPT = 1_000_000
"""Bytes that a program may ask."""

_Text = Annotated[str, StringConstraints(pattern=r"\S")]


class PromptCommand(FileModel):
    """A program that writes the question."""

    command: _Text | Annotated[list[str], Field(min_length=1)] = Field(
        validation_alias=AliasChoices("command", "script")
    )
    """The program and its arguments; a text is run by `/bin/sh -c`."""
    cwd: _Text | None = None
    """The folder it runs in, seen from the suite's; by default the suite's."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 30.0
    """For one case."""
    config: Mapping[str, Any] = Field(default_factory=dict)
    """For the program, as `config`; it goes before the assertion's."""


class PromptProgram:
    """Runs the program for each case. It reads what scripts read, and writes a text."""

    def __init__(
        self, settings: PromptCommand, config: Mapping[str, Any] | None, spec: GraderSpec
    ) -> None:
        if spec.safe:
            raise SettingError("prompt", "--safe runs no programs to write prompts with")
        command = settings.command
        self._argv = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        if not self._argv[0]:
            raise SettingError("prompt", "the command is empty", "command")
        self._cwd = spec.base_dir / Path(settings.cwd or ".").expanduser()
        self._timeout = settings.timeout_seconds
        self._config = {**(config or {}), **settings.config}

    @property
    def hash(self) -> str:
        """What tells it from other programs, for `JudgePrompt`."""
        said = json.dumps([self._argv, self._config], ensure_ascii=False, default=str)
        return f"program {hashlib.sha256(said.encode()).hexdigest()}"

    async def render(
        self,
        prompt: JudgePrompt,
        context: GradeContext,
        criteria: str | None,
        rubrics: Sequence[Criterion],
        variables: Mapping[str, Any],
    ) -> tuple[str, str]:
        """The system prompt and the question.

        Raises:
            GraderError: the program failed, or wrote nothing or no text.
        """
        mark = prompt.mark(variables)
        with told_case(context, self._config) as told:
            told |= {
                "criteria": criteria,
                "rubrics": [criterion.to_dict() for criterion in rubrics],
                "marks": [f"<data-{mark}>", f"</data-{mark}>"],
            }
            done = await run_program(
                self._argv, told, env=environment(told, {}), cwd=self._cwd, timeout=self._timeout
            )
        stdout, name = succeeded(done, self._argv), program_name(self._argv)
        try:
            text = stdout.decode("utf-8").strip()
        except UnicodeDecodeError:
            raise GraderError(f"{name} wrote a prompt that is no UTF-8") from None
        if not text:
            raise GraderError(f"{name} wrote nothing to standard output; it is the prompt")
        if len(stdout) > MAX_PROMPT:
            raise GraderError(f"{name} wrote a prompt of {len(stdout):,} bytes")
        return prompt.rules(mark), text
