"""The grader `tool-call-f1`: how far the tools that were called are those that are expected, by the
harmonic mean of precision and recall."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import AliasChoices, BeforeValidator, Field

from muster.config.validation import FileModel
from muster.evals.classification import f1_of
from muster.evals.graders.base import Assertion, GradeContext, GraderError, GraderSpec, Score
from muster.evals.graders.thresholds import held_to, own_bar
from muster.evals.graders.trace import calls_of
from muster.evals.graders.trajectory import ArgsMatch, ExpectedCall, as_call, fits
from muster.provider import ToolCall

__all__ = ("ToolCallF1",)

MAX_PAIRS = 1_000_000
"""Calls times expected calls that are compared."""

_SHOWN = 50


def _listed(value: Any) -> Any:
    """`search, fetch` as two names."""
    if isinstance(value, str):
        return [name.strip() for name in value.split(",") if name.strip()]
    return value


class _Settings(FileModel):
    expected: Annotated[
        list[Annotated[ExpectedCall, BeforeValidator(as_call)]],
        Field(min_length=1),
        BeforeValidator(_listed),
    ] = Field(validation_alias=AliasChoices("expected", "value", "expected_tools"))
    """The tools: names, or `{tool, args, args_match}`; also as one text, `search, fetch`."""
    args_match: ArgsMatch = Field(
        "partial", validation_alias=AliasChoices("args_match", "argsMatch")
    )
    """How arguments are compared, as in `tool-trajectory`."""
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    """The score from which it passes; what counts is then the verdict: 1 or 0."""


class ToolCallF1:
    """Names alone are compared as sets. Where an entry has arguments, or a name stands twice, each
    call is compared: one call stands for one entry, and each call beyond is one too many."""

    Settings: ClassVar[type[FileModel]] = _Settings
    __slots__ = ("_by_call", "_expected", "_match", "_threshold")

    def __init__(self, spec: GraderSpec) -> None:
        settings = _Settings.model_validate(spec.config)
        self._expected = settings.expected
        self._match = settings.args_match
        self._threshold = own_bar(settings.threshold, spec)
        names = Counter(one.tool for one in settings.expected)
        self._by_call = max(names.values()) > 1 or any(
            one.args not in (None, "any") for one in settings.expected
        )

    def __call__(self, context: GradeContext) -> Score:
        calls = calls_of(context)
        if self._by_call:
            hit, missed, stray = self._pair(calls)
        else:
            made = dict.fromkeys(call.tool for call in calls)
            wanted = [one.tool for one in self._expected]
            hit = [name for name in wanted if name in made]
            missed = [name for name in wanted if name not in made]
            stray = [name for name in made if name not in wanted]
        tp, fp, fn = len(hit), len(stray), len(missed)
        score = f1_of(tp, fp, fn)
        assert score is not None  # something is expected
        said = [
            *(Assertion(f"{name} is called as expected", True) for name in hit[:_SHOWN]),
            *(Assertion(f"{name} is not called as expected", False) for name in missed[:_SHOWN]),
            *(Assertion(f"{name} is called, and not expected", False) for name in stray[:_SHOWN]),
        ]
        details = {
            "precision": tp / (tp + fp) if tp + fp else None,
            "recall": tp / (tp + fn),
            "f1": score,
            "confusion": _confusion(hit, missed, stray),
        }
        return held_to(Score(score, tuple(said), details), self._threshold)

    def _pair(self, calls: Sequence[ToolCall]) -> tuple[list[str], list[str], list[str]]:
        """Names of what is expected and called, expected alone, called alone: as many pairs as can
        be, whatever the order."""
        if len(calls) * len(self._expected) > MAX_PAIRS:
            raise GraderError(f"{len(calls):,} calls are too many to be compared one by one")
        choices = [
            [
                at
                for at, call in enumerate(calls)
                if call.tool == one.tool and fits(one, call, self._match)
            ]
            for one in self._expected
        ]
        pairs = _Pairs(choices)
        for number in range(len(choices)):
            pairs.find(number)
        paired, taken = pairs.call_of, pairs.owner_of
        return (
            [one.tool for number, one in enumerate(self._expected) if number in paired],
            [one.tool for number, one in enumerate(self._expected) if number not in paired],
            [call.tool for at, call in enumerate(calls) if at not in taken],
        )


class _Pairs:
    """Expected calls, each with a call of its own; `choices` are those that each may have."""

    def __init__(self, choices: Sequence[Sequence[int]]) -> None:
        self._choices = choices
        self.call_of: dict[int, int] = {}
        self.owner_of: dict[int, int] = {}

    def find(self, number: int) -> None:
        """Give the expected call a call, if there is one, moving others to other choices of theirs
        if need be: an augmenting path, found breadth first."""
        reached: dict[int, int] = {}
        waiting = [number]
        for one in waiting:
            for at in self._choices[one]:
                if at in reached:
                    continue
                reached[at] = one
                if at not in self.owner_of:
                    self._move(at, reached)
                    return
                waiting.append(self.owner_of[at])

    def _move(self, free: int, reached: dict[int, int]) -> None:
        at: int | None = free
        while at is not None:
            owner = reached[at]
            left = self.call_of.get(owner)
            self.call_of[owner], self.owner_of[at] = at, owner
            at = left


def _confusion(
    hit: Sequence[str], missed: Sequence[str], stray: Sequence[str]
) -> dict[str, dict[str, int]]:
    counts = {"tp": Counter(hit), "fp": Counter(stray), "fn": Counter(missed)}
    names = dict.fromkeys((*hit, *missed, *stray))
    return {name: {kind: one[name] for kind, one in counts.items()} for name in names}
