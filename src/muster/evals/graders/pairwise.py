"""Two answers to one question, and which is better.

A judge sees both twice, once in each order. Only who wins in both orders has won; all else is a
tie, and where the order decided, that is counted: it is the judge's bias by position.

`llm-pairwise` compares the answer with the one that a recorded run has of the same test, or with
the expected output: 1 for a win, 0.5 for a tie, 0 for a loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import msgspec
from pydantic import AliasChoices, Field

from muster.config.project import resolve_inside
from muster.config.validation import FileModel
from muster.errors import MusterError
from muster.evals.graders.base import (
    Assertion,
    GradeContext,
    GraderError,
    GraderSpec,
    Score,
    SettingError,
)
from muster.evals.graders.llm import JudgeSettings, votes_of
from muster.evals.graders.llm_answer import Unreadable, read_object, shown_value
from muster.evals.graders.llm_ask import Asked, Question, Vote, ask_all
from muster.evals.graders.llm_prompt import PAIRS, JudgePrompt, variables_of
from muster.evals.judging import CaseJudges
from muster.evals.results import RESULTS_FILE, read_results

__all__ = ("DEFAULT_CRITERIA", "Duel", "Pairwise", "ask_pair")

DEFAULT_CRITERIA = "Which answer serves the person better who asked the question?"

SCHEMA: Mapping[str, Any] = {
    "title": "preference",
    "type": "object",
    "additionalProperties": False,
    "required": ["reason", "winner"],
    "properties": {
        "reason": {"type": "string", "description": "Why, in a sentence or two."},
        "winner": {"type": "string", "enum": ["A", "B", "tie"]},
    },
}

_WINNERS = {"a": "first", "b": "second", "tie": "tie", "answer a": "first", "answer b": "second"}


class Pick(msgspec.Struct, frozen=True):
    """What a judge chose: `first`, `second` or `tie`, by place."""

    place: str
    reason: str | None


class Duel(msgspec.Struct, frozen=True, kw_only=True):
    """Two answers judged in both orders."""

    forward: Asked[Pick]
    """With answer A first."""
    backward: Asked[Pick]
    """With answer B first."""

    @property
    def winner(self) -> str:
        """`a` or `b`, if it won in both orders; else `tie`."""
        places = (self.forward.verdict.place, self.backward.verdict.place)
        return {("first", "second"): "a", ("second", "first"): "b"}.get(places, "tie")

    @property
    def consistent(self) -> bool:
        """The order made no difference."""
        return self.winner != "tie" or self.both == ("tie", "tie")

    @property
    def both(self) -> tuple[str, str]:
        """The places chosen, forward and backward."""
        return self.forward.verdict.place, self.backward.verdict.place

    @property
    def drawn_to(self) -> str | None:
        """The place that the order spoke for: `first` or `second`; `None` if for neither."""
        value = {"first": 1, "tie": 0, "second": -1}
        sum_ = value[self.both[0]] + value[self.both[1]]
        return None if sum_ == 0 else "first" if sum_ > 0 else "second"

    def to_dict(self) -> dict[str, Any]:
        """For results."""
        return {
            "winner": self.winner,
            "consistent": self.consistent,
            "drawn_to": self.drawn_to,
            "orders": [
                asked.to_dict() | {"chose": asked.verdict.place, "reason": asked.verdict.reason}
                for asked in (self.forward, self.backward)
            ],
        }


def read_pick(text: str, finish: str | None = None) -> Pick:
    """`{reason, winner: A|B|tie}`. Raises `Unreadable`."""
    value = read_object(text, lambda found: "winner" in found, finish=finish)
    said = value.get("winner")
    place = _WINNERS.get(said.strip().lower()) if isinstance(said, str) else None
    if place is None:
        raise Unreadable(f'"winner" is {shown_value(said)}, not "A", "B" or "tie"')
    reason = value.get("reason", value.get("reasoning"))
    return Pick(place, str(reason) if reason else None)


async def ask_pair(
    judges: CaseJudges,
    votes: Sequence[Vote],
    prompt: JudgePrompt,
    variables: Mapping[str, Any],
    answers: tuple[str, str],
    *,
    case_id: str | None = None,
    max_attempts: int = 3,
    max_turns: int | None = None,
) -> list[Duel]:
    """Each vote's judgement of two answers, in both orders.

    Raises:
        GraderError: a judge cannot be asked, or what it says cannot be read.
    """
    sides: list[list[Asked[Pick]]] = []
    for first, second in (answers, answers[::-1]):
        system, text = prompt.render({**variables, "answer_a": first, "answer_b": second})
        question = Question(
            system=system,
            text=text,
            schema=SCHEMA,
            hash=prompt.hash,
            case_id=case_id,
            max_attempts=max_attempts,
            max_turns=max_turns,
        )
        sides.append(await ask_all(judges, votes, question, read_pick))
    return [Duel(forward=one, backward=two) for one, two in zip(*sides, strict=True)]


# --- the grader -----------------------------------------------------------------------------------


class _Settings(JudgeSettings):
    against: Annotated[str, Field(min_length=1)]
    """`expected_output`, or the folder of a run that has answers to the same tests."""
    against_target: str | None = None
    """The target whose answers they are, if the run has several."""
    criteria: Annotated[str, Field(pattern=r"\S")] | None = Field(
        None, validation_alias=AliasChoices("criteria", "value")
    )
    """What makes an answer better. Else the test's `criteria`."""
    aggregate: Literal["mean"] = "mean"
    """How several judgements become one score."""


