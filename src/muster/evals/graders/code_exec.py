"""`code-exec`: the answer is a Python program, or completes one; it is run, shut in, and tested."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, StringConstraints

from muster.config.validation import FileModel
from muster.evals.graders.base import (
    Assertion,
    GradeContext,
    GraderError,
    GraderSpec,
    Score,
    SettingError,
)
from muster.evals.sandbox.cell import Limits, NoSandbox, Task, Verdict, run_shut_in

__all__ = ("CodeExec", "code_in")

_MB = 1 << 20
_MAX_CODE = 1_000_000
_FENCE = re.compile(r"^[ \t]*(?P<marks>`{3,}|~{3,})[ \t]*(?P<kind>[\w+#.-]*)[^\n`]*$", re.MULTILINE)
_PYTHON = frozenset(("python", "py", "python3", "py3"))

_Text = Annotated[str, StringConstraints(pattern=r"\S")]


class _Settings(FileModel):
    test: _Text | Annotated[list[_Text], Field(min_length=1)]
    """Python that fails when the answer is wrong; a list for several that are told apart. A `check`
    that it defines is called with the entry point."""
    entry_point: Annotated[str, StringConstraints(pattern=r"^[^\W\d]\w*$")] | None = None
    """The function that the answer must define."""
    prompt: str | None = None
    """The beginning of the program, which the answer may go on from."""
    timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 10.0
    memory_mb: Annotated[int, Field(ge=64, le=65_536)] = 512
    disk_mb: Annotated[int, Field(ge=1, le=16_384)] = 64
    file_mb: Annotated[int, Field(ge=1, le=16_384)] = 16
    processes: Annotated[int, Field(ge=1, le=1000)] = 16
    packages: list[_Text] = Field(default_factory=list)
    """Folders of modules, seen from the suite's, that it may read and import."""


class CodeExec:
    """Runs the answer in a sandbox."""

    Settings: ClassVar[type[FileModel]] = _Settings

    def __init__(self, spec: GraderSpec) -> None:
        settings = _Settings.model_validate(spec.config)
        if spec.safe and settings.packages:
            raise SettingError("packages", "--safe shows no folders to the code of an answer")
        self._tests = [settings.test] if isinstance(settings.test, str) else settings.test
        self._entry = settings.entry_point
        self._prompt = settings.prompt
        self._packages = [_folder(spec, name, at) for at, name in enumerate(settings.packages)]
        self._limits = Limits(
            seconds=settings.timeout_seconds,
            memory=settings.memory_mb * _MB,
            disk=settings.disk_mb * _MB,
            file_size=settings.file_mb * _MB,
            processes=settings.processes,
        )

    async def __call__(self, context: GradeContext) -> Score:
        code = code_in(context.output, self._entry)
        if not code.strip():
            return Score(0.0, (Assertion("the answer holds no code", False),))
        if len(code) > _MAX_CODE:
            text = f"the answer's code is longer than {_MAX_CODE:,} characters"
            return Score(0.0, (Assertion(text, False),))
        task = Task(
            code=code,
            tests=self._tests,
            prompt=self._prompt,
            entry_point=self._entry,
            packages=self._packages,
            limits=self._limits,
        )
        try:
            verdict = await run_shut_in(task)
        except NoSandbox as error:
            raise GraderError(f"no sandbox here, so the code was not run: {error}") from None
        if verdict.broken is not None:
            raise GraderError(f"a test is not Python: {verdict.broken}")
        return _score(verdict, len(self._tests))


def _score(verdict: Verdict, tests: int) -> Score:
    good = verdict.ended and not verdict.failures and len(verdict.passed) == tests
    rows = []
    for name, reason in verdict.failures:
        rows.append(Assertion(_FAILED.get(name, f"{name} passes"), False, reason))
    if verdict.why is not None and not verdict.failures:
        rows.append(Assertion("the program and its tests come to their end", False, verdict.why))
    if not rows:
        text = "all tests pass" if tests > 1 else "the test passes"
        rows.append(Assertion(text, good))
    passed = len(verdict.passed) if verdict.ended else 0
    details: dict[str, Any] = {"passed": passed, "tests": tests, "seconds": verdict.seconds}
    if verdict.printed and not good:
        details["printed"] = verdict.printed
    return Score(1.0 if good else 0.0, tuple(rows), details)


_FAILED = {"compile": "the answer is Python", "code": "the answer's code runs"}


def code_in(answer: str, entry_point: str | None = None) -> str:
    """The program in an answer: the last fenced block of Python that defines the entry point, or
    else the last one; without any block, the whole answer."""
    blocks = list(_blocks(answer))
    if not blocks:
        return answer
    chosen = [text for kind, text in blocks if kind in _PYTHON]
    chosen = chosen or [text for kind, text in blocks if not kind] or [blocks[-1][1]]
    if entry_point is not None:
        defines = re.compile(rf"^(?:async\s+)?(?:def|class)\s+{entry_point}\b", re.MULTILINE)
        chosen = [text for text in chosen if defines.search(text)] or chosen
    return chosen[-1]


def _blocks(answer: str) -> Iterator[tuple[str, str]]:
    """Language and text of each fenced block; the last may lack its end."""
    opened: re.Match[str] | None = None
    for mark in _FENCE.finditer(answer):
        if opened is None:
            opened = mark
        elif mark["marks"].startswith(opened["marks"]) and not mark["kind"]:
            yield opened["kind"].lower(), answer[opened.end() + 1 : mark.start()]
            opened = None
    if opened is not None:
        yield opened["kind"].lower(), answer[opened.end() + 1 :]


def _folder(spec: GraderSpec, name: str, at: int) -> str:
    path = (spec.base_dir / Path(name).expanduser()).resolve()
    if not path.is_dir():
        raise SettingError("packages", f"{path} is no folder", at)
    return str(path)
