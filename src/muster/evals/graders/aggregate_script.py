"""A set's verdict by a program that gets the members' results as JSON."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from muster.evals.graders.aggregate import Member, ScriptAggregator, results_of
from muster.evals.graders.base import GradeContext, GraderError, GraderSpec, Score
from muster.evals.graders.programs import environment, read_object, read_verdict, run_program

__all__ = ("ScriptAggregate",)

_INTERPRETERS = {".py": sys.executable, ".js": "node", ".mjs": "node", ".cjs": "node"}


class ScriptAggregate:
    """Gives the program `{results: {name: row}}`, and reads what graders that are programs say."""

    def __init__(self, settings: ScriptAggregator, spec: GraderSpec) -> None:
        self._argv = _argv(settings.command, spec)
        self._cwd = spec.base_dir / Path(settings.cwd or ".").expanduser()
        self._timeout = settings.timeout

    async def __call__(
        self, members: Sequence[Member], mean: float, context: GradeContext
    ) -> Score:
        done = await run_program(
            self._argv,
            {"results": results_of(members)},
            env=environment({}, {}),
            cwd=self._cwd,
            timeout=self._timeout,
        )
        said = read_object(done, self._argv)
        return replace(read_verdict(said, context.threshold), passed=_verdict(said))


def _verdict(said: Mapping[str, Any]) -> bool | None:
    """What the program itself calls it, as `verdict` or as `pass`; `None` if it does not."""
    verdict = said.get("verdict", said.get("pass", said.get("passed")))
    if verdict in ("pass", "fail"):
        return bool(verdict == "pass")
    if verdict is None or isinstance(verdict, bool):
        return verdict
    raise GraderError(f"verdict is {verdict!r:.60}; it is pass or fail")


def _argv(command: str | list[str], spec: GraderSpec) -> list[str]:
    """What is run: a file by itself or by what reads it, anything else by the shell."""
    if not isinstance(command, str):
        return list(command)
    path = spec.base_dir / Path(command).expanduser()
    if not path.is_file():
        return ["/bin/sh", "-c", command]
    spec.reads(path)
    if path.suffix in _INTERPRETERS and not os.access(path, os.X_OK):
        return [_INTERPRETERS[path.suffix], str(path)]
    return [str(path)]