class Pairwise:
    """A model says whether the answer is better than another one to the same question."""

    Settings: ClassVar[type[FileModel]] = _Settings

    def __init__(self, spec: GraderSpec) -> None:
        settings = _Settings.model_validate(spec.config)
        self._settings = settings
        self._votes = votes_of(settings, spec)
        self._other = _other_answers(settings, spec)
        # Who judges the reference against an answer must not know it for the reference.
        self._hidden = {"expected_output": ""} if self._other is _expected else {}

    async def __call__(self, context: GradeContext) -> Score:
        if context.judges is None:
            raise GraderError("there is nobody to ask")
        other = self._other(context)
        criteria = self._settings.criteria or context.case.criteria or DEFAULT_CRITERIA
        own = self._settings.criteria
        duels = await ask_pair(
            context.judges,
            self._votes,
            JudgePrompt.make(PAIRS, criteria=own),
            variables_of(context, criteria) | self._hidden,
            (context.output, other),
            case_id=context.case.id,
            max_attempts=self._settings.max_attempts,
            max_turns=self._settings.max_steps,
        )
        return _score_of(duels)


def _score_of(duels: Sequence[Duel]) -> Score:
    points = {"a": 1.0, "tie": 0.5, "b": 0.0}
    words = {
        "a": "better than the other answer",
        "tie": "a tie",
        "b": "worse than the other answer",
    }
    score = sum(points[duel.winner] for duel in duels) / len(duels)
    assertions = [
        Assertion(
            f"{duel.forward.target}: {words[duel.winner]}"
            + ("" if duel.consistent else f" (the order decided: {' and '.join(duel.both)})"),
            duel.winner == "a",
            duel.forward.verdict.reason,
        )
        for duel in duels
    ]
    details: dict[str, Any] = {"duels": [duel.to_dict() for duel in duels]}
    if len(duels) == 1:
        details["judge"] = duels[0].forward.to_dict()
    else:
        details["judges"] = [
            duel.forward.to_dict() | {"score": points[duel.winner], "passed": duel.winner == "a"}
            for duel in duels
        ]
    return Score(score, tuple(assertions), details)


_Answers: TypeAlias = dict[tuple[str, str | None], dict[str, dict[int, str]]]
"""By test and prompt, then by suite and repeat."""


def _other_answers(settings: _Settings, spec: GraderSpec) -> Callable[[GradeContext], str]:
    if settings.against == "expected_output":
        if settings.against_target is not None:
            raise SettingError("against_target", "the expected output is no target's")
        return _expected
    try:
        root = spec.project_root or spec.base_dir
        folder = resolve_inside(spec.base_dir, settings.against.removeprefix("file://"), root)
        path = folder / RESULTS_FILE
        if not path.exists():
            raise ValueError(
                f"{folder}: no {RESULTS_FILE} there; expected expected_output or the folder of a "
                "run. To compare two targets, let both answer; then `muster judge pairs RUN`, or "
                "`muster grade RUN` with against: RUN and against_target: NAME"
            )
        changed = path.stat().st_mtime_ns
        answers = _recorded(folder, settings.against_target, changed)
    except (MusterError, ValueError) as error:
        raise SettingError("against", str(error)) from None
    spec.reads(path)

    def recorded(context: GradeContext) -> str:
        case = context.case
        suites = answers.get((case.id, case.prompt), {})
        found = suites.get(case.suite) or (next(iter(suites.values())) if len(suites) == 1 else {})
        if not found:
            raise GraderError(f'{folder} has no answer to the test "{case.id}"')
        return found.get(context.repeat, next(iter(found.values())))

    return recorded


def _expected(context: GradeContext) -> str:
    if context.reference_answer is None:
        raise GraderError("the test has no expected output to compare with")
    return context.reference_answer


@lru_cache(maxsize=8)
def _recorded(folder: Path, target: str | None, changed: int) -> _Answers:
    """The answers to each test; read once, unless the file has `changed`."""
    answers: _Answers = {}
    targets: dict[str, None] = {}
    for result in read_results(folder):
        targets[result.target] = None
        if target in (None, result.target) and result.output is not None:
            suites = answers.setdefault((result.test_id, result.prompt), {})
            suites.setdefault(result.suite, {}).setdefault(result.repeat, result.output)
    if target is not None and target not in targets:
        raise ValueError(f'the run has no target "{target}" (it has {", ".join(targets)})')
    if target is None and len(targets) > 1:
        raise ValueError(
            f"the run has several targets ({', '.join(targets)}); name one as against_target"
        )
    return answers
