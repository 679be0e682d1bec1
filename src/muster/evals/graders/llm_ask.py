"""A judge asked until its answer can be read, and several judges asked about one thing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, Generic, TypeVar

import msgspec

from muster.evals.graders.base import GraderError
from muster.evals.graders.llm_answer import Unreadable
from muster.evals.graders.llm_sandbox import mark_for, marked
from muster.evals.graders.workspace_files import WorkspaceFiles
from muster.evals.judging import CaseJudges
from muster.provider import Limits, ProviderRequest

__all__ = ("MAX_ATTEMPTS", "Asked", "Question", "Vote", "agreeing", "ask_all", "ask_judge")

MAX_ATTEMPTS = 3
"""Answers that a judge may give until one can be read."""

_SHOWN = 2_000
"""Characters of an answer that is shown again to the judge who gave it."""

T = TypeVar("T")


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What judges are asked about one answer."""

    system: str
    text: str
    schema: Mapping[str, Any]
    hash: str
    """Which way of asking it is; see `llm_prompt.prompt_hash`."""
    case_id: str | None = None
    max_attempts: int = MAX_ATTEMPTS
    max_turns: int | None = None
    files: WorkspaceFiles | None = None
    """What the judge may look at: with tools, if it calls them, else as the folder it works in."""


class Vote(msgspec.Struct, frozen=True):
    """Who is asked, and for the how-manieth time."""

    target: str | None
    repeat: int = 0


class Asked(msgspec.Struct, Generic[T], frozen=True):
    """What a judge said, and how it came about."""

    verdict: T
    target: str
    model: str | None
    attempts: int
    """Answers that it took."""
    hash: str

    def to_dict(self) -> dict[str, Any]:
        """The part of a score's details that says who judged."""
        return {
            "target": self.target,
            "model": self.model,
            "attempts": self.attempts,
            "prompt_hash": self.hash,
        }


async def ask_judge(
    judges: CaseJudges,
    vote: Vote,
    question: Question,
    read: Callable[[str, str | None], T],
) -> Asked[T]:
    """The judge's verdict as `read` understands its answer, which is given with the reason why it
    ended. An answer that `read` finds `Unreadable` is told to the judge, who is asked again.

    Raises:
        GraderError: the judge cannot be asked, or none of its answers could be read.
    """
    target = judges.name(vote.target)
    able = judges.capabilities(vote.target)
    structured = able.structured_output is True
    files = question.files
    looks = files is not None and able.tools is True
    text = question.text
    for attempt in range(question.max_attempts):
        response = await judges.ask(
            ProviderRequest(
                question=text,
                system_prompt=question.system,
                eval_case_id=question.case_id,
                attempt=attempt,
                response_schema=question.schema if structured else None,
                tools=files.tools if files is not None and looks else (),
                call_tool=files.call if files is not None and looks else None,
                cwd=files.root if files is not None and not looks else None,
                limits=_limits(question),
                metadata={"purpose": "judge", "repeat": str(vote.repeat)},
            ),
            vote.target,
        )
        try:
            verdict = read(response.text, response.finish_reason)
        except Unreadable as error:
            why = str(error)
            text = _again(question.text, response.text, why)
        else:
            return Asked(verdict, target, response.model, attempt + 1, question.hash)
    tries = "answer" if question.max_attempts == 1 else f"last of {question.max_attempts} answers"
    raise GraderError(
        f'judge "{target}": its {tries} is no verdict: {why} ({_clipped(response.text)})'
    )


def _limits(question: Question) -> Limits:
    return Limits() if question.max_turns is None else Limits(max_turns=question.max_turns)


def _again(question: str, answer: str, why: str) -> str:
    shown = answer[:_SHOWN]
    return (
        f"{question}\n\n[[ ## correction ## ]]\nYour last answer could not be read: {why}. "
        "It was, as a quotation:\n"
        f"{marked(shown, mark_for((shown, question)))}\n"
        "Judge again, and answer with the JSON object alone, in the form that is asked for."
    )


def _clipped(text: str) -> str:
    line = " ".join(text.split())
    if not line:
        return "it said nothing"
    return f"it said: {line if len(line) <= 120 else line[:119] + '…'}"


async def ask_all(
    judges: CaseJudges,
    votes: Sequence[Vote],
    question: Question,
    read: Callable[[str, str | None], T],
) -> list[Asked[T]]:
    """All votes, taken at the same time.

    Raises:
        GraderError: one of them is missing. All have ended by then, and are paid for.
    """
    if len(votes) == 1:
        return [await ask_judge(judges, votes[0], question, read)]
    asked = (ask_judge(judges, vote, question, read) for vote in votes)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    broken = [answer for answer in answers if isinstance(answer, BaseException)]
    for error in broken:
        if type(error) is not GraderError:  # those that say more than that a vote is missing too
            raise error
    if broken:
        told = dict.fromkeys(str(error) for error in broken)
        raise GraderError(f"{len(broken)} of {len(votes)} votes are missing: {'; '.join(told)}")
    return [answer for answer in answers if not isinstance(answer, BaseException)]


def agreeing(votes: Sequence[object]) -> float:
    """The share of all pairs of votes that are the same."""
    pairs = list(combinations(votes, 2))
    return sum(one == other for one, other in pairs) / len(pairs) if pairs else 1.0
