"""`javascript`, and the code that `python` takes as text: an expression, or the body of a function
of `output` and `context`, run in a process of its own."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, StringConstraints

from muster.config.project import resolve_inside
from muster.config.validation import FileModel
from muster.errors import MusterError
from muster.evals.graders.base import GradeContext, GraderError, GraderSpec, Score, SettingError
from muster.evals.graders.programs import (
    case_context,
    environment,
    read_object,
    read_verdict,
    run_program,
)
from muster.evals.graders.thresholds import bar_of, held_to, own_bar
from muster.evals.scoring import as_score

__all__ = ("InlineCode", "JavaScript", "file_and_function", "in_process_of_its_own")

DEFAULT_SECONDS = 30.0

# What the code prints goes to standard error: standard output is for the verdict.
_PYTHON = """
import ast, asyncio, inspect, json, os, sys, textwrap
out = os.dup(1)
os.dup2(2, 1)
told = json.load(sys.stdin)
code, space = textwrap.dedent(told["code"]).strip(), {"__name__": "grader"}
try:
    compile(code, "<value>", "eval")
    body = "return (" + code + "\\n)"
except SyntaxError:
    body = code
source = "def grade(output, context):\\n" + textwrap.indent(body, "    ")
exec(compile(source, "<value>", "exec"), space)
value = space["grade"](told["output"], told["context"])
if inspect.isawaitable(value):
    async def wait():
        return await value
    value = asyncio.run(wait())
os.write(out, json.dumps({"value": value}).encode())
"""

_JAVASCRIPT = """
const fs = require("fs");
const told = JSON.parse(fs.readFileSync(0, "utf8"));
for (const name of ["log", "info", "debug", "table"]) console[name] = console.error;
(async () => {
  let grade;
  if (told.path) {
    const module = await import(require("url").pathToFileURL(told.path).href);
    const found = module.default ?? module;
    grade = told.name ? module[told.name] ?? found[told.name] : found.default ?? found;
    if (typeof grade !== "function") throw new Error(`${told.path} exports no such function`);
  } else {
    const Async = Object.getPrototypeOf(async function () {}).constructor;
    try {
      grade = new Async("output", "context", `return (${told.code}\\n)`);
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      grade = new Async("output", "context", told.code);
    }
  }
  const value = await grade(told.output, told.context);
  fs.writeSync(1, JSON.stringify({ value: value === undefined ? null : value }));
})().catch((error) => {
  console.error(error && error.stack ? error.stack : String(error));
  process.exit(1);
});
"""


class InlineSettings(FileModel):
    """What both languages have."""

    value: Annotated[str, StringConstraints(pattern=r"\S")]
    """The code, or `file://path:function`."""
    timeout_seconds: Annotated[float, Field(gt=0)] = DEFAULT_SECONDS
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """The score from which it passes; what counts is then the verdict: 1 or 0."""
    config: Mapping[str, Any] = Field(default_factory=dict)
    """For the code, as `context["config"]`."""


class InlineCode:
    """A program that is given code and the case, and answers `{"value": …}`."""

    def __init__(
        self, argv: list[str], told: Mapping[str, Any], settings: InlineSettings, spec: GraderSpec
    ) -> None:
        self._argv = argv
        self._told = told
        self._settings = settings
        self._cwd = spec.base_dir
        self._threshold = own_bar(settings.threshold, spec)
        self._bar = spec.min_score if self._threshold is None else self._threshold

    async def __call__(self, context: GradeContext) -> Score:
        case = case_context(context, self._settings.config)
        done = await run_program(
            self._argv,
            {**self._told, "output": context.output, "context": case},
            env=environment(case, {}),
            cwd=self._cwd,
            timeout=self._settings.timeout_seconds,
        )
        answer = read_object(done, [self._argv[0]])
        return held_to(score_of(answer["value"], bar_of(self._bar, context)), self._threshold)


def score_of(value: Any, bar: float | None) -> Score:
    """A bool, a number, or a mapping in either shape that programs answer in.

    Raises:
        GraderError: it is none of these.
    """
    if isinstance(value, Mapping):
        return read_verdict(value, bar)
    if value is None:
        raise GraderError("it returned nothing; does its last line begin with `return`?")
    return as_score(value)


def in_process_of_its_own(spec: GraderSpec, settings: InlineSettings) -> InlineCode:
    """Python that is given as text."""
    return InlineCode([sys.executable, "-c", _PYTHON], {"code": settings.value}, settings, spec)


class JavaScript:
    """Code for Node."""

    Settings: ClassVar[type[FileModel]] = InlineSettings
    own_templates: ClassVar[tuple[str, ...]] = ("value",)

    def __init__(self, spec: GraderSpec) -> None:
        settings = InlineSettings.model_validate(spec.config)
        if spec.safe:
            raise ValueError("--safe runs no code of a suite")
        node = shutil.which("node")
        if node is None:
            raise ValueError("it needs Node.js, and there is no `node` on PATH")
        told: dict[str, Any] = {"code": settings.value}
        if settings.value.startswith("file://"):
            path, name = file_and_function(settings.value, spec)
            spec.reads(path)
            told = {"path": str(path), "name": name}
        self._code = InlineCode([node, "-e", _JAVASCRIPT], told, settings, spec)

    async def __call__(self, context: GradeContext) -> Score:
        return await self._code(context)


_FUNCTION = re.compile(r":([^\W\d][\w.]*)$")


def file_and_function(value: str, spec: GraderSpec) -> tuple[Path, str | None]:
    """The file that `file://path:function` names, and the function.

    Raises:
        SettingError: there is no such file in the project.
    """
    text = value.removeprefix("file://")
    name = None
    if (found := _FUNCTION.search(text)) is not None:
        text, name = text[: found.start()], found[1]
    try:
        path = resolve_inside(spec.base_dir, text, spec.project_root or spec.base_dir)
    except MusterError as error:
        raise SettingError("value", str(error)) from None
    if not path.is_file():
        raise SettingError("value", f"there is no file {path}")
    return path, name
