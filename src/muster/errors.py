"""Mistakes that a person can mend: each names the place, what was found, and the way out.

    MusterError                what the command line prints without a traceback (exit code 2)
    ├── RunBroken              what a run needs has failed after it began (exit code 1)
    ├── UsageError             a wrong option, name or combination
    └── ConfigError            one or more problems in files that users write

`ProviderError` and its family, for what goes wrong *while* a provider answers, live in
`muster.provider`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = (
    "ConfigError",
    "MusterError",
    "Problem",
    "RunBroken",
    "UsageError",
    "field_path",
    "nearest",
)


class MusterError(Exception):
    """A mistake a user can mend. `exit_code` is what the process ends with."""

    exit_code = 2


class RunBroken(MusterError):
    """Something failed that a run cannot go on without, after it had begun."""

    exit_code = 1


class UsageError(MusterError):
    """The command, an option or a name is wrong; no file is at fault."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a file; `line` and `column` are 1-based."""

    message: str
    path: Path | None = None
    line: int | None = None
    column: int | None = None
    field: str | None = None

    def __str__(self) -> str:
        place = str(self.path) if self.path is not None else ""
        if self.line is not None:
            place += f":{self.line}" if place else f"line {self.line}"
            if self.column is not None:
                place += f":{self.column}"
        return ": ".join(part for part in (place, self.field, self.message) if part)


class ConfigError(MusterError):
    """One or more problems in files that users write, all told at once."""

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = (
            (problems,) if isinstance(problems, Problem) else tuple(problems)
        )
        super().__init__("\n".join(str(problem) for problem in self.problems))


def field_path(location: Sequence[str | int]) -> str:
    """`("tests", 3, "assertions", 0)` as users read it: `tests[3].assertions[0]`."""
    text = ""
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += f".{step}" if text else step
    return text


def nearest(name: str, known: Iterable[str], *, count: int = 1) -> list[str]:
    """The `count` names of `known` that look most like `name`; empty if none is close."""
    import difflib

    folded = {option.lower().replace("_", "-"): option for option in known}
    close = difflib.get_close_matches(name.lower().replace("_", "-"), folded, n=count, cutoff=0.6)
    return [folded[match] for match in close]
